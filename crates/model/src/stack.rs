//! A stack of layers from the first pre-activation on: PReLU, dropout where it is set, fully
//! connected, and so forth; the last layer is linear.
//!
//! The first product is the caller's, because it is special everywhere: halfs in the tower, split
//! by group and impression in the rank network.

use crate::dropout::Dropout;
use crate::init::Init;
use crate::linalg::fit;
use crate::linear::Linear;
use crate::params::{Layout, View};
use crate::prelu;

/// The layers after the first one.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    /// Width of each layer's output, the first layer's too.
    widths: Vec<usize>,
    /// PReLU slopes of all layers but the last.
    slopes: Vec<View>,
    /// All layers but the first.
    layers: Vec<Linear>,
}

/// What the backward pass needs of the forward pass, and room for gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackScratch {
    /// Input of each PReLU, (rows, widths[i]); the last is the output.
    z: Vec<Vec<f32>>,
    /// Output of each PReLU, with dropout, (rows, widths[i]).
    a: Vec<Vec<f32>>,
    /// Gradient of each `z`.
    dz: Vec<Vec<f32>>,
    dropout: Dropout,
}

impl StackScratch {
    /// Which outputs of PReLUs the next forward pass drops, and its backward pass with it.
    pub(crate) fn dropout(&mut self) -> &mut Dropout {
        &mut self.dropout
    }

    /// The first layer's output (rows, first width), for the caller to fill before the forward
    /// pass.
    pub(crate) fn first(&mut self, rows: usize, stack: &Stack) -> &mut [f32] {
        let depth = stack.widths.len();
        self.z.resize(depth, Vec::new());
        self.a.resize(depth - 1, Vec::new());
        self.dz.resize(depth, Vec::new());
        fit(&mut self.z[0], rows * stack.widths[0])
    }

    /// The gradient of the first layer's output (rows, first width), after the backward pass.
    pub(crate) fn dfirst(&self) -> &[f32] {
        &self.dz[0]
    }
}

impl Stack {
    /// Appends the weights of a stack of layers of `widths` outputs to `layout`: `<prefix>0.slope`,
    /// `<prefix>1.weight`, `<prefix>1.bias`, `<prefix>1.slope`, ... `last_gain` multiplies the
    /// range of the last layer's first weights.
    pub(crate) fn new(
        layout: &mut Layout,
        prefix: &str,
        widths: &[usize],
        last_gain: f32,
    ) -> Stack {
        assert!(!widths.is_empty() && !widths.contains(&0), "widths of {prefix}: {widths:?}");
        let (mut slopes, mut layers) = (Vec::new(), Vec::new());
        for i in 1..widths.len() {
            let (inputs, outputs) = (widths[i - 1], widths[i]);
            slopes.push(prelu::slopes(layout, &format!("{prefix}{}", i - 1), inputs));
            let init = if i + 1 == widths.len() {
                Init::xavier(inputs, outputs).scaled(last_gain)
            } else {
                Init::he(inputs)
            };
            layers.push(Linear::new(layout, &format!("{prefix}{i}"), inputs, outputs, init));
        }
        Stack { widths: widths.to_vec(), slopes, layers }
    }

    /// Width of the last layer.
    pub(crate) fn outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// From what [`StackScratch::first`] was filled with to `out` (rows, last width).
    pub(crate) fn forward(
        &self,
        w: &[f32],
        rows: usize,
        scratch: &mut StackScratch,
        out: &mut Vec<f32>,
    ) {
        for (i, layer) in self.layers.iter().enumerate() {
            let (below, above) = scratch.z.split_at_mut(i + 1);
            let a = fit(&mut scratch.a[i], rows * self.widths[i]);
            prelu::forward(self.slopes[i].of(w), &below[i], a);
            scratch.dropout.apply(i, self.widths[i], a);
            layer.forward(w, a, rows, fit(&mut above[0], rows * layer.outputs));
        }
        out.clear();
        out.extend_from_slice(&scratch.z[self.layers.len()]);
    }

    /// From `dout` (rows, last width) to [`StackScratch::dfirst`]; adds to `dw`.
    pub(crate) fn backward(
        &self,
        w: &[f32],
        rows: usize,
        scratch: &mut StackScratch,
        dout: &[f32],
        dw: &mut [f32],
    ) {
        let last = self.layers.len();
        fit(&mut scratch.dz[last], rows * self.widths[last]).copy_from_slice(dout);
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let (below, above) = scratch.dz.split_at_mut(i + 1);
            let dz = fit(&mut below[i], rows * self.widths[i]);
            layer.backward_weights(&scratch.a[i], &above[0], rows, dw);
            layer.backward_input(w, &above[0], rows, dz);
            scratch.dropout.apply(i, self.widths[i], dz);
            let slope = self.slopes[i];
            prelu::backward(slope.of(w), &scratch.z[i], dz, slope.of_mut(dw));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_gradient, values};

    fn check(widths: &[usize], rows: usize, rate: f32) {
        let mut layout = Layout::default();
        let stack = Stack::new(&mut layout, "fc.", widths, 1.0);
        let (w, first) = (values(1, layout.len()), values(2, rows * widths[0]));
        let dout = values(3, rows * widths[widths.len() - 1]);
        let loss = |scratch: &mut StackScratch, w: &[f32], first: &[f32]| {
            let mut out = Vec::new();
            scratch.first(rows, &stack).copy_from_slice(first);
            stack.forward(w, rows, scratch, &mut out);
            out.iter().zip(&dout).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
        };
        let (mut scratch, mut other) = (StackScratch::default(), StackScratch::default());
        for scratch in [&mut scratch, &mut other] {
            scratch.dropout().set(rate, (0..rows as u64).map(|row| row * row + 5));
        }
        let mut dw = vec![0.0; layout.len()];
        loss(&mut scratch, &w, &first);
        stack.backward(&w, rows, &mut scratch, &dout, &mut dw);
        assert_gradient("w", &w, &dw, |w| loss(&mut other, w, &first));
        assert_gradient("first", &first, scratch.dfirst(), |first| loss(&mut other, &w, first));
    }

    #[test]
    fn gradients_match_differences() {
        for rate in [0.0, 0.3, 0.7] {
            check(&[6, 4, 2], 5, rate);
            check(&[3, 1], 1, rate);
            check(&[3], 2, rate);
            check(&[3, 2], 0, rate);
        }
    }
}
