//! Tables over which changes lie.
//!
//! A table is an ascending list of hashes with a value each. A delta brings a smaller table of the
//! same kind, in which some keys are marked as gone. What deltas brought is merged into one such
//! layer; the table below stays as it is, in its file, shared by all states of the model. Looking
//! up asks the layer first.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::files::index::Index;
use crate::files::numbers::Numbers;

/// Values by place, one for each key of a table.
pub(crate) trait Values: Sized {
    /// The values that `order` names, out of these and `newer` ones.
    fn merged(&self, newer: &Self, order: &[MergeSource]) -> Self;
}

/// Where a value of a merged table comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MergeSource {
    /// The older table, at this position.
    Older(usize),
    /// The newer table, at this position.
    Newer(usize),
}

/// Ascending keys, each with a value or marked as removed.
#[derive(Clone, Debug)]
pub(crate) struct SortedTable<V> {
    index: Index,
    /// Of each key, whether it is gone; empty if none is.
    gone: Vec<bool>,
    pub values: V,
}

/// A table, and what lies over it.
#[derive(Clone, Debug)]
pub(crate) struct Layered<V> {
    base: Arc<SortedTable<V>>,
    over: Option<Arc<SortedTable<V>>>,
}

/// Where a key was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    over: bool,
    at: u32,
}

impl<V: Values> SortedTable<V> {
    /// A table of which the keys marked in `gone` are gone; none, if that is empty.
    pub(crate) fn new(index: Index, gone: Vec<bool>, values: V) -> SortedTable<V> {
        SortedTable { index, gone, values }
    }

    /// How many keys, with those that are gone.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    fn is_gone(&self, at: usize) -> bool {
        self.gone.get(at).copied().unwrap_or(false)
    }

    /// This table with the changes of `newer`.
    fn merged(&self, newer: &SortedTable<V>) -> SortedTable<V> {
        let (a, b) = (self.index.hashes(), newer.index.hashes());
        let (mut keys, mut order, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if j == b.len() || i < a.len() && a[i] < b[j] {
                keys.push(a[i]);
                gone.push(self.is_gone(i));
                order.push(MergeSource::Older(i));
                i += 1;
            } else {
                i += usize::from(i < a.len() && a[i] == b[j]);
                keys.push(b[j]);
                gone.push(newer.is_gone(j));
                order.push(MergeSource::Newer(j));
                j += 1;
            }
        }
        let index = Index::new(Numbers::from(keys)).expect("merged in ascending order");
        SortedTable { index, gone, values: self.values.merged(&newer.values, &order) }
    }
}

impl<V: Values> Layered<V> {
    /// With nothing over it.
    pub(crate) fn new(base: SortedTable<V>) -> Layered<V> {
        Layered::of(Arc::new(base))
    }

    /// The same of a table that is shared.
    pub(crate) fn of(base: Arc<SortedTable<V>>) -> Layered<V> {
        Layered { base, over: None }
    }

    /// The table of the bundle, below all deltas.
    pub(crate) fn base(&self) -> &SortedTable<V> {
        &self.base
    }

    /// A copy with the changes of a delta merged into the layer.
    pub(crate) fn apply(&self, delta: &Arc<SortedTable<V>>) -> Layered<V> {
        let over = match &self.over {
            _ if delta.len() == 0 => self.over.clone(),
            Some(over) => Some(Arc::new(over.merged(delta))),
            None => Some(Arc::clone(delta)),
        };
        Layered { base: Arc::clone(&self.base), over }
    }

    /// Where `key` is, if it is there.
    pub(crate) fn find(&self, key: u64) -> Option<Position> {
        if let Some(over) = &self.over
            && let Some(at) = over.index.find(key)
        {
            return (!over.is_gone(at as usize)).then_some(Position { over: true, at });
        }
        let at = self.base.index.find(key)?;
        (!self.base.is_gone(at as usize)).then_some(Position { over: false, at })
    }

    /// The values a key was found in, and where in them.
    pub(crate) fn at(&self, found: Position) -> (&V, usize) {
        let table = match &self.over {
            Some(over) if found.over => over,
            _ => &self.base,
        };
        (&table.values, found.at as usize)
    }

    /// The values that contain `key`, and its position in them.
    pub(crate) fn get(&self, key: u64) -> Option<(&V, usize)> {
        self.find(key).map(|found| self.at(found))
    }

    /// What lies over the base: each key, ascending, and where it is, or none if it is gone.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (u64, Option<Position>)> {
        self.over.iter().flat_map(|over| {
            let found =
                |at: u32| (!over.is_gone(at as usize)).then_some(Position { over: true, at });
            over.index.hashes().iter().zip(0..).map(move |(&key, at)| (key, found(at)))
        })
    }

    /// All keys that are there and where, those of the base first.
    pub(crate) fn all(&self) -> Vec<(u64, Position)> {
        let covered = |key| self.over.as_ref().is_some_and(|over| over.index.find(key).is_some());
        let mut all = Vec::with_capacity(self.base.len());
        for (table, over) in [(Some(&self.base), false), (self.over.as_ref(), true)] {
            let Some(table) = table else { continue };
            for (&key, at) in table.index.hashes().iter().zip(0..) {
                if !table.is_gone(at as usize) && (over || !covered(key)) {
                    all.push((key, Position { over, at }));
                }
            }
        }
        all
    }
}

/// The keys of `changes`, ascending, and which are gone.
pub(crate) fn keys<V>(changes: &BTreeMap<u64, Option<V>>) -> (Vec<u64>, Vec<u32>) {
    changes.iter().map(|(key, value)| (*key, u32::from(value.is_none()))).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Values for Vec<i32> {
        fn merged(&self, newer: &Self, order: &[MergeSource]) -> Self {
            let value = |from: &MergeSource| match *from {
                MergeSource::Older(at) => self[at],
                MergeSource::Newer(at) => newer[at],
            };
            order.iter().map(value).collect()
        }
    }

    /// Keys and values; no value: gone.
    type Entries = BTreeMap<u64, Option<i32>>;

    fn table(entries: &Entries) -> SortedTable<Vec<i32>> {
        let keys: Vec<u64> = entries.keys().copied().collect();
        let gone = entries.values().map(Option::is_none).collect();
        let values = entries.values().map(|value| value.unwrap_or(0)).collect();
        SortedTable::new(Index::new(Numbers::from(keys)).unwrap(), gone, values)
    }

    proptest! {
        #[test]
        fn looking_up_is_as_in_one_map(
            base in proptest::collection::btree_map(0..30_u64, 0..100, 0..20),
            deltas in proptest::collection::vec(
                proptest::collection::btree_map(0..30_u64, proptest::option::of(0..100), 0..10), 0..5),
        ) {
            let base: Entries = base.into_iter().map(|(key, value)| (key, Some(value))).collect();
            let mut layered = Layered::new(table(&base));
            let mut map = base;
            for delta in &deltas {
                layered = layered.apply(&Arc::new(table(delta)));
                map.extend(delta.iter().map(|(key, value)| (*key, *value)));
            }
            for key in 0..31 {
                let got = layered.get(key).map(|(values, at)| values[at]);
                prop_assert_eq!(got, map.get(&key).copied().flatten(), "key {}", key);
            }
            let mut keys: Vec<u64> = layered.all().into_iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            let expected = map.iter().filter_map(|(key, value)| value.map(|_| *key));
            prop_assert_eq!(keys, expected.collect::<Vec<_>>());
        }
    }
}
