//! Fits a calibration to samples that a run has not learned from, and tells what it changes.
//!
//! Two halves of the users, by hash, judge it: the impressions of each are calibrated by the curve
//! of the other. What is published is the curve of all.

use std::collections::HashMap;

use ams_bundle::{Calibration, Sampling};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::for_each_number;
use ams_model::calibration::Curve;
use ams_model::init::mix;
use ams_model::metrics::{Bootstrap, Reliability, reliability, shown};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::trainer::{Rounds, Trainer};
use crate::step::items::Items;
use crate::step::selection::{Selection, Subset};
use crate::step::worker::Worker;

/// The curve that is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CurveKind {
    /// None.
    #[default]
    None,
    /// A line through logits.
    Platt,
    /// The isotonic regression.
    Isotonic,
}

/// The samples that a curve is fitted to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FittedTo {
    /// Those that the training held out.
    #[default]
    HeldOut,
    /// The test, which says nothing of the calibrated model afterwards.
    Test,
}

/// How the rates of a model are calibrated when it is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CalibrationSettings {
    /// The curve.
    pub curve: CurveKind,
    /// Its samples.
    pub fitted_to: FittedTo,
    /// What the dataset holds of the log.
    pub sampling: Sampling,
    /// The column of impressions that has their bids, by which figures choose what is shown; all
    /// bids are equal without one.
    pub bids: Option<String>,
}

impl CalibrationSettings {
    /// Whether anything is calibrated.
    pub fn is_any(&self) -> bool {
        self.curve != CurveKind::None || self.sampling != Sampling::default()
    }
}

/// What a calibration changes, on samples that its curve was not fitted to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationReport {
    /// The curve.
    pub curve: CurveKind,
    /// The samples.
    pub fitted_to: FittedTo,
    /// What the dataset holds of the log.
    pub sampling: Sampling,
    /// The column of the bids; `None` where all are equal.
    pub bids: Option<String>,
    /// Their users.
    pub users: u64,
    /// All impressions.
    pub all: BeforeAndAfter,
    /// Those that each model would show, for each of [`TOPS`] that some group is larger than. None
    /// where the dataset lacks a part of the log, and with it of the groups.
    pub shown: Vec<Shown>,
}

/// Figures by the model's own rates and by calibrated ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BeforeAndAfter {
    /// By the model's own rates.
    pub before: Figures,
    /// By calibrated ones.
    pub after: Figures,
}

/// The figures of some impressions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Number of impressions.
    pub impressions: u64,
    /// Clicks among them.
    pub clicks: u64,
    /// How far rates are from clicks.
    #[serde(flatten)]
    pub rates: Reliability,
    /// The middle 95 % of `rates.calibration` in a bootstrap of their users; `None` for fewer than
    /// ten users, or without clicks.
    pub interval: Option<[f64; 2]>,
}

/// The impressions of the greatest eCPM in each group of more than `top`, whose rates are predicted
/// too high more often than others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Impressions of a group.
    pub top: usize,
    /// Their figures. Where bids differ, calibrated rates may choose others than the model's own.
    #[serde(flatten)]
    pub figures: BeforeAndAfter,
}

/// How many impressions of a group are shown.
const TOPS: [usize; 3] = [1, 3, 10];

/// The draws of users.
const BOOTSTRAP: Bootstrap = Bootstrap { replicates: 200, seed: 1 };

/// The calibration of the model of `trainer`, a job of one process, if `settings` ask for one; and
/// what it changes, if there are samples to tell by.
///
/// # Errors
/// If there are no samples to fit a curve to, or it cannot be fitted to all of them or a half.
pub(crate) fn calibrate(
    trainer: &mut Trainer,
    settings: &CalibrationSettings,
) -> Result<Option<(Calibration, Option<CalibrationReport>)>> {
    settings.sampling.check().map_err(wrong)?;
    if !settings.is_any() {
        return Ok(None);
    }
    let selection = match (selection(trainer, settings.fitted_to), settings.curve) {
        (Ok(selection), _) => selection,
        // Nothing is fitted, so samples would only be told about.
        (Err(_), CurveKind::None) => {
            let calibration = Calibration { curve: None, sampling: settings.sampling };
            return Ok(Some((calibration, None)));
        }
        (Err(what), _) => return Err(wrong(what)),
    };
    let mut rows = Rows::of(trainer, selection)?;
    if let Some(column) = &settings.bids {
        rows.bid(trainer.dataset(), selection.split, column)?;
    }
    let curve = fit(settings.curve, &rows.logits, &rows.labels).map_err(|what| {
        wrong(format!("{what}; publish without a curve, or fit it to more samples"))
    })?;
    let calibration = Calibration { curve, sampling: settings.sampling };
    let report = rows.report(settings).map_err(|what| {
        wrong(format!(
            "half of the users: {what}; publish without a curve, or fit it to more samples"
        ))
    })?;
    Ok(Some((calibration, report)))
}

fn wrong(what: String) -> Error {
    Error::Config { key: "calibration".to_owned(), what }
}

/// The samples to fit to, or why there are none.
fn selection(trainer: &Trainer, fitted_to: FittedTo) -> Result<Selection, String> {
    let train = &trainer.config().train;
    match fitted_to {
        FittedTo::HeldOut if train.validation_parts == 0 && train.validation_tail == 0.0 => Err(
            "the run has learned from all training samples, as with train.refit: there is none to \
             fit a curve to; train with train.validation_parts or train.validation_tail and without \
             a refit, or fit it to the test (--calibrate-on test)"
                .to_owned(),
        ),
        FittedTo::HeldOut => {
            Ok(Selection { split: SplitName::Train, subset: Subset::HeldOut })
        }
        FittedTo::Test if trainer.dataset().card().counts.test == 0 => {
            Err("the dataset has no test; expected one for --calibrate-on test".to_owned())
        }
        FittedTo::Test => Ok(Selection { split: SplitName::Test, subset: Subset::All }),
    }
}

fn fit(kind: CurveKind, logits: &[f32], labels: &[u8]) -> Result<Option<Curve>, String> {
    match kind {
        CurveKind::None => Ok(None),
        CurveKind::Platt => Curve::platt(logits, labels).map(Some),
        CurveKind::Isotonic => Curve::isotonic(logits, labels).map(Some),
    }
}

/// The half of the users that `user` is in, 0 or 1. Parts of a dataset are by other bits.
fn half(user: u64) -> u64 {
    mix(user) >> 63
}

/// Predicted impressions, group by group.
#[derive(Default)]
struct Rows {
    users: Vec<u64>,
    logits: Vec<f32>,
    labels: Vec<u8>,
    items: Vec<u64>,
    times: Vec<i64>,
    /// Bids, not negative.
    bids: Vec<f64>,
    /// Impressions of each group.
    groups: Vec<usize>,
}

impl Rows {
    /// Predicts the impressions of `selection`; all bids are 1.
    fn of(trainer: &mut Trainer, selection: Selection) -> Result<Rows> {
        let lanes = trainer.lanes().shards().count();
        let mut lanes: Vec<Rows> = (0..lanes).map(|_| Rows::default()).collect();
        let batch = trainer.config().train.batch;
        let items = Items::of(trainer.dataset().schema());
        trainer.predict(selection, batch, Rounds::All, |lane, worker| {
            lanes[lane].add(worker, items);
        })?;
        let mut all = Rows::default();
        for Rows { users, logits, labels, items, times, bids, groups } in lanes {
            all.users.extend(users);
            all.logits.extend(logits);
            all.labels.extend(labels);
            all.items.extend(items);
            all.times.extend(times);
            all.bids.extend(bids);
            all.groups.extend(groups);
        }
        Ok(all)
    }

    fn add(&mut self, worker: &Worker, items: Items) {
        let groups = &worker.batch.groups;
        for (group, user) in groups.users.iter().enumerate() {
            let impressions = groups.impressions.range(group).len();
            self.users.extend(std::iter::repeat_n(user.0, impressions));
            self.groups.push(impressions);
        }
        let item = |at| items.shown(groups, at).unwrap_or(0);
        self.items.extend((0..groups.labels.len()).map(item));
        self.times.extend_from_slice(&groups.times);
        self.bids.extend(std::iter::repeat_n(1.0, groups.labels.len()));
        self.labels.extend_from_slice(&groups.labels);
        self.logits.extend_from_slice(&worker.logits);
    }

    /// Takes the bids from `column` of the sample files. Of impressions of one user, item and time,
    /// all have the bid of the first.
    ///
    /// # Errors
    /// If an impression has none there, or one that is negative or infinite.
    fn bid(&mut self, dataset: &Dataset, split: SplitName, column: &str) -> Result<()> {
        let mut bids: HashMap<(u64, u64, i64), f64> = HashMap::new();
        for part in 0..dataset.card().parts {
            let path = dataset.part_path(split, part);
            if !path.exists() {
                continue;
            }
            let mut bad = None;
            for_each_number(&path, dataset.schema(), column, |of| {
                if !(0.0..f64::INFINITY).contains(&of.number) {
                    bad = bad.or(Some(of.number));
                }
                bids.entry((of.user.0, of.item.0, of.time)).or_insert(of.number);
            })?;
            if let Some(bid) = bad {
                let path = path.display();
                return Err(wrong(format!(
                    "{path}: a bid in column `{column}` is {bid}, expected a number of at least 0"
                )));
            }
        }
        for (row, bid) in self.bids.iter_mut().enumerate() {
            let key = (self.users[row], self.items[row], self.times[row]);
            *bid = *bids.get(&key).ok_or_else(|| {
                wrong(format!(
                    "an impression of user {:016x}, item {:016x} and time {} has no bid; expected times \
                     in whole seconds in the sample files",
                    key.0, key.1, key.2
                ))
            })?;
        }
        Ok(())
    }

    /// The figures; none without impressions.
    ///
    /// # Errors
    /// If no curve can be fitted to a half.
    fn report(&self, settings: &CalibrationSettings) -> Result<Option<CalibrationReport>, String> {
        let after = self.across(settings)?;
        let every: Vec<usize> = (0..self.labels.len()).collect();
        let Some(all) = self.compared([&every, &every], &after, settings.sampling.weights()) else {
            return Ok(None);
        };
        let whole = settings.sampling == Sampling::default();
        let shown = TOPS.into_iter().filter(|_| whole).filter_map(|top| {
            let rows = [&self.logits, &after].map(|logits| self.shown(logits, top));
            let figures = self.compared([&rows[0], &rows[1]], &after, [1.0, 1.0])?;
            Some(Shown { top, figures })
        });
        let shown = shown.collect();
        let mut users = self.users.clone();
        users.sort_unstable();
        users.dedup();
        let CalibrationSettings { curve, fitted_to, sampling, bids } = settings.clone();
        let users = users.len() as u64;
        Ok(Some(CalibrationReport { curve, fitted_to, sampling, bids, users, all, shown }))
    }

    /// The logits of each half of the users, calibrated by the curve of the other.
    fn across(&self, settings: &CalibrationSettings) -> Result<Vec<f32>, String> {
        let mut after = self.logits.clone();
        let of_half =
            |of: u64| (0..self.users.len()).filter(move |&row| half(self.users[row]) == of);
        for here in [0, 1] {
            let there = 1 - here;
            let logits: Vec<f32> = of_half(there).map(|row| self.logits[row]).collect();
            let labels: Vec<u8> = of_half(there).map(|row| self.labels[row]).collect();
            let curve = fit(settings.curve, &logits, &labels)?;
            let calibration = Calibration { curve, sampling: settings.sampling };
            let mut calibrated: Vec<f32> = of_half(here).map(|row| self.logits[row]).collect();
            calibration.apply(&mut calibrated);
            of_half(here).zip(calibrated).for_each(|(row, logit)| after[row] = logit);
        }
        Ok(after)
    }

    /// The figures of the rows `of[0]` by the model's own logits, and of `of[1]` by `after`.
    fn compared(
        &self,
        of: [&[usize]; 2],
        after: &[f32],
        weights: [f64; 2],
    ) -> Option<BeforeAndAfter> {
        let before = self.figures(of[0], &self.logits, weights)?;
        Some(BeforeAndAfter { before, after: self.figures(of[1], after, weights)? })
    }

    fn figures(&self, rows: &[usize], logits: &[f32], weights: [f64; 2]) -> Option<Figures> {
        let users: Vec<u64> = rows.iter().map(|&row| self.users[row]).collect();
        let labels: Vec<u8> = rows.iter().map(|&row| self.labels[row]).collect();
        let logits: Vec<f32> = rows.iter().map(|&row| logits[row]).collect();
        let rates = reliability(&logits, &labels, weights)?;
        let interval = BOOTSTRAP.calibration(&users, &logits, &labels, weights).interval();
        Some(Figures {
            impressions: labels.len() as u64,
            clicks: labels.iter().map(|&label| u64::from(label)).sum(),
            rates,
            interval: interval.and_then(|it| Some([it.low?, it.high?])),
        })
    }

    /// The rows that rates of `logits` put among the first `top` of their groups by eCPM.
    fn shown(&self, logits: &[f32], top: usize) -> Vec<usize> {
        // The logit keeps apart what has one rate in 32 bits, or in 64.
        let equal = self.bids.iter().all(|bid| *bid == 1.0);
        let ecpm = |(logit, bid): (&f32, &f64)| {
            if equal { f64::from(*logit) } else { bid / (1.0 + (-f64::from(*logit)).exp()) }
        };
        let scores: Vec<f64> = logits.iter().zip(&self.bids).map(ecpm).collect();
        shown(&self.groups, &scores, top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(row: usize) -> f64 {
        (mix(row as u64) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Groups of `of` impressions, whose logits are the true ones doubled and shifted.
    fn rows(groups: usize, of: usize) -> Rows {
        let count = groups * of;
        let truth: Vec<f64> = (0..count).map(|row| uniform(2 * row) * 4.0 - 3.5).collect();
        let click = |(row, logit): (usize, &f64)| {
            u8::from(uniform(2 * row + 1) < 1.0 / (1.0 + (-logit).exp()))
        };
        Rows {
            users: (0..count).map(|row| (row / of / 3) as u64).collect(),
            labels: truth.iter().enumerate().map(click).collect(),
            logits: truth.iter().map(|logit| (2.0 * logit + 1.5) as f32).collect(),
            items: vec![0; count],
            times: vec![0; count],
            bids: vec![1.0; count],
            groups: vec![of; groups],
        }
    }

    fn settings(curve: CurveKind) -> CalibrationSettings {
        CalibrationSettings { curve, ..CalibrationSettings::default() }
    }

    /// Rates that are too extreme become right, also of the items that are shown, where they are
    /// too high the most.
    #[test]
    fn figures_are_better_afterwards() {
        let rows = rows(4000, 5);
        for curve in [CurveKind::Platt, CurveKind::Isotonic] {
            let report = rows.report(&settings(curve)).unwrap().unwrap();
            let CalibrationReport { all, shown, .. } = report;
            let tops: Vec<(usize, u64)> =
                shown.iter().map(|of| (of.top, of.figures.before.impressions)).collect();
            assert_eq!((all.before.impressions, report.users), (20_000, 1334));
            assert_eq!(tops, [(1, 4000), (3, 12_000)]);
            assert_eq!(all.before.rates.clicked, all.before.clicks as f64 / 20_000.0);
            let cases = [(all, 1.0, 0.02), (shown[0].figures, 1.2, 0.05)];
            for (BeforeAndAfter { before, after }, least, most) in cases {
                let calibration = [before, after].map(|of| of.rates.calibration.unwrap());
                assert!(calibration[0] > least, "{curve:?} {before:?}");
                assert!((calibration[1] - 1.0).abs() < most, "{curve:?} {after:?}");
                assert!(after.rates.logloss < before.rates.logloss, "{curve:?} {after:?}");
                assert!(after.rates.ece < 0.5 * before.rates.ece, "{curve:?} {after:?}");
                for (of, calibration) in [before, after].into_iter().zip(calibration) {
                    let [low, high] = of.interval.unwrap();
                    assert!(low < calibration && calibration < high, "{curve:?} {of:?}");
                    assert!(high / low < 1.2, "{curve:?} {of:?}");
                }
            }
        }
    }

    /// A model that is right of all impressions, and errs in each: what it shows was brought there
    /// by errors upwards. No curve mends it.
    #[test]
    fn what_is_shown_is_predicted_too_high() {
        let mut rows = rows(6000, 6);
        let count = rows.labels.len();
        let normal = |row: usize| (0..12).map(|at| uniform(12 * row + at)).sum::<f64>() - 6.0;
        // Rates of the logits, and clicks of rates that are these times what is seen of nobody.
        rows.logits = (0..count).map(|row| (normal(row) - 2.0) as f32).collect();
        let flat = |row: usize| 1.0 / (1.0 + (2.0 - 0.3 * normal(row)).exp());
        let mean = (0..count).map(flat).sum::<f64>();
        let predicted = rows.logits.iter().map(|z| 1.0 / (1.0 + (-f64::from(*z)).exp()));
        let factor = predicted.sum::<f64>() / mean;
        let click = |row| u8::from(uniform(1_000_003 + row) < flat(row) * factor);
        rows.labels = (0..count).map(click).collect();
        let report = rows.report(&settings(CurveKind::None)).unwrap().unwrap();
        let calibration = |of: &Figures| of.rates.calibration.unwrap();
        assert!((calibration(&report.all.before) - 1.0).abs() < 0.05, "{report:?}");
        let [first, third] = [0, 1].map(|at| report.shown[at].figures.before);
        assert!(first.interval.unwrap()[0] > 1.3, "{first:?}");
        assert!(third.interval.unwrap()[0] > 1.0, "{third:?}");
        assert!(calibration(&first) > calibration(&third), "{report:?}");
    }

    /// Of each group, written out: rates times bids, before and after.
    #[test]
    fn shown_is_by_bids_and_each_models_rates() {
        let mut rows = rows(400, 5);
        rows.bids = (0..2000).map(|row| 0.1 + 2.0 * uniform(9_000_000 + row)).collect();
        let settings = settings(CurveKind::Platt);
        let report = rows.report(&settings).unwrap().unwrap();
        let after = rows.across(&settings).unwrap();
        let naive = |logits: &[f32], top: usize| {
            let (mut predicted, mut clicks, mut impressions) = (0.0, 0, 0);
            for group in 0..400 {
                let rate = |row: usize| 1.0 / (1.0 + f64::from(-logits[row]).exp());
                let mut of: Vec<usize> = (5 * group..5 * group + 5).collect();
                of.sort_by(|&a, &b| {
                    (rows.bids[b] * rate(b)).partial_cmp(&(rows.bids[a] * rate(a))).unwrap()
                });
                for &row in &of[..top] {
                    predicted += rate(row);
                    clicks += u64::from(rows.labels[row]);
                    impressions += 1;
                }
            }
            (impressions, clicks, predicted / clicks as f64)
        };
        for Shown { top, figures } in &report.shown {
            for (got, logits) in [(figures.before, &rows.logits), (figures.after, &after)] {
                let (impressions, clicks, calibration) = naive(logits, *top);
                assert_eq!((got.impressions, got.clicks), (impressions, clicks));
                assert!((got.rates.calibration.unwrap() - calibration).abs() < 1e-9, "{got:?}");
            }
        }
        let [first, third] = [0, 1].map(|at| report.shown[at].figures);
        assert_eq!([first.before.impressions, third.before.impressions], [400, 1200]);
        // A line that is flatter lets bids count more.
        assert_ne!(rows.shown(&rows.logits, 1), rows.shown(&after, 1));
    }

    #[test]
    fn a_half_is_calibrated_by_the_other() {
        let rows = rows(300, 4);
        let of = |wanted: u64| -> (Vec<f32>, Vec<u8>) {
            let all = (0..rows.labels.len()).filter(|&row| half(rows.users[row]) == wanted);
            all.map(|row| (rows.logits[row], rows.labels[row])).unzip()
        };
        let curves = [of(0), of(1)].map(|(logits, labels)| Curve::platt(&logits, &labels).unwrap());
        let after = rows.across(&settings(CurveKind::Platt)).unwrap();
        let mut counts = [0; 2];
        for (row, got) in after.iter().enumerate() {
            let here = half(rows.users[row]) as usize;
            counts[here] += 1;
            assert_eq!(*got, curves[1 - here].at(f64::from(rows.logits[row])) as f32);
        }
        assert!(counts[0] > 400 && counts[1] > 400, "{counts:?}");
    }

    /// Of a log whose other impressions are kept at a tenth, predictions that fit the samples are
    /// right for the log.
    #[test]
    fn what_samples_lack_counts() {
        let mut rows = rows(4000, 5);
        let truth = |logit: f32| (f64::from(logit) - 1.5) / 2.0;
        rows.logits.iter_mut().for_each(|logit| *logit = truth(*logit) as f32);
        let sampling = Sampling { negative_rate: 0.1, click_weight: 1.0 };
        let settings = CalibrationSettings { sampling, ..settings(CurveKind::None) };
        let CalibrationReport { all, shown, .. } = rows.report(&settings).unwrap().unwrap();
        let [before, after] = [all.before, all.after].map(|of| of.rates.calibration.unwrap());
        assert!(before > 4.0 && (after - 1.0).abs() < 0.03, "{before} {after}");
        assert!(all.after.rates.logloss < all.before.rates.logloss, "{all:?}");
        assert!(shown.is_empty(), "{shown:?}");
    }
}
