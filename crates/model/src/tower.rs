//! The tower: a trainable image model F-256-64-12 over fixed image features, PReLU between, the
//! last layer linear. The same arithmetic serves any fixed vectors (text, sound).
//!
//! Features arrive as halfs, from wherever they live; they are widened on their way into the
//! kernel, and have no gradient. Almost all of a training step's time is the first layer's two
//! products. So its weights are packed once ([`Tower::pack`]) for all who embed with them, and the
//! gradient of its matrix is a step of its own ([`Tower::backward_columns`]): some columns at a
//! time, so that a caller can add many of them up while they are in a cache.

use std::ops::Range;

use half::f16;
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::init::Init;
use crate::linalg::{self, LeftFactor, Packed, Panels, Sparse, Tiles, Write, fit};
use crate::linear::Linear;
use crate::params::{Layout, View};
use crate::stack::{Stack, StackScratch};

/// Rows widened at a time, and how much of each at most: what the kernel reads again and again
/// stays in the second cache, of which it takes half.
const BLOCK: usize = 256;
const SPAN: usize = 2 * linalg::DEPTH;

/// Columns of a gradient are computed in multiples of this.
const GRADIENT_STEP: usize = 64;

/// Rows fetched at a time for the next part of a gradient, whose product may have fewer tiles than
/// rows.
const AHEAD: usize = 2;

/// Rows whose values are counted.
const SAMPLE: usize = 4;

/// Features of which a smaller share is not zero are listed instead of widened.
/// `examples/kernels.rs`, 250 images, 2-core x86-64 with AVX-512, forward and matrix gradient in
/// ms: widened 2.3 and 2.2 whatever the zeros; listed 2.0 and 2.0 at 80 % zeros, 1.4 and 1.4 at 90
/// %.
const SPARSE: f32 = 0.25;

/// Gain of the last layer's first weights: embeddings begin about as small as the rows of ids,
/// because dozens of them are summed.
const LAST_GAIN: f32 = 0.1;

/// The shape of a tower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TowerConfig {
    /// Width of an image feature (F).
    pub input: usize,
    /// Width of each layer's output; the last is D.
    pub widths: Vec<usize>,
}

impl TowerConfig {
    /// The paper's tower over features of width `input`: 256, 64, 12.
    pub fn new(input: usize) -> TowerConfig {
        TowerConfig { input, widths: vec![256, 64, 12] }
    }

    /// What is wrong with this configuration, if anything is: what came and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let TowerConfig { input, widths } = self;
        if *input == 0 {
            return Err("input is 0; a feature must have a width of at least 1".to_owned());
        }
        if widths.is_empty() || widths.contains(&0) {
            return Err(format!(
                "tower is {widths:?}; it must have a layer, and every width must be at least 1"
            ));
        }
        Ok(())
    }
}

/// A tower: the structure of its weights, which live elsewhere in one flat slice `e`.
#[derive(Clone, Debug)]
pub struct Tower {
    config: TowerConfig,
    layout: Layout,
    first: Linear,
    stack: Stack,
}

/// Features, (U) rows of F halfs, wherever they are.
pub trait Rows {
    /// Number of rows (U).
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `at`, F halfs; panics beyond [`Rows::len`].
    fn row(&self, at: usize) -> &[f16];
}

impl Rows for [&[f16]] {
    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn row(&self, at: usize) -> &[f16] {
        self[at]
    }
}

/// Activations of a forward pass, for its backward pass; reused from step to step.
#[derive(Clone, Debug, Default)]
pub struct TowerScratch {
    buffers: TowerBuffers,
    stack: StackScratch,
    /// The gradient of the first layer's output, packed.
    dz: Packed,
    /// Whether few values of the features are not zero.
    sparse: bool,
}

/// Buffers for a part of the features, reused from part to part.
#[derive(Clone, Debug, Default)]
pub struct TowerBuffers {
    /// Widened, where most of them are not zero.
    x: Vec<f32>,
    /// The same of a part of their columns, transposed.
    tiles: Tiles,
    /// Listed, where they are.
    sparse: Sparse,
}

impl TowerScratch {
    /// Which hidden units of which rows the next forward pass drops, and its backward pass with it.
    pub fn dropout(&mut self) -> &mut Dropout {
        self.stack.dropout()
    }
}

impl Tower {
    /// A tower of shape `config`, which [`TowerConfig::check`] finds good.
    pub fn new(config: TowerConfig) -> Tower {
        assert_eq!(config.check(), Ok(()), "the configuration was not checked");
        let mut layout = Layout::default();
        let (input, first) = (config.input, config.widths[0]);
        let init = match config.widths.len() {
            1 => Init::xavier(input, first).scaled(LAST_GAIN),
            _ => Init::he(input),
        };
        let first = Linear::new(&mut layout, "0", input, first, init);
        let stack = Stack::new(&mut layout, "", &config.widths, LAST_GAIN);
        Tower { config, layout, first, stack }
    }

    /// The configuration that the tower was made from.
    pub fn config(&self) -> &TowerConfig {
        &self.config
    }

    /// Width of an embedding (D).
    pub fn dim(&self) -> usize {
        self.config.widths[self.config.widths.len() - 1]
    }

    /// Names and places of the weights.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// First weights of the tower called `name`.
    pub fn init(&self, seed: u64, name: &str) -> Vec<f32> {
        self.layout.init(seed, name)
    }

    /// The matrix of the first layer, (first width, F), in `e`.
    pub fn first_matrix(&self) -> View {
        self.first.weight
    }

    /// Packs the first layer of `e` for [`Tower::forward`].
    pub fn pack(&self, e: &[f32], packed: &mut Packed) {
        packed.pack_transposed(self.first.inputs, self.first.outputs, self.first_matrix().of(e));
    }

    /// Embeds images: `rows` are (U, F), `scale` multiplies them, `first` is what [`Tower::pack`]
    /// made of `e`, `out` becomes (U, D).
    ///
    /// Keeps in `scratch` what the backward pass needs.
    pub fn forward<R: Rows + ?Sized>(
        &self,
        e: &[f32],
        first: Panels,
        rows: &R,
        scale: f32,
        scratch: &mut TowerScratch,
        out: &mut Vec<f32>,
    ) {
        let Linear { inputs, outputs, .. } = self.first;
        assert_eq!((first.depth(), first.columns()), (inputs, outputs), "the packed first layer");
        let TowerScratch { buffers, stack, sparse, .. } = scratch;
        // Some rows tell: both ways have the same result.
        let some = (0..rows.len()).step_by(rows.len().div_ceil(SAMPLE).max(1));
        let values: usize = some.clone().map(|at| linalg::count_values(rows.row(at))).sum();
        *sparse = (values as f32) < SPARSE * (some.len() * inputs) as f32;
        let z = stack.first(rows.len(), &self.stack);
        let dense_span =
            linalg::columns_in_cache(linalg::second_cache(), BLOCK, linalg::DEPTH, SPAN);
        for (block, z) in z.chunks_mut(BLOCK * outputs).enumerate() {
            let count = z.len() / outputs;
            let row = |at| rows.row(block * BLOCK + at);
            let span = if *sparse { linalg::DEPTH } else { dense_span };
            for from in (0..inputs).step_by(span) {
                let to = (from + span).min(inputs);
                let write = if from == 0 { Write::Overwrite } else { Write::Add };
                let first = first.part(from, to);
                if *sparse {
                    buffers.sparse.list_rows(count, |at| &row(at)[from..to]);
                    buffers.sparse.product(first, scale, write, z);
                } else {
                    let x = fit(&mut buffers.x, count * (to - from));
                    linalg::widen(to - from, |at| &row(at)[from..to], x);
                    // Of the same images what follows, or of the next ones the beginning.
                    let (images, columns) = if to < inputs {
                        (block * BLOCK, to..(to + span).min(inputs))
                    } else {
                        ((block + 1) * BLOCK, 0..span.min(inputs))
                    };
                    let mut next = images..(images + BLOCK).min(rows.len());
                    let mut prefetch = || {
                        if let Some(at) = next.next() {
                            linalg::fetch(&rows.row(at)[columns.clone()]);
                        }
                    };
                    let prefetch = Some(&mut prefetch as &mut dyn FnMut());
                    let x = LeftFactor::rows(x, to - from);
                    linalg::product_prefetching(count, x, first, scale, write, z, prefetch);
                }
            }
        }
        self.first.add_bias(e, z);
        self.stack.forward(e, rows.len(), stack, out);
    }

    /// Adds the gradient of all weights but those of [`Tower::first_matrix`] to `de`, given `dout`
    /// (U, D), and `e` and `scratch` of the forward pass.
    pub fn backward(&self, e: &[f32], scratch: &mut TowerScratch, dout: &[f32], de: &mut [f32]) {
        let stack = &mut scratch.stack;
        self.stack.backward(e, dout.len() / self.dim(), stack, dout, de);
        self.first.backward_bias(stack.dfirst(), de);
        let outputs = self.first.outputs;
        let (rows, dz) = (stack.dfirst().len() / outputs, stack.dfirst());
        if scratch.sparse {
            scratch.dz.pack_wide(rows, outputs, dz)
        } else {
            scratch.dz.pack(rows, outputs, dz)
        }
    }

    /// Overwrites `dw`, (columns, first width), with the gradient of `columns` of
    /// [`Tower::first_matrix`], transposed, given `rows` and `scale` of the forward pass and
    /// `scratch` of the backward pass. What will be asked for `next` is brought near meanwhile.
    pub fn backward_columns<R: Rows + ?Sized>(
        &self,
        rows: &R,
        scale: f32,
        scratch: &TowerScratch,
        columns: Range<usize>,
        next: Option<Upcoming<'_, R>>,
        buffers: &mut TowerBuffers,
        dw: &mut [f32],
    ) {
        if rows.is_empty() {
            return dw.fill(0.0);
        }
        let outputs = self.first.outputs;
        assert_eq!(dw.len(), columns.len() * outputs, "the gradient of {} columns", columns.len());
        let most = columns.len();
        // Features and gradient of as many columns as stay in the second cache.
        let span = if scratch.sparse {
            most
        } else {
            let cache = linalg::second_cache();
            linalg::columns_in_cache(cache, linalg::DEPTH + outputs, GRADIENT_STEP, most)
        };
        for (at, dw) in dw.chunks_mut((span * outputs).max(1)).enumerate() {
            let from = columns.start + at * span;
            let to = (from + span).min(columns.end);
            let following = (to < columns.end)
                .then(|| Upcoming { rows, columns: to..(to + span).min(columns.end) });
            let next = following.as_ref().or(next.as_ref());
            self.backward_span(rows, scale, scratch, from..to, next, buffers, dw);
        }
    }

    /// [`Tower::backward_columns`] of so many columns that they stay in a cache.
    fn backward_span<R: Rows + ?Sized>(
        &self,
        rows: &R,
        scale: f32,
        scratch: &TowerScratch,
        columns: Range<usize>,
        next: Option<&Upcoming<'_, R>>,
        buffers: &mut TowerBuffers,
        dw: &mut [f32],
    ) {
        let dz = scratch.dz.panels();
        assert_eq!(dz.depth(), rows.len(), "images of the backward pass");
        for from in (0..rows.len()).step_by(linalg::DEPTH) {
            let to = (from + linalg::DEPTH).min(rows.len());
            let write = if from == 0 { Write::Overwrite } else { Write::Add };
            let (dz, row) = (dz.part(from, to), |at: usize| &rows.row(from + at)[columns.clone()]);
            if scratch.sparse {
                buffers.sparse.list_columns(columns.len(), to - from, row);
                buffers.sparse.product(dz, scale, write, dw);
                continue;
            }
            buffers.tiles.widen(to - from, columns.len(), row);
            // Of the same columns the images that follow, or what is asked for next.
            let (of, first, part) = match next {
                Some(next) if to == rows.len() => (next.rows, 0, &next.columns),
                _ => (rows, to, &columns),
            };
            let mut images = first..(first + linalg::DEPTH).min(of.len());
            let mut prefetch = || {
                for at in images.by_ref().take(AHEAD) {
                    linalg::fetch(&of.row(at)[part.clone()]);
                }
            };
            let prefetch = Some(&mut prefetch as &mut dyn FnMut());
            let x = buffers.tiles.factor();
            linalg::product_prefetching(columns.len(), x, dz, scale, write, dw, prefetch);
        }
    }
}

/// What [`Tower::backward_columns`] will be asked for next.
pub struct Upcoming<'a, R: ?Sized> {
    /// Features of the forward pass.
    pub rows: &'a R,
    /// Columns of [`Tower::first_matrix`].
    pub columns: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, assert_gradient, values};

    fn halfs(seed: u64, len: usize) -> Vec<f16> {
        values(seed, len).into_iter().map(f16::from_f32).collect()
    }

    fn gradient(tower: &Tower, e: &[f32], rows: &[&[f16]], dout: &[f32]) -> Vec<f32> {
        let mut scratch = TowerScratch::default();
        embed(tower, e, rows, &mut scratch);
        let mut de = vec![0.0; e.len()];
        tower.backward(e, &mut scratch, dout, &mut de);
        let [outputs, inputs] = [tower.first.outputs, tower.first.inputs];
        for from in (0..inputs).step_by(2) {
            let columns = from..(from + 2).min(inputs);
            let mut part = vec![f32::NAN; outputs * columns.len()];
            let buffers = &mut TowerBuffers::default();
            tower.backward_columns(rows, 0.5, &scratch, columns.clone(), None, buffers, &mut part);
            let matrix = tower.first_matrix().of_mut(&mut de);
            for (column, part) in columns.zip(part.chunks_exact(outputs)) {
                for (output, value) in part.iter().enumerate() {
                    matrix[output * inputs + column] = *value;
                }
            }
        }
        de
    }

    fn embed(tower: &Tower, e: &[f32], rows: &[&[f16]], scratch: &mut TowerScratch) -> Vec<f32> {
        let (mut packed, mut out) = (Packed::default(), Vec::new());
        tower.pack(e, &mut packed);
        tower.forward(e, packed.panels(), rows, 0.5, scratch, &mut out);
        out
    }

    #[test]
    fn gradients_match_differences() {
        let tower = Tower::new(TowerConfig { input: 7, widths: vec![5, 4, 3] });
        let (features, dout) = (halfs(1, 3 * 7), values(2, 3 * 3));
        let rows: Vec<&[f16]> = features.chunks(7).collect();
        let e = values(3, tower.layout().len());
        let de = gradient(&tower, &e, &rows, &dout);
        let mut scratch = TowerScratch::default();
        assert_gradient("e", &e, &de, |e| {
            embed(&tower, e, &rows, &mut scratch)
                .iter()
                .zip(&dout)
                .map(|(y, dy)| f64::from(y * dy))
                .sum()
        });
    }

    #[test]
    fn blocks_do_not_show() {
        let tower = Tower::new(TowerConfig { input: 3, widths: vec![4, 2] });
        let count = 2 * BLOCK + 7;
        let (features, dout) = (halfs(1, count * 3), values(2, count * 2));
        let rows: Vec<&[f16]> = features.chunks(3).collect();
        let e = tower.init(3, "ad");
        let mut one_by_one = vec![0.0; e.len()];
        for (row, dout) in rows.chunks(1).zip(dout.chunks(2)) {
            linalg::add(&gradient(&tower, &e, row, dout), &mut one_by_one);
        }
        assert_close(&gradient(&tower, &e, &rows, &dout), &one_by_one, 1e-4);
    }

    /// What a tower of two layers makes of `row`, in the obvious way.
    fn obvious(tower: &Tower, e: &[f32], row: &[f16]) -> Vec<f32> {
        let wide: Vec<f32> = row.iter().map(|half| 0.5 * half.to_f32()).collect();
        let z = tower.first.weight.of(e).chunks(wide.len()).map(|w| linalg::dot(w, &wide));
        let a: Vec<f32> = z.map(|z| if z > 0.0 { z } else { 0.25 * z }).collect();
        let [hidden, dim] = tower.config.widths[..] else { panic!("two layers") };
        let last = e[e.len() - (hidden + 1) * dim..].chunks(hidden);
        last.take(dim).map(|w| linalg::dot(w, &a)).collect()
    }

    #[test]
    fn spans_do_not_show() {
        let (input, count) = (2 * SPAN + 3, BLOCK + 2);
        let tower = Tower::new(TowerConfig { input, widths: vec![6, 2] });
        let (features, e) = (halfs(1, count * input), tower.init(3, "ad"));
        let rows: Vec<&[f16]> = features.chunks(input).collect();
        let mut scratch = TowerScratch::default();
        let out = embed(&tower, &e, &rows, &mut scratch);
        assert!(!scratch.sparse, "counted");
        for at in [0, BLOCK - 1, BLOCK, count - 1] {
            assert_close(&out[at * 2..][..2], &obvious(&tower, &e, rows[at]), 1e-4);
        }
    }

    #[test]
    fn neither_caches_nor_vectors_show() {
        let (input, count) = (2 * SPAN + 70, BLOCK + 9);
        let tower = Tower::new(TowerConfig { input, widths: vec![70, 5] });
        let (features, e) = (halfs(1, count * input), tower.init(3, "ad"));
        let rows: Vec<&[f16]> = features.chunks(input).collect();
        let dout = values(2, count * 5);
        let results = || {
            let (mut scratch, mut part) = (TowerScratch::default(), vec![0.0; 70 * input]);
            let out = embed(&tower, &e, &rows, &mut scratch);
            tower.backward(&e, &mut scratch, &dout, &mut vec![0.0; e.len()]);
            let buffers = &mut TowerBuffers::default();
            tower.backward_columns(&rows[..], 0.5, &scratch, 0..input, None, buffers, &mut part);
            (out, part)
        };
        let expected = results();
        // Other tests of this process may see the same: bits are equal, and that is what is tested.
        for cache in [1, 256 << 10, 512 << 10, 1 << 20, 64 << 20] {
            for narrow in [false, true] {
                let pretended = linalg::Pretended { narrow, second_cache: Some(cache) };
                if linalg::pretend(pretended).is_ok() {
                    assert_eq!(results(), expected, "{pretended:?}");
                }
            }
        }
        linalg::pretend(linalg::Pretended::default()).expect("the processor as it is");
    }

    #[test]
    fn zeros_do_not_show() {
        // Several blocks of depth both ways.
        let (input, count) = (linalg::DEPTH + 3, linalg::DEPTH + 9);
        let tower = Tower::new(TowerConfig { input, widths: vec![6, 2] });
        let mut features = halfs(1, count * input);
        for (at, feature) in features.iter_mut().enumerate() {
            if at % 9 != 0 {
                *feature = f16::ZERO;
            }
        }
        let rows: Vec<&[f16]> = features.chunks(input).collect();
        let (e, dout) = (tower.init(3, "ad"), values(2, count * 2));
        let (mut scratch, mut part) = (TowerScratch::default(), vec![0.0; 6 * input]);
        let mut results = Vec::new();
        for sparse in [true, false] {
            let out = embed(&tower, &e, &rows, &mut scratch);
            assert!(scratch.sparse, "counted");
            tower.backward(&e, &mut scratch, &dout, &mut vec![0.0; e.len()]);
            scratch.sparse = sparse;
            let buffers = &mut TowerBuffers::default();
            tower.backward_columns(&rows[..], 0.5, &scratch, 0..input, None, buffers, &mut part);
            results.push((out, part.clone()));
        }
        assert_eq!(results[0], results[1]);
        let last = count - 1;
        assert_close(&results[0].0[last * 2..], &obvious(&tower, &e, rows[last]), 1e-4);
    }

    #[test]
    fn no_image_gives_no_gradient() {
        let tower = Tower::new(TowerConfig::new(16));
        let e = tower.init(1, "ad");
        assert_eq!(gradient(&tower, &e, &[], &[]), vec![0.0; e.len()]);
    }

    #[test]
    fn impossible_shapes_are_explained() {
        for (input, widths, begin) in [
            (0, vec![12], "input is 0;"),
            (4096, vec![], "tower is [];"),
            (4096, vec![256, 0, 12], "tower is [256, 0, 12];"),
        ] {
            let error = TowerConfig { input, widths }.check().expect_err("impossible");
            assert!(error.starts_with(begin) && error.contains("at least 1"), "{error}");
        }
        assert_eq!(TowerConfig::new(4096).check(), Ok(()));
    }

    #[test]
    fn weights_are_named_by_layer() {
        let tower = Tower::new(TowerConfig::new(4096));
        let names: Vec<_> =
            tower.layout().entries.iter().map(|e| format!("{} {:?}", e.name, e.shape)).collect();
        assert_eq!(
            names,
            [
                "0.weight [256, 4096]",
                "0.bias [256]",
                "0.slope [256]",
                "1.weight [64, 256]",
                "1.bias [64]",
                "1.slope [64]",
                "2.weight [12, 64]",
                "2.bias [12]",
            ]
        );
        assert_ne!(tower.init(1, "ad"), tower.init(1, "behavior"));
    }
}
