//! Bytes become a file of a delta of a good bundle: opened, that is a model which scores the
//! bundle's examples, and the same ones after its deltas were compacted, or an error that says why
//! not. The first byte says which file; the manifest is made to fit.
//!
//!     mkdir -p fuzz/corpus/delta
//!     cargo +nightly fuzz run delta fuzz/corpus/delta fuzz/seeds/delta -- -max_len=4096
//! -max_total_time=600
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ams_bundle::fuzzing::Seeds;
use libfuzzer_sys::fuzz_target;

/// The bundle and the delta that are committed, and where they are written again and again.
static SEEDS: LazyLock<(Seeds, Seeds, PathBuf)> = LazyLock::new(|| {
    let read = |name: &str| Seeds::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name));
    let place = std::env::temp_dir().join(format!("ams-fuzz-delta-{}", std::process::id()));
    let seeds = (read("seeds/bundle"), read("seeds/delta"));
    let expected = "what is committed can be read";
    (seeds.0.expect(expected), seeds.1.expect(expected), place)
});

fuzz_target!(|bytes: &[u8]| {
    let (bundle, delta, place) = &*SEEDS;
    if let Err(what) = bundle.open_with_delta(delta, place, bytes) {
        assert!(!what.is_empty());
    }
});
