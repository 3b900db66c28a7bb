//! One image feature as a store keeps it: halfs, or bytes and one scale.
//!
//! int8 is symmetric: a number is `round(127 x / m)` with `m` the row's largest magnitude, and `m /
//! 127` is kept beside the row as its scale. It needs half the memory; the error is at most `m /
//! 254`.
//!
//! Knows one row. Does not know which image it is of.

use std::borrow::Cow;

use half::f16;
use serde::{Deserialize, Serialize};

/// How a number of a row is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowType {
    /// A value is an IEEE half, 2 bytes.
    #[default]
    F16,
    /// As a signed byte, with one scale per row.
    Int8,
}

/// A row where it lies, (F).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row<'a> {
    /// A row of F halfs.
    F16(&'a [f16]),
    /// Each number is `scale` times one of these.
    Int8(&'a [i8], f32),
}

impl<'a> Row<'a> {
    /// The row as halfs, borrowed where it is kept so.
    pub fn halfs(self) -> Cow<'a, [f16]> {
        match self {
            Row::F16(row) => Cow::Borrowed(row),
            Row::Int8(row, scale) => Cow::Owned(widened(row, scale).collect()),
        }
    }

    /// Appends the row as halfs.
    pub fn push_halfs(self, to: &mut Vec<f16>) {
        match self {
            Row::F16(row) => to.extend_from_slice(row),
            Row::Int8(row, scale) => to.extend(widened(row, scale)),
        }
    }

    /// The sum of the squares of its numbers.
    pub fn squares(self) -> f64 {
        match self {
            Row::F16(row) => row.iter().map(|value| value.to_f64().powi(2)).sum(),
            Row::Int8(row, scale) => widened(row, scale).map(|value| value.to_f64().powi(2)).sum(),
        }
    }
}

fn widened(row: &[i8], scale: f32) -> impl Iterator<Item = f16> {
    row.iter().map(move |value| f16::from_f32(f32::from(*value) * scale))
}

/// Overwrites `out` with `row` in bytes; the scale.
pub(crate) fn quantize(row: &[f16], out: &mut Vec<i8>) -> f32 {
    let largest = row.iter().map(|value| value.to_f32().abs()).fold(0.0, f32::max);
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    out.clear();
    out.extend(row.iter().map(|value| (value.to_f32() * inverse).round() as i8));
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn bytes_are_near_what_they_stand_for(row in proptest::collection::vec(-60000.0f32..60000.0, 1..40)) {
            let row: Vec<f16> = row.into_iter().map(f16::from_f32).collect();
            let mut bytes = Vec::new();
            let scale = quantize(&row, &mut bytes);
            let largest = row.iter().map(|value| value.to_f32().abs()).fold(0.0, f32::max);
            let back = Row::Int8(&bytes, scale).halfs().into_owned();
            for (row, back) in row.iter().zip(&back) {
                // Half a byte's step, and the rounding to a half.
                let most = largest / 254.0 * 1.001 + back.to_f32().abs() / 2048.0;
                assert!((row.to_f32() - back.to_f32()).abs() <= most, "{row} became {back}");
            }
        }
    }

    #[test]
    fn nothing_stays_nothing() {
        let mut bytes = vec![1];
        assert_eq!(quantize(&[f16::ZERO; 3], &mut bytes), 0.0);
        assert_eq!(bytes, [0; 3]);
        assert_eq!(Row::Int8(&bytes, 0.0).halfs().into_owned(), [f16::ZERO; 3]);
    }
}
