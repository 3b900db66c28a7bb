//! Attention where a history is asked by many impressions and nothing is kept for a backward pass,
//! as on a page view: the weights of all pairs, a pair being a column.
//!
//! ```text
//! for every part of a history, as many behaviors as a panel of a product has columns:
//!   keys (64, behaviors), embeddings (D, behaviors)       once
//!   for every impression:
//!     z0 = keys + query of the impression, [+ Wp (e * q)]    (64, behaviors)
//!     z1 = W1 prelu(z0)                                      (16, behaviors)
//!     weights = W2 prelu(z1 + b1) + b2                       (behaviors)
//! ```
//! What an impression needs stays in the nearest cache, and every sum is that of
//! [`pairs`](super::pairs), term by term: the weights have the same bits.

use pulp::Simd;

use super::inputs::Histories;
use super::pairs::{Operands, Upper};
use crate::linalg::{self, LeftFactor, Panels, Write, fit};
use crate::prelu::activate;

/// Impressions of a group from which on it pays to turn a history.
const IMPRESSIONS: usize = 4;

/// Columns that are summed in registers at a time.
const LANES: usize = 16;

/// Behaviors of a part of a history, if `histories` are asked by enough impressions each, and the
/// vectors of the processor are long enough.
pub(super) fn part(histories: Histories) -> Option<usize> {
    let asked = histories.impressions() >= IMPRESSIONS * histories.groups();
    Panels::usual_columns().filter(|_| asked)
}

/// The weights of a channel, and its inputs.
pub(super) struct Channel<'a> {
    /// Key part of z0 of each image, (U, 64).
    pub keys: &'a [f32],
    /// Query part of z0 of each impression, (B, 64).
    pub queries: &'a [f32],
    /// PReLU's slopes of the first layer, (64).
    pub slope0: &'a [f32],
    /// Wp, (64, width of a product), and what is multiplied, if that is.
    pub product: Option<(&'a [f32], Operands<'a>)>,
    /// W1, (16, 64).
    pub weight1: &'a [f32],
    pub upper: Upper<'a>,
}

/// Buffers, reused from pass to pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    keys: Vec<f32>,
    embeddings: Vec<f32>,
    products: Vec<f32>,
    z0: Vec<f32>,
    z1: Vec<f32>,
    weights: Vec<f32>,
}

/// Overwrites `weights`, (P), in order of impressions, then behaviors; a history is cut into parts
/// of `part` behaviors.
pub(super) fn weights(
    channel: &Channel,
    histories: Histories,
    part: usize,
    buffers: &mut Buffers,
    weights: &mut [f32],
) {
    let mut rest = weights;
    for group in 0..histories.groups() {
        let (images, impressions) = (histories.images(group), histories.impressions_of(group));
        let (of_group, after) = rest.split_at_mut(images.len() * impressions.len());
        rest = after;
        let mut first = 0;
        for part in images.chunks(part) {
            channel.turn(part, buffers);
            for (impression, row) in
                impressions.clone().zip(of_group.chunks_exact_mut(images.len()))
            {
                let to = &mut row[first..][..part.len()];
                channel.weigh(impression as usize, buffers);
                to.copy_from_slice(&buffers.weights[..part.len()]);
            }
            first += part.len();
        }
    }
}

impl Channel<'_> {
    /// Fills the buffers with the behaviors that are `images`.
    fn turn(&self, images: &[u32], buffers: &mut Buffers) {
        let (first, columns) = (self.slope0.len(), images.len().next_multiple_of(LANES));
        let to = fit(&mut buffers.keys, first * columns);
        turn_rows(images, self.keys, first, columns, to);
        if let Some((_, Operands { embeddings, row, widths: [dim, _], .. })) = self.product {
            let to = fit(&mut buffers.embeddings, dim * columns);
            turn_rows(images, embeddings, row, columns, to);
        }
        let second = self.upper.bias1.len();
        fit(&mut buffers.z0, first * columns);
        fit(&mut buffers.z1, second * columns);
        fit(&mut buffers.weights, columns);
    }

    /// Fills `buffers.weights` with those of one impression.
    fn weigh(&self, impression: usize, buffers: &mut Buffers) {
        let Buffers { keys, embeddings, products, z0, z1, weights } = buffers;
        let (first, columns) = (self.slope0.len(), weights.len());
        let query = &self.queries[impression * first..][..first];
        match self.product {
            None => first_layer(keys, query, self.slope0, columns, z0),
            Some((weight, operands)) => {
                let [dim, asked] = operands.widths;
                let q = &operands.query[impression * asked..][..asked];
                let products = fit(products, dim.max(asked) * columns);
                multiply(embeddings, q, columns, products);
                first_sum(keys, query, columns, z0);
                multiply_panel(weight, products, columns, Write::Add, z0);
                activate_rows(self.slope0, columns, z0);
            }
        }
        multiply_panel(self.weight1, z0, columns, Write::Overwrite, z1);
        upper_layers(self.upper, z1, weights);
    }
}

/// `to` (m, `columns`) = or += `weight` (m, k) times `panel` (k, `columns`).
fn multiply_panel(weight: &[f32], panel: &[f32], columns: usize, write: Write, to: &mut [f32]) {
    let (m, k) = (to.len() / columns, panel.len() / columns);
    let panel = Panels::in_place(k, columns, panel).expect("as many columns as a panel may have");
    linalg::product(m, LeftFactor { data: weight, row: k, column: 1 }, panel, 1.0, write, to);
}

/// The first columns of the rows that are `images`, turned, (_, `columns`); zeros beyond them.
fn turn_rows(images: &[u32], rows: &[f32], width: usize, columns: usize, to: &mut [f32]) {
    let count = to.len() / columns;
    to.fill(0.0);
    for (column, &image) in images.iter().enumerate() {
        let row = &rows[image as usize * width..][..count];
        for (value, to) in row.iter().zip(to.chunks_exact_mut(columns)) {
            to[column] = *value;
        }
    }
}

/// `z0` = prelu(`keys` + `query`), row by row.
#[pulp::with_simd(first_layer = linalg::arch())]
#[inline(always)]
fn first_layer_in<'a, S: Simd>(
    _: S,
    keys: &'a [f32],
    query: &'a [f32],
    slope: &'a [f32],
    columns: usize,
    z0: &'a mut [f32],
) {
    let rows = keys.chunks_exact(columns).zip(z0.chunks_exact_mut(columns));
    for ((keys, z0), (query, slope)) in rows.zip(query.iter().zip(slope)) {
        for (z, key) in z0.iter_mut().zip(keys) {
            *z = activate(key + query, *slope);
        }
    }
}

/// `z0` = `keys` + `query`, row by row.
#[pulp::with_simd(first_sum = linalg::arch())]
#[inline(always)]
fn first_sum_in<'a, S: Simd>(
    _: S,
    keys: &'a [f32],
    query: &'a [f32],
    columns: usize,
    z0: &'a mut [f32],
) {
    let rows = keys.chunks_exact(columns).zip(z0.chunks_exact_mut(columns));
    for ((keys, z0), query) in rows.zip(query) {
        for (z, key) in z0.iter_mut().zip(keys) {
            *z = key + query;
        }
    }
}

/// PReLU in place, row by row.
#[pulp::with_simd(activate_rows = linalg::arch())]
#[inline(always)]
fn activate_rows_in<'a, S: Simd>(_: S, slope: &'a [f32], columns: usize, z0: &'a mut [f32]) {
    for (z0, slope) in z0.chunks_exact_mut(columns).zip(slope) {
        for z in z0 {
            *z = activate(*z, *slope);
        }
    }
}

/// Every row of `embeddings`, (D, `columns`), times its number of `query`; the shorter of both is
/// repeated.
#[pulp::with_simd(multiply = linalg::arch())]
#[inline(always)]
fn multiply_in<'a, S: Simd>(
    _: S,
    embeddings: &'a [f32],
    query: &'a [f32],
    columns: usize,
    products: &'a mut [f32],
) {
    let dim = embeddings.len() / columns;
    for (at, products) in products.chunks_exact_mut(columns).enumerate() {
        let e = &embeddings[at % dim * columns..][..columns];
        let q = query[at % query.len()];
        for (product, e) in products.iter_mut().zip(e) {
            *product = e * q;
        }
    }
}

/// `weights` (columns) = W2 prelu(`z1` + b1) + b2, in the eight partial sums of
/// [`pairs`](super::pairs).
#[pulp::with_simd(upper_layers = linalg::arch())]
#[inline(always)]
fn upper_layers_in<'a, S: Simd>(_: S, layers: Upper<'a>, z1: &'a [f32], weights: &'a mut [f32]) {
    let Upper { bias1, slope1, weight2, bias2 } = layers;
    let (width, columns) = (bias1.len(), weights.len());
    let whole = width - width % 8;
    for (at, weights) in weights.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        // What a row adds, by lane.
        let add = |row: usize, to: &mut [f32; LANES]| {
            let z: &[f32] = &z1[row * columns + at * LANES..][..LANES];
            let (bias, slope, weight) = (bias1[row], slope1[row], weight2[row]);
            for (to, z) in to.iter_mut().zip(z) {
                *to += activate(z + bias, slope) * weight;
            }
        };
        let mut sums = [[0.0f32; LANES]; 8];
        for first in (0..whole).step_by(8) {
            sums.iter_mut().enumerate().for_each(|(row, to)| add(first + row, to));
        }
        for (lane, weight) in weights.iter_mut().enumerate() {
            *weight = bias2 + sums.iter().map(|sums| sums[lane]).sum::<f32>();
        }
        (whole..width).for_each(|row| add(row, weights));
    }
}
