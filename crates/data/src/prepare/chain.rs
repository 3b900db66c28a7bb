//! Datasets of one log, one after the other: each has the impressions of a span of time, and of all
//! before it only what the histories of users need.
//!
//! ```text
//! past/part-PP.parquet   user, item, time: the newest `max_behaviors` behaviors of each user
//! ```
//! Its histories are those of the whole log, bit by bit. It has no test: what comes next is in the
//! next dataset.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema as ArrowSchema, SchemaRef};

use super::collect::Collected;
use super::history::{Event, Repeats};
use super::mapping::Mapping;
use super::options::PrepareOptions;
use super::part::UserLog;
use crate::catalogue::Catalogue;
use crate::dataset::Dataset;
use crate::parquet_file::ParquetFile;
use crate::schema::{ITEM, Schema, TIME, USER};
use crate::source::{self, TableOptions};
use crate::{Error, Result};

/// The folder of the pasts in a dataset.
const PAST: &str = "past";

/// Rows that are written at a time.
const BATCH: usize = 8192;

/// The place of a dataset among those of one log.
#[derive(Debug)]
pub struct Chain {
    before: Option<Dataset>,
    forget_before: Option<i64>,
}

impl Chain {
    /// The first dataset.
    pub fn first() -> Chain {
        Chain { before: None, forget_before: None }
    }

    /// The dataset after the one in the folder `before`. Users none of whose behaviors is at
    /// `forget_before` (Unix seconds) or later are not handed on.
    ///
    /// # Errors
    /// If there is no dataset, or it was not made for this.
    pub fn after(before: &Path, forget_before: Option<i64>) -> Result<Chain> {
        let before = Dataset::open(before)?;
        if !before.dir().join(PAST).is_dir() {
            let what = "has no pasts of users, so no dataset can follow it";
            return Err(Error::content(before.dir(), what));
        }
        Ok(Chain { before: Some(before), forget_before })
    }

    /// The fields of the dataset before, with the edges of its numbers.
    pub(super) fn fields(&self) -> Option<&Schema> {
        self.before.as_ref().map(Dataset::schema)
    }

    /// Adds the behaviors of the dataset before to the rows that were collected.
    pub(super) fn collect(&self, mapping: &Mapping, to: &mut Collected) -> Result<()> {
        let Some(before) = &self.before else { return Ok(()) };
        let texts = vec![String::new(); mapping.event_cells.len()];
        let table = source::open(&before.dir().join(PAST), &TableOptions::default())?;
        let [user, item, time] = [USER, ITEM, TIME].map(|name| {
            let at = table.columns().iter().position(|column| column == name);
            at.ok_or_else(|| Error::content(table.path(), format!("has no column `{name}`")))
        });
        for batch in table.batches(&[user?, item?, time?])? {
            let batch = batch?;
            for row in 0..batch.rows() {
                let time = batch.get(2, row).parse().map_err(|_| {
                    let found = batch.get(2, row);
                    let what =
                        format!("{}: time is `{found}`, expected a number", batch.place(row));
                    Error::content(table.path(), what)
                })?;
                let item = i64::from(to.items.number(batch.get(1, row)));
                to.events.push(batch.get(0, row), &[item, time, 1, 1], &texts)?;
            }
        }
        to.events.finish()
    }
}

impl Chain {
    /// That datasets with these options and fields can follow one another.
    ///
    /// # Errors
    /// If an option needs the whole log, or the dataset before was made otherwise.
    pub(super) fn check(&self, options: &PrepareOptions, schema: &Schema) -> Result<()> {
        for (name, is_set) in [
            ("negatives", options.negatives.is_some()),
            ("first_only", options.repeats == Repeats::FirstOnly),
            ("hold_out_items", options.hold_out_items.is_some()),
        ] {
            if is_set {
                let what = format!(
                    "{name} needs the whole log, and here it comes bit by bit; leave it out"
                );
                return Err(Error::option(what));
            }
        }
        let Some(before) = &self.before else { return Ok(()) };
        let card = before.card();
        let wrong = |what: String| Err(Error::content(before.dir(), what));
        if !card.fields.reads_alike(schema) {
            let names = |schema: &Schema| {
                let names: Vec<_> = schema.fields.iter().map(|field| &field.name[..]).collect();
                names.join(", ")
            };
            return wrong(format!(
                "has the fields {}, but now there are {}, or they are read otherwise",
                names(&card.fields),
                names(schema)
            ));
        }
        for (name, was, is) in [
            ("parts", card.parts, options.parts),
            ("max_behaviors", card.max_behaviors, options.max_behaviors),
        ] {
            if was != is {
                return wrong(format!("was made with {name} = {was}, but now it is {is}"));
            }
        }
        Ok(())
    }
}

/// Makes the folder of the pasts in the dataset `dir`.
pub(super) fn create(dir: &Path) -> Result<()> {
    let past = dir.join(PAST);
    std::fs::create_dir_all(&past).map_err(Error::io(&past))
}

/// The pasts of the users of one part, being written.
pub(super) struct PastWriter {
    file: ParquetFile,
    schema: SchemaRef,
    users: Vec<String>,
    items: Vec<String>,
    times: Vec<i64>,
}

impl PastWriter {
    pub(super) fn create(dir: &Path, part: usize) -> Result<PastWriter> {
        let path: PathBuf = dir.join(PAST).join(format!("part-{part:02}.parquet"));
        let text = |name| Field::new(name, DataType::Utf8, false);
        let fields = vec![text(USER), text(ITEM), Field::new(TIME, DataType::Int64, false)];
        let schema: SchemaRef = Arc::new(ArrowSchema::new(fields));
        let file = ParquetFile::create(&path, Arc::clone(&schema))?;
        let (users, items, times) = (Vec::new(), Vec::new(), Vec::new());
        Ok(PastWriter { file, schema, users, items, times })
    }

    /// Adds the newest behaviors of a user, at most `most`.
    pub(super) fn push(
        &mut self,
        log: &UserLog,
        catalogue: &Catalogue,
        most: usize,
        chain: &Chain,
    ) -> Result<()> {
        let is_behavior = |event: &&Event| event.label == 1 && event.weighs;
        let newest: Vec<&Event> =
            log.events.iter().rev().filter(is_behavior).take(most.max(1)).collect();
        let Some(last) = newest.first() else { return Ok(()) };
        if chain.forget_before.is_some_and(|before| last.time < before) {
            return Ok(());
        }
        for event in newest.into_iter().rev() {
            self.users.push(log.user.to_owned());
            self.items.push(catalogue.item(event.item as usize).to_owned());
            self.times.push(event.time);
        }
        if self.times.len() >= BATCH { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<()> {
        let texts = |texts: &mut Vec<String>| Arc::new(StringArray::from(std::mem::take(texts)));
        let times = Int64Array::from(std::mem::take(&mut self.times));
        let columns: Vec<ArrayRef> =
            vec![texts(&mut self.users), texts(&mut self.items), Arc::new(times)];
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        self.file.write(&batch.expect("three columns of one length"))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        if !self.times.is_empty() {
            self.write()?;
        }
        self.file.finish()
    }
}
