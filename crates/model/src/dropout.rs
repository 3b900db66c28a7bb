//! Inverted dropout (Srivastava et al., 2014): in training a unit is 0 with probability `rate`,
//! else multiplied by 1 / (1 - rate), so that its mean stays and nothing has to be scaled
//! afterwards.
//!
//! There is no generator: whether a unit is dropped is a hash of its row's seed, its layer and its
//! place. So a row that is computed twice, or elsewhere, or again after a restart, has the same
//! mask.

use crate::init::mix;

/// The masks of a forward pass and its backward pass; drops nothing unless set.
#[derive(Clone, Debug, Default)]
pub struct Dropout {
    rate: f32,
    row_seeds: Vec<u64>,
}

impl Dropout {
    /// Drops at `rate`, 0 or more and less than 1, with a seed for every row.
    pub fn set(&mut self, rate: f32, row_seeds: impl Iterator<Item = u64>) {
        assert!((0.0..1.0).contains(&rate), "the configuration was not checked");
        self.rate = rate;
        self.row_seeds.clear();
        self.row_seeds.extend(row_seeds);
    }

    /// Makes the next passes drop nothing.
    pub fn clear(&mut self) {
        self.rate = 0.0;
    }

    /// Multiplies the units `x` (rows, width) of layer `layer`, or their gradients, with their
    /// masks.
    pub fn apply(&self, layer: usize, width: usize, x: &mut [f32]) {
        if self.rate == 0.0 {
            return;
        }
        assert_eq!(x.len(), self.row_seeds.len() * width, "a seed for every row");
        for (&seed, row) in self.row_seeds.iter().zip(x.chunks_exact_mut(width)) {
            let units = row.iter_mut().enumerate();
            units.for_each(|(unit, x)| *x *= mask(self.rate, seed, layer, unit));
        }
    }
}

/// What unit `unit` of layer `layer` is multiplied with, in a row of this seed.
pub fn mask(rate: f32, row_seed: u64, layer: usize, unit: usize) -> f32 {
    const STEPS: u32 = 1 << 24;
    let draw = mix(row_seed.wrapping_add((layer as u64) << 32 | unit as u64)) >> 40;
    let dropped = (draw as f32) < rate * STEPS as f32;
    if dropped { 0.0 } else { 1.0 / (1.0 - rate) }
}

/// The seed of all masks of step `step` in a training of seed `seed`.
pub fn step_seed(seed: u64, step: u64) -> u64 {
    mix(mix(seed) ^ step)
}

/// The seed of the row that is called `key`, in network `network` of the step.
pub fn row_seed(step_seed: u64, network: usize, key: u64) -> u64 {
    mix(mix(step_seed ^ network as u64) ^ key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_dropped_as_said_and_the_mean_stays() {
        for rate in [0.1, 0.5, 0.9] {
            let mut dropout = Dropout::default();
            dropout.set(rate, (0..500).map(|key| row_seed(step_seed(3, 7), 1, key)));
            let mut x = vec![1.0; 500 * 40];
            dropout.apply(2, 40, &mut x);
            let dropped = x.iter().filter(|x| **x == 0.0).count() as f32 / x.len() as f32;
            let mean = x.iter().sum::<f32>() / x.len() as f32;
            assert!((dropped - rate).abs() < 0.01, "{dropped} of {rate}");
            assert!((mean - 1.0).abs() < 0.1, "{mean}");
            // No unit and no row is always there.
            assert!(x.chunks(40).all(|row| rate < 0.5 || row.contains(&0.0)));
            assert!((0..40).all(|unit| x.chunks(40).any(|row| row[unit] == 0.0)));
        }
    }

    #[test]
    fn masks_belong_to_rows_wherever_they_are() {
        let masks = |seeds: [u64; 3], layer| {
            let mut dropout = Dropout::default();
            dropout.set(0.5, seeds.into_iter());
            let mut x = vec![1.0; 3 * 64];
            dropout.apply(layer, 64, &mut x);
            x.chunks(64).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let [a, b, c] = [5, 6, 7].map(|key| row_seed(step_seed(1, 2), 0, key));
        let (one, other) = (masks([a, b, c], 0), masks([c, a, a], 0));
        assert!(other == [&one[2][..], &one[0], &one[0]]);
        assert!(one[0] != one[1] && one != masks([a, b, c], 1));
        let seeds = [(1, 2, 0, 5), (2, 2, 0, 5), (1, 3, 0, 5), (1, 2, 1, 5), (1, 2, 0, 6)];
        let seeds =
            seeds.map(|(seed, step, network, key)| row_seed(step_seed(seed, step), network, key));
        assert_eq!(std::collections::BTreeSet::from(seeds).len(), 5, "all of it counts");
    }

    #[test]
    fn nothing_is_dropped_unless_set() {
        let mut dropout = Dropout::default();
        dropout.set(0.5, std::iter::once(1));
        dropout.clear();
        let mut x = [1.0, f32::NAN];
        dropout.apply(0, 1, &mut x);
        assert!(x[0] == 1.0 && x[1].is_nan());
    }
}
