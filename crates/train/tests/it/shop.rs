//! The shop all tests share, small models of it, and trainings as a test needs them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ams_data::dataset::Dataset;
use ams_data::prepare::{Columns, Existing, FieldColumn, Inputs, PrepareOptions, SplitBy, plan};
use ams_data::source::{TableOptions, open};
use ams_data::synth::{ShopConfig, generate};
use ams_fabric::{Fabric, ThreadFabric};
use ams_image::SemanticIds;
use ams_image::builtin::Builtin;
use ams_image::encode::{EncodeOptions, encode};
use ams_train::run::{self, Next, RunReport, Start};
use ams_train::settings::{
    AlignConfig, DataConfig, ModelConfig, NetworkSettings, Normalize, Placement, ProjectionConfig,
    TrainConfig, Whiten,
};
use ams_train::step::traffic::Counts;
use ams_train::{Config, Error, Job, PublishSettings, StepReport, Trainer};
use tempfile::TempDir;

/// A projection as one would set it.
pub(super) const HALF_WHITENED: ProjectionConfig =
    ProjectionConfig { components: 16, whiten: Whiten::Half, normalize: Normalize::Rows };

/// Every placement.
pub(super) const PLACEMENTS: [Placement; 3] =
    [Placement::Ams, Placement::StoreInServer, Placement::StoreInWorker];

/// The prepared and encoded shop all tests share.
pub(super) fn shop() -> &'static Path {
    static SHOP: OnceLock<TempDir> = OnceLock::new();
    let folder = SHOP.get_or_init(|| {
        let program = std::env::current_exe().expect("a test is a program");
        let beside = program.with_file_name("tmp");
        std::fs::create_dir_all(&beside).expect("target/ can be written to");
        let folder = TempDir::new_in(beside).expect("a temporary folder");
        make_shop(folder.path());
        folder
    });
    // A static is never dropped; what stays is below target/.
    folder.path()
}

fn make_shop(folder: &Path) {
    make_shop_of(&ShopConfig::tiny(), folder);
}

/// Makes a shop, with its dataset and its features, in `folder`.
pub(super) fn make_shop_of(config: &ShopConfig, folder: &Path) {
    let shop = folder.join("shop");
    let made = generate(config, &shop, &mut |_| ()).expect("a shop");
    let tables = TableOptions::default();
    let inputs = Inputs {
        events: open(&shop.join("events.parquet"), &tables).expect("events"),
        items: Some(open(&shop.join("items.csv"), &tables).expect("items")),
        users: None,
    };
    let fields =
        |names: &[&str]| Some(names.iter().map(|name| name.parse().expect("a field")).collect());
    let options = PrepareOptions {
        split: SplitBy::TestFrom(made.test_from.to_string()),
        columns: Columns {
            user_fields: fields(&["gender", "age"]) as Option<Vec<FieldColumn>>,
            item_fields: fields(&["category", "brand"]),
            context_fields: fields(&["hour"]),
            ..Columns::default()
        },
        ..PrepareOptions::default()
    };
    let data = folder.join("data");
    plan(inputs, options)
        .and_then(|plan| plan.run(&data, Existing::Refuse, &mut |_| ()))
        .expect("a dataset");
    let dataset = Dataset::open(&data).expect("a dataset");
    let catalogue = ams_data::catalogue::Catalogue::open(&dataset).expect("a catalogue");
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row)).map(str::to_owned);
    let encoder = Builtin::new(64, 1).expect("an encoder");
    let go_on = |_: &ams_image::encode::Progress| std::ops::ControlFlow::Continue(());
    let mut options = EncodeOptions::new(&shop, data.join("images"));
    options.semantic_ids = Some(SemanticIds::Of { levels: 8, size: 6 });
    encode(&options, names, &encoder, &mut { go_on }).expect("features");
}

/// A copy of the shop's dataset, with its features, in `place`: to be changed.
pub(super) fn copy_of_shop(place: &Path) -> PathBuf {
    copy_folder(&shop().join("data"), place);
    place.to_path_buf()
}

/// Copies a folder with all that is in it.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        match from.is_dir() {
            true => copy_folder(&from, &to),
            false => drop(std::fs::copy(&from, &to).unwrap()),
        }
    }
}

/// A small joint model below `runs`.
pub(super) fn config(runs: &Path) -> Config {
    Config {
        name: "run".to_owned(),
        seed: 7,
        runs: runs.to_path_buf(),
        data: DataConfig {
            samples: shop().join("data"),
            images: None,
            shuffle_images: None,
            exclude_fields: Vec::new(),
            contents: Vec::new(),
        },
        model: ModelConfig { tower: vec![16, 12], ..ModelConfig::default() },
        train: TrainConfig { epochs: 2, batch: 128, ..TrainConfig::default() },
        align: None,
    }
}

/// Likewise, narrow and in larger steps: for what does not depend on widths.
pub(super) fn narrow(runs: &Path) -> Config {
    let config = config(runs);
    let network = NetworkSettings { mlp: vec![16, 8], attention: [8, 4], ..config.model.network };
    Config {
        model: ModelConfig { network, ..config.model },
        train: TrainConfig { batch: 256, log_every: 1, ..config.train },
        ..config
    }
}

/// An alignment of few steps.
pub(super) fn short_alignment() -> AlignConfig {
    AlignConfig {
        components: Some(24),
        width: Some(12),
        steps: 12,
        batch: 40,
        window: 4,
        evaluate_every: 4,
        ..AlignConfig::default()
    }
}

/// Trains to the end, publishes, and returns the bundle's folder and hash.
pub(super) fn publish(config: &Config, threads: usize) -> (PathBuf, String) {
    let go_on = &mut |_: &_, _| Next::GoOn;
    let report = run::train(config, Start::Fresh, Job::solo(threads), go_on).expect("a run");
    assert!(report.finished);
    publish_run(&report.run, threads)
}

/// Publishes a run that is trained, on one process.
pub(super) fn publish_run(run: &Path, threads: usize) -> (PathBuf, String) {
    let mut trainer = run::open(run, Job::solo(threads)).expect("a finished run");
    let place = run.join("bundle/1");
    let published = ams_train::publish(&mut trainer, &place, &[], &PublishSettings::default());
    let manifest = published.expect("a bundle").manifest;
    (place, manifest.hash())
}

/// The hash of what [`narrow`] publishes if nothing disturbs it.
pub(super) fn undisturbed() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| publish(&narrow(TempDir::new().unwrap().path()), 1).1)
}

/// How a training ended on each of `size` processes that are threads. `wish` hears rank and step.
pub(super) fn train(
    config: &Config,
    start: Start,
    (size, threads): (usize, usize),
    wish: impl Fn(usize, u64) -> Next + Sync,
) -> Vec<Result<RunReport, Error>> {
    ThreadFabric::run(size, |fabric| {
        let rank = fabric.rank();
        let watch = &mut |report: &StepReport, _| wish(rank, report.cursor.step);
        run::train(config, start, Job::of(fabric, threads), watch)
    })
}

/// For [`train`]: to the end.
pub(super) fn go_on(_: usize, _: u64) -> Next {
    Next::GoOn
}

/// For [`train`]: until `step`, which only rank `rank` wishes.
pub(super) fn stop_at(step: u64, rank: usize) -> impl Fn(usize, u64) -> Next + Sync {
    move |here, at| if (here, at) == (rank, step) { Next::Stop } else { Next::GoOn }
}

/// The only error of a job of one.
pub(super) fn refusal(config: &Config, start: Start) -> String {
    train(config, start, (1, 1), go_on).remove(0).expect_err("refused").to_string()
}

/// What a training in memory came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trained {
    /// Every step.
    pub steps: Vec<StepReport>,
    /// The dense weights in the end, as bits.
    pub dense: Vec<u32>,
    /// What a step did and sent.
    pub per_step: Counts,
}

impl Trained {
    /// The loss of every step, as bits.
    pub(super) fn loss_bits(&self) -> Vec<u64> {
        self.steps.iter().map(|step| step.loss.to_bits()).collect()
    }
}

/// Trains `config` to the end in memory, on `size` processes that are threads and agree in the end.
pub(super) fn train_in_memory(config: &Config, size: usize) -> Trained {
    let mut ranks = ThreadFabric::run(size, |fabric| {
        let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).expect("a rank");
        let steps = remaining_steps(&mut trainer);
        let per_step = trainer.lanes_mut().take_counts().expect("counts");
        let dense = trainer.lanes().dense.w.iter().map(|w| w.to_bits()).collect();
        Trained { steps, dense, per_step }
    });
    let first = ranks.remove(0);
    assert!(ranks.iter().all(|rank| *rank == first), "ranks of one job agree");
    first
}

/// Every step that is left.
pub(super) fn remaining_steps(trainer: &mut Trainer) -> Vec<StepReport> {
    std::iter::from_fn(|| trainer.step().expect("a step")).collect()
}
