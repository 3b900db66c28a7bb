//! Parquet files as other programs write them.

use std::sync::Arc;

use super::*;
use crate::matrix::Matrix;
use arrow_array::builder::{FixedSizeListBuilder, Float32Builder, Float64Builder, ListBuilder};
use arrow_array::{BinaryArray, Int64Array, StringArray, StructArray};
use parquet::arrow::ArrowWriter;

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn lists(rows: &[&[f32]]) -> ArrayRef {
    let mut lists = ListBuilder::new(Float32Builder::new());
    rows.iter().for_each(|row| lists.append_value(row.iter().copied().map(Some)));
    Arc::new(lists.finish())
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// The rows that come of some columns, by name, or the error.
fn check(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<(String, Vec<f32>)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let (path, to) = (folder.path().join("v.parquet"), folder.path().join("rows"));
    write(&path, columns);
    assert!(is_parquet(&path));
    let names = unpack_vectors(&path, (None, None), &to).map_err(|error| error.to_string())?;
    let matrix = Matrix::open(&to, None).unwrap();
    let mut row = Vec::new();
    let rows = names.into_iter().enumerate().map(|(at, name)| {
        matrix.row(at, &name, &mut row).unwrap();
        (name, row.iter().map(|value| value.to_f32()).collect())
    });
    Ok(rows.collect())
}

#[test]
fn lists_of_either_kind_are_vectors() {
    let expected = vec![("a".to_owned(), vec![1.0, -2.0]), ("b".to_owned(), vec![0.5, 4.0])];
    let rows = lists(&[&[1.0, -2.0], &[0.5, 4.0]]);
    assert_eq!(check(vec![("key", texts(&["a", "b"])), ("v", rows)]), Ok(expected.clone()));
    let mut fixed = FixedSizeListBuilder::new(Float64Builder::new(), 2);
    for row in [[1.0, -2.0], [0.5, 4.0]] {
        row.iter().for_each(|value| fixed.values().append_value(*value));
        fixed.append(true);
    }
    let fixed: ArrayRef = Arc::new(fixed.finish());
    let named = vec![("note", texts(&["x", "y"])), ("key", texts(&["a", "b"])), ("v", fixed)];
    assert_eq!(check(named), Ok(expected));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let numbered = vec![("item", ids), ("v", lists(&[&[3.0]]))];
    assert_eq!(check(numbered), Ok(vec![("7".to_owned(), vec![3.0])]));
}

#[test]
fn what_is_wrong_is_said_with_its_row() {
    let error = |columns| check(columns).unwrap_err();
    let ragged = vec![("key", texts(&["a", "b"])), ("v", lists(&[&[1.0], &[1.0, 2.0]]))];
    assert!(error(ragged).contains("row 2 (\"b\"), column `v`: 2 numbers, but 1 in the first row"));
    let two = vec![("key", texts(&["a"])), ("v", lists(&[&[1.0]])), ("w", lists(&[&[1.0]]))];
    assert!(error(two).contains("2 columns could be the vectors, expected one; found: key Utf8"));
    let nameless = vec![("v", lists(&[&[1.0]]))];
    assert!(error(nameless).contains("0 columns could be the names"));
    let empty = vec![("key", texts(&["a", ""])), ("v", lists(&[&[1.0], &[1.0]]))];
    assert!(error(empty).contains("row 2: the name is null, empty"));
    let nothing = vec![("key", texts(&["a"])), ("v", lists(&[&[]]))];
    assert!(error(nothing).contains("row 1 (\"a\"), column `v`: the vector has no numbers"));
}

fn pictures(paths: &[Option<&str>]) -> ArrayRef {
    let bytes: Vec<&[u8]> = paths.iter().map(|_| &b"picture"[..]).collect();
    let bytes: ArrayRef = Arc::new(BinaryArray::from(bytes));
    let paths: ArrayRef = Arc::new(StringArray::from(paths.to_vec()));
    let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
    Arc::new(StructArray::from(vec![
        (field("bytes", DataType::Binary), bytes),
        (field("path", DataType::Utf8), paths),
    ]))
}

#[test]
fn pictures_are_unpacked_under_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 2]));
    write(
        &path,
        vec![("image", pictures(&[Some("a.jpg"), Some("b/c.png"), None])), ("label", label)],
    );
    let to = folder.path().join("pictures");
    let names = unpack_pictures(&path, &to).unwrap();
    assert_eq!(names, ["a.jpg", "b/c.png", "2"]);
    for name in names {
        assert_eq!(fs::read(to.join(name)).unwrap(), b"picture");
    }
    write(&path, vec![("image", pictures(&[Some("../a.jpg")]))]);
    let error = unpack_pictures(&path, &to).unwrap_err().to_string();
    assert!(error.contains("row 1: path \"../a.jpg\" leads out"), "{error}");
    assert!(!folder.path().join("a.jpg").exists());
}
