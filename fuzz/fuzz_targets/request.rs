//! Bytes become a page view, or an error that says why not; nothing else may happen. The first byte
//! says what speaks: JSON, tensors, messages or changes.
//!
//!     mkdir -p fuzz/corpus/request
//!     cargo +nightly fuzz run request fuzz/corpus/request fuzz/seeds/request -- -max_len=4096
//! -max_total_time=600
#![no_main]

use ams_bundle::PageView;
use ams_serve::fuzzing::read;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match read(kind, bytes) {
        // What was read is a page view in JSON, too, and the same one; but for times, whose unit
        // their size says.
        Ok(Some(mut page)) => {
            page.user.behaviors.time = None;
            let json = serde_json::to_vec(&page).expect("texts and numbers are JSON");
            let finite = page.candidates.bid.iter().flatten().all(|bid| bid.is_finite());
            if finite {
                let again = PageView::parse(&json).expect("what was written can be read");
                assert_eq!(serde_json::to_vec(&again).expect("likewise"), json);
            }
        }
        Ok(None) => {}
        Err(what) => assert!(!what.is_empty()),
    }
});
