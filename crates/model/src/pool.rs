//! Sum pooling: a field of several ids is the sum of their rows.

use crate::linalg;
use pulp::Simd;

/// A ragged column of row numbers: list `i` is `rows[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Lists<'a> {
    /// Where each list begins, one more than there are lists.
    pub offsets: &'a [u32],
    /// Indices into the unique rows, of all lists end to end.
    pub rows: &'a [u32],
}

impl<'a> Lists<'a> {
    /// Number of lists, empty ones included.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row numbers of list `i`.
    pub(crate) fn list(&self, i: usize) -> &'a [u32] {
        &self.rows[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }
}

/// A column of `dim` floats, from `first` on, in each row of a matrix `width` wide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    /// Width of the matrix.
    pub width: usize,
    /// First column, from 0.
    pub first: usize,
    /// Number of columns, from `first` on.
    pub dim: usize,
}

impl Columns {
    /// These columns of row `row` of `x`.
    pub(crate) fn of(self, x: &[f32], row: usize) -> &[f32] {
        &x[row * self.width + self.first..][..self.dim]
    }

    /// These columns of row `row` of `x`, to write.
    pub(crate) fn of_mut(self, x: &mut [f32], row: usize) -> &mut [f32] {
        &mut x[row * self.width + self.first..][..self.dim]
    }
}

/// Overwrites `columns` of `x` with the sums of each list's rows; `rows` is (R, dim).
#[pulp::with_simd(forward = linalg::arch())]
#[inline(always)]
pub(crate) fn forward_in<'a, S: Simd>(
    _: S,
    lists: Lists<'a>,
    rows: &'a [f32],
    columns: Columns,
    x: &'a mut [f32],
) {
    for i in 0..lists.len() {
        let sum = columns.of_mut(x, i);
        sum.fill(0.0);
        for &row in lists.list(i) {
            linalg::add(&rows[row as usize * columns.dim..][..columns.dim], sum);
        }
    }
}

/// Adds `columns` of `dx` to the gradients `drows` (R, dim) of each list's rows.
#[pulp::with_simd(backward = linalg::arch())]
#[inline(always)]
pub(crate) fn backward_in<'a, S: Simd>(
    _: S,
    lists: Lists<'a>,
    dx: &'a [f32],
    columns: Columns,
    drows: &'a mut [f32],
) {
    for i in 0..lists.len() {
        let dsum = columns.of(dx, i);
        for &row in lists.list(i) {
            linalg::add(dsum, &mut drows[row as usize * columns.dim..][..columns.dim]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: Lists = Lists { offsets: &[0, 2, 2, 5], rows: &[1, 0, 2, 2, 1] };
    const COLUMNS: Columns = Columns { width: 3, first: 1, dim: 2 };

    #[test]
    fn lists_are_summed_and_empty_lists_are_zero() {
        let mut x = [9.0; 9];
        forward(LISTS, &[1.0, 2.0, 10.0, 20.0, 100.0, 200.0], COLUMNS, &mut x);
        assert_eq!(x, [9.0, 11.0, 22.0, 9.0, 0.0, 0.0, 9.0, 210.0, 420.0]);
    }

    #[test]
    fn a_row_gets_the_gradient_of_every_list_it_is_in() {
        let mut drows = [0.0; 6];
        backward(LISTS, &[9.0, 1.0, 2.0, 9.0, 5.0, 5.0, 9.0, 10.0, 20.0], COLUMNS, &mut drows);
        assert_eq!(drows, [1.0, 2.0, 11.0, 22.0, 20.0, 40.0]);
    }
}
