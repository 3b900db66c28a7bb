//! Users held out, and trainings that end when these have nothing more from it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ams_data::Groups;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_train::run::checkpoint;
use ams_train::run::journal::ValidationLine;
use ams_train::run::{self, Next, RunReport, Start};
use ams_train::{Config, Job, Trainer};
use tempfile::TempDir;

use super::shop::{copy_folder, go_on, narrow, publish_run, shop, stop_at, train, train_in_memory};

/// A training that learns its users by heart, an eighth of all held out.
fn overfitting(runs: &Path) -> Config {
    let mut config = narrow(runs);
    config.train.epochs = 12;
    config.train.learning_rate = 0.002;
    config.train.validation_parts = 8;
    config.train.early_stop = Some(2);
    config.train.keep_checkpoints = 1;
    config
}

/// What happened to [`overfitting`] undisturbed.
struct Undisturbed {
    folder: TempDir,
    report: RunReport,
    hash: String,
    steps_per_epoch: u64,
}

impl Undisturbed {
    /// The best epoch's last step.
    fn best_step(&self) -> u64 {
        (u64::from(self.report.best_epoch.unwrap()) + 1) * self.steps_per_epoch
    }
}

fn undisturbed() -> &'static Undisturbed {
    static ONCE: OnceLock<Undisturbed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let config = overfitting(folder.path());
        let report = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
        let copy = TempDir::new().unwrap();
        copy_folder(folder.path(), copy.path());
        let hash = publish_run(&run::folder(&overfitting(copy.path())), 1).1;
        let steps = Trainer::new(config, Job::solo(1)).unwrap().steps();
        Undisturbed { folder, report, hash, steps_per_epoch: steps / 12 }
    })
}

fn checkpoints(config: &Config) -> PathBuf {
    run::folder(config).join(run::CHECKPOINTS)
}

fn steps(config: &Config) -> Vec<u64> {
    checkpoint::list(&checkpoints(config)).unwrap().into_iter().map(|(step, _)| step).collect()
}

/// The lines about validation.
fn said(config: &Config) -> Vec<ValidationLine> {
    let text = fs::read_to_string(run::folder(config).join(run::layout::METRICS)).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// That `report` and what is in the folder are as if nothing had happened.
fn assert_undisturbed(config: &Config, report: &RunReport) {
    let want = undisturbed();
    let facts =
        |report: &RunReport| (report.finished, report.steps, report.best_epoch, report.validation);
    assert_eq!(facts(report), facts(&want.report));
    assert_eq!(*steps(config).last().unwrap(), want.best_step());
    assert_eq!(said(config), said(&overfitting(want.folder.path())), "each epoch once");
    assert_eq!(publish_run(&run::folder(config), 1).1, want.hash);
}

#[test]
fn a_training_that_overfits_ends_with_its_best_epoch() {
    let Undisturbed { folder, report, hash, steps_per_epoch } = undisturbed();
    let config = overfitting(folder.path());
    let said = said(&config);
    let gaucs: Vec<f64> = said.iter().map(|line| line.validation.gauc.unwrap()).collect();
    let best = report.best_epoch.unwrap() as usize;
    assert!(report.finished && best > 0, "{gaucs:?}");
    assert_eq!(said.len(), best + 3, "two epochs of patience after the best: {gaucs:?}");
    assert_eq!(report.steps, said.len() as u64 * steps_per_epoch);
    assert!(gaucs[..best].iter().all(|gauc| *gauc < gaucs[best]), "{gaucs:?}");
    assert!(gaucs[best + 1..].iter().all(|gauc| *gauc <= gaucs[best]), "{gaucs:?}");
    assert_eq!(report.validation, Some(said[best].validation));
    assert_eq!((said[best].epoch as usize, said[best].step), (best, undisturbed().best_step()));
    assert_eq!(steps(&config), [undisturbed().best_step()]);

    // The same model as that of a training of exactly so many epochs, which only reports.
    let other = TempDir::new().unwrap();
    let mut config = overfitting(other.path());
    (config.train.epochs, config.train.early_stop) = (best as u32 + 1, None);
    let report = train(&config, Start::Fresh, (2, 1), go_on).remove(0).unwrap();
    assert_eq!(report.best_epoch, None);
    assert_eq!(report.validation, undisturbed().report.validation);
    assert!(!run::folder(&config).join(run::layout::ENDED).exists());
    assert_eq!(publish_run(&report.run, 1).1, *hash);
}

#[test]
fn all_epochs_done_the_best_one_is_the_result_too() {
    let folder = TempDir::new().unwrap();
    let best = undisturbed().report.best_epoch.unwrap();
    let mut config = overfitting(folder.path());
    // One epoch of patience is left.
    config.train.epochs = best + 2;
    let report = train(&config, Start::Fresh, (1, 2), go_on).remove(0).unwrap();
    assert_eq!((report.finished, report.best_epoch), (true, Some(best)));
    assert_eq!(report.steps, undisturbed().best_step() + undisturbed().steps_per_epoch);
    assert_eq!(steps(&config), [undisturbed().best_step()]);
    assert_eq!(publish_run(&report.run, 1).1, undisturbed().hash);
}

#[test]
fn it_ends_alike_on_any_number_of_processes_and_threads() {
    for place in [(1, 2), (1, 4), (2, 1), (4, 2), (8, 1)] {
        let folder = TempDir::new().unwrap();
        let config = overfitting(folder.path());
        let mut reports = train(&config, Start::Fresh, place, go_on).into_iter();
        let first = reports.next().unwrap().unwrap();
        for other in reports {
            let other = other.unwrap();
            assert_eq!(
                (other.best_epoch, other.validation, other.steps),
                (first.best_epoch, first.validation, first.steps)
            );
        }
        assert_undisturbed(&config, &first);
    }
}

#[test]
fn stopped_anywhere_it_goes_on_to_the_same_end() {
    let (epoch, best) = (undisturbed().steps_per_epoch, undisturbed().best_step());
    // In the first epoch, at its end, at the best one's end, and within and after the patience.
    for (stop, size) in [(1, 1), (epoch, 4), (best, 2), (best + 1, 2), (best + epoch, 1)] {
        let folder = TempDir::new().unwrap();
        let config = overfitting(folder.path());
        let report = train(&config, Start::Fresh, (size, 1), stop_at(stop, 0)).remove(0).unwrap();
        assert_eq!((report.finished, report.steps), (false, stop));
        for place in [(2, 2), (4, 1)] {
            let report = train(&config, Start::Auto, place, go_on).remove(0).unwrap();
            let end = if place.0 == 2 { stop } else { best };
            assert_eq!(report.resumed_from, end);
            assert_eq!(report.impressions > 0, place.0 == 2, "ended is ended");
            if place.0 == 4 {
                assert_undisturbed(&config, &report);
            }
        }
    }
}

/// A copy of the checkpoints one step before the end.
fn just_before_the_end() -> TempDir {
    let (folder, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = overfitting(folder.path());
    let watch = |_, step| {
        if step + 1 == undisturbed().report.steps && !copy.path().join("runs").exists() {
            copy_folder(folder.path(), &copy.path().join("runs"));
        }
        Next::GoOn
    };
    assert!(train(&config, Start::Fresh, (1, 1), watch).remove(0).unwrap().finished);
    copy
}

#[test]
fn killed_anywhere_in_the_end_it_ends_alike() {
    let Undisturbed { folder, steps_per_epoch, .. } = undisturbed();
    let best = undisturbed().best_step();
    let before = just_before_the_end();

    // In the last epoch: the best epoch's checkpoint is there, though one is to be kept.
    let config = overfitting(&before.path().join("runs"));
    let ended = run::folder(&config).join(run::layout::ENDED);
    assert!(!ended.exists());
    assert_eq!(steps(&config), [best, best + steps_per_epoch]);
    // From where it was copied to: runs may be moved.
    let last = TempDir::new().unwrap();
    copy_folder(&before.path().join("runs"), last.path());
    let report = train(&config, Start::Resume, (2, 1), go_on).remove(0).unwrap();
    assert_eq!(report.resumed_from, best + steps_per_epoch);
    assert_undisturbed(&config, &report);

    // After the last checkpoint, before it is said that this is the end; validated or not.
    for validated in [true, false] {
        let folder = TempDir::new().unwrap();
        copy_folder(last.path(), folder.path());
        let config = overfitting(folder.path());
        let mut trainer = Trainer::resume(&checkpoints(&config), Job::solo(1)).unwrap();
        (0..*steps_per_epoch).for_each(|_| assert!(trainer.step().unwrap().is_some()));
        if validated {
            let validation = trainer.validate(&mut || ()).unwrap();
            assert!(validation.is_some() && trainer.is_done());
            assert_eq!(trainer.validate(&mut || ()).unwrap(), None, "once");
        }
        trainer.checkpoint(&Job::solo(1).run_folder(&config).unwrap()).unwrap();
        drop(trainer);
        let report = train(&config, Start::Auto, (4, 1), go_on).remove(0).unwrap();
        assert_eq!(report.impressions, 0);
        assert_eq!(steps(&config), [best]);
        assert_eq!(publish_run(&report.run, 1).1, undisturbed().hash);
    }

    // After that was said, while later checkpoints are removed.
    let late = TempDir::new().unwrap();
    copy_folder(folder.path(), late.path());
    let config = overfitting(late.path());
    let later = checkpoint::path(&checkpoints(&overfitting(last.path())), best + steps_per_epoch);
    copy_folder(&later, &checkpoint::path(&checkpoints(&config), best + steps_per_epoch));
    copy_folder(&later, &checkpoints(&config).join(".step-9999.retired"));
    let report = train(&config, Start::Auto, (1, 1), go_on).remove(0).unwrap();
    assert_eq!((report.impressions, report.resumed_from), (0, best));
    assert_eq!(fs::read_dir(checkpoints(&config)).unwrap().count(), 1);
    assert_undisturbed(&config, &report);
}

#[test]
fn without_the_checkpoint_of_its_result_a_training_goes_on_again() {
    let (folder, best) = (&undisturbed().folder, undisturbed().best_step());
    let copy = TempDir::new().unwrap();
    let config = overfitting(copy.path());
    train(&config, Start::Fresh, (1, 1), stop_at(best - 1, 0)).remove(0).unwrap();
    fs::copy(
        run::folder(&overfitting(folder.path())).join(run::layout::ENDED),
        run::folder(&config).join(run::layout::ENDED),
    )
    .unwrap();
    let report = train(&config, Start::Resume, (1, 1), go_on).remove(0).unwrap();
    assert_eq!(report.resumed_from, best - 1);
    assert_undisturbed(&config, &report);

    // The best epoch's is missed before anything is learned.
    let copy = TempDir::new().unwrap();
    let config = overfitting(copy.path());
    train(&config, Start::Fresh, (1, 1), stop_at(best + 1, 0)).remove(0).unwrap();
    fs::remove_dir_all(checkpoint::path(&checkpoints(&config), best)).unwrap();
    for end in train(&config, Start::Resume, (2, 1), go_on) {
        let error = end.unwrap_err().to_string();
        let want = format!("step-{best}: is missing, but it is the best epoch's");
        assert!(error.contains(&want), "{error}");
    }
}

#[test]
fn users_held_out_are_not_learned_from() {
    let folder = TempDir::new().unwrap();
    let mut config = overfitting(folder.path());
    config.train.epochs = 1;
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let mut users = [BTreeSet::new(), BTreeSet::new()];
    let mut impressions = [0, 0];
    for part in 0..64 {
        let path = dataset.part_path(SplitName::Train, part);
        let file = SampleFile::open(&path, dataset.schema()).unwrap();
        let held_out = usize::from(part % 8 == 7);
        for block in 0..file.blocks() {
            let mut groups = Groups::new(dataset.schema());
            file.read(block, &mut groups).unwrap();
            users[held_out].extend(groups.users.iter().map(|user| user.0));
            impressions[held_out] += groups.labels.len() as u64;
        }
    }
    assert!(users.iter().all(|users| users.len() > 2), "{users:?}");
    let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
    while trainer.step().unwrap().is_some() {}
    let has_row =
        |user: &u64| trainer.lanes().shards().any(|shard| shard.table.slot(*user).is_some());
    assert!(users[0].iter().all(has_row), "who is learned from has a row");
    assert!(!users[1].iter().any(has_row));
    assert_eq!(trainer.cursor().impressions, impressions[0]);
    let all = trainer.evaluate(SplitName::Train).unwrap();
    assert_eq!(all.len() as u64, impressions[0] + impressions[1], "a split is all of it");

    // To look at them changes nothing of a training, nor what it counts.
    config.train.epochs = 2;
    config.train.early_stop = None;
    let unseen = train_in_memory(&config, 2);
    let seen = ams_fabric::ThreadFabric::run(2, |fabric| {
        let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
        let mut losses = Vec::new();
        while let Some(step) = trainer.step().unwrap() {
            losses.push(step.loss.to_bits());
            trainer.validate(&mut || ()).unwrap();
        }
        (losses, trainer.lanes_mut().take_counts().unwrap())
    });
    for seen in seen {
        assert_eq!(seen, (unseen.loss_bits(), unseen.per_step));
    }
}
