//! Numeric fields: the edges between buckets, and the quantiles they are taken from.

use hashbrown::HashMap;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Id;

/// Most buckets of a numeric field.
pub(crate) const MOST_BUCKETS: usize = 32;

/// Ranges of numbers, each an id: bucket k holds the values from edge k-1 up to, but without, edge
/// k. Values below the first edge or above the last fall into the buckets at the ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Buckets {
    edges: Vec<f64>,
}

// Edges are finite, so equality is total.
impl Eq for Buckets {}

impl<'de> Deserialize<'de> for Buckets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Buckets, D::Error> {
        Buckets::new(Vec::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Buckets {
    /// Buckets between `edges`, which ascend.
    ///
    /// # Errors
    /// If they are not finite or do not ascend.
    pub fn new(edges: Vec<f64>) -> Result<Buckets, String> {
        if let Some(edge) = edges.iter().find(|edge| !edge.is_finite()) {
            return Err(format!("an edge is {edge}; expected finite numbers"));
        }
        if let Some(pair) = edges.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("edge {} is followed by {}; edges ascend", pair[0], pair[1]));
        }
        Ok(Buckets { edges })
    }

    /// The edges, in strictly ascending order.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// The bucket of `value`: how many edges are not above it.
    pub fn place(&self, value: f64) -> usize {
        self.edges.partition_point(|edge| *edge <= value)
    }

    /// The id of `value` in the field `field`: the hash of its bucket's number in decimal.
    pub fn id(&self, field: &str, value: f64) -> Id {
        Id::of(field, &self.place(value).to_string())
    }
}

/// Distinct values held before neighbors are counted together.
const MOST_VALUES: usize = 1 << 16;

/// How often which numbers occurred, in bounded memory: exact up to 65,536 distinct values, then
/// neighbors whose leading bits agree are one. Depends on the numbers alone, neither on their order
/// nor on how they were merged.
#[derive(Clone, Debug, Default)]
pub struct Sketch {
    /// Bits left out of the keys.
    shift: u32,
    counts: HashMap<u64, u64>,
}

impl Sketch {
    /// Counts `value` `times` times; infinities are not counted.
    pub fn add(&mut self, value: f64, times: u64) {
        if value.is_finite() && times > 0 {
            *self.counts.entry(ordered(value) >> self.shift).or_default() += times;
            self.shrink();
        }
    }

    /// Counts what `other` counted.
    pub fn merge(&mut self, other: &Sketch) {
        while self.shift < other.shift {
            self.coarsen();
        }
        for (&key, &count) in &other.counts {
            *self.counts.entry(key >> (self.shift - other.shift)).or_default() += count;
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.counts.len() > MOST_VALUES {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.shift += 1;
        let mut wider = HashMap::new();
        for (key, count) in std::mem::take(&mut self.counts) {
            *wider.entry(key >> 1).or_default() += count;
        }
        self.counts = wider;
    }

    /// Edges that divide the counted values into at most [`MOST_BUCKETS`] buckets of about equal
    /// size. Where there are no more distinct values than buckets, each has one of its own.
    pub fn buckets(&self) -> Buckets {
        let mut counts: Vec<(u64, u64)> = self.counts.iter().map(|(&k, &n)| (k, n)).collect();
        counts.sort_unstable();
        let value = |key: u64| unordered(key << self.shift);
        let total: u128 = counts.iter().map(|&(_, count)| u128::from(count)).sum();
        let mut edges: Vec<f64> = Vec::new();
        let mut before = 0_u128;
        let mut begun = 0_u128;
        for (at, &(key, count)) in counts.iter().enumerate() {
            // The bucket that `before` values lie in front of; an edge stands where a new one
            // begins.
            let bucket = before * MOST_BUCKETS as u128 / total;
            if at > 0 && (counts.len() <= MOST_BUCKETS || bucket > begun) {
                edges.push(value(key));
                begun = bucket;
            }
            before += u128::from(count);
        }
        edges.dedup();
        Buckets { edges }
    }
}

/// A key that orders as the numbers do; -0 is 0.
fn ordered(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn unordered(key: u64) -> f64 {
    f64::from_bits(if key >> 63 == 1 { key & !(1 << 63) } else { !key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|&value| sketch.add(value, 1));
        sketch
    }

    #[test]
    fn few_values_have_a_bucket_each() {
        let buckets = sketch(&[3.0, 1.0, 2.5, 1.0, 1.0]).buckets();
        assert_eq!(buckets.edges(), [2.5, 3.0]);
        assert_eq!([0.0, 1.0, 2.4, 2.5, 3.0, 99.0].map(|v| buckets.place(v)), [0, 0, 0, 1, 2, 2]);
        assert_eq!(buckets.place(f64::INFINITY), 2);
        assert_eq!(buckets.place(f64::NEG_INFINITY), 0);
        assert_eq!(buckets.id("price", 2.7), Id::of("price", "1"));
    }

    #[test]
    fn many_values_are_divided_evenly() {
        let values: Vec<f64> = (0..3200).map(f64::from).collect();
        let buckets = sketch(&values).buckets();
        assert_eq!(buckets.edges().len(), MOST_BUCKETS - 1);
        let mut sizes = [0; MOST_BUCKETS];
        values.iter().for_each(|&value| sizes[buckets.place(value)] += 1);
        assert_eq!(sizes, [100; MOST_BUCKETS]);
    }

    #[test]
    fn a_value_that_is_most_of_all_has_a_bucket_of_its_own() {
        let mut values = vec![0.0; 900];
        values.extend((1..=100).map(f64::from));
        let buckets = sketch(&values).buckets();
        assert_eq!(buckets.edges()[0], 1.0);
        assert!(buckets.edges().len() >= 3);
    }

    #[test]
    fn edges_as_json() {
        let read = |text: &str| serde_json::from_str::<Buckets>(text).map_err(|e| e.to_string());
        assert_eq!(read("[1, 2.5]").unwrap().edges(), [1.0, 2.5]);
        assert!(read("[2, 1]").unwrap_err().contains("edges ascend"));
        assert_eq!(serde_json::to_string(&read("[-0.1]").unwrap()).unwrap(), "[-0.1]");
        assert_eq!(Sketch::default().buckets(), Buckets::default());
    }

    #[test]
    fn many_distinct_values_in_bounded_memory_whatever_the_order() {
        let values: Vec<f64> = (0..200_000_u32)
            .map(|n| f64::from(n.wrapping_mul(2_654_435_761) % 1_000_003) - 300_000.0)
            .collect();
        let whole = sketch(&values);
        assert!(whole.counts.len() <= MOST_VALUES);
        let mut parts = sketch(&values[150_000..]);
        parts.merge(&sketch(&values[..70_000]));
        parts.merge(&sketch(&values[70_000..150_000]));
        assert_eq!(parts.buckets(), whole.buckets());
        let buckets = whole.buckets();
        let mut sizes = vec![0_i64; buckets.edges().len() + 1];
        values.iter().for_each(|&value| sizes[buckets.place(value)] += 1);
        assert!(sizes.iter().all(|size| (size - 6_250).abs() < 700), "{sizes:?}");
    }

    proptest! {
        #[test]
        fn keys_order_as_numbers(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(a.partial_cmp(&b), Some(ordered(a).cmp(&ordered(b))));
            prop_assert_eq!(unordered(ordered(a)), a);
        }
    }
}
