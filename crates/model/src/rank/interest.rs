//! Attention over the ids of behaviors (Deep Interest Network, Section 4.3): what of a history
//! matters for this ad.
//!
//! A behavior is the embeddings of its fields side by side, the query those of the ad's fields of
//! the same names. Attention sees both and their product; its weights are not normalized. The
//! embedding of a behavior's age may stand beside, which has no counterpart in the query.

use super::batch::RankBatch;
use super::config::RankConfig;
use super::inputs::{gather, gather_backward};
use crate::aggregate::Widths;
use crate::aggregate::attention::{Attention, AttentionScratch};
use crate::linalg::{fit, zeros};
use crate::params::Layout;
use crate::pool::{self, Columns};

/// The weights, and the columns of the output.
#[derive(Clone, Debug)]
pub(super) struct Interest {
    attention: Attention,
    /// Fields of a behavior, its age among them.
    fields: usize,
    dim: usize,
    first: usize,
}

/// Activations of a forward pass, for its backward pass, and room for gradients.
#[derive(Clone, Debug, Default)]
pub(super) struct InterestScratch {
    /// Every behavior is its own key.
    numbers: Vec<u32>,
    /// (N, fields * D), and their gradient.
    keys: Vec<f32>,
    dkeys: Vec<f32>,
    /// (B, query fields * D), and their gradient.
    query: Vec<f32>,
    dquery: Vec<f32>,
    pub(super) attention: AttentionScratch,
}

#[cfg(test)]
impl InterestScratch {
    /// The number of every behavior, and the keys they are numbers of.
    pub(crate) fn weighed(&self) -> (&Vec<u32>, &Vec<f32>) {
        (&self.numbers, &self.keys)
    }
}

impl Interest {
    /// Appends the weights of `attention.ids` to `layout`; the output begins at column `first` of
    /// a.
    pub(crate) fn new(config: &RankConfig, layout: &mut Layout, first: usize) -> Interest {
        let (dim, fields) = (config.network.embedding_dim, config.each_behavior_fields());
        let query = config.behavior_fields.len() * dim;
        let widths = Widths {
            dim: fields * dim,
            beside: fields * dim - query,
            image_query: 0,
            field_query: 0,
            attention: config.network.attention,
            concatenate: 1,
            product: true,
            cosine: config.network.attends_by_cosine() && !config.contents.is_empty(),
        };
        let attention = Attention::new(layout, "attention.ids", widths, query);
        Interest { attention, fields, dim, first }
    }

    /// Width of the output.
    pub(crate) fn width(config: &RankConfig) -> usize {
        config.each_behavior_fields() * config.network.embedding_dim
    }

    /// Fills the output's columns of `a` (B, `width`), whose columns `queries` are filled already;
    /// `cosines` are those of the first content.
    pub(crate) fn forward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        s: &mut InterestScratch,
        queries: &[Columns],
        cosines: &[f32],
        a: &mut [f32],
        width: usize,
    ) {
        let behaviors = batch.behaviors[batch.groups()];
        s.numbers.clear();
        s.numbers.extend(0..behaviors);
        fit(&mut s.keys, behaviors as usize * self.fields * self.dim);
        for (field, &lists) in batch.behavior_fields.iter().enumerate() {
            pool::forward(lists, batch.rows, self.key_field(field), &mut s.keys);
        }
        gather(batch.len(), queries, a, &mut s.query);
        let columns = self.columns(width);
        (0..batch.len()).for_each(|i| columns.of_mut(a, i).fill(0.0));
        let histories = batch.histories(numbers(batch, &s.numbers), &s.keys, cosines);
        self.attention.forward(w, histories, &s.query, &mut s.attention, columns, a);
    }

    /// What every pair of the last forward pass weighed.
    pub(crate) fn attention(s: &InterestScratch) -> &[f32] {
        s.attention.weights()
    }

    /// Adds to `dw`, `drows` and the columns `queries` of `da` (B, `width`).
    pub(crate) fn backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        s: &mut InterestScratch,
        queries: &[Columns],
        cosines: &[f32],
        da: &mut [f32],
        width: usize,
        dw: &mut [f32],
        drows: &mut [f32],
    ) {
        zeros(&mut s.dkeys, s.keys.len());
        zeros(&mut s.dquery, s.query.len());
        self.attention.backward(
            w,
            batch.histories(numbers(batch, &s.numbers), &s.keys, cosines),
            &s.query,
            &mut s.attention,
            self.columns(width),
            da,
            dw,
            &mut s.dquery,
            &mut s.dkeys,
        );
        gather_backward(batch.len(), queries, &s.dquery, da);
        for (field, &lists) in batch.behavior_fields.iter().enumerate() {
            pool::backward(lists, &s.dkeys, self.key_field(field), drows);
        }
    }

    fn columns(&self, width: usize) -> Columns {
        Columns { width, first: self.first, dim: self.fields * self.dim }
    }

    fn key_field(&self, field: usize) -> Columns {
        Columns { width: self.fields * self.dim, first: field * self.dim, dim: self.dim }
    }
}

/// The key of each behavior that attention sees: each is its own.
fn numbers<'a>(batch: &RankBatch<'a>, all: &'a [u32]) -> &'a [u32] {
    batch.kept.map_or(all, |kept| kept.rows)
}
