//! For tests, here and in the crates above: arbitrary values, and closeness.

/// `len` values in (-1, 1), a function of `seed`.
pub fn values(seed: u64, len: usize) -> Vec<f32> {
    let value = |at: usize| {
        // The finalizer of splitmix64.
        let mut x = seed.wrapping_add((at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(value).collect()
}

/// Asserts that `got` and `expected` differ by at most `tolerance`, relative for values above one.
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "lengths");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let bound = tolerance * expected.abs().max(1.0);
        assert!((got - expected).abs() <= bound, "value {i}: got {got}, expected {expected}");
    }
}
