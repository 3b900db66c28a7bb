//! A matrix turned, in squares that stay in registers where the processor has vectors of 256 bits.

/// Side of a square.
const SIDE: usize = 8;

/// Element (i, j) of a matrix of `rows` rows, `from[i * row + j]`, becomes `to[j * column + i]`,
/// for `columns` columns.
///
/// # Panics
/// If one of both is too short.
pub fn transpose(
    [rows, columns]: [usize; 2],
    from: &[f32],
    row: usize,
    to: &mut [f32],
    column: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from.len() >= (rows - 1) * row + columns, "{rows} rows of {columns}, {row} apart");
    assert!(to.len() >= (columns - 1) * column + rows, "{columns} of {rows}, {column} apart");
    let mut turn = Turn { rows, columns, from, row, to, column };
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(x86::InSquares { simd, turn });
    }
    turn.part(0..rows, 0..columns);
}

/// The arguments of [`transpose`].
struct Turn<'a> {
    rows: usize,
    columns: usize,
    from: &'a [f32],
    row: usize,
    to: &'a mut [f32],
    column: usize,
}

impl Turn<'_> {
    /// Some rows and columns, one number after the other.
    fn part(&mut self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) {
        for j in columns {
            for i in rows.clone() {
                self.to[j * self.column + i] = self.from[i * self.row + j];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::__m256;

    use pulp::NullaryFnOnce;
    use pulp::x86::V3;

    use super::{SIDE, Turn};

    /// By squares, and what is beside them one number after the other.
    pub(super) struct InSquares<'a> {
        pub simd: V3,
        pub turn: Turn<'a>,
    }

    impl NullaryFnOnce for InSquares<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let InSquares { simd, mut turn } = self;
            let Turn { rows, columns, from, row, ref mut to, column } = turn;
            let [whole, across] = [rows, columns].map(|of| of / SIDE * SIDE);
            for i in (0..whole).step_by(SIDE) {
                for j in (0..across).step_by(SIDE) {
                    let square: [__m256; SIDE] = std::array::from_fn(|at| {
                        let numbers = from[(i + at) * row + j..].first_chunk::<SIDE>();
                        pulp::cast(*numbers.expect("a row reaches its last column"))
                    });
                    for (at, numbers) in turned(simd, square).into_iter().enumerate() {
                        let line = to[(j + at) * column + i..].first_chunk_mut::<SIDE>();
                        *line.expect("a column reaches its last row") = pulp::cast(numbers);
                    }
                }
            }
            turn.part(0..whole, across..columns);
            turn.part(whole..rows, 0..columns);
        }
    }

    /// A square turned: pairs of numbers, then pairs of pairs, then halves.
    #[inline(always)]
    fn turned(simd: V3, [a, b, c, d, e, f, g, h]: [__m256; SIDE]) -> [__m256; SIDE] {
        let avx = simd.avx;
        let pairs = |a, b| [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b)];
        let fours = |[a, b]: [__m256; 2], [c, d]: [__m256; 2]| {
            [
                avx._mm256_shuffle_ps::<0b01_00_01_00>(a, c),
                avx._mm256_shuffle_ps::<0b11_10_11_10>(a, c),
                avx._mm256_shuffle_ps::<0b01_00_01_00>(b, d),
                avx._mm256_shuffle_ps::<0b11_10_11_10>(b, d),
            ]
        };
        let upper = fours(pairs(a, b), pairs(c, d));
        let lower = fours(pairs(e, f), pairs(g, h));
        std::array::from_fn(|at| {
            let (upper, lower) = (upper[at % 4], lower[at % 4]);
            if at < 4 {
                avx._mm256_permute2f128_ps::<0x20>(upper, lower)
            } else {
                avx._mm256_permute2f128_ps::<0x31>(upper, lower)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;

    #[test]
    fn rows_become_columns() {
        for [rows, columns] in [[0, 3], [3, 0], [1, 1], [8, 8], [7, 20], [16, 24], [33, 17]] {
            let (row, column) = (columns + 3, rows + 2);
            let from = values(1, rows * row);
            let mut to = vec![f32::NAN; columns * column];
            transpose([rows, columns], &from, row, &mut to, column);
            for (at, value) in to.iter().enumerate() {
                let (j, i) = (at / column, at % column);
                if i < rows {
                    assert_eq!(*value, from[i * row + j], "{rows}, {columns}: {i}, {j}");
                } else {
                    assert!(value.is_nan(), "{rows}, {columns}: beyond {i}, {j}");
                }
            }
        }
    }
}
