//! Where a training begins and how it steps: warm starts, row optimizers, clipped gradients.

use std::collections::{BTreeMap, BTreeSet};

use ams_data::Groups;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_fabric::ThreadFabric;
use ams_model::RowOptimizer;
use ams_train::run::{self, Next, Start};
use ams_train::settings::{ImageArm, Similarity, WarmParts, WarmStart};
use ams_train::{Config, FieldIds, Job, Trainer};
use tempfile::TempDir;

use super::shop::config;

/// A finished training in `folder` to begin from.
fn earlier(folder: &TempDir) -> Config {
    let config = Config { name: "earlier".to_owned(), ..config(folder.path()) };
    let go_on = &mut |_: &_, _| Next::GoOn;
    run::train(&config, Start::Fresh, Job::solo(2), go_on).unwrap();
    config
}

/// The configuration of a training that takes `parts` of the earlier one.
fn today(folder: &TempDir, parts: WarmParts) -> Config {
    let mut config = Config { name: format!("{parts:?}"), seed: 9, ..config(folder.path()) };
    let from = folder.path().join("earlier");
    config.train.warm_start = Some(WarmStart { from, parts });
    config
}

/// All rows of the lanes of this process.
fn rows(trainer: &Trainer) -> BTreeMap<u64, Vec<f32>> {
    let tables = trainer.lanes().shards().map(|shard| &shard.table);
    tables
        .flat_map(|table| {
            (0..table.len() as u32).map(|slot| (table.id(slot), table.row(slot).to_vec()))
        })
        .collect()
}

#[test]
fn a_warm_start_takes_what_it_says_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let old = earlier(&folder);
    let then = run::open(&run::folder(&old), Job::solo(1)).unwrap();
    let (w, old_rows) = (&then.lanes().dense.w, rows(&then));
    assert!(old_rows.len() > 100);
    for (parts, network, towers, ids) in [
        (WarmParts::All, true, true, true),
        (WarmParts::AllButIds, true, true, false),
        (WarmParts::Towers, false, true, false),
        (WarmParts::None, false, false, false),
    ] {
        let mut trainer = Trainer::new(today(&folder, parts), Job::solo(1)).unwrap();
        let cold = trainer.lanes().dense.w.clone();
        trainer.warm_start().unwrap();
        let lanes = trainer.lanes();
        let expected = |warm: bool| if warm { w } else { &cold };
        let rank_range = lanes.network.rank_range();
        assert!(lanes.dense.w[rank_range.clone()] == expected(network)[rank_range.clone()]);
        let tower_range = rank_range.end..;
        assert!(lanes.dense.w[tower_range.clone()] == expected(towers)[tower_range], "{parts:?}");
        assert!(lanes.dense.m.iter().chain(&lanes.dense.v).all(|moment| *moment == 0.0));
        let expected = if ids { old_rows.clone() } else { BTreeMap::new() };
        assert!(rows(&trainer) == expected, "{parts:?}");
        assert_eq!(trainer.cursor().step, 0, "schedules begin anew");
    }
}

/// A training that goes on with another one has all that its steps depend on, and counts them on.
#[test]
fn a_training_may_go_on_with_another_one() {
    let folder = TempDir::new().unwrap();
    let old = earlier(&folder);
    let then = run::open(&run::folder(&old), Job::solo(1)).unwrap();
    let states = |trainer: &Trainer| -> BTreeMap<u64, Vec<f32>> {
        let tables = trainer.lanes().shards().map(|shard| &shard.table);
        tables
            .flat_map(|table| {
                (0..table.len() as u32).map(|slot| (table.id(slot), table.state(slot).to_vec()))
            })
            .collect()
    };
    let config = today(&folder, WarmParts::Training);
    let mut trainer = Trainer::new(config.clone(), Job::solo(1)).unwrap();
    trainer.warm_start().unwrap();
    let (was, is) = (&then.lanes().dense, &trainer.lanes().dense);
    assert!(was.m.iter().any(|moment| *moment != 0.0));
    assert!((&was.w, &was.m, &was.v) == (&is.w, &is.m, &is.v));
    assert!(states(&then) == states(&trainer));
    let before = then.cursor().step;
    assert_eq!((trainer.cursor().step, trainer.steps()), (before, 2 * before));

    // Stopped within, and on other processes, it ends with the same bits.
    let end = |name: &str, size: usize, stops: bool| {
        let config = Config { name: name.to_owned(), ..config.clone() };
        let go = |start, stop_at: u64| {
            ThreadFabric::run(size, |fabric| {
                let watch = &mut |report: &ams_train::StepReport, _: u64| {
                    if report.cursor.step == stop_at { Next::Stop } else { Next::GoOn }
                };
                run::train(&config, start, Job::of(fabric, 1), watch).unwrap().steps
            })
        };
        if stops {
            assert_eq!(go(Start::Fresh, before + 3), vec![before + 3; size]);
        }
        assert_eq!(go(Start::Auto, 0), vec![2 * before; size]);
        let trainer = run::open(&run::folder(&config), Job::solo(1)).unwrap();
        (trainer.lanes().dense.w.clone(), states(&trainer))
    };
    let calm = end("calm", 1, false);
    assert!(calm == end("stopped", 1, true));
    assert!(calm == end("two", 2, false));
}

#[test]
fn a_warm_training_is_ahead_and_the_same_on_any_number_of_processes() {
    let folder = TempDir::new().unwrap();
    earlier(&folder);
    let losses = |config: &Config, size: usize| -> Vec<u64> {
        let rank = |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            trainer.warm_start().unwrap();
            let steps = std::iter::from_fn(|| trainer.step().unwrap());
            steps.take(12).map(|step| step.loss.to_bits()).collect()
        };
        ThreadFabric::run(size, rank).remove(0)
    };
    let mean = |losses: &[u64]| {
        losses.iter().map(|&bits| f64::from_bits(bits)).sum::<f64>() / losses.len() as f64
    };
    let cold = losses(&today(&folder, WarmParts::None), 1);
    for parts in [WarmParts::All, WarmParts::AllButIds] {
        let warm = losses(&today(&folder, parts), 1);
        assert!(mean(&warm) < mean(&cold), "{parts:?}");
        for size in [2, 4] {
            assert_eq!(losses(&today(&folder, parts), size), warm, "{size} processes");
        }
    }
}

/// Statistics are standardized by the first batches, whatever comes after them; a warm start takes
/// over how they were.
#[test]
fn similarities_are_standardized_where_a_training_begins() {
    let folder = TempDir::new().unwrap();
    let with_statistics = |mut config: Config| {
        config.model.network.images = ImageArm::None;
        config.model.network.similarity = Similarity::Statistics;
        config
    };
    let scales = |trainer: &Trainer| -> Vec<f32> {
        let lanes = trainer.lanes();
        let of = |name: &str| lanes.network.rank.layout().get(name).unwrap().view;
        let both = ["similarity.shift", "similarity.scale"].map(of);
        both.iter().flat_map(|view| view.of(&lanes.dense.w)).copied().collect()
    };
    let old = with_statistics(Config { name: "earlier".to_owned(), ..config(folder.path()) });
    let go_on = &mut |_: &_, _| Next::GoOn;
    run::train(&old, Start::Fresh, Job::solo(2), go_on).unwrap();
    let then = scales(&run::open(&run::folder(&old), Job::solo(1)).unwrap());
    assert_eq!(then.len(), 18);
    assert!(then[9..].iter().all(|scale| *scale > 0.0 && *scale != 1.0), "{then:?}");
    for (parts, is_taken) in [(WarmParts::AllButIds, true), (WarmParts::None, false)] {
        let mut config = with_statistics(today(&folder, parts));
        // Other cosines.
        config.model.pca = Some(16);
        let mut trainer = Trainer::new(config, Job::solo(1)).unwrap();
        trainer.warm_start().unwrap();
        trainer.step().unwrap().unwrap();
        let first = scales(&trainer);
        assert_eq!(first == then, is_taken, "{parts:?}");
        trainer.step().unwrap().unwrap();
        assert_eq!(scales(&trainer), first, "{parts:?}");
    }
}

#[test]
fn lanes_of_the_training_before_do_not_matter_to_a_warm_start() {
    let folder = TempDir::new().unwrap();
    earlier(&folder);
    let rows_on = |lanes: usize| {
        let mut config = today(&folder, WarmParts::All);
        config.train.lanes = lanes;
        let mut trainer = Trainer::new(config, Job::solo(1)).unwrap();
        trainer.warm_start().unwrap();
        rows(&trainer)
    };
    assert!(rows_on(2) == rows_on(8));
}

#[test]
fn a_model_of_another_shape_is_no_beginning() {
    let folder = TempDir::new().unwrap();
    earlier(&folder);
    type Change = fn(&mut Config);
    let cases: [(WarmParts, Change, &str); 6] = [
        (WarmParts::Training, |c| c.model.network.mlp = vec![50], "is of another model"),
        (WarmParts::Training, |c| c.train.lanes = 4, "lanes, expected 4"),
        (WarmParts::AllButIds, |c| c.model.network.mlp = vec![50], "of the network has shape"),
        (WarmParts::Towers, |c| c.model.tower = vec![8, 12], "0.weight of tower ad has shape"),
        (
            WarmParts::All,
            |c| c.train.warm_start.as_mut().unwrap().from = "no".into(),
            "no checkpoint",
        ),
        (
            WarmParts::AllButIds,
            |c| c.model.network.images = ImageArm::None,
            "of the network has shape",
        ),
    ];
    for (parts, change, want) in cases {
        let mut config = today(&folder, parts);
        change(&mut config);
        let go_on = &mut |_: &_, _| Next::GoOn;
        let error = run::train(&config, Start::Fresh, Job::solo(1), go_on).unwrap_err().to_string();
        assert!(error.contains(want), "no {want:?} in {error}");
        assert!(!run::folder(&config).exists(), "nothing is left of a training that cannot begin");
    }
}

#[test]
fn row_optimizers_learn_and_go_on_with_their_state() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    config.train.rows = RowOptimizer::Adagrad;
    let go_on = &mut |_: &_, _| Next::GoOn;
    let whole = run::train(&config, Start::Fresh, Job::solo(2), go_on).unwrap();
    let end = run::open(&whole.run, Job::solo(1)).unwrap();
    let half =
        &mut |report: &ams_train::StepReport, steps: u64| match report.cursor.step * 2 >= steps {
            true => Next::Stop,
            false => Next::GoOn,
        };
    config.name = "halves".to_owned();
    run::train(&config, Start::Fresh, Job::solo(2), half).unwrap();
    let halves = run::train(&config, Start::Resume, Job::solo(1), go_on).unwrap();
    let halves = run::open(&halves.run, Job::solo(1)).unwrap();
    assert!(rows(&halves) == rows(&end) && halves.lanes().dense.w == end.lanes().dense.w);
    let table = &end.lanes().shards().next().unwrap().table;
    assert_eq!(table.width(), 2 * table.dim(), "one number of state per weight");
    config.train.rows = RowOptimizer::Adam;
    config.name = "adam".to_owned();
    let adam = run::train(&config, Start::Fresh, Job::solo(2), go_on).unwrap();
    assert!(rows(&run::open(&adam.run, Job::solo(1)).unwrap()) != rows(&end));
}

/// Occurrences of every id in the training samples, by going through them one by one.
pub(super) fn occurrences(
    config: &Config,
    network: &ams_train::setup::network::Network,
) -> BTreeMap<u64, u32> {
    let store = ams_image::FeatureStore::open(&config.data.samples.join("images")).unwrap();
    let dataset = Dataset::open(&config.data.samples).unwrap();
    let mut counts = BTreeMap::new();
    for part in 0..dataset.card().parts {
        let file = SampleFile::open(&dataset.part_path(SplitName::Train, part), dataset.schema());
        let file = file.unwrap();
        let mut groups = Groups::new(dataset.schema());
        (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
        let (mut keys, mut lists) = (ams_bundle::Keys::default(), ams_data::Ragged::default());
        keys.resolve(&groups, |name| store.key(name));
        for input in network.inputs() {
            input.collect(&groups, &keys, usize::MAX, &mut lists);
            lists.values.iter().for_each(|id| *counts.entry(id.0).or_default() += 1);
        }
    }
    counts
}

#[test]
fn rows_are_drawn_to_zero_by_their_frequency() {
    let folder = TempDir::new().unwrap();
    // After one step Adam's first moment is (1 - beta1) times the gradient.
    let step = |l2_ids: f32, size: usize| {
        let mut config = config(folder.path());
        config.train.l2_ids = l2_ids;
        let rank = |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            trainer.step().unwrap().unwrap();
            let seen = occurrences(&config, &trainer.lanes().network);
            let mut found = BTreeMap::new();
            for table in trainer.lanes().shards().map(|shard| &shard.table) {
                for slot in table.slots_by_id() {
                    let (id, dim) = (table.id(slot), table.dim());
                    found.insert(id, table.state(slot)[dim..2 * dim].to_vec());
                }
            }
            (found, seen)
        };
        let ranks = ThreadFabric::run(size, rank);
        let seen = ranks[0].1.clone();
        (ranks.into_iter().flat_map(|rank| rank.0).collect::<BTreeMap<_, _>>(), seen)
    };
    let (free, seen) = step(0.0, 1);
    let (drawn, _) = step(0.5, 1);
    assert!(drawn.keys().eq(free.keys()) && drawn.len() > 100);
    let mut row = vec![0.0; 12];
    for (id, moment) in &drawn {
        ams_model::init::row_init(7, "embedding", *id, &mut row);
        let pull = 0.5 / seen[id] as f32;
        for ((drawn, free), row) in moment.iter().zip(&free[id]).zip(&row) {
            let want = free + 0.1 * pull * row;
            assert!((drawn - want).abs() < 1e-7, "id {id}: {drawn}, expected {want}");
        }
    }
    assert!(step(0.5, 4).0 == drawn, "the same bits on four processes");
}

#[test]
fn ids_are_admitted_by_their_occurrences() {
    let folder = TempDir::new().unwrap();
    for least in [2, 20] {
        let mut config = config(folder.path());
        config.train.min_occurrences = least;
        let ranks = ThreadFabric::run(2, |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            assert_eq!(trainer.admitted(), None);
            while trainer.step().unwrap().is_some() {}
            let seen = occurrences(&config, &trainer.lanes().network);
            let mut ids = Vec::new();
            for table in trainer.lanes().shards().map(|shard| &shard.table) {
                ids.extend(table.slots_by_id().into_iter().map(|at| table.id(at)));
            }
            (ids, seen, trainer.admitted().unwrap().to_vec())
        });
        let (seen, fields) = (&ranks[0].1, &ranks[0].2);
        assert_eq!(*fields, ranks[1].2, "both processes know all");
        let rows: BTreeSet<u64> = ranks.iter().flat_map(|rank| &rank.0).copied().collect();
        let want = seen.iter().filter(|(_, count)| **count >= least).map(|(id, _)| *id);
        assert_eq!(rows, want.collect(), "an id of {least} occurrences or more has a row");
        let names: Vec<&str> = fields.iter().map(|of| &of.field[..]).collect();
        let expected = ["user", "gender", "age", "item", "category", "brand", "image", "hour"];
        assert_eq!(names, expected);
        let sum = |of: fn(&FieldIds) -> u64| fields.iter().map(of).sum::<u64>();
        assert_eq!(sum(|of| of.ids), seen.len() as u64);
        assert_eq!(sum(|of| of.admitted), rows.len() as u64);
        // Two genders, and few users without one.
        assert!(fields[1].ids <= 3 && fields[1].admitted >= 2, "{:?}", fields[1]);
        assert!(rows.len() < seen.len());
    }
}

#[test]
fn a_long_dense_gradient_is_scaled_and_a_short_one_left_alone() {
    let folder = TempDir::new().unwrap();
    // After one step Adam's first moment is (1 - beta1) times the gradient.
    let moments = |clip_norm: Option<f32>, size: usize| -> Vec<f32> {
        let mut config = config(folder.path());
        config.train.clip_norm = clip_norm;
        let rank = |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            trainer.step().unwrap().unwrap();
            trainer.lanes().dense.m.clone()
        };
        ThreadFabric::run(size, rank).remove(0)
    };
    let norm =
        |moments: &[f32]| moments.iter().map(|&m| f64::from(m / 0.1).powi(2)).sum::<f64>().sqrt();
    let free = moments(None, 1);
    assert!(moments(Some(1e6), 1) == free);
    let most = (norm(&free) / 3.0) as f32;
    let clipped = moments(Some(most), 1);
    assert!((norm(&clipped) / f64::from(most) - 1.0).abs() < 1e-4, "{}", norm(&clipped));
    for (clipped, free) in clipped.iter().zip(&free) {
        assert!((clipped - free / 3.0).abs() <= 1e-5 * free.abs(), "{clipped} {free}");
    }
    assert!(moments(Some(most), 4) == clipped, "the same bits on four processes");
}
