//! What a run folder says of its training, as far as its files are there and can be read.
//!
//! For reports: nothing here opens a dataset or a checkpoint, so a run whose data are gone, or that
//! never ended, has a record too.

use std::fs;
use std::path::{Path, PathBuf};

use ams_bundle::ImageSource;
use ams_data::Card;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::run::ended::Ended;
use crate::run::journal::{MetricsLine, ValidationLine, read_config};
use crate::run::layout::{ADMITTED, CHECKPOINTS, CHOICE, CONFIG, ENDED, ENVIRONMENT, METRICS};
use crate::run::report::Choice;
use crate::settings::Config;
use crate::step::frequency::FieldIds;

/// The files of a run folder that describe its training.
#[derive(Clone, Debug)]
pub struct Record {
    /// Path of the run folder.
    pub run: PathBuf,
    /// The configuration with all of its defaults.
    pub config: Config,
    /// The same as its file spells it.
    pub toml: String,
    /// Program, dataset and image features of the training; none if the file is missing or of
    /// another version.
    pub environment: Option<Environment>,
    /// Lines of `metrics.jsonl` about steps, in their order.
    pub steps: Vec<MetricsLine>,
    /// Lines of `metrics.jsonl` about the users held out, in their order.
    pub validations: Vec<ValidationLine>,
    /// Lines of `metrics.jsonl` that are neither; a killed process leaves at most one.
    pub unreadable_lines: u64,
    /// Step of the newest checkpoint, if there is one.
    pub checkpoint: Option<u64>,
    /// With early stop, the step whose checkpoint is the result of the ended training.
    pub result: Option<u64>,
    /// Ids of each field and those that were admitted; empty without `train.min_occurrences`, and
    /// in runs that did not come to an end or are of before 0.2.0.
    pub admitted: Vec<FieldIds>,
    /// With `train.refit`, the trainings before this one.
    pub choice: Option<Choice>,
}

/// What a training ran on, without the facts of a machine.
#[derive(Clone, Debug, Deserialize)]
pub struct Environment {
    /// Version of the program.
    pub ams: String,
    /// Number of lanes, over all processes.
    pub lanes: usize,
    /// Steps of the whole training, if validation does not end it early; none in runs of before
    /// 0.2.0.
    #[serde(default)]
    pub steps: Option<u64>,
    /// Card of the dataset.
    pub dataset: Card,
    /// Encoder of the image features; none without images.
    pub images: Option<ImageSource>,
}

impl Record {
    /// Reads the record of the run folder `run`.
    ///
    /// # Errors
    /// If it has no `config.toml`, or this cannot be read.
    pub fn read(run: &Path) -> Result<Record> {
        if !run.join(CONFIG).exists() {
            return Err(Error::content(run, "is not a run folder: it has no config.toml"));
        }
        let config = read_config(run)?;
        let path = run.join(CONFIG);
        let toml = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let mut record = Record {
            run: run.to_path_buf(),
            config,
            toml,
            environment: json(&run.join(ENVIRONMENT)),
            steps: Vec::new(),
            validations: Vec::new(),
            unreadable_lines: 0,
            checkpoint: checkpoint::list(&run.join(CHECKPOINTS))?.last().map(|(step, _)| *step),
            result: json::<Ended>(&run.join(ENDED)).map(|ended| ended.result),
            admitted: json(&run.join(ADMITTED)).unwrap_or_default(),
            choice: json(&run.join(CHOICE)),
        };
        if record.config.train.min_occurrences <= 1 {
            // Of a training that was replaced.
            record.admitted.clear();
        }
        let metrics = fs::read(run.join(METRICS)).unwrap_or_default();
        String::from_utf8_lossy(&metrics).lines().for_each(|line| record.line(line));
        Ok(record)
    }

    /// The last step that the run has a trace of; 0 without any.
    pub fn last_step(&self) -> u64 {
        let logged = self.steps.last().map_or(0, |line| line.step);
        logged.max(self.checkpoint.unwrap_or(0))
    }

    /// Whether the training came to its end; none if the files do not tell.
    pub fn finished(&self) -> Option<bool> {
        let steps = self.environment.as_ref().and_then(|environment| environment.steps);
        let all_taken = steps.map(|steps| self.last_step() >= steps);
        if self.result.is_some() { Some(true) } else { all_taken }
    }

    /// Takes over a line of `metrics.jsonl`.
    fn line(&mut self, text: &str) {
        if let Ok(line) = serde_json::from_str(text) {
            self.steps.push(line);
        } else if let Ok(line) = serde_json::from_str(text) {
            self.validations.push(line);
        } else {
            self.unreadable_lines += 1;
        }
    }
}

/// The JSON file `path` as a `T`; none if it is missing or something else.
fn json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}
