//! Search in a long history: the behaviors that are most alike to an ad, exactly.
//!
//! ```text
//! likeness   ad . image, of unit vectors (S)      an image counts once, however often it was clicked
//! best       the `keep` different images of greatest likeness
//! keep       the `keep` behaviors of those: of equal likeness the newer, without an image the last
//! ```
//! Histories are ordered from the newest behavior to the oldest, and so is what is kept of them.
//! A part of a history may be searched elsewhere: the best images of the parts contain the best of
//! the whole. An element of a product does not depend on the elements beside it, so parts have the
//! bits of the whole, too.

use crate::linalg::{self, LeftFactor, Packed, Write, fit};
use crate::rank::NO_IMAGE;
use pulp::Simd;

/// An image that was found for an ad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its index among the different images of the history, in order of their newest behaviors.
    pub image: u32,
    /// Its likeness to the ad.
    pub likeness: f32,
}

/// Makes vectors of `dim` numbers unit vectors; zeros stay.
pub fn normalize(vectors: &mut [f32], dim: usize) {
    for vector in vectors.chunks_exact_mut(dim.max(1)) {
        let length = linalg::dot(vector, vector).sqrt();
        let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= factor);
    }
}

/// Finds the images of a history that are most alike to ads.
#[derive(Clone, Debug, Default)]
pub struct Finder {
    images: Packed,
    out: Vec<f32>,
    /// What may be among the best of each ad, as [`ranked`] numbers.
    found: Vec<Vec<u64>>,
    maxima: Vec<f32>,
    hits: Vec<Hit>,
}

/// Images that are packed at once, so that their product with every ad reads them from a cache.
const IMAGES: usize = 1024;

/// Ads whose likeness is computed at once, so that it is still in a near cache when the best are
/// found: as many as a product sums at a time.
const ADS: usize = 12;

impl Finder {
    /// Hands over the `keep` best of `images` (n, `dim`) for each of `ads` (m, `dim`), in turn: the
    /// greatest likeness first, of equal ones the first image. All of them are unit vectors.
    pub fn each(
        &mut self,
        ads: &[f32],
        images: &[f32],
        dim: usize,
        keep: usize,
        mut take: impl FnMut(&[Hit]),
    ) {
        let count = ads.len() / dim;
        self.found.iter_mut().for_each(Vec::clear);
        self.found.resize_with(self.found.len().max(count), Vec::new);
        for (part, images) in images.chunks(IMAGES * dim).enumerate() {
            let n = images.len() / dim;
            self.images.pack_transposed(dim, n, images);
            for (ads, found) in ads.chunks(ADS * dim).zip(self.found.chunks_mut(ADS)) {
                let m = ads.len() / dim;
                let left = LeftFactor::rows(ads, dim);
                let out = fit(&mut self.out, m * n);
                linalg::product(m, left, self.images.panels(), 1.0, Write::Overwrite, out);
                for (likeness, found) in out.chunks_exact(n).zip(found) {
                    add_best(likeness, part * IMAGES, keep, &mut self.maxima, found);
                }
            }
        }
        for found in &mut self.found[..count] {
            keep_least(found, keep);
            found.sort_unstable();
            self.hits.clear();
            self.hits.extend(found.iter().map(|&number| hit(number)));
            take(&self.hits);
        }
    }
}

/// Numbers of a block, of which the greatest is known.
const BLOCK: usize = 8;

/// Adds to `found`, of images before `first`, what of `likeness` may be among the `keep` best: what
/// is not less than `keep` others.
fn add_best(
    likeness: &[f32],
    first: usize,
    keep: usize,
    maxima: &mut Vec<f32>,
    found: &mut Vec<u64>,
) {
    let mut least = f32::NEG_INFINITY;
    if found.len() >= keep {
        if found.len() >= keep + keep / 2 {
            keep_least(found, keep);
        }
        // At least `keep` are not less than the last of them.
        least = found.iter().max().map_or(least, |&number| hit(number).likeness);
    } else if likeness.len() >= 2 * BLOCK * keep {
        block_maxima(likeness, maxima);
        let (_, greatest, _) = maxima.select_nth_unstable_by(keep - 1, |a, b| b.total_cmp(a));
        least = *greatest;
    }
    add_from(likeness, least, first as u32, found);
}

/// Keeps the `keep` least of `numbers`, in any order.
fn keep_least(numbers: &mut Vec<u64>, keep: usize) {
    if numbers.len() > keep {
        numbers.select_nth_unstable(keep);
        numbers.truncate(keep);
    }
}

/// A number that is the less the more alike an image is, and of equally alike ones the first.
#[inline(always)]
fn ranked(likeness: f32, image: u32) -> u64 {
    // Without a sign of zero: -0 is alike to 0.
    let bits = (likeness + 0.0).to_bits();
    let descending = if bits >> 31 == 0 { !bits & 0x7fff_ffff } else { bits };
    u64::from(descending) << 32 | u64::from(image)
}

/// What [`ranked`] was made of.
fn hit(number: u64) -> Hit {
    let descending = (number >> 32) as u32;
    let bits = if descending >> 31 == 0 { !descending & 0x7fff_ffff } else { descending };
    Hit { image: number as u32, likeness: f32::from_bits(bits) }
}

/// Overwrites `maxima` with the greatest of every [`BLOCK`] numbers that are `values.len() / BLOCK`
/// apart; what is left over has none.
#[pulp::with_simd(block_maxima = linalg::arch())]
#[inline(always)]
fn block_maxima_in<'a, S: Simd>(_: S, values: &'a [f32], maxima: &'a mut Vec<f32>) {
    let apart = values.len() / BLOCK;
    maxima.clear();
    maxima.extend_from_slice(&values[..apart]);
    for values in values.chunks_exact(apart).skip(1).take(BLOCK - 1) {
        for (most, value) in maxima.iter_mut().zip(values) {
            *most = if *value > *most { *value } else { *most };
        }
    }
}

/// Numbers of the longest vectors.
const LANES_MAX: usize = 16;

/// Adds to `found` what of `likeness` is at least `least`; the images are numbered from `first` on.
#[pulp::with_simd(add_from = linalg::arch())]
#[inline(always)]
fn add_from_in<'a, S: Simd>(
    simd: S,
    likeness: &'a [f32],
    least: f32,
    first: u32,
    found: &'a mut Vec<u64>,
) {
    let bound = simd.splat_f32s(least);
    let parts = likeness.chunks(S::F32_LANES);
    for (image, part) in (first..).step_by(S::F32_LANES).zip(parts) {
        if let [vector] = S::as_simd_f32s(part).0 {
            let mask = simd.greater_than_or_equal_f32s(*vector, bound);
            if simd.first_true_m32s(mask) == S::F32_LANES {
                continue;
            }
        }
        // Which of them it is cannot be predicted, so there is no branch.
        let (mut some, mut count) = ([0; LANES_MAX], 0);
        for (image, &value) in (image..).zip(part) {
            some[count % LANES_MAX] = ranked(value, image);
            count += usize::from(value >= least);
        }
        found.extend_from_slice(&some[..count]);
    }
}

/// Sorts `hits`, the greatest likeness first and of equal ones the first image, and keeps the first
/// `keep`.
pub fn truncate(hits: &mut Vec<Hit>, keep: usize) {
    // Without a sign of zero: -0 is alike to 0.
    let order = |a: &Hit, b: &Hit| {
        (b.likeness + 0.0).total_cmp(&(a.likeness + 0.0)).then(a.image.cmp(&b.image))
    };
    if hits.len() > keep {
        hits.select_nth_unstable_by(keep, order);
        hits.truncate(keep);
    }
    hits.sort_unstable_by(order);
}

/// The different images of one history, and the behaviors of each.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The number of each image, in order of their newest behaviors.
    pub images: Vec<u32>,
    /// Where the behaviors of each image begin; (images + 1).
    starts: Vec<u32>,
    /// Behaviors by image, each time the newest first.
    behaviors: Vec<u32>,
    /// Behaviors without an image, the newest first.
    without: Vec<u32>,
    /// The index of each behavior's image, or [`NO_IMAGE`].
    of_behaviors: Vec<u32>,
    /// The index in `images` of each number; [`NO_IMAGE`] outside of [`History::read`].
    index: Vec<u32>,
}

impl History {
    /// Reads a history: the number of each behavior's image, less than `numbers`, or
    /// [`NO_IMAGE`]; the newest first.
    pub fn read(&mut self, of_behaviors: &[u32], numbers: usize) {
        let History { images, starts, behaviors, without, of_behaviors: places, index } = self;
        images.clear();
        starts.clear();
        places.clear();
        index.resize(index.len().max(numbers), NO_IMAGE);
        starts.push(0);
        for &number in of_behaviors {
            if number == NO_IMAGE {
                places.push(NO_IMAGE);
                continue;
            }
            let place = &mut index[number as usize];
            if *place == NO_IMAGE {
                *place = images.len() as u32;
                images.push(number);
                starts.push(0);
            }
            starts[*place as usize + 1] += 1;
            places.push(*place);
        }
        images.iter().for_each(|&number| index[number as usize] = NO_IMAGE);
        (0..images.len()).for_each(|image| starts[image + 1] += starts[image]);
        without.clear();
        behaviors.clear();
        behaviors.resize(starts[images.len()] as usize, 0);
        let mut next = starts.clone();
        for (behavior, &place) in places.iter().enumerate() {
            if place == NO_IMAGE {
                without.push(behavior as u32);
            } else {
                let at = &mut next[place as usize];
                behaviors[*at as usize] = behavior as u32;
                *at += 1;
            }
        }
    }

    /// The behaviors of image `image`, the newest first.
    pub fn of(&self, image: usize) -> &[u32] {
        &self.behaviors[self.starts[image] as usize..self.starts[image + 1] as usize]
    }

    /// The behaviors without an image, the newest first.
    pub fn without(&self) -> &[u32] {
        &self.without
    }

    /// Overwrites `kept` with the `keep` behaviors, or all if there are fewer, that are most alike
    /// to an ad, ascending; `hits` are the `keep` best images for it, as [`Finder::each`] has them.
    pub fn keep(&self, hits: &[Hit], keep: usize, kept: &mut Vec<u32>) {
        kept.clear();
        for alike in hits.chunk_by(|a, b| a.likeness == b.likeness) {
            let (before, room) = (kept.len(), keep - kept.len());
            for hit in alike {
                kept.extend(self.of(hit.image as usize).iter().take(room));
            }
            kept[before..].sort_unstable();
            kept.truncate(keep);
            if kept.len() == keep {
                break;
            }
        }
        kept.extend(self.without.iter().take(keep - kept.len()));
        kept.sort_unstable();
    }
}

/// Overwrites `kept` with the `keep` of `count` behaviors, or all if there are fewer, that are
/// `alike` to an ad and then others, the newest first of both; ascending.
pub fn keep_alike(count: usize, alike: impl Fn(usize) -> bool, keep: usize, kept: &mut Vec<u32>) {
    kept.clear();
    kept.extend((0..count).filter(|&at| alike(at)).take(keep).map(|at| at as u32));
    let room = keep - kept.len();
    kept.extend((0..count).filter(|&at| !alike(at)).take(room).map(|at| at as u32));
    kept.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use proptest::prelude::*;

    /// The definition: every behavior by likeness, then by age.
    fn naive(likeness: &[Option<f32>], keep: usize) -> Vec<u32> {
        let mut order: Vec<usize> = (0..likeness.len()).collect();
        order.sort_by(|&a, &b| {
            let [a, b] = [a, b].map(|at| likeness[at]);
            match (a, b) {
                (Some(a), Some(b)) => b.partial_cmp(&a).unwrap(),
                _ => b.is_some().cmp(&a.is_some()),
            }
        });
        let mut kept: Vec<u32> = order.into_iter().take(keep).map(|at| at as u32).collect();
        kept.sort_unstable();
        kept
    }

    /// What a history keeps that is searched in `parts` parts, by the number of the image.
    fn searched(of: &[u32], likeness: &[f32], keep: usize, parts: u32) -> Vec<u32> {
        let (mut history, mut kept) = (History::default(), vec![7]);
        history.read(&[0, NO_IMAGE, 0], 1);
        history.read(of, likeness.len());
        let (mut all, mut hits) = (Vec::new(), Vec::new());
        for part in 0..parts {
            let mine = (0..history.images.len()).filter(|at| history.images[*at] % parts == part);
            let mine: Vec<usize> = mine.collect();
            let values: Vec<f32> =
                mine.iter().map(|&at| likeness[history.images[at] as usize]).collect();
            best(&values, keep, &mut hits);
            all.extend(
                hits.iter().map(|hit| Hit { image: mine[hit.image as usize] as u32, ..*hit }),
            );
        }
        truncate(&mut all, keep);
        history.keep(&all, keep, &mut kept);
        kept
    }

    proptest! {
        /// Few different values, so that many are alike; and zeros of both signs.
        #[test]
        fn what_is_kept_is_the_definition(
            of in prop::collection::vec(0u32..60, 0..400),
            likeness in prop::collection::vec(-3i8..3, 60),
            keep in 1usize..40,
            parts in 1u32..5,
        ) {
            let likeness: Vec<f32> =
                likeness.iter().map(|&value| if value == -1 { -0.0 } else { f32::from(value) }).collect();
            let of: Vec<u32> = of.into_iter().map(|at| if at % 7 == 3 { NO_IMAGE } else { at }).collect();
            let each: Vec<Option<f32>> =
                of.iter().map(|&at| (at != NO_IMAGE).then(|| likeness[at as usize])).collect();
            prop_assert_eq!(searched(&of, &likeness, keep, parts), naive(&each, keep));
        }

        #[test]
        fn alike_behaviors_come_before_others(
            alike in prop::collection::vec(any::<bool>(), 0..60),
            keep in 1usize..20,
        ) {
            let each: Vec<Option<f32>> =
                alike.iter().map(|&alike| Some(f32::from(u8::from(alike)))).collect();
            let mut kept = vec![7];
            keep_alike(alike.len(), |at| alike[at], keep, &mut kept);
            prop_assert_eq!(kept, naive(&each, keep));
        }
    }

    /// The `keep` best of one ad.
    fn best(likeness: &[f32], keep: usize, hits: &mut Vec<Hit>) {
        let mut found = Vec::new();
        for (part, likeness) in likeness.chunks(IMAGES).enumerate() {
            add_best(likeness, part * IMAGES, keep, &mut vec![7.0], &mut found);
        }
        keep_least(&mut found, keep);
        found.sort_unstable();
        hits.clear();
        hits.extend(found.into_iter().map(hit));
    }

    /// More images than are looked at, all different.
    #[test]
    fn the_best_of_many_are_those_of_a_sort() {
        for (count, keep) in [(1000, 3), (1000, 50), (10_000, 50), (801, 50), (800, 50), (5, 9)] {
            let likeness = values(count as u64, count);
            let mut hits = vec![Hit { image: 7, likeness: 7.0 }];
            best(&likeness, keep, &mut hits);
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|&a, &b| likeness[b].total_cmp(&likeness[a]));
            let expected = order.into_iter().take(keep);
            let expected: Vec<Hit> =
                expected.map(|at| Hit { image: at as u32, likeness: likeness[at] }).collect();
            assert_eq!(hits, expected);
        }
    }

    /// Every `keep` best of each ad.
    fn found(ads: &[f32], images: &[f32], dim: usize, keep: usize) -> Vec<Vec<Hit>> {
        let (mut finder, mut all) = (Finder::default(), Vec::new());
        // What was there before must not show.
        finder.each(&values(9, 60 * dim), &values(8, 70 * dim), dim, 5, |_| ());
        finder.each(ads, images, dim, keep, |hits| all.push(hits.to_vec()));
        all
    }

    /// Also of one image alone, for which a product of matrices could take another way.
    #[test]
    fn a_part_of_a_history_has_the_likeness_of_the_whole() {
        let (dim, ads, images) = (64, 19, 37);
        let (mut a, mut b) = (values(1, ads * dim), values(2, images * dim));
        b[3 * dim..4 * dim].fill(0.0);
        normalize(&mut a, dim);
        normalize(&mut b, dim);
        let of = |images: &[f32]| -> Vec<Vec<f32>> {
            let in_order = |mut hits: Vec<Hit>| {
                hits.sort_by_key(|hit| hit.image);
                hits.into_iter().map(|hit| hit.likeness).collect()
            };
            found(&a, images, dim, images.len() / dim).into_iter().map(in_order).collect()
        };
        let whole = of(&b);
        assert_eq!((whole.len(), whole[0].len()), (ads, images));
        for (first, count) in [(0, 1), (5, 1), (3, 7), (20, 17)] {
            let part = of(&b[first * dim..][..count * dim]);
            for (part, whole) in part.iter().zip(&whole) {
                assert_eq!(part, &whole[first..][..count]);
            }
        }
        for (ad, likeness) in whole.iter().enumerate() {
            for (image, likeness) in likeness.iter().enumerate() {
                let pair = a[ad * dim..][..dim].iter().zip(&b[image * dim..][..dim]);
                let expected: f64 = pair.map(|(a, b)| f64::from(a * b)).sum();
                assert!((f64::from(*likeness) - expected).abs() < 1e-6);
            }
        }
        assert_eq!(whole[2][3], 0.0);
    }

    /// Histories of many parts, in which many images are equally alike to an ad.
    #[test]
    fn the_best_of_parts_are_the_best_of_all() {
        let (dim, ads) = (2, 11);
        let coarse = |seed, count| -> Vec<f32> {
            values(seed, count * dim).iter().map(|value| (value * 9.0).round()).collect()
        };
        let a = coarse(1, ads);
        for count in [0, 3, 900, 1024, 1025, 5000] {
            let images = coarse(2, count);
            let all = found(&a, &images, dim, count.max(1));
            for keep in [1, 7, 50] {
                for (got, all) in found(&a, &images, dim, keep).iter().zip(&all) {
                    assert_eq!(got, &all[..keep.min(count)], "{keep} of {count}");
                }
            }
        }
        assert_eq!(found(&[], &coarse(2, 5), dim, 3), Vec::<Vec<Hit>>::new());
    }
}
