//! Groups as people read them: the raw texts of a few rows, for example requests and reports.
//!
//! Training never comes here; it reads ids (see `read`).

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field as Value, Row};

use crate::error::{Error, Result};
use crate::guard::guarded;
use crate::id::Id;
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

/// An impression with the number in one of its columns, a field of the schema or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberOfImpression {
    /// Id of the user.
    pub user: Id,
    /// Id of the item shown.
    pub item: Id,
    /// When it was shown, unix seconds.
    pub time: i64,
    /// The number.
    pub number: f64,
}

/// Hands over the number in `impressions.<column>` of every impression of the sample file at
/// `path`.
///
/// # Errors
/// If the file cannot be read or lacks the column, or with the row (1-based) and the impression
/// that has no number there.
pub fn for_each_number(
    path: &Path,
    schema: &Schema,
    column: &str,
    mut take: impl FnMut(NumberOfImpression),
) -> Result<()> {
    let bad = |error: parquet::errors::ParquetError| Error::content(path, error.to_string());
    let file = File::open(path).map_err(Error::io(path))?;
    guarded(path, || {
        let reader = SerializedFileReader::new(file).map_err(bad)?;
        for (at, row) in reader.get_row_iter(None).map_err(bad)?.enumerate() {
            numbers(&row.map_err(bad)?, schema, column, &mut take)
                .map_err(|what| Error::content(path, format!("row {}: {what}", at + 1)))?;
        }
        Ok(())
    })
}

fn numbers(
    row: &Row,
    schema: &Schema,
    name: &str,
    take: &mut impl FnMut(NumberOfImpression),
) -> Result<(), String> {
    let id = |row: &Row, side: Side, name: &str| {
        let field = schema.side(side).find(|field| field.name == name);
        let text = column(row, name).and_then(text).unwrap_or_default();
        field.map_or(Ok(None), |field| field.id(&text))?.ok_or_else(|| format!("no `{name}`"))
    };
    let user = id(row, Side::User, USER)?;
    let Some(Value::ListInternal(shown)) = column(row, IMPRESSIONS) else {
        return Err(format!("no list `{IMPRESSIONS}`"));
    };
    for (at, element) in shown.elements().iter().enumerate() {
        let wrong = |what: String| format!("`{IMPRESSIONS}` {}: {what}", at + 1);
        let Value::Group(row) = element else { return Err(wrong("no struct".to_owned())) };
        let Some(value) = column(row, name) else {
            let found: Vec<&str> = row.get_column_iter().map(|(name, _)| &name[..]).collect();
            return Err(format!(
                "no column `{name}` in `{IMPRESSIONS}`; found: {}",
                found.join(", ")
            ));
        };
        let given = text(value).unwrap_or_default();
        let number = crate::value::measure(&given, None)
            .and_then(|number| number.ok_or_else(|| "no number".to_owned()))
            .map_err(|what| wrong(format!("`{name}` is {given:?}: {what}")))?;
        let item = id(row, Side::Ad, ITEM).map_err(wrong)?;
        let time = column(row, TIME).and_then(integer).unwrap_or(0);
        take(NumberOfImpression { user, item, time, number });
    }
    Ok(())
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
