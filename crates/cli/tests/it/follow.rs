//! `ams train --follow`, on a log of half an hour after a log of two.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::place::{Place, count, has_keys, number};
use crate::serve::Serving;

/// 2024-03-04 10:00:00.
const BEGIN: i64 = 1_709_546_400;

/// When the log before ends, within a window.
const BASE_ENDS: i64 = BEGIN + 7_200 - 100;

const CONFIG: &str = "
name = 'films'
models = 'models'
work = 'follow'
train = 'train.toml'
every_minutes = 5
lateness_seconds = 60
poll_seconds = 0.05
keep = 20

[prepare]
events = ['before']
context_fields = 'brand,price:numeric'
";

const TRAIN: &str = "
[model]
images = 'none'
[train]
epochs = 1
batch = 64
learning_rate = 0.003
rows_learning_rate = 0.01
sketch_bytes = 4096
min_occurrences = 2
";

pub const COMMAND: &str = "train follow.toml --follow parts --once --threads 2";

/// A row of the log.
#[derive(Clone)]
pub struct Row {
    user: String,
    item: String,
    time: i64,
    label: i64,
}

/// Uniform in 0..n.
fn draw(of: u64, what: u64, n: u64) -> u64 {
    let mix = |mut x: u64| {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    mix(mix(of) ^ what) % n
}

/// The log from `from` until `until`, an event every two seconds; items come that were not before.
fn rows(from: i64, until: i64) -> Vec<Row> {
    let row = |time: i64| {
        let of = |what, n| draw(time as u64, what, n);
        let item = of(2, 12) + ((time - BEGIN) / 600) as u64;
        let likes = if item.is_multiple_of(3) { 60 } else { 20 };
        Row {
            user: format!("u{}", of(1, 40)),
            item: format!("i{item}"),
            time,
            label: i64::from(of(3, 100) < likes),
        }
    };
    (from..until).filter(|time| time % 2 == 0).map(row).collect()
}

/// Writes rows as a Parquet file.
pub fn write(place: &Place, name: &str, rows: &[Row]) {
    let texts = |of: &dyn Fn(&Row) -> String| -> ArrayRef {
        Arc::new(StringArray::from(rows.iter().map(of).collect::<Vec<_>>()))
    };
    let numbers = |of: &dyn Fn(&Row) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from(rows.iter().map(of).collect::<Vec<_>>()))
    };
    let batch = RecordBatch::try_from_iter([
        ("user", texts(&|row| row.user.clone())),
        ("item", texts(&|row| row.item.clone())),
        ("time", numbers(&|row| row.time)),
        ("brand", texts(&|row| format!("b{}", row.time % 3))),
        ("price", numbers(&|row| row.time % 97)),
        ("label", numbers(&|row| row.label)),
    ])
    .unwrap();
    let path = place.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// The log that is followed.
pub fn followed() -> Vec<Row> {
    rows(BASE_ENDS, BEGIN + 9_000)
}

/// A place with the log before, and nothing landed yet.
pub fn place() -> Place {
    let place = Place::new();
    write(&place, "before/log.parquet", &rows(BEGIN, BASE_ENDS));
    place.write("follow.toml", CONFIG);
    place.write("train.toml", TRAIN);
    std::fs::create_dir(place.path("parts")).unwrap();
    place
}

/// Lets rows land, `each` of them a part.
fn land(place: &Place, rows: &[Row], each: usize) {
    for (number, rows) in rows.chunks(each).enumerate() {
        write(place, &format!("parts/part-{number:04}.parquet"), rows);
    }
}

/// What every version is, by its number.
pub fn versions(place: &Place) -> Vec<(String, Value)> {
    let text = String::from_utf8(place.read("follow/state.json")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    let windows = state["windows"].as_array().unwrap();
    windows.iter().map(|of| (of["version"].to_string(), of["hash"].clone())).collect()
}

#[test]
fn windows_of_a_log_become_versions() {
    let place = place();
    let log = followed();
    land(&place, &log, 100);
    let report = place.json(COMMAND);
    has_keys(&report, "model windows rows waiting unfinished");
    let windows = report["windows"].as_array().unwrap();
    let begins: Vec<i64> = windows.iter().filter_map(|of| of["window"].as_i64()).collect();
    // The first one is 100 seconds of a window that began within the log before. The one from
    // 12:25 is not closed by an event of 12:29:58.
    assert_eq!(begins, [6_900, 7_200, 7_500, 7_800, 8_100, 8_400].map(|of| BEGIN + of));
    let of = |key: &str| -> Vec<u64> { windows[1..].iter().map(|of| count(&of[key])).collect() };
    assert_eq!(of("rows"), [50, 150, 150, 150, 150, 150]);
    assert_eq!(of("impressions"), of("rows"));
    assert_eq!(of("version"), [2, 3, 4, 5, 6, 7]);
    assert_eq!(report["rows"], json!({"read": 950, "published": 800, "late": 0, "left_out": 0}));
    assert_eq!((&report["waiting"], &report["unfinished"]), (&json!(150), &json!([])));
    for window in &windows[1..] {
        let (event, landed) = (&window["event_to_score"], &window["landed_to_score"]);
        assert!(number(&event["p95"]) >= number(&event["p50"]) && number(&landed["p50"]) > 0.0);
        // Of a log of former times.
        assert!(number(&event["p50"]) > 1e7, "{window}");
    }

    // Again, nothing happens.
    let before = place.files("models");
    let again = place.json(COMMAND);
    assert_eq!(again["windows"], json!([]));
    let names = |files: &BTreeMap<String, Option<Vec<u8>>>| -> Vec<String> {
        files.keys().cloned().collect()
    };
    let now = place.files("models");
    assert_eq!(names(&now), names(&before));
    for (name, bytes) in &now {
        assert!(before[name] == *bytes, "{name}");
    }

    // The samples of a window are those of the whole log.
    let window = BEGIN + 8_400;
    let flags = format!(
        "prepare --events before parts --context-fields brand,price:numeric --out whole --train-from {window} \
         --test-from {} --until {}",
        window + 300,
        window + 600
    );
    place.json(&flags);
    let samples = |of: &str| place.files(&format!("{of}/train"));
    assert!(samples("whole") == samples(&format!("follow/windows/{window}/data")));

    // A version knows what its window taught it, and goes on with the steps of the one before.
    let described = |version: u64| -> Value {
        let manifest = place.read(&format!("models/films/{version}/MANIFEST.json"));
        serde_json::from_slice(&manifest).unwrap()
    };
    let steps = |version| count(&described(version)["meta"]["steps"]);
    assert_eq!(steps(7) - steps(6), 3, "150 impressions in batches of 64");
    place.json("score --model models/films/7 --sample 1");

    let serving = Serving::new(&place, "");
    let metrics = serving.admin_get("/metrics").1;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "ams_version_event_to_score_seconds{model=\"films\",version=\"7\",quantile=\"0.95\"} ",
        "ams_version_landed_to_score_seconds{model=\"films\",version=\"7\",quantile=\"0.5\"} ",
        "ams_version_window_impressions{model=\"films\",version=\"7\"} 150",
        "ams_follow_rows{model=\"films\",became=\"published\"} 800",
        "ams_follow_rows{model=\"films\",became=\"waiting\"} 150",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
}

/// How the log is cut into parts, in which order these come, and when, decides nothing.
#[test]
fn parts_do_not_matter() {
    let (at_once, one_by_one) = (place(), place());
    let mut log = followed();
    land(&at_once, &log, 10_000);
    at_once.json(COMMAND);

    // Within the lateness, the other way round; and each part is removed when it was read.
    log.chunks_mut(15).for_each(<[Row]>::reverse);
    one_by_one.json(COMMAND);
    for (number, rows) in log.chunks(190).enumerate() {
        let name = format!("parts/{number:04}.parquet");
        write(&one_by_one, &name, rows);
        one_by_one.json(COMMAND);
        std::fs::remove_file(one_by_one.path(&name)).unwrap();
    }
    assert_eq!(versions(&at_once), versions(&one_by_one));
    let bundles = |place: &Place| {
        let mut files = place.files("models/films");
        files.remove("follow.json").unwrap();
        files
    };
    assert!(bundles(&at_once) == bundles(&one_by_one));
}

#[test]
fn a_kill_neither_skips_nor_repeats() {
    let (calm, killed) = (place(), place());
    for place in [&calm, &killed] {
        land(place, &followed(), 120);
    }
    calm.json(COMMAND);
    killed.write("follow.toml", format!("publish_as = 'delta'\nwhole_every = 3\n{CONFIG}"));
    for at in 0..12u64 {
        let mut running = killed.command(COMMAND).spawn().unwrap();
        // Wherever it is by then.
        thread::sleep(Duration::from_millis(60 + 130 * at));
        let _ = running.kill();
        running.wait().unwrap();
    }
    let report = killed.json(COMMAND);
    assert_eq!(report["rows"], json!({"read": 950, "published": 800, "late": 0, "left_out": 0}));
    assert_eq!(versions(&calm), versions(&killed));
    for folder in ["follow/windows", "follow/waiting"] {
        let names = |place: &Place| place.files(folder).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&calm), names(&killed), "{folder}");
    }
    let bases = |version: u64| {
        killed.json(&format!("delta verify models/films/{version}"))["bases"].clone()
    };
    assert_eq!([1, 2, 3, 4].map(bases), [json!([]), json!([1]), json!([2, 1]), json!([])]);
}

#[test]
fn what_lands_may_be_bad() {
    let place = place();
    place.refuses("train follow.toml --follow nothing --once", &["nothing: no such folder"]);
    let log = followed();
    write(&place, "parts/0.parquet", &log[..400]);
    let whole = place.read("parts/0.parquet");
    place.write("parts/0.parquet", &whole[..whole.len() - 10]);
    place.write("parts/_SUCCESS", "");
    place.write("parts/.1.parquet", "PAR1");
    let report = place.json(COMMAND);
    assert_eq!(
        (&report["unfinished"], &report["rows"]["read"]),
        (&json!(["0.parquet"]), &json!(0))
    );
    place.write("parts/0.parquet", &whole);
    assert_eq!(place.json(COMMAND)["rows"]["read"], json!(400));

    // A part that was read and is another one.
    write(&place, "parts/0.parquet", &log[..300]);
    place.refuses(COMMAND, &["parts/0.parquet", "was read with blake3", "put it back"]);
    place.write("parts/0.parquet", &whole);

    // A disk that is away has lost nothing.
    std::fs::rename(place.path("parts"), place.path("away")).unwrap();
    place.refuses(COMMAND, &["parts: no such folder"]);
    std::fs::rename(place.path("away"), place.path("parts")).unwrap();

    // A clock that jumps, and a label that is none: nothing is taken.
    let mut jumps = log[400..500].to_vec();
    jumps[7].time += 1_000_000;
    write(&place, "parts/1.parquet", &jumps);
    place.refuses(
        COMMAND,
        &[
            "parts/1.parquet",
            "row 8, column `time`",
            "expected at most 7200",
            "nothing of this part",
        ],
    );
    let mut odd = log[400..500].to_vec();
    odd[9].label = 7;
    write(&place, "parts/1.parquet", &odd);
    place.refuses(COMMAND, &["parts/1.parquet", "row 10, column `label`"]);

    // Events that are late are counted and left out, those without a user as well.
    let mut late = log[400..500].to_vec();
    late.extend_from_slice(&log[..3]);
    late[0].user.clear();
    write(&place, "parts/1.parquet", &late);
    let rows = place.json(COMMAND)["rows"].clone();
    assert_eq!(
        (&rows["late"], &rows["left_out"], &rows["read"]),
        (&json!(3), &json!(1), &json!(503))
    );

    // Settings that need the whole log.
    let bad = [
        ("negatives = 2\n", "negatives needs the whole log"),
        ("test_from = '2024-03-04'\n", "prepare.test_from: the log that is followed decides this"),
    ];
    for (line, words) in bad {
        place.write("bad.toml", format!("{CONFIG}{line}").replace("'follow'", "'other'"));
        let done = place.run("train bad.toml --follow parts --once");
        assert_eq!(done.code, Some(1), "{done:#?}");
        assert!(done.err.contains(words), "{done:#?}");
    }
    for (from, to, words) in [
        ("every_minutes = 5", "every_minutes = 0", "every_minutes is 0, expected 1 to 1440"),
        (
            "every_minutes = 5",
            "every_minutes = 6",
            "every_minutes is 6, but follow has windows of 5",
        ),
        ("keep = 20", "keep = 60", "keep and whole_every are 60 and 7, expected at most 60"),
        ("'models'", "'s3://models'", "models: s3://models is not on this host"),
    ] {
        place.write("bad.toml", CONFIG.replace(from, to));
        place.refuses("train bad.toml --follow parts", &[words]);
    }
    place.refuses("train train.toml --once", &["--follow"]);
}

/// It waits for parts, and ends on Ctrl-C.
#[test]
fn parts_are_read_as_they_land() {
    let place = place();
    let mut running =
        place.command("train follow.toml --follow parts --threads 2").spawn().unwrap();
    let begin = Instant::now();
    let until = |is_done: &dyn Fn() -> bool| {
        while !is_done() {
            assert!(begin.elapsed() < Duration::from_secs(120));
            thread::sleep(Duration::from_millis(50));
        }
    };
    until(&|| place.path("models/films/1/MANIFEST.json").exists());
    let log = followed();
    write(&place, "parts/0.parquet", &log[..300]);
    until(&|| place.path("models/films/2/MANIFEST.json").exists());
    write(&place, "parts/1.parquet", &log[300..400]);
    until(&|| place.path("models/films/4/MANIFEST.json").exists());
    let id = running.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(running.wait().unwrap().code(), Some(130));
    let rows = place.json(COMMAND)["rows"].clone();
    assert_eq!(rows, json!({"read": 400, "published": 350, "late": 0, "left_out": 0}));
}
