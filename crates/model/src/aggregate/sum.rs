//! The sum of a history's image embeddings. It does not look at the ad, so it is one vector per group.

use super::Histories;
use crate::linalg;

/// The sum aggregator. It has no weights.
#[derive(Clone, Debug)]
pub(crate) struct Sum {
    /// Width of an image embedding (D).
    pub dim: usize,
}

impl Sum {
    /// Overwrites `out` (G, D).
    pub fn forward(&self, histories: Histories, out: &mut [f32]) {
        for (group, out) in out.chunks_exact_mut(self.dim).enumerate() {
            out.fill(0.0);
            for &image in histories.images(group) {
                linalg::add(&histories.embeddings[image as usize * self.dim..][..self.dim], out);
            }
        }
    }

    /// Adds to `dembeddings` (U, D), given `dout` (G, D).
    pub fn backward(&self, histories: Histories, dout: &[f32], dembeddings: &mut [f32]) {
        for (group, dout) in dout.chunks_exact(self.dim).enumerate() {
            for &image in histories.images(group) {
                linalg::add(dout, &mut dembeddings[image as usize * self.dim..][..self.dim]);
            }
        }
    }
}
