//! Numbers where a file's bytes are: mapped, so that a model opens in the time its hash takes and
//! several servers of one machine share its memory; or copied, so that nothing that happens to the
//! file later reaches them.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;
use half::f16;
use memmap2::{Mmap, MmapMut};

use crate::error::{Error, Result};

/// Where the numbers of a model are while it is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// In pages of their own, read whole and then read-only: what is scored is what was checked,
    /// whatever becomes of the files.
    Copied,
    /// In their files. Memory is shared with other processes; but whoever changes a file in place
    /// changes scores, and whoever cuts one short ends the process (SIGBUS).
    #[default]
    Mapped,
}

impl Memory {
    /// The `expected` bytes of the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, is empty, or has another length.
    pub(crate) fn read(self, path: &Path, expected: u64) -> Result<Bytes> {
        let pages = match self {
            Memory::Mapped => ams_data::map(path)?,
            Memory::Copied => copied(path, expected)?,
        };
        if pages.len() as u64 != expected {
            let what = format!("{} bytes, expected {expected}: it changed meanwhile", pages.len());
            return Err(Error::content(path, what));
        }
        Ok(Bytes::Pages(pages))
    }
}

/// A copy of a file in pages that nobody can write any more, and that go back to the system as a
/// whole.
fn copied(path: &Path, expected: u64) -> Result<Mmap> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let Some(length) = usize::try_from(length).ok().filter(|_| length == expected && length > 0)
    else {
        return Err(Error::content(path, format!("{length} bytes, expected {expected}")));
    };
    let mut pages = MmapMut::map_anon(length).map_err(Error::io(path))?;
    file.read_exact(&mut pages).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Error::content(path, "was cut short while it was read"),
        _ => Error::io(path)(error),
    })?;
    pages.make_read_only().map_err(Error::io(path))
}

/// The bytes of a file.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// Mapped or copied, see [`Memory`].
    Pages(Mmap),
    /// Put together here, never in a file.
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Pages(pages) => pages,
            Bytes::Owned(bytes) => bytes,
        }
    }
}

/// Some numbers of a file, or a copy of them.
#[derive(Clone)]
pub struct Numbers<T>(Backing<T>);

#[derive(Clone)]
enum Backing<T> {
    File { bytes: Arc<Bytes>, range: Range<usize>, of: PhantomData<T> },
    Owned(Arc<Vec<T>>),
}

impl<T: Pod> Numbers<T> {
    /// The numbers at `range` of a file; a copy, if they are not aligned there.
    pub(crate) fn of_file(bytes: &Arc<Bytes>, range: Range<usize>) -> Numbers<T> {
        Numbers(match bytemuck::try_cast_slice::<u8, T>(&bytes[range.clone()]) {
            Ok(_) => Backing::File { bytes: Arc::clone(bytes), range, of: PhantomData },
            Err(_) => Backing::Owned(Arc::new(bytemuck::pod_collect_to_vec(&bytes[range]))),
        })
    }
}

impl<T: Pod> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Backing::File { bytes, range, .. } => bytemuck::cast_slice(&bytes[range.clone()]),
            Backing::Owned(values) => values,
        }
    }
}

impl<T> From<Vec<T>> for Numbers<T> {
    fn from(values: Vec<T>) -> Numbers<T> {
        Numbers(Backing::Owned(Arc::new(values)))
    }
}

impl<T> Default for Numbers<T> {
    fn default() -> Numbers<T> {
        Vec::new().into()
    }
}

impl<T: Pod> fmt::Debug for Numbers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers", self.len())
    }
}

/// Rows of floats, kept whole or as halfs.
#[derive(Clone, Debug)]
pub enum Floats {
    /// 4 bytes a number.
    F32(Numbers<f32>),
    /// 2 bytes a number.
    F16(Numbers<f16>),
}

impl Floats {
    /// Number of values, not of bytes.
    pub fn len(&self) -> usize {
        match self {
            Floats::F32(values) => values.len(),
            Floats::F16(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends those at `range`.
    pub fn push(&self, range: Range<usize>, to: &mut Vec<f32>) {
        match self {
            Floats::F32(values) => to.extend_from_slice(&values[range]),
            Floats::F16(values) => to.extend(values[range].iter().map(|half| half.to_f32())),
        }
    }

    /// The first that is not finite, and where.
    pub(crate) fn not_finite(&self) -> Option<(usize, f32)> {
        let found = |at: Option<usize>, value: &dyn Fn(usize) -> f32| at.map(|at| (at, value(at)));
        match self {
            Floats::F32(values) => {
                found(values.iter().position(|value| !value.is_finite()), &|at| values[at])
            }
            Floats::F16(values) => {
                let at = values.iter().position(|value| !value.is_finite());
                found(at, &|at| values[at].to_f32())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_where_they_are_or_copied_if_not_aligned() {
        let values: Vec<u64> = vec![7, u64::MAX, 0];
        let mut bytes = vec![0; 8];
        bytes.extend_from_slice(bytemuck::cast_slice(&values));
        bytes.push(0);
        let shifted = [&[0], &bytes[..]].concat();
        for (bytes, from) in [(bytes, 8), (shifted, 9)] {
            let bytes = Arc::new(Bytes::Owned(bytes));
            let numbers: Numbers<u64> = Numbers::of_file(&bytes, from..from + 24);
            assert_eq!(numbers[..], values);
            assert_eq!(numbers.clone()[1..], values[1..]);
        }
    }

    #[test]
    fn rows_are_floats_however_they_are_kept() {
        let (whole, halfs) = (vec![1.5, -2.0, 0.1], [1.5, -2.0, 0.1].map(f16::from_f32).to_vec());
        for (floats, last) in [
            (Floats::F32(whole.into()), 0.1),
            (Floats::F16(halfs.into()), f16::from_f32(0.1).to_f32()),
        ] {
            let mut row = vec![9.0];
            floats.push(1..3, &mut row);
            assert_eq!((row, floats.len(), floats.not_finite()), (vec![9.0, -2.0, last], 3, None));
        }
        let bad = Floats::F16(vec![f16::ONE, f16::INFINITY].into());
        assert_eq!(bad.not_finite(), Some((1, f32::INFINITY)));
    }
}
