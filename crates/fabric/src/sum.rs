//! Sums along a fixed binary tree.
//!
//! Floating-point addition is not associative, so *the order is part of the result*. Lane sums
//! always follow the same tree, whatever process or thread holds a lane:
//! ```text
//! ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
//! ```
//! A process holds an aligned power-of-two run of lanes, which is a whole subtree: it adds its own
//! lanes first, and the partial sums of the processes continue the same tree.
//!
//! What travels between processes is a partial sum. If it is to travel in fewer bits, *every*
//! partial sum of the tree is rounded, also those that stay inside a process: then the result still
//! does not depend on where a lane is. That is [`Rounding`].

/// What becomes of every partial sum of the tree, the lanes' own values included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Kept as it is.
    #[default]
    Exact,
    /// Rounded to the nearest bf16 (8 bits of precision), ties to even; half the bytes on the way.
    Bf16,
}

impl Rounding {
    /// `value`, rounded to the nearest number that travels.
    #[inline]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Rounding::Exact => value,
            Rounding::Bf16 => bf16(value),
        }
    }

    /// Rounds the values of one lane, the leaves of the tree.
    pub fn leaves(self, values: &mut [f32]) {
        if self == Rounding::Bf16 {
            values.iter_mut().for_each(|value| *value = bf16(*value));
        }
    }
}

/// The nearest bf16, as a float. Not a number stays not a number.
#[inline]
fn bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) & 0xffff_0000;
    if value.is_nan() { value } else { f32::from_bits(rounded) }
}

/// A node of the tree: `sum` += `values`.
pub fn add(sum: &mut [f32], values: &[f32], rounding: Rounding) {
    assert_eq!(sum.len(), values.len(), "parts of one sum have one length");
    let pairs = sum.iter_mut().zip(values);
    match rounding {
        Rounding::Exact => pairs.for_each(|(sum, value)| *sum += *value),
        Rounding::Bf16 => pairs.for_each(|(sum, value)| *sum = bf16(*sum + *value)),
    }
}

/// Adds `parts` (a power of two of them, equal lengths) along the tree into `parts[0]`; the others
/// are left with partial sums. Leaves are expected to be rounded already.
pub fn tree(parts: &mut [&mut [f32]], rounding: Rounding) {
    assert!(parts.len().is_power_of_two(), "{} parts: a power of two is needed", parts.len());
    let mut stride = 1;
    while stride < parts.len() {
        for left in (0..parts.len()).step_by(2 * stride) {
            let (head, tail) = parts.split_at_mut(left + stride);
            add(head[left], tail[0], rounding);
        }
        stride *= 2;
    }
}

/// The same of `count` parts of `len` values that are made in turn: `part` writes the part of
/// a number. A sum is taken as soon as both of its halves are there, which is while they are in a
/// cache. The result is the first `len` of `waiting`, whose other values are of no use.
pub fn tree_in_turn(
    count: usize,
    len: usize,
    rounding: Rounding,
    waiting: &mut Vec<f32>,
    mut part: impl FnMut(usize, &mut [f32]),
) {
    assert!(count.is_power_of_two(), "{count} parts: a power of two is needed");
    waiting.resize((count.ilog2() as usize + 1) * len, 0.0);
    for at in 0..count {
        // As many sums wait as there are ones in the part's number, and it completes one for every
        // one that its number ends with.
        let place = at.count_ones() as usize * len;
        let values = &mut waiting[place..place + len];
        part(at, values);
        rounding.leaves(values);
        for ended in 0..at.trailing_ones() as usize {
            let (sums, done) = waiting.split_at_mut(place - ended * len);
            let sum = sums.len() - len;
            add(&mut sums[sum..], &done[..len], rounding);
        }
    }
}

/// The same tree over one number per lane, in f64.
pub fn tree_f64(parts: &mut [f64]) -> f64 {
    assert!(parts.len().is_power_of_two(), "{} parts: a power of two is needed", parts.len());
    let mut stride = 1;
    while stride < parts.len() {
        for left in (0..parts.len()).step_by(2 * stride) {
            parts[left] += parts[left + stride];
        }
        stride *= 2;
    }
    parts[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_the_drawn_one() {
        let x: Vec<f32> = (0..8).map(|i| 10f32.powi(i) * 1.1).collect();
        let sum = |rounding| {
            let mut parts: Vec<Vec<f32>> = x.iter().map(|&x| vec![x]).collect();
            tree(&mut parts.iter_mut().map(|part| &mut part[..]).collect::<Vec<_>>(), rounding);
            parts[0][0]
        };
        let drawn = |add: &dyn Fn(f32, f32) -> f32| {
            let pairs: Vec<f32> = x.chunks(2).map(|pair| add(pair[0], pair[1])).collect();
            add(add(pairs[0], pairs[1]), add(pairs[2], pairs[3]))
        };
        assert_eq!(sum(Rounding::Exact), drawn(&|a, b| a + b));
        let to_half = |x: f32| half::bf16::from_f32(x).to_f32();
        assert_eq!(sum(Rounding::Bf16), drawn(&|a, b| to_half(a + b)));
        let mut wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let want = ((wide[0] + wide[1]) + (wide[2] + wide[3]))
            + ((wide[4] + wide[5]) + (wide[6] + wide[7]));
        assert_eq!(tree_f64(&mut wide), want);
    }

    #[test]
    fn parts_in_turn_follow_the_same_tree() {
        for (count, rounding) in
            [1, 2, 8, 16].into_iter().flat_map(|n| [(n, Rounding::Exact), (n, Rounding::Bf16)])
        {
            let value = |part: usize, at: usize| (1.1 + at as f32) * 3f32.powi(part as i32 % 7);
            let mut parts: Vec<Vec<f32>> =
                (0..count).map(|part| (0..3).map(|at| value(part, at)).collect()).collect();
            parts.iter_mut().for_each(|part| rounding.leaves(part));
            tree(&mut parts.iter_mut().map(|part| &mut part[..]).collect::<Vec<_>>(), rounding);
            let mut waiting = vec![f32::NAN; 2];
            tree_in_turn(count, 3, rounding, &mut waiting, |part, values| {
                values.iter_mut().enumerate().for_each(|(at, x)| *x = value(part, at));
            });
            assert_eq!(waiting[..3], parts[0], "{count} parts, {rounding:?}");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_bf16_with_ties_to_even() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-40, -1e-45];
        let ties = (0..64u32).map(|i| f32::from_bits(0x3f80_0000 + (i << 14)));
        let many = (0..20_000u32).map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)));
        for value in special.into_iter().chain(ties).chain(many) {
            let want = half::bf16::from_f32(value).to_f32();
            let got = Rounding::Bf16.round(value);
            assert!(got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(), "{value}");
            assert_eq!(Rounding::Exact.round(value).to_bits(), value.to_bits());
        }
        assert!(Rounding::Bf16.round(f32::from_bits(0x7fff_ffff)).is_nan());
    }
}
