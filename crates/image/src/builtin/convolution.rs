//! The convolution block: how strongly random filters answer, and where.
//!
//! Knows filters and pooling. Does not know which filters are useful: there are many, and the model
//! behind chooses.

use std::f32::consts::TAU;

use ams_linalg::{Write, a_b};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::pyramid::{LEVELS, Pyramid};

/// Width and height of a filter.
const SIZE: usize = 5;
/// Numbers in a filter.
const TAPS: usize = SIZE * SIZE * 3;
/// Cells per side of the pooling grid.
const GRID: usize = 4;
/// Step between positions, per level.
const STRIDES: [usize; LEVELS] = [2, 1, 1];

/// Lengths of the groups of one filter: grid of rectified means, deviation, maximum, negative mean.
pub(crate) const GROUPS: [usize; 4] = [GRID * GRID, 1, 1, 1];

pub(crate) const PER_FILTER: usize = GRID * GRID + 3;

/// Random filters; filter `i` looks at level `i % 3`.
#[derive(Debug)]
pub(crate) struct Filters {
    /// Per level: (filters of the level, TAPS).
    levels: [Vec<f32>; LEVELS],
    len: usize,
}

impl Filters {
    /// Draws `len` filters of unit length. Half are waves (a frequency, a direction and a color
    /// under a bell), half are noise; of each, every second one sums to zero over each channel
    /// and so answers to structure only, the others also to color.
    pub(crate) fn draw(len: usize, random: &mut ChaCha8Rng) -> Filters {
        let mut levels = [const { Vec::new() }; LEVELS];
        for at in 0..len {
            let mut taps =
                if (at / LEVELS).is_multiple_of(2) { wave(random) } else { noise(random) };
            if (at / LEVELS / 2).is_multiple_of(2) {
                taps.chunks_exact_mut(SIZE * SIZE).for_each(center);
            }
            let norm = taps.iter().map(|tap| tap * tap).sum::<f32>().sqrt().max(1e-6);
            taps.iter_mut().for_each(|tap| *tap /= norm);
            levels[at % LEVELS].extend(taps);
        }
        Filters { levels, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes the block, (filters, PER_FILTER). `columns` and `maps` are working memory.
    pub(crate) fn describe(
        &self,
        pyramid: &Pyramid,
        columns: &mut Vec<f32>,
        maps: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        for level in 0..LEVELS {
            let positions = positions(level);
            let area = positions * positions;
            let filters = self.levels[level].len() / TAPS;
            unfold(pyramid, level, columns);
            maps.resize(filters * area, 0.0);
            a_b([filters, area, TAPS], &self.levels[level], columns, 1.0, Write::Overwrite, maps);
            for (at, map) in maps.chunks_exact(area).enumerate() {
                let filter = at * LEVELS + level;
                pool(map, positions, &mut out[filter * PER_FILTER..][..PER_FILTER]);
            }
        }
    }
}

/// Positions per side on level `level`.
fn positions(level: usize) -> usize {
    (Pyramid::side(level) - SIZE) / STRIDES[level] + 1
}

/// One column per position: (TAPS, positions^2), values around zero.
fn unfold(pyramid: &Pyramid, level: usize, columns: &mut Vec<f32>) {
    let (side, stride, positions) = (Pyramid::side(level), STRIDES[level], positions(level));
    columns.clear();
    for channel in 0..3 {
        let plane = pyramid.plane(level, channel);
        for tap in 0..SIZE * SIZE {
            for y in 0..positions {
                let start = (y * stride + tap / SIZE) * side + tap % SIZE;
                let row = plane[start..].iter().step_by(stride).take(positions);
                columns.extend(row.map(|value| value - 0.5));
            }
        }
    }
}

/// Sums up the answers of one filter, (positions, positions), as PER_FILTER numbers.
fn pool(map: &[f32], positions: usize, out: &mut [f32]) {
    let mut sums = [0.0f32; GRID * GRID];
    let mut counts = [0.0f32; GRID * GRID];
    let (mut sum, mut squares, mut most, mut negative) = (0.0f32, 0.0f32, 0.0f32, 0.0f32);
    for (y, row) in map.chunks_exact(positions).enumerate() {
        for (x, value) in row.iter().enumerate() {
            let cell = (y * GRID / positions) * GRID + x * GRID / positions;
            sums[cell] += value.max(0.0);
            counts[cell] += 1.0;
            sum += value;
            squares += value * value;
            most = most.max(*value);
            negative += (-value).max(0.0);
        }
    }
    let area = map.len() as f32;
    for cell in 0..GRID * GRID {
        out[cell] = sums[cell] / counts[cell];
    }
    let mean = sum / area;
    out[GRID * GRID] = (squares / area - mean * mean).max(0.0).sqrt();
    out[GRID * GRID + 1] = most;
    out[GRID * GRID + 2] = negative / area;
}

fn uniform(random: &mut ChaCha8Rng) -> f32 {
    (random.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

/// Normal with variance one, by Box and Muller.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - uniform(random)).ln()).sqrt();
    radius * (TAU * uniform(random)).cos()
}

fn noise(random: &mut ChaCha8Rng) -> Vec<f32> {
    (0..TAPS).map(|_| normal(random)).collect()
}

fn wave(random: &mut ChaCha8Rng) -> Vec<f32> {
    // Half the waves see lightness, half one color direction.
    let gray = random.next_u32() & 1 == 0;
    let colors = [0; 3].map(|_| if gray { 1.0 } else { normal(random) });
    let (direction, phase) = (TAU * uniform(random), TAU * uniform(random));
    let per_pixel = 0.08 + 0.34 * uniform(random);
    let mut taps = Vec::with_capacity(TAPS);
    for color in colors {
        for at in 0..SIZE * SIZE {
            let (x, y) = ((at % SIZE) as f32 - 2.0, (at / SIZE) as f32 - 2.0);
            let along = x * direction.cos() + y * direction.sin();
            let bell = (-(x * x + y * y) / 5.0).exp();
            taps.push(color * bell * (TAU * per_pixel * along + phase).cos());
        }
    }
    taps
}

/// Makes a channel sum to zero.
fn center(channel: &mut [f32]) {
    let mean = channel.iter().sum::<f32>() / channel.len() as f32;
    channel.iter_mut().for_each(|tap| *tap -= mean);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    /// The slow, obvious convolution.
    fn answer(pyramid: &Pyramid, level: usize, taps: &[f32], x: usize, y: usize) -> f32 {
        let side = Pyramid::side(level);
        let mut sum = 0.0;
        for (at, tap) in taps.iter().enumerate() {
            let (channel, within) = (at / 25, at % 25);
            let row = y * STRIDES[level] + within / 5;
            let column = x * STRIDES[level] + within % 5;
            sum += tap * (pyramid.plane(level, channel)[row * side + column] - 0.5);
        }
        sum
    }

    #[test]
    fn the_fast_product_is_the_slow_convolution() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut pyramid = Pyramid::default();
        let pixels = (0..64 * 64 * 3).map(|_| random.next_u32() as u8).collect::<Vec<u8>>();
        pyramid.fill(&pixels);
        let filters = Filters::draw(13, &mut random);
        for level in 0..LEVELS {
            let (positions, count) = (positions(level), filters.levels[level].len() / TAPS);
            let (mut columns, mut maps) = (Vec::new(), vec![0.0; count * positions * positions]);
            unfold(&pyramid, level, &mut columns);
            let shape = [count, positions * positions, TAPS];
            a_b(shape, &filters.levels[level], &columns, 1.0, Write::Overwrite, &mut maps);
            for (filter, taps) in filters.levels[level].chunks_exact(TAPS).enumerate() {
                for (x, y) in [(0, 0), (positions - 1, positions - 1), (3, 7)] {
                    let got = maps[(filter * positions + y) * positions + x];
                    assert!((got - answer(&pyramid, level, taps, x, y)).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn pooling_knows_where_and_how_much() {
        let mut map = vec![0.0; 64];
        map[0] = 4.0;
        map[63] = -8.0;
        let mut out = [0.0; PER_FILTER];
        pool(&map, 8, &mut out);
        assert_eq!((out[0], out[15], out[17], out[18]), (1.0, 0.0, 4.0, 0.125));
        assert!((out[16] - (80.0f32 / 64.0 - 0.0625 * 0.0625).sqrt()).abs() < 1e-6);
    }
}
