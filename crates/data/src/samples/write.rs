//! Writing sample files, streaming: at most one block is in memory.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch,
    StringArray, StructArray, UInt8Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field as ArrowField, Fields};

use crate::Result;
use crate::catalogue::{Catalogue, parts};
use crate::parquet_file::ParquetFile;
use crate::schema::{BEHAVIORS, Field, IMAGE, IMPRESSIONS, ITEM, LABEL, Schema, Side, TIME, USER};

/// A block ends early when it has so many behaviors or impressions: histories may be set very long.
const BLOCK_VALUES: usize = 1 << 20;

/// One impression of a [`GroupRow`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impression<'a> {
    /// The item shown, a row of the catalogue.
    pub item: u32,
    /// Instant of the impression, in Unix seconds.
    pub time: i64,
    /// 1 clicked, 0 not.
    pub label: u8,
    /// One value per context field in schema order; see [`GroupRow::user_fields`].
    pub context: &'a [&'a str],
}

/// A past engagement of a [`GroupRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// The item's row in the catalogue.
    pub item: u32,
    /// When it was, in unix seconds.
    pub time: i64,
}

/// One group as text, to be written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupRow<'a> {
    /// The user's raw text.
    pub user: &'a str,
    /// One value per user field other than `user`, in schema order. Empty: no value. Parts of a
    /// multi value are separated by [`crate::catalogue::SEPARATOR`].
    pub user_fields: &'a [&'a str],
    /// Past engagements, newest first.
    pub behaviors: &'a [Behavior],
    /// Impressions in ascending order of time.
    pub impressions: &'a [Impression<'a>],
}

/// Writes one sample file. Nothing has the file's name before [`SampleWriter::finish`].
pub struct SampleWriter {
    file: ParquetFile,
    catalogue: Catalogue,
    schema: Schema,
    block_groups: usize,
    users: StringBuilder,
    user_fields: Vec<Column>,
    behavior_counts: Vec<usize>,
    behavior_items: Vec<i32>,
    behavior_times: Vec<i64>,
    impression_counts: Vec<usize>,
    impression_items: Vec<i32>,
    impression_times: Vec<i64>,
    labels: Vec<u8>,
    context_fields: Vec<Column>,
}

impl SampleWriter {
    /// Begins the file that will be `path`, in blocks of at most `block_groups` groups; items are
    /// named by their rows in `catalogue`, which has the item fields of `schema`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the folder cannot be written.
    pub fn create(
        path: &Path,
        schema: &Schema,
        catalogue: &Catalogue,
        block_groups: usize,
    ) -> Result<SampleWriter> {
        let columns = |side, skip: &str| -> Vec<Column> {
            schema.side(side).filter(|field| field.name != skip).map(Column::new).collect()
        };
        let mut writer = SampleWriter {
            file: ParquetFile::create(path, Arc::new(file_schema(schema)))?,
            catalogue: catalogue.clone(),
            schema: schema.clone(),
            block_groups: block_groups.max(1),
            users: StringBuilder::new(),
            user_fields: columns(Side::User, USER),
            behavior_counts: Vec::new(),
            behavior_items: Vec::new(),
            behavior_times: Vec::new(),
            impression_counts: Vec::new(),
            impression_items: Vec::new(),
            impression_times: Vec::new(),
            labels: Vec::new(),
            context_fields: columns(Side::Context, ""),
        };
        writer.impression_counts.reserve(writer.block_groups);
        Ok(writer)
    }

    /// Appends a group.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if a block was full and could not be written.
    pub fn push(&mut self, group: &GroupRow) -> Result<()> {
        debug_assert!(!group.impressions.is_empty() && !group.user.is_empty());
        self.users.append_value(group.user);
        for (column, value) in self.user_fields.iter_mut().zip(group.user_fields) {
            column.push(value);
        }
        self.behavior_counts.push(group.behaviors.len());
        self.behavior_items.extend(group.behaviors.iter().map(|behavior| behavior.item as i32));
        self.behavior_times.extend(group.behaviors.iter().map(|behavior| behavior.time));
        self.impression_counts.push(group.impressions.len());
        for impression in group.impressions {
            self.impression_items.push(impression.item as i32);
            self.impression_times.push(impression.time);
            self.labels.push(impression.label);
            for (column, value) in self.context_fields.iter_mut().zip(impression.context) {
                column.push(value);
            }
        }
        let values = self.behavior_items.len().max(self.impression_items.len());
        if self.impression_counts.len() == self.block_groups || values > BLOCK_VALUES {
            return self.write_block();
        }
        Ok(())
    }

    /// Writes what is left and gives the file its name.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the system refuses.
    pub fn finish(mut self) -> Result<()> {
        if !self.impression_counts.is_empty() {
            self.write_block()?;
        }
        self.file.finish()
    }

    fn write_block(&mut self) -> Result<()> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.users.finish())];
        columns.extend(self.user_fields.iter_mut().map(Column::finish));

        let items = Int32Array::from(std::mem::take(&mut self.behavior_items));
        let times = Int64Array::from(std::mem::take(&mut self.behavior_times));
        let mut rows = self.item_columns(&items, Side::Behavior);
        rows.insert(2, Arc::new(times));
        let fields = behavior_columns(&self.schema);
        columns.push(list_of_structs(fields, rows, std::mem::take(&mut self.behavior_counts)));

        let items = Int32Array::from(std::mem::take(&mut self.impression_items));
        let times = Int64Array::from(std::mem::take(&mut self.impression_times));
        let mut rows = self.item_columns(&items, Side::Ad);
        rows.insert(2, Arc::new(UInt8Array::from(std::mem::take(&mut self.labels))));
        rows.insert(3, Arc::new(times));
        rows.extend(self.context_fields.iter_mut().map(Column::finish));
        let fields = impression_columns(&self.schema);
        columns.push(list_of_structs(fields, rows, std::mem::take(&mut self.impression_counts)));

        let batch = RecordBatch::try_new(Arc::new(file_schema(&self.schema)), columns)
            .expect("columns are built after the schema");
        self.file.write(&batch)?;
        self.file.end_row_group()
    }

    /// `item`, `image` and the other fields of `side` for these catalogue rows. Texts are not
    /// copied: a column is the rows as keys into the catalogue's column.
    fn item_columns(&self, items: &Int32Array, side: Side) -> Vec<ArrayRef> {
        let column =
            |name: &str| self.catalogue.column(name).expect("the catalogue has the item fields");
        let mut columns = vec![keyed(items, column(ITEM)), keyed(items, column(IMAGE))];
        for field in self.schema.side(side).filter(|field| field.name != ITEM) {
            let texts = column(&field.name);
            columns.push(if field.multi { listed(items, texts) } else { keyed(items, texts) });
        }
        columns
    }
}

fn keyed(items: &Int32Array, texts: &Arc<LargeStringArray>) -> ArrayRef {
    let texts = Arc::clone(texts) as ArrayRef;
    Arc::new(
        DictionaryArray::<Int32Type>::try_new(items.clone(), texts).expect("rows of the catalogue"),
    )
}

fn listed(items: &Int32Array, texts: &LargeStringArray) -> ArrayRef {
    use arrow_array::Array;
    let mut column = Lists::default();
    for &item in items.values() {
        let row = item as usize;
        column.push(if texts.is_valid(row) { texts.value(row) } else { "" });
    }
    column.finish()
}

/// A text or list column being built from values.
enum Column {
    One(StringBuilder),
    Many(Lists),
}

impl Column {
    fn new(field: &Field) -> Column {
        if field.multi { Column::Many(Lists::default()) } else { Column::One(StringBuilder::new()) }
    }

    fn push(&mut self, value: &str) {
        match self {
            Column::One(texts) => texts.append_option((!value.is_empty()).then_some(value)),
            Column::Many(lists) => lists.push(value),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::One(texts) => Arc::new(texts.finish()),
            Column::Many(lists) => lists.finish(),
        }
    }
}

#[derive(Default)]
struct Lists {
    lengths: Vec<usize>,
    texts: StringBuilder,
}

impl Lists {
    fn push(&mut self, value: &str) {
        let mut length = 0;
        for part in parts(value) {
            self.texts.append_value(part);
            length += 1;
        }
        self.lengths.push(length);
    }

    fn finish(&mut self) -> ArrayRef {
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths));
        let texts: StringArray = self.texts.finish();
        Arc::new(ListArray::new(element(DataType::Utf8), offsets, Arc::new(texts), None))
    }
}

fn list_of_structs(fields: Fields, columns: Vec<ArrayRef>, lengths: Vec<usize>) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(lengths);
    let rows = StructArray::new(fields.clone(), columns, None);
    Arc::new(ListArray::new(element(DataType::Struct(fields)), offsets, Arc::new(rows), None))
}

fn element(data_type: DataType) -> Arc<ArrowField> {
    let texts = data_type == DataType::Utf8;
    Arc::new(ArrowField::new("element", data_type, texts))
}

/// The Arrow form of the layout, as this writer builds it.
fn file_schema(schema: &Schema) -> arrow_schema::Schema {
    let mut fields = vec![ArrowField::new(USER, DataType::Utf8, false)];
    fields.extend(schema.side(Side::User).filter(|field| field.name != USER).map(text_column));
    for (name, rows) in
        [(BEHAVIORS, behavior_columns(schema)), (IMPRESSIONS, impression_columns(schema))]
    {
        fields.push(ArrowField::new(name, DataType::List(element(DataType::Struct(rows))), false));
    }
    arrow_schema::Schema::new(fields)
}

fn behavior_columns(schema: &Schema) -> Fields {
    let mut fields = vec![
        ArrowField::new(ITEM, keyed_type(), false),
        ArrowField::new(IMAGE, keyed_type(), true),
        ArrowField::new(TIME, DataType::Int64, false),
    ];
    fields.extend(item_columns(schema, Side::Behavior));
    fields.into()
}

fn impression_columns(schema: &Schema) -> Fields {
    let mut fields = vec![
        ArrowField::new(ITEM, keyed_type(), false),
        ArrowField::new(IMAGE, keyed_type(), true),
        ArrowField::new(LABEL, DataType::UInt8, false),
        ArrowField::new(TIME, DataType::Int64, false),
    ];
    fields.extend(item_columns(schema, Side::Ad));
    fields.extend(schema.side(Side::Context).map(text_column));
    fields.into()
}

fn item_columns(schema: &Schema, side: Side) -> impl Iterator<Item = ArrowField> {
    schema.side(side).filter(|field| field.name != ITEM).map(|field| {
        if field.multi {
            text_column(field)
        } else {
            ArrowField::new(&field.name, keyed_type(), true)
        }
    })
}

fn text_column(field: &Field) -> ArrowField {
    let data_type =
        if field.multi { DataType::List(element(DataType::Utf8)) } else { DataType::Utf8 };
    ArrowField::new(&field.name, data_type, true)
}

fn keyed_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8))
}
