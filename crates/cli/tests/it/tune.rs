//! `ams tune` on a tiny shop.

use serde_json::json;

use crate::place::{Place, count, has_keys, number};

/// A grid of four, validated on the newest samples.
const TUNE: &str = "tune shop.toml --set model.tower=[16,12] --set train.validation_tail=0.2 \
                    --set train.early_stop=1 --set train.epochs=3 \
                    --try train.learning_rate=[0.001,0.01] --try model.images=['none','joint']";

fn numbered(report: &serde_json::Value, key: &str) -> Vec<serde_json::Value> {
    report["variants"].as_array().unwrap().iter().map(|of| of[key].clone()).collect()
}

#[test]
fn a_grid_is_trained_and_compared() {
    let place = Place::with_data();
    let report = place.json(TUNE);
    has_keys(&report, "criterion rounds variants best finished");
    assert_eq!((&report["criterion"], &report["rounds"]), (&json!("gauc"), &json!(1)));
    let settings = |rate: &str, images: &str| {
        json!([["train.learning_rate", rate], ["model.images", format!("\"{images}\"")]])
    };
    let expected = [("0.001", "none"), ("0.001", "joint"), ("0.01", "none"), ("0.01", "joint")];
    assert_eq!(
        numbered(&report, "settings"),
        expected.map(|(rate, images)| settings(rate, images))
    );
    let gaucs: Vec<f64> =
        numbered(&report, "validation").iter().map(|of| number(&of["gauc"])).collect();
    let best = gaucs.iter().copied().fold(0.0, f64::max);
    assert_eq!(gaucs[count(&report["best"]) as usize], best);
    for (at, gain) in numbered(&report, "gain").iter().enumerate().skip(1) {
        assert!((number(&gain["gain"]) - (gaucs[at] - gaucs[0])).abs() < 1e-9, "{gain}");
    }
    // The same as a training that is told so.
    place.json(
        "train shop.toml --set model.tower=[16,12] --set train.validation_tail=0.2 \
         --set train.early_stop=1 --set train.epochs=3 --set train.learning_rate=0.01 \
         --set model.images=none --set name=alone",
    );
    assert_eq!(place.read("runs/alone/ended.json"), place.read("runs/tiny.tune-2/ended.json"));
    place.refuses(TUNE, &["tiny.tune-0", "--resume", "--replace"]);
    let again = place.json(&format!("{TUNE} --resume"));
    assert_eq!(again, report);
}

#[test]
fn halving_trains_the_better_half_on() {
    let place = Place::with_data();
    let tune =
        format!("{TUNE} --set train.evaluations_per_epoch=4 --set train.early_stop=9 --halving");
    let report = place.json(&tune);
    assert_eq!(report["rounds"], json!(3));
    let mut rounds: Vec<u64> = numbered(&report, "rounds").iter().map(count).collect();
    assert_eq!(rounds[count(&report["best"]) as usize], 3);
    rounds.sort_unstable();
    assert_eq!(rounds, [1, 1, 2, 3]);
    let text = place.run(&format!("{tune} --resume"));
    let text = text.out;
    for words in
        ["train.learning_rate  model.images", "1 of 3", "3 of 3", "best", "ams train CONFIG --set"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_cannot_be_tried_is_said() {
    let place = Place::with_data();
    let held_out = "--set train.validation_tail=0.2 --set train.early_stop=1";
    let cases = [
        (format!("tune shop.toml {held_out}"), "--try"),
        (format!("tune shop.toml {held_out} --try train.epochs"), "expected KEY=[VALUE, ..]"),
        (
            format!("tune shop.toml {held_out} --try train.epochs=3"),
            "expected a list of at least one",
        ),
        (
            format!("tune shop.toml {held_out} --try train.epochs=[]"),
            "expected a list of at least one",
        ),
        (
            format!("tune shop.toml {held_out} --try train.epochs=[1] --try train.epochs=[2]"),
            "is tried already",
        ),
        (format!("tune shop.toml {held_out} --try train.epoch=[1]"), "did you mean `epochs`?"),
        (format!("tune shop.toml {held_out} --try train.epochs=[1,0]"), "train.epochs: 0"),
        (format!("tune shop.toml {held_out} --try name=['a','b']"), "no setting of the model"),
        ("tune shop.toml --try train.epochs=[1,2]".to_owned(), "train.validation_tail"),
        (
            format!("tune shop.toml {held_out} --try train.early_stop_by=['auc','gauc']"),
            "train.early_stop_by: is what settings are compared on",
        ),
        (
            format!("tune shop.toml {held_out} --try train.validation_tail=[0.1,0.3]"),
            "train.validation_tail: is what settings are compared on",
        ),
        (
            format!("tune shop.toml {held_out} --try data.samples=['data','other']"),
            "data.samples: is what settings are compared on",
        ),
        (
            format!("tune shop.toml {held_out} --try seed={:?}", (0..300).collect::<Vec<_>>())
                .replace(", ", ","),
            "300 combinations, expected at most 256",
        ),
    ];
    for (arguments, words) in cases {
        place.refuses(&arguments, &[words]);
    }
    assert!(!place.path("runs").exists(), "nothing was begun");
}
