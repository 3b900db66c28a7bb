//! Bytes become what operators decided, which is the same once it was written and read again, or an
//! error that says why not.
//!
//!     mkdir -p fuzz/corpus/decision
//!     cargo +nightly fuzz run decision fuzz/corpus/decision fuzz/seeds/decision -- -max_len=4096
//! -max_total_time=600
#![no_main]

use ams_serve::fuzzing::Decisions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Decisions::parse(bytes) {
        Ok(decisions) => {
            let again = Decisions::parse(decisions.to_text().as_bytes());
            assert_eq!(again.expect("what was written can be read"), decisions);
        }
        Err(what) => assert!(!what.is_empty()),
    }
});
