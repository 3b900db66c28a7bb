//! What attention does pair by pair, between its products.
//!
//! A pair is an impression and one behavior of its group. Pairs of one impression are neighbors, so
//! what belongs to the impression stays in registers while its pairs pass, some columns of all of
//! them at a time. Sums over pairs are in order of pairs, sums over columns in eight partial sums:
//! neither knows how wide vectors are.

use pulp::Simd;

use super::inputs::Histories;
use crate::linalg;
use crate::pool::Columns;
use crate::prelu::activate;

/// An impression and one behavior of its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub impression: u32,
    pub image: u32,
}

/// Lists every pair of `histories`, in order of impressions, then behaviors.
pub(super) fn list(histories: Histories, pairs: &mut Vec<Pair>) {
    pairs.clear();
    for group in 0..histories.groups() {
        for impression in histories.impressions_of(group) {
            let of = |&image| Pair { impression, image };
            pairs.extend(histories.images(group).iter().map(of));
        }
    }
}

/// z0 = key part + query part, of every pair, and a0 = prelu(z0); all (rows, 64).
#[pulp::with_simd(first_layer = linalg::arch())]
#[inline(always)]
pub(super) fn first_layer_in<'a, S: Simd>(
    simd: S,
    pairs: &'a [Pair],
    keys: &'a [f32],
    queries: &'a [f32],
    slope: &'a [f32],
    z0: &'a mut [f32],
    a0: &'a mut [f32],
) {
    let width = slope.len();
    assert!(z0.len() == pairs.len() * width && a0.len() == z0.len(), "a row for every pair");
    for (first, run) in runs(pairs) {
        let query = row(queries, run[0].impression, width);
        for part in parts::<S>(width) {
            let (query, slope) =
                (load(simd, &query[part.clone()]), load(simd, &slope[part.clone()]));
            for (at, pair) in run.iter().enumerate() {
                let from = (first + at) * width;
                let key = load(simd, &row(keys, pair.image, width)[part.clone()]);
                let z = simd.add_f32s(key, query);
                store(simd, &mut z0[from..][part.clone()], z);
                store(simd, &mut a0[from..][part.clone()], prelu(simd, slope, z));
            }
        }
    }
}

/// What z0 of a pair is made of.
#[derive(Clone, Copy)]
pub(super) struct FirstLayer<'a> {
    /// Key part of each image, (U, 64).
    pub keys: &'a [f32],
    /// Query part of each impression, (B, 64).
    pub queries: &'a [f32],
    pub slope: &'a [f32],
    /// z0 of each pair, (rows, 64), where it is more than the sum of both.
    pub z0: Option<&'a [f32]>,
}

impl<'a> FirstLayer<'a> {
    /// That of some of the pairs.
    pub(super) fn of(self, rows: std::ops::Range<usize>) -> FirstLayer<'a> {
        let width = self.slope.len();
        FirstLayer { z0: self.z0.map(|z0| &z0[rows.start * width..rows.end * width]), ..self }
    }
}

/// Overwrites `panel`, (rows, `width`), with columns from `first` on of a0 = prelu(z0) of every
/// pair, and zeros beyond the last.
#[pulp::with_simd(first_layer_panel = linalg::arch())]
#[inline(always)]
pub(super) fn first_layer_panel_in<'a, S: Simd>(
    simd: S,
    pairs: &'a [Pair],
    layer: FirstLayer<'a>,
    first: usize,
    width: usize,
    panel: &'a mut [f32],
) {
    let FirstLayer { keys, queries, slope, z0 } = layer;
    let units = slope.len();
    let filled = width.min(units - first);
    assert_eq!(panel.len(), pairs.len() * width, "a row for every pair");
    if filled < width {
        panel.fill(0.0);
    }
    for (from, run) in runs(pairs) {
        let query = row(queries, run[0].impression, units);
        for part in parts::<S>(filled) {
            let columns = first + part.start..first + part.end;
            let [query, slope] = [query, slope].map(|of| load(simd, &of[columns.clone()]));
            for (at, pair) in (from..).zip(run) {
                let z = match z0 {
                    Some(z0) => load(simd, &z0[at * units..][columns.clone()]),
                    None => {
                        let key = load(simd, &row(keys, pair.image, units)[columns.clone()]);
                        simd.add_f32s(key, query)
                    }
                };
                store(simd, &mut panel[at * width..][part.clone()], prelu(simd, slope, z));
            }
        }
    }
}

/// z0 = key part + query part, of every pair, (rows, 64), where more is added to it later.
#[pulp::with_simd(first_sum = linalg::arch())]
#[inline(always)]
pub(super) fn first_sum_in<'a, S: Simd>(
    _: S,
    pairs: &'a [Pair],
    keys: &'a [f32],
    queries: &'a [f32],
    width: usize,
    z0: &'a mut [f32],
) {
    assert_eq!(z0.len(), pairs.len() * width, "a row for every pair");
    for (pair, z0) in pairs.iter().zip(z0.chunks_exact_mut(width)) {
        let (key, query) = (row(keys, pair.image, width), row(queries, pair.impression, width));
        for ((z, key), query) in z0.iter_mut().zip(key).zip(query) {
            *z = key + query;
        }
    }
}

/// Two vectors of each pair, with the width of each.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    /// Of each image, (U, row), of which the first D columns count.
    pub embeddings: &'a [f32],
    /// Of each impression, (B, Q).
    pub query: &'a [f32],
    /// Width of a row of `embeddings`.
    pub row: usize,
    /// D and Q, one of which is a multiple of the other.
    pub widths: [usize; 2],
}

/// The two vectors of every pair, multiplied; the shorter one is repeated. (rows, wider of both).
#[pulp::with_simd(products = linalg::arch())]
#[inline(always)]
pub(super) fn products_in<'a, S: Simd>(
    _: S,
    pairs: &'a [Pair],
    operands: Operands<'a>,
    products: &'a mut [f32],
) {
    let Operands { embeddings, query, row: whole, widths: [dim, asked] } = operands;
    let wide = dim.max(asked);
    assert_eq!(products.len(), pairs.len() * wide, "a row for every pair");
    for (pair, products) in pairs.iter().zip(products.chunks_exact_mut(wide)) {
        let e = &row(embeddings, pair.image, whole)[..dim];
        let q = row(query, pair.impression, asked);
        multiply(e, q, products);
    }
}

/// Two vectors multiplied, the shorter one repeated.
#[inline(always)]
pub(super) fn multiply(e: &[f32], q: &[f32], products: &mut [f32]) {
    let (long, short) = if e.len() > q.len() { (e, q) } else { (q, e) };
    let parts = long.chunks_exact(short.len()).zip(products.chunks_exact_mut(short.len()));
    for (long, products) in parts {
        for ((product, long), short) in products.iter_mut().zip(long).zip(short) {
            *product = long * short;
        }
    }
}

/// From the gradient of the products to those of their operands, which it adds to.
#[pulp::with_simd(products_backward = linalg::arch())]
#[inline(always)]
pub(super) fn products_backward_in<'a, S: Simd>(
    _: S,
    pairs: &'a [Pair],
    operands: Operands<'a>,
    dproducts: &'a [f32],
    dembeddings: &'a mut [f32],
    dquery: &'a mut [f32],
) {
    let Operands { embeddings, query, row: whole, widths: [dim, asked] } = operands;
    let (wide, narrow) = (dim.max(asked), dim.min(asked));
    for (pair, dproducts) in pairs.iter().zip(dproducts.chunks_exact(wide)) {
        let e = &row(embeddings, pair.image, whole)[..dim];
        let q = row(query, pair.impression, asked);
        let de = &mut row_mut(dembeddings, pair.image, whole)[..dim];
        let dq = row_mut(dquery, pair.impression, asked);
        let ((long, short), (dlong, dshort)) =
            if dim > asked { ((e, q), (de, dq)) } else { ((q, e), (dq, de)) };
        let parts = long.chunks_exact(narrow).zip(dlong.chunks_exact_mut(narrow));
        for ((long, dlong), dproducts) in parts.zip(dproducts.chunks_exact(narrow)) {
            let of_long = dlong.iter_mut().zip(long).zip(&mut *dshort).zip(short);
            for ((((dlong, long), dshort), short), dproduct) in of_long.zip(dproducts) {
                *dlong += dproduct * short;
                *dshort += dproduct * long;
            }
        }
    }
}

/// Turns `dz0` from the gradient of a0 into that of z0, and adds it to those of the slope, the keys
/// and the queries.
#[pulp::with_simd(first_layer_backward = linalg::arch())]
#[inline(always)]
pub(super) fn first_layer_backward_in<'a, S: Simd>(
    simd: S,
    pairs: &'a [Pair],
    layer: FirstLayer<'a>,
    dz0: &'a mut [f32],
    dslope: &'a mut [f32],
    dkeys: &'a mut [f32],
    dqueries: &'a mut [f32],
) {
    let width = layer.slope.len();
    assert_eq!(dz0.len(), pairs.len() * width, "a row for every pair");
    assert!(layer.z0.is_none_or(|z0| z0.len() == dz0.len()), "a row for every pair");
    // A sum waits for its last addition, so there are several at once.
    if S::REGISTER_COUNT >= 32 && width.is_multiple_of(4 * S::F32_LANES) {
        first_layer_backward_by::<S, 4>(simd, pairs, layer, dz0, dslope, dkeys, dqueries);
    } else if width.is_multiple_of(2 * S::F32_LANES) {
        first_layer_backward_by::<S, 2>(simd, pairs, layer, dz0, dslope, dkeys, dqueries);
    } else {
        first_layer_backward_of_any(simd, pairs, layer, dz0, dslope, dkeys, dqueries);
    }
}

/// [`first_layer_backward`], `V` vectors of columns at a time.
#[inline(always)]
fn first_layer_backward_by<S: Simd, const V: usize>(
    simd: S,
    pairs: &[Pair],
    layer: FirstLayer,
    dz0: &mut [f32],
    dslope: &mut [f32],
    dkeys: &mut [f32],
    dqueries: &mut [f32],
) {
    let (slope, dslope) = (vectors::<S, V>(layer.slope), vectors_mut::<S, V>(dslope));
    let (keys, queries) = (vectors::<S, V>(layer.keys), vectors::<S, V>(layer.queries));
    let (dkeys, dqueries) = (vectors_mut::<S, V>(dkeys), vectors_mut::<S, V>(dqueries));
    let (z0, dz0) = (layer.z0.map(vectors::<S, V>), vectors_mut::<S, V>(dz0));
    let parts = slope.len();
    for (first, run) in runs(pairs) {
        let impression = run[0].impression as usize * parts;
        let dz0 = &mut dz0[first * parts..][..run.len() * parts];
        for part in 0..parts {
            let query = queries[impression + part];
            let (slope, mut sum) = (slope[part], dqueries[impression + part]);
            let mut slopes = dslope[part];
            for ((at, pair), dz) in run.iter().enumerate().zip(dz0.chunks_exact_mut(parts)) {
                let (image, dz) = (pair.image as usize * parts + part, &mut dz[part]);
                let z = match z0 {
                    Some(z0) => z0[(first + at) * parts + part],
                    None => std::array::from_fn(|j| simd.add_f32s(keys[image][j], query[j])),
                };
                let dkey = &mut dkeys[image];
                for j in 0..V {
                    dz[j] = slope_backward(simd, slope[j], z[j], dz[j], &mut slopes[j]);
                    dkey[j] = simd.add_f32s(dkey[j], dz[j]);
                    sum[j] = simd.add_f32s(sum[j], dz[j]);
                }
            }
            (dqueries[impression + part], dslope[part]) = (sum, slopes);
        }
    }
}

/// [`first_layer_backward`] of any width.
#[inline(always)]
fn first_layer_backward_of_any<S: Simd>(
    simd: S,
    pairs: &[Pair],
    layer: FirstLayer,
    dz0: &mut [f32],
    dslope: &mut [f32],
    dkeys: &mut [f32],
    dqueries: &mut [f32],
) {
    let FirstLayer { keys, queries, slope, z0 } = layer;
    let width = slope.len();
    for (first, run) in runs(pairs) {
        let query = row(queries, run[0].impression, width);
        let dquery = row_mut(dqueries, run[0].impression, width);
        for part in parts::<S>(width) {
            let [slope, query] = [slope, query].map(|of| load(simd, &of[part.clone()]));
            let mut sum = load(simd, &dquery[part.clone()]);
            let mut slopes = load(simd, &dslope[part.clone()]);
            for (at, pair) in run.iter().enumerate() {
                let from = (first + at) * width;
                let z = match z0 {
                    Some(z0) => load(simd, &z0[from..][part.clone()]),
                    None => {
                        let key = load(simd, &row(keys, pair.image, width)[part.clone()]);
                        simd.add_f32s(key, query)
                    }
                };
                let dz = &mut dz0[from..][part.clone()];
                let value = slope_backward(simd, slope, z, load(simd, dz), &mut slopes);
                store(simd, dz, value);
                let dkey = &mut row_mut(dkeys, pair.image, width)[part.clone()];
                store(simd, dkey, simd.add_f32s(load(simd, dkey), value));
                sum = simd.add_f32s(sum, value);
            }
            store(simd, &mut dquery[part.clone()], sum);
            store(simd, &mut dslope[part], slopes);
        }
    }
}

/// What a pair's second and last layer are made of.
#[derive(Clone, Copy)]
pub(super) struct Upper<'a> {
    pub bias1: &'a [f32],
    pub slope1: &'a [f32],
    pub weight2: &'a [f32],
    pub bias2: f32,
}

/// Adds b1 to `z1`, (rows, 16), and overwrites `weights`, (rows), with W2 prelu(z1) + b2.
#[pulp::with_simd(upper_layers = linalg::arch())]
#[inline(always)]
pub(super) fn upper_layers_in<'a, S: Simd>(
    _: S,
    layers: Upper<'a>,
    z1: &'a mut [f32],
    weights: &'a mut [f32],
) {
    let Upper { bias1, slope1, weight2, bias2 } = layers;
    let width = bias1.len();
    assert!(slope1.len() == width && weight2.len() == width && width > 0, "one width");
    let ((bias, bias_rest), (slope, slope_rest)) =
        (bias1.as_chunks::<8>(), slope1.as_chunks::<8>());
    let (weight, weight_rest) = weight2.as_chunks::<8>();
    for (z, out) in z1.chunks_exact_mut(width).zip(weights) {
        let (z, z_rest) = z.as_chunks_mut::<8>();
        let mut sums = [0.0f32; 8];
        for (((z, bias), slope), weight) in z.iter_mut().zip(bias).zip(slope).zip(weight) {
            for lane in 0..8 {
                z[lane] += bias[lane];
                sums[lane] += activate(z[lane], slope[lane]) * weight[lane];
            }
        }
        let mut sum = bias2 + sums.iter().sum::<f32>();
        let rest = z_rest.iter_mut().zip(bias_rest).zip(slope_rest).zip(weight_rest);
        for (((z, bias), slope), weight) in rest {
            *z += bias;
            sum += activate(*z, *slope) * weight;
        }
        *out = sum;
    }
}

/// The gradients of [`Upper`].
pub(super) struct UpperGradients<'a> {
    pub bias1: &'a mut [f32],
    pub slope1: &'a mut [f32],
    pub weight2: &'a mut [f32],
}

/// Overwrites `dz1`, (rows, 16), given `dweights`, (rows); adds to `to`.
#[pulp::with_simd(upper_layers_backward = linalg::arch())]
#[inline(always)]
pub(super) fn upper_layers_backward_in<'a, S: Simd>(
    simd: S,
    layers: Upper<'a>,
    z1: &'a [f32],
    dweights: &'a [f32],
    dz1: &'a mut [f32],
    to: UpperGradients<'a>,
) {
    let width = layers.bias1.len();
    assert!(z1.len() == dweights.len() * width && dz1.len() == z1.len(), "a row for every pair");
    if width == 2 * S::F32_LANES {
        upper_layers_backward_by::<S, 2>(simd, layers, z1, dweights, dz1, to);
    } else {
        upper_layers_backward_of_any(simd, layers, z1, dweights, dz1, to);
    }
}

/// [`upper_layers_backward`] of `V` vectors of columns.
#[inline(always)]
fn upper_layers_backward_by<S: Simd, const V: usize>(
    simd: S,
    layers: Upper,
    z1: &[f32],
    dweights: &[f32],
    dz1: &mut [f32],
    to: UpperGradients,
) {
    let (slope, weight) = (vectors::<S, V>(layers.slope1)[0], vectors::<S, V>(layers.weight2)[0]);
    let weight2 = &mut vectors_mut::<S, V>(to.weight2)[0];
    let slope1 = &mut vectors_mut::<S, V>(to.slope1)[0];
    let bias1 = &mut vectors_mut::<S, V>(to.bias1)[0];
    let (mut weights, mut slopes, mut biases) = (*weight2, *slope1, *bias1);
    let rows = vectors::<S, V>(z1).iter().zip(vectors_mut::<S, V>(dz1));
    for (dweight, (z, dz)) in dweights.iter().zip(rows) {
        let dweight = simd.splat_f32s(*dweight);
        for j in 0..V {
            weights[j] = simd.mul_add_e_f32s(dweight, prelu(simd, slope[j], z[j]), weights[j]);
            let da = simd.mul_f32s(dweight, weight[j]);
            dz[j] = slope_backward(simd, slope[j], z[j], da, &mut slopes[j]);
            biases[j] = simd.add_f32s(biases[j], dz[j]);
        }
    }
    (*weight2, *slope1, *bias1) = (weights, slopes, biases);
}

/// [`upper_layers_backward`] of any width.
#[inline(always)]
fn upper_layers_backward_of_any<S: Simd>(
    simd: S,
    layers: Upper,
    z1: &[f32],
    dweights: &[f32],
    dz1: &mut [f32],
    to: UpperGradients,
) {
    let width = layers.bias1.len();
    for part in parts::<S>(width) {
        let slope = load(simd, &layers.slope1[part.clone()]);
        let weight = load(simd, &layers.weight2[part.clone()]);
        let mut weights = load(simd, &to.weight2[part.clone()]);
        let mut slopes = load(simd, &to.slope1[part.clone()]);
        let mut biases = load(simd, &to.bias1[part.clone()]);
        for (at, dweight) in dweights.iter().enumerate() {
            let from = at * width;
            let dweight = simd.splat_f32s(*dweight);
            let z = load(simd, &z1[from..][part.clone()]);
            weights = simd.mul_add_e_f32s(dweight, prelu(simd, slope, z), weights);
            let da = simd.mul_f32s(dweight, weight);
            let dz = slope_backward(simd, slope, z, da, &mut slopes);
            biases = simd.add_f32s(biases, dz);
            store(simd, &mut dz1[from..][part.clone()], dz);
        }
        store(simd, &mut to.weight2[part.clone()], weights);
        store(simd, &mut to.slope1[part.clone()], slopes);
        store(simd, &mut to.bias1[part], biases);
    }
}

/// Adds every weighed image to its impression's columns of `out`.
#[pulp::with_simd(weigh = linalg::arch())]
#[inline(always)]
pub(super) fn weigh_in<'a, S: Simd>(
    simd: S,
    pairs: &'a [Pair],
    weights: &'a [f32],
    embeddings: &'a [f32],
    columns: Columns,
    out: &'a mut [f32],
) {
    // A sum waits for its last addition, so all columns of a row are summed at once.
    match columns.dim.div_ceil(S::F32_LANES) {
        1 => weigh_by::<S, 1>(simd, pairs, weights, embeddings, columns, out),
        2 => weigh_by::<S, 2>(simd, pairs, weights, embeddings, columns, out),
        3 => weigh_by::<S, 3>(simd, pairs, weights, embeddings, columns, out),
        4 => weigh_by::<S, 4>(simd, pairs, weights, embeddings, columns, out),
        5 => weigh_by::<S, 5>(simd, pairs, weights, embeddings, columns, out),
        6 => weigh_by::<S, 6>(simd, pairs, weights, embeddings, columns, out),
        _ => weigh_any(simd, pairs, weights, embeddings, columns, out),
    }
}

/// [`weigh`] of rows of `P` vectors, of which the last may be a part.
#[inline(always)]
fn weigh_by<S: Simd, const P: usize>(
    simd: S,
    pairs: &[Pair],
    weights: &[f32],
    embeddings: &[f32],
    columns: Columns,
    out: &mut [f32],
) {
    let dim = columns.dim;
    let parts: [_; P] =
        std::array::from_fn(|at| at * S::F32_LANES..((at + 1) * S::F32_LANES).min(dim));
    for (first, run) in runs(pairs) {
        let out = columns.of_mut(out, run[0].impression as usize);
        let mut sums: [S::f32s; P] = std::array::from_fn(|at| load(simd, &out[parts[at].clone()]));
        for (pair, weight) in run.iter().zip(&weights[first..]) {
            let (row, weight) =
                (&embeddings[pair.image as usize * dim..], simd.splat_f32s(*weight));
            for at in 0..P {
                let e = load_beyond(simd, row, &parts[at]);
                sums[at] = simd.mul_add_e_f32s(weight, e, sums[at]);
            }
        }
        parts.iter().zip(sums).for_each(|(part, sum)| store(simd, &mut out[part.clone()], sum));
    }
}

/// [`weigh`] of rows of any width.
#[inline(always)]
fn weigh_any<S: Simd>(
    simd: S,
    pairs: &[Pair],
    weights: &[f32],
    embeddings: &[f32],
    columns: Columns,
    out: &mut [f32],
) {
    let dim = columns.dim;
    for (first, run) in runs(pairs) {
        let out = columns.of_mut(out, run[0].impression as usize);
        for part in parts::<S>(dim) {
            let mut sum = load(simd, &out[part.clone()]);
            for (pair, weight) in run.iter().zip(&weights[first..]) {
                let e = load_beyond(simd, &embeddings[pair.image as usize * dim..], &part);
                sum = simd.mul_add_e_f32s(simd.splat_f32s(*weight), e, sum);
            }
            store(simd, &mut out[part], sum);
        }
    }
}

/// Overwrites `dweights` and adds to `dembeddings`, given `columns` of `dout`.
#[pulp::with_simd(weigh_backward = linalg::arch())]
#[inline(always)]
pub(super) fn weigh_backward_in<'a, S: Simd>(
    simd: S,
    pairs: &'a [Pair],
    weights: &'a [f32],
    embeddings: &'a [f32],
    columns: Columns,
    dout: &'a [f32],
    dweights: &'a mut [f32],
    dembeddings: &'a mut [f32],
) {
    let dim = columns.dim;
    for (first, run) in runs(pairs) {
        let dout = columns.of(dout, run[0].impression as usize);
        for (pair, dweight) in run.iter().zip(&mut dweights[first..]) {
            *dweight = linalg::dot(dout, row(embeddings, pair.image, dim));
        }
        for part in parts::<S>(dim) {
            let dout = load(simd, &dout[part.clone()]);
            for (pair, weight) in run.iter().zip(&weights[first..]) {
                let de = &mut row_mut(dembeddings, pair.image, dim)[part.clone()];
                let sum = simd.mul_add_e_f32s(simd.splat_f32s(*weight), dout, load(simd, de));
                store(simd, de, sum);
            }
        }
    }
}

/// The pairs of one impression after the other, and where they begin.
#[inline(always)]
fn runs(pairs: &[Pair]) -> impl Iterator<Item = (usize, &[Pair])> {
    let mut first = 0;
    pairs.chunk_by(|a, b| a.impression == b.impression).map(move |run| {
        first += run.len();
        (first - run.len(), run)
    })
}

/// Rows of `V` vectors.
#[inline(always)]
pub(super) fn vectors<S: Simd, const V: usize>(rows: &[f32]) -> &[[S::f32s; V]] {
    S::as_simd_f32s(rows).0.as_chunks::<V>().0
}

#[inline(always)]
pub(super) fn vectors_mut<S: Simd, const V: usize>(rows: &mut [f32]) -> &mut [[S::f32s; V]] {
    S::as_mut_simd_f32s(rows).0.as_chunks_mut::<V>().0
}

/// The columns of a row of `width`, a vector at a time.
#[inline(always)]
fn parts<S: Simd>(width: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..width).step_by(S::F32_LANES).map(move |from| from..(from + S::F32_LANES).min(width))
}

#[inline(always)]
fn row(rows: &[f32], at: u32, width: usize) -> &[f32] {
    &rows[at as usize * width..][..width]
}

#[inline(always)]
fn row_mut(rows: &mut [f32], at: u32, width: usize) -> &mut [f32] {
    &mut rows[at as usize * width..][..width]
}

/// A vector, whose lanes beyond the end of `part` are zero.
#[inline(always)]
fn load<S: Simd>(simd: S, part: &[f32]) -> S::f32s {
    match S::as_simd_f32s(part) {
        ([vector], []) => *vector,
        _ => simd.partial_load_f32s(part),
    }
}

/// Columns `part` of a row, followed by whatever lies behind them.
#[inline(always)]
fn load_beyond<S: Simd>(simd: S, row: &[f32], part: &std::ops::Range<usize>) -> S::f32s {
    match S::as_simd_f32s(&row[part.start..]).0 {
        [vector, ..] => *vector,
        [] => simd.partial_load_f32s(&row[part.clone()]),
    }
}

#[inline(always)]
fn store<S: Simd>(simd: S, part: &mut [f32], value: S::f32s) {
    match S::as_mut_simd_f32s(part) {
        ([vector], []) => *vector = value,
        _ => simd.partial_store_f32s(part, value),
    }
}

/// As in [`prelu`](crate::prelu): a factor and not a choice of values, so that a NaN stays one.
#[inline(always)]
pub(super) fn prelu<S: Simd>(simd: S, slope: S::f32s, z: S::f32s) -> S::f32s {
    prelu_backward(simd, slope, z, z)
}

/// `da` by the slope at `z`.
#[inline(always)]
fn prelu_backward<S: Simd>(simd: S, slope: S::f32s, z: S::f32s, da: S::f32s) -> S::f32s {
    let positive = simd.greater_than_f32s(z, simd.splat_f32s(0.0));
    simd.mul_f32s(da, simd.select_f32s(positive, simd.splat_f32s(1.0), slope))
}

/// [`prelu_backward`]; adds the gradient of the slope to `dslope`.
#[inline(always)]
fn slope_backward<S: Simd>(
    simd: S,
    slope: S::f32s,
    z: S::f32s,
    da: S::f32s,
    dslope: &mut S::f32s,
) -> S::f32s {
    *dslope = simd.mul_add_e_f32s(da, negative(simd, z), *dslope);
    prelu_backward(simd, slope, z, da)
}

/// `z` where it is negative, else 0; or a NaN.
#[inline(always)]
fn negative<S: Simd>(simd: S, z: S::f32s) -> S::f32s {
    let negative = simd.less_than_f32s(z, simd.splat_f32s(0.0));
    let factor = simd.select_f32s(negative, simd.splat_f32s(1.0), simd.splat_f32s(0.0));
    simd.mul_f32s(z, factor)
}
