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
    /// All full but the last one. The first one grows by doubling, so that a small list is small;
    /// all others have their whole room from the start.
    pages: Vec<Vec<T>>,
}

impl<T: Copy + Default> Pages<T> {
    /// An empty list of rows of `width` numbers, at least 1.
    pub(super) fn new(width: usize) -> Pages<T> {
        assert!(width > 0, "a row has at least one number");
        let rows = PAGE / (width * size_of::<T>());
        Pages { width, shift: rows.max(1).ilog2(), len: 0, pages: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a row of zeros, to be filled.
    pub(super) fn push(&mut self) -> &mut [T] {
        let rows = 1 << self.shift;
        if self.len.is_multiple_of(rows) {
            let room = if self.len == 0 { 0 } else { rows * self.width };
            self.pages.push(Vec::with_capacity(room));
        }
        self.len += 1;
        let page = self.pages.last_mut().expect("there is a page with room");
        let start = page.len();
        page.resize(start + self.width, T::default());
        &mut page[start..]
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
        let in_page = at & ((1 << self.shift) - 1);
        ((at >> self.shift) as usize, in_page as usize * self.width)
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
