//! The server's ports as clients meet them that are slow, silent, many or bad: a whole server in
//! this process, real sockets, and no model.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::settings::{Control, Limits, Settings};
use crate::{Cors, Server, Tokens, start};

const LONG: Duration = Duration::from_secs(3600);

/// A server that runs until it is dropped, and its folder.
pub(crate) struct Running {
    pub server: Option<Server>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    folder: tempfile::TempDir,
}

/// Settings under which nothing ends by itself.
pub(crate) fn patient() -> Limits {
    Limits {
        idle_timeout: LONG,
        write_timeout: LONG,
        body_timeout: LONG,
        deadline: LONG,
        lame_duck: Duration::ZERO,
        ..Limits::default()
    }
}

impl Running {
    fn new(limits: Limits) -> Running {
        Running::with(limits, |_, _| {})
    }

    pub(crate) fn with(
        limits: Limits,
        change: impl FnOnce(&mut Settings, &tempfile::TempDir),
    ) -> Running {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        let mut settings = Settings {
            control: Control::Explicit(Duration::from_secs(60)),
            threads: 1,
            limits,
            bench_endpoint: true,
            ..Settings::new(folder.path().join("models"))
        };
        change(&mut settings, &folder);
        let server = start(&settings).unwrap();
        let (address, admin) = (server.address, server.admin_address);
        Running { server: Some(server), address, admin, folder }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// What is answered to these bytes, until the server closes.
    fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes.as_ref()).unwrap();
        rest(&mut stream)
    }

    /// The value of a line of the metrics.
    pub(crate) fn counted(&self, name: &str) -> f64 {
        let text = rest(&mut asked(self.admin, "GET /metrics", &[], ""));
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
    }

    fn is_alive(&self) -> bool {
        rest(&mut asked(self.address, "GET /health/live", &[], "")).starts_with("HTTP/1.1 200 ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// A request that is sent, the last one of its connection.
pub(crate) fn asked(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> TcpStream {
    let mut stream = connect(address);
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let text = format!("{head}Content-Length: {length}\r\n{headers}\r\n{body}");
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// What comes until the other side closes, in whatever way.
pub(crate) fn rest(stream: &mut TcpStream) -> String {
    let mut said = Vec::new();
    if let Err(error) = stream.read_to_end(&mut said) {
        assert!(error.kind() == ErrorKind::ConnectionReset, "{error}, after {said:?}");
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Waits for what comes sooner or later.
pub(crate) fn until(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "not {what} after a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const NOTHING: &str = "POST /v1/nothing HTTP/1.1\r\nHost: x\r\n";

#[test]
fn bodies_are_refused_for_what_they_are() {
    let limits = Limits { body_bytes: 1000, body_timeout: Duration::from_millis(200), ..patient() };
    let running = Running::new(limits);
    let chunks = |chunks: &str| {
        format!("{NOTHING}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
    };
    let chunk = format!("100\r\n{}\r\n", "x".repeat(0x100));
    let length =
        |length: u64| format!("{NOTHING}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    for (sent, status, words) in [
        (chunks(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(1000))), 200, "\"bytes\":1000"),
        (chunks(&format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(1001))), 413, "more than 1000 bytes"),
        (chunks(&chunk.repeat(4)), 413, "it may have 1000 bytes"),
        (chunks("zz\r\nxx\r\n"), 400, "the body: "),
        (chunks("ffffffffffffffffffff\r\nx"), 400, "the body: "),
        (chunks(&chunk), 408, "not whole within 200 ms"),
        (format!("{}x", length(1000)), 408, "not whole within 200 ms"),
        // At once, though nothing of it comes.
        (length(1001), 413, "the body has 1001 bytes"),
        (length(u64::MAX / 2), 413, "it may have 1000 bytes"),
    ] {
        let said = running.raw(&sent);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:.150}: {said}");
        assert!(said.contains(words), "{sent:.150}: {said}");
    }
    // Who waits before it sends is told not to.
    let waits = format!("{NOTHING}Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n");
    assert!(running.raw(waits).starts_with("HTTP/1.1 413 "));
}

#[test]
fn bodies_together_have_so_much_memory() {
    let limits = Limits { body_bytes: 1 << 20, request_memory: 2 << 20, ..patient() };
    let running = Running::new(limits);
    let last = (1 << 20) - 1;
    let most = format!("{NOTHING}Content-Length: 1048576\r\n\r\n{}", "x".repeat(last));
    let mut slow: Vec<TcpStream> = Vec::new();
    for count in 1..=2 {
        let mut stream = running.connect();
        stream.write_all(most.as_bytes()).unwrap();
        slow.push(stream);
        let held = (count * last) as f64;
        until("held", || running.counted("ams_request_memory_bytes ") >= held);
    }
    let whole = "x".repeat(1 << 20);
    let said = rest(&mut asked(running.address, "POST /v1/nothing", &[], &whole));
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{said}");
    assert!(said.contains("hold all of 2097152 bytes"), "{said}");
    assert_eq!(running.counted("ams_request_memory_refusals_total "), 1.0);
    drop(slow);
    until("given back", || running.counted("ams_request_memory_bytes ") == 0.0);
    let said = rest(&mut asked(running.address, "POST /v1/nothing", &[], &whole));
    assert!(said.contains("\"bytes\":1048576"), "{said}");
}

#[test]
fn silent_connections_keep_nobody_out() {
    let running = Running::new(Limits { connections: 8, ..patient() });
    // One is at work: a body that does not end.
    let mut busy = running.connect();
    busy.write_all(format!("{NOTHING}Content-Length: 2\r\n\r\nx").as_bytes()).unwrap();
    until("at work", || running.counted("ams_request_memory_bytes ") > 0.0);
    let mut silent: Vec<TcpStream> = (0..50).map(|_| running.connect()).collect();
    for stream in &mut silent[..10] {
        let _ = stream.write_all(b"GET /health/live HTTP/1.1\r\nHo");
    }
    assert!(running.is_alive());
    // The longest idle ones went; the one at work is answered.
    for stream in &mut silent[..40] {
        assert_eq!(rest(stream), "");
    }
    assert!(running.counted("ams_connections_dropped_total ") >= 43.0);
    busy.write_all(b"y").unwrap();
    let mut said = [0; 15];
    busy.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 200 OK");
}

#[test]
fn idle_connections_end() {
    let limits = Limits { idle_timeout: Duration::from_millis(300), ..patient() };
    let running = Running::new(limits);
    // One that says nothing, one that says half, and one that has been answered.
    let begin = Instant::now();
    assert_eq!(running.raw(""), "");
    assert_eq!(running.raw("GET /health/live HTTP/1.1\r\nHo"), "");
    let said = running.raw("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(said.ends_with("alive\n"), "{said}");
    assert!(begin.elapsed() >= Duration::from_millis(900));
    assert!(running.counted("ams_connections_timed_out_total{reason=\"idle\"}") >= 3.0);
    // A request that takes longer than that is no idleness.
    let mut slow = running.connect();
    slow.write_all(format!("{NOTHING}Content-Length: 1\r\n\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    slow.write_all(b"x").unwrap();
    let said = rest(&mut slow);
    assert!(said.contains("\"bytes\":1"), "{said}");
}

#[test]
fn an_address_may_have_so_many() {
    let running = Running::new(Limits { connections_per_address: 3, ..patient() });
    let mut streams: Vec<TcpStream> = (0..4).map(|_| running.connect()).collect();
    assert_eq!(rest(&mut streams[3]), "");
    assert_eq!(running.counted("ams_connections_refused_total "), 1.0);
    streams.clear();
    until("let in", || running.is_alive());
}

#[test]
fn who_reads_nothing_loses_the_connection() {
    let limits = Limits { write_timeout: Duration::from_millis(300), ..patient() };
    let running = Running::new(limits);
    let mut stream = running.connect();
    // Answers that nobody takes, until the operating system holds all it can.
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let begin = Instant::now();
    let refused = loop {
        match stream.write_all(ask.as_bytes()) {
            Ok(()) => assert!(begin.elapsed() < Duration::from_secs(60), "it takes everything"),
            Err(error) => break error,
        }
    };
    assert!(
        [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&refused.kind()),
        "{refused}"
    );
    assert_eq!(running.counted("ams_connections_timed_out_total{reason=\"write\"}"), 1.0);
    assert!(running.is_alive());
}

#[test]
fn the_end_answers_what_came_and_cuts_nothing() {
    let mut running = Running::new(patient());
    let (mut working, mut idle, mut fresh) =
        (running.connect(), running.connect(), running.connect());
    idle.write_all(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut begun = [0; 12];
    idle.read_exact(&mut begun).unwrap();
    working.write_all(format!("{NOTHING}Content-Length: 2\r\n\r\nx").as_bytes()).unwrap();
    until("at work", || running.counted("ams_request_memory_bytes ") > 0.0);
    let server = running.server.take().unwrap();
    let stopping = std::thread::spawn(|| server.stop());
    rest(&mut idle);
    // Who was let in and has said nothing yet may still ask.
    fresh.write_all(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let said = rest(&mut fresh);
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("connection: close"), "{said}");
    working.write_all(b"y").unwrap();
    let said = rest(&mut working);
    assert!(said.contains("\"bytes\":2") && said.contains("connection: close"), "{said}");
    assert_eq!(stopping.join().unwrap(), 0);
    assert!(TcpStream::connect(running.address).is_err());
}

#[test]
fn what_takes_too_long_is_cut_and_counted() {
    let limits = Limits { shutdown_grace: Duration::from_millis(300), ..patient() };
    let mut running = Running::new(limits);
    let mut working = running.connect();
    working.write_all(format!("{NOTHING}Content-Length: 2\r\n\r\nx").as_bytes()).unwrap();
    until("at work", || running.counted("ams_request_memory_bytes ") > 0.0);
    assert_eq!(running.server.take().unwrap().stop(), 1);
    assert_eq!(rest(&mut working), "");
}

/// Which is served when, a rollout's test says.
#[test]
fn an_address_is_shared_if_both_say_so() {
    let first = Running::with(patient(), |settings, _| settings.reuse_port = true);
    let second = Running::with(patient(), |settings, _| {
        settings.reuse_port = true;
        settings.address = first.address;
    });
    assert_eq!(first.address, second.address);
    let refused = TcpStream::connect(first.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "neither has a model");
}

#[test]
fn pages_of_others_change_nothing() {
    let running = Running::with(patient(), |settings, _| {
        settings.admin_hosts = vec!["ams-admin".to_owned()];
    });
    let status = |line: &str, headers: &[&str]| {
        let said = rest(&mut asked(running.admin, line, headers, ""));
        said.split(' ').nth(1).unwrap_or_default().parse::<u16>().unwrap()
    };
    let (poll, models) = ("POST /admin/poll", "GET /admin/models");
    for (line, headers, expected) in [
        (poll, &[][..], 415),
        (poll, &["Content-Type: application/json"], 200),
        (poll, &["X-Ams-Admin: 1"], 200),
        (poll, &["X-Ams-Admin: 1", "Origin: http://shop.example"], 403),
        (poll, &["X-Ams-Admin: 1", "Sec-Fetch-Site: cross-site"], 403),
        (models, &[], 200),
        (models, &["Origin: null"], 403),
        ("GET /metrics", &["Sec-Fetch-Site: same-site"], 403),
        ("GET /health/live", &["Sec-Fetch-Site: same-site"], 200),
    ] {
        assert_eq!(status(line, headers), expected, "{line} {headers:?}");
    }
    let host = |host: &str| {
        let mut stream = connect(running.admin);
        let text = format!("{models} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        rest(&mut stream)
    };
    assert!(host("ams-admin:8601").starts_with("HTTP/1.1 200 "));
    let said = host("rebound.example:8601");
    assert!(said.starts_with("HTTP/1.1 403 ") && said.contains("--admin-host"), "{said}");
}

#[test]
fn pages_that_are_named_may_ask() {
    let origins = ["https://shop.example".to_owned()];
    let running = Running::with(patient(), |settings, folder| {
        settings.cors = Cors::new(&origins).unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, "a-token-0123456789").unwrap();
        settings.tokens = Tokens::read(&file).unwrap();
    });
    let said = |line: &str, headers: &[&str]| {
        rest(&mut asked(running.address, line, headers, "")).to_ascii_lowercase()
    };
    let shop = "Origin: https://shop.example";
    let before = ["Access-Control-Request-Method: POST", shop];
    let preflight = said("OPTIONS /v1/models/shop/score", &before);
    assert!(preflight.starts_with("http/1.1 204 "), "{preflight}");
    assert!(preflight.contains("access-control-allow-headers: authorization, content-type"));
    // An answer that is none may be read too.
    for (line, status) in [("GET /health/live", 200), ("GET /v1/models", 401)] {
        let answer = said(line, &[shop]);
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
        assert!(
            answer.contains("access-control-allow-origin: https://shop.example\r\n"),
            "{answer}"
        );
        assert!(answer.contains("vary: origin\r\n"), "{answer}");
        let other = said(line, &["Origin: https://other.example"]);
        assert!(!other.contains("access-control"), "{other}");
    }
    let all = Running::with(patient(), |settings, _| {
        settings.cors = Cors::new(&["*".to_owned()]).unwrap();
    });
    let answer = rest(&mut asked(all.address, "GET /v1/models", &[shop], ""));
    assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
}

#[test]
fn problems_below_v2_are_spelled_as_there() {
    let running = Running::new(patient());
    for (line, status) in [
        ("GET /v2/nothing", 404),
        ("GET /v2/models/a/versions/01", 404),
        ("GET /v2/models/a/infer", 405),
        ("GET /v2/models/%ff", 404),
        ("GET /v2/health/ready", 503),
        ("POST /v2/models/a/infer", 503),
    ] {
        let said = rest(&mut asked(running.address, line, &[], "{\"inputs\": []}"));
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{line}: {said}");
        assert!(said.contains("\r\n\r\n{\"error\":\""), "{line}: {said}");
    }
    let index = |body| rest(&mut asked(running.address, "POST /v2/repository/index", &[], body));
    for body in ["", "{}", "{\"ready\": true, \"repository_name\": \"x\"}"] {
        let said = index(body);
        assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\n[]"), "{said}");
    }
    assert!(index("{\"ready\": 1}").starts_with("HTTP/1.1 400 "));
}

#[test]
fn tokens_are_read_again() {
    let running = Running::with(patient(), |settings, folder| {
        let file = folder.path().join("tokens");
        std::fs::write(&file, "first-token-0123456789").unwrap();
        settings.tokens = Tokens::read(&file).unwrap();
    });
    let is_valid = |token: &str| {
        let header = format!("authorization: bearer {token}-token-0123456789");
        rest(&mut asked(running.address, "GET /v1/models", &[&header], ""))
            .starts_with("HTTP/1.1 200 ")
    };
    assert!(is_valid("first") && !is_valid("second"));
    let file = running.folder.path().join("tokens");
    std::fs::write(&file, "short").unwrap();
    until("refused", || running.counted("ams_reload_failures_total ") == 1.0);
    assert!(is_valid("first"));
    std::fs::write(&file, "second-token-0123456789").unwrap();
    until("taken up", || is_valid("second"));
    assert!(!is_valid("first"));
}

/// A client of HTTP/2 that answers pings, and whether its connection has ended.
struct Two {
    runtime: tokio::runtime::Runtime,
    sender: hyper::client::conn::http2::SendRequest<axum::body::Body>,
    ended: tokio::task::JoinHandle<()>,
}

impl Two {
    /// With a window of so many bytes for each answer.
    fn new(running: &Running, window: u32) -> Two {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (sender, ended) = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(running.address).await.unwrap();
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(window);
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
            let ended = tokio::spawn(async {
                let _ = connection.await;
            });
            (sender, ended)
        });
        Two { runtime, sender, ended }
    }

    /// The head of an answer; its body is on its way.
    fn ask(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &'static [u8],
    ) -> Result<hyper::Response<hyper::body::Incoming>, hyper::Error> {
        let request = hyper::Request::builder().method(method).uri(format!("http://x{path}"));
        let request = request.header("content-type", kind).body(body.into()).unwrap();
        self.runtime.block_on(async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
    }

    fn until_ended(&mut self) {
        let Two { runtime, ended, .. } = self;
        let ended =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), ended).await });
        ended.expect("it ends within a minute").unwrap();
    }
}

#[test]
fn pings_are_no_work() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(400),
        client_timeout: Duration::from_millis(100),
        ..patient()
    };
    let running = Running::new(limits);
    let mut client = Two::new(&running, 1 << 16);
    assert_eq!(client.ask("GET", "/health/live", "", b"").unwrap().status(), 200);
    client.until_ended();
    assert_eq!(running.counted("ams_connections_timed_out_total{reason=\"idle\"}"), 1.0);
}

/// It reads all that comes, so that nothing is stuck in the socket, and lets answers have no byte.
#[test]
fn an_answer_that_is_let_in_by_no_byte_ends_the_connection() {
    let running = Running::new(Limits { write_timeout: Duration::from_millis(300), ..patient() });
    let mut client = Two::new(&running, 0);
    let answer = client.ask("GET", "/openapi.json", "", b"").unwrap();
    assert_eq!(answer.status(), 200);
    client.until_ended();
    assert_eq!(running.counted("ams_connections_timed_out_total{reason=\"write\"}"), 1.0);
}

#[test]
fn http_2_is_told_of_the_end() {
    let mut running = Running::new(patient());
    let mut client = Two::new(&running, 1 << 16);
    assert_eq!(client.ask("GET", "/health/live", "", b"").unwrap().status(), 200);
    assert_eq!(running.server.take().unwrap().stop(), 0);
    client.until_ended();
    assert!(client.ask("GET", "/health/live", "", b"").is_err());
}

#[cfg(feature = "grpc")]
#[test]
fn calls_without_a_token_are_small_and_watches_make_room() {
    let limits = Limits { idle_timeout: Duration::from_millis(300), connections: 2, ..patient() };
    let running = Running::new(limits);
    let mut client = Two::new(&running, 1 << 16);
    let health = "/grpc.health.v1.Health";
    let mut status = |method: &str, body: &'static [u8]| {
        let path = format!("{health}/{method}");
        let answer = client.ask("POST", &path, "application/grpc", body).unwrap();
        answer.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
    };
    // Trailers say that all is well; what is refused says so in its head.
    assert_eq!(status("Check", &[0; 5]), None);
    assert_eq!(status("List", &[0; 5]), None);
    for method in ["Check", "List", "Watch"] {
        assert_eq!(status(method, &[0; 5000]).as_deref(), Some("8"), "RESOURCE_EXHAUSTED");
    }
    let watch = client.ask("POST", &format!("{health}/Watch"), "application/grpc", &[0; 5]);
    let watch = watch.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(!client.ended.is_finished(), "who watches is not idle");
    // Two silent ones, and there is no room for the watch.
    let _silent = [running.connect(), running.connect()];
    client.until_ended();
    drop(watch);
}
