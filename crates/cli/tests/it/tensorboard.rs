//! The curves and vectors for TensorBoard, read by TensorBoard itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::place::{Place, count, number};
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

/// A Python that has TensorBoard, if there is one here.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python3");
    let has = Command::new(&python).args(["-c", "import tensorboard"]).output();
    let has = has.is_ok_and(|done| done.status.success());
    if !has {
        eprintln!("skipped: no tensorboard in target/venv");
    }
    has.then_some(python)
}

#[test]
fn tensorboard_reads_each_step_once() {
    let Some(python) = python() else { return };
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

/// How the plugin that shows vectors reads a folder: its message, its rows, its picture.
const PROJECTOR: &str = r#"
import json, pathlib, struct, sys
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
folder = pathlib.Path(sys.argv[1])
config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
[it] = config.embeddings
rows = [line.split("\t") for line in (folder / it.tensor_path).read_text().splitlines()]
header, *names = [line.split("\t") for line in (folder / it.metadata_path).read_text().splitlines()]
picture = struct.unpack(">II", (folder / it.sprite.image_path).read_bytes()[16:24])
print(json.dumps({"name": it.tensor_name, "header": header, "names": [line[0] for line in names],
    "widths": sorted({len(row) for row in rows}), "rows": [[float(x) for x in row] for row in rows],
    "cell": list(it.sprite.single_image_dim), "picture": picture}))
"#;

#[test]
fn the_projector_reads_vectors_and_pictures() {
    let place = Place::with_run();
    place.json("publish runs/tiny --to models");
    let vectors = "vectors --model models/tiny --data data --tensorboard";
    let written = place.json(&format!("{vectors} board --pictures shop"));
    let items = count(&written["items"]);
    assert!(items > 10 && written["dim"] == 12, "{written}");
    assert_eq!(written["without_picture"], 0, "{written}");
    // A folder with curves keeps them; without pictures there is no sprite.
    place.json(&format!("{vectors} runs/tiny/tensorboard"));
    assert!(place.path("runs/tiny/tensorboard/events.out.tfevents.ams").exists());
    assert!(!place.path("runs/tiny/tensorboard/sprite.png").exists());
    place.refuses("vectors --model models/tiny --data data", &["--out"]);
    place.json(&format!("{TRAIN} --set name=plain --set model.images=none"));
    place.json("publish runs/plain --to models");
    let plain = "vectors --model models/plain --data data --tensorboard none";
    place.refuses(plain, &["model `plain` has no tower of images"]);
    assert!(!place.path("none").exists());

    let Some(python) = python() else { return };
    let output =
        Command::new(&python).args(["-c", PROJECTOR]).arg(place.path("board")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = read["names"].as_array().unwrap();
    assert_eq!((names.len() as u64, &read["widths"]), (items, &json!([12])));
    assert_eq!(read["header"], json!(["item", "picture", "category", "brand"]));
    assert_eq!(read["rows"].as_array().unwrap().len() as u64, items);
    let side = count(&read["cell"][0]) * (items as f64).sqrt().ceil() as u64;
    assert_eq!(read["picture"], json!([side, side]));
    assert!(read["name"].as_str().unwrap().starts_with("tiny 1 "), "{}", read["name"]);
}
