//! The result of one training of an ablation: its files, and its scores on all test impressions and
//! on those of items that were hardly ever shown.

use std::fs;
use std::path::{Path, PathBuf};

use ams_bundle::Predictions;
use ams_data::Id;
use ams_data::staging::write_whole;
use ams_model::metrics::{Bootstrap, ResampledRanking, log_loss};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How often items are shown in training.
pub(crate) type Frequency = HashMap<Id, u32>;

/// Whether an item of this many training impressions is in a slice.
type Member = fn(u32) -> bool;

/// Slices of the test impressions, by name; the first is all of them.
pub(crate) const SLICES: [(&str, Member); 3] =
    [("all", |_| true), ("cold items", |shown| shown == 0), ("rare items", |shown| shown < 10)];

/// A finished training; `results/<name>.json`, written after `results/<name>.parquet`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// Name of the run.
    pub name: String,
    /// blake3 of everything that decided it, see [`crate::ablate::plan`].
    pub hash: String,
    /// The seed of the ablation that the run is for.
    pub seed: u64,
    /// Steps of the whole training.
    pub steps: u64,
    /// Mean loss over its last steps.
    pub loss: Option<f64>,
    /// Seconds of training of the process that ended it.
    pub seconds: f64,
    /// The report of `ams eval` about the test.
    pub evaluation: serde_json::Value,
}

impl Finished {
    /// Writes predictions and result into `results`. The result comes last: with it, the run is
    /// done.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(crate) fn write(&self, results: &Path, predictions: &Predictions) -> Result<()> {
        predictions.write(&predictions_of(results, &self.name))?;
        let json = serde_json::to_string(self).expect("a result is JSON");
        Ok(write_whole(&result_of(results, &self.name), json + "\n")?)
    }

    /// The result of the run `name`, if it is there and of the training `hash`.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub(crate) fn read(
        results: &Path,
        name: &str,
        hash: &str,
    ) -> Result<Option<(Finished, Predictions)>> {
        let path = result_of(results, name);
        let predictions = predictions_of(results, name);
        if !path.exists() || !predictions.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let finished: Finished = serde_json::from_str(&text).map_err(|error| {
            Error::content(&path, format!("{error}; remove it to train the run again"))
        })?;
        if finished.hash != hash {
            return Ok(None);
        }
        Ok(Some((finished, Predictions::read(&predictions)?)))
    }
}

fn result_of(results: &Path, name: &str) -> PathBuf {
    results.join(format!("{name}.json"))
}

/// The predictions of the run `name`.
pub(crate) fn predictions_of(results: &Path, name: &str) -> PathBuf {
    results.join(format!("{name}.parquet"))
}

/// Scores of one training in one slice.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scores {
    /// GAUC and AUC, with bootstrap draws.
    pub ranking: ResampledRanking,
    /// Mean cross-entropy in nats.
    pub logloss: Option<f64>,
}

/// The test impressions that all trainings of an ablation predict, in one order.
pub(crate) struct TestSet {
    /// blake3 of users, items, times and labels, in their order.
    hash: blake3::Hash,
    /// Number of distinct users.
    population: usize,
    /// Impressions of each slice.
    slices: Vec<Slice>,
}

/// Some test impressions: row, user from 0, label.
#[derive(Default)]
struct Slice {
    rows: Vec<u32>,
    users: Vec<u32>,
    labels: Vec<u8>,
}

impl TestSet {
    /// The impressions that `predictions` are about.
    pub(crate) fn of(predictions: &Predictions, frequency: &Frequency) -> TestSet {
        let mut users = predictions.users.clone();
        users.sort_unstable();
        users.dedup();
        let number = |user: &u64| users.binary_search(user).expect("every user is listed") as u32;
        let numbers: Vec<u32> = predictions.users.iter().map(number).collect();
        let shown: Vec<u32> = predictions
            .items
            .iter()
            .map(|&item| frequency.get(&Id(item)).copied().unwrap_or(0))
            .collect();
        let slice = |&(_, member): &(&str, Member)| {
            let rows = 0..predictions.len();
            let mut slice = Slice::default();
            for row in rows.filter(|&row| member(shown[row])) {
                slice.rows.push(row as u32);
                slice.users.push(numbers[row]);
                slice.labels.push(predictions.labels[row]);
            }
            slice
        };
        TestSet {
            hash: hash(predictions),
            population: users.len(),
            slices: SLICES.iter().map(slice).collect(),
        }
    }

    /// Whether `predictions` are about the same impressions in the same order.
    pub(crate) fn is_of(&self, predictions: &Predictions) -> bool {
        self.hash == hash(predictions)
    }

    /// Number of distinct users.
    pub(crate) fn users(&self) -> usize {
        self.population
    }

    /// Number of impressions in each slice.
    pub(crate) fn impressions(&self) -> Vec<u64> {
        self.slices.iter().map(|slice| slice.rows.len() as u64).collect()
    }

    /// The scores of `predictions` of these impressions, in each slice.
    pub(crate) fn score(&self, predictions: &Predictions, bootstrap: &Bootstrap) -> Vec<Scores> {
        let scores = |slice: &Slice| {
            let logits: Vec<f32> =
                slice.rows.iter().map(|&row| predictions.logits[row as usize]).collect();
            let Slice { users, labels, .. } = slice;
            Scores {
                ranking: bootstrap.ranking(self.population, users, &logits, labels),
                logloss: log_loss(&logits, labels),
            }
        };
        self.slices.iter().map(scores).collect()
    }
}

fn hash(predictions: &Predictions) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytemuck::cast_slice(&predictions.users));
    hasher.update(bytemuck::cast_slice(&predictions.items));
    hasher.update(bytemuck::cast_slice(&predictions.times));
    hasher.update(&predictions.labels);
    hasher.finalize()
}
