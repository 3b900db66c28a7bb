//! The text of a file: decompressed, decoded, and held in a window that moves over it.

use std::io::{self, Read};
use std::sync::Arc;

use super::compression::Compression;
use super::encoding::Encoding;
use super::input::Input;
use crate::{Error, Result};

/// A text file, and what its bytes have to go through.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) input: Arc<dyn Input>,
    pub(crate) compression: Compression,
    pub(crate) encoding: Encoding,
    /// Length of the byte order mark.
    pub(crate) mark: usize,
}

impl Text {
    /// Opens a window at the beginning; `ahead`: with as much reading ahead as is worth it.
    pub(crate) fn window(&self, ahead: bool) -> Result<Window> {
        let mut bytes = self.compression.reader(self.input.as_ref(), ahead)?;
        let mut mark = [0; 3];
        bytes.read_exact(&mut mark[..self.mark]).map_err(|error| self.failed(error))?;
        Ok(Window {
            reader: self.encoding.reader(bytes),
            buffer: vec![0; if ahead { 1 << 18 } else { 1 << 14 }],
            start: 0,
            end: 0,
            ended: false,
        })
    }

    /// The error of the file that `error` means.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::InvalidData => self.wrong(error.to_string()),
            _ => Error::io(self.input.path())(error),
        }
    }

    /// An error of the content of the file.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> Error {
        Error::content(self.input.path(), what)
    }

    /// What the file is wrapped in, for people: `gzip`, `utf-16le`.
    pub(crate) fn wrapping(&self) -> Vec<String> {
        let encoding = (self.encoding != Encoding::Utf8).then(|| self.encoding.name().to_string());
        self.compression.name().map(str::to_string).into_iter().chain(encoding).collect()
    }
}

/// The longest row, bytes.
pub(crate) const LONGEST: usize = 256 << 20;

/// A piece of a text, long enough for the row that is looked at.
pub(crate) struct Window {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
}

impl Window {
    /// What is in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether nothing comes after it.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Leaves the first `count` bytes behind.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
    }

    /// Makes the window longer.
    pub(crate) fn more(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            if self.end >= LONGEST {
                let what = format!("a row is longer than {} MiB", LONGEST >> 20);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            self.buffer.resize(2 * self.end, 0);
        }
        while self.end < self.buffer.len() && !self.ended {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How many lines end in `text`: at `\n`, `\r\n` or `\r`.
pub(crate) fn line_ends(text: &[u8]) -> u64 {
    let newlines = memchr::memchr_iter(b'\n', text).count();
    let returns = memchr::memchr_iter(b'\r', text).filter(|&at| text.get(at + 1) != Some(&b'\n'));
    (newlines + returns.count()) as u64
}
