//! Settings of a server from the command line, the environment and a file: which of them counts,
//! and what is said of a bad one.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::place::Place;
use crate::serve::{agent, published};

/// The limits that a server says it has.
fn limits(place: &Place, arguments: &str, variables: &[(&str, &str)]) -> [f64; 4] {
    let mut command = place.command(&format!("serve --json {arguments}"));
    for (name, value) in
        [("BIND", "127.0.0.1:0"), ("ADMIN_BIND", "127.0.0.1:0")].iter().chain(variables)
    {
        command.env(format!("AMS_SERVE_{name}"), value);
    }
    let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let open: Value =
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{arguments}: {line:?}"));
    let url = format!("http://{}/metrics", open["admin_address"].as_str().unwrap());
    let metrics = agent().get(url).call().unwrap().into_body().read_to_string().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let of = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{metrics}")).parse().unwrap()
    };
    [
        "ams_limit_candidates",
        "ams_limit_waiting_requests",
        "ams_limit_deadline_seconds",
        "ams_limit_body_bytes",
    ]
    .map(of)
}

#[test]
fn the_command_line_counts_before_the_environment_and_that_before_the_file() {
    let (place, _) = published();
    place.write(
        "serve.toml",
        "models = \"models\"\ncandidates = 11\nqueue = 12\ndeadline_ms = 13000\nbody-bytes = 14000\ndemo = true\n\
         pin = [\"tiny=1\"]\npoll = 0.5\n",
    );
    let file = "--config serve.toml";
    let environment = [("QUEUE", "22"), ("DEADLINE_MS", "23000")];
    for (arguments, variables, expected) in [
        ("models".to_owned(), &[][..], [10_000.0, 64.0, 1.0, f64::from(4 << 20)]),
        (file.to_owned(), &[], [11.0, 12.0, 13.0, 14_000.0]),
        (file.to_owned(), &environment, [11.0, 22.0, 23.0, 14_000.0]),
        (format!("{file} --deadline-ms 33000"), &environment, [11.0, 22.0, 33.0, 14_000.0]),
        (String::new(), &[("CONFIG", "serve.toml"), ("QUEUE", "9")], [11.0, 9.0, 13.0, 14_000.0]),
        // What Kubernetes sets for a service of that name, and what is set to nothing, is left
        // alone.
        (
            "models".to_owned(),
            &[
                ("PORT", "tcp://10.0.0.1:80"),
                ("QUEUE", ""),
                ("EXPLICIT", "yes"),
                ("PIN", "tiny=1, other=2"),
            ],
            [10_000.0, 64.0, 1.0, f64::from(4 << 20)],
        ),
        (
            "--queue 5 -- models".to_owned(),
            &[("CANDIDATES", "7")],
            [7.0, 5.0, 1.0, f64::from(4 << 20)],
        ),
    ] {
        assert_eq!(
            limits(&place, arguments.trim(), variables),
            expected,
            "{arguments} {variables:?}"
        );
    }
}

/// Variables of OpenTelemetry mean every program of a machine: a server that cannot follow them
/// starts all the same.
#[cfg(feature = "otel")]
#[test]
fn a_collector_that_is_not_understood_stops_no_server() {
    let place = Place::new();
    for (variables, is_said) in [
        (&[("ENDPOINT", "https://collector:4318")][..], true),
        (&[("TRACES_ENDPOINT", "grpc://collector:4317")], true),
        (&[("ENDPOINT", "http://collector:4317"), ("PROTOCOL", "grpc")], true),
        (&[("ENDPOINT", "http://collector:4318")], false),
        (&[("ENDPOINT", "http://collector:4318"), ("PROTOCOL", "http/protobuf")], false),
    ] {
        let mut command = place.command("serve absent");
        for (name, value) in variables {
            command.env(format!("OTEL_EXPORTER_OTLP_{name}"), value);
        }
        let said = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
        assert_eq!(said.contains("no spans are sent"), is_said, "{variables:?}: {said}");
        assert!(said.contains("absent"), "what ends it is its folder: {said}");
    }
    let flag = "serve absent --otlp-endpoint https://collector:4318";
    std::fs::create_dir(place.path("absent")).unwrap();
    place.refuses(flag, &["--otlp-endpoint https://collector:4318/v1/traces: expected http://"]);
}

#[test]
fn earlier_names_of_flags_are_accepted() {
    let (place, _) = published();
    place.write("old.toml", "patience = 2\nfarewell = 3\nqueue = 12\n");
    for (arguments, variables) in [
        ("models --patience 2 --farewell 3 --queue 12", &[][..]),
        ("models --client-timeout 2 --shutdown-grace 3 --queue 12", &[]),
        ("models --queue 12", &[("PATIENCE", "2"), ("FAREWELL", "3")]),
        ("models --queue 12", &[("CLIENT_TIMEOUT", "2"), ("SHUTDOWN_GRACE", "3")]),
        ("models --config old.toml", &[]),
    ] {
        assert_eq!(limits(&place, arguments, variables)[1], 12.0, "{arguments} {variables:?}");
    }
    let refused = "'0' for '--client-timeout";
    place.refuses("serve models --patience 0", &[refused]);
    let done = place.command("serve models").env("AMS_SERVE_PATIENCE", "0").output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(text.contains(refused) && text.contains("by AMS_SERVE_PATIENCE"), "{text}");
    let help = place.command("serve --help").output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("--shutdown-grace") && !help.contains("farewell"), "{help}");
}

#[test]
fn what_is_wrong_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.path("m")).unwrap();
    for (file, words) in [
        ("thread = 1", "f.toml: unknown key `thread`; did you mean `threads`?"),
        ("[limits]\nqueue = 1", "f.toml: unknown key `limits`"),
        ("queue = 1979-05-27", "f.toml: queue is 1979-05-27, expected"),
        ("queue =", "f.toml: TOML parse error"),
        ("demo = 3", "f.toml: demo is 3, expected true or false"),
        ("queue = \"many\"", "invalid value 'many' for '--queue"),
        ("page-threads = 1025", "'1025' for '--page-threads <N>': expected 1 to 1024"),
        ("json = true", "f.toml: unknown key `json`"),
    ] {
        place.write("f.toml", file);
        place.refuses("serve m --config f.toml", &[words]);
    }
    place.write("f.toml", "queue = 0");
    place.refuses("serve m --config f.toml", &["'0' for '--queue", "set: queue by f.toml"]);
    place.refuses("serve m --config absent.toml", &["absent.toml: "]);
    for (name, value, words) in [
        ("AMS_SERVE_DEMO", "maybe", "AMS_SERVE_DEMO is maybe, expected true or false"),
        ("AMS_SERVE_QUEUE", "many", "set: queue by AMS_SERVE_QUEUE"),
        ("AMS_SERVE_LOG_LEVEL", "loud=very", "--log-level is \"loud=very\""),
        ("RUST_LOG", "loud=very", "RUST_LOG is \"loud=very\""),
    ] {
        let done = place.command("serve m").env(name, value).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(1) && said.contains(words), "{name}: {said}");
    }
}
