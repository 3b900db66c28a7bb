//! Adam, dense and by row.
//!
//! ```text
//! m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
//! w -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
//! ```

use serde::{Deserialize, Serialize};

use crate::linalg;
use pulp::Simd;

/// The constants of Adam.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the latter.
    pub eps: f32,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

impl Adam {
    /// Updates weights `w` and moments `m`, `v` by the gradient `dw`, all of one length, in step
    /// `t`, counted from 1, with the learning rate `lr`.
    ///
    /// For one embedding row this is *lazy* Adam: call it only for the rows of the batch, with the
    /// step `t` of the whole run. Rows outside the batch keep weights and moments (dense Adam would
    /// decay the moments and move the weights on by them), and the correction of the first steps
    /// follows the run's step, not the row's.
    pub fn update(&self, t: u64, lr: f32, w: &mut [f32], m: &mut [f32], v: &mut [f32], dw: &[f32]) {
        self.at(t, lr).update(w, m, v, dw);
    }

    /// The update of step `t`, counted from 1, to apply to many rows.
    pub fn at(&self, t: u64, lr: f32) -> AdamStep {
        assert!(t > 0, "steps of Adam count from 1");
        let t = i32::try_from(t).unwrap_or(i32::MAX);
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(t);
        AdamStep {
            constants: *self,
            lr: (f64::from(lr) / correction(self.beta1)) as f32,
            root: (1.0 / correction(self.beta2).sqrt()) as f32,
        }
    }
}

/// Adam in one step: the corrections are computed once for all rows.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    constants: Adam,
    /// lr / (1 - b1^t).
    lr: f32,
    /// 1 / sqrt(1 - b2^t).
    root: f32,
}

impl AdamStep {
    /// Updates weights `w` and moments `m`, `v` by the gradient `dw`, all of one length.
    pub fn update(&self, w: &mut [f32], m: &mut [f32], v: &mut [f32], dw: &[f32]) {
        let lengths = (w.len(), m.len(), v.len());
        assert_eq!(lengths, (dw.len(), dw.len(), dw.len()), "weights, moments and gradient");
        update(*self, w, m, v, dw);
    }
}

#[pulp::with_simd(update = linalg::arch())]
#[inline(always)]
fn update_in<'a, S: Simd>(
    _: S,
    step: AdamStep,
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    dw: &'a [f32],
) {
    let AdamStep { constants: Adam { beta1, beta2, eps }, lr, root } = step;
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(dw) {
        *m = beta1 * *m + (1.0 - beta1) * g;
        *v = beta2 * *v + (1.0 - beta2) * g * g;
        *w -= lr * *m / (v.sqrt() * root + eps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps of one weight by the textbook, in f64.
    fn textbook(gradients: &[f64]) -> f64 {
        let (mut w, mut m, mut v) = (1.0, 0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            let t = i as i32 + 1;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m, v) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            w -= 0.01 * m / (v.sqrt() + 1e-8);
        }
        w
    }

    #[test]
    fn steps_match_the_textbook() {
        for gradients in [vec![0.3], vec![0.3, -2.0, 5.0], vec![1e-4; 20], vec![0.0; 3]] {
            let (mut w, mut m, mut v) = ([1.0], [0.0], [0.0]);
            for (i, g) in gradients.iter().enumerate() {
                let t = i as u64 + 1;
                Adam::default().update(t, 0.01, &mut w, &mut m, &mut v, &[*g as f32]);
            }
            let expected = textbook(&gradients);
            assert!(
                (f64::from(w[0]) - expected).abs() < 1e-6,
                "{gradients:?}: {} {expected}",
                w[0]
            );
        }
    }

    #[test]
    fn a_late_row_is_corrected_by_the_step_of_the_run() {
        let (mut w, mut m, mut v) = ([0.0], [0.0], [0.0]);
        Adam::default().update(1_000_000, 0.01, &mut w, &mut m, &mut v, &[1.0]);
        // No correction is left: 0.01 * 0.1 / sqrt(0.001).
        assert!((w[0] + 0.001 / 0.001f32.sqrt()).abs() < 1e-6, "{}", w[0]);
    }
}
