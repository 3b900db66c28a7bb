//! Vectors and pictures in Parquet files.
//!
//! - Vectors: a column of `fixed_size_list<float>` or `list<float>` (halfs, singles or doubles),
//!   and one of names.
//! - Pictures, as Hugging Face keeps them: a column of `struct{bytes, path}`.
//!
//! Parquet cannot be read at random, so both are unpacked, batch by batch: vectors into one file of
//! halfs that can be mapped, pictures into a folder.
//!
//! Knows Parquet and Arrow. Does not know what a picture shows.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Component, Path};

use ams_data::{Error, Result, guarded};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::{DataType, Field, Schema};
use half::f16;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use safetensors::Dtype;
use serde::Serialize;

use crate::halves::{self, Tally};
use crate::tensors::TensorWriter;

const BATCH: usize = 1024;

/// How a Parquet file begins.
pub(crate) const MAGIC: &[u8; 4] = b"PAR1";

/// Columns of names, unless one is named.
const NAMES: [&str; 6] = ["key", "name", "image", "path", "item", "id"];

/// Whether `path` is a Parquet file, by its first bytes.
pub fn is_parquet(path: &Path) -> bool {
    let mut bytes = [0; 4];
    let read =
        File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.is_ok() && bytes == *MAGIC
}

/// Unpacks the vectors in the Parquet file `path` into the new safetensors file `to`, tensor `rows`
/// f16 [n, dim]; their names. `vectors` and `names` are the columns; found by type and by usual
/// names unless given.
///
/// # Errors
/// If a column is missing or ambiguous, a vector is null, of another length than the first or
/// cannot be held by halfs, a name is null.
pub(crate) fn unpack_vectors(
    path: &Path,
    vectors: Option<&str>,
    names: Option<&str>,
    to: &Path,
) -> Result<(Vec<String>, Tally)> {
    guarded(path, || vectors_into(path, vectors, names, to))
}

fn vectors_into(
    path: &Path,
    vectors: Option<&str>,
    names: Option<&str>,
    to: &Path,
) -> Result<(Vec<String>, Tally)> {
    let (reader, rows) = open(path)?;
    let schema = reader.schema();
    let vectors = column(path, &schema, vectors, "vectors", &|field| is_vector(field.data_type()))?;
    let names = column(path, &schema, names, "names", &|field| {
        NAMES.contains(&field.name().as_str()) && text_of(field.data_type())
    })?;
    let (mut list, mut halfs) = (Vec::with_capacity(rows), Vec::new());
    let mut tally = Tally::default();
    let mut writer: Option<(TensorWriter, usize)> = None;
    for batch in reader {
        let batch = batch.map_err(|error| Error::content(path, error.to_string()))?;
        push_names(path, batch.column(names), &mut list)?;
        for row in 0..batch.num_rows() {
            let at = list.len() - batch.num_rows() + row;
            let wrong = |what: String| {
                let column = batch.schema_ref().field(vectors).name().clone();
                Error::content(
                    path,
                    format!("row {} (\"{}\"), column `{column}`: {what}", at + 1, list[at]),
                )
            };
            tally.add(put_vector(batch.column(vectors), row, &mut halfs).map_err(&wrong)?);
            if writer.is_none() {
                if halfs.is_empty() {
                    return Err(wrong("the vector has no numbers".into()));
                }
                let tensors = [("rows", Dtype::F16, vec![rows, halfs.len()])];
                writer = Some((TensorWriter::create(to.to_path_buf(), &tensors)?, halfs.len()));
            }
            let (writer, dim) = writer.as_mut().expect("made for the first row");
            if halfs.len() != *dim {
                let what = format!("{} numbers, but {dim} in the first row", halfs.len());
                return Err(wrong(what));
            }
            writer.push(&halfs)?;
        }
    }
    let Some((writer, _)) = writer else { return Err(Error::content(path, "has no rows")) };
    writer.finish()?;
    Ok((list, tally))
}

/// What a Parquet file of pictures has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unpacked {
    /// The pictures' names, in the order of the rows.
    #[serde(skip)]
    pub names: Vec<String>,
    /// Rows of the file.
    pub rows: u64,
    /// Rows without a picture: null, or without bytes.
    pub without_picture: u64,
    /// Rows with the same name and the same picture as one before.
    pub repeated: u64,
}

/// What becomes of rows of pictures that have the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameName {
    /// They are an error, unless they are the same picture.
    #[default]
    Refuse,
    /// The number of its row, counted from 0, is put before the name of every picture: `12-a.jpg`.
    Number,
}

/// Unpacks the pictures in the Parquet file `path` into `folder`, under their `path`, or their
/// row's number counted from 0 where they have none. A null is no picture.
///
/// # Errors
/// If there is no column of pictures, or not one; if no row has a picture; if two pictures have one
/// name; if a `path` leads out of the folder; if a file cannot be written.
pub fn unpack_pictures(path: &Path, folder: &Path, same: SameName) -> Result<Unpacked> {
    guarded(path, || pictures_into(path, folder, same))
}

fn pictures_into(path: &Path, folder: &Path, same: SameName) -> Result<Unpacked> {
    let (reader, _) = open(path)?;
    let pictures =
        column(path, &reader.schema(), None, "pictures", &|field| is_picture(field.data_type()))?;
    let mut unpacked = Unpacked::default();
    // The row, the name and the content of each file.
    let mut seen: HashMap<String, (u64, String, blake3::Hash)> = HashMap::new();
    let mut only_path = None;
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|error| Error::content(path, error.to_string()))?;
        let pictures = batch.column(pictures).as_struct();
        let field = |name| pictures.column_by_name(name).expect("the column's type says so");
        let (bytes, paths) = (field("bytes"), field("path"));
        for row in 0..batch.num_rows() {
            let at = unpacked.rows;
            unpacked.rows += 1;
            let named = text(paths, row).filter(|name| !name.is_empty());
            let bytes = binary(bytes, row).filter(|_| pictures.is_valid(row));
            let Some(bytes) = bytes else {
                unpacked.without_picture += 1;
                only_path = only_path.or(named);
                continue;
            };
            let name = match (named, same) {
                (None, _) => at.to_string(),
                (Some(name), SameName::Refuse) => name,
                (Some(name), SameName::Number) => numbered(at, &name),
            };
            let file = plain(&name).ok_or_else(|| {
                let what = format!(
                    "row {}: path \"{name}\" leads out of the folder of pictures: expected a name relative to it",
                    at + 1
                );
                Error::content(path, what)
            })?;
            let hash = blake3::hash(bytes);
            match seen.get(&file) {
                Some((_, before, content)) if *content == hash && *before == name => {
                    unpacked.repeated += 1;
                    continue;
                }
                Some((first, before, _)) => {
                    let what = format!(
                        "row {} and row {} are different pictures with the path \"{before}\"{}: a name must be one picture's. \
                         --number-repeated puts the row's number before every name (`{}`)",
                        first + 1,
                        at + 1,
                        if *before == name { String::new() } else { format!(" and \"{name}\"") },
                        numbered(at, &name),
                    );
                    return Err(Error::content(path, what));
                }
                None => {}
            }
            let to = folder.join(&file);
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
            fs::write(&to, bytes).map_err(Error::io(&to))?;
            seen.insert(file, (at, name.clone(), hash));
            unpacked.names.push(name);
        }
    }
    if unpacked.names.is_empty() {
        return Err(none_unpacked(path, unpacked.rows, only_path));
    }
    Ok(unpacked)
}

/// None of `rows` rows has the bytes of a picture; one of them may have a path.
fn none_unpacked(path: &Path, rows: u64, only_path: Option<String>) -> Error {
    let what = match only_path {
        Some(example) => format!(
            "none of its {rows} rows has the bytes of a picture, only a path such as \"{example}\": say \
             --images FOLDER and name the pictures with --list"
        ),
        None => format!("none of its {rows} rows has a picture"),
    };
    Error::content(path, what)
}

/// A name with the number of its row before the last part.
fn numbered(row: u64, name: &str) -> String {
    match name.rsplit_once('/') {
        Some((folder, file)) => format!("{folder}/{row}-{file}"),
        None => format!("{row}-{name}"),
    }
}

/// A relative path without `.` parts; nothing, if it leads elsewhere.
fn plain(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn open(path: &Path) -> Result<(ParquetRecordBatchReader, usize)> {
    let wrong = |error: parquet::errors::ParquetError| Error::content(path, error.to_string());
    let file = File::open(path).map_err(Error::io(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(wrong)?;
    let rows = builder.metadata().file_metadata().num_rows();
    let reader = builder.with_batch_size(BATCH).build().map_err(wrong)?;
    Ok((reader, usize::try_from(rows).unwrap_or(0)))
}

/// The column called `named`, or the only one that `fits`.
fn column(
    path: &Path,
    schema: &Schema,
    named: Option<&str>,
    what: &str,
    fits: &dyn Fn(&Field) -> bool,
) -> Result<usize> {
    let all = schema.fields().iter().map(|it| format!("{} {}", it.name(), it.data_type()));
    let all = all.collect::<Vec<String>>().join(", ");
    if let Some(named) = named {
        let found = schema.fields().iter().position(|field| field.name() == named);
        return found
            .ok_or_else(|| Error::content(path, format!("no column `{named}`, found: {all}")));
    }
    let found: Vec<usize> =
        (0..schema.fields().len()).filter(|at| fits(schema.field(*at))).collect();
    match found[..] {
        [only] => Ok(only),
        _ => {
            let what =
                format!("{} columns could be the {what}, expected one; found: {all}", found.len());
            Err(Error::content(path, what))
        }
    }
}

fn is_vector(kind: &DataType) -> bool {
    match kind {
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => {
            matches!(of.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64)
        }
        _ => false,
    }
}

fn is_picture(kind: &DataType) -> bool {
    let DataType::Struct(fields) = kind else { return false };
    let of = |name: &str| fields.iter().find(|field| field.name() == name).map(|it| it.data_type());
    matches!(of("bytes"), Some(DataType::Binary | DataType::LargeBinary))
        && of("path").is_some_and(text_of)
}

/// Whether a column can hold names.
fn text_of(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Int64 | DataType::UInt64)
}

fn text(column: &ArrayRef, row: usize) -> Option<String> {
    column.is_valid(row).then(|| match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).to_owned()),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row).to_owned()),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row).to_string()),
        DataType::UInt64 => Some(column.as_primitive::<UInt64Type>().value(row).to_string()),
        _ => None,
    })?
}

fn binary(column: &ArrayRef, row: usize) -> Option<&[u8]> {
    column.is_valid(row).then(|| match column.data_type() {
        DataType::LargeBinary => column.as_binary::<i64>().value(row),
        _ => column.as_binary::<i32>().value(row),
    })
}

fn push_names(path: &Path, column: &ArrayRef, names: &mut Vec<String>) -> Result<()> {
    for row in 0..column.len() {
        let Some(name) = text(column, row).filter(|name| !name.is_empty()) else {
            let kind = column.data_type();
            let what =
                format!("row {}: the name is null, empty or not text ({kind})", names.len() + 1);
            return Err(Error::content(path, what));
        };
        names.push(name);
    }
    Ok(())
}

/// Puts the vector in `row` into `to`, rounded to halfs.
fn put_vector(column: &ArrayRef, row: usize, to: &mut Vec<f16>) -> Result<Tally, String> {
    if column.is_null(row) {
        return Err("is null".into());
    }
    let values = match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
        other => return Err(format!("is {other}, expected a list of floats")),
    };
    if values.null_count() > 0 {
        return Err("has a number that is null".into());
    }
    let put = match values.data_type() {
        DataType::Float16 => {
            let halfs = values.as_primitive::<Float16Type>().values().iter().copied();
            halves::put(halfs, |half| half, to)
        }
        DataType::Float32 => {
            let singles = values.as_primitive::<Float32Type>().values().iter().copied();
            halves::put(singles, f16::from_f32, to)
        }
        DataType::Float64 => {
            let doubles = values.as_primitive::<Float64Type>().values().iter().copied();
            halves::put(doubles, f16::from_f64, to)
        }
        other => return Err(format!("is a list of {other}, expected floats")),
    };
    put.map_err(|unfit| unfit.words("the vector"))
}

#[cfg(test)]
mod tests;
