//! The first image embeddings of a history end to end, as many as a setting says: the newest ones,
//! since histories are stored newest first. A shorter history is padded with zeros, and of a longer
//! one the rest is not seen. It does not look at the ad, so it is one vector per group.

use super::inputs::{Histories, Queries, QueryGrads};
use super::operation::{Aggregate, AggregateScratch, Per};
use crate::linalg;

/// The concatenate aggregator. It has no weights.
#[derive(Clone, Debug)]
pub(crate) struct Concatenate {
    /// Width of an image embedding (D).
    pub dim: usize,
    /// How many embeddings there is room for (L).
    pub length: usize,
}

impl Aggregate for Concatenate {
    fn per(&self) -> Per {
        Per::Group
    }

    fn width(&self) -> usize {
        self.length * self.dim
    }

    fn forward(
        &self,
        _: &[f32],
        histories: Histories,
        _: Queries,
        _: &mut AggregateScratch,
        out: &mut [f32],
    ) {
        out.fill(0.0);
        for (group, out) in out.chunks_exact_mut(self.width()).enumerate() {
            for (&image, out) in histories.images(group).iter().zip(out.chunks_exact_mut(self.dim))
            {
                let embedding = &histories.embeddings[image as usize * self.dim..][..self.dim];
                out.copy_from_slice(embedding);
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
        for (group, dout) in dout.chunks_exact(self.width()).enumerate() {
            for (&image, dout) in histories.images(group).iter().zip(dout.chunks_exact(self.dim)) {
                linalg::add(dout, &mut dembeddings[image as usize * self.dim..][..self.dim]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::tests::alone;

    /// Asserts what comes out of a history of `images`, whose embeddings are 10 11, 20 21 and 30 31
    /// with room for three, and the embeddings' gradients if that of what comes out is 1, 2, 3
    /// and so forth.
    #[track_caller]
    fn check(images: &[u32], expected: [f32; 6], gradients: [f32; 6]) {
        let behaviors = [0, images.len() as u32];
        let embeddings = &[10.0, 11.0, 20.0, 21.0, 30.0, 31.0];
        let histories = Histories {
            impressions: Some(&[0, 1]),
            behaviors: &behaviors,
            images,
            embeddings,
            cosines: &[],
        };
        let (mut out, mut d) = ([7.0; 6], [0.0; 6]);
        let concatenate = Concatenate { dim: 2, length: 3 };
        alone(&concatenate, histories, &mut out, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut d);
        assert_eq!(out, expected, "{images:?}");
        assert_eq!(d, gradients, "{images:?}");
    }

    #[test]
    fn a_shorter_history_is_padded_with_zeros() {
        check(&[], [0.0; 6], [0.0; 6]);
        check(&[1], [20.0, 21.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
        check(&[2, 0], [30.0, 31.0, 10.0, 11.0, 0.0, 0.0], [3.0, 4.0, 0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn of_a_longer_history_the_first_are_seen() {
        let newest = [30.0, 31.0, 20.0, 21.0, 10.0, 11.0];
        check(&[2, 1, 0], newest, [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
        check(&[2, 1, 0, 0, 1], newest, [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
    }

    #[test]
    fn a_repeated_image_gets_the_gradient_of_every_place() {
        let same = [20.0, 21.0, 20.0, 21.0, 20.0, 21.0];
        check(&[1, 1, 1, 1], same, [0.0, 0.0, 1.0 + 3.0 + 5.0, 2.0 + 4.0 + 6.0, 0.0, 0.0]);
    }
}
