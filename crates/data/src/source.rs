//! Tables of text, streamed in batches: what a log is before it means anything.
//!
//! A table is one file or several: named, matched by a pattern, or found in a folder
//! ([`open_all`]). Files are CSV and the like, JSON lines, Parquet or Arrow IPC, recognized by
//! their first bytes; text may be compressed. Every value is a text, so ids keep their leading
//! zeros and nothing is guessed about types. Does not know what a column means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, Result};

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
mod text;
mod union;

use self::batch::BatchBuilder;
pub use self::batch::{BATCH_ROWS, Places, TextBatch};
pub use self::encoding::Encoding;
pub use self::input::{Files, GLOB, Input, Listed, LocalFiles, MemoryFile, ReadAt};
pub use self::memory::MemoryTable;
pub use self::options::{Delimiter, Quoting, TableOptions};

/// The batches of a table, in the order of its files and rows. After an error nothing comes.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<TextBatch>> + 'a>;

/// Named columns of text that can be read from the start any number of times.
pub trait Table {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// The column names; a name may be empty or there twice, see [`Table::unusable`].
    fn columns(&self) -> &[String];

    /// The values of these columns (positions in [`Table::columns`]), in this order.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Content`], here or from the batches; if a column is
    /// [unusable](Table::unusable).
    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>>;

    /// The type of a column, for people, where the file states one: `struct`, `decimal(10, 2)`.
    fn column_type(&self, _column: usize) -> Option<String> {
        None
    }

    /// Why a column cannot be read, if it cannot, and what to do: its values are no texts, its name
    /// is another's too, or one of the files lacks it. Matters only for columns that are used.
    fn unusable(&self, _column: usize) -> Option<String> {
        None
    }

    /// What was read, for people: phrases such as `7 files`, `Parquet`, `partition columns: dt`.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// What to add to the message that a column is not there: a file without header looks as if it
    /// had other columns.
    fn hint(&self) -> Option<String> {
        None
    }

    /// An error for the first of these columns that is [unusable](Table::unusable).
    ///
    /// # Errors
    /// [`Error::Content`] with the column, why, and what to do.
    fn check_usable(&self, columns: &[usize]) -> Result<()> {
        for &column in columns {
            if let Some(why) = self.unusable(column) {
                let what = format!("column `{}` cannot be used: {why}", self.columns()[column]);
                return Err(Error::content(self.path(), what));
            }
        }
        Ok(())
    }
}

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
/// [`Error::Io`], or [`Error::Content`] if there is no file, one is empty or of no format that is
/// read, or they are of several formats.
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
        None => Err(empty(input.as_ref())),
    }
}

fn empty(input: &dyn Input) -> Error {
    Error::content(
        input.path(),
        "an empty file; expected a header and rows, JSON lines, Parquet or Arrow IPC",
    )
}

#[cfg(test)]
mod tests;
