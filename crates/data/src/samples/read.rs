//! Reading sample files into [`Groups`]: checks what it reads, hashes each distinct text of a block
//! once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int32Array, ListArray, RecordBatch, StructArray};
use arrow_schema::{DataType, TimeUnit};
use hashbrown::HashMap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};

use super::layout::{BLOCK_GROUPS, Columns, dictionary_texts, is_number};
use crate::dataset::{Dataset, SplitName};
use crate::guard::guarded;
use crate::schema::{BEHAVIORS, Field, IMAGE, IMPRESSIONS, ITEM, LABEL, Schema, Side, TIME, USER};
use crate::{Error, Groups, Id, Offsets, PictureName, Ragged, Result};

/// One sample file: its footer, and its blocks on demand. Blocks may be read from several threads.
#[derive(Debug)]
pub struct SampleFile {
    path: PathBuf,
    schema: Schema,
    metadata: ArrowReaderMetadata,
    leaves: Vec<usize>,
    label_leaf: usize,
    item_leaf: usize,
    time_leaf: usize,
    first_rows: Vec<u64>,
}

/// When a group was shown, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupTime {
    /// Time of its first impression, in unix seconds.
    pub time: i64,
    /// Number of its impressions.
    pub impressions: u32,
}

impl SampleFile {
    /// Reads the footer of `path` and checks that every column `schema` needs is there with a
    /// usable type.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened, [`Error::Content`] if it is no Parquet file
    /// (truncated, say), or lacks a column, or has one of another type.
    pub fn open(path: &Path, schema: &Schema) -> Result<SampleFile> {
        guarded(path, || SampleFile::open_unguarded(path, schema))
    }

    fn open_unguarded(path: &Path, schema: &Schema) -> Result<SampleFile> {
        let unreadable =
            |error| Error::content(path, format!("cannot be read as Parquet: {error}"));
        let file = File::open(path).map_err(Error::io(path))?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let plain = ArrowReaderMetadata::load(&file, options.clone()).map_err(unreadable)?;
        let columns = Columns::find(path, plain.schema().fields(), schema)?;
        let hint = dictionary_texts(plain.schema());
        let metadata =
            ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options.with_schema(hint))
                .map_err(unreadable)?;
        let mut first_rows = Vec::new();
        let mut rows = 0;
        for group in metadata.metadata().row_groups() {
            first_rows.push(rows);
            rows += u64::try_from(group.num_rows())
                .map_err(|_| Error::content(path, "a row group with a negative number of rows"))?;
        }
        Ok(SampleFile {
            path: path.to_path_buf(),
            schema: schema.clone(),
            metadata,
            leaves: columns.leaves,
            label_leaf: columns.label_leaf,
            item_leaf: columns.item_leaf,
            time_leaf: columns.time_leaf,
            first_rows,
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of blocks (row groups).
    pub fn blocks(&self) -> usize {
        self.first_rows.len()
    }

    /// Number of groups of block `block`, from the footer.
    pub fn groups(&self, block: usize) -> usize {
        self.metadata.metadata().row_group(block).num_rows() as usize
    }

    /// Number of impressions of block `block`, from the footer (every group has at least one, so
    /// the label column holds one value per impression).
    pub fn impressions(&self, block: usize) -> usize {
        self.metadata.metadata().row_group(block).column(self.label_leaf).num_values() as usize
    }

    /// How many rows stand before block `block`.
    pub(crate) fn first_row(&self, block: usize) -> u64 {
        self.first_rows[block]
    }

    /// Appends the groups of block `block` to `into`, which was made for the same schema.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Content`] with block, row (1-based within the file) and column if
    /// a value is missing or wrong; `into` then holds a part of the block and has to be
    /// cleared.
    pub fn read(&self, block: usize, into: &mut Groups) -> Result<()> {
        let block_error = |what: String| {
            Error::content(&self.path, format!("block {} of {}: {what}", block + 1, self.blocks()))
        };
        let group = self.metadata.metadata().row_group(block);
        if group.columns().iter().any(|column| column.num_values() > i64::from(i32::MAX)) {
            return Err(block_error(format!(
                "a column of more than 2^31 values; write row groups of about {BLOCK_GROUPS} rows"
            )));
        }
        let mut row = self.first_rows[block];
        guarded(&self.path, || {
            for batch in self.batches(block, self.leaves.clone())? {
                let batch = batch.map_err(|error| block_error(error.to_string()))?;
                self.append(row, &batch, into).map_err(block_error)?;
                row += batch.num_rows() as u64;
            }
            Ok(())
        })
    }

    /// Adds to `into` how often each item is shown in this file, reading nothing but the items.
    ///
    /// # Errors
    /// As [`SampleFile::read`].
    pub(crate) fn count_items(&self, into: &mut HashMap<Id, u32>) -> Result<()> {
        guarded(&self.path, || self.count_items_unguarded(into))
    }

    fn count_items_unguarded(&self, into: &mut HashMap<Id, u32>) -> Result<()> {
        for block in 0..self.blocks() {
            let block_error = |what: String| {
                Error::content(
                    &self.path,
                    format!("block {} of {}: {what}", block + 1, self.blocks()),
                )
            };
            for batch in self.batches(block, vec![self.item_leaf])? {
                let batch = batch.map_err(|error| block_error(error.to_string()))?;
                let shown = Rows::of(&batch, IMPRESSIONS).map_err(block_error)?;
                let items = shown.column(ITEM).map_err(block_error)?;
                let item = self.item(Side::Ad).map_err(block_error)?;
                let ids = Ids::read(items, |text| item.id(text)).map_err(block_error)?;
                for id in ids.iter().flatten() {
                    *into.entry(id).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Hands over item, time and label of every impression, reading nothing else.
    ///
    /// # Errors
    /// As [`SampleFile::read`].
    pub fn for_each_impression(&self, mut take: impl FnMut(Id, i64, u8)) -> Result<()> {
        let leaves = vec![self.item_leaf, self.time_leaf, self.label_leaf];
        guarded(&self.path, || {
            for block in 0..self.blocks() {
                let wrong = |what: String| {
                    let place = format!("block {} of {}", block + 1, self.blocks());
                    Error::content(&self.path, format!("{place}: {what}"))
                };
                let mut first = self.first_rows[block];
                for batch in self.batches(block, leaves.clone())? {
                    let batch = batch.map_err(|error| wrong(error.to_string()))?;
                    let shown = Rows::of(&batch, IMPRESSIONS).map_err(wrong)?;
                    let item = self.item(Side::Ad).map_err(wrong)?;
                    shown.require_items(first, item).map_err(wrong)?;
                    let items = shown.column(ITEM).map_err(wrong)?;
                    let ids = Ids::read(items, |text| item.id(text)).map_err(wrong)?;
                    let times = shown.integers(TIME, first).map_err(wrong)?;
                    let labels = shown.integers(LABEL, first).map_err(wrong)?;
                    for ((id, time), label) in ids.iter().flatten().zip(times).zip(labels) {
                        take(id, time, u8::from(label == 1));
                    }
                    first += batch.num_rows() as u64;
                }
            }
            Ok(())
        })
    }

    /// Time and number of impressions of each group of block `block`, reading nothing else.
    ///
    /// # Errors
    /// As [`SampleFile::read`].
    pub fn group_times(&self, block: usize) -> Result<Vec<GroupTime>> {
        let wrong = |what: String| {
            Error::content(&self.path, format!("block {} of {}: {what}", block + 1, self.blocks()))
        };
        guarded(&self.path, || {
            let (mut first, mut groups) = (self.first_rows[block], Vec::new());
            for batch in self.batches(block, vec![self.time_leaf])? {
                let batch = batch.map_err(|error| wrong(error.to_string()))?;
                let shown = Rows::of(&batch, IMPRESSIONS).map_err(wrong)?;
                let times = shown.integers(TIME, first).map_err(wrong)?;
                for row in 0..batch.num_rows() {
                    let range = shown.range(row);
                    let time =
                        *times.get(range.start).filter(|_| !range.is_empty()).ok_or_else(|| {
                            wrong(format!("row {}: no {IMPRESSIONS}", first + row as u64 + 1))
                        })?;
                    let impressions = u32::try_from(range.len()).unwrap_or(u32::MAX);
                    groups.push(GroupTime { time, impressions });
                }
                first += batch.num_rows() as u64;
            }
            Ok(groups)
        })
    }

    /// The field `item` of a side.
    fn item(&self, side: Side) -> Result<&Field, String> {
        let item = self.schema.side(side).find(|field| field.name == ITEM);
        item.ok_or_else(|| format!("the schema has no field `{ITEM}` of side {side:?}"))
    }

    /// The rows of a block with these Parquet leaves only.
    fn batches(&self, block: usize, leaves: Vec<usize>) -> Result<ParquetRecordBatchReader> {
        // Opened for each block: clones of one handle share their position, threads must not.
        let file = File::open(&self.path).map_err(Error::io(&self.path))?;
        let descriptor = self.metadata.metadata().file_metadata().schema_descr();
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![block])
            .with_projection(ProjectionMask::leaves(descriptor, leaves))
            .with_batch_size(self.groups(block).max(1))
            .build()
            .map_err(|error| Error::content(&self.path, format!("block {}: {error}", block + 1)))
    }

    /// Appends `batch`, whose first row is row `first` of the file; the error says row and column.
    fn append(&self, first: u64, batch: &RecordBatch, into: &mut Groups) -> Result<(), String> {
        let at = |row: usize| format!("row {}", first + row as u64 + 1);
        let user = self.schema.side(Side::User).find(|field| field.name == USER);
        let user = user.ok_or_else(|| format!("the schema has no field `{USER}`"))?;
        let users = Ids::read(named(batch.column_by_name(USER), USER)?, |text| user.id(text))?;
        for row in 0..batch.num_rows() {
            into.users.push(users.get(row).ok_or_else(|| format!("{}: no user", at(row)))?);
        }
        for (field, column) in self.schema.side(Side::User).zip(&mut into.user_fields) {
            append_field(field, named(batch.column_by_name(&field.name), &field.name)?, column)?;
        }

        let behaviors = Rows::of(batch, BEHAVIORS)?;
        append_lengths(behaviors.list, &mut into.behaviors);
        for (field, column) in self.schema.side(Side::Behavior).zip(&mut into.behavior_fields) {
            append_field(field, behaviors.column(&field.name)?, column)?;
        }
        append_pictures(behaviors.column(IMAGE)?, &mut into.behavior_pictures)?;
        let behavior_times = behaviors.integers(TIME, first)?;
        behaviors.require_items(first, self.item(Side::Behavior)?)?;

        let impressions = Rows::of(batch, IMPRESSIONS)?;
        append_lengths(impressions.list, &mut into.impressions);
        for (field, column) in self.schema.side(Side::Ad).zip(&mut into.ad_fields) {
            append_field(field, impressions.column(&field.name)?, column)?;
        }
        for (field, column) in self.schema.side(Side::Context).zip(&mut into.context_fields) {
            append_field(field, impressions.column(&field.name)?, column)?;
        }
        append_pictures(impressions.column(IMAGE)?, &mut into.ad_pictures)?;
        let times = impressions.integers(TIME, first)?;
        let labels = impressions.integers(LABEL, first)?;
        impressions.require_items(first, self.item(Side::Ad)?)?;

        for row in 0..batch.num_rows() {
            let shown = impressions.range(row);
            check_labels(&labels[shown.clone()]).map_err(|what| format!("{}: {what}", at(row)))?;
            check_times(&behavior_times[behaviors.range(row)], &times[shown])
                .map_err(|what| format!("{}: {what}", at(row)))?;
        }
        into.labels.extend(labels.iter().map(|&label| label as u8));
        into.times.extend(times);
        into.behavior_times.extend(behavior_times);
        Ok(())
    }
}

impl Dataset {
    /// How often each item is shown in one half of the dataset; reads nothing but the items.
    ///
    /// # Errors
    /// As [`SampleFile::open`] and [`SampleFile::read`].
    pub fn item_counts(&self, split: SplitName) -> Result<HashMap<Id, u32>> {
        let mut counts = HashMap::new();
        for part in 0..self.card().parts {
            SampleFile::open(&self.part_path(split, part), self.schema())?
                .count_items(&mut counts)?;
        }
        Ok(counts)
    }
}

/// That a group has impressions and their labels are 0 or 1.
fn check_labels(labels: &[i64]) -> Result<(), String> {
    if labels.is_empty() {
        return Err(format!("no {IMPRESSIONS}; a group has at least one"));
    }
    match labels.iter().position(|label| !matches!(label, 0 | 1)) {
        Some(at) => {
            Err(format!("{LABEL} {} of impression {}; expected 0 or 1", labels[at], at + 1))
        }
        None => Ok(()),
    }
}

/// That impressions are oldest first, behaviors newest first, and all behaviors strictly earlier.
fn check_times(behaviors: &[i64], impressions: &[i64]) -> Result<(), String> {
    if let Some(at) = impressions.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(format!(
            "{TIME} {} of impression {} after {} of impression {}; impressions are oldest first",
            impressions[at + 1],
            at + 2,
            impressions[at],
            at + 1
        ));
    }
    if let Some(at) = behaviors.windows(2).position(|pair| pair[1] > pair[0]) {
        return Err(format!(
            "{TIME} {} of behavior {} after {} of behavior {}; behaviors are newest first",
            behaviors[at + 1],
            at + 2,
            behaviors[at],
            at + 1
        ));
    }
    match behaviors.first() {
        Some(&newest) if newest >= impressions[0] => Err(format!(
            "{TIME} {newest} of behavior 1 is not before the first impression's {}; a history is strictly \
             earlier than what it predicts",
            impressions[0]
        )),
        _ => Ok(()),
    }
}

/// The columns of a `list<struct>`.
struct Rows<'a> {
    name: &'static str,
    list: &'a ListArray,
    rows: &'a StructArray,
}

impl<'a> Rows<'a> {
    fn of(batch: &'a RecordBatch, name: &'static str) -> Result<Rows<'a>, String> {
        let list = named(batch.column_by_name(name), name)?.as_list::<i32>();
        // Parquet knows no values outside the rows of a list; positions below rely on it.
        if list.value_offsets()[0] != 0
            || list.value_offsets()[list.len()] as usize != list.values().len()
        {
            return Err(format!("`{name}`: list offsets do not cover the values"));
        }
        Ok(Rows { name, list, rows: list.values().as_struct() })
    }

    fn column(&self, column: &str) -> Result<&'a ArrayRef, String> {
        named(self.rows.column_by_name(column), column)
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.list.value_offsets()[row] as usize..self.list.value_offsets()[row + 1] as usize
    }

    /// `row 7, behaviors 3`, both 1-based, for value `value` of the lists.
    fn place(&self, value: usize, first: u64) -> String {
        let offsets = self.list.value_offsets();
        let row = offsets.partition_point(|&offset| offset as usize <= value) - 1;
        format!(
            "row {}, `{}` {}",
            first + row as u64 + 1,
            self.name,
            value - offsets[row] as usize + 1
        )
    }

    fn require_items(&self, first: u64, item: &Field) -> Result<(), String> {
        let read = |text: &str| Ok((!item.value(text)?.is_empty()).then_some(Id(0)));
        let items = Ids::read(self.column(ITEM)?, read)?;
        if items.are_complete() {
            return Ok(());
        }
        match (0..self.rows.len()).find(|&value| items.get(value).is_none()) {
            Some(value) => Err(format!("{}: no `{ITEM}`", self.place(value, first))),
            None => Ok(()),
        }
    }

    /// The values of an integer or time column; times become unix seconds.
    fn integers(&self, column: &str, first: u64) -> Result<Vec<i64>, String> {
        let array = self.column(column)?;
        let per_second = units_per_second(array.data_type());
        let cast = arrow_cast::cast(array, &DataType::Int64).map_err(|error| error.to_string())?;
        let values = cast.as_primitive::<Int64Type>();
        if let Some(value) = (0..values.len()).find(|&value| values.is_null(value)) {
            return Err(format!("{}: no `{column}`", self.place(value, first)));
        }
        Ok(match (array.data_type(), per_second) {
            (DataType::Date32, _) => values.values().iter().map(|&days| days * 86_400).collect(),
            (_, 1) => values.values().to_vec(),
            _ => values.values().iter().map(|value| value.div_euclid(per_second)).collect(),
        })
    }
}

fn units_per_second(data_type: &DataType) -> i64 {
    match data_type {
        DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => 1_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000_000,
        _ => 1,
    }
}

fn named<'a>(column: Option<&'a ArrayRef>, name: &str) -> Result<&'a ArrayRef, String> {
    column.ok_or_else(|| format!("column `{name}` is gone since the file was opened"))
}

/// A text column as ids: one hash per distinct text.
struct Ids<'a> {
    keys: &'a Int32Array,
    ids: Vec<Option<Id>>,
}

impl<'a> Ids<'a> {
    /// Null and empty texts have no id.
    fn of(array: &'a ArrayRef, hash: impl Fn(&str) -> Id) -> Result<Ids<'a>, String> {
        Ids::read(array, |text| Ok((!text.is_empty()).then(|| hash(text))))
    }

    /// The ids that `read` finds in texts; null has none.
    fn read(
        array: &'a ArrayRef,
        read: impl Fn(&str) -> Result<Option<Id>, String>,
    ) -> Result<Ids<'a>, String> {
        let texts = array
            .as_dictionary_opt::<Int32Type>()
            .ok_or_else(|| format!("text expected, {} found", array.data_type()))?;
        let ids = texts.values().as_string::<i32>().iter();
        let ids = ids.map(|text| text.map_or(Ok(None), &read)).collect::<Result<_, _>>()?;
        Ok(Ids { keys: texts.keys(), ids })
    }

    fn get(&self, row: usize) -> Option<Id> {
        if self.keys.is_null(row) { None } else { self.ids[self.keys.value(row) as usize] }
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether every row has an id, as far as can be told without looking at the rows.
    fn are_complete(&self) -> bool {
        self.keys.null_count() == 0 && self.ids.iter().all(Option::is_some)
    }

    /// The ids of all rows.
    fn iter(&self) -> impl ExactSizeIterator<Item = Option<Id>> {
        (0..self.len()).map(|row| self.get(row))
    }
}

fn append_lengths(list: &ListArray, to: &mut Offsets) {
    list.value_offsets().windows(2).for_each(|pair| to.push((pair[1] - pair[0]) as usize));
}

fn append_field(field: &Field, array: &ArrayRef, to: &mut Ragged<Id>) -> Result<(), String> {
    let read = |text: &str| field.id(text).map_err(|what| format!("`{}`: {what}", field.name));
    let Some(list) = array.as_list_opt::<i32>() else {
        match field.edges().filter(|_| is_number(array.data_type())) {
            Some(edges) => to.extend_options(
                numbers(array)?.iter().map(|number| number.map(|n| edges.id(&field.name, n))),
            ),
            None => to.extend_options(Ids::read(array, read)?.iter()),
        }
        return Ok(());
    };
    let ids = Ids::read(list.values(), read)?;
    for pair in list.value_offsets().windows(2) {
        let before = to.values.len();
        to.values.extend((pair[0] as usize..pair[1] as usize).filter_map(|value| ids.get(value)));
        to.offsets.push(to.values.len() - before);
    }
    Ok(())
}

/// A column of numbers as doubles; NaN is missing. Narrow floats are the shortest decimal that
/// names them, as in a table.
fn numbers(array: &ArrayRef) -> Result<Vec<Option<f64>>, String> {
    let cast = |array: &ArrayRef, to: &DataType| {
        arrow_cast::cast(array, to).map_err(|error| error.to_string())
    };
    if matches!(array.data_type(), DataType::Float16 | DataType::Float32) {
        let narrow = cast(array, &DataType::Float32)?;
        let widen = |value: f32| value.to_string().parse::<f64>().ok().filter(|v| !v.is_nan());
        return Ok(narrow
            .as_primitive::<Float32Type>()
            .iter()
            .map(|v| v.and_then(widen))
            .collect());
    }
    let wide = cast(array, &DataType::Float64)?;
    let values = wide.as_primitive::<Float64Type>().iter();
    Ok(values.map(|value| value.filter(|value| !value.is_nan())).collect())
}

fn append_pictures(array: &ArrayRef, to: &mut Vec<PictureName>) -> Result<(), String> {
    let ids = Ids::of(array, |name| Id(PictureName::of(name).0))?;
    to.extend(ids.iter().map(|id| id.map_or(PictureName::NONE, |id| PictureName(id.0))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_array::{DictionaryArray, LargeStringArray};
    use arrow_schema::{Field as ArrowField, Fields};
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::samples::{Behavior, GroupRow, Impression, SampleWriter};

    fn field(name: &str, side: Side, multi: bool) -> Field {
        Field::verbatim(name, side, multi)
    }

    fn schema() -> Schema {
        let fields = vec![
            field("user", Side::User, false),
            field("age", Side::User, false),
            field("item", Side::Behavior, false),
            field("genres", Side::Behavior, true),
            field("item", Side::Ad, false),
            field("genres", Side::Ad, true),
            field("hour", Side::Context, false),
        ];
        Schema { fields }
    }

    fn catalogue() -> Catalogue {
        Catalogue::new(
            LargeStringArray::from(vec!["007", "7", "x"]),
            LargeStringArray::from(vec![Some("7.jpg"), None, Some("x.png")]),
            vec![field("genres", Side::Ad, true)],
            vec![LargeStringArray::from(vec![Some("Action\u{1f}Drama"), None, Some("Drama")])],
        )
    }

    const fn had(item: u32, time: i64) -> Behavior {
        Behavior { item, time }
    }

    fn shown<'a>(item: u32, time: i64, label: u8, context: &'a [&'a str]) -> Impression<'a> {
        Impression { item, time, label, context }
    }

    /// Writes `groups` in blocks of two and reads every block back.
    fn through_a_file(groups: &[GroupRow]) -> Result<Groups, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part-00.parquet");
        let mut writer = SampleWriter::create(&path, &schema(), &catalogue(), 2).unwrap();
        groups.iter().for_each(|group| writer.push(group).unwrap());
        writer.finish().unwrap();
        read_back(&path)
    }

    fn read_back(path: &Path) -> Result<Groups, String> {
        let read = || {
            let file = SampleFile::open(path, &schema())?;
            let mut all = Groups::new(&schema());
            for block in 0..file.blocks() {
                let (groups, impressions) = (all.len(), all.labels.len());
                file.read(block, &mut all)?;
                assert_eq!(file.groups(block), all.len() - groups);
                assert_eq!(file.impressions(block), all.labels.len() - impressions);
            }
            Ok(all)
        };
        let dir = path.parent().unwrap().display().to_string();
        read().map_err(|error: Error| error.to_string().replace(&dir, "DIR"))
    }

    fn ids(field: &str, raw: &[&str]) -> Vec<Id> {
        raw.iter().map(|raw| Id::of(field, raw)).collect()
    }

    #[test]
    fn groups_come_back_as_ids() {
        let groups = [
            GroupRow {
                user: "0042",
                user_fields: &["25"],
                behaviors: &[had(2, 90), had(0, 80)],
                impressions: &[shown(1, 100, 0, &["9"]), shown(0, 100, 1, &[""])],
            },
            GroupRow {
                user: "43",
                user_fields: &[""],
                behaviors: &[],
                impressions: &[shown(2, 5, 1, &["0"])],
            },
            GroupRow {
                user: "44",
                user_fields: &["25"],
                behaviors: &[had(1, -3)],
                impressions: &[shown(2, 0, 0, &["0"])],
            },
        ];
        let read = through_a_file(&groups).unwrap();
        assert_eq!(read.users, ids("user", &["0042", "43", "44"]));
        assert_eq!(read.user_fields[0].row(0), [Id::of("user", "0042")]);
        assert_eq!(read.user_fields[1].row(0), [Id::of("age", "25")]);
        assert_eq!(read.user_fields[1].row(1), []);
        assert_eq!(read.behaviors.as_slice(), [0, 2, 2, 3]);
        assert_eq!(read.behavior_times, [90, 80, -3]);
        assert_eq!(read.behavior_fields[0].values, ids("item", &["x", "007", "7"]));
        assert_eq!(read.behavior_fields[1].row(1), ids("genres", &["Action", "Drama"]));
        assert_eq!(read.behavior_fields[1].row(2), []);
        let pictures = [PictureName::of("x.png"), PictureName::of("7.jpg"), PictureName::NONE];
        assert_eq!(read.behavior_pictures, pictures);
        assert_eq!(read.impressions.as_slice(), [0, 2, 3, 4]);
        assert_eq!(read.ad_fields[0].values, ids("item", &["7", "007", "x", "x"]));
        assert_eq!(read.context_fields[0].offsets.as_slice(), [0, 1, 1, 2, 3]);
        assert_eq!(read.labels, [0, 1, 1, 0]);
        assert_eq!(read.times, [100, 100, 5, 0]);
    }

    fn one_group(behaviors: &[Behavior], impressions: &[Impression]) -> String {
        let good = GroupRow {
            user: "a",
            user_fields: &[""],
            behaviors: &[],
            impressions: &[shown(0, 9, 1, &[""])],
        };
        let group = GroupRow { behaviors, impressions, ..good };
        through_a_file(&[good, good, group]).expect_err("the third group is wrong")
    }

    #[test]
    fn a_behavior_at_the_instant_of_the_impression() {
        assert_eq!(
            one_group(&[had(0, 5)], &[shown(0, 5, 1, &[""])]),
            "DIR/part-00.parquet: block 2 of 2: row 3: time 5 of behavior 1 is not before the first impression's \
             5; a history is strictly earlier than what it predicts"
        );
    }

    #[test]
    fn behaviors_out_of_order() {
        assert_eq!(
            one_group(&[had(0, 3), had(0, 4)], &[shown(0, 5, 1, &[""])]),
            "DIR/part-00.parquet: block 2 of 2: row 3: time 4 of behavior 2 after 3 of behavior 1; behaviors \
             are newest first"
        );
    }

    #[test]
    fn a_label_outside_0_and_1() {
        assert_eq!(
            one_group(&[], &[shown(0, 5, 1, &[""]), shown(0, 5, 3, &[""])]),
            "DIR/part-00.parquet: block 2 of 2: row 3: label 3 of impression 2; expected 0 or 1"
        );
    }

    #[test]
    fn a_truncated_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part-00.parquet");
        SampleWriter::create(&path, &schema(), &catalogue(), 2).unwrap().finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = read_back(&path).unwrap_err();
        assert!(error.starts_with("DIR/part-00.parquet: cannot be read as Parquet: "), "{error}");
    }

    /// Writes a file as another tool would, from rows of JSON-like columns, and reads it back.
    fn foreign(replace: &str, with: ArrayRef) -> Result<Groups, String> {
        use arrow_array::{Int64Array, LargeStringArray as Text};
        let text = |value: &str| Arc::new(Text::from(vec![value])) as ArrayRef;
        let genres = |value: &str| {
            let element = Arc::new(ArrowField::new("item", DataType::LargeUtf8, true));
            let offsets = arrow_buffer::OffsetBuffer::from_lengths([1]);
            Arc::new(arrow_array::LargeListArray::new(element, offsets, text(value), None))
                as ArrayRef
        };
        let rows = |columns: Vec<(&str, ArrayRef)>| {
            let fields: Fields = columns
                .iter()
                .map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true))
                .collect();
            let columns = columns.into_iter().map(|(_, array)| array).collect();
            let rows = StructArray::new(fields.clone(), columns, None);
            let element = Arc::new(ArrowField::new("item", DataType::Struct(fields), true));
            let offsets = arrow_buffer::OffsetBuffer::from_lengths([1]);
            Arc::new(ListArray::new(element, offsets, Arc::new(rows), None)) as ArrayRef
        };
        let number = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        let pick = |name: &str, array: ArrayRef| {
            if name == replace { Arc::clone(&with) } else { array }
        };
        let behaviors = rows(vec![
            ("genres", pick("behaviors.genres", genres("Drama"))),
            ("time", pick("behaviors.time", number(3))),
            ("dwell", number(12)),
            ("image", text("")),
            ("item", pick("behaviors.item", text("x"))),
        ]);
        let impressions = rows(vec![
            ("time", pick("impressions.time", number(5))),
            ("label", pick("impressions.label", number(1))),
            ("item", text("7")),
            ("image", text("7.jpg")),
            ("genres", genres("")),
            ("hour", pick("impressions.hour", text("3"))),
        ]);
        let batch = RecordBatch::try_from_iter([
            ("extra", number(1)),
            ("age", text("30")),
            ("impressions", impressions),
            ("behaviors", pick("behaviors", behaviors)),
            ("user", pick("user", text("u"))),
        ])
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part-00.parquet");
        let file = File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        read_back(&path)
    }

    fn nothing() -> ArrayRef {
        Arc::new(arrow_array::NullArray::new(1))
    }

    #[test]
    fn columns_in_any_order_large_texts_and_extra_columns() {
        let read = foreign("", nothing()).unwrap();
        assert_eq!(read.user_fields[1].values, [Id::of("age", "30")]);
        assert_eq!(read.behavior_fields[1].values, [Id::of("genres", "Drama")]);
        assert_eq!(read.behavior_pictures, [PictureName::NONE]);
        assert_eq!(read.ad_fields[1].row(0), []);
        assert_eq!((read.behavior_times, read.times), (vec![3], vec![5]));
    }

    #[test]
    fn timestamps_and_boolean_labels() {
        let time = arrow_array::TimestampMicrosecondArray::from(vec![7_999_999]);
        let read = foreign("impressions.time", Arc::new(time.with_timezone("+00:00"))).unwrap();
        assert_eq!(read.times, [7]);
        let day = arrow_array::Date32Array::from(vec![2]);
        assert_eq!(foreign("impressions.time", Arc::new(day)).unwrap().times, [172_800]);
        let label = arrow_array::BooleanArray::from(vec![false]);
        assert_eq!(foreign("impressions.label", Arc::new(label)).unwrap().labels, [0]);
    }

    #[test]
    fn views_and_dictionaries() {
        let view = arrow_array::StringViewArray::from(vec!["u"]);
        assert_eq!(foreign("user", Arc::new(view)).unwrap().users, [Id::of("user", "u")]);
        let dictionary: DictionaryArray<Int32Type> = ["12"].into_iter().collect();
        let hours =
            foreign("impressions.hour", Arc::new(dictionary)).unwrap().context_fields[0].clone();
        assert_eq!(hours.values, [Id::of("hour", "12")]);
    }

    #[test]
    fn wrong_types_and_missing_values() {
        let number = || Arc::new(arrow_array::Int64Array::from(vec![8])) as ArrayRef;
        let text =
            |value: Option<&str>| Arc::new(arrow_array::StringArray::from(vec![value])) as ArrayRef;
        let error = |place, with| foreign(place, with).expect_err("a wrong file");
        let file = "DIR/part-00.parquet";
        assert_eq!(
            error("user", number()),
            format!("{file}: column `user` is Int64; expected text")
        );
        assert_eq!(
            error("impressions.label", text(Some("1"))),
            format!("{file}: column `impressions.label` is Utf8; expected integer 0 or 1")
        );
        assert_eq!(
            error("behaviors.genres", text(Some("Drama"))),
            format!(
                "{file}: column `behaviors.genres` is Utf8; expected list of text (the card says multi)"
            )
        );
        assert_eq!(
            error("behaviors", number()),
            format!("{file}: column `behaviors` is Int64; expected list of structs")
        );
        assert_eq!(error("user", text(None)), format!("{file}: block 1 of 1: row 1: no user"));
        assert_eq!(
            error("behaviors.item", text(None)),
            format!("{file}: block 1 of 1: row 1, `behaviors` 1: no `item`")
        );
    }

    #[test]
    fn a_missing_column_lists_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part-00.parquet");
        SampleWriter::create(&path, &schema(), &catalogue(), 2).unwrap().finish().unwrap();
        let mut wider = schema();
        wider.fields.push(field("page", Side::Context, false));
        let error = SampleFile::open(&path, &wider).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "no column `page` in `impressions`; found: item, image, label, time, genres, hour"
            ),
            "{error}"
        );
    }
}
