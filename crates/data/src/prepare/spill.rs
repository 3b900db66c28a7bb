//! Rows set aside by user: one temporary file per piece of the users, so that later only few pieces
//! are in memory.
//!
//! ```text
//! row: u32 length of what follows; then user text, then the texts and numbers the caller put
//! text: u32 length, bytes        number: 8 bytes                     all little-endian
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::{Error, Id, Result, part_of};

/// Bytes waiting in memory before they are appended to their files.
const WAITING: usize = 32 << 20;

/// Files being filled, one per piece; a piece is a run of the users' hashes.
pub(crate) struct Spill {
    dir: PathBuf,
    waiting: Vec<Vec<u8>>,
    /// Of all that waits.
    bytes: usize,
    /// Bytes of each piece so far.
    sizes: Vec<u64>,
}

impl Spill {
    /// Files in the new folder `dir`.
    pub(crate) fn create(dir: PathBuf, pieces: usize) -> Result<Spill> {
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(Spill { dir, waiting: vec![Vec::new(); pieces], bytes: 0, sizes: vec![0; pieces] })
    }

    /// Sets one row of `user` aside.
    pub(crate) fn push(&mut self, user: &str, numbers: &[i64], texts: &[String]) -> Result<()> {
        let piece = part_of(Id::of(crate::schema::USER, user).0, self.waiting.len());
        let to = &mut self.waiting[piece];
        let begin = to.len();
        to.extend_from_slice(&[0; 4]);
        push_text(to, user);
        numbers.iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
        texts.iter().for_each(|text| push_text(to, text));
        let length = u32::try_from(to.len() - begin - 4).expect("a row is below 4 GiB");
        to[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
        self.bytes += to.len() - begin;
        self.sizes[piece] += (to.len() - begin) as u64;
        if self.bytes >= WAITING { self.flush() } else { Ok(()) }
    }

    /// Appends what waits. Files are opened for this only: there may be more pieces than the system
    /// lets a process hold open.
    pub(crate) fn flush(&mut self) -> Result<()> {
        for (piece, waiting) in
            self.waiting.iter_mut().enumerate().filter(|(_, bytes)| !bytes.is_empty())
        {
            let path = piece_path(&self.dir, piece);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.and_then(|mut file| file.write_all(waiting)).map_err(Error::io(&path))?;
            waiting.clear();
        }
        self.bytes = 0;
        Ok(())
    }

    /// Flushes for the last time and lets go of the memory.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.flush()?;
        self.waiting.iter_mut().for_each(|waiting| *waiting = Vec::new());
        Ok(())
    }

    /// All rows of these pieces, those of a piece in the order they were set aside. To be called
    /// when finished.
    pub(crate) fn read(&self, pieces: Range<usize>) -> Result<Vec<u8>> {
        let bytes: u64 = self.sizes[pieces.clone()].iter().sum();
        let mut rows =
            Vec::with_capacity(usize::try_from(bytes).expect("a portion fits into memory"));
        for piece in pieces.filter(|&piece| self.sizes[piece] > 0) {
            let path = piece_path(&self.dir, piece);
            let file = File::open(&path);
            file.and_then(|mut file| file.read_to_end(&mut rows)).map_err(Error::io(&path))?;
        }
        Ok(rows)
    }

    /// Cuts `pieces` into runs of at most `most` bytes, or of a single piece where that has more.
    pub(crate) fn portions(&self, pieces: Range<usize>, most: u64) -> Vec<Range<usize>> {
        let mut portions = Vec::new();
        let (mut begin, mut bytes) = (pieces.start, 0);
        for piece in pieces.clone() {
            if piece > begin && bytes + self.sizes[piece] > most {
                portions.push(begin..piece);
                (begin, bytes) = (piece, 0);
            }
            bytes += self.sizes[piece];
        }
        portions.push(begin..pieces.end);
        portions
    }

    pub(crate) fn pieces(&self) -> usize {
        self.waiting.len()
    }
}

fn piece_path(dir: &Path, piece: usize) -> PathBuf {
    dir.join(format!("{piece}"))
}

fn push_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u32).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// The rows of some pieces, each as a [`Row`].
pub(crate) fn rows(mut bytes: &[u8]) -> impl Iterator<Item = Row<'_>> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (row, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        bytes = rest;
        Some(Row { rest: row })
    })
}

/// A row, to be read in the order it was written.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    rest: &'a [u8],
}

impl<'a> Row<'a> {
    pub(crate) fn text(&mut self) -> &'a str {
        let (length, rest) = self.rest.split_first_chunk::<4>().expect("a text of this row");
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.rest = rest;
        std::str::from_utf8(text).expect("texts were written from texts")
    }

    pub(crate) fn number(&mut self) -> i64 {
        let (number, rest) = self.rest.split_first_chunk::<8>().expect("a number of this row");
        self.rest = rest;
        i64::from_le_bytes(*number)
    }

    /// What is left, as bytes: equal bytes are equal texts.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_by_user_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::create(dir.path().join("spill"), 4).unwrap();
        for n in 0..100 {
            let texts = [format!("text {n}"), String::new()];
            spill.push(&format!("user {}", n % 10), &[n, -n], &texts).unwrap();
            if n == 50 {
                spill.flush().unwrap();
            }
        }
        spill.finish().unwrap();
        let mut seen = 0;
        for part in 0..4 {
            let bytes = spill.read(part..part + 1).unwrap();
            let mut last = -1;
            for mut row in rows(&bytes) {
                let user = row.text();
                let number = row.number();
                assert!(number > last);
                last = number;
                assert_eq!(part_of(Id::of("user", user).0, 4), part);
                assert_eq!((user, row.number()), (&*format!("user {}", number % 10), -number));
                assert_eq!((row.text(), row.text()), (&*format!("text {number}"), ""));
                assert!(row.rest().is_empty());
                seen += 1;
            }
        }
        assert_eq!(seen, 100);
        let all: Vec<u8> = (0..4).flat_map(|part| spill.read(part..part + 1).unwrap()).collect();
        assert_eq!(spill.read(0..4).unwrap(), all);
    }

    #[test]
    fn portions_hold_as_many_pieces_as_fit() {
        let spill = |sizes: &[u64]| Spill {
            dir: PathBuf::new(),
            waiting: vec![Vec::new(); sizes.len()],
            bytes: 0,
            sizes: sizes.to_vec(),
        };
        let cut = |sizes: &[u64], pieces, most| -> Vec<(usize, usize)> {
            let portions = spill(sizes).portions(pieces, most);
            portions.into_iter().map(|portion| (portion.start, portion.end)).collect()
        };
        assert_eq!(cut(&[1, 2, 3, 4], 0..4, 10), [(0, 4)]);
        assert_eq!(cut(&[1, 2, 3, 4], 0..4, 6), [(0, 3), (3, 4)]);
        assert_eq!(cut(&[9, 1, 9, 9], 0..4, 5), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        assert_eq!(cut(&[0, 0, 0], 0..3, 5), [(0, 3)]);
        assert_eq!(cut(&[5, 1, 1, 5], 1..3, 2), [(1, 3)]);
    }
}
