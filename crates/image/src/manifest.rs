//! `pictures-<generation>.parquet` and `failed.csv`: the store's pictures for people and other
//! programs.
//!
//! Knows names, keys, sizes and failures. Does not know rows.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ams_data::staging::FileEntry;
use ams_data::staging::write_whole;
use ams_data::{Error, ImageKey, Result, guarded};
use arrow_array::cast::AsArray;
use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::durable::HashedFile;
use crate::failure::{Failure, Reason};

const BATCH: usize = 65_536;

/// One picture by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// The name as the log spells it.
    pub name: String,
    /// What it shows, or [`ImageKey::NONE`] where it failed.
    pub key: ImageKey,
    /// Length of the picture file, 0 where there is none.
    pub bytes: u64,
    /// Width in pixels, 0 where unknown.
    pub width: u32,
    /// Height in pixels, 0 where unknown.
    pub height: u32,
    /// Why it has no feature.
    pub failure: Option<Failure>,
    /// The file's name, where it was found under another spelling just now; not kept in the
    /// manifest.
    pub file: Option<String>,
}

impl Picture {
    /// `ok` or the reason's name.
    fn status(&self) -> &'static str {
        self.failure.as_ref().map_or("ok", |failure| failure.reason.name())
    }

    /// What was found instead of a picture.
    fn detail(&self) -> &str {
        self.failure.as_ref().map_or("", |failure| &failure.detail)
    }

    /// Whether two pictures are the same as far as the manifest can tell.
    pub(crate) fn same(&self, other: &Picture) -> bool {
        (&self.name, self.key, self.bytes, self.status())
            == (&other.name, other.key, other.bytes, other.status())
    }
}

/// The names in ascending order, each once.
pub(crate) fn distinct(names: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let mut names = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<String>>();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(Error::option("there is no picture to encode: no item names one"));
    }
    Ok(names)
}

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("key", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("width", DataType::UInt32, false),
        Field::new("height", DataType::UInt32, false),
        Field::new("status", DataType::Utf8, false),
        Field::new("detail", DataType::Utf8, false),
    ])
}

/// Writes the manifest, one row per picture in the order given.
pub(crate) fn write_pictures(path: &Path, pictures: &[Picture]) -> Result<FileEntry> {
    let failed = |error: String| Error::content(path, error);
    let schema = Arc::new(schema());
    let file = HashedFile::create(path)?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), None)
        .map_err(|error| failed(error.to_string()))?;
    for pictures in pictures.chunks(BATCH) {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(pictures.iter().map(|picture| &picture.name))),
            Arc::new(UInt64Array::from_iter_values(pictures.iter().map(|picture| picture.key.0))),
            Arc::new(UInt64Array::from_iter_values(pictures.iter().map(|picture| picture.bytes))),
            Arc::new(UInt32Array::from_iter_values(pictures.iter().map(|picture| picture.width))),
            Arc::new(UInt32Array::from_iter_values(pictures.iter().map(|picture| picture.height))),
            Arc::new(StringArray::from_iter_values(pictures.iter().map(Picture::status))),
            Arc::new(StringArray::from_iter_values(pictures.iter().map(Picture::detail))),
        ];
        let batch =
            RecordBatch::try_new(Arc::clone(&schema), columns).expect("columns as the schema");
        writer.write(&batch).map_err(|error| failed(error.to_string()))?;
    }
    writer.into_inner().map_err(|error| failed(error.to_string()))?.finish()
}

/// Reads what [`write_pictures`] wrote.
pub(crate) fn read_pictures(path: &Path) -> Result<Vec<Picture>> {
    guarded(path, || pictures(path))
}

fn pictures(path: &Path) -> Result<Vec<Picture>> {
    let failed = |error: String| Error::content(path, error);
    let file = File::open(path).map_err(Error::io(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| failed(error.to_string()))?;
    let expected = schema();
    let found = builder.schema().fields();
    if found
        .iter()
        .map(|field| (field.name(), field.data_type()))
        .ne(expected.fields().iter().map(|field| (field.name(), field.data_type())))
    {
        return Err(failed(format!("columns are {found:?}, expected {:?}", expected.fields())));
    }
    let reader = builder.build().map_err(|error| failed(error.to_string()))?;
    let mut pictures = Vec::new();
    for batch in reader {
        read_batch(&batch.map_err(|error| failed(error.to_string()))?, &mut pictures);
    }
    Ok(pictures)
}

fn read_batch(batch: &RecordBatch, pictures: &mut Vec<Picture>) {
    let [names, statuses, details] =
        [0, 5, 6].map(|column| batch.column(column).as_string::<i32>());
    let [keys, bytes] = [1, 2].map(|column| batch.column(column).as_primitive::<UInt64Type>());
    let [widths, heights] = [3, 4].map(|column| batch.column(column).as_primitive::<UInt32Type>());
    for row in 0..batch.num_rows() {
        let reason = Reason::ALL.into_iter().find(|reason| reason.name() == statuses.value(row));
        pictures.push(Picture {
            name: names.value(row).to_string(),
            key: ImageKey(keys.value(row)),
            bytes: bytes.value(row),
            width: widths.value(row),
            height: heights.value(row),
            failure: reason.map(|reason| Failure::new(reason, details.value(row))),
            file: None,
        });
    }
}

/// Writes `failed.csv`: name, reason, detail of every picture without a feature.
pub(crate) fn write_failed(path: &Path, pictures: &[Picture]) -> Result<()> {
    let mut text = String::from("name,reason,detail\n");
    for picture in pictures {
        if let Some(Failure { reason, detail }) = &picture.failure {
            text += &format!("{},{},{}\n", quoted(&picture.name), reason.name(), quoted(detail));
        }
    }
    write_whole(path, text)
}

/// A CSV cell, quoted where it has to be.
fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures() -> Vec<Picture> {
        let ok = Picture {
            name: "a.jpg".into(),
            key: ImageKey(7),
            bytes: 100,
            width: 3,
            height: 4,
            failure: None,
            file: None,
        };
        let failure = Some(Failure::new(Reason::Corrupt, "cut \"short\", sadly"));
        let bad = Picture { name: "b,c.jpg".into(), key: ImageKey::NONE, failure, ..ok.clone() };
        vec![ok, bad]
    }

    #[test]
    fn pictures_come_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pictures.parquet");
        write_pictures(&path, &pictures()).unwrap();
        let back = read_pictures(&path).unwrap();
        assert_eq!(back, pictures());
        assert!(!back[1].same(&pictures()[0]));
    }

    #[test]
    fn failures_are_listed_as_csv() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failed.csv");
        write_failed(&path, &pictures()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "name,reason,detail\n\"b,c.jpg\",corrupt,\"cut \"\"short\"\", sadly\"\n");
    }
}
