//! Matrix products on row-major slices, single-threaded, with the shapes asserted.
//!
//! ```
//! use ams_linalg::{Write, a_bt};
//!
//! // (2, 3) times the transposed of (1, 3), halved.
//! let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let mut c = [9.0, 9.0];
//! a_bt([2, 1, 3], &a, &[1.0, 0.0, -1.0], 0.5, Write::Overwrite, &mut c);
//! assert_eq!(c, [-1.0, -1.0]);
//! a_bt([2, 1, 3], &a, &[1.0, 0.0, -1.0], 0.5, Write::Add, &mut c);
//! assert_eq!(c, [-2.0, -2.0]);
//! ```
//!
//! Knows rows, columns and strides; not what a matrix means. The kernel is ours because the towers'
//! products are what a training step is made of: it reads halfs without a pass of their own, packs
//! a tower's weights once for all lanes, and gives the same bits whatever the vectors of the
//! processor.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

#[doc(hidden)]
pub mod check;
mod codebooks;
mod kernel;
mod left;
mod panels;
mod peak;
mod processor;
mod projection;
mod sparse;
mod transpose;
mod widen;
mod widths;

pub use codebooks::{CENTERS_MAX, Centers, Codebooks, LEVELS_MAX, normalized};
pub use kernel::sums;
pub use left::{LeftFactor, Tiles};
pub use panels::{MakePanel, Packed, Panels, Shape};
pub use peak::multiply_adds;
pub use processor::{Pretended, arch, columns_in_cache, pretend, second_cache};
pub use projection::{Normalize, Projection};
pub use sparse::{Sparse, count_values};
pub use transpose::transpose;
pub use widen::{fetch, widen};
pub use widths::DEPTH;

use kernel::Product;
use panels::Right;
use pulp::Simd;

/// `c` (m, n) = `scale` * `a` (m, k) * `b` (n, k) transposed, or `c` += that.
pub fn a_bt([m, n, k]: [usize; 3], a: &[f32], b: &[f32], scale: f32, write: Write, c: &mut [f32]) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, n * k, m * n), "a_bt of {m}, {n}, {k}");
    if n == 1 && k > 0 {
        return a_by_vector(a, b, scale, write, c);
    }
    let b = Right::Transposed { shape: [k, n], data: b };
    multiply(m, LeftFactor::rows(a, k), b, scale, write, c, None);
}

/// `c` (m, n) = `scale` * `a` (m, k) * `b` (k, n), or `c` += that.
pub fn a_b([m, n, k]: [usize; 3], a: &[f32], b: &[f32], scale: f32, write: Write, c: &mut [f32]) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "a_b of {m}, {n}, {k}");
    if n == 1 && k > 0 {
        return a_by_vector(a, b, scale, write, c);
    }
    multiply(m, LeftFactor::rows(a, k), by_rows(k, n, b), scale, write, c, None);
}

/// `c` (m, n) = `scale` * `a` (k, m) transposed * `b` (k, n), or `c` += that.
pub fn at_b([m, n, k]: [usize; 3], a: &[f32], b: &[f32], scale: f32, write: Write, c: &mut [f32]) {
    assert_eq!((a.len(), b.len(), c.len()), (k * m, k * n, m * n), "at_b of {m}, {n}, {k}");
    let b = by_rows(k, n, b);
    left::transposed([k, m], a, n, |a| multiply(m, a, b, scale, write, c, None));
}

/// `c` (m, n) = `scale` * `a` (k, m) transposed * `b` (k, n), or `c` += that; `b` is made panel by
/// panel, and read while it is in the nearest cache.
pub fn at_made_b(
    [m, n, k]: [usize; 3],
    a: &[f32],
    b: MakePanel,
    scale: f32,
    write: Write,
    c: &mut [f32],
) {
    assert_eq!((a.len(), c.len()), (k * m, m * n), "at_made_b of {m}, {n}, {k}");
    let b = Right::Made { shape: [k, n], make: b };
    left::transposed([k, m], a, n, |a| multiply(m, a, b, scale, write, c, None));
}

/// `c` (m, n) = `scale` * `a` (m, k) * `b` (k, n), or `c` += that.
pub fn product(m: usize, a: LeftFactor, b: Panels, scale: f32, write: Write, c: &mut [f32]) {
    product_prefetching(m, a, b, scale, write, c, None);
}

/// Like [`product`]; calls `prefetch` before each tile of `c`, while memory is idle, so that a
/// caller may [`fetch`] the rows that it multiplies next.
pub fn product_prefetching(
    m: usize,
    a: LeftFactor,
    b: Panels,
    scale: f32,
    write: Write,
    c: &mut [f32],
    prefetch: Option<&mut dyn FnMut()>,
) {
    multiply(m, a, Right::Panels(b), scale, write, c, prefetch);
}

/// As [`product_prefetching`].
fn multiply(
    m: usize,
    a: LeftFactor,
    b: Right,
    scale: f32,
    write: Write,
    c: &mut [f32],
    prefetch: Option<&mut dyn FnMut()>,
) {
    assert_eq!(c.len(), m * b.columns(), "a product of {m}, {}, {}", b.columns(), b.depth());
    if b.depth() == 0 {
        if write == Write::Overwrite {
            c.fill(0.0);
        }
        return;
    }
    Product { m, a, b, scale, write, stride: b.columns(), c, prefetch }.run();
}

/// What a product does with the values already in its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrites them without reading.
    Overwrite,
    /// Adds to them; each element is read once.
    Add,
}

/// A row-major `b` (k, n), which is packed unless it is a panel already.
fn by_rows(k: usize, n: usize, b: &[f32]) -> Right<'_> {
    let packed = Right::Rows { shape: [k, n], data: b };
    Panels::in_place(k, n, b).map_or(packed, Right::Panels)
}

/// `c` (m) = `scale` * `a` (m, k) * `b` (k), or `c` += that.
#[pulp::with_simd(a_by_vector = arch())]
#[inline(always)]
fn a_by_vector_in<'a, S: Simd>(
    _: S,
    a: &'a [f32],
    b: &'a [f32],
    scale: f32,
    write: Write,
    c: &'a mut [f32],
) {
    for (a, c) in a.chunks_exact(b.len()).zip(c) {
        let value = scale * dot(a, b);
        *c = if write == Write::Add { *c + value } else { value };
    }
}

/// Sum of the products of two slices of equal length, in eight interleaved partial sums.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot");
    let mut sums = [0.0f32; 8];
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `y` += `scale` * `x`.
#[inline(always)]
pub fn axpy(scale: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "axpy");
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// `y` += `x`, of equal length.
#[inline(always)]
pub fn add(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "add");
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// Makes `buffer` hold `len` floats of any value, allocating only when it grows beyond its past.
pub fn fit(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// Makes `buffer` hold `len` zeros.
pub fn zeros(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.clear();
    buffer.resize(len, 0.0);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, values};
    use pulp::Arch;

    /// The definition: c[i, j] = scale * sum of a(i, l) * b(l, j).
    fn naive(
        [m, n, k]: [usize; 3],
        scale: f32,
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
    ) -> Vec<f32> {
        let element = |i, j| (0..k).map(|l| f64::from(a(i, l)) * f64::from(b(l, j))).sum::<f64>();
        (0..m * n).map(|at| (f64::from(scale) * element(at / n, at % n)) as f32).collect()
    }

    #[test]
    fn products_match_their_definition() {
        // Several blocks of depth and several panels, whole and not, and tiles of every height.
        let shapes = [[3, 5, 7], [1, 17, 4], [17, 1, 64], [33, 16, 65], [2, 3, 0], [0, 3, 2]];
        for shape in shapes.into_iter().chain([[5, 150, 300], [12, 64, 256], [11, 200, 257]]) {
            let [m, n, k] = shape;
            let (a, b, old) = (values(1, m * k), values(2, n * k), values(3, m * n));
            let products: [(Product, Vec<f32>); 3] = [
                (a_bt, naive(shape, 0.5, |i, l| a[i * k + l], |l, j| b[j * k + l])),
                (a_b, naive(shape, 0.5, |i, l| a[i * k + l], |l, j| b[l * n + j])),
                (at_b, naive(shape, 0.5, |i, l| a[l * m + i], |l, j| b[l * n + j])),
            ];
            for (product, expected) in products {
                let mut c = vec![f32::NAN; m * n];
                product(shape, &a, &b, 0.5, Write::Overwrite, &mut c);
                assert_close(&c, &expected, 1e-4);
                c.copy_from_slice(&old);
                product(shape, &a, &b, 0.5, Write::Add, &mut c);
                let sum: Vec<f32> = old.iter().zip(&expected).map(|(x, y)| x + y).collect();
                assert_close(&c, &sum, 1e-4);
            }
        }
    }

    #[test]
    fn an_element_knows_its_row_and_column_alone() {
        let [m, n, k] = [13, 75, 260];
        let (a, b) = (values(1, m * k), values(2, n * k));
        let mut whole = vec![0.0; m * n];
        a_bt([m, n, k], &a, &b, 0.5, Write::Overwrite, &mut whole);
        for (first, rows) in [(0, 1), (5, 6), (9, 4)] {
            let mut part = vec![0.0; rows * n];
            let a = &a[first * k..][..rows * k];
            a_bt([rows, n, k], a, &b, 0.5, Write::Overwrite, &mut part);
            assert_eq!(part, whole[first * n..][..rows * n], "rows from {first}");
        }
        let mut transposed = vec![0.0; k * n];
        for (i, value) in b.iter().enumerate() {
            transposed[i % k * n + i / k] = *value;
        }
        let mut other = vec![0.0; m * n];
        a_b([m, n, k], &a, &transposed, 0.5, Write::Overwrite, &mut other);
        assert_eq!(other, whole);
    }

    #[test]
    fn a_factor_that_is_made_is_as_one_that_is_there() {
        for [m, n, k] in [[16, 64, 256], [3, 70, 300], [16, 5, 1], [80, 64, 257], [2, 3, 0]] {
            let (a, b) = (values(1, m * k), values(2, n * k));
            let make = |first: usize, width: usize, from: usize, panel: &mut [f32]| {
                panel.fill(0.0);
                let end = n.min(first + width);
                for (row, to) in (from..).zip(panel.chunks_exact_mut(width)) {
                    to[..end - first].copy_from_slice(&b[row * n + first..row * n + end]);
                }
            };
            let (mut c, mut expected) = (vec![1.0; m * n], vec![1.0; m * n]);
            at_b([m, n, k], &a, &b, 0.5, Write::Add, &mut expected);
            at_made_b([m, n, k], &a, &make, 0.5, Write::Add, &mut c);
            assert_eq!(c, expected, "{m}, {n}, {k}");
        }
    }

    #[test]
    fn a_factor_in_tiles_is_the_transposed() {
        // Too many for the nearest cache, and rows that are no multiple of a tile's; a few alone
        // are not put into tiles.
        for [m, n, k] in [[77, 66, 300], [100, 64, 256], [12, 64, 600], [1, 80, 5_000], [0, 64, 9]]
        {
            let (a, b) = (values(1, m * k), values(2, n * k));
            let mut rows = vec![0.0; m * k];
            for (at, value) in a.iter().enumerate() {
                rows[at % m * k + at / m] = *value;
            }
            let (mut c, mut expected) = (vec![1.0; m * n], vec![1.0; m * n]);
            a_b([m, n, k], &rows, &b, 0.5, Write::Add, &mut expected);
            at_b([m, n, k], &a, &b, 0.5, Write::Add, &mut c);
            assert_eq!(c, expected, "{m}, {n}, {k}");

            let halfs: Vec<half::f16> = a.iter().copied().map(half::f16::from_f32).collect();
            let mut tiles = Tiles::default();
            tiles.widen(9, 100, |_| &[half::f16::NAN; 100]);
            tiles.widen(k, m, |at| &halfs[at * m..][..m]);
            rows.iter_mut().for_each(|value| *value = half::f16::from_f32(*value).to_f32());
            a_b([m, n, k], &rows, &b, 0.5, Write::Overwrite, &mut expected);
            let mut packed = Packed::default();
            packed.pack(k, n, &b);
            product(m, tiles.factor(), packed.panels(), 0.5, Write::Overwrite, &mut c);
            assert_eq!(c, expected, "{m}, {n}, {k}");
        }
    }

    /// A product by vectors `S`, in panels of either width, and by the ones of this processor.
    fn by_vectors<S: Simd>(simd: S, fuses: bool) {
        let [m, n, k] = [29, 150, 300];
        let (a, b) = (values(1, m * k), values(2, n * k));
        let left = LeftFactor::rows(&a, k);
        let (mut expected, mut packed) = (vec![0.0; m * n], Packed::default());
        a_b([m, n, k], &a, &b, 0.5, Write::Overwrite, &mut expected);
        let widths = widths::Widths::of::<S>();
        for width in [widths.usual, widths.wide] {
            let mut c = vec![f32::NAN; m * n];
            packed.pack_as(width, k, n, &b);
            let (b, write) = (Right::Panels(packed.panels()), Write::Overwrite);
            let product = kernel::Product {
                m,
                a: left,
                b,
                scale: 0.5,
                write,
                c: &mut c,
                stride: n,
                prefetch: None,
            };
            simd.vectorize(kernel::Packing { product, room: &mut Vec::new() });
            if fuses {
                assert_eq!(c, expected, "{} lanes, panels of {width}", S::F32_LANES)
            } else {
                assert_close(&c, &expected, 1e-4)
            }
        }
    }

    #[test]
    fn all_vectors_give_one_result() {
        // Vectors of 1 fuse nothing; neither does a processor whose best these are.
        let fuses = !matches!(Arch::new(), Arch::Scalar);
        by_vectors(pulp::Scalar, false);
        by_vectors(pulp::Scalar128b, fuses);
        by_vectors(pulp::Scalar256b, fuses);
        by_vectors(pulp::Scalar512b, fuses);
    }

    #[test]
    fn what_is_one_panel_is_multiplied_in_place() {
        for n in [16, 32, 48, 64, 80] {
            let [m, k] = [7, 270];
            let (a, b) = (values(1, m * k), values(2, n * k));
            let mut c = vec![f32::NAN; m * n];
            a_b([m, n, k], &a, &b, 0.5, Write::Overwrite, &mut c);
            assert_close(
                &c,
                &naive([m, n, k], 0.5, |i, l| a[i * k + l], |l, j| b[l * n + j]),
                1e-4,
            );
        }
    }

    #[test]
    fn sums_of_a_tile_are_those_of_a_product() {
        struct Tile<'a>(LeftFactor<'a>, &'a [f32]);
        impl pulp::WithSimd for Tile<'_> {
            type Output = (usize, Vec<f32>);
            fn with_simd<S: Simd>(self, simd: S) -> (usize, Vec<f32>) {
                let zero = simd.splat_f32s(0.0);
                let panel = S::as_simd_f32s(self.1).0.as_chunks::<1>().0;
                let sums: [[S::f32s; 1]; 3] = sums(simd, zero, self.0, 2, panel);
                let mut out = vec![0.0; 3 * S::F32_LANES];
                let rows = out.chunks_exact_mut(S::F32_LANES).zip(&sums);
                rows.for_each(|(out, sums)| simd.partial_store_f32s(out, sums[0]));
                (S::F32_LANES, out)
            }
        }
        let k = 37;
        let (a, b) = (values(1, 5 * k), values(2, 64 * k));
        let left = LeftFactor::rows(&a, k);
        let lanes = arch().dispatch(Tile(left, &b[..64])).0;
        let (_, got) = arch().dispatch(Tile(left, &b[..lanes * k]));
        let mut expected = vec![0.0; 5 * lanes];
        a_b([5, lanes, k], &a, &b[..lanes * k], 1.0, Write::Overwrite, &mut expected);
        assert_eq!(got, expected[2 * lanes..]);
    }

    type Product = fn([usize; 3], &[f32], &[f32], f32, Write, &mut [f32]);

    #[test]
    fn dot_matches_its_definition() {
        for len in [0, 1, 7, 8, 9, 64, 83] {
            let (a, b) = (values(4, len), values(5, len));
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum();
            assert_close(&[dot(&a, &b)], &[expected as f32], 1e-5);
        }
    }
}
