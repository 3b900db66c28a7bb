//! Whole trainings on a tiny synthetic shop: bits, resuming, the scorer's agreement, refusals.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ams_bundle::{Model, Scratch};
use ams_data::Groups;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::prepare::{Columns, Existing, FieldColumn, Inputs, PrepareOptions, SplitBy, plan};
use ams_data::samples::SampleFile;
use ams_data::source::{TableOptions, open};
use ams_data::synth::{ShopConfig, generate};
use ams_fabric::ThreadFabric;
use ams_image::builtin::Builtin;
use ams_image::encode::{EncodeOptions, encode};
use ams_model::{Aggregator, ImageArm};
use ams_train::config::{DataConfig, ModelConfig, TrainConfig};
use ams_train::feed::{Feed, Order};
use ams_train::run::{self, Start, Wish};
use ams_train::{Config, Job, Trainer, freeze};
use tempfile::TempDir;

/// The prepared and encoded shop all tests share.
fn shop() -> &'static Path {
    static SHOP: OnceLock<TempDir> = OnceLock::new();
    let folder = SHOP.get_or_init(|| {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder");
        make_shop(folder.path());
        folder
    });
    // A static is never dropped; what stays is below target/.
    folder.path()
}

fn make_shop(folder: &Path) {
    let shop = folder.join("shop");
    let made = generate(&ShopConfig::tiny(), &shop, &mut |_| ()).expect("a shop");
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
    encode(&EncodeOptions::new(&shop, data.join("images")), names, &encoder, &mut { go_on })
        .expect("features");
}

/// A small joint model below `runs`.
fn config(runs: &Path) -> Config {
    Config {
        name: "run".to_owned(),
        seed: 7,
        runs: runs.to_path_buf(),
        data: DataConfig {
            samples: shop().join("data"),
            images: None,
            shuffle_images: None,
            exclude_fields: Vec::new(),
        },
        model: ModelConfig { tower: vec![16, 12], ..ModelConfig::default() },
        train: TrainConfig { epochs: 2, batch: 128, ..TrainConfig::default() },
    }
}

/// Trains to the end, publishes, and returns the bundle's folder and hash.
fn publish(config: &Config, threads: usize) -> (PathBuf, String) {
    let go_on = &mut |_: &_, _| Wish::GoOn;
    let report = run::train(config, Start::Fresh, Job::solo(threads), go_on).expect("a run");
    assert!(report.finished);
    publish_run(&report.run, threads)
}

fn publish_run(run: &Path, threads: usize) -> (PathBuf, String) {
    let mut trainer = run::open(run, Job::solo(threads)).expect("a finished run");
    let place = run.join("bundle/1");
    let manifest = freeze::publish(&mut trainer, &place, &[]).expect("a bundle");
    (place, manifest.hash())
}

#[test]
fn a_run_has_the_same_bits_on_any_number_of_threads_and_every_time() {
    let folder = TempDir::new().unwrap();
    let hashes: Vec<String> = [1, 2, 4, 1]
        .into_iter()
        .enumerate()
        .map(|(at, threads)| publish(&config(&folder.path().join(at.to_string())), threads).1)
        .collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let other = Config { seed: 8, ..config(&folder.path().join("seed")) };
    assert_ne!(publish(&other, 2).1, hashes[0], "another seed is another model");
}

/// Loss bits of every step, and the dense weights, of a job of `size` processes that are threads.
fn job(size: usize) -> (Vec<u64>, Vec<f32>) {
    let folder = TempDir::new().unwrap();
    let config = &config(folder.path());
    let rank = |fabric: ThreadFabric| {
        let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).expect("a rank");
        let mut losses = Vec::new();
        while let Some(report) = trainer.step().expect("a step") {
            losses.push(report.loss.to_bits());
        }
        (losses, trainer.lanes().dense.w.clone())
    };
    let mut results = ThreadFabric::run(size, rank);
    let first = results.remove(0);
    for other in results {
        assert!(other == first, "ranks of one job agree");
    }
    first
}

#[test]
fn a_job_has_the_same_bits_on_any_number_of_processes() {
    let alone = job(1);
    assert!(alone.0.len() > 10);
    for size in [2, 4, 8] {
        assert!(job(size) == alone, "{size} processes");
    }
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_never_stopped() {
    let folder = TempDir::new().unwrap();
    let (_, whole) = publish(&config(&folder.path().join("whole")), 2);
    // In the first epoch, at its end, in the second one.
    let steps = Trainer::new(config(folder.path()), Job::solo(1)).unwrap().steps();
    for stop in [1, steps / 2, steps / 2 + 2] {
        let config = config(&folder.path().join(format!("stopped-{stop}")));
        let mut stop_there = |report: &ams_train::StepReport, _| match report.cursor.step == stop {
            true => Wish::Stop,
            false => Wish::GoOn,
        };
        let report = run::train(&config, Start::Fresh, Job::solo(2), &mut stop_there).unwrap();
        assert!(!report.finished && report.steps == stop);
        let go_on = &mut |_: &_, _| Wish::GoOn;
        let report = run::train(&config, Start::Resume, Job::solo(1), go_on).unwrap();
        assert!(report.finished);
        assert_eq!(publish_run(&report.run, 1).1, whole, "stopped after {stop} of {steps} steps");
    }
}

#[test]
fn lines_a_killed_process_wrote_after_its_checkpoint_are_not_repeated() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    config.train.log_every = 1;
    let stop_at_4 = &mut |report: &ams_train::StepReport, _| match report.cursor.step {
        4 => Wish::Stop,
        _ => Wish::GoOn,
    };
    run::train(&config, Start::Fresh, Job::solo(1), stop_at_4).unwrap();
    let metrics = run::folder(&config).join(run::METRICS);
    let lines = std::fs::read_to_string(&metrics).unwrap();
    let fifth = lines.lines().last().unwrap().replace("\"step\":4", "\"step\":5");
    std::fs::write(&metrics, format!("{lines}{fifth}\n{{\"step\":6,\"ep")).unwrap();
    let go_on = &mut |_: &_, _| Wish::GoOn;
    let report = run::train(&config, Start::Resume, Job::solo(1), go_on).unwrap();
    let steps: Vec<u64> = std::fs::read_to_string(&metrics)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<run::MetricsLine>(line).unwrap().step)
        .collect();
    assert_eq!(steps, (1..=report.steps).collect::<Vec<_>>());
}

#[test]
fn the_scorer_says_what_the_trainer_says() {
    let folder = TempDir::new().unwrap();
    for (arm, aggregator) in [
        (ImageArm::None, Aggregator::Sum),
        (ImageArm::Ad, Aggregator::Sum),
        (ImageArm::Behavior, Aggregator::Attentive),
        (ImageArm::Joint, Aggregator::MultiQueryAttentive),
    ] {
        let mut config = config(&folder.path().join(format!("{arm:?}")));
        config.model = ModelConfig { images: arm, aggregator, ..config.model };
        let (bundle, _) = publish(&config, 2);
        let run = run::folder(&config);
        let mut trainer = run::open(&run, Job::solo(2)).unwrap();
        let predicted = trainer.evaluate(SplitName::Test).unwrap();
        let (groups, scored) = score_test(&bundle);
        // The trainer's rows come part by part, in file order; so do these.
        assert_eq!(predicted.labels, groups.labels);
        assert_eq!(predicted.times, groups.times);
        // Towers ran over other batches: GEMM may round the last bit otherwise.
        for (row, (trainer, scorer)) in predicted.logits.iter().zip(&scored).enumerate() {
            let difference = (trainer - scorer).abs();
            assert!(difference <= 1e-6 * trainer.abs().max(1.0), "row {row}: {trainer} {scorer}");
        }
    }
}

/// All test groups, and what the bundle says of them.
fn score_test(bundle: &Path) -> (Groups, Vec<f32>) {
    let model = Model::open(bundle).unwrap();
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Test, part);
        if path.exists() {
            let file = SampleFile::open(&path, dataset.schema()).unwrap();
            (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
        }
    }
    let mut logits = Vec::new();
    model.score_groups(&groups, &mut Scratch::default(), &mut logits);
    (groups, logits)
}

#[test]
fn training_lowers_the_loss_and_shuffled_images_are_another_model() {
    let folder = TempDir::new().unwrap();
    let losses = |config: &Config| -> Vec<f64> {
        let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
        std::iter::from_fn(|| trainer.step().unwrap()).map(|report| report.loss).collect()
    };
    let mut config = config(folder.path());
    config.train.epochs = 6;
    let real = losses(&config);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&real[..8]), mean(&real[real.len() - 8..]));
    assert!(last < 0.9 * first, "{first} -> {last}");
    config.data.shuffle_images = Some(1);
    assert_ne!(losses(&config), real);
}

#[test]
fn a_fresh_run_does_not_touch_an_earlier_one() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path());
    let hash = publish(&config, 1).1;
    let go_on = &mut |_: &_, _| Wish::GoOn;
    let error = run::train(&config, Start::Fresh, Job::solo(1), go_on).unwrap_err();
    assert!(error.to_string().contains("holds an earlier training"), "{error}");
    let other = Config { seed: 8, ..config.clone() };
    let error = run::train(&other, Start::Resume, Job::solo(1), go_on).unwrap_err();
    assert!(error.to_string().contains("another configuration"), "{error}");
    run::train(&config, Start::Replace, Job::solo(1), go_on).unwrap();
    assert_eq!(publish_run(&run::folder(&config), 1).1, hash);
}

#[test]
fn damaged_checkpoints_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path());
    let run = run::folder(&config);
    let go_on = &mut |_: &_, _| Wish::GoOn;
    let report = run::train(&config, Start::Fresh, Job::solo(1), go_on).unwrap();
    let checkpoint = run.join(format!("checkpoints/step-{}", report.steps));
    let lane = checkpoint.join("lane-03.safetensors");
    let good = std::fs::read(&lane).unwrap();
    let flipped: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
    for (damage, want) in [
        (Some(&good[..good.len() / 2]), "bytes, expected"),
        (Some(&flipped[..]), "blake3 is"),
        (None, "No such file"),
    ] {
        match damage {
            Some(bytes) => std::fs::write(&lane, bytes).unwrap(),
            None => std::fs::remove_file(&lane).unwrap(),
        }
        let error = run::open(&run, Job::solo(1)).err().expect("an error").to_string();
        assert!(error.contains("lane-03.safetensors") && error.contains(want), "{error}");
    }
    std::fs::write(&lane, &good).unwrap();
    assert!(run::open(&run, Job::solo(1)).is_ok());
}

#[test]
fn configurations_that_make_no_sense_are_refused_by_key() {
    let folder = TempDir::new().unwrap();
    type Spoil = fn(&mut Config);
    let cases: [(&str, Spoil); 11] = [
        ("name", |config| config.name = "a/b".to_owned()),
        ("train.lanes: 6, expected a power of two", |config| config.train.lanes = 6),
        ("train.lanes: 128 lanes cannot share", |config| config.train.lanes = 128),
        ("train.batch", |config| config.train.batch = 4),
        ("train.learning_rate", |config| config.train.learning_rate = f32::NAN),
        ("train.decay", |config| config.train.decay = 0.0),
        ("train.epochs", |config| config.train.epochs = 0),
        ("model.tower", |config| config.model.tower = vec![256, 64]),
        ("there is no ad field \"colour\"; possible are item, category, brand", |config| {
            config.model.query_fields = Some(vec!["colour".to_owned()]);
        }),
        ("there is no field \"sex\"", |config| {
            config.data.exclude_fields = vec!["sex".to_owned()];
        }),
        ("nowhere", |config| config.data.samples = "nowhere".into()),
    ];
    for (want, spoil) in cases {
        let mut config = config(folder.path());
        spoil(&mut config);
        let error = Trainer::new(config, Job::solo(1)).err().expect(want).to_string();
        assert!(error.contains(want), "{want:?} is not in {error:?}");
    }
}

/// The (user, item, time) of every impression a feed gives in one epoch, taken `step` at a time.
fn given(feed: &mut Feed, epoch: u32, step: u64) -> Vec<(u64, u64, i64)> {
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    feed.start(epoch);
    for until in (step..).step_by(usize::try_from(step).unwrap()) {
        feed.take(until, &mut groups).unwrap();
        if until >= feed.impressions() {
            break;
        }
    }
    let users = (0..groups.len())
        .flat_map(|group| groups.impressions.range(group).map(move |_| group))
        .map(|group| groups.users[group].0);
    let item = |row| groups.ad_fields[0].row(row)[0].0;
    users.enumerate().map(|(row, user)| (user, item(row), groups.times[row])).collect()
}

#[test]
fn every_epoch_gives_every_impression_once_in_an_order_of_its_own() {
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let files = || -> Vec<SampleFile> {
        let paths = (0..8).map(|part| dataset.part_path(SplitName::Train, part));
        let paths = paths.filter(|path| path.exists());
        paths.map(|path| SampleFile::open(&path, dataset.schema()).unwrap()).collect()
    };
    let mut plain = Feed::new(files(), dataset.schema(), Order::Files, usize::MAX);
    let mut all = given(&mut plain, 0, 10);
    assert_eq!(all.len() as u64, plain.impressions());
    let in_file_order = all.clone();
    all.sort_unstable();
    // All in memory; several windows; a group at a time.
    for window in [usize::MAX, 20, 1] {
        let order = Order::Shuffled { seed: 3, lane: 1 };
        let feed = || Feed::new(files(), dataset.schema(), order, window);
        let mut shuffled = feed();
        let epochs = [0, 1].map(|epoch| given(&mut shuffled, epoch, 7));
        assert_ne!(epochs[0], epochs[1], "epochs have their own order, window {window}");
        assert_ne!(epochs[0], in_file_order);
        // Whatever came before, and however much is taken at once.
        assert_eq!(given(&mut feed(), 1, 1000), epochs[1], "window {window}");
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert!(epoch == all, "window {window}");
        }
    }
}
