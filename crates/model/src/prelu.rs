//! PReLU: y = x where x > 0, else slope * x, with one learned slope per channel.
//!
//! A NaN stays a NaN, forward and backward, so that a check for one finds it.

use crate::init::Init;
use crate::linalg;
use crate::params::{Layout, View};
use pulp::Simd;

/// Slope every channel begins with.
pub(crate) const FIRST_SLOPE: f32 = 0.25;

/// Appends the slopes of a PReLU of `width` channels, `name.slope`, to `layout`.
pub(crate) fn slopes(layout: &mut Layout, name: &str, width: usize) -> View {
    layout.push(&format!("{name}.slope"), &[width], Init::Constant(FIRST_SLOPE))
}

/// `x` (rows, width) -> `y` (rows, width), overwritten; `slope` (width).
pub(crate) fn forward(slope: &[f32], x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "prelu");
    forward_rows(slope, x, y);
}

#[pulp::with_simd(forward_rows = linalg::arch())]
#[inline(always)]
fn forward_rows_in<'a, S: Simd>(_: S, slope: &'a [f32], x: &'a [f32], y: &'a mut [f32]) {
    for (x, y) in x.chunks_exact(slope.len()).zip(y.chunks_exact_mut(slope.len())) {
        apply(slope, x, y);
    }
}

/// One row of [`forward`].
#[inline(always)]
pub(crate) fn apply(slope: &[f32], x: &[f32], y: &mut [f32]) {
    for ((y, x), slope) in y.iter_mut().zip(x).zip(slope) {
        *y = activate(*x, *slope);
    }
}

/// One number of [`forward`].
#[inline(always)]
pub(crate) fn activate(x: f32, slope: f32) -> f32 {
    x * factor(x, slope)
}

/// Turns `dy` (rows, width) into dx in place and adds to `dslope` (width), given `x` (rows, width).
pub(crate) fn backward(slope: &[f32], x: &[f32], dy: &mut [f32], dslope: &mut [f32]) {
    assert_eq!(x.len(), dy.len(), "prelu");
    let width = slope.len();
    backward_rows(slope, x, dy, &mut dslope[..width]);
}

#[pulp::with_simd(backward_rows = linalg::arch())]
#[inline(always)]
fn backward_rows_in<'a, S: Simd>(
    _: S,
    slope: &'a [f32],
    x: &'a [f32],
    dy: &'a mut [f32],
    dslope: &'a mut [f32],
) {
    let width = slope.len();
    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact_mut(width)) {
        for (((dy, x), slope), dslope) in dy.iter_mut().zip(x).zip(slope).zip(&mut *dslope) {
            // Where x is negative x, else 0: y is the slope times this.
            *dslope += *dy * (x * factor(-x, 0.0));
            *dy *= factor(*x, *slope);
        }
    }
}

/// 1 where `x` is positive, else `slope`. Both are at hand, so this is a mask and not a branch:
/// signs of pre-activations are as good as random, and a branch would be mispredicted half of the
/// time (measured: attention took three times as long). NaN times either factor stays NaN.
#[inline(always)]
fn factor(x: f32, slope: f32) -> f32 {
    if x > 0.0 { 1.0 } else { slope }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, assert_gradient, values};

    #[test]
    fn negative_values_are_scaled_per_channel() {
        let mut y = [0.0; 4];
        forward(&[0.25, -2.0], &[-4.0, -4.0, 3.0, 0.0], &mut y);
        assert_close(&y, &[-1.0, 8.0, 3.0, 0.0], 0.0);
    }

    #[test]
    fn gradients_match_differences() {
        let (slope, x, dy) = (values(1, 3), values(2, 12), values(3, 12));
        let loss = |slope: &[f32], x: &[f32]| {
            let mut y = vec![f32::NAN; 12];
            forward(slope, x, &mut y);
            y.iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum()
        };
        let (mut dx, mut dslope) = (dy.clone(), vec![0.0; 3]);
        backward(&slope, &x, &mut dx, &mut dslope);
        assert_gradient("slope", &slope, &dslope, |slope| loss(slope, &x));
        assert_gradient("x", &x, &dx, |x| loss(&slope, x));
    }
}
