//! The messages of `crates/serve/proto`, as Rust has them.
//!
//! They are made by `prost-build` from what `protox` reads, and lie beside the code, so that
//! building the program takes neither, nor a `protoc`. A test makes them again and compares; with
//! `AMS_WRITE_MESSAGES=1` it writes them.

use axum::body::Bytes;
use prost::Message;

use crate::problem::{Kind, Problem};

/// Messages of `ranking.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "generated/ams.v1.rs"]
#[rustfmt::skip]
pub(crate) mod ranking;

/// Messages of `open_inference.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "generated/inference.rs"]
#[rustfmt::skip]
pub(crate) mod inference;

/// Messages of `health.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "generated/grpc.health.v1.rs"]
#[rustfmt::skip]
pub(crate) mod health;

/// Messages of `reflection.proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "generated/grpc.reflection.v1.rs"]
#[rustfmt::skip]
pub(crate) mod reflection;

/// All of `crates/serve/proto`, described: a `google.protobuf.FileDescriptorSet`.
pub(crate) const DESCRIPTIONS: &[u8] = include_bytes!("generated/descriptions.binpb");

/// Reads a message.
///
/// # Errors
/// If the bytes are none of its kind.
pub(crate) fn decoded<M: Message + Default>(message: Bytes) -> Result<M, Problem> {
    M::decode(message).map_err(|error| Problem::new(Kind::Request, format!("request: {error}")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ams_testing::{prost_build, protox};
    use prost::Message;

    /// What every file of messages begins with.
    const HEAD: &str = "//! Messages of gRPC, made from `crates/serve/proto` by the test of `messages.rs`; not to be edited.\n\n";

    #[test]
    fn the_messages_are_those_described() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (proto, generated) = (here.join("proto"), here.join("src/protocol/protobuf/generated"));
        let files = ["ranking.proto", "open_inference.proto", "health.proto", "reflection.proto"];
        let described = protox::compile(files.map(|file| proto.join(file)), [&proto]).unwrap();
        let descriptions = described.encode_to_vec();
        let made = tempfile::tempdir().unwrap();
        prost_build::Config::new()
            .out_dir(made.path())
            .btree_map(["."])
            .bytes([".inference.ModelInferRequest.raw_input_contents"])
            .compile_fds(described)
            .unwrap();
        let writes = std::env::var_os("AMS_WRITE_MESSAGES").is_some();
        if writes {
            std::fs::write(generated.join("descriptions.binpb"), &descriptions).unwrap();
        }
        assert!(writes || super::DESCRIPTIONS == descriptions, "the descriptions are old");
        for entry in std::fs::read_dir(made.path()).unwrap() {
            let name = entry.unwrap().file_name();
            let made = std::fs::read_to_string(made.path().join(&name)).unwrap();
            let made = format!("{HEAD}{made}");
            let kept = generated.join(&name);
            if writes {
                std::fs::write(&kept, &made).unwrap();
            }
            let kept = std::fs::read_to_string(kept).unwrap_or_default();
            assert!(
                made == kept,
                "{name:?} is old: AMS_WRITE_MESSAGES=1 cargo test -p ams-serve --features grpc"
            );
        }
    }
}
