//! A table in memory.

use std::path::{Path, PathBuf};

use super::batch::{BATCH_ROWS, Places, TextBatch};
use super::table::{Batches, Table};
use crate::Result;

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
