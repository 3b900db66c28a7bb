//! What became of impressions that a model answered, in Parquet.
//!
//! ```text
//! version   integer             the version that answered
//! ctr       float               the rate that it answered, 0 to 1
//! label     integer or boolean  1 if it was clicked, else 0
//! ```
//! Columns are found by name; others are ignored.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, UInt8Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::guard::guarded;
use crate::parquet_file::{ParquetFile, unreadable};
use crate::{Error, Result};

/// The first and the last bytes of a Parquet file.
const MAGIC: [u8; 4] = *b"PAR1";

/// One impression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The version that answered.
    pub version: u64,
    /// The rate that it answered, 0 to 1.
    pub ctr: f64,
    /// Whether it was clicked.
    pub clicked: bool,
}

/// Whether the file `path` begins and ends as Parquet does. One that is being written has no end.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn is_whole(path: &Path) -> Result<bool> {
    let ends = || -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        let mut ends = [[0; 4]; 2];
        if file.metadata()?.len() < 12 {
            return Ok(false);
        }
        file.read_exact(&mut ends[0])?;
        file.seek(SeekFrom::End(-4))?;
        file.read_exact(&mut ends[1])?;
        Ok(ends == [MAGIC; 2])
    };
    ends().map_err(Error::io(path))
}

/// Hands over the outcomes of the file `path`, in the order of rows.
///
/// # Errors
/// If it is not Parquet or lacks a column, or with the first row (1-based) that is wrong; what was
/// handed over before is then to be forgotten.
pub fn for_each(path: &Path, mut take: impl FnMut(Outcome)) -> Result<()> {
    guarded(path, || {
        let file = File::open(path).map_err(Error::io(path))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable(path))?;
        let mut first = 0;
        for batch in reader.build().map_err(unreadable(path))? {
            let batch =
                batch.map_err(|error| Error::content(path, format!("cannot be read: {error}")))?;
            rows(&batch, first, &mut take).map_err(|what| Error::content(path, what))?;
            first += batch.num_rows();
        }
        Ok(())
    })
}

/// Writes `outcomes` as the file `path`, which appears whole.
///
/// # Errors
/// If it cannot be written.
pub fn write(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let fields = vec![
        field("version", DataType::UInt64),
        field("ctr", DataType::Float64),
        field("label", DataType::UInt8),
    ];
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(outcomes.iter().map(|of| of.version))),
        Arc::new(Float64Array::from_iter_values(outcomes.iter().map(|of| of.ctr))),
        Arc::new(UInt8Array::from_iter_values(outcomes.iter().map(|of| u8::from(of.clicked)))),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns of the schema");
    let mut file = ParquetFile::create(path, schema)?;
    file.write(&batch)?;
    file.finish()
}

fn rows(batch: &RecordBatch, first: usize, take: &mut impl FnMut(Outcome)) -> Result<(), String> {
    let integer = |of: &DataType| of.is_integer();
    let float = |of: &DataType| of.is_numeric();
    let label = |of: &DataType| of.is_integer() || *of == DataType::Boolean;
    let versions = column(batch, "version", &DataType::UInt64, "integers", integer)?;
    let rates = column(batch, "ctr", &DataType::Float64, "numbers", float)?;
    let labels = column(batch, "label", &DataType::UInt64, "0 or 1", label)?;
    let (versions, labels) =
        (versions.as_primitive::<UInt64Type>(), labels.as_primitive::<UInt64Type>());
    let rates = rates.as_primitive::<Float64Type>();
    for row in 0..batch.num_rows() {
        let wrong = |what: &str| Err(format!("row {}: {what}", first + row + 1));
        if versions.is_null(row) {
            return wrong("no `version`, expected the number of the version that answered");
        }
        if rates.is_null(row) {
            return wrong("no `ctr`, expected 0 to 1");
        }
        let (ctr, label) = (rates.value(row), labels.value(row));
        if !(0.0..=1.0).contains(&ctr) {
            return wrong(&format!("`ctr` is {ctr}, expected 0 to 1"));
        }
        if labels.is_null(row) || label > 1 {
            let label = if labels.is_null(row) { "missing".to_owned() } else { label.to_string() };
            return wrong(&format!("`label` is {label}, expected 0 or 1"));
        }
        take(Outcome { version: versions.value(row), ctr, clicked: label == 1 });
    }
    Ok(())
}

/// A column as `to`; what cannot be told so is null.
fn column(
    batch: &RecordBatch,
    name: &str,
    to: &DataType,
    expected: &str,
    accepts: impl Fn(&DataType) -> bool,
) -> Result<ArrayRef, String> {
    let Some(column) = batch.column_by_name(name) else {
        let schema = batch.schema();
        let found: Vec<&str> = schema.fields().iter().map(|field| &field.name()[..]).collect();
        return Err(format!("no column `{name}`; found: {}", found.join(", ")));
    };
    if !accepts(column.data_type()) {
        return Err(format!("column `{name}` is {}; expected {expected}", column.data_type()));
    }
    arrow_cast::cast(column, to).map_err(|error| format!("column `{name}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{BooleanArray, Float32Array, Int32Array, Int64Array};
    use parquet::arrow::ArrowWriter;

    fn written(columns: Vec<(&str, ArrayRef)>) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.parquet");
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        (folder, path)
    }

    fn read(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<(u64, f64, bool)>, String> {
        let (_folder, path) = written(columns);
        let mut got = Vec::new();
        for_each(&path, |of| got.push((of.version, of.ctr, of.clicked)))
            .map_err(|error| error.to_string())?;
        Ok(got)
    }

    fn usual() -> [(&'static str, ArrayRef); 3] {
        [
            ("version", Arc::new(Int64Array::from(vec![4, 3]))),
            ("ctr", Arc::new(Float64Array::from(vec![0.25, 0.0]))),
            ("label", Arc::new(Int32Array::from(vec![1, 0]))),
        ]
    }

    fn with(name: &str, column: ArrayRef) -> Result<Vec<(u64, f64, bool)>, String> {
        let columns = usual().into_iter();
        let of = columns.map(|(at, usual)| (at, if at == name { column.clone() } else { usual }));
        read(of.collect())
    }

    #[test]
    fn outcomes_are_read_from_usual_types() {
        let expected = vec![(4, 0.25, true), (3, 0.0, false)];
        assert_eq!(read(usual().into_iter().rev().collect()), Ok(expected.clone()));
        let rates: ArrayRef = Arc::new(Float32Array::from(vec![0.25, 0.0]));
        assert_eq!(with("ctr", rates), Ok(expected.clone()));
        let labels: ArrayRef = Arc::new(BooleanArray::from(vec![true, false]));
        assert_eq!(with("label", labels), Ok(expected));
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.parquet");
        let outcomes = [(4, 0.1, true), (u64::MAX, 1.0, false)]
            .map(|(version, ctr, clicked)| Outcome { version, ctr, clicked });
        write(&path, &outcomes).unwrap();
        let mut got = Vec::new();
        for_each(&path, |of| got.push(of)).unwrap();
        assert_eq!(got, outcomes);
    }

    #[test]
    fn a_wrong_row_is_named() {
        let cases: [(&str, ArrayRef, &str); 6] = [
            ("ctr", Arc::new(Float64Array::from(vec![0.5, 1.5])), "row 2: `ctr` is 1.5, expected"),
            ("ctr", Arc::new(Float64Array::from(vec![Some(0.5), None])), "row 2: no `ctr`"),
            ("ctr", Arc::new(Float64Array::from(vec![f64::NAN, 0.1])), "row 1: `ctr` is NaN"),
            ("label", Arc::new(Int32Array::from(vec![0, 2])), "row 2: `label` is 2, expected 0"),
            ("version", Arc::new(Int64Array::from(vec![-1, 2])), "row 1: no `version`"),
            ("version", Arc::new(Float64Array::from(vec![1.0, 2.0])), "is Float64; expected int"),
        ];
        for (name, column, expected) in cases {
            let error = with(name, column).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = read(usual()[..2].to_vec()).unwrap_err();
        assert!(error.ends_with("no column `label`; found: version, ctr"), "{error}");
    }

    #[test]
    fn a_file_without_its_end_is_not_whole() {
        let (_folder, path) = written(usual().to_vec());
        assert!(is_whole(&path).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 3, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(!is_whole(&path).unwrap(), "{length}");
        }
        // Both ends, and nothing between them that is right.
        let damaged = [&bytes[..8], &[7; 30], &bytes[bytes.len() - 8..]].concat();
        std::fs::write(&path, damaged).unwrap();
        assert!(is_whole(&path).unwrap());
        assert!(for_each(&path, |_| ()).is_err());
        assert!(is_whole(&path.with_extension("absent")).is_err());
    }
}
