//! CSV as a table of text. Read with the csv crate itself rather than Arrow's reader on top of it, because its
//! errors and positions name lines of the file.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::{BatchBuilder, Batches, Encoding, Table, TableOptions, TextBatch};
use crate::{Error, Result};

/// A CSV file with a header line.
#[derive(Clone, Debug)]
pub struct CsvTable {
    path: PathBuf,
    delimiter: u8,
    encoding: Encoding,
    columns: Vec<String>,
}

impl CsvTable {
    /// Reads the header of `path`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Content`] if there is no header in the asked encoding.
    pub fn open(path: &Path, options: &TableOptions) -> Result<CsvTable> {
        let delimiter = match options.delimiter {
            Some(delimiter) => u8::try_from(delimiter).map_err(|_| {
                Error::option(format!("delimiter `{delimiter}`: expected one ASCII character"))
            })?,
            None => guess_delimiter(path)?,
        };
        let mut table = CsvTable {
            path: path.to_path_buf(),
            delimiter,
            encoding: options.encoding,
            columns: vec![],
        };
        let header = table.reader()?.byte_headers().map_err(|error| table.wrong(error))?.clone();
        for cell in &header {
            let name = table.encoding.decode(cell);
            let name =
                name.ok_or_else(|| Error::content(path, "line 1: the header is not UTF-8"))?;
            table.columns.push(name.trim().to_string());
        }
        if table.columns.iter().all(String::is_empty) {
            return Err(Error::content(path, "line 1 is empty; expected a header"));
        }
        Ok(table)
    }

    fn reader(&self) -> Result<Reader<File>> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let mut builder = ReaderBuilder::new();
        Ok(builder.delimiter(self.delimiter).buffer_capacity(1 << 18).from_reader(file))
    }

    fn wrong(&self, error: csv::Error) -> Error {
        match error.into_kind() {
            ErrorKind::Io(source) => Error::Io { path: self.path.clone(), source },
            ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.map_or(0, |pos| pos.line());
                let what = format!("line {line}: {len} cells; the header has {expected_len}");
                Error::content(&self.path, what)
            }
            other => Error::content(&self.path, format!("{other:?}")),
        }
    }
}

impl Table for CsvTable {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        let rows = Rows {
            table: self,
            reader: self.reader()?,
            columns: columns.to_vec(),
            record: ByteRecord::new(),
            builder: BatchBuilder::new(columns.len()),
        };
        Ok(Box::new(rows))
    }
}

struct Rows<'a> {
    table: &'a CsvTable,
    reader: Reader<File>,
    columns: Vec<usize>,
    record: ByteRecord,
    builder: BatchBuilder,
}

impl Rows<'_> {
    fn batch(&mut self) -> Result<Option<TextBatch>> {
        while self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|error| self.table.wrong(error))?
        {
            let line = self.record.position().map_or(0, |position| position.line());
            for (to, &column) in self.columns.iter().enumerate() {
                let cell = self.table.encoding.decode(&self.record[column]).ok_or_else(|| {
                    let what = format!(
                        "line {line}, column `{}`: not UTF-8; if the file is Latin-1, say so (encoding)",
                        self.table.columns[column]
                    );
                    Error::content(&self.table.path, what)
                })?;
                self.builder.push(to, &cell);
            }
            if self.builder.end_row(line) {
                break;
            }
        }
        Ok(self.builder.finish())
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<TextBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batch().transpose()
    }
}

/// Whichever of the usual separators the first line has most of; a comma if it has none.
fn guess_delimiter(path: &Path) -> Result<u8> {
    let mut header = Vec::new();
    let file = File::open(path).map_err(Error::io(path))?;
    BufReader::new(file).read_until(b'\n', &mut header).map_err(Error::io(path))?;
    let count = |byte: &u8| header.iter().filter(|&found| found == byte).count();
    // `max_by_key` prefers the last of equals: the comma stands last.
    Ok(*[b'|', b'\t', b';', b','].iter().max_by_key(|byte| count(byte)).expect("four candidates"))
}
