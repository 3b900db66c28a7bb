//! Which images are near another one, by its feature or by any other vector, and a sheet to look at
//! them.
//!
//! Nearness is the cosine, computed with every image there is: exact, and quick enough for looking
//! at single pictures.
//!
//! Knows vectors, keys and pixels. Does not know where a vector came from.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use ams_data::staging::write_whole;
use ams_data::{Error, ImageKey, Result};
use image::imageops::FilterType;
use image::{ImageBuffer, ImageFormat, Rgb, RgbImage};
use rayon::prelude::*;

use crate::decode::{Limits, decode};
use crate::manifest::read_pictures;
use crate::picture_file::PictureFolder;
use crate::store::FeatureStore;

/// Side of a cell of a sheet, pixels.
const CELL: u32 = 128;

const GAP: u32 = 8;

/// Height of the bar below a picture, pixels.
const BAR: u32 = 6;

const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const GREY: Rgb<u8> = Rgb([225, 225, 225]);
const BLUE: Rgb<u8> = Rgb([40, 90, 200]);

/// An image near another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Key of the image that is near.
    pub key: ImageKey,
    /// Cosine of the vectors of both images.
    pub cosine: f32,
}

/// The `count` images of `keys` whose vectors have the largest cosine with that of `key`, largest
/// first; equal ones by key. `vector` overwrites its argument with the vector of an image, or says
/// that there is none. Empty, if `key` has none.
pub fn nearest(
    key: ImageKey,
    keys: &[ImageKey],
    count: usize,
    vector: impl Fn(ImageKey, &mut Vec<f32>) -> bool + Sync,
) -> Vec<Neighbor> {
    let mut query = Vec::new();
    if !vector(key, &mut query) {
        return Vec::new();
    }
    let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let of_query = length(&query);
    let cosine = |other: &mut Vec<f32>, at: &ImageKey| {
        if *at == key || !vector(*at, other) {
            return None;
        }
        let product = query.iter().zip(&*other).map(|(a, b)| f64::from(*a) * f64::from(*b));
        let lengths = of_query * length(other);
        let cosine = if lengths > 0.0 { product.sum::<f64>() / lengths } else { 0.0 };
        Some(Neighbor { key: *at, cosine: cosine as f32 })
    };
    let found = keys.par_iter().map_init(Vec::new, cosine).collect::<Vec<Option<_>>>();
    let mut found: Vec<Neighbor> = found.into_iter().flatten().collect();
    found.sort_by(|a, b| b.cosine.total_cmp(&a.cosine).then(a.key.cmp(&b.key)));
    found.truncate(count);
    found
}

/// Every image of a store, ascending.
pub fn keys(store: &FeatureStore) -> Vec<ImageKey> {
    (0..store.card().parts).flat_map(|part| store.keys(part)).copied().collect()
}

/// Overwrites `out` with the feature of an image; whether there is one.
pub fn feature(store: &FeatureStore, key: ImageKey, out: &mut Vec<f32>) -> bool {
    out.clear();
    let row = store.row(key);
    out.extend(
        row.iter().flat_map(|row| row.halfs().iter().map(|it| it.to_f32()).collect::<Vec<f32>>()),
    );
    row.is_some()
}

/// A name for each image of the store in `dir`: the first of those that show it.
///
/// # Errors
/// If the manifest cannot be read.
pub fn names(dir: &Path, store: &FeatureStore) -> Result<HashMap<ImageKey, String>> {
    let mut names = HashMap::new();
    for picture in read_pictures(&dir.join(store.card().pictures_file()))? {
        if picture.key.is_some() {
            names.entry(picture.key).or_insert(picture.name);
        }
    }
    Ok(names)
}

/// A picture of a sheet with those that are near it.
pub struct Line {
    /// Name of the picture that opens the line.
    pub picture: String,
    /// The pictures near it, in their order on the sheet.
    pub near: Vec<Near>,
}

/// A picture that is near another one.
pub struct Near {
    /// Name of the picture, as in the manifest.
    pub picture: String,
    /// Its cosine with the first picture of the line.
    pub cosine: f32,
}

/// Draws [`sheet`] as the PNG file `to`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_sheet(images: &Path, lines: &[Line], to: &Path) -> Result<()> {
    let mut png = Vec::new();
    let drawn = sheet(&PictureFolder::new(images), lines)
        .write_to(&mut Cursor::new(&mut png), ImageFormat::Png);
    drawn.map_err(|error| Error::content(to, error.to_string()))?;
    write_whole(to, png)
}

/// Draws the pictures in the folder `images`, a line for each of `lines`; below each a bar as long
/// as its cosine. A picture that cannot be read is a grey cell.
fn sheet(images: &PictureFolder, lines: &[Line]) -> RgbImage {
    let cells = lines.iter().map(|line| line.near.len() as u32 + 1).max().unwrap_or(1);
    let (width, height) = (CELL + GAP, CELL + BAR + 2 * GAP);
    let size = (GAP + cells * width + GAP, GAP + lines.len() as u32 * height);
    let mut sheet = ImageBuffer::from_pixel(size.0, size.1, WHITE);
    for (row, Line { picture, near }) in lines.iter().enumerate() {
        let top = GAP + row as u32 * height;
        paint(&mut sheet, [GAP, top], &thumbnail(images, picture));
        // A line between the picture and what is near it.
        fill(&mut sheet, [GAP + width - 1, top], [2, CELL], BLUE);
        for (at, Near { picture, cosine }) in near.iter().enumerate() {
            let left = 2 * GAP + (at as u32 + 1) * width;
            paint(&mut sheet, [left, top], &thumbnail(images, picture));
            let below = [left, top + CELL + GAP / 2];
            fill(&mut sheet, below, [CELL, BAR], GREY);
            let long = (cosine.clamp(0.0, 1.0) * CELL as f32).round() as u32;
            fill(&mut sheet, below, [long, BAR], BLUE);
        }
    }
    sheet
}

/// The picture in a cell of its own, as large as fits.
fn thumbnail(images: &PictureFolder, name: &str) -> RgbImage {
    let mut cell = ImageBuffer::from_pixel(CELL, CELL, GREY);
    let limits = Limits::default();
    let picture = images.read(name, &limits).and_then(|(bytes, _)| decode(&bytes, &limits));
    let Ok(picture) = picture else { return cell };
    let longest = picture.width.max(picture.height);
    let side = |side: u32| (u64::from(side) * u64::from(CELL) / u64::from(longest)).max(1) as u32;
    let (width, height) = (side(picture.width), side(picture.height));
    if let Some(large) = RgbImage::from_raw(picture.width, picture.height, picture.pixels) {
        let small = image::imageops::resize(&large, width, height, FilterType::Triangle);
        cell = ImageBuffer::from_pixel(CELL, CELL, WHITE);
        paint(&mut cell, [(CELL - width) / 2, (CELL - height) / 2], &small);
    }
    cell
}

fn paint(sheet: &mut RgbImage, [left, top]: [u32; 2], picture: &RgbImage) {
    image::imageops::replace(sheet, picture, i64::from(left), i64::from(top));
}

fn fill(sheet: &mut RgbImage, from: [u32; 2], [width, height]: [u32; 2], color: Rgb<u8>) {
    paint(sheet, from, &ImageBuffer::from_pixel(width, height, color));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_are_those_of_largest_cosine() {
        let vectors = [[1.0, 0.0], [2.0, 0.1], [0.0, 3.0], [-1.0, 0.0], [4.0, 0.2], [0.0, 0.0]];
        let keys: Vec<ImageKey> = (1..=6).map(ImageKey).collect();
        let vector = |key: ImageKey, out: &mut Vec<f32>| {
            out.clear();
            out.extend(vectors[key.0 as usize - 1]);
            key.0 != 4
        };
        let near = nearest(ImageKey(1), &keys, 3, vector);
        let order: Vec<u64> = near.iter().map(|it| it.key.0).collect();
        // 2 and 5 point the same way; 3 is at a right angle, as is nothing at all.
        assert_eq!(order, [2, 5, 3]);
        assert!((near[0].cosine - 0.998_752).abs() < 1e-5 && near[2].cosine == 0.0, "{near:?}");
        assert_eq!(nearest(ImageKey(4), &keys, 3, vector), []);
    }

    #[test]
    fn a_sheet_has_a_cell_per_picture_and_a_bar_as_long_as_its_cosine() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::from_pixel(10, 5, Rgb([250, 0, 0])).save(folder.path().join("red.png")).unwrap();
        let near = |picture: &str, cosine| Near { picture: picture.into(), cosine };
        let drawn = sheet(
            &PictureFolder::new(folder.path()),
            &[Line {
                picture: "red.png".into(),
                near: vec![near("red.png", 0.5), near("gone.png", 1.0)],
            }],
        );
        assert_eq!(drawn.dimensions(), (2 * GAP + 3 * (CELL + GAP), GAP + CELL + BAR + 2 * GAP));
        let at = |x: u32, y: u32| *drawn.get_pixel(x, y);
        let red = Rgb([250, 0, 0]);
        assert_eq!((at(GAP + CELL / 2, GAP + CELL / 2), at(GAP + 3, GAP + 3)), (red, WHITE));
        let second = 2 * GAP + CELL + GAP;
        let bar = GAP + CELL + GAP / 2 + 1;
        assert_eq!((at(second + CELL / 2 - 2, bar), at(second + CELL / 2 + 2, bar)), (BLUE, GREY));
        let third = second + CELL + GAP;
        assert_eq!((at(third + 5, GAP + 5), at(third + CELL - 1, bar)), (GREY, BLUE));
    }
}
