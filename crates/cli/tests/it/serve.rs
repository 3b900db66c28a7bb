//! The server as its clients meet it: real processes, real sockets, versions that come and go while
//! they ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

#[cfg(feature = "grpc")]
use crate::grpc;
use crate::place::{Place, numbers};
use crate::shop::TRAIN;

/// A server that runs until it is dropped.
pub struct Serving {
    pub child: Child,
    /// `http://` or `https://` and where it answers page views.
    pub address: String,
    pub admin: String,
    agent: Agent,
}

/// A status, and the body if it is JSON.
pub type Said = (u16, Value);

/// Somebody who asks.
pub fn agent() -> Agent {
    let config = Agent::config_builder();
    config.http_status_as_error(false).timeout_global(Some(Duration::from_secs(120))).build().into()
}

fn said(response: ureq::http::Response<ureq::Body>) -> Said {
    let status = response.status().as_u16();
    let text = response.into_body().read_to_string().unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

impl Serving {
    /// `ams serve` of the place's folder `models`, once it is ready.
    pub fn new(place: &Place, arguments: &str) -> Serving {
        Serving::asked_by(agent(), place, arguments)
    }

    /// The same, asked by `agent`.
    pub fn asked_by(agent: Agent, place: &Place, arguments: &str) -> Serving {
        Serving::started_by(agent, place, arguments).once_ready()
    }

    fn once_ready(self) -> Serving {
        // A shared address lets nobody in before.
        self.until("ready", || self.admin_get("/health/ready").0 == 200);
        self
    }

    /// The same, which may never be ready.
    pub fn started(place: &Place, arguments: &str) -> Serving {
        Serving::started_by(agent(), place, arguments)
    }

    fn started_by(agent: Agent, place: &Place, arguments: &str) -> Serving {
        // Nobody has to notice that it ends, but where that is what is tested.
        let duck = if arguments.contains("--lame-duck") { "" } else { "--lame-duck 0" };
        let bind = if arguments.contains("--bind") { "" } else { "--bind 127.0.0.1:0" };
        let all = format!("serve models {bind} --admin-bind 127.0.0.1:0 {duck} --json {arguments}");
        Serving::of(agent, place.command(&all))
    }

    /// Likewise, by a process that may have `soft` files open, and `hard` if it asks.
    #[cfg(target_os = "linux")]
    pub fn with_files(place: &Place, arguments: &str, soft: u32, hard: u32) -> Serving {
        let all =
            format!("serve models --bind 127.0.0.1:0 --admin-bind 127.0.0.1:0 --json {arguments}");
        let command = place.command(&all);
        let mut limited = std::process::Command::new("sh");
        let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
        limited.args(["-c", &limits]).arg(command.get_program()).args(command.get_args());
        limited.current_dir(place.path("")).stdin(Stdio::null()).stdout(Stdio::piped());
        Serving::of(agent(), limited).once_ready()
    }

    /// Likewise, by a user who owns nothing: what is nobody's to read, root reads all the same.
    /// None where there is no such program.
    #[cfg(target_os = "linux")]
    pub fn by_nobody(place: &Place, arguments: &str) -> Option<Serving> {
        use std::os::unix::fs::PermissionsExt;
        let command = place.command(&format!(
            "serve models --bind 127.0.0.1:0 --admin-bind 127.0.0.1:0 --lame-duck 0 --json {arguments}"
        ));
        let nobody = |program: &std::ffi::OsStr| {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
            command
        };
        let tried = nobody(command.get_program()).arg("--version").output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            return None;
        }
        let folder = place.path("");
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
        let mut command_of_nobody = nobody(command.get_program());
        command_of_nobody.args(command.get_args()).current_dir(folder);
        command_of_nobody.stdin(Stdio::null()).stdout(Stdio::piped());
        Some(Serving::of(agent(), command_of_nobody).once_ready())
    }

    fn of(agent: Agent, mut command: std::process::Command) -> Serving {
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let open: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{command:?}: {line:?}"));
        let scheme = if open["tls"] == true { "https" } else { "http" };
        let at = |name: &str| format!("{scheme}://{}", open[name].as_str().unwrap());
        let (address, admin) = (at("address"), at("admin_address"));
        Serving { child, address, admin, agent }
    }

    pub fn until(&self, what: &str, done: impl Fn() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(60), "not {what} after a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn get(&self, path: &str) -> Said {
        said(self.agent.get(format!("{}{path}", self.address)).call().unwrap())
    }

    pub fn post(&self, path: &str, body: &str) -> Said {
        let request = self.agent.post(format!("{}{path}", self.address));
        said(request.content_type("application/json").send(body).unwrap())
    }

    /// Sends bytes with headers of one's own.
    #[cfg(feature = "grpc")]
    pub fn send(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Said {
        let request = self.agent.post(format!("{}{path}", self.address));
        let request =
            headers.iter().fold(request, |request, &(name, value)| request.header(name, value));
        said(request.send(body).unwrap())
    }

    pub fn score(&self, page: &Value) -> Said {
        self.post("/v1/models/tiny/score", &page.to_string())
    }

    /// Sends the admin port bytes, such as those of a picture.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Said {
        let request = self.agent.put(format!("{}{path}", self.admin)).header("X-Ams-Admin", "1");
        said(request.send(bytes).unwrap())
    }

    /// Sends the admin port JSON.
    pub fn change(&self, path: &str, body: &Value) -> Said {
        let request = self.agent.post(format!("{}{path}", self.admin));
        said(request.content_type("application/json").send(body.to_string()).unwrap())
    }

    /// Tells the admin port something; the state of the model `tiny`.
    pub fn tell(&self, path: &str) -> Said {
        let request = self.agent.post(format!("{}{path}", self.admin)).header("X-Ams-Admin", "1");
        let (status, all) = said(request.send("").unwrap());
        (status, if all.is_array() { all[0].clone() } else { all })
    }

    pub fn state(&self) -> Value {
        let (status, all) =
            said(self.agent.get(format!("{}/admin/models", self.admin)).call().unwrap());
        assert_eq!(status, 200, "{all}");
        all[0].clone()
    }

    pub fn admin_get(&self, path: &str) -> Said {
        said(self.agent.get(format!("{}{path}", self.admin)).call().unwrap())
    }

    pub fn metrics(&self) -> String {
        let mut response = self.agent.get(format!("{}/metrics", self.admin)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// Sends bytes as they are; what comes back until the server closes.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address.split("//").nth(1).unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut said = Vec::new();
        match stream.read_to_end(&mut said) {
            // What was sent and not read is answered so.
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => {}
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let (name, id) = (format!("-{name}"), self.child.id().to_string());
        std::process::Command::new("kill").args([name, id]).status().unwrap();
    }

    /// Asks it to stop, as a cluster does; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place with a published model and its first example request.
pub fn published() -> (Place, Value) {
    let place = Place::with_run();
    place.json("publish runs/tiny --to models");
    let samples: Value = serde_json::from_slice(&place.read("models/tiny/1/samples.json")).unwrap();
    let page = samples[0].clone();
    (place, page)
}

/// Makes `version` appear as a publisher does: all of it at once, a copy of `from`.
pub fn appear(place: &Place, from: &str, version: u64) {
    let (building, whole) =
        (format!("models/tiny/.{version}.building"), format!("models/tiny/{version}"));
    place.copy(from, &building);
    std::fs::rename(place.path(&building), place.path(&whole)).unwrap();
}

#[test]
fn a_published_model_answers_as_the_program_does() {
    let (place, page) = published();
    place.write("page.json", page.to_string());
    let serving = Serving::new(
        &place,
        "--deadline-ms 60000 --body-timeout 1 --idle-timeout 1 --body-bytes 20000 --candidates 50",
    );
    let expected = place.json("score --model models/tiny --request page.json");
    assert_eq!(serving.score(&page), (200, expected.clone()));
    let version = "/v1/models/tiny/versions/1";
    assert_eq!(
        serving.post(&format!("{version}/score"), &page.to_string()),
        (200, expected.clone())
    );

    let (status, explained) = serving.post("/v1/models/tiny/explain", &page.to_string());
    assert_eq!(status, 200, "{explained}");
    assert_eq!(explained["candidates"][0]["item"], expected["items"][0]);
    assert_eq!(explained["candidates"][0]["ctr"], expected["ctr"][0]);
    let behaviors = explained["behaviors"].as_array().unwrap().len();
    assert_eq!(explained["candidates"][0]["raises"].as_array().unwrap().len(), behaviors);
    let attention = &explained["candidates"][0]["attention"][0];
    assert_eq!(
        (&attention["over"], attention["weights"].as_array().unwrap().len()),
        (&json!("image"), behaviors)
    );

    let (status, card) = serving.get("/v1/models/tiny");
    assert_eq!((status, &card["version"], &card["samples"][0]), (200, &json!(1), &page));
    assert_eq!(serving.get("/v1/models"), (200, json!([{"model": "tiny", "version": 1}])));

    alike(&serving, &expected["items"][0]);
    #[cfg(feature = "grpc")]
    as_tensors(&place, &serving, &expected);
    refusals(&serving, &page);

    let metrics = serving.metrics();
    for line in [
        r#"ams_model_version{model="tiny"} 1"#,
        r#"ams_page_views_total{model="tiny",version="1"} "#,
        r#"ams_requests_total{route="/v1/models/{model}/score",status="200"} 2"#,
        r#"ams_predicted_ctr_bucket{model="tiny",le="1"}"#,
        "ams_sheds_total 0",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    anything(&place, &serving);

    // The program measures servers too: an address, where `bench` otherwise takes paths of this
    // host alone.
    let url = &serving.address;
    let bench =
        format!("bench serve --model models/tiny --candidates 4 --url {url} --rate 50 --seconds 1");
    let run = place.json(&bench)["runs"][0].clone();
    assert_eq!((&run["answered"], &run["failed"]), (&run["sent"], &json!(0)), "{run}");
    let agreement = place.json(&format!("bench agree runs/tiny --model models/tiny --url {url}"));
    assert!(crate::place::count(&agreement["impressions"]) > 100, "{agreement}");
    assert_eq!(agreement["server_to_bundle"], 0.0, "{agreement}");
    assert!(crate::place::number(&agreement["bundle_to_trainer"]) < 1e-6, "{agreement}");
    assert_eq!(serving.stop(), Some(0));
    on_many_threads(&place, &page);
}

/// A large page view has the same answers on any number of threads, in every protocol.
fn on_many_threads(place: &Place, page: &Value) {
    let known = page["candidates"]["item"].as_array().unwrap().iter().cycle();
    let item = |(at, known): (usize, &Value)| match at % 100 {
        0 => json!(format!("new {at}")),
        _ => known.clone(),
    };
    let items: Vec<Value> = known.take(3000).enumerate().map(item).collect();
    let mut large = page.clone();
    large["candidates"] = json!({"item": items});
    place.write("large.json", large.to_string());
    let expected = place.json("score --model models/tiny --request large.json");
    assert_eq!(expected["missing"]["ids"]["ad.item"], 30, "{}", expected["missing"]);
    let tensor =
        json!({"name": "candidates.item", "shape": [3000], "datatype": "BYTES", "data": items});
    let answers = |threads: usize| {
        let serving = Serving::new(
            place,
            &format!("--threads 3 --page-threads {threads} --deadline-ms 60000"),
        );
        assert_eq!(serving.score(&large), (200, expected.clone()), "{threads}");
        let infer = json!({"inputs": [tensor]}).to_string();
        let (status, inferred) = serving.post("/v2/models/tiny/infer", &infer);
        assert_eq!(status, 200, "{inferred}");
        #[cfg(feature = "grpc")]
        let called = {
            let client = crate::grpc_client::Client::new(&serving);
            let request = json!({"model": "tiny", "page_view": grpc::message(&large)});
            client.ask("ams.v1.Ranking/Score", &request, &[]).unwrap()
        };
        #[cfg(not(feature = "grpc"))]
        let called = Value::Null;
        assert_eq!(serving.stop(), Some(0));
        let bench = format!(
            "bench serve --model models/tiny --candidates 1100 --pages 2 --page-threads {threads}"
        );
        (inferred, called, place.json(&bench)["runs"][0]["ctr_sum"].clone())
    };
    let one = answers(1);
    assert!(crate::place::number(&one.2) > 0.0);
    assert_eq!(answers(3), one);
    place.refuses("bench serve --model models/tiny --page-threads 0", &["expected 1 to 1024"]);
}

/// What looks like an item: others, the nearest first.
fn alike(serving: &Serving, item: &Value) {
    let ask = |wanted: Value| serving.post("/v1/models/tiny/similar", &wanted.to_string());
    let (status, similar) = ask(json!({"item": item, "top_k": 3}));
    assert_eq!((status, &similar["version"], &similar["tower"]), (200, &json!(1), &json!("ad")));
    let (items, cosines) = (similar["items"].as_array().unwrap(), numbers(&similar["cosine"]));
    assert_eq!((items.len(), cosines.len()), (3, 3));
    assert!(!items.contains(item) && cosines.is_sorted_by(|a, b| a >= b), "{similar}");
    // It is mutual.
    let (_, back) = ask(json!({"item": items[0], "top_k": 1000}));
    let at = back["items"].as_array().unwrap().iter().position(|other| other == item).unwrap();
    assert!((numbers(&back["cosine"])[at] - cosines[0]).abs() < 1e-6, "{back}");
    let (status, problem) = ask(json!({"item": "nothing"}));
    assert_eq!((status, &problem["title"]), (400, &json!("Bad Request")), "{problem}");
}

/// The Open Inference Protocol, spoken by Triton's client, over HTTP and gRPC.
#[cfg(feature = "grpc")]
fn as_tensors(place: &Place, serving: &Serving, expected: &Value) {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = workspace.join("target/venv/bin/python3");
    let has = std::process::Command::new(&python)
        .args(["-c", "import tritonclient.grpc, tritonclient.http"])
        .output();
    if !has.is_ok_and(|has| has.status.success()) {
        eprintln!("skipped: no tritonclient[grpc,http] in target/venv");
        return;
    }
    let script = workspace.join("crates/cli/tests/it/triton.py");
    let address = serving.address.strip_prefix("http://").unwrap();
    let output = std::process::Command::new(python)
        .args([
            script.to_str().unwrap(),
            address,
            "tiny",
            place.path("page.json").to_str().unwrap(),
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Value = serde_json::from_slice(&output.stdout).unwrap();
    // In the order of the request there, best first here.
    let sorted = |answer: &Value| {
        let mut ctr = numbers(&answer["ctr"]);
        ctr.sort_by(|a, b| b.total_cmp(a));
        ctr.into_iter().map(|ctr| ctr as f32).collect::<Vec<_>>()
    };
    for answer in answers.as_array().unwrap() {
        assert_eq!(sorted(answer), sorted(expected));
    }
}

/// Whatever the description allows, and what it does not, made up by a program: no defect, and
/// answers as described.
fn anything(place: &Place, serving: &Serving) {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let program = workspace.join("target/venv/bin/schemathesis");
    if !program.exists() {
        eprintln!("skipped: no schemathesis in target/venv");
        return;
    }
    // Deadlines may pass, if a request asks for a short one; and what is made up may be large.
    let expected = r#"
        checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 504]
        checks.negative_data_rejection.expected-statuses = ["4xx", 504]
    "#;
    place.write("schemathesis.toml", expected);
    let output = std::process::Command::new(program)
        .args(["run", &format!("{}/openapi.json", serving.address), "--checks", "all"])
        // That columns have one length is more than a schema can say.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--phases", "coverage,fuzzing", "--max-examples", "20", "--seed", "1"])
        .args(["--generation-database", "none", "--request-timeout", "60"])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What does not fit is refused with words, and costs nobody else anything.
fn refusals(serving: &Serving, page: &Value) {
    let many = json!({"candidates": {"item": vec!["1"; 51]}}).to_string();
    let large = format!("{{\"candidates\": {}", " ".repeat(30_000));
    let deep = "[".repeat(10_000);
    let score = "/v1/models/tiny/score";
    let cases = [
        (score, "", 400, "EOF while parsing"),
        (score, "{\"candidates\": \u{0}}", 400, "line 1 column"),
        (score, &deep, 400, "line 1 column"),
        (score, r#"{"candidates": {"item": ["1"], "bid": [1, 2]}}"#, 400, "bid has 2 values"),
        (score, r#"{"candidates": {"item": ["1"]}, "context": {"huor": 1}}"#, 400, "`hour`"),
        (score, &many, 400, "51 items, expected up to 50"),
        (score, &large, 413, "20000 bytes"),
        ("/v1/models/tiny/prerank", &page.to_string(), 409, "only a pre-rank network"),
        ("/v1/models/tiny/page?keep=3", &page.to_string(), 400, "pre_rank"),
        ("/v1/models/tiny/page?pre_rank=tiny&keep=0", &page.to_string(), 400, "keep is 0"),
        ("/v1/models/tiny/page?pre_rank=other", &page.to_string(), 404, "no model \"other\""),
        ("/v1/models/other/score", &page.to_string(), 404, "known models: tiny"),
        ("/v1/models/..%2f..%2fetc/score", &page.to_string(), 404, "no model"),
        ("/v1/models/tiny/versions/7/score", &page.to_string(), 404, "loaded versions: 1"),
        ("/v1/models/tiny/versions/x/score", &page.to_string(), 404, "no whole number"),
        ("/v1/models/tiny", "", 405, "does not support the method"),
        ("/v3/nothing", "", 404, "no such path"),
    ];
    for (path, body, status, words) in cases {
        let (got, problem) = serving.post(path, body);
        assert_eq!(
            (got, &problem["status"]),
            (status, &json!(status)),
            "{path} {body:.60}: {problem}"
        );
        assert!(
            problem["detail"].as_str().unwrap().contains(words),
            "{path} {body:.60}: {problem}"
        );
    }
    let (status, error) = serving.post("/v2/models/tiny/infer", r#"{"inputs": [{}]}"#);
    assert_eq!(status, 400);
    assert!(error["error"].as_str().unwrap().contains("missing field `name`"), "{error}");
    // Every path of the description is there, and answers in a way it describes.
    let (_, described) = serving.get("/openapi.json");
    for (path, methods) in described["paths"].as_object().unwrap() {
        let at = path.replace("{model}", "tiny").replace("{version}", "1");
        let (method, operation) = methods.as_object().unwrap().iter().next().unwrap();
        let (status, answer) = match &method[..] {
            "get" => serving.get(&at),
            _ => serving.post(&at, &page.to_string()),
        };
        assert!(
            operation["responses"].get(status.to_string()).is_some(),
            "{path}: {status} {answer}"
        );
        assert_ne!(answer["detail"], "no such path", "{path}");
    }
    let form = serving.agent.post(format!("{}{score}", serving.address)).send_form([("a", "b")]);
    assert_eq!(
        form.unwrap().status().as_u16(),
        415,
        "what a page elsewhere can make a browser send"
    );
    // Half a head, half a body, no HTTP at all, and nothing: each is ended, the last three by the
    // clock.
    let half = format!("POST {score} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{");
    assert!(serving.raw(half.as_bytes()).starts_with("HTTP/1.1 408 "));
    assert!(serving.raw(b"\x16\x03\x01\x02\x00garbage\r\n\r\n").starts_with("HTTP/1.1 400 "));
    assert_eq!(serving.raw(b""), "");
    assert_eq!(serving.raw(b"PRI * HT"), "");
    assert!(!serving.raw(b"GET /v1/models HTTP/1.1\r\nHo").contains("200 OK"));
    assert_eq!(serving.get("/health/live").0, 200);
}

#[test]
fn versions_swap_under_load_and_no_request_fails() {
    let (place, page) = published();
    place.json(&format!("{TRAIN} --set name=\"other\" --set seed=2"));
    place.json("publish runs/other --to elsewhere --name tiny");
    place.write("page.json", page.to_string());
    let first = place.json("score --model models/tiny --request page.json")["ctr"].clone();
    let other = place.json("score --model elsewhere/tiny --request page.json")["ctr"].clone();
    assert_ne!(first, other);
    let serving = Serving::new(&place, "--poll 0.02 --deadline-ms 60000");
    let (done, asked, highest) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (status, scored) = serving.score(&page);
                    assert_eq!(status, 200, "{scored}");
                    let version = scored["version"].as_u64().unwrap();
                    // Odd versions are the first model, even ones the other: an answer is of one of
                    // them.
                    let expected = if version % 2 == 1 { &first } else { &other };
                    assert_eq!(&scored["ctr"], expected, "version {version}");
                    asked.fetch_add(1, Ordering::Relaxed);
                    highest.fetch_max(version as usize, Ordering::Relaxed);
                }
            });
        }
        for version in 2..=101 {
            let from = if version % 2 == 1 { "models/tiny/1" } else { "elsewhere/tiny/1" };
            appear(&place, from, version);
            if version % 5 == 0 {
                // A publisher that was killed leaves this, and a disk that lies this.
                place.copy(from, &format!("models/tiny/.{}.building", version + 1000));
                place.write(&format!("models/tiny/{}/ids.safetensors", version + 1000), "half");
            }
            serving.until("swapped", || serving.state()["live"] == json!(version));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(highest.into_inner(), 101);
    assert!(asked.into_inner() > 60);
    let state = serving.state();
    assert_eq!((&state["loaded"], &state["refused"]), (&json!([100, 101]), &json!({})), "{state}");
}

#[test]
fn a_bad_version_is_refused_and_the_good_one_serves_on() {
    let (place, page) = published();
    let serving = Serving::new(&place, "--explicit --keep 2 --deadline-ms 60000");
    appear(&place, "models/tiny/1", 2);
    appear(&place, "models/tiny/1", 3);
    let mut ids = place.read("models/tiny/3/ids.safetensors");
    let middle = ids.len() / 2;
    ids[middle] ^= 1;
    place.write("models/tiny/3/ids.safetensors", &ids);
    let live = || serving.score(&page).1["version"].clone();

    let (status, problem) = serving.tell("/admin/models/tiny/versions/3/activate");
    assert_eq!(status, 409, "{problem}");
    let state = serving.state();
    let why = state["refused"]["3"].as_str().unwrap();
    assert!(why.contains("ids.safetensors: blake3 is "), "{why}");
    assert!(serving.metrics().contains(r#"ams_versions_refused_total{model="tiny"} 1"#));
    assert_eq!(live(), 1, "nothing is taken before it is told");

    // From the highest down: the corrupt one leaves the next best.
    assert_eq!(serving.tell("/admin/poll").1["live"], 2);
    assert_eq!(live(), 2);
    assert_eq!(serving.tell("/admin/models/tiny/rollback").1["withdrawn"], json!([2]));
    assert_eq!(serving.tell("/admin/poll").1["live"], 1, "what was taken back stays back");
    assert_eq!(serving.tell("/admin/models/tiny/rollback").0, 409);

    // All of the users, half of them by who they are, and none.
    let user =
        |name: usize| json!({"user": {"id": format!("u{name}")}, "candidates": {"item": ["1"]}});
    let sees = |name| serving.score(&user(name)).1["version"].clone();
    let canary =
        |percent| serving.tell(&format!("/admin/models/tiny/versions/2/canary?percent={percent}"));
    assert_eq!(canary(50).1["canary"], json!([2, 50]));
    let share = (0..200).filter(|&name| sees(name) == 2).count();
    assert!((60..140).contains(&share), "{share} of 200");
    assert!((0..20).all(|name| sees(name) == sees(name)));
    assert_eq!(canary(101).0, 409);
    assert_eq!(canary(0).1["canary"], Value::Null);
    assert_eq!(sees(1), 1);

    // Repaired, it is as good as any.
    ids[middle] ^= 1;
    place.write("models/tiny/3/ids.safetensors", &ids);
    assert_eq!(serving.tell("/admin/models/tiny/versions/3/activate").1["live"], 3);
    assert_eq!((live(), &serving.state()["refused"]), (json!(3), &json!({})));
}

#[test]
fn tokens_and_overload() {
    let (place, page) = published();
    place.write("tokens", "scoring-token-0123456789\n");
    place.write("admin-tokens", "watching-token-0123456789\n");
    place.refuses("serve models --token-file absent", &["absent: No such file"]);
    place.refuses("serve nowhere", &["nowhere: No such file"]);
    let arguments = "--token-file tokens --admin-token-file admin-tokens --threads 1 --queue 1 --deadline-ms 60000";
    let serving = Serving::new(&place, arguments);
    let with = |url: String, token: Option<&str>| {
        let mut request = serving.agent.post(url).content_type("application/json");
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.send(page.to_string()).unwrap()
    };
    let score = || format!("{}/v1/models/tiny/score", serving.address);
    let poll = || format!("{}/admin/poll", serving.admin);
    let (scoring, watching) = ("scoring-token-0123456789", "watching-token-0123456789");
    let status = |url, token| with(url, token).status().as_u16();
    for (url, token, expected) in [
        (score(), None, 401),
        (score(), Some(watching), 401),
        (score(), Some("wrong"), 401),
        (score(), Some(scoring), 200),
        (poll(), None, 401),
        (poll(), Some(scoring), 401),
        (poll(), Some(watching), 200),
    ] {
        assert_eq!(status(url.clone(), token), expected, "{url} {token:?}");
    }
    // Far more at once than one thread and one place in the queue: all are answered, one way or the
    // other.
    let (served, shed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let response = with(score(), Some(scoring));
                    match response.status().as_u16() {
                        200 => served.fetch_add(1, Ordering::Relaxed),
                        503 => {
                            assert_eq!(response.headers()["Retry-After"], "1");
                            shed.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    assert_eq!(served.load(Ordering::Relaxed) + shed.load(Ordering::Relaxed), 240);
    assert!(served.into_inner() > 0);
    #[cfg(feature = "grpc")]
    grpc::tokens_and_overload(&serving, &page, scoring);
}
