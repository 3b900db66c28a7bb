//! Alignments: the same bits whatever runs them, beside obvious counts and scores, and what the
//! gate decides in shops whose truth is known.

use std::path::Path;

use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::synth::{ShopConfig, Strengths, Taste};
use ams_data::{Groups, ImageKey};
use ams_fabric::ThreadFabric;
use ams_image::FeatureStore;
use ams_model::metrics::auc;
use ams_train::align::files::{ALIGNED, ALIGNING, Aligned};
use ams_train::align::pairs::is_held_out;
use ams_train::align::{AlignReport, Progress, align};
use ams_train::run::{Next, Start, open};
use ams_train::settings::{
    AlignConfig, Candidate, ImageArm, Similarity, TowerSharing, WarmParts, WarmStart,
};
use ams_train::{Config, Error, Job};
use tempfile::TempDir;

use super::shop::{
    HALF_WHITENED, go_on, make_shop_of, narrow, publish_run, shop, short_alignment, train,
};

/// A short alignment of the shop's pictures.
fn config(runs: &Path) -> Config {
    Config { align: Some(short_alignment()), ..narrow(runs) }
}

/// How an alignment ended on each of `size` processes that are threads; stopped after `stop`.
fn run(
    config: &Config,
    start: Start,
    (size, threads): (usize, usize),
    stop: Option<u64>,
) -> Vec<Result<AlignReport, Error>> {
    ThreadFabric::run(size, |fabric| {
        let watch = &mut |progress: &Progress<'_>| match Some(progress.step) == stop {
            true => Next::Stop,
            false => Next::GoOn,
        };
        align(config, start, Job::of(fabric, threads), watch)
    })
}

/// The report of one that ends on one process.
fn ended(config: &Config) -> AlignReport {
    let report = run(config, Start::Fresh, (1, 2), None).remove(0).expect("an alignment");
    assert!(report.finished && report.steps == config.align.as_ref().unwrap().steps);
    report
}

fn refusal(config: &Config, start: Start) -> String {
    run(config, start, (1, 1), None).remove(0).expect_err("refused").to_string()
}

/// All bits of the result in the folder of the run.
fn bits(config: &Config) -> Vec<Vec<u8>> {
    let folder = config.runs.join(&config.name);
    assert!(!folder.join(ALIGNING).exists(), "nothing unfinished stays");
    ["MANIFEST.json", "map.safetensors"]
        .map(|name| std::fs::read(folder.join(ALIGNED).join(name)).expect(name))
        .to_vec()
}

#[test]
fn an_alignment_has_the_same_bits_on_any_number_of_processes_and_threads() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| config(&folder.path().join(name));
    ended(&at("alone"));
    let alone = bits(&at("alone"));
    for place in [(1, 1), (2, 1), (4, 2), (8, 1)] {
        let config = at(&format!("{place:?}"));
        let reports = run(&config, Start::Fresh, place, None);
        assert!(reports.into_iter().all(|report| report.expect("a rank").finished));
        assert!(bits(&config) == alone, "(processes, threads) {place:?}");
    }
    let mut other = at("seed");
    other.seed += 1;
    ended(&other);
    assert!(bits(&other) != alone, "another seed is another alignment");
}

/// What a model makes of the features is no matter of their alignment.
#[test]
fn an_alignment_reads_the_features_as_they_are() {
    let folder = TempDir::new().unwrap();
    let plain = config(&folder.path().join("plain"));
    ended(&plain);
    type Change = fn(&mut Config);
    let changes: [Change; 3] = [
        |config| config.model.projection = Some(HALF_WHITENED),
        |config| config.model.pca = Some(16),
        |config| config.model.network.images = ImageArm::None,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut other = config(&folder.path().join(at.to_string()));
        change(&mut other);
        ended(&other);
        assert!(bits(&other) == bits(&plain), "change {at}");
    }
}

#[test]
fn a_stopped_alignment_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let whole = config(&folder.path().join("whole"));
    ended(&whole);
    let whole = bits(&whole);
    // Between two looks, and right after one; on more processes, and on fewer.
    for (stop, places) in [(1, [(1, 1), (4, 1)]), (4, [(2, 1), (1, 2)]), (11, [(4, 1), (2, 1)])] {
        let config = config(&folder.path().join(stop.to_string()));
        for report in run(&config, Start::Fresh, places[0], Some(stop)) {
            let report = report.expect("a rank");
            assert!(!report.finished && report.steps == stop);
        }
        for report in run(&config, Start::Auto, places[1], None) {
            let report = report.expect("a rank");
            assert!(report.finished && report.resumed_from == stop);
        }
        assert!(bits(&config) == whole, "stopped after {stop}");
        // Nothing is left to do.
        let again = run(&config, Start::Resume, (1, 1), None).remove(0).unwrap();
        assert!(again.finished && again.resumed_from == again.steps);
        assert!(bits(&config) == whole);
    }
}

/// Every training group.
fn groups() -> Groups {
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Train, part);
        let file = SampleFile::open(&path, dataset.schema()).unwrap();
        (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
    }
    groups
}

#[test]
fn pairs_and_judges_are_those_that_the_samples_hold() {
    let folder = TempDir::new().unwrap();
    let store = FeatureStore::open(&shop().join("data/images")).unwrap();
    let groups = groups();
    for holdout in [0.0, 0.3] {
        let mut config = config(&folder.path().join(holdout.to_string()));
        let align = config.align.as_mut().unwrap();
        (align.holdout, align.steps, align.evaluate_every) = (holdout, 1, 1);
        // So that the map at step 1 is about that of step 0.
        align.learning_rate = 1e-9;
        let report = ended(&config);
        let out = |key: ImageKey| is_held_out(key, config.seed, holdout);
        let aligned = Aligned::open(&report.run).unwrap();
        let vector = |key: ImageKey| -> Vec<f64> {
            let vector = aligned.of(&store, &[key.0]).unwrap();
            vector.into_iter().map(f64::from).collect()
        };
        let (mut pairs, mut scores, mut labels) = (0, Vec::new(), Vec::new());
        for group in 0..groups.len() {
            let history: Vec<ImageKey> = groups
                .behaviors
                .range(group)
                .map(|b| store.key(groups.behavior_pictures[b]))
                .collect();
            let shown: Vec<(ImageKey, bool, i64)> = groups
                .impressions
                .range(group)
                .map(|at| {
                    (store.key(groups.ad_pictures[at]), groups.labels[at] == 1, groups.times[at])
                })
                .collect();
            for (at, &(image, clicked, time)) in shown.iter().enumerate() {
                let day = |time: i64| time.div_euclid(86_400);
                let others =
                    shown[..at].iter().filter(|other| other.1 && day(other.2) == day(time));
                let others = history.iter().copied().chain(others.map(|other| other.0));
                let is_pair = |other: &ImageKey| {
                    image.is_some() && other.is_some() && *other != image && !out(*other)
                };
                pairs += if clicked && !out(image) { others.filter(is_pair).count() } else { 0 };
                let history: Vec<ImageKey> =
                    history.iter().copied().filter(|image| image.is_some()).collect();
                if image.is_some() && out(image) && !history.is_empty() {
                    let ad = vector(image);
                    let cosine = |other: &ImageKey| -> f64 {
                        vector(*other).iter().zip(&ad).map(|(a, b)| a * b).sum()
                    };
                    let sum: f64 = history.iter().map(cosine).sum();
                    scores.push((sum / history.len() as f64) as f32);
                    labels.push(u8::from(clicked));
                }
            }
        }
        assert_eq!(report.found.pairs as usize, pairs);
        assert_eq!(report.found.kept as usize, pairs);
        let clicked = labels.iter().filter(|label| **label == 1).count();
        let judges = (report.found.judges as usize, report.found.clicked as usize);
        assert_eq!(judges, (labels.len(), clicked));
        if holdout == 0.0 {
            assert!(report.looks.is_empty() && report.chosen == 1);
            continue;
        }
        let expected = auc(&scores, &labels).unwrap();
        for look in &report.looks {
            assert!((look.auc - expected).abs() < 1e-4, "{look:?}, expected {expected}");
        }
        assert_eq!(report.looks.len(), 2);
        let first = &aligned.of(&store, &[store.keys(0)[0].0]).unwrap();
        assert!((first.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn traffic_is_what_the_batch_says() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path());
    let align = config.align.clone().unwrap();
    let [width, components] = align.shape(64);
    let (numbers, width) = (width * components, width as f64);
    let lanes = config.train.lanes as f64;
    let report = ended(&config);
    // Of a pair: user, two images, weight, two embeddings, two sums.
    let pair = 4.0 * (2.0 + 4.0 + 1.0 + 2.0 * width + 2.0);
    let sent = report.per_step;
    assert_eq!(sent.pairs, align.batch as f64 * pair * (lanes - 1.0));
    assert_eq!(sent.embeddings, sent.gradients);
    assert_eq!(sent.embeddings / width, sent.asks / 2.0);
    let all_reduce = 4.0 * 2.0 * (lanes - 1.0) * numbers as f64;
    assert_eq!((sent.all_reduce, sent.wire), (all_reduce, 0.0));
    let config = Config { name: "two".to_owned(), ..config };
    let two = run(&config, Start::Fresh, (2, 1), None).remove(0).unwrap().per_step;
    assert!(two.wire > 0.0);
    assert_eq!(ams_train::align::lanes::Traffic { wire: 0.0, ..two }, sent);
}

#[test]
fn what_cannot_be_aligned_is_said() {
    let folder = TempDir::new().unwrap();
    let base = config(folder.path());
    let with = |change: &dyn Fn(&mut AlignConfig)| {
        let mut config = base.clone();
        change(config.align.as_mut().unwrap());
        config
    };
    let check = |config: &Config, start, words: &[&str]| {
        let text = refusal(config, start);
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    check(
        &with(&|a| a.components = Some(65)),
        Start::Fresh,
        &["align.components", "65", "64 numbers"],
    );
    check(&with(&|a| a.width = Some(25)), Start::Fresh, &["align.width: 25", "24"]);
    check(&with(&|a| a.holdout = 1e-7), Start::Fresh, &["align.holdout", "0 of them clicked"]);
    check(&with(&|a| a.holdout = 0.999_999), Start::Fresh, &["align:", "0 pairs"]);
    check(&base, Start::Resume, &["no alignment to go on with"]);
    ended(&base);
    check(&base, Start::Fresh, &["holds an earlier alignment"]);
    let other = with(&|a| a.steps = 13);
    check(&other, Start::Auto, &["was made with other settings"]);
    let replaced = run(&other, Start::Replace, (1, 1), None).remove(0).unwrap();
    assert_eq!(replaced.steps, 13);
}

/// The hash of what `config` publishes after a training on (processes, threads).
fn published(config: &Config, start: Start, place: (usize, usize)) -> String {
    for report in train(config, start, place, go_on) {
        let report = report.expect("a rank");
        let alignment = report.alignment.expect("the table [align] is there");
        assert!(report.finished && alignment.finished);
    }
    publish_run(&config.runs.join(&config.name), 1).1
}

/// A training that aligns first, in the folder `name`.
fn aligned_training(folder: &TempDir, name: &str) -> Config {
    let mut config = config(&folder.path().join(name));
    config.model.network.similarity = Similarity::Histogram;
    config
}

#[test]
fn a_training_aligns_first_with_the_same_bits_everywhere() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| aligned_training(&folder, name);
    let alone = published(&at("alone"), Start::Fresh, (1, 1));
    for place in [(2, 1), (4, 2)] {
        assert_eq!(published(&at(&format!("{place:?}")), Start::Fresh, place), alone, "{place:?}");
    }
    // Aligned by a command of its own; and all of it once more in its place.
    ended(&at("before"));
    assert_eq!(published(&at("before"), Start::Fresh, (1, 1)), alone);
    std::fs::remove_dir_all(at("before").runs.join("run/bundle")).unwrap();
    assert_eq!(published(&at("before"), Start::Replace, (2, 1)), alone);
    let without = Config { align: None, ..at("without") };
    let go = train(&without, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    assert!(go.alignment.is_none());
    assert_ne!(publish_run(&go.run, 1).1, alone);
    // The map is no longer there.
    let run = at("alone").runs.join("run");
    std::fs::remove_dir_all(run.join(ALIGNED)).unwrap();
    let error = open(&run, Job::solo(1)).err().expect("no map").to_string();
    assert!(error.contains("holds no aligned map"), "{error}");
}

/// What cannot be trained costs the run that it should replace nothing.
#[test]
fn a_run_is_replaced_only_by_one_that_can_begin() {
    let folder = TempDir::new().unwrap();
    let good = aligned_training(&folder, "replaced");
    let hash = published(&good, Start::Fresh, (1, 1));
    std::fs::remove_dir_all(good.runs.join("run/bundle")).unwrap();
    let refused: [fn(&mut Config); 2] = [
        |config| config.data.exclude_fields = vec!["sex".to_owned()],
        |config| config.align.as_mut().unwrap().components = Some(65),
    ];
    for spoil in refused {
        let mut bad = good.clone();
        spoil(&mut bad);
        train(&bad, Start::Replace, (2, 1), go_on).remove(0).expect_err("refused");
        assert_eq!(publish_run(&good.runs.join("run"), 1).1, hash);
        std::fs::remove_dir_all(good.runs.join("run/bundle")).unwrap();
    }
    assert_eq!(published(&good, Start::Replace, (2, 1)), hash);
    let left: Vec<_> =
        std::fs::read_dir(&good.runs).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("replaced")), "{left:?}");
}

/// Stopped in the alignment, at the first step after it, and by a dead process in between.
#[test]
fn a_training_stopped_in_its_alignment_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let whole = published(&aligned_training(&folder, "whole"), Start::Fresh, (1, 1));
    for (stop, start) in [(5, Start::Resume), (5, Start::Auto), (12, Start::Resume)] {
        let config = aligned_training(&folder, &format!("{stop} {start:?}"));
        let stop = |_, step| if step == stop { Next::Stop } else { Next::GoOn };
        let report = train(&config, Start::Fresh, (2, 1), stop).remove(0).unwrap();
        assert!(!report.finished);
        assert_eq!(published(&config, start, (1, 2)), whole, "{start:?}");
    }
}

/// A loss beside the clicks, on components as they are.
#[test]
fn a_contrastive_loss_has_the_same_bits_everywhere_and_after_a_stop() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str, weight| {
        let mut config = aligned_training(&folder, name);
        config.model.towers = TowerSharing::Shared;
        let align = config.align.as_mut().unwrap();
        (align.steps, align.weight) = (0, weight);
        config
    };
    let alone = published(&at("alone", 0.5), Start::Fresh, (1, 1));
    for place in [(2, 1), (4, 2)] {
        let config = at(&format!("{place:?}"), 0.5);
        assert_eq!(published(&config, Start::Fresh, place), alone, "{place:?}");
    }
    let stopped = at("stopped", 0.5);
    let stop = |_, step| if step == 5 { Next::Stop } else { Next::GoOn };
    assert!(!train(&stopped, Start::Fresh, (2, 1), stop).remove(0).unwrap().finished);
    assert_eq!(published(&stopped, Start::Resume, (1, 2)), alone);
    assert_ne!(published(&at("without", 0.0), Start::Fresh, (1, 2)), alone);
    let metrics = std::fs::read_to_string(stopped.runs.join("run/metrics.jsonl")).unwrap();
    let steps: Vec<&str> = metrics.lines().filter(|line| line.contains("per_step")).collect();
    assert!(!steps.is_empty() && steps.iter().all(|line| line.contains("\"contrastive_loss\":")));
}

/// Where pairs or judges are missing, a training goes on with the components as they are.
#[test]
fn a_training_does_without_an_alignment_that_cannot_be_made() {
    let folder = TempDir::new().unwrap();
    let mut hashes = Vec::new();
    for (holdout, words) in [(1e-7, "0 of them clicked"), (0.999_999, "0 pairs")] {
        for place in [(1, 1), (2, 1)] {
            let mut config = aligned_training(&folder, &format!("{holdout} {}", place.0));
            config.align.as_mut().unwrap().holdout = holdout;
            let report = train(&config, Start::Fresh, place, go_on).remove(0).unwrap();
            let alignment = report.alignment.unwrap();
            assert!(alignment.lack.as_ref().unwrap().contains(words), "{alignment:?}");
            assert_eq!((alignment.steps, alignment.chosen, report.finished), (0, 0, true));
            let again = train(&config, Start::Auto, place, go_on).remove(0).unwrap();
            assert_eq!(again.alignment.unwrap().lack, alignment.lack);
            hashes.push(publish_run(&report.run, 1).1);
        }
    }
    // The components do not depend on what was held out.
    hashes.dedup();
    assert_eq!(hashes.len(), 1);
}

#[test]
fn candidates_with_images_align_and_the_one_without_does_not() {
    let folder = TempDir::new().unwrap();
    let mut config = aligned_training(&folder, "candidates");
    config.train.validation_parts = 8;
    (config.train.early_stop, config.train.refit) = (Some(1), true);
    config.train.candidates = vec![Candidate::Ids, Candidate::Similarity];
    let report = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    let searched = report.choice.unwrap().searched;
    let has_map: Vec<bool> = searched.iter().map(|of| of.run.join(ALIGNED).exists()).collect();
    assert_eq!(has_map, [false, true]);
}

/// Features of 64 numbers have no 128 components.
#[test]
fn without_a_shape_the_map_fits_the_features() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    config.align = Some(AlignConfig { steps: 2, ..AlignConfig::default() });
    assert_eq!(ended(&config).width, 64);
    let shape = |components, width, dim| {
        AlignConfig { components, width, ..AlignConfig::default() }.shape(dim)
    };
    assert_eq!(shape(None, None, 1280), [64, 128]);
    assert_eq!(shape(None, None, 32), [32, 32]);
    assert_eq!(shape(Some(48), None, 1280), [48, 48]);
    assert_eq!(shape(None, Some(16), 1280), [16, 128]);
}

#[test]
fn a_map_is_no_beginning_for_towers_of_another() {
    let folder = TempDir::new().unwrap();
    let mut config = aligned_training(&folder, "warm");
    let from = folder.path().join("elsewhere");
    config.train.warm_start = Some(WarmStart { from, parts: WarmParts::Towers });
    let error = config.check().expect_err("refused").to_string();
    assert!(error.contains("train.warm_start") && error.contains("another map"), "{error}");
}

#[test]
fn a_bundle_makes_the_vectors_of_the_map() {
    let folder = TempDir::new().unwrap();
    let report = ended(&config(folder.path()));
    let aligned = Aligned::open(&report.run).unwrap();
    let store = FeatureStore::open(&shop().join("data/images")).unwrap();
    let projection = aligned.projection();
    for key in store.keys(0).iter().chain(store.keys(40)) {
        let expected = aligned.of(&store, &[key.0]).unwrap();
        let got = projection.apply(&store.row(*key).unwrap().halfs());
        let off = got.iter().zip(&expected).map(|(got, x)| (got.to_f32() - x).abs());
        assert!(off.fold(0.0, f32::max) < 1e-3, "{got:?} {expected:?}");
    }
}

/// The alignment of a shop of this taste.
fn of_shop(taste: Taste, strengths: Strengths) -> AlignReport {
    let folder = TempDir::new().unwrap();
    let shop = ShopConfig {
        users: 700,
        items: 260,
        days: 6,
        pages_per_day: 2.5,
        taste,
        strengths,
        ..ShopConfig::tiny()
    };
    make_shop_of(&shop, folder.path());
    let mut config = config(folder.path());
    config.data.samples = folder.path().join("data");
    config.align = Some(AlignConfig {
        components: Some(48),
        width: Some(24),
        steps: 120,
        batch: 256,
        evaluate_every: 40,
        ..AlignConfig::default()
    });
    let report = ended(&config);
    println!("{taste:?} {strengths:?}: {:?} {:#?}", report.found, report.looks);
    report
}

#[test]
fn the_gate_takes_a_map_where_taste_is_in_pictures() {
    let report = of_shop(Taste::Visual, Strengths::default());
    assert!(report.chosen > 0, "{:#?}", report.looks);
}

#[test]
fn the_gate_takes_none_where_pictures_say_nothing() {
    let strengths = Strengths { category: 0.0, ..Strengths::default() };
    let report = of_shop(Taste::None, strengths);
    assert_eq!(report.chosen, 0, "{:#?}", report.looks);
}

#[test]
fn the_gate_takes_none_where_taste_is_of_categories() {
    let strengths = Strengths { category: 1.8, ..Strengths::default() };
    let report = of_shop(Taste::None, strengths);
    assert_eq!(report.chosen, 0, "{:#?}", report.looks);
}
