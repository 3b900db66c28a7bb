//! From pixels to fewer (or more) pixels.
//!
//! Knows filters, antialiased, and parts of a picture. Does not know what size is good for what.

pub use fast_image_resize::Resizer;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions};

use crate::decode::Rgb;

/// The weights of the pixels around a point. Both are as wide as the reduction, so that nothing
/// aliases, and both are what Pillow computes under these names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle filter, two pixels wide where the scale is 1.
    Bilinear,
    /// Cubic pieces with a = -0.5 (Catmull-Rom).
    Bicubic,
}

/// A rectangle of a picture, in its pixels; edges may lie between pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// From the left edge.
    pub left: f64,
    /// Distance from the top, in pixels.
    pub top: f64,
    /// In pixels, above 0.
    pub width: f64,
    /// In pixels, above 0.
    pub height: f64,
}

impl Part {
    /// The part that covers all of `picture`.
    pub fn whole(picture: &Rgb) -> Part {
        Part {
            left: 0.0,
            top: 0.0,
            width: f64::from(picture.width),
            height: f64::from(picture.height),
        }
    }
}

/// Resizes a part of the picture to `[width, height]`; the aspect is not kept. Pixels beyond the
/// part's edges, but in the picture, count as far as the filter reaches. `out` becomes `width *
/// height * 3` bytes.
pub fn resize(
    resizer: &mut Resizer,
    picture: &Rgb,
    part: Part,
    [width, height]: [u32; 2],
    filter: Filter,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.resize(width as usize * height as usize * 3, 0);
    // With types that say what a pixel is, only the code for such pixels is compiled.
    let source = TypedImageRef::<U8x3>::from_buffer(picture.width, picture.height, &picture.pixels)
        .expect("as many pixels as width and height say");
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, out)
        .expect("as many pixels as width and height say");
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(
        part.left,
        part.top,
        part.width,
        part.height,
    );
    resizer.resize_typed(&source, &mut target, &options).expect("a part inside the picture");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(width: u32, height: u32, value: impl Fn(u32, u32) -> u8, to: u32) -> Vec<u8> {
        let pixels = (0..width * height)
            .flat_map(|at| [value(at % width, at / width); 3])
            .collect::<Vec<u8>>();
        let mut out = vec![1, 2, 3];
        let picture = Rgb { width, height, pixels };
        let part = Part::whole(&picture);
        resize(&mut Resizer::new(), &picture, part, [to, to], Filter::Bilinear, &mut out);
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
