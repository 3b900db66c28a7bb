//! Parquet as a table of text: any scalar becomes the text people would write for it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use super::{BATCH_ROWS, Batches, Places, Table, TextBatch};
use crate::catalogue::SEPARATOR;
use crate::parquet_file::unreadable;
use crate::{Error, Result};

/// A Parquet file of scalars (and lists of them).
///
/// Timestamps become unix seconds, dates `2020-09-22`, whole floating point numbers lose their `.0` (a
/// column of integers with gaps is often stored so), NaN is missing, and the parts of a list are separated
/// by [`SEPARATOR`].
#[derive(Clone, Debug)]
pub struct ParquetTable {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    columns: Vec<String>,
}

impl ParquetTable {
    /// Reads the footer of `path`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Content`] if it is not Parquet or truncated.
    pub fn open(path: &Path) -> Result<ParquetTable> {
        let file = File::open(path).map_err(Error::io(path))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(unreadable(path))?;
        let columns = metadata.schema().fields().iter().map(|field| field.name().clone()).collect();
        Ok(ParquetTable { path: path.to_path_buf(), metadata, columns })
    }
}

impl Table for ParquetTable {
    fn path(&self) -> &Path {
        &self.path
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let descriptor = self.metadata.metadata().file_metadata().schema_descr();
        let mask = ProjectionMask::roots(descriptor, columns.iter().copied());
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(unreadable(&self.path))?;
        let names: Vec<_> = columns.iter().map(|&column| self.columns[column].clone()).collect();
        let mut next_row = 1;
        Ok(Box::new(reader.map(move |batch| {
            let batch = batch.map_err(|error| {
                Error::content(&self.path, format!("after row {}: {error}", next_row - 1))
            })?;
            let first = next_row;
            next_row += batch.num_rows() as u64;
            self.texts(&names, &batch, first)
        })))
    }
}

impl ParquetTable {
    fn texts(&self, names: &[String], batch: &RecordBatch, first: u64) -> Result<TextBatch> {
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let array = batch.column_by_name(name).expect("the columns asked for");
            let texts = text(array).ok_or_else(|| {
                let what =
                    format!("column `{name}` is {}; expected single values", array.data_type());
                Error::content(&self.path, what)
            })?;
            columns.push(texts);
        }
        Ok(TextBatch::new(columns, batch.num_rows(), Places::Rows(first)))
    }
}

fn text(array: &ArrayRef) -> Option<StringArray> {
    match array.data_type() {
        DataType::Timestamp(unit, _) => {
            let per_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            let values = arrow_cast::cast(array, &DataType::Int64).ok()?;
            let values = values.as_primitive::<Int64Type>().iter();
            Some(values.map(|value| Some(value?.div_euclid(per_second).to_string())).collect())
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let plain = arrow_cast::cast(array, &DataType::Utf8).ok()?;
            let values = arrow_cast::cast(array, &DataType::Float64).ok()?;
            let pairs = values.as_primitive::<Float64Type>().iter().zip(plain.as_string::<i32>());
            Some(pairs.map(|(value, plain)| float_text(value?, plain?)).collect())
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let values = text(list.values())?;
            let joined = |row: usize| {
                let ends = list.value_offsets();
                let parts = (ends[row] as usize..ends[row + 1] as usize)
                    .filter(|&at| values.is_valid(at))
                    .map(|at| values.value(at));
                parts.collect::<Vec<_>>().join(SEPARATOR.encode_utf8(&mut [0; 4]))
            };
            Some((0..list.len()).map(|row| list.is_valid(row).then(|| joined(row))).collect())
        }
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => None,
        DataType::Null => Some(StringArray::new_null(array.len())),
        _ => {
            let texts = arrow_cast::cast(&Arc::clone(array), &DataType::Utf8).ok()?;
            Some(texts.as_string::<i32>().clone())
        }
    }
}

fn float_text(value: f64, plain: &str) -> Option<String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        None
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        Some((value as i64).to_string())
    } else {
        Some(plain.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Date32Array, Float64Array, Int64Array, TimestampMillisecondArray};
    use parquet::arrow::ArrowWriter;

    fn through_a_file(array: ArrayRef) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        let batch = RecordBatch::try_from_iter([("x", array)]).unwrap();
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let table = super::super::open(&path, &Default::default()).unwrap();
        let mut texts = Vec::new();
        for batch in table.batches(&[0]).unwrap() {
            let batch = batch.unwrap();
            texts.extend((0..batch.rows()).map(|row| batch.get(0, row).to_string()));
        }
        texts
    }

    #[test]
    fn scalars_become_the_text_people_write() {
        let floats = Float64Array::from(vec![Some(12.0), Some(2.5), None, Some(f64::NAN)]);
        assert_eq!(through_a_file(Arc::new(floats)), ["12", "2.5", "", ""]);
        assert_eq!(through_a_file(Arc::new(Int64Array::from(vec![-7]))), ["-7"]);
        let zeros = StringArray::from(vec!["0012", ""]);
        assert_eq!(through_a_file(Arc::new(zeros)), ["0012", ""]);
        assert_eq!(through_a_file(Arc::new(Date32Array::from(vec![18527]))), ["2020-09-22"]);
        let time = TimestampMillisecondArray::from(vec![1_600_000_000_999]).with_timezone("UTC");
        assert_eq!(through_a_file(Arc::new(time)), ["1600000000"]);
    }
}
