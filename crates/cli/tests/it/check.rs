//! `ams prepare --check`: sound and damaged datasets.

use serde_json::Value;

use crate::place::{Place, count, has_keys};

/// The name of the largest part file of the training, and of another one that has rows.
fn parts(place: &Place) -> (String, String) {
    let files = place.files("data/train");
    let mut sizes: Vec<(usize, &String)> =
        files.iter().map(|(name, bytes)| (bytes.as_ref().unwrap().len(), name)).collect();
    sizes.sort();
    (format!("train/{}", sizes[sizes.len() - 1].1), format!("train/{}", sizes[sizes.len() - 2].1))
}

#[test]
fn what_a_check_finds() {
    let place = Place::with_data();
    let (largest, second) = parts(&place);
    let sound = place.json("prepare --check data");
    assert_eq!((count(&sound["problem_count"]), count(&sound["files"])), (0, 128));
    let report = place.json("doctor data");
    let windows = report["own_past"]["windows"].as_array().unwrap();
    let days: Vec<u64> = windows.iter().map(|window| count(&window["days"])).collect();
    assert_eq!(days, [1, 3, 7, 30]);
    assert!(windows.iter().all(|window| window["train"]["auc"].is_f64()), "{windows:?}");

    let examined = &report["examination"];
    has_keys(examined, "impressions looked_at one_user_in findings days fields own_past");
    assert_eq!(count(&examined["impressions"]), count(&sound["counts"]["impressions"]));

    let damages: [(&str, &dyn Fn(), &str); 4] = [
        (
            "truncated",
            &|| {
                place.write(
                    &format!("truncated/{largest}"),
                    &place.read(&format!("data/{largest}"))[..500],
                )
            },
            "cannot be read as Parquet",
        ),
        (
            "moved",
            &|| place.write(&format!("moved/{largest}"), place.read(&format!("data/{second}"))),
            "row 1: `user` belongs to part",
        ),
        (
            "missing",
            &|| std::fs::remove_file(place.path(&format!("missing/{largest}"))).unwrap(),
            "No such file",
        ),
        ("empty", &|| place.write(&format!("empty/{largest}"), ""), "cannot be read as Parquet"),
    ];
    for (folder, damage, words) in damages {
        place.copy("data", folder);
        damage();
        let done = place.run(&format!("prepare --check {folder} --json"));
        assert_eq!(done.code, Some(1), "{folder}: {done:#?}");
        let report: Value = done.json();
        let problems = report["problems"].to_string();
        for word in [&format!("{folder}/{largest}: "), words] {
            assert!(problems.contains(word) && done.err.contains(word), "{folder}: {done:#?}");
        }
        assert!(count(&report["problem_count"]) >= 1);
    }
}

#[test]
fn what_is_no_dataset() {
    let place = Place::new();
    place.write("folder/file.txt", "text");
    let cases = [
        ("nowhere", "nowhere: no such folder"),
        ("folder", "folder: "),
        ("folder/file.txt", "folder/file.txt"),
    ];
    for (name, words) in cases {
        place.refuses(&format!("prepare --check {name}"), &[words, "dataset"]);
    }
}

/// A table of events is looked at before anything is made of it, all its columns included.
#[test]
fn a_table_of_events_is_examined() {
    let place = Place::new();
    let mut log = "who,item,when,click,seconds,device\n".to_owned();
    for at in 0..2000 {
        let click = u32::from(at % 7 == 0);
        let seconds = 3 + 40 * click + at % 5;
        let (user, item, device) = (at % 50, at % 31, at % 3);
        let when = 1_700_000_000 + 400 * at;
        log += &format!("u{user},i{item},{when},{click},{seconds},d{device}\n");
    }
    place.write("log.csv", &log);
    let columns = "--user who --time when --label click";
    let report = place.json(&format!("doctor log.csv {columns}"));
    let findings = report["examination"]["findings"].as_array().unwrap();
    let bad = |finding: &&Value| finding["verdict"] == "bad";
    let bad: Vec<&Value> = findings.iter().filter(bad).collect();
    assert_eq!(
        (bad.len(), &bad[0]["check"], &bad[0]["field"]),
        (1, &"leak".into(), &"seconds".into())
    );
    assert_eq!(report["warnings"][0], bad[0]["said"]);
    let text = place.run(&format!("doctor log.csv {columns}")).out;
    for words in [
        "bad  leak `seconds`: ",
        "     -> leave the field out",
        "ok   leak `device`: ",
        "2023-11-14",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    place.write("folder/note.txt", "");
    place.refuses("doctor log.csv --user whom --time when", &["whom", "log.csv"]);
    place.refuses("doctor lost.csv", &["lost.csv"]);
    place.refuses("doctor --user who", &["DATA"]);
}
