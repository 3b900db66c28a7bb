//! Attention where a history is asked by many impressions and nothing is kept for a backward pass,
//! as on a page view: the weights of all pairs, a pair being a column.
//!
//! ```text
//! for every part of a history, as many behaviors as a panel of a product has columns:
//!   keys (64, behaviors), embeddings (D, behaviors)       once
//!   for every impression:
//!     products = e * q                                    (D, behaviors)
//!     a0 = prelu(keys + query [+ Wp products])            (64, behaviors), R rows at a time
//!     terms = W2 * prelu(W1 a0 + b1)                      (16, behaviors), R rows at a time
//!     weights = b2 + the sum of terms                     (behaviors)
//! ```
//! R rows of a layer are summed, activated and weighed in registers; what an impression needs stays
//! in the nearest cache. Every sum is that of [`pairs`](super::pairs), term by term: the weights
//! have the same bits.

use pulp::{Simd, WithSimd};

use super::inputs::Histories;
use super::pairs::{Operands, Pair, Upper, prelu, vectors, vectors_mut};
use crate::linalg::{self, DEPTH, Panels, fit, zeros};

/// Impressions of a group from which on it pays to turn a history.
const IMPRESSIONS: usize = 4;

/// Columns are filled up to a multiple of this.
const LANES: usize = 16;

/// Columns of a tile of weights between two tests of whether there are more: where another program
/// shares the core, a step costs what its instructions cost to issue.
const STEPS: usize = 4;

/// Floats of a line of a cache.
const LINE: usize = 16;

/// Partial sums of the last layer.
const SUMS: usize = 8;

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
    layers: [Vec<f32>; 6],
    query: Vec<f32>,
    part: Vec<f32>,
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
    linalg::arch().dispatch(Pass { channel, histories, part, buffers, weights });
}

/// The arguments of [`weights`].
struct Pass<'a> {
    channel: &'a Channel<'a>,
    histories: Histories<'a>,
    part: usize,
    buffers: &'a mut Buffers,
    weights: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many rows of two vectors as there are registers for.
        if S::REGISTER_COUNT >= 32 && S::F32_LANES >= LANES {
            self.by_rows::<S, 8>(simd);
        } else {
            self.by_rows::<S, 4>(simd);
        }
    }
}

impl Pass<'_> {
    #[inline(always)]
    fn by_rows<S: Simd, const R: usize>(self, simd: S) {
        let Pass { channel, histories, part: most, buffers, weights } = self;
        let Buffers { layers, query, part: room } = buffers;
        let layers = Layers::<R>::new(channel, layers);
        let mut rest = weights;
        for group in 0..histories.groups() {
            let (images, impressions) = (histories.images(group), histories.impressions_of(group));
            let (of_group, after) = rest.split_at_mut(images.len() * impressions.len());
            rest = after;
            for (first, images_of_part) in (0..).step_by(most).zip(images.chunks(most)) {
                let mut part = Part::new::<R>(channel, images_of_part, room);
                let rows = of_group.chunks_exact_mut(images.len());
                for (impression, row) in impressions.clone().zip(rows) {
                    let query = channel.query::<R>(impression as usize, query);
                    match part.columns / S::F32_LANES {
                        1 => layers.weigh::<S, 1>(simd, query, &mut part),
                        2 => layers.weigh::<S, 2>(simd, query, &mut part),
                        4 => layers.weigh::<S, 4>(simd, query, &mut part),
                        vectors => unreachable!("a part of {vectors} vectors"),
                    }
                    let to = &mut row[first..][..images_of_part.len()];
                    to.copy_from_slice(&part.weights[..to.len()]);
                }
            }
        }
    }
}

/// What an impression asks for.
#[derive(Clone, Copy)]
struct Query<'a, const R: usize> {
    /// Query part of z0, (64).
    rows: &'a [[f32; R]],
    /// What keys are multiplied by, if they are.
    factors: &'a [f32],
}

impl Channel<'_> {
    fn query<'s, const R: usize>(
        &'s self,
        impression: usize,
        room: &'s mut Vec<f32>,
    ) -> Query<'s, R> {
        let width = self.slope0.len();
        let rows = &self.queries[impression * width..][..width];
        let rows = match rows.as_chunks::<R>() {
            (rows, []) => rows,
            _ => in_tiles(rows, 1, room),
        };
        let factors = self.product.as_ref().map_or(&[][..], |(_, operands)| {
            &operands.query[impression * operands.widths[1]..][..operands.widths[1]]
        });
        Query { rows, factors }
    }

    /// Numbers of a product, 0 without.
    pub(super) fn product_width(&self) -> usize {
        self.product.as_ref().map_or(0, |(_, Operands { widths, .. })| widths[0].max(widths[1]))
    }
}

impl<'a> Channel<'a> {
    /// Key part and query part of z0 of a pair, (64) each.
    #[inline(always)]
    pub(super) fn parts_of<S: Simd, const V: usize>(&self, pair: &Pair) -> [&'a [[S::f32s; V]]; 2] {
        let width = self.slope0.len();
        let parts = [(self.keys, pair.image), (self.queries, pair.impression)];
        parts.map(|(rows, at)| vectors::<S, V>(&rows[at as usize * width..][..width]))
    }
}

/// The layers of a channel, a tile of `R` rows after the other; rows beyond the last are zeros.
struct Layers<'a, const R: usize> {
    product: &'a [[f32; R]],
    slope0: &'a [[f32; R]],
    layer1: &'a [[f32; R]],
    bias1: &'a [[f32; R]],
    slope1: &'a [[f32; R]],
    weight2: &'a [[f32; R]],
    bias2: f32,
    /// Numbers of a product, rows of the first layer and of the second.
    widths: [usize; 3],
}

impl<'a, const R: usize> Layers<'a, R> {
    fn new(channel: &Channel, room: &'a mut [Vec<f32>; 6]) -> Layers<'a, R> {
        let Upper { bias1, slope1, weight2, bias2 } = channel.upper;
        let widths = [channel.product_width(), channel.slope0.len(), bias1.len()];
        let product = channel.product.as_ref().map_or(&[][..], |(weight, _)| weight);
        let [a, b, c, d, e, f] = room;
        Layers {
            product: in_tiles(product, widths[0], a),
            slope0: in_tiles(channel.slope0, 1, b),
            layer1: in_tiles(channel.weight1, widths[1], c),
            bias1: in_tiles(bias1, 1, d),
            slope1: in_tiles(slope1, 1, e),
            weight2: in_tiles(weight2, 1, f),
            bias2,
            widths,
        }
    }

    /// Fills `part.weights` with those of one impression.
    #[inline(always)]
    fn weigh<S: Simd, const V: usize>(&self, simd: S, query: Query<R>, part: &mut Part) {
        let Part { keys, embeddings, products, a0, terms, weights, .. } = part;
        let (a0, terms) = (vectors_mut::<S, V>(a0), vectors_mut::<S, V>(terms));
        let keys = vectors::<S, V>(keys);
        if self.product.is_empty() {
            self.first_layer(simd, query, keys, a0);
        } else {
            let products = vectors_mut::<S, V>(products);
            multiply(simd, vectors::<S, V>(embeddings), query.factors, products);
            self.first_layer_of_products(simd, query, keys, products, a0);
        }
        self.second_layer(simd, &a0[..self.widths[1]], terms);
        let terms = &terms[..self.widths[2]];
        add_terms(simd, self.bias2, terms, &mut vectors_mut::<S, V>(weights)[0]);
    }

    /// `a0` = prelu(`keys` + `query`).
    #[inline(always)]
    fn first_layer<S: Simd, const V: usize>(
        &self,
        simd: S,
        query: Query<R>,
        keys: &[[S::f32s; V]],
        a0: &mut [[S::f32s; V]],
    ) {
        let rows = query.rows.as_flattened().iter().zip(self.slope0.as_flattened());
        for ((key, a0), (query, slope)) in keys.iter().zip(a0).zip(rows) {
            let (query, slope) = (simd.splat_f32s(*query), simd.splat_f32s(*slope));
            for (key, a0) in key.iter().zip(a0) {
                *a0 = prelu(simd, slope, simd.add_f32s(*key, query));
            }
        }
    }

    /// `a0` = prelu(`keys` + `query` + Wp `products`).
    #[inline(always)]
    fn first_layer_of_products<S: Simd, const V: usize>(
        &self,
        simd: S,
        query: Query<R>,
        keys: &[[S::f32s; V]],
        products: &[[S::f32s; V]],
        a0: &mut [[S::f32s; V]],
    ) {
        let zero = simd.splat_f32s(std::hint::black_box(0.0));
        let tiles = self.product.chunks_exact(self.widths[0]);
        let rows = keys.as_chunks::<R>().0.iter().zip(a0.as_chunks_mut::<R>().0);
        for ((weights, (keys, a0)), (query, slope)) in
            tiles.zip(rows).zip(query.rows.iter().zip(self.slope0))
        {
            let mut blocks = weights.chunks(DEPTH).zip(products.chunks(DEPTH));
            let mut z = [[zero; V]; R];
            if let Some((weights, products)) = blocks.next() {
                z = sums(simd, zero, weights, products);
            }
            for i in 0..R {
                let query = simd.splat_f32s(query[i]);
                for j in 0..V {
                    z[i][j] = simd.add_f32s(simd.add_f32s(keys[i][j], query), z[i][j]);
                }
            }
            for (weights, products) in blocks {
                add_to(simd, &sums(simd, zero, weights, products), &mut z);
            }
            for i in 0..R {
                let slope = simd.splat_f32s(slope[i]);
                for j in 0..V {
                    a0[i][j] = prelu(simd, slope, z[i][j]);
                }
            }
        }
    }

    /// `terms` = W2 * prelu(W1 `a0` + b1).
    #[inline(always)]
    fn second_layer<S: Simd, const V: usize>(
        &self,
        simd: S,
        a0: &[[S::f32s; V]],
        terms: &mut [[S::f32s; V]],
    ) {
        let zero = simd.splat_f32s(std::hint::black_box(0.0));
        let tiles = self.layer1.chunks_exact(a0.len()).zip(terms.as_chunks_mut::<R>().0);
        let upper = self.bias1.iter().zip(self.slope1).zip(self.weight2);
        for ((weights, terms), ((bias, slope), last)) in tiles.zip(upper) {
            let mut blocks = weights.chunks(DEPTH).zip(a0.chunks(DEPTH));
            let mut z = [[zero; V]; R];
            if let Some((weights, a0)) = blocks.next() {
                z = sums(simd, zero, weights, a0);
            }
            for (weights, a0) in blocks {
                add_to(simd, &sums(simd, zero, weights, a0), &mut z);
            }
            for i in 0..R {
                let (bias, slope) = (simd.splat_f32s(bias[i]), simd.splat_f32s(slope[i]));
                for j in 0..V {
                    let a1 = prelu(simd, slope, simd.add_f32s(z[i][j], bias));
                    terms[i][j] = simd.mul_f32s(a1, simd.splat_f32s(last[i]));
                }
            }
        }
    }
}

/// `R` rows of a layer times `panel`, from `zero` on.
#[inline(always)]
fn sums<S: Simd, const R: usize, const V: usize>(
    simd: S,
    zero: S::f32s,
    weights: &[[f32; R]],
    panel: &[[S::f32s; V]],
) -> [[S::f32s; V]; R] {
    let mut sums = [[zero; V]; R];
    let (weights, last_weights) = weights.as_chunks::<STEPS>();
    let (panel, last_rows) = panel.as_chunks::<STEPS>();
    for (weights, rows) in weights.iter().zip(panel) {
        for (weights, row) in weights.iter().zip(rows) {
            add_row(simd, weights, row, &mut sums);
        }
    }
    for (weights, row) in last_weights.iter().zip(last_rows) {
        add_row(simd, weights, row, &mut sums);
    }
    sums
}

/// A column of a tile of weights times a row of what they weigh, added to `sums`.
#[inline(always)]
fn add_row<S: Simd, const R: usize, const V: usize>(
    simd: S,
    weights: &[f32; R],
    row: &[S::f32s; V],
    sums: &mut [[S::f32s; V]; R],
) {
    for i in 0..R {
        let weight = simd.splat_f32s(weights[i]);
        for j in 0..V {
            sums[i][j] = simd.mul_add_e_f32s(weight, row[j], sums[i][j]);
        }
    }
}

/// `to` += `sums`.
#[inline(always)]
fn add_to<S: Simd, const R: usize, const V: usize>(
    simd: S,
    sums: &[[S::f32s; V]; R],
    to: &mut [[S::f32s; V]; R],
) {
    for i in 0..R {
        for j in 0..V {
            to[i][j] = simd.add_f32s(to[i][j], sums[i][j]);
        }
    }
}

/// Every row of `embeddings` times its number of `factors`; the shorter of both is repeated.
#[inline(always)]
fn multiply<S: Simd, const V: usize>(
    simd: S,
    embeddings: &[[S::f32s; V]],
    factors: &[f32],
    products: &mut [[S::f32s; V]],
) {
    let narrow = embeddings.len().min(factors.len());
    for (at, products) in products.chunks_exact_mut(narrow).enumerate() {
        let first = at * narrow;
        // One of both is repeated, the other one as long as the products.
        let e = &embeddings[if embeddings.len() > narrow { first } else { 0 }..][..narrow];
        let factors = &factors[if factors.len() > narrow { first } else { 0 }..][..narrow];
        for ((products, e), factor) in products.iter_mut().zip(e).zip(factors) {
            let factor = simd.splat_f32s(*factor);
            for j in 0..V {
                products[j] = simd.mul_f32s(e[j], factor);
            }
        }
    }
}

/// `weights` = `bias` + the sum of the rows of `terms`, in the partial sums of
/// [`pairs`](super::pairs).
#[inline(always)]
fn add_terms<S: Simd, const V: usize>(
    simd: S,
    bias: f32,
    terms: &[[S::f32s; V]],
    weights: &mut [S::f32s; V],
) {
    let (tiles, rest) = terms.as_chunks::<SUMS>();
    for j in 0..V {
        let mut sums = [simd.splat_f32s(0.0); SUMS];
        for tile in tiles {
            for i in 0..SUMS {
                sums[i] = simd.add_f32s(sums[i], tile[i][j]);
            }
        }
        let mut sum = sums[0];
        for partial in &sums[1..] {
            sum = simd.add_f32s(sum, *partial);
        }
        let mut weight = simd.add_f32s(simd.splat_f32s(bias), sum);
        for term in rest {
            weight = simd.add_f32s(weight, term[j]);
        }
        weights[j] = weight;
    }
}

/// Some behaviors of a history, a behavior being a column.
struct Part<'a> {
    columns: usize,
    keys: &'a mut [f32],
    embeddings: &'a mut [f32],
    products: &'a mut [f32],
    a0: &'a mut [f32],
    terms: &'a mut [f32],
    weights: &'a mut [f32],
}

impl<'a> Part<'a> {
    /// The behaviors that are `images`, and room for what layers of tiles of `R` rows make of them.
    fn new<const R: usize>(channel: &Channel, images: &[u32], room: &'a mut Vec<f32>) -> Part<'a> {
        let columns = images.len().next_multiple_of(LANES);
        let [first, second] = [channel.slope0.len(), channel.upper.bias1.len()];
        let [tiled, tiled1] = [first, second].map(|rows| rows.next_multiple_of(R) * columns);
        let dim = channel.product.as_ref().map_or(0, |(_, operands)| operands.widths[0]);
        let products = channel.product_width() * columns;
        let len = 2 * tiled + tiled1 + products + (dim + 1) * columns;
        let room = fit(room, len + LINE);
        let offset = room.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        let (keys, room) = room[offset..].split_at_mut(tiled);
        let (embeddings, room) = room.split_at_mut(dim * columns);
        let (products, room) = room.split_at_mut(products);
        let (a0, room) = room.split_at_mut(tiled);
        let (terms, room) = room.split_at_mut(tiled1);
        turn_rows(images, channel.keys, [first; 2], columns, keys);
        if let Some((_, operands)) = &channel.product {
            let widths = [operands.row, dim];
            turn_rows(images, operands.embeddings, widths, columns, embeddings);
        }
        Part { columns, keys, embeddings, products, a0, terms, weights: &mut room[..columns] }
    }
}

/// The first columns of the rows that are `images`, turned, (_, `columns`); zeros beyond them.
/// A row has `width` columns, of which the first `count` are turned.
fn turn_rows(
    images: &[u32],
    rows: &[f32],
    [width, count]: [usize; 2],
    columns: usize,
    to: &mut [f32],
) {
    to.fill(0.0);
    for (column, &image) in images.iter().enumerate() {
        let row = &rows[image as usize * width..][..count];
        for (value, to) in row.iter().zip(to.chunks_exact_mut(columns)) {
            to[column] = *value;
        }
    }
}

/// `weight`, rows of `depth` numbers, in tiles of `R` rows: of a tile, column after column.
fn in_tiles<'a, const R: usize>(
    weight: &[f32],
    depth: usize,
    room: &'a mut Vec<f32>,
) -> &'a [[f32; R]] {
    let rows = weight.len().checked_div(depth).unwrap_or(0);
    let tiled = zeros(room, rows.next_multiple_of(R) * depth);
    for (row, numbers) in weight.chunks_exact(depth.max(1)).enumerate() {
        let tile = &mut tiled[row / R * R * depth..][..R * depth];
        for (number, column) in numbers.iter().zip(tile.chunks_exact_mut(R)) {
            column[row % R] = *number;
        }
    }
    tiled.as_chunks::<R>().0
}
