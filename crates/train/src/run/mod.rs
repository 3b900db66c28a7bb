//! A training with its folder.
//!
//! ```text
//! runs/<name>/
//!   config.toml          the resolved configuration: train it again and get the same bits
//!   environment.json     program version, processor, processes, threads, dataset, image encoder
//!   metrics.jsonl        one object every `train.log_every` steps, and one after each epoch with validation
//!   train.log            the events of the training in words
//!   checkpoints/step-N/  see `checkpoint`
//!   ended.json           which checkpoint is the result of a training with early stop, see `validation`
//!   choice.json          with `train.refit`, what the trainings before this one found, see `choose`
//!   predictions/         written by `ams eval`
//! runs/.<name>.lock      held by the job that trains the run
//! ```
//! The first process writes all of it but the checkpoints, which every process writes its lanes to.

pub(crate) mod assemble;
pub(crate) mod checkpoint;
mod choose;
pub(crate) mod ended;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod predictions;
pub(crate) mod progress;
pub(crate) mod trainer;
pub(crate) mod validation;
pub(crate) mod warm_start;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ams_fabric::{agree, on_first, together};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::ended::{Ended, is_there};
use crate::run::journal::Journal;
use crate::run::progress::{StepReport, Validation};
use crate::run::trainer::Trainer;
use crate::settings::Config;
use crate::setup::job::{Job, JobSize, facts_of};
use crate::step::share::Share;
use crate::step::traffic::Counts;
use ams_data::lock::Lock;

pub use crate::run::choose::{Choice, Searched};
pub use crate::run::journal::two_decimals;
pub(crate) use crate::run::layout::{CHECKPOINTS, CONFIG, ENDED, folder};

/// The decision of a watcher after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The training takes its next step.
    GoOn,
    /// The training writes a checkpoint and ends.
    Stop,
}

/// Whether a run folder may hold an earlier training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A new training; a folder with an earlier one is an error.
    Fresh,
    /// A new training; an earlier one of the same name is removed.
    Replace,
    /// Goes on from the newest checkpoint.
    Resume,
    /// Goes on from the newest checkpoint if there is one, and begins at step 0 if not: for a
    /// launcher that starts a job again.
    Auto,
}

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
    /// Metrics of the model of that epoch for the users held out; without early stop, of the last
    /// epoch.
    pub validation: Option<Validation>,
    /// With early stop, the steps of the best evaluation so far.
    pub best_step: Option<u64>,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps of an epoch of all users' impressions; more than of those that are not held out.
    pub steps_per_epoch_of_all_users: u64,
    /// Counters of all lanes together, mean per step over this process's steps.
    pub per_step: Counts,
    /// With `train.refit`, the trainings before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
}

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
        train_once(config, start, job, watch)
    }
}

/// As [`train`], of a configuration that asks for one training.
fn train_once(
    config: &Config,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<RunReport> {
    let JobSize { processes, threads } = job.size();
    let Begun { mut trainer, mut journal, ended, lock: _lock } = begin(config, start, job)?;
    let (clock, before) = (Instant::now(), trainer.cursor());
    let mut counted = Counted { counts: Counts::default(), until: before.step };
    let finished = match ended {
        Some(_) => true,
        None => learn(config, &mut trainer, &mut journal, &mut counted, watch)?,
    };
    let seconds = clock.elapsed().as_secs_f64();
    let counts = counted.take(&mut trainer)?;
    let steps = ended.map_or(trainer.cursor().step, |ended| ended.steps);
    if let Some(journal) = &mut journal {
        journal.line(seconds, counts)?;
        journal.end(steps, seconds)?;
    }
    let history = ended.map_or(trainer.history(), |ended| ended.history);
    let result = conclude(config, &mut trainer, ended.filter(|_| finished), finished)?;
    if let Some(journal) = &mut journal {
        journal.log(&format!("checkpoint {}", result.display()))?;
    }
    let best = history.best.filter(|_| config.train.early_stop.is_some());
    let impressions = trainer.cursor().impressions - before.impressions;
    Ok(RunReport {
        run: folder(config),
        steps,
        impressions,
        seconds,
        impressions_per_second: impressions as f64 / seconds.max(1e-9),
        loss: journal.and_then(|journal| journal.loss()),
        threads,
        processes,
        lanes: config.train.lanes,
        resumed_from: before.step,
        finished,
        epochs: config.train.epochs,
        best_epoch: best.map(|best| best.epoch),
        validation: best.map(|best| best.validation).or(history.last),
        best_step: best.map(|best| best.step),
        steps_per_epoch: trainer.steps_per_epoch(),
        steps_per_epoch_of_all_users: Share::steps(
            trainer.dataset().card().counts.train,
            config.train.batch,
        ),
        per_step: counted.counts.per_step(trainer.cursor().step - before.step),
        choice: None,
    })
}

/// A training that takes its next step.
struct Begun {
    trainer: Trainer,
    /// At the first process.
    journal: Option<Journal>,
    /// How it ended, if it has nothing left to do.
    ended: Option<Ended>,
    /// Held while this process trains, by the first one; the system gives it back if the process
    /// dies.
    lock: Option<Lock>,
}

/// Begins or resumes the training of `config` in its run folder.
fn begin(config: &Config, start: Start, mut job: Job) -> Result<Begun> {
    let run = folder(config);
    let checkpoints = run.join(CHECKPOINTS);
    let size = job.size();
    let fabric = &mut *job.fabric;
    together(fabric, config.check())?;
    // Before anything is touched, and also where a checkpoint decides later: it is one for all
    // processes.
    agree::<Error>(fabric, &facts_of(config))?;
    let lock = on_first(fabric, || Ok::<_, Error>(Lock::take(&config.runs, &config.name)?))?;
    let begin = on_first(fabric, || decide(&run, config, start))?;
    let goes_on = fabric.any(begin == Some(Begin::GoOn))?;
    let settled = on_first(fabric, || if goes_on { Ended::settle(&run) } else { Ok(None) })?;
    let ended = Ended::tell(settled.flatten(), fabric)?;
    let mut trainer = if goes_on {
        resumed(config, &run, job)?
    } else {
        let mut trainer = Trainer::new(config.clone(), job)?;
        trainer.warm_start()?;
        trainer
    };
    let best = trainer.history().best.filter(|_| goes_on && config.train.early_stop.is_some());
    on_first(trainer.lanes_mut().fabric(), || match best {
        Some(best) => is_there(&checkpoints, best.step),
        None => Ok(()),
    })?;
    let steps = ended.map_or(trainer.cursor().step, |ended| ended.steps);
    let opened = match begin {
        Some(begin) => open_journal(&run, begin, steps, &trainer, size).map(Some),
        None => Ok(None),
    };
    let journal = together(trainer.lanes_mut().fabric(), opened)?;
    Ok(Begun { trainer, journal, ended, lock })
}

/// The training of the newest checkpoint in `run`, which has to be that of `config`.
fn resumed(config: &Config, run: &Path, job: Job) -> Result<Trainer> {
    let trainer = Trainer::resume(&run.join(CHECKPOINTS), job)?;
    let same = Config { runs: config.runs.clone(), ..trainer.config().clone() };
    if same != *config {
        let what = "the checkpoint was trained with another configuration than this one";
        return Err(Error::content(run.join(CONFIG), what));
    }
    Ok(trainer)
}

/// Writes the last checkpoint and, where an early stop ends the training, makes the best epoch's
/// the result. Returns the checkpoint that is the result.
fn conclude(
    config: &Config,
    trainer: &mut Trainer,
    ended: Option<Ended>,
    finished: bool,
) -> Result<PathBuf> {
    let run = folder(config);
    let checkpoints = run.join(CHECKPOINTS);
    let newest = trainer.checkpoint(&checkpoints)?;
    if !finished || config.train.early_stop.is_none() {
        return Ok(newest);
    }
    let ended = ended.unwrap_or_else(|| Ended::at(trainer.cursor(), trainer.history()));
    on_first(trainer.lanes_mut().fabric(), || ended.conclude(&run))?;
    Ok(checkpoint::path(&checkpoints, ended.result))
}

/// The counters of all steps up to `until`.
struct Counted {
    counts: Counts,
    until: u64,
}

impl Counted {
    /// Adds the counters of the steps since then; returns their mean per step.
    fn take(&mut self, trainer: &mut Trainer) -> Result<Counts> {
        let step = trainer.cursor().step;
        let counts = trainer.lanes_mut().take_counts()?;
        self.counts += counts.times((step - self.until) as f64);
        self.until = step;
        Ok(counts)
    }
}

/// Takes steps until the training is done, or `watch` stops it before; whether it is done.
fn learn(
    config: &Config,
    trainer: &mut Trainer,
    journal: &mut Option<Journal>,
    counted: &mut Counted,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<bool> {
    // Not the trainer's: the run may have been moved since its checkpoint was written.
    let checkpoints = folder(config).join(CHECKPOINTS);
    let clock = Instant::now();
    let (train, steps, begin) = (&config.train, trainer.steps(), trainer.cursor().step);
    let mut stop = false;
    loop {
        let cursor = trainer.cursor();
        let round = StepReport { cursor, impressions: 0, loss: 0.0, learning_rate: 0.0 };
        // First of all, so that every checkpoint at the end of an epoch has the epoch's validation.
        let validated = trainer.validate(&mut || {
            watch(&round, steps);
        })?;
        if let (Some(journal), Some(validation)) = (&mut *journal, validated) {
            journal.validation(cursor, (trainer.epochs_taken(), train.epochs), validation)?;
        }
        if trainer.is_done() {
            return Ok(true);
        }
        if stop {
            return Ok(false);
        }
        let due = train.checkpoint_every.is_some_and(|n| n > 0 && cursor.step.is_multiple_of(n));
        let best = train.early_stop.is_some() && trainer.is_at_evaluation();
        if cursor.step > begin && (due || best) {
            trainer.checkpoint(&checkpoints)?;
        }
        let Some(report) = trainer.step()? else { return Ok(true) };
        if let Some(journal) = journal {
            journal.step(&report);
        }
        let step = report.cursor.step;
        if step.is_multiple_of(train.log_every.max(1)) || step == steps {
            let counts = counted.take(trainer)?;
            if let Some(journal) = journal {
                journal.line(clock.elapsed().as_secs_f64(), counts)?;
            }
        }
        stop = trainer.lanes_mut().fabric().any(watch(&report, steps) == Next::Stop)?;
    }
}

/// How a training begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// At step 0; `replace` removes an earlier training.
    New { replace: bool },
    /// At the newest checkpoint.
    GoOn,
}

/// How a training begins by `start` in the run folder as it is.
fn decide(run: &Path, config: &Config, start: Start) -> Result<Begin> {
    let goes_on = !checkpoint::list(&run.join(CHECKPOINTS))?.is_empty();
    // A checkpoint that is there already is not written again: none may be left of another
    // training.
    let taken = goes_on || run.join(CONFIG).exists() || run.join(ENDED).exists();
    match start {
        Start::Fresh if taken => {
            let what = "holds an earlier training; choose another name, go on with --resume, or \
                        --replace it";
            Err(Error::content(run, what))
        }
        Start::Fresh => Ok(Begin::New { replace: false }),
        Start::Replace => Ok(Begin::New { replace: taken }),
        Start::Resume => Ok(Begin::GoOn),
        Start::Auto if goes_on => Ok(Begin::GoOn),
        Start::Auto => {
            // Killed before its first checkpoint: to be taken over only if it was the same
            // training.
            if taken && journal::read_config(run)? != *config {
                let what = "holds a training with another configuration; choose another name, or \
                            --replace it";
                return Err(Error::content(run, what));
            }
            Ok(Begin::New { replace: taken })
        }
    }
}

/// Makes the run folder, or goes on in it after `taken` steps.
fn open_journal(
    run: &Path,
    begin: Begin,
    taken: u64,
    trainer: &Trainer,
    size: JobSize,
) -> Result<Journal> {
    if begin == (Begin::New { replace: true }) {
        // Renamed first: killed half-way, nothing that looks like a training stays.
        let retired = run.with_file_name(format!(".{}.retired", trainer.config().name));
        if retired.exists() {
            fs::remove_dir_all(&retired).map_err(Error::io(&retired))?;
        }
        fs::rename(run, &retired).map_err(Error::io(run))?;
        fs::remove_dir_all(&retired).map_err(Error::io(&retired))?;
    }
    Journal::open(run, (begin == Begin::GoOn).then_some(taken), trainer, size)
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
