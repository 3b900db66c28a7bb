//! The `builtin` encoder: a fixed description of a picture that needs no weights and no download.
//!
//! The whole picture is resized to 64 x 64 and averaged down to 32 x 32 and 16 x 16. Three blocks
//! follow:
//!
//! - color, 832 numbers: joint hue, saturation, value histograms of the whole and of the center,
//!   histograms on a 4 x 4 grid, mean colors on an 8 x 8 grid;
//! - gradient, 832 numbers: orientation histograms, 9 unsigned on 8 x 8 cells and 16 signed on
//!   4 x 4 cells at half the size;
//! - convolution, 19 numbers per filter, 2,432 in all: seeded random 5 x 5 filters on all three
//!   sizes; rectified means on a 4 x 4 grid, deviation, maximum, rectified negative mean.
//!
//! Histograms enter as square roots. Every number is then centered, and every group of like numbers
//! scaled to variance one, over 64 synthetic pictures drawn from the seed: constants of the
//! encoder, not statistics of anybody's data. A wider row gets more filters; a narrower one is a
//! signed sum (count sketch) of the 4,096 numbers, which keeps distances on average.
//!
//! The description sees palette, layout, edges, pattern and texture. It does not know what things
//! are: for that there are trained encoders.

mod calibrate;
mod color;
mod convolution;
mod gradient;
mod pyramid;

use std::ops::Range;

use ams_data::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::decode::Rgb;
use crate::encoder::{Encoder, Scratch};
use crate::failure::Failure;
use crate::resize::{Filter, Part, resize};
use convolution::Filters;
use pyramid::{Pyramid, SIDE};

/// Numbers per row unless asked otherwise.
pub const DIM: usize = 4096;

/// Raised whenever rows change: part of the hash.
const VERSION: u32 = 1;

/// Values beyond this many deviations are cut off.
const LIMIT: f32 = 16.0;

/// The encoder; see the module.
#[derive(Debug)]
pub struct Builtin {
    id: String,
    dim: usize,
    seed: u64,
    filters: Filters,
    /// Subtracted from each raw number, (R).
    center: Vec<f32>,
    scale: Vec<f32>,
    /// Where each raw number goes and its sign, (R); empty where the row is not narrowed.
    sketch: Vec<(u32, f32)>,
}

impl Builtin {
    /// The encoder with `dim` numbers per row (8 to 65,536) and filters drawn from `seed`.
    pub fn new(dim: usize, seed: u64) -> Result<Builtin> {
        if !(8..=65_536).contains(&dim) {
            let what = format!("the builtin encoder makes rows of 8 to 65536 numbers, not {dim}");
            return Err(Error::option(what));
        }
        let before = color::LEN + gradient::LEN;
        let filters = (dim.max(DIM) - before).div_ceil(convolution::PER_FILTER);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let filters = Filters::draw(filters, &mut random);
        let id =
            if seed == 0 { format!("builtin-{dim}") } else { format!("builtin-{dim}-seed{seed}") };
        let mut encoder = Builtin {
            id,
            dim,
            seed,
            filters,
            center: Vec::new(),
            scale: Vec::new(),
            sketch: Vec::new(),
        };
        encoder.calibrate(&mut random);
        if dim < DIM {
            encoder.sketch = draw_sketch(encoder.center.len(), dim, &mut random);
        }
        Ok(encoder)
    }

    /// Length of a raw description (R).
    fn raw_len(&self) -> usize {
        color::LEN + gradient::LEN + self.filters.len() * convolution::PER_FILTER
    }

    /// Writes the raw description of `pyramid`, (R).
    fn describe(
        &self,
        pyramid: &Pyramid,
        columns: &mut Vec<f32>,
        maps: &mut Vec<f32>,
        raw: &mut [f32],
    ) {
        let (colors, rest) = raw.split_at_mut(color::LEN);
        let (gradients, convolutions) = rest.split_at_mut(gradient::LEN);
        color::describe(pyramid, colors);
        gradient::describe(pyramid, gradients);
        self.filters.describe(pyramid, columns, maps, convolutions);
    }

    /// The row of one fitted picture.
    fn encode_one(&self, picture: &Rgb, scratch: &mut Scratch, out: &mut [f32]) {
        let [raw, columns, maps, levels @ ..] = &mut scratch.floats;
        let mut pyramid = Pyramid { levels: levels.each_mut().map(std::mem::take) };
        pyramid.fill(&picture.pixels);
        raw.resize(self.raw_len(), 0.0);
        self.describe(&pyramid, columns, maps, raw);
        levels.iter_mut().zip(pyramid.levels).for_each(|(to, from)| *to = from);
        for ((value, center), scale) in raw.iter_mut().zip(&self.center).zip(&self.scale) {
            *value = ((*value - center) * scale).clamp(-LIMIT, LIMIT);
        }
        if self.sketch.is_empty() {
            out.copy_from_slice(&raw[..self.dim]);
        } else {
            out.fill(0.0);
            for (value, (to, sign)) in raw.iter().zip(&self.sketch) {
                out[*to as usize] += value * sign;
            }
        }
    }

    /// The groups of raw numbers that share a scale.
    fn groups(&self) -> Vec<Range<usize>> {
        let mut lengths = [color::GROUPS.as_slice(), gradient::GROUPS.as_slice()].concat();
        for _ in 0..self.filters.len() {
            lengths.extend(convolution::GROUPS);
        }
        let mut start = 0;
        let groups = lengths.into_iter().map(|length| {
            start += length;
            start - length..start
        });
        groups.collect()
    }

    /// Sets center and scale from synthetic pictures.
    fn calibrate(&mut self, random: &mut ChaCha8Rng) {
        let mut raw = vec![0.0; self.raw_len()];
        let mut sums = vec![(0.0f64, 0.0f64); raw.len()];
        let (mut columns, mut maps, mut pyramid) = (Vec::new(), Vec::new(), Pyramid::default());
        for _ in 0..calibrate::PICTURES {
            pyramid.fill(&calibrate::draw(random));
            self.describe(&pyramid, &mut columns, &mut maps, &mut raw);
            for ((sum, squares), value) in sums.iter_mut().zip(&raw) {
                *sum += f64::from(*value);
                *squares += f64::from(*value).powi(2);
            }
        }
        let count = calibrate::PICTURES as f64;
        self.center = sums.iter().map(|(sum, _)| (sum / count) as f32).collect();
        self.scale = vec![0.0; raw.len()];
        for group in self.groups() {
            let variance = sums[group.clone()]
                .iter()
                .map(|(sum, squares)| squares / count - (sum / count).powi(2))
                .sum::<f64>()
                / group.len() as f64;
            self.scale[group].fill((1.0 / variance.max(1e-12).sqrt()) as f32);
        }
    }
}

/// Spreads `from` numbers evenly over `to` sums, with random signs.
fn draw_sketch(from: usize, to: usize, random: &mut ChaCha8Rng) -> Vec<(u32, f32)> {
    let size = (to as f32 / from as f32).sqrt();
    let mut order = (0..from as u32).collect::<Vec<u32>>();
    for last in (1..from).rev() {
        order.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
    let sign = |random: &mut ChaCha8Rng| if random.next_u32() & 1 == 0 { size } else { -size };
    order.into_iter().map(|place| (place % to as u32, sign(random))).collect()
}

impl Encoder for Builtin {
    fn id(&self) -> &str {
        &self.id
    }

    fn hash(&self) -> String {
        let text = format!("ams builtin encoder {VERSION}, dim {}, seed {}", self.dim, self.seed);
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn fit(&self, picture: Rgb, scratch: &mut Scratch) -> Rgb {
        let (part, side) = (Part::whole(&picture), SIDE as u32);
        let mut pixels = Vec::new();
        let filter = Filter::Bilinear;
        resize(&mut scratch.resizer, &picture, part, [side, side], filter, &mut pixels);
        Rgb { width: side, height: side, pixels }
    }

    fn encode(
        &self,
        fitted: &[Rgb],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> std::result::Result<(), Failure> {
        assert_eq!(out.len(), fitted.len() * self.dim, "rows of the encoder's width");
        for (picture, row) in fitted.iter().zip(out.chunks_exact_mut(self.dim)) {
            self.encode_one(picture, scratch, row);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
