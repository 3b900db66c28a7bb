//! Predictions of impressions, as columns and as Parquet.
//!
//! ```text
//! user, item    uint64, hashed
//! label         uint8, 0 or 1
//! logit, p      float; p is the probability
//! behaviors     uint32, length of the history
//! with_image    boolean, of the item shown
//! time          int64, unix seconds
//! ```

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ams_data::guarded;
use ams_data::staging::StagedFile;
use ams_model::loss::sigmoid;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Int64Array, PrimitiveArray, RecordBatch,
    UInt8Array, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};

/// Rows written at a time.
const BLOCK: usize = 1 << 16;

/// Predictions of a model for impressions, one row each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// The user, as an id of the field `user`.
    pub users: Vec<u64>,
    /// The item shown, as an id of the field `item`.
    pub items: Vec<u64>,
    /// 1 clicked, 0 not.
    pub labels: Vec<u8>,
    /// Predicted logits, one per impression; finite.
    pub logits: Vec<f32>,
    /// Behaviors in the history.
    pub behaviors: Vec<u32>,
    /// Whether the item shown has an image.
    pub with_image: Vec<bool>,
    /// When it was shown, unix seconds.
    pub times: Vec<i64>,
}

impl Predictions {
    /// Number of impressions, the length of every column.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Appends the rows of `other`.
    pub fn extend(&mut self, other: Predictions) {
        let Predictions { users, items, labels, logits, behaviors, with_image, times } = other;
        self.users.extend(users);
        self.items.extend(items);
        self.labels.extend(labels);
        self.logits.extend(logits);
        self.behaviors.extend(behaviors);
        self.with_image.extend(with_image);
        self.times.extend(times);
    }

    /// Whether there is no impression.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Writes `path`, whole or not at all, replacing what was there. The folder is made if needed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let failed = |error: ParquetError| Error::io(path)(std::io::Error::other(error));
        let level = ZstdLevel::try_new(1).expect("level 1 exists");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by("ams".to_owned())
            .build();
        let schema = Arc::new(schema());
        let file = StagedFile::create(path)?;
        let mut writer =
            ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(failed)?;
        for start in (0..self.len()).step_by(BLOCK) {
            let columns = self.columns(start..self.len().min(start + BLOCK));
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)
                .expect("the columns are those of the schema, of one length");
            writer.write(&batch).map_err(failed)?;
        }
        Ok(writer.into_inner().map_err(failed)?.commit()?)
    }

    fn columns(&self, rows: std::ops::Range<usize>) -> Vec<ArrayRef> {
        let logits = &self.logits[rows.clone()];
        vec![
            Arc::new(UInt64Array::from(self.users[rows.clone()].to_vec())),
            Arc::new(UInt64Array::from(self.items[rows.clone()].to_vec())),
            Arc::new(UInt8Array::from(self.labels[rows.clone()].to_vec())),
            Arc::new(Float32Array::from(logits.to_vec())),
            Arc::new(Float32Array::from_iter_values(logits.iter().map(|&logit| sigmoid(logit)))),
            Arc::new(UInt32Array::from(self.behaviors[rows.clone()].to_vec())),
            Arc::new(BooleanArray::from(self.with_image[rows.clone()].to_vec())),
            Arc::new(Int64Array::from(self.times[rows].to_vec())),
        ]
    }

    /// Reads what [`Predictions::write`] wrote.
    ///
    /// # Errors
    /// If the file is not Parquet, or a column is missing, of another type, or holds a null, a
    /// label other than 0 and 1, or a logit that is not finite.
    pub fn read(path: &Path) -> Result<Predictions> {
        let file = File::open(path).map_err(Error::io(path))?;
        let unreadable =
            |error: String| Error::content(path, format!("cannot be read as Parquet: {error}"));
        guarded(path, || {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                .and_then(|reader| reader.with_batch_size(BLOCK).build())
                .map_err(|error| unreadable(error.to_string()))?;
            let mut predictions = Predictions::default();
            for batch in reader {
                let batch = batch.map_err(|error| unreadable(error.to_string()))?;
                predictions.append(&batch).map_err(|what| Error::content(path, what))?;
            }
            Ok(predictions)
        })
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let first = self.len();
        append::<UInt64Type>(batch, "user", &mut self.users)?;
        append::<UInt64Type>(batch, "item", &mut self.items)?;
        append::<UInt8Type>(batch, "label", &mut self.labels)?;
        append::<Float32Type>(batch, "logit", &mut self.logits)?;
        append::<UInt32Type>(batch, "behaviors", &mut self.behaviors)?;
        append::<Int64Type>(batch, "time", &mut self.times)?;
        let with_image = column::<BooleanArray>(batch, "with_image")?;
        self.with_image.extend(with_image.values().iter());
        for (row, (&label, logit)) in self.labels.iter().zip(&self.logits).enumerate().skip(first) {
            if label > 1 {
                return Err(format!("row {}: `label` is {label}, expected 0 or 1", row + 1));
            }
            if !logit.is_finite() {
                return Err(format!("row {}: `logit` is {logit}, expected a number", row + 1));
            }
        }
        Ok(())
    }
}

fn schema() -> Schema {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Schema::new(vec![
        field("user", DataType::UInt64),
        field("item", DataType::UInt64),
        field("label", DataType::UInt8),
        field("logit", DataType::Float32),
        field("p", DataType::Float32),
        field("behaviors", DataType::UInt32),
        field("with_image", DataType::Boolean),
        field("time", DataType::Int64),
    ])
}

fn append<T: ArrowPrimitiveType>(
    batch: &RecordBatch,
    name: &str,
    to: &mut Vec<T::Native>,
) -> Result<(), String> {
    to.extend_from_slice(column::<PrimitiveArray<T>>(batch, name)?.values());
    Ok(())
}

fn column<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
    if column.null_count() > 0 {
        return Err(format!("column `{name}` has {} rows without a value", column.null_count()));
    }
    column.as_any().downcast_ref().ok_or_else(|| {
        let schema = schema();
        let expected = schema.field_with_name(name).expect("one of our columns").data_type();
        format!("column `{name}` is {}, expected {expected}", column.data_type())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predictions(count: usize) -> Predictions {
        let rows = 0..count as u64;
        Predictions {
            users: rows.clone().map(|row| u64::MAX - row / 3).collect(),
            items: rows.clone().map(|row| row * 7).collect(),
            labels: rows.clone().map(|row| (row % 2) as u8).collect(),
            logits: rows.clone().map(|row| row as f32 * 0.1 - 2.0).collect(),
            behaviors: rows.clone().map(|row| row as u32 % 50).collect(),
            with_image: rows.clone().map(|row| row % 3 == 0).collect(),
            times: rows.map(|row| row as i64 - 5).collect(),
        }
    }

    #[test]
    fn columns_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("predictions").join("test.parquet");
        for count in [0, 1, BLOCK + 3] {
            let expected = predictions(count);
            expected.write(&path).unwrap();
            assert_eq!(Predictions::read(&path).unwrap(), expected);
        }
        let names = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(names, 1);
    }

    #[test]
    fn probabilities_stand_beside_the_logits() {
        let columns = predictions(3).columns(0..3);
        let p = columns[4].as_any().downcast_ref::<Float32Array>().unwrap();
        assert_eq!(p.values()[..], [-2.0, -1.9, -1.8].map(sigmoid));
    }

    /// What reading says of `predictions` written, and then changed by `damage`.
    fn refused(predictions: &Predictions, damage: impl FnOnce(&mut Vec<u8>)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.parquet");
        predictions.write(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let error = Predictions::read(&path).expect_err("damaged").to_string();
        error.replace(&path.display().to_string(), "P")
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let mut bad = predictions(5);
        bad.labels[3] = 2;
        assert_eq!(refused(&bad, |_| ()), "P: row 4: `label` is 2, expected 0 or 1");
        let mut bad = predictions(5);
        bad.logits[0] = f32::NAN;
        assert_eq!(refused(&bad, |_| ()), "P: row 1: `logit` is NaN, expected a number");
        let cut = refused(&predictions(5), |bytes| bytes.truncate(bytes.len() - 5));
        assert!(cut.starts_with("P: cannot be read as Parquet"), "{cut}");
    }

    #[test]
    fn other_columns_are_refused() {
        let logits = Arc::new(Float32Array::from(vec![0.5]));
        let nothing = Arc::new(UInt64Array::from(vec![None]));
        let cases: [(ArrayRef, &str, &str); 3] = [
            (logits, "user", "column `user` is Float32, expected UInt64"),
            (nothing.clone(), "users", "no column `user`"),
            (nothing, "user", "column `user` has 1 rows without a value"),
        ];
        for (array, name, expected) in cases {
            let batch = RecordBatch::try_from_iter([(name, array)]).unwrap();
            let got = append::<UInt64Type>(&batch, "user", &mut Vec::new());
            assert_eq!(got, Err(expected.to_owned()));
        }
    }
}
