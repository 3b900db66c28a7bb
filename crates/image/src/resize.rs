//! From pixels to fewer (or more) pixels.
//!
//! Knows one way of resizing, antialiased. Does not know what size is good for what.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::Rgb;

/// Resizes the whole picture to `width` x `height` (the aspect is not kept) with a triangle filter as
/// wide as the reduction, so that nothing aliases. `out` becomes `width * height * 3` bytes.
pub fn resize(resizer: &mut Resizer, picture: &Rgb, width: u32, height: u32, out: &mut Vec<u8>) {
    let source = ImageRef::new(picture.width, picture.height, &picture.pixels, PixelType::U8x3)
        .expect("as many pixels as width and height say");
    let mut bytes = std::mem::take(out);
    bytes.resize(width as usize * height as usize * 3, 0);
    let mut target = Image::from_vec_u8(width, height, bytes, PixelType::U8x3)
        .expect("as many pixels as width and height say");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    resizer.resize(&source, &mut target, &options).expect("both pictures are 8-bit RGB");
    *out = target.into_vec();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(width: u32, height: u32, value: impl Fn(u32, u32) -> u8, to: u32) -> Vec<u8> {
        let pixels = (0..width * height)
            .flat_map(|at| [value(at % width, at / width); 3])
            .collect::<Vec<u8>>();
        let mut out = vec![1, 2, 3];
        resize(&mut Resizer::new(), &Rgb { width, height, pixels }, to, to, &mut out);
        out
    }

    #[test]
    fn one_color_stays_that_color_at_any_size() {
        for (width, height) in [(1, 1), (1, 500), (300, 2), (64, 64)] {
            assert_eq!(resized(width, height, |_, _| 77, 8), vec![77; 8 * 8 * 3]);
        }
    }

    #[test]
    fn a_fine_checkerboard_becomes_grey_not_moire() {
        let out = resized(128, 128, |x, y| if (x + y) % 2 == 0 { 255 } else { 0 }, 10);
        assert!(out.iter().all(|value| (120..=136).contains(value)), "{out:?}");
    }
}
