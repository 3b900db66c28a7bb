//! For tests only: arbitrary values, closeness, and the finite-difference check of a gradient.

pub(crate) use ams_linalg::check::assert_close;

/// `len` values in (-1, 1), a function of `seed`.
pub(crate) fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    crate::init::dense_init(seed, "check", "values", crate::init::Init::Uniform(1.0), &mut out);
    out
}

/// Asserts that `dx` is the gradient of `f` at `x`, by central differences of each coordinate.
///
/// A PReLU kink within a step of `x` spoils the difference, not the gradient; a smaller step leaves
/// the kink behind, though rounding weighs more. So a coordinate passes if it agrees at one of
/// three steps.
#[track_caller]
pub(crate) fn assert_gradient(what: &str, x: &[f32], dx: &[f32], mut f: impl FnMut(&[f32]) -> f64) {
    assert_eq!(x.len(), dx.len(), "{what}: lengths");
    let mut moved = x.to_vec();
    for i in 0..x.len() {
        let mut slope = |step: f32| {
            let (above, below) = (x[i] + step, x[i] - step);
            moved[i] = above;
            let high = f(&moved);
            moved[i] = below;
            let low = f(&moved);
            moved[i] = x[i];
            (high - low) / f64::from(above - below)
        };
        let bound = |slope: f64, step: f32| 2e-3 * slope.abs() + 2e-6 / f64::from(step) + 1e-4;
        let mut agrees = |step: f32| {
            let slope = slope(step);
            (slope - f64::from(dx[i])).abs() <= bound(slope, step)
        };
        let agrees = [1e-2, 2e-3, 4e-4].into_iter().any(&mut agrees);
        assert!(agrees, "{what} {i}: {} but differences {}", dx[i], slope(2e-3));
    }
}
