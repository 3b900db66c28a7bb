//! The fully connected layer y = x Wt + b.
//!
//! W is (outputs, inputs), as PyTorch has it: so files of both have one layout.

use crate::init::Init;
use crate::linalg::{self, Write};
use crate::params::{Layout, View};
use pulp::Simd;

/// A fully connected layer: where its weights live, and its widths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    /// The weights W, (outputs, inputs), row-major.
    pub weight: View,
    /// b, (outputs), unless another part of a split layer adds it.
    pub bias: Option<View>,
    /// Width of a row of x.
    pub inputs: usize,
    /// Width of a row of y.
    pub outputs: usize,
}

impl Linear {
    /// Appends `name.weight` and `name.bias` to `layout`.
    pub(crate) fn new(
        layout: &mut Layout,
        name: &str,
        inputs: usize,
        outputs: usize,
        init: Init,
    ) -> Linear {
        let layer = Linear::without_bias(layout, name, inputs, outputs, init);
        let bias = layout.push(&format!("{name}.bias"), &[outputs], Init::Constant(0.0));
        Linear { bias: Some(bias), ..layer }
    }

    /// Appends `name.weight` to `layout`: one part of a layer split by its inputs.
    pub(crate) fn without_bias(
        layout: &mut Layout,
        name: &str,
        inputs: usize,
        outputs: usize,
        init: Init,
    ) -> Linear {
        let weight = layout.push(&format!("{name}.weight"), &[outputs, inputs], init);
        Linear { weight, bias: None, inputs, outputs }
    }

    /// `x` (rows, inputs) -> `y` (rows, outputs), overwritten.
    pub(crate) fn forward(&self, w: &[f32], x: &[f32], rows: usize, y: &mut [f32]) {
        self.forward_scaled(w, x, rows, 1.0, y);
    }

    /// Like [`Linear::forward`] of `scale` * `x`, at no extra pass over `x`.
    pub(crate) fn forward_scaled(
        &self,
        w: &[f32],
        x: &[f32],
        rows: usize,
        scale: f32,
        y: &mut [f32],
    ) {
        let shape = [rows, self.outputs, self.inputs];
        linalg::a_bt(shape, x, self.weight.of(w), scale, Write::Overwrite, y);
        self.add_bias(w, y);
    }

    /// Adds to `y` (rows, outputs); for a layer without a bias.
    pub(crate) fn forward_onto(&self, w: &[f32], x: &[f32], rows: usize, y: &mut [f32]) {
        debug_assert!(self.bias.is_none(), "the bias would be added as often as there are parts");
        let shape = [rows, self.outputs, self.inputs];
        linalg::a_bt(shape, x, self.weight.of(w), 1.0, Write::Add, y);
    }

    /// Adds the gradients of W and b to `dw`, given `x` (rows, inputs) and `dy` (rows, outputs).
    pub(crate) fn backward_weights(&self, x: &[f32], dy: &[f32], rows: usize, dw: &mut [f32]) {
        self.backward_weights_scaled(x, dy, rows, 1.0, dw);
    }

    /// Like [`Linear::backward_weights`] of `scale` * `x`.
    pub(crate) fn backward_weights_scaled(
        &self,
        x: &[f32],
        dy: &[f32],
        rows: usize,
        scale: f32,
        dw: &mut [f32],
    ) {
        let shape = [self.outputs, self.inputs, rows];
        linalg::at_b(shape, dy, x, scale, Write::Add, self.weight.of_mut(dw));
        self.backward_bias(dy, dw);
    }

    /// Adds the gradient of b alone, given `dy` (rows, outputs).
    pub(crate) fn backward_bias(&self, dy: &[f32], dw: &mut [f32]) {
        if let Some(bias) = self.bias {
            backward_bias(dy, bias.of_mut(dw));
        }
    }

    /// Adds b to every row of `y` (rows, outputs).
    pub(crate) fn add_bias(&self, w: &[f32], y: &mut [f32]) {
        if let Some(bias) = self.bias {
            add_bias(bias.of(w), y);
        }
    }

    /// Overwrites `dx` (rows, inputs), given `dy` (rows, outputs).
    pub(crate) fn backward_input(&self, w: &[f32], dy: &[f32], rows: usize, dx: &mut [f32]) {
        let shape = [rows, self.inputs, self.outputs];
        linalg::a_b(shape, dy, self.weight.of(w), 1.0, Write::Overwrite, dx);
    }
}

/// Adds `bias` (width) to every row of `y` (rows, width).
#[pulp::with_simd(add_bias = linalg::arch())]
#[inline(always)]
fn add_bias_in<'a, S: Simd>(_: S, bias: &'a [f32], y: &'a mut [f32]) {
    for row in y.chunks_exact_mut(bias.len()) {
        linalg::add(bias, row);
    }
}

/// Adds every row of `dy` (rows, width) to `dbias` (width).
#[pulp::with_simd(backward_bias = linalg::arch())]
#[inline(always)]
fn backward_bias_in<'a, S: Simd>(_: S, dy: &'a [f32], dbias: &'a mut [f32]) {
    for row in dy.chunks_exact(dbias.len()) {
        linalg::add(row, dbias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_gradient, values};

    #[test]
    fn gradients_match_differences() {
        let mut layout = Layout::default();
        let layer = Linear::new(&mut layout, "fc", 5, 3, Init::he(5));
        let (rows, scale) = (4, 0.7);
        let (w, x, dy) = (values(1, layout.len()), values(2, rows * 5), values(3, rows * 3));
        let loss = |w: &[f32], x: &[f32]| {
            let mut y = vec![f32::NAN; rows * 3];
            layer.forward_scaled(w, x, rows, scale, &mut y);
            y.iter().zip(&dy).map(|(y, dy)| f64::from(y * dy)).sum()
        };
        let mut dw = vec![0.0; layout.len()];
        layer.backward_weights_scaled(&x, &dy, rows, scale, &mut dw);
        assert_gradient("w", &w, &dw, |w| loss(w, &x));
        let mut dx = vec![f32::NAN; rows * 5];
        layer.backward_input(&w, &dy, rows, &mut dx);
        dx.iter_mut().for_each(|dx| *dx *= scale);
        assert_gradient("x", &x, &dx, |x| loss(&w, x));
    }
}
