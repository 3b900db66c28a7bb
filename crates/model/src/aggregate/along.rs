//! Attention pair by pair, a pair being a row: forward passes of training, and pages where every
//! impression has a history of its own.
//!
//! ```text
//! for every twelve pairs:
//!   products = e * q                                      (12, D)
//!   a0 = prelu(key + query [+ products WpT])              (12, 64), some rows at a time
//!   z1 = a0 W1T + b1                                      (12, 16), kept for the backward pass
//!   weights = b2 + W2 prelu(z1)                           (12)
//! ```
//! Rows of a layer are summed and activated in registers, and twelve pairs stay in the nearest
//! cache. It is for layers of whole vectors; every sum is that of [`pairs`], term by term.

use pulp::{Simd, WithSimd};

use super::across::Channel;
use super::pairs::{self, Operands, Pair, Upper, prelu, vectors, vectors_mut};
use crate::linalg::{self, DEPTH, LeftFactor, fit};

/// Pairs at a time.
const PAIRS: usize = 12;

/// Of how many columns the two layers are multiples, if the vectors of the processor are for this.
fn columns_of_tiles() -> Option<[usize; 2]> {
    struct Here;
    impl WithSimd for Here {
        type Output = Option<[usize; 2]>;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Option<[usize; 2]> {
            match (S::F32_LANES, S::REGISTER_COUNT) {
                (16, 32) => Some([64, 16]),
                (8, _) => Some([16, 16]),
                _ => None,
            }
        }
    }
    linalg::arch().dispatch(Here)
}

/// Whether layers of `first` and `second` units are for this, and products of `product` numbers.
pub(super) fn fits([first, second]: [usize; 2], product: usize) -> bool {
    let multiples = |of: [usize; 2]| first.is_multiple_of(of[0]) && second.is_multiple_of(of[1]);
    product.max(first) <= DEPTH && columns_of_tiles().is_some_and(multiples)
}

/// Buffers, reused from pass to pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    /// The transposed layers, in panels.
    layers: [Vec<f32>; 2],
    products: Vec<f32>,
    a0: Vec<f32>,
    terms: Vec<f32>,
}

/// Overwrites `z1` (P, 16) and `weights` (P) of all `pairs`.
pub(super) fn weights(
    channel: &Channel,
    pairs: &[Pair],
    buffers: &mut Buffers,
    z1: &mut [f32],
    weights: &mut [f32],
) {
    linalg::arch().dispatch(Pass { channel, pairs, buffers, z1, weights });
}

/// The arguments of [`weights`].
struct Pass<'a> {
    channel: &'a Channel<'a>,
    pairs: &'a [Pair],
    buffers: &'a mut Buffers,
    z1: &'a mut [f32],
    weights: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many rows of so many vectors as there are registers for.
        match S::F32_LANES {
            16 => self.by_tiles::<S, 6, 4, 12, 1>(simd),
            8 => self.by_tiles::<S, 6, 2, 6, 2>(simd),
            lanes => unreachable!("vectors of {lanes}"),
        }
    }
}

impl Pass<'_> {
    /// Tiles of `M` pairs and `N` vectors in the first layer, of `O` and `P` in the second.
    #[inline(always)]
    fn by_tiles<S: Simd, const M: usize, const N: usize, const O: usize, const P: usize>(
        self,
        simd: S,
    ) {
        let Pass { channel, pairs, buffers, z1, weights } = self;
        let Upper { bias1, bias2, .. } = channel.upper;
        let (first, second, product) = (channel.slope0.len(), bias1.len(), channel.product_width());
        let Buffers { layers: [layer0, layer1], products, a0, terms } = buffers;
        let wide = product.next_multiple_of(S::F32_LANES);
        let products = fit(products, PAIRS * wide);
        let (a0, terms) = (fit(a0, PAIRS * first), fit(terms, PAIRS * second));
        let weight0 = channel.product.as_ref().map_or(&[][..], |(weight, _)| weight);
        in_panels(weight0, product, N * S::F32_LANES, layer0);
        in_panels(channel.weight1, first, P * S::F32_LANES, layer1);
        let (layer0, layer1) = (vectors::<S, N>(layer0), vectors::<S, P>(layer1));
        let blocks = pairs.chunks(PAIRS).zip(z1.chunks_mut(PAIRS * second));
        for ((pairs, z1), weights) in blocks.zip(weights.chunks_mut(PAIRS)) {
            // A tile has all of its rows.
            let mut block = [pairs[pairs.len() - 1]; PAIRS];
            block[..pairs.len()].copy_from_slice(pairs);
            match &channel.product {
                None => first_layer::<S, N>(simd, channel, &block, a0),
                Some((_, operands)) => {
                    for (pair, products) in block.iter().zip(products.chunks_exact_mut(wide)) {
                        multiply(simd, operands, pair, products);
                    }
                    first_layer_of_products::<S, M, N>(simd, channel, &block, layer0, products, a0);
                }
            }
            second_layer::<S, O, P>(simd, channel, a0, layer1, z1, terms);
            for (weight, terms) in weights.iter_mut().zip(terms.chunks_exact(second)) {
                let mut sums = [0.0f32; 8];
                for terms in terms.as_chunks::<8>().0 {
                    for lane in 0..8 {
                        sums[lane] += terms[lane];
                    }
                }
                *weight = bias2 + sums.iter().sum::<f32>();
            }
        }
    }
}

/// The two vectors of a pair, multiplied, and any numbers beyond.
#[inline(always)]
fn multiply<S: Simd>(simd: S, operands: &Operands, pair: &Pair, products: &mut [f32]) {
    let [dim, asked] = operands.widths;
    let e = &operands.embeddings[pair.image as usize * operands.row..];
    let q = &operands.query[pair.impression as usize * asked..];
    if dim == asked && e.len().min(q.len()) >= products.len() {
        let (e, q) = (S::as_simd_f32s(e).0, S::as_simd_f32s(q).0);
        for ((to, e), q) in S::as_mut_simd_f32s(products).0.iter_mut().zip(e).zip(q) {
            *to = simd.mul_f32s(*e, *q);
        }
    } else {
        pairs::multiply(&e[..dim], &q[..asked], &mut products[..dim.max(asked)]);
    }
}

/// `a0` = prelu(key + query) of every pair.
#[inline(always)]
fn first_layer<S: Simd, const N: usize>(
    simd: S,
    channel: &Channel,
    pairs: &[Pair; PAIRS],
    a0: &mut [f32],
) {
    let slopes = vectors::<S, N>(channel.slope0);
    for (pair, a0) in pairs.iter().zip(a0.chunks_exact_mut(channel.slope0.len())) {
        let [keys, queries] = channel.parts_of::<S, N>(pair);
        let rows = vectors_mut::<S, N>(a0).iter_mut().zip(slopes);
        for (((a0, slope), key), query) in rows.zip(keys).zip(queries) {
            for j in 0..N {
                a0[j] = prelu(simd, slope[j], simd.add_f32s(key[j], query[j]));
            }
        }
    }
}

/// `a0` = prelu(key + query + `products` WpT) of every pair.
#[inline(always)]
fn first_layer_of_products<S: Simd, const M: usize, const N: usize>(
    simd: S,
    channel: &Channel,
    pairs: &[Pair; PAIRS],
    layer: &[[S::f32s; N]],
    products: &[f32],
    a0: &mut [f32],
) {
    let zero = simd.splat_f32s(std::hint::black_box(0.0));
    let (first, depth) = (channel.slope0.len(), channel.product_width());
    let left = LeftFactor::rows(products, products.len() / PAIRS);
    let slopes = vectors::<S, N>(channel.slope0);
    let tiles = pairs.as_chunks::<M>().0.iter().zip(a0.chunks_exact_mut(M * first));
    for (tile, (pairs, a0)) in tiles.enumerate() {
        for (at, (panel, slope)) in layer.chunks_exact(depth).zip(slopes).enumerate() {
            let sums = linalg::sums::<S, M, N>(simd, zero, left, tile * M, panel);
            for (i, a0) in a0.chunks_exact_mut(first).enumerate() {
                let [keys, queries] = channel.parts_of::<S, N>(&pairs[i]);
                let (key, query, a0) = (&keys[at], &queries[at], &mut vectors_mut::<S, N>(a0)[at]);
                for j in 0..N {
                    let z = simd.add_f32s(simd.add_f32s(key[j], query[j]), sums[i][j]);
                    a0[j] = prelu(simd, slope[j], z);
                }
            }
        }
    }
}

/// `z1` = `a0` W1T + b1, of as many pairs as it has rows, and `terms` = W2 * prelu(z1).
#[inline(always)]
fn second_layer<S: Simd, const M: usize, const N: usize>(
    simd: S,
    channel: &Channel,
    a0: &[f32],
    layer: &[[S::f32s; N]],
    z1: &mut [f32],
    terms: &mut [f32],
) {
    let zero = simd.splat_f32s(std::hint::black_box(0.0));
    let Upper { bias1, slope1, weight2, .. } = channel.upper;
    let (first, second) = (channel.slope0.len(), bias1.len());
    let left = LeftFactor::rows(a0, first);
    let [biases, slopes, lasts] = [bias1, slope1, weight2].map(vectors::<S, N>);
    for (tile, terms) in terms.chunks_exact_mut(M * second).enumerate() {
        for (at, panel) in layer.chunks_exact(first).enumerate() {
            let mut sums = linalg::sums::<S, M, N>(simd, zero, left, tile * M, panel);
            for (i, terms) in terms.chunks_exact_mut(second).enumerate() {
                let terms = &mut vectors_mut::<S, N>(terms)[at];
                for j in 0..N {
                    sums[i][j] = simd.add_f32s(sums[i][j], biases[at][j]);
                    let a1 = prelu(simd, slopes[at][j], sums[i][j]);
                    terms[j] = simd.mul_f32s(a1, lasts[at][j]);
                }
            }
            let rows = z1.chunks_exact_mut(second).skip(tile * M);
            for (z1, sums) in rows.zip(&sums) {
                vectors_mut::<S, N>(z1)[at] = *sums;
            }
        }
    }
}

/// `weight`, rows of `depth` numbers, transposed, in panels of `width` columns.
fn in_panels(weight: &[f32], depth: usize, width: usize, room: &mut Vec<f32>) {
    let panels = fit(room, weight.len()).chunks_exact_mut((width * depth).max(1));
    for (rows, panel) in weight.chunks_exact((width * depth).max(1)).zip(panels) {
        for (column, row) in rows.chunks_exact(depth).enumerate() {
            for (number, to) in row.iter().zip(panel.chunks_exact_mut(width)) {
                to[column] = *number;
            }
        }
    }
}
