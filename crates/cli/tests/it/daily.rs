//! `ams daily` and `ams rollback`, on a log of six days.

use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::encode::bitmap;
use crate::pages::{chromium, look};
use crate::place::{Place, has_keys, number};
use crate::serve::Serving;

const FIRST: u64 = 4;

/// Uniform in 0..1, of whatever it is asked for.
fn uniform(of: &[u64]) -> f64 {
    let mix = |state: u64, value: &u64| {
        let mut x = state ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ (x >> 29)
    };
    (of.iter().fold(1, mix) >> 11) as f64 / (1u64 << 53) as f64
}

/// A row of the log: an item that a user was shown, and whether he clicked.
struct Row {
    user: u64,
    item: u64,
    brand: String,
    second: u64,
    label: u64,
}

/// The rows of a day: one brand of three is liked, and some items are new.
fn day(number: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for user in 0..100 {
        for shown in 0..8 {
            let draw = |of: u64| uniform(&[number, user, shown, of]);
            let item = (draw(1) * 40.0) as u64 + number;
            let likes = if item.is_multiple_of(3) { 0.6 } else { 0.1 };
            let label = u64::from(draw(2) < likes);
            let second = 3_600 * (10 + shown) + user;
            rows.push(Row { user, item, brand: format!("b{}", item % 3), second, label });
        }
    }
    rows
}

/// Writes the log of a day, changed by `change`.
fn write_day(place: &Place, number: u64, change: impl FnOnce(&mut Vec<Row>)) {
    let mut rows = day(number);
    change(&mut rows);
    let mut text = "user,item,brand,time,label\n".to_owned();
    for Row { user, item, brand, second, label } in rows {
        let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60];
        text += &format!(
            "u{user},i{item},{brand},2024-03-{number:02} {hour:02}:{minute:02}:{second:02},{label}\n"
        );
    }
    place.write(&format!("log/{number:02}.csv"), text);
}

const DAILY: &str = "
name = 'films'
models = 'models'
work = 'daily'
train = 'train.toml'
warm_start = 'all'

[prepare]
events = ['log']
context_fields = 'brand'
";

const TRAIN: &str = "
[model]
images = 'none'
[train]
epochs = 2
batch = 64
learning_rate = 0.003
rows_learning_rate = 0.01
";

/// A gate that everything passes, where it is about something else.
const OPEN: &str = "
[gate]
gauc = 1
logloss = 1
calibration = 100
";

/// A place with the days until `last`, each as it is.
fn place(last: u64) -> Place {
    let place = Place::new();
    (FIRST..=last).for_each(|number| write_day(&place, number, |_| ()));
    place.write("daily.toml", DAILY);
    place.write("train.toml", TRAIN);
    place
}

fn command(from: u64, to: u64) -> String {
    format!("daily daily.toml --from 2024-03-{from:02} --to 2024-03-{to:02} --threads 2")
}

fn names(place: &Place, folder: &str) -> Vec<String> {
    let mut names = place.names(folder);
    names.sort();
    names
}

fn outcomes(report: &Value) -> Vec<(String, String)> {
    let days = report["days"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    days.iter().map(|day| (text(&day["day"]), text(&day["outcome"]))).collect()
}

#[test]
fn days_are_made_once_and_in_order() {
    let place = place(7);
    let report = place.json(&command(4, 7));
    has_keys(&report, "model days serving");
    let published = |day: &str| (format!("2024-03-{day}"), "published".to_owned());
    assert_eq!(outcomes(&report), ["04", "05", "06", "07"].map(published));
    assert_eq!(report["serving"], json!(4));
    // Three are kept.
    assert_eq!(names(&place, "models/films"), ["2", "3", "4", "days.json"]);
    assert_eq!(names(&place, "daily"), ["2024-03-05", "2024-03-06", "2024-03-07", "state.json"]);
    // The next day judges where it is there, else the last hours of the day itself.
    let judged: Vec<i64> = report["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["judged_from"].as_i64().unwrap() % 86_400)
        .collect();
    // The last event is at 17:01:39.
    assert_eq!(judged, [0, 0, 0, 11 * 3600 + 100]);
    let last = &report["days"][3];
    assert_eq!(last["facts"]["impressions"], json!(800));
    assert!(number(&last["facts"]["auc"]) > 0.6, "{last}");
    has_keys(&last["compared"][0], "metric new serving gain interval margin");
    decisions_are_kept(&place, &report);

    // Again, nothing happens.
    let before = place.files("models");
    let again = place.json(&command(4, 7));
    assert_eq!((&again, place.files("models")), (&report, before));
    place.refuses("daily daily.toml --day 2024-03-03", &["2024-03-03 comes before 2024-03-07"]);
    let there = ["the log ends on 2024-03-07", "2024-03-08 is not there yet"];
    place.refuses("daily daily.toml --day 2024-03-08", &there);

    // The log that came since is taken up, and a day without an event is passed over.
    write_day(&place, 9, |_| ());
    let report = place.json(&command(8, 9));
    let [eighth, ninth] = ["08", "09"].map(|day| format!("2024-03-{day}"));
    assert_eq!(outcomes(&report), [(eighth, "empty".to_owned()), (ninth, "published".to_owned())]);

    // The dataset is that of the whole log until then.
    let flags =
        "prepare --events log --context-fields brand --out whole --test-from 2024-03-09T11:01:40Z";
    place.json(flags);
    let [whole, days] =
        ["whole", "daily/2024-03-09/data"].map(|of| place.files(&format!("{of}/train")));
    assert_eq!(whole, days);

    // The version before serves again, and the next day goes on from there.
    let page = place.read("models/films/5/samples.json");
    let page: Value = serde_json::from_slice(&page).unwrap();
    place.write("page.json", page[0].to_string());
    let score = |version: u64| {
        let scored =
            place.json(&format!("score --model models/films/{version} --request page.json"));
        scored["ctr"].clone()
    };
    let before = score(4);
    let rolled = place.json("rollback models/films --by somebody");
    assert_eq!(rolled, json!({"withdrawn": 5, "serving": 4}));
    assert_eq!(score(4), before);
    assert_eq!(place.json(&command(9, 9))["serving"], json!(4));
    place.json("rollback models/films");
    place.refuses("rollback models/films", &["no valid version below 3"]);
    place.refuses("rollback models/nothing", &["models/nothing"]);
    // A day begins with the weights of the version that serves.
    write_day(&place, 10, |_| ());
    place.run(&command(10, 10));
    let config = String::from_utf8(place.read("daily/2024-03-10/runs/films/config.toml")).unwrap();
    assert!(config.contains("daily/2024-03-06/runs/films"), "{config}");
}

fn parsed(place: &Place, name: &str) -> Value {
    serde_json::from_slice(&place.read(name)).unwrap()
}

/// By what a version serves is in its bundle, and told by a server.
fn decisions_are_kept(place: &Place, report: &Value) {
    let decision = parsed(place, "models/films/4/decision.json");
    let (last, before) = (&report["days"][3], &report["days"][2]);
    for key in ["day", "compared", "facts", "judged_from"] {
        assert_eq!(decision[key], last[key], "{key}");
    }
    assert_eq!(decision["serving"], json!({"version": 3, "hash": before["hash"]}));
    // Eight times an hour, and the last six hours.
    assert_eq!(decision["judged"], json!(600));
    assert!(decision["reasons"][1].as_str().unwrap().contains("the 3 days before it"));
    assert_eq!(parsed(place, "models/films/days.json")["days"], report["days"]);

    let serving = Serving::new(place, "--poll 0.05");
    let (_, card) = serving.get("/v1/models/films");
    assert_eq!((&card["decision"], &card["hash"]), (&decision, &last["hash"]));
    let metrics = serving.metrics();
    let gauge = |name: &str| {
        let name = format!("{name}{{model=\"films\",version=\"4\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse::<f64>().unwrap()
    };
    let day = last["judged_from"].as_i64().unwrap().div_euclid(86_400) * 86_400;
    assert_eq!(gauge("ams_version_day_timestamp_seconds"), day as f64);
    assert_eq!(gauge("ams_version_days_behind"), 0.0);
    let gauc = &last["compared"][0];
    assert_eq!(gauge("ams_version_gate_gauc_gain"), number(&gauc["gain"]));
    assert_eq!(gauge("ams_version_gate_gauc_gain_low"), number(&gauc["interval"][0]));
    assert_eq!(gauge("ams_version_gate_gauc_gain_high"), number(&gauc["interval"][1]));
    assert!(metrics.contains("ams_model_day_refused{model=\"films\"} 0\n"), "{metrics}");
}

/// What was compared by a metric on the second day.
fn compared(report: &Value, metric: &str) -> Value {
    let compared = report["days"][1]["compared"].as_array().unwrap();
    compared.iter().find(|of| of["metric"] == metric).unwrap().clone()
}

#[test]
fn the_gate_compares_calibrated_rates() {
    let train = format!("{TRAIN}validation_tail = 0.2\n");
    let made = |publish: &str| {
        let place = place(5);
        place.write("train.toml", &train);
        place.write("daily.toml", format!("{DAILY}[publish]\n{publish}\n{OPEN}"));
        let report = place.json(&command(4, 5));
        (place, report)
    };
    let (plain, as_learned) = made("");
    assert!(!plain.path("models/films/2/calibration.json").exists());
    let (place, report) = made("calibrate = 'platt'");
    assert_eq!(report["serving"], json!(2));
    let calibration = parsed(&place, "models/films/2/calibration.json");
    has_keys(&calibration["curve"]["platt"], "slope intercept");
    // A curve keeps the order, and changes the rates.
    for metric in ["GAUC", "AUC"] {
        assert_eq!(compared(&report, metric), compared(&as_learned, metric));
    }
    assert_ne!(compared(&report, "log loss"), compared(&as_learned, "log loss"));
    let decision = parsed(&place, "models/films/2/decision.json");
    assert_eq!(decision["compared"], report["days"][1]["compared"]);

    // Rates are those of a log with ten times as many other impressions; the dataset, which holds a
    // tenth of them, judges what they mean for it.
    let (place, report) = made("negative_rate = 0.1");
    let sampling = json!({"negative_rate": 0.1, "click_weight": 1.0});
    assert_eq!(parsed(&place, "models/films/2/calibration.json")["sampling"], sampling);
    for (metric, key) in [("log loss", "new"), ("calibration", "new"), ("calibration", "serving")] {
        let [ours, theirs] = [&report, &as_learned].map(|of| number(&compared(of, metric)[key]));
        assert!((ours - theirs).abs() < 1e-5, "{metric} {key}: {ours} {theirs}");
    }
}

#[test]
fn swapped_pictures_are_named() {
    let place = place(7);
    place.write("train.toml", TRAIN.replace("images = 'none'", "images = 'ad'"));
    let pictures = "items = 'items.csv'\n[encode]\nimages = 'pictures'\ndim = 64\n";
    place.write("daily.toml", format!("{DAILY}{pictures}{OPEN}"));
    let items: Vec<u64> = (FIRST..60).collect();
    let rows = items.iter().map(|item| format!("i{item},{item}.bmp\n"));
    place.write("items.csv", format!("item,image\n{}", rows.collect::<String>()));
    let write = |name: u64, of: u64| {
        let color = [(of * 4) as u8, 255 - of as u8, (of % 3 * 100) as u8];
        place.write(&format!("pictures/{name}.bmp"), bitmap(color));
    };
    items.iter().for_each(|&item| write(item, item));
    let report = place.json(&command(4, 7));
    assert_eq!(report["serving"], json!(4));
    assert_eq!(report["days"][3]["facts"]["pictures_changed"], json!(0.0));

    // Half of the items have one another's pictures.
    items[..28].chunks(2).for_each(|two| {
        write(two[0], two[1]);
        write(two[1], two[0]);
    });
    write_day(&place, 8, |_| ());
    let done = place.run(&format!("{} --json", command(8, 8)));
    assert_eq!(done.code, Some(3), "{}", done.err);
    let refused = &done.json()["days"][0];
    let reasons = refused["reasons"].to_string();
    assert!(reasons.contains("pictures that are others than before: 50.0 %"), "{reasons}");
    assert_eq!(refused["reasons"].as_array().unwrap().len(), 1, "{reasons}");
    assert_eq!(names(&place, "models/films"), ["2", "3", "4", "days.json"]);

    // As they were, they are good again.
    items.iter().for_each(|&item| write(item, item));
    write_day(&place, 9, |_| ());
    let report = place.json(&command(9, 9));
    assert_eq!(report["serving"], json!(5));
    let decision = parsed(&place, "models/films/5/decision.json");
    assert_eq!(decision["serving"]["version"], json!(4));
}

#[test]
fn status_tells_of_a_folder_and_so_does_a_page() {
    let place = place(6);
    place.json(&command(4, 5));
    place.refuses("status nowhere", &["nowhere"]);
    // The third day has twice as many clicks; with one day before it that is enough to say so.
    write_day(&place, 6, |rows| rows.iter_mut().for_each(|row| row.label = 1));
    let done = place.run(&format!("{} --set sanity.days=1", command(6, 6)));
    assert_eq!(done.code, Some(3), "{done:#?}");
    place.json("rollback models/films --by somebody");
    place.write("models/films/7/MANIFEST.json", "{}");
    place.write("models/lost+found/nothing", "");

    let done = place.run("status models --json");
    assert_eq!(done.code, Some(3), "{done:#?}");
    let told = done.json();
    let model = &told["models"][0];
    assert_eq!(told["models"].as_array().unwrap().len(), 1, "{told}");
    has_keys(model, "model serving pinned canary unloaded newest_day days_behind last_day");
    assert_eq!((&model["model"], &model["newest_day"]), (&json!("films"), &json!("2024-03-06")));
    assert_eq!((&model["serving"], &model["days_behind"]), (&json!(1), &json!(2)), "{model}");
    let refused = &model["last_refused"];
    assert_eq!((&refused["day"], &model["last_day"]), (&json!("2024-03-06"), refused));
    assert!(refused["reasons"].to_string().contains("the click rate is 1.0000"), "{refused}");
    let of = |key: &str| -> Vec<Value> {
        model["versions"].as_array().unwrap().iter().map(|version| version[key].clone()).collect()
    };
    assert_eq!(of("version"), [json!(7), json!(2), json!(1)]);
    assert_eq!(of("state"), ["broken", "withdrawn", "serves"]);
    assert_eq!(of("day"), [Value::Null, json!("2024-03-05"), json!("2024-03-04")]);
    assert_eq!(of("held_against"), [Value::Null, json!(1), Value::Null]);
    assert!(number(&of("bytes")[1]) > 10_000.0, "{model}");
    let second = &model["versions"][1];
    assert_eq!(second["withdrawn"]["by"], json!("somebody"));
    assert_eq!(second["compared"], parsed(&place, "models/films/2/decision.json")["compared"]);

    let done = place.run("status models");
    for words in [
        "films: version 1 serves, data of 2024-03-04, 2 days behind the newest day 2024-03-06\n",
        "the last day, 2024-03-06, was refused: the click rate is 1.0000",
        "version 2 was taken back by somebody, 0 min ago",
        "version 7: ",
        "data of",
    ] {
        assert!(done.out.contains(words), "no {words:?} in\n{}", done.out);
    }
    assert!(done.err.contains("refused: 2024-03-06 of films"), "{}", done.err);
    place.refuses("status models --model shop", &["has no model `shop`", "films"]);

    place.write("tokens", "looking-token-0123456789\n");
    let serving = Serving::new(&place, "--admin-token-file tokens");
    let (status, page) = serving.admin_get("/status");
    assert_eq!(status, 200);
    assert!(page.as_str().unwrap().contains("status/app.js"), "{page}");
    for file in ["status/app.js", "status/app.css", "docs/page.js", "docs/page.css"] {
        assert_eq!(serving.admin_get(&format!("/{file}")).0, 200, "{file}");
    }
    // The page is nobody's secret, the models are.
    assert_eq!(serving.admin_get("/admin/overview").0, 401);
    drop(serving);
    let serving = Serving::new(&place, "");
    let (_, overview) = serving.admin_get("/admin/overview");
    assert_eq!(overview["models"], told["models"]);
    assert_eq!(overview["here"][0]["live"], json!(1));
    if let Some(browser) = chromium() {
        let arguments = [&serving.admin, "films", "2024-03-06"];
        look(&place, browser, "status", &arguments);
    }
}

/// Five days with pictures, published as deltas, killed at 20 moments: wherever prepare, encode,
/// train, publish and delta are by then.
#[test]
fn a_loop_that_is_killed_ends_with_the_same_bits() {
    let five = || {
        let place = place(8);
        place.write("train.toml", TRAIN.replace("images = 'none'", "images = 'ad'"));
        let told = "publish_as = 'delta'\nwhole_every = 3\n";
        let pictures = "items = 'items.csv'\n[encode]\nimages = 'pictures'\ndim = 64\n";
        place.write("daily.toml", format!("{told}{DAILY}{pictures}{OPEN}"));
        let mut items = "item,image\n".to_owned();
        for item in 4..48u64 {
            items += &format!("i{item},{item}.bmp\n");
            let color = [(item * 4) as u8, 255 - item as u8, (item % 3 * 100) as u8];
            place.write(&format!("pictures/{item}.bmp"), bitmap(color));
        }
        place.write("items.csv", items);
        place
    };
    let (calm, killed) = (five(), five());
    let begin = Instant::now();
    calm.json(&command(4, 8));
    let whole = begin.elapsed();
    for at in 0..20u64 {
        let mut running = killed.command(&command(4, 8)).spawn().unwrap();
        // At most a fifth of the whole, so that it has not ended.
        thread::sleep(whole.mul_f64(0.02 + 0.18 * uniform(&[2024, at])));
        let _ = running.kill();
        running.wait().unwrap();
    }
    killed.json(&command(4, 8));
    for folder in ["models", "daily/2024-03-08/data", "daily/2024-03-08/runs/films/checkpoints"] {
        assert_eq!(calm.files(folder), killed.files(folder), "{folder}");
    }
    assert_eq!(calm.read("daily/state.json"), killed.read("daily/state.json"));
}

/// Every version has the bits that it has when it is published whole, and its bases stay.
#[test]
fn versions_may_be_published_as_deltas() {
    let (whole, as_deltas) = (place(7), place(7));
    let report = whole.json(&command(4, 7));
    let told = "publish_as = 'delta'\nwhole_every = 3\nkeep = 2\n";
    as_deltas.write("daily.toml", format!("{told}{DAILY}"));
    let deltas = as_deltas.json(&command(4, 7));
    let of = |report: &Value, key: &str| -> Vec<Value> {
        report["days"].as_array().unwrap().iter().map(|day| day[key].clone()).collect()
    };
    for key in ["hash", "version", "compared"] {
        assert_eq!(of(&deltas, key), of(&report, key), "{key}");
    }
    let bases = |version: u64| {
        as_deltas.json(&format!("delta verify models/films/{version}"))["bases"].clone()
    };
    // Two are kept, and what they follow.
    assert_eq!(names(&as_deltas, "models/films"), ["1", "2", "3", "4", "days.json"]);
    assert_eq!([1, 2, 3, 4].map(bases), [json!([]), json!([1]), json!([2, 1]), json!([])]);
    assert_eq!(as_deltas.json("rollback models/films")["serving"], json!(3));
    as_deltas.json("score --model models/films/3 --sample 1");
}

#[test]
fn a_bad_day_is_refused_and_named() {
    type Change = fn(&mut Vec<Row>);
    let bad: [(Change, &str); 4] = [
        (|rows| rows.iter_mut().for_each(|row| row.brand = "NULL".to_owned()), "without `brand`"),
        (
            |rows| {
                let labels: Vec<u64> = rows.iter().map(|row| row.label).collect();
                let length = rows.len();
                rows.iter_mut()
                    .enumerate()
                    .for_each(|(at, row)| row.label = labels[(at + 77) % length]);
            },
            "labels or items may be wrong",
        ),
        (
            |rows| {
                // Tenfold. Of the whole log it is less than half.
                rows.retain(|row| row.user < 40);
                let more: Vec<Row> =
                    (0..9).flat_map(|_| day(8).into_iter().filter(|row| row.user < 40)).collect();
                rows.extend(more);
            },
            "rows for each impression are 10.0000",
        ),
        (|rows| rows.iter_mut().for_each(|row| row.label = 1 - row.label), "the click rate is"),
    ];
    let place = place(7);
    place.json(&command(4, 7));
    for (change, reason) in bad {
        write_day(&place, 8, change);
        place.copy("daily", "saved");
        place.copy("models", "versions");
        let done = place.run(&format!("{} --json", command(8, 8)));
        assert_eq!(done.code, Some(3), "{}", done.err);
        let report = done.json();
        assert_eq!(outcomes(&report)[0].1, "refused", "{report}");
        let reasons = report["days"][0]["reasons"].to_string();
        assert!(reasons.contains(reason), "{reason}: {reasons}");
        assert_eq!(names(&place, "models/films"), ["2", "3", "4", "days.json"]);
        for (from, to) in [("saved", "daily"), ("versions", "models")] {
            std::fs::remove_dir_all(place.path(to)).unwrap();
            std::fs::rename(place.path(from), place.path(to)).unwrap();
        }
    }
    // Tenfold, and most of the log: it is not even read.
    write_day(&place, 8, |rows| rows.extend((0..9).flat_map(|_| day(8))));
    let done = place.run(&command(8, 8));
    assert_eq!(done.code, Some(1), "{done:#?}");
    assert!(done.err.contains("the same as another row"), "{}", done.err);
    // The same day as it should be.
    write_day(&place, 8, |_| ());
    assert_eq!(outcomes(&place.json(&command(8, 8)))[0].1, "published");
}

#[test]
fn a_file_that_is_wrong_is_refused() {
    let place = place(5);
    let bad = [
        ("keep = 1", "keep is 1, expected at least 2"),
        ("judge_hours = 24", "judge_hours is 24"),
        ("prepare.until = '2024-03-05'", "prepare.until: every day decides this"),
        ("prepare.evnts = 'log'", "unknown key `evnts`; did you mean `events`?"),
        ("gate.draws = 1", "gate.draws is 1, expected at least 20"),
        ("sanity.missing = 2", "sanity.missing is 2, expected 0 to 1"),
        ("name = 'a/b'", "name is \"a/b\", expected the name of a folder"),
        ("nme = 'x'", "did you mean `name`?"),
        ("encode.out = 'x'", "encode.out: every day decides this"),
        ("train = 'recommended.toml'", "set warm_start = \"none\""),
        ("train = 'wrong.toml'", "epochz"),
        ("train = 'nowhere.toml'", "nowhere.toml"),
        ("publish.calibrate = 'platt'", "set train.validation_tail or train.validation_parts"),
        ("publish.calibrate = 'plat'", "platt"),
        ("publish.to = 'x'", "unknown key `to`"),
        ("publish.negative_rate = 2", "negative_rate = 2, expected above 0 and at most 1"),
        ("publish = { calibrate = 'platt', calibrate_on = 'test' }", "the test judges the model"),
    ];
    place.write("recommended.toml", "model.preset = 'recommended'");
    place.write("wrong.toml", "train.epochz = 3");
    for (set, expected) in bad {
        let set = set.replace(' ', "");
        place.refuses(&format!("{} --set {set}", command(4, 5)), &[expected]);
    }
    place.refuses("daily daily.toml --day 2024-3-5", &["expected one such as 2024-03-05"]);
    place.refuses("daily daily.toml", &["--day"]);
    place.refuses(&command(5, 4), &["is later than"]);
    assert!(!place.path("models").exists());
}
