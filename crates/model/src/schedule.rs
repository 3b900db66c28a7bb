//! The learning rate over time.

use serde::{Deserialize, Serialize};

/// A learning rate that shrinks by a factor after each `every` steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Learning rate of the first steps.
    pub lr: f32,
    /// Factor by which it shrinks.
    pub decay: f32,
    /// Steps between two decays; at least one.
    pub every: u64,
}

impl Default for Schedule {
    /// The paper's: 0.001, x0.9 every 24,000 steps.
    fn default() -> Schedule {
        Schedule { lr: 1e-3, decay: 0.9, every: 24_000 }
    }
}

impl Schedule {
    /// The learning rate of `step`, counted from 0: `lr * decay^floor(step / every)`.
    pub fn at(&self, step: u64) -> f32 {
        let decays = i32::try_from(step / self.every.max(1)).unwrap_or(i32::MAX);
        (f64::from(self.lr) * f64::from(self.decay).powi(decays)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_falls_in_stairs() {
        let schedule = Schedule::default();
        for (step, expected) in
            [(0, 0.001), (23_999, 0.001), (24_000, 0.0009), (48_000, 0.00081), (u64::MAX, 0.0)]
        {
            assert!((schedule.at(step) - expected).abs() < 1e-10, "step {step}");
        }
    }
}
