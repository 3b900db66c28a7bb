//! Spans as a collector of OpenTelemetry gets them: a whole server, and a receiver that reads
//! protocol buffers by OTLP's numbers of fields.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use crate::network::{Running, asked, patient, rest, until};

/// A field of a message: its number, and a number or bytes.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn number(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return value;
        }
    }
    unreachable!()
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = number(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(number(&mut bytes)),
            1 => {
                let (eight, rest) = bytes.split_at(8);
                bytes = rest;
                Field::Number(u64::from_le_bytes(eight.try_into().unwrap()))
            }
            2 => {
                let length = number(&mut bytes) as usize;
                let (these, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(these)
            }
            5 => {
                bytes = &bytes[4..];
                continue;
            }
            other => panic!("wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn messages(bytes: &[u8], wanted: u64) -> Vec<&[u8]> {
    let all = fields(bytes).into_iter();
    all.filter_map(|field| match field {
        (at, Field::Bytes(bytes)) if at == wanted => Some(bytes),
        _ => None,
    })
    .collect()
}

fn bytes(message: &[u8], wanted: u64) -> &[u8] {
    messages(message, wanted).first().copied().unwrap_or_default()
}

fn numbers(message: &[u8], wanted: u64) -> Option<u64> {
    fields(message).into_iter().find_map(|field| match field {
        (at, Field::Number(value)) if at == wanted => Some(value),
        _ => None,
    })
}

fn text(message: &[u8], wanted: u64) -> String {
    String::from_utf8(bytes(message, wanted).to_vec()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Key and value of attributes: texts as they are, numbers in digits.
fn attributes(message: &[u8], wanted: u64) -> BTreeMap<String, String> {
    let all = messages(message, wanted).into_iter().map(|pair| {
        let value = bytes(pair, 2);
        let value = match numbers(value, 3) {
            Some(number) => number.to_string(),
            None => text(value, 1),
        };
        (text(pair, 1), value)
    });
    all.collect()
}

struct Received {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    times: (u64, u64),
    attributes: BTreeMap<String, String>,
    /// 0, or 2 for an error.
    status: u64,
    service: String,
}

fn received(body: &[u8]) -> Vec<Received> {
    let mut all = Vec::new();
    for of_resource in messages(body, 1) {
        let service = attributes(bytes(of_resource, 1), 1).remove("service.name").unwrap();
        let scopes = messages(of_resource, 2).into_iter();
        all.extend(scopes.flat_map(|scope| messages(scope, 2)).map(|span| Received {
            trace: hex(bytes(span, 1)),
            id: hex(bytes(span, 2)),
            parent: hex(bytes(span, 4)),
            name: text(span, 5),
            kind: numbers(span, 6).unwrap(),
            times: (numbers(span, 7).unwrap(), numbers(span, 8).unwrap()),
            attributes: attributes(span, 9),
            status: numbers(bytes(span, 15), 3).unwrap_or(0),
            service: service.clone(),
        }));
    }
    all
}

/// Somebody who takes what is sent, and hands its head and its body on.
fn collector() -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (give, take) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut came, mut part) = (stream.unwrap(), Vec::new(), [0; 4096]);
            let (head, body) = loop {
                let read = stream.read(&mut part).unwrap();
                came.extend_from_slice(&part[..read]);
                let Some(end) = came.windows(4).position(|four| four == b"\r\n\r\n") else {
                    continue;
                };
                let head = String::from_utf8_lossy(&came[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if came.len() == end + 4 + length.unwrap().parse::<usize>().unwrap() {
                    break (head, came[end + 4..].to_vec());
                }
            };
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .unwrap();
            give.send((head, body)).unwrap();
        }
    });
    (address, take)
}

const PATH: &str = "/v1/models/shop/score";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "b7ad6b7169203331";

fn ask(running: &Running, context: &str) -> String {
    let headers = [&format!("traceparent: {context}")[..], "X-Request-Id: of-the-test"];
    let body = "no page view";
    rest(&mut asked(running.address, &format!("POST {PATH}"), &headers, body))
}

#[test]
fn a_collector_gets_the_spans_of_requests() {
    let (address, bodies) = collector();
    let mut running = Running::with(patient(), |settings, _| {
        settings.otlp = Some(format!("http://{address}/v1/traces"));
    });
    let said = ask(&running, &format!("00-{TRACE}-{SENDER}-01"));
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    let context = said.lines().find_map(|line| line.strip_prefix("traceparent: ")).unwrap();
    // Whoever asks decides whether a trace is recorded; probes have none.
    ask(&running, &format!("00-{}-{SENDER}-00", TRACE.replace('0', "1")));
    rest(&mut asked(running.address, "GET /health/live", &[], ""));
    rest(&mut asked(running.admin, "GET /metrics", &[], ""));
    running.server.take().unwrap().stop();
    let mut spans = Vec::new();
    while let Ok((head, body)) = bodies.try_recv() {
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        spans.extend(received(&body));
    }
    let names: Vec<&str> = spans.iter().map(|span| &span.name[..]).collect();
    let route = "POST /v1/models/{model}/score";
    assert_eq!(names, ["queue", "compute", route, "GET /metrics"]);
    let [queue, compute, request, metrics] = &spans[..] else { unreachable!() };
    assert_eq!((&request.trace[..], &request.parent[..], request.kind), (TRACE, SENDER, 2));
    assert_eq!(context.trim(), format!("00-{TRACE}-{}-01", request.id));
    assert_eq!(request.service, "ams-serve");
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v1/models/{model}/score"),
        ("url.path", PATH),
        ("http.response.status_code", "400"),
        ("ams.request_id", "of-the-test"),
    ] {
        assert_eq!(request.attributes.get(key).map(|it| &it[..]), Some(value), "{key}");
    }
    assert_eq!(request.status, 0, "what a client got wrong is no error of the server");
    for part in [queue, compute] {
        assert_eq!((&part.trace, &part.parent, part.kind), (&request.trace, &request.id, 1));
        assert!(part.times.0 >= request.times.0 && part.times.1 <= request.times.1);
    }
    assert!(queue.times.1 <= compute.times.0 && compute.times.0 <= compute.times.1);
    assert!(metrics.parent.is_empty() && metrics.trace != TRACE && metrics.trace.len() == 32);
}

#[test]
fn a_collector_that_is_not_there_costs_spans_and_no_request() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let running = Running::with(patient(), |settings, _| {
        settings.otlp = Some(format!("http://{closed}/v1/traces"));
    });
    assert!(ask(&running, "none").starts_with("HTTP/1.1 400 "));
    until("lost", || running.counted("ams_spans_lost_total ") >= 3.0);
}

#[test]
fn a_collector_has_an_address_of_http() {
    let telemetry = crate::telemetry::Telemetry::new();
    let refused =
        crate::spans::Spans::start("https://collector/v1/traces", &telemetry).unwrap_err();
    assert!(
        refused.contains("--otlp-endpoint https://collector/v1/traces: expected http://"),
        "{refused}"
    );
}
