//! How the bytes of a text file are meant: everything becomes UTF-8 before it is taken apart.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

/// How the bytes of a text file are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// UTF-8, with a byte order mark or without; UTF-16 if it begins with that one's mark.
    #[default]
    #[serde(rename = "utf-8", alias = "utf8")]
    Utf8,
    /// ISO 8859-1: every byte is a character.
    #[serde(rename = "latin-1", alias = "latin1")]
    Latin1,
    /// Windows-1252: as Latin-1, with the marks of a typewriter and the euro among the control
    /// characters.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// UTF-16, the lower byte first.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, the higher byte first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
}

/// The characters of Windows-1252 from 0x80 to 0x9f; the five bytes without one stay what they are.
const WINDOWS: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

impl Encoding {
    /// Every encoding with its name in options.
    pub const ALL: [(&'static str, Encoding); 5] = [
        ("utf-8", Encoding::Utf8),
        ("latin-1", Encoding::Latin1),
        ("windows-1252", Encoding::Windows1252),
        ("utf-16le", Encoding::Utf16Le),
        ("utf-16be", Encoding::Utf16Be),
    ];

    /// The name in options.
    pub fn name(self) -> &'static str {
        Encoding::ALL.iter().find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }

    /// The encoding of a file that begins with `start`, and the length of its byte order mark.
    /// `self` is what was asked for.
    ///
    /// # Errors
    /// What speaks against it, to be completed with the file's name; `flag` is how an encoding is
    /// asked for.
    pub(crate) fn of(self, start: &[u8], flag: &str) -> Result<(Encoding, usize), String> {
        let marked = match start {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
                return Err("UTF-32 text; write it as UTF-8 (iconv -f UTF-32 -t UTF-8)".to_string());
            }
            [0xef, 0xbb, 0xbf, ..] => Some((Encoding::Utf8, 3)),
            [0xff, 0xfe, ..] => Some((Encoding::Utf16Le, 2)),
            [0xfe, 0xff, ..] => Some((Encoding::Utf16Be, 2)),
            _ => None,
        };
        match marked {
            Some((marked, length)) if self == Encoding::Utf8 || self == marked => {
                Ok((marked, length))
            }
            Some((marked, _)) => Err(format!(
                "begins with the byte order mark of {}; leave out {flag} {}",
                marked.name(),
                self.name()
            )),
            None if matches!(self, Encoding::Utf16Le | Encoding::Utf16Be) => Ok((self, 0)),
            None => match zeros(start) {
                [0, 0] => Ok((self, 0)),
                [even, odd]
                    if even.max(odd) > start.len() / 8 && even.min(odd) * 8 < even.max(odd) =>
                {
                    let name = if odd > even { "utf-16le" } else { "utf-16be" };
                    Err(format!(
                        "looks like UTF-16 without a byte order mark; if it is, say so with {flag} {name}"
                    ))
                }
                _ => Err(
                    "holds NUL bytes, so it is no text; is the file damaged, or of another format?"
                        .to_string(),
                ),
            },
        }
    }

    /// Converts `bytes` to UTF-8 as they are read.
    pub(crate) fn reader(self, bytes: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        match self {
            Encoding::Utf8 => bytes,
            _ => Box::new(Decoder {
                encoding: self,
                bytes,
                text: String::new(),
                at: 0,
                odd: Odd::default(),
            }),
        }
    }
}

/// How many bytes at even and at odd places are zero.
fn zeros(bytes: &[u8]) -> [usize; 2] {
    let mut zeros = [0; 2];
    if memchr::memchr(0, bytes).is_some() {
        for (at, byte) in bytes.iter().enumerate() {
            zeros[at % 2] += usize::from(*byte == 0);
        }
    }
    zeros
}

/// What of UTF-16 waits for its other half.
#[derive(Default)]
struct Odd {
    byte: Option<u8>,
    unit: Option<u16>,
}

/// Text of another encoding as UTF-8.
struct Decoder {
    encoding: Encoding,
    bytes: Box<dyn Read + Send>,
    text: String,
    /// How much of `text` was handed out.
    at: usize,
    odd: Odd,
}

impl Read for Decoder {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && !to.is_empty() {
            self.text.clear();
            self.at = 0;
            let mut piece = [0; 1 << 14];
            let count = self.bytes.read(&mut piece)?;
            if count == 0 {
                return match (self.odd.byte, self.odd.unit) {
                    (None, None) => Ok(0),
                    _ => Err(wrong("the UTF-16 text is cut short in the middle of a character")),
                };
            }
            self.decode(&piece[..count])?;
        }
        let count = to.len().min(self.text.len() - self.at);
        to[..count].copy_from_slice(&self.text.as_bytes()[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl Decoder {
    fn decode(&mut self, piece: &[u8]) -> io::Result<()> {
        let unit = match self.encoding {
            Encoding::Utf16Le => u16::from_le_bytes,
            Encoding::Utf16Be => u16::from_be_bytes,
            encoding => {
                self.text.extend(piece.iter().map(|&byte| match byte {
                    0x80..=0x9f if encoding == Encoding::Windows1252 => {
                        WINDOWS[usize::from(byte - 0x80)]
                    }
                    _ => char::from(byte),
                }));
                return Ok(());
            }
        };
        let mut units: Vec<u16> = self.odd.unit.take().into_iter().collect();
        for &byte in piece {
            match self.odd.byte.take() {
                None => self.odd.byte = Some(byte),
                Some(first) => units.push(unit([first, byte])),
            }
        }
        // The first half of a character waits for its second.
        if units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            self.odd.unit = units.pop();
        }
        for character in char::decode_utf16(units) {
            let character = character.map_err(|_| {
                wrong("not UTF-16: half of a character stands alone; is the encoding right?")
            })?;
            self.text.push(character);
        }
        Ok(())
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: Encoding, bytes: &[u8]) -> Result<String, String> {
        /// A byte at a time, so that every half comes alone.
        struct Slow(Vec<u8>);
        impl Read for Slow {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                if self.0.is_empty() {
                    return Ok(0);
                }
                to[0] = self.0.remove(0);
                Ok(1)
            }
        }
        let mut text = String::new();
        let mut reader = encoding.reader(Box::new(Slow(bytes.to_vec())));
        reader.read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
    }

    fn utf_16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn texts_of_every_encoding() {
        let text = "Käse €5 🧀\n";
        for (encoding, bytes) in [
            (Encoding::Utf16Le, utf_16(text, u16::to_le_bytes)),
            (Encoding::Utf16Be, utf_16(text, u16::to_be_bytes)),
            (Encoding::Utf8, text.as_bytes().to_vec()),
        ] {
            assert_eq!(decoded(encoding, &bytes).unwrap(), text);
        }
        assert_eq!(decoded(Encoding::Latin1, b"K\xe4se \x80").unwrap(), "Käse \u{80}");
        assert_eq!(
            decoded(Encoding::Windows1252, b"K\xe4se \x80 \x93x\x94").unwrap(),
            "Käse € “x”"
        );
        assert!(decoded(Encoding::Utf16Le, b"a\0b").unwrap_err().contains("cut short"));
        assert!(decoded(Encoding::Utf16Le, &[0x3d, 0xd8]).unwrap_err().contains("cut short"));
        assert!(
            decoded(Encoding::Utf16Le, &[0x3d, 0xd8, 65, 0]).unwrap_err().contains("stands alone")
        );
    }

    #[test]
    fn marks_and_zeros_say_what_it_is() {
        let of = |asked: Encoding, start: &[u8]| asked.of(start, "--encoding");
        let wide = utf_16("user,item\n1,2\n", u16::to_le_bytes);
        let marked = [&[0xff, 0xfe][..], &wide].concat();
        assert_eq!(of(Encoding::Utf8, b"user"), Ok((Encoding::Utf8, 0)));
        assert_eq!(of(Encoding::Utf8, b"\xef\xbb\xbfuser"), Ok((Encoding::Utf8, 3)));
        assert_eq!(of(Encoding::Utf8, &marked), Ok((Encoding::Utf16Le, 2)));
        assert_eq!(of(Encoding::Utf16Le, &wide), Ok((Encoding::Utf16Le, 0)));
        for (asked, start, expected) in [
            (Encoding::Utf8, &wide[..], "--encoding utf-16le"),
            (Encoding::Utf8, &utf_16("user,item", u16::to_be_bytes), "--encoding utf-16be"),
            (Encoding::Latin1, b"\xef\xbb\xbfuser", "leave out --encoding latin-1"),
            (Encoding::Utf16Be, &marked, "leave out --encoding utf-16be"),
            (Encoding::Utf8, b"user,item\n1,\0\0\n", "NUL"),
            (Encoding::Utf8, b"\xff\xfe\0\0u\0\0\0", "UTF-32"),
        ] {
            let error = of(asked, start).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
