//! Matrix products on row-major slices: the crate `gemm`, single-threaded, with the shapes asserted.
//!
//! Knows rows, columns and strides; not what a matrix means.

use gemm::Parallelism;

/// A matrix in a slice: element (r, c) is `data[r * row_stride + c * column_stride]`.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

/// `c` (m, n) = `scale` * `a` (m, k) * `b` (n, k) transposed, or `c` += that if `add`.
pub fn a_bt([m, n, k]: [usize; 3], a: &[f32], b: &[f32], scale: f32, onto: Onto, c: &mut [f32]) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, n * k, m * n), "a_bt of {m}, {n}, {k}");
    let a = Matrix { data: a, row_stride: k, column_stride: 1 };
    let b = Matrix { data: b, row_stride: 1, column_stride: k };
    product([m, n, k], a, b, scale, onto, c);
}

/// `c` (m, n) = `scale` * `a` (m, k) * `b` (k, n), or `c` += that.
pub fn a_b([m, n, k]: [usize; 3], a: &[f32], b: &[f32], scale: f32, onto: Onto, c: &mut [f32]) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "a_b of {m}, {n}, {k}");
    let a = Matrix { data: a, row_stride: k, column_stride: 1 };
    let b = Matrix { data: b, row_stride: n, column_stride: 1 };
    product([m, n, k], a, b, scale, onto, c);
}

/// `c` (m, n) = `scale` * `a` (k, m) transposed * `b` (k, n), or `c` += that.
pub fn at_b([m, n, k]: [usize; 3], a: &[f32], b: &[f32], scale: f32, onto: Onto, c: &mut [f32]) {
    assert_eq!((a.len(), b.len(), c.len()), (k * m, k * n, m * n), "at_b of {m}, {n}, {k}");
    let a = Matrix { data: a, row_stride: 1, column_stride: m };
    let b = Matrix { data: b, row_stride: n, column_stride: 1 };
    product([m, n, k], a, b, scale, onto, c);
}

/// What a product does with the values already in its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// Overwrites them without reading.
    Nothing,
    /// Adds to them.
    Sum,
}

fn product([m, n, k]: [usize; 3], a: Matrix, b: Matrix, scale: f32, onto: Onto, c: &mut [f32]) {
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if onto == Onto::Nothing {
            c.fill(0.0);
        }
        return;
    }
    // SAFETY: the callers assert that each slice holds exactly the elements its strides span for
    // (m, k), (k, n) and (m, n), none of which is empty here; `c` is borrowed mutably, so it
    // overlaps neither `a` nor `b`.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            onto == Onto::Sum,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Sum of the products of two slices of equal length, in eight interleaved partial sums.
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
pub fn axpy(scale: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "axpy");
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// `y` += `x`.
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
        for shape in [[3, 5, 7], [1, 17, 4], [17, 1, 64], [33, 16, 65], [2, 3, 0], [0, 3, 2]] {
            let [m, n, k] = shape;
            let (a, b, old) = (values(1, m * k), values(2, n * k), values(3, m * n));
            let products: [(Product, Vec<f32>); 3] = [
                (a_bt, naive(shape, 0.5, |i, l| a[i * k + l], |l, j| b[j * k + l])),
                (a_b, naive(shape, 0.5, |i, l| a[i * k + l], |l, j| b[l * n + j])),
                (at_b, naive(shape, 0.5, |i, l| a[l * m + i], |l, j| b[l * n + j])),
            ];
            for (product, expected) in products {
                let mut c = vec![f32::NAN; m * n];
                product(shape, &a, &b, 0.5, Onto::Nothing, &mut c);
                assert_close(&c, &expected, 1e-5);
                c.copy_from_slice(&old);
                product(shape, &a, &b, 0.5, Onto::Sum, &mut c);
                let sum: Vec<f32> = old.iter().zip(&expected).map(|(x, y)| x + y).collect();
                assert_close(&c, &sum, 1e-5);
            }
        }
    }

    type Product = fn([usize; 3], &[f32], &[f32], f32, Onto, &mut [f32]);

    #[test]
    fn dot_matches_its_definition() {
        for len in [0, 1, 7, 8, 9, 64, 83] {
            let (a, b) = (values(4, len), values(5, len));
            let expected: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(a * b)).sum();
            assert_close(&[dot(&a, &b)], &[expected as f32], 1e-5);
        }
    }
}
