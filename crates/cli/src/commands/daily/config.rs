//! The file of `ams daily`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ams_bundle::LONGEST_CHAIN;
use ams_daily::{Gate, Sanity};
use ams_location::Locations;
use ams_train::settings::{Config, WarmParts};
use ams_train::{CurveKind, FittedTo, PublishSettings};
use clap::{Args, Command};
use serde::Deserialize;
use toml::Table;

use crate::commands::versions::PublishAs;
use crate::commands::{encode, prepare, publish};
use crate::config_file::{self, Settings};
use crate::failure::Failure;
use crate::settings::flags;

/// How a model is made anew every day.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DailyConfig {
    /// Name of the model; its versions are folders of `models/name`.
    pub(super) name: String,
    /// The folder that holds the models.
    pub(super) models: PathBuf,
    /// The folder for what days leave: datasets, runs, features, `state.json`.
    pub(super) work: PathBuf,
    /// The configuration of the trainings; `name`, `runs` and the places of the data are set.
    pub(super) train: PathBuf,
    /// Days that a training learns from, the newest; all unless given.
    pub(super) days: Option<u32>,
    /// Where the next day is not there yet, hours before the last event of the day itself that
    /// judge the model instead.
    #[serde(default = "six")]
    pub(super) judge_hours: f64,
    /// What a training takes over from that of the day whose version serves.
    #[serde(default)]
    pub(super) warm_start: WarmParts,
    /// Versions, and days, that are kept.
    #[serde(default = "three")]
    pub(super) keep: usize,
    /// How a version is published.
    #[serde(default)]
    pub(super) publish_as: PublishAs,
    /// Where versions are published as deltas: every so many, one is whole.
    #[serde(default = "seven")]
    pub(super) whole_every: usize,
    /// Flags of `ams prepare`, without those that say which days.
    pub(super) prepare: Table,
    /// Flags of `ams encode`; without them there are no pictures.
    pub(super) encode: Option<Table>,
    /// Flags of `ams publish` that say how rates are calibrated and rows are kept.
    #[serde(default)]
    pub(super) publish: Table,
    /// How much worse a new model may be.
    #[serde(default)]
    pub(super) gate: Gate,
    /// How far a day may be from the days before it.
    #[serde(default)]
    pub(super) sanity: Sanity,
}

fn seven() -> usize {
    7
}

fn six() -> f64 {
    6.0
}

fn three() -> usize {
    3
}

impl Settings for DailyConfig {}

/// Flags of `ams prepare` that a day decides.
const OF_DAYS: [&str; 9] = [
    "out",
    "check",
    "replace",
    "test_from",
    "test_fraction",
    "split",
    "until",
    "train_from",
    "hold_out_items",
];

/// The same of `ams encode`.
const OF_STORE: [&str; 5] = ["dataset", "list", "list_column", "out", "threads"];

/// That a model may be called `name`.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_name = !name.is_empty()
        && !name.starts_with('.')
        && Path::new(name).file_name() == Some(name.as_ref());
    if is_name { Ok(()) } else { Err(format!("name is {name:?}, expected the name of a folder")) }
}

/// That no flag is set that `what` decides.
pub(crate) fn check_decided(
    what: &str,
    prepare: &Table,
    encode: Option<&Table>,
) -> Result<(), String> {
    for (section, refused, table) in
        [("prepare", &OF_DAYS[..], Some(prepare)), ("encode", &OF_STORE, encode)]
    {
        let mut keys = table.into_iter().flat_map(Table::keys);
        let found = keys.find(|key| refused.contains(&key.replace('-', "_").as_str()));
        if let Some(key) = found {
            return Err(format!("{section}.{key}: {what} decides this; leave it out"));
        }
    }
    Ok(())
}

/// What `ams prepare` would be given.
pub(crate) fn prepare_flags(table: &Table) -> Result<Vec<OsString>, Failure> {
    let command = prepare::Arguments::augment_args(Command::new("prepare"));
    flags(&command, table, "prepare")
}

/// What `ams encode` would be given, if there are pictures.
pub(crate) fn encode_flags(table: Option<&Table>) -> Result<Option<Vec<OsString>>, Failure> {
    let command = encode::Arguments::augment_args(Command::new("encode"));
    table.map(|table| flags(&command, table, "encode")).transpose()
}

/// How a version is published that has the flags `table` of `ams publish`.
pub(crate) fn publication(table: &Table) -> Result<PublishSettings, Failure> {
    let command = publish::Manner::augment_args(Command::new("publish"));
    publish::publication(&flags(&command, table, "publish")?)
}

impl DailyConfig {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// If it is not readable, or a key or a value of it is wrong.
    pub(super) fn read(path: &Path, sets: &[String]) -> Result<DailyConfig, Failure> {
        let config: DailyConfig = config_file::read(path, sets)?;
        let checked = config.check();
        checked.map_err(|what| Failure::user(format!("{}: {what}", path.display())))?;
        if config.publication()?.calibration.fitted_to == FittedTo::Test {
            return Err(Failure::user(format!(
                "{}: publish.calibrate_on is \"test\", expected \"held-out\": the test judges the model, which a curve \
                 fitted to it would not stand",
                path.display()
            )));
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.gate.check()?;
        self.sanity.check()?;
        check_name(&self.name)?;
        if !(self.judge_hours > 0.0 && self.judge_hours < 24.0) {
            let hours = self.judge_hours;
            return Err(format!("judge_hours is {hours}, expected more than 0 and less than 24"));
        }
        if self.days == Some(0) {
            return Err("days is 0, expected at least 1".to_owned());
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
        check_decided("every day", &self.prepare, self.encode.as_ref())
    }

    /// That the trainings can be done day by day.
    ///
    /// # Errors
    /// If their configuration is wrong, or yesterday's weights may not fit today's model.
    pub(super) fn check_train(&self, locations: &Locations) -> Result<(), Failure> {
        let sets = ["name=\"daily\"".to_owned(), "data.samples=\"data\"".to_owned()];
        let config: Config = config_file::read(&locations.input(&self.train)?, &sets)?;
        if self.warm_start != WarmParts::None && config.train.candidates.len() > 1 {
            return Err(Failure::user(format!(
                "{}: train.candidates chooses between models of different shapes, which cannot begin with one another's \
                 weights; set warm_start = \"none\" beside `train`, or name one candidate",
                self.train.display()
            )));
        }
        let train = &config.train;
        let holds_out = train.validation_parts > 0 || train.validation_tail > 0.0;
        let is_curved = self.publication()?.calibration.curve != CurveKind::None;
        if is_curved && (train.refit || !holds_out) {
            return Err(Failure::user(format!(
                "{}: publish.calibrate fits a curve to samples that the training holds out, and it holds none out to its \
                 end; set train.validation_tail or train.validation_parts, without train.refit",
                self.train.display()
            )));
        }
        Ok(())
    }

    /// How a version is published.
    pub(super) fn publication(&self) -> Result<PublishSettings, Failure> {
        publication(&self.publish)
    }

    /// What `ams prepare` would be given.
    pub(super) fn prepare_flags(&self) -> Result<Vec<OsString>, Failure> {
        prepare_flags(&self.prepare)
    }

    /// What `ams encode` would be given, if there are pictures.
    pub(super) fn encode_flags(&self) -> Result<Option<Vec<OsString>>, Failure> {
        encode_flags(self.encode.as_ref())
    }
}
