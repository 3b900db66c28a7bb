//! The structure of a JPEG: where its first picture ends, and which of the standard's kinds it is.
//!
//! Files of phones and cameras go on behind the end marker: a short film, a second picture, a map
//! of depths. Inside them the same markers occur by chance, so markers are followed from the first
//! one on, and never searched for.
//!
//! Knows markers and lengths. Does not know pixels.

use crate::failure::{Failure, NOT_DECODED, Reason};

/// The bytes of the first picture in a file that begins as a JPEG, from its start to its end
/// marker.
///
/// # Errors
/// [`Reason::Unsupported`] for kinds that hardly any program decodes, by name; [`Reason::Corrupt`]
/// where the picture has no end, or something else is in the middle of it.
pub(crate) fn first_picture(bytes: &[u8]) -> Result<&[u8], Failure> {
    let corrupt = |detail: String| Failure::new(Reason::Corrupt, detail);
    let cut = || corrupt("the JPEG is cut short: no end marker".into());
    let (mut at, mut scans) = (2, 0);
    loop {
        // Programs have left bytes between markers at the beginning, which decoders pass over.
        if scans > 0 && bytes.get(at).is_some_and(|byte| *byte != 0xff) {
            return Err(corrupt(format!("the JPEG is damaged at byte {at}: no marker there")));
        }
        at += bytes
            .get(at..)
            .and_then(|rest| rest.iter().position(|it| *it == 0xff))
            .ok_or_else(cut)?;
        at += bytes[at..].iter().position(|byte| *byte != 0xff).ok_or_else(cut)? - 1;
        let marker = bytes[at + 1];
        let segment = bytes.get(at + 2..at + 4).and_then(|it| it.first_chunk());
        let length = segment.map(|length| usize::from(u16::from_be_bytes(*length)));
        match marker {
            0xd9 if scans > 0 => return Ok(&bytes[..at + 2]),
            0xd9 => return Err(corrupt("the JPEG ends before it has a picture".into())),
            // A second start marker at the beginning, or a stray byte.
            0x00 | 0x01 | 0xd0..=0xd8 if scans == 0 => {
                at += 2;
                continue;
            }
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                refuse_kind(marker, *bytes.get(at + 4).ok_or_else(cut)?)?;
            }
            0xf7 => return Err(unsupported("JPEG-LS")),
            // Tables, comments, another scan.
            0xc4 | 0xcc | 0xda..=0xdd | 0xe0..=0xef | 0xfe => {}
            _ if scans > 0 => {
                let detail = format!(
                    "the JPEG is damaged or cut short at byte {at}: marker ff{marker:02x} inside its picture"
                );
                return Err(corrupt(detail));
            }
            _ => {}
        }
        let length = length.filter(|length| *length >= 2).ok_or_else(cut)?;
        at += 2 + length;
        if marker == 0xda {
            scans += 1;
            at = scan_end(bytes, at).ok_or_else(cut)?;
        }
    }
}

/// Where the marker is that ends the scan whose data begin at `at`. Inside a scan, ff is followed
/// by 0 or by a restart marker.
fn scan_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == 0xff)?;
        match bytes.get(at + 1)? {
            0x00 | 0xd0..=0xd7 => at += 2,
            0xff => at += 1,
            _ => return Some(at),
        }
    }
}

/// Refuses frames of a kind that is not decoded, by the frame's marker and its bits per color.
fn refuse_kind(marker: u8, bits: u8) -> Result<(), Failure> {
    let kind = match marker {
        0xc3 => "lossless JPEG".to_owned(),
        0xc5..=0xc7 => "hierarchical JPEG".to_owned(),
        0xcb => "lossless JPEG with arithmetic coding".to_owned(),
        0xc9..=0xcf => "JPEG with arithmetic coding".to_owned(),
        _ if bits != 8 => format!("JPEG of {bits} bits a color"),
        _ => return Ok(()),
    };
    Err(unsupported(&kind))
}

fn unsupported(kind: &str) -> Failure {
    let detail = format!("{kind}{NOT_DECODED} here; convert it to an ordinary JPEG, PNG or WebP");
    Failure::new(Reason::Unsupported, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame header of that marker and that many bits a color.
    fn frame(marker: u8, bits: u8) -> Vec<u8> {
        vec![0xff, marker, 0, 11, bits, 0, 1, 0, 1, 1, 1, 0x11, 0]
    }

    /// A file of these parts between start and end markers, with a scan of those bytes.
    fn file(parts: &[&[u8]], scan: &[u8], behind: &[u8]) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        parts.iter().for_each(|part| file.extend(*part));
        file.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0]);
        [&file[..], scan, behind].concat()
    }

    /// The length of the first picture, or the failure.
    fn check(bytes: &[u8]) -> Result<usize, String> {
        first_picture(bytes).map(<[u8]>::len).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_first_end_marker_that_is_one_ends_the_picture() {
        let baseline = frame(0xc0, 8);
        let thumbnail = [0xff, 0xe1, 0, 8, 0xff, 0xd8, 0xff, 0xd9, 0xff, 0xda];
        let scan = [1, 2, 0xff, 0x00, 0xff, 0xd0, 3, 0xff, 0xff, 0xd9];
        let plain = file(&[&thumbnail, &baseline], &scan, b"");
        assert_eq!(check(&plain), Ok(plain.len()));
        for behind in [&b"\0\0\0\x18ftypmp42\xff\xda\0\x08"[..], b"PK\x03\x04", &plain, &plain[..9]]
        {
            assert_eq!(check(&[&plain[..], behind].concat()), Ok(plain.len()));
        }
        // Several scans with tables between them, bytes between segments, a doubled start.
        let second = [&[5, 0xff, 0xc4, 0, 3, 9][..], &[0xff, 0xda, 0, 3, 1], &scan].concat();
        let progressive = file(&[&[0xff, 0xd8, 0, 0], &frame(0xc2, 8)], &second, b"film");
        assert_eq!(check(&progressive), Ok(progressive.len() - 4));
    }

    #[test]
    fn what_has_no_end_is_cut_short_whatever_follows() {
        let baseline = frame(0xc0, 8);
        let whole = file(&[&baseline], &[1, 2, 0xff, 0x00, 3, 0xff, 0xd9], b"");
        for cut in 3..whole.len() {
            let error = check(&whole[..cut]).unwrap_err();
            assert!(error.starts_with("corrupt: the JPEG"), "{cut}: {error}");
        }
        // A film behind a picture that was cut short has markers by chance.
        for film in [&[0xff, 0x3a, 1, 0xff, 0xd9][..], &[0xff, 0xe0, 0, 2, 7, 0xff, 0xd9]] {
            let error = check(&file(&[&baseline], &[1, 2, 3], film)).unwrap_err();
            assert!(error.contains("damaged"), "{error}");
        }
        assert!(check(&[0xff, 0xd8, 0xff, 0xd9]).unwrap_err().contains("before it has a picture"));
    }

    #[test]
    fn kinds_that_are_not_decoded_have_names() {
        let cases = [
            (0xc1, 12, "JPEG of 12 bits a color"),
            (0xc0, 12, "JPEG of 12 bits a color"),
            (0xc2, 12, "JPEG of 12 bits a color"),
            (0xc3, 8, "lossless JPEG"),
            (0xc3, 16, "lossless JPEG"),
            (0xc6, 8, "hierarchical JPEG"),
            (0xc9, 8, "JPEG with arithmetic coding"),
            (0xca, 8, "JPEG with arithmetic coding"),
            (0xcb, 8, "lossless JPEG with arithmetic coding"),
            (0xf7, 8, "JPEG-LS"),
        ];
        for (marker, bits, name) in cases {
            let error = check(&file(&[&frame(marker, bits)], &[0xff, 0xd9], b"")).unwrap_err();
            assert!(error.starts_with(&format!("unsupported: {name}: not decoded")), "{error}");
        }
    }
}
