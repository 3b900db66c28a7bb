//! Runs that are kept elsewhere: here in a folder that stands for a bucket, while every process of
//! every host has a disk of its own. Nothing can be renamed there, and a job may be gone before any
//! of its files is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ams_data::Error as FileError;
use ams_fabric::{Fabric, ThreadFabric};
use ams_train::run::{self, KeptRun, Next, Places, RunReport, Start, readable};
use ams_train::settings::{Candidate, Similarity, WarmParts, WarmStart};
use ams_train::{Config, Error, Job, StepReport};
use tempfile::TempDir;

use super::shop::{
    copy_folder, go_on, narrow, publish, publish_run, short_alignment, train, undisturbed,
};

/// The runs of these tests, as they are named.
const RUNS: &str = "kept://runs";

/// A bucket, and hosts that use it.
struct World {
    folder: TempDir,
    hosts: AtomicU64,
    /// Who writes each run.
    holders: Mutex<BTreeMap<PathBuf, u64>>,
}

/// One host, and how many more files it puts before it is gone.
struct Host {
    world: Arc<World>,
    number: u64,
    left: AtomicI64,
}

/// A run for a process of a host.
struct Kept {
    host: Arc<Host>,
    name: PathBuf,
    here: PathBuf,
    holder: u64,
    holds: Mutex<bool>,
}

impl World {
    fn new() -> Arc<World> {
        let folder = TempDir::new().unwrap();
        Arc::new(World { folder, hosts: AtomicU64::new(0), holders: Mutex::default() })
    }

    /// A host that has nothing yet, and is gone after `puts` files.
    fn host(self: &Arc<World>, puts: i64) -> Arc<Host> {
        let number = self.hosts.fetch_add(1, Ordering::SeqCst);
        Arc::new(Host { world: Arc::clone(self), number, left: AtomicI64::new(puts) })
    }

    fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    /// The files of the run `name`, in order.
    fn names(&self, name: &str) -> Vec<String> {
        let root = self.bucket().join(name);
        let (mut found, mut left) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => left.push(path),
                    false => {
                        found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                    }
                }
            }
        }
        found.sort();
        found
    }

    /// The steps of the checkpoints of the run `name` that have a manifest, ascending.
    fn steps(&self, name: &str) -> Vec<u64> {
        let names = self.names(name);
        let step = |name: &String| {
            let folder = name.strip_prefix("checkpoints/step-")?;
            folder.strip_suffix("/MANIFEST.json")?.parse().ok()
        };
        let mut steps: Vec<u64> = names.iter().filter_map(step).collect();
        steps.sort_unstable();
        steps
    }

    /// What `ams eval` fetches of the run `name`, in a folder that is gone with the first part.
    fn fetched(&self, name: &str) -> (TempDir, PathBuf) {
        let to = TempDir::new().unwrap();
        let run = to.path().join(name);
        for file in readable(self.names(name)) {
            fs::create_dir_all(run.join(&file).parent().unwrap()).unwrap();
            fs::copy(self.bucket().join(name).join(&file), run.join(&file)).unwrap();
        }
        (to, run)
    }

    /// The hash of what the run `name` publishes.
    fn hash(&self, name: &str) -> String {
        let (_folder, run) = self.fetched(name);
        publish_run(&run, 1).1
    }
}

impl Host {
    /// Takes note of a request to the bucket; an error, if the host is gone.
    fn spend(&self, name: &str) -> Result<(), FileError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            Ok(())
        } else {
            Err(FileError::content(name, "the host is gone"))
        }
    }
}

/// The places that a host knows.
struct Of(Arc<Host>);

impl Places for Of {
    fn input(&self, named: &Path) -> Result<PathBuf, FileError> {
        Ok(named.to_path_buf())
    }

    fn run(&self, named: &Path) -> Result<PathBuf, FileError> {
        let Ok(name) = named.strip_prefix(RUNS) else { return Ok(named.to_path_buf()) };
        let (folder, run) = self.0.world.fetched(name.to_str().unwrap());
        let _ = folder.keep();
        Ok(run)
    }

    fn kept(&self, named: &Path, rank: usize) -> Result<Option<Arc<dyn KeptRun>>, FileError> {
        let Ok(name) = named.strip_prefix(RUNS) else { return Ok(None) };
        let Host { world, number, .. } = &*self.0;
        let disk = world.folder.path().join(format!("host-{number}/{rank}"));
        let holder = world.hosts.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Arc::new(Kept {
            host: Arc::clone(&self.0),
            name: name.to_path_buf(),
            here: disk.join(name),
            holder,
            holds: Mutex::new(false),
        })))
    }
}

impl KeptRun for Kept {
    fn here(&self) -> &Path {
        &self.here
    }

    fn list(&self) -> Result<Vec<String>, FileError> {
        Ok(self.host.world.names(self.name.to_str().unwrap()))
    }

    fn fetch(&self, names: &[String]) -> Result<(), FileError> {
        for name in names {
            let to = self.here.join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let from = self.host.world.bucket().join(&self.name).join(name);
            fs::copy(&from, &to).map_err(FileError::io(&from))?;
        }
        Ok(())
    }

    fn put(&self, names: &[String]) -> Result<(), FileError> {
        for name in names {
            self.host.spend(name)?;
            let to = self.host.world.bucket().join(&self.name).join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(self.here.join(name), to).unwrap();
        }
        Ok(())
    }

    fn remove(&self, names: &[String]) -> Result<(), FileError> {
        for name in names {
            self.host.spend(name)?;
            fs::remove_file(self.host.world.bucket().join(&self.name).join(name)).unwrap();
        }
        Ok(())
    }

    fn hold(&self) -> Result<(), FileError> {
        let mut holders = self.host.world.holders.lock().unwrap();
        let mut holds = self.holds.lock().unwrap();
        if *holds && holders[&self.name] != self.holder {
            return Err(FileError::content(&self.name, "another job writes it now"));
        }
        holders.insert(self.name.clone(), self.holder);
        *holds = true;
        Ok(())
    }
}

/// [`narrow`] with a checkpoint every three of its 16 steps, kept in the bucket.
fn kept() -> Config {
    let mut config = narrow(Path::new(RUNS));
    (config.train.checkpoint_every, config.train.keep_checkpoints) = (Some(3), 2);
    config
}

/// How a training ended on each of `size` processes of `host`.
fn train_on(
    host: &Arc<Host>,
    config: &Config,
    start: Start,
    size: usize,
    wish: impl Fn(usize, u64) -> Next + Sync,
) -> Vec<Result<RunReport, Error>> {
    ThreadFabric::run(size, |fabric| {
        let rank = fabric.rank();
        let watch = &mut |report: &StepReport, _| wish(rank, report.cursor.step);
        let job = Job { places: Arc::new(Of(Arc::clone(host))), ..Job::of(fabric, 1) };
        run::train(config, start, job, watch)
    })
}

/// The report of the first process of a training that ends well.
fn ends(host: &Arc<Host>, config: &Config, start: Start, size: usize) -> RunReport {
    let reports = train_on(host, config, start, size, go_on).into_iter();
    let mut reports: Vec<RunReport> = reports.map(|report| report.expect("a rank")).collect();
    assert!(reports.iter().all(|report| report.finished));
    reports.remove(0)
}

/// The hash of `config` trained below a folder of this host.
fn on_this_host(config: &Config) -> String {
    let runs = TempDir::new().unwrap();
    let config = Config { runs: runs.path().to_path_buf(), ..config.clone() };
    let report = train(&config, Start::Fresh, (1, 1), go_on).remove(0).unwrap();
    publish_run(&report.run, 1).1
}

#[test]
fn a_host_that_is_gone_costs_the_steps_since_its_last_whole_checkpoint() {
    // A checkpoint is 14 to 16 files with the journal: every part of one is met.
    for (at, puts) in (0..58).step_by(3).enumerate() {
        let (first, then) = ([1, 2, 4][at % 3], [4, 1, 2, 2][at % 4]);
        let world = World::new();
        let told = train_on(&world.host(puts), &kept(), Start::Auto, first, go_on);
        let failed = told.iter().filter_map(|it| it.as_ref().err()).map(ToString::to_string);
        let failed: Vec<String> = failed.collect();
        assert_eq!(failed.len(), first, "{puts} puts");
        assert!(failed[0].contains("the host is gone"), "{}", failed[0]);
        let newest = world.steps("run").last().copied().unwrap_or(0);
        assert_eq!(newest % 3, 0);
        let report = ends(&world.host(i64::MAX), &kept(), Start::Auto, then);
        assert_eq!((report.resumed_from, report.steps), (newest, 16), "{puts} puts");
        assert_eq!(report.run, Path::new(RUNS).join("run"));
        assert_eq!(world.hash("run"), undisturbed(), "{puts} puts");
        assert_eq!(world.steps("run"), [15, 16]);
        let left = world.names("run").iter().filter(|name| name.starts_with("check")).count();
        assert_eq!(left, 2 * 10, "no checkpoint but whole ones");
    }
}

#[test]
fn steps_are_logged_once_wherever_a_training_went_on() {
    let world = World::new();
    train_on(&world.host(40), &kept(), Start::Auto, 2, go_on);
    ends(&world.host(i64::MAX), &kept(), Start::Resume, 1);
    let (_folder, run) = world.fetched("run");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let step =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].clone();
    let steps: Vec<u64> = metrics.lines().map(|line| step(line).as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=16).collect::<Vec<u64>>());
    let config: Config =
        toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    assert_eq!(config, kept());
}

#[test]
fn a_checkpoint_without_its_manifest_is_none() {
    let world = World::new();
    let stop = |_, step| if step == 7 { Next::Stop } else { Next::GoOn };
    let host = world.host(i64::MAX);
    assert!(!train_on(&host, &kept(), Start::Fresh, 2, stop).remove(0).unwrap().finished);
    assert_eq!(world.steps("run"), [6, 7]);
    let checkpoints = world.bucket().join("run/checkpoints");
    copy_folder(&checkpoints.join("step-7"), &checkpoints.join("step-9"));
    fs::remove_file(checkpoints.join("step-9/MANIFEST.json")).unwrap();
    assert!(readable(world.names("run")).iter().all(|name| !name.contains("step-9")));
    // The same host, which knows it as little.
    assert_eq!(ends(&host, &kept(), Start::Resume, 1).resumed_from, 7);
    assert_eq!(world.hash("run"), undisturbed());
    assert!(!checkpoints.join("step-9/lane-00.safetensors").exists());
}

#[test]
fn a_job_that_was_taken_for_dead_ends_at_its_next_checkpoint() {
    let world = World::new();
    let second = |_, step| {
        if step == 4 {
            ends(&world.host(i64::MAX), &kept(), Start::Auto, 2);
        }
        Next::GoOn
    };
    let error = train_on(&world.host(i64::MAX), &kept(), Start::Fresh, 1, second).remove(0);
    let error = error.expect_err("another job has it").to_string();
    assert!(error.contains("another job writes it now"), "{error}");
    assert_eq!(world.hash("run"), undisturbed());
    assert_eq!(world.steps("run"), [15, 16]);
}

#[test]
fn what_is_there_decides_how_a_training_begins() {
    let world = World::new();
    let refuses = |config: &Config, start: Start, words: &str| {
        let told = train_on(&world.host(i64::MAX), config, start, 2, go_on);
        let errors = told.into_iter().map(|told| told.expect_err(words).to_string());
        errors.for_each(|error| assert!(error.contains(words), "{error}"));
    };
    refuses(&kept(), Start::Resume, "holds no checkpoint");
    let host = world.host(i64::MAX);
    ends(&host, &kept(), Start::Fresh, 2);
    refuses(&kept(), Start::Fresh, "kept://runs/run: holds an earlier training");
    let other = Config { seed: 8, ..kept() };
    refuses(&other, Start::Auto, "another configuration");
    // On disks that have the other training.
    ends(&host, &other, Start::Replace, 2);
    assert_eq!(world.hash("run"), on_this_host(&other));
    // What is there no more goes here, too.
    fs::remove_dir_all(world.bucket().join("run")).unwrap();
    assert_eq!(ends(&host, &kept(), Start::Fresh, 4).resumed_from, 0);
    assert_eq!(world.hash("run"), undisturbed());
}

#[test]
fn a_training_begins_with_a_run_that_is_kept_elsewhere() {
    let world = World::new();
    ends(&world.host(i64::MAX), &kept(), Start::Fresh, 2);
    let (_folder, here) = world.fetched("run");
    let after = |from: &Path| {
        let mut config = Config { name: "after".to_owned(), ..kept() };
        let (from, parts) = (from.to_path_buf(), WarmParts::All);
        config.train.warm_start = Some(WarmStart { from, parts });
        config
    };
    ends(&world.host(i64::MAX), &after(&Path::new(RUNS).join("run")), Start::Fresh, 2);
    assert_eq!(world.hash("after"), on_this_host(&after(&here)));
}

#[test]
fn candidates_and_a_best_epoch_are_found_across_hosts() {
    let mut config = kept();
    config.train.epochs = 3;
    config.train.learning_rate = 0.012;
    config.train.validation_parts = 8;
    (config.train.early_stop, config.train.evaluations_per_epoch) = (Some(1), 3);
    config.train.keep_checkpoints = 1;
    config.model.network.similarity = Similarity::Cosine;
    config.train.refit = true;
    config.train.candidates = vec![Candidate::Ids, Candidate::Similarity];
    let want = on_this_host(&config);
    let world = World::new();
    let (mut lives, mut size) = (0, 1);
    loop {
        let told = train_on(&world.host(80), &config, Start::Auto, size, go_on).remove(0);
        match told {
            Ok(report) => break assert!(report.finished && report.choice.is_some()),
            Err(error) => assert!(error.to_string().contains("the host is gone"), "{error}"),
        }
        (lives, size) = (lives + 1, if size == 4 { 1 } else { 2 * size });
        assert!(lives < 40, "no life goes further");
    }
    assert!(lives > 1, "{lives} lives");
    assert_eq!(world.hash("run"), want);
    assert!(world.names("run").contains(&"choice.json".to_owned()));
    for search in ["run.search-ids", "run.search-similarity"] {
        assert!(world.names(search).contains(&"ended.json".to_owned()), "{search}");
        assert_eq!(world.steps(search).len(), 1, "{search}");
    }
}

#[test]
fn an_alignment_goes_on_elsewhere() {
    let config = Config { align: Some(short_alignment()), ..kept() };
    let runs = TempDir::new().unwrap();
    let want = publish(&Config { runs: runs.path().to_path_buf(), ..config.clone() }, 1).1;
    // In its states, in its result, and in the training after it.
    for puts in [0, 2, 5, 7, 12, 40] {
        let world = World::new();
        train_on(&world.host(puts), &config, Start::Auto, 2, go_on).remove(0).unwrap_err();
        ends(&world.host(i64::MAX), &config, Start::Auto, 4);
        assert_eq!(world.hash("run"), want, "{puts} puts");
        let unfinished = world.names("run").iter().any(|name| name.starts_with("aligning/"));
        assert!(!unfinished, "{puts} puts");
        ends(&world.host(i64::MAX), &config, Start::Replace, 2);
        assert_eq!(world.hash("run"), want, "replaced");
    }
}
