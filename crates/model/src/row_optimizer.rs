//! The optimizers of embedding rows, as a setting. They touch only the rows of the batch.

use serde::{Deserialize, Serialize};

use crate::adagrad;
use crate::adam::AdamStep;

/// How the rows of a batch are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowOptimizer {
    /// Lazy Adam, see [`crate::adam::Adam::update`]: two numbers of state per weight.
    #[default]
    Adam,
    /// Adagrad: one number of state per weight.
    Adagrad,
}

impl RowOptimizer {
    /// Numbers of state per weight; zeros at first.
    pub fn states(self) -> usize {
        match self {
            RowOptimizer::Adam => 2,
            RowOptimizer::Adagrad => 1,
        }
    }

    /// Updates a row `w` (D) and its `state` (states, D) by the gradient `dw` (D), in the step of
    /// `adam` with the learning rate `lr`.
    pub fn update(self, adam: &AdamStep, lr: f32, w: &mut [f32], state: &mut [f32], dw: &[f32]) {
        match self {
            RowOptimizer::Adam => {
                let (m, v) = state.split_at_mut(w.len());
                adam.update(w, m, v, dw);
            }
            RowOptimizer::Adagrad => adagrad::update(lr, w, state, dw),
        }
    }
}
