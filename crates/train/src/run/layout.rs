//! The names of a run folder's files.

use std::path::PathBuf;

use crate::settings::Config;

pub(crate) const CONFIG: &str = "config.toml";

/// Program version, processor, processes, threads, dataset, image encoder.
pub(crate) const ENVIRONMENT: &str = "environment.json";

/// One JSON object a line: steps and validations.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// One line of text for each event of the training.
pub(crate) const LOG: &str = "train.log";

/// The folder of the checkpoints in that of a run.
pub const CHECKPOINTS: &str = "checkpoints";

/// Which checkpoint is the result of an ended training with early stop.
pub(crate) const ENDED: &str = "ended.json";

/// What was compared before a refit, and what was chosen.
pub(crate) const CHOICE: &str = "choice.json";

/// How many ids of each field were admitted, where `train.min_occurrences` decides it.
pub(crate) const ADMITTED: &str = "admitted.json";

/// The folder of what `ams eval` writes.
pub(crate) const PREDICTIONS: &str = "predictions";

/// The folder of a run.
pub(crate) fn folder(config: &Config) -> PathBuf {
    config.runs.join(&config.name)
}
