//! From halfs to floats, and from memory to the cache.

use half::f16;
use pulp::{Simd, WithSimd};

/// Overwrites `x`, (rows, width), with rows of halfs: `row` gives each of them.
pub fn widen<'a>(width: usize, row: impl Fn(usize) -> &'a [f16], x: &mut [f32]) {
    if width > 0 {
        assert!(x.len().is_multiple_of(width), "rows of {width} in {}", x.len());
        crate::arch().dispatch(Widen { width, row, x });
    }
}

/// Asks the processor to bring `halfs` near, and does not wait for them. A hint: where there is no
/// such instruction, nothing happens.
#[inline]
pub fn fetch(halfs: &[f16]) {
    #[cfg(target_arch = "x86_64")]
    for line in halfs.chunks(32) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: the instruction reads nothing that the program could see, and the address is one
        // of a slice.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = halfs;
}

struct Widen<'x, R> {
    width: usize,
    row: R,
    x: &'x mut [f32],
}

impl<'a, R: Fn(usize) -> &'a [f16]> WithSimd for Widen<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Widen { width, row, x } = self;
        for (at, x) in x.chunks_exact_mut(width).enumerate() {
            let halfs = row(at);
            assert_eq!(halfs.len(), width, "row {at}");
            for (half, x) in halfs.iter().zip(x) {
                *x = wide(half.to_bits());
            }
        }
    }
}

/// The float that a half is, without a branch, so that many are widened at once. (The conversion
/// that processors have is not one that the compiler finds in a loop.)
#[inline(always)]
fn wide(half: u16) -> f32 {
    let half = u32::from(half);
    // Exponent and fraction in their new places are 2^112 too small, subnormals too, and the
    // product is exact.
    let size = f32::from_bits((half & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    // Infinity and what is not a number have all bits of the exponent, then as now.
    let special = if half & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(size.to_bits() | special | (half & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_itself() {
        let halfs: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut x = vec![1.0; halfs.len()];
        widen(256, |at| &halfs[at * 256..][..256], &mut x);
        for (half, x) in halfs.iter().zip(x) {
            let same = half.to_f32().to_bits() == x.to_bits();
            assert!(same || half.is_nan() && x.is_nan(), "{half:?} became {x}");
        }
    }
}
