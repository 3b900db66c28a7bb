//! Columns of Parquet and Arrow as text: any scalar becomes what people would write for it.
//!
//! Integers are decimal; booleans `true` and `false`; floating point numbers the shortest decimal
//! of their width, whole ones below 2^53 without `.0` (a column of integers with gaps is often
//! stored so), NaN missing; decimals without trailing zeros; timestamps unix seconds, cut off
//! towards the past; durations seconds; dates `2020-09-22`; UUIDs as they are usually written; the
//! parts of a list separated by [`SEPARATOR`], missing ones left out.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, FixedSizeListArray, RecordBatch, StringArray};
use arrow_cast::CastOptions;
use arrow_schema::{DataType, Field, Schema, TimeUnit};

use super::batch::{BATCH_ROWS, Places, TextBatch};
use super::names::{unusable_names, write_float};
use crate::guard::guarded;
use crate::value::SEPARATOR;
use crate::{Error, Result};

/// What a column of Arrow is to this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The type, for people.
    pub(crate) name: String,
    pub(crate) reading: Reading,
}

/// Whether a column's values become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Text,
    /// They are the 16 bytes of UUIDs.
    Uuid,
    /// If its bytes are text.
    Bytes,
    Never,
}

impl Kind {
    /// Of a field; `uuid`: its file says otherwise than by an extension that it holds UUIDs.
    pub(crate) fn of(field: &Field, uuid: bool) -> Kind {
        let uuid = uuid || is_uuid(field);
        let reading = match plain(field.data_type()) {
            DataType::FixedSizeBinary(16) if uuid => Reading::Uuid,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => Reading::Bytes,
            scalar if is_scalar(scalar) => Reading::Text,
            list => match parts(list).map(|part| plain(part.data_type())) {
                Some(part) if is_scalar(part) => Reading::Text,
                _ => Reading::Never,
            },
        };
        let name =
            if reading == Reading::Uuid { "UUID".to_string() } else { name(field.data_type()) };
        Kind { name, reading }
    }

    /// Why the column cannot be used, if it cannot.
    pub(crate) fn unusable(&self) -> Option<String> {
        (self.reading == Reading::Never).then(|| {
            format!(
                "it is of type {}; expected texts, numbers, booleans, times, UUIDs or lists of them: write the needed values \
                 as a column of their own",
                self.name
            )
        })
    }
}

fn is_uuid(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == "arrow.uuid")
}

/// The type of the values that are packed, if they are.
fn plain(data: &DataType) -> &DataType {
    match data {
        DataType::Dictionary(_, values) => plain(values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type()),
        other => other,
    }
}

fn parts(data: &DataType) -> Option<&Arc<Field>> {
    match data {
        DataType::List(part)
        | DataType::LargeList(part)
        | DataType::ListView(part)
        | DataType::LargeListView(part)
        | DataType::FixedSizeList(part, _) => Some(part),
        _ => None,
    }
}

fn is_scalar(data: &DataType) -> bool {
    !data.is_nested()
        && !matches!(
            data,
            DataType::Interval(_)
                | DataType::Binary
                | DataType::LargeBinary
                | DataType::BinaryView
                | DataType::FixedSizeBinary(_)
        )
}

/// A type in few words.
fn name(data: &DataType) -> String {
    match data {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_string(),
        DataType::Boolean => "boolean".to_string(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary".to_string(),
        DataType::FixedSizeBinary(bytes) => format!("binary of {bytes} bytes"),
        DataType::Struct(_) => "struct".to_string(),
        DataType::Map(..) => "map".to_string(),
        DataType::Union(..) => "union".to_string(),
        DataType::Dictionary(_, values) => name(values),
        DataType::RunEndEncoded(_, values) => name(values.data_type()),
        DataType::Timestamp(..) => "timestamp".to_string(),
        DataType::Date32 | DataType::Date64 => "date".to_string(),
        DataType::Interval(_) => "interval".to_string(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision}, {scale})"),
        other => match parts(other) {
            Some(part) if is_uuid(part) => "list of UUID".to_string(),
            Some(part) => format!("list of {}", name(part.data_type())),
            None => other.to_string().to_lowercase(),
        },
    }
}

/// The columns of a file of Arrow's types.
#[derive(Clone, Debug)]
pub(crate) struct ArrowColumns {
    pub(crate) names: Vec<String>,
    kinds: Vec<Kind>,
    unusable: Vec<Option<String>>,
}

/// Columns that are asked for: those of the file, ascending, and which of them each is.
pub(crate) struct Wanted {
    pub(crate) roots: Vec<usize>,
    places: Vec<(usize, usize)>,
}

impl Wanted {
    pub(crate) fn new(columns: &[usize]) -> Wanted {
        let mut roots = columns.to_vec();
        roots.sort_unstable();
        roots.dedup();
        let place = |column: &usize| roots.binary_search(column).expect("it is one of them");
        let places = columns.iter().map(|column| (*column, place(column))).collect();
        Wanted { roots, places }
    }
}

impl ArrowColumns {
    /// Of a schema; `is_uuid`: whether the file says otherwise than by an extension that a column
    /// holds UUIDs.
    pub(crate) fn new(schema: &Schema, is_uuid: impl Fn(usize) -> bool) -> ArrowColumns {
        let fields = schema.fields();
        let names: Vec<String> =
            fields.iter().map(|field| field.name().trim().to_string()).collect();
        let kinds: Vec<Kind> =
            fields.iter().enumerate().map(|(at, field)| Kind::of(field, is_uuid(at))).collect();
        let unusable = unusable_names(&names);
        ArrowColumns { names, kinds, unusable }
    }

    /// Decides of columns of bytes by their `first` values whether they are text: older writers do
    /// not say so. What is read of a column is nothing where it has no values.
    pub(crate) fn settle(
        &mut self,
        path: &Path,
        first: impl Fn(usize) -> Result<Option<RecordBatch>>,
    ) {
        for at in 0..self.names.len() {
            let kind = &mut self.kinds[at];
            if kind.reading == Reading::Bytes {
                // A damaged column that nobody asks for does no harm.
                let is_text: Result<bool> =
                    guarded(path, || Ok(first(at)?.is_none_or(|batch| begins_as_text(&batch))));
                if !is_text.unwrap_or(false) {
                    kind.reading = Reading::Never;
                }
            }
            if let Some(why) = kind.unusable() {
                self.unusable[at].get_or_insert(why);
            }
        }
    }

    /// The type of a column, for people.
    pub(crate) fn type_name(&self, column: usize) -> &str {
        &self.kinds[column].name
    }

    pub(crate) fn unusable(&self, column: usize) -> Option<String> {
        self.unusable[column].clone()
    }

    /// A batch of what is `wanted`, whose first row is number `first` of the file `path`.
    pub(crate) fn batch(
        &self,
        path: &Path,
        wanted: &Wanted,
        batch: &RecordBatch,
        first: u64,
    ) -> Result<TextBatch> {
        let mut columns = Vec::with_capacity(wanted.places.len());
        for &(column, at) in &wanted.places {
            let texts = texts(batch.column(at), self.kinds[column].reading);
            columns.push(texts.map_err(|wrong| {
                let place = match wrong.row {
                    Some(row) => format!("row {}", first + row as u64),
                    None => format!("row {first} or one of the {} after it", batch.num_rows()),
                };
                let name = &self.names[column];
                Error::content(path, format!("{place}, column `{name}`: {}", wrong.what))
            })?);
        }
        Ok(TextBatch::new(columns, batch.num_rows(), Places::Rows(first)))
    }
}

/// Whether the first values of a batch of bytes are text; as many as whoever looks at the first
/// rows of a table sees.
fn begins_as_text(batch: &RecordBatch) -> bool {
    let few = batch.column(0).slice(0, batch.num_rows().min(BATCH_ROWS));
    let is_plain = |text: &str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    texts(&few, Reading::Bytes).is_ok_and(|texts| texts.iter().flatten().all(is_plain))
}

/// What could not become text.
#[derive(Debug)]
pub(crate) struct NoText {
    /// Position in the array, if it is about one value.
    pub(crate) row: Option<usize>,
    pub(crate) what: String,
}

impl NoText {
    fn new(what: impl Into<String>) -> NoText {
        NoText { row: None, what: what.into() }
    }
}

/// The values of a column in memory as text, as a file with this column has them.
///
/// # Errors
/// If its type has no text, or a value of bytes is none; the message has the type or the row,
/// counted from 1.
pub fn column_texts(field: &Field, array: &ArrayRef) -> Result<StringArray, String> {
    let kind = Kind::of(field, false);
    if let Some(why) = kind.unusable() {
        return Err(why);
    }
    texts(array, kind.reading).map_err(|wrong| match wrong.row {
        Some(row) => format!("row {}: {}", row + 1, wrong.what),
        None => wrong.what,
    })
}

/// The values of a column as text.
pub(crate) fn texts(array: &ArrayRef, reading: Reading) -> Result<StringArray, NoText> {
    match array.data_type() {
        DataType::Utf8 => Ok(array.as_string::<i32>().clone()),
        DataType::Dictionary(_, values) => texts(&cast(array, values)?, reading),
        DataType::RunEndEncoded(_, values) => texts(&cast(array, values.data_type())?, reading),
        DataType::Null => Ok(StringArray::new_null(array.len())),
        DataType::Float16 => {
            let values = array.as_primitive::<Float16Type>();
            Ok(written(values.iter(), |value, to| {
                write_float(value.to_f64(), &Half(value.to_f32()), to);
            }))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>();
            Ok(written(values.iter(), |value, to| write_float(f64::from(value), &value, to)))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            Ok(written(values.iter(), |value, to| write_float(value, &value, to)))
        }
        DataType::Timestamp(unit, _) => {
            let values = cast(array, &DataType::Int64)?;
            let per_second = per_second(*unit);
            Ok(written(values.as_primitive::<Int64Type>().iter(), |value, to| {
                write!(to, "{}", value.div_euclid(per_second)).expect("memory can be written");
            }))
        }
        DataType::Duration(unit) => {
            let values = cast(array, &DataType::Int64)?;
            let per_second = per_second(*unit) as f64;
            Ok(written(values.as_primitive::<Int64Type>().iter(), |value, to| {
                let seconds = value as f64 / per_second;
                write_float(seconds, &seconds, to);
            }))
        }
        DataType::Date64 => texts(&cast(array, &DataType::Date32)?, reading),
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => {
            let texts = cast(array, &DataType::Utf8)?;
            Ok(written(texts.as_string::<i32>().iter(), |text, to| {
                let short = if text.contains('.') {
                    text.trim_end_matches('0').trim_end_matches('.')
                } else {
                    text
                };
                to.extend_from_slice(short.as_bytes());
            }))
        }
        DataType::FixedSizeBinary(16) if reading == Reading::Uuid => {
            Ok(written(array.as_fixed_size_binary().iter(), |value, to| {
                for (at, byte) in value.iter().enumerate() {
                    let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(to, "{hyphen}{byte:02x}").expect("memory can be written");
                }
            }))
        }
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => utf8(array),
        list if parts(list).is_some() => joined(array, reading),
        scalar if is_scalar(scalar) => Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()),
        other => Err(NoText::new(format!("{} has no text", name(other)))),
    }
}

/// Binary values whose bytes are UTF-8.
fn utf8(array: &ArrayRef) -> Result<StringArray, NoText> {
    let values = cast(array, &DataType::LargeBinary)?;
    let values = values.as_binary::<i64>();
    let text = |(row, value): (usize, Option<&[u8]>)| match value.map(std::str::from_utf8) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.to_string())),
        Some(Err(_)) => Err(NoText { row: Some(row), what: "bytes that are no text".to_string() }),
    };
    values.iter().enumerate().map(text).collect()
}

/// A conversion that says where it fails instead of leaving values out.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, NoText> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    arrow_cast::cast_with_options(array, to, &options)
        .map_err(|error| NoText::new(error.to_string()))
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Writes every value that there is; what stays empty is missing.
fn written<T>(
    values: impl Iterator<Item = Option<T>>,
    write: impl Fn(T, &mut Vec<u8>),
) -> StringArray {
    let mut builder = StringBuilder::new();
    let mut text = Vec::new();
    for value in values {
        text.clear();
        if let Some(value) = value {
            write(value, &mut text);
        }
        match std::str::from_utf8(&text) {
            Ok("") | Err(_) => builder.append_null(),
            Ok(text) => builder.append_value(text),
        }
    }
    builder.finish()
}

/// A number of 16 bits as its shortest decimal.
struct Half(f32);

impl std::fmt::Display for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        type F16 = <Float16Type as ArrowPrimitiveType>::Native;
        // The smallest is 2^-24, with 24 digits behind the point.
        let shortest = (0..24).map(|digits| format!("{:.digits$}", self.0)).find(|text| {
            text.parse().is_ok_and(|value: f32| F16::from_f32(value).to_f32() == self.0)
        });
        match shortest {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Lists as their parts.
fn joined(array: &ArrayRef, reading: Reading) -> Result<StringArray, NoText> {
    let (values, ranges): (&ArrayRef, Vec<(usize, usize)>) = match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let ends = list.value_offsets().windows(2);
            (list.values(), ends.map(|ends| (ends[0] as usize, ends[1] as usize)).collect())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let ends = list.value_offsets().windows(2);
            (list.values(), ends.map(|ends| (ends[0] as usize, ends[1] as usize)).collect())
        }
        DataType::ListView(_) => {
            let list = array.as_list_view::<i32>();
            let begins = list.offsets().iter().zip(list.sizes().iter());
            (
                list.values(),
                begins.map(|(&at, &size)| (at as usize, (at + size) as usize)).collect(),
            )
        }
        DataType::LargeListView(_) => {
            let list = array.as_list_view::<i64>();
            let begins = list.offsets().iter().zip(list.sizes().iter());
            (
                list.values(),
                begins.map(|(&at, &size)| (at as usize, (at + size) as usize)).collect(),
            )
        }
        _ => {
            let list: &FixedSizeListArray = array.as_fixed_size_list();
            let size = list.value_length() as usize;
            (list.values(), (0..list.len()).map(|row| (row * size, (row + 1) * size)).collect())
        }
    };
    let inner = match parts(array.data_type()) {
        Some(part) => Kind::of(part, false).reading,
        None => reading,
    };
    // Only what the rows speak of: a slice of a long array holds all of its parts.
    let first = ranges.iter().map(|range| range.0).min().unwrap_or(0);
    let end = ranges.iter().map(|range| range.1).max().unwrap_or(0);
    let values = texts(&values.slice(first, end - first), inner)
        .map_err(|wrong| NoText { row: None, what: format!("in a list: {}", wrong.what) })?;
    let mut builder = StringBuilder::new();
    let mut text = String::new();
    for (row, &(begin, end)) in ranges.iter().enumerate() {
        text.clear();
        if array.is_valid(row) {
            for at in (begin - first..end - first).filter(|&at| values.is_valid(at)) {
                if !text.is_empty() {
                    text.push(SEPARATOR);
                }
                text.push_str(values.value(at));
            }
        }
        if text.is_empty() { builder.append_null() } else { builder.append_value(&text) }
    }
    Ok(builder.finish())
}
