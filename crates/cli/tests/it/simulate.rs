//! `ams simulate`: an A/B test in a shop whose truth is known.

use std::fs;

use serde_json::{Value, json};

use crate::place::Place;
use crate::serve::Serving;

/// An experiment of seconds.
const SMALL: &str = "
[a]
name = 'ids'
train = 'ids.toml'
[b]
train = 'joint.toml'
[encode]
dim = 16
[market]
days = 2
days_before = 1
designs = ['shared-log']
replicas = 2
candidates = 30
pre_ranked = 20
cold_impressions = 3
[market.shop]
users = 60
items = 100
";

fn place() -> Place {
    let place = Place::new();
    place.write("experiment.toml", SMALL);
    for (name, images) in [("ids", "none"), ("joint", "joint")] {
        let text = format!("[model]\nimages = '{images}'\n[train]\nepochs = 1\nbatch = 64\n");
        place.write(&format!("{name}.toml"), text);
    }
    place
}

fn report(place: &Place, out: &str) -> Value {
    serde_json::from_slice(&place.read(&format!("{out}/report.json"))).unwrap()
}

#[test]
fn a_server_answers_as_this_process_does_with_any_number_of_threads() {
    let place = place();
    let here = place.json("simulate experiment.toml --quick --out here --threads 1");
    assert_eq!(here, report(&place, "here"));

    // A server looks into `models`.
    fs::create_dir_all(place.path("there/models")).unwrap();
    std::os::unix::fs::symlink(place.path("there/models"), place.path("models")).unwrap();
    let serving = Serving::started(&place, "--poll 0.2");
    let url = &serving.address;
    let there = format!("simulate experiment.toml --quick --out there --threads 3 --url {url}");
    place.json(&there);
    assert_eq!(place.read("here/report.json"), place.read("there/report.json"));

    assert_eq!(here["format"], "ams-simulation/1");
    assert_eq!(here["variants"], json!(["ids", "pictures"]));
    let seed = &here["seeds"][0];
    let worlds: Vec<&Value> = seed["variants"].as_array().unwrap().iter().collect();
    let names: Vec<(&str, &str)> = worlds
        .iter()
        .map(|it| (it["world"].as_str().unwrap(), it["variant"].as_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [("all-on-a", "a"), ("all-on-b", "b"), ("shared-log", "a"), ("shared-log", "b")]
    );
    for of in worlds {
        let ctr = of["happened"]["ctr"].as_f64().unwrap();
        assert!((0.05..0.9).contains(&ctr), "{of}");
        let expected = of["expected"]["ctr"].as_f64().unwrap();
        assert!((ctr / expected - 1.0).abs() < 0.2, "{of}");
        // The second day is that of a version that was measured.
        assert!(of["versions"][1]["metrics"]["GAUC"].as_f64().is_some(), "{of}");
    }
    let lift = &seed["designs"][0]["lifts"]["ctr"];
    assert!(lift["measured"]["value"].is_f64() && lift["truth"].is_f64(), "{lift}");
    assert!(lift["covers"].is_boolean() && lift["bias"]["value"].is_f64(), "{lift}");
    assert!(place.path("here/seed-1/shared-log/explored.parquet").exists());

    // The second model of a variant has a seed of its own.
    let seed = |model: &str| {
        let path = format!("here/seed-1/all-on-a/{model}/train.toml");
        let text = String::from_utf8(place.read(&path)).unwrap();
        text.lines().find(|line| line.starts_with("seed")).unwrap().to_owned()
    };
    assert_eq!(seed("a"), "seed = 1");
    assert_ne!(seed("a-2"), "seed = 1");
    let variances = &lift["variances"];
    assert!(variances["replicas"].is_f64() && variances["users"].is_f64(), "{lift}");

    // The page is that of `ams report`, and holds itself.
    place.json("report --experiment here --out again.html");
    let page = String::from_utf8(place.read("here/report.html")).unwrap();
    assert_eq!(place.read("again.html"), page.as_bytes());
    for asks in ["<script", "src=\"http", "href=\"http", "url(http"] {
        assert!(!page.contains(asks), "the page has {asks}");
    }
    place.json("report --experiment here/report.json --out told.md");
    let told = String::from_utf8(place.read("told.md")).unwrap();
    let measured = 100.0 * lift["measured"]["value"].as_f64().unwrap();
    let truth = 100.0 * lift["truth"].as_f64().unwrap();
    let row = told.lines().find(|line| line.starts_with("| shared-log | CTR | ")).unwrap();
    let begin = format!("| shared-log | CTR | {truth:+.1} % [");
    assert!(row.starts_with(&begin) && row.contains(&format!("| {measured:+.1} % [")), "{row}");
    let sections =
        ["days", "cold", "concentration", "calibration", "offline", "luck", "variants", "settings"];
    for id in sections {
        assert!(page.contains(&format!("<section id=\"{id}\"")), "no section {id}");
    }
    place.refuses("report --experiment here here", &["--experiment", "seeds names one twice"]);
    place.refuses("report --experiment experiment.toml", &["experiment.toml", "no report of"]);

    place.refuses("simulate experiment.toml --out here", &["here: has something in it"]);
}

#[test]
fn a_file_that_is_wrong_is_refused() {
    let place = place();
    let refuses = |text: &str, words: &[&str]| {
        place.write("wrong.toml", text);
        place.refuses("simulate wrong.toml --out out", words);
        assert!(!place.path("out").exists());
    };
    refuses("[market]\ndays = 0", &["wrong.toml", "market: days is 0, expected 1 to 100"]);
    refuses("[market]\ndesign = 3", &["wrong.toml", "unknown field `design`"]);
    refuses("[market.shop]\nseed = 3", &["market.shop.seed: the simulation decides this"]);
    refuses("[daily]\nname = 'a'", &["daily.name: the simulation decides this"]);
    refuses("[encode]\nlist = 'a'", &["encode.list: the simulation decides this"]);
    refuses("[c]\nname = 'a'", &["unknown field `c`"]);
    refuses("[a]\ntrain = 'no.toml'", &["no.toml"]);
}
