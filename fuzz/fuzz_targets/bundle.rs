//! Bytes become a file of a bundle: opened, that is a model whose golden logits hold and which
//! scores its examples, or an error that says why not. The first byte says which file; the manifest
//! is made to fit, as hashes would refuse everything else.
//!
//!     mkdir -p fuzz/corpus/bundle
//!     cargo +nightly fuzz run bundle fuzz/corpus/bundle fuzz/seeds/bundle -- -max_len=16384
//! -max_total_time=600
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ams_bundle::fuzzing::Seeds;
use libfuzzer_sys::fuzz_target;

/// What is committed, and where it is written again and again.
static SEEDS: LazyLock<(Seeds, PathBuf)> = LazyLock::new(|| {
    let seeds = Seeds::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/bundle"));
    let place = std::env::temp_dir().join(format!("ams-fuzz-bundle-{}", std::process::id()));
    (seeds.expect("what is committed can be read"), place)
});

fuzz_target!(|bytes: &[u8]| {
    let (seeds, place) = &*SEEDS;
    if let Err(what) = seeds.open_bundle(place, bytes) {
        assert!(!what.is_empty());
    }
});
