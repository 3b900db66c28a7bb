//! Ctrl-C in a training: a checkpoint, exit code 130, and a way to go on.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::place::{Done, Place, count};
use crate::shop::TRAIN;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that does not outlive its test.
pub struct Running(pub Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    /// Presses Ctrl-C and waits for the end.
    pub fn interrupt(mut self) -> Done {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let begin = Instant::now();
        while self.0.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < PATIENCE, "no end after Ctrl-C");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

/// The steps that `metrics.jsonl` has lines of.
fn steps(place: &Place) -> Vec<u64> {
    let path = place.path("runs/tiny/metrics.jsonl");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may just be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = |line: &str| count(&serde_json::from_str::<Value>(line).unwrap()["step"]);
    whole.lines().map(line).collect()
}

/// Trains until there are `lines` lines of metrics, then presses Ctrl-C.
fn train_and_interrupt(place: &Place, arguments: &str, lines: usize) -> Done {
    let mut command = place.command(&format!("{TRAIN} {arguments} --json"));
    let mut running = Running(Some(command.spawn().unwrap()));
    let begin = Instant::now();
    while steps(place).len() < lines {
        assert!(begin.elapsed() < PATIENCE, "no metrics");
        if running.0.as_mut().unwrap().try_wait().unwrap().is_some() {
            let done: Done = running.0.take().unwrap().wait_with_output().unwrap().into();
            panic!("ended by itself: {done:#?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    running.interrupt()
}

/// Asserts an orderly stop; the step it stopped after.
fn stopped(place: &Place, done: &Done) -> u64 {
    assert_eq!(done.code, Some(130), "{done:#?}");
    assert!(done.err.contains("stopping after this step with a checkpoint"), "{done:#?}");
    let report = done.json();
    assert_eq!(report["finished"], json!(false));
    let step = count(&report["steps"]);
    let manifest = place.read(&format!("runs/tiny/checkpoints/step-{step}/MANIFEST.json"));
    assert!(String::from_utf8(manifest).unwrap().contains("\"cursor\""));
    step
}

#[test]
fn stop_and_go_on() {
    let place = Place::with_data();
    const LONG: &str = "--set train.epochs=100000";
    let first = stopped(&place, &train_and_interrupt(&place, LONG, 3));
    assert!(first >= 3);
    assert_eq!(steps(&place), (1..=first).collect::<Vec<u64>>());

    place.refuses(&format!("{TRAIN} {LONG}"), &["runs/tiny: ", "--resume", "--replace"]);
    place.refuses(
        &format!("{TRAIN} --set train.epochs=3 --resume"),
        &["runs/tiny/config.toml: ", "another configuration"],
    );

    let lines = steps(&place).len() + 3;
    let done = train_and_interrupt(&place, &format!("{LONG} --resume"), lines);
    let second = stopped(&place, &done);
    assert!(second >= first + 3, "{first}, then {second}");
    assert_eq!(steps(&place), (1..=second).collect::<Vec<u64>>());
    assert!(count(&done.json()["impressions"]) > 0);
    assert!(count(&place.json("eval runs/tiny")["impressions"]) > 0);

    // Every step logged and nothing half-written beside the checkpoints.
    let checkpoints = place.files("runs/tiny/checkpoints");
    let folders: Vec<&String> =
        checkpoints.iter().filter(|(_, bytes)| bytes.is_none()).map(|(name, _)| name).collect();
    assert!(folders.iter().all(|name| name.starts_with("step-")), "{folders:?}");
}
