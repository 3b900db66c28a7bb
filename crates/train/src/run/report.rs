//! The results of a training.

use std::path::PathBuf;

use ams_model::metrics::Gain;
use serde::{Deserialize, Serialize};

use crate::align::AlignReport;
use crate::run::journal::two_decimals;
use crate::run::layout::folder;
use crate::run::progress::Validation;
use crate::run::semantic::SemanticReport;
use crate::settings::{Candidate, Config};
use crate::step::frequency::FieldIds;
use crate::step::row_counts::RowCounts;
use crate::step::traffic::Counts;

/// The result of a training; `--json` of `ams train`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// Path of the run folder.
    pub run: PathBuf,
    /// Steps taken, over all processes that worked on the run.
    pub steps: u64,
    /// Impressions learned from by this process.
    pub impressions: u64,
    /// Seconds of this process spent on steps.
    pub seconds: f64,
    /// Impressions per second of this process.
    pub impressions_per_second: f64,
    /// Mean loss over the last line of metrics; none if there was no step left to take.
    pub loss: Option<f64>,
    /// Threads of each process.
    pub threads: usize,
    /// Processes of the job.
    pub processes: usize,
    /// Lanes of the training.
    pub lanes: usize,
    /// The step it went on from; 0 for a new training.
    pub resumed_from: u64,
    /// Whether all epochs were done, or ended early by validation; false if the watcher stopped
    /// the training.
    pub finished: bool,
    /// Epochs of the configuration.
    pub epochs: u32,
    /// With early stop the best epoch so far, counted from 0; the result of a finished training.
    pub best_epoch: Option<u32>,
    /// Metrics of the model of that epoch for the samples held out; without early stop, of the last
    /// epoch.
    pub validation: Option<Validation>,
    /// With early stop, the steps of the best evaluation so far.
    pub best_step: Option<u64>,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps of an epoch of all impressions; more than of those that are not held out.
    pub steps_per_epoch_of_all_users: u64,
    /// Counters of all lanes together, mean per step over this process's steps.
    pub per_step: Counts,
    /// The ids by field, where `train.min_occurrences` is more than 1 and this process took a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Vec<FieldIds>>,
    /// Rows of ids at the end, and those that this process's steps made and evicted; with
    /// `train.eviction` or `train.sketch_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    /// The semantic ids that the model sees, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic_ids: Option<SemanticReport>,
    /// The alignment before the first step; none without a table `[align]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignReport>,
    /// With `train.refit`, the trainings before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
}

impl RunReport {
    /// Steps until the best evaluation; without early stop, all of them.
    pub(crate) fn steps_of_best(&self) -> u64 {
        self.best_step.unwrap_or(self.steps)
    }

    /// The same as epochs.
    pub(crate) fn epochs_of_best(&self) -> f64 {
        self.steps_of_best() as f64 / self.steps_per_epoch.max(1) as f64
    }

    /// The report of a training of `config` that was stopped in its alignment.
    pub(crate) fn stopped(config: &Config, alignment: AlignReport) -> RunReport {
        RunReport {
            run: folder(config),
            steps: 0,
            impressions: 0,
            seconds: alignment.seconds,
            impressions_per_second: 0.0,
            loss: None,
            threads: alignment.threads,
            processes: alignment.processes,
            lanes: alignment.lanes,
            resumed_from: 0,
            finished: false,
            epochs: config.train.epochs,
            best_epoch: None,
            validation: None,
            best_step: None,
            steps_per_epoch: 0,
            steps_per_epoch_of_all_users: 0,
            per_step: Counts::default(),
            admitted: None,
            rows: None,
            semantic_ids: None,
            alignment: Some(alignment),
            choice: None,
        }
    }
}

/// What the trainings before a refit found; `choice.json` of its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The trainings, in the order of the candidates.
    pub searched: Vec<Searched>,
    /// Which of them was trained on all samples, counted from 0.
    pub chosen: usize,
    /// Steps of that training.
    pub steps: u64,
    /// Candidates that were not trained, because the dataset has no image features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Candidate>,
}

impl Choice {
    /// For people, the names of the columns and a row for each training.
    pub fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["on samples held out", "epochs", "GAUC", "AUC", "log loss", "gain", ""];
        let row = |(at, of): (usize, &Searched)| {
            let chosen = if at == self.chosen { "trained on all samples" } else { "" };
            let first = [of.candidate.as_str().to_owned(), two_decimals(of.epochs).to_string()];
            let last = [gain_cell(of.gain), chosen.to_owned()];
            let metrics = of.validation.unwrap_or_default().cells();
            first.into_iter().chain(metrics).chain(last).collect()
        };
        (header.map(str::to_owned).to_vec(), self.searched.iter().enumerate().map(row).collect())
    }
}

/// A gain for people; a dash without one.
pub fn gain_cell(gain: Option<Gain>) -> String {
    gain.map_or("-".to_owned(), |gain| gain.to_string())
}

/// One of the trainings before a refit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Searched {
    /// The variant that was trained.
    pub candidate: Candidate,
    /// Path of its run folder.
    pub run: PathBuf,
    /// Epochs until the best evaluation; a fraction where that is within an epoch.
    pub epochs: f64,
    /// The best evaluation; none if no user held out has both clicks and other impressions.
    pub validation: Option<Validation>,
    /// How much better it is than the best of those before it; none of the first one, and where
    /// the metric is not defined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<Gain>,
}
