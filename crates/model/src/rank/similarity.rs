//! How alike an ad's image is to those of a history, by cosines of vectors that are not trained.
//!
//! ```text
//! cosine      mean, largest, mean of the five largest, newest             4 numbers
//! histogram   these, then ln(1 + cosines in bucket b) of 16 buckets        20 numbers
//! ```
//! Buckets are of equal width over [-1, 1]. Behaviors without an image do not count; without any
//! pair, as for an ad without an image, all numbers are 0. A vector of zeros has the cosine 0 with
//! everything. Nothing here has a gradient.

use super::batch::{NO_IMAGE, RankBatch, Sketches};
use crate::linalg;
use crate::pool::Columns;
use crate::settings::Similarity;

/// Buckets of a histogram.
const BUCKETS: usize = 16;

/// Numbers that sum up a history.
const SUMMARY: usize = 4;

/// How many of the largest cosines have a mean of their own.
const TOP: usize = 5;

impl Similarity {
    /// How many numbers it is.
    pub fn width(self) -> usize {
        match self {
            Similarity::None => 0,
            Similarity::Cosine => SUMMARY,
            Similarity::Histogram => SUMMARY + BUCKETS,
        }
    }
}

/// Buffers for one batch, reused from step to step.
#[derive(Clone, Debug, Default)]
pub(super) struct SimilarityScratch {
    /// 1 / length of each vector; 0 for zeros.
    inverse: Vec<f32>,
    cosines: Vec<f32>,
}

/// Overwrites `columns` of `a` (B, _) with the numbers of each impression.
pub(super) fn forward(
    similarity: Similarity,
    batch: &RankBatch,
    sketches: Sketches,
    scratch: &mut SimilarityScratch,
    columns: Columns,
    a: &mut [f32],
) {
    let SimilarityScratch { inverse, cosines } = scratch;
    let vector = |image: u32| &sketches.vectors[image as usize * sketches.dim..][..sketches.dim];
    inverse.clear();
    inverse.extend(sketches.vectors.chunks_exact(sketches.dim.max(1)).map(|vector| {
        let length = linalg::dot(vector, vector).sqrt();
        if length > 0.0 { 1.0 / length } else { 0.0 }
    }));
    for group in 0..batch.groups() {
        let behaviors = batch.behaviors[group] as usize..batch.behaviors[group + 1] as usize;
        let history = &sketches.behaviors[behaviors];
        for impression in batch.impressions_of(group) {
            let ad = sketches.ads[impression];
            cosines.clear();
            if ad != NO_IMAGE {
                let images = history.iter().filter(|&&image| image != NO_IMAGE);
                cosines.extend(images.map(|&image| {
                    let lengths = inverse[ad as usize] * inverse[image as usize];
                    (linalg::dot(vector(ad), vector(image)) * lengths).clamp(-1.0, 1.0)
                }));
            }
            numbers(similarity, cosines, columns.of_mut(a, impression));
        }
    }
}

/// The numbers of one impression, given its `cosines`, the newest first; their order changes.
fn numbers(similarity: Similarity, cosines: &mut [f32], out: &mut [f32]) {
    out.fill(0.0);
    if cosines.is_empty() {
        return;
    }
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    out[0] = mean(cosines);
    out[3] = cosines[0];
    if similarity == Similarity::Histogram {
        let buckets = &mut out[SUMMARY..];
        for cosine in &*cosines {
            let bucket = ((cosine + 1.0) * (BUCKETS as f32 / 2.0)) as usize;
            buckets[bucket.min(BUCKETS - 1)] += 1.0;
        }
        buckets.iter_mut().for_each(|count| *count = count.ln_1p());
    }
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    let top = TOP.min(cosines.len());
    if top < cosines.len() {
        cosines.select_nth_unstable_by(top - 1, descending);
    }
    cosines[..top].sort_unstable_by(descending);
    out[1] = cosines[0];
    out[2] = mean(&cosines[..top]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::assert_close;

    /// The cosines of the vectors with the first of them; behind them a vector of zeros.
    const COSINES: [f32; 4] = [1.0, 0.6, -0.3, -1.0];

    fn vectors() -> Vec<f32> {
        let vectors = COSINES.into_iter().flat_map(|c| [3.0 * c, 3.0 * (1.0 - c * c).sqrt()]);
        vectors.chain([0.0, 0.0]).collect()
    }

    fn run(similarity: Similarity, ads: &[u32], histories: &[&[u32]]) -> Vec<f32> {
        let vectors = vectors();
        let (mut behaviors, mut all) = (vec![0], vec![]);
        for history in histories {
            all.extend_from_slice(history);
            behaviors.push(all.len() as u32);
        }
        let impressions: Vec<u32> = (0..=ads.len() as u32).collect();
        let batch = RankBatch {
            impressions: &impressions,
            behaviors: &behaviors,
            group_fields: &[],
            impression_fields: &[],
            behavior_fields: &[],
            rows: &[],
            contents: &[],
        };
        let sketches = Sketches { vectors: &vectors, dim: 2, ads, behaviors: &all };
        let width = similarity.width();
        let mut a = vec![7.0; ads.len() * width];
        let columns = Columns { width, first: 0, dim: width };
        forward(similarity, &batch, sketches, &mut SimilarityScratch::default(), columns, &mut a);
        a
    }

    #[test]
    fn cosines_are_summed_up() {
        const NONE: u32 = NO_IMAGE;
        let cases: [(u32, &[u32], [f32; 4]); 7] = [
            (0, &[1, 0, NONE, 3], [0.2, 1.0, 0.2, 0.6]),
            (0, &[NONE, 3], [-1.0, -1.0, -1.0, -1.0]),
            (0, &[2, 0, 0, 0, 1, 3, 3], [1.3 / 7.0, 1.0, 0.66, -0.3]),
            (0, &[4], [0.0; 4]),
            (4, &[0, 1], [0.0; 4]),
            (NONE, &[0, 1], [0.0; 4]),
            (0, &[], [0.0; 4]),
        ];
        for (ad, history, expected) in cases {
            assert_close(&run(Similarity::Cosine, &[ad], &[history]), &expected, 1e-6);
        }
    }

    #[test]
    fn buckets_are_counted() {
        let many = vec![0; 1000];
        let out = run(Similarity::Histogram, &[0, 0, 1], &[&[0, 1, 1, 2, 3], &many, &[]]);
        let mut expected = vec![0.0; 60];
        expected[..4].copy_from_slice(&[0.18, 1.0, 0.18, 1.0]);
        for (bucket, count) in [(15, 1.0), (12, 2.0), (5, 1.0), (0, 1.0)] {
            expected[4 + bucket] = f32::ln_1p(count);
        }
        expected[20..24].copy_from_slice(&[1.0; 4]);
        expected[39] = f32::ln_1p(1000.0);
        assert_close(&out, &expected, 1e-5);
    }
}
