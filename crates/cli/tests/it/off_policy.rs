//! `ams eval --ope`: a policy that is a column, a run or its bundle, evaluated by a log.

use serde_json::{Value, json};

use crate::place::{Place, has_keys, number};

/// Impressions as JSON lines, `users` of one page each: one of two candidates by a coin, clicked if
/// it is the first one, which the column `mine` shows with .75.
fn log(users: usize, candidates: &[String]) -> String {
    let row = |user: usize| {
        let chosen = user % 2;
        json!({
            "user": format!("u{}", user % 200), "page": format!("p{user}"), "position": 1,
            "item": candidates[chosen], "clicked": 1 - chosen, "propensity": 0.5,
            "candidates": candidates, "probabilities": [0.5, 0.5], "mine": [0.75, 0.25],
            "expected": [0.9, 0.1], "time": 1_710_000_000,
        })
    };
    (0..users).map(|user| format!("{}\n", row(user))).collect()
}

fn means(report: &Value) -> Vec<f64> {
    let of = |of: &Value| number(&of["value"]["mean"]);
    report["estimates"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_policy_in_a_column() {
    let place = Place::new();
    place.write("log.jsonl", log(1000, &["a", "b"].map(str::to_owned)));
    let ask = "eval --ope log.jsonl --policy-probabilities mine";
    let report = place.json(&format!("{ask} --expected expected"));
    has_keys(
        &report,
        "impressions users pages weighing bootstrap logged estimates overlap warnings",
    );
    has_keys(&report["overlap"], "effective_sample_size mean_weight largest_weight unsupported");
    // Weights are 1.5 and .5; .7 is expected of the policy, and what is missed is .1 and -.1.
    for (got, expected) in means(&report).iter().zip([0.75, 0.75, 0.7, 0.7 + 0.075 - 0.025]) {
        assert!((got - expected).abs() < 1e-12, "{report:#}");
    }
    assert_eq!(report["warnings"], json!([]));
    assert_eq!((&report["users"], &report["pages"]), (&json!(200), &json!(1000)));
    assert_eq!(number(&report["logged"]["mean"]), 0.5);
    // The same digits by any number of threads, other draws by another seed.
    let again = place.json(&format!("{ask} --expected expected --threads 1"));
    assert_eq!(again, report);
    let other = place.json(&format!("{ask} --expected expected --seed 2"));
    assert_ne!(other["estimates"][0]["value"]["low"], report["estimates"][0]["value"]["low"]);
    assert_eq!(means(&other), means(&report));
    // People read a table, and why not to believe it.
    let certain = format!("{ask} --columns propensity=");
    let done = place.run(&certain);
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(done.out.contains("the column `mine`; 1,000 impressions"), "{done:#?}");
    assert!(done.out.contains("0.75000 ["), "{done:#?}");
    place.write("short.jsonl", log(8, &["a", "b"].map(str::to_owned)));
    let done = place.run("eval --ope short.jsonl --policy-probabilities mine");
    assert!(
        done.out.contains("warning: overlap: the weighted impressions are worth 6 of 8"),
        "{done:#?}"
    );
    assert!(done.out.contains("warning: 8 users are too few for intervals"), "{done:#?}");
    place.refuses("eval --ope log.jsonl", &["--ope needs a policy: a run, --policy DIR or"]);
    let words = ["--temperature, --top-k and --epsilon make a policy of a model"];
    place.refuses(&format!("{ask} --epsilon 0.1"), &words);
    place.refuses(&format!("{ask} --columns user=who"), &["log.jsonl: no column `who`; found: "]);
    place.refuses("eval --ope log.jsonl --policy-probabilities expected2", &["`expected2`"]);
    let bad =
        log(4, &["a", "b"].map(str::to_owned)).replace(r#""propensity":0.5"#, r#""propensity":0"#);
    place.write("logs/bad.jsonl", bad);
    let good = log(4, &["a", "b"].map(str::to_owned)).replace(r#":"p"#, r#":"q"#);
    place.write("logs/good.jsonl", good);
    let words = ["bad.jsonl, line 1: `propensity` is 0, so the item could not have been shown"];
    place.refuses("eval --ope logs --policy-probabilities mine", &words);
}

#[test]
fn a_run_and_its_bundle_are_one_policy() {
    let place = Place::with_run();
    place.json("publish runs/tiny --to models");
    let items = String::from_utf8(place.read("shop/items.csv")).unwrap();
    let item = |line: &str| line.split(',').next().unwrap().to_owned();
    let candidates: Vec<String> = items.lines().skip(1).take(2).map(item).collect();
    place.write("log.jsonl", log(60, &candidates));
    let request = |page: usize| {
        let behaviors = json!({"item": [candidates[page % 2]]});
        let user = json!({"id": format!("u{page}"), "behaviors": behaviors});
        format!(
            "{}\n",
            json!({"page": format!("p{page}"), "user": user, "context": {"hour": "12"}})
        )
    };
    place.write("requests.jsonl", (0..60).map(request).collect::<String>());
    let flags = "--ope log.jsonl --requests requests.jsonl --temperature 0.5 --epsilon 0.1";
    let by_run = place.json(&format!("eval runs/tiny {flags}"));
    let by_bundle = place.json(&format!("eval --policy models/tiny {flags} --threads 1"));
    assert_eq!(by_run, by_bundle);
    assert_eq!(means(&by_run).len(), 4, "{by_run:#}");
    let told = place.json("eval --policy models/tiny --ope log.jsonl");
    let warned = told["warnings"].as_array().unwrap().iter();
    let warned: Vec<&str> = warned.filter_map(Value::as_str).collect();
    assert!(warned.iter().any(|it| it.starts_with("no requests: users are scored")), "{warned:?}");
    assert_ne!(means(&told), means(&by_run));
    let words = ["log.jsonl: line 1: no page `p0` in requests.jsonl"];
    place.write("requests.jsonl", request(1));
    place.refuses(&format!("eval --policy models/tiny {flags}"), &words);
}
