//! How a server's process ends, is replaced, and is told things by signals: real processes under
//! load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::serve::{Serving, agent, published};

/// A request that is being answered as long as its body does not end.
fn working(serving: &Serving) -> TcpStream {
    let mut stream = TcpStream::connect(serving.address.split("//").nth(1).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx";
    stream.write_all(head.as_bytes()).unwrap();
    serving.until("at work", || !serving.metrics().contains("ams_request_memory_bytes 0\n"));
    stream
}

/// What a balancer does: whoever is ready gets the request.
fn ask_who_is_ready(servers: &[String; 2], page: &Value, answered: &[AtomicUsize; 2]) {
    let agent = agent();
    let is_ready = |server: &&String| {
        let ready = agent.get(format!("{server}/health/ready")).call();
        ready.is_ok_and(|response| response.status() == 200)
    };
    let Some(at) = servers.iter().position(|server| is_ready(&server)) else {
        panic!("nobody is ready");
    };
    let url = format!("{}/v1/models/tiny/score", servers[at]);
    let request = agent.post(url).content_type("application/json");
    let status = request.send(page.to_string()).unwrap().status().as_u16();
    assert_eq!(status, 200, "of {}", servers[at]);
    answered[at].fetch_add(1, Ordering::Relaxed);
}

#[test]
fn no_request_is_lost_when_a_new_server_takes_over() {
    let (place, page) = published();
    let arguments = "--deadline-ms 60000 --lame-duck 8";
    let (old, new) = (Serving::new(&place, arguments), Serving::new(&place, arguments));
    let servers = [old.address.clone(), new.address.clone()];
    let (done, answered) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let count = |at: usize| answered[at].load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    ask_who_is_ready(&servers, &page, &answered);
                }
            });
        }
        new.until("asked", || count(0) > 20);
        assert_eq!(count(1), 0);
        assert_eq!(old.stop(), Some(0), "nothing was cut");
        let after = count(1);
        new.until("asked", || count(1) > after + 20);
        done.store(true, Ordering::Relaxed);
    });
}

/// Clients of one address, who know nothing of a new server: some keep their connection, some come
/// anew each time.
#[test]
fn no_request_is_lost_when_a_new_server_takes_the_same_address() {
    let (place, page) = published();
    let arguments = "--deadline-ms 60000 --lame-duck 2 --reuse-port";
    let old = Serving::new(&place, arguments);
    let (address, done) = (old.address.clone(), AtomicBool::new(false));
    let asked = AtomicUsize::new(0);
    let host = address.split("//").nth(1).unwrap();
    place.refuses(&format!("serve models --bind {host}"), &[host, "in use"]);
    let mut new = None;
    std::thread::scope(|scope| {
        for keeps in [true, true, false, false] {
            let (page, address, done, asked) = (&page, &address, &done, &asked);
            scope.spawn(move || {
                let kept = agent();
                while !done.load(Ordering::Relaxed) {
                    let agent = if keeps { kept.clone() } else { agent() };
                    let request = agent.post(format!("{address}/v1/models/tiny/score"));
                    let response = request.content_type("application/json").send(page.to_string());
                    assert_eq!(response.unwrap().status().as_u16(), 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let count = || asked.load(Ordering::Relaxed);
        old.until("asked", || count() > 40);
        let new = new.insert(Serving::new(&place, &format!("{arguments} --bind {host}")));
        assert_eq!(new.address, address);
        assert_eq!(old.stop(), Some(0), "nothing was cut");
        let before = count();
        new.until("asked", || count() > before + 40);
        assert!(new.metrics().contains("ams_page_views_total{"), "{}", new.metrics());
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (place, _) = published();
    let arguments = "--bench-endpoint --lame-duck 600 --shutdown-grace 600 --body-timeout 600 --deadline-ms 600000";
    for (works, code) in [(false, 0), (true, 1)] {
        let serving = Serving::new(&place, arguments);
        let request = works.then(|| working(&serving));
        serving.signal("TERM");
        serving.until("unready", || serving.get("/health/ready").0 == 503);
        assert_eq!(serving.get("/v1/models").0, 200, "it answers still");
        assert_eq!(serving.stop(), Some(code));
        let mut said = Vec::new();
        let cut = request.map(|mut request| request.read_to_end(&mut said));
        assert!(said.is_empty(), "{cut:?} {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_hang_up_has_tokens_read_again() {
    let (place, _) = published();
    place.write("tokens", "first-token-0123456789");
    let serving = Serving::new(&place, "--token-file tokens");
    let status = |token: &str| {
        let request = agent().get(format!("{}/v1/models", serving.address));
        let request = request.header("Authorization", format!("bearer {token}-token-0123456789"));
        request.call().unwrap().status().as_u16()
    };
    assert_eq!((status("first"), status("second")), (200, 401));
    place.write("tokens", "second-token-0123456789");
    serving.signal("HUP");
    serving.until("read", || status("second") == 200);
    assert_eq!(status("first"), 401);
    place.write("tokens", "short");
    serving.signal("HUP");
    serving.until("refused", || serving.metrics().contains("ams_reload_failures_total 1"));
    assert_eq!(status("second"), 200);
    assert_eq!(serving.stop(), Some(0));
}

/// Only as many connections as files may be open, which are as many as an administrator allows.
#[cfg(target_os = "linux")]
#[test]
fn files_may_be_open_as_far_as_is_allowed() {
    let (place, page) = published();
    let serving = Serving::with_files(&place, "--deadline-ms 60000", 40, 120);
    let id = serving.id();
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let files: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(files, ["120", "120"]);
    let address = serving.address.split("//").nth(1).unwrap();
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(serving.score(&page).0, 200);
    assert_eq!(serving.get("/health/live").0, 200);
    assert!(serving.metrics().contains("ams_accept_errors_total 0\n"), "{}", serving.metrics());
    drop(silent);
}

/// What clients without a token cost in memory, which goes back.
#[cfg(all(target_os = "linux", feature = "grpc"))]
#[test]
fn strangers_cost_little_memory() {
    use crate::grpc_client::flood;
    let (place, _) = published();
    place.write("tokens", "first-token-0123456789");
    let serving = Serving::new(&place, "--token-file tokens");
    let status = format!("/proc/{}/status", serving.id());
    let resident = || {
        let text = std::fs::read_to_string(&status).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    flood(&serving.address, 1);
    let before = resident();
    let (done, peak) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(resident() as usize, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        flood(&serving.address, 8);
        done.store(true, Ordering::Relaxed);
    });
    let peak = peak.into_inner() as u64;
    eprintln!("{before} MB, {peak} MB at most, {} MB at the end", resident());
    assert!(peak <= before + 64, "{before} MB, then {peak} MB");
    serving.until("given back", || resident() <= before + 8);
}
