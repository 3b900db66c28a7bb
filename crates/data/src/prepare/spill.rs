//! Rows set aside by user: one temporary file per part, so that later only one part is in memory.
//!
//! ```text
//! row: u32 length of what follows; then user text, then the texts and numbers the caller put
//! text: u32 length, bytes        number: 8 bytes                     all little-endian
//! ```

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Id, Result, part_of};

/// Bytes waiting in memory before they are appended to their files.
const WAITING: usize = 32 << 20;

/// Files being filled, one per part.
pub(crate) struct Spill {
    dir: PathBuf,
    waiting: Vec<Vec<u8>>,
    bytes: usize,
}

impl Spill {
    /// Files in the new folder `dir`.
    pub(crate) fn create(dir: PathBuf, parts: usize) -> Result<Spill> {
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(Spill { dir, waiting: vec![Vec::new(); parts], bytes: 0 })
    }

    /// Sets one row of `user` aside.
    pub(crate) fn push(&mut self, user: &str, numbers: &[i64], texts: &[String]) -> Result<()> {
        let part = part_of(Id::of(crate::schema::USER, user).0, self.waiting.len());
        let to = &mut self.waiting[part];
        let begin = to.len();
        to.extend_from_slice(&[0; 4]);
        push_text(to, user);
        numbers.iter().for_each(|number| to.extend_from_slice(&number.to_le_bytes()));
        texts.iter().for_each(|text| push_text(to, text));
        let length = u32::try_from(to.len() - begin - 4).expect("a row is below 4 GiB");
        to[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
        self.bytes += to.len() - begin;
        if self.bytes >= WAITING { self.flush() } else { Ok(()) }
    }

    /// Appends what waits. Files are opened for this only: there may be more parts than the system lets a
    /// process hold open.
    pub(crate) fn flush(&mut self) -> Result<()> {
        for (part, waiting) in
            self.waiting.iter_mut().enumerate().filter(|(_, bytes)| !bytes.is_empty())
        {
            let path = part_path(&self.dir, part);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.and_then(|mut file| file.write_all(waiting)).map_err(Error::io(&path))?;
            waiting.clear();
        }
        self.bytes = 0;
        Ok(())
    }

    /// All rows of a part, in the order they were set aside. To be called after a flush.
    pub(crate) fn read(&self, part: usize) -> Result<Vec<u8>> {
        let path = part_path(&self.dir, part);
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Number of parts.
    pub(crate) fn parts(&self) -> usize {
        self.waiting.len()
    }
}

fn part_path(dir: &Path, part: usize) -> PathBuf {
    dir.join(format!("{part}"))
}

fn push_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u32).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

/// The rows of a part, each as a [`Row`].
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
        spill.flush().unwrap();
        let mut seen = 0;
        for part in 0..4 {
            let bytes = spill.read(part).unwrap();
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
    }
}
