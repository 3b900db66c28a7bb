//! Deduplication on both sides of an exchange: from keys to small numbers. A key is an id or an
//! image key, both of them hashes of 64 bits; its number counts keys in order of first need.
//!
//! [`Asks`] is the worker's view: every key it needs, once, by owner. [`Merge`] is the shard's
//! view: every key any lane asked for, once, in lane order. Neither ever iterates its hash map, so
//! results cannot depend on the map's order.

use ams_data::{IdMap, part_of};
use ams_fabric::words;

/// The keys of one kind a worker needs for its micro-batch.
///
/// [`Asks::add`] gives a key its number in order of first need; [`Asks::close`] sorts the keys by
/// owner, after which [`Asks::position`] tells where the answer to a number is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asks {
    seen: IdMap,
    /// Keys in order of first need.
    keys: Vec<u64>,
    /// Keys by owner, within an owner in order of first need.
    by_owner: Vec<u64>,
    /// Where each owner's keys begin in `by_owner`; lanes + 1.
    starts: Vec<usize>,
    /// Number -> position in `by_owner`.
    positions: Vec<u32>,
}

impl Asks {
    /// Forgets everything, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
        self.keys.clear();
    }

    /// The number of `key`, new or known.
    pub(crate) fn add(&mut self, key: u64) -> u32 {
        let next = self.keys.len() as u32;
        let number = *self.seen.entry(key).or_insert(next);
        if number == next {
            self.keys.push(key);
        }
        number
    }

    /// Sorts the keys by owner, of `lanes`.
    pub(crate) fn close(&mut self, lanes: usize) {
        self.starts.clear();
        self.starts.resize(lanes + 1, 0);
        for &key in &self.keys {
            self.starts[part_of(key, lanes) + 1] += 1;
        }
        for lane in 0..lanes {
            self.starts[lane + 1] += self.starts[lane];
        }
        let mut next = self.starts.clone();
        self.by_owner.resize(self.keys.len(), 0);
        self.positions.resize(self.keys.len(), 0);
        for (position, &key) in self.positions.iter_mut().zip(&self.keys) {
            let at = &mut next[part_of(key, lanes)];
            self.by_owner[*at] = key;
            *position = *at as u32;
            *at += 1;
        }
    }

    /// Number of different keys.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The position of the answer to `number` among all answers by owner.
    pub(crate) fn position(&self, number: u32) -> u32 {
        self.positions[number as usize]
    }

    /// All keys, by owner.
    pub(crate) fn by_owner(&self) -> &[u64] {
        &self.by_owner
    }

    /// The keys that lane `lane` owns.
    pub(crate) fn of(&self, lane: usize) -> &[u64] {
        &self.by_owner[self.range(lane)]
    }

    /// The positions of the answers of lane `lane` among all answers by owner.
    pub(crate) fn range(&self, lane: usize) -> std::ops::Range<usize> {
        self.starts[lane]..self.starts[lane + 1]
    }
}

/// The keys of one kind that all lanes asked a shard for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merge {
    seen: IdMap,
    /// Every key once, in lane order and within a lane in the order asked.
    pub keys: Vec<u64>,
    /// For every ask of every lane, end to end: its number, an index of `keys`.
    numbers: Vec<u32>,
    /// Where each lane's asks begin; lanes + 1.
    starts: Vec<usize>,
}

impl Merge {
    /// Forgets everything, keeping the memory.
    pub(crate) fn clear(&mut self) {
        self.seen.clear();
        self.keys.clear();
        self.numbers.clear();
        self.starts.clear();
        self.starts.push(0);
    }

    /// Takes the asks of the next lane: two words a key.
    pub(crate) fn take(&mut self, words: &[u32]) {
        for key in words::numbers(words) {
            let next = self.keys.len() as u32;
            let number = *self.seen.entry(key).or_insert(next);
            if number == next {
                self.keys.push(key);
            }
            self.numbers.push(number);
        }
        self.starts.push(self.numbers.len());
    }

    /// The number of each key that lane `lane` asked for, in the order asked.
    pub(crate) fn of(&self, lane: usize) -> &[u32] {
        &self.numbers[self.starts[lane]..self.starts[lane + 1]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_found_where_the_owner_puts_them() {
        let ids = [7, u64::MAX, 3 << 62, 7, 1 << 62, 9, u64::MAX];
        let mut asks = Asks::default();
        let numbers: Vec<u32> = ids.iter().map(|&id| asks.add(id)).collect();
        asks.close(4);
        assert_eq!(numbers, [0, 1, 2, 0, 3, 4, 1]);
        assert_eq!(
            (0..4).map(|lane| asks.of(lane).to_vec()).collect::<Vec<_>>(),
            [vec![7, 9], vec![1 << 62], vec![], vec![u64::MAX, 3 << 62]]
        );
        let answers: Vec<u64> = (0..4).flat_map(|lane| asks.of(lane).to_vec()).collect();
        for (&id, &number) in ids.iter().zip(&numbers) {
            assert_eq!(answers[asks.position(number) as usize], id);
        }
    }

    #[test]
    fn merged_asks_keep_lane_order() {
        let words = |ids: &[u64]| -> Vec<u32> {
            ids.iter().flat_map(|&id| [id as u32, (id >> 32) as u32]).collect()
        };
        let mut merge = Merge::default();
        merge.clear();
        merge.take(&words(&[5 << 40, 8]));
        merge.take(&words(&[]));
        merge.take(&words(&[9, 5 << 40]));
        assert_eq!(merge.keys, [5 << 40, 8, 9]);
        assert_eq!([merge.of(0), merge.of(1), merge.of(2)], [&[0, 1][..], &[], &[2, 0]]);
    }
}
