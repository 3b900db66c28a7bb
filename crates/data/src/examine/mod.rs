//! Whether data are fit to learn from: fields that know the label, negatives that tell themselves,
//! duplicates, days that differ, missing pictures, values seen once, drift between train and test.
//!
//! [`Examination::of_dataset`] looks at a prepared dataset, [`Examination::of_table`] at a table of
//! events before it is prepared, of which it looks at all columns. Both gather rows; every check is
//! a function of these. Knows fields, times and labels. Does not know which pictures there are: the
//! caller says.

mod field;
mod finding;
mod rows;

use hashbrown::HashMap;
use rayon::prelude::*;
use serde::Serialize;

pub use self::field::FieldFigures;
pub use self::finding::{Finding, Verdict};
use self::rows::{HELD, Rows};
use crate::own_past::OwnPast;
use crate::prepare::PrepareOptions;
use crate::schema::{ITEM, Labels, USER};
use crate::source::Table;
use crate::value::show_time;
use crate::{Dataset, Id, PictureName, Result};

const DAY: i64 = 86_400;

/// Impressions from which on the rate of a day is looked at.
const DAY_IMPRESSIONS: u64 = 200;

/// An AUC from which on a field alone is suspicious, and one that no honest field has.
const TOLD: [f64; 2] = [0.85, 0.95];

/// Shares of impressions that are given twice.
const TWICE: [f64; 2] = [0.001, 0.05];

/// Shares of impressions that are given with both labels.
const BOTH: [f64; 2] = [0.001, 0.01];

/// Shares of impressions without a picture.
const WITHOUT_PICTURE: [f64; 2] = [0.1, 0.5];

/// Share of the items with a picture that may have the same one.
const ONE_PICTURE: f64 = 0.02;

/// Shares of training impressions with a value that is seen once.
const ONCE: f64 = 0.5;

/// Shares of test impressions with values that the training lacks.
const UNSEEN: [f64; 2] = [0.05, 0.5];

/// A population stability index that is a shift.
const SHIFT: f64 = 0.25;

/// Shares of negatives from before their item is had at all.
const BEFORE_FIRST: [f64; 2] = [0.1, 0.2];

/// The impressions of a day, UTC.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Day {
    /// Its date, `2024-03-04`.
    pub day: String,
    /// Number of impressions.
    pub impressions: u64,
    /// Number of clicks.
    pub clicks: u64,
}

impl Day {
    /// Share of the impressions that were clicked.
    pub fn rate(&self) -> f64 {
        self.clicks as f64 / self.impressions.max(1) as f64
    }
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Examination {
    /// Impressions that there are.
    pub impressions: u64,
    /// Impressions that were looked at.
    pub looked_at: u64,
    /// Of how many users one was looked at: a power of two, 1 for all.
    pub one_user_in: u64,
    /// The findings, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The days with impressions, oldest first.
    pub days: Vec<Day>,
    /// One per field of user, item and context; of a table one per column.
    pub fields: Vec<FieldFigures>,
    /// Whether popularity tells the label; of a dataset only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_past: Option<OwnPast>,
}

/// Says whether a picture's name has a picture.
pub type HasPicture<'a> = dyn Fn(PictureName) -> bool + 'a;

impl Examination {
    /// Examines a dataset. With `has_picture` a picture that is named also has to be there.
    ///
    /// # Errors
    /// As [`crate::SampleFile::open`] and [`crate::SampleFile::read`].
    pub fn of_dataset(
        dataset: &Dataset,
        has_picture: Option<&HasPicture<'_>>,
    ) -> Result<Examination> {
        let rows = Rows::of_dataset(dataset, HELD)?;
        let own_past = OwnPast::of(dataset)?;
        let labels = &dataset.card().labels;
        let mut found = Examination::of(&rows);
        found.findings.extend(pictures(&rows, has_picture));
        found.findings.extend(past(&own_past, labels));
        found.own_past = Some(own_past);
        Ok(found)
    }

    /// Examines a table of events; `options` say which columns are user, item, time and label. Its
    /// newest tenth is taken for the test.
    ///
    /// # Errors
    /// As [`crate::prepare::plan`] and [`crate::prepare::Plan::run`] of the columns.
    pub fn of_table(events: &dyn Table, options: &PrepareOptions) -> Result<Examination> {
        Ok(Examination::of(&Rows::of_table(events, options, HELD)?))
    }

    fn of(rows: &Rows) -> Examination {
        let fields: Vec<FieldFigures> =
            rows.fields.par_iter().map(|column| FieldFigures::of(rows, column)).collect();
        let days = days(rows);
        let mut findings = vec![labels(rows)];
        findings.push(by_day(&days));
        let alike = alike(rows);
        findings.push(duplicates(&alike, rows.len()));
        findings.push(contradictions(&alike, rows.len()));
        findings.extend(fields.iter().filter_map(leak));
        findings.extend(fields.iter().filter_map(once));
        findings.extend(fields.iter().filter_map(drift));
        Examination {
            impressions: rows.seen,
            looked_at: rows.len() as u64,
            one_user_in: 1 << rows.halvings,
            findings,
            days,
            fields,
            own_past: None,
        }
    }

    /// The worst verdict.
    pub fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }
}

fn share(count: u64, all: usize) -> f64 {
    count as f64 / all.max(1) as f64
}

fn percent(share: f64) -> String {
    format!("{:.*} %", if share < 0.1 { 2 } else { 1 }, 100.0 * share)
}

fn labels(rows: &Rows) -> Finding {
    let count = |test: bool| {
        let of_half = (0..rows.len()).filter(|&row| rows.is_test[row] == test);
        of_half
            .fold([0u64; 2], |[clicks, all], row| [clicks + u64::from(rows.labels[row]), all + 1])
    };
    let [train, test] = [count(false), count(true)];
    let rate = |[clicks, all]: [u64; 2]| share(clicks, all as usize);
    let clicks = train[0] + test[0];
    let said = format!(
        "{} of the impressions are positive: {} of the training's, {} of the test's",
        percent(share(clicks, rows.len())),
        percent(rate(train)),
        percent(rate(test))
    );
    let incomplete = share(rows.incomplete, rows.seen as usize);
    if clicks == 0 || clicks == rows.len() as u64 {
        let advice =
            "name the label with --label; for a log of positives only, prepare with --negatives N";
        return Finding::new("labels", Verdict::Bad, said, advice);
    }
    if incomplete >= 0.01 {
        let said = format!("{said}; {} of the rows lack user, item or time", percent(incomplete));
        let advice = "look at how the log is written: prepare leaves these rows out";
        return Finding::new("labels", Verdict::of(incomplete, 0.01, 0.5), said, advice);
    }
    let (more, less) = (rate(train).max(rate(test)), rate(train).min(rate(test)));
    let verdict = if is_by_chance(train, test) { Verdict::Ok } else { ratio(more, less) };
    let advice = "find out what changed between training and test: the calibration of every model is off by this";
    Finding::new("labels", verdict, said, advice)
}

/// Clicks and impressions twice: whether one rate may be that of both.
fn is_by_chance(one: [u64; 2], two: [u64; 2]) -> bool {
    let [clicks, all] = [one[0] + two[0], one[1] + two[1]].map(|count| count as f64);
    let rate = clicks / all.max(1.0);
    let spread =
        (rate * (1.0 - rate) * (1.0 / one[1].max(1) as f64 + 1.0 / two[1].max(1) as f64)).sqrt();
    let apart = share(one[0], one[1] as usize) - share(two[0], two[1] as usize);
    one[1] == 0 || two[1] == 0 || apart.abs() <= 5.0 * spread
}

fn ratio(more: f64, less: f64) -> Verdict {
    if less > 0.0 { Verdict::of(more / less, 1.5, 4.0) } else { Verdict::Bad }
}

fn days(rows: &Rows) -> Vec<Day> {
    let mut counts: HashMap<i64, [u64; 2]> = HashMap::new();
    for (time, label) in rows.times.iter().zip(&rows.labels) {
        let [clicks, all] = counts.entry(time.div_euclid(DAY)).or_default();
        (*clicks, *all) = (*clicks + u64::from(*label), *all + 1);
    }
    let mut days: Vec<(i64, [u64; 2])> = counts.into_iter().collect();
    days.sort_unstable();
    let date = |day: i64| show_time(day * DAY).split(' ').next().unwrap_or_default().to_owned();
    let of =
        |(day, [clicks, impressions]): (i64, [u64; 2])| Day { day: date(day), impressions, clicks };
    days.into_iter().map(of).collect()
}

/// The day whose rate is farthest from that of all others, beyond chance.
fn by_day(days: &[Day]) -> Finding {
    let sum = |of: fn(&Day) -> u64| days.iter().map(of).sum::<u64>();
    let (clicks, impressions) = (sum(|day| day.clicks), sum(|day| day.impressions));
    let judged = days.iter().filter(|day| day.impressions >= DAY_IMPRESSIONS).map(|day| {
        let others = [clicks - day.clicks, impressions - day.impressions];
        let rate = share(others[0], others[1] as usize);
        let verdict = match is_by_chance([day.clicks, day.impressions], others) {
            true => Verdict::Ok,
            false => ratio(day.rate().max(rate), day.rate().min(rate)),
        };
        (verdict, day, rate)
    });
    let judged: Vec<_> = judged.filter(|(verdict, ..)| *verdict != Verdict::Ok).collect();
    let rates = || days.iter().filter(|day| day.impressions >= DAY_IMPRESSIONS).map(Day::rate);
    let low = rates().fold(f64::INFINITY, f64::min);
    let worst = judged.iter().max_by(|a, b| {
        let apart = |day: &Day, rate: f64| (day.rate() - rate).abs();
        a.0.cmp(&b.0).then(apart(a.1, a.2).total_cmp(&apart(b.1, b.2)))
    });
    let said = match worst {
        Some((_, day, rate)) => format!(
            "{} of {} days differ: on {} {} of {} impressions are positive, on all others {}",
            judged.len(),
            days.len(),
            day.day,
            percent(day.rate()),
            day.impressions,
            percent(*rate)
        ),
        None if low.is_finite() => {
            let high = rates().fold(0.0, f64::max);
            format!(
                "{} to {} of a day are positive, on {} days",
                percent(low),
                percent(high),
                days.len()
            )
        }
        None => format!("no day of {} has {DAY_IMPRESSIONS} impressions", days.len()),
    };
    let verdict = worst.map_or(Verdict::Ok, |(verdict, ..)| *verdict);
    let advice = "look at the log of that day, and leave it out if clicks or impressions are lost";
    Finding::new("days", verdict, said, advice)
}

/// Negative and positive impressions by user, item and time.
type Alike = HashMap<(Id, Id, i64), [u64; 2]>;

fn alike(rows: &Rows) -> Alike {
    let mut alike = Alike::new();
    for row in 0..rows.len() {
        let key = (rows.users[row], rows.items[row], rows.times[row]);
        alike.entry(key).or_default()[usize::from(rows.labels[row])] += 1;
    }
    alike
}

fn duplicates(alike: &Alike, all: usize) -> Finding {
    let twice = alike.values().flatten().map(|&count| count.saturating_sub(1)).sum::<u64>();
    let found = share(twice, all);
    let said = format!(
        "{} of the impressions repeat another of user, item, time and label",
        percent(found)
    );
    let advice =
        "prepare keeps one of each; find out why the log has them, for they may hide lost ones";
    Finding::new("duplicates", Verdict::of(found, TWICE[0], TWICE[1]), said, advice)
}

fn contradictions(alike: &Alike, all: usize) -> Finding {
    let both = alike.values().filter(|[no, yes]| *no > 0 && *yes > 0);
    let both = both.map(|[no, yes]| no + yes).sum();
    let found = share(both, all);
    let said = format!("{} of the impressions are there with both labels", percent(found));
    let advice =
        "join clicks to their impressions, so that an impression is one row with one label";
    Finding::new("duplicates", Verdict::of(found, BOTH[0], BOTH[1]), said, advice)
}

/// None of a field that cannot be told, for want of two labels.
fn leak(field: &FieldFigures) -> Option<Finding> {
    let by_rate = field.told.map(|told| (told.auc, told.by_chance, "the click rate of its values"));
    let by_number =
        field.number_told.map(|told| (told.auc.max(1.0 - told.auc), told.by_chance, "its number"));
    let (auc, by_chance, what) =
        by_rate.into_iter().chain(by_number).max_by(|a, b| (a.0 - a.1).total_cmp(&(b.0 - b.1)))?;
    let verdict = Verdict::of(auc - by_chance, TOLD[0], TOLD[1]);
    let said = format!("{what} tells the label with AUC {auc:.3}");
    let advice = "leave the field out, unless its value is known before the item is shown";
    Some(Finding::new("leak", verdict, said, advice).of_field(&field.name))
}

/// None of a field whose every value is seen again.
fn once(field: &FieldFigures) -> Option<Finding> {
    let said = format!(
        "{} of its {} values are seen once, in {} of the training impressions",
        percent(field.once),
        field.distinct,
        percent(field.once_impressions)
    );
    let verdict = if field.once_impressions >= ONCE { Verdict::Look } else { Verdict::Ok };
    let advice = match &field.name[..] {
        ITEM => "ids say little here: fields of items and pictures have to",
        USER => "ids say little here: histories and fields of users have to",
        _ => {
            "leave the field out, or make its values coarser: nothing is learned from what is seen once"
        }
    };
    (field.once > 0.0).then(|| Finding::new("once", verdict, said, advice).of_field(&field.name))
}

/// None without a test.
fn drift(field: &FieldFigures) -> Option<Finding> {
    let (unseen, stability) = (field.unseen?, field.stability?);
    let is_id = matches!(&field.name[..], ITEM | USER);
    let by_unseen = match is_id {
        true if unseen >= UNSEEN[1] => Verdict::Look,
        true => Verdict::Ok,
        false if field.number_told.is_some() => Verdict::Ok,
        false => Verdict::of(unseen, UNSEEN[0], UNSEEN[1]),
    };
    // Users and items come and go.
    let is_shift = !is_id && stability - field.stability_by_chance >= SHIFT;
    let verdict = by_unseen.max(if is_shift { Verdict::Look } else { Verdict::Ok });
    let said = format!(
        "{} of the test impressions have values that the training lacks; stability index {stability:.3}",
        percent(unseen)
    );
    let advice = match (is_id, by_unseen) {
        (true, _) => {
            "most of the test is new: judge models by their slices of cold items and users"
        }
        (_, Verdict::Ok) => {
            "compare its values of training and test: a model learned from others than it is asked"
        }
        _ => {
            "leave the field out if it names the time (a date, a session), or make its values coarser"
        }
    };
    Some(Finding::new("drift", verdict, said, advice).of_field(&field.name))
}

fn pictures(rows: &Rows, has_picture: Option<&HasPicture<'_>>) -> Vec<Finding> {
    let lacks = |picture: PictureName| {
        !picture.is_some() || has_picture.is_some_and(|has_picture| !has_picture(picture))
    };
    let named = rows.pictures.iter().filter(|picture| picture.is_some()).count();
    let without = rows.pictures.iter().filter(|&&picture| lacks(picture)).count();
    let found = share(without as u64, rows.len());
    let said = match has_picture {
        Some(_) => format!(
            "{} of the impressions have no encoded picture, {} name none",
            percent(found),
            percent(1.0 - share(named as u64, rows.len()))
        ),
        None => format!("{} of the impressions name no picture", percent(found)),
    };
    let advice = "check the column of pictures (--items, --image), and run ams encode, which lists those it cannot read";
    let verdict = match named {
        // Data may be meant to have none.
        0 => Verdict::Look,
        _ => Verdict::of(found, WITHOUT_PICTURE[0], WITHOUT_PICTURE[1]),
    };
    let mut findings = vec![Finding::new("pictures", verdict, said, advice)];
    let mut items: HashMap<PictureName, Vec<Id>> = HashMap::new();
    for (picture, item) in rows.pictures.iter().zip(&rows.items) {
        if picture.is_some() {
            items.entry(*picture).or_default().push(*item);
        }
    }
    let mut counts = Vec::with_capacity(items.len());
    for mut items in items.into_values() {
        items.sort_unstable();
        items.dedup();
        counts.push(items.len());
    }
    let (most, all) = (counts.iter().max().copied().unwrap_or(0), counts.iter().sum::<usize>());
    if most > 1 {
        let is_one_for_many = most >= 10 && most as f64 >= ONE_PICTURE * all as f64;
        let verdict = if is_one_for_many { Verdict::Look } else { Verdict::Ok };
        let said = format!("{most} of {all} items with a picture have the same one");
        let advice = "a picture that stands for a missing one is no picture: leave its name empty in the items table";
        findings.push(Finding::new("pictures", verdict, said, advice));
    }
    findings
}

/// Of sampled negatives: whether popularity or an item's age tells them.
fn past(own_past: &OwnPast, labels: &Labels) -> Vec<Finding> {
    let mut findings = match own_past.warning(labels) {
        Some(warning) => {
            vec![Finding {
                check: "past",
                field: None,
                verdict: Verdict::Bad,
                said: warning,
                advice: None,
            }]
        }
        None => vec![Finding::new(
            "past",
            Verdict::Ok,
            match labels {
                Labels::Observed => "labels are as logged: popularity may tell them".to_owned(),
                Labels::Sampled { .. } => {
                    "how often an item was had before tells no negative".to_owned()
                }
            },
            "",
        )],
    };
    let early = [own_past.train_before_first, own_past.test_before_first];
    let most = early.into_iter().flatten().fold(0.0, f64::max);
    if matches!(labels, Labels::Sampled { .. }) {
        let said = format!(
            "{} of the negatives are shown before their item is had by anybody",
            percent(most)
        );
        let advice =
            "a model learns which items are new: draw negatives with --negatives-from contemporary";
        let verdict = Verdict::of(most, BEFORE_FIRST[0], BEFORE_FIRST[1]);
        findings.push(Finding::new("past", verdict, said, advice));
    }
    findings
}
