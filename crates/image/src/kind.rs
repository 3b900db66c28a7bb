//! What a file is, by its first bytes: the picture formats that are met, decoded here or not.
//!
//! Knows how formats begin. Does not know what follows, nor how files are called.

use image::ImageFormat;

/// As many first bytes as it takes to tell.
pub(crate) const START: usize = 512;

/// A picture format, found by the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// JPEG, also as `.jfif`, `.jpe`.
    Jpeg,
    /// PNG, which is decoded.
    Png,
    /// GIF, of which the first frame is decoded.
    Gif,
    /// Windows bitmap, which is decoded.
    Bmp,
    /// WebP, which is decoded.
    WebP,
    /// TIFF, also what cameras keep as raw files.
    Tiff,
    /// AVIF, which is recognized and not decoded.
    Avif,
    /// HEIF with HEVC, as phones take it.
    Heic,
    /// JPEG XL, which is recognized and not decoded.
    JpegXl,
    /// JPEG 2000, which is recognized and not decoded.
    Jpeg2000,
    /// Photoshop, which is recognized and not decoded.
    Photoshop,
    /// Icons and cursors, which are recognized and not decoded.
    Icon,
    /// SVG, which has no pixels.
    Svg,
    /// PBM, PGM, PPM, PAM.
    Netpbm,
    /// A PNG that Xcode changed for iPhones, and that only Apple's decoder reads.
    XcodePng,
}

impl Kind {
    /// The format of a file that begins like this; nothing if it is no picture, as far as can be
    /// told.
    pub(crate) fn of(start: &[u8]) -> Option<Kind> {
        let at =
            |from: usize, bytes: &[u8]| start.get(from..).is_some_and(|it| it.starts_with(bytes));
        let kind = match start {
            [0xff, 0xd8, 0xff, ..] => Kind::Jpeg,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
                if at(12, b"CgBI") {
                    Kind::XcodePng
                } else {
                    Kind::Png
                }
            }
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Kind::Gif,
            [b'B', b'M', ..] if is_bitmap(start) => Kind::Bmp,
            [b'R', b'I', b'F', b'F', ..] if at(8, b"WEBP") => Kind::WebP,
            [b'I', b'I', 0x2a | 0x2b, 0, ..] | [b'M', b'M', 0, 0x2a | 0x2b, ..] => Kind::Tiff,
            [0xff, 0x0a, ..] => Kind::JpegXl,
            [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => Kind::JpegXl,
            [0, 0, 0, 0x0c, b'j', b'P', b' ', b' ', ..] => Kind::Jpeg2000,
            [0xff, 0x4f, 0xff, 0x51, ..] => Kind::Jpeg2000,
            [b'8', b'B', b'P', b'S', 0, 1 | 2, ..] => Kind::Photoshop,
            [0, 0, 1 | 2, 0, count, 0, _, _, _, 0, ..] if *count > 0 => Kind::Icon,
            [b'P', b'1'..=b'7', b' ' | b'\n' | b'\r' | b'\t', b'0'..=b'9' | b'#' | b'W', ..] => {
                Kind::Netpbm
            }
            _ if at(4, b"ftyp") => return of_brands(start),
            _ if is_svg(start) => Kind::Svg,
            _ => return None,
        };
        Some(kind)
    }

    /// Whether pictures of this format are decoded here.
    pub(crate) fn is_decoded(self) -> bool {
        matches!(self, Kind::Jpeg | Kind::Png | Kind::Gif | Kind::Bmp | Kind::WebP)
            || cfg!(feature = "tiff") && self == Kind::Tiff
    }

    /// The name for reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Jpeg => "JPEG",
            Kind::Png => "PNG",
            Kind::Gif => "GIF",
            Kind::Bmp => "BMP",
            Kind::WebP => "WebP",
            Kind::Tiff => "TIFF",
            Kind::Avif => "AVIF",
            Kind::Heic => "HEIC",
            Kind::JpegXl => "JPEG XL",
            Kind::Jpeg2000 => "JPEG 2000",
            Kind::Photoshop => "Photoshop",
            Kind::Icon => "ICO",
            Kind::Svg => "SVG",
            Kind::Netpbm => "Netpbm",
            Kind::XcodePng => "PNG for Xcode (CgBI)",
        }
    }

    /// The decoder's name for it.
    pub(crate) fn format(self) -> Option<ImageFormat> {
        match self {
            Kind::Jpeg => Some(ImageFormat::Jpeg),
            Kind::Png => Some(ImageFormat::Png),
            Kind::Gif => Some(ImageFormat::Gif),
            Kind::Bmp => Some(ImageFormat::Bmp),
            Kind::WebP => Some(ImageFormat::WebP),
            Kind::Tiff if self.is_decoded() => Some(ImageFormat::Tiff),
            _ => None,
        }
    }
}

/// Whether what begins with `BM` is a bitmap: a text may do so, too.
fn is_bitmap(start: &[u8]) -> bool {
    /// Lengths of the header that follows the file's.
    const HEADERS: [u32; 8] = [12, 16, 40, 52, 56, 64, 108, 124];
    let length =
        start.get(14..18).and_then(|it| it.first_chunk()).map(|it| u32::from_le_bytes(*it));
    length.is_some_and(|length| HEADERS.contains(&length))
}

/// The format of a file of the MP4 family, by the brands it says to be of. Movies are no pictures.
fn of_brands(start: &[u8]) -> Option<Kind> {
    let length = u32::from_be_bytes(*start.first_chunk()?) as usize;
    let brands = &start[8..length.clamp(8, start.len())];
    let (major, others) = (brands.get(..4)?, brands.get(8..).unwrap_or_default());
    let mut brands = others.as_chunks::<4>().0.iter().map(|brand| &brand[..]);
    let is_avif = |brand: &[u8]| matches!(brand, b"avif" | b"avis");
    let is_heic =
        |brand: &[u8]| matches!(brand, b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis");
    match major {
        _ if is_avif(major) => Some(Kind::Avif),
        _ if is_heic(major) => Some(Kind::Heic),
        // A family name says that it is a picture, but not how it is compressed.
        b"mif1" | b"msf1" => {
            if brands.any(is_avif) {
                Some(Kind::Avif)
            } else {
                Some(Kind::Heic)
            }
        }
        _ => None,
    }
}

fn is_svg(start: &[u8]) -> bool {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let is_xml = [&b"<?xml"[..], b"<!--", b"<!DOCTYPE svg"].iter().any(|it| text.starts_with(it));
    text.starts_with(b"<svg") || is_xml && text.windows(4).any(|part| part == b"<svg")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let icon = [0, 0, 1, 0, 2, 0, 16, 16, 0, 0];
        let cases: [(&[u8], Option<Kind>); 31] = [
            (b"\xff\xd8\xff\xe0", Some(Kind::Jpeg)),
            (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", Some(Kind::Png)),
            (b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBI", Some(Kind::XcodePng)),
            (b"GIF89a", Some(Kind::Gif)),
            (b"BM\x3e\0\0\0\0\0\0\0\x3e\0\0\0\x28\0\0\0", Some(Kind::Bmp)),
            (b"BMW and other cars, a list", None),
            (b"RIFF\x20\0\0\0WEBPVP8 ", Some(Kind::WebP)),
            (b"RIFF\x20\0\0\0WAVEfmt ", None),
            (b"II*\0\x08\0\0\0", Some(Kind::Tiff)),
            (b"MM\0*\0\0\0\x08", Some(Kind::Tiff)),
            (b"MM\0+\0\x08\0\0", Some(Kind::Tiff)),
            (b"\0\0\0\x1cftypavif\0\0\0\0mif1avif", Some(Kind::Avif)),
            (b"\0\0\0\x1cftypavis\0\0\0\0msf1avis", Some(Kind::Avif)),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", Some(Kind::Avif)),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", Some(Kind::Heic)),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some(Kind::Heic)),
            (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", Some(Kind::Heic)),
            (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", None),
            (b"\0\0\0\x08ftyp", None),
            (b"\0\0\0\0ftypavif", None),
            (b"\xff\x0a\xfa\x1f", Some(Kind::JpegXl)),
            (b"\0\0\0\x0cJXL \r\n\x87\n", Some(Kind::JpegXl)),
            (b"\0\0\0\x0cjP  \r\n\x87\n", Some(Kind::Jpeg2000)),
            (b"8BPS\0\x01", Some(Kind::Photoshop)),
            (&icon, Some(Kind::Icon)),
            (b"P6\n3 2\n255\n", Some(Kind::Netpbm)),
            (b"P1 is a name", None),
            (b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- a -->\n<svg>", Some(Kind::Svg)),
            (b"  <svg xmlns=\"http://www.w3.org/2000/svg\"/>", Some(Kind::Svg)),
            (b"<?xml version=\"1.0\"?><rss/>", None),
            (b"", None),
        ];
        for (start, expected) in cases {
            assert_eq!(Kind::of(start), expected, "{:?}", String::from_utf8_lossy(start));
            for cut in 0..start.len() {
                let _ = Kind::of(&start[..cut]);
            }
        }
    }
}
