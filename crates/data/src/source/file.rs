//! One file as a table, of whatever format it is.

use std::path::Path;
use std::sync::Arc;

use super::compression::Compression;
use super::csv::CsvTable;
use super::format::{self, Format, START};
use super::input::Input;
use super::ipc::IpcTable;
use super::json::JsonTable;
use super::options::TableOptions;
use super::parquet::ParquetTable;
use super::table::{Batches, Table};
use super::text::Text;
use crate::guard::guarded;
use crate::{Error, Result};

/// A file as a table.
#[derive(Debug)]
pub(crate) enum FileTable {
    Csv(CsvTable),
    Json(JsonTable),
    Parquet(ParquetTable),
    Ipc(IpcTable),
}

impl FileTable {
    /// Opens it as what its first bytes say; nothing if it is empty.
    pub(crate) fn open(input: Arc<dyn Input>, options: &TableOptions) -> Result<Option<FileTable>> {
        let wrong = |what: String| Error::content(input.path(), what);
        let mut start = start(&input, Compression::None)?;
        if start.is_empty() {
            return Ok(None);
        }
        let compression = Compression::of(&start);
        if compression != Compression::None {
            start = self::start(&input, compression)?;
            if start.is_empty() {
                return Ok(None);
            }
            if Compression::of(&start) != Compression::None {
                return Err(wrong("compressed twice; decompress it once".to_string()));
            }
        }
        match format::binary(&start).map_err(wrong)? {
            Some(format) if compression != Compression::None => {
                return Err(wrong(format::compressed(format, compression)));
            }
            Some(Format::Parquet) => {
                let table = guarded(input.path(), || ParquetTable::open(Arc::clone(&input)))?;
                return Ok(Some(FileTable::Parquet(table)));
            }
            Some(format) => {
                let stream = format == Format::IpcStream;
                let open = || IpcTable::open(Arc::clone(&input), stream);
                return Ok(Some(FileTable::Ipc(guarded(input.path(), open)?)));
            }
            None => {}
        }
        let (encoding, mark) =
            options.encoding.of(&start, &options.flag("encoding")).map_err(wrong)?;
        let text = Text { input: Arc::clone(&input), compression, encoding, mark };
        let mut window = text.window(false)?;
        while window.bytes().len() < START && !window.ended() {
            window.more().map_err(|error| text.failed(error))?;
        }
        if window.bytes().trim_ascii().is_empty() && window.ended() {
            return Ok(None);
        }
        let is_csv = options.delimiter.is_some() || options.header.is_some();
        let format =
            if is_csv { Format::Csv } else { format::text(window.bytes()).map_err(wrong)? };
        drop(window);
        match format {
            Format::Json => JsonTable::open(text, options).map(FileTable::Json).map(Some),
            _ => CsvTable::open(text, options).map(FileTable::Csv).map(Some),
        }
    }

    fn table(&self) -> &dyn Table {
        match self {
            FileTable::Csv(table) => table,
            FileTable::Json(table) => table,
            FileTable::Parquet(table) => table,
            FileTable::Ipc(table) => table,
        }
    }

    /// The batches of these columns.
    pub(crate) fn read(&self, columns: &[usize]) -> Result<Batches<'static>> {
        let path = self.path().to_path_buf();
        let batches = match self {
            FileTable::Csv(table) => return table.read(columns),
            FileTable::Json(table) => return table.read(columns),
            FileTable::Parquet(table) => guarded(&path, || table.read(columns))?,
            FileTable::Ipc(table) => guarded(&path, || table.read(columns))?,
        };
        // A reader that failed is in no state to go on.
        let mut batches = Some(batches);
        Ok(Box::new(std::iter::from_fn(move || {
            let next = guarded(&path, || batches.as_mut().and_then(Iterator::next).transpose());
            if next.is_err() {
                batches = None;
            }
            next.transpose()
        })))
    }

    /// The format, of which all files of a table are one.
    pub(crate) fn format(&self) -> &'static str {
        match self {
            FileTable::Csv(_) => "CSV",
            FileTable::Json(_) => "JSON",
            FileTable::Parquet(_) => "Parquet",
            FileTable::Ipc(_) => "Arrow IPC",
        }
    }

    /// How such files are usually called.
    pub(crate) fn ending(&self) -> &'static str {
        match self {
            FileTable::Csv(_) => "csv",
            FileTable::Json(_) => "jsonl",
            FileTable::Parquet(_) => "parquet",
            FileTable::Ipc(_) => "arrow",
        }
    }

    /// Whether a value may be missing by its column being missing.
    pub(crate) fn is_sparse(&self) -> bool {
        matches!(self, FileTable::Json(_))
    }
}

/// The first bytes of a file, decompressed.
fn start(input: &Arc<dyn Input>, compression: Compression) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut start = Vec::new();
    let reader = compression.reader(input.as_ref(), false)?;
    let read = reader.take(START as u64).read_to_end(&mut start);
    match read {
        Ok(_) => Ok(start),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::content(input.path(), error.to_string()))
        }
        Err(error) => Err(Error::io(input.path())(error)),
    }
}

impl Table for FileTable {
    fn path(&self) -> &Path {
        self.table().path()
    }

    fn columns(&self) -> &[String] {
        self.table().columns()
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.read(columns)
    }

    fn column_type(&self, column: usize) -> Option<String> {
        self.table().column_type(column)
    }

    fn unusable(&self, column: usize) -> Option<String> {
        self.table().unusable(column)
    }

    fn notes(&self) -> Vec<String> {
        self.table().notes()
    }

    fn hint(&self) -> Option<String> {
        self.table().hint()
    }
}

/// The error of a file that has no bytes.
pub(super) fn empty(input: &dyn Input) -> Error {
    Error::content(
        input.path(),
        "an empty file; expected a header and rows, JSON lines, Parquet or Arrow IPC",
    )
}
