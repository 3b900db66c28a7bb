//! The sum of a history's image embeddings. It does not look at the ad, so it is one vector per
//! group.

use super::inputs::{Histories, Queries, QueryGrads};
use super::operation::{Aggregate, AggregateScratch, Per};
use crate::linalg;

/// The sum aggregator. It has no weights.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    /// Width of an image embedding (D).
    pub dim: usize,
}

impl Aggregate for Sum {
    fn per(&self) -> Per {
        Per::Group
    }

    fn width(&self) -> usize {
        self.dim
    }

    fn forward(
        &self,
        _: &[f32],
        histories: Histories,
        _: Queries,
        _: &mut AggregateScratch,
        out: &mut [f32],
    ) {
        for (group, out) in out.chunks_exact_mut(self.dim).enumerate() {
            out.fill(0.0);
            for &image in histories.images(group) {
                linalg::add(&histories.embeddings[image as usize * self.dim..][..self.dim], out);
            }
        }
    }

    fn backward(
        &self,
        _: &[f32],
        histories: Histories,
        _: Queries,
        _: &mut AggregateScratch,
        dout: &[f32],
        _: &mut [f32],
        _: QueryGrads,
        dembeddings: &mut [f32],
    ) {
        for (group, dout) in dout.chunks_exact(self.dim).enumerate() {
            for &image in histories.images(group) {
                linalg::add(dout, &mut dembeddings[image as usize * self.dim..][..self.dim]);
            }
        }
    }
}
