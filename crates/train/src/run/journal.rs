//! The files of a run folder that describe its training: configuration, environment, metrics, log.
//!
//! Written by the first process of a job alone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run::layout::{CONFIG, ENVIRONMENT, LOG, METRICS};
use crate::run::progress::{Cursor, StepReport, Validation};
use crate::run::tensorboard::{Events, Scalar};
use crate::run::trainer::Trainer;
use crate::settings::Config;
use crate::setup::job::JobSize;
use crate::step::row_counts::RowCounts;
use crate::step::traffic::Counts;

/// A line of `metrics.jsonl` about steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Steps taken since the beginning of the training.
    pub step: u64,
    /// Epoch, counted from 0.
    pub epoch: u32,
    /// Impressions learned from so far.
    pub impressions: u64,
    /// Mean loss over the impressions since the line before.
    pub loss: f64,
    /// Mean loss of clicks beside their negatives of the batch, over the steps since the line
    /// before; none without `train.in_batch_negatives`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_batch_loss: Option<f64>,
    /// Mean contrastive loss of images over the steps since the line before; none without
    /// `align.weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contrastive_loss: Option<f64>,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Phase of the last step, counted from 1; none without `train.phases`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
    /// Seconds since this process began to train.
    pub seconds: f64,
    /// Counters of all lanes together, mean per step since the line before.
    pub per_step: Counts,
    /// Rows of ids after the last step, and those made and evicted since the line before; none
    /// without `train.eviction` and `train.sketch_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    /// Milliseconds of a step by stage, of all threads of the first process together divided by
    /// their number; means since the line before. Empty in runs of before 0.2.0.
    #[serde(default)]
    pub stages_ms: BTreeMap<String, f64>,
}

/// Costs of the steps since a line, means per step; as in [`MetricsLine`].
pub(crate) struct Costs {
    pub per_step: Counts,
    pub rows: Option<RowCounts>,
    pub stages_ms: BTreeMap<String, f64>,
}

/// A line of `metrics.jsonl` about the samples held out, after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationLine {
    /// Steps taken since the beginning of the training.
    pub step: u64,
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// Phase of the last step, counted from 1; none without `train.phases`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
    /// Metrics of the model for them.
    pub validation: Validation,
}

/// The key that every line of `metrics.jsonl` has.
#[derive(Deserialize)]
struct Line {
    step: u64,
}

/// The configuration of the run in `run`.
///
/// # Errors
/// If there is none, or it cannot be read.
pub(crate) fn read_config(run: &Path) -> Result<Config> {
    let path = run.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    toml::from_str(&text).map_err(|error| Error::content(&path, error.to_string()))
}

/// A file that is appended to, with its path for errors.
struct GrowingFile {
    path: PathBuf,
    file: File,
}

/// The mean of a loss that not every training has.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    steps: u32,
}

impl Mean {
    fn add(&mut self, loss: Option<f64>) {
        if let Some(loss) = loss {
            (self.sum, self.steps) = (self.sum + loss, self.steps + 1);
        }
    }

    /// The mean since the last call, if any loss was added.
    fn take(&mut self) -> Option<f64> {
        let Mean { sum, steps } = std::mem::take(self);
        (steps > 0).then(|| sum / f64::from(steps))
    }
}

/// The files of a run folder that grow.
pub(crate) struct Journal {
    metrics: GrowingFile,
    log: GrowingFile,
    /// For TensorBoard, if that is wanted.
    events: Option<Events>,
    /// Loss and impressions since the last line.
    loss_sum: f64,
    impressions: u64,
    /// The steps' auxiliary losses.
    in_batch: Mean,
    contrastive: Mean,
    last: Option<StepReport>,
    /// Mean loss of the last line.
    loss: Option<f64>,
}

impl Journal {
    /// Opens the journal of a run that goes on after the step `goes_on`, or of a new one, trained
    /// by a job of `size`.
    ///
    /// # Errors
    /// If something cannot be written.
    pub(crate) fn open(
        run: &Path,
        goes_on: Option<u64>,
        trainer: &Trainer,
        size: JobSize,
    ) -> Result<Journal> {
        fs::create_dir_all(run).map_err(Error::io(run))?;
        if let Some(step) = goes_on {
            forget_after(&run.join(METRICS), step)?;
        }
        if !run.join(CONFIG).exists() {
            write_new(&run.join(CONFIG), &to_toml(trainer.config(), run)?)?;
        }
        let environment = environment(trainer, size);
        write_new(&run.join(ENVIRONMENT), &environment)?;
        let mut journal = Journal {
            metrics: GrowingFile::open(run.join(METRICS))?,
            log: GrowingFile::open(run.join(LOG))?,
            events: match trainer.config().train.tensorboard {
                true => Some(Events::open(run, goes_on)?),
                false => None,
            },
            loss_sum: 0.0,
            impressions: 0,
            in_batch: Mean::default(),
            contrastive: Mean::default(),
            last: None,
            loss: None,
        };
        let (step, steps) = (goes_on.unwrap_or(0), trainer.steps());
        let JobSize { processes, threads } = size;
        journal.log(&format!(
            "start at step {step} of {steps} on {processes} processes of {threads} threads"
        ))?;
        Ok(journal)
    }

    /// Mean loss of the last line.
    pub(crate) fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// Takes note of a step.
    pub(crate) fn step(&mut self, report: &StepReport) {
        self.loss_sum += report.loss * report.impressions as f64;
        self.impressions += report.impressions;
        self.in_batch.add(report.in_batch);
        self.contrastive.add(report.contrastive);
        self.last = Some(*report);
    }

    /// Writes a line about the steps since the one before, if there were any.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn line(&mut self, seconds: f64, costs: Costs) -> Result<()> {
        let Costs { per_step, rows, stages_ms } = costs;
        let Some(report) = self.last.filter(|_| self.impressions > 0) else { return Ok(()) };
        let loss = self.loss_sum / self.impressions as f64;
        self.loss = Some(loss);
        let line = MetricsLine {
            step: report.cursor.step,
            epoch: report.cursor.epoch,
            impressions: report.cursor.impressions,
            loss,
            in_batch_loss: self.in_batch.take(),
            contrastive_loss: self.contrastive.take(),
            learning_rate: report.learning_rate,
            phase: report.phase,
            seconds,
            per_step,
            rows,
            stages_ms,
        };
        (self.loss_sum, self.impressions) = (0.0, 0);
        self.append(&line)?;
        let rows_rate = f64::from(report.rows_learning_rate);
        let mut scalars = vec![
            Scalar { name: "train/loss", value: loss },
            Scalar { name: "train/learning_rate", value: f64::from(line.learning_rate) },
            Scalar { name: "train/rows_learning_rate", value: rows_rate },
        ];
        let phase = |phase| Scalar { name: "train/phase", value: f64::from(phase) };
        scalars.extend(line.phase.map(phase));
        scalars.extend(line.rows.iter().flat_map(of_rows));
        self.event(line.step, &scalars)
    }

    /// Writes a line about the samples held out, as `trainer` stands.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn validation(&mut self, trainer: &Trainer, validation: Validation) -> Result<()> {
        let Cursor { step, epoch, .. } = trainer.cursor();
        let (taken, epochs) = (trainer.epochs_taken(), trainer.config().train.epochs);
        self.append(&ValidationLine { step, epoch, phase: trainer.phase(), validation })?;
        let metrics = [
            ("validation/gauc", validation.gauc),
            ("validation/auc", validation.auc),
            ("validation/logloss", validation.logloss),
        ];
        let scalar =
            |(name, value): (&'static str, Option<f64>)| Some(Scalar { name, value: value? });
        let scalars: Vec<Scalar> = metrics.into_iter().filter_map(scalar).collect();
        self.event(step, &scalars)?;
        let of =
            |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.6}"));
        self.log(&format!(
            "step {step}, validation after {} of {epochs} epochs: GAUC {}, AUC {}, log loss {}",
            two_decimals(taken),
            of(validation.gauc),
            of(validation.auc),
            of(validation.logloss)
        ))
    }

    /// Appends an event for TensorBoard.
    fn event(&mut self, step: u64, scalars: &[Scalar]) -> Result<()> {
        self.events.as_mut().map_or(Ok(()), |events| events.add(step, scalars))
    }

    /// Appends a line to the metrics.
    fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line).expect("a line of numbers is JSON");
        // One write: a process killed here leaves at most one line that is cut short.
        let written = self.metrics.file.write_all(format!("{text}\n").as_bytes());
        written.map_err(Error::io(&self.metrics.path))
    }

    /// Logs that a phase begins where `trainer` stands, if it has phases.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn phase(&mut self, trainer: &Trainer) -> Result<()> {
        let step = trainer.cursor().step;
        let phases = &trainer.config().train.phases;
        let before = if step == 0 { Some(0) } else { trainer.phase() };
        let next = before.and_then(|before| Some((before + 1, phases.get(before as usize)?)));
        let Some((number, phase)) = next else { return Ok(()) };
        let learns: Vec<&str> = phase.learns.iter().map(|part| part.as_str()).collect();
        self.log(&format!(
            "phase {number} of {} begins after step {step}: {} epochs of {}",
            phases.len(),
            phase.epochs,
            learns.join(", ")
        ))
    }

    /// Logs where the process ended.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn end(&mut self, step: u64, seconds: f64) -> Result<()> {
        let loss = self.loss.map_or("none".to_owned(), |loss| format!("{loss:.6}"));
        self.log(&format!("step {step}, loss {loss}, {seconds:.1} s"))
    }

    /// Appends a line to the log.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn log(&mut self, text: &str) -> Result<()> {
        writeln!(self.log.file, "{text}").map_err(Error::io(&self.log.path))
    }
}

/// For TensorBoard.
fn of_rows(rows: &RowCounts) -> [Scalar; 6] {
    let [all, bytes, largest, admitted, by_days, by_bytes] = rows.numbers();
    let scalars = [
        ("rows/rows", all),
        ("rows/bytes", bytes),
        ("rows/largest_lane_bytes", largest),
        ("rows/admitted", admitted),
        ("rows/evicted_by_days", by_days),
        ("rows/evicted_by_bytes", by_bytes),
    ];
    scalars.map(|(name, value)| Scalar { name, value: value as f64 })
}

/// `epochs` with at most two decimals.
pub fn two_decimals(epochs: f64) -> f64 {
    (epochs * 100.0).round() / 100.0
}

/// Removes the lines of steps after `step` from the metrics: a process that was killed wrote them,
/// and this one will take those steps again.
fn forget_after(metrics: &Path, step: u64) -> Result<()> {
    let text = match fs::read_to_string(metrics) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(Error::io(metrics))?,
    };
    let stays =
        |text: &&str| serde_json::from_str::<Line>(text).is_ok_and(|line| line.step <= step);
    let kept: Vec<&str> = text.lines().filter(stays).collect();
    let end = if kept.is_empty() { "" } else { "\n" };
    write_new(metrics, &(kept.join("\n") + end))
}

impl GrowingFile {
    fn open(path: PathBuf) -> Result<GrowingFile> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(Error::io(&path)).map(|file| GrowingFile { path, file })
    }
}

fn write_new(path: &Path, text: &str) -> Result<()> {
    ams_data::staging::write_whole(path, text).map_err(Error::from)
}

fn to_toml(config: &Config, run: &Path) -> Result<String> {
    toml::to_string(config).map_err(|error| Error::content(run.join(CONFIG), error.to_string()))
}

fn environment(trainer: &Trainer, size: JobSize) -> String {
    let source = trainer.lanes().network.spec.image_source.as_ref();
    let environment = serde_json::json!({
        "ams": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "processor": std::env::consts::ARCH,
        "processes": size.processes,
        "threads": size.threads,
        "lanes": trainer.config().train.lanes,
        "steps": trainer.steps(),
        "dataset": trainer.dataset().card(),
        "images": source,
    });
    format!("{environment:#}\n")
}
