//! Ragged columns: values and offsets.

/// Where each row of a ragged column begins: `len + 1` ascending positions, the first one zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets(Vec<u32>);

impl Default for Offsets {
    fn default() -> Self {
        Offsets(vec![0])
    }
}

impl Offsets {
    /// Number of rows.
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
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.0[row] as usize..self.0[row + 1] as usize
    }

    /// Appends a row of `count` values.
    pub fn push(&mut self, count: usize) {
        let end = self.total() + count;
        self.0.push(u32::try_from(end).expect("a block of samples holds fewer than 2^32 values"));
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

/// A column of lists: row `i` is `values[offsets.range(i)]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Ragged<T> {
    /// Where each row begins.
    pub offsets: Offsets,
    /// The values of all rows, end to end.
    pub values: Vec<T>,
}

impl<T: Clone> Clone for Ragged<T> {
    fn clone(&self) -> Self {
        let Ragged { offsets, values } = self;
        Ragged { offsets: offsets.clone(), values: values.clone() }
    }

    /// Keeps the memory, as the derived one would not.
    fn clone_from(&mut self, other: &Self) {
        self.offsets.0.clone_from(&other.offsets.0);
        self.values.clone_from(&other.values);
    }
}

impl<T> Default for Ragged<T> {
    fn default() -> Self {
        Ragged { offsets: Offsets::default(), values: Vec::new() }
    }
}

impl<T: Copy> Ragged<T> {
    /// Number of rows.
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

    /// Appends a row.
    pub fn push(&mut self, row: &[T]) {
        self.values.extend_from_slice(row);
        self.offsets.push(row.len());
    }

    /// Removes every row, keeping the memory.
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.values.clear();
    }
}
