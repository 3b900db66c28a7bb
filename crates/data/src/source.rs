//! Tables of text, streamed in batches: what a log is before it means anything.
//!
//! A table is one file or several: named, matched by a pattern, or found in a folder
//! ([`open_all`]). Files are CSV and the like, JSON lines, Parquet or Arrow IPC, recognized by
//! their first bytes; text may be compressed. Every value is a text, so ids keep their leading
//! zeros and nothing is guessed about types. Does not know what a column means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Result;

mod arrow;
mod batch;
mod compression;
mod csv;
mod encoding;
mod file;
mod find;
mod format;
mod input;
mod ipc;
mod json;
mod memory;
mod names;
mod options;
mod parquet;
mod table;
mod text;
mod union;

pub use self::arrow::column_texts;
pub use self::batch::{Places, TextBatch};
pub use self::encoding::Encoding;
pub(crate) use self::input::is_hidden;
pub use self::input::{Files, GLOB, Input, Listed, LocalFiles, MemoryFile, ReadAt};
pub use self::memory::MemoryTable;
pub use self::options::{Delimiter, Quoting, TableOptions};
pub use self::table::{Batches, Table};

/// Opens a file, a folder or what a pattern matches on this host; see [`open_all`].
///
/// # Errors
/// As [`open_all`].
pub fn open(path: &Path, options: &TableOptions) -> Result<Box<dyn Table>> {
    open_all(&LocalFiles, &[path.to_path_buf()], options)
}

/// Opens all files that are `named` as one table: files, folders with all that is below them, and
/// patterns. Their order is that of the bytes of their paths. Hidden and empty files among several
/// are left out.
///
/// # Errors
/// [`crate::Error::Io`], or [`crate::Error::Content`] if there is no file, one is empty or of no
/// format that is read, or they are of several formats.
pub fn open_all(
    files: &dyn Files,
    named: &[PathBuf],
    options: &TableOptions,
) -> Result<Box<dyn Table>> {
    union::open(find::find(files, named)?, options)
}

/// Opens one file, wherever its bytes are.
///
/// # Errors
/// As [`open_all`].
pub fn open_input(input: Arc<dyn Input>, options: &TableOptions) -> Result<Box<dyn Table>> {
    match file::FileTable::open(Arc::clone(&input), options)? {
        Some(table) => Ok(Box::new(table)),
        None => Err(file::empty(input.as_ref())),
    }
}

#[cfg(test)]
mod tests;
