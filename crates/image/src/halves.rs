//! Numbers as halfs (f16), or why they are none.
//!
//! A half is exact to 11 bits from 6e-5 to 65504, to ever fewer bits below, and 0 below 3e-8. A
//! number of a row may become 0 where others are large: it hardly counts. A row that changes as a
//! whole is refused.
//!
//! Knows numbers. Does not know whose they are.

use half::f16;

/// How far a row may be from its halfs, as a share of its length. Rounding alone is below 0.0005.
const LOSS_MAX: f64 = 0.01;

/// Numbers that were rounded to halfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Those that were not 0.
    pub numbers: u64,
    /// Those of them that became 0.
    pub zeroed: u64,
}

impl Tally {
    /// Adds what `other` counted.
    pub(crate) fn add(&mut self, other: Tally) {
        self.numbers += other.numbers;
        self.zeroed += other.zeroed;
    }
}

/// Why a row cannot be kept as halfs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unfit {
    /// A number that is none, infinite, or beyond 65504: where in the row, and which.
    Beyond(usize, f64),
    /// All numbers are too small: the largest.
    Small(f64),
}

impl Unfit {
    /// In words, with what to do about rows that are too small.
    pub(crate) fn words(self, row_of: &str) -> String {
        match self {
            Unfit::Beyond(at, value) => {
                let (column, half) = (at + 1, f16::from_f64(value));
                format!(
                    "{row_of}, column {column}: {half} as f16 (it is {value}), expected a number within ±65504"
                )
            }
            Unfit::Small(largest) => {
                let factor = -largest.log10().floor();
                format!(
                    "{row_of}: the largest number is {largest:.0e}, too small: halfs (f16) have few bits below 6e-5 and are 0 \
                     below 3e-8. Multiply all rows by the same number first, such as 1e{factor}"
                )
            }
        }
    }
}

/// Puts `values` into `out` as halfs, by `round`.
pub(crate) fn put<T: Copy + Into<f64>>(
    values: impl Iterator<Item = T>,
    round: fn(T) -> f16,
    out: &mut Vec<f16>,
) -> Result<Tally, Unfit> {
    let mut tally = Tally::default();
    let (mut squares, mut lost, mut largest) = (0.0f64, 0.0f64, 0.0f64);
    out.clear();
    for value in values {
        let half = round(value);
        let value: f64 = value.into();
        if !half.is_finite() {
            return Err(Unfit::Beyond(out.len(), value));
        }
        let off = value - f64::from(half);
        squares += value * value;
        lost += off * off;
        largest = largest.max(value.abs());
        tally.numbers += u64::from(value != 0.0);
        tally.zeroed += u64::from(value != 0.0 && half.to_f32() == 0.0);
        out.push(half);
    }
    // Squares of the smallest numbers are 0 themselves.
    let is_lost = tally.numbers > 0 && (squares == 0.0 || lost > LOSS_MAX * LOSS_MAX * squares);
    if is_lost { Err(Unfit::Small(largest)) } else { Ok(tally) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64]) -> Result<(u64, u64), String> {
        let mut out = Vec::new();
        let put = put(values.iter().copied(), f16::from_f64, &mut out);
        assert!(put.is_err() || out.len() == values.len());
        put.map(|tally| (tally.zeroed, tally.numbers)).map_err(|unfit| unfit.words("it"))
    }

    #[test]
    fn rows_that_halfs_cannot_hold_are_refused() {
        assert_eq!(check(&[0.0, 0.0]), Ok((0, 0)));
        assert_eq!(check(&[1.0, -65504.0, 1e-3]), Ok((0, 3)));
        assert_eq!(check(&[1.0, 1e-9, 0.0, -1e-12]), Ok((2, 3)));
        assert_eq!(check(&[1e-4, 3e-5]), Ok((0, 2)));
        let small = |values: &[f64], largest: &str, factor: &str| {
            let error = check(values).unwrap_err();
            let expected =
                [format!("it: the largest number is {largest},"), format!("as {factor}")];
            assert!(expected.iter().all(|word| error.contains(word)), "{error}");
        };
        small(&[1e-9, -3e-9], "3e-9", "1e9");
        small(&[1e-7], "1e-7", "1e7");
        small(&[1e-200], "1e-200", "1e200");
        let beyond = |values: &[f64]| check(values).unwrap_err();
        assert!(
            beyond(&[1.0, 65520.0]).contains("it, column 2: inf as f16 (it is 65520), expected")
        );
        assert!(beyond(&[f64::NAN]).contains("it, column 1: NaN as f16"));
    }
}
