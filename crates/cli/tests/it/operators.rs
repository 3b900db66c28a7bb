//! An operator's nights: what was decided outlives restarts and is followed by other servers, and
//! what becomes of one model's files harms no other model and no answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ams_data::outcomes::{self, Outcome};
use serde_json::{Value, json};

use crate::place::Place;
use crate::serve::{Serving, appear, published};

const POLL: &str = "--poll 0.05 --deadline-ms 60000";

/// A folder with versions 1 to `versions` of the model, all the same, and a page view.
fn versions(versions: u64) -> (Place, Value) {
    let (place, page) = published();
    (2..=versions).for_each(|version| appear(&place, "models/tiny/1", version));
    (place, page)
}

/// The version that answers.
fn answers(serving: &Serving, page: &Value) -> Value {
    serving.score(page).1["version"].clone()
}

/// Ends it with no chance to write anything.
fn killed(mut serving: Serving) {
    serving.child.kill().unwrap();
    serving.child.wait().unwrap();
}

/// The models by name, as the admin port says.
fn models(serving: &Serving) -> BTreeMap<String, Value> {
    let all = serving.admin_get("/admin/models");
    let named = |model: &Value| (model["model"].as_str().unwrap().to_owned(), model.clone());
    all.1.as_array().unwrap().iter().map(named).collect()
}

fn metric(serving: &Serving, name: &str) -> f64 {
    let metrics = serving.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
}

#[test]
fn decisions_outlive_restarts_and_are_followed_by_other_servers() {
    let (place, page) = versions(3);
    let (mut one, other) = (Serving::new(&place, POLL), Serving::new(&place, POLL));
    let both = |one: &Serving, version: u64| {
        one.until("followed here", || answers(one, &page) == version);
        other.until("followed there", || answers(&other, &page) == version);
    };
    let restarted = |one: Serving| {
        killed(one);
        Serving::new(&place, POLL)
    };
    let tell = |serving: &Serving, path: &str| serving.tell(&format!("/admin/models/tiny/{path}"));
    both(&one, 3);

    assert_eq!(tell(&one, "rollback").0, 200);
    both(&one, 2);
    one = restarted(one);
    both(&one, 2);
    assert_eq!(one.state()["withdrawn"], json!([3]));
    assert!(one.state()["decided"]["withdrawn"]["3"]["at"].as_u64().unwrap() > 1_700_000_000);
    // Nothing was live before in this process; the next lower one is on disk.
    assert_eq!(tell(&one, "rollback").0, 200);
    both(&one, 1);
    let (status, problem) = tell(&one, "rollback");
    assert_eq!(status, 409, "{problem}");

    // A new version is not one that was taken back.
    appear(&place, "models/tiny/1", 4);
    both(&one, 4);
    // A lower one is pinned: no look and no newer version undoes it.
    assert_eq!(tell(&one, "versions/2/activate").1["pinned"], 2);
    both(&one, 2);
    appear(&place, "models/tiny/1", 5);
    assert_eq!(one.tell("/admin/poll").1["live"], 2);
    assert_eq!(other.tell("/admin/poll").1["live"], 2);
    one = restarted(one);
    both(&one, 2);
    // The highest leaves the way free again.
    assert_eq!(tell(&other, "versions/5/activate").1["pinned"], Value::Null);
    both(&one, 5);

    // A canary is for the same users everywhere, and is nobody's default after a restart.
    appear(&place, "models/tiny/1", 6);
    both(&one, 6);
    assert_eq!(tell(&one, "rollback").1["live"], 5);
    assert_eq!(tell(&one, "versions/6/canary?percent=40").1["canary"], json!([6, 40]));
    other.until("canary", || other.state()["canary"] == json!([6, 40]));
    let seen = |serving: &Serving| -> Vec<Value> {
        let page = |user: u64| {
            let mut page = page.clone();
            page["user"]["id"] = json!(format!("user {user}"));
            page
        };
        (0..60).map(|user| answers(serving, &page(user))).collect()
    };
    let before = seen(&one);
    assert!(before.contains(&json!(5)) && before.contains(&json!(6)), "{before:?}");
    one = restarted(one);
    assert_eq!((&seen(&one), &seen(&other)), (&before, &before));
    assert_eq!(tell(&other, "versions/6/canary?percent=0").1["canary"], Value::Null);
    one.until("no canary", || seen(&one).iter().all(|version| version == 5));

    // Unloaded, it is gone everywhere until a version is activated; servers stay ready for what
    // else they have.
    assert_eq!(tell(&one, "unload").1["unloaded"], true);
    other.until("unloaded", || other.score(&page).0 == 404);
    assert_eq!((one.score(&page).0, other.get("/health/ready").0), (404, 200));
    assert_eq!(tell(&one, "versions/6/activate").0, 200);
    both(&one, 6);
    assert_eq!((one.stop(), other.stop()), (Some(0), Some(0)));
}

#[test]
fn a_server_that_is_told_serves_what_it_was_told_after_a_restart() {
    let (place, page) = versions(2);
    let serving = Serving::new(&place, "--explicit --deadline-ms 60000");
    assert_eq!(answers(&serving, &page), 2);
    appear(&place, "models/tiny/1", 3);
    killed(serving);
    let serving = Serving::new(&place, "--explicit --deadline-ms 60000");
    assert_eq!(answers(&serving, &page), 2, "nobody said so");
    assert_eq!(serving.tell("/admin/models/tiny/rollback").1["live"], 1);
    killed(serving);
    let serving = Serving::new(&place, "--explicit --deadline-ms 60000");
    assert_eq!(answers(&serving, &page), 1);
    assert_eq!(serving.tell("/admin/models/tiny/versions/3/activate").1["live"], 3);
    killed(serving);
    let serving = Serving::new(&place, "--explicit --deadline-ms 60000");
    assert_eq!(answers(&serving, &page), 3);
    drop(serving);

    // What the settings say counts before what was decided.
    let serving = Serving::new(&place, "--pin tiny=2 --poll 0.05 --deadline-ms 60000");
    assert_eq!(answers(&serving, &page), 2);
    for order in ["versions/3/activate", "rollback", "unload"] {
        let (status, problem) = serving.tell(&format!("/admin/models/tiny/{order}"));
        assert_eq!(status, 409, "{order}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("--pin"), "{order}: {problem}");
    }
    drop(serving);
    place.refuses("serve models --pin tiny", &["MODEL=VERSION"]);
    place.refuses("serve models --pin tiny=1 --pin tiny=2", &["tiny", "one version"]);
}

#[test]
fn decisions_that_cannot_be_read_make_nothing_live() {
    let (place, page) = versions(2);
    place.write("models/serving.json", "{\"format\": \"ams-serving/1\", \"models\": {\"tiny\": ");
    let serving = Serving::started(&place, POLL);
    serving.until("looked", || metric(&serving, "ams_poll_failures_total") >= 2.0);
    assert_eq!((serving.get("/health/ready").0, serving.score(&page).0), (503, 503));
    let (status, problem) = serving.tell("/admin/models/tiny/versions/1/activate");
    assert!(
        status == 409 && problem["detail"].as_str().unwrap().contains("serving.json"),
        "{problem}"
    );
    let mark = r#""by": "somebody", "at": 1764288000"#;
    place.write(
        "models/serving.json",
        format!(r#"{{"format": "ams-serving/1", "models": {{"tiny": {{"withdrawn": {{"2": {{{mark}}}}}}}}}}}"#),
    );
    serving.until("ready", || serving.get("/health/ready").0 == 200);
    assert_eq!(answers(&serving, &page), 1);
    // Damaged later, what was known counts on.
    place.write("models/serving.json", "{");
    let failures = metric(&serving, "ams_poll_failures_total");
    serving.until("looked", || metric(&serving, "ams_poll_failures_total") > failures + 1.0);
    assert_eq!((answers(&serving, &page), serving.get("/health/ready").0), (json!(1), 200));
}

#[test]
fn one_model_takes_nothing_from_another() {
    let (place, page) = published();
    // Bad from the start, and nothing at all, such as `lost+found`.
    place.write("models/bad/1/MANIFEST.json", "{}");
    std::fs::create_dir(place.path("models/lost+found")).unwrap();
    std::os::unix::fs::symlink("models/nowhere", place.path("models/dangling")).unwrap();
    std::os::unix::fs::symlink("loop", place.path("models/loop")).unwrap();
    let serving = Serving::new(&place, POLL);
    let names = || models(&serving).into_keys().collect::<Vec<_>>();
    assert_eq!(names(), ["bad", "tiny"]);
    assert_eq!(metric(&serving, "ams_model_refused_versions{model=\"bad\"}"), 1.0);
    // A second one, later; then none of them.
    place.write("models/worse/7/MANIFEST.json", "no JSON");
    serving.until("refused", || names() == ["bad", "tiny", "worse"]);
    assert_eq!((serving.get("/health/ready").0, answers(&serving, &page)), (200, json!(1)));
    for name in ["bad", "worse"] {
        std::fs::remove_dir_all(place.path(&format!("models/{name}"))).unwrap();
    }
    serving.until("forgotten", || names() == ["tiny"]);
    assert!(
        !serving.metrics().contains("model=\"bad\",")
            && !serving.metrics().contains("refused_versions{model=\"bad\"")
    );

    // A version that is removed is refused no more.
    place.write("models/tiny/9/MANIFEST.json", "{}");
    let refused = || metric(&serving, "ams_model_refused_versions{model=\"tiny\"}");
    serving.until("refused", || refused() == 1.0);
    std::fs::remove_dir_all(place.path("models/tiny/9")).unwrap();
    serving.until("forgotten", || refused() == 0.0);

    // What is misspelled is not made by a change.
    for order in [
        "tinny/versions/1/canary?percent=0",
        "tinny/versions/1/canary?percent=5",
        "tinny/versions/1/activate",
        "tinny/rollback",
        "tinny/unload",
        "..%2Fruns/versions/1/activate",
        "tiny/versions/9/activate",
        "tiny/versions/9/canary?percent=5",
        "tiny/versions/01/activate",
    ] {
        let (status, problem) = serving.tell(&format!("/admin/models/{order}"));
        assert!([404, 409].contains(&status), "{order}: {status} {problem}");
    }
    assert_eq!(names(), ["tiny"]);
    assert_eq!((serving.get("/health/ready").0, answers(&serving, &page)), (200, json!(1)));

    // Two models and one folder goes: the other serves. The last one serves from memory.
    place.copy("models/tiny", "models/twin");
    serving.until("twin", || names() == ["tiny", "twin"]);
    std::fs::remove_dir_all(place.path("models/twin")).unwrap();
    serving.until("forgotten", || names() == ["tiny"]);
    std::fs::remove_dir_all(place.path("models/tiny")).unwrap();
    serving.until("told", || metric(&serving, "ams_model_changed_versions{model=\"tiny\"}") == 1.0);
    assert_eq!((serving.get("/health/ready").0, answers(&serving, &page)), (200, json!(1)));
    assert_eq!(serving.tell("/admin/models/tiny/unload").0, 200);
    assert_eq!((serving.score(&page).0, names()), (404, vec![]));
}

#[test]
fn a_version_that_is_copied_file_by_file_arrives() {
    let (place, page) = published();
    let serving = Serving::new(&place, POLL);
    let mut files = place.names("models/tiny/1");
    files.sort_unstable();
    let (first, later) = files.split_first().unwrap();
    assert_eq!(first, "MANIFEST.json");
    let manifest = place.read("models/tiny/1/MANIFEST.json");
    place.write("models/tiny/2/MANIFEST.json", &manifest[..40]);
    serving.until("arriving", || serving.state()["arriving"]["2"].is_string());
    place.write("models/tiny/2/MANIFEST.json", &manifest);
    for name in later {
        let said = || serving.state()["arriving"]["2"].as_str().unwrap_or_default().to_owned();
        serving.until("missed", || said().contains(&format!("{name} has 0 of ")));
        assert_eq!((answers(&serving, &page), &serving.state()["refused"]), (json!(1), &json!({})));
        let bytes = place.read(&format!("models/tiny/1/{name}"));
        place.write(&format!("models/tiny/2/{name}"), &bytes[..bytes.len() / 2]);
        serving.until("half", || said().contains(&format!("{name} has {} of ", bytes.len() / 2)));
        place.write(&format!("models/tiny/2/{name}"), bytes);
    }
    serving.until("live", || answers(&serving, &page) == 2);
    assert_eq!(serving.state()["arriving"], json!({}));

    // All there and not good; mended in place, it is tried again by itself, and at once when
    // somebody says so.
    let ids = place.read("models/tiny/1/ids.safetensors");
    let mut bad = ids.clone();
    *bad.last_mut().unwrap() ^= 1;
    for (version, asked) in [(3, false), (4, true)] {
        let path = format!("models/tiny/{version}/ids.safetensors");
        place.copy("models/tiny/1", "models/building");
        place.write("models/building/ids.safetensors", &bad);
        std::fs::rename(
            place.path("models/building"),
            place.path(&format!("models/tiny/{version}")),
        )
        .unwrap();
        serving.until("refused", || serving.state()["refused"][version.to_string()].is_string());
        place.write(&path, &ids);
        if asked {
            assert_eq!(serving.tell("/admin/poll").0, 200);
        }
        serving.until("live", || answers(&serving, &page) == version);
    }
}

#[test]
fn files_that_are_changed_under_a_server_change_no_answer() {
    let (place, page) = published();
    let serving = Serving::new(&place, POLL);
    let expected = serving.score(&page);
    assert_eq!(expected.0, 200);
    let changed = || metric(&serving, "ams_model_changed_versions{model=\"tiny\"}");
    assert_eq!(changed(), 0.0);
    let files = place.files("models/tiny/1");
    let names: Vec<&String> =
        files.iter().filter(|(_, bytes)| bytes.is_some()).map(|(name, _)| name).collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in &names {
        let path = place.path("models/tiny/1").join(name);
        let bytes = std::fs::read(&path).unwrap();
        writable(&path);
        // In place, as `cp` does it: the same bytes, others, none.
        let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x55).collect();
        for content in [&bytes, &other, &Vec::new()] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(serving.score(&page), expected, "{name}");
        }
        serving.until("told", || changed() == 1.0);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(serving.score(&page), expected, "{name}");
    }
    let said = serving.state()["changed"]["1"].as_str().unwrap().to_owned();
    assert!(said.contains("serves from memory"), "{said}");
    std::fs::remove_dir_all(place.path("models/tiny/1")).unwrap();
    serving.until("looked", || serving.state()["changed"]["1"].is_string());
    assert_eq!((serving.score(&page), serving.get("/health/ready").0), (expected, 200));
    assert_eq!(serving.stop(), Some(0));
}

fn writable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
fn names_are_those_of_the_folder_that_was_asked_for() {
    let (place, page) = published();
    std::fs::rename(place.path("models/tiny"), place.path("elsewhere")).unwrap();
    std::fs::create_dir(place.path("models/tiny")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere/1", place.path("models/tiny/5")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", place.path("models/alias")).unwrap();
    let serving = Serving::new(&place, POLL);
    assert_eq!(answers(&serving, &page), 5);
    let (status, scored) = serving.post("/v1/models/alias/score", &page.to_string());
    assert_eq!((status, &scored["model"], &scored["version"]), (200, &json!("alias"), &json!(1)));
    // Nothing is loaded twice.
    let loaded =
        metric(&serving, "ams_version_loaded_timestamp_seconds{model=\"tiny\",version=\"5\"}");
    let polled = || metric(&serving, "ams_last_good_poll_timestamp_seconds");
    let first = polled();
    serving.until("polled", || polled() > first + 0.5);
    assert_eq!(
        metric(&serving, "ams_version_loaded_timestamp_seconds{model=\"tiny\",version=\"5\"}"),
        loaded
    );
}

/// The queries of a dashboard, or of rules, whichever `value` is; Grafana's variables have values.
fn queries(value: &Value, to: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(query) => to.push(
                        query
                            .replace("$__rate_interval", "5m")
                            .replace("$job", ".*")
                            .replace("$instance", ".*"),
                    ),
                    None => queries(value, to),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, to)),
        _ => {}
    }
}

/// What `promtool` says, if it is there.
fn promtool(arguments: &[&str], input: &str) -> Option<std::process::Output> {
    let mut command = std::process::Command::new("promtool");
    command
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().ok()?;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}

/// A version that `ams daily` would have published, of a day before one that was refused.
fn decided(place: &Place, version: u64) {
    let gauc = json!({"metric": "GAUC", "new": 0.6, "serving": 0.5, "gain": 0.1, "interval": [0.05, 0.15]});
    let facts = json!({"rows": 1, "impressions": 1, "clicks": 1, "users": 1, "new_items": 0.0, "pictures": 1.0, "missing": {}});
    let decision = json!({
        "format": "ams-decision/1", "day": "2024-03-05", "judged_from": 0, "judged_until": 1, "judged": 1,
        "compared": [gauc], "reasons": [], "facts": facts
    });
    let days = json!({"format": "ams-days/1", "days": [
        {"day": "2024-03-05", "outcome": "published", "version": version},
        {"day": "2024-03-06", "outcome": "refused", "reasons": ["labels"]}
    ]});
    place.write("models/tiny/days.json", days.to_string());
    place.copy("models/tiny/1", "decided");
    ams_bundle::add_decision(&place.path("decided"), decision.as_object().unwrap()).unwrap();
    let there = place.path(&format!("models/tiny/{version}"));
    std::fs::rename(place.path("decided"), there).unwrap();
}

/// What Prometheus' own program says of the metrics, the alerts and the dashboard; these two know
/// no other metrics.
#[test]
fn prometheus_reads_what_is_said() {
    let (place, page) = versions(2);
    place.write("models/bad/1/MANIFEST.json", "{}");
    decided(&place, 3);
    std::fs::create_dir_all(place.path("outcomes/tiny")).unwrap();
    let serving = Serving::new(&place, &format!("{POLL} --outcomes outcomes"));
    serving.until("3", || answers(&serving, &page) == 3);
    assert_eq!(serving.tell("/admin/models/tiny/rollback").0, 200);
    // One canary is taken back, another one is raised and goes on.
    let half: Vec<u8> = (0..20).map(|at| at % 2).collect();
    let one = [&[1][..], &[0; 19]].concat();
    for (version, ctr, labels) in [(1, 0.9, &one), (3, 0.5, &half)] {
        let promote = format!("versions/{version}/promote?steps=5,50&impressions=20");
        assert_eq!(serving.tell(&format!("/admin/models/tiny/{promote}")).0, 200);
        post_outcomes(&serving, version, ctr, labels);
    }
    post_outcomes(&serving, 3, 0.5, &half[..10]);
    let outcome = |ctr| Outcome { version: 2, ctr, clicked: true };
    for (part, ctr) in [("good", 0.5), ("wrong", 1.5)] {
        let path = place.path(&format!("outcomes/tiny/{part}.parquet"));
        outcomes::write(&path, &[outcome(ctr)]).unwrap();
    }
    serving.until("read", || serving.metrics().contains("ams_outcome_parts_refused_total{"));
    assert_eq!(serving.score(&page).0, 200);
    let metrics = serving.metrics();
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = types.filter_map(|line| line.split(' ').next()).collect();
    for name in &names {
        assert!(metrics.contains(&format!("# HELP {name} ")), "no help of {name}");
    }
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
    let rules = format!("{deploy}/prometheus/alerts.yaml");
    let text = std::fs::read_to_string(&rules).unwrap();
    let of_alerts = text.lines().filter_map(|line| line.trim().strip_prefix("expr:"));
    let dashboard = std::fs::read(format!("{deploy}/grafana/ams-serve.json")).unwrap();
    let mut of_dashboard = Vec::new();
    queries(&serde_json::from_slice(&dashboard).unwrap(), &mut of_dashboard);
    assert!(of_dashboard.len() > 50, "{of_dashboard:?}");
    let all = of_alerts.chain(of_dashboard.iter().map(String::as_str));
    for word in all.flat_map(|it| it.split(|c: char| !c.is_alphanumeric() && c != '_')) {
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
        let known = names.contains(&word) || names.contains(&base);
        let ours = word.starts_with("ams_") || word.starts_with("process_");
        assert!(known || !ours, "no {word} in\n{metrics}");
    }
    // Days of data are whole, and no seconds.
    let of_seconds: Vec<&str> =
        metrics.lines().filter(|line| !line.contains("ams_version_days_behind")).collect();
    let of_seconds = of_seconds.join("\n") + "\n";
    let Some(checked) = promtool(&["check", "metrics"], &of_seconds) else {
        eprintln!("skipped: no promtool to check metrics, alerts and the dashboard with");
        return;
    };
    assert!(checked.status.success(), "{}\n{metrics}", String::from_utf8_lossy(&checked.stderr));
    // The queries of the dashboard as rules, which is what promtool reads.
    let rule = |(at, query)| serde_json::json!({"record": format!("panel:{at}"), "expr": query});
    let panels: Vec<Value> = of_dashboard.iter().enumerate().map(rule).collect();
    let panels = serde_json::json!({"groups": [{"name": "dashboard", "rules": panels}]});
    place.write("panels.yaml", panels.to_string());
    for file in [rules.into(), place.path("panels.yaml")] {
        let checked = promtool(&["check", "rules", file.to_str().unwrap()], "").unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// A disk's `lost+found`, and a model that another user copied here.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_may_not_be_read_harms_no_other_model() {
    use std::os::unix::fs::PermissionsExt;
    let (place, page) = versions(1);
    let closed = |name: &str, mode| {
        std::fs::create_dir_all(place.path(name)).unwrap();
        std::fs::set_permissions(place.path(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    closed("models/lost+found", 0o700);
    let Some(serving) = Serving::by_nobody(&place, POLL) else {
        eprintln!("skipped: there is no setpriv, or it may not become another user");
        return;
    };
    assert_eq!(answers(&serving, &page), 1);
    let unreadable = "ams_model_unreadable{model=\"lost+found\"}";
    assert_eq!(metric(&serving, unreadable), 1.0);
    // A version that only its owner may read, and one that everybody may.
    place.copy("models/tiny/1", "models/tiny/.2.building");
    closed("models/tiny/.2.building", 0o700);
    std::fs::rename(place.path("models/tiny/.2.building"), place.path("models/tiny/2")).unwrap();
    serving.until("refused", || models(&serving)["tiny"]["refused"]["2"].is_string());
    let reason = models(&serving)["tiny"]["refused"]["2"].clone();
    assert!(reason.as_str().unwrap().contains("ermission"), "{reason}");
    assert_eq!((answers(&serving, &page), serving.get("/health/ready").0), (json!(1), 200));
    appear(&place, "models/tiny/1", 3);
    serving.until("taken up", || answers(&serving, &page) == 3);
    closed("models/tiny/2", 0o755);
    serving.until("forgiven", || models(&serving)["tiny"]["refused"].get("2").is_none());
    assert_eq!(metric(&serving, unreadable), 1.0);
    killed(serving);
}

/// Posts outcomes of a version: as many impressions as labels, of one predicted rate.
fn post_outcomes(serving: &Serving, version: u64, ctr: f64, labels: &[u8]) -> Value {
    let outcome = |label: &u8| json!({"version": version, "ctr": ctr, "label": label});
    let body = json!({"outcomes": labels.iter().map(outcome).collect::<Vec<Value>>()});
    let (status, said) = serving.post("/v1/models/tiny/outcomes", &body.to_string());
    assert_eq!(status, 200, "{said}");
    said
}

#[test]
fn a_canary_is_raised_while_it_holds_and_taken_back_where_it_does_not() {
    let (place, page) = versions(2);
    let (mut one, other) = (Serving::new(&place, POLL), Serving::new(&place, POLL));
    one.until("2", || answers(&one, &page) == 2);
    assert_eq!(one.tell("/admin/models/tiny/rollback").1["live"], 1);
    other.until("1", || answers(&other, &page) == 1);
    let promote = "/admin/models/tiny/versions/2/promote?steps=10,60&impressions=20";
    let (_, state) = one.tell(promote);
    assert_eq!(state["canary"], json!([2, 10]));
    let rules = json!({"steps": [10, 60], "impressions": 20, "calibration": 1.25, "errors": 0.01});
    assert_eq!(state["promotion"]["rules"], rules);

    // Ten of twenty were clicked, as was predicted.
    let half: Vec<u8> = (0..20).map(|at| at % 2).collect();
    assert_eq!(post_outcomes(&one, 1, 0.5, &half), json!({"counted": 20, "left_out": 0}));
    post_outcomes(&one, 2, 0.5, &half[..19]);
    let (_, card) = one.get("/v1/models/tiny/versions/2");
    let promotion = &card["promotion"];
    assert_eq!(promotion["canary"]["impressions"], json!(19), "{card}");
    assert_eq!(promotion["serving_calibration"], json!(1.0), "{card}");
    assert_eq!(metric(&one, "ams_canary_impressions{model=\"tiny\",version=\"2\"}"), 19.0);
    assert_eq!(one.state()["canary"], json!([2, 10]));
    post_outcomes(&one, 2, 0.5, &half[19..]);
    assert_eq!(one.state()["canary"], json!([2, 60]));
    // Counting begins anew, also in the other server, and after a restart.
    assert_eq!(one.state()["promotion"]["canary"]["impressions"], json!(0));
    other.until("60", || other.state()["canary"] == json!([2, 60]));
    killed(one);
    one = Serving::new(&place, POLL);
    one.until("60", || one.state()["canary"] == json!([2, 60]));
    post_outcomes(&one, 2, 0.5, &half[..10]);
    assert_eq!(one.state()["canary"], json!([2, 60]));
    post_outcomes(&one, 2, 0.5, &half[10..]);
    // It held to the end.
    let state = one.state();
    assert_eq!((&state["live"], &state["canary"]), (&json!(2), &Value::Null), "{state}");
    other.until("2", || answers(&other, &page) == 2);
    assert_eq!(metric(&one, "ams_canaries_raised_total{model=\"tiny\"}"), 1.0);

    // Version 3 predicts far too many clicks.
    appear(&place, "models/tiny/1", 3);
    one.until("3", || answers(&one, &page) == 3);
    assert_eq!(one.tell("/admin/models/tiny/rollback").1["live"], 2);
    one.tell("/admin/models/tiny/versions/3/promote?steps=50&impressions=20");
    let said = post_outcomes(&one, 7, 0.5, &half);
    assert_eq!(said, json!({"counted": 0, "left_out": 20}));
    let mut few = [0; 20];
    few[3] = 1;
    post_outcomes(&one, 3, 0.9, &few);
    let state = one.state();
    assert_eq!((&state["live"], &state["canary"]), (&json!(2), &Value::Null), "{state}");
    let why = state["decided"]["withdrawn"]["3"]["by"].as_str().unwrap();
    assert!(why.contains("it predicted 18.0 clicks and got 1 of 20 impressions"), "{why}");
    assert_eq!(metric(&one, "ams_canaries_taken_back_total{model=\"tiny\"}"), 1.0);
    other.until("no canary", || other.state()["canary"] == Value::Null);
    let told = place.run("status models");
    assert!(told.out.contains("version 3 was taken back by the promotion"), "{}", told.out);

    let wrong = [
        ("versions/3/promote?steps=5,5", 400, "steps are [5, 5]"),
        ("versions/3/promote?steps=x", 400, "\"x\" is no percentage"),
        ("versions/3/promote?impressions=0", 400, "impressions is 0"),
        ("versions/2/promote", 409, "is live"),
        ("versions/9/promote", 404, "no version 9"),
    ];
    for (order, expected, words) in wrong {
        let (status, problem) = one.tell(&format!("/admin/models/tiny/{order}"));
        assert_eq!(status, expected, "{order}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{order}: {problem}");
    }
    let (status, problem) =
        one.post("/v1/models/tiny/outcomes", r#"{"outcomes": [{"version": 1}]}"#);
    assert_eq!(status, 400, "{problem}");
    assert_eq!(one.post("/v1/models/other/outcomes", r#"{"outcomes": []}"#).0, 404);
}

/// Outcomes that land in a folder count as posted ones do, each file once and whole, also after the
/// server was started again; a wrong one is told and changes nothing.
#[test]
fn outcomes_are_read_from_files_as_they_land() {
    let (place, page) = versions(2);
    let land = |name: &str, version: u64, ctr: f64, labels: &[u8]| {
        let outcome = |label: &u8| Outcome { version, ctr, clicked: *label == 1 };
        let all: Vec<Outcome> = labels.iter().map(outcome).collect();
        let path = place.path(&format!("outcomes/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        outcomes::write(&path, &all).unwrap();
        std::fs::read(path).unwrap()
    };
    let half: Vec<u8> = (0..20).map(|at| at % 2).collect();
    land("tiny/before.parquet", 2, 0.5, &half);
    let of_files = format!("{POLL} --outcomes outcomes");
    let mut serving = Serving::new(&place, &of_files);
    serving.until("2", || answers(&serving, &page) == 2);
    serving.tell("/admin/models/tiny/rollback");
    serving.tell("/admin/models/tiny/versions/2/promote?steps=10,60&impressions=20");
    let counted = |serving: &Serving, parts: u32| {
        let line = format!("ams_outcome_parts_total{{model=\"tiny\"}} {parts}\n");
        serving.until("counted", || serving.metrics().contains(&line));
    };
    let impressions =
        |serving: &Serving| serving.state()["promotion"]["canary"]["impressions"].clone();
    // What was there before the server counts for nothing, and neither does what is not whole, of
    // another model, or hidden.
    let whole = land("tiny/a.parquet", 2, 0.5, &half[..12]);
    counted(&serving, 1);
    assert_eq!(impressions(&serving), json!(12));
    place.write("outcomes/tiny/b.parquet", &whole[..whole.len() / 2]);
    place.write("outcomes/tiny/_c.parquet", &whole);
    place.write("outcomes/tiny/d.txt", "no parquet");
    land("other/e.parquet", 2, 0.5, &half);
    serving.until("waiting", || metric(&serving, "ams_outcome_parts_waiting") == 2.0);
    // One that is wrong is told, and one after it counts. Labels of versions that are not in memory
    // are left out.
    land("tiny/f.parquet", 2, 1.5, &half);
    land("tiny/g.parquet", 7, 0.5, &half);
    counted(&serving, 2);
    assert_eq!(metric(&serving, "ams_outcome_parts_refused_total{model=\"tiny\"}"), 1.0);
    assert_eq!((impressions(&serving), &serving.state()["canary"]), (json!(12), &json!([2, 10])));
    // Its end has come, beside what is posted.
    assert_eq!(serving.post("/v1/models/tiny/outcomes", r#"{"outcomes": []}"#).0, 200);
    place.write("outcomes/tiny/b.parquet", &whole);
    serving.until("60", || serving.state()["canary"] == json!([2, 60]));
    assert_eq!(metric(&serving, "ams_outcomes_total{model=\"tiny\",version=\"2\"}"), 24.0);

    // Nothing is read twice: the step begins anew, without what had landed.
    killed(serving);
    serving = Serving::new(&place, &of_files);
    serving.until("60", || serving.state()["canary"] == json!([2, 60]));
    land("tiny/h.parquet", 2, 0.5, &half[..10]);
    counted(&serving, 1);
    assert_eq!(impressions(&serving), json!(10));
    // The wrong one is mended.
    land("tiny/f.parquet", 2, 0.5, &half[..9]);
    land("tiny/i.parquet", 2, 0.5, &half[10..]);
    serving.until("live", || serving.state()["live"] == json!(2));
    assert_eq!(answers(&serving, &page), 2);
}

/// A canary whose requests fail, while those of the version that serves do not, is taken back.
#[test]
fn a_canary_that_fails_is_taken_back() {
    let (place, page) = versions(2);
    let serving = Serving::new(&place, POLL);
    serving.until("2", || answers(&serving, &page) == 2);
    serving.tell("/admin/models/tiny/rollback");
    serving.tell("/admin/models/tiny/versions/2/promote?steps=50&impressions=1000");
    for _ in 0..30 {
        assert_eq!(serving.post("/v1/models/tiny/versions/1/score", &page.to_string()).0, 200);
    }
    // Far more than can be scored in time: of some deadline, it is seen too late.
    let mut large = page.clone();
    let item = page["candidates"]["item"][0].clone();
    large["candidates"] = json!({"item": vec![item; 10_000]});
    let mut deadline = 4;
    let failures = "ams_version_failures_total{model=\"tiny\",version=\"2\"}";
    // Of a version that was taken back there is no number.
    let failed = || {
        let metrics = serving.metrics();
        metrics.lines().find(|line| line.starts_with(failures)).map(str::to_owned)
    };
    let begin = Instant::now();
    while serving.state()["canary"] != Value::Null {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", serving.metrics());
        let before = failed();
        large["options"] = json!({"deadline_ms": deadline});
        let (status, said) = serving.post("/v1/models/tiny/versions/2/score", &large.to_string());
        // Its number has none any more where it was taken back meanwhile.
        assert!([200, 504, 404].contains(&status), "{said}");
        if status == 200 {
            deadline = (deadline / 2).max(1);
        } else if failed() == before {
            deadline += 1 + deadline / 2;
        }
    }
    let state = serving.state();
    assert_eq!(state["live"], json!(1), "{state}");
    let why = state["decided"]["withdrawn"]["2"]["by"].as_str().unwrap();
    assert!(why.contains("requests failed, of the version that serves 0 of 30"), "{why}");
    assert_eq!(metric(&serving, "ams_canaries_taken_back_total{model=\"tiny\"}"), 1.0);
    assert_eq!(answers(&serving, &page), 1);
}
