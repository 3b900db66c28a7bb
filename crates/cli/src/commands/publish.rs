//! `ams publish`: freeze a run into a bundle.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ams_bundle::request::{Behaviors, Candidates, Cell, PageView, Text, User};
use ams_bundle::{Model, RowFormat, Sampling, next_version};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::{TextGroup, TextItem, Texts, read_texts};
use ams_location::{Locations, is_remote, local};
use ams_train::run;
use ams_train::{BeforeAndAfter, CalibrationReport, CalibrationSettings, CurveKind, Figures};
use ams_train::{FittedTo, Job, Pictures, PublishSettings, Shown, Trainer};
use clap::{Args, FromArgMatches};
use serde::Serialize;

use crate::failure::Failure;
use crate::launch::threads;
use crate::locations::{run_here, solo};
use crate::output::{Output, count, metric, table};
use crate::threads::thread_count;

/// Example requests a bundle carries.
const SAMPLES: usize = 8;

/// Freeze a run into a bundle: the next version of a model.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of a finished run, as `ams train` writes it.
    run: PathBuf,
    /// The folder that holds the models.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The model's name; the run's unless given.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    manner: Manner,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// What a bundle is like, beside what its run says.
#[derive(Debug, clap::Args)]
pub(crate) struct Manner {
    /// How embedding rows are kept: half the memory, for scores that differ a little.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    rows: Rows,
    /// Keep pictures of the feature store that no item of the dataset has, too.
    #[arg(long)]
    all_pictures: bool,
    /// The curve that calibrates rates: a line of logits, or the isotonic regression; clicks of
    /// samples that the run has not learned from decide it.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = CurveName::None)]
    calibrate: CurveName,
    /// The samples that the curve is fitted to, held-out unless given. The test does not judge a
    /// model that was fitted to it.
    #[arg(long, value_name = "SAMPLES", value_enum)]
    calibrate_on: Option<SamplesName>,
    /// Share of the log's impressions without a click that the dataset holds, if a part was left
    /// out: rates become those of the log.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = negative_rate)]
    negative_rate: f64,
    /// How often the dataset holds each click of the log, if clicks were repeated: likewise.
    #[arg(long, value_name = "TIMES", default_value_t = 1.0, value_parser = click_weight)]
    click_weight: f64,
    /// The column of the dataset's impressions that has their bids, a field or not: the figures of
    /// a calibration are then also of what is shown by eCPM, instead of by rate.
    #[arg(long, value_name = "COLUMN")]
    bids: Option<String>,
}

/// How rows are kept.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Rows {
    /// As they were learned.
    F32,
    /// Rows rounded to 16-bit floats.
    F16,
}

impl From<Rows> for RowFormat {
    fn from(rows: Rows) -> RowFormat {
        match rows {
            Rows::F32 => RowFormat::F32,
            Rows::F16 => RowFormat::F16,
        }
    }
}

/// The curve of a calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum CurveName {
    /// Rates are those of the network.
    None,
    /// slope * logit + intercept.
    Platt,
    /// Lines between the levels of the isotonic regression.
    Isotonic,
}

/// The samples of a calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SamplesName {
    /// Those that the training held out.
    HeldOut,
    /// Those of the test.
    Test,
}

/// What the flags of [`Manner`] mean.
///
/// # Errors
/// If one of them is none, or its value is wrong.
pub(crate) fn publication(flags: &[OsString]) -> Result<PublishSettings, Failure> {
    let command = Manner::augment_args(clap::Command::new("publish").no_binary_name(true));
    let manner = command.try_get_matches_from(flags);
    let manner = manner.and_then(|matches| Manner::from_arg_matches(&matches));
    manner.map_err(|error| Failure::user(error.render().to_string()))?.publication()
}

impl Manner {
    fn publication(&self) -> Result<PublishSettings, Failure> {
        let pictures = if self.all_pictures { Pictures::All } else { Pictures::OfItems };
        Ok(PublishSettings { rows: self.rows.into(), pictures, calibration: self.calibration()? })
    }

    /// How rates are calibrated.
    ///
    /// # Errors
    /// If samples are named that nothing is done with.
    fn calibration(&self) -> Result<CalibrationSettings, Failure> {
        let settings = CalibrationSettings {
            curve: match self.calibrate {
                CurveName::None => CurveKind::None,
                CurveName::Platt => CurveKind::Platt,
                CurveName::Isotonic => CurveKind::Isotonic,
            },
            fitted_to: match self.calibrate_on {
                None | Some(SamplesName::HeldOut) => FittedTo::HeldOut,
                Some(SamplesName::Test) => FittedTo::Test,
            },
            sampling: Sampling {
                negative_rate: self.negative_rate,
                click_weight: self.click_weight,
            },
            bids: self.bids.clone(),
        };
        let without_use =
            [("--calibrate-on", self.calibrate_on.is_some()), ("--bids", self.bids.is_some())];
        if let Some((flag, _)) = without_use.into_iter().find(|(_, is_given)| *is_given)
            && !settings.is_any()
        {
            return Err(Failure::user(format!(
                "{flag}: nothing is calibrated; expected --calibrate platt or isotonic beside it, \
                 --negative-rate or --click-weight"
            )));
        }
        Ok(settings)
    }
}

/// Reads a number of [`Sampling`], of which `of` makes one.
fn of_sampling(text: &str, of: impl Fn(f64) -> Sampling) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    of(number).check().map(|()| number)
}

fn negative_rate(text: &str) -> Result<f64, String> {
    of_sampling(text, |negative_rate| Sampling { negative_rate, ..Sampling::default() })
}

fn click_weight(text: &str) -> Result<f64, String> {
    of_sampling(text, |click_weight| Sampling { click_weight, ..Sampling::default() })
}

/// The object that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Published {
    /// The version folder of the published bundle.
    pub path: PathBuf,
    pub version: u64,
    /// blake3 over its files: equal bits, equal hash.
    pub hash: String,
    /// Pictures of the feature store that no item of the dataset has, and the bundle leaves out.
    #[serde(skip_serializing_if = "is_zero")]
    pub pictures_left_out: u64,
    /// What a calibration changes, if there is one and samples to tell by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationReport>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let publication = arguments.manner.publication()?;
    let job = solo(locations, threads(arguments.threads));
    let mut trainer = run::open(&run_here(locations, &arguments.run)?, job)?;
    let name = arguments.name.unwrap_or_else(|| trainer.config().name.clone());
    let model = arguments.to.join(name);
    let published = if is_remote(&model) {
        let version = locations.versions(&model)?.last().map_or(1, |last| last + 1);
        let path = model.join(version.to_string());
        let place = locations.destination(&path, false)?;
        let published = publish_as(&mut trainer, place.local(), version, &publication)?;
        place.publish()?;
        Published { path, ..published }
    } else {
        let model = local(&model)?;
        let version = next_version(&model)?;
        publish_as(&mut trainer, &model.join(version.to_string()), version, &publication)?
    };
    output.finish(&published, || {
        let mut told = published.calibration.as_ref().map(calibration_text).unwrap_or_default();
        if published.pictures_left_out > 0 {
            told += &format!(
                "left out: {} pictures that no item of the dataset has\n",
                count(published.pictures_left_out)
            );
        }
        format!("{told}published {}, hash {}\n", published.path.display(), published.hash)
    });
    Ok(())
}

/// Publishes `run` as the new folder `path`, a version.
pub(crate) fn publish_version(
    run: &Path,
    path: &Path,
    version: u64,
    publication: &PublishSettings,
    job: Job,
) -> Result<Published, Failure> {
    let mut trainer = run::open(run, job)?;
    publish_as(&mut trainer, path, version, publication)
}

/// Publishes the next version of `model`, a folder.
pub(crate) fn publish(trainer: &mut Trainer, model: &Path) -> Result<Published, Failure> {
    let version = next_version(model)?;
    let path = model.join(version.to_string());
    publish_as(trainer, &path, version, &PublishSettings::default())
}

/// Freezes a run in a temporary folder, which is gone with the first part, and opens it.
pub(crate) fn frozen(trainer: &mut Trainer) -> Result<(tempfile::TempDir, Model), Failure> {
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::user(format!("no temporary folder to freeze the run in: {error}"))
    })?;
    let path = folder.path().join("1");
    publish_as(trainer, &path, 1, &PublishSettings::default())?;
    let model = Model::open(&path)?;
    Ok((folder, model))
}

/// Publishes as the new folder `path`.
fn publish_as(
    trainer: &mut Trainer,
    path: &Path,
    version: u64,
    settings: &PublishSettings,
) -> Result<Published, Failure> {
    let samples = samples(trainer.dataset())?;
    let ams_train::Published { manifest, calibration, pictures_left_out } =
        ams_train::publish(trainer, path, &samples, settings)?;
    let path = path.to_path_buf();
    Ok(Published { path, version, hash: manifest.hash(), pictures_left_out, calibration })
}

/// What a calibration changes, as a table.
fn calibration_text(report: &CalibrationReport) -> String {
    let row = |what: String, of: &Figures| {
        let interval = of.interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
        vec![
            what,
            count(of.impressions),
            format!("{:.4}", of.rates.predicted),
            format!("{:.4}", of.rates.clicked),
            metric(of.rates.calibration) + &interval.unwrap_or_default(),
            metric(Some(of.rates.logloss)),
            metric(Some(of.rates.ece)),
        ]
    };
    let shown = report.shown.iter().map(|Shown { top, figures }| {
        let what = if *top == 1 { "first of a group".to_owned() } else { format!("first {top}") };
        (what, figures)
    });
    let mut rows = Vec::new();
    for (what, BeforeAndAfter { before, after }) in
        std::iter::once(("all".to_owned(), &report.all)).chain(shown)
    {
        rows.push(row(format!("{what}, as learned"), before));
        rows.push(row(format!("{what}, calibrated"), after));
    }
    let columns =
        ["rates of", "impressions", "predicted", "clicked", "calibration", "log loss", "ECE"];
    let users = count(report.users);
    let samples = match report.fitted_to {
        FittedTo::HeldOut => format!("held out, of {users} users"),
        FittedTo::Test if report.curve == CurveKind::None => {
            format!("of the test, of {users} users")
        }
        FittedTo::Test => format!("of the test, of {users} users: judge this version by others"),
    };
    let how = match report.curve {
        CurveKind::None => "",
        CurveKind::Platt | CurveKind::Isotonic => {
            "; here the curve of one half of the users calibrates the other half"
        }
    };
    let order = match &report.bids {
        _ if report.shown.is_empty() => String::new(),
        None => "; the first are by rate, as with equal bids".to_owned(),
        Some(column) => format!("; the first are by rate times `{column}`"),
    };
    format!("{}on samples {samples}{how}{order}\n", table(&columns, &rows))
}

/// Page views of the test, or of the training without one, as requests: the first of each part that
/// has a history to look at.
fn samples(dataset: &Dataset) -> Result<Vec<PageView>, Failure> {
    let mut pages = Vec::new();
    let split = if dataset.card().counts.test > 0 { SplitName::Test } else { SplitName::Train };
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(split, part);
        if pages.len() == SAMPLES {
            break;
        }
        if path.exists() {
            let telling =
                |group: &TextGroup| group.behaviors.len() >= 3 && candidates(group).len() >= 3;
            let groups = read_texts(&path, dataset.schema(), 1, telling)?;
            pages.extend(groups.iter().map(page));
        }
    }
    Ok(pages)
}

/// The items of a group's first page: what was shown at its first instant, or, where a log has an
/// instant per impression, all of it. Each item once.
fn candidates(group: &TextGroup) -> Vec<&str> {
    let first = group.impressions.first().map(|first| first.time);
    let at_first = group.impressions.iter().take_while(|item| Some(item.time) == first).count();
    let shown = if at_first > 1 { at_first } else { group.impressions.len() };
    let mut items: Vec<&str> = Vec::with_capacity(shown);
    for item in &group.impressions[..shown] {
        if !items.contains(&&item.item[..]) {
            items.push(&item.item);
        }
    }
    items
}

/// A group of impressions, asked for as a page view.
pub(crate) fn page(group: &TextGroup) -> PageView {
    let features = |texts: &Texts| {
        let cell =
            |values: &Vec<String>| Cell::of(values.iter().map(|v| Text(v.clone())).collect());
        texts.iter().map(|(name, values)| (name.clone(), Some(cell(values)))).collect()
    };
    let items = |items: &[TextItem]| items.iter().map(|item| Text(item.item.clone())).collect();
    PageView {
        user: User {
            id: Some(Text(group.user.clone())),
            features: features(&group.fields),
            behaviors: Behaviors {
                item: items(&group.behaviors),
                time: Some(group.behaviors.iter().map(|item| Some(item.time)).collect()),
                ..Behaviors::default()
            },
        },
        time: group.impressions.first().map(|first| first.time),
        // One page view has one context: the first impression's.
        context: group
            .impressions
            .first()
            .map(|first| features(&first.context))
            .unwrap_or_default(),
        candidates: Candidates {
            item: candidates(group).into_iter().map(Text::from).collect(),
            ..Candidates::default()
        },
        ..PageView::default()
    }
}
