//! The server's pages as people meet them: in a browser, with mouse, keyboard and a phone.
//! `pages.py` drives it.

use std::path::Path;
use std::process::Command;

use ureq::Agent;

use crate::place::Place;
use crate::serve::{Serving, agent, appear, published};
use crate::shop::TRAIN;

/// A browser, if there is one here.
pub(crate) fn chromium() -> Option<&'static str> {
    let has = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(has);
    let version = "import sys; assert sys.version_info >= (3, 10)";
    let python = Command::new("python3").args(["-c", version]).output();
    let python = python.is_ok_and(|python| python.status.success());
    if found.is_none() || !python {
        eprintln!("skipped: no chromium, or no python3 to drive it");
    }
    found.filter(|_| python)
}

/// Has `pages.py` look at a server in one of its modes; the first argument is the address.
pub(crate) fn look(place: &Place, browser: &str, mode: &str, arguments: &[&str]) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let pictures = workspace.join("target/pages");
    std::fs::create_dir_all(&pictures).unwrap();
    let output = Command::new("python3")
        .arg(workspace.join("crates/cli/tests/it/pages.py"))
        .args([browser.as_ref(), place.path("profile").as_os_str(), pictures.as_os_str()])
        .arg(mode)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A place with the model `tiny`, and `plain`, which sees no pictures.
fn two_models() -> Place {
    let (place, _) = published();
    place.json(&format!("{TRAIN} --set name=\"plain\" --set model.images=\"none\""));
    place.json("publish runs/plain --to models --name plain");
    place
}

#[test]
fn people_look_at_page_views() {
    let Some(browser) = chromium() else { return };
    let place = two_models();
    place.write("tokens", "looking-token-0123456789\n");
    let demo = "--deadline-ms 60000 --demo --demo-pictures shop";
    look(&place, browser, "open", &[&Serving::new(&place, demo).address]);
    let serving = Serving::new(&place, &format!("{demo} --token-file tokens"));
    look(&place, browser, "token", &[&serving.address, "looking-token-0123456789"]);
}

#[test]
fn pages_of_other_hosts_change_nothing() {
    let Some(browser) = chromium() else { return };
    let (place, _) = published();
    appear(&place, "models/tiny/1", 2);
    let serving = Serving::new(&place, "--deadline-ms 60000");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/foreign.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(browser).arg(place.path("profile"));
    let output = python.args([&serving.address, &serving.admin]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A status and what says what it is.
fn fetched(agent: &Agent, url: &str) -> (u16, String, Vec<u8>) {
    let response = agent.get(url).call().unwrap();
    let kind = response.headers().get("Content-Type").map(|kind| kind.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    (status, kind.unwrap_or_default(), response.into_body().read_to_vec().unwrap())
}

/// Pictures are those of items the model knows, whatever is asked for.
#[test]
fn nothing_but_pictures_of_items_leaves_the_folder() {
    let (place, page) = published();
    let item = page["candidates"]["item"][0].as_str().unwrap();
    place.write("tokens", "looking-token-0123456789\n");
    place.refuses("serve models --demo --demo-pictures absent", &["absent: No such file"]);
    place.refuses("serve models --demo --demo-pictures s3://bucket/a", &["is not on this host"]);
    let agent = agent();
    let get =
        |serving: &Serving, path: &str| fetched(&agent, &format!("{}{path}", serving.address));

    let serving = Serving::new(&place, "--demo --demo-pictures shop --deadline-ms 60000");
    let asked = |model: &str, item: &str| {
        get(&serving, &format!("/demo/picture?model={model}&item={item}"))
    };
    for _ in 0..2 {
        let (status, kind, bytes) = asked("tiny", item);
        assert_eq!((status, &kind[..], &bytes[..2]), (200, "image/jpeg", &b"\xff\xd8"[..]));
        assert!(bytes.len() < 40_000, "{} bytes are no small picture", bytes.len());
    }
    for (model, item) in [
        ("tiny", "nobody"),
        ("tiny", "..%2f..%2fetc%2fpasswd"),
        ("tiny", "events.parquet"),
        ("tiny", "%00"),
        ("other", item),
        ("..", item),
    ] {
        let (status, kind, bytes) = asked(model, item);
        assert_eq!((status, &kind[..]), (404, "application/problem+json"), "{model} {item}");
        let said = String::from_utf8(bytes).unwrap();
        assert!(!said.contains(place.path("").to_str().unwrap()), "{said}");
    }
    for query in ["", "?model=tiny", "?model=tiny&item=1&folder=/etc"] {
        assert_eq!(get(&serving, &format!("/demo/picture{query}")).0, 400, "{query}");
    }
    for (path, kind) in
        [("/demo", "text/html"), ("/docs", "text/html"), ("/demo/app.js", "text/javascript")]
    {
        let response = agent.get(format!("{}{path}", serving.address)).call().unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("Content-Type").starts_with(kind), "{path}");
        assert!(header("Content-Security-Policy").starts_with("default-src 'self';"), "{path}");
    }
    // A picture that is damaged, or is none any more.
    drop(serving);
    for name in place.files("shop").into_keys().filter(|name| name.contains(item)) {
        place.write(&format!("shop/{name}"), "no picture");
    }
    let serving = Serving::new(&place, "--demo --demo-pictures shop --token-file tokens");
    let picture = format!("/demo/picture?model=tiny&item={item}");
    assert_eq!(get(&serving, &picture).0, 401, "pictures are for who may ask");
    let response = agent
        .get(format!("{}{picture}", serving.address))
        .header("Authorization", "Bearer looking-token-0123456789");
    assert_eq!(response.call().unwrap().status().as_u16(), 404);
    // Nothing of it where nobody wanted it.
    let serving = Serving::new(&place, "");
    assert_eq!(get(&serving, "/docs").0, 200);
    for path in ["/demo", "/demo/app.js", &picture] {
        assert_eq!(get(&serving, path).0, 404, "{path}");
    }
    assert!(
        !String::from_utf8(get(&serving, "/docs").2)
            .unwrap()
            .contains(r#"name="demo" content="yes""#)
    );
}
