//! Positives of the days before and after, by day: how version 0.1 drew contemporaries.

use std::collections::{BTreeMap, BinaryHeap};

use super::positive::Positive;
use crate::{Id, part_of};

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// Positives by day: exact counts, and of each day a bounded sample, those with the smallest
/// hashes. What stays depends on what came, not on its order.
#[derive(Default)]
pub(super) struct Around {
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

impl Around {
    fn limit(&self) -> usize {
        (HELD / self.days.len().max(1)).max(DAY_LEAST)
    }

    pub(super) fn add(&mut self, positive: Positive) {
        let Positive { user, time, item, .. } = positive;
        let hash = positive.hash();
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

    pub(super) fn settle(&mut self) {
        self.shrink();
        for day in self.days.values_mut() {
            day.settled = std::mem::take(&mut day.sample).into_sorted_vec();
        }
    }

    /// A positive of another user within `window` seconds: a day in proportion to its count, then
    /// any of its sample.
    pub(super) fn propose(
        &self,
        positive: Positive,
        window: i64,
        first: u64,
        second: u64,
    ) -> Option<u32> {
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

    #[test]
    fn samples_of_a_day_do_not_depend_on_the_order_of_arrival() {
        let sample = |users: &mut dyn Iterator<Item = u64>| {
            let mut contemporaries = Around::default();
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
