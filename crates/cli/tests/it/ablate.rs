//! The paper's tables on a tiny shop: what is trained once, what goes on, and what is said.

use serde_json::{Value, json};

use crate::place::{Place, count, has_keys, keys, number, numbers};

const ABLATE: &str = "ablate shop.toml --set model.tower=[16,12] --seeds 2 --bootstrap 100";

/// The same without times, which are not the same twice.
fn timeless(mut value: Value) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(keys) => {
                keys.remove("seconds");
                keys.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut value);
    value
}

fn row<'a>(report: &'a Value, table: &str, name: &str) -> &'a Value {
    let by_name = |list: &'a Value, name: &str| {
        let found = list.as_array().unwrap().iter().find(|value| value["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {list}"))
    };
    by_name(&by_name(&report["tables"], table)["rows"], name)
}

#[test]
fn tables_say_how_rows_differ_and_are_made_once() {
    let place = Place::with_data();
    let arguments = format!("{ABLATE} --tables arms --markdown kept.md --csv kept.csv");
    let report = place.json(&arguments);
    has_keys(&report, "dataset settings seeds bootstrap trained trainings tables");
    has_keys(&report["dataset"], "name counts encoder test_users slices");
    assert_eq!(
        (&report["seeds"], &report["bootstrap"]["replicates"]),
        (&json!([1, 2]), &json!(100))
    );
    assert_eq!([&report["trained"], &report["trainings"]], [&json!(14); 2]);
    assert_eq!(
        (&report["tables"][0]["paper"], report["tables"].as_array().unwrap().len()),
        (&json!("Table 3"), 1)
    );

    let page = String::from_utf8(place.read("runs/tiny-ablate/report.html")).unwrap();
    assert!(page.contains("Loss of the training") && page.contains("with the first seed"));
    let joint = row(&report, "arms", "joint");
    has_keys(joint, "name settings shuffled warm_start seeds gauc auc logloss slices difference");
    has_keys(joint, "further_differences twin_difference paper seconds");
    assert_eq!(joint["paper"], json!({"gauc": 0.626, "auc": 0.6795}));
    let gauc = numbers(&joint["gauc"]["values"]);
    let mean = (gauc[0] + gauc[1]) / 2.0;
    assert!((number(&joint["gauc"]["mean"]) - mean).abs() < 1e-12, "{joint}");
    let (difference, id_only) = (&joint["difference"], row(&report, "arms", "ID-only"));
    assert_eq!(
        (&difference["to"], &difference["paper"]["gauc"]),
        (&json!("ID-only"), &json!(0.0055))
    );
    let [mean, low, high] = ["mean", "low", "high"].map(|key| number(&difference["gauc"][key]));
    let means = number(&joint["gauc"]["mean"]) - number(&id_only["gauc"]["mean"]);
    assert!((mean - means).abs() < 1e-12 && low < mean && mean < high, "{difference}");
    assert_eq!(joint["twin_difference"]["to"], json!("joint, shuffled"));
    assert_eq!((&id_only["difference"], &id_only["twin_difference"]), (&Value::Null, &Value::Null));
    let shuffled = row(&report, "arms", "joint, shuffled");
    assert_eq!(shuffled["settings"][2], json!("data.shuffle_images=1"));
    // What `ams eval` says of a run is what the table says.
    let results = String::from_utf8(place.read("runs/tiny-ablate/results.jsonl")).unwrap();
    let result: Value = results
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|line: &Value| line["name"] == "joint-2")
        .unwrap();
    assert_eq!(result["rows"], json!([["arms", "joint"]]));
    assert_eq!(result["evaluation"]["gauc"], joint["gauc"]["values"][1]);

    for (kept, table) in [("kept.md", "table.md"), ("kept.csv", "table.csv")] {
        assert_eq!(place.read(kept), place.read(&format!("runs/tiny-ablate/{table}")));
    }
    let markdown = String::from_utf8(place.read("kept.md")).unwrap();
    assert!(markdown.contains("| joint over joint, shuffled | all | "), "{markdown}");
    assert!(place.names("runs/tiny-ablate/runs/joint-1").iter().all(|name| name != "checkpoints"));

    let before = place.files("");
    assert_eq!(place.json(&arguments), report);
    let after = place.files("");
    let other = after.iter().filter(|(name, bytes)| before.get(*name) != Some(bytes));
    let other: Vec<&String> = other.map(|(name, _)| name).collect();
    assert!(other.is_empty(), "nothing is trained twice, but {other:?} changed");

    // Another table needs a checkpoint that is gone: it is made again, and is the same training.
    let report = place.json(&format!("{ABLATE} --tables arms,warm-up --twins none"));
    assert_eq!(report["trainings"], json!(16));
    let warm = row(&report, "warm-up", "joint, all but ids");
    assert_eq!(row(&report, "warm-up", "joint")["gauc"], joint["gauc"]);
    assert_eq!(warm["warm_start"], json!({"from": "joint", "parts": "all-but-ids"}));
    assert_eq!(warm["settings"][1], json!("seed=1001"));
    let to: Vec<&Value> = [&warm["difference"]]
        .into_iter()
        .chain(warm["further_differences"].as_array().unwrap())
        .map(|difference| &difference["to"])
        .collect();
    assert_eq!(to, ["ID-only, all but ids", "ID-only", "joint"]);
}

#[cfg(unix)]
#[test]
fn stop_and_go_on() {
    use crate::interrupt::Running;

    let place = Place::with_data();
    let long = format!("{ABLATE} --tables arms --twins none --set train.epochs=8");
    let whole = place.json(&format!("{long} --out whole"));
    let done = || {
        let results = place.names("parts/results");
        results.iter().filter(|name| name.ends_with(".json")).count()
    };
    let mut running =
        Running(Some(place.command(&format!("{long} --out parts --json")).spawn().unwrap()));
    while done() < 2 {
        assert!(running.0.as_mut().unwrap().try_wait().unwrap().is_none(), "ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let stopped = running.interrupt();
    assert_eq!(stopped.code, Some(130), "{stopped:#?}");
    let report = stopped.json();
    let trained = count(&report["trained"]);
    assert!((2..8).contains(&trained), "{report}");
    assert_eq!(keys(&report), keys(&whole));
    assert_eq!(row(&report, "arms", "ID-only")["seeds"], json!([1]));
    let table = String::from_utf8(place.read("parts/table.md")).unwrap();
    assert!(table.contains(&format!("**{trained} of 8 trainings are done**")), "{table}");

    let went_on = place.json(&format!("{long} --out parts"));
    assert_eq!(timeless(went_on), timeless(whole));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let place = Place::with_data();
    let tables = "arms, aggregators, base, warm-up, pre-rank, small";
    for (arguments, words) in [
        ("--tables arms,arm", &["no table \"arm\"", tables][..]),
        (
            "--tables arms --set train.warm_start.from=runs/x",
            &["train.warm_start: ", "take it out"],
        ),
        ("--tables arms --set data.shuffle_images=1", &["data.shuffle_images: ", "take it out"]),
        ("--tables arms --set train.epoch=1", &["did you mean `epochs`?"]),
        ("--tables arms --set data.images=nowhere", &["nowhere"]),
        ("--tables arms --set model.attention=[0,1]", &["model.attention: a width is 0"]),
        ("--tables arms --seeds 0", &["--seeds"]),
        ("--tables arms --bootstrap 1", &["--bootstrap"]),
        ("--tables arms --markdown no/where.md", &["no/where.md"]),
    ] {
        if arguments.contains("--markdown") {
            // Said before the first training.
            let done = place.run(&format!("ablate shop.toml {arguments}"));
            assert_eq!(done.code, Some(1), "{done:#?}");
            assert!(done.err.contains(words[0]) && !done.err.contains("seed 1"), "{done:#?}");
            continue;
        }
        place.refuses(&format!("ablate shop.toml {arguments}"), words);
    }
}
