//! Tables of text, streamed in batches: what a log is before it means anything.
//!
//! Every value is a text, so ids keep their leading zeros and nothing is guessed about types. Knows CSV and
//! Parquet; does not know what a column means.

use std::path::{Path, PathBuf};

use arrow_array::builder::StringBuilder;
use arrow_array::{Array, StringArray};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod csv;
mod parquet;

pub use self::csv::CsvTable;
pub use self::parquet::ParquetTable;

/// Rows per batch.
pub const BATCH_ROWS: usize = 8192;

/// The batches of a table, in file order.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<TextBatch>> + 'a>;

/// Named columns of text that can be read from the start any number of times.
pub trait Table {
    /// The file, for messages.
    fn path(&self) -> &Path;

    /// The column names, each once.
    fn columns(&self) -> &[String];

    /// The values of these columns (positions in [`Table::columns`]), in this order.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Content`], here or from the batches.
    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>>;
}

/// Where the rows of a batch stand in their file, as a human counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// Rows from this one on; the first of the file is 1.
    Rows(u64),
    /// The line on which each row begins; the first of the file is 1.
    Lines(Vec<u64>),
}

/// Some rows of a table.
#[derive(Clone, Debug)]
pub struct TextBatch {
    columns: Vec<StringArray>,
    places: Places,
    rows: usize,
}

impl TextBatch {
    /// `columns` of equal length `rows`, standing at `places`.
    pub fn new(columns: Vec<StringArray>, rows: usize, places: Places) -> TextBatch {
        debug_assert!(columns.iter().all(|column| column.len() == rows));
        TextBatch { columns, places, rows }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One value; a missing one is the empty text.
    pub fn get(&self, column: usize, row: usize) -> &str {
        let column = &self.columns[column];
        if column.is_null(row) { "" } else { column.value(row) }
    }

    /// `line 7` or `row 7`: where row `row` of this batch is.
    pub fn place(&self, row: usize) -> String {
        match &self.places {
            Places::Rows(first) => format!("row {}", first + row as u64),
            Places::Lines(lines) => format!("line {}", lines[row]),
        }
    }
}

/// How to read a file as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TableOptions {
    /// CSV: what separates the cells. Not given: whichever of `,` `;` `|` and tab the header has most of.
    pub delimiter: Option<char>,
    /// CSV: how the text is encoded.
    pub encoding: Encoding,
}

/// How the bytes of a text file are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// UTF-8, with a byte order mark or without.
    #[default]
    Utf8,
    /// ISO 8859-1: every byte is a character.
    Latin1,
}

impl Encoding {
    /// The text that `bytes` mean, or `None` if they mean none.
    pub fn decode(self, bytes: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(Into::into),
            Encoding::Latin1 if bytes.is_ascii() => std::str::from_utf8(bytes).ok().map(Into::into),
            Encoding::Latin1 => Some(bytes.iter().copied().map(char::from).collect()),
        }
    }
}

/// Opens `path` as Parquet if it begins like Parquet, else as CSV.
///
/// # Errors
/// [`Error::Io`], or [`Error::Content`] if it is empty, has no header, or a column twice.
pub fn open(path: &Path, options: &TableOptions) -> Result<Box<dyn Table>> {
    use std::io::Read;
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(4).read_to_end(&mut start).map_err(Error::io(path))?;
    if start.is_empty() {
        return Err(Error::content(path, "an empty file; expected a header and rows, or Parquet"));
    }
    let table: Box<dyn Table> = match start == b"PAR1" {
        true => Box::new(ParquetTable::open(path)?),
        false => Box::new(CsvTable::open(path, options)?),
    };
    for (at, name) in table.columns().iter().enumerate() {
        if table.columns()[..at].contains(name) {
            return Err(Error::content(path, format!("two columns are called `{name}`")));
        }
    }
    Ok(table)
}

/// A table in memory.
#[derive(Clone, Debug)]
pub struct MemoryTable {
    path: PathBuf,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl MemoryTable {
    /// `rows` of as many values as there are `columns`; messages call it `path`.
    pub fn new(path: impl Into<PathBuf>, columns: &[&str], rows: Vec<Vec<String>>) -> MemoryTable {
        assert!(rows.iter().all(|row| row.len() == columns.len()), "rows as wide as the header");
        let columns = columns.iter().map(|name| name.to_string()).collect();
        MemoryTable { path: path.into(), columns, rows }
    }
}

impl Table for MemoryTable {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        let columns = columns.to_vec();
        Ok(Box::new(self.rows.chunks(BATCH_ROWS).enumerate().map(move |(at, rows)| {
            let column =
                |&column: &usize| rows.iter().map(|row| Some(row[column].as_str())).collect();
            let places = Places::Rows((at * BATCH_ROWS) as u64 + 1);
            Ok(TextBatch::new(columns.iter().map(column).collect(), rows.len(), places))
        })))
    }
}

/// Columns of text being built, a row at a time.
pub(crate) struct BatchBuilder {
    columns: Vec<StringBuilder>,
    lines: Vec<u64>,
}

impl BatchBuilder {
    pub(crate) fn new(columns: usize) -> BatchBuilder {
        BatchBuilder {
            columns: (0..columns).map(|_| StringBuilder::new()).collect(),
            lines: Vec::new(),
        }
    }

    /// Appends the next value of column `column`.
    pub(crate) fn push(&mut self, column: usize, value: &str) {
        self.columns[column].append_value(value);
    }

    /// Ends the row that began on `line`; says whether the batch is full.
    pub(crate) fn end_row(&mut self, line: u64) -> bool {
        self.lines.push(line);
        self.lines.len() >= BATCH_ROWS
    }

    /// The batch, unless it is empty.
    pub(crate) fn finish(&mut self) -> Option<TextBatch> {
        let lines = std::mem::take(&mut self.lines);
        let columns = self.columns.iter_mut().map(|column| column.finish()).collect();
        (!lines.is_empty()).then(|| TextBatch::new(columns, lines.len(), Places::Lines(lines)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row of `bytes` as `place: cell|cell`, or the error.
    fn table(bytes: &[u8], options: &TableOptions) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        std::fs::write(&path, bytes).unwrap();
        let read = || {
            let table = open(&path, options)?;
            let columns: Vec<_> = (0..table.columns().len()).collect();
            let mut lines = vec![table.columns().join("|")];
            for batch in table.batches(&columns)? {
                let batch = batch?;
                for row in 0..batch.rows() {
                    let cells: Vec<_> =
                        columns.iter().map(|&column| batch.get(column, row)).collect();
                    lines.push(format!("{}: {}", batch.place(row), cells.join("|")));
                }
            }
            Ok(lines)
        };
        read().map_err(|error: Error| {
            error.to_string().replace(&dir.path().display().to_string(), "DIR")
        })
    }

    fn rows(bytes: &[u8]) -> Vec<String> {
        table(bytes, &TableOptions::default()).unwrap()
    }

    fn error(bytes: &[u8]) -> String {
        table(bytes, &TableOptions::default()).unwrap_err()
    }

    #[test]
    fn leading_zeros_empty_cells_quotes_and_lines() {
        let read = rows(b"user,item\n0012345678,\n\"a,\"\"b\nc\",7\nx,y\n");
        assert_eq!(read, ["user|item", "line 2: 0012345678|", "line 3: a,\"b\nc|7", "line 5: x|y"]);
    }

    #[test]
    fn a_byte_order_mark_and_a_semicolon() {
        assert_eq!(rows(b"\xef\xbb\xbfuser;price\n1;2,5\n"), ["user|price", "line 2: 1|2,5"]);
    }

    #[test]
    fn latin_1_when_asked() {
        let bytes = b"title\nCaf\xe9\n";
        let latin = TableOptions { encoding: Encoding::Latin1, ..TableOptions::default() };
        assert_eq!(table(bytes, &latin).unwrap()[1], "line 2: Café");
        assert_eq!(
            error(bytes),
            "DIR/log.csv: line 2, column `title`: not UTF-8; if the file is Latin-1, say so (encoding)"
        );
    }

    #[test]
    fn an_uneven_row() {
        assert_eq!(error(b"a,b\n1,2\n1,2,3\n"), "DIR/log.csv: line 3: 3 cells; the header has 2");
    }

    #[test]
    fn an_empty_file_and_a_column_twice() {
        let empty = "DIR/log.csv: an empty file; expected a header and rows, or Parquet";
        assert_eq!(error(b""), empty);
        assert_eq!(error(b"a,b,a\n"), "DIR/log.csv: two columns are called `a`");
    }

    #[test]
    fn a_truncated_parquet_file() {
        let found = error(b"PAR1 and then nothing");
        assert!(found.starts_with("DIR/log.csv: cannot be read as Parquet: "), "{found}");
    }
}
