//! Users held out of a training, what the model is worth to them, and when that ends the training.
//!
//! Users are spread over the parts of a dataset by hash. `train.validation_parts` of the training
//! samples' parts are held out, the last of every so many, so that lanes, which own runs of parts,
//! lose about the same. After each epoch they are predicted.
//!
//! With `train.early_stop` the best epoch is the result of the run:
//! ```text
//! 1  a checkpoint after each epoch; its manifest has the history of validation, so whoever goes on
//!    from it decides the same; that of the best epoch is never pruned
//! 2  the last epoch's history says that this is the end
//! 3  ended.json is written whole: which checkpoint is the result
//! 4  the checkpoints after it are removed, so that the newest one is the result
//! ```
//! Killed before 3, a training that goes on comes to 2 again; killed after it, it does what is left
//! of 4 and is done. A result whose checkpoint somebody removed counts no more.

use std::fs;
use std::path::Path;

use ams_data::Card;
use ams_fabric::{Fabric, gather};
use ams_model::metrics::Metrics;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, Cursor};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::run::CHECKPOINTS;

/// The file in a run folder that says which checkpoint is the result of an ended training.
pub const ENDED: &str = "ended.json";

/// Whose samples to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Everybody's.
    All,
    /// Those of the users that are learned from.
    Learned,
    /// Those of the others.
    HeldOut,
}

impl Users {
    /// Whether part `part` of `parts` is read, of which `held_out` are held out.
    pub fn read(self, part: usize, parts: usize, held_out: usize) -> bool {
        let is_held_out = held_out > 0 && (part + 1).is_multiple_of(parts / held_out);
        match self {
            Users::All => true,
            Users::Learned => !is_held_out,
            Users::HeldOut => is_held_out,
        }
    }
}

/// Checks that every lane keeps parts to learn from.
///
/// # Errors
/// What came and what is possible.
pub fn check(config: &Config, card: &Card) -> Result<()> {
    let (held_out, lanes, parts) = (config.train.validation_parts, config.train.lanes, card.parts);
    let bad = |what| Err(Error::Config { key: "train.validation_parts".into(), what });
    if held_out == 0 {
        return Ok(());
    }
    if held_out >= parts || !parts.is_multiple_of(held_out) {
        return bad(format!(
            "{held_out} of the dataset's {parts} parts, expected fewer than that, and a number that \
             divides it"
        ));
    }
    if lanes == parts {
        return bad(format!(
            "{held_out} of the dataset's {parts} parts, but each of {lanes} lanes has one: a lane would \
             have nothing to learn from; use at most {} lanes (train.lanes)",
            parts / 2
        ));
    }
    Ok(())
}

/// What a model is worth to the users held out; `None` where a metric is not defined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// AUC within users, weighted by their impressions.
    pub gauc: Option<f64>,
    /// Area under the ROC curve.
    pub auc: Option<f64>,
    /// Mean cross-entropy.
    pub logloss: Option<f64>,
}

impl Validation {
    /// Of `metrics`, which the first process has, at every process. All call it together.
    pub(crate) fn tell(metrics: Option<Metrics>, fabric: &mut dyn Fabric) -> Result<Validation> {
        let mine: Vec<u64> = metrics.map_or(Vec::new(), |metrics| {
            let all = [metrics.gauc, metrics.auc, metrics.logloss];
            let words =
                |value: Option<f64>| [u64::from(value.is_some()), value.map_or(0, f64::to_bits)];
            all.into_iter().flat_map(words).collect()
        });
        let first = gather::numbers(fabric, &mine)?.swap_remove(0);
        let value = |at: usize| (first[2 * at] == 1).then(|| f64::from_bits(first[2 * at + 1]));
        Ok(Validation { gauc: value(0), auc: value(1), logloss: value(2) })
    }
}

/// The best epoch so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// Steps taken at its end.
    pub step: u64,
    /// How good it was.
    pub validation: Validation,
}

/// What validation said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Epochs validated.
    pub epochs: u32,
    /// The last of them.
    pub last: Option<Validation>,
    /// The one with the greatest GAUC, the first of equals; none without any.
    pub best: Option<Best>,
}

impl History {
    /// Whether nothing was validated.
    pub fn is_empty(&self) -> bool {
        self.epochs == 0
    }

    /// Adds the epoch that ended at `cursor`.
    pub fn add(&mut self, cursor: Cursor, validation: Validation) {
        self.epochs = cursor.epoch + 1;
        self.last = Some(validation);
        let best = self.best.and_then(|best| best.validation.gauc);
        let better = validation.gauc.is_some_and(|gauc| best.is_none_or(|best| gauc > best));
        if better {
            self.best = Some(Best { epoch: cursor.epoch, step: cursor.step, validation });
        }
    }

    /// Whether `patience` epochs, if there is such a limit, went by without a better one.
    pub fn is_spent(&self, patience: Option<u32>) -> bool {
        let best = self.best.map_or(0, |best| best.epoch + 1);
        patience.is_some_and(|patience| self.epochs.saturating_sub(best) >= patience)
    }
}

/// How a training with early stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// The step of the checkpoint that is the result: the best epoch's, or the last one's without
    /// any.
    pub result: u64,
    /// Steps taken.
    pub steps: u64,
    /// What validation said.
    pub history: History,
}

impl Ended {
    /// Of a training that has nothing left to do at `cursor`.
    pub fn at(cursor: Cursor, history: History) -> Ended {
        let result = history.best.map_or(cursor.step, |best| best.step);
        Ended { result, steps: cursor.step, history }
    }

    /// Makes this the result of the training in `run`. The first process calls it.
    ///
    /// # Errors
    /// If the checkpoint that is the result is gone, or the folder cannot be written.
    pub fn conclude(&self, run: &Path) -> Result<()> {
        let checkpoints = run.join(CHECKPOINTS);
        is_there(&checkpoints, self.result)?;
        let text = serde_json::to_string_pretty(self).expect("numbers are JSON");
        ams_data::staging::write_whole(&run.join(ENDED), text + "\n")?;
        checkpoint::remove_after(&checkpoints, self.result)
    }

    /// How the training in `run` ended, if it did; finishes what a killed process did not. The
    /// first process calls it.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub fn settle(run: &Path) -> Result<Option<Ended>> {
        let (path, checkpoints) = (run.join(ENDED), run.join(CHECKPOINTS));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io(&path))?,
        };
        let ended: Ended = serde_json::from_str(&text)
            .map_err(|error| Error::content(&path, error.to_string()))?;
        if checkpoint::path(&checkpoints, ended.result).exists() {
            checkpoint::remove_after(&checkpoints, ended.result)?;
            return Ok(Some(ended));
        }
        // Removed because it was damaged, say: the training goes on from an earlier one.
        fs::remove_file(&path).map_err(Error::io(&path))?;
        Ok(None)
    }

    /// What the first process knows, at every process. All call it together.
    pub(crate) fn tell(mine: Option<Ended>, fabric: &mut dyn Fabric) -> Result<Option<Ended>> {
        let text = mine.map_or(String::new(), |ended| {
            serde_json::to_string(&ended).expect("numbers are JSON")
        });
        let first = gather::texts(fabric, &text)?.swap_remove(0);
        Ok((!first.is_empty())
            .then(|| serde_json::from_str(&first).expect("the first writes JSON")))
    }
}

/// That the checkpoint of the best epoch, after `step` steps, is still there.
///
/// # Errors
/// If not.
pub fn is_there(checkpoints: &Path, step: u64) -> Result<()> {
    let place = checkpoint::path(checkpoints, step);
    if place.exists() {
        return Ok(());
    }
    let what = "is gone, but it is the best epoch's; remove the checkpoints after it to train these \
                epochs again, or --replace the run";
    Err(Error::content(place, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_parts_are_spread_evenly() {
        for (parts, held_out) in [(64, 1), (64, 8), (64, 32), (4, 2)] {
            let of = |users: Users| -> Vec<usize> {
                (0..parts).filter(|&part| users.read(part, parts, held_out)).collect()
            };
            let (learned, held) = (of(Users::Learned), of(Users::HeldOut));
            assert_eq!((held.len(), learned.len()), (held_out, parts - held_out));
            let expected: Vec<usize> = (1..=held_out).map(|n| n * (parts / held_out) - 1).collect();
            assert_eq!(held, expected);
            assert_eq!(of(Users::All).len(), parts);
        }
        assert!((0..64).all(|part| Users::Learned.read(part, 64, 0)));
        assert!(!(0..64).any(|part| Users::HeldOut.read(part, 64, 0)));
    }

    /// The best epoch and where it stops, of GAUCs epoch by epoch.
    fn history(gaucs: &[Option<f64>], patience: u32) -> (Option<u32>, Option<usize>) {
        let mut history = History::default();
        for (epoch, &gauc) in gaucs.iter().enumerate() {
            let cursor = Cursor { epoch: epoch as u32, step: 8, ..Cursor::default() };
            history.add(cursor, Validation { gauc, ..Validation::default() });
            if history.is_spent(Some(patience)) {
                return (history.best.map(|best| best.epoch), Some(epoch));
            }
            assert!(!history.is_spent(None));
        }
        (history.best.map(|best| best.epoch), None)
    }

    #[test]
    fn patience_counts_epochs_without_a_better_gauc() {
        let some = |gaucs: &[f64]| gaucs.iter().map(|&gauc| Some(gauc)).collect::<Vec<_>>();
        assert_eq!(history(&some(&[0.5, 0.6, 0.55, 0.7]), 1), (Some(1), Some(2)));
        assert_eq!(history(&some(&[0.5, 0.6, 0.55, 0.7]), 2), (Some(3), None));
        assert_eq!(history(&some(&[0.6, 0.6, 0.6]), 2), (Some(0), Some(2)), "ties are not better");
        assert_eq!(history(&[None, None, None], 2), (None, Some(1)));
        assert_eq!(history(&[None, Some(0.4), None], 2), (Some(1), None));
    }
}
