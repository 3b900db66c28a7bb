//! How many events happened when: a histogram of bounded size that does not depend on the order of
//! arrival.

use std::collections::BTreeMap;

/// Buckets are held up to this number; beyond it, their width doubles.
const MOST: usize = 1 << 20;

/// Counts per bucket of `width` seconds, a power of two that doubles whenever there are too many
/// buckets.
pub(crate) struct Instants {
    width_log2: u32,
    most: usize,
    counts: BTreeMap<i64, u64>,
    /// The latest instant.
    last: Option<i64>,
}

impl Default for Instants {
    fn default() -> Self {
        Instants { width_log2: 0, most: MOST, counts: BTreeMap::new(), last: None }
    }
}

impl Instants {
    pub(crate) fn add(&mut self, time: i64) {
        self.last = self.last.max(Some(time));
        *self.counts.entry(time >> self.width_log2).or_default() += 1;
        while self.counts.len() > self.most {
            self.width_log2 += 1;
            let mut wider = BTreeMap::new();
            for (bucket, count) in std::mem::take(&mut self.counts) {
                *wider.entry(bucket >> 1).or_default() += count;
            }
            self.counts = wider;
        }
    }

    /// The latest instant, if there is one.
    pub(crate) fn last(&self) -> Option<i64> {
        self.last
    }

    /// The first and the last bucket's beginning.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let first = self.counts.first_key_value()?.0;
        let last = self.counts.last_key_value()?.0;
        Some((first << self.width_log2, last << self.width_log2))
    }

    /// The instant that leaves closest to `fraction` of the events at or after it, at least one
    /// bucket on either side; `None` if all events are in one bucket.
    pub(crate) fn cut(&self, fraction: f64) -> Option<i64> {
        let total: u64 = self.counts.values().sum();
        let wanted = fraction * total as f64;
        let mut after = 0;
        let mut best: Option<(f64, i64)> = None;
        for (&bucket, &count) in self.counts.iter().skip(1).rev() {
            after += count;
            let miss = (after as f64 - wanted).abs();
            if best.is_some_and(|(least, _)| miss >= least) {
                break;
            }
            best = Some((miss, bucket << self.width_log2));
        }
        best.map(|(_, cut)| cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(times: &[i64], fraction: f64, most: usize) -> Option<i64> {
        let mut instants = Instants { most, ..Instants::default() };
        times.iter().for_each(|&time| instants.add(time));
        instants.cut(fraction)
    }

    #[test]
    fn the_last_fraction_in_whole_instants() {
        assert_eq!(cut(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.2, 99), Some(9));
        assert_eq!(cut(&[1, 1, 1, 1, 2, 2, 2, 2], 0.1, 99), Some(2));
        assert_eq!(cut(&[1, 2, 2, 2, 2, 2, 3], 0.3, 99), Some(3));
        assert_eq!(cut(&[5, 5, 5], 0.5, 99), None);
    }

    #[test]
    fn few_buckets_whatever_the_order() {
        let times: Vec<i64> = (-500..500).map(|n| n * 37 % 1000).collect();
        let mut sorted = times.clone();
        sorted.sort_unstable();
        assert_eq!(cut(&times, 0.1, 64), cut(&sorted, 0.1, 64));
        assert_eq!(cut(&times, 0.1, 64).unwrap() % 32, 0);
    }
}
