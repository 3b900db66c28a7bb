//! Many small pictures in one: a grid of square cells, row by row, as TensorBoard's projector reads
//! it.
//!
//! Knows pictures and cells. Does not know what a picture stands for.

use std::io::Cursor;
use std::path::Path;

use ams_data::staging::write_whole;
use ams_data::{Error, Result};
use image::{ImageFormat, Rgb, RgbImage};
use rayon::prelude::*;

use crate::decode::{Limits, decode};
use crate::thumbnail::thumbnail;

/// The longest side of a sprite, pixels; browsers draw no larger texture.
const SIDE: u32 = 8192;

const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const GREY: Rgb<u8> = Rgb([225, 225, 225]);

/// The largest side of a cell, of up to 64 pixels, with which `count` cells fit a sprite.
pub fn cell(count: usize) -> u32 {
    let columns = (count as f64).sqrt().ceil().max(1.0) as u32;
    (SIDE / columns).clamp(1, 64)
}

/// Draws the picture files `names` in `folder` as the PNG file `to`, cells of `cell` pixels in a
/// square grid. A picture that is not named or cannot be read is a grey cell; how many these are.
///
/// # Errors
/// If the file cannot be written.
pub fn write_sprite(folder: &Path, names: &[Option<&str>], cell: u32, to: &Path) -> Result<usize> {
    let columns = (names.len() as f64).sqrt().ceil().max(1.0) as u32;
    let limits = Limits::default();
    let small = |name: &Option<&str>| {
        let jpeg = thumbnail(folder, (*name)?, cell, &limits).ok()?;
        let picture = decode(&jpeg, &limits).ok()?;
        RgbImage::from_raw(picture.width, picture.height, picture.pixels)
    };
    let pictures: Vec<Option<RgbImage>> = names.par_iter().map(small).collect();
    let mut sprite = RgbImage::from_pixel(columns * cell, columns * cell, WHITE);
    for (at, picture) in (0u32..).zip(&pictures) {
        let (left, top) = (i64::from(at % columns * cell), i64::from(at / columns * cell));
        match picture {
            None => {
                let grey = RgbImage::from_pixel(cell, cell, GREY);
                image::imageops::replace(&mut sprite, &grey, left, top);
            }
            Some(picture) => {
                let middle = |side: u32| i64::from((cell - side.min(cell)) / 2);
                let (right, down) = (middle(picture.width()), middle(picture.height()));
                image::imageops::replace(&mut sprite, picture, left + right, top + down);
            }
        }
    }
    let mut png = Vec::new();
    let drawn = sprite.write_to(&mut Cursor::new(&mut png), ImageFormat::Png);
    drawn.map_err(|error| Error::content(to, error.to_string()))?;
    write_whole(to, png)?;
    Ok(pictures.iter().filter(|picture| picture.is_none()).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_in_the_order_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let colors = [[200, 30, 30], [30, 200, 30], [30, 30, 200]];
        for (at, color) in colors.iter().enumerate() {
            let picture = RgbImage::from_pixel(40, 40, Rgb(*color));
            picture.save(folder.path().join(format!("{at}.png"))).unwrap();
        }
        let names = [Some("0.png"), Some("1.png"), None, Some("2.png"), Some("lost.png")];
        let to = folder.path().join("sprite.png");
        assert_eq!(write_sprite(folder.path(), &names, 10, &to).unwrap(), 2);
        let sprite = image::open(&to).unwrap().to_rgb8();
        // Five cells are a grid of three by three.
        assert_eq!(sprite.dimensions(), (30, 30));
        let expected = [colors[0], colors[1], GREY.0, colors[2], GREY.0, WHITE.0];
        for (at, expected) in (0u32..).zip(expected) {
            let found = sprite.get_pixel(at % 3 * 10 + 5, at / 3 * 10 + 5).0;
            let is_near = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 8);
            assert!(is_near, "cell {at}: {found:?} {expected:?}");
        }
    }

    #[test]
    fn a_sprite_fits_a_texture() {
        for count in [0, 1, 2, 1000, 16_384, 16_385, 100_000] {
            let columns = (count as f64).sqrt().ceil() as u32;
            assert!(columns * cell(count) <= SIDE && cell(count) > 0, "{count}");
        }
        assert_eq!((cell(100), cell(16_384)), (64, 64));
    }
}
