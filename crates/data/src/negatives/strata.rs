//! Strata of items by popularity. Knows how often each item is a positive; not whose.
//!
//! Items lie on a line in order of popularity, the most popular first, each as long as it has
//! positives. A stratum is one of some equal pieces of the line; an item across an end is in two.

use crate::part_of;

/// The line of items.
#[derive(Default)]
pub(super) struct Strata {
    /// Positives of each item.
    counts: Vec<u64>,
    /// Items that have some, the most popular first, then in their order; and where each ends.
    line: Vec<(u32, u64)>,
}

impl Strata {
    /// For so many items.
    pub(super) fn new(items: usize) -> Strata {
        Strata { counts: vec![0; items], line: Vec::new() }
    }

    pub(super) fn add(&mut self, item: u32) {
        self.counts[item as usize] += 1;
    }

    pub(super) fn settle(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        let had = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        self.line = had.map(|(item, count)| (item as u32, count)).collect();
        self.line.sort_by_key(|&(item, count)| (std::cmp::Reverse(count), item));
        let mut end = 0;
        for (_, count) in &mut self.line {
            end += *count;
            *count = end;
        }
    }

    /// The item at `throw`, a random number, in stratum `at` of `of`; none if the stratum is empty.
    pub(super) fn propose(&self, at: u64, of: u64, throw: u64) -> Option<u32> {
        let &(_, all) = self.line.last()?;
        let begin = |at: u64| (u128::from(all) * u128::from(at) / u128::from(of)) as u64;
        let [start, end] = [begin(at), begin(at + 1)];
        let place = start + part_of(throw, usize::try_from(end - start).ok()?) as u64;
        let found = self.line.partition_point(|&(_, end)| end <= place);
        (start < end).then(|| self.line[found].0)
    }
}
