//! The way by hand: every command once, on a tiny shop.

use serde_json::{Value, json};

use crate::place::{Place, count, has_keys, number, numbers};
use crate::shop::TRAIN;

#[test]
fn from_a_shop_to_a_ranked_page_view() {
    let place = Place::new();
    let shop = place.shop();
    has_keys(&shop, "users items events clicks images test_from bayes");
    has_keys(&shop["bayes"], "auc gauc cold_auc cold_gauc");

    let prepared = place.prepared();
    has_keys(
        &prepared,
        "users items groups impressions clicks behaviors_mean items_with_image train test",
    );
    assert_eq!(
        [&prepared["users"], &prepared["items"], &prepared["rows"]],
        [&shop["users"], &shop["items"], &shop["events"]]
    );
    let [impressions, train, test] =
        ["impressions", "train", "test"].map(|key| count(&prepared[key]));
    assert_eq!(impressions, train + test);
    assert_eq!(impressions + count(&prepared["dropped"]["duplicates"]), count(&shop["events"]));

    let encoded = place.encoded();
    has_keys(&encoded, "images encoded reused failed dim encoder seconds");
    assert_eq!(encoded["encoded"], prepared["items_with_image"]);
    assert_eq!((&encoded["dim"], &encoded["failed"]), (&json!(64), &json!({})));
    let again = place.encoded();
    assert_eq!((&again["encoded"], &again["reused"]), (&json!(0), &encoded["encoded"]));

    let trained = place.json(TRAIN);
    has_keys(
        &trained,
        "run steps impressions seconds impressions_per_second loss threads processes lanes",
    );
    assert_eq!((&trained["run"], &trained["lanes"]), (&json!("runs/tiny"), &json!(8)));
    assert_eq!(count(&trained["impressions"]), 2 * train, "two epochs");
    assert_eq!(count(&trained["steps"]), 2 * train.div_ceil(64));

    evaluation(&place.json("eval runs/tiny"), test);
    evaluation(&place.json("eval runs/tiny --split train"), train);
    for split in ["test", "train"] {
        assert_eq!(&place.read(&format!("runs/tiny/predictions/{split}.parquet"))[..4], b"PAR1");
    }

    let published = place.json("publish runs/tiny --to models");
    has_keys(&published, "path version hash");
    let again = place.json("publish runs/tiny --to models");
    assert_eq!([&published["version"], &again["version"]], [&json!(1), &json!(2)]);
    assert_eq!(again["path"], json!("models/tiny/2"));
    assert_eq!(published["hash"], again["hash"]);

    ranking(&place);
}

#[test]
fn vectors_of_a_pre_rank_network_are_computed_ahead() {
    let place = Place::with_data();
    let settings = "--set model.base=pre-rank --set model.aggregator=sum --set name=pre";
    place.json(&format!("{TRAIN} {settings}"));
    let ranked = place.json("eval runs/pre --full-ranking --at 1,5,1000");
    let found = &ranked["full_ranking"];
    has_keys(found, "users users_without items seen at");
    let at = |n: usize, key: &str| number(&found["at"][n][key]);
    assert!(count(&found["users"]) > 10 && at(0, "recall") <= at(1, "recall"), "{found}");
    // There are fewer items than that.
    assert_eq!((at(2, "k"), at(2, "recall")), (1000.0, 1.0));
    assert!(at(1, "ndcg") > 0.0 && at(1, "ndcg") < at(2, "ndcg"), "{found}");
    place.json("publish runs/pre --to models");
    let vectors = place.json("vectors --model models/pre --data data --out vectors");
    has_keys(&vectors, "model version out ads users dim");
    assert_eq!(vectors["dim"], json!(10));
    assert!(count(&vectors["ads"]) > 10 && count(&vectors["users"]) > 10, "{vectors}");
    for file in ["ads", "users"] {
        assert_eq!(&place.read(&format!("vectors/{file}.parquet"))[..4], b"PAR1");
    }
}

/// Holds the report of `ams eval` on a split of `impressions` against itself.
fn evaluation(report: &Value, impressions: u64) {
    has_keys(report, "auc gauc logloss ne calibration impressions users users_without_auc slices");
    assert_eq!(count(&report["impressions"]), impressions);
    for key in ["auc", "gauc"] {
        assert!((0.0..=1.0).contains(&number(&report[key])), "{report}");
    }
    assert!(number(&report["logloss"]) < 1.0 && number(&report["calibration"]) > 0.1, "{report}");
    let slices = report["slices"].as_array().unwrap();
    slices.iter().for_each(|slice| has_keys(slice, "name impressions auc gauc logloss"));
    let of = |name: &str| {
        let found = slices.iter().find(|slice| slice["name"] == name);
        count(&found.unwrap_or_else(|| panic!("no slice {name:?}"))["impressions"])
    };
    assert_eq!(of("cold items") + of("warm items"), impressions);
    assert_eq!(of("with image") + of("without image"), impressions);
}

/// Scores the first page view that a bundle brings along, of a model folder and of one version.
fn ranking(place: &Place) {
    let samples: Value = serde_json::from_slice(&place.read("models/tiny/1/samples.json")).unwrap();
    let page = &samples[0];
    place.write("page.json", page.to_string());
    let newest = place.json("score --model models/tiny --request page.json");
    has_keys(&newest, "model version items ctr ecpm missing");
    assert_eq!((&newest["model"], &newest["version"]), (&json!("tiny"), &json!(2)));
    let sorted = |value: &Value| {
        let mut items: Vec<String> =
            value.as_array().unwrap().iter().map(Value::to_string).collect();
        items.sort();
        items
    };
    assert_eq!(sorted(&newest["items"]), sorted(&page["candidates"]["item"]));
    assert!(numbers(&newest["ctr"]).iter().all(|ctr| 0.0 < *ctr && *ctr < 1.0), "{newest}");
    assert!(numbers(&newest["ecpm"]).is_sorted_by(|a, b| a >= b), "{newest}");
    assert_eq!(newest["missing"], json!({"users": [], "items": [], "images": [], "ids": {}}));

    let first = place.json("score --model models/tiny/1 --request page.json");
    assert_eq!(first["version"], json!(1));
    assert_eq!(first["ctr"], newest["ctr"], "equal bundles score equally");
}

/// The same bits whatever the number of threads: the published bundles have one hash.
#[test]
fn threads_do_not_change_the_bundle() {
    let place = Place::with_data();
    let hash = |threads: u32| {
        let runs = format!("runs{threads}");
        place.json(&format!("{TRAIN} --set runs={runs} --threads {threads}"));
        let publish = format!("publish {runs}/tiny --to {runs}/models --threads {threads}");
        place.json(&publish)["hash"].clone()
    };
    let one = hash(1);
    assert!(one.as_str().is_some_and(|hash| hash.len() == 64), "{one}");
    assert_eq!(hash(2), one);
    assert_eq!(hash(4), one);
}

/// People get tables on stdout where programs get JSON.
#[test]
fn words_for_people() {
    let place = Place::with_run();
    place.json("publish runs/tiny --to models");
    place.write("page.json", r#"{"candidates": {"item": ["i000001", "nobody-knows"]}}"#);
    let cases = [
        ("eval runs/tiny", &["slice ", "GAUC", "cold items", "normalized entropy"][..]),
        ("publish runs/tiny --to models", &["published models/tiny/2, hash "]),
        (
            "score --model models/tiny --request page.json",
            &["pCTR", "i000001", "unknown items, scored with defaults: nobody-knows"],
        ),
        ("prepare --check data", &["data: sound; ", " groups, "]),
        ("encode data --images shop --dim 64", &["data/images: ", "builtin-64", "(0 encoded, "]),
    ];
    for (arguments, words) in cases {
        let done = place.run(arguments);
        assert_eq!(done.code, Some(0), "ams {arguments}: {done:#?}");
        for word in words {
            assert!(done.out.contains(word), "ams {arguments}: no {word:?} in\n{}", done.out);
        }
    }
}

/// Nobody reading on is no reason to call it a defect.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    for json in ["", " --json"] {
        let mut child = place.command(&format!("synth --out shop{} --size tiny{json}", json.len()));
        let mut child = child.spawn().unwrap();
        drop(child.stdout.take());
        let done: crate::place::Done = child.wait_with_output().unwrap().into();
        assert_eq!((done.code, &done.err[..]), (Some(0), ""));
    }
}

#[test]
fn help_of_every_command() {
    let place = Place::new();
    let commands = [
        "",
        "demo",
        "synth",
        "prepare",
        "import",
        "import movielens",
        "encode",
        "train",
        "eval",
        "publish",
        "score",
        "ablate",
    ];
    for command in commands {
        let done = place.run(&format!("{command} --help"));
        assert_eq!((done.code, &done.err[..]), (Some(0), ""), "{command}");
        assert!(done.out.contains("Usage: ams") && done.out.contains("--json"), "{}", done.out);
        assert!(!done.out.contains("<OUT>") || command == "demo", "{}", done.out);
    }
}
