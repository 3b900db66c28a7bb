//! What is wrong outside is said with file, row or key and what was expected, in one exit code, and
//! leaves nothing behind.

use std::fs;

use serde_json::json;

use crate::place::{Done, Place};
use crate::shop::{PREPARE, TRAIN};

/// A log of two users that `prepare` understands by itself.
const LOG: &str = "\
user_id,item_id,click,timestamp
u1,a,1,100
u1,b,0,200
u2,a,0,150
u2,b,1,250
u1,a,0,300
u1,c,1,320
u2,d,0,350
u2,c,1,360
";

const ITEMS: &str = "item_id,image\na,a.png\nb,b.png\nc,c.png\nd,d.png\n";

#[test]
fn events() {
    let place = Place::new();
    place.write("items.csv", ITEMS);
    let line = |number: usize, with: &str| {
        let mut lines: Vec<&str> = LOG.lines().collect();
        lines[number - 1] = with;
        lines.join("\n")
    };
    let no_item: String = LOG.replace("item_id", "thing");
    let cases: [(&str, String, &[&str]); 12] = [
        (
            "missing",
            no_item,
            &["no column for the item", "--item", "user_id, thing, click, timestamp"],
        ),
        (
            "label",
            line(3, "u1,b,maybe,200"),
            &["line 3, column `click`", "`maybe`", "expected 0 or 1"],
        ),
        ("two", line(5, "u2,b,2,250"), &["line 5, column `click`", "`2`", "expected 0 or 1"]),
        ("nolabel", line(5, "u2,b,,250"), &["line 5, column `click`", "no label"]),
        ("time", line(4, "u2,a,0,noon"), &["line 4, column `timestamp`", "`noon` is not a time"]),
        ("short", line(6, "u1,a,0"), &["line 6", "3", "4"]),
        ("empty", String::new(), &["an empty file", "expected a header"]),
        ("header", LOG.lines().take(1).collect(), &["no rows"]),
        ("nothing", LOG.replace(",1,", ",0,"), &["none of 8 rows is positive"]),
        ("all", LOG.replace(",0,", ",1,"), &["all of 8 rows are positive", "--negatives"]),
        ("twice", LOG.replace("click", "item_id"), &["two columns are called `item_id`"]),
        ("instant", LOG.lines().map(same_time).collect(), &["all events are at one instant"]),
    ];
    for (name, log, words) in cases {
        place.write(&format!("{name}.csv"), log);
        let file = format!("{name}.csv: ");
        let words: Vec<&str> = std::iter::once(&file[..]).chain(words.iter().copied()).collect();
        let prepare =
            format!("prepare --events {name}.csv --items items.csv --accept times --out data");
        place.refuses(&prepare, &words);
    }
    place.refuses("prepare --events none.csv --out data", &["none.csv: ", "No such file"]);
}

/// A line of [`LOG`] at one time, but for the header.
fn same_time(line: &str) -> String {
    let (row, time) = line.rsplit_once(',').unwrap();
    format!("{row},{}\n", if time == "timestamp" { time } else { "100" })
}

#[test]
fn tables_beside_the_events() {
    let place = Place::new();
    place.write("log.csv", LOG);
    place.write("keyless.csv", "name,image\na,a.png\n");
    place.write("options.toml", "group_spam = 60\n");
    place.write("latin.csv", b"item_id,image\na,caf\xe9.png\n");
    let cases: [(&str, &[&str]); 6] = [
        ("--items none.csv", &["none.csv: ", "No such file"]),
        ("--items keyless.csv", &["keyless.csv: no column for the item", "found: name, image"]),
        ("--items latin.csv", &["latin.csv: ", "line 2", "UTF-8"]),
        ("--context-fields hour", &["log.csv: ", "`hour`", "found: user_id"]),
        ("--config options.toml", &["options.toml:1", "did you mean `group_span`?"]),
        ("--test-from 2020-01-01", &["test_from 2020-01-01", "the log spans"]),
    ];
    for (flags, words) in cases {
        place
            .refuses(&format!("prepare --events log.csv --accept times --out data {flags}"), words);
    }
}

/// The order of a log and rows it has twice do not matter: the samples are the same bytes.
#[test]
fn unsorted_and_duplicated_events() {
    let place = Place::new();
    place.write("items.csv", ITEMS);
    let mut lines: Vec<&str> = LOG.lines().collect();
    lines.extend(lines[3..6].to_vec());
    lines[1..].reverse();
    place.write("log.csv", LOG);
    place.write("shuffled.csv", lines.join("\n"));
    let sorted =
        place.json("prepare --events log.csv --items items.csv --accept times --out one/data");
    let shuffled =
        place.json("prepare --events shuffled.csv --items items.csv --accept times --out two/data");
    assert_eq!((&sorted["dropped"]["duplicates"], &sorted["rows"]), (&json!(0), &json!(8)));
    assert_eq!((&shuffled["dropped"]["duplicates"], &shuffled["rows"]), (&json!(3), &json!(11)));
    assert_eq!(shuffled["impressions"], sorted["impressions"]);
    assert!(place.files("one/data") == place.files("two/data"), "other bytes");
}

#[test]
fn damaged_and_unfit_places() {
    let place = Place::with_run();
    let whole = place.read("shop/events.parquet");
    place.write("cut.parquet", &whole[..whole.len() / 2]);
    place.write("file", "just a file");
    place.write("mine/letter.txt", "dear reader");
    let cases: [(&str, &[&str]); 13] = [
        ("prepare --events cut.parquet --out new", &["cut.parquet: ", "Parquet"]),
        ("prepare --events shop/events.parquet --out file/out", &["file/out"]),
        ("prepare --events shop/events.parquet --out file", &["file: is a file"]),
        ("prepare --events shop/events.parquet --out mine", &["mine: is not empty"]),
        ("synth --out file/out --size tiny", &["file/out: "]),
        ("synth --out mine --size tiny", &["mine exists already"]),
        ("encode data --images shop --dim 64 --out file/out", &["file/out"]),
        ("encode data --images shop --dim 64 --out mine", &["mine: "]),
        ("encode data --images shop --dim 64 --out file", &["file: "]),
        ("publish runs/tiny --to file/out", &["file/out"]),
        ("publish data --to models", &["data: is not a run folder"]),
        ("eval data", &["data: is not a run folder"]),
        ("eval nowhere", &["nowhere: is not a run folder"]),
    ];
    for (arguments, words) in cases {
        place.refuses(arguments, words);
    }
    place.refuses(&format!("{PREPARE} --out data"), &["data: is a dataset already", "--replace"]);
}

#[test]
fn pictures() {
    let place = Place::with_data();
    fs::remove_dir_all(place.path("data/images")).unwrap();
    place.write("empty/note.txt", "no pictures here");
    let cases: [(&str, &[&str]); 5] = [
        ("--images nowhere", &["nowhere: expected a folder of pictures"]),
        ("--images shop --dim 7", &["8 to 65536", "not 7"]),
        ("", &["--images"]),
        ("--encoder precomputed --images shop", &["--features", "--keys"]),
        ("--features rows.npy", &["--keys"]),
    ];
    for (flags, words) in cases {
        place.refuses(&format!("encode data {flags}"), words);
    }

    // Nothing found: listed, and nothing made.
    let words = ["empty: 80 of 80 pictures", "missing", "more than the 50 %", "--max-failed"];
    refuses_with_list(&place, "encode data --images empty --dim 64", &words, 80);

    // Fewer than half: counted, listed, and the rest goes on.
    let pictures = place.files("shop/images");
    let mut pictures = pictures.iter().filter(|(_, bytes)| bytes.is_some());
    let mut next = || format!("shop/images/{}", pictures.next().unwrap().0);
    fs::remove_file(place.path(&next())).unwrap();
    place.write(&next(), "no picture at all");
    let report = place.encoded();
    assert_eq!(report["failed"], json!({"missing": 1, "unsupported": 1}), "{report}");
    assert_eq!((&report["encoded"], &report["images"]), (&json!(78), &json!(78)));
    let listed = String::from_utf8(place.read("data/images/failed.csv")).unwrap();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    place.json(TRAIN);
}

/// Asserts that a command is refused with these words and a list of so many failures beside the
/// store, and goes on.
fn refuses_with_list(place: &Place, arguments: &str, words: &[&str], failures: usize) {
    let done = place.run(arguments);
    assert_eq!(done.code, Some(1), "{done:#?}");
    words.iter().for_each(|word| assert!(done.err.contains(word), "no {word} in {}", done.err));
    let list = String::from_utf8(place.read("data/images.partial/failed.csv")).unwrap();
    assert_eq!(list.lines().count(), 1 + failures, "{list}");
    assert!(!place.path("data/images").exists(), "no store");
}

/// A `.npy` file of f32 in C order.
fn npy(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f32) -> Vec<u8> {
    let shape =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let header = format!("{shape:117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    bytes.extend(cells.flat_map(|(row, column)| value(row, column).to_le_bytes()));
    bytes
}

#[test]
fn precomputed_features() {
    let place = Place::new();
    place.write("log.csv", LOG);
    place.write("items.csv", ITEMS);
    place.json("prepare --events log.csv --items items.csv --accept times --out data");
    let plain = |row: usize, column: usize| (row * 3 + column) as f32;
    let nan = |row, column| if (row, column) == (2, 1) { f32::NAN } else { plain(row, column) };
    place.write("good.npy", npy(4, 3, plain));
    place.write("nan.npy", npy(4, 3, nan));
    place.write("huge.npy", npy(4, 3, |row, column| 1e6 * plain(row, column)));
    place.write("cut.npy", &npy(4, 3, plain)[..140]);
    place.write("four.txt", "a.png\nb.png\nc.png\nd.png\n");
    place.write("three.txt", "a.png\nb.png\nc.png\n");
    place.write("twice.txt", "a.png\nb.png\na.png\nd.png\n");
    place.write("others.txt", "v\nw\nx\ny\n");
    let cases: [(&str, &str, &[&str]); 7] = [
        (
            "nan.npy",
            "four.txt",
            &["nan.npy: row 3 (\"c.png\"), column 2: NaN", "expected a number"],
        ),
        ("huge.npy", "four.txt", &["huge.npy: row 1 (\"a.png\"), column 2: inf as f16"]),
        ("cut.npy", "four.txt", &["cut.npy: ", "4 x 3 x 4 bytes, but 12"]),
        ("good.npy", "three.txt", &["three.txt: 3 names, but good.npy has 4 rows"]),
        ("good.npy", "twice.txt", &["twice.txt: \"a.png\" is in line 1 and in line 3"]),
        ("good.npy", "none.txt", &["none.txt: ", "No such file"]),
        ("four.txt", "four.txt", &["four.txt: neither a .npy nor a whole safetensors file"]),
    ];
    for (features, keys, words) in cases {
        place.refuses(&format!("encode data --features {features} --keys {keys}"), words);
    }
    let words = ["others.txt: 4 of 4 pictures", "more than the 50 %"];
    refuses_with_list(&place, "encode data --features good.npy --keys others.txt", &words, 4);
    let report = place.json("encode data --features good.npy --keys four.txt");
    assert_eq!((&report["images"], &report["dim"]), (&json!(4), &json!(3)));
}

#[test]
fn settings() {
    let place = Place::with_run();
    let file = |name: &str, text: &str| place.write(name, text);
    file("typo.toml", "name = 'x'\n[data]\nsamples = 'data'\n[train]\nepoch = 3\n");
    file("type.toml", "name = 'x'\n[data]\nsamples = 'data'\n[train]\nepochs = 'three'\n");
    file("broken.toml", "name = 'x'\n[data\nsamples = 'data'\n");
    file("bare.toml", "name = 'x'\n");
    let cases: [(&str, &[&str]); 26] = [
        ("typo.toml", &["typo.toml:5:1", "epoch = 3", "did you mean `epochs`?"]),
        ("type.toml", &["type.toml:5:10", "epochs = 'three'", "expected u32"]),
        ("broken.toml", &["broken.toml:2"]),
        ("bare.toml", &["missing field `data`"]),
        ("none.toml", &["none.toml: ", "No such file"]),
        ("shop.toml", &["runs/tiny: holds an earlier training", "--resume", "--replace"]),
        ("shop.toml --set train.epoch=3", &["--set train.epoch=3", "did you mean `epochs`?"]),
        ("shop.toml --set train.lanes=eight", &["\"eight\"", "`train.lanes`"]),
        ("shop.toml --set epochs", &["--set epochs", "expected key=value"]),
        ("shop.toml --set name=x --set train.lanes=3", &["train.lanes: 3", "power of two"]),
        (
            "shop.toml --set name=x --set train.lanes=128 --set train.batch=256",
            &["train.lanes: 128", "64 parts"],
        ),
        ("shop.toml --set name=x --set train.batch=4", &["train.batch: 4", "8 lanes"]),
        ("shop.toml --set name=../x", &["name: ", "\"../x\""]),
        ("shop.toml --set name=x --set data.samples=none", &["none: no such folder", "dataset"]),
        ("shop.toml --set name=x --set runs=shop.toml/runs", &["shop.toml/runs: Not a directory"]),
        (
            "shop.toml --set name=x --set data.exclude_fields=[\"usr\"]",
            &["data.exclude_fields", "\"usr\"", "user, gender, age"],
        ),
        ("shop.toml --set name=x --set model.base=dnn", &["`dnn`", "`din`", "model"]),
        ("shop.toml --set name=x --set model.preset=tiny", &["`tiny`", "`small`"]),
        (
            "shop.toml --set name=x --set model.base=pre-rank",
            &["base = pre-rank", "multi-query-attentive", "sum, max, concatenate"],
        ),
        (
            "shop.toml --set name=x --set model.images=none --set model.base=din --set model.query_fields=[]",
            &["base = din", "query_fields names none"],
        ),
        (
            "shop.toml --set name=x --set model.pca=100",
            &["model.pca: 100 components of 64 numbers"],
        ),
        ("shop.toml --set name=x --set model.pca=0", &["model.pca: a width is 0"]),
        (
            "shop.toml --set name=x --set model.tower_weights=pca",
            &["tower_weights = pca is one layer", "expected [12]"],
        ),
        (
            "shop.toml --set name=x --set train.rows_learning_rate=0",
            &["train.rows_learning_rate: 0", "positive"],
        ),
        (
            "shop.toml --set name=x --set data.contents=[{name=\"image\",features=\"f\"}]",
            &["data.contents.name: \"image\" is taken"],
        ),
        (
            "shop.toml --set name=x --set data.contents=[{name=\"text\",features=\"nothing\"}]",
            &["nothing/images.json: No such file"],
        ),
    ];
    for (arguments, words) in cases {
        place.refuses(&format!("train {arguments}"), words);
    }
}

/// A run belongs to its features: with others it is neither evaluated nor published.
#[test]
fn features_that_are_not_the_runs() {
    let place = Place::with_run();
    place.json("encode data --images shop --dim 32 --out other");
    fs::rename(place.path("data/images"), place.path("kept")).unwrap();
    let without = ["data.images: ", "no feature store in data/images", "`ams encode`"];
    for command in ["eval runs/tiny", "publish runs/tiny --to models"] {
        place.refuses(command, &without);
    }
    place.copy("other", "data/images");
    let width = ["builtin-64-seed1 (64 numbers)", "builtin-32-seed1 (32 numbers)"];
    for command in ["eval runs/tiny", "publish runs/tiny --to models"] {
        place.refuses(command, &width);
    }
    place.refuses(&format!("{TRAIN} --resume"), &width);

    fs::remove_dir_all(place.path("data/images")).unwrap();
    place.copy("kept", "data/images");
    place.json("eval runs/tiny");
}

/// Samples that are gone or damaged since the training.
#[test]
fn samples_that_are_gone() {
    let place = Place::with_run();
    let files = place.files("data/train");
    let largest = files.iter().max_by_key(|(_, bytes)| bytes.as_ref().unwrap().len()).unwrap();
    let part = format!("data/train/{}", largest.0);
    place.write(&part, &largest.1.as_ref().unwrap()[..300]);
    let other = format!("{TRAIN} --set name=other");
    place.refuses(&other, &[&format!("{part}: "), "Parquet"]);
    fs::remove_file(place.path(&part)).unwrap();
    place.refuses(&other, &[&format!("{part}: No such file")]);
    fs::remove_dir_all(place.path("data")).unwrap();
    place.refuses(&other, &["data: no such folder", "dataset"]);
    place.refuses("eval runs/tiny", &["data: no such folder", "dataset"]);
}

#[test]
fn requests() {
    let place = Place::with_run();
    place.json("publish runs/tiny --to models");
    place.refuses(
        "vectors --model models/tiny --data data --out vectors",
        &["model.base is mlp", "only a pre-rank network has vectors"],
    );
    let cases: [(&str, &[&str]); 6] = [
        (r#"{"candidates": {"item": []}}"#, &["page.json: ", "0 items, expected 1 to"]),
        (r#"{"candidates": {"item": ["i000001""#, &["page.json: ", "line 1 column"]),
        (r#"{"candidates": {"items": ["i000001"]}}"#, &["unknown field `items`", "`item`"]),
        (r#"{"user": {"id": "u1"}}"#, &["missing field `candidates`"]),
        (
            r#"{"candidates": {"item": ["a", "b"], "bid": [1.0]}}"#,
            &["page.json: ", "bid", "1", "2"],
        ),
        ("", &["page.json: ", "EOF"]),
    ];
    for (page, words) in cases {
        place.write("page.json", page);
        place.refuses("score --model models/tiny --request page.json", words);
    }
    place
        .refuses("score --model models/tiny --request none.json", &["none.json: ", "No such file"]);
    place.refuses("score --model models/none --request page.json", &["models/none: "]);
    place.refuses("score --model data --request page.json", &["data: "]);

    place.write("page.json", r#"{"candidates": {"item": ["nobody-knows", "i000001"]}}"#);
    let ranked = place.json("score --model models/tiny --request page.json");
    assert_eq!(ranked["missing"]["items"], json!(["nobody-knows"]));
    assert_eq!(ranked["items"].as_array().map(Vec::len), Some(2));

    // A bundle that changed since it was published is not asked.
    let weights = "models/tiny/1/dense.safetensors";
    let mut bytes = place.read(weights);
    *bytes.last_mut().unwrap() ^= 1;
    place.write(weights, bytes);
    let words = ["models/tiny/1/dense.safetensors: "];
    place.refuses("score --model models/tiny --request page.json", &words);
}

/// What the command line itself gets wrong is the user's error too.
#[test]
fn command_lines() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 10] = [
        ("frobnicate", &["unrecognized subcommand 'frobnicate'"]),
        ("trian x.toml", &["unrecognized subcommand", "'train'"]),
        ("train", &["<CONFIG>"]),
        ("train x.toml --resume --replace", &["cannot be used with"]),
        ("synth", &["--out"]),
        ("synth --out x --size huge", &["'huge'", "tiny"]),
        ("synth --out x --users few", &["'few'"]),
        ("prepare --events x.csv", &["--out"]),
        ("train x.toml --threads 0", &["'0'", "expected 1 to 1024"]),
        ("encode data --images x --threads 100000", &["'100000'", "expected 1 to 1024"]),
    ];
    for (arguments, words) in cases {
        place.refuses(arguments, words);
    }
    let done: Done = place.run("");
    assert_eq!((done.code, &done.out[..]), (Some(1), ""));
    assert!(done.err.contains("Usage: ams"), "{done:#?}");
}

/// Standard output that cannot be written is said, not called a defect.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout() {
    let place = Place::new();
    let mut command = place.command("synth --out shop --size tiny --json");
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let done: Done = command.output().unwrap().into();
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("stdout: ") && !done.err.contains("panicked"), "{done:#?}");
}

/// File names in a log file can be searched for: no line breaks inside them.
#[test]
fn errors_are_not_wrapped_for_programs() {
    let place = Place::new();
    let long = "a-very-long-name-with-hyphens-".repeat(6);
    let done = place.run(&format!("eval {long}"));
    assert!(done.err.contains(&long), "{done:#?}");
}
