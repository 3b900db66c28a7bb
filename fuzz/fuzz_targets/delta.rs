//! Bytes become a file of a delta of a good bundle: opened, that is a model which scores the
//! bundle's examples, and the same ones after its deltas were compacted, or an error that says why
//! not. The first byte says which file; the manifest is made to fit. With its highest bit set, it
//! is a file of a version delta: opened, that is a version which scores as it does once unpacked.
//!
//!     mkdir -p fuzz/corpus/delta
//!     cargo +nightly fuzz run delta fuzz/corpus/delta fuzz/seeds/delta -- -max_len=16384
//! -max_total_time=600
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use ams_bundle::fuzzing::Seeds;
use libfuzzer_sys::fuzz_target;

/// The bundle, the delta and the version delta that are committed, and where they are written again
/// and again.
static SEEDS: LazyLock<([Seeds; 3], PathBuf)> = LazyLock::new(|| {
    let folder = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let place = std::env::temp_dir().join(format!("ams-fuzz-delta-{}", std::process::id()));
    let (bundle, delta) = (folder("seeds/bundle"), folder("seeds/delta"));
    let seeds = [Seeds::read(&bundle), Seeds::read(&delta), Seeds::read_version_delta(&delta)];
    (seeds.map(|read| read.expect("what is committed can be read")), place)
});

fuzz_target!(|bytes: &[u8]| {
    let ([bundle, delta, version_delta], place) = &*SEEDS;
    let opened = match bytes.first() {
        Some(at) if at & 0x80 != 0 => bundle.open_version_delta(version_delta, place, bytes),
        _ => bundle.open_with_delta(delta, place, bytes),
    };
    if let Err(what) = opened {
        assert!(!what.is_empty());
    }
});
