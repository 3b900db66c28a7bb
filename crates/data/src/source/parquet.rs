//! Parquet as a table of text.

use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::LogicalType;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};

use super::arrow::{ArrowColumns, Wanted};
use super::batch::{BATCH_BYTES, BATCH_ROWS};
use super::input::{Input, ReadAt};
use super::table::{Batches, Table};
use crate::parquet_file::unreadable;
use crate::{Error, Result};

/// A Parquet file whose footer was read.
#[derive(Clone, Debug)]
pub(crate) struct ParquetTable {
    input: Arc<dyn Input>,
    metadata: ArrowReaderMetadata,
    columns: ArrowColumns,
}

/// Reads at random places as the parquet crate asks for them.
struct Chunks {
    at: Arc<dyn ReadAt>,
    length: u64,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<BufReader<From>> {
        let from = From { at: Arc::clone(&self.at), start, end: self.length };
        Ok(BufReader::new(from))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // Lengths that a damaged file states are not to be believed.
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            let what = format!("{length} bytes at {start} are outside of the file");
            return Err(ParquetError::EOF(what));
        }
        Ok(self.at.read_at(start, length)?)
    }
}

/// Reads on from a place.
struct From {
    at: Arc<dyn ReadAt>,
    start: u64,
    end: u64,
}

impl Read for From {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = (to.len() as u64).min(self.end.saturating_sub(self.start)) as usize;
        if count > 0 {
            to[..count].copy_from_slice(&self.at.read_at(self.start, count)?);
            self.start += count as u64;
        }
        Ok(count)
    }
}

impl ParquetTable {
    pub(crate) fn open(input: Arc<dyn Input>) -> Result<ParquetTable> {
        let chunks = chunks(&input)?;
        // Arrow's own schema knows more, such as durations; where it is odd, Parquet's does.
        let metadata =
            ArrowReaderMetadata::load(&chunks, ArrowReaderOptions::new()).or_else(|_| {
                let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
                ArrowReaderMetadata::load(&chunks, plain)
            });
        let metadata = metadata.map_err(unreadable(input.path()))?;
        let roots = metadata.parquet_schema().root_schema().get_fields();
        let uuid = |at: usize| {
            let about = roots.get(at).map(|root| root.get_basic_info());
            about.and_then(|about| about.logical_type_ref()) == Some(&LogicalType::Uuid)
        };
        let columns = ArrowColumns::new(metadata.schema(), uuid);
        let mut table = ParquetTable { input, metadata, columns };
        let mut columns = table.columns.clone();
        columns.settle(table.path(), |at| {
            let mut reader = table.reader(&[at], table.batch_rows(&[at]))?;
            let first = reader.next().transpose();
            first.map_err(|error| Error::content(table.path(), error.to_string()))
        });
        table.columns = columns;
        Ok(table)
    }

    /// The batches of these columns.
    pub(crate) fn read(&self, columns: &[usize]) -> Result<Batches<'static>> {
        self.check_usable(columns)?;
        let table = self.clone();
        let wanted = Wanted::new(columns);
        let reader = self.reader(&wanted.roots, self.batch_rows(&wanted.roots))?;
        let mut next_row = 1;
        Ok(Box::new(reader.map(move |batch| {
            let batch = batch.map_err(|error| {
                let what = format!("cannot be read as Parquet after row {}: {error}", next_row - 1);
                Error::content(table.path(), what)
            })?;
            let first = next_row;
            next_row += batch.num_rows() as u64;
            table.columns.batch(table.path(), &wanted, &batch, first)
        })))
    }

    /// The columns at these positions, which ascend, in batches of `rows`.
    fn reader(&self, columns: &[usize], rows: usize) -> Result<ParquetRecordBatchReader> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(
            chunks(&self.input)?,
            self.metadata.clone(),
        )
        .with_projection(mask)
        .with_batch_size(rows)
        .build()
        .map_err(unreadable(self.input.path()))
    }

    /// Rows that make a batch of these columns, which ascend: few where they are long.
    fn batch_rows(&self, columns: &[usize]) -> usize {
        let metadata = self.metadata.metadata();
        let schema = self.metadata.parquet_schema();
        let (mut bytes, mut rows) = (0, 0);
        for group in metadata.row_groups() {
            rows += group.num_rows().max(0) as u64;
            for (leaf, column) in group.columns().iter().enumerate() {
                if columns.binary_search(&schema.get_column_root_idx(leaf)).is_ok() {
                    bytes += column.uncompressed_size().max(0) as u64;
                }
            }
        }
        let each = bytes / rows.max(1);
        (BATCH_BYTES / (each.max(1) as usize)).clamp(16, BATCH_ROWS)
    }
}

fn chunks(input: &Arc<dyn Input>) -> Result<Chunks> {
    let at = input.at_random().map_err(Error::io(input.path()))?;
    Ok(Chunks { at, length: input.length() })
}

impl Table for ParquetTable {
    fn path(&self) -> &Path {
        self.input.path()
    }

    fn columns(&self) -> &[String] {
        &self.columns.names
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.read(columns)
    }

    fn column_type(&self, column: usize) -> Option<String> {
        Some(self.columns.type_name(column).to_string())
    }

    fn unusable(&self, column: usize) -> Option<String> {
        self.columns.unusable(column)
    }

    fn notes(&self) -> Vec<String> {
        vec!["Parquet".to_string()]
    }
}
