//! What aggregators are given: histories, queries, and the sizes of both.

use std::ops::Range;

/// The histories of a batch: one for each group, or with a search one for each impression, which is
/// then a group of its own. Its indices have been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Histories<'a> {
    /// Where each group's impressions begin, (G + 1); none if each impression is a group.
    pub impressions: Option<&'a [u32]>,
    /// Where each group's behaviors begin, (G + 1).
    pub behaviors: &'a [u32],
    /// The image of each behavior, an index into `embeddings`, (N).
    pub images: &'a [u32],
    /// Image embeddings, (U, D).
    pub embeddings: &'a [f32],
    /// The cosine of the ad and each behavior, by impressions, then behaviors of their groups, (P);
    /// not read by attention without them.
    pub cosines: &'a [f32],
}

impl<'a> Histories<'a> {
    /// Number of groups (G).
    pub(super) fn groups(&self) -> usize {
        self.behaviors.len() - 1
    }

    /// Number of impressions (B).
    pub(super) fn impressions(&self) -> usize {
        self.impressions.map_or(self.groups(), |starts| starts[self.groups()] as usize)
    }

    /// The impressions of `group`.
    pub(super) fn impressions_of(&self, group: usize) -> Range<u32> {
        match self.impressions {
            Some(starts) => starts[group]..starts[group + 1],
            None => group as u32..group as u32 + 1,
        }
    }

    /// The images of the behaviors of `group`.
    pub(super) fn images(&self, group: usize) -> &'a [u32] {
        &self.images[self.behaviors[group] as usize..self.behaviors[group + 1] as usize]
    }
}

/// What attention may look for, per impression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries<'a> {
    /// The ad's image embedding, or the ad's fields again where the arm has no ad image; (B, _).
    pub image: &'a [f32],
    /// The embeddings of the ad's query fields, (B, _).
    pub fields: &'a [f32],
}

/// Gradients of [`Queries`], of the same shapes; the aggregator adds to them.
#[derive(Debug)]
pub(crate) struct QueryGrads<'a> {
    pub image: &'a mut [f32],
    pub fields: &'a mut [f32],
}

/// Sizes an aggregator is built from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    /// Width of an image embedding (D).
    pub dim: usize,
    /// Last columns of an embedding that have no counterpart in a query.
    pub beside: usize,
    /// Width of a row of [`Queries::image`].
    pub image_query: usize,
    /// Width of a row of [`Queries::fields`].
    pub field_query: usize,
    /// Hidden widths of an attention network.
    pub attention: [usize; 2],
    /// How many embeddings a concatenation has room for.
    pub concatenate: usize,
    /// Whether attention sees key * query too.
    pub product: bool,
    /// Whether attention adds cosines to its weights.
    pub cosine: bool,
}
