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
    let unpacked = unpack_vectors(&path, None, None, &to);
    let (names, _) = unpacked.map_err(|error| error.to_string())?;
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
    let small = vec![("key", texts(&["a", "b"])), ("v", lists(&[&[1.0], &[1e-9]]))];
    let small = error(small);
    assert!(
        small.contains("row 2 (\"b\"), column `v`: the vector: the largest number is"),
        "{small}"
    );
    let large = vec![("key", texts(&["a"])), ("v", lists(&[&[1e6]]))];
    let large = error(large);
    assert!(large.contains("the vector, column 1: inf as f16 (it is 1000000)"), "{large}");
}

/// Rows of a path and the bytes of a picture, either of which may be missing.
fn pictures(rows: &[(Option<&str>, Option<&str>)]) -> ArrayRef {
    let bytes: Vec<Option<&[u8]>> = rows.iter().map(|row| row.1.map(str::as_bytes)).collect();
    let bytes: ArrayRef = Arc::new(BinaryArray::from(bytes));
    let paths: Vec<Option<&str>> = rows.iter().map(|row| row.0).collect();
    let paths: ArrayRef = Arc::new(StringArray::from(paths));
    let field = |name: &str, kind| Arc::new(Field::new(name, kind, true));
    Arc::new(StructArray::from(vec![
        (field("bytes", DataType::Binary), bytes),
        (field("path", DataType::Utf8), paths),
    ]))
}

/// What unpacking some rows gives: counts, and names with content; or the error.
fn unpacked(rows: &[(Option<&str>, Option<&str>)], same: SameName) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let label: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows.len() as i64));
    write(&path, vec![("image", pictures(rows)), ("label", label)]);
    let to = folder.path().join("pictures");
    let unpacked = unpack_pictures(&path, &to, same).map_err(|error| error.to_string())?;
    let Unpacked { names, rows, without_picture, repeated } = unpacked;
    let mut text = format!("{rows} rows, {without_picture} without, {repeated} repeated:");
    for name in names {
        text += &format!(" {name}={}", fs::read_to_string(to.join(&name)).unwrap());
    }
    Ok(text)
}

#[test]
fn pictures_are_unpacked_under_their_path() {
    let plain = [(Some("a.jpg"), Some("A")), (Some("b/c.png"), Some("B")), (None, Some("C"))];
    let expected = Ok("3 rows, 0 without, 0 repeated: a.jpg=A b/c.png=B 2=C".to_owned());
    assert_eq!(unpacked(&plain, SameName::Refuse), expected);
    let holes = [(Some("a.jpg"), Some("A")), (Some("b.jpg"), None), (Some("./c.jpg"), Some("C"))];
    let expected = Ok("3 rows, 1 without, 0 repeated: a.jpg=A ./c.jpg=C".to_owned());
    assert_eq!(unpacked(&holes, SameName::Refuse), expected);
    for path in ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg"] {
        let error = unpacked(&[(Some(path), Some("A"))], SameName::Refuse).unwrap_err();
        let expected = format!("row 1: path \"{path}\" leads out of the folder of pictures");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn a_name_is_one_pictures() {
    let same = [(Some("a.jpg"), Some("A")), (Some("b.jpg"), Some("B")), (Some("a.jpg"), Some("A"))];
    let expected = Ok("3 rows, 0 without, 1 repeated: a.jpg=A b.jpg=B".to_owned());
    assert_eq!(unpacked(&same, SameName::Refuse), expected);
    let two = [(Some("x/a.jpg"), Some("A")), (None, Some("B")), (Some("x/a.jpg"), Some("C"))];
    let error = unpacked(&two, SameName::Refuse).unwrap_err();
    let expected = "row 1 and row 3 are different pictures with the path \"x/a.jpg\": a name must be one picture's. \
                    --number-repeated puts the row's number before every name (`x/2-a.jpg`)";
    assert!(error.contains(expected), "{error}");
    let expected = Ok("3 rows, 0 without, 0 repeated: x/0-a.jpg=A 1=B x/2-a.jpg=C".to_owned());
    assert_eq!(unpacked(&two, SameName::Number), expected);
    // Names that differ, of one file.
    let alike = [(Some("a.jpg"), Some("A")), (Some("./a.jpg"), Some("B"))];
    let error = unpacked(&alike, SameName::Refuse).unwrap_err();
    assert!(error.contains("the path \"a.jpg\" and \"./a.jpg\""), "{error}");
}

#[test]
fn rows_without_bytes_are_no_pictures() {
    let error = |rows| unpacked(rows, SameName::Refuse).unwrap_err();
    let paths = error(&[(None, None), (Some("a.jpg"), None)]);
    assert!(
        paths.contains(
            "none of its 2 rows has the bytes of a picture, only a path such as \"a.jpg\""
        ),
        "{paths}"
    );
    assert!(error(&[(None, None)]).contains("none of its 1 rows has a picture"));
}
