//! Trainings that die: killed at random moments, while they write a checkpoint, with a full disk.
//! Every one has to come back, started again with the same command, and to end with the bits of a
//! training that was never disturbed. Alone, and (with the feature `mpi`) as jobs of several
//! processes.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::place::{Done, Place};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A training of some hundred small steps, with a checkpoint every 7.
const CONFIG: &str = "\
name = \"tiny\"

[data]
samples = \"data\"

[model]
tower = [16, 12]

[train]
batch = 64
epochs = 24
log_every = 1
checkpoint_every = 7
";

/// How a command is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// By itself.
    Alone,
    /// By mpirun, on so many processes of one thread.
    #[cfg(feature = "mpi")]
    Mpi(usize),
}

impl Start {
    /// The command, not yet running.
    pub fn command(self, place: &Place, arguments: &str) -> Command {
        match self {
            Start::Alone => place.command(arguments),
            #[cfg(feature = "mpi")]
            Start::Mpi(processes) => {
                let threads = if arguments.starts_with("train") { " --threads 1" } else { "" };
                place.mpirun(&format!("-n {processes} AMS {arguments}{threads}"))
            }
        }
    }

    /// Runs a command to its end.
    pub fn run(self, place: &Place, arguments: &str) -> Done {
        self.command(place, arguments).output().unwrap().into()
    }
}

/// A job that does not outlive its test.
pub struct Running {
    child: Option<Child>,
    start: Start,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            self.start
                .processes(child.id())
                .into_iter()
                .for_each(|process| signal(process, "KILL"));
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    pub fn of(start: Start, place: &Place, arguments: &str) -> Running {
        Running::started(start.command(place, arguments), start)
    }

    /// A command that `start` made.
    pub fn started(mut command: Command, start: Start) -> Running {
        Running { child: Some(command.spawn().unwrap()), start }
    }

    /// The processes of the job itself, in the order they were started.
    pub fn processes(&self) -> Vec<u32> {
        self.start.processes(self.child.as_ref().unwrap().id())
    }

    pub fn ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for the end, which has to come in time.
    pub fn end(mut self, patience: Duration) -> Done {
        let begin = Instant::now();
        while !self.ended() {
            assert!(begin.elapsed() < patience, "still running after {patience:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Start {
    fn processes(self, child: u32) -> Vec<u32> {
        match self {
            Start::Alone => vec![child],
            #[cfg(feature = "mpi")]
            Start::Mpi(_) => children(child),
        }
    }
}

/// The children of a process that run `ams`.
#[cfg(feature = "mpi")]
fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let Ok(process) = entry.unwrap().file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // "pid (name) state parent ..."
        let Some((name, rest)) = stat.rsplit_once(") ") else { continue };
        let is_child = rest.split(' ').nth(1) == Some(&parent.to_string());
        if is_child && name.ends_with("(ams") {
            found.push(process);
        }
    }
    found.sort_unstable();
    found
}

pub fn signal(process: u32, name: &str) {
    // It may have ended just now.
    let _ = Command::new("kill").args([&format!("-{name}"), &process.to_string()]).output();
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

impl Place {
    /// A place with data and the configuration of these tests.
    pub fn for_faults() -> Place {
        let place = Place::with_data();
        place.write("faults.toml", CONFIG);
        place
    }

    /// The hash of what a run publishes.
    pub fn published(&self, run: &str) -> String {
        let report = self.json(&format!("publish {run} --to models"));
        report["hash"].as_str().unwrap().to_owned()
    }

    /// The steps of the checkpoints of a run, oldest first.
    pub fn checkpoints(&self, run: &str) -> Vec<u64> {
        let mut steps: Vec<u64> = self
            .names(&format!("{run}/checkpoints"))
            .iter()
            .filter_map(|name| name.strip_prefix("step-")?.parse().ok())
            .collect();
        steps.sort_unstable();
        steps
    }

    /// Lines of metrics of a run: steps taken and logged, by whatever process.
    pub fn logged(&self, run: &str) -> usize {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap_or_default();
        text.lines().count()
    }
}

/// The hash of an undisturbed training of the place's configuration.
fn undisturbed(place: &Place) -> String {
    place.json("train faults.toml --set name=undisturbed");
    place.published("runs/undisturbed")
}

/// Kills a random process of the job at random moments, `kills` times, each time starting it again
/// as the next of `starts` says; then lets it end. Its bundle has to be the undisturbed one.
pub fn survive_kills(starts: &[Start], kills: usize, seed: u64) {
    let place = Place::for_faults();
    // Long enough that no life sees the end.
    place.write("faults.toml", CONFIG.replace("epochs = 24", &format!("epochs = {}", 3 * kills)));
    let want = undisturbed(&place);
    let mut dice = Dice(seed);
    let mut resumed = 0;
    for life in 0..kills {
        let start = starts[life % starts.len()];
        let mut job = Running::of(start, &place, "train faults.toml --auto-resume --json");
        // Some die while they start, most somewhere in their first steps.
        let steps = dice.below(40) as usize;
        let moment = Duration::from_micros(dice.below(20_000));
        let (before, begin) = (place.logged("runs/tiny"), Instant::now());
        let early = dice.below(5) == 0;
        let patience = if early { Duration::from_millis(dice.below(400)) } else { PATIENCE };
        while place.logged("runs/tiny") < before + steps && begin.elapsed() < patience {
            assert!(!job.ended(), "life {life}: {:#?}", job.end(PATIENCE));
            std::thread::sleep(Duration::from_micros(500));
        }
        assert!(early || begin.elapsed() < PATIENCE, "life {life} makes no steps");
        std::thread::sleep(moment);
        // A launcher may not have started them yet.
        while job.processes().is_empty() {
            assert!(begin.elapsed() < PATIENCE, "life {life} has no processes");
        }
        let processes = job.processes();
        signal(processes[dice.below(processes.len() as u64) as usize], "KILL");
        let done = job.end(PATIENCE);
        assert_ne!(done.code, Some(0), "life {life}: {done:#?}");
        resumed += usize::from(!place.checkpoints("runs/tiny").is_empty());
    }
    assert!(resumed > kills / 2, "most lives began at a checkpoint: {resumed} of {kills}");
    let start = starts[kills % starts.len()];
    let last = start.run(&place, "train faults.toml --auto-resume --json");
    assert_eq!(last.code, Some(0), "{last:#?}");
    assert!(last.json()["resumed_from"].as_u64().unwrap() > 0, "{last:#?}");
    assert_eq!(place.published("runs/tiny"), want, "after {kills} kills");
    // Every step was logged once, whoever took it.
    let steps = |run: &str| -> Vec<u64> {
        let text = String::from_utf8(place.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|text| line(text)["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps("runs/tiny"), steps("runs/undisturbed"));
    // Started once more, there is nothing left to do.
    let again = start.run(&place, "train faults.toml --auto-resume --json");
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert_eq!(again.json()["impressions"], 0);
}

/// Kills the job while it writes a checkpoint: the one before is used.
pub fn survive_kills_in_checkpoints(start: Start) {
    let place = Place::for_faults();
    let want = undisturbed(&place);
    let mut caught = 0;
    for _ in 0..40 {
        let mut job = Running::of(start, &place, "train faults.toml --auto-resume");
        let begin = Instant::now();
        let building =
            || place.names("runs/tiny/checkpoints").iter().any(|n| n.ends_with(".building"));
        while building() && begin.elapsed() < Duration::from_secs(2) {
            // What the last killed process left, until this one removes it.
        }
        while !building() && !job.ended() {
            assert!(begin.elapsed() < PATIENCE, "no checkpoint");
        }
        job.processes().into_iter().for_each(|process| signal(process, "KILL"));
        let done = job.end(PATIENCE);
        if done.code == Some(0) {
            break;
        }
        // Killed before the rename: what was being written is still under its working name.
        if building() {
            caught += 1;
        }
        if caught == 3 {
            break;
        }
    }
    assert!(caught >= 1, "no kill hit a checkpoint being written");
    let last = start.run(&place, "train faults.toml --auto-resume");
    assert_eq!(last.code, Some(0), "{last:#?}");
    assert_eq!(place.published("runs/tiny"), want);
    let left = place.names("runs/tiny/checkpoints");
    assert!(left.iter().all(|name| name.starts_with("step-")), "{left:?}");
}

/// A small disk in memory; gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where this machine does not let us mount one.
    fn mount(path: PathBuf, bytes: u64) -> Option<SmallDisk> {
        fs::create_dir_all(&path).unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then_some(SmallDisk(path))
    }

    fn grow(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        let status = Command::new("mount").args(["-o", &size]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Trains on a disk that holds two checkpoints but not three: a clear error, the two stay whole,
/// and with more room the training goes on.
pub fn survive_a_full_disk(start: Start) {
    let place = Place::for_faults();
    let want = undisturbed(&place);
    let newest = format!(
        "runs/undisturbed/checkpoints/step-{}",
        place.checkpoints("runs/undisturbed").last().unwrap()
    );
    let size: u64 = place.files(&newest).values().flatten().map(|bytes| bytes.len() as u64).sum();
    let Some(disk) = SmallDisk::mount(place.path("small"), 5 * size / 2) else {
        eprintln!("skipped: this machine does not let us mount a tmpfs");
        return;
    };
    let train = "train faults.toml --set runs=small --auto-resume";
    let done = start.run(&place, train);
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("No space left on device"), "{done:#?}");
    let left = place.names("small/tiny/checkpoints");
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|name| name.starts_with("step-")), "{left:?}");
    disk.grow(64 * size);
    let done = start.run(&place, train);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert_eq!(place.published("small/tiny"), want);
}

/// A second job on a run that is being trained is refused; the first one goes on.
pub fn one_job_per_run(start: Start) {
    let place = Place::for_faults();
    // Longer than the second job needs to be refused, on any machine.
    place.write("faults.toml", CONFIG.replace("epochs = 24", "epochs = 100000"));
    let mut job = Running::of(start, &place, "train faults.toml");
    let makes_steps = |from: usize| {
        let begin = Instant::now();
        while place.logged("runs/tiny") < from + 3 {
            assert!(begin.elapsed() < PATIENCE, "no steps");
        }
    };
    makes_steps(0);
    for second in ["train faults.toml --auto-resume", "train faults.toml --replace"] {
        let done = start.run(&place, second);
        assert_eq!(done.code, Some(1), "{done:#?}");
        assert!(done.err.contains("is held by another job (process "), "{done:#?}");
    }
    makes_steps(place.logged("runs/tiny"));
    assert!(!job.ended());
}

#[test]
fn killed_ten_times_a_training_ends_with_the_same_bits() {
    survive_kills(&[Start::Alone], 10, 1);
}

#[test]
fn killed_in_a_checkpoint_a_training_goes_on_from_the_one_before() {
    survive_kills_in_checkpoints(Start::Alone);
}

#[test]
fn a_full_disk_costs_nothing_that_was_there() {
    survive_a_full_disk(Start::Alone);
}

#[test]
fn a_run_is_trained_by_one_job_at_a_time() {
    one_job_per_run(Start::Alone);
}
