//! The first pass: every table once, rows set aside by user, items collected, instants counted.

use std::path::Path;

use super::instants::Instants;
use super::items::Items;
use super::mapping::{Cells, Described, Mapping};
use super::spill::Spill;
use super::values::{Decimal, TimeReader, label, number};
use super::{Dropped, Inputs, PIECES_PER_PART, PrepareOptions, Progress};
use crate::source::{Table, TextBatch};
use crate::{Error, Result};

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
    /// Rows of the items table whose item had a row before.
    pub(crate) items_redescribed: u64,
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
        items_redescribed: 0,
    };
    if let (Some(table), Some(described)) = (&inputs.items, &mapping.items) {
        collect_items(table.as_ref(), described, options.decimal, &mut collected)?;
    }
    if let (Some(table), Some(described)) = (&inputs.users, &mapping.users) {
        let mut users = Spill::create(dir.join("users"), pieces)?;
        collect_users(table.as_ref(), described, options.decimal, &mut users)?;
        collected.users = Some(users);
    }
    Events { table: inputs.events.as_ref(), mapping, options }.collect(&mut collected, progress)?;
    collected.events.finish()?;
    Ok(collected)
}

/// An error at a row and column of a table.
fn at(table: &dyn Table, batch: &TextBatch, row: usize, column: usize, what: String) -> Error {
    let column = &table.columns()[column];
    Error::content(table.path(), format!("{}, column `{column}`: {what}", batch.place(row)))
}

/// Reads the field values of a row; `first` is the position of their columns in the batch.
fn read_cells(
    table: &dyn Table,
    batch: &TextBatch,
    row: usize,
    (cells, first): (&[Cells], usize),
    decimal: Option<Decimal>,
    to: &mut Vec<String>,
) -> Result<()> {
    to.clear();
    for (position, cells) in cells.iter().enumerate() {
        let value = cells.field.kind.read(batch.get(first + position, row), decimal);
        to.push(value.map_err(|what| at(table, batch, row, cells.column, what))?);
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
            let item = batch.get(0, row).trim();
            if item.is_empty() {
                return Err(at(table, &batch, row, described.key, "no item".to_string()));
            }
            let image = if described.image.is_some() { batch.get(1, row).trim() } else { "" };
            read_cells(table, &batch, row, (&described.cells, first), decimal, &mut values)?;
            if !collected.items.add(item, image, &values) {
                collected.items_redescribed += 1;
            }
        }
    }
    collected.described_items = collected.items.len();
    Ok(())
}

fn collect_users(
    table: &dyn Table,
    described: &Described,
    decimal: Option<Decimal>,
    users: &mut Spill,
) -> Result<()> {
    let mut columns = vec![described.key];
    columns.extend(described.cells.iter().map(|cells| cells.column));
    let mut values = Vec::new();
    for batch in table.batches(&columns)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let user = batch.get(0, row).trim();
            if user.is_empty() {
                return Err(at(table, &batch, row, described.key, "no user".to_string()));
            }
            read_cells(table, &batch, row, (&described.cells, 1), decimal, &mut values)?;
            users.push(user, &[], &values)?;
        }
    }
    users.finish()
}

struct Events<'a> {
    table: &'a dyn Table,
    mapping: &'a Mapping,
    options: &'a PrepareOptions,
}

impl Events<'_> {
    fn collect(&self, to: &mut Collected, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let mapping = self.mapping;
        let mut columns = vec![mapping.user, mapping.item, mapping.time];
        columns.extend(mapping.label);
        columns.extend(mapping.weight);
        let first = columns.len();
        columns.extend(mapping.event_cells.iter().map(|cells| cells.column));
        let mut times = TimeReader::default();
        let mut texts = Vec::new();
        for batch in self.table.batches(&columns)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                to.rows += 1;
                let cells = (&mapping.event_cells[..], first);
                let [user, item, time] = [0, 1, 2].map(|column| batch.get(column, row).trim());
                let missing = &mut to.dropped;
                match (user, item, time) {
                    ("", _, _) => missing.without_user += 1,
                    (_, "", _) => missing.without_item += 1,
                    (_, _, "") => missing.without_time += 1,
                    _ => {
                        let wrong = |what| at(self.table, &batch, row, mapping.time, what);
                        let time = times.read(time).map_err(wrong)?;
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
                            cells,
                            self.options.decimal,
                            &mut texts,
                        )?;
                        let item = to.items.number(item);
                        to.instants.add(time);
                        to.positives += u64::from(label);
                        let numbers = [i64::from(item), time, i64::from(label), i64::from(weighs)];
                        to.events.push(user, &numbers, &texts)?;
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
        let label = label(text, self.options.positive_from, self.options.decimal);
        match label {
            Ok(0) if self.options.negatives.is_some() && self.options.positive_from.is_none() => {
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
        if text.is_empty() {
            return Ok(false);
        }
        let weight = number(text, self.options.decimal);
        Ok(weight.map_err(|what| at(self.table, batch, row, column, what))? >= least)
    }
}
