//! A list of rows that never move: growing it is one more page.

/// Bytes of a page, at most (a page holds at least one row).
const PAGE: usize = 1 << 20;

/// Rows of `width` numbers each.
#[derive(Clone, Debug)]
pub(super) struct Pages<T> {
    width: usize,
    /// Rows per page are 2^shift.
    shift: u32,
    len: usize,
    /// Rows that there will be at most.
    most: usize,
    /// All full but the last one with rows; behind it, pages whose rows were removed. The first
    /// one grows by doubling, so that a small list is small; all others have their whole room from
    /// the start.
    pages: Vec<Vec<T>>,
}

impl<T: Copy + Default> Pages<T> {
    /// An empty list of rows of `width` numbers, at least 1.
    pub(super) fn new(width: usize) -> Pages<T> {
        assert!(width > 0, "a row has at least one number");
        let rows = PAGE / (width * size_of::<T>());
        Pages { width, shift: rows.max(1).ilog2(), len: 0, most: usize::MAX, pages: Vec::new() }
    }

    /// Has no more memory than for `most` rows. For an empty list.
    pub(super) fn bound(&mut self, most: usize) {
        self.most = most;
    }

    /// Bytes of a list that is bound to `rows` rows of `width` numbers, at most.
    pub(super) fn bytes_of(rows: usize, width: usize) -> usize {
        let pages = Pages::<T>::new(width).locate_row(rows).0 + 1;
        rows * width * size_of::<T>() + 2 * pages.max(2) * size_of::<Vec<T>>()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a row of zeros, to be filled.
    pub(super) fn push(&mut self) -> &mut [T] {
        let (number, _) = self.locate_row(self.len);
        let rows = self.most.min(1 << self.shift);
        if number == self.pages.len() {
            let room = if number == 0 { 0 } else { rows.min(self.most - self.len) };
            self.pages.push(Vec::with_capacity(room * self.width));
        }
        self.len += 1;
        let page = &mut self.pages[number];
        let start = page.len();
        if start == page.capacity() {
            page.reserve_exact(start.max(self.width).min(rows * self.width - start));
        }
        page.resize(start + self.width, T::default());
        &mut page[start..]
    }

    /// Removes the last row; its memory is that of the next one.
    pub(super) fn pop(&mut self) {
        self.len -= 1;
        let (page, start) = self.locate_row(self.len);
        self.pages[page].truncate(start);
    }

    /// Copies row `from` over the row `to` before it.
    pub(super) fn copy(&mut self, from: u32, to: u32) {
        let ((page, start), (into, at)) = (self.locate(from), self.locate(to));
        let row = start..start + self.width;
        if page == into {
            self.pages[page].copy_within(row, at);
        } else {
            let (before, rest) = self.pages.split_at_mut(page);
            before[into][at..at + self.width].copy_from_slice(&rest[0][row]);
        }
    }

    /// Row `at`, which exists; (width).
    pub(super) fn get(&self, at: u32) -> &[T] {
        let (page, start) = self.locate(at);
        &self.pages[page][start..start + self.width]
    }

    /// Row `at`, to be changed.
    pub(super) fn get_mut(&mut self, at: u32) -> &mut [T] {
        let (page, start) = self.locate(at);
        &mut self.pages[page][start..start + self.width]
    }

    /// Bytes allocated, used or not.
    pub(super) fn bytes(&self) -> usize {
        let rows: usize = self.pages.iter().map(Vec::capacity).sum();
        rows * size_of::<T>() + self.pages.capacity() * size_of::<Vec<T>>()
    }

    fn locate(&self, at: u32) -> (usize, usize) {
        self.locate_row(at as usize)
    }

    /// Page and beginning in it of row `at`.
    fn locate_row(&self, at: usize) -> (usize, usize) {
        let in_page = at & ((1 << self.shift) - 1);
        (at >> self.shift, in_page * self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_about_a_megabyte_and_small_lists_less() {
        // Width, rows, most bytes per byte of content.
        for (width, rows, most) in [
            (1, 1, 28.0),
            (36, 1, 2.0),
            (36, 5_000, 1.7),
            (36, 1 << 16, 1.001),
            (1 << 20, 3, 1.001),
        ] {
            let mut pages = Pages::<f32>::new(width);
            (0..rows).for_each(|row| pages.push().fill(row as f32));
            for row in 0..rows {
                assert_eq!(pages.get(row as u32), vec![row as f32; width]);
            }
            assert_eq!(pages.len(), rows);
            let content = (rows * width * size_of::<f32>()) as f64;
            let ratio = pages.bytes() as f64 / content;
            assert!((1.0..=most).contains(&ratio), "{width} {rows}: {ratio}");
        }
    }

    #[test]
    fn a_bound_list_takes_what_its_rows_take_and_its_memory_again() {
        for (width, most) in [(1, 5), (36, 5_000), (36, 100_000), (1 << 19, 3)] {
            let mut pages = Pages::<f32>::new(width);
            pages.bound(most);
            for round in 1..4 {
                (pages.len()..most).for_each(|row| {
                    let new = pages.push();
                    assert!(new.iter().all(|value| *value == 0.0));
                    new.fill((round * row) as f32);
                });
                let bytes = pages.bytes();
                assert!(bytes <= Pages::<f32>::bytes_of(most, width), "{width} {most}: {bytes}");
                let left = most / (2 * round);
                pages.copy(most as u32 - 1, left as u32);
                (left + 1..most).for_each(|_| pages.pop());
                assert_eq!(pages.get(left as u32), vec![(round * (most - 1)) as f32; width]);
                assert_eq!((pages.len(), pages.bytes()), (left + 1, bytes));
            }
        }
    }

    #[test]
    fn what_is_there_stays_where_it_is() {
        let mut pages = Pages::<u64>::new(1);
        let rows = 3 * PAGE / size_of::<u64>();
        let second = PAGE / size_of::<u64>();
        (0..=second).for_each(|_| {
            pages.push();
        });
        let address = pages.get(second as u32).as_ptr();
        (second..rows).for_each(|_| {
            pages.push();
        });
        assert_eq!(pages.get(second as u32).as_ptr(), address);
    }
}
