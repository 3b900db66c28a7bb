//! Image embeddings of a batch, with the learned embedding of "no image" as one more of them.

use super::batch::NO_IMAGE;
use crate::linalg;
use crate::pool::Lists;

/// Image embeddings with the no-image vector behind the last one, and indices that point at it.
#[derive(Clone, Debug, Default)]
pub(super) struct ImageScratch {
    /// (U + 1, D).
    pub embeddings: Vec<f32>,
    /// Their gradients, (U + 1, D).
    pub dembeddings: Vec<f32>,
    /// Which of them each impression or behavior has; with a search, each kept behavior of each
    /// impression.
    pub images: Vec<u32>,
}

impl ImageScratch {
    /// Takes `embeddings` (U, D), and `images`, whose [`NO_IMAGE`] becomes U.
    pub(crate) fn fill(&mut self, embeddings: &[f32], no_image: &[f32], images: &[u32]) {
        self.embeddings.clear();
        self.embeddings.extend_from_slice(embeddings);
        self.embeddings.extend_from_slice(no_image);
        let count = (embeddings.len() / no_image.len()) as u32;
        self.images.clear();
        self.images.extend(images.iter().map(|&image| {
            assert!(image == NO_IMAGE || image < count, "image {image} of {count}");
            image.min(count)
        }));
    }

    /// Puts the images of the behaviors that are kept for each impression in the place of those of
    /// all behaviors.
    pub(crate) fn keep(&mut self, kept: Lists<'_>) {
        self.images = kept.rows.iter().map(|&behavior| self.images[behavior as usize]).collect();
    }

    /// Adds the last gradient to `dno_image` (D) and overwrites `dembeddings` with the others, (U,
    /// D).
    pub(crate) fn give(&self, dno_image: &mut [f32], dembeddings: &mut Vec<f32>) {
        let (unique, last) = self.dembeddings.split_at(self.dembeddings.len() - dno_image.len());
        dembeddings.clear();
        dembeddings.extend_from_slice(unique);
        linalg::add(last, dno_image);
    }
}
