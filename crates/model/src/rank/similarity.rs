//! How alike an ad's image is to those of a history, by cosines of vectors that are not trained.
//!
//! ```text
//! cosine      mean, largest, mean of the five largest, newest             4 numbers
//! histogram   these, then ln(1 + cosines in bucket b) of 16 buckets        20 numbers
//! statistics  largest, means of the three and the five largest, mean,      9 numbers, each
//!             newest, mean by recency, deviation, least, ln(1 + count)     (x - shift) * scale
//! ```
//! Buckets are of equal width over [-1, 1]. Behaviors without an image do not count; without any
//! pair, as for an ad without an image, all numbers are 0, but the standardized count. A vector of
//! zeros has the cosine 0 with everything. Shifts and scales lie among the weights, where they stay
//! as they were set: nothing here has a gradient.

use super::batch::{NO_IMAGE, RankBatch, Sketches};
use crate::init::Init;
use crate::linalg::{self, zeros};
use crate::params::{Layout, View};
use crate::pool::Columns;
use crate::settings::Similarity;
use pulp::Simd;

/// Buckets of a histogram.
const BUCKETS: usize = 16;

/// Numbers that sum up a history.
const SUMMARY: usize = 4;

/// How many of the largest cosines have a mean of their own.
const TOP: usize = 5;

/// Numbers of [`Similarity::Statistics`]; the last one says whether there is any pair.
const STATISTICS: usize = 9;
const COUNT: usize = STATISTICS - 1;

/// A standardized number is at most this far from 0.
const CLIP: f32 = 5.0;

impl Similarity {
    /// How many numbers it is.
    pub fn width(self) -> usize {
        match self {
            Similarity::None => 0,
            Similarity::Cosine => SUMMARY,
            Similarity::Histogram => SUMMARY + BUCKETS,
            Similarity::Statistics => STATISTICS,
        }
    }
}

/// Where the shift and the scale of each number of [`Similarity::Statistics`] are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scales {
    shift: View,
    scale: View,
}

impl Scales {
    /// Appends `similarity.shift` and `similarity.scale` to `layout`, which change nothing yet.
    pub(super) fn new(layout: &mut Layout, prefix: &str) -> Scales {
        let mut push = |name: &str, first| {
            let name = format!("{prefix}similarity.{name}");
            layout.push(&name, &[STATISTICS], Init::Constant(first))
        };
        Scales { shift: push("shift", 0.0), scale: push("scale", 1.0) }
    }

    /// Sets them so that the numbers that `moments` are of have mean 0 and deviation 1. A number
    /// that is always the same keeps its scale.
    pub(super) fn set(self, moments: &Moments, w: &mut [f32]) {
        for (at, &[count, sum, squares]) in moments.0.iter().enumerate() {
            let mean = sum / count.max(1.0);
            let variance = squares / count.max(1.0) - mean * mean;
            self.shift.of_mut(w)[at] = mean as f32;
            self.scale.of_mut(w)[at] =
                if variance > 1e-12 { variance.sqrt().recip() as f32 } else { 1.0 };
        }
    }

    /// Standardizes `columns` of `a` (B, _) in place.
    pub(super) fn standardize(self, w: &[f32], columns: Columns, a: &mut [f32]) {
        let (shift, scale) = (self.shift.of(w), self.scale.of(w));
        for row in 0..a.len() / columns.width {
            let numbers = columns.of_mut(a, row);
            let first = if numbers[COUNT] > 0.0 { 0 } else { COUNT };
            let each = numbers.iter_mut().zip(shift).zip(scale).skip(first);
            each.for_each(|((x, shift), scale)| *x = ((*x - shift) * scale).clamp(-CLIP, CLIP));
        }
    }
}

/// Of each number of [`Similarity::Statistics`], over impressions that have it: how many there are,
/// their sum and the sum of their squares.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments(pub [[f64; 3]; STATISTICS]);

impl Moments {
    /// Adds the impressions of `batch`, in their order.
    pub(super) fn add(
        &mut self,
        batch: &RankBatch,
        sketches: Sketches,
        scratch: &mut SimilarityScratch,
    ) {
        let columns = Columns { width: STATISTICS, first: 0, dim: STATISTICS };
        let mut raw = std::mem::take(&mut scratch.raw);
        zeros(&mut raw, batch.len() * STATISTICS);
        forward(Similarity::Statistics, batch, sketches, scratch, columns, &mut raw);
        for numbers in raw.chunks_exact(STATISTICS) {
            let first = if numbers[COUNT] > 0.0 { 0 } else { COUNT };
            for (&number, moments) in numbers.iter().zip(&mut self.0).skip(first) {
                let ([count, sum, squares], x) = (moments, f64::from(number));
                (*count, *sum, *squares) = (*count + 1.0, *sum + x, *squares + x * x);
            }
        }
        scratch.raw = raw;
    }
}

/// Buffers for one batch, reused from step to step.
#[derive(Clone, Debug, Default)]
pub(super) struct SimilarityScratch {
    /// 1 / length of each vector; 0 for zeros.
    inverse: Vec<f32>,
    cosines: Vec<f32>,
    /// The recency of the behavior of each of `cosines`.
    recency: Vec<f32>,
    /// Numbers before they are standardized, (B, _).
    raw: Vec<f32>,
    /// The images of the behaviors of one impression, where it has a list of its own.
    images: Vec<u32>,
    /// ln(1 + n) of every n so far.
    logs: Vec<f32>,
}

/// Overwrites `columns` of `a` (B, _) with the numbers of each impression, not standardized.
pub(super) fn forward(
    similarity: Similarity,
    batch: &RankBatch,
    sketches: Sketches,
    scratch: &mut SimilarityScratch,
    columns: Columns,
    a: &mut [f32],
) {
    let SimilarityScratch { inverse, cosines, recency, images, logs, .. } = scratch;
    inverse_lengths(sketches, inverse);
    for group in 0..batch.groups() {
        let behaviors = batch.behaviors[group] as usize..batch.behaviors[group + 1] as usize;
        for impression in batch.impressions_of(group) {
            let ad = sketches.ads[impression];
            cosines.clear();
            let seen = match batch.kept {
                None => &sketches.behaviors[behaviors.clone()],
                Some(kept) => {
                    let list = kept.list(impression).iter();
                    images.clear();
                    images.extend(list.map(|&behavior| sketches.behaviors[behavior as usize]));
                    &images[..]
                }
            };
            compare(sketches, inverse, ad, seen, None, cosines);
            let out = columns.of_mut(a, impression);
            match similarity {
                Similarity::Statistics => {
                    assert!(batch.kept.is_none(), "a search does not see ages");
                    let recent = &batch.recency[behaviors.clone()];
                    let pairs = seen.iter().zip(recent).filter(|(image, _)| **image != NO_IMAGE);
                    recency.clear();
                    recency.extend(pairs.map(|(_, recency)| recency));
                    statistics(cosines, recency, out);
                }
                _ => numbers(similarity, cosines, logs, out),
            }
        }
    }
}

/// Appends the cosine of the images `ad` and each of `behaviors`, or `absent` where one of both is
/// none.
#[pulp::with_simd(compare = linalg::arch())]
#[inline(always)]
fn compare_in<'a, S: Simd>(
    _: S,
    sketches: Sketches<'a>,
    inverse: &'a [f32],
    ad: u32,
    behaviors: &'a [u32],
    absent: Option<f32>,
    cosines: &'a mut Vec<f32>,
) {
    for &behavior in behaviors {
        if ad == NO_IMAGE || behavior == NO_IMAGE {
            cosines.extend(absent);
            continue;
        }
        let [a, b] = [ad, behavior].map(|image| image as usize);
        let dim = sketches.dim;
        let dot =
            linalg::dot(&sketches.vectors[a * dim..][..dim], &sketches.vectors[b * dim..][..dim]);
        cosines.push((dot * (inverse[a] * inverse[b])).clamp(-1.0, 1.0));
    }
}

/// Overwrites `cosines` with that of every impression and behavior of its group, 0 where one has no
/// image; by impressions, then behaviors.
pub(super) fn of_pairs(
    batch: &RankBatch,
    sketches: Sketches,
    scratch: &mut SimilarityScratch,
    cosines: &mut Vec<f32>,
) {
    let inverse = &mut scratch.inverse;
    inverse_lengths(sketches, inverse);
    cosines.clear();
    for group in 0..batch.groups() {
        let behaviors = batch.behaviors[group] as usize..batch.behaviors[group + 1] as usize;
        for impression in batch.impressions_of(group) {
            let (ad, history) = (sketches.ads[impression], &sketches.behaviors[behaviors.clone()]);
            compare(sketches, inverse, ad, history, Some(0.0), cosines);
        }
    }
}

/// 1 / length of each vector; 0 for zeros.
fn inverse_lengths(sketches: Sketches, inverse: &mut Vec<f32>) {
    inverse.clear();
    inverse.extend(sketches.vectors.chunks_exact(sketches.dim.max(1)).map(|vector| {
        let length = linalg::dot(vector, vector).sqrt();
        if length > 0.0 { 1.0 / length } else { 0.0 }
    }));
}

fn mean(values: &[f32]) -> f32 {
    values.iter().sum::<f32>() / values.len() as f32
}

/// The statistics of one impression, given its `cosines`, the newest first, and the `recency` of
/// each; the order of `cosines` changes.
fn statistics(cosines: &mut [f32], recency: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    if cosines.is_empty() {
        return;
    }
    let (all, newest) = (mean(cosines), cosines[0]);
    let recent: f32 = cosines.iter().zip(recency).map(|(cosine, weight)| cosine * weight).sum();
    let recent = recent / recency.iter().sum::<f32>();
    let squares: f32 = cosines.iter().map(|cosine| (cosine - all) * (cosine - all)).sum();
    let deviation = (squares / cosines.len() as f32).sqrt();
    cosines.sort_unstable_by(|a, b| b.total_cmp(a));
    let top = |most: usize| mean(&cosines[..most.min(cosines.len())]);
    let (count, least) = ((cosines.len() as f32).ln_1p(), cosines[cosines.len() - 1]);
    out.copy_from_slice(&[
        cosines[0],
        top(3),
        top(TOP),
        all,
        newest,
        recent,
        deviation,
        least,
        count,
    ]);
}

/// The numbers of one impression, given its `cosines`, the newest first; `logs` has ln(1 + n) of
/// the first numbers and may grow.
fn numbers(similarity: Similarity, cosines: &[f32], logs: &mut Vec<f32>, out: &mut [f32]) {
    out.fill(0.0);
    if cosines.is_empty() {
        return;
    }
    out[0] = mean(cosines);
    out[3] = cosines[0];
    if similarity == Similarity::Histogram {
        logs.extend((logs.len()..=cosines.len()).map(|count| (count as f32).ln_1p()));
        let mut counts = [0u32; BUCKETS];
        for cosine in cosines {
            let bucket = ((cosine + 1.0) * (BUCKETS as f32 / 2.0)) as usize;
            counts[bucket.min(BUCKETS - 1)] += 1;
        }
        let buckets = out[SUMMARY..].iter_mut();
        buckets.zip(counts).for_each(|(bucket, count)| *bucket = logs[count as usize]);
    }
    let (top, count) = largest(cosines);
    out[1] = top[0];
    out[2] = mean(&top[..count]);
}

/// The largest of `values`, descending, and how many those are.
fn largest(values: &[f32]) -> ([f32; TOP], usize) {
    // As integers of the same order, NaNs at the ends.
    let turned = |bits: i32| bits ^ (((bits >> 31) as u32) >> 1) as i32;
    let mut top = [i32::MIN; TOP];
    for value in values {
        let mut rest = turned(value.to_bits() as i32);
        for place in &mut top {
            let greater = rest.max(*place);
            rest = rest.min(*place);
            *place = greater;
        }
    }
    (top.map(|bits| f32::from_bits(turned(bits) as u32)), TOP.min(values.len()))
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
        with_batch(ads, histories, |batch, sketches| {
            let width = similarity.width();
            let mut a = vec![7.0; ads.len() * width];
            let (columns, mut scratch) =
                (Columns { width, first: 0, dim: width }, SimilarityScratch::default());
            forward(similarity, batch, sketches, &mut scratch, columns, &mut a);
            a
        })
    }

    /// Shows `of` the batch of one impression a group; behavior n of each weighs 1 / (1 + n).
    fn with_batch<R>(
        ads: &[u32],
        histories: &[&[u32]],
        of: impl FnOnce(&RankBatch, Sketches) -> R,
    ) -> R {
        let vectors = vectors();
        let (mut behaviors, mut all) = (vec![0], vec![]);
        for history in histories {
            all.extend_from_slice(history);
            behaviors.push(all.len() as u32);
        }
        let impressions: Vec<u32> = (0..=ads.len() as u32).collect();
        let recency: Vec<f32> = histories
            .iter()
            .flat_map(|history| (0..history.len()).map(|n| 1.0 / (1.0 + n as f32)))
            .collect();
        let batch = RankBatch {
            kept: None,
            impressions: &impressions,
            behaviors: &behaviors,
            group_fields: &[],
            impression_fields: &[],
            behavior_fields: &[],
            rows: &[],
            contents: &[],
            recency: &recency,
        };
        of(&batch, Sketches { vectors: &vectors, dim: 2, ads, behaviors: &all })
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

    #[test]
    fn the_largest_are_those_of_a_sort() {
        for count in [0, 1, 4, 5, 6, 50] {
            let mut values = crate::check::values(count as u64, count);
            values.iter_mut().step_by(7).for_each(|value| *value = -0.0);
            values.iter_mut().skip(3).step_by(11).for_each(|value| *value = 0.0);
            let (top, found) = largest(&values);
            values.sort_by(|a, b| b.total_cmp(a));
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&top[..found]), bits(&values[..TOP.min(count)]));
        }
    }

    #[test]
    fn statistics_are_the_obvious_ones() {
        const NONE: u32 = NO_IMAGE;
        // Cosines with vector 0: 1, .6, -.3, -1. The recency of the fourth behavior is 1/4.
        let recent = (0.6 + 1.0 / 2.0 - 1.0 / 4.0) / (1.0 + 0.5 + 0.25);
        let deviation = (2.36_f32 / 3.0 - 0.04).sqrt();
        let cases: [(u32, &[u32], [f32; 9]); 4] = [
            (0, &[1, 0, NONE, 3], [1.0, 0.2, 0.2, 0.2, 0.6, recent, deviation, -1.0, 4_f32.ln()]),
            (
                0,
                &[0, 0, 1, 1, 1, 1, 1],
                [1.0, 2.6 / 3.0, 3.8 / 5.0, 5.0 / 7.0, 1.0, 0.831_405, 0.180_702, 0.6, 8_f32.ln()],
            ),
            (NONE, &[0, 1], [0.0; 9]),
            (0, &[NONE], [0.0; 9]),
        ];
        for (ad, history, expected) in cases {
            assert_close(&run(Similarity::Statistics, &[ad], &[history]), &expected, 1e-5);
        }
    }

    #[test]
    fn every_pair_has_a_cosine() {
        const NONE: u32 = NO_IMAGE;
        with_batch(&[0, NONE, 1], &[&[1, NONE, 3, 4], &[0], &[]], |batch, sketches| {
            let mut cosines = vec![7.0];
            of_pairs(batch, sketches, &mut SimilarityScratch::default(), &mut cosines);
            assert_close(&cosines, &[0.6, 0.0, -1.0, 0.0, 0.0], 1e-6);
        });
    }

    /// Mean 0 and deviation 1 over what the scales were set by; nothing beyond 5; without a pair 0,
    /// but the count.
    #[test]
    fn statistics_are_standardized() {
        let mut layout = Layout::default();
        let scales = Scales::new(&mut layout, "");
        let mut w = layout.init(1, "rank");
        let many = [2; 900];
        let histories: [&[u32]; 6] = [&[1, 0, 3], &[2, 1], &[0], &[2, 2, 2, 1], &[], &many];
        let ads = [0; 6];
        let raw = run(Similarity::Statistics, &ads, &histories);
        let mut moments = Moments::default();
        with_batch(&ads, &histories, |batch, sketches| {
            moments.add(batch, sketches, &mut SimilarityScratch::default());
        });
        scales.set(&moments, &mut w);
        let columns = Columns { width: 9, first: 0, dim: 9 };
        let mut a = raw.clone();
        scales.standardize(&w, columns, &mut a);
        for at in 0..9 {
            let with = |values: &[f32]| -> Vec<f64> {
                let rows = (0..6).filter(|row| at == 8 || *row != 4);
                rows.map(|row| f64::from(values[row * 9 + at])).collect()
            };
            let of_raw = with(&raw);
            let mean = of_raw.iter().sum::<f64>() / of_raw.len() as f64;
            let variance =
                of_raw.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / of_raw.len() as f64;
            for (x, got) in of_raw.iter().zip(with(&a)) {
                assert!(((x - mean) / variance.sqrt() - got).abs() < 1e-4, "number {at}: {got}");
            }
        }
        assert_eq!(a[4 * 9..][..8], [0.0; 8]);
        let mut far = vec![-100.0, 100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0];
        scales.standardize(&w, columns, &mut far);
        assert_eq!((far[0], far[1], far[8]), (-5.0, 5.0, 5.0));
    }
}
