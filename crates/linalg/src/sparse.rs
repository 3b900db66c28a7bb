//! Products whose left factor is mostly zeros, such as image features behind a ReLU.
//!
//! One block of up to DEPTH columns at a time is listed: of every row the columns that are not
//! zero, ascending. A product then takes these alone. What is left out would have added zero times
//! a finite number, so the result is that of [`product`](super::product), bit for bit; the choice
//! between them is one of speed.

use half::f16;
use pulp::{Simd, WithSimd};

use super::kernel::{Destination, store};
use super::panels::Panels;
use super::widths::DEPTH;
use super::{Write, fit, widen};

/// A value other than zero, and its column in the block.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    column: u32,
    value: f32,
}

/// Places of a row: more than DEPTH, so that the places that one column fills in all rows do not
/// compete for the same few lines of a cache.
const PLACES: usize = DEPTH + 8;

/// A left factor (m, up to DEPTH), listed; reused from block to block.
#[derive(Clone, Debug, Default)]
pub struct Sparse {
    /// Places of each row, as many of them filled as `lens` says.
    entries: Vec<[Entry; PLACES]>,
    lens: Vec<u32>,
    x: Vec<f32>,
}

impl Sparse {
    /// Lists the `count` rows that `row` gives, of up to DEPTH halfs each.
    pub fn list_rows<'a>(&mut self, count: usize, row: impl Fn(usize) -> &'a [f16]) {
        self.clear(count);
        for (at, (entries, len)) in self.entries.iter_mut().zip(&mut self.lens).enumerate() {
            let halfs = row(at);
            let x = fit(&mut self.x, halfs.len());
            widen(x.len(), |_| halfs, x);
            let mut next = 0;
            for (column, value) in x.iter().enumerate() {
                // Written in any case, kept where it is not zero: there is no branch to guess.
                entries[next % DEPTH] = Entry { column: column as u32, value: *value };
                next += usize::from(*value != 0.0);
            }
            *len = next as u32;
        }
    }

    /// Lists the `columns` columns of the `count` rows, up to DEPTH, that `row` gives: the
    /// transposed matrix.
    pub fn list_columns<'a>(
        &mut self,
        columns: usize,
        count: usize,
        row: impl Fn(usize) -> &'a [f16],
    ) {
        assert!(count <= DEPTH, "{count} rows of a block");
        self.clear(columns);
        for at in 0..count {
            let x = fit(&mut self.x, columns);
            widen(columns, |_| row(at), x);
            let lists = self.entries.iter_mut().zip(&mut self.lens);
            for (value, (entries, len)) in x.iter().zip(lists) {
                let column = at as u32;
                entries[*len as usize % DEPTH] = Entry { column, value: *value };
                *len += u32::from(*value != 0.0);
            }
        }
    }

    fn clear(&mut self, rows: usize) {
        self.entries.resize(rows, [Entry::default(); PLACES]);
        self.lens.clear();
        self.lens.resize(rows, 0);
    }

    /// `c` (m, n) = `scale` * this * `b`, or += that; `b` is one block (up to DEPTH, n).
    pub fn product(&self, b: Panels, scale: f32, write: Write, c: &mut [f32]) {
        assert!(b.depth() <= DEPTH, "a block of {} rows", b.depth());
        assert_eq!(c.len(), self.lens.len() * b.columns(), "the destination");
        crate::arch().dispatch(Product { a: self, b, scale, write, c });
    }
}

/// How many of `halfs` are not zero.
pub fn count_values(halfs: &[f16]) -> usize {
    halfs.iter().map(|half| usize::from(half.to_bits() << 1 != 0)).sum()
}

struct Product<'a> {
    a: &'a Sparse,
    b: Panels<'a>,
    scale: f32,
    write: Write,
    c: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Product { a, b, scale, write, c } = self;
        let stride = b.columns();
        let zero = std::hint::black_box(0.0);
        for (first, width) in b.panels() {
            let columns = width.min(stride - first);
            let to = Destination { scale, write, stride, columns, zero };
            for (_, panel) in b.blocks(first, width) {
                let c = &mut c[first..];
                match width / S::F32_LANES {
                    1 => rows::<S, 1>(simd, a, panel, c, to),
                    2 => rows::<S, 2>(simd, a, panel, c, to),
                    3 => rows::<S, 3>(simd, a, panel, c, to),
                    4 => rows::<S, 4>(simd, a, panel, c, to),
                    vectors => unreachable!("a panel of {vectors} vectors"),
                }
            }
        }
    }
}

/// All rows of one panel, two at a time: two chains of additions are in flight for every vector.
#[inline(always)]
fn rows<S: Simd, const N: usize>(
    simd: S,
    a: &Sparse,
    panel: &[f32],
    c: &mut [f32],
    to: Destination,
) {
    let (panel, _) = S::as_simd_f32s(panel);
    let (panel, _) = panel.as_chunks::<N>();
    let list = |row: usize| &a.entries[row][..a.lens[row] as usize];
    let zero = [simd.splat_f32s(to.zero); N];
    let count = a.lens.len();
    let mut row = 0;
    while row < count {
        let pair = row + 1 < count;
        let (first, second) = (list(row), if pair { list(row + 1) } else { &[] });
        let (mut sum, mut other) = (zero, zero);
        let both = first.len().min(second.len());
        for (x, y) in first[..both].iter().zip(&second[..both]) {
            sum = add(simd, x, panel, sum);
            other = add(simd, y, panel, other);
        }
        for x in &first[both..] {
            sum = add(simd, x, panel, sum);
        }
        for y in &second[both..] {
            other = add(simd, y, panel, other);
        }
        store(simd, &sum, &mut c[row * to.stride..][..to.columns], to);
        if pair {
            store(simd, &other, &mut c[(row + 1) * to.stride..][..to.columns], to);
        }
        row += 2;
    }
}

/// `sums` + an entry times its row of the panel.
#[inline(always)]
fn add<S: Simd, const N: usize>(
    simd: S,
    entry: &Entry,
    panel: &[[S::f32s; N]],
    mut sums: [S::f32s; N],
) -> [S::f32s; N] {
    let (value, b) = (simd.splat_f32s(entry.value), &panel[entry.column as usize]);
    for j in 0..N {
        sums[j] = simd.mul_add_e_f32s(value, b[j], sums[j]);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use crate::{LeftFactor, Packed, product};

    #[test]
    fn zeros_left_out_do_not_show() {
        for ([m, n, k], zeros) in [([5, 70, 256], 0.8), ([6, 16, 100], 0.0), ([1, 200, 7], 1.0)] {
            let keep = values(1, m * k);
            let a = values(2, m * k).into_iter().zip(keep);
            let a = a.map(|(x, keep)| if keep.abs() < zeros { 0.0 } else { x });
            let halfs: Vec<f16> = a.map(f16::from_f32).collect();
            let wide: Vec<f32> = halfs.iter().map(|half| half.to_f32()).collect();
            let mut b = Packed::default();
            b.pack(k, n, &values(3, k * n));
            let (mut expected, mut c) = (vec![1.0; m * n], vec![1.0; m * n]);
            let left = LeftFactor::rows(&wide, k);
            product(m, left, b.panels(), 0.5, Write::Add, &mut expected);
            let mut sparse = Sparse::default();
            sparse.list_rows(m, |row| &halfs[row * k..][..k]);
            sparse.product(b.panels(), 0.5, Write::Add, &mut c);
            assert_eq!(c, expected);
            let transposed: Vec<f16> = (0..m * k).map(|at| halfs[at % m * k + at / m]).collect();
            sparse.list_columns(m, k, |row| &transposed[row * m..][..m]);
            product(m, left, b.panels(), 0.5, Write::Overwrite, &mut expected);
            b.pack_wide(k, n, &values(3, k * n));
            sparse.product(b.panels(), 0.5, Write::Overwrite, &mut c);
            assert_eq!(c, expected);
            let nonzero = wide.iter().filter(|x| **x != 0.0).count();
            assert_eq!(count_values(&halfs), nonzero);
        }
    }
}
