//! From bytes to pixels, whatever the bytes are.
//!
//! Knows picture formats and limits. Does not know where bytes come from or what the pixels are
//! for.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::{ImageError, LimitError};
use image::{DynamicImage, ImageDecoder, ImageReader};

use crate::failure::{Failure, NOT_DECODED, Reason};
use crate::jpeg::first_picture;
use crate::kind::Kind;

/// How much one picture may cost. The memory is needed once per thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest picture file, bytes.
    pub file_bytes: u64,
    /// Most pixels, width x height, of a decoded picture.
    pub pixels: u64,
    /// Most bytes a decoder may allocate.
    pub alloc_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { file_bytes: 64 << 20, pixels: 64_000_000, alloc_bytes: 512 << 20 }
    }
}

/// A picture: 8-bit RGB, row by row from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels per row, at least 1.
    pub width: u32,
    /// Rows, at least 1.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub pixels: Vec<u8>,
}

/// Decodes a JPEG, PNG, GIF (first frame), BMP, WebP or, with the feature `tiff`, TIFF, told apart
/// by content, not by name. What follows the first picture in a file does not matter.
///
/// Orientation from EXIF is applied; grey, palette, 16-bit and CMYK become RGB; transparency is
/// laid over white, as a shop's page would show it. Fails with a reason, never panics.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Rgb, Failure> {
    if bytes.is_empty() {
        return Err(Failure::new(Reason::Empty, "the file has no bytes"));
    }
    if bytes.len() as u64 > limits.file_bytes {
        let (came, most) = (bytes.len(), limits.file_bytes);
        return Err(Failure::new(
            Reason::TooLarge,
            format!("{came} bytes, at most {most} allowed"),
        ));
    }
    // Decoders are written by others, pictures by strangers: a panic in one is a corrupt picture.
    catch_unwind(AssertUnwindSafe(|| decode_any(bytes, limits))).unwrap_or_else(|_| {
        Err(Failure::new(Reason::Corrupt, "the decoder gave up on the file (panic caught)"))
    })
}

fn decode_any(bytes: &[u8], limits: &Limits) -> Result<Rgb, Failure> {
    let kind = Kind::of(bytes);
    if let Some(kind) = kind.filter(|kind| !kind.is_decoded()) {
        return Err(Failure::new(Reason::Unsupported, unsupported(kind)));
    }
    // A second picture or a film behind the first one is nobody's; the decoder would fill what is
    // cut short with grey.
    let bytes = match kind {
        Some(Kind::Jpeg) => first_picture(bytes)?,
        _ => bytes,
    };
    let mut reader = ImageReader::new(Cursor::new(bytes));
    match kind.and_then(Kind::format) {
        Some(format) => reader.set_format(format),
        None => {
            reader = reader
                .with_guessed_format()
                .map_err(|error| Failure::new(Reason::Corrupt, error.to_string()))?;
        }
    }
    if reader.format().is_none() {
        let start = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let detail = format!("not a JPEG, PNG, GIF, BMP or WebP: begins with {start}");
        return Err(Failure::new(Reason::Unsupported, detail));
    }
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(limits.alloc_bytes);
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(failure)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > limits.pixels {
        let detail = format!("{width} x {height} pixels, at most {} allowed", limits.pixels);
        return Err(Failure::new(Reason::TooLarge, detail));
    }
    if width == 0 || height == 0 {
        return Err(Failure::new(Reason::Corrupt, format!("{width} x {height} pixels")));
    }
    // A picture with an unreadable EXIF block is still a picture.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failure)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(over_white(picture))
}

/// Why a picture of this format has no pixels here, and what to do.
fn unsupported(kind: Kind) -> String {
    let name = kind.name();
    match kind {
        Kind::Tiff => format!(
            "{name}{NOT_DECODED}: {}; or convert it to JPEG, PNG or WebP",
            ams_data::built_without("tiff")
        ),
        _ => format!("{name}{NOT_DECODED} here; convert it to JPEG, PNG or WebP"),
    }
}

fn over_white(picture: DynamicImage) -> Rgb {
    let (width, height) = (picture.width(), picture.height());
    if !picture.color().has_alpha() {
        return Rgb { width, height, pixels: picture.into_rgb8().into_raw() };
    }
    let blend = |value: u8, alpha: u8| {
        let alpha = u32::from(alpha);
        ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    for [red, green, blue, alpha] in picture.into_rgba8().into_raw().as_chunks().0 {
        pixels.extend([blend(*red, *alpha), blend(*green, *alpha), blend(*blue, *alpha)]);
    }
    Rgb { width, height, pixels }
}

fn failure(error: ImageError) -> Failure {
    let reason = match &error {
        ImageError::Unsupported(_) => Reason::Unsupported,
        ImageError::Limits(_) => Reason::TooLarge,
        // Some decoders wrap a limit of theirs as a fault of the file.
        ImageError::Decoding(inner) if wraps_limit(inner) => Reason::TooLarge,
        _ => Reason::Corrupt,
    };
    Failure::new(reason, error.to_string())
}

fn wraps_limit(error: &image::error::DecodingError) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<LimitError>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ColorType, ExtendedColorType, ImageEncoder};

    fn png(width: u32, height: u32, color: ColorType, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut out);
        encoder.write_image(bytes, width, height, ExtendedColorType::from(color)).unwrap();
        out
    }

    fn jpeg() -> Vec<u8> {
        let mut out = Vec::new();
        let pixels =
            (0..64 * 48).flat_map(|at| [at as u8, (at / 64) as u8, 90]).collect::<Vec<u8>>();
        let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 95);
        encoder.write_image(&pixels, 64, 48, ExtendedColorType::Rgb8).unwrap();
        out
    }

    /// The JPEG with an EXIF block that says "rotate a quarter turn".
    fn rotated_jpeg() -> Vec<u8> {
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let plain = jpeg();
        let mut out = plain[..2].to_vec();
        out.extend([0xff, 0xe1]);
        out.extend((exif.len() as u16 + 2).to_be_bytes());
        out.extend(exif);
        out.extend(&plain[2..]);
        out
    }

    /// A palette BMP of one pixel, color 1 of black and (10, 20, 30), written by hand.
    fn palette_bmp() -> Vec<u8> {
        let mut bmp = b"BM".to_vec();
        for word in [0u32, 0, 62, 40, 1, 1, 1 | 8 << 16, 0, 4, 0, 0, 2, 0, 0, 0x000a_141e, 0] {
            bmp.extend(word.to_le_bytes());
        }
        bmp.truncate(62);
        bmp.extend([1, 0, 0, 0]);
        bmp
    }

    /// A PNG header that promises 60,000 x 60,000 pixels.
    fn bomb() -> Vec<u8> {
        let mut out = png(1, 1, ColorType::L8, &[0]);
        out[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        out[20..24].copy_from_slice(&60_000u32.to_be_bytes());
        let mut crc = !0u32;
        for byte in &out[12..29] {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        out[29..33].copy_from_slice(&(!crc).to_be_bytes());
        out
    }

    fn check(bytes: &[u8]) -> Result<(u32, u32, [u8; 3]), Reason> {
        decode(bytes, &Limits::default())
            .map(|picture| {
                assert_eq!(picture.pixels.len() as u32, picture.width * picture.height * 3);
                let first = [picture.pixels[0], picture.pixels[1], picture.pixels[2]];
                (picture.width, picture.height, first)
            })
            .map_err(|failure| failure.reason)
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        assert_eq!(check(&png(1, 1, ColorType::L8, &[7])), Ok((1, 1, [7, 7, 7])));
        assert_eq!(check(&png(2, 1, ColorType::Rgb8, &[1, 2, 3, 4, 5, 6])), Ok((2, 1, [1, 2, 3])));
        assert_eq!(check(&png(1, 1, ColorType::L16, &[0, 128])), Ok((1, 1, [128; 3])));
        assert_eq!(
            check(&png(1, 1, ColorType::Rgb16, &[0, 9, 0, 8, 0, 255])),
            Ok((1, 1, [9, 8, 254]))
        );
        assert_eq!(check(&palette_bmp()), Ok((1, 1, [10, 20, 30])));
    }

    #[test]
    fn transparency_lies_over_white() {
        assert_eq!(check(&png(1, 1, ColorType::Rgba8, &[9, 9, 9, 0])), Ok((1, 1, [255; 3])));
        assert_eq!(
            check(&png(1, 1, ColorType::Rgba8, &[0, 51, 255, 128])),
            Ok((1, 1, [127, 153, 255]))
        );
        assert_eq!(check(&png(1, 1, ColorType::La8, &[0, 255])), Ok((1, 1, [0; 3])));
    }

    #[test]
    fn exif_orientation_turns_the_picture() {
        assert_eq!(check(&jpeg()).map(|(width, height, _)| (width, height)), Ok((64, 48)));
        assert_eq!(check(&rotated_jpeg()).map(|(width, height, _)| (width, height)), Ok((48, 64)));
    }

    #[test]
    fn what_is_no_picture_fails_with_a_reason() {
        assert_eq!(check(b""), Err(Reason::Empty));
        assert_eq!(check(b"hello, I am a text"), Err(Reason::Unsupported));
        assert_eq!(check(b"\x89PNG\r\n\x1a\n"), Err(Reason::Corrupt));
        assert_eq!(check(&bomb()), Err(Reason::TooLarge));
        let tiny = Limits { file_bytes: 10, ..Limits::default() };
        assert_eq!(decode(&jpeg(), &tiny).unwrap_err().reason, Reason::TooLarge);
    }

    #[test]
    fn cut_short_anywhere_is_corrupt() {
        let png = png(8, 8, ColorType::Rgb8, &(0..192).collect::<Vec<u8>>());
        let jpeg = jpeg();
        // A PNG's last chunk (IEND, 12 bytes) holds no pixels.
        for cut in [10, png.len() / 2, png.len() - 20] {
            assert_eq!(check(&png[..cut]), Err(Reason::Corrupt), "png cut at {cut}");
        }
        for cut in [3, jpeg.len() / 2, jpeg.len() - 2] {
            assert_eq!(check(&jpeg[..cut]), Err(Reason::Corrupt), "jpeg cut at {cut}");
        }
    }

    /// The picture of [`jpeg`] in every format that is written here.
    fn formats() -> Vec<(&'static str, Vec<u8>)> {
        let picture = DynamicImage::ImageRgb8(image::RgbImage::from_fn(64, 48, |x, y| {
            image::Rgb([x as u8 * 3, y as u8 * 5, 90])
        }));
        let written = |format| {
            let mut out = Cursor::new(Vec::new());
            picture.write_to(&mut out, format).unwrap();
            out.into_inner()
        };
        use image::ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
        let formats = [("JPEG", Jpeg), ("PNG", Png), ("GIF", Gif), ("BMP", Bmp), ("WebP", WebP)];
        formats.map(|(name, format)| (name, written(format))).to_vec()
    }

    #[test]
    fn what_follows_the_first_picture_does_not_matter() {
        let film = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42\xff\xda\0\x08\xff\xd9\xff\xda";
        for (name, bytes) in formats() {
            let alone = decode(&bytes, &Limits::default()).unwrap();
            for behind in [&film[..], b"PK\x03\x04", b"\0", b"\r\n", &bytes, &bytes[..40]] {
                let both = [&bytes[..], behind].concat();
                assert_eq!(decode(&both, &Limits::default()), Ok(alone.clone()), "{name}");
            }
            // A picture that was cut short is not made whole by what follows.
            for cut in [bytes.len() / 4, bytes.len() / 2, bytes.len() * 3 / 4] {
                assert_eq!(check(&bytes[..cut]), Err(Reason::Corrupt), "{name} cut at {cut}");
            }
        }
        let jpeg = jpeg();
        let cut = [&jpeg[..jpeg.len() / 2], film].concat();
        assert_eq!(check(&cut), Err(Reason::Corrupt), "a film behind half a JPEG");
    }

    #[test]
    fn formats_that_are_not_decoded_are_named() {
        let named = |bytes: &[u8]| {
            let failure = decode(bytes, &Limits::default()).unwrap_err();
            assert_eq!(failure.reason, Reason::Unsupported);
            failure.detail
        };
        assert!(named(b"\0\0\0\x1cftypavif\0\0\0\0mif1avif").starts_with("AVIF: not decoded here"));
        assert!(named(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic").starts_with("HEIC: not decoded here"));
        // A frame of 12 bits a color: the precision is 4 bytes behind the marker.
        let mut deep = jpeg();
        let frame = deep.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        deep[frame + 4] = 12;
        assert!(named(&deep).starts_with("JPEG of 12 bits a color: not decoded here"));
        deep[frame + 1] = 0xc9;
        assert!(named(&deep).starts_with("JPEG with arithmetic coding: not decoded here"));
    }

    #[cfg(feature = "tiff")]
    #[test]
    fn tiff_is_decoded() {
        let picture =
            DynamicImage::ImageRgb8(image::RgbImage::from_pixel(3, 2, image::Rgb([9, 8, 7])));
        let mut out = Cursor::new(Vec::new());
        picture.write_to(&mut out, image::ImageFormat::Tiff).unwrap();
        assert_eq!(check(&out.into_inner()), Ok((3, 2, [9, 8, 7])));
    }

    #[cfg(not(feature = "tiff"))]
    #[test]
    fn tiff_names_the_feature() {
        let failure = decode(b"II*\0\x08\0\0\0", &Limits::default()).unwrap_err();
        assert!(
            failure.detail.starts_with(
                "TIFF: not decoded: this program was built without tiff; build it with"
            )
        );
    }

    /// What the fuzzer begins with, by name.
    fn seeds() -> Vec<(String, Vec<u8>)> {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/picture");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut seeds =
            files.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect::<Vec<_>>();
        seeds.sort();
        seeds
    }

    #[test]
    fn every_format_is_read_and_turned() {
        for (name, bytes) in seeds() {
            let expected = match name.as_str() {
                "bomb.png" => Err(Reason::TooLarge),
                "text.txt" | "page.html" | "head.avif" | "deep.jpg" | "arithmetic.jpg" => {
                    Err(Reason::Unsupported)
                }
                "strips.tif" if !Kind::Tiff.is_decoded() => Err(Reason::Unsupported),
                "truncated.jpg" | "cut-with-film.jpg" => Err(Reason::Corrupt),
                "turned.jpg" => Ok((14, 20)),
                "line.png" => Ok((1, 300)),
                "one.png" => Ok((1, 1)),
                _ => Ok((20, 14)),
            };
            assert_eq!(check(&bytes).map(|(width, height, _)| (width, height)), expected, "{name}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(256))]
        #[test]
        fn no_bytes_make_it_panic(
            flips in proptest::collection::vec((0usize..2000, 0u8..=255), 1..8),
            which in 0usize..1000,
        ) {
            let mut seeds = seeds();
            let at = which % seeds.len();
            let mut bytes = seeds.swap_remove(at).1;
            for (at, value) in flips {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            if let Ok(picture) = decode(&bytes, &Limits::default()) {
                assert_eq!(picture.pixels.len() as u32, picture.width * picture.height * 3);
            }
        }
    }
}
