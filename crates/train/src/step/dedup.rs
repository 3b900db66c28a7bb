//! What one side of an exchange has to know to deduplicate: a map from ids to small numbers.
//!
//! [`Asks`] is the worker's view: every id it needs, once, by owner. [`Merge`] is the shard's view:
//! every id any lane asked for, once, in lane order. Neither ever iterates its hash map, so results
//! cannot depend on the map's order.

use std::hash::{BuildHasherDefault, Hasher};

use ams_data::part_of;
use ams_fabric::words;
use hashbrown::HashMap;

/// A map keyed by ids, which are hashes already.
pub type IdMap = HashMap<u64, u32, BuildHasherDefault<IdHasher>>;

/// Spreads an id, whose high bits are alike within a lane, over all bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are hashed as u64");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (id ^ (id >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The ids of one kind a worker needs for its micro-batch.
///
/// [`Asks::add`] gives an id its number in order of first need; [`Asks::close`] sorts the ids by
/// owner, after which [`Asks::place`] tells where the answer to a number will be.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    seen: IdMap,
    /// Ids in order of first need.
    ids: Vec<u64>,
    /// Ids by owner, within an owner in order of first need.
    by_owner: Vec<u64>,
    /// Where each owner's ids begin in `by_owner`; lanes + 1.
    starts: Vec<usize>,
    /// Number -> place in `by_owner`.
    places: Vec<u32>,
}

impl Asks {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.ids.clear();
    }

    /// The number of `id`, new or known.
    pub fn add(&mut self, id: u64) -> u32 {
        let next = self.ids.len() as u32;
        let number = *self.seen.entry(id).or_insert(next);
        if number == next {
            self.ids.push(id);
        }
        number
    }

    /// Sorts the ids by owner, of `lanes`.
    pub fn close(&mut self, lanes: usize) {
        self.starts.clear();
        self.starts.resize(lanes + 1, 0);
        for &id in &self.ids {
            self.starts[part_of(id, lanes) + 1] += 1;
        }
        for lane in 0..lanes {
            self.starts[lane + 1] += self.starts[lane];
        }
        let mut next = self.starts.clone();
        self.by_owner.resize(self.ids.len(), 0);
        self.places.resize(self.ids.len(), 0);
        for (place, &id) in self.places.iter_mut().zip(&self.ids) {
            let at = &mut next[part_of(id, lanes)];
            self.by_owner[*at] = id;
            *place = *at as u32;
            *at += 1;
        }
    }

    /// Number of different ids.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Where the answer to number `number` is, of all answers by owner.
    pub fn place(&self, number: u32) -> u32 {
        self.places[number as usize]
    }

    /// All ids, by owner.
    pub fn by_owner(&self) -> &[u64] {
        &self.by_owner
    }

    /// The ids that lane `lane` owns.
    pub fn of(&self, lane: usize) -> &[u64] {
        &self.by_owner[self.range(lane)]
    }

    /// Where the answers of lane `lane` are, of all answers by owner.
    pub fn range(&self, lane: usize) -> std::ops::Range<usize> {
        self.starts[lane]..self.starts[lane + 1]
    }
}

/// The ids of one kind that all lanes asked a shard for.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    seen: IdMap,
    /// Every id once, in lane order and within a lane in the order asked.
    pub ids: Vec<u64>,
    /// For every ask of every lane, end to end: which of `ids`.
    pub asks: Vec<u32>,
    /// Where each lane's asks begin; lanes + 1.
    starts: Vec<usize>,
}

impl Merge {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.seen.clear();
        self.ids.clear();
        self.asks.clear();
        self.starts.clear();
        self.starts.push(0);
    }

    /// Takes the asks of the next lane: two words an id.
    pub fn take(&mut self, words: &[u32]) {
        for id in words::numbers(words) {
            let next = self.ids.len() as u32;
            let number = *self.seen.entry(id).or_insert(next);
            if number == next {
                self.ids.push(id);
            }
            self.asks.push(number);
        }
        self.starts.push(self.asks.len());
    }

    /// Which of `ids` each ask of lane `lane` was for.
    pub fn of(&self, lane: usize) -> &[u32] {
        &self.asks[self.starts[lane]..self.starts[lane + 1]]
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
            assert_eq!(answers[asks.place(number) as usize], id);
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
        assert_eq!(merge.ids, [5 << 40, 8, 9]);
        assert_eq!([merge.of(0), merge.of(1), merge.of(2)], [&[0, 1][..], &[], &[2, 0]]);
    }
}
