//! Random numbers of the shop: one ChaCha stream per entity, never a shared generator.
//!
//! Knows a seed and which entity asks. Does not know what is drawn. Because every item, user, visit
//! and page has a stream of its own, nothing depends on the order or the thread in which they are
//! made.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Who draws; part of the key of the stream. The first ten draw the files of a shop, the others
/// what happens in one that lives.
#[derive(Clone, Copy, Debug)]
pub enum Entity {
    /// Order of the items by popularity.
    Ranks = 1,
    /// An item.
    Item = 2,
    /// The picture of an item.
    Picture = 3,
    /// A user.
    Shopper = 4,
    /// The visits of a user on a day.
    Visit = 5,
    /// A page view.
    Page = 6,
    /// The sample that the average click rate is found with.
    Calibration = 7,
    /// The passing interest of a user.
    Passing = 8,
    /// The change of a user's taste in a night.
    Drift = 9,
    /// How long an item stays.
    Leaving = 10,
    /// The sessions of a user on a day.
    Session = 11,
    /// What a user does about the items of a page view.
    Coin = 12,
    /// Candidates of a page view.
    Matching = 13,
    /// What an advertiser pays for a click.
    Bid = 14,
    /// Who belongs to which half of an experiment.
    Assignment = 15,
    /// Page views in random order.
    Exploration = 16,
}

/// The stream of one entity.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of `(seed, entity, a, b)`: these 256 bits are the ChaCha key.
    pub fn new(seed: u64, entity: Entity, a: u64, b: u64) -> Dice {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([seed, entity as u64, a, b]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Dice(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit() as f32
    }

    /// Uniform in `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// True with probability `chance`.
    pub fn happens(&mut self, chance: f64) -> bool {
        self.unit() < chance
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Poisson with a `mean` of some tens at most (the product method takes `mean` steps).
    pub(super) fn poisson(&mut self, mean: f64) -> usize {
        let floor = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > floor {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// A position drawn with the weights whose running sums are `cumulative` (not empty).
    pub fn weighted(&mut self, cumulative: &[f64]) -> usize {
        let point = self.unit() * cumulative[cumulative.len() - 1];
        cumulative.partition_point(|&sum| sum <= point).min(cumulative.len() - 1)
    }

    /// `chosen` different numbers of `0..weights.len()`, by weight, as a bit set.
    pub(super) fn subset(&mut self, weights: &[f64], chosen: usize) -> u32 {
        let mut set = 0_u32;
        while (set.count_ones() as usize) < chosen.min(weights.len()) {
            let left = running_sums(
                weights.iter().enumerate().map(|(at, &w)| if set >> at & 1 == 1 { 0.0 } else { w }),
            );
            set |= 1 << self.weighted(&left);
        }
        set
    }

    /// `0..count` in random order.
    pub fn permutation(&mut self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for end in (1..count).rev() {
            order.swap(end, self.below(end + 1));
        }
        order
    }
}

/// Running sums of `weights`.
pub fn running_sums(weights: impl Iterator<Item = f64>) -> Vec<f64> {
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dice(a: u64) -> Dice {
        Dice::new(7, Entity::Item, a, 0)
    }

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..20_000).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    }

    fn check(name: &str, got: (f64, f64), mean: f64, variance: f64) {
        let near = |got: f64, want: f64| (got - want).abs() < 0.06 * want.abs().max(1.0);
        assert!(near(got.0, mean) && near(got.1, variance), "{name}: {got:?}");
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut d = dice(1);
        check("unit", moments(|| d.unit()), 0.5, 1.0 / 12.0);
        check("normal", moments(|| d.normal()), 0.0, 1.0);
        check("poisson", moments(|| d.poisson(1.5) as f64), 1.5, 1.5);
        check("below", moments(|| d.below(10) as f64), 4.5, 8.25);
        check("weighted", moments(|| d.weighted(&[1.0, 1.0, 4.0]) as f64), 1.5, 0.75);
    }

    #[test]
    fn streams_of_entities_differ_and_repeat() {
        let first = |a| dice(a).unit();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
        assert_ne!(first(1), Dice::new(7, Entity::Picture, 1, 0).unit());
        assert_ne!(first(1), Dice::new(8, Entity::Item, 1, 0).unit());
    }

    #[test]
    fn subsets_have_the_asked_size_and_permutations_every_number() {
        for chosen in 0..=5 {
            assert_eq!(
                dice(3).subset(&[1.0, 0.5, 2.0, 1.0, 9.0], chosen).count_ones() as usize,
                chosen
            );
        }
        let mut order = dice(4).permutation(50);
        assert_ne!(order, (0..50).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
