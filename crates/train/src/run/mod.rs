//! A training with its folder.
//!
//! ```text
//! runs/<name>/
//!   config.toml          the resolved configuration: train it again and get the same bits
//!   environment.json     program version, processor, processes, threads, dataset, image encoder
//!   metrics.jsonl        one object every `train.log_every` steps and at the end of a phase, and one
//!                        for each evaluation
//!   tensorboard/         the same for TensorBoard, unless `train.tensorboard` is false
//!   train.log            the events of the training in words
//!   checkpoints/step-N/  see `checkpoint`
//!   ended.json           which checkpoint is the result of a training with early stop, see `validation`
//!   admitted.json        with `train.min_occurrences`, ids of each field and those admitted
//!   choice.json          with `train.refit`, what the trainings before this one found, see `choose`
//!   predictions/         written by `ams eval`
//! runs/.<name>.lock      held by the job that trains the run
//! ```
//! The first process writes all of it but the checkpoints, which every process writes its lanes to.

pub(crate) mod assemble;
pub(crate) mod checkpoint;
mod choose;
pub(crate) mod compare;
pub(crate) mod ended;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod mirror;
mod once;
pub(crate) mod phases;
pub(crate) mod predictions;
pub(crate) mod progress;
mod record;
mod report;
mod semantic;
mod standardize;
mod tensorboard;
pub(crate) mod trainer;
pub(crate) mod validation;
pub(crate) mod warm_start;

use std::path::Path;

use ams_fabric::together;

use crate::error::{Error, Result};
use crate::run::progress::StepReport;
use crate::run::trainer::Trainer;
use crate::settings::Config;
use crate::setup::job::Job;

pub use crate::run::journal::{MetricsLine, ValidationLine, two_decimals};
pub use crate::run::layout::CHECKPOINTS;
pub(crate) use crate::run::layout::{CONFIG, folder};
pub use crate::run::mirror::readable;
pub use crate::run::progress::Validation;
pub use crate::run::record::{Environment, Record};
pub use crate::run::report::{Choice, RunReport, Searched, gain_cell};
pub use crate::run::semantic::SemanticReport;
pub use crate::setup::job::{Next, Start};
pub use crate::setup::places::{KeptRun, Places};

/// Trains `config` in its run folder on the processes of `job`, which all call this together and
/// see the same disk. `watch` sees every step and may stop the training: one process that returns
/// [`Next::Stop`] stops all. It also sees the rounds of a validation, as steps of no impressions,
/// and cannot stop these.
///
/// # Errors
/// If the run folder is taken or cannot be written, or the training fails.
pub fn train(
    config: &Config,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<RunReport> {
    if config.train.refit {
        choose::train(config, start, job, watch)
    } else {
        once::train(config, start, job, watch)
    }
}

/// Opens the training of a run folder as its newest checkpoint left it, to evaluate or publish it.
///
/// # Errors
/// If the folder holds no training, or none with a checkpoint.
pub fn open(run: &Path, mut job: Job) -> Result<Trainer> {
    let there = if run.join(CONFIG).exists() {
        Ok(())
    } else {
        Err(Error::content(run, "is not a run folder: it has no config.toml"))
    };
    together(&mut *job.fabric, there)?;
    Trainer::resume(&run.join(CHECKPOINTS), job)
}
