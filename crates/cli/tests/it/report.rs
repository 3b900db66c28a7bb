//! `ams report`: the numbers are those of `ams eval`, whatever is missing is said, and the page
//! opens in a browser without a word. `report.py` opens it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::pages::chromium;
use crate::place::{Place, count, number};
use crate::shop::TRAIN;

impl Place {
    /// The report of `arguments` in Markdown.
    fn told(&self, arguments: &str) -> String {
        self.json(&format!("report {arguments} --out told.md"));
        String::from_utf8(self.read("told.md")).unwrap()
    }

    /// Has a browser open files of this place.
    fn opens(&self, pages: &[&str]) {
        let Some(browser) = chromium() else { return };
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pictures = workspace.join("target/pages");
        fs::create_dir_all(&pictures).unwrap();
        let output = Command::new("python3")
            .arg(workspace.join("crates/cli/tests/it/report.py"))
            .args([browser.as_ref(), self.path("profile").as_os_str(), pictures.as_os_str()])
            .args(pages.iter().map(|page| self.path(page)))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The cell of row `row` in column `column` of the table with these two, in a report.
fn cell(report: &str, row: &str, column: &str) -> String {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut at = None;
    for line in report.lines() {
        let cells = if line.starts_with('|') { cells(line) } else { Vec::new() };
        match cells.iter().position(|cell| cell == column) {
            _ if cells.is_empty() => at = None,
            Some(found) if at.is_none() => at = Some(found),
            _ => {
                if let (Some(at), true) = (at, cells[0] == row) {
                    return cells[at].clone();
                }
            }
        }
    }
    panic!("no {row:?} with {column:?} in\n{report}");
}

/// The value of `text` before its interval.
fn value(text: &str) -> f64 {
    text.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn slice<'a>(evaluation: &'a Value, name: &str) -> &'a Value {
    let slices = evaluation["slices"].as_array().unwrap();
    slices.iter().find(|slice| slice["name"] == name).unwrap()
}

#[test]
fn the_figures_are_those_of_eval() {
    let place = Place::with_run();
    place.json(&format!("{TRAIN} --set name=plain --set model.images=none"));
    place.json(&format!("{TRAIN} --set name=twin --set data.shuffle_images=7"));
    let runs = "runs/plain runs/tiny runs/twin";
    let before = place.told(runs);
    let evaluations = ["plain", "tiny", "twin"].map(|run| place.json(&format!("eval runs/{run}")));
    // Predictions that are there are as good as new ones, and threads change nothing.
    let told = place.told(&format!("{runs} --threads 1"));
    assert_eq!(told, before);
    for (name, evaluation) in ["plain", "tiny", "twin"].into_iter().zip(&evaluations) {
        for (column, key) in [("GAUC", "gauc"), ("AUC", "auc"), ("log loss", "logloss")] {
            let shown = value(&cell(&told, name, column));
            assert!((shown - number(&evaluation[key])).abs() < 1e-4, "{name} {column} {shown}");
        }
        let known = value(&cell(&told, "10-99", name));
        let expected = number(&slice(evaluation, "items shown 10-99 times")["auc"]);
        assert!((known - expected).abs() < 1e-4, "{name}: {known} {expected}");
    }
    let gauc = |at: usize| number(&evaluations[at]["gauc"]);
    for (pair, expected) in [
        ("tiny over plain", gauc(1) - gauc(0)),
        ("twin over plain", gauc(2) - gauc(0)),
        ("tiny over twin", gauc(1) - gauc(2)),
    ] {
        let shown = value(&cell(&told, pair, "difference of GAUC"));
        assert!((shown - expected).abs() < 1e-4, "{pair}: {shown} {expected}");
    }
    assert_eq!(cell(&told, "model.images", "plain"), "none");
    assert_eq!(
        cell(&told, "test impressions", "all runs").parse::<u64>().unwrap(),
        evaluations[0]["impressions"].as_u64().unwrap()
    );

    let page = |out: &str| {
        let written = place.json(&format!("report {runs} --images shop --out {out}"));
        assert_eq!(written["bytes"].as_u64().unwrap(), place.read(out).len() as u64);
        String::from_utf8(place.read(out)).unwrap()
    };
    let html = page("runs.html");
    assert_eq!(html, page("again.html"), "no clock, no chance");
    assert!(html.len() < 3_000_000 && html.contains("src=\"data:image/jpeg;base64,"));
    for line in told.lines().filter(|line| line.starts_with("| tiny over")) {
        line.trim_matches('|').split('|').for_each(|cell| assert!(html.contains(cell.trim())));
    }
    place.opens(&["runs.html"]);
}

#[test]
fn what_is_missing_is_said() {
    let place = Place::with_run();
    // Stopped half-way, within a line.
    place.copy("runs/tiny", "runs/stopped");
    fs::remove_dir_all(place.path("runs/stopped/checkpoints")).unwrap();
    let metrics = String::from_utf8(place.read("runs/tiny/metrics.jsonl")).unwrap();
    let half: Vec<&str> = metrics.lines().take(3).collect();
    place.write("runs/stopped/metrics.jsonl", half.join("\n") + "\n{\"step\": 4, \"epo");
    let told = place.told("runs/stopped");
    for word in
        ["stopped at step 3", "is not finished", "no checkpoint", "1 lines of metrics.jsonl"]
    {
        assert!(told.contains(word), "no {word:?} in\n{told}");
    }
    // Nothing but its configuration.
    place.write("runs/bare/config.toml", place.read("runs/tiny/config.toml"));
    let told = place.told("runs/bare");
    for word in ["at step 0", "not known", "no line yet"] {
        assert!(told.contains(word), "no {word:?} in\n{told}");
    }
    // One epoch and nobody held out; then without its data.
    place.json(&format!("{TRAIN} --set name=short --set train.epochs=1"));
    place.json("eval runs/short");
    let whole = place.told("runs/short");
    assert_eq!(cell(&whole, "short", "training"), "finished");
    fs::rename(place.path("data"), place.path("elsewhere")).unwrap();
    let told = place.told("runs/short");
    assert_eq!(cell(&told, "short", "GAUC"), cell(&whole, "short", "GAUC"));
    for word in ["The dataset data cannot be read", "No page view is explained"] {
        assert!(told.contains(word), "no {word:?} in\n{told}");
    }
    let pages = ["stopped", "bare", "short"].map(|name| {
        place.json(&format!("report runs/{name} --out {name}.html"));
        format!("{name}.html")
    });
    place.opens(&pages.each_ref().map(|page| &page[..]));
    place.refuses("report shop", &["shop", "is not a run folder"]);
    place.refuses("report absent", &["absent"]);
}

/// One user or many, and names that are meant to be more than names.
#[test]
fn names_are_names() {
    const USERS: usize = 13;
    let place = Place::new();
    let mut log = "user,item,time,label,kind\n".to_owned();
    for at in 0..400 {
        let (day, click) = (at / 100, u32::from(at % 3 == 0));
        let item = format!("<b>{}</b>&", at % 7);
        log += &format!(
            "<script>u{}</script>,{item},2024-01-0{}T00:0{}:00Z,{click},a|b\n",
            at % USERS,
            day + 1,
            at % 9
        );
    }
    place.write("log.csv", &log);
    place.write(
        "one.csv",
        log.lines()
            .enumerate()
            .filter(|(at, _)| *at == 0 || (at - 1) % USERS == 1)
            .map(|(_, line)| format!("{line}\n"))
            .collect::<String>(),
    );
    for name in ["log", "one"] {
        place.json(&format!(
            "prepare --events {name}.csv --out {name} --test-from 2024-01-04 --context-fields kind"
        ));
        place.write(
            &format!("{name}.toml"),
            format!("name = \"<i>{name}&\"\ndata.samples = \"{name}\"\nmodel.images = \"none\"\ntrain.batch = 32\n"),
        );
        place.json(&format!("train {name}.toml"));
    }
    let told = place.told("runs/<i>one&");
    assert!(told.contains("No run sees pictures"), "{told}");
    place.json("report runs/<i>log& runs/<i>one& --out names.html");
    place.json("report runs/<i>one& --out user.html");
    let html = String::from_utf8(place.read("names.html")).unwrap();
    for tag in ["<script", "<b>", "<i>"] {
        assert!(!html.contains(tag), "{tag}");
    }
    assert!(html.contains("&lt;script&gt;u"), "page views name their users");
    assert!(html.contains("tested on other impressions"), "the logs have not the same tests");
    place.opens(&["names.html", "user.html"]);
}

/// A log of many users, and one of a user alone: the page stays small, and says what it cannot.
#[test]
fn pages_of_few_and_of_many() {
    let place = Place::new();
    for (name, users) in [("one", 1_i64), ("many", 10_000)] {
        let rows = 3 * users.max(20);
        let mut log = "user,item,time,label\n".to_owned();
        for at in 0..rows {
            let (user, item, click) = (at % users, at * 7 % 50, i64::from(at * 31 % 11 < 3));
            log += &format!("u{user},i{item},{},{click}\n", 1_700_000_000 + at * 600_000 / rows);
        }
        place.write(&format!("{name}.csv"), &log);
        place.json(&format!("prepare --events {name}.csv --out {name} --test-fraction 0.4"));
        let config = format!(
            "name = \"{name}\"\ndata.samples = \"{name}\"\nmodel.images = \"none\"\ntrain.batch = 512\n\
             train.epochs = 1\n"
        );
        place.write(&format!("{name}.toml"), config);
        place.json(&format!("train {name}.toml"));
        let written = place.json(&format!("report runs/{name} --out {name}.html"));
        assert!(written["bytes"].as_u64().unwrap() < 3_000_000, "{written}");
        let told = place.told(&format!("runs/{name}"));
        assert!(told.contains("No run sees pictures"), "{told}");
        // An interval takes ten users.
        assert_eq!(cell(&told, name, "AUC").contains('['), users > 1, "{told}");
        let of_step = cell(&told, "network forward", name);
        assert!(of_step.parse::<f64>().unwrap() > 0.0, "{of_step}");
    }
    place.json("report runs/one runs/many --out both.html");
    place.opens(&["one.html", "many.html", "both.html"]);
}

#[test]
fn a_page_is_a_picture() {
    let Some(_) = chromium() else { return };
    let place = Place::with_run();
    let written = place.json("report runs/tiny --images shop --out tiny.png");
    let png = place.read("tiny.png");
    assert_eq!(
        (&png[..8], png.len() as u64),
        (&b"\x89PNG\r\n\x1a\n"[..], count(&written["bytes"]))
    );
    let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert!(side(16) == 1180 && (1500..16_000).contains(&side(20)), "{} x {}", side(16), side(20));
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pages");
    fs::create_dir_all(&pictures).unwrap();
    fs::write(pictures.join("report-as-picture.png"), png).unwrap();
}
