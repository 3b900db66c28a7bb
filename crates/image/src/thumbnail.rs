//! Pictures to look at, made small: whole, never larger than they are, as JPEG.
//!
//! Knows pictures and sizes. Does not know who looks.

use std::path::Path;

use fast_image_resize::Resizer;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use crate::decode::{Limits, decode};
use crate::failure::{Failure, Reason};
use crate::picture_file::read;
use crate::resize::{Filter, Part, resize};

/// How good the JPEG is, of 100: what differs from the picture cannot be seen at its size.
const QUALITY: u8 = 88;

/// The picture file `name` in `folder` as a JPEG of up to `side` x `side` pixels.
///
/// # Errors
/// As for [`decode`], and if `name` leads out of the folder or is not to be read.
pub fn thumbnail(
    folder: &Path,
    name: &str,
    side: u32,
    limits: &Limits,
) -> Result<Vec<u8>, Failure> {
    let picture = decode(&read(folder, name, limits)?, limits)?;
    let longest = picture.width.max(picture.height).max(side);
    let size = [picture.width, picture.height]
        .map(|of| (u64::from(of) * u64::from(side) / u64::from(longest)).max(1) as u32);
    let mut pixels = Vec::new();
    let part = Part::whole(&picture);
    resize(&mut Resizer::new(), &picture, part, size, Filter::Bilinear, &mut pixels);
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode(&pixels, size[0], size[1], ExtendedColorType::Rgb8)
        .map_err(|error| Failure::new(Reason::Corrupt, error.to_string()))?;
    Ok(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};

    #[test]
    fn it_is_the_whole_picture_and_never_larger_than_it() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        for (size, expected) in [
            ((300, 150), (80, 40)),
            ((20, 30), (20, 30)),
            ((4000, 1), (80, 1)),
            ((80, 80), (80, 80)),
        ] {
            let picture = RgbImage::from_pixel(size.0, size.1, Rgb([200, 40, 90]));
            picture.save(folder.path().join("a.png")).unwrap();
            let jpeg = thumbnail(folder.path(), "a.png", 80, &limits).unwrap();
            let small = decode(&jpeg, &limits).unwrap();
            assert_eq!((small.width, small.height), expected);
            for (got, expected) in small.pixels.iter().zip([200u8, 40, 90].into_iter().cycle()) {
                assert!(got.abs_diff(expected) < 4, "{got} of {expected}");
            }
        }
        let refused = |name| thumbnail(folder.path(), name, 80, &limits).unwrap_err().reason;
        assert_eq!(refused("../a.png"), Reason::Outside);
        assert_eq!(refused("b.png"), Reason::Missing);
    }
}
