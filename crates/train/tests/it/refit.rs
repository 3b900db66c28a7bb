//! Evaluations within an epoch, and trainings that find their length and their model on users held
//! out and then learn from all.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use ams_train::run::journal::ValidationLine;
use ams_train::run::{self, Choice, Next, RunReport, Start};

use ams_train::settings::{Candidate, ImageArm, Similarity};
use ams_train::{Config, Job};
use tempfile::TempDir;

use super::shop::{copy_folder, go_on, narrow, publish_run, train};

/// A short training with three evaluations per epoch.
fn evaluated(runs: &Path) -> Config {
    let mut config = narrow(runs);
    config.train.epochs = 3;
    config.train.learning_rate = 0.012;
    config.train.validation_parts = 8;
    config.train.early_stop = Some(2);
    config.train.evaluations_per_epoch = 3;
    config.train.keep_checkpoints = 1;
    config
}

/// The same with refit, of three candidates.
fn chosen(runs: &Path) -> Config {
    let mut config = evaluated(runs);
    config.model.network.similarity = Similarity::Cosine;
    config.train.refit = true;
    config.train.candidates = vec![Candidate::Ids, Candidate::Similarity, Candidate::Full];
    config
}

fn said(run: &Path) -> Vec<ValidationLine> {
    let text = fs::read_to_string(run.join(run::layout::METRICS)).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn choice(run: &Path) -> Choice {
    serde_json::from_str(&fs::read_to_string(run.join("choice.json")).unwrap()).unwrap()
}

#[test]
fn evaluations_are_at_equal_distances_and_change_nothing() {
    let folder = TempDir::new().unwrap();
    let mut config = evaluated(folder.path());
    (config.train.epochs, config.train.early_stop) = (1, None);
    let report = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    let steps = report.steps_per_epoch;
    let at: Vec<u64> = said(&report.run).iter().map(|line| line.step).collect();
    assert_eq!(at, [steps.div_ceil(3), (2 * steps).div_ceil(3), steps]);
    let hash = publish_run(&report.run, 1).1;

    // More evaluations than steps: each step has one.
    let often = TempDir::new().unwrap();
    config.runs = often.path().to_path_buf();
    config.train.evaluations_per_epoch = 1000;
    let report = train(&config, Start::Fresh, (2, 1), go_on).remove(0).unwrap();
    let at: Vec<u64> = said(&report.run).iter().map(|line| line.step).collect();
    assert_eq!(at, (1..=steps).collect::<Vec<_>>());
    assert_eq!(publish_run(&report.run, 1).1, hash);
}

#[test]
fn stopped_between_two_evaluations_it_goes_on_to_the_same_end() {
    let whole = TempDir::new().unwrap();
    let config = evaluated(whole.path());
    let want = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    let steps = want.steps_per_epoch;
    assert_ne!(want.best_step.unwrap() % steps, 0, "the best evaluation is within an epoch");
    let hash = publish_run(&want.run, 2).1;
    for stop in [1, steps.div_ceil(3), steps.div_ceil(3) + 1, steps + 1] {
        let folder = TempDir::new().unwrap();
        let config = evaluated(folder.path());
        let stop = |_, step| if step == stop { Next::Stop } else { Next::GoOn };
        let report = train(&config, Start::Fresh, (2, 1), stop).remove(0).unwrap();
        assert!(!report.finished);
        let report = train(&config, Start::Resume, (4, 1), go_on).remove(0).unwrap();
        assert_eq!(
            (report.best_step, report.validation, report.steps),
            (want.best_step, want.validation, want.steps)
        );
        assert_eq!(said(&report.run), said(&want.run));
        assert_eq!(publish_run(&report.run, 1).1, hash);
    }
}

/// [`chosen`], undisturbed: its folder, report and hash.
fn undisturbed() -> &'static (TempDir, RunReport, String) {
    static ONCE: OnceLock<(TempDir, RunReport, String)> = OnceLock::new();
    ONCE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let report = train(&chosen(folder.path()), Start::Fresh, (1, 1), go_on).remove(0).unwrap();
        let copy = TempDir::new().unwrap();
        copy_folder(folder.path(), copy.path());
        let hash = publish_run(&run::folder(&chosen(copy.path())), 1).1;
        (folder, report, hash)
    })
}

#[test]
fn the_best_candidate_learns_from_all_users() {
    let (folder, report, hash) = undisturbed();
    let choice = choice(&report.run);
    assert_eq!(report.choice.as_ref(), Some(&choice));
    let gauc = |at: usize| choice.searched[at].validation.unwrap().gauc.unwrap();
    let most = (0..3).map(gauc).fold(0.0, f64::max);
    assert_eq!((0..3).position(|at| gauc(at) == most), Some(choice.chosen));
    for (at, name) in ["ids", "similarity", "full"].into_iter().enumerate() {
        let searched = &choice.searched[at];
        assert_eq!(searched.candidate.as_str(), name);
        assert_eq!(searched.run, folder.path().join(format!("run.search-{name}")));
        let best = said(&searched.run).iter().map(|line| line.validation.gauc).fold(None, f64_max);
        assert_eq!(Some(gauc(at)), best);
        let before = (0..at).map(gauc).reduce(f64::max);
        let gain = searched.gain.map(|of| {
            assert!(of.error > 0.0 && of.error < 0.1, "{of:?}");
            of.gain
        });
        let close =
            gain.zip(before).is_some_and(|(gain, of)| (gain - (gauc(at) - of)).abs() < 1e-9);
        assert!(close || at == 0 && gain.is_none(), "{gain:?} {before:?}");
    }

    // The same as a training that is told so from the beginning.
    let other = TempDir::new().unwrap();
    let mut config = narrow(other.path());
    config.train.learning_rate = 0.012;
    config.train.epochs = 3;
    config.model.network.similarity = Similarity::Cosine;
    match choice.searched[choice.chosen].candidate {
        Candidate::Ids => {
            (config.model.network.images, config.model.network.similarity) =
                (ImageArm::None, Similarity::None);
        }
        Candidate::Similarity => config.model.network.images = ImageArm::None,
        Candidate::Full => {}
    }
    config.train.max_steps = Some(choice.steps);
    let told = train(&config, Start::Fresh, (2, 2), go_on).remove(0).unwrap();
    assert_eq!((told.steps, told.impressions > 0), (choice.steps, true));
    let share = choice.searched[choice.chosen].epochs;
    let steps = (share * told.steps_per_epoch as f64).round() as u64;
    assert_eq!(choice.steps, steps.max(1), "{share} of {}", told.steps_per_epoch);
    assert_eq!(publish_run(&told.run, 1).1, *hash);
}

/// The samples held out are read again, and no search is trained again.
#[test]
fn a_later_candidate_has_to_be_better_by_its_errors() {
    let (_, want, _) = undisturbed();
    let want = want.choice.as_ref().unwrap();
    let gains = || want.searched.iter().enumerate().filter_map(|(at, of)| Some((at, of.gain?)));
    let most = gains().map(|(_, of)| of.gain / of.error).fold(0.0, f64::max);
    for (errors, place) in [(most * 0.99, (1, 1)), (most * 1.01, (1, 1)), (1e6, (2, 1))] {
        let folder = TempDir::new().unwrap();
        copy_folder(undisturbed().0.path(), folder.path());
        let mut config = chosen(folder.path());
        config.train.candidate_errors = errors as f32;
        fs::remove_dir_all(run::folder(&config)).unwrap();
        let report = train(&config, Start::Auto, place, go_on).remove(0).unwrap();
        let choice = choice(&report.run);
        assert_eq!(report.choice.as_ref(), Some(&choice));
        let gains = choice.searched.iter().map(|of| of.gain);
        let mut better =
            gains.enumerate().filter(|(_, of)| of.is_some_and(|of| of.gain > errors * of.error));
        assert_eq!(choice.chosen, better.next_back().map_or(0, |(at, _)| at), "{errors}");
        assert!(errors < most || choice.chosen == 0, "{errors} {choice:?}");
    }
}

fn f64_max(most: Option<f64>, value: Option<f64>) -> Option<f64> {
    if value > most { value } else { most }
}

#[test]
fn stopped_in_any_of_its_trainings_a_refit_goes_on_to_the_same_end() {
    let (_, want, hash) = undisturbed();
    // Steps over all trainings together: in the first search, the second, the third, the refit.
    let searched = &want.choice.as_ref().unwrap().searched;
    let lengths = searched.iter().map(|searched| said(&searched.run).last().unwrap().step);
    let mut begin = 0;
    let mut stops = vec![1];
    for length in lengths {
        begin += length;
        stops.extend([begin, begin + 1]);
    }
    for (at, stop) in stops.into_iter().enumerate() {
        let folder = TempDir::new().unwrap();
        let config = chosen(folder.path());
        let taken = Cell::new((0, 0));
        let watch = &mut |report: &ams_train::StepReport, _| {
            let (seen, mut all) = taken.get();
            if report.impressions > 0 && seen != report.cursor.impressions {
                all += 1;
            }
            taken.set((report.cursor.impressions, all));
            if all >= stop { Next::Stop } else { Next::GoOn }
        };
        let report = run::train(&config, Start::Fresh, Job::solo(1), watch).unwrap();
        assert!(!report.finished, "stop {stop}");
        let start = if at % 2 == 0 { Start::Resume } else { Start::Auto };
        let report = train(&config, start, (2, 1), go_on).remove(0).unwrap();
        let mut choice = report.choice.clone().unwrap();
        let expected = want.choice.clone().unwrap();
        for (searched, expected) in choice.searched.iter_mut().zip(&expected.searched) {
            searched.run.clone_from(&expected.run);
        }
        assert_eq!(choice, expected);
        assert_eq!(publish_run(&report.run, 1).1, *hash, "stop {stop}");
    }
}

#[test]
fn a_finished_refit_is_not_trained_again_and_not_replaced_unasked() {
    let (folder, want, hash) = undisturbed();
    let copy = TempDir::new().unwrap();
    copy_folder(folder.path(), copy.path());
    let config = chosen(copy.path());
    let report = train(&config, Start::Auto, (1, 1), go_on).remove(0).unwrap();
    assert_eq!((report.impressions, report.steps), (0, want.steps));
    let error = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap_err().to_string();
    assert!(error.contains("run: holds an earlier training"), "{error}");
    let report = train(&config, Start::Replace, (1, 1), go_on).remove(0).unwrap();
    assert_eq!(report.choice.map(|choice| choice.steps), want.choice.as_ref().map(|c| c.steps));
    assert_eq!(publish_run(&report.run, 1).1, *hash);
}

/// The newest groups are held out instead of users: with the same bits everywhere, and what is
/// learned from is older than what is not.
#[test]
fn a_tail_of_the_time_validates_with_the_same_bits_everywhere() {
    let tail = |runs: &Path| {
        let mut config = evaluated(runs);
        (config.train.validation_parts, config.train.validation_tail) = (0, 0.3);
        config
    };
    let whole = TempDir::new().unwrap();
    let want = train(&tail(whole.path()), Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    let lines = said(&want.run);
    assert!(!lines.is_empty() && want.validation.is_some());
    let hash = publish_run(&want.run, 1).1;
    let (learned, all) = (want.steps_per_epoch, want.steps_per_epoch_of_all_users);
    let share = learned as f64 / all as f64;
    assert!((0.65..0.8).contains(&share), "{learned} of {all} steps");
    for place in [(2, 1), (4, 2)] {
        let folder = TempDir::new().unwrap();
        let config = tail(folder.path());
        let stop = |_, step| if step == 3 { Next::Stop } else { Next::GoOn };
        train(&config, Start::Fresh, place, stop).remove(0).unwrap();
        let report = train(&config, Start::Resume, (1, 2), go_on).remove(0).unwrap();
        assert_eq!(said(&report.run), lines, "{place:?}");
        assert_eq!(publish_run(&report.run, 1).1, hash, "{place:?}");
    }
    let other = evaluated(TempDir::new().unwrap().path());
    assert_ne!(
        train(&other, Start::Fresh, (1, 1), go_on).remove(0).unwrap().validation,
        want.validation
    );
}
