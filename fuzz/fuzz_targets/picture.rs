//! Bytes become a row of finite numbers, or an error that says why not; nothing else may happen.
//!
//!     mkdir -p fuzz/corpus/picture
//!     cargo +nightly fuzz run picture fuzz/corpus/picture fuzz/seeds/picture -- -max_len=65536
//! -max_total_time=600
#![no_main]

use std::sync::LazyLock;

use ams_image::{Builtin, Encoder, Limits, Scratch, decode::decode};
use libfuzzer_sys::fuzz_target;

/// Small, so that time goes into decoders and not into large planes of one color.
const LIMITS: Limits = Limits { file_bytes: 65_536, pixels: 1 << 20, alloc_bytes: 64 << 20 };

static ENCODER: LazyLock<Builtin> = LazyLock::new(|| Builtin::new(4096, 1).expect("a usual width"));

fuzz_target!(|bytes: &[u8]| {
    match decode(bytes, &LIMITS) {
        Ok(picture) => {
            let (width, height) = (u64::from(picture.width), u64::from(picture.height));
            assert!(width * height <= LIMITS.pixels, "{width} x {height}");
            assert_eq!(picture.pixels.len() as u64, width * height * 3);
            let mut scratch = Scratch::default();
            let fitted = ENCODER.fit(picture, &mut scratch);
            let mut row = vec![f32::NAN; ENCODER.dim()];
            ENCODER.encode(&[fitted], &mut scratch, &mut row).expect("it cannot fail");
            assert!(row.iter().all(|value| value.is_finite()), "{row:?}");
        }
        Err(failure) => assert!(!failure.detail.is_empty(), "{failure:?}"),
    }
});
