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

/// The likeness of ads to the images of a history.
#[derive(Clone, Debug, Default)]
pub struct Likeness {
    images: Packed,
    out: Vec<f32>,
}

/// Ads whose likeness is computed at once, so that the products of long histories stay in a cache.
const ADS: usize = 8;

impl Likeness {
    /// Hands over the likeness of each of `ads` (m, `dim`) to all `images` (n, `dim`), ad by ad.
    /// All of them are unit vectors.
    pub fn each(
        &mut self,
        ads: &[f32],
        images: &[f32],
        dim: usize,
        mut take: impl FnMut(usize, &[f32]),
    ) {
        let count = images.len() / dim;
        if count == 0 {
            return (0..ads.len() / dim).for_each(|ad| take(ad, &[]));
        }
        self.images.pack_transposed(dim, count, images);
        for (block, ads) in ads.chunks(ADS * dim).enumerate() {
            let m = ads.len() / dim;
            let left = LeftFactor { data: ads, row: dim, column: 1 };
            let out = fit(&mut self.out, m * count);
            linalg::product(m, left, self.images.panels(), 1.0, Write::Overwrite, out);
            for ad in 0..m {
                take(block * ADS + ad, &out[ad * count..][..count]);
            }
        }
    }
}

/// Room for [`best`].
#[derive(Clone, Debug, Default)]
pub struct BestScratch {
    most: Vec<f32>,
}

/// Values of a block, of which the greatest is known.
const BLOCK: usize = 16;

/// Overwrites `hits` with the `keep` greatest of `likeness`, the greatest first; of equal ones the
/// first.
///
/// Blocks are passed over that have no value as great as the `keep`-th greatest maximum of a block,
/// because at least `keep` values are.
pub fn best(likeness: &[f32], keep: usize, scratch: &mut BestScratch, hits: &mut Vec<Hit>) {
    let most = &mut scratch.most;
    hits.clear();
    let hit = |(image, &likeness): (usize, &f32)| Hit { image: image as u32, likeness };
    let maximum =
        |block: &[f32]| block.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    most.clear();
    most.extend(likeness.chunks(BLOCK).map(maximum));
    let blocks = most.len();
    if blocks <= keep {
        hits.extend(likeness.iter().enumerate().map(hit));
    } else {
        most.extend_from_within(..);
        let (maxima, sorted) = most.split_at_mut(blocks);
        let (_, &mut least, _) = sorted.select_nth_unstable_by(keep - 1, |a, b| b.total_cmp(a));
        for (block, _) in maxima.iter().enumerate().filter(|(_, most)| **most >= least) {
            let first = block * BLOCK;
            let values = likeness[first..].iter().take(BLOCK).enumerate();
            let values = values.map(|(at, value)| (first + at, value));
            hits.extend(values.filter(|(_, value)| **value >= least).map(hit));
        }
    }
    truncate(hits, keep);
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
    /// to an ad, ascending; `hits` are the `keep` best images for it, in the order of [`best`].
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
            best(&values, keep, &mut BestScratch::default(), &mut hits);
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

    /// More images than blocks are passed over, all different.
    #[test]
    fn the_best_of_many_are_those_of_a_sort() {
        for (count, keep) in [(1000, 3), (1000, 50), (10_000, 50), (801, 50), (800, 50), (5, 9)] {
            let likeness = values(count as u64, count);
            let mut hits = vec![Hit { image: 7, likeness: 7.0 }];
            best(&likeness, keep, &mut BestScratch::default(), &mut hits);
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|&a, &b| likeness[b].total_cmp(&likeness[a]));
            let expected = order.into_iter().take(keep);
            let expected: Vec<Hit> =
                expected.map(|at| Hit { image: at as u32, likeness: likeness[at] }).collect();
            assert_eq!(hits, expected);
        }
    }

    /// Also of one image alone, for which a product of matrices could take another way.
    #[test]
    fn a_part_of_a_history_has_the_likeness_of_the_whole() {
        let (dim, ads, images) = (64, 19, 37);
        let (mut a, mut b) = (values(1, ads * dim), values(2, images * dim));
        b[3 * dim..4 * dim].fill(0.0);
        normalize(&mut a, dim);
        normalize(&mut b, dim);
        let of = |images: &[f32]| {
            let mut all = Vec::new();
            Likeness::default().each(&a, images, dim, |ad, likeness| {
                assert_eq!(ad, all.len());
                all.push(likeness.to_vec());
            });
            all
        };
        let whole = of(&b);
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
}
