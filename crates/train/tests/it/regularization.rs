//! Dropout and weight decay of the towers: what they touch, and that no mask depends on where it is
//! made.

use std::collections::BTreeSet;

use ams_bundle::TowerSharing;
use ams_data::dataset::SplitName;
use ams_fabric::ThreadFabric;
use ams_train::run::{self, Start};
use ams_train::settings::Placement;
use ams_train::{Config, Job, Trainer};
use tempfile::TempDir;

use super::shop::{PLACEMENTS, go_on, narrow, publish_run, stop_at, train, train_in_memory};

/// How far the losses of two placements may be apart, as in `placements`.
const TOLERANCE: f64 = 1e-6;

fn regularized(folder: &TempDir) -> Config {
    let mut config = narrow(folder.path());
    config.model.tower = vec![32, 16, 12];
    (config.train.tower_dropout, config.train.tower_weight_decay) = (0.3, 0.1);
    config
}

#[test]
fn placements_drop_the_same_units() {
    let folder = TempDir::new().unwrap();
    for towers in [TowerSharing::Separate, TowerSharing::Shared] {
        let [ams, others @ ..] = PLACEMENTS.map(|placement| {
            let mut config = regularized(&folder);
            (config.model.towers, config.train.placement) = (towers, placement);
            train_in_memory(&config, 1)
        });
        for other in &others {
            for (a, b) in ams.steps.iter().zip(&other.steps) {
                let distance = (a.loss - b.loss).abs() / a.loss;
                assert!(distance <= TOLERANCE, "{towers:?}, step {}: {distance:e}", a.cursor.step);
            }
        }
        assert!(others[0].dense == others[1].dense && others[0].steps == others[1].steps);
    }
}

#[test]
fn dropout_has_the_same_bits_on_any_number_of_processes_and_threads() {
    let hash = |placement: Placement, rate, place| {
        let folder = TempDir::new().unwrap();
        let mut config = regularized(&folder);
        (config.train.placement, config.train.tower_dropout) = (placement, rate);
        let report = train(&config, Start::Fresh, place, go_on).remove(0).unwrap();
        publish_run(&report.run, 1).1
    };
    for placement in PLACEMENTS {
        let alone = hash(placement, 0.3, (1, 1));
        for place in [(1, 4), (2, 2), (8, 1)] {
            assert_eq!(hash(placement, 0.3, place), alone, "{placement:?} on {place:?}");
        }
        assert_ne!(hash(placement, 0.0, (1, 1)), alone, "{placement:?}");
    }
}

#[test]
fn a_stopped_run_repeats_its_masks() {
    let folder = TempDir::new().unwrap();
    let config = Config { name: "whole".to_owned(), ..regularized(&folder) };
    let whole = train(&config, Start::Fresh, (1, 2), go_on).remove(0).unwrap();
    let config = Config { name: "stopped".to_owned(), ..config };
    train(&config, Start::Fresh, (4, 1), stop_at(3, 0)).remove(0).unwrap();
    train(&config, Start::Resume, (2, 1), stop_at(11, 1)).remove(0).unwrap();
    let report = train(&config, Start::Resume, (1, 1), go_on).remove(0).unwrap();
    assert!(report.finished && report.resumed_from == 11);
    let dense = |run| run::open(run, Job::solo(1)).unwrap().lanes().dense.w.clone();
    assert!(dense(&report.run) == dense(&whole.run));
}

#[test]
fn nothing_is_dropped_where_nothing_is_learned() {
    let folder = TempDir::new().unwrap();
    for placement in PLACEMENTS {
        let mut config = regularized(&folder);
        config.train.placement = placement;
        train(&config, Start::Replace, (1, 1), stop_at(4, 0)).remove(0).unwrap();
        let logits = ThreadFabric::run(2, |fabric| {
            let mut trainer = run::open(&run::folder(&config), Job::of(fabric, 1)).unwrap();
            trainer.evaluate(SplitName::Test).unwrap().logits
        });
        let mut trainer = run::open(&run::folder(&config), Job::solo(1)).unwrap();
        let again = trainer.evaluate(SplitName::Test).unwrap().logits;
        assert_eq!(logits[0], again);
        let mut plain = trainer_without(&config, &trainer);
        assert_eq!(plain.evaluate(SplitName::Test).unwrap().logits, again, "{placement:?}");
        // Right after a step that dropped.
        trainer.step().unwrap().unwrap();
        let after = trainer.evaluate(SplitName::Test).unwrap().logits;
        let mut plain = trainer_without(&config, &trainer);
        assert_eq!(plain.evaluate(SplitName::Test).unwrap().logits, after, "{placement:?}");
    }
}

/// A training without dropout that stands where `trainer` does.
fn trainer_without(config: &Config, trainer: &Trainer) -> Trainer {
    let mut config = config.clone();
    config.train.tower_dropout = 0.0;
    let mut plain = Trainer::new(config, Job::solo(1)).unwrap();
    let lanes = plain.lanes_mut();
    lanes.dense.w.clone_from(&trainer.lanes().dense.w);
    for (shard, from) in lanes.shards_mut().zip(trainer.lanes().shards()) {
        for slot in from.table.slots_by_id() {
            assert!(shard.table.restore(from.table.id(slot), from.table.state(slot)));
        }
    }
    plain
}

#[test]
fn weight_decay_takes_its_share_of_the_towers_matrices_alone() {
    let folder = TempDir::new().unwrap();
    // The dense weights before and after a step, and where the towers' matrices are.
    let step = |decay: f32, size: usize| {
        let mut config = regularized(&folder);
        (config.train.tower_dropout, config.train.tower_weight_decay) = (0.0, decay);
        let rank = |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            let before = trainer.lanes().dense.w.clone();
            trainer.step().unwrap().unwrap();
            let network = &trainer.lanes().network;
            let matrices: BTreeSet<usize> = network.tower_matrices().flatten().collect();
            (before, trainer.lanes().dense.w.clone(), matrices)
        };
        ThreadFabric::run(size, rank).remove(0)
    };
    let (before, free, matrices) = step(0.0, 1);
    let (_, decayed, _) = step(20.0, 1);
    // Two towers of 64-32-16-12.
    assert_eq!(matrices.len(), 2 * (64 * 32 + 32 * 16 + 16 * 12));
    for (at, ((before, free), decayed)) in before.iter().zip(&free).zip(&decayed).enumerate() {
        let want = if matrices.contains(&at) { free - 0.001 * 20.0 * before } else { *free };
        assert!((decayed - want).abs() <= 1e-7, "{at}: {decayed}, expected {want}");
    }
    assert!(step(20.0, 4).1 == decayed, "the same bits on four processes");
}
