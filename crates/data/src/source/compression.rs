//! gzip and zstd: what is compressed, recognized by its first bytes, becomes plain bytes on a
//! thread of its own.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use super::input::Input;
use crate::{Error, Result};

/// How the bytes of a text file are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes of a file.
    pub(crate) fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some("gzip"),
            Compression::Zstd => Some("zstd"),
        }
    }

    /// The plain bytes of `input`; `ahead`: on a thread of its own, if that is worth it.
    pub(crate) fn reader(self, input: &dyn Input, ahead: bool) -> Result<Box<dyn Read + Send>> {
        let bytes = input.reader().map_err(Error::io(input.path()))?;
        let buffered = |bytes| BufReader::with_capacity(1 << 16, bytes);
        let plain: Box<dyn Read + Send> = match self {
            Compression::None => bytes,
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(bytes))),
            Compression::Zstd => {
                let decoder = zstd::Decoder::with_buffer(buffered(bytes));
                Box::new(decoder.map_err(Error::io(input.path()))?)
            }
        };
        let plain: Box<dyn Read + Send> = match self.name() {
            None => plain,
            Some(name) => Box::new(Named { plain, name }),
        };
        let worth_it = input.is_far() || self != Compression::None;
        Ok(if ahead && worth_it { Box::new(Ahead::new(plain)) } else { plain })
    }
}

/// Says in errors what was being decompressed.
struct Named {
    plain: Box<dyn Read + Send>,
    name: &'static str,
}

impl Read for Named {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.plain.read(to).map_err(|error| {
            let name = self.name;
            let what = match error.kind() {
                io::ErrorKind::Interrupted => return error,
                io::ErrorKind::UnexpectedEof => {
                    format!("the {name} data is cut short; copy or write the file again")
                }
                _ => format!("the {name} data is damaged: {error}"),
            };
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }
}

/// Bytes per piece that is read ahead.
const PIECE: usize = 1 << 18;

/// Pieces that are read ahead.
const PIECES: usize = 8;

/// Reads ahead on a thread of its own; bytes and errors come in their order.
struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    /// The end, or an error, came.
    ended: bool,
}

impl Ahead {
    fn new(mut from: Box<dyn Read + Send>) -> Ahead {
        let (to, pieces) = sync_channel(PIECES);
        std::thread::spawn(move || {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                let read = from.by_ref().take(PIECE as u64).read_to_end(&mut piece);
                let end = piece.is_empty() || read.is_err();
                // Nobody listens where the reader was dropped.
                let sent = piece.is_empty() || to.send(Ok(piece)).is_ok();
                if let (true, Err(error)) = (sent, read) {
                    let _ = to.send(Err(error));
                }
                if end || !sent {
                    return;
                }
            }
        });
        Ahead { pieces, piece: Vec::new(), at: 0, ended: false }
    }
}

impl Read for Ahead {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended && !to.is_empty() {
            match self.pieces.recv() {
                Ok(Ok(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) => self.ended = true,
            }
        }
        let count = to.len().min(self.piece.len() - self.at);
        to[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::MemoryFile;
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut to = zstd::Encoder::new(Vec::new(), 1).unwrap();
        to.include_checksum(true).unwrap();
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    fn read(bytes: Vec<u8>, ahead: bool) -> std::result::Result<usize, String> {
        let compression = Compression::of(&bytes);
        let file = MemoryFile::new("f", bytes);
        let mut plain = Vec::new();
        let mut reader = compression.reader(&file, ahead).map_err(|error| error.to_string())?;
        reader.read_to_end(&mut plain).map(|_| plain.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn several_members_cut_short_and_damaged() {
        let text: Vec<u8> = (0..3_000_000u32).map(|n| ((n % 251) ^ (n / 7_000)) as u8).collect();
        for compress in [gzip, zstd] {
            for ahead in [false, true] {
                let whole = compress(&text);
                let twice = [&whole[..], &whole[..]].concat();
                assert_eq!(read(whole.clone(), ahead), Ok(text.len()));
                assert_eq!(read(twice.clone(), ahead), Ok(2 * text.len()));
                for cut in
                    [4, 5, whole.len() / 2, whole.len() - 1, whole.len() + 7, twice.len() - 1]
                {
                    let error = read(twice[..cut].to_vec(), ahead).unwrap_err();
                    assert!(error.contains("data is cut short"), "{cut}: {error}");
                }
                let mut damaged = whole.clone();
                damaged[whole.len() / 2] ^= 0x55;
                damaged[whole.len() / 2 + 1] ^= 0x55;
                assert!(read(damaged, ahead).unwrap_err().contains("damaged"), "{ahead}");
            }
        }
    }
}
