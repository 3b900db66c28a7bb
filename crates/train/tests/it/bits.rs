//! One configuration, one result: whatever runs it, and however often it was stopped.

use ams_bundle::Predictions;
use ams_data::dataset::SplitName;
use ams_fabric::ThreadFabric;
use ams_train::run::{self, Next, RunReport, Start};
use ams_train::settings::{
    Aggregator, Base, ContentConfig, Interactions, Precision, SearchBy, SearchSettings, Similarity,
    UnknownIds,
};
use ams_train::{Config, Job, StepReport, Trainer};
use tempfile::TempDir;

use super::shop::{
    HALF_WHITENED, PLACEMENTS, config, go_on, narrow, publish, publish_run, remaining_steps, shop,
    stop_at, train, train_in_memory, undisturbed,
};

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

#[test]
fn a_job_has_the_same_bits_on_any_number_of_processes() {
    let folder = TempDir::new().unwrap();
    let bits = |size| {
        let trained = train_in_memory(&config(folder.path()), size);
        (trained.loss_bits(), trained.dense)
    };
    let alone = bits(1);
    assert!(alone.0.len() > 10);
    for size in [2, 4, 8] {
        assert!(bits(size) == alone, "{size} processes");
    }
}

/// The hash of what `config` publishes after a training on (processes, threads).
fn published(config: &Config, place: (usize, usize)) -> String {
    let ends = train(config, Start::Fresh, place, go_on);
    assert_eq!(ends.len(), place.0);
    assert!(ends.into_iter().all(|end| end.expect("a rank").finished));
    publish_run(&run::folder(config), 1).1
}

#[test]
fn a_published_model_has_the_same_bits_on_any_number_of_processes_and_threads() {
    let folder = TempDir::new().unwrap();
    for place in [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)] {
        let config = narrow(&folder.path().join(format!("{place:?}")));
        assert_eq!(published(&config, place), undisturbed(), "(processes, threads) {place:?}");
    }
}

/// The same with two contents, a projection, sketches, DIN, products, dropout and users held out.
#[test]
fn every_setting_has_the_same_bits_on_any_number_of_processes_and_threads() {
    let folder = TempDir::new().unwrap();
    let hashes = [(1, 1), (1, 4), (2, 1), (4, 2)].map(|place| {
        let mut config = narrow(&folder.path().join(format!("{place:?}")));
        let features = shop().join("data/images");
        config.data.contents = vec![ContentConfig { name: "text".to_owned(), features }];
        config.model.network.base = Base::Din;
        config.model.projection = Some(HALF_WHITENED);
        config.model.network.interactions = Interactions::Product;
        config.model.network.similarity = Similarity::Statistics;
        config.model.network.behavior_age_buckets = 32;
        config.model.network.attention_cosine = true;
        config.train.tower_dropout = 0.2;
        config.train.tower_weight_decay = 0.1;
        config.train.rows_learning_rate = Some(0.004);
        config.train.l2_ids = 0.01;
        config.train.validation_parts = 4;
        config.train.early_stop = Some(1);
        published(&config, place)
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// Semantic ids are those of the store, wherever pictures are; a run that was stopped goes on with
/// them.
#[test]
fn semantic_ids_have_the_same_bits_everywhere_and_after_a_stop() {
    let folder = TempDir::new().unwrap();
    let config = |name: &str| {
        let mut config = narrow(&folder.path().join(name));
        let network = &mut config.model.network;
        (network.base, network.semantic_ids, network.id_dropout) = (Base::Din, 3, 0.1.into());
        config.model.query_fields = Some(vec!["item".to_owned(), "semantic_1".to_owned()]);
        config.train.min_occurrences = 3;
        config
    };
    let hashes =
        [(1, 4), (2, 1), (4, 2)].map(|place| published(&config(&format!("{place:?}")), place));
    let stopped = config("stopped");
    let ends = train(&stopped, Start::Fresh, (2, 1), stop_at(5, 0));
    assert!(ends.into_iter().all(|end| !end.expect("a rank").finished));
    let ends = train(&stopped, Start::Resume, (1, 2), go_on);
    let reports: Vec<RunReport> = ends.into_iter().map(|end| end.expect("a rank")).collect();
    let semantic = reports[0].semantic_ids.expect("the model sees semantic ids");
    assert_eq!((semantic.levels, semantic.size), (3, 6));
    assert!(0 < semantic.own && semantic.own <= semantic.images, "{semantic:?}");
    let resumed = publish_run(&run::folder(&stopped), 1).1;
    assert!(hashes.iter().chain([&resumed]).all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_ne!(resumed, undisturbed());
}

/// Counts of ids, and the rows that stand in for them, are no matter of the place either.
#[test]
fn unknown_ids_have_the_same_bits_on_any_number_of_processes_and_threads() {
    let folder = TempDir::new().unwrap();
    let hashes = [(1, 1), (1, 4), (2, 1), (4, 2)].map(|place| {
        let mut config = narrow(&folder.path().join(format!("{place:?}")));
        config.model.network.unknown = UnknownIds::Learned;
        config.model.network.id_dropout = 0.1.into();
        config.train.min_occurrences = 5;
        config.train.validation_parts = 4;
        published(&config, place)
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// Negatives of the batch are those of the lane, wherever it is.
#[test]
fn negatives_of_the_batch_have_the_same_bits_everywhere_and_after_a_stop() {
    let folder = TempDir::new().unwrap();
    let config = |name: &str, negatives| {
        let mut config = narrow(&folder.path().join(name));
        let network = &mut config.model.network;
        (network.base, network.aggregator) = (Base::PreRank, Aggregator::Sum);
        config.train.in_batch_negatives = negatives;
        config.train.validation_parts = 4;
        config
    };
    let hashes = [(1, 1), (1, 4), (2, 1), (4, 2)]
        .map(|place| published(&config(&format!("{place:?}"), 3), place));
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let stopped = config("stopped", 3);
    let ends = train(&stopped, Start::Fresh, (2, 1), stop_at(9, 0));
    assert!(ends.into_iter().all(|end| !end.expect("a rank").finished));
    let ends = train(&stopped, Start::Resume, (1, 2), go_on);
    assert!(ends.into_iter().all(|end| end.expect("a rank").finished));
    assert_eq!(publish_run(&run::folder(&stopped), 1).1, hashes[0]);
    assert_ne!(published(&config("without", 0), (1, 2)), hashes[0]);
}

/// A search finds what it finds wherever pictures and users are.
#[test]
fn a_search_has_the_same_bits_on_any_number_of_processes_and_threads() {
    let folder = TempDir::new().unwrap();
    for by in [SearchBy::Pictures, SearchBy::Category] {
        let hashes = [(1, 1), (1, 4), (2, 1), (4, 2)].map(|place| {
            let mut config = narrow(&folder.path().join(format!("{by:?} {place:?}")));
            let field = SearchSettings::category();
            config.model.network.search = Some(SearchSettings { keep: 3, by, field });
            config.train.validation_parts = 4;
            config.train.early_stop = Some(1);
            published(&config, place)
        });
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{by:?}: {hashes:?}");
    }
}

#[test]
fn sums_in_bf16_are_another_model_with_the_same_bits_everywhere() {
    let folder = TempDir::new().unwrap();
    let hashes = [(1, 2), (2, 1), (4, 1), (8, 1)].map(|place| {
        let mut config = narrow(&folder.path().join(format!("{place:?}")));
        config.train.all_reduce = Precision::Bf16;
        published(&config, place)
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    assert_ne!(hashes[0], undisturbed());
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_never_stopped() {
    let folder = TempDir::new().unwrap();
    let (_, whole) = publish(&config(&folder.path().join("whole")), 2);
    // In the first epoch, at its end, in the second one.
    let steps = Trainer::new(config(folder.path()), Job::solo(1)).unwrap().steps();
    for stop in [1, steps / 2, steps / 2 + 2] {
        let config = config(&folder.path().join(format!("stopped-{stop}")));
        let mut stop_there = |report: &StepReport, _| match report.cursor.step == stop {
            true => Next::Stop,
            false => Next::GoOn,
        };
        let report = run::train(&config, Start::Fresh, Job::solo(2), &mut stop_there).unwrap();
        assert!(!report.finished && report.steps == stop);
        let go_on = &mut |_: &_, _| Next::GoOn;
        let report = run::train(&config, Start::Resume, Job::solo(1), go_on).unwrap();
        assert!(report.finished);
        assert_eq!(publish_run(&report.run, 1).1, whole, "stopped after {stop} of {steps} steps");
    }
}

/// Counts are no part of a checkpoint: they are made again.
#[test]
fn a_stopped_run_with_admission_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let config = |name: &str| {
        let mut config = narrow(&folder.path().join(name));
        config.train.min_occurrences = 5;
        config
    };
    let (_, whole) = publish(&config("whole"), 2);
    let stopped = config("stopped");
    let ends = train(&stopped, Start::Fresh, (2, 1), stop_at(3, 0));
    assert!(ends.into_iter().all(|end| !end.expect("a rank").finished));
    let ends = train(&stopped, Start::Resume, (1, 2), go_on);
    assert!(ends.into_iter().all(|end| end.expect("a rank").finished));
    assert_eq!(publish_run(&run::folder(&stopped), 1).1, whole);
    assert_ne!(whole, undisturbed());
}

/// A projection is no part of a checkpoint: it is computed again, to the same bits. How statistics
/// are standardized is part of it.
#[test]
fn a_stopped_run_with_a_projection_goes_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let config = |name: &str| {
        let mut config = narrow(&folder.path().join(name));
        config.model.projection = Some(HALF_WHITENED);
        config.model.network.similarity = Similarity::Statistics;
        config
    };
    let (_, whole) = publish(&config("whole"), 2);
    let stopped = config("stopped");
    let ends = train(&stopped, Start::Fresh, (2, 1), stop_at(5, 0));
    assert!(ends.into_iter().all(|end| !end.expect("a rank").finished));
    let ends = train(&stopped, Start::Resume, (1, 2), go_on);
    assert!(ends.into_iter().all(|end| end.expect("a rank").finished));
    assert_eq!(publish_run(&run::folder(&stopped), 1).1, whole);
    assert_ne!(whole, undisturbed());
}

#[test]
fn one_rank_stops_all_and_fewer_processes_go_on_to_the_same_bits() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    // One rank of four wishes to stop in the first epoch, one of two in the second.
    for (start, size, stop, from) in [(Start::Fresh, 4, 3, 0), (Start::Resume, 2, 9, 3)] {
        let ends = train(&config, start, (size, 1), stop_at(stop, size - 1));
        for end in ends {
            let report = end.expect("a rank");
            let end = (report.finished, report.steps, report.resumed_from, report.processes);
            assert_eq!(end, (false, stop, from, size));
        }
    }
    let report = train(&config, Start::Resume, (1, 2), go_on).remove(0).unwrap();
    assert_eq!((report.finished, report.resumed_from), (true, 9));
    assert_eq!(publish_run(&report.run, 1).1, undisturbed());
}

/// Every step of the training of `config` from the newest checkpoint on, by `size` processes.
fn resumed(config: &Config, size: usize) -> Vec<StepReport> {
    let checkpoints = run::folder(config).join(run::CHECKPOINTS);
    let mut ranks = ThreadFabric::run(size, |fabric| {
        let mut trainer = Trainer::resume(&checkpoints, Job::of(fabric, 1)).expect("a rank");
        remaining_steps(&mut trainer)
    });
    let first = ranks.remove(0);
    assert!(ranks.iter().all(|rank| *rank == first), "ranks of one job agree");
    first
}

#[test]
fn after_a_kill_no_impression_is_skipped_or_seen_twice() {
    let folder = TempDir::new().unwrap();
    // In the middle of the first epoch, at its end, in the middle of the second; shuffled all in
    // memory, and in windows that do not end where a step does.
    for (case, (before, shuffle_groups)) in
        [(3, 1000), (8, 1000), (11, 5), (3, 5)].into_iter().enumerate()
    {
        let mut config = narrow(&folder.path().join(case.to_string()));
        config.train.shuffle_groups = shuffle_groups;
        let whole = train_in_memory(&config, 1).steps;
        assert!(before < whole.len());
        let run = Job::solo(1).run_folder(&config).unwrap();
        ThreadFabric::run(4, |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            for step in &whole[..before] {
                assert_eq!(trainer.step().unwrap().as_ref(), Some(step));
            }
            trainer.checkpoint(&run).unwrap();
            // What is learned after the last checkpoint is lost with the process.
            assert_eq!(trainer.step().unwrap().as_ref(), whole.get(before));
        });
        for size in [1, 2, 8] {
            // Reports are equal if losses are bit by bit, and every count of impressions.
            assert_eq!(resumed(&config, size), whole[before..], "after {before}, {size} processes");
        }
    }
}

#[test]
fn any_number_of_processes_predicts_the_same_and_the_first_has_all_of_it() {
    let folder = TempDir::new().unwrap();
    for placement in PLACEMENTS {
        let mut config = narrow(folder.path());
        config.train.placement = placement;
        // Of each rank: both splits after three steps, and the loss of the fourth.
        let predicted = |size| {
            ThreadFabric::run(size, |fabric| {
                let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
                (0..3).for_each(|_| assert!(trainer.step().unwrap().is_some()));
                let both = SplitName::ALL.map(|split| trainer.evaluate(split).unwrap());
                (both, trainer.step().unwrap().unwrap().loss.to_bits())
            })
        };
        let bits = |predictions: &Predictions| -> Vec<u32> {
            predictions.logits.iter().map(|logit| logit.to_bits()).collect()
        };
        let (alone, next) = predicted(1).remove(0);
        let card = Trainer::new(config.clone(), Job::solo(1)).unwrap().dataset().card().clone();
        assert_eq!(alone[0].len() as u64, card.counts.train);
        assert_eq!(alone[1].len() as u64, card.counts.test);
        for size in [2, 4] {
            for (rank, (both, loss)) in predicted(size).into_iter().enumerate() {
                assert_eq!(loss, next);
                for (got, alone) in both.iter().zip(&alone) {
                    if rank == 0 {
                        assert!(got == alone && bits(got) == bits(alone), "{size} processes");
                    } else {
                        assert!(got.is_empty(), "rank {rank} of {size}");
                    }
                }
            }
        }
        // To look at a model does not change it.
        let undisturbed = train_in_memory(&config, 1);
        assert_eq!(undisturbed.loss_bits()[3], next);
    }
}
