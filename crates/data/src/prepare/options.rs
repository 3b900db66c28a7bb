//! What a dataset is made of and how: the tables and the options.

use serde::{Deserialize, Serialize};

use super::columns::Columns;
use super::history::Repeats;
use crate::negatives::NegativeOptions;
use crate::schema::{HoldOut, PARTS};
use crate::source::Table;
use crate::value::{Decimal, LabelRule, TimeReader, instant, show_time};
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
    /// Rule that assigns an impression to train or test.
    pub split: SplitBy,
    /// Instant from which on rows do not count, as if the log ended there.
    pub until: Option<String>,
    /// Instant before which events of the training are behaviors of later ones and no impressions.
    pub train_from: Option<String>,
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

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            name: None,
            columns: Columns::default(),
            split: SplitBy::Last(0.1),
            until: None,
            train_from: None,
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

impl PrepareOptions {
    /// What makes a label positive.
    pub(crate) fn label_rule(&self) -> LabelRule<'_> {
        LabelRule { from: self.positive_from, words: &self.positive, decimal: self.decimal }
    }

    /// The instant `text` at which the test begins, in Unix seconds.
    pub(super) fn test_from(&self, text: &str) -> Result<i64> {
        instant_of("test_from", text, self.time_format.as_deref())
    }

    /// [`PrepareOptions::until`] in Unix seconds.
    pub(super) fn until(&self) -> Result<Option<i64>> {
        self.instant("until", self.until.as_deref())
    }

    /// [`PrepareOptions::train_from`] in Unix seconds.
    pub(super) fn train_from(&self) -> Result<Option<i64>> {
        self.instant("train_from", self.train_from.as_deref())
    }

    fn instant(&self, name: &str, text: Option<&str>) -> Result<Option<i64>> {
        text.map(|text| instant_of(name, text, self.time_format.as_deref())).transpose()
    }

    pub(super) fn accepts(&self, what: Accept) -> bool {
        self.accept.contains(&what)
    }
}

/// The instant `text` of the option `name`: in the log's stated format, or any that is understood
/// by itself.
fn instant_of(name: &str, text: &str, format: Option<&str>) -> Result<i64> {
    let stated = format.map(|_| TimeReader::new(format).and_then(|mut times| times.read(text)));
    match (stated, instant(text)) {
        (Some(Ok(time)), _) | (_, Ok((_, time))) => Ok(time),
        (_, Err(what)) => Err(Error::option(format!("{name}: {what}"))),
    }
}

/// That the options make sense, each and together.
pub(super) fn check_options(options: &PrepareOptions) -> Result<()> {
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
        options.test_from(text)?;
    }
    let (until, train_from) = (options.until()?, options.train_from()?);
    if let (Some(until), Some(from)) = (until, train_from) {
        let what = format!(
            "train_from {} is not before until {}; nothing would be learned from",
            show_time(from),
            show_time(until)
        );
        require(from < until, what)?;
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
