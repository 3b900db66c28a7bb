//! Ragged columns: values and offsets.

use std::ops::Range;

/// Where each row of a ragged column begins: `len + 1` ascending positions, the first one zero.
#[derive(Debug, PartialEq, Eq)]
pub struct Offsets(Vec<u32>);

/// Written out for `clone_from`, which keeps the memory; a derived one does not.
impl Clone for Offsets {
    fn clone(&self) -> Self {
        Offsets(self.0.clone())
    }

    fn clone_from(&mut self, from: &Self) {
        self.0.clone_from(&from.0);
    }
}

impl Default for Offsets {
    fn default() -> Self {
        Offsets(vec![0])
    }
}

impl Offsets {
    /// Number of rows, empty ones included.
    pub fn len(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of values over all rows.
    pub fn total(&self) -> usize {
        self.0[self.len()] as usize
    }

    /// The range of values of row `row`.
    pub fn range(&self, row: usize) -> Range<usize> {
        self.0[row] as usize..self.0[row + 1] as usize
    }

    /// Appends a row of `count` values.
    pub fn push(&mut self, count: usize) {
        self.0.push(position(self.total() + count));
    }

    /// Appends the rows `rows` of `from`.
    pub fn extend_from(&mut self, from: &Offsets, rows: Range<usize>) {
        let ends = &from.0[rows.start..=rows.end];
        let (before, first) = (self.0[self.len()], ends[0]);
        position(before as usize + (ends[ends.len() - 1] - first) as usize);
        self.0.extend(ends[1..].iter().map(|end| before + (end - first)));
    }

    /// The positions themselves, `len + 1` of them.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Removes every row, keeping the memory.
    pub fn clear(&mut self) {
        self.0.truncate(1);
    }
}

/// A place among the values, in four bytes.
fn position(at: usize) -> u32 {
    u32::try_from(at).expect("a block of samples holds fewer than 2^32 values")
}

/// A column of lists: row `i` is `values[offsets.range(i)]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Ragged<T> {
    /// Where each row begins.
    pub offsets: Offsets,
    /// The values of all rows, end to end.
    pub values: Vec<T>,
}

/// Written out for `clone_from`, which keeps the memory; a derived one does not.
impl<T: Clone> Clone for Ragged<T> {
    fn clone(&self) -> Self {
        Ragged { offsets: self.offsets.clone(), values: self.values.clone() }
    }

    fn clone_from(&mut self, from: &Self) {
        self.offsets.clone_from(&from.offsets);
        self.values.clone_from(&from.values);
    }
}

impl<T> Default for Ragged<T> {
    fn default() -> Self {
        Ragged { offsets: Offsets::default(), values: Vec::new() }
    }
}

impl<T: Copy> Ragged<T> {
    /// Number of rows, empty ones included.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The values of row `row`.
    pub fn row(&self, row: usize) -> &[T] {
        &self.values[self.offsets.range(row)]
    }

    /// As [`Ragged::row`], to be changed.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        let range = self.offsets.range(row);
        &mut self.values[range]
    }

    /// Appends one row, which may be empty.
    pub fn push(&mut self, row: &[T]) {
        self.values.extend_from_slice(row);
        self.offsets.push(row.len());
    }

    /// Appends the rows `rows` of `from`.
    pub fn extend_from(&mut self, from: &Ragged<T>, rows: Range<usize>) {
        let starts = from.offsets.as_slice();
        let values = starts[rows.start] as usize..starts[rows.end] as usize;
        self.values.extend_from_slice(&from.values[values]);
        self.offsets.extend_from(&from.offsets, rows);
    }

    /// Appends rows of one value or none.
    pub(crate) fn extend_options(&mut self, rows: impl ExactSizeIterator<Item = Option<T>>) {
        self.values.reserve(rows.len());
        self.offsets.0.reserve(rows.len());
        for row in rows {
            self.values.extend(row);
            self.offsets.0.push(self.values.len() as u32);
        }
        position(self.values.len());
    }

    /// Removes every row, keeping the memory.
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.values.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ragged(rows: &[&[u8]]) -> Ragged<u8> {
        let mut column = Ragged::default();
        rows.iter().for_each(|row| column.push(row));
        column
    }

    #[test]
    fn many_rows_at_once_are_the_same_as_one_by_one() {
        let from = ragged(&[&[1, 2], &[], &[3], &[4, 5, 6], &[]]);
        for begin in 0..=from.len() {
            for end in begin..=from.len() {
                let mut one_by_one = ragged(&[&[9], &[]]);
                let mut at_once = one_by_one.clone();
                (begin..end).for_each(|row| one_by_one.push(from.row(row)));
                at_once.extend_from(&from, begin..end);
                assert_eq!(at_once, one_by_one, "{begin}..{end}");
            }
        }
        let mut options = ragged(&[&[7, 8]]);
        options.extend_options([Some(1), None, Some(2)].into_iter());
        assert_eq!(options, ragged(&[&[7, 8], &[1], &[], &[2]]));
    }

    #[test]
    fn a_clone_into_something_keeps_its_memory() {
        let from = ragged(&[&[1, 2], &[3]]);
        let mut to = ragged(&[&[9; 100]]);
        let place = to.values.as_ptr();
        to.clone_from(&from);
        assert_eq!((&to, to.values.as_ptr()), (&from, place));
    }
}
