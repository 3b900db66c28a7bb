//! The inner loops of a matrix product, for whatever vectors the processor has.
//!
//! A tile of the destination, such as 12 rows of two vectors (6 where a processor has only 16
//! registers), is summed in registers over up to [`DEPTH`](super::DEPTH) products, then scaled and
//! written. An element is always the same sum in the same order, one fused multiply-add after the
//! other, wherever its tile begins and however wide vectors are: it depends on its own row, its own
//! column and nothing else, and has the same bits on every processor that fuses.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};

use super::Write;
use super::left::LeftFactor;
use super::panels::Right;
use super::widths::Widths;

/// `c`, m rows `stride` apart, = `scale` * `a` * `b`, or += that.
pub(super) struct Product<'a, 'h> {
    pub m: usize,
    pub a: LeftFactor<'a>,
    pub b: Right<'a>,
    pub scale: f32,
    pub write: Write,
    pub c: &'a mut [f32],
    pub stride: usize,
    /// Called before each tile.
    pub prefetch: Option<&'h mut (dyn FnMut() + 'h)>,
}

impl Product<'_, '_> {
    pub(crate) fn run(self) {
        let (m, depth) = (self.m, self.b.depth());
        if m == 0 || self.b.columns() == 0 {
            return;
        }
        self.a.assert_reaches(m, depth);
        assert!(self.c.len() >= (m - 1) * self.stride + self.b.columns(), "the destination");
        thread_local! {
            static PANEL: RefCell<Vec<f32>> = RefCell::default();
        }
        PANEL.with_borrow_mut(|room| crate::arch().dispatch(Packing { product: self, room }));
    }
}

/// A product, and room for a panel that is not packed yet.
pub(super) struct Packing<'a, 'h, 'r> {
    pub product: Product<'a, 'h>,
    pub room: &'r mut Vec<f32>,
}

impl WithSimd for Packing<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Packing { product, room } = self;
        let Product { m, a, b, scale, write, c, stride, mut prefetch } = product;
        // A zero that the compiler does not know: it would have tiles of known zeros written to
        // memory and read back.
        let zero = std::hint::black_box(0.0);
        for (first, width) in b.panels(Widths::of::<S>().usual) {
            let columns = width.min(b.columns() - first);
            for (from, block) in b.blocks() {
                let panel = b.panel([first, width], [from, block], room);
                // A sum of several blocks adds all but its first one.
                let write = if from > 0 { Write::Add } else { write };
                let to = Destination { scale, write, stride, columns, zero };
                let (a, c) = (a.after(from), &mut c[first..]);
                match width / S::F32_LANES {
                    1 => rows::<S, 1>(simd, m, a, panel, c, to, &mut prefetch),
                    2 => rows::<S, 2>(simd, m, a, panel, c, to, &mut prefetch),
                    3 => rows::<S, 3>(simd, m, a, panel, c, to, &mut prefetch),
                    4 => rows::<S, 4>(simd, m, a, panel, c, to, &mut prefetch),
                    vectors => unreachable!("a panel of {vectors} vectors"),
                }
            }
        }
    }
}

/// How a panel's product is written.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub scale: f32,
    pub write: Write,
    pub stride: usize,
    /// Columns of the destination, not more than the panel has.
    pub columns: usize,
    /// What sums begin with.
    pub zero: f32,
}

/// All rows of one panel, `panel` being (depth, N vectors).
#[inline(always)]
fn rows<S: Simd, const N: usize>(
    simd: S,
    m: usize,
    a: LeftFactor,
    panel: &[f32],
    c: &mut [f32],
    to: Destination,
    prefetch: &mut Option<&mut dyn FnMut()>,
) {
    let (panel, _) = S::as_simd_f32s(panel);
    let (panel, _) = panel.as_chunks::<N>();
    a.assert_reaches(m, panel.len());
    let mut i = 0;
    // As many rows as there are registers for.
    if (N == 1 || (N == 2 && S::REGISTER_COUNT >= 32)) && a.rows_of_tile() >= 12 {
        while i + 12 <= m {
            tile::<S, 12, N>(simd, a, i, panel, c, to, prefetch);
            i += 12;
        }
    }
    while i + 6 <= m {
        tile::<S, 6, N>(simd, a, i, panel, c, to, prefetch);
        i += 6;
    }
    if i + 4 <= m {
        tile::<S, 4, N>(simd, a, i, panel, c, to, prefetch);
        i += 4;
    }
    if i + 2 <= m {
        tile::<S, 2, N>(simd, a, i, panel, c, to, prefetch);
        i += 2;
    }
    if i < m {
        tile::<S, 1, N>(simd, a, i, panel, c, to, prefetch);
    }
}

/// Rows `first` to `first + M`, which `a` has for every row of `panel`.
#[inline(always)]
fn tile<S: Simd, const M: usize, const N: usize>(
    simd: S,
    a: LeftFactor,
    first: usize,
    panel: &[[S::f32s; N]],
    c: &mut [f32],
    to: Destination,
    prefetch: &mut Option<&mut dyn FnMut()>,
) {
    if let Some(prefetch) = prefetch {
        prefetch();
    }
    // SAFETY: `rows` asserts that `a` reaches its last row (of which `first + M - 1` is one) in the
    // last column of the panel.
    #[allow(unsafe_code)]
    let sums: [[S::f32s; N]; M] =
        unsafe { unchecked_sums(simd, simd.splat_f32s(to.zero), a, first, panel) };
    // All columns, as most panels have: sums go from their registers to the destination.
    if to.columns == N * S::F32_LANES {
        let scale = simd.splat_f32s(to.scale);
        for (i, sums) in sums.iter().enumerate() {
            let row = &mut c[(first + i) * to.stride..][..N * S::F32_LANES];
            let row = S::as_mut_simd_f32s(row).0.first_chunk_mut::<N>().expect("a whole row");
            for j in 0..N {
                row[j] = match to.write {
                    Write::Overwrite => simd.mul_f32s(scale, sums[j]),
                    Write::Add => simd.mul_add_e_f32s(scale, sums[j], row[j]),
                };
            }
        }
    } else {
        for (i, sums) in sums.iter().enumerate() {
            store(simd, sums, &mut c[(first + i) * to.stride..][..to.columns], to);
        }
    }
}

/// Rows `first` to `first + M` of `a` times `panel`, from `zero` on, in registers: for products of
/// which more is made before they reach memory. Sums are those of a product of one block of depth.
///
/// # Panics
/// If `a` has no such rows, as long as `panel` is, or is in tiles.
#[inline(always)]
pub fn sums<S: Simd, const M: usize, const N: usize>(
    simd: S,
    zero: S::f32s,
    a: LeftFactor,
    first: usize,
    panel: &[[S::f32s; N]],
) -> [[S::f32s; N]; M] {
    assert!(a.rows_of_tile() == usize::MAX, "a factor in tiles");
    a.assert_reaches(first + M, panel.len());
    // SAFETY: as asserted.
    #[allow(unsafe_code)]
    unsafe {
        unchecked_sums(simd, zero, a, first, panel)
    }
}

/// As [`sums`].
///
/// Where another program shares the core, a step costs what its instructions cost to issue. So the
/// numbers of a step are a constant away from each other one way, and a test is made every few
/// steps.
///
/// # Safety
/// `a` reaches row `first + M - 1` in the last column of the panel.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn unchecked_sums<S: Simd, const M: usize, const N: usize>(
    simd: S,
    zero: S::f32s,
    a: LeftFactor,
    first: usize,
    panel: &[[S::f32s; N]],
) -> [[S::f32s; N]; M] {
    let mut sums = [[zero; N]; M];
    if panel.is_empty() {
        return sums;
    }
    let (row, column, start) = (a.row(), a.column(), a.start(first));
    // SAFETY: the caller's promise is about its last row and column, and it has a column.
    let mut at = unsafe { a.data().as_ptr().add(start) };
    // SAFETY: rows to `M` and columns to the length of the panel, as promised; `at` goes on to one
    // after the last column at most, whose address alone is computed.
    unsafe {
        if column == 1 {
            let (fours, rest) = panel.as_chunks::<STEPS>();
            for four in fours {
                for (column, b) in four.iter().enumerate() {
                    add_column(simd, |i| *at.add(i * row + column), b, &mut sums);
                }
                at = at.wrapping_add(STEPS);
            }
            for (column, b) in rest.iter().enumerate() {
                add_column(simd, |i| *at.add(i * row + column), b, &mut sums);
            }
        } else {
            debug_assert_eq!(row, 1, "rows of a factor that is not in rows");
            let (twos, rest) = panel.as_chunks::<2>();
            for two in twos {
                add_column(simd, |i| *at.add(i), &two[0], &mut sums);
                add_column(simd, |i| *at.add(column + i), &two[1], &mut sums);
                at = at.wrapping_add(2 * column);
            }
            if let [b] = rest {
                add_column(simd, |i| *at.add(i), b, &mut sums);
            }
        }
    }
    sums
}

/// Columns of a left factor between two tests of whether there are more.
const STEPS: usize = 4;

/// Adds to `sums` a column of the left factor, `a`, times a row of the right one.
#[inline(always)]
fn add_column<S: Simd, const M: usize, const N: usize>(
    simd: S,
    a: impl Fn(usize) -> f32,
    b: &[S::f32s; N],
    sums: &mut [[S::f32s; N]; M],
) {
    for (i, sums) in sums.iter_mut().enumerate() {
        let a = simd.splat_f32s(a(i));
        for j in 0..N {
            sums[j] = simd.mul_add_e_f32s(a, b[j], sums[j]);
        }
    }
}

/// Writes the sums of one row.
#[inline(always)]
pub(super) fn store<S: Simd, const N: usize>(
    simd: S,
    sums: &[S::f32s; N],
    row: &mut [f32],
    to: Destination,
) {
    let scale = simd.splat_f32s(to.scale);
    let (whole, part) = S::as_mut_simd_f32s(row);
    for (sum, c) in sums.iter().zip(&mut *whole) {
        *c = match to.write {
            Write::Overwrite => simd.mul_f32s(scale, *sum),
            Write::Add => simd.mul_add_e_f32s(scale, *sum, *c),
        };
    }
    if !part.is_empty() {
        let sum = sums[whole.len()];
        let value = match to.write {
            Write::Overwrite => simd.mul_f32s(scale, sum),
            Write::Add => simd.mul_add_e_f32s(scale, sum, simd.partial_load_f32s(part)),
        };
        simd.partial_store_f32s(part, value);
    }
}
