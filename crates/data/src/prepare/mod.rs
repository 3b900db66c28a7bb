//! From tables of events, items and users to a dataset.
//!
//! 1. *Map*: which column means what ([`plan`], [`Plan::understood`]).
//! 2. *Collect*: every table is read once, in batches; events are set aside by user.
//! 3. *Survey*, if negatives have to know all positives: the parts once.
//! 4. *Build*: every thread of the current rayon pool takes one part of the users after the other.
//!    A portion of it at a time is sorted, cut into groups and written.
//!
//! Memory is bounded by the catalogue and, per thread, one portion: a part, or less of it where a
//! part is large. What comes out depends on the rows, not on their order, nor on threads.
//!
//! What the rules are: a positive event is a behavior of every later group of its user, strictly
//! later than it. Exact duplicates (user, item, time, label) count once. A group is a run of a
//! user's impressions less than `group_span` seconds and at most `group_max` long, on one side of
//! the split. Rows without user, item or time are left out and counted; a missing label is an
//! error. Dates without time are midnight UTC, so events of one day do not know each other. Items
//! that only the events know have no image and no fields. A picture belongs to an item: its name
//! comes from the items table.
//!
//! Items held out (`hold_out_items`) are left out of the training, also of its histories; the test
//! stays, byte for byte, what it is without a hold-out, so that it compares models of both.
//! [`crate::negatives`] says what that means for sampled negatives.

mod build;
mod chain;
mod collect;
mod columns;
pub(crate) mod given;
mod history;
mod instants;
pub(crate) mod items;
mod mapping;
mod matching;
mod measured;
mod options;
mod part;
mod propose;
mod report;
mod sample;
mod spans;
pub(crate) mod spill;

use std::collections::BTreeMap;
use std::path::Path;

use self::build::{Builder, Tally};
pub use self::chain::Chain;
use self::collect::{Collected, Events};
pub use self::columns::{Columns, FieldColumn, Kind, Understood};
pub(crate) use self::columns::{Peek, Role};
pub use self::history::Repeats;
use self::mapping::Mapping;
use self::options::check_options;
pub use self::options::{Accept, Inputs, PrepareOptions, SplitBy};
use self::part::Cut;
pub use self::propose::{About, Guess, Proposal, about, propose};
pub use self::report::{DayRows, Dropped, PrepareReport, Progress};
pub use self::spans::{Clock, Sorted, Spans, is_hidden_below};
use crate::dataset::{CARD, Dataset, SplitName, write_card};
use crate::own_past::OwnPast;
use crate::schema::{Card, Counts, FORMAT, Labels, Schema, Split};
use crate::staging::StagedFolder;
pub use crate::value::Decimal;
use crate::value::show_time;
use crate::{Error, Result};

/// What to do with a dataset that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and that is an error.
    #[default]
    Refuse,
    /// It is replaced once the new one is complete. Only datasets (and empty folders) are.
    Replace,
}

/// Tables, options, and what was understood of them.
pub struct Plan {
    inputs: Inputs,
    options: PrepareOptions,
    mapping: Mapping,
    chain: Option<Chain>,
}

/// Finds out which column means what, from the headers and first rows.
///
/// # Errors
/// [`Error::Option`] if an option makes no sense; [`Error::Content`] if a column is missing or
/// ambiguous.
pub fn plan(inputs: Inputs, options: PrepareOptions) -> Result<Plan> {
    check_options(&options)?;
    let mapping = mapping::map(&inputs, &options)?;
    Ok(Plan { inputs, options, mapping, chain: None })
}

impl Plan {
    /// The "I understood" table.
    pub fn understood(&self) -> &[Understood] {
        &self.mapping.understood
    }

    /// The fields the dataset will have.
    pub fn schema(&self) -> &Schema {
        &self.mapping.schema
    }

    /// The rows of the events by the first second of their day, in UTC; rows without a time and
    /// those with an implausible one do not count.
    ///
    /// # Errors
    /// [`Error::Content`] if a time cannot be read.
    pub fn rows_by_day(&self) -> Result<BTreeMap<i64, DayRows>> {
        collect::rows_by_day(self.inputs.events.as_ref(), &self.mapping, &self.options)
    }

    /// The same for a dataset of several of one log. One that has a dataset before it needs
    /// `train_from` and `until`, and events of this span only.
    ///
    /// # Errors
    /// If an option needs the whole log, or the dataset before was made otherwise.
    pub fn chained(self, chain: Chain) -> Result<Plan> {
        chain.check(&self.options, &self.mapping.schema)?;
        Ok(Plan { chain: Some(chain), ..self })
    }

    /// Sets the rows of the events aside, those of the span that begins at S in the file
    /// `to/S/NAME.parquet`, a table with the columns that are used.
    ///
    /// # Errors
    /// If a row cannot be understood, or its time is later than all before it by more than
    /// `spans.jump`: with file, row and value. Then none of the files is meant to stay.
    pub fn set_aside(&self, spans: &Spans, clock: Clock, to: &Path, name: &str) -> Result<Sorted> {
        let (mapping, options) = (&self.mapping, &self.options);
        let events = Events { table: self.inputs.events.as_ref(), mapping, options };
        spans::set_aside(&events, spans, clock, to, name)
    }

    /// Makes the dataset `out`. It appears whole or not at all.
    ///
    /// # Errors
    /// [`Error::Content`] with file, row and column where a table is not what it should be, or with
    /// the reason why there is nothing to learn from it; [`Error::Option`] if `out` is in the
    /// way; [`Error::Io`].
    pub fn run(
        &self,
        out: &Path,
        existing: Existing,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PrepareReport> {
        check_place(out, existing)?;
        let folder = StagedFolder::create(out)?;
        let dir = folder.temporary();
        let spill = dir.join("spill");
        let mut collected =
            collect::collect(&self.inputs, &self.mapping, &self.options, &spill, progress)?;
        if let Some(chain) = &self.chain {
            chain.collect(&self.mapping, &mut collected)?;
        }
        let events = self.inputs.events.as_ref();
        matching::check_rows(events, &collected, &self.options)?;
        matching::check_items(&self.inputs, &collected, &self.options)?;
        self.check_labels(&collected)?;
        let cut = self.cut(&collected)?;
        let items_without_row = (collected.items.len() - collected.described_items) as u64;
        let items = std::mem::replace(&mut collected.items, items::Items::new(Vec::new()));
        let (catalogue, item_rows) = items.finish();
        if i32::try_from(catalogue.len()).is_err() {
            return Err(self.wrong("more than 2^31 items".to_string()));
        }
        catalogue.write(dir)?;
        for split in SplitName::ALL {
            let path = dir.join(split.as_str());
            std::fs::create_dir_all(&path).map_err(Error::io(&path))?;
        }
        if self.chain.is_some() {
            chain::create(dir)?;
        }
        let held_out = self.held_out(&catalogue);
        let (mapping, options) = (&self.mapping, &self.options);
        let builder =
            Builder::new(mapping, options, &collected, &catalogue, &item_rows, &held_out, cut)?;
        let builder = Builder { chain: self.chain.as_ref(), ..builder };
        let sampler = builder.survey(progress)?;
        let mut dropped = collected.dropped.clone();
        let tally = builder.write(dir, sampler.as_ref(), &mut dropped, progress)?;
        (dropped.held_out, dropped.before_train) = (tally.held_out, tally.before_train);
        matching::check_duplicates(events, collected.rows, &dropped, &self.options)?;
        matching::check_users(&self.inputs, &collected, &tally, &self.options)?;
        self.check_halves(&tally)?;
        std::fs::remove_dir_all(&spill).map_err(Error::io(&spill))?;
        let items_held_out = held_out.iter().filter(|&&held| held).count() as u64;
        let counts = Counts { items_held_out, ..counts(&tally, &catalogue) };
        let fields = match self.chain.as_ref().and_then(Chain::fields) {
            Some(fields) => fields.clone(),
            None => tally.measured.edges(&self.mapping.schema, &catalogue),
        };
        let card = self.card(out, cut, counts, fields);
        write_card(dir, &card)?;
        let own_past = match card.labels {
            Labels::Sampled { .. } => Some(OwnPast::of(&Dataset::open(dir)?)?),
            Labels::Observed => None,
        };
        let warning = own_past.as_ref().and_then(|past| past.warning(&card.labels));
        folder.replace()?;
        Ok(PrepareReport {
            counts: card.counts,
            split: card.split,
            labels: card.labels,
            rows: collected.rows,
            dropped,
            items_without_row,
            users_without_row: tally.users_without_row,
            null_words: collected.null_words,
            items_redescribed: collected.items_redescribed,
            users_redescribed: tally.users_redescribed,
            drawn: sampler.is_some().then_some(tally.drawn),
            understood: self.understood().to_vec(),
            own_past,
            warnings: warning.into_iter().collect(),
        })
    }

    /// Of every item of the catalogue, whether it is held out of training.
    fn held_out(&self, catalogue: &crate::Catalogue) -> Vec<bool> {
        let holds =
            |row| self.options.hold_out_items.is_some_and(|hold| hold.holds(catalogue.item(row)));
        (0..catalogue.len()).map(holds).collect()
    }

    /// Whether there is a dataset before this one.
    fn goes_on(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.fields().is_some())
    }

    fn wrong(&self, what: String) -> Error {
        Error::content(self.inputs.events.path(), what)
    }

    fn check_labels(&self, collected: &Collected) -> Result<()> {
        let rows = collected.rows;
        if collected.instants.range().is_none() {
            return Err(self.wrong(format!("none of {rows} rows has user, item and time")));
        }
        if self.goes_on() {
            return Ok(());
        }
        if collected.positives == 0 {
            return Err(
                self.wrong(format!("none of {rows} rows is positive; there is nothing to learn"))
            );
        }
        let all = rows - collected.dropped.missing();
        if self.options.negatives.is_none() && collected.positives == all {
            return Err(self.wrong(format!(
                "all of {all} rows are positive; ask for sampled negatives (--negatives N)"
            )));
        }
        Ok(())
    }

    fn cut(&self, collected: &Collected) -> Result<Cut> {
        let (first, last) = collected.instants.range().expect("there are rows, as checked before");
        let span = format!("{} to {} UTC", show_time(first), show_time(last));
        if self.chain.is_some() {
            let behind = collected.instants.last().map_or(last, |last| last.saturating_add(1));
            return Ok(Cut::Time(self.options.until()?.unwrap_or(behind)));
        }
        match &self.options.split {
            SplitBy::UserTail(fraction) => Ok(Cut::Tail(*fraction)),
            SplitBy::Last(fraction) => match collected.instants.cut(*fraction) {
                Some(time) => Ok(Cut::Time(time)),
                None => Err(self.wrong(format!(
                    "all events are at one instant ({span}); a split by time needs two, a split by user tail \
                     the same of one user"
                ))),
            },
            SplitBy::TestFrom(text) => {
                let time = self.options.test_from(text)?;
                if time <= first || time > last {
                    let what = format!("test_from {text} leaves train or test empty: the log spans {span}");
                    return Err(self.wrong(what));
                }
                Ok(Cut::Time(time))
            }
        }
    }

    fn check_halves(&self, tally: &Tally) -> Result<()> {
        match (tally.train, tally.test) {
            (0, _) if tally.held_out > 0 => Err(self.wrong(format!(
                "train is empty: its {} rows show held-out items; hold out fewer",
                tally.held_out
            ))),
            (0, _) if tally.before_train > 0 => Err(self.wrong(format!(
                "train is empty: its {} rows are before train_from; choose an earlier instant",
                tally.before_train
            ))),
            (0, test) => Err(self.wrong(format!("train is empty, test has {test} impressions"))),
            (_, 0) if self.chain.is_some() => Ok(()),
            (train, 0) => Err(self.wrong(format!(
                "test is empty, train has {train} impressions; hold out a larger fraction or another time"
            ))),
            _ => Ok(()),
        }
    }

    fn card(&self, out: &Path, cut: Cut, counts: Counts, fields: Schema) -> Card {
        let folder = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Card {
            format: FORMAT.to_string(),
            name: self.options.name.clone().unwrap_or(folder),
            parts: self.options.parts,
            fields,
            split: match cut {
                Cut::Time(test_from) => Split::Time { test_from },
                Cut::Tail(fraction) => Split::UserTail { fraction },
            },
            labels: match &self.options.negatives {
                None => Labels::Observed,
                Some(negatives) => Labels::Sampled {
                    negatives: negatives.count,
                    method: negatives.method.as_str().to_string(),
                    seed: negatives.seed,
                },
            },
            hold_out_items: self.options.hold_out_items,
            max_behaviors: self.options.max_behaviors,
            counts,
        }
    }
}

fn counts(tally: &Tally, catalogue: &crate::Catalogue) -> Counts {
    let impressions = tally.train + tally.test;
    Counts {
        users: tally.users,
        items: catalogue.len() as u64,
        items_with_image: catalogue.with_image() as u64,
        groups: tally.groups,
        impressions,
        clicks: tally.clicks,
        behaviors_mean: tally.behaviors as f64 / impressions.max(1) as f64,
        train: tally.train,
        test: tally.test,
        ..Counts::default()
    }
}

/// That `out` may become a dataset.
fn check_place(out: &Path, existing: Existing) -> Result<()> {
    let refuse = |what: &str| Err(Error::option(format!("{}: {what}", out.display())));
    if out.file_name().is_none() {
        return refuse("expected the name of a folder to make");
    }
    if !out.exists() {
        return Ok(());
    }
    if !out.is_dir() {
        return refuse("is a file; expected the name of a folder to make");
    }
    let empty = std::fs::read_dir(out).map_err(Error::io(out))?.next().is_none();
    match (empty, out.join(CARD).exists(), existing) {
        (true, _, _) | (false, true, Existing::Replace) => Ok(()),
        (false, true, Existing::Refuse) => {
            refuse("is a dataset already; choose another folder, or --replace it")
        }
        (false, false, _) => refuse("is not empty and not a dataset; it will not be replaced"),
    }
}
