//! The file of `ams train --follow`.

use std::path::{Path, PathBuf};

use ams_bundle::LONGEST_CHAIN;
use ams_daily::MOST_REMEMBERED;
use ams_data::prepare::Spans;
use ams_location::Locations;
use ams_train::CurveKind;
use ams_train::settings::Config;
use serde::Deserialize;
use toml::Table;

use crate::commands::daily::config::{check_decided, check_name, publication};
use crate::commands::versions::PublishAs;
use crate::config_file::{self, Settings};
use crate::failure::Failure;

/// How a model follows a log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FollowConfig {
    /// Name of the model; its versions are folders of `models/name`.
    pub(super) name: String,
    /// The folder that holds the models.
    pub(super) models: PathBuf,
    /// The folder for what windows leave: datasets, runs, rows that wait, `state.json`.
    pub(super) work: PathBuf,
    /// The configuration of the first training; `name`, `runs` and the places of the data are set.
    pub(super) train: PathBuf,
    /// Minutes of a window, by the time of the events; each window is a version.
    #[serde(default = "five")]
    pub(super) every_minutes: u32,
    /// How much later than the end of a window an event has to be for the window to end.
    #[serde(default = "thirty")]
    pub(super) lateness_seconds: u32,
    /// How much later than all events before it an event may be.
    #[serde(default = "hundred_and_twenty")]
    pub(super) jump_minutes: u32,
    /// Days after which the history of a user is forgotten who clicked nothing since; never unless
    /// given.
    pub(super) history_days: Option<u32>,
    /// Seconds between two looks at the folder.
    #[serde(default = "one")]
    pub(super) poll_seconds: f64,
    /// Versions that are kept.
    #[serde(default = "three")]
    pub(super) keep: usize,
    /// How a version is published.
    #[serde(default)]
    pub(super) publish_as: PublishAs,
    /// Where versions are published as deltas: every so many, one is whole.
    #[serde(default = "seven")]
    pub(super) whole_every: usize,
    /// Flags of `ams prepare`, without those that say which days; `events` is the log before.
    pub(super) prepare: Table,
    /// Flags of `ams encode`; without them there are no pictures.
    pub(super) encode: Option<Table>,
    /// Flags of `ams publish` that say how rows are kept, and what part of the log came.
    #[serde(default)]
    pub(super) publish: Table,
}

fn five() -> u32 {
    5
}

fn thirty() -> u32 {
    30
}

fn hundred_and_twenty() -> u32 {
    120
}

fn one() -> f64 {
    1.0
}

fn three() -> usize {
    3
}

fn seven() -> usize {
    7
}

impl Settings for FollowConfig {}

impl FollowConfig {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// If it is not readable, or a key or a value of it is wrong.
    pub(super) fn read(path: &Path, sets: &[String]) -> Result<FollowConfig, Failure> {
        let config: FollowConfig = config_file::read(path, sets)?;
        let checked = config.check();
        checked.map_err(|what| Failure::user(format!("{}: {what}", path.display())))?;
        if publication(&config.publish)?.calibration.curve != CurveKind::None {
            return Err(Failure::user(format!(
                "{}: publish.calibrate fits a curve to samples that are held out, and a model that follows a log \
                 learns from all; leave it out",
                path.display()
            )));
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        let limits: [(&str, u32, u32); 2] = [
            ("every_minutes", self.every_minutes, 1440),
            ("jump_minutes", self.jump_minutes, 5_256_000),
        ];
        for (name, value, most) in limits {
            if !(1..=most).contains(&value) {
                return Err(format!("{name} is {value}, expected 1 to {most}"));
            }
        }
        if self.history_days == Some(0) {
            return Err("history_days is 0, expected at least 1".to_owned());
        }
        if !(0.01..=3600.0).contains(&self.poll_seconds) {
            return Err(format!("poll_seconds is {}, expected 0.01 to 3600", self.poll_seconds));
        }
        if self.keep < 2 {
            return Err(format!(
                "keep is {}, expected at least 2: the version that serves and the one before it",
                self.keep
            ));
        }
        if !(1..=LONGEST_CHAIN).contains(&self.whole_every) {
            let every = self.whole_every;
            return Err(format!("whole_every is {every}, expected 1 to {LONGEST_CHAIN}"));
        }
        // Of a version that is forgotten it is not known that it may be removed.
        let versions = self.keep.saturating_add(self.whole_every);
        if versions > MOST_REMEMBERED {
            return Err(format!(
                "keep and whole_every are {} and {}, expected at most {MOST_REMEMBERED} together",
                self.keep, self.whole_every
            ));
        }
        check_decided("the log that is followed", &self.prepare, self.encode.as_ref())
    }

    /// That trainings of this kind can go on from window to window.
    ///
    /// # Errors
    /// If their configuration is wrong, or needs the whole log.
    pub(super) fn check_train(&self, locations: &Locations) -> Result<(), Failure> {
        let sets = ["name=\"follow\"".to_owned(), "data.samples=\"data\"".to_owned()];
        let config: Config = config_file::read(&locations.input(&self.train)?, &sets)?;
        let lacks = if config.align.is_some() {
            "[align] makes another map for each training; leave it out"
        } else if config.train.min_occurrences > 1 && config.train.sketch_bytes.is_none() {
            "train.min_occurrences counts the samples of one training; set train.sketch_bytes beside it"
        } else {
            return Ok(());
        };
        Err(Failure::user(format!("{}: a log cannot be followed: {lacks}", self.train.display())))
    }

    /// How the log is cut.
    pub(super) fn spans(&self) -> Spans {
        Spans {
            length: 60 * i64::from(self.every_minutes),
            lateness: i64::from(self.lateness_seconds),
            jump: 60 * i64::from(self.jump_minutes),
        }
    }
}
