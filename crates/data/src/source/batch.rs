//! Rows of text, and building them a cell at a time.

use std::sync::Arc;

use arrow_array::{Array, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};

/// Rows per batch; the last batch of a table may have fewer.
pub(crate) const BATCH_ROWS: usize = 8192;

/// Bytes of text from which on a batch is full.
pub(crate) const BATCH_BYTES: usize = 16 << 20;

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
    file: Option<Arc<str>>,
}

impl TextBatch {
    /// `columns` of equal length `rows`, standing at `places`.
    pub fn new(columns: Vec<StringArray>, rows: usize, places: Places) -> TextBatch {
        debug_assert!(columns.iter().all(|column| column.len() == rows));
        TextBatch { columns, places, rows, file: None }
    }

    /// Likewise, of the file called `file` among those of a table.
    pub(crate) fn of_file(self, file: &Arc<str>) -> TextBatch {
        TextBatch { file: Some(Arc::clone(file)), ..self }
    }

    /// The columns, and the batch without them.
    pub(crate) fn take_columns(mut self) -> (Vec<StringArray>, TextBatch) {
        (std::mem::take(&mut self.columns), self)
    }

    /// The batch with other columns.
    pub(crate) fn with_columns(self, columns: Vec<StringArray>) -> TextBatch {
        debug_assert!(columns.iter().all(|column| column.len() == self.rows));
        TextBatch { columns, ..self }
    }

    /// Number of rows, the same in every column.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One value; a missing one is the empty text.
    pub fn get(&self, column: usize, row: usize) -> &str {
        let column = &self.columns[column];
        if column.is_null(row) { "" } else { column.value(row) }
    }

    /// `line 7` or `row 7`: where row `row` of this batch is; with the file's name before it, where
    /// a table has several.
    pub fn place(&self, row: usize) -> String {
        let place = match &self.places {
            Places::Rows(first) => format!("row {}", first + row as u64),
            Places::Lines(lines) => format!("line {}", lines[row]),
        };
        match &self.file {
            Some(file) => format!("{file}, {place}"),
            None => place,
        }
    }
}

/// A cell that is no text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoText {
    /// Position among the columns that are built.
    pub(crate) column: usize,
    /// The line its row begins on.
    pub(crate) line: u64,
    /// It holds a NUL; else it is not UTF-8.
    pub(crate) nul: bool,
}

/// Columns of text being built, a cell at a time.
pub(crate) struct BatchBuilder {
    columns: Vec<Column>,
    lines: Vec<u64>,
    bytes: usize,
}

struct Column {
    values: Vec<u8>,
    ends: Vec<i32>,
}

impl BatchBuilder {
    pub(crate) fn new(columns: usize) -> BatchBuilder {
        let column = |_| Column { values: Vec::new(), ends: vec![0] };
        BatchBuilder { columns: (0..columns).map(column).collect(), lines: Vec::new(), bytes: 0 }
    }

    /// Appends the next value of column `column`.
    pub(crate) fn push(&mut self, column: usize, value: &[u8]) {
        self.push_by(column, |to| to.extend_from_slice(value));
    }

    /// Likewise; `write` appends its bytes.
    pub(crate) fn push_by(&mut self, column: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let column = &mut self.columns[column];
        let before = column.values.len();
        write(&mut column.values);
        self.bytes += column.values.len() - before;
        // A batch is full long before, and rows are shorter.
        column.ends.push(i32::try_from(column.values.len()).expect("less than 2 GiB a batch"));
    }

    /// Ends the row that began on `line`; says whether the batch is full.
    pub(crate) fn end_row(&mut self, line: u64) -> bool {
        self.lines.push(line);
        self.lines.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// The batch, unless it is empty.
    pub(crate) fn finish(&mut self) -> Result<Option<TextBatch>, NoText> {
        let lines = std::mem::take(&mut self.lines);
        self.bytes = 0;
        if lines.is_empty() {
            return Ok(None);
        }
        let mut columns = Vec::with_capacity(self.columns.len());
        for (position, column) in self.columns.iter_mut().enumerate() {
            let capacity = column.values.len() + column.values.len() / 8;
            let values = std::mem::replace(&mut column.values, Vec::with_capacity(capacity));
            let rows = column.ends.len();
            let mut fresh = Vec::with_capacity(rows);
            fresh.push(0);
            let ends = std::mem::replace(&mut column.ends, fresh);
            let (values, ends) = (Buffer::from_vec(values), ScalarBuffer::from(ends));
            let wrong = |is_wrong: &dyn Fn(&[u8]) -> bool, nul| {
                let cell = |row: usize| &values[ends[row] as usize..ends[row + 1] as usize];
                let row = (0..lines.len()).find(|&row| is_wrong(cell(row))).unwrap_or(0);
                NoText { column: position, line: lines[row], nul }
            };
            if memchr::memchr(0, &values).is_some() {
                return Err(wrong(&|cell| cell.contains(&0), true));
            }
            match StringArray::try_new(OffsetBuffer::new(ends.clone()), values.clone(), None) {
                Ok(array) => columns.push(array),
                Err(_) => return Err(wrong(&|cell| std::str::from_utf8(cell).is_err(), false)),
            }
        }
        Ok(Some(TextBatch::new(columns, lines.len(), Places::Lines(lines))))
    }
}
