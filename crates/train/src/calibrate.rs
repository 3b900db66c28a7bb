//! Fits a calibration to samples that a run has not learned from, and tells what it changes.
//!
//! Two halves of the users, by hash, judge it: the impressions of each are calibrated by the curve
//! of the other. What is published is the curve of all.

use ams_bundle::{Calibration, Sampling};
use ams_data::dataset::SplitName;
use ams_model::calibration::Curve;
use ams_model::init::mix;
use ams_model::metrics::{Reliability, reliability};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::trainer::{Rounds, Trainer};
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrationSettings {
    /// The curve.
    pub curve: CurveKind,
    /// Its samples.
    pub fitted_to: FittedTo,
    /// What the dataset holds of the log.
    pub sampling: Sampling,
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
    /// Their users.
    pub users: u64,
    /// All impressions.
    pub all: BeforeAndAfter,
    /// The impression of the greatest score in each group of two or more: the items that ranking
    /// shows, whose rates are predicted too high more often than others. `None` if there are no
    /// such groups, or the dataset lacks a part of the log, and with it of the groups.
    pub shown: Option<BeforeAndAfter>,
}

/// Figures of the same impressions, by the model's own rates and by calibrated ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BeforeAndAfter {
    /// Number of impressions.
    pub impressions: u64,
    /// Clicks among them.
    pub clicks: u64,
    /// By the model's own rates.
    pub before: Reliability,
    /// By calibrated ones.
    pub after: Reliability,
}

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
    let rows = Rows::of(trainer, selection)?;
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
    /// Impressions of each group.
    groups: Vec<usize>,
}

impl Rows {
    fn of(trainer: &mut Trainer, selection: Selection) -> Result<Rows> {
        let lanes = trainer.lanes().shards().count();
        let mut lanes: Vec<Rows> = (0..lanes).map(|_| Rows::default()).collect();
        let batch = trainer.config().train.batch;
        trainer.predict(selection, batch, Rounds::All, |lane, worker| lanes[lane].add(worker))?;
        let mut all = Rows::default();
        for Rows { users, logits, labels, groups } in lanes {
            all.users.extend(users);
            all.logits.extend(logits);
            all.labels.extend(labels);
            all.groups.extend(groups);
        }
        Ok(all)
    }

    fn add(&mut self, worker: &Worker) {
        let groups = &worker.batch.groups;
        for (group, user) in groups.users.iter().enumerate() {
            let impressions = groups.impressions.range(group).len();
            self.users.extend(std::iter::repeat_n(user.0, impressions));
            self.groups.push(impressions);
        }
        self.labels.extend_from_slice(&groups.labels);
        self.logits.extend_from_slice(&worker.logits);
    }

    /// The figures; none without impressions.
    ///
    /// # Errors
    /// If no curve can be fitted to a half.
    fn report(&self, settings: &CalibrationSettings) -> Result<Option<CalibrationReport>, String> {
        let after = self.across(settings)?;
        let every: Vec<usize> = (0..self.labels.len()).collect();
        let compared = |rows: &[usize], weights| self.compared(rows, &after, weights);
        let Some(all) = compared(&every, settings.sampling.weights()) else { return Ok(None) };
        let whole = settings.sampling == Sampling::default();
        let shown = whole.then(|| compared(&self.shown(), [1.0, 1.0])).flatten();
        let mut users = self.users.clone();
        users.sort_unstable();
        users.dedup();
        let CalibrationSettings { curve, fitted_to, sampling } = *settings;
        let users = users.len() as u64;
        Ok(Some(CalibrationReport { curve, fitted_to, sampling, users, all, shown }))
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

    fn compared(&self, rows: &[usize], after: &[f32], weights: [f64; 2]) -> Option<BeforeAndAfter> {
        let labels: Vec<u8> = rows.iter().map(|&row| self.labels[row]).collect();
        let figures = |logits: &[f32]| {
            let logits: Vec<f32> = rows.iter().map(|&row| logits[row]).collect();
            reliability(&logits, &labels, weights)
        };
        Some(BeforeAndAfter {
            impressions: labels.len() as u64,
            clicks: labels.iter().map(|&label| u64::from(label)).sum(),
            before: figures(&self.logits)?,
            after: figures(after)?,
        })
    }

    /// The first impression of the greatest logit in each group of two or more. A calibration keeps
    /// the order, so that it is the same before and after.
    fn shown(&self) -> Vec<usize> {
        let (mut begin, mut shown) = (0, Vec::new());
        for &impressions in &self.groups {
            let rows = begin..begin + impressions;
            begin = rows.end;
            if impressions > 1 {
                let better = |best: usize, row: usize| {
                    if self.logits[row] > self.logits[best] { row } else { best }
                };
                shown.extend(rows.reduce(better));
            }
        }
        shown
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
            let shown = shown.unwrap();
            assert_eq!((all.impressions, shown.impressions, report.users), (20_000, 4000, 1334));
            assert_eq!(all.before.clicked, all.clicks as f64 / 20_000.0);
            for (of, least, most) in [(all, 1.0, 0.02), (shown, 1.2, 0.05)] {
                let of_before = of.before.calibration.unwrap();
                assert!(of_before > least, "{curve:?} {of:?}");
                assert!((of.after.calibration.unwrap() - 1.0).abs() < most, "{curve:?} {of:?}");
                assert!(of.after.logloss < of.before.logloss, "{curve:?} {of:?}");
                assert!(of.after.ece < 0.5 * of.before.ece, "{curve:?} {of:?}");
            }
        }
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

    #[test]
    fn the_best_of_a_group_is_shown() {
        let rows = Rows {
            users: vec![1; 7],
            logits: vec![0.5, 3.0, 1.0, 1.0, -1.0, 0.0, 2.0],
            labels: vec![0; 7],
            groups: vec![1, 3, 0, 3],
        };
        assert_eq!(rows.shown(), [1, 6]);
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
        let (before, after) = (all.before.calibration.unwrap(), all.after.calibration.unwrap());
        assert!(before > 4.0 && (after - 1.0).abs() < 0.03, "{before} {after}");
        assert!(all.after.logloss < all.before.logloss, "{all:?}");
        assert_eq!(shown, None);
    }
}
