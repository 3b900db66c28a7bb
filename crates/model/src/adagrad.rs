//! Adagrad, by row: each weight's rate falls with the sum of its squared gradients.
//!
//! ```text
//! a += g^2        w -= lr * g / (sqrt(a) + eps)
//! ```
//! One number of state per weight where Adam has two, and nothing that depends on the run's step: a
//! row that is seen rarely keeps its rate (Duchi, Hazan, Singer, 2011).

/// Added to the root of the sum.
const EPS: f32 = 1e-10;

/// Updates weights `w` and the sums of squared gradients `a` by the gradient `dw`, all of one
/// length.
pub(crate) fn update(lr: f32, w: &mut [f32], a: &mut [f32], dw: &[f32]) {
    assert_eq!((w.len(), a.len()), (dw.len(), dw.len()), "weights, sums and gradient");
    for ((w, a), g) in w.iter_mut().zip(a).zip(dw) {
        *a += g * g;
        // A weight without any gradient so far divides zero by eps: it stays.
        *w -= lr * g / (a.sqrt() + EPS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_match_the_textbook() {
        for gradients in [vec![0.3], vec![0.3, -2.0, 5.0], vec![1e-4; 20], vec![0.0; 3]] {
            let (mut w, mut a) = ([1.0f32], [0.0f32]);
            let (mut want, mut sum) = (1.0f64, 0.0f64);
            for &g in &gradients {
                update(0.01, &mut w, &mut a, &[g as f32]);
                sum += g * g;
                want -= 0.01 * g / (sum.sqrt() + 1e-10);
            }
            assert!((f64::from(w[0]) - want).abs() < 1e-6, "{gradients:?}: {} {want}", w[0]);
        }
    }
}
