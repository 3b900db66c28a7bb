//! The tower: a trainable image model F-256-64-12 over fixed image features, PReLU between, the last
//! layer linear. The same arithmetic serves any fixed vectors (text, sound).
//!
//! Features arrive as halfs, gathered from wherever they live; they are widened block by block, and
//! have no gradient. Almost all of a training step's time is the first layer's two products.

use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::{Deserialize, Serialize};

use crate::dropout::Dropout;
use crate::init::Init;
use crate::linalg::fit;
use crate::linear::Linear;
use crate::params::Layout;
use crate::stack::{Stack, StackScratch};

/// Rows widened at a time: enough for a product at full speed, few enough to stay in a cache.
const BLOCK: usize = 256;

/// Gain of the last layer's first weights: embeddings begin about as small as the rows of ids, because
/// dozens of them are summed.
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
        if self.input == 0 || self.widths.is_empty() || self.widths.contains(&0) {
            let TowerConfig { input, widths } = self;
            return Err(format!(
                "a tower from {input} to {widths:?}; at least one layer, and every width at least 1"
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

/// Activations of a forward pass, for its backward pass; reused from step to step.
#[derive(Clone, Debug, Default)]
pub struct TowerScratch {
    /// A block of widened features, (up to BLOCK, F).
    x: Vec<f32>,
    stack: StackScratch,
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

    /// The shape.
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

    /// Embeds images: `rows` are (U) slices of F halfs, `scale` multiplies them, `out` becomes (U, D).
    ///
    /// Keeps in `scratch` what [`Tower::backward`] needs.
    pub fn forward(
        &self,
        e: &[f32],
        rows: &[&[f16]],
        scale: f32,
        scratch: &mut TowerScratch,
        out: &mut Vec<f32>,
    ) {
        let TowerScratch { x, stack } = scratch;
        let z = stack.first(rows.len(), &self.stack);
        for (rows, z) in rows.chunks(BLOCK).zip(z.chunks_mut(BLOCK * self.first.outputs)) {
            self.first.forward_scaled(e, self.widen(rows, x), rows.len(), scale, z);
        }
        self.stack.forward(e, rows.len(), stack, out);
    }

    /// Adds the gradient of the weights to `de`, given `dout` (U, D) and `e`, `rows`, `scale` and
    /// `scratch` of the forward pass.
    pub fn backward(
        &self,
        e: &[f32],
        rows: &[&[f16]],
        scale: f32,
        scratch: &mut TowerScratch,
        dout: &[f32],
        de: &mut [f32],
    ) {
        let TowerScratch { x, stack } = scratch;
        self.stack.backward(e, rows.len(), stack, dout, de);
        let blocks = stack.dfirst().chunks(BLOCK * self.first.outputs);
        for (rows, dz) in rows.chunks(BLOCK).zip(blocks) {
            let x = self.widen(rows, x);
            self.first.backward_weights_scaled(x, dz, rows.len(), scale, de);
        }
    }

    /// `rows` as floats, (rows, F).
    fn widen<'x>(&self, rows: &[&[f16]], x: &'x mut Vec<f32>) -> &'x [f32] {
        let width = self.config.input;
        let x = fit(x, rows.len() * width);
        for (row, x) in rows.iter().zip(x.chunks_exact_mut(width)) {
            row.convert_to_f32_slice(x);
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, assert_gradient, values};

    fn halfs(seed: u64, len: usize) -> Vec<f16> {
        values(seed, len).into_iter().map(f16::from_f32).collect()
    }

    fn gradient(tower: &Tower, e: &[f32], rows: &[&[f16]], dout: &[f32]) -> Vec<f32> {
        let (mut scratch, mut out) = (TowerScratch::default(), Vec::new());
        tower.forward(e, rows, 0.5, &mut scratch, &mut out);
        let mut de = vec![0.0; e.len()];
        tower.backward(e, rows, 0.5, &mut scratch, dout, &mut de);
        de
    }

    #[test]
    fn gradients_match_differences() {
        let tower = Tower::new(TowerConfig { input: 7, widths: vec![5, 4, 3] });
        let (features, dout) = (halfs(1, 3 * 7), values(2, 3 * 3));
        let rows: Vec<&[f16]> = features.chunks(7).collect();
        let e = values(3, tower.layout().len());
        let de = gradient(&tower, &e, &rows, &dout);
        let (mut scratch, mut out) = (TowerScratch::default(), Vec::new());
        assert_gradient("e", &e, &de, |e| {
            tower.forward(e, &rows, 0.5, &mut scratch, &mut out);
            out.iter().zip(&dout).map(|(y, dy)| f64::from(y * dy)).sum()
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
            crate::linalg::add(&gradient(&tower, &e, row, dout), &mut one_by_one);
        }
        assert_close(&gradient(&tower, &e, &rows, &dout), &one_by_one, 1e-4);
    }

    #[test]
    fn no_image_gives_no_gradient() {
        let tower = Tower::new(TowerConfig::new(16));
        let e = tower.init(1, "ad");
        assert_eq!(gradient(&tower, &e, &[], &[]), vec![0.0; e.len()]);
    }

    #[test]
    fn impossible_shapes_are_explained() {
        for (input, widths) in [(0, vec![12]), (4096, vec![]), (4096, vec![256, 0, 12])] {
            let error = TowerConfig { input, widths }.check().expect_err("impossible");
            assert!(error.contains("every width at least 1"), "{error}");
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
