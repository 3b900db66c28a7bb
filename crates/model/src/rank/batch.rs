//! What a rank network takes and what it gives back: one batch, and the gradients of its floats.

use std::ops::Range;

use crate::aggregate::Histories;
use crate::pool::Lists;

/// The image index of an impression or behavior that has no image.
pub const NO_IMAGE: u32 = u32::MAX;

/// One batch: groups, their impressions and behaviors, and everything these refer to by index.
#[derive(Clone, Copy, Debug)]
pub struct RankBatch<'a> {
    /// Where each group's impressions begin, (G + 1).
    pub impressions: &'a [u32],
    /// Where each group's behaviors begin, (G + 1).
    pub behaviors: &'a [u32],
    /// User fields, and behavior fields pooled over the group's behaviors; (G) lists each.
    pub group_fields: &'a [Lists<'a>],
    /// Ad and context fields; (B) lists each.
    pub impression_fields: &'a [Lists<'a>],
    /// Fields of single behaviors, which the base network DIN attends to; (N) lists each.
    pub behavior_fields: &'a [Lists<'a>],
    /// Unique embedding rows, (R, D).
    pub rows: &'a [f32],
    /// Images, and whatever else has towers; one for each of the network's contents.
    pub contents: &'a [ContentBatch<'a>],
    /// The weight of each behavior by its age, more than 0, (N); empty if the network's similarity
    /// does not see ages.
    pub recency: &'a [f32],
    /// With a search: the behaviors that are kept for each impression, ascending; (B) lists of
    /// indices into the behaviors (N).
    pub kept: Option<Lists<'a>>,
}

/// The embeddings of one content of a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContentBatch<'a> {
    /// Unique image embeddings of the ad tower, (Ua, D).
    pub ad_embeddings: &'a [f32],
    /// The image of each impression, an index into `ad_embeddings` or [`NO_IMAGE`]; (B).
    pub ad_images: &'a [u32],
    /// Unique image embeddings of the behavior tower, (Ub, D).
    pub behavior_embeddings: &'a [f32],
    /// The image of each behavior, an index into `behavior_embeddings` or [`NO_IMAGE`]; (N).
    pub behavior_images: &'a [u32],
    /// What likeness is judged by.
    pub sketches: Sketches<'a>,
}

/// Vectors of images that are not trained; cosines of them say how alike images are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sketches<'a> {
    /// Unique vectors, (Us, S).
    pub vectors: &'a [f32],
    /// Width of a sketch (S).
    pub dim: usize,
    /// That of each impression's ad, an index into `vectors` or [`NO_IMAGE`]; (B).
    pub ads: &'a [u32],
    /// That of each behavior, in the same way; (N).
    pub behaviors: &'a [u32],
}

impl<'a> RankBatch<'a> {
    /// The histories that attention sees, with the `images` of all behaviors, or of those kept for
    /// each impression.
    /// `cosines` are those of every impression and behavior of its group, or none; with a search
    /// there are none.
    pub(crate) fn histories(
        &self,
        images: &'a [u32],
        embeddings: &'a [f32],
        cosines: &'a [f32],
    ) -> Histories<'a> {
        match self.kept {
            None => Histories {
                impressions: Some(self.impressions),
                behaviors: self.behaviors,
                images,
                embeddings,
                cosines,
            },
            Some(kept) => Histories {
                impressions: None,
                behaviors: kept.offsets,
                images,
                embeddings,
                cosines: &[],
            },
        }
    }

    /// Number of groups (G).
    pub fn groups(&self) -> usize {
        self.impressions.len() - 1
    }

    /// Number of impressions (B).
    pub fn len(&self) -> usize {
        self.impressions[self.groups()] as usize
    }

    /// The impressions of `group`.
    pub(crate) fn impressions_of(&self, group: usize) -> Range<usize> {
        self.impressions[group] as usize..self.impressions[group + 1] as usize
    }

    /// Whether there is no impression.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Gradients of what a batch refers to by index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputGrads {
    /// Of [`RankBatch::rows`], (R, D).
    pub drows: Vec<f32>,
    /// Gradients of [`RankBatch::contents`], in their order.
    pub contents: Vec<ContentGrads>,
}

/// Gradients of a [`ContentBatch`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContentGrads {
    /// Of [`ContentBatch::ad_embeddings`], (Ua, D).
    pub dad_embeddings: Vec<f32>,
    /// Of [`ContentBatch::behavior_embeddings`], (Ub, D).
    pub dbehavior_embeddings: Vec<f32>,
}
