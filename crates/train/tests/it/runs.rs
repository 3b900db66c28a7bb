//! Run folders: what is in them, and that they belong to one training.

use std::fs;

use ams_data::lock::Lock;
use ams_train::run::{self, Next, Start};
use ams_train::{Config, Error, Job, StepReport};
use tempfile::TempDir;

use super::shop::{
    config, go_on, narrow, publish, publish_run, refusal, stop_at, train, undisturbed,
};

#[test]
fn lines_a_killed_process_wrote_after_its_checkpoint_are_not_repeated() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    config.train.log_every = 1;
    let stop_at_4 = &mut |report: &StepReport, _| match report.cursor.step {
        4 => Next::Stop,
        _ => Next::GoOn,
    };
    run::train(&config, Start::Fresh, Job::solo(1), stop_at_4).unwrap();
    let metrics = run::folder(&config).join(run::layout::METRICS);
    let lines = fs::read_to_string(&metrics).unwrap();
    let fifth = lines.lines().last().unwrap().replace("\"step\":4", "\"step\":5");
    fs::write(&metrics, format!("{lines}{fifth}\n{{\"step\":6,\"ep")).unwrap();
    let go_on = &mut |_: &_, _| Next::GoOn;
    let report = run::train(&config, Start::Resume, Job::solo(1), go_on).unwrap();
    let steps: Vec<u64> = fs::read_to_string(&metrics)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<run::journal::MetricsLine>(line).unwrap().step)
        .collect();
    assert_eq!(steps, (1..=report.steps).collect::<Vec<_>>());
}

#[test]
fn a_fresh_run_does_not_touch_an_earlier_one() {
    let folder = TempDir::new().unwrap();
    let config = config(folder.path());
    let hash = publish(&config, 1).1;
    let go_on = &mut |_: &_, _| Next::GoOn;
    let error = run::train(&config, Start::Fresh, Job::solo(1), go_on).unwrap_err();
    assert!(error.to_string().contains("holds an earlier training"), "{error}");
    let other = Config { seed: 8, ..config.clone() };
    let error = run::train(&other, Start::Resume, Job::solo(1), go_on).unwrap_err();
    assert!(error.to_string().contains("another configuration"), "{error}");
    run::train(&config, Start::Replace, Job::solo(1), go_on).unwrap();
    assert_eq!(publish_run(&run::folder(&config), 1).1, hash);
}

fn stop_early(config: &Config) {
    let report = train(config, Start::Auto, (1, 1), stop_at(3, 0)).remove(0).unwrap();
    assert_eq!((report.resumed_from, report.steps), (0, 3));
}

#[test]
fn auto_begins_where_nothing_is_and_goes_on_where_a_checkpoint_is() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    stop_early(&config);
    let report = train(&config, Start::Auto, (2, 1), go_on).remove(0).unwrap();
    assert_eq!((report.resumed_from, report.steps, report.finished), (3, 16, true));
    assert_eq!(publish_run(&report.run, 1).1, undisturbed());
}

#[test]
fn auto_begins_anew_after_a_kill_before_the_first_checkpoint() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    stop_early(&config);
    let run = run::folder(&config);
    // As if it had been killed while it wrote its first checkpoint.
    let checkpoints = run.join(run::CHECKPOINTS);
    fs::rename(checkpoints.join("step-3"), checkpoints.join(".step-3.building")).unwrap();
    fs::write(run.join("of the killed one"), "").unwrap();
    let other = Config { seed: 8, ..config.clone() };
    assert_eq!(
        refusal(&other, Start::Auto),
        format!(
            "{}: holds a training with another configuration; choose another name, or --replace it",
            run.display()
        )
    );
    assert!(run.join("of the killed one").exists(), "what is refused touches nothing");
    let report = train(&config, Start::Auto, (4, 1), go_on).remove(0).unwrap();
    assert_eq!((report.resumed_from, report.finished), (0, true));
    assert!(!run.join("of the killed one").exists());
    assert_eq!(publish_run(&run, 1).1, undisturbed());
    // Every step is in the metrics once.
    let metrics = fs::read_to_string(run.join(run::layout::METRICS)).unwrap();
    assert_eq!(metrics.lines().count(), 16);
}

#[test]
fn auto_does_not_go_on_with_another_configuration() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    stop_early(&config);
    let other = Config { seed: 8, ..config };
    let error = refusal(&other, Start::Auto);
    assert!(error.contains("the checkpoint was trained with another configuration"), "{error}");
}

#[test]
fn checkpoints_whose_configuration_is_lost_are_an_earlier_training_too() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    stop_early(&config);
    fs::remove_file(run::folder(&config).join(run::CONFIG)).unwrap();
    let error = refusal(&Config { seed: 8, ..config.clone() }, Start::Fresh);
    assert!(error.contains("holds an earlier training"), "{error}");
    let report = train(&config, Start::Auto, (1, 1), go_on).remove(0).unwrap();
    assert_eq!((report.resumed_from, report.finished), (3, true));
    assert_eq!(publish_run(&report.run, 1).1, undisturbed());
}

#[test]
fn a_run_is_trained_by_one_job_at_a_time() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    let lock = Lock::take(folder.path(), "run").unwrap();
    for start in [Start::Fresh, Start::Replace, Start::Resume, Start::Auto] {
        let mut ends = train(&config, start, (2, 1), go_on).into_iter();
        let own = ends.next().unwrap().unwrap_err().to_string();
        let holder = format!("is held by another job (process {})", std::process::id());
        assert!(own.contains(".run.lock: ") && own.contains(&holder), "{own}");
        match ends.next().unwrap().unwrap_err() {
            Error::Elsewhere { rank: 0, what } => assert_eq!(what, own),
            error => panic!("{error:?}"),
        }
    }
    assert!(!run::folder(&config).exists());
    // Another run in the same folder is free, and so is this one after its holder.
    let other = Config { name: "other".to_owned(), ..config.clone() };
    stop_early(&other);
    drop(lock);
    // While it trains it holds the lock itself, and does not notice who else tries.
    let watch = |_, step| {
        if step == 2 {
            let error = refusal(&config, Start::Replace);
            assert!(error.contains("is held by another job"), "{error}");
        }
        Next::GoOn
    };
    assert!(train(&config, Start::Fresh, (1, 1), watch).remove(0).unwrap().finished);
    assert_eq!(publish_run(&run::folder(&config), 1).1, undisturbed());
    assert!(!folder.path().join(".run.lock").exists());
}
