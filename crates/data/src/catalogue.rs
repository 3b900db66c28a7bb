//! The catalogue `items.parquet`: every item's text, picture name and fields, as columns.
//!
//! ```text
//! item          utf8, never empty, ascending, each once
//! image         utf8, null: no picture
//! <item field>  utf8, or list<utf8> if the field is multi
//! ```
//! In memory a multi value is one text, its parts separated by [`SEPARATOR`]: columns of text, not
//! a structure per item, because there may be many millions.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, LargeStringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field as ArrowField};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::dataset::{Dataset, ITEMS};
use crate::guard::guarded;
use crate::parquet_file::{self, ParquetFile};
use crate::schema::{Field, IMAGE, ITEM, Schema, Side};
use crate::{Error, Result};

pub use crate::value::SEPARATOR;

/// The parts of a value; empty ones are no values.
pub fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(SEPARATOR).filter(|part| !part.is_empty())
}

/// All items, ascending by text. An item is named by its position ("row").
#[derive(Clone, Debug)]
pub struct Catalogue {
    items: Arc<LargeStringArray>,
    images: Arc<LargeStringArray>,
    fields: Vec<Field>,
    columns: Vec<Arc<LargeStringArray>>,
}

impl Catalogue {
    /// Reads the catalogue of `dataset`.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Content`] if a column is missing or an item is empty or out of
    /// order.
    pub fn open(dataset: &Dataset) -> Result<Catalogue> {
        let fields = item_fields(dataset.schema());
        let path = dataset.items_path();
        let catalogue = guarded(&path, || read(&path, fields))?;
        let count = dataset.card().counts.items;
        if catalogue.len() as u64 != count {
            let what = format!("{} items; the card says {count}", catalogue.len());
            return Err(Error::content(dataset.items_path(), what));
        }
        Ok(catalogue)
    }

    /// A catalogue of `fields` (without `item`); the columns have one value per item. An image or
    /// value that is null is absent.
    pub(crate) fn new(
        items: LargeStringArray,
        images: LargeStringArray,
        fields: Vec<Field>,
        columns: Vec<LargeStringArray>,
    ) -> Catalogue {
        debug_assert!(columns.iter().all(|column| column.len() == items.len()));
        let columns = columns.into_iter().map(Arc::new).collect();
        Catalogue { items: Arc::new(items), images: Arc::new(images), fields, columns }
    }

    /// Number of items, each of which has one row.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The raw text of item `row`.
    pub fn item(&self, row: usize) -> &str {
        self.items.value(row)
    }

    /// The row of an item given by its text.
    pub fn find(&self, item: &str) -> Option<usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.item(middle).cmp(item) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The picture's name of item `row`.
    pub fn image(&self, row: usize) -> Option<&str> {
        self.images.is_valid(row).then(|| self.images.value(row))
    }

    /// How many items name a picture.
    pub fn with_image(&self) -> usize {
        self.len() - self.images.null_count()
    }

    /// The item fields without `item` itself, in schema order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The raw texts of field `field` (position in [`Catalogue::fields`]) of item `row`.
    pub fn values(&self, field: usize, row: usize) -> impl Iterator<Item = &str> {
        let column = &self.columns[field];
        parts(if column.is_valid(row) { column.value(row) } else { "" })
    }

    /// The columns of text, for writers: `item`, `image` and the field `name`.
    pub(crate) fn column(&self, name: &str) -> Option<&Arc<LargeStringArray>> {
        match name {
            ITEM => Some(&self.items),
            IMAGE => Some(&self.images),
            _ => {
                self.fields.iter().position(|field| field.name == name).map(|at| &self.columns[at])
            }
        }
    }

    /// Writes `items.parquet` into `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let text = |name: &str, null| ArrowField::new(name, DataType::LargeUtf8, null);
        let mut fields = vec![text(ITEM, false), text(IMAGE, true)];
        let mut columns: Vec<ArrayRef> =
            vec![Arc::clone(&self.items) as ArrayRef, Arc::clone(&self.images) as ArrayRef];
        for (field, column) in self.fields.iter().zip(&self.columns) {
            let column = if field.multi { lists(column) } else { Arc::clone(column) as ArrayRef };
            fields.push(ArrowField::new(&field.name, column.data_type().clone(), true));
            columns.push(column);
        }
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        let mut file = ParquetFile::create(&dir.join(ITEMS), Arc::clone(&schema))?;
        let batch = RecordBatch::try_new(schema, columns).expect("columns of one length");
        file.write(&batch)?;
        file.finish()
    }
}

/// The item fields of a schema, without `item` itself.
pub(crate) fn item_fields(schema: &Schema) -> Vec<Field> {
    schema.side(Side::Ad).filter(|field| field.name != ITEM).cloned().collect()
}

/// Texts with separators as a column of lists.
fn lists(column: &LargeStringArray) -> ArrayRef {
    let mut values = LargeStringBuilder::new();
    let mut lengths = Vec::with_capacity(column.len());
    for value in column {
        let before = values.len();
        parts(value.unwrap_or_default()).for_each(|part| values.append_value(part));
        lengths.push(values.len() - before);
    }
    let element = Arc::new(ArrowField::new("element", DataType::LargeUtf8, true));
    Arc::new(arrow_array::LargeListArray::new(
        element,
        OffsetBuffer::from_lengths(lengths),
        Arc::new(values.finish()),
        None,
    ))
}

fn read(path: &Path, fields: Vec<Field>) -> Result<Catalogue> {
    let unreadable = parquet_file::unreadable(path);
    let file = File::open(path).map_err(Error::io(path))?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(&unreadable)?;
    let mut items = LargeStringBuilder::new();
    let mut images = LargeStringBuilder::new();
    let mut columns: Vec<_> = fields.iter().map(|_| LargeStringBuilder::new()).collect();
    for batch in reader.build().map_err(&unreadable)? {
        let batch = batch.map_err(|error| Error::content(path, error.to_string()))?;
        append(path, &batch, ITEM, &mut items)?;
        append(path, &batch, IMAGE, &mut images)?;
        for (field, column) in fields.iter().zip(&mut columns) {
            append(path, &batch, &field.name, column)?;
        }
    }
    let items = items.finish();
    for row in 0..items.len() {
        if items.is_null(row) || row > 0 && items.value(row - 1) >= items.value(row) {
            let what =
                format!("row {}: `{ITEM}` is empty or out of order; expected ascending", row + 1);
            return Err(Error::content(path, what));
        }
    }
    let columns = columns.iter_mut().map(|column| column.finish()).collect();
    Ok(Catalogue::new(items, images.finish(), fields, columns))
}

/// Appends column `name` of `batch`; empty texts and lists become null.
fn append(path: &Path, batch: &RecordBatch, name: &str, to: &mut LargeStringBuilder) -> Result<()> {
    let wrong = |what: &str| Error::content(path, format!("column `{name}`: {what}"));
    let column = batch.column_by_name(name).ok_or_else(|| wrong("not there"))?;
    let text = |array: &ArrayRef| {
        arrow_cast::cast(array, &DataType::LargeUtf8)
            .map_err(|_| wrong("text or list of text expected"))
    };
    let Some(list) = column.as_list_opt::<i32>() else {
        let array = text(column)?;
        array
            .as_string::<i64>()
            .iter()
            .for_each(|value| to.append_option(value.filter(|v| !v.is_empty())));
        return Ok(());
    };
    let values = text(list.values())?;
    let values = values.as_string::<i64>();
    let mut joined = String::new();
    for pair in list.value_offsets().windows(2) {
        joined.clear();
        for at in pair[0] as usize..pair[1] as usize {
            if values.is_valid(at) && !values.value(at).is_empty() {
                joined.extend((!joined.is_empty()).then_some(SEPARATOR));
                joined.push_str(values.value(at));
            }
        }
        to.append_option((!joined.is_empty()).then_some(&joined));
    }
    Ok(())
}
