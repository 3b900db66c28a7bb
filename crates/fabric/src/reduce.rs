//! The sum of one slice over all processes: the same bits everywhere, and on any number of
//! processes.
//!
//! A reduce-scatter, ordered sums, an all-gather, in two exchanges:
//! ```text
//! every rank -> rank p:   its values of share p
//! rank p:                 adds what came, in rank order, along the tree of `sum`
//! rank p -> every rank:   the sum of share p
//! ```
//! A share is the p-th of `size` about equal runs of the slice. In bf16 two values travel in one
//! word.

use std::ops::Range;

use crate::sum::{self, Rounding};
use crate::{Fabric, Lost};

/// An all-reduce with its buffers.
#[derive(Debug, Default)]
pub struct AllReduce {
    rounding: Rounding,
    send: Vec<u32>,
    recv: Vec<u32>,
    counts: Vec<usize>,
    /// The share of this rank, from every rank.
    partials: Vec<f32>,
}

impl AllReduce {
    /// An all-reduce whose partial sums are rounded so.
    pub fn new(rounding: Rounding) -> AllReduce {
        AllReduce { rounding, ..AllReduce::default() }
    }

    /// How partial sums are rounded.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// Words that travel between `size` processes for `values` values, all directions together.
    pub fn words_moved(&self, values: usize, size: usize) -> usize {
        let share = |rank| words(share(values, rank, size).len(), self.rounding);
        2 * (size - 1) * (0..size).map(share).sum::<usize>()
    }

    /// Replaces `values` (same length everywhere, rounded already) by their sum over all ranks.
    ///
    /// # Errors
    /// As [`Fabric::exchange`].
    pub fn run(&mut self, fabric: &mut dyn Fabric, values: &mut [f32]) -> Result<(), Lost> {
        let (size, rank) = (fabric.size(), fabric.rank());
        if size == 1 {
            return Ok(());
        }
        let AllReduce { rounding, send, recv, counts, partials } = self;
        send.clear();
        counts.clear();
        for to in 0..size {
            let start = send.len();
            pack(&values[share(values.len(), to, size)], *rounding, send);
            counts.push(send.len() - start);
        }
        fabric.exchange(send, counts, recv)?;
        let mine = share(values.len(), rank, size).len();
        let each = words(mine, *rounding);
        partials.clear();
        for from in 0..size {
            unpack(&recv[from * each..(from + 1) * each], mine, *rounding, partials);
        }
        if mine > 0 {
            sum::tree(&mut partials.chunks_mut(mine).collect::<Vec<_>>(), *rounding);
        }
        send.clear();
        for _ in 0..size {
            pack(&partials[..mine], *rounding, send);
        }
        let got = fabric.exchange(send, &vec![each; size], recv)?;
        let mut at = 0;
        for (from, count) in got.into_iter().enumerate() {
            let range = share(values.len(), from, size);
            partials.clear();
            unpack(&recv[at..at + count], range.len(), *rounding, partials);
            values[range].copy_from_slice(partials);
            at += count;
        }
        Ok(())
    }
}

fn share(values: usize, rank: usize, size: usize) -> Range<usize> {
    values * rank / size..values * (rank + 1) / size
}

fn words(values: usize, rounding: Rounding) -> usize {
    match rounding {
        Rounding::Exact => values,
        Rounding::Bf16 => values.div_ceil(2),
    }
}

/// Appends `values`, which are rounded, as words.
fn pack(values: &[f32], rounding: Rounding, into: &mut Vec<u32>) {
    match rounding {
        Rounding::Exact => into.extend_from_slice(bytemuck::cast_slice(values)),
        Rounding::Bf16 => into.extend(values.chunks(2).map(|pair| {
            let high = pair.get(1).map_or(0, |value| value.to_bits() & 0xffff_0000);
            pair[0].to_bits() >> 16 | high
        })),
    }
}

/// Appends the `count` values in `words`.
fn unpack(words: &[u32], count: usize, rounding: Rounding, into: &mut Vec<f32>) {
    match rounding {
        Rounding::Exact => into.extend_from_slice(bytemuck::cast_slice(words)),
        Rounding::Bf16 => {
            let pairs = words.iter().flat_map(|word| [word << 16, word & 0xffff_0000]);
            into.extend(pairs.take(count).map(f32::from_bits));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metered, ThreadFabric};

    fn values(rank: usize, len: usize, rounding: Rounding) -> Vec<f32> {
        let value = |i: usize| ((i * 7 + rank * 13) as f32).sin() * 10f32.powi(rank as i32);
        (0..len).map(|i| rounding.round(value(i))).collect()
    }

    #[test]
    fn every_rank_gets_the_bits_of_the_tree_and_the_words_said() {
        // 3 values over 8 ranks: some ranks sum nothing.
        for (size, len) in [(1, 37), (2, 37), (4, 37), (8, 37), (8, 3), (4, 0)] {
            for rounding in [Rounding::Exact, Rounding::Bf16] {
                let mut parts: Vec<Vec<f32>> =
                    (0..size).map(|rank| values(rank, len, rounding)).collect();
                let mut slices: Vec<_> = parts.iter_mut().map(|part| &mut part[..]).collect();
                sum::tree(&mut slices, rounding);
                let got = ThreadFabric::run(size, |fabric| {
                    let mut fabric = Metered::new(Box::new(fabric));
                    let mut mine = values(fabric.rank(), len, rounding);
                    AllReduce::new(rounding).run(&mut fabric, &mut mine).unwrap();
                    (mine, fabric.meter().bytes)
                });
                let said = 4 * AllReduce::new(rounding).words_moved(len, size) as u64;
                assert_eq!(got.iter().map(|(_, bytes)| bytes).sum::<u64>(), said);
                for (mine, _) in got {
                    assert_eq!(mine, parts[0], "{size} ranks, {len} values, {rounding:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_arrives_as_such() {
        let got = ThreadFabric::run(2, |fabric| {
            let mut fabric = fabric;
            let mut mine = vec![1.0, f32::NAN, 3.0];
            AllReduce::new(Rounding::Bf16).run(&mut fabric, &mut mine).unwrap();
            mine
        });
        assert!(got.iter().all(|sum| sum[0] == 2.0 && sum[1].is_nan() && sum[2] == 6.0));
    }
}
