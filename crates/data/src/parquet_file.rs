//! Writing one Parquet file, whole or not at all. Knows compression and row groups, not columns.

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::staging::StagedFile;
use crate::{Error, Result};

/// A Parquet file being written: zstd level 1, plain Parquet types without Arrow's own schema.
pub(crate) struct ParquetFile {
    path: PathBuf,
    writer: ArrowWriter<StagedFile>,
}

impl ParquetFile {
    pub(crate) fn create(path: &Path, schema: SchemaRef) -> Result<ParquetFile> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("level 1 exists")))
            .set_statistics_enabled(EnabledStatistics::None)
            .set_created_by("ams".to_string())
            .build();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(StagedFile::create(path)?, schema, options)
            .map_err(unwritable(path))?;
        Ok(ParquetFile { path: path.to_path_buf(), writer })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(unwritable(&self.path))
    }

    /// Ends the row group.
    pub(crate) fn end_row_group(&mut self) -> Result<()> {
        self.writer.flush().map_err(unwritable(&self.path))
    }

    /// Writes the footer and gives the file its name.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.into_inner().map_err(unwritable(&self.path))?.commit()
    }
}

fn unwritable(path: &Path) -> impl Fn(ParquetError) -> Error {
    move |error| match error {
        ParquetError::External(source) => {
            let source = match source.downcast::<std::io::Error>() {
                Ok(source) => *source,
                Err(other) => std::io::Error::other(other),
            };
            Error::Io { path: path.to_path_buf(), source }
        }
        error => Error::Io { path: path.to_path_buf(), source: std::io::Error::other(error) },
    }
}

/// The error of a file that should be Parquet and is not.
pub(crate) fn unreadable(path: &Path) -> impl Fn(ParquetError) -> Error {
    move |error| Error::content(path, format!("cannot be read as Parquet: {error}"))
}
