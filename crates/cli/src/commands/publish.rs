//! `ams publish`: freeze a run into a bundle.

use std::path::{Path, PathBuf};

use ams_bundle::request::{Behaviors, Candidates, Cell, PageView, Text, User};
use ams_bundle::{Model, RowFormat, next_version};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::{TextGroup, TextItem, Texts, read_texts};
use ams_location::{Locations, is_remote, local};
use ams_train::run;
use ams_train::{Job, Trainer};
use serde::Serialize;

use crate::failure::Failure;
use crate::launch::threads;
use crate::output::Output;
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
    /// How embedding rows are kept: half the memory, for scores that differ a little.
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    rows: Rows,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// How rows are kept.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Rows {
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

/// The object that `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Published {
    /// The version folder of the published bundle.
    pub path: PathBuf,
    pub version: u64,
    /// blake3 over its files: equal bits, equal hash.
    pub hash: String,
}

pub(crate) fn run(
    arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let mut trainer =
        run::open(&locations.input(&arguments.run)?, Job::solo(threads(arguments.threads)))?;
    let rows = arguments.rows.into();
    let name = arguments.name.unwrap_or_else(|| trainer.config().name.clone());
    let model = arguments.to.join(name);
    let published = if is_remote(&model) {
        let version = locations.versions(&model)?.last().map_or(1, |last| last + 1);
        let path = model.join(version.to_string());
        let place = locations.destination(&path, false)?;
        let published = publish_as(&mut trainer, place.local(), version, rows)?;
        place.publish()?;
        Published { path, ..published }
    } else {
        let model = local(&model)?;
        let version = next_version(&model)?;
        publish_as(&mut trainer, &model.join(version.to_string()), version, rows)?
    };
    output.finish(&published, || {
        format!("published {}, hash {}\n", published.path.display(), published.hash)
    });
    Ok(())
}

/// Publishes `run` as the new folder `path`, a version.
pub(crate) fn publish_version(
    run: &Path,
    path: &Path,
    version: u64,
    threads: usize,
) -> Result<Published, Failure> {
    let mut trainer = run::open(run, Job::solo(threads))?;
    publish_as(&mut trainer, path, version, RowFormat::F32)
}

/// Publishes the next version of `model`, a folder.
pub(crate) fn publish(trainer: &mut Trainer, model: &Path) -> Result<Published, Failure> {
    let version = next_version(model)?;
    publish_as(trainer, &model.join(version.to_string()), version, RowFormat::F32)
}

/// Freezes a run in a temporary folder, which is gone with the first part, and opens it.
pub(crate) fn frozen(trainer: &mut Trainer) -> Result<(tempfile::TempDir, Model), Failure> {
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::user(format!("no temporary folder to freeze the run in: {error}"))
    })?;
    let path = folder.path().join("1");
    publish_as(trainer, &path, 1, RowFormat::F32)?;
    let model = Model::open(&path)?;
    Ok((folder, model))
}

/// Publishes as the new folder `path`.
fn publish_as(
    trainer: &mut Trainer,
    path: &Path,
    version: u64,
    rows: RowFormat,
) -> Result<Published, Failure> {
    let samples = samples(trainer.dataset())?;
    let manifest = ams_train::publish(trainer, path, &samples, rows)?;
    Ok(Published { path: path.to_path_buf(), version, hash: manifest.hash() })
}

/// Page views of the test as requests: the first of each part that has a history to look at.
fn samples(dataset: &Dataset) -> Result<Vec<PageView>, Failure> {
    let mut pages = Vec::new();
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Test, part);
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
