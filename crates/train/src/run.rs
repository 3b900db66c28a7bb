//! A training with its folder.
//!
//! ```text
//! runs/<name>/
//!   config.toml          the resolved configuration: train it again and get the same bits
//!   environment.json     program version, processor, threads, dataset, image encoder
//!   metrics.jsonl        one object every `train.log_every` steps
//!   train.log            what happened when, for people
//!   checkpoints/step-N/  see `checkpoint`
//!   predictions/         written by `ams eval`
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ams_fabric::Fabric;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::trainer::{StepReport, Trainer};

/// The configuration's file in a run folder.
pub const CONFIG: &str = "config.toml";

/// The metrics' file in a run folder.
pub const METRICS: &str = "metrics.jsonl";

/// The checkpoints' folder in a run folder.
pub const CHECKPOINTS: &str = "checkpoints";

/// What the watcher of a training wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The next step.
    GoOn,
    /// A checkpoint, and the end.
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
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Steps taken.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: u32,
    /// Impressions learned from so far.
    pub impressions: u64,
    /// Mean loss over the impressions since the line before.
    pub loss: f64,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Seconds since this process began to train.
    pub seconds: f64,
}

/// What a training came to; `--json` of `ams train`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// The run folder.
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
    /// Processes.
    pub processes: usize,
    /// Lanes.
    pub lanes: usize,
    /// Whether all epochs were done; false if the watcher stopped the training.
    pub finished: bool,
    /// Epochs of the configuration.
    pub epochs: u32,
}

/// The folder of a run.
pub fn folder(config: &Config) -> PathBuf {
    config.runs.join(&config.name)
}

/// Trains `config` in its run folder. `watch` sees every step and may stop the training.
///
/// # Errors
/// If the run folder is taken or cannot be written, or the training fails.
pub fn train(
    config: &Config,
    start: Start,
    fabric: Box<dyn Fabric>,
    threads: usize,
    watch: &mut dyn FnMut(&StepReport, u64) -> Wish,
) -> Result<RunReport> {
    let run = folder(config);
    let checkpoints = run.join(CHECKPOINTS);
    let processes = fabric.size();
    let taken = run.join(CONFIG).exists();
    if start == Start::Fresh && taken {
        let what =
            "holds an earlier training; choose another name, go on with --resume, or --replace it";
        return Err(Error::content(&run, what));
    }
    let mut trainer = match start {
        Start::Resume => {
            let trainer = Trainer::resume(&checkpoints, fabric, threads)?;
            let same = Config { runs: config.runs.clone(), ..trainer.config().clone() };
            if same != *config {
                let what = "the checkpoint was trained with another configuration than this one";
                return Err(Error::content(run.join(CONFIG), what));
            }
            trainer
        }
        Start::Fresh | Start::Replace => Trainer::new(config.clone(), fabric, threads)?,
    };
    if start == Start::Replace && taken {
        fs::remove_dir_all(&run).map_err(Error::io(&run))?;
    }
    let mut journal = Journal::open(&run, start, &trainer, threads)?;
    let begin = Instant::now();
    let before = trainer.cursor().impressions;
    let mut finished = true;
    let steps = trainer.steps();
    while let Some(report) = trainer.step()? {
        journal.step(&report, begin.elapsed().as_secs_f64(), config.train.log_every)?;
        let due = config
            .train
            .checkpoint_every
            .is_some_and(|every| every > 0 && report.cursor.step.is_multiple_of(every));
        if watch(&report, steps) == Wish::Stop && report.cursor.step < steps {
            finished = false;
            break;
        }
        if due {
            trainer.checkpoint(&checkpoints)?;
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    journal.flush(&trainer, seconds)?;
    let place = trainer.checkpoint(&checkpoints)?;
    journal.say(&format!("checkpoint {}", place.display()))?;
    let impressions = trainer.cursor().impressions - before;
    Ok(RunReport {
        run,
        steps: trainer.cursor().step,
        impressions,
        seconds,
        impressions_per_second: impressions as f64 / seconds.max(1e-9),
        loss: journal.loss,
        threads,
        processes,
        lanes: config.train.lanes,
        finished,
        epochs: config.train.epochs,
    })
}

/// Opens the training of a run folder as its newest checkpoint left it, to evaluate or publish it.
///
/// # Errors
/// If the folder holds no training, or none with a checkpoint.
pub fn open(run: &Path, fabric: Box<dyn Fabric>, threads: usize) -> Result<Trainer> {
    if !run.join(CONFIG).exists() {
        return Err(Error::content(run, "is not a run folder: it has no config.toml"));
    }
    Trainer::resume(&run.join(CHECKPOINTS), fabric, threads)
}

/// The files of a run folder that grow.
struct Journal {
    metrics: (PathBuf, File),
    log: (PathBuf, File),
    /// Loss and impressions since the last line.
    loss_sum: f64,
    impressions: u64,
    last: Option<StepReport>,
    /// Mean loss of the last line.
    loss: Option<f64>,
}

impl Journal {
    fn open(run: &Path, start: Start, trainer: &Trainer, threads: usize) -> Result<Journal> {
        fs::create_dir_all(run).map_err(Error::io(run))?;
        if start != Start::Resume {
            write_new(&run.join(CONFIG), &to_toml(trainer.config(), run)?)?;
        }
        if start == Start::Resume {
            forget_after(&run.join(METRICS), trainer.cursor().step)?;
        }
        let environment = environment(trainer, threads);
        write_new(&run.join("environment.json"), &environment)?;
        let mut journal = Journal {
            metrics: append(run.join(METRICS))?,
            log: append(run.join("train.log"))?,
            loss_sum: 0.0,
            impressions: 0,
            last: None,
            loss: None,
        };
        let cursor = trainer.cursor();
        journal.say(&format!("start at step {} of {}", cursor.step, trainer.steps()))?;
        Ok(journal)
    }

    fn step(&mut self, report: &StepReport, seconds: f64, log_every: u64) -> Result<()> {
        self.loss_sum += report.loss * report.impressions as f64;
        self.impressions += report.impressions;
        self.last = Some(*report);
        if report.cursor.step.is_multiple_of(log_every.max(1)) {
            self.line(seconds)?;
        }
        Ok(())
    }

    fn line(&mut self, seconds: f64) -> Result<()> {
        let Some(report) = self.last.filter(|_| self.impressions > 0) else { return Ok(()) };
        let loss = self.loss_sum / self.impressions as f64;
        self.loss = Some(loss);
        let line = MetricsLine {
            step: report.cursor.step,
            epoch: report.cursor.epoch,
            impressions: report.cursor.impressions,
            loss,
            learning_rate: report.learning_rate,
            seconds,
        };
        (self.loss_sum, self.impressions) = (0.0, 0);
        let text = serde_json::to_string(&line).expect("a line of numbers is JSON");
        writeln!(self.metrics.1, "{text}").map_err(Error::io(&self.metrics.0))
    }

    fn flush(&mut self, trainer: &Trainer, seconds: f64) -> Result<()> {
        self.line(seconds)?;
        let cursor = trainer.cursor();
        let loss = self.loss.map_or("none".to_owned(), |loss| format!("{loss:.6}"));
        self.say(&format!("step {}, loss {loss}, {seconds:.1} s", cursor.step))
    }

    fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.log.1, "{text}").map_err(Error::io(&self.log.0))
    }
}

/// Removes the lines of steps after `step` from the metrics: a process that was killed wrote them, and
/// this one will take those steps again.
fn forget_after(metrics: &Path, step: u64) -> Result<()> {
    let text = match fs::read_to_string(metrics) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io(metrics))?,
    };
    let stays = |line: &&str| {
        serde_json::from_str::<MetricsLine>(line).is_ok_and(|metrics| metrics.step <= step)
    };
    let kept: Vec<&str> = text.lines().filter(stays).collect();
    let end = if kept.is_empty() { "" } else { "\n" };
    write_new(metrics, &(kept.join("\n") + end))
}

fn append(path: PathBuf) -> Result<(PathBuf, File)> {
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.map_err(Error::io(&path)).map(|file| (path, file))
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    ams_data::staging::write_whole(path, text).map_err(Error::from)
}

fn to_toml(config: &Config, run: &Path) -> Result<String> {
    toml::to_string(config).map_err(|error| Error::content(run.join(CONFIG), error.to_string()))
}

fn environment(trainer: &Trainer, threads: usize) -> String {
    let source = trainer.lanes().plan.spec.image_source.as_ref();
    let environment = serde_json::json!({
        "ams": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "processor": std::env::consts::ARCH,
        "threads": threads,
        "lanes": trainer.config().train.lanes,
        "dataset": trainer.dataset().card(),
        "images": source,
    });
    format!("{environment:#}\n")
}
