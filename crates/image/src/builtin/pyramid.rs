//! One picture at three sizes.
//!
//! Knows averaging. Does not know what is measured on the sizes.

/// Width and height of the largest size.
pub(crate) const SIDE: usize = 64;

/// Number of sizes, each half as wide as the one before.
pub(crate) const LEVELS: usize = 3;

/// Red, green and blue planes (3, side, side) with values 0..1, at sides 64, 32 and 16.
#[derive(Debug, Default)]
pub(crate) struct Pyramid {
    pub levels: [Vec<f32>; LEVELS],
}

impl Pyramid {
    /// The side of level `level`.
    pub(crate) fn side(level: usize) -> usize {
        SIDE >> level
    }

    /// Plane `channel` of level `level`, (side, side).
    pub(crate) fn plane(&self, level: usize, channel: usize) -> &[f32] {
        let area = Self::side(level) * Self::side(level);
        &self.levels[level][channel * area..][..area]
    }

    /// Sets all levels from `pixels`, 64 x 64 RGB.
    pub(crate) fn fill(&mut self, pixels: &[u8]) {
        let area = SIDE * SIDE;
        let first = &mut self.levels[0];
        first.resize(area * 3, 0.0);
        for (at, pixel) in pixels.as_chunks::<3>().0.iter().enumerate() {
            for channel in 0..3 {
                first[channel * area + at] = f32::from(pixel[channel]) / 255.0;
            }
        }
        for level in 1..LEVELS {
            let (larger, smaller) = self.levels.split_at_mut(level);
            halve(&larger[level - 1], Self::side(level), &mut smaller[0]);
        }
    }
}

/// Averages 2 x 2 pixels of three planes into planes of `side`.
fn halve(from: &[f32], side: usize, to: &mut Vec<f32>) {
    to.clear();
    for plane in from.chunks_exact(4 * side * side) {
        for rows in plane.chunks_exact(4 * side) {
            let (above, below) = rows.split_at(2 * side);
            let pairs = above.as_chunks::<2>().0.iter().zip(below.as_chunks::<2>().0);
            to.extend(pairs.map(|(a, b)| (a[0] + a[1] + b[0] + b[1]) * 0.25));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaller_levels_are_averages() {
        let pixels = (0..SIDE * SIDE).flat_map(|at| [(at % SIDE) as u8, (at / SIDE) as u8, 255]);
        let mut pyramid = Pyramid::default();
        pyramid.fill(&pixels.collect::<Vec<u8>>());
        assert_eq!(pyramid.plane(0, 0)[5], 5.0 / 255.0);
        assert_eq!(pyramid.plane(0, 1)[5 * SIDE], 5.0 / 255.0);
        assert!((pyramid.plane(1, 0)[3] - 6.5 / 255.0).abs() < 1e-6);
        assert!((pyramid.plane(2, 1)[16 * 2] - 9.5 / 255.0).abs() < 1e-6);
        assert_eq!(pyramid.plane(2, 2)[100], 1.0);
    }
}
