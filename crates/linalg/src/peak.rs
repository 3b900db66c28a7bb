//! What the processor can do at most, to measure products by.

use pulp::{Simd, WithSimd};

/// Independent sums: enough to keep every unit busy while a sum waits for its last addition.
const SUMS: usize = 12;

/// Does `rounds` rounds of fused multiply-adds on registers alone, in the widest vectors there are.
/// Returns how many floating-point operations these were, and a value that depends on all of them.
pub fn multiply_adds(rounds: u64) -> (u64, f32) {
    struct Rounds(u64);
    impl WithSimd for Rounds {
        type Output = (u64, f32);
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> (u64, f32) {
            let (factor, addend) = (simd.splat_f32s(0.999), simd.splat_f32s(0.001));
            let mut sums = [simd.splat_f32s(0.5); SUMS];
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = simd.mul_add_e_f32s(*sum, factor, addend);
                }
            }
            let total = sums.into_iter().fold(simd.splat_f32s(0.0), |a, b| simd.add_f32s(a, b));
            (2 * self.0 * (SUMS * S::F32_LANES) as u64, simd.reduce_sum_f32s(total))
        }
    }
    crate::arch().dispatch(Rounds(rounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_was_done() {
        let (operations, value) = multiply_adds(1_000);
        assert!(operations >= 2 * 1_000 * SUMS as u64);
        let mut x = 0.5f64;
        (0..1_000).for_each(|_| x = x * 0.999 + 0.001);
        let sums = (operations / 2_000) as f64;
        assert!((f64::from(value) / sums - x).abs() < 1e-4, "{value}, {x}");
    }
}
