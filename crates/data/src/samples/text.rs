//! Groups as people read them: the raw texts of a few rows, for example requests and reports.
//!
//! Training never comes here; it reads ids (see `read`).

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field as Value, Row};

use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::schema::{BEHAVIORS, Field, IMAGE, IMPRESSIONS, ITEM, LABEL, Schema, Side, TIME, USER};
use crate::value::number_text;

/// The values of one field: its name, and no, one or (if multi) several texts.
pub type Texts = Vec<(String, Vec<String>)>;

/// One group in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextGroup {
    /// Id of the user, as the log spells it.
    pub user: String,
    /// The other user fields.
    pub fields: Texts,
    /// What the user engaged with before, newest first.
    pub behaviors: Vec<TextItem>,
    /// What was shown, oldest first.
    pub impressions: Vec<TextItem>,
}

/// One behavior or impression in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextItem {
    /// Id of the item, as the log spells it.
    pub item: String,
    /// Name of the item's picture; none where the item has none.
    pub image: Option<String>,
    /// Instant of the impression, in Unix seconds.
    pub time: i64,
    /// Clicked or not; behaviors have no label.
    pub label: Option<u8>,
    /// Fields of the item.
    pub fields: Texts,
    /// Fields of the circumstances; behaviors have none.
    pub context: Texts,
}

/// The first `limit` groups of the sample file at `path` that `keep`.
///
/// # Errors
/// If the file cannot be read or does not have the layout of sample files.
pub fn read_texts(
    path: &Path,
    schema: &Schema,
    limit: usize,
    keep: impl Fn(&TextGroup) -> bool,
) -> Result<Vec<TextGroup>> {
    let bad = |error: parquet::errors::ParquetError| Error::content(path, error.to_string());
    let file = File::open(path).map_err(Error::io(path))?;
    guarded(path, || {
        let reader = SerializedFileReader::new(file).map_err(bad)?;
        let mut groups = Vec::new();
        for row in reader.get_row_iter(None).map_err(bad)? {
            if groups.len() == limit {
                break;
            }
            let row = row.map_err(bad)?;
            let group = group(&row, schema)
                .ok_or_else(|| Error::content(path, "does not have the layout of a sample file"))?;
            if keep(&group) {
                groups.push(group);
            }
        }
        Ok(groups)
    })
}

fn group(row: &Row, schema: &Schema) -> Option<TextGroup> {
    let items = |name: &str, side: Side| -> Option<Vec<TextItem>> {
        let Value::ListInternal(list) = column(row, name)? else { return None };
        list.elements().iter().map(|element| item(element, schema, side)).collect()
    };
    Some(TextGroup {
        user: text(column(row, USER)?)?,
        fields: texts(row, schema.side(Side::User).filter(|field| field.name != USER))?,
        behaviors: items(BEHAVIORS, Side::Behavior)?,
        impressions: items(IMPRESSIONS, Side::Ad)?,
    })
}

fn item(element: &Value, schema: &Schema, side: Side) -> Option<TextItem> {
    let Value::Group(row) = element else { return None };
    let fields = schema.side(side).filter(|field| field.name != ITEM);
    let context = schema.side(Side::Context).filter(|_| side == Side::Ad);
    Some(TextItem {
        item: text(column(row, ITEM)?)?,
        image: column(row, IMAGE).and_then(text).filter(|name| !name.is_empty()),
        time: column(row, TIME).and_then(integer).unwrap_or(0),
        label: column(row, LABEL).and_then(integer).map(|label| u8::from(label == 1)),
        fields: texts(row, fields)?,
        context: texts(row, context)?,
    })
}

/// The values of `fields`; a field without a value is left out.
fn texts<'a>(row: &Row, fields: impl Iterator<Item = &'a Field>) -> Option<Texts> {
    let mut found = Vec::new();
    for field in fields {
        let values = match column(row, &field.name)? {
            Value::ListInternal(list) => list.elements().iter().filter_map(text).collect(),
            value => text(value).into_iter().collect::<Vec<String>>(),
        };
        if values.iter().any(|value| !value.is_empty()) {
            found.push((field.name.clone(), values));
        }
    }
    Some(found)
}

fn column<'a>(row: &'a Row, name: &str) -> Option<&'a Value> {
    row.get_column_iter().find(|(column, _)| *column == name).map(|(_, value)| value)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Str(text) => Some(text.clone()),
        Value::Double(value) => (!value.is_nan()).then(|| number_text(*value)),
        Value::Float(value) => (!value.is_nan()).then(|| value.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        value => integer(value).map(|value| value.to_string()),
    }
}

fn integer(value: &Value) -> Option<i64> {
    Some(match value {
        Value::Bool(value) => i64::from(*value),
        Value::Byte(value) => i64::from(*value),
        Value::Short(value) => i64::from(*value),
        Value::Int(value) => i64::from(*value),
        Value::Long(value) => *value,
        Value::UByte(value) => i64::from(*value),
        Value::UShort(value) => i64::from(*value),
        Value::UInt(value) => i64::from(*value),
        Value::TimestampMillis(value) => value.div_euclid(1_000),
        Value::TimestampMicros(value) => value.div_euclid(1_000_000),
        _ => return None,
    })
}
