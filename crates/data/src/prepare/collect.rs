//! The first pass: every table once, rows set aside by user, items collected, instants counted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::instants::Instants;
use super::items::{Added, Items};
use super::mapping::{Cells, Described, Mapping};
use super::options::{Accept, Inputs, PrepareOptions};
use super::report::{DayRows, Dropped, Progress};
use super::sample::Sample;
use super::spill::Spill;
use crate::source::{Table, TextBatch};
use crate::value::{
    Decimal, TimeForm, TimeReader, id, is_missing, is_plausible, label, number, show_time,
};
use crate::{Error, Result};

/// Files that the rows of a part are set aside in, at least.
const PIECES_PER_PART: usize = 16;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// What the first pass leaves.
pub(crate) struct Collected {
    pub(crate) items: Items,
    /// Rows: user; item number, time, label, whether it weighs enough; the event texts.
    pub(crate) events: Spill,
    /// Rows: user; the texts of the users table.
    pub(crate) users: Option<Spill>,
    pub(crate) instants: Instants,
    pub(crate) dropped: Dropped,
    pub(crate) rows: u64,
    pub(crate) positives: u64,
    /// Items of the items table; the rest is known from events only.
    pub(crate) described_items: usize,
    /// Rows of the items table.
    pub(crate) items_rows: u64,
    /// Rows of the items table whose item had a row before.
    pub(crate) items_redescribed: u64,
    /// Those of them that say something else than the first.
    pub(crate) items_contradicted: u64,
    /// Cells with a word for nothing.
    pub(crate) null_words: u64,
    /// Of every item of the items table, whether an event shows it.
    pub(crate) items_shown: Vec<bool>,
    /// The first row with an implausible time, and what it says.
    pub(crate) implausible: Option<String>,
    /// The users of the users table that come first by their texts; see [`super::matching`].
    pub(crate) described_users: Sample,
}

pub(crate) fn collect(
    inputs: &Inputs,
    mapping: &Mapping,
    options: &PrepareOptions,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Collected> {
    let pieces = options.parts * options.spill_per_part.max(PIECES_PER_PART);
    let mut collected = Collected {
        items: Items::new(mapping.item_fields.clone()),
        events: Spill::create(dir.join("events"), pieces)?,
        users: None,
        instants: Instants::default(),
        dropped: Dropped::default(),
        rows: 0,
        positives: 0,
        described_items: 0,
        items_rows: 0,
        items_redescribed: 0,
        items_contradicted: 0,
        null_words: 0,
        items_shown: Vec::new(),
        implausible: None,
        described_users: Sample::default(),
    };
    if let (Some(table), Some(described)) = (&inputs.items, &mapping.items) {
        collect_items(table.as_ref(), described, options.decimal, &mut collected)?;
    }
    if let (Some(table), Some(described)) = (&inputs.users, &mapping.users) {
        let mut users = Spill::create(dir.join("users"), pieces)?;
        collect_users(table.as_ref(), described, options.decimal, &mut users, &mut collected)?;
        collected.users = Some(users);
    }
    Events { table: inputs.events.as_ref(), mapping, options }.collect(&mut collected, progress)?;
    collected.events.finish()?;
    Ok(collected)
}

/// See [`super::Plan::rows_by_day`].
pub(crate) fn rows_by_day(
    events: &dyn Table,
    mapping: &Mapping,
    options: &PrepareOptions,
) -> Result<BTreeMap<i64, DayRows>> {
    let mut times = TimeReader::new(options.time_format.as_deref()).map_err(Error::option)?;
    let keep_all = options.accepts(Accept::Times);
    let mut days = BTreeMap::new();
    for batch in events.batches(&[mapping.time])? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let text = batch.get(0, row).trim();
            if is_missing(text) {
                continue;
            }
            let time = times.read(text);
            let time = time.map_err(|what| at(events, &batch, row, mapping.time, what))?;
            if keep_all || is_plausible(time) {
                let none = DayRows { rows: 0, last: time };
                let of = days.entry(time.div_euclid(DAY) * DAY).or_insert(none);
                *of = DayRows { rows: of.rows + 1, last: of.last.max(time) };
            }
        }
    }
    Ok(days)
}

/// An error at a row and column of a table.
pub(super) fn at(
    table: &dyn Table,
    batch: &TextBatch,
    row: usize,
    column: usize,
    what: String,
) -> Error {
    let column = &table.columns()[column];
    Error::content(table.path(), format!("{}, column `{column}`: {what}", batch.place(row)))
}

/// Reads a key in column `column` of the table, at `position` of the batch; empty: it is missing.
fn read_key<'a>(
    table: &dyn Table,
    batch: &'a TextBatch,
    row: usize,
    position: usize,
    column: usize,
    null_words: &mut u64,
) -> Result<Cow<'a, str>> {
    let cell = batch.get(position, row);
    let key = id(cell).map_err(|what| at(table, batch, row, column, what))?;
    *null_words += u64::from(key.is_empty() && !cell.trim().is_empty());
    Ok(key)
}

/// Reads the field values of a row; `first` is the position of their columns in the batch.
fn read_cells(
    table: &dyn Table,
    batch: &TextBatch,
    row: usize,
    cells: &[Cells],
    first: usize,
    decimal: Option<Decimal>,
    null_words: &mut u64,
    to: &mut Vec<String>,
) -> Result<()> {
    to.clear();
    for (position, cells) in cells.iter().enumerate() {
        let cell = batch.get(first + position, row);
        let value = cells.field.kind.read(cell, decimal);
        let value = value.map_err(|what| at(table, batch, row, cells.column, what))?;
        *null_words += u64::from(
            value.is_empty() && !cell.is_empty() && !cell.trim().is_empty() && is_missing(cell),
        );
        to.push(value);
    }
    Ok(())
}

fn collect_items(
    table: &dyn Table,
    described: &Described,
    decimal: Option<Decimal>,
    collected: &mut Collected,
) -> Result<()> {
    let mut columns = vec![described.key];
    columns.extend(described.image);
    let first = columns.len();
    columns.extend(described.cells.iter().map(|cells| cells.column));
    let mut values = Vec::new();
    for batch in table.batches(&columns)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let nulls = &mut collected.null_words;
            let item = read_key(table, &batch, row, 0, described.key, nulls)?;
            if item.is_empty() {
                return Err(at(table, &batch, row, described.key, "no item".to_string()));
            }
            let image = if described.image.is_some() { batch.get(1, row).trim() } else { "" };
            let image = if is_missing(image) { "" } else { image };
            let cells = &described.cells;
            read_cells(table, &batch, row, cells, first, decimal, nulls, &mut values)?;
            collected.items_rows += 1;
            match collected.items.add(&item, image, &values) {
                Added::New => {}
                Added::Same => collected.items_redescribed += 1,
                Added::Other => {
                    collected.items_redescribed += 1;
                    collected.items_contradicted += 1;
                }
            }
        }
    }
    collected.described_items = collected.items.len();
    collected.items_shown = vec![false; collected.described_items];
    Ok(())
}

fn collect_users(
    table: &dyn Table,
    described: &Described,
    decimal: Option<Decimal>,
    users: &mut Spill,
    collected: &mut Collected,
) -> Result<()> {
    let mut columns = vec![described.key];
    columns.extend(described.cells.iter().map(|cells| cells.column));
    let mut values = Vec::new();
    for batch in table.batches(&columns)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let nulls = &mut collected.null_words;
            let user = read_key(table, &batch, row, 0, described.key, nulls)?;
            if user.is_empty() {
                return Err(at(table, &batch, row, described.key, "no user".to_string()));
            }
            let cells = &described.cells;
            read_cells(table, &batch, row, cells, 1, decimal, nulls, &mut values)?;
            collected.described_users.add(&user);
            users.push(&user, &[], &values)?;
        }
    }
    users.finish()
}

/// The table of events as it is read.
pub(super) struct Events<'a> {
    pub(super) table: &'a dyn Table,
    pub(super) mapping: &'a Mapping,
    pub(super) options: &'a PrepareOptions,
}

/// A row of the events that says who, what and when.
pub(super) struct EventRow<'a> {
    pub(super) batch: &'a TextBatch,
    /// Its place in the batch.
    pub(super) row: usize,
    pub(super) user: &'a str,
    pub(super) item: &'a str,
    /// In Unix seconds.
    pub(super) time: i64,
    pub(super) label: u8,
    /// Whether a positive event weighs enough to be a behavior.
    pub(super) weighs: bool,
    /// One for each of [`Mapping::event_cells`].
    pub(super) texts: &'a [String],
}

/// What a reading of the events counts.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) rows: u64,
    pub(super) dropped: Dropped,
    pub(super) null_words: u64,
    pub(super) implausible: Option<String>,
}

impl Events<'_> {
    /// User, item and time, then label and weight where there are any.
    fn key_columns(&self) -> Vec<usize> {
        let Mapping { user, item, time, label, weight, .. } = self.mapping;
        [*user, *item, *time].into_iter().chain(*label).chain(*weight).collect()
    }

    /// Columns that are read, as positions in the table: the keys, then the cells.
    pub(super) fn columns(&self) -> Vec<usize> {
        let cells = self.mapping.event_cells.iter().map(|cells| cells.column);
        self.key_columns().into_iter().chain(cells).collect()
    }

    fn collect(&self, to: &mut Collected, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mut counted = Counted::default();
        let Collected { items, items_shown, instants, positives, events, .. } = to;
        self.read(&mut counted, progress, &mut |event| {
            let item = items.number(event.item);
            if let Some(shown) = items_shown.get_mut(item as usize) {
                *shown = true;
            }
            instants.add(event.time);
            *positives += u64::from(event.label);
            let numbers =
                [i64::from(item), event.time, i64::from(event.label), i64::from(event.weighs)];
            events.push(event.user, &numbers, event.texts)
        })?;
        to.rows += counted.rows;
        to.null_words += counted.null_words;
        (to.dropped, to.implausible) = (counted.dropped, counted.implausible);
        Ok(())
    }

    /// Shows `visit` the rows that say who, what and when, in the order of the table; counts the
    /// others.
    pub(super) fn read(
        &self,
        to: &mut Counted,
        progress: &mut dyn FnMut(Progress),
        visit: &mut dyn FnMut(&EventRow) -> Result<()>,
    ) -> Result<()> {
        let mapping = self.mapping;
        let columns = self.columns();
        let first = self.key_columns().len();
        let mut times =
            TimeReader::new(self.options.time_format.as_deref()).map_err(Error::option)?;
        let keep_all = self.options.accepts(Accept::Times);
        let until = self.options.until()?;
        let mut texts = Vec::new();
        for batch in self.table.batches(&columns)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                to.rows += 1;
                let nulls = &mut to.null_words;
                let user = read_key(self.table, &batch, row, 0, mapping.user, nulls)?;
                let item = read_key(self.table, &batch, row, 1, mapping.item, nulls)?;
                let cell = batch.get(2, row).trim();
                let time = if is_missing(cell) { "" } else { cell };
                *nulls += u64::from(time.is_empty() && !cell.is_empty());
                let missing = &mut to.dropped;
                match (&*user, &*item, time) {
                    ("", _, _) => missing.without_user += 1,
                    (_, "", _) => missing.without_item += 1,
                    (_, _, "") => missing.without_time += 1,
                    (.., text) => {
                        let wrong = |what| at(self.table, &batch, row, mapping.time, what);
                        let time = times.read(text).map_err(wrong)?;
                        if !keep_all && !is_plausible(time) {
                            missing.implausible_time += 1;
                            to.implausible.get_or_insert_with(|| {
                                let form = times.form().map_or("", TimeForm::describe);
                                format!(
                                    "{}: `{text}`, read as {form}, is {} UTC",
                                    batch.place(row),
                                    show_time(time)
                                )
                            });
                            continue;
                        }
                        if until.is_some_and(|until| time >= until) {
                            missing.after_until += 1;
                            to.rows -= 1;
                            continue;
                        }
                        let label = self.label(&batch, row)?;
                        if label == 0 && self.options.negatives.is_some() {
                            missing.not_positive += 1;
                            continue;
                        }
                        let weighs = label == 1 && self.weighs(&batch, row)?;
                        read_cells(
                            self.table,
                            &batch,
                            row,
                            &mapping.event_cells,
                            first,
                            self.options.decimal,
                            &mut to.null_words,
                            &mut texts,
                        )?;
                        let (user, item, texts) = (&*user, &*item, &texts[..]);
                        let batch = &batch;
                        visit(&EventRow { batch, row, user, item, time, label, weighs, texts })?;
                    }
                }
            }
            progress(Progress::Reading { rows: to.rows });
        }
        Ok(())
    }

    fn label(&self, batch: &TextBatch, row: usize) -> Result<u8> {
        let Some(column) = self.mapping.label else { return Ok(1) };
        let text = batch.get(3, row).trim();
        let label = label(text, self.options.label_rule());
        match label {
            Ok(0)
                if self.options.negatives.is_some()
                    && self.options.positive_from.is_none()
                    && self.options.positive.is_empty() =>
            {
                let what = "label 0 in a log for which sampled negatives were asked; these are for logs that hold \
                            positives only: leave out these rows, or the sampling";
                Err(at(self.table, batch, row, column, what.to_string()))
            }
            Ok(label) => Ok(label),
            Err(what) => Err(at(self.table, batch, row, column, what)),
        }
    }

    fn weighs(&self, batch: &TextBatch, row: usize) -> Result<bool> {
        let (Some(column), Some(least)) = (self.mapping.weight, self.options.min_weight) else {
            return Ok(true);
        };
        let position = 3 + usize::from(self.mapping.label.is_some());
        let text = batch.get(position, row).trim();
        if is_missing(text) {
            return Ok(false);
        }
        let weight = number(text, self.options.decimal);
        Ok(weight.map_err(|what| at(self.table, batch, row, column, what))? >= least)
    }
}
