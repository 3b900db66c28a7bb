//! What an aggregator does: forward and backward, with room for what lies between.

use std::fmt::Debug;

use super::attention::AttentionScratch;
use super::inputs::{Histories, Queries, QueryGrads};

/// What an aggregate belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Group,
    Impression,
}

/// Activations of a forward pass, for its backward pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct AggregateScratch {
    pub(super) channels: [AttentionScratch; 2],
}

impl AggregateScratch {
    /// Whether forward passes keep nothing for a backward pass.
    pub(crate) fn set_scores_only(&mut self, scores_only: bool) {
        self.channels.iter_mut().for_each(|channel| channel.set_scores_only(scores_only));
    }
}

/// An aggregator with the places of its weights.
pub(crate) trait Aggregate: Debug + Send + Sync {
    /// What an aggregate belongs to.
    fn per(&self) -> Per;

    /// Width of an aggregate.
    fn width(&self) -> usize;

    /// Overwrites `out`, (G or B, width).
    fn forward(
        &self,
        w: &[f32],
        histories: Histories,
        queries: Queries,
        scratch: &mut AggregateScratch,
        out: &mut [f32],
    );

    /// The weights of each channel of attention in the last forward pass, and what of the ad the
    /// channel asks for; an aggregator without attention has none.
    fn attention<'s>(&self, _scratch: &'s AggregateScratch) -> Vec<(&'static str, &'s [f32])> {
        Vec::new()
    }

    /// Adds to `dw`, `dqueries` and `dembeddings` (U, D), given `dout` (G or B, width).
    fn backward(
        &self,
        w: &[f32],
        histories: Histories,
        queries: Queries,
        scratch: &mut AggregateScratch,
        dout: &[f32],
        dw: &mut [f32],
        dqueries: QueryGrads,
        dembeddings: &mut [f32],
    );
}
