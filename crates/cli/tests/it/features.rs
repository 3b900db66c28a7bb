//! What the program was built without: every way to it names the feature and how to get it.

use crate::place::Place;

#[test]
fn the_program_says_what_it_was_built_with() {
    let place = Place::new();
    let all = [
        ("buckets", cfg!(feature = "buckets")),
        ("grpc", cfg!(feature = "grpc")),
        ("mpi", cfg!(feature = "mpi")),
        ("onnx", cfg!(feature = "onnx")),
        ("otel", cfg!(feature = "otel")),
        ("tiff", cfg!(feature = "tiff")),
        ("tls", cfg!(feature = "tls")),
    ];
    let list = |there| {
        let names = all.iter().filter(|(_, has)| *has == there).map(|(name, _)| *name);
        let names = names.collect::<Vec<&str>>();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    };
    let lines = format!("built with:    {}\nbuilt without: {}\n", list(true), list(false));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(place.run("--version").out, format!("ams {version}\n{lines}"));
    assert_eq!(place.run("-V").out, format!("ams {version}\n"));
    assert!(place.run("doctor").out.ends_with(&lines));
    let with: Vec<&str> = all.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    assert_eq!(place.json("doctor")["features"], serde_json::json!(with));
}

/// A command that needs `feature` is refused, and says what to do.
#[cfg(not(all(feature = "buckets", feature = "onnx", feature = "tls")))]
fn needs(place: &Place, feature: &str, command: &str, what: &str) {
    let build = format!(
        "this program was built without {feature}; build it with `cargo build --release --features {feature}` (or \
         `full`)"
    );
    place.refuses(command, &[&format!("{what}: {build}")]);
}

#[test]
#[cfg(not(feature = "onnx"))]
fn a_network_needs_its_feature() {
    let place = Place::new();
    place.shop();
    place.prepared();
    let what = "--encoder net.onnx";
    needs(&place, "onnx", "encode data --images shop --encoder net.onnx", what);
    let other = "encode data --images shop --encoder net.onnx --output-node x --preprocess clip";
    needs(&place, "onnx", other, what);
    needs(&place, "onnx", "serve . --pictures --encoder net.onnx", what);
}

#[test]
#[cfg(not(feature = "buckets"))]
fn a_bucket_needs_its_feature() {
    let place = Place::new();
    place.shop();
    place.write("x.toml", "name = 'x'\n[data]\nsamples = 'gs://b/data'\n");
    for (command, what) in [
        ("prepare --events s3://b/e.parquet --items shop/items.csv --out data", "s3://b/e.parquet"),
        ("synth --out az://b/shop --size tiny", "az://b/shop"),
        ("train x.toml", "gs://b/data"),
        ("train shop.toml --set runs=s3://b/runs", "s3://b/runs/tiny"),
        ("score --model s3://b/models/m --sample 1", "s3://b/models/m"),
    ] {
        needs(&place, "buckets", command, what);
    }
}

#[test]
#[cfg(not(feature = "tls"))]
fn encryption_needs_its_feature() {
    let place = Place::new();
    let command = "serve . --tls-certificate a.pem --tls-key a.key";
    needs(&place, "tls", command, "--tls-certificate a.pem");
}

#[test]
#[cfg(not(feature = "grpc"))]
fn a_call_needs_its_feature() {
    use crate::serve::{Serving, published};
    let (place, _) = published();
    let serving = Serving::new(&place, "");
    let build = "gRPC: this program was built without grpc; build it with `cargo build --release --features grpc` (or `full`)";
    for call in ["ams.v1.Ranking/Score", "grpc.health.v1.Health/Check"] {
        let ask = |kind: &str| {
            let head = format!(
                "POST /{call} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n"
            );
            serving.raw(format!("{head}{kind}\r\n").as_bytes())
        };
        let said = ask("Content-Type: application/grpc\r\n");
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
        for header in ["content-type: application/grpc\r\n", "grpc-status: 12\r\n"] {
            assert!(said.contains(header), "{header} is not in {said}");
        }
        assert!(said.contains(&format!("grpc-message: {build}\r\n")), "{said}");
        let said = ask("");
        assert!(said.starts_with("HTTP/1.1 415") && said.contains(build), "{said}");
    }
    let line = r#"ams_requests_total{route="/ams.v1.Ranking/{method}",status="405"} 1"#;
    assert!(serving.metrics().contains(line), "{}", serving.metrics());
}
