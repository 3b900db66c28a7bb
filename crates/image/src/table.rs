//! Vectors and pictures in Parquet files.
//!
//! - Vectors: a column of `fixed_size_list<float>` or `list<float>` (halfs, singles or doubles), and one of names.
//! - Pictures, as Hugging Face keeps them: a column of `struct{bytes, path}`.
//!
//! Parquet cannot be read at random, so both are unpacked, batch by batch: vectors into one file of halfs that can be
//! mapped, pictures into a folder.
//!
//! Knows Parquet and Arrow. Does not know what a picture shows.

use std::fs::{self, File};
use std::path::{Component, Path};

use ams_data::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::{DataType, Field, Schema};
use half::f16;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use safetensors::Dtype;

use crate::tensors::TensorWriter;

/// Rows per batch.
const BATCH: usize = 1024;

/// How a Parquet file begins.
pub const MAGIC: &[u8; 4] = b"PAR1";

/// Columns of names, unless one is named.
const NAMES: [&str; 6] = ["key", "name", "image", "path", "item", "id"];

/// Whether `path` is a Parquet file, by its first bytes.
pub fn is_parquet(path: &Path) -> bool {
    let mut bytes = [0; 4];
    let read =
        File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes));
    read.is_ok() && bytes == *MAGIC
}

/// Unpacks the vectors in the Parquet file `path` into the new safetensors file `to`, tensor `rows` f16 [n, dim]; their names.
/// `vectors` and `names` are the columns; found by type and by usual names unless given.
///
/// # Errors
/// If a column is missing or ambiguous, a vector is null or of another length than the first, a name is null.
pub fn unpack_vectors(
    path: &Path,
    (vectors, names): (Option<&str>, Option<&str>),
    to: &Path,
) -> Result<Vec<String>> {
    let (reader, rows) = open(path)?;
    let schema = reader.schema();
    let vectors = column(path, &schema, vectors, "vectors", &|field| is_vector(field.data_type()))?;
    let names = column(path, &schema, names, "names", &|field| {
        NAMES.contains(&field.name().as_str()) && text_of(field.data_type())
    })?;
    let (mut list, mut halfs) = (Vec::with_capacity(rows), Vec::new());
    let mut writer: Option<(TensorWriter, usize)> = None;
    for batch in reader {
        let batch = batch.map_err(|error| Error::content(path, error.to_string()))?;
        push_names(path, batch.column(names), &mut list)?;
        for row in 0..batch.num_rows() {
            halfs.clear();
            let at = list.len() - batch.num_rows() + row;
            let wrong = |what: String| {
                let column = batch.schema_ref().field(vectors).name().clone();
                Error::content(
                    path,
                    format!("row {} (\"{}\"), column `{column}`: {what}", at + 1, list[at]),
                )
            };
            push_vector(batch.column(vectors), row, &mut halfs).map_err(&wrong)?;
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
    Ok(list)
}

/// Unpacks the pictures in the Parquet file `path` into `folder`, under their `path`, or their row's number counted from 0
/// where they have none; their names. A null is no picture.
///
/// # Errors
/// If there is no column of pictures, or not one; if a `path` leads out of the folder; if a file cannot be written.
pub fn unpack_pictures(path: &Path, folder: &Path) -> Result<Vec<String>> {
    let (reader, _) = open(path)?;
    let pictures =
        column(path, &reader.schema(), None, "pictures", &|field| is_picture(field.data_type()))?;
    let mut names = Vec::new();
    let mut at = 0;
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|error| Error::content(path, error.to_string()))?;
        let pictures = batch.column(pictures).as_struct();
        let field = |name| pictures.column_by_name(name).expect("the column's type says so");
        let (bytes, paths) = (field("bytes"), field("path"));
        for row in 0..batch.num_rows() {
            at += 1;
            let Some(bytes) = binary(bytes, row).filter(|_| pictures.is_valid(row)) else {
                continue;
            };
            let name = match text(paths, row).filter(|name| !name.is_empty()) {
                Some(name) => name,
                None => (at - 1).to_string(),
            };
            let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
            if !Path::new(&name).components().all(inside) {
                let what = format!("row {at}: path \"{name}\" leads out of the folder of pictures");
                return Err(Error::content(path, what));
            }
            let to = folder.join(&name);
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
            fs::write(&to, bytes).map_err(Error::io(&to))?;
            names.push(name);
        }
    }
    Ok(names)
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

/// Appends the vector in `row`, rounded to halfs.
fn push_vector(column: &ArrayRef, row: usize, to: &mut Vec<f16>) -> Result<(), String> {
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
    match values.data_type() {
        DataType::Float16 => to.extend_from_slice(values.as_primitive::<Float16Type>().values()),
        DataType::Float32 => {
            let singles = values.as_primitive::<Float32Type>().values().iter();
            to.extend(singles.map(|value| f16::from_f32(*value)));
        }
        DataType::Float64 => {
            let doubles = values.as_primitive::<Float64Type>().values().iter();
            to.extend(doubles.map(|value| f16::from_f64(*value)));
        }
        other => return Err(format!("is a list of {other}, expected floats")),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
