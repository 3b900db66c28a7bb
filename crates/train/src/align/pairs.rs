//! What a lane reads: pairs of images that one user engaged with, and the impressions that judge.
//!
//! A pair is an image that was clicked, and one that its user engaged with before (a behavior of
//! the group) or clicked on the same day in the same group. Images that are held out are in no
//! pair; impressions of theirs judge the map. Which they are, which pairs of very many are kept and
//! which impressions judge depends on hashes alone, so neither on lanes nor on the order of files.

use std::collections::BinaryHeap;

use ams_data::{Groups, IdMap, ImageKey, Schema};
use ams_image::FeatureStore;

use crate::error::Result;
use crate::settings::align::AlignConfig;
use crate::step::dedup::Asks;
use crate::step::feed::Feed;

/// Impressions that are read at once.
const TOGETHER: u64 = 8192;

/// Pairs that are kept, for each that is needed.
const SPARE: u64 = 4;

/// Least number of pairs that are kept if there are so many.
const LEAST: u64 = 1 << 18;

/// About how many impressions judge, at most.
pub(crate) const JUDGES: u64 = 1 << 16;

const DAY: i64 = 86_400;

/// Two images that one user engaged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    /// When the later one was clicked, unix seconds.
    pub time: i64,
    pub user: u64,
    /// The later and the earlier image.
    pub images: [u64; 2],
    pub gap: i64,
}

/// What one lane's samples say.
#[derive(Default)]
pub(crate) struct Collected {
    pub pairs: Vec<Pair>,
    /// Number of pairs of each user, those that were not kept included.
    pub of_user: IdMap,
    /// Number of pairs in the samples, without held-out images.
    pub seen: u64,
    /// Kept are all pairs of hashes up to this one.
    pub threshold: u64,
    /// The impressions that judge.
    pub judges: Judges,
}

/// Impressions of held-out images, each with the images of its history.
#[derive(Default)]
pub(crate) struct Judges {
    /// The images that they refer to.
    pub asks: Asks,
    /// The image of each impression, as a place among the answers to `asks`; (J).
    pub ads: Vec<u32>,
    /// The history of each impression; (J).
    pub histories: Vec<u32>,
    /// Clicked or not; (J).
    pub labels: Vec<u8>,
    /// Where each history begins in `behaviors`; one more than there are.
    pub starts: Vec<u32>,
    /// Places of the images of all histories.
    pub behaviors: Vec<u32>,
}

/// How samples are read.
pub(crate) struct Reader<'a> {
    /// The features: their names.
    pub store: &'a FeatureStore,
    pub align: &'a AlignConfig,
    /// The seed of the alignment.
    pub seed: u64,
    pub lanes: usize,
    /// Training impressions, of all lanes.
    pub impressions: u64,
}

impl Reader<'_> {
    /// Reads all of `feed`.
    ///
    /// # Errors
    /// If samples cannot be read.
    pub(crate) fn collect(&self, feed: &mut Feed, schema: &Schema) -> Result<Collected> {
        let mut collected = Collected {
            judges: Judges { starts: vec![0], ..Judges::default() },
            ..Collected::default()
        };
        let needed = self.align.steps.saturating_mul(self.align.batch as u64);
        let most = needed.saturating_mul(SPARE).max(LEAST);
        // Twice the share of a lane: lanes are about equal.
        let most = usize::try_from(2 * most / self.lanes as u64).unwrap_or(usize::MAX);
        let mut kept = Kept { heap: BinaryHeap::new(), most, dropped: false };
        let mut groups = Groups::new(schema);
        feed.start(0);
        let (mut until, all) = (0, feed.impressions());
        while until < all {
            until = (until + TOGETHER).min(all);
            groups.clear();
            feed.take(until, &mut groups)?;
            self.add(&groups, &mut collected, &mut kept);
        }
        collected.threshold = match (kept.dropped, kept.heap.peek()) {
            (true, Some((hash, _))) => *hash,
            _ => u64::MAX,
        };
        collected.pairs = kept.heap.into_iter().map(|(_, pair)| pair).collect();
        collected.pairs.sort_unstable();
        collected.judges.close(self.lanes);
        Ok(collected)
    }

    /// Adds what `groups` say.
    fn add(&self, groups: &Groups, to: &mut Collected, kept: &mut Kept) {
        let key = |name| self.store.key(name);
        let behaviors: Vec<ImageKey> = groups.behavior_pictures.iter().map(|&n| key(n)).collect();
        let ads: Vec<ImageKey> = groups.ad_pictures.iter().map(|&name| key(name)).collect();
        for group in 0..groups.len() {
            let user = groups.users[group].0;
            let history = groups.behaviors.range(group);
            let shown = groups.impressions.range(group);
            for at in shown.clone().filter(|&at| groups.labels[at] != 0) {
                let (image, time) = (ads[at], groups.times[at]);
                let before = history.clone().map(|b| (behaviors[b], groups.behavior_times[b]));
                let same_day = (shown.start..at)
                    .filter(|&other| groups.labels[other] != 0)
                    .map(|other| (ads[other], groups.times[other]))
                    .filter(|(_, other)| other.div_euclid(DAY) == time.div_euclid(DAY));
                for (other, earlier) in before.chain(same_day) {
                    if self.pairs(image, other) {
                        let gap = time.saturating_sub(earlier).max(0);
                        let images = [image.0, other.0];
                        kept.add(self.seed, Pair { time, user, images, gap });
                        to.seen += 1;
                        *to.of_user.entry(user).or_insert(0) += 1;
                    }
                }
            }
            let judged = shown.filter(|&at| self.judges(user, groups.times[at], ads[at]));
            let judged: Vec<usize> = judged.collect();
            let history = &behaviors[history];
            let judged =
                judged.iter().map(|&at| Judged { image: ads[at], label: groups.labels[at] });
            to.judges.add(history, judged);
        }
    }

    /// Whether these two images are a pair.
    fn pairs(&self, a: ImageKey, b: ImageKey) -> bool {
        a.is_some() && b.is_some() && a != b && !self.is_held_out(a) && !self.is_held_out(b)
    }

    fn is_held_out(&self, image: ImageKey) -> bool {
        is_held_out(image, self.seed, self.align.holdout)
    }

    /// Whether this impression judges.
    fn judges(&self, user: u64, time: i64, image: ImageKey) -> bool {
        let expected = self.impressions as f64 * f64::from(self.align.holdout);
        let hash = || mix(mix(mix(user, time as u64), image.0), self.seed);
        image.is_some()
            && self.is_held_out(image)
            && (expected <= JUDGES as f64 || unit(hash()) * expected < JUDGES as f64)
    }
}

/// An impression that judges.
struct Judged {
    image: ImageKey,
    label: u8,
}

/// The pairs of least hashes.
struct Kept {
    /// The largest hash first.
    heap: BinaryHeap<(u64, Pair)>,
    most: usize,
    /// Whether any was dropped.
    dropped: bool,
}

impl Kept {
    fn add(&mut self, seed: u64, pair: Pair) {
        let [a, b] = pair.images;
        let hash = [pair.time as u64, a, b, pair.gap as u64].into_iter().fold(pair.user, mix);
        self.heap.push((mix(hash, seed), pair));
        if self.heap.len() > self.most {
            self.heap.pop();
            self.dropped = true;
        }
    }
}

impl Collected {
    /// Leaves the pairs of hashes up to `threshold`, that of all lanes.
    pub(crate) fn limit(&mut self, seed: u64, threshold: u64) {
        if self.threshold > threshold {
            let mut kept = Kept { heap: BinaryHeap::new(), most: usize::MAX, dropped: false };
            std::mem::take(&mut self.pairs).into_iter().for_each(|pair| kept.add(seed, pair));
            let heap = kept.heap.into_iter().filter(|(hash, _)| *hash <= threshold);
            self.pairs = heap.map(|(_, pair)| pair).collect();
            self.pairs.sort_unstable();
        }
    }

    /// How much `pair` counts.
    pub(crate) fn weight(&self, pair: &Pair, decay_days: f32) -> f32 {
        let days = pair.gap as f64 / DAY as f64;
        let of_user = self.of_user.get(&pair.user).copied().unwrap_or(1);
        ((-days / f64::from(decay_days)).exp() / f64::from(of_user.max(1)).sqrt()) as f32
    }
}

impl Judges {
    /// Adds the impressions of one history, if it has an image.
    fn add(&mut self, history: &[ImageKey], shown: impl Iterator<Item = Judged>) {
        let mut shown = shown.peekable();
        if shown.peek().is_none() || !history.iter().any(|image| image.is_some()) {
            return;
        }
        let number = self.starts.len() as u32 - 1;
        for Judged { image, label } in shown {
            self.ads.push(self.asks.add(image.0));
            self.histories.push(number);
            self.labels.push(label);
        }
        for image in history.iter().filter(|image| image.is_some()) {
            self.behaviors.push(self.asks.add(image.0));
        }
        self.starts.push(self.behaviors.len() as u32);
    }

    /// Numbers become places among the answers.
    fn close(&mut self, lanes: usize) {
        let Judges { asks, ads, behaviors, .. } = self;
        asks.close(lanes);
        ads.iter_mut().chain(behaviors).for_each(|at| *at = asks.position(*at));
    }

    /// The mean cosine of each impression's image to those of its history (J), given the
    /// embeddings (U, D), of length 1 or 0, that answer `asks`.
    pub(crate) fn scores(&self, embeddings: &[f32], width: usize) -> Vec<f32> {
        let of = |place: u32| &embeddings[place as usize * width..][..width];
        let mut means = vec![0.0; (self.starts.len() - 1) * width];
        for (mean, range) in means.chunks_exact_mut(width).zip(self.starts.windows(2)) {
            let places = &self.behaviors[range[0] as usize..range[1] as usize];
            let share = 1.0 / places.len() as f32;
            places.iter().for_each(|&place| ams_model::linalg::axpy(share, of(place), mean));
        }
        let each = self.ads.iter().zip(&self.histories);
        each.map(|(&ad, &history)| {
            ams_model::linalg::dot(of(ad), &means[history as usize * width..][..width])
        })
        .collect()
    }
}

/// Whether an image is among the `share` that no pair has.
pub(crate) fn is_held_out(image: ImageKey, seed: u64, share: f32) -> bool {
    unit(mix(image.0, seed)) < f64::from(share)
}

/// A hash of two numbers: the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(a: u64, b: u64) -> u64 {
    let mut x = a.rotate_left(29).wrapping_add(b.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ b;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A hash as a number from 0 to 1.
fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
