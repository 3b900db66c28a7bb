//! Negatives for logs that hold positives only. Knows items, instants and a seed; not where they
//! come from.
//!
//! Every draw is a hash of (seed, user, which event, which try), so it depends on nothing else: not
//! on the order of the rows, the parts or the threads. A negative is never an item the user has had
//! at any time, and the negatives of one event differ.
//!
//! Items held out of training are drawn for the test only, and there like all others: popularity
//! counts the positives of the training *period*, also those that the hold-out takes from the
//! training. Otherwise a held-out item would be a positive whenever the test shows it, and not to
//! know an item would tell the label. Hence the negatives of the test are the same with and without
//! a hold-out, and those of the training differ only where they would have been held out.

use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{Id, part_of};

/// How negatives are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every item of the catalogue alike.
    Uniform,
    /// In proportion to the positives of the training period, those of held-out items among them.
    #[default]
    Popularity,
    /// Other users' positives within some days of this one, from the same side of the split:
    /// popularity alone cannot tell the label.
    Contemporary,
}

impl Method {
    /// As the card spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Uniform => "uniform",
            Method::Popularity => "popularity",
            Method::Contemporary => "contemporary",
        }
    }
}

/// Which negatives are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeOptions {
    /// Negatives per positive.
    pub count: u32,
    /// How they are drawn.
    pub method: Method,
    /// For `contemporary`: how many days before and after count as the same time.
    pub days: u32,
    /// The seed of the draw.
    pub seed: u64,
}

impl Default for NegativeOptions {
    fn default() -> Self {
        NegativeOptions { count: 4, method: Method::default(), days: 3, seed: 1 }
    }
}

/// What came of the draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// Negatives drawn.
    pub negatives: u64,
    /// Of these, drawn uniformly because the method found nothing new in [`TRIES`] tries.
    pub fallback: u64,
    /// Negatives that do not exist: the user has had every other item (that is not held out).
    pub short: u64,
}

/// Tries per negative before the uniform fallback.
pub const TRIES: u64 = 64;

const DAY: i64 = 86_400;

/// A positive event, as a draw sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positive {
    pub(crate) user: Id,
    pub(crate) time: i64,
    pub(crate) item: u32,
    pub(crate) test: bool,
}

/// Draws negatives, after it has seen the positives of all users.
pub(crate) struct Sampler {
    options: NegativeOptions,
    /// Of every item of the catalogue, whether it is held out of training.
    held_out: Vec<bool>,
    /// Positives per item in the training period; summed up once settled.
    popularity: Vec<u64>,
    /// Train and test.
    contemporaries: [Contemporaries; 2],
}

impl Sampler {
    /// For a catalogue of which these items are held out of training.
    pub(crate) fn new(options: &NegativeOptions, held_out: &[bool]) -> Sampler {
        let counted = if options.method == Method::Popularity { held_out.len() } else { 0 };
        Sampler {
            options: options.clone(),
            held_out: held_out.to_vec(),
            popularity: vec![0; counted],
            contemporaries: Default::default(),
        }
    }

    /// Whether [`Sampler::observe`] has to see the positives before the first draw.
    pub(crate) fn needs_survey(&self) -> bool {
        self.options.method != Method::Uniform
    }

    pub(crate) fn observe(&mut self, positive: Positive) {
        match self.options.method {
            Method::Uniform => {}
            Method::Popularity if positive.test => {}
            Method::Popularity => self.popularity[positive.item as usize] += 1,
            Method::Contemporary => self.contemporaries[usize::from(positive.test)].add(positive),
        }
    }

    /// Ends the survey.
    pub(crate) fn settle(&mut self) {
        let mut sum = 0;
        for count in &mut self.popularity {
            sum += *count;
            *count = sum;
        }
        self.contemporaries.iter_mut().for_each(Contemporaries::settle);
    }

    /// Draws the negatives of positive number `index` of its user, who has had the items `had`
    /// (ascending).
    pub(crate) fn draw(
        &self,
        positive: Positive,
        index: usize,
        had: &[u32],
        drawn: &mut Drawn,
        to: &mut Vec<u32>,
    ) {
        to.clear();
        let dice = Dice { seed: self.options.seed, user: positive.user, index: index as u64 };
        let items = self.held_out.len();
        let allowed = |item: u32| positive.test || !self.held_out[item as usize];
        for number in 0..u64::from(self.options.count) {
            let throws = number * (2 * TRIES + 1);
            let new = |item: &u32| {
                allowed(*item) && had.binary_search(item).is_err() && !to.contains(item)
            };
            let mut tries = (0..TRIES).filter_map(|at| {
                let at = throws + 2 * at;
                self.propose(positive, dice.throw(at), dice.throw(at + 1))
            });
            let found = tries.find(|item| new(item)).or_else(|| {
                let start = part_of(dice.throw(throws + 2 * TRIES), items);
                let found =
                    (start..items).chain(0..start).map(|item| item as u32).find(|item| new(item));
                drawn.fallback += u64::from(found.is_some());
                found
            });
            match found {
                Some(item) => to.push(item),
                None => drawn.short += 1,
            }
        }
        drawn.negatives += to.len() as u64;
    }

    fn propose(&self, positive: Positive, first: u64, second: u64) -> Option<u32> {
        match self.options.method {
            Method::Uniform => Some(part_of(first, self.held_out.len()) as u32),
            Method::Popularity => {
                let total = *self.popularity.last()?;
                let at = part_of(first, usize::try_from(total).ok()?) as u64;
                (total > 0).then(|| self.popularity.partition_point(|&sum| sum <= at) as u32)
            }
            Method::Contemporary => self.contemporaries[usize::from(positive.test)].propose(
                positive,
                i64::from(self.options.days) * DAY,
                first,
                second,
            ),
        }
    }
}

struct Dice {
    seed: u64,
    user: Id,
    index: u64,
}

impl Dice {
    fn throw(&self, at: u64) -> u64 {
        let words = [self.user.0, self.index, at].map(u64::to_le);
        xxh3_64_with_seed(bytemuck::bytes_of(&words), self.seed)
    }
}

/// Positives by day: exact counts, and of each day a bounded sample, those with the smallest
/// hashes. What stays depends on what came, not on its order.
#[derive(Default)]
struct Contemporaries {
    days: BTreeMap<i64, Day>,
}

#[derive(Default)]
struct Day {
    count: u64,
    /// (hash, user, time, item); a heap with the largest hash on top, sorted once settled.
    sample: BinaryHeap<(u64, Id, i64, u32)>,
    settled: Vec<(u64, Id, i64, u32)>,
}

/// Positives held over all days, about; at least [`DAY_LEAST`] a day.
const HELD: usize = 1 << 21;
const DAY_LEAST: usize = 256;

impl Contemporaries {
    fn limit(&self) -> usize {
        (HELD / self.days.len().max(1)).max(DAY_LEAST)
    }

    fn add(&mut self, positive: Positive) {
        let Positive { user, time, item, .. } = positive;
        let words = [user.0, time as u64, u64::from(item)].map(u64::to_le);
        let hash = xxh3_64_with_seed(bytemuck::bytes_of(&words), 0);
        let known = self.days.len();
        let limit = self.limit();
        let day = self.days.entry(time.div_euclid(DAY)).or_default();
        day.count += 1;
        day.sample.push((hash, user, time, item));
        while day.sample.len() > limit {
            day.sample.pop();
        }
        if self.days.len() > known && self.days.len().is_power_of_two() {
            self.shrink();
        }
    }

    /// The limit falls as days come; every day is held to it.
    fn shrink(&mut self) {
        let limit = self.limit();
        for day in self.days.values_mut() {
            while day.sample.len() > limit {
                day.sample.pop();
            }
        }
    }

    fn settle(&mut self) {
        self.shrink();
        for day in self.days.values_mut() {
            day.settled = std::mem::take(&mut day.sample).into_sorted_vec();
        }
    }

    /// A positive of another user within `window` seconds: a day in proportion to its count, then
    /// any of its sample.
    fn propose(&self, positive: Positive, window: i64, first: u64, second: u64) -> Option<u32> {
        let from = positive.time.saturating_sub(window).div_euclid(DAY);
        let to = positive.time.saturating_add(window).div_euclid(DAY);
        let days = || self.days.range(from..=to).map(|(_, day)| day);
        let total: u64 = days().map(|day| day.count).sum();
        let mut at = part_of(first, usize::try_from(total).ok()?) as u64;
        let day = days().find(|day| {
            let here = at < day.count;
            at = at.saturating_sub(day.count);
            here
        })?;
        let (_, user, time, item) = day.settled[part_of(second, day.settled.len())];
        let near = time.abs_diff(positive.time) <= window.unsigned_abs();
        (near && user != positive.user).then_some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positive(user: u64, time: i64, item: u32) -> Positive {
        Positive { user: Id(user), time, item, test: false }
    }

    /// The negatives of 300 positives of user 1 at `time` after everyone's positives were `seen`.
    fn draws(method: Method, seen: &[Positive], had: &[u32], time: i64) -> (Vec<Vec<u32>>, Drawn) {
        draws_for(positive(1, time, had[0]), method, seen, had, &[false; 10])
    }

    fn draws_for(
        positive: Positive,
        method: Method,
        seen: &[Positive],
        had: &[u32],
        held_out: &[bool],
    ) -> (Vec<Vec<u32>>, Drawn) {
        let options = NegativeOptions { count: 3, method, days: 1, seed: 7 };
        let mut sampler = Sampler::new(&options, held_out);
        seen.iter().for_each(|&positive| sampler.observe(positive));
        sampler.settle();
        let mut drawn = Drawn::default();
        let mut to = Vec::new();
        let all = (0..300).map(|index| {
            sampler.draw(positive, index, had, &mut drawn, &mut to);
            to.clone()
        });
        (all.collect(), drawn)
    }

    fn share(all: &[Vec<u32>], item: u32) -> f64 {
        let values: Vec<_> = all.iter().flatten().collect();
        values.iter().filter(|&&&found| found == item).count() as f64 / values.len() as f64
    }

    #[test]
    fn uniform_draws_every_item_alike_but_none_the_user_had() {
        let (all, drawn) = draws(Method::Uniform, &[], &[0, 1], 0);
        assert_eq!((share(&all, 0), share(&all, 1)), (0.0, 0.0));
        assert!((2..10).all(|item| (share(&all, item) - 0.125).abs() < 0.03));
        assert!(
            all.iter()
                .all(|items| items.len() == 3 && items[0] != items[1] && items[1] != items[2])
        );
        assert_eq!(drawn, Drawn { negatives: 900, fallback: 0, short: 0 });
    }

    #[test]
    fn popularity_follows_the_training_positives() {
        let mut seen: Vec<_> =
            (0..96).map(|n| positive(2 + n, 0, [3, 4, 4, 5, 6, 7][n as usize % 6])).collect();
        seen.push(Positive { test: true, ..positive(9, 0, 8) });
        let (all, _) = draws(Method::Popularity, &seen, &[0], 0);
        let first: Vec<_> = all.iter().map(|items| vec![items[0]]).collect();
        assert!((share(&first, 4) - 2.0 / 6.0).abs() < 0.08);
        assert_eq!(share(&all, 8), 0.0);
    }

    #[test]
    fn contemporaries_are_near_in_time_and_of_other_users() {
        let mut seen: Vec<_> = (2..6).map(|item| positive(item.into(), 1_000_000, item)).collect();
        seen.push(positive(2, 1_000_000 + DAY + 1, 8));
        seen.push(positive(1, 1_000_000, 9));
        let (all, drawn) = draws(Method::Contemporary, &seen, &[0, 9], 1_000_000);
        assert!(all.iter().flatten().all(|item| (2..6).contains(item)));
        assert_eq!(drawn.fallback, 0);
    }

    #[test]
    fn held_out_items_are_drawn_for_the_test_only_and_there_as_if_nothing_was_held_out() {
        let seen: Vec<_> = (0..90).map(|n| positive(2 + n, 0, 2 + (n % 9 / 2) as u32)).collect();
        let mut held_out = [false; 10];
        held_out[2..4].fill(true);
        for method in [Method::Uniform, Method::Popularity, Method::Contemporary] {
            let train = positive(1, 0, 0);
            let (all, drawn) = draws_for(train, method, &seen, &[0], &held_out);
            assert!(
                all.iter()
                    .all(|items| items.len() == 3 && !items.iter().any(|i| [2, 3].contains(i)))
            );
            assert_eq!(drawn.short, 0);
            // Who was not held out stays.
            let (free, _) = draws(method, &seen, &[0], 0);
            let same = |a: &[u32], b: &[u32]| [2, 3].contains(&a[0]) || a[0] == b[0];
            assert!(free.iter().zip(&all).all(|(free, held)| same(free, held)));

            let test = Positive { test: true, ..train };
            let seen: Vec<_> =
                seen.iter().flat_map(|&p| [p, Positive { test: true, ..p }]).collect();
            let (held, _) = draws_for(test, method, &seen, &[0], &held_out);
            assert_eq!(held, draws_for(test, method, &seen, &[0], &[false; 10]).0);
            assert!(share(&held, 2) > 0.05);
        }
    }

    #[test]
    fn a_user_who_has_had_nearly_everything() {
        let (all, drawn) =
            draws(Method::Popularity, &[positive(2, 0, 0)], &[0, 1, 2, 3, 4, 5, 6, 7], 0);
        assert!(all.iter().all(|items| {
            let mut sorted = items.clone();
            sorted.sort_unstable();
            sorted == [8, 9]
        }));
        assert_eq!(drawn, Drawn { negatives: 600, fallback: 600, short: 300 });
    }

    #[test]
    fn samples_of_a_day_do_not_depend_on_the_order_of_arrival() {
        let sample = |users: &mut dyn Iterator<Item = u64>| {
            let mut contemporaries = Contemporaries::default();
            for user in users {
                contemporaries.add(positive(user, (user % 9000) as i64 * DAY, user as u32));
            }
            contemporaries.settle();
            contemporaries
                .days
                .into_values()
                .map(|day| (day.count, day.settled))
                .collect::<Vec<_>>()
        };
        let forwards = sample(&mut (0..20_000));
        assert_eq!(forwards, sample(&mut (0..20_000).rev()));
        assert_eq!(forwards.len(), 9000);
    }
}
