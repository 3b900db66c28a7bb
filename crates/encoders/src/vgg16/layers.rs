//! Convolution, pooling and fully connected layers over planes of pixels.
//!
//! ```text
//! a plane: (side + 2, side + 2, colors), zeros around
//!
//!   0 0 0 0 0
//!   0 a b c 0
//!   0 d e f 0
//!   0 g h i 0
//!   0 0 0 0 0
//! ```
//! The three pixels left to right that a kernel's row sees lie end to end, 3 x colors numbers. So a
//! convolution is three products, one for each row of the kernel, whose left factor is the plane
//! itself, read with a stride of one pixel: nothing is copied. Rows run on over the border, where
//! the products are of no use and become zeros again.

use ams_linalg::{LeftFactor, Packed, Write, product};

/// Floats of the destination that are worked on at once: 256 KB, so that they stay in a core's
/// cache.
const STRIP: usize = 64 * 1024;

/// A square of pixels; see the module.
#[derive(Debug, Default)]
pub(crate) struct Plane {
    data: Vec<f32>,
    side: usize,
    colors: usize,
}

impl Plane {
    /// A plane that uses the memory of `buffer`; without pixels yet.
    pub(crate) fn of(buffer: &mut Vec<f32>) -> Plane {
        Plane { data: std::mem::take(buffer), side: 0, colors: 0 }
    }

    pub(crate) fn into_buffer(self) -> Vec<f32> {
        self.data
    }

    /// Becomes (`side`, `side`, `colors`); pixels are of any value, the border is zero.
    fn reshape(&mut self, side: usize, colors: usize) {
        (self.side, self.colors) = (side, colors);
        self.data.resize((side + 2) * (side + 2) * colors, 0.0);
        let row = self.row();
        self.data[..row].fill(0.0);
        let last = self.data.len() - row;
        self.data[last..].fill(0.0);
        self.clear_sides(0, side);
    }

    /// Floats of a row with its border.
    fn row(&self) -> usize {
        (self.side + 2) * self.colors
    }

    /// Zeros left and right of the rows `from` to `to`.
    fn clear_sides(&mut self, from: usize, to: usize) {
        let (row, colors) = (self.row(), self.colors);
        for row in self.data[(from + 1) * row..(to + 1) * row].chunks_exact_mut(row) {
            row[..colors].fill(0.0);
            let last = row.len() - colors;
            row[last..].fill(0.0);
        }
    }

    /// The pixels of row `y`, without border.
    fn pixels(&self, y: usize) -> &[f32] {
        &self.data[(y + 1) * self.row() + self.colors..][..self.side * self.colors]
    }

    /// Takes the pixels that `write` gives, (side, side, colors).
    pub(crate) fn fill(&mut self, side: usize, colors: usize, write: impl FnOnce(&mut [f32])) {
        self.reshape(side, colors);
        let mut inner = vec![0.0; side * side * colors];
        write(&mut inner);
        let row = self.row();
        for (y, pixels) in inner.chunks_exact(side * colors).enumerate() {
            self.data[(y + 1) * row + colors..][..pixels.len()].copy_from_slice(pixels);
        }
    }

    /// The pixels as (colors, side, side).
    pub(crate) fn colors_first(&self, out: &mut [f32]) {
        let area = self.side * self.side;
        assert_eq!(out.len(), area * self.colors, "a number for every color of every pixel");
        for y in 0..self.side {
            for (x, pixel) in self.pixels(y).chunks_exact(self.colors).enumerate() {
                for (color, value) in pixel.iter().enumerate() {
                    out[color * area + y * self.side + x] = *value;
                }
            }
        }
    }
}

/// A 3 x 3 convolution that keeps the size, with a bias and rectified.
#[derive(Debug)]
pub(crate) struct Convolution {
    /// By row of the kernel: (3 x inputs, outputs).
    rows: [Packed; 3],
    bias: Vec<f32>,
    inputs: usize,
}

impl Convolution {
    /// From `weights` (outputs, inputs, 3, 3) and `bias` (outputs).
    pub(crate) fn new(inputs: usize, weights: &[f32], bias: Vec<f32>) -> Convolution {
        let outputs = bias.len();
        assert_eq!(weights.len(), outputs * inputs * 9, "a kernel for every pair of colors");
        let rows = [0, 1, 2].map(|row| {
            let mut matrix = vec![0.0; 3 * inputs * outputs];
            for output in 0..outputs {
                for input in 0..inputs {
                    for column in 0..3 {
                        let weight = weights[(output * inputs + input) * 9 + row * 3 + column];
                        matrix[(column * inputs + input) * outputs + output] = weight;
                    }
                }
            }
            let mut packed = Packed::default();
            packed.pack(3 * inputs, outputs, &matrix);
            packed
        });
        Convolution { rows, bias, inputs }
    }

    /// `to` = rectified(convolution of `from` + bias).
    pub(crate) fn forward(&self, from: &Plane, to: &mut Plane) {
        assert_eq!(from.colors, self.inputs, "the colors of the layer before");
        let (side, outputs) = (from.side, self.bias.len());
        to.reshape(side, outputs);
        let row = to.row();
        let strip = (STRIP / row).max(1);
        for first in (0..side).step_by(strip) {
            let last = side.min(first + strip);
            // From the first pixel of the first row to the last one of the last row, and the
            // borders between.
            let pixels = (last - first) * (side + 2) - 2;
            let sums = &mut to.data[(first + 1) * row + outputs..][..pixels * outputs];
            for (kernel, weights) in self.rows.iter().enumerate() {
                let seen = &from.data[(first + kernel) * from.row()..];
                let left = LeftFactor::rows(seen, self.inputs);
                let write = if kernel == 0 { Write::Overwrite } else { Write::Add };
                product(pixels, left, weights.panels(), 1.0, write, sums);
            }
            rectify(sums, &self.bias, 0.0);
            to.clear_sides(first, last);
        }
    }
}

/// `to` = the largest of every 2 x 2 pixels of `from`, by color.
pub(crate) fn pool(from: &Plane, to: &mut Plane) {
    to.reshape(from.side / 2, from.colors);
    let (row, colors) = (to.row(), to.colors);
    for y in 0..to.side {
        let (upper, lower) = (from.pixels(2 * y), from.pixels(2 * y + 1));
        let out = &mut to.data[(y + 1) * row + colors..][..to.side * colors];
        let pairs = upper.chunks_exact(2 * colors).zip(lower.chunks_exact(2 * colors));
        for (out, (upper, lower)) in out.chunks_exact_mut(colors).zip(pairs) {
            let ((a, b), (c, d)) = (upper.split_at(colors), lower.split_at(colors));
            for color in 0..colors {
                out[color] = larger(larger(a[color], b[color]), larger(c[color], d[color]));
            }
        }
    }
}

/// A fully connected layer.
#[derive(Debug)]
pub(crate) struct Full {
    weights: Packed,
    bias: Vec<f32>,
    inputs: usize,
}

impl Full {
    /// From `weights` (outputs, inputs) and `bias` (outputs).
    pub(crate) fn new(inputs: usize, weights: &[f32], bias: Vec<f32>) -> Full {
        let mut packed = Packed::default();
        packed.pack_transposed(inputs, bias.len(), weights);
        Full { weights: packed, bias, inputs }
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `to` (n, outputs) = `from` (n, inputs) x weights + bias, `rectified` or not.
    pub(crate) fn forward(&self, n: usize, from: &[f32], rectified: bool, to: &mut [f32]) {
        let left = LeftFactor::rows(from, self.inputs);
        product(n, left, self.weights.panels(), 1.0, Write::Overwrite, to);
        rectify(to, &self.bias, if rectified { 0.0 } else { f32::NEG_INFINITY });
    }
}

/// Adds `bias` to every row of `sums`; nothing stays below `least`.
fn rectify(sums: &mut [f32], bias: &[f32], least: f32) {
    for row in sums.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value = larger(*value + bias, least);
        }
    }
}

/// The larger one; what is not a number stays so, and is refused at the end.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}
