//! `ams demo`, at its smallest.

use serde_json::{Value, json};

use crate::place::{Place, count, has_keys, number};

#[test]
fn the_whole_way_in_one_command() {
    let place = Place::new();
    let report = place.json("demo --size tiny --out demo");
    has_keys(&report, "bayes arms seconds bundle");
    for key in ["auc", "gauc"] {
        assert!((0.5..1.0).contains(&number(&report["bayes"][key])), "{report}");
    }
    let arms: Vec<&Value> = report["arms"].as_array().unwrap().iter().collect();
    let names: Vec<&Value> = arms.iter().map(|arm| &arm["name"]).collect();
    assert_eq!(names, [&json!("id-only"), &json!("joint"), &json!("recommended")]);
    for arm in arms {
        has_keys(arm, "auc gauc logloss cold_auc cold_gauc");
        assert!((0.0..=1.0).contains(&number(&arm["gauc"])), "{arm}");
    }
    assert!(number(&report["seconds"]) > 0.0);

    // What it made is what the other commands make.
    let bundle = report["bundle"].as_str().unwrap();
    let samples: Value =
        serde_json::from_slice(&place.read(&format!("{bundle}/samples.json"))).unwrap();
    place.write("page.json", samples[0].to_string());
    let ranked = place.json(&format!("score --model {bundle} --request page.json"));
    assert_eq!(ranked["version"], json!(1));
    place.json("score --model demo/models/id-only --request page.json");
    assert!(count(&place.json("eval demo/runs/joint")["impressions"]) > 0);

    // The page says what the preset compared.
    let chosen: Value =
        serde_json::from_slice(&place.read("demo/runs/recommended/choice.json")).unwrap();
    let page = String::from_utf8(place.read("demo/report.html")).unwrap();
    let names =
        chosen["searched"].as_array().unwrap().iter().map(|of| of["candidate"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["ids", "similarity", "full"]);
    for of in chosen["searched"].as_array().unwrap() {
        let loss = format!("{:.4}", number(&of["validation"]["logloss"]));
        assert!(page.contains("What was switched off") && page.contains(&loss), "{loss}");
    }

    let done = place.run("prepare --check demo/data");
    assert_eq!(done.code, Some(0), "{done:#?}");
}

/// The demo replaces an earlier demo, never anything else.
#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let place = Place::new();
    place.write("mine/letter.txt", "dear reader");
    place.refuses("demo --size tiny --out mine", &["mine: is not empty and no demo made it"]);
    place.refuses("demo --size tiny --out mine/letter.txt/demo", &["mine/letter.txt/demo: "]);
}
