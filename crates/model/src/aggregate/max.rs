//! The elementwise maximum of a history's image embeddings. It does not look at the ad, so it is
//! one vector per group.
//!
//! Every column has a winner: the first behavior, in the order of the history, that attains the
//! maximum. All of the column's gradient goes to it. A NaN beats every number, so that it is seen
//! instead of stepped over; of several NaNs the first wins.

use super::inputs::{Histories, Queries, QueryGrads};
use super::operation::{Aggregate, AggregateScratch, Per};

/// The max aggregator. It has no weights.
#[derive(Clone, Debug)]
pub(crate) struct Max {
    /// Width of an image embedding (D).
    pub dim: usize,
}

impl Aggregate for Max {
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
            for (column, out) in out.iter_mut().enumerate() {
                let winner = self.winner(histories, group, column);
                *out = winner.map_or(0.0, |place| histories.embeddings[place]);
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
            for (column, dout) in dout.iter().enumerate() {
                if let Some(place) = self.winner(histories, group, column) {
                    dembeddings[place] += dout;
                }
            }
        }
    }
}

impl Max {
    /// Where in the embeddings the winner of `column` stands; nowhere if the history is empty.
    fn winner(&self, histories: Histories, group: usize, column: usize) -> Option<usize> {
        let embeddings = histories.embeddings;
        let places = histories.images(group).iter().map(|&i| i as usize * self.dim + column);
        places.reduce(|best, place| {
            let (most, x) = (embeddings[best], embeddings[place]);
            if x > most || (x.is_nan() && !most.is_nan()) { place } else { best }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::tests::alone;

    const NAN: f32 = f32::NAN;
    const INFINITY: f32 = f32::INFINITY;

    /// Asserts what comes out of a history whose embeddings, one column wide, are `history`, and
    /// that the gradient goes to behavior `winner`.
    #[track_caller]
    fn check(history: &[f32], expected: f32, winner: usize) {
        let images: Vec<u32> = (0..history.len() as u32).collect();
        let behaviors = [0, images.len() as u32];
        let histories = Histories {
            impressions: Some(&[0, 1]),
            behaviors: &behaviors,
            images: &images,
            embeddings: history,
            cosines: &[],
        };
        let (mut out, mut d) = ([7.0_f32], vec![0.5; history.len()]);
        alone(&Max { dim: 1 }, histories, &mut out, &[2.0], &mut d);
        assert_eq!(out[0].to_bits(), expected.to_bits(), "{history:?} gives {}", out[0]);
        let mut expected = vec![0.5; history.len()];
        expected[winner] = 2.5;
        assert_eq!(d, expected, "{history:?}");
    }

    #[test]
    fn a_maximum_below_zero_is_no_zero() {
        check(&[-3.0, -1.0, -2.0], -1.0, 1);
        check(&[-INFINITY], -INFINITY, 0);
        check(&[f32::MIN, -INFINITY], f32::MIN, 0);
        check(&[1.0, INFINITY], INFINITY, 1);
    }

    #[test]
    fn of_equals_the_earliest_in_the_history_gets_the_gradient() {
        check(&[1.0, 2.0, 2.0, 2.0], 2.0, 1);
        check(&[-INFINITY, -INFINITY], -INFINITY, 0);
        check(&[-0.0, 0.0], -0.0, 0);
        check(&[0.0, -0.0], 0.0, 0);
    }

    #[test]
    fn the_first_nan_wins() {
        for history in [&[NAN][..], &[NAN, 1.0, INFINITY], &[NAN, -NAN]] {
            check(history, NAN, 0);
        }
        check(&[1.0, NAN, 2.0], NAN, 1);
        check(&[INFINITY, 2.0, NAN, -NAN], NAN, 2);
    }
}
