//! Sums along a fixed binary tree.
//!
//! Floating-point addition is not associative, so *the order is part of the result*. Lane sums always
//! follow the same tree, whatever process or thread holds a lane:
//! ```text
//! ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7))
//! ```
//! A process holds an aligned power-of-two run of lanes, which is a whole subtree: it adds its own lanes
//! first, and the partial sums of the processes continue the same tree.

/// Adds `parts` (a power of two of them, equal lengths) along the tree into `parts[0]`; the others are
/// left with partial sums.
pub fn tree(parts: &mut [&mut [f32]]) {
    assert!(parts.len().is_power_of_two(), "{} parts: a power of two is needed", parts.len());
    let mut stride = 1;
    while stride < parts.len() {
        for left in (0..parts.len()).step_by(2 * stride) {
            let (head, tail) = parts.split_at_mut(left + stride);
            assert_eq!(head[left].len(), tail[0].len(), "parts of one sum have one length");
            for (sum, value) in head[left].iter_mut().zip(tail[0].iter()) {
                *sum += *value;
            }
        }
        stride *= 2;
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
        let mut parts: Vec<Vec<f32>> = x.iter().map(|&x| vec![x]).collect();
        tree(&mut parts.iter_mut().map(|part| &mut part[..]).collect::<Vec<_>>());
        assert_eq!(parts[0][0], ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7])));
        let mut wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let want = ((wide[0] + wide[1]) + (wide[2] + wide[3]))
            + ((wide[4] + wide[5]) + (wide[6] + wide[7]));
        assert_eq!(tree_f64(&mut wide), want);
    }
}
