//! One channel of attention: a small network weighs each behavior of a history for each impression.
//!
//! ```text
//! z0 = Wk e + Wq q + b0      (64)  key part once per image, query part once per impression
//!      [+ Wp (e * q)]              with interactions, per pair; the shorter of both is repeated,
//!                                  columns of e without a counterpart in q left out
//! z1 = W1 prelu(z0) + b1     (16)
//! weight = W2 prelu(z1) + b2 (1)   no softmax: a long history may weigh more than a short one
//!      [+ c * cosine]              of vectors that are not trained; c is learned
//! out = sum over the history of weight * e
//! ```
//! A pair is an impression and one behavior of its group, P of them in all. Pairs pass in blocks,
//! so that the products are matrices while the buffers stay in a cache; the backward pass computes
//! z0 again rather than keep (P, 64) floats.

use super::across::{self, Channel};
use super::along;
use super::inputs::{Histories, Widths};
use super::pairs::{self, FirstLayer, Operands, Pair, Upper, UpperGradients};
use crate::init::Init;
use crate::linalg::{self, LeftFactor, Packed, Write, fit, zeros};
use crate::linear::Linear;
use crate::params::{Layout, View};
use crate::pool::Columns;
use crate::prelu;

/// Pairs per block, which stays in a cache: as many as a product sums before it writes.
const BLOCK: usize = linalg::DEPTH;

/// Pairs whose gradients stay in the nearest cache.
const NEAR: usize = 64;

/// About what every behavior weighs before training: attention begins as a sum.
///
/// Beginning at 0, with weights of random signs, costs time: on a toy shop (32 groups of 4
/// impressions and 20 behaviors a step) attention had an AUC of 0.68 after 500 steps and 0.76 after
/// 1,000, and from 1 it had 0.72 and 0.79; after 3,000 steps they met.
const FIRST_WEIGHT: f32 = 1.0;

/// The factor of cosines before training: beside a weight of 1, the opposite of the ad weighs 0.
const FIRST_COSINE: f32 = 1.0;

/// The weights of one channel.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    key: Linear,
    query: Linear,
    product: Option<Linear>,
    /// First columns of a key that have a counterpart in the query.
    compared: usize,
    slope0: View,
    layer1: Linear,
    slope1: View,
    layer2: Linear,
    /// The factor of cosines, if they count.
    cosine: Option<View>,
}

/// Activations of a forward pass, for its backward pass, and room for gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttentionScratch {
    /// Every pair, in order of impressions, then behaviors; (P).
    pairs: Vec<Pair>,
    /// Key part of z0 of each image, (U, 64), and its gradient.
    keys: Vec<f32>,
    dkeys: Vec<f32>,
    /// Query part of z0 of each impression, (B, 64), and its gradient.
    queries: Vec<f32>,
    dqueries: Vec<f32>,
    /// z1 of each pair, (P, 16).
    z1: Vec<f32>,
    /// The weight of each pair, (P).
    weights: Vec<f32>,
    layer1: Packed,
    block: Block,
    /// Nothing is kept for a backward pass.
    scores_only: bool,
    across: across::Buffers,
    along: along::Buffers,
}

impl AttentionScratch {
    /// Whether forward passes keep nothing for a backward pass, which may be faster.
    pub(crate) fn set_scores_only(&mut self, scores_only: bool) {
        self.scores_only = scores_only;
    }

    /// What every pair of the last forward pass weighed, in order of impressions, then behaviors;
    /// (P).
    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }
}

/// Activations and gradients of one block.
#[derive(Clone, Debug, Default)]
struct Block {
    /// Key * query of each pair, and its gradient.
    product: Vec<f32>,
    dproduct: Vec<f32>,
    z0: Vec<f32>,
    a0: Vec<f32>,
    dz0: Vec<f32>,
    dz1: Vec<f32>,
    dweights: Vec<f32>,
}

impl Attention {
    /// Appends the weights of channel `name`, whose query is `query` wide, to `layout`.
    pub(crate) fn new(layout: &mut Layout, name: &str, widths: Widths, query: usize) -> Attention {
        let (dim, [first, second]) = (widths.dim, widths.attention);
        let compared = dim - widths.beside;
        let product = if widths.product { compared.max(query) } else { 0 };
        let shorter = compared.min(query).max(1);
        assert_eq!(product % shorter, 0, "{compared} and {query} have no product");
        let init = Init::he(dim + query + product);
        let key = Linear::without_bias(layout, &format!("{name}.0.key"), dim, first, init);
        let query = Linear::new(layout, &format!("{name}.0.query"), query, first, init);
        let product = widths.product.then(|| {
            Linear::without_bias(layout, &format!("{name}.0.product"), product, first, init)
        });
        let slope0 = prelu::slopes(layout, &format!("{name}.0"), first);
        let layer1 = Linear::new(layout, &format!("{name}.1"), first, second, Init::he(first));
        let slope1 = prelu::slopes(layout, &format!("{name}.1"), second);
        let init = Init::xavier(second, 1);
        let layer2 = Linear::without_bias(layout, &format!("{name}.2"), second, 1, init);
        let bias = layout.push(&format!("{name}.2.bias"), &[1], Init::Constant(FIRST_WEIGHT));
        let layer2 = Linear { bias: Some(bias), ..layer2 };
        let first = Init::Constant(FIRST_COSINE);
        let cosine = widths.cosine.then(|| layout.push(&format!("{name}.cosine"), &[1], first));
        Attention { key, query, product, compared, slope0, layer1, slope1, layer2, cosine }
    }

    /// Width of an image embedding, and of the channel's output (D).
    pub(crate) fn dim(&self) -> usize {
        self.key.inputs
    }

    /// The columns of channel number `channel` in a matrix `width` wide.
    pub(crate) fn columns(&self, channel: usize, width: usize) -> Columns {
        Columns { width, first: channel * self.dim(), dim: self.dim() }
    }

    /// Adds to `columns` of `out` (B, _), given `query` (B, query width).
    pub(crate) fn forward(
        &self,
        w: &[f32],
        histories: Histories,
        query: &[f32],
        scratch: &mut AttentionScratch,
        columns: Columns,
        out: &mut [f32],
    ) {
        self.prepare(w, histories, query, scratch);
        let [first, second] = self.widths();
        let product = self.product.map_or(0, |layer| layer.inputs);
        // A product with one unit is another sum.
        let part = across::part(histories).filter(|_| scratch.scores_only);
        if let Some(part) = part.filter(|_| first > 1 || product == 0) {
            self.forward_across(w, histories, part, query, scratch, columns, out);
        } else if along::fits([first, second], product) {
            self.forward_along(w, histories, query, scratch, columns, out);
        } else {
            self.forward_in_blocks(w, histories, query, scratch, columns, out);
        }
    }

    /// Lists the pairs, and makes the parts of z0 that are of images and of impressions.
    fn prepare(
        &self,
        w: &[f32],
        histories: Histories,
        query: &[f32],
        scratch: &mut AttentionScratch,
    ) {
        pairs::list(histories, &mut scratch.pairs);
        let (first, embeddings) = (self.key.outputs, histories.embeddings);
        let images = embeddings.len() / self.dim();
        self.key.forward(w, embeddings, images, fit(&mut scratch.keys, images * first));
        let impressions = histories.impressions();
        let queries = fit(&mut scratch.queries, impressions * first);
        self.query.forward(w, query, impressions, queries);
    }

    /// For layers of any width.
    fn forward_in_blocks(
        &self,
        w: &[f32],
        histories: Histories,
        query: &[f32],
        scratch: &mut AttentionScratch,
        columns: Columns,
        out: &mut [f32],
    ) {
        let ([first, second], embeddings) = (self.widths(), histories.embeddings);
        let AttentionScratch { pairs, keys, queries, z1, weights, layer1, block, .. } = scratch;
        layer1.pack_transposed(first, second, self.layer1.weight.of(w));
        let z1 = fit(z1, pairs.len() * second);
        let weights = fit(weights, pairs.len());
        let blocks =
            pairs.chunks(BLOCK).zip(z1.chunks_mut(BLOCK * second)).zip(weights.chunks_mut(BLOCK));
        for ((pairs, z1), weights) in blocks {
            self.first_layer(w, pairs, keys, queries, embeddings, query, block);
            let a0 = LeftFactor::rows(&block.a0, first);
            linalg::product(pairs.len(), a0, layer1.panels(), 1.0, Write::Overwrite, z1);
            pairs::upper_layers(self.upper(w), z1, weights);
        }
        self.weigh(w, pairs, histories, weights, columns, out);
    }

    /// The same bits with a pair as a column; nothing is kept but the weights.
    fn forward_across(
        &self,
        w: &[f32],
        histories: Histories,
        part: usize,
        query: &[f32],
        scratch: &mut AttentionScratch,
        columns: Columns,
        out: &mut [f32],
    ) {
        let AttentionScratch { pairs, keys, queries, weights, across, .. } = scratch;
        let channel = self.channel(w, [keys, queries], histories.embeddings, query);
        let weights = fit(weights, pairs.len());
        across::weights(&channel, histories, part, across, weights);
        self.weigh(w, pairs, histories, weights, columns, out);
    }

    /// The same bits with a pair as a row.
    fn forward_along(
        &self,
        w: &[f32],
        histories: Histories,
        query: &[f32],
        scratch: &mut AttentionScratch,
        columns: Columns,
        out: &mut [f32],
    ) {
        let AttentionScratch { pairs, keys, queries, z1, weights, along, .. } = scratch;
        let channel = self.channel(w, [keys, queries], histories.embeddings, query);
        let z1 = fit(z1, pairs.len() * self.layer1.outputs);
        let weights = fit(weights, pairs.len());
        along::weights(&channel, pairs, along, z1, weights);
        self.weigh(w, pairs, histories, weights, columns, out);
    }

    /// The layers, given the parts of z0 and what they are parts of.
    fn channel<'a>(
        &self,
        w: &'a [f32],
        [keys, queries]: [&'a [f32]; 2],
        embeddings: &'a [f32],
        query: &'a [f32],
    ) -> Channel<'a> {
        let operands = self.operands(embeddings, query);
        Channel {
            keys,
            queries,
            slope0: self.slope0.of(w),
            product: self.product.as_ref().map(|layer| (layer.weight.of(w), operands)),
            weight1: self.layer1.weight.of(w),
            upper: self.upper(w),
        }
    }

    /// Adds the share of cosines to `weights`, and every weighed image to its impression's
    /// `columns` of `out`.
    fn weigh(
        &self,
        w: &[f32],
        pairs: &[Pair],
        histories: Histories,
        weights: &mut [f32],
        columns: Columns,
        out: &mut [f32],
    ) {
        if let Some(factor) = self.cosine {
            linalg::axpy(factor.of(w)[0], &histories.cosines[..weights.len()], weights);
        }
        pairs::weigh(pairs, weights, histories.embeddings, columns, out);
    }

    /// Adds to `dw`, `dquery` (B, query width) and `dembeddings` (U, D), given `columns` of `dout`.
    pub(crate) fn backward(
        &self,
        w: &[f32],
        histories: Histories,
        query: &[f32],
        scratch: &mut AttentionScratch,
        columns: Columns,
        dout: &[f32],
        dw: &mut [f32],
        dquery: &mut [f32],
        dembeddings: &mut [f32],
    ) {
        assert!(!scratch.scores_only, "the forward pass kept nothing");
        let AttentionScratch { pairs, keys, dkeys, queries, dqueries, z1, weights, block, .. } =
            scratch;
        let [_, second] = self.widths();
        let embeddings = histories.embeddings;
        zeros(dkeys, keys.len());
        zeros(dqueries, queries.len());
        let blocks = pairs.chunks(BLOCK).zip(z1.chunks(BLOCK * second)).zip(weights.chunks(BLOCK));
        for (at, ((pairs, z1), weights)) in blocks.enumerate() {
            let dweights = fit(&mut block.dweights, pairs.len());
            pairs::weigh_backward(pairs, weights, embeddings, columns, dout, dweights, dembeddings);
            if let Some(factor) = self.cosine {
                let cosines = of_block(histories, at, dweights.len());
                factor.of_mut(dw)[0] += linalg::dot(dweights, cosines);
            }
            self.first_sum(w, pairs, [keys, queries], embeddings, query, block);
            self.layers_backward(w, pairs, [keys, queries], z1, block, dw, [dkeys, dqueries]);
            self.products_backward(w, pairs, embeddings, query, block, dw, dembeddings, dquery);
        }
        self.inputs_backward(w, embeddings, dkeys, &self.key, dw, dembeddings, &mut block.dz0);
        self.inputs_backward(w, query, dqueries, &self.query, dw, dquery, &mut block.dz0);
    }

    /// Fills `block.z0` and `block.a0`, given the parts of z0 and what they are parts of.
    fn first_layer(
        &self,
        w: &[f32],
        pairs: &[Pair],
        keys: &[f32],
        queries: &[f32],
        embeddings: &[f32],
        query: &[f32],
        block: &mut Block,
    ) {
        let first = self.key.outputs;
        let slope = self.slope0.of(w);
        if self.product.is_none() {
            let z0 = fit(&mut block.z0, pairs.len() * first);
            let a0 = fit(&mut block.a0, z0.len());
            pairs::first_layer(pairs, keys, queries, slope, z0, a0);
            return;
        }
        self.first_sum(w, pairs, [keys, queries], embeddings, query, block);
        prelu::forward(slope, &block.z0, fit(&mut block.a0, block.z0.len()));
    }

    /// Fills `block.z0` and `block.product` where there are products; z0 is the sum of its other
    /// parts where there are none.
    fn first_sum(
        &self,
        w: &[f32],
        pairs: &[Pair],
        [keys, queries]: [&[f32]; 2],
        embeddings: &[f32],
        query: &[f32],
        block: &mut Block,
    ) {
        let Some(layer) = &self.product else { return };
        let first = self.key.outputs;
        let z0 = fit(&mut block.z0, pairs.len() * first);
        pairs::first_sum(pairs, keys, queries, first, z0);
        let product = fit(&mut block.product, pairs.len() * layer.inputs);
        pairs::products(pairs, self.operands(embeddings, query), product);
        layer.forward_onto(w, product, pairs.len(), z0);
    }

    /// What is multiplied for the product part: the compared columns of the key, and the query.
    fn operands<'a>(&self, embeddings: &'a [f32], query: &'a [f32]) -> Operands<'a> {
        let widths = [self.compared, self.query.inputs];
        Operands { embeddings, query, row: self.key.inputs, widths }
    }

    /// From `block.dz0` to the gradients of keys and queries through their products; adds to `dw`.
    fn products_backward(
        &self,
        w: &[f32],
        pairs: &[Pair],
        embeddings: &[f32],
        query: &[f32],
        block: &mut Block,
        dw: &mut [f32],
        dembeddings: &mut [f32],
        dquery: &mut [f32],
    ) {
        let Some(layer) = &self.product else { return };
        layer.backward_weights(&block.product, &block.dz0, pairs.len(), dw);
        let dproduct = fit(&mut block.dproduct, block.product.len());
        layer.backward_input(w, &block.dz0, pairs.len(), dproduct);
        let operands = self.operands(embeddings, query);
        pairs::products_backward(pairs, operands, dproduct, dembeddings, dquery);
    }

    /// The layers above the first one.
    fn upper<'w>(&self, w: &'w [f32]) -> Upper<'w> {
        let bias = |layer: &Linear| layer.bias.expect("these layers have one").of(w);
        Upper {
            bias1: bias(&self.layer1),
            slope1: self.slope1.of(w),
            weight2: self.layer2.weight.of(w),
            bias2: bias(&self.layer2)[0],
        }
    }

    /// Their gradients in `dw`.
    fn upper_of<'w>(&self, dw: &'w mut [f32]) -> UpperGradients<'w> {
        let bias = self.layer1.bias.expect("this layer has one");
        let views = [bias, self.slope1, self.layer2.weight];
        let views = views.map(|view| view.offset..view.offset + view.len);
        let [bias1, slope1, weight2] =
            dw.get_disjoint_mut(views).expect("weights of different layers");
        UpperGradients { bias1, slope1, weight2 }
    }

    /// From `block.dweights` to the gradients of keys and queries, which it adds to, as to `dw`.
    /// Leaves that of z0 in `block.dz0` where there are products.
    fn layers_backward(
        &self,
        w: &[f32],
        pairs: &[Pair],
        [keys, queries]: [&[f32]; 2],
        z1: &[f32],
        block: &mut Block,
        dw: &mut [f32],
        [dkeys, dqueries]: [&mut [f32]; 2],
    ) {
        let Block { z0, dz0, dz1, dweights, .. } = block;
        let dz1 = fit(dz1, z1.len());
        self.layer2.backward_bias(dweights, dw);
        pairs::upper_layers_backward(self.upper(w), z1, dweights, dz1, self.upper_of(dw));
        let (layer, products) = (&self.layer1, self.product.is_some());
        let [first, second] = [layer.inputs, layer.outputs];
        let slope = self.slope0.of(w);
        let below = FirstLayer { keys, queries, slope, z0: products.then_some(&z0[..]) };
        let a0 = |first: usize, width: usize, from: usize, panel: &mut [f32]| {
            let rows = from..from + panel.len() / width;
            pairs::first_layer_panel(&pairs[rows.clone()], below.of(rows), first, width, panel);
        };
        let (shape, dweight) = ([second, first, pairs.len()], layer.weight.of_mut(dw));
        linalg::at_made_b(shape, dz1, &a0, 1.0, Write::Add, dweight);
        // A gradient that is of no more use is written over by the next one.
        let dz0 = fit(dz0, if products { pairs.len() } else { NEAR } * first);
        for (at, (pairs, dz1)) in pairs.chunks(NEAR).zip(dz1.chunks(NEAR * second)).enumerate() {
            let rows = at * NEAR..at * NEAR + pairs.len();
            let from = if products { rows.start * first } else { 0 };
            let dz0 = &mut dz0[from..][..pairs.len() * first];
            layer.backward_input(w, dz1, pairs.len(), dz0);
            let dslope = self.slope0.of_mut(dw);
            pairs::first_layer_backward(pairs, below.of(rows), dz0, dslope, dkeys, dqueries);
        }
    }

    /// Adds the gradients of `layer`, one part of the first layer, to `dw` and `dx`.
    fn inputs_backward(
        &self,
        w: &[f32],
        x: &[f32],
        dy: &[f32],
        layer: &Linear,
        dw: &mut [f32],
        dx: &mut [f32],
        room: &mut Vec<f32>,
    ) {
        let rows = dy.len() / layer.outputs;
        layer.backward_weights(x, dy, rows, dw);
        let part = fit(room, rows * layer.inputs);
        layer.backward_input(w, dy, rows, part);
        linalg::add(part, dx);
    }

    fn widths(&self) -> [usize; 2] {
        [self.layer1.inputs, self.layer1.outputs]
    }
}

/// The cosines of the `count` pairs of block `at`.
fn of_block(histories: Histories<'_>, at: usize, count: usize) -> &[f32] {
    &histories.cosines[at * BLOCK..][..count]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, values};

    const WIDTHS: Widths = Widths {
        dim: 3,
        beside: 0,
        image_query: 2,
        field_query: 0,
        attention: [5, 4],
        concatenate: 1,
        product: false,
        cosine: true,
    };

    /// W x + b of one row, where W is `weight`.
    fn affine(weight: &[f32], bias: &[f32], x: &[f32]) -> Vec<f32> {
        let rows = weight.chunks(x.len()).zip(bias);
        rows.map(|(row, b)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + b).collect()
    }

    fn activate(slope: &[f32], z: &[f32]) -> Vec<f32> {
        z.iter().zip(slope).map(|(&z, s)| if z > 0.0 { z } else { s * z }).collect()
    }

    /// The weight of one pair as the paper draws it: one network over [e; q].
    fn weight_of_pair(channel: &Attention, w: &[f32], e: &[f32], q: &[f32]) -> f32 {
        let bias = |layer: Linear| layer.bias.expect("these layers have one").of(w);
        let mut z0 = affine(channel.key.weight.of(w), bias(channel.query), e);
        linalg::add(&affine(channel.query.weight.of(w), &[0.0; 5], q), &mut z0);
        let a0 = activate(channel.slope0.of(w), &z0);
        let z1 = affine(channel.layer1.weight.of(w), bias(channel.layer1), &a0);
        let a1 = activate(channel.slope1.of(w), &z1);
        affine(channel.layer2.weight.of(w), bias(channel.layer2), &a1)[0]
    }

    #[test]
    fn blocks_match_one_pair_at_a_time() {
        let mut layout = Layout::default();
        let channel = Attention::new(&mut layout, "a", WIDTHS, 2);
        let (w, query) = (values(1, layout.len()), values(2, 12 * 2));
        let (embeddings, cosines) = (values(3, 7 * 3), values(4, 12 * 70));
        let images: Vec<u32> = (0..70).map(|i| i * i % 7).collect();
        // 12 impressions of one group with 70 behaviors: 840 pairs, more than three blocks.
        let histories = Histories {
            impressions: Some(&[0, 0, 12]),
            behaviors: &[0, 0, 70],
            images: &images,
            embeddings: &embeddings,
            cosines: &cosines,
        };
        let factor = channel.cosine.expect("cosines count").of(&w)[0];
        let (mut expected, mut weights) = (vec![0.0; 12 * 3], Vec::new());
        for (q, out) in query.chunks(2).zip(expected.chunks_mut(3)) {
            for &image in &images {
                let e = &embeddings[image as usize * 3..][..3];
                let cosine = factor * cosines[weights.len()];
                weights.push(weight_of_pair(&channel, &w, e, q) + cosine);
                linalg::axpy(weights[weights.len() - 1], e, out);
            }
        }
        let mut out = vec![0.0; 12 * 3];
        let mut scratch = AttentionScratch::default();
        channel.forward(&w, histories, &query, &mut scratch, channel.columns(0, 3), &mut out);
        assert_close(&out, &expected, 1e-4);
        assert_close(scratch.weights(), &weights, 1e-4);
    }

    #[test]
    fn a_pair_as_a_column_or_a_row_has_the_same_bits() {
        let (behaviors, impressions) = ([0, 70, 70, 71, 104], [0, 12, 15, 16, 25]);
        let images: Vec<u32> = (0..104).map(|i| i * i % 7).collect();
        // Widths of a key, of its columns without a counterpart, of a query, of both layers.
        for (dim, beside, asked, attention) in [
            (3, 0, 3, [5, 4]),
            (9, 1, 4, [64, 16]),
            (6, 0, 12, [17, 11]),
            (40, 4, 36, [300, 8]),
            (3, 0, 3, [1, 1]),
            (36, 0, 36, [64, 16]),
            (12, 0, 24, [128, 32]),
            (5, 0, 5, [16, 16]),
            (300, 0, 300, [64, 16]),
        ] {
            for (product, cosine) in [(false, true), (true, false), (true, true)] {
                let widths = Widths { dim, beside, attention, product, cosine, ..WIDTHS };
                let mut layout = Layout::default();
                let channel = Attention::new(&mut layout, "a", widths, asked);
                let (w, query) = (values(1, layout.len()), values(2, 25 * asked));
                let (embeddings, cosines) = (values(3, 7 * dim), values(4, 2000));
                let histories = Histories {
                    impressions: Some(&impressions),
                    behaviors: &behaviors,
                    images: &images,
                    embeddings: &embeddings,
                    cosines: &cosines,
                };
                let of = |scores_only, in_blocks| {
                    let (mut scratch, mut out) = (AttentionScratch::default(), values(5, 25 * dim));
                    scratch.set_scores_only(scores_only);
                    let (columns, s) = (channel.columns(0, dim), &mut scratch);
                    if in_blocks {
                        channel.prepare(&w, histories, &query, s);
                        channel.forward_in_blocks(&w, histories, &query, s, columns, &mut out);
                    } else {
                        channel.forward(&w, histories, &query, s, columns, &mut out);
                    }
                    (scratch.weights().to_vec(), out, scratch.z1)
                };
                let (expected, column) = (of(false, true), of(true, false));
                assert_eq!(of(false, false), expected, "{widths:?}, {asked}");
                assert_eq!((column.0, column.1), (expected.0, expected.1), "{widths:?}, {asked}");
            }
        }
    }
}
