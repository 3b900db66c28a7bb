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
mod collect;
mod columns;
mod history;
mod instants;
mod items;
mod mapping;
mod matching;
mod measured;
mod part;
mod spill;

use std::path::Path;

use serde::{Deserialize, Serialize};

use self::build::{Builder, Tally};
use self::collect::Collected;
pub use self::columns::{Columns, FieldColumn, Kind, Understood};
pub use self::history::Repeats;
use self::mapping::Mapping;
use self::part::Cut;
use crate::dataset::{CARD, SplitName, write_card};
use crate::negatives::{Drawn, NegativeOptions};
use crate::schema::{Card, Counts, FORMAT, HoldOut, Labels, PARTS, Schema, Split};
use crate::source::Table;
use crate::staging::StagedFolder;
pub use crate::value::Decimal;
use crate::value::{LabelRule, TimeReader, instant, show_time};
use crate::{Error, Result};

/// The tables a dataset is made of.
pub struct Inputs {
    /// One row per impression or positive event.
    pub events: Box<dyn Table>,
    /// One row per item.
    pub items: Option<Box<dyn Table>>,
    /// One row per user.
    pub users: Option<Box<dyn Table>>,
}

/// Where train ends and test begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Test is what happened at or after this instant (any form a time column may have).
    TestFrom(String),
    /// Test is the last fraction of the events, cut at an instant.
    Last(f64),
    /// Test is the last fraction of each user's events.
    UserTail(f64),
}

/// Shares of a log that are an error unless they are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accept {
    /// Times before 1990 or after 2099; accepted, such rows are kept.
    Times,
    /// More than half of the rows left out.
    DroppedRows,
    /// Most items of the events without a row in the items table, or some that seem to have one in
    /// another form.
    ItemsWithoutRow,
    /// The same of users and the users table.
    UsersWithoutRow,
    /// More than half of the rows of the items table contradict an earlier row of the same item.
    RepeatedRows,
}

impl Accept {
    /// What `--accept` calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Accept::Times => "times",
            Accept::DroppedRows => "dropped-rows",
            Accept::ItemsWithoutRow => "items-without-row",
            Accept::UsersWithoutRow => "users-without-row",
            Accept::RepeatedRows => "repeated-rows",
        }
    }
}

/// How a dataset is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrepareOptions {
    /// What the dataset is called; not given: as its folder.
    pub name: Option<String>,
    /// Which column means what.
    pub columns: Columns,
    /// Where train ends.
    pub split: SplitBy,
    /// Seconds a group may span.
    pub group_span: i64,
    /// Impressions a group may have.
    pub group_max: usize,
    /// Behaviors a group keeps.
    pub max_behaviors: usize,
    /// Least weight (dwell time, say) of a positive event to become a behavior. An empty cell
    /// weighs nothing.
    pub min_weight: Option<f64>,
    /// Labels are numbers, positive from this one on (ratings).
    pub positive_from: Option<f64>,
    /// Labels are words, positive if among these, in any case.
    pub positive: Vec<String>,
    /// How times are written, as of strptime, or `unix`, `unix-ms`, `unix-us`, `unix-ns`.
    pub time_format: Option<String>,
    /// What is no error.
    pub accept: Vec<Accept>,
    /// What to do with repeated positives of one user and item.
    pub repeats: Repeats,
    /// Negatives to be drawn, for logs that hold positives only.
    pub negatives: Option<NegativeOptions>,
    /// Items that training is not to see.
    pub hold_out_items: Option<HoldOut>,
    /// Which mark separates the fraction of numbers.
    pub decimal: Option<Decimal>,
    /// Parts of the dataset, a power of two.
    pub parts: usize,
    /// Into how many pieces a part is divided at least while it is made, a power of two; more need
    /// less memory. Parts that are large are divided in any case, into up to 16 pieces.
    pub spill_per_part: usize,
}

/// Files that the rows of a part are set aside in, at least.
const PIECES_PER_PART: usize = 16;

/// Bytes of rows that are sorted and cut at a time, unless a piece has more; in memory they take
/// about twice that.
const PORTION: u64 = 16 << 20;

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            name: None,
            columns: Columns::default(),
            split: SplitBy::Last(0.1),
            group_span: 86_400,
            group_max: 64,
            max_behaviors: 50,
            min_weight: None,
            positive_from: None,
            positive: Vec::new(),
            time_format: None,
            accept: Vec::new(),
            repeats: Repeats::Keep,
            negatives: None,
            hold_out_items: None,
            decimal: None,
            parts: PARTS,
            spill_per_part: 1,
        }
    }
}

/// What to do with a dataset that is already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and that is an error.
    #[default]
    Refuse,
    /// It is replaced once the new one is complete. Only datasets (and empty folders) are.
    Replace,
}

/// How far the preparation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Reading the events.
    Reading {
        /// Rows so far.
        rows: u64,
    },
    /// Looking at all positives before negatives are drawn.
    Surveying {
        /// Parts so far.
        done: usize,
        /// Of how many.
        total: usize,
    },
    /// Writing sample files.
    Writing {
        /// Parts so far.
        done: usize,
        /// Of how many.
        total: usize,
    },
}

/// Rows that are not in the dataset as they were in the log, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Same user, item, time and label as another row.
    pub duplicates: u64,
    /// Positives for an item the user had before, if only first ones are kept.
    pub repeated: u64,
    /// Positives that weigh too little to be behaviors; they are still impressions.
    pub light: u64,
    /// Rows below `positive_from` where negatives are sampled.
    pub not_positive: u64,
    /// Rows of the training period for an item that is held out.
    pub held_out: u64,
    /// Rows without user: empty, or a word such as NULL.
    pub without_user: u64,
    /// Rows without item, likewise.
    pub without_item: u64,
    /// Rows without time, likewise.
    pub without_time: u64,
    /// Rows whose time is before 1990 or after 2099.
    pub implausible_time: u64,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrepareReport {
    /// As in the card.
    #[serde(flatten)]
    pub counts: Counts,
    /// As in the card.
    pub split: Split,
    /// As in the card.
    pub labels: Labels,
    /// Rows of the events.
    pub rows: u64,
    /// What was left out.
    pub dropped: Dropped,
    /// Items that only the events know.
    pub items_without_row: u64,
    /// Users of the samples that the users table does not know, if there is one.
    pub users_without_row: u64,
    /// Cells that hold a word for nothing, such as NULL or nan, and are read as missing.
    pub null_words: u64,
    /// Rows of the items table for an item that had one before (the first counts).
    pub items_redescribed: u64,
    /// Rows of the users table for a user that had one before (the first counts).
    pub users_redescribed: u64,
    /// What came of drawing negatives.
    pub drawn: Option<Drawn>,
}

/// Tables, options, and what was understood of them.
pub struct Plan {
    inputs: Inputs,
    options: PrepareOptions,
    mapping: Mapping,
}

/// Finds out which column means what, from the headers and first rows.
///
/// # Errors
/// [`Error::Option`] if an option makes no sense; [`Error::Content`] if a column is missing or
/// ambiguous.
pub fn plan(inputs: Inputs, options: PrepareOptions) -> Result<Plan> {
    check_options(&options)?;
    let mapping = mapping::map(&inputs, &options)?;
    Ok(Plan { inputs, options, mapping })
}

impl PrepareOptions {
    /// What makes a label positive.
    fn label_rule(&self) -> LabelRule<'_> {
        LabelRule { from: self.positive_from, words: &self.positive, decimal: self.decimal }
    }

    fn accepts(&self, what: Accept) -> bool {
        self.accept.contains(&what)
    }
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
        matching::check_rows(self.inputs.events.as_ref(), &collected, &self.options)?;
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
        let held_out = self.held_out(&catalogue);
        let items = (&catalogue, &item_rows[..]);
        let builder = Builder::new(&self.mapping, &self.options, &collected, items, &held_out, cut);
        let sampler = builder.survey(progress)?;
        let mut dropped = collected.dropped.clone();
        let tally = builder.write(dir, sampler.as_ref(), &mut dropped, progress)?;
        dropped.held_out = tally.held_out;
        matching::check_duplicates(
            self.inputs.events.as_ref(),
            collected.rows,
            &dropped,
            &self.options,
        )?;
        matching::check_users(&self.inputs, &collected, &tally, &self.options)?;
        self.check_halves(&tally)?;
        std::fs::remove_dir_all(&spill).map_err(Error::io(&spill))?;
        let items_held_out = held_out.iter().filter(|&&held| held).count() as u64;
        let counts = Counts { items_held_out, ..counts(&tally, &catalogue) };
        let fields = tally.measured.edges(&self.mapping.schema, &catalogue);
        let card = self.card(out, cut, counts, fields);
        write_card(dir, &card)?;
        folder.commit()?;
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
        })
    }

    /// Of every item of the catalogue, whether it is held out of training.
    fn held_out(&self, catalogue: &crate::Catalogue) -> Vec<bool> {
        let holds =
            |row| self.options.hold_out_items.is_some_and(|hold| hold.holds(catalogue.item(row)));
        (0..catalogue.len()).map(holds).collect()
    }

    fn wrong(&self, what: String) -> Error {
        Error::content(self.inputs.events.path(), what)
    }

    fn check_labels(&self, collected: &Collected) -> Result<()> {
        let rows = collected.rows;
        if collected.instants.range().is_none() {
            return Err(self.wrong(format!("none of {rows} rows has user, item and time")));
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
                let time = test_from(text, self.options.time_format.as_deref())?;
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
            (0, test) => Err(self.wrong(format!("train is empty, test has {test} impressions"))),
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

impl Dropped {
    /// Rows that never reached a part.
    fn missing(&self) -> u64 {
        self.without_user + self.without_item + self.without_time + self.implausible_time
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

/// The instant of `test_from`: in the log's stated format, or any that is understood by itself.
fn test_from(text: &str, format: Option<&str>) -> Result<i64> {
    let stated = format.map(|_| TimeReader::new(format).and_then(|mut times| times.read(text)));
    match (stated, instant(text)) {
        (Some(Ok(time)), _) | (_, Ok((_, time))) => Ok(time),
        (_, Err(what)) => Err(Error::option(format!("test_from: {what}"))),
    }
}

fn check_options(options: &PrepareOptions) -> Result<()> {
    let require = |holds: bool, what: String| if holds { Ok(()) } else { Err(Error::option(what)) };
    for (name, value) in [("parts", options.parts), ("spill_per_part", options.spill_per_part)] {
        let fits = value.is_power_of_two() && value <= 1 << 14;
        require(fits, format!("{name} is {value}; expected a power of two up to 16384"))?;
    }
    require(options.group_max > 0, "group_max is 0; a group has impressions".to_string())?;
    let span = options.group_span;
    require(span > 0, format!("group_span is {span}; expected seconds, at least 1"))?;
    if let SplitBy::Last(fraction) | SplitBy::UserTail(fraction) = options.split {
        let fits = fraction > 0.0 && fraction < 1.0;
        require(fits, format!("a test fraction of {fraction}; expected between 0 and 1"))?;
    }
    if let Some(HoldOut { share, .. }) = options.hold_out_items {
        let fits = share > 0.0 && share < 1.0;
        require(fits, format!("{share} of the items held out; expected a share between 0 and 1"))?;
    }
    let format = options.time_format.as_deref();
    TimeReader::new(format).map_err(Error::option)?;
    if let SplitBy::TestFrom(text) = &options.split {
        test_from(text, format)?;
    }
    let both = options.positive_from.is_some() && !options.positive.is_empty();
    require(
        !both,
        "positive and positive_from are both given; labels are words or numbers".to_string(),
    )?;
    if let Some(negatives) = &options.negatives {
        require(
            negatives.count > 0,
            "0 negatives per positive; leave negatives out instead".to_string(),
        )?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negatives::Method;

    #[test]
    fn options_as_toml() {
        let text = r#"
            name = "shop"
            split = { user_tail = 0.2 }
            repeats = "first_only"
            decimal = ","
            [columns]
            user = "client"
            item_fields = ["brand", "tags:multi:;", "eur=price:numeric"]
            [negatives]
            count = 2
            method = "contemporary"
            [hold_out_items]
            share = 0.25
        "#;
        let options: PrepareOptions = toml::from_str(text).unwrap();
        assert_eq!(options.split, SplitBy::UserTail(0.2));
        assert_eq!((options.repeats, options.decimal), (Repeats::FirstOnly, Some(Decimal::Comma)));
        assert_eq!(options.columns.item_fields.as_ref().unwrap()[2].name, "eur");
        let negatives = options.negatives.as_ref().unwrap();
        assert_eq!(
            (negatives.count, negatives.method, negatives.days),
            (2, Method::Contemporary, 3)
        );
        assert_eq!(options.hold_out_items, Some(HoldOut { share: 0.25, seed: 1 }));
        let back = toml::to_string(&options).unwrap();
        assert_eq!(toml::from_str::<PrepareOptions>(&back).unwrap(), options);
    }

    #[test]
    fn unknown_options_and_fields_are_refused() {
        let error = |text: &str| toml::from_str::<PrepareOptions>(text).unwrap_err().to_string();
        assert!(error("group_spam = 3").contains("unknown field `group_spam`"));
        assert!(error("[columns]\nitem_fields = ['a:color']").contains("expected [name=]column"));
    }
}
