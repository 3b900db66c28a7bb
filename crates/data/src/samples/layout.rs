//! Which Parquet columns of a sample file are read, and whether they have usable types.

use std::path::Path;
use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields, SchemaRef};

use crate::schema::{BEHAVIORS, Field, IMAGE, IMPRESSIONS, ITEM, LABEL, Schema, Side, TIME, USER};
use crate::{Error, Result};

/// Most groups in one row group of the files this crate writes.
pub(crate) const BLOCK_GROUPS: usize = 1024;

/// What [`SampleFile::open`] looks for: the Parquet leaves to read, in file order.
pub(super) struct Columns {
    pub(super) leaves: Vec<usize>,
    pub(super) label_leaf: usize,
    /// The items of the impressions.
    pub(super) item_leaf: usize,
    /// When they were shown.
    pub(super) time_leaf: usize,
}

impl Columns {
    pub(super) fn find(path: &Path, fields: &Fields, schema: &Schema) -> Result<Columns> {
        let mut finder = Finder { path, leaves: Vec::new() };
        finder.text(fields, 0, "", USER)?;
        for field in schema.side(Side::User).filter(|field| field.name != USER) {
            finder.field(fields, 0, "", field)?;
        }
        let (rows, base) = finder.rows(fields, BEHAVIORS)?;
        finder.text(rows, base, BEHAVIORS, ITEM)?;
        finder.text(rows, base, BEHAVIORS, IMAGE)?;
        finder.number(rows, base, BEHAVIORS, TIME, is_time)?;
        for field in schema.side(Side::Behavior).filter(|field| field.name != ITEM) {
            finder.field(rows, base, BEHAVIORS, field)?;
        }
        let (rows, base) = finder.rows(fields, IMPRESSIONS)?;
        let item_leaf = finder.text(rows, base, IMPRESSIONS, ITEM)?;
        finder.text(rows, base, IMPRESSIONS, IMAGE)?;
        let time_leaf = finder.number(rows, base, IMPRESSIONS, TIME, is_time)?;
        let label_leaf = finder.number(rows, base, IMPRESSIONS, LABEL, is_label)?;
        let shown = schema.side(Side::Ad).chain(schema.side(Side::Context));
        for field in shown.filter(|field| field.name != ITEM) {
            finder.field(rows, base, IMPRESSIONS, field)?;
        }
        finder.leaves.sort_unstable();
        Ok(Columns { leaves: finder.leaves, label_leaf, item_leaf, time_leaf })
    }
}

struct Finder<'a> {
    path: &'a Path,
    leaves: Vec<usize>,
}

impl Finder<'_> {
    /// The field `name` of `fields` (whose first leaf is `base`) and its own first leaf.
    fn find<'f>(
        &self,
        fields: &'f Fields,
        base: usize,
        list: &str,
        name: &str,
    ) -> Result<(&'f ArrowField, usize)> {
        let mut leaf = base;
        for field in fields {
            if field.name() == name {
                return Ok((field, leaf));
            }
            leaf += leaf_count(field.data_type());
        }
        let found: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
        let place = if list.is_empty() { String::new() } else { format!(" in `{list}`") };
        Err(Error::content(
            self.path,
            format!("no column `{name}`{place}; found: {}", found.join(", ")),
        ))
    }

    fn wrong(&self, list: &str, field: &ArrowField, expected: &str) -> Error {
        let dot = if list.is_empty() { "" } else { "." };
        Error::content(
            self.path,
            format!(
                "column `{list}{dot}{}` is {}; expected {expected}",
                field.name(),
                field.data_type()
            ),
        )
    }

    fn text(&mut self, fields: &Fields, base: usize, list: &str, name: &str) -> Result<usize> {
        let (field, leaf) = self.find(fields, base, list, name)?;
        if !is_text(field.data_type()) {
            return Err(self.wrong(list, field, "text"));
        }
        self.leaves.push(leaf);
        Ok(leaf)
    }

    fn field(&mut self, fields: &Fields, base: usize, list: &str, wanted: &Field) -> Result<()> {
        let (field, leaf) = self.find(fields, base, list, &wanted.name)?;
        if wanted.edges().is_some() {
            if !is_text(field.data_type()) && !is_number(field.data_type()) {
                return Err(self.wrong(list, field, "numbers, or text of numbers"));
            }
            self.leaves.push(leaf);
            return Ok(());
        }
        if !wanted.multi {
            return self.text(fields, base, list, &wanted.name).map(|_| ());
        }
        match field.data_type() {
            DataType::List(element) if is_text(element.data_type()) => {
                self.leaves.push(leaf);
                Ok(())
            }
            _ => Err(self.wrong(list, field, "list of text (the card says multi)")),
        }
    }

    fn number(
        &mut self,
        fields: &Fields,
        base: usize,
        list: &str,
        name: &str,
        accepts: fn(&DataType) -> bool,
    ) -> Result<usize> {
        let (field, leaf) = self.find(fields, base, list, name)?;
        if !accepts(field.data_type()) {
            let expected = if name == TIME {
                "integer unix seconds, a timestamp or a date"
            } else {
                "integer 0 or 1"
            };
            return Err(self.wrong(list, field, expected));
        }
        self.leaves.push(leaf);
        Ok(leaf)
    }

    fn rows<'f>(&self, fields: &'f Fields, name: &str) -> Result<(&'f Fields, usize)> {
        let (field, leaf) = self.find(fields, 0, "", name)?;
        if let DataType::List(element) = field.data_type()
            && let DataType::Struct(rows) = element.data_type()
        {
            return Ok((rows, leaf));
        }
        Err(self.wrong("", field, "list of structs"))
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// What a numeric field may be stored as, beside text.
pub(super) fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}

fn is_time(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(data_type, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

fn is_label(data_type: &DataType) -> bool {
    data_type.is_integer() || *data_type == DataType::Boolean
}

/// How many Parquet columns a type takes.
fn leaf_count(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|field| leaf_count(field.data_type())).sum(),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => leaf_count(field.data_type()),
        _ => 1,
    }
}

/// The same columns with every text asked for as a dictionary, which is how Parquet stores it.
pub(super) fn dictionary_texts(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|field| dictionary_text(field)).collect();
    Arc::new(arrow_schema::Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn dictionary_text(field: &ArrowField) -> ArrowField {
    let data_type = match field.data_type() {
        text if is_text(text) => {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
        }
        DataType::List(element) => DataType::List(Arc::new(dictionary_text(element))),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| dictionary_text(field)).collect())
        }
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}
