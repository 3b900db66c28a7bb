//! Search in histories: which behaviors a model keeps for each impression, and groups without the
//! others.
//!
//! ```text
//! kept       for each impression, the behaviors that are most alike to its ad   attention, cosines
//! compact    of each group, the behaviors that any impression keeps, and the newest, which the
//!            fields of behaviors pool
//! ```
//! What is kept for an impression depends on its own ad alone, never on the ads beside it.

use ams_data::{Groups, IdMap, ImageKey, Offsets, Ragged};
use ams_model::NO_IMAGE;
use ams_model::search::{self, Finder, History};

use crate::input::Keys;

/// The places of the field of a search by category, among the fields of behaviors and of ads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchField {
    /// Among the fields of behaviors.
    pub behavior: usize,
    /// Among the fields of the ad.
    pub ad: usize,
}

/// Overwrites `kept` with the `keep` behaviors of each impression that share a value of `field`
/// with its ad, or are the newest of the others; (B) rows of ascending positions in the history of
/// the group.
pub fn by_category(groups: &Groups, field: SearchField, keep: usize, kept: &mut Ragged<u32>) {
    let (of_behaviors, of_ads) =
        (&groups.behavior_fields[field.behavior], &groups.ad_fields[field.ad]);
    let (mut alike, mut row) = (Vec::new(), Vec::new());
    kept.clear();
    for group in 0..groups.len() {
        let (history, shown) = (groups.behaviors.range(group), groups.impressions.range(group));
        for impression in shown.clone() {
            let values = of_ads.row(impression);
            // Many ads are of few categories.
            match (shown.start..impression).find(|&other| of_ads.row(other) == values) {
                Some(same) => row = kept.row(same).to_vec(),
                None => {
                    alike.clear();
                    alike.extend(history.clone().map(|behavior| {
                        of_behaviors.row(behavior).iter().any(|value| values.contains(value))
                    }));
                    search::keep_alike(history.len(), |at| alike[at], keep, &mut row);
                }
            }
            kept.push(&row);
        }
    }
}

/// Room for [`by_pictures`].
#[derive(Clone, Debug, Default)]
pub(crate) struct SearchScratch {
    behaviors: Numbered,
    ads: Numbered,
    history: History,
    finder: Finder,
    row: Vec<u32>,
    /// What is kept for each different ad.
    of_ads: Ragged<u32>,
}

/// Different images in order of first need, and their unit vectors.
#[derive(Clone, Debug, Default)]
struct Numbered {
    seen: IdMap,
    /// Of each behavior or impression, or [`NO_IMAGE`].
    numbers: Vec<u32>,
    /// (images, S).
    vectors: Vec<f32>,
}

impl Numbered {
    fn read<'v>(
        &mut self,
        keys: &[ImageKey],
        dim: usize,
        vector: impl Fn(ImageKey) -> Option<&'v [f32]>,
    ) {
        let Numbered { seen, numbers, vectors } = self;
        seen.clear();
        numbers.clear();
        vectors.clear();
        for &key in keys {
            numbers.push(*seen.entry(key.0).or_insert_with(|| match vector(key) {
                Some(vector) => {
                    vectors.extend_from_slice(vector);
                    (vectors.len() / dim) as u32 - 1
                }
                None => NO_IMAGE,
            }));
        }
        search::normalize(vectors, dim);
    }

    fn images(&self, dim: usize) -> usize {
        self.vectors.len() / dim
    }
}

/// Overwrites `kept` with the `keep` behaviors of each impression whose pictures are most alike to
/// its ad's; (B) rows of ascending positions in the history of the group. `vector` is the sketch of
/// an image (`dim`), if it has one.
pub(crate) fn by_pictures<'v>(
    groups: &Groups,
    keys: &Keys,
    dim: usize,
    keep: usize,
    vector: impl Fn(ImageKey) -> Option<&'v [f32]>,
    scratch: &mut SearchScratch,
    kept: &mut Ragged<u32>,
) {
    let SearchScratch { behaviors, ads, history, finder, row, of_ads } = scratch;
    kept.clear();
    for group in 0..groups.len() {
        let of_history = &keys.behaviors[groups.behaviors.range(group)];
        behaviors.read(of_history, dim, &vector);
        ads.read(&keys.ads[groups.impressions.range(group)], dim, &vector);
        history.read(&behaviors.numbers, behaviors.images(dim));
        of_ads.clear();
        finder.each(&ads.vectors, &behaviors.vectors, dim, keep, |hits| {
            history.keep(hits, keep, row);
            of_ads.push(row);
        });
        for &ad in &ads.numbers {
            match ad {
                NO_IMAGE => newest(of_history.len(), keep, row),
                ad => {
                    row.clear();
                    row.extend_from_slice(of_ads.row(ad as usize));
                }
            }
            kept.push(row);
        }
    }
}

/// What is kept for an ad that nothing is alike to: the newest of `count` behaviors.
pub fn newest(count: usize, keep: usize, row: &mut Vec<u32>) {
    row.clear();
    row.extend(0..count.min(keep) as u32);
}

/// Groups with the behaviors that `kept` lists, (B) rows of positions in the history of the group,
/// and the `newest` ones; and which behaviors those are. The positions become those among all
/// behaviors that are left (N).
pub fn compact(groups: &Groups, newest: usize, kept: &mut Ragged<u32>) -> (Groups, Ragged<u32>) {
    let mut rows: Ragged<u32> = Ragged::default();
    // Of each behavior of a group: whether it is left, then its place.
    let mut places: Vec<u32> = Vec::new();
    for group in 0..groups.len() {
        let (history, shown) = (groups.behaviors.range(group), groups.impressions.range(group));
        places.clear();
        places.resize(history.len(), 0);
        places.iter_mut().take(newest).for_each(|place| *place = 1);
        let lists = range_of(&kept.offsets, &shown);
        kept.values[lists.clone()].iter().for_each(|&at| places[at as usize] = 1);
        let before = rows.values.len();
        for (at, place) in places.iter_mut().enumerate().filter(|(_, place)| **place == 1) {
            *place = rows.values.len() as u32;
            rows.values.push((history.start + at) as u32);
        }
        rows.offsets.push(rows.values.len() - before);
        kept.values[lists].iter_mut().for_each(|at| *at = places[*at as usize]);
    }
    (groups.with_behaviors(&rows), rows)
}

/// Where the values of `lists` are.
fn range_of(offsets: &Offsets, lists: &std::ops::Range<usize>) -> std::ops::Range<usize> {
    let starts = offsets.as_slice();
    starts[lists.start] as usize..starts[lists.end] as usize
}
