//! What every table can do, whatever its files are.

use std::path::Path;

use super::batch::TextBatch;
use crate::{Error, Result};

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
