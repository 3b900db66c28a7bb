//! A count-min sketch (Cormode and Muthukrishnan, 2005): occurrences of ids in little memory, as
//! they come. An id has one cell in each row; the least of them is its count, or more.
//!
//! Cells are raised only as far as the new count needs (conservative update), so most ids that are
//! alone in a cell are counted exactly.

/// Rows of cells, each with a hash of its own.
const ROWS: usize = 4;

/// Odd factors of the hashes.
const FACTORS: [u64; ROWS] =
    [0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db, 0x8ebc_6af0_9c88_c6e3];

/// Counts of ids that are never too low.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sketch {
    /// Bits of the number of a cell in its row.
    bits: u32,
    /// (ROWS, 2^bits).
    cells: Vec<u32>,
}

impl Sketch {
    /// A sketch of at most `bytes` bytes, or of the least there is, without counts.
    pub(crate) fn new(bytes: u64) -> Sketch {
        let cells = (bytes / (ROWS * size_of::<u32>()) as u64).max(2);
        let bits = cells.ilog2();
        Sketch { bits, cells: vec![0; ROWS << bits] }
    }

    /// Adds `count` occurrences of `id`; returns all of them so far, or more.
    pub(crate) fn add(&mut self, id: u64, count: u32) -> u32 {
        let mixed = id ^ (id >> 32);
        let places = std::array::from_fn::<usize, ROWS, _>(|row| {
            let hash = mixed.wrapping_mul(FACTORS[row]) >> (64 - self.bits);
            (row << self.bits) + hash as usize
        });
        let least = places.iter().map(|&place| self.cells[place]).min().unwrap_or(0);
        let all = least.saturating_add(count);
        places.iter().for_each(|&place| self.cells[place] = self.cells[place].max(all));
        all
    }

    /// The cells, for a checkpoint.
    pub(crate) fn cells(&self) -> &[u32] {
        &self.cells
    }

    /// Takes over the cells of a checkpoint; false if they are those of another size.
    pub(crate) fn restore(&mut self, cells: &[u32]) -> bool {
        let fits = cells.len() == self.cells.len();
        if fits {
            self.cells.copy_from_slice(cells);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Beside an exact count: never less, and where there is room rarely more.
    #[test]
    fn a_sketch_counts_no_id_too_few_times() {
        for (bytes, ids, most_wrong) in [(4_096, 5_000_u64, 5_000), (1 << 20, 5_000, 100)] {
            let mut sketch = Sketch::new(bytes);
            assert!(4 * sketch.cells().len() as u64 <= bytes);
            let (mut exact, mut wrong) = (HashMap::new(), 0);
            for round in 0..3_u32 {
                for id in (0..ids).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                    let all = exact.entry(id).or_insert(0);
                    *all += round + 1;
                    let counted = sketch.add(id, round + 1);
                    assert!(counted >= *all);
                    wrong += usize::from(round == 2 && counted > *all);
                }
            }
            assert!(wrong <= most_wrong, "{bytes} bytes: {wrong}");
        }
    }

    #[test]
    fn counts_end_at_the_largest_number_and_go_on_from_a_checkpoint() {
        let mut sketch = Sketch::new(4_096);
        assert_eq!((sketch.add(3, u32::MAX), sketch.add(3, 2)), (u32::MAX, u32::MAX));
        let mut again = Sketch::new(4_096);
        assert!(again.restore(sketch.cells()) && again == sketch);
        assert!(!Sketch::new(8_192).restore(sketch.cells()));
    }
}
