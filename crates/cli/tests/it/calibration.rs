//! Publishing with calibrated rates: what is told, what is kept, and that all who answer have it.

use serde_json::{Value, json};

use crate::place::{Place, count, has_keys, keys, number, numbers};
use crate::serve::Serving;
use crate::shop::CONFIG;

/// A bundle's rates of its first example, by item.
fn rates(place: &Place, version: &str) -> Vec<(String, f64)> {
    let scored = place.json(&format!("score --model {version} --sample 1"));
    let items = scored["items"].as_array().unwrap().iter().map(Value::to_string);
    items.zip(numbers(&scored["ctr"])).collect()
}

fn logit(rate: f64) -> f64 {
    (rate / (1.0 - rate)).ln()
}

#[test]
fn rates_are_calibrated_wherever_they_are_asked_for() {
    // A week more than in other tests, so that there is something to learn.
    let place = Place::new();
    place.write("shop.toml", CONFIG);
    place.json("synth --out shop --size tiny --days 8");
    place.prepared();
    place.encoded();
    place.json("train shop.toml --set train.validation_tail=0.3 --set train.epochs=4");
    let plain = place.json("publish runs/tiny --to models");
    assert_eq!(keys(&plain), ["path", "version", "hash"]);
    let told = place.json("publish runs/tiny --to models --calibrate none --negative-rate 1");
    assert_eq!(told["hash"], plain["hash"]);

    let platt = place.json("publish runs/tiny --to models --calibrate platt");
    let report = &platt["calibration"];
    has_keys(report, "curve fitted_to sampling bids users all shown");
    assert_eq!((&report["curve"], &report["fitted_to"]), (&json!("platt"), &json!("held-out")));
    has_keys(&report["all"], "before after");
    let of_figures = "impressions clicks predicted clicked calibration logloss ece interval";
    has_keys(&report["all"]["after"], of_figures);
    has_keys(&report["shown"][0], "top before after");
    let impressions = |of: &Value| count(&of["before"]["impressions"]);
    assert!(impressions(&report["all"]) > impressions(&report["shown"][0]));
    assert_eq!((&report["bids"], &report["shown"][0]["top"]), (&Value::Null, &json!(1)));
    // Bids choose what is told of, and nothing of what is published.
    let bids = place.json("publish runs/tiny --to models/bids --calibrate platt --bids hour");
    assert_eq!((&bids["hash"], &bids["calibration"]["bids"]), (&platt["hash"], &json!("hour")));
    assert_eq!(bids["calibration"]["all"], report["all"]);
    assert_ne!(bids["calibration"]["shown"], report["shown"]);
    let words = ["no column `price` in `impressions`; found: item, image"];
    place.refuses("publish runs/tiny --to models --calibrate platt --bids price", &words);
    assert_ne!(platt["hash"], plain["hash"]);
    let isotonic = "--calibrate isotonic --negative-rate 0.1 --click-weight 2";
    let told = &place.json(&format!("publish runs/tiny --to models {isotonic}"))["calibration"];
    let of = |when: &str, what: &str| number(&told["all"][when][what]);
    assert!(of("after", "logloss") < of("before", "logloss"), "{told}");
    assert!(of("before", "calibration") > 5.0, "{told}");
    assert!((of("after", "calibration") - 1.0).abs() < 0.2, "{told}");
    assert_eq!(told["shown"], json!([]));
    let done = place.run("publish runs/tiny --to models --negative-rate 0.1 --calibrate-on test");
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(done.out.starts_with("rates of ") && done.out.contains("all, calibrated"), "{done:#?}");

    // Version by version: as learned, twice; a line; levels of another sampling; a shift.
    let as_learned = rates(&place, "models/tiny/1");
    let parsed = |version: u32| -> Value {
        let name = format!("models/tiny/{version}/calibration.json");
        serde_json::from_slice(&place.read(&name)).unwrap()
    };
    let line = &parsed(3)["curve"]["platt"];
    let (slope, intercept) = (number(&line["slope"]), number(&line["intercept"]));
    for ((item, got), (same, raw)) in rates(&place, "models/tiny/3").iter().zip(&as_learned) {
        assert_eq!(item, same, "another order");
        assert!((logit(*got) - (slope * logit(*raw) + intercept)).abs() < 1e-5);
    }
    has_keys(&parsed(4)["curve"]["isotonic"], "logits calibrated");
    assert_eq!(parsed(4)["sampling"], json!({"negative_rate": 0.1, "click_weight": 2.0}));
    assert_eq!(parsed(5), json!({"sampling": {"negative_rate": 0.1, "click_weight": 1.0}}));
    for ((item, got), (same, raw)) in rates(&place, "models/tiny/5").iter().zip(&as_learned) {
        assert_eq!(item, same, "another order");
        assert!((logit(*got) - (logit(*raw) + 0.1f64.ln())).abs() < 1e-5);
    }

    let serving = Serving::new(&place, "--pin tiny=4");
    let samples: Value = serde_json::from_slice(&place.read("models/tiny/4/samples.json")).unwrap();
    let mut page = samples[0].clone();
    let bids: Vec<f64> =
        (0..page["candidates"]["item"].as_array().unwrap().len()).map(|n| 1.0 + n as f64).collect();
    page["candidates"]["bid"] = json!(bids);
    place.write("page.json", page.to_string());
    let scored = place.json("score --model models/tiny/4 --request page.json");
    let (status, served) = serving.score(&page);
    assert_eq!((status, &served), (200, &scored));
    let items = |value: &Value| value.as_array().unwrap().clone();
    for ((item, ctr), ecpm) in
        items(&scored["items"]).iter().zip(numbers(&scored["ctr"])).zip(numbers(&scored["ecpm"]))
    {
        let place = items(&page["candidates"]["item"]).iter().position(|known| known == item);
        assert_eq!(ecpm, bids[place.unwrap()] * f64::from(ctr as f32));
    }
    let (_, card) = serving.get("/v1/models/tiny");
    assert_eq!((&card["calibration"], &card["calibrated"]), (&parsed(4), &json!(true)));
    let agreed = place.json("bench agree runs/tiny --model models/tiny/4 --impressions 200");
    assert!(number(&agreed["bundle_to_trainer"]) < 1e-6, "{agreed}");
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let place = Place::with_run();
    let cases: [(&str, &[&str]); 7] = [
        (
            "--calibrate platt",
            &["calibration: the run has learned from all", "--calibrate-on test"],
        ),
        ("--calibrate-on test", &["--calibrate-on: nothing is calibrated", "--calibrate platt"]),
        ("--bids hour", &["--bids: nothing is calibrated", "--calibrate platt"]),
        ("--negative-rate 0", &["negative_rate = 0, expected above 0 and at most 1"]),
        ("--negative-rate 1.5", &["negative_rate = 1.5, expected above 0 and at most 1"]),
        ("--click-weight=-2", &["click_weight = -2, expected a number above 0"]),
        ("--calibrate sigmoid", &["sigmoid", "platt", "isotonic"]),
    ];
    for (arguments, words) in cases {
        place.refuses(&format!("publish runs/tiny --to models {arguments}"), words);
    }
    // Nothing to tell by, and nothing needed.
    let published = place.json("publish runs/tiny --to models --negative-rate 0.5");
    assert_eq!(keys(&published), ["path", "version", "hash"]);
}
