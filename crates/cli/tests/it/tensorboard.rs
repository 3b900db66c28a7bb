//! The curves for TensorBoard, read by TensorBoard itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::place::{Place, number};
use crate::shop::TRAIN;

/// Prints step and value of all scalars by name.
const READER: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0})
events.Reload()
print(json.dumps({tag: [[it.step, it.value] for it in events.Scalars(tag)] for tag in events.Tags()['scalars']}))
";

/// The numbers of a key in `metrics.jsonl`, with their steps.
fn logged(place: &Place, run: &str, path: &str) -> Vec<(u64, f64)> {
    let metrics = String::from_utf8(place.read(&format!("runs/{run}/metrics.jsonl"))).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter_map(|line| Some((line["step"].as_u64().unwrap(), line.pointer(path)?.as_f64()?)))
        .collect()
}

#[test]
fn tensorboard_reads_each_step_once() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python3");
    let has = Command::new(&python).args(["-c", "import tensorboard"]).output();
    if !has.is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: no tensorboard in target/venv");
        return;
    }
    let place = Place::with_data();
    let train = format!(
        "{TRAIN} --set train.validation_parts=16 --set train.checkpoint_every=10 \
         --set train.rows_learning_rate=0.002 --set train.decay_every=7"
    );
    let trained = place.json(&train);
    // Its last steps are taken again.
    let last = trained["steps"].as_u64().unwrap();
    fs::remove_dir_all(place.path(&format!("runs/tiny/checkpoints/step-{last}"))).unwrap();
    let again = place.json(&format!("{train} --resume"));
    assert!(again["resumed_from"].as_u64().unwrap() < last, "{again}");

    let output = Command::new(&python)
        .args(["-c", READER])
        .arg(place.path("runs/tiny/tensorboard"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = [
        ("train/loss", "/loss", 1.0),
        ("train/learning_rate", "/learning_rate", 1.0),
        ("train/rows_learning_rate", "/learning_rate", 2.0),
        ("validation/gauc", "/validation/gauc", 1.0),
        ("validation/auc", "/validation/auc", 1.0),
        ("validation/logloss", "/validation/logloss", 1.0),
    ];
    assert_eq!(read.as_object().unwrap().len(), cases.len(), "{read}");
    for (name, path, factor) in cases {
        let points = read[name].as_array().unwrap_or_else(|| panic!("no {name} in {read}"));
        let expected = logged(&place, "tiny", path);
        assert_eq!(points.len(), expected.len(), "{name}");
        for (point, (step, value)) in points.iter().zip(expected) {
            assert_eq!(point[0].as_u64(), Some(step), "{name}");
            assert!((number(&point[1]) - factor * value).abs() < 1e-6, "{name} {point} {value}");
        }
    }
    place.json(&format!("{TRAIN} --set name=without --set train.tensorboard=false"));
    assert!(!place.path("runs/without/tensorboard").exists());
}
