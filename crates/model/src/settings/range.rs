//! Ranges of settings: what came and what was expected.

use crate::linalg::LEVELS_MAX;

/// No width of a sane model is larger; products of two stay far from overflow.
pub const WIDTH_MAX: usize = 1 << 24;

/// A width, in numbers.
///
/// # Errors
/// If it is 0 or more than [`WIDTH_MAX`].
pub fn width(width: &usize) -> Result<(), String> {
    match *width {
        1..=WIDTH_MAX => Ok(()),
        width => Err(format!("a width is {width}, expected 1 to {WIDTH_MAX}")),
    }
}

/// Any number of widths.
///
/// # Errors
/// As of [`width`], for the first one that is none.
pub fn widths(widths: &[usize]) -> Result<(), String> {
    widths.iter().try_for_each(width)
}

/// The output widths of layers, of which there is one at least.
///
/// # Errors
/// If there is none, or as of [`widths`].
pub fn layers(layers: &[usize]) -> Result<(), String> {
    match layers {
        [] => Err("[], expected at least one layer".to_owned()),
        layers => widths(layers),
    }
}

/// A number of things, of which there is one at least.
///
/// # Errors
/// If it is 0.
pub fn positive(count: &usize) -> Result<(), String> {
    match count {
        0 => Err("0, expected at least 1".to_owned()),
        _ => Ok(()),
    }
}

/// Buckets of a number of 64 bits by its logarithm to base 2; 0 for none.
///
/// # Errors
/// If they are more than 64.
pub fn buckets(buckets: &usize) -> Result<(), String> {
    match buckets {
        0..=64 => Ok(()),
        _ => Err(format!("{buckets} buckets, expected 0 to 64")),
    }
}

/// Levels of semantic ids; 0 for none.
///
/// # Errors
/// If they are more than a store may have.
pub fn levels(levels: &usize) -> Result<(), String> {
    match levels {
        0..=LEVELS_MAX => Ok(()),
        _ => Err(format!("{levels} levels, expected 0 to {LEVELS_MAX}")),
    }
}

/// A share of things that is not all of them.
///
/// # Errors
/// If it is less than 0, 1 or more, or no number.
pub fn share(share: &f32) -> Result<(), String> {
    match (0.0..1.0).contains(share) {
        true => Ok(()),
        false => Err(format!("{share}, expected a share of at least 0 and less than 1")),
    }
}

/// Most behaviors of a history.
pub const BEHAVIORS_MAX: usize = 10_000;
