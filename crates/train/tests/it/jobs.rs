//! Processes that are not alike: all of them say how, and none waits for another.

use ams_fabric::{Fabric, ThreadFabric};
use ams_train::run::{self, Next, Start};
use ams_train::{Config, Error, Job, Trainer};
use tempfile::TempDir;

use super::shop::{go_on, narrow, stop_at, train};

/// The errors of two ranks, the second of which has another configuration than the first.
fn ends(
    config: &Config,
    other: &Config,
    run: impl Fn(&Config, Job) -> Result<(), Error> + Sync,
) -> Vec<Error> {
    ThreadFabric::run(2, |fabric| {
        let config = if fabric.rank() == 0 { config } else { other };
        run(config, Job::of(fabric, 1)).expect_err("refused")
    })
}

fn assert_disagree(errors: &[Error], want: &str) {
    assert_eq!(errors.len(), 2);
    for error in errors {
        // Not that the other one was lost: each knows why it stops.
        assert!(matches!(error, Error::Disagree { .. }), "{error:?}");
        let said = error.to_string();
        let differences: Vec<&str> = said.lines().filter(|line| line.starts_with("  ")).collect();
        assert_eq!(differences, [want], "{said}");
    }
}

#[test]
fn ranks_with_other_settings_all_say_which() {
    type Change = fn(&mut Config);
    let cases: [(Change, &str); 4] = [
        (|config| config.train.batch = 64, "  train.batch: rank 1 has 64, rank 0 has 256"),
        (|config| config.seed = 8, "  seed: rank 1 has 8, rank 0 has 7"),
        (
            |config| config.data.shuffle_images = Some(1),
            "  data.shuffle_images: rank 1 has 1, rank 0 has nothing",
        ),
        (
            |config| config.train.placement = ams_train::Placement::StoreInWorker,
            "  train.placement: rank 1 has \"store-in-worker\", rank 0 has \"ams\"",
        ),
    ];
    for (change, want) in cases {
        let folder = TempDir::new().unwrap();
        let config = narrow(&folder.path().join("runs"));
        let mut other = config.clone();
        change(&mut other);
        let begin = |start| {
            move |config: &Config, job: Job| {
                run::train(config, start, job, &mut |_, _| Next::GoOn).map(drop)
            }
        };
        let new = |config: &Config, job: Job| Trainer::new(config.clone(), job).map(drop);
        assert_disagree(&ends(&config, &other, new), want);
        assert_disagree(&ends(&config, &other, begin(Start::Fresh)), want);
        assert_disagree(&ends(&config, &other, begin(Start::Auto)), want);
        assert!(!folder.path().join("runs").exists(), "nothing was begun");
        // The checkpoint's configuration is that of one of them.
        train(&config, Start::Fresh, (1, 1), stop_at(1, 0)).remove(0).unwrap();
        for start in [Start::Resume, Start::Auto, Start::Fresh] {
            assert_disagree(&ends(&config, &other, begin(start)), want);
        }
    }
}

#[test]
fn ranks_of_other_programs_all_say_so() {
    let folder = TempDir::new().unwrap();
    let config = narrow(folder.path());
    let errors = ThreadFabric::run(2, |fabric| {
        let facts = vec![("ams".to_owned(), format!("0.{}", fabric.rank() + 1))];
        let job = Job { facts, ..Job::of(fabric, 1) };
        Trainer::new(config.clone(), job).map(drop).expect_err("refused")
    });
    assert_disagree(&errors, "  ams: rank 1 has 0.2, rank 0 has 0.1");
}

/// Asserts that rank 0 says `want`, and the others that rank 0 does.
fn assert_first_says(config: &Config, start: Start, size: usize, want: &str) {
    for (rank, end) in train(config, start, (size, 1), go_on).into_iter().enumerate() {
        let said = end.unwrap_err().to_string();
        let want = if rank == 0 { want.to_owned() } else { format!("rank 0: {want}") };
        assert!(said.starts_with(&want), "rank {rank}: {said}");
    }
}

#[test]
fn what_no_rank_can_do_every_rank_refuses() {
    let folder = TempDir::new().unwrap();
    let mut config = narrow(&folder.path().join("runs"));
    let run = run::folder(&config);
    config.train.lanes = 2;
    let want = "train.lanes: 2 lanes cannot be shared by 4 processes";
    assert_first_says(&config, Start::Fresh, 4, want);
    config.train.lanes = 3;
    assert_first_says(&config, Start::Fresh, 4, "train.lanes: 3, expected a power of two");
    config.train.lanes = 8;
    config.data.samples = "nowhere".into();
    assert_first_says(&config, Start::Auto, 2, "nowhere: no such folder");
    let want = format!("{}: holds no checkpoint", run.join(run::CHECKPOINTS).display());
    assert_first_says(&config, Start::Resume, 2, &want);
    assert!(!folder.path().join("runs").exists(), "nothing was begun");
}
