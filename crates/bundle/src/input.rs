//! From groups to the lists of ids a network pools.

use ams_data::{Groups, Id, ImageKey, Ragged};
use ams_model::Similarity;

/// Seconds of a day.
const DAY: f32 = 86400.0;

/// One sparse input of the network: a column of [`Groups`], or the ids of the images (the image-id
/// fields every arm gets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// User field by its place among the user fields; one list per group.
    User(usize),
    /// Behavior field, all behaviors of a group in one list.
    Behavior(usize),
    /// Behavior field; one list per behavior.
    EachBehavior(usize),
    /// The age of the behaviors in this many buckets, all behaviors of a group in one list.
    BehaviorAge(usize),
    /// The same; one list per behavior.
    EachBehaviorAge(usize),
    /// Image ids of the behaviors, all behaviors of a group in one list.
    BehaviorImage,
    /// Ad field; one list per impression.
    Ad(usize),
    /// Image id of the ad; one list per impression.
    AdImage,
    /// Context field; one list per impression.
    Context(usize),
    /// Codes of the behaviors' images up to a level, from 0; all behaviors of a group in one list.
    BehaviorCode(usize),
    /// The same; one list per behavior.
    EachBehaviorCode(usize),
    /// Codes of the ad's image up to a level, from 0; one list per impression.
    AdCode(usize),
}

/// The semantic ids that a model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Semantic {
    /// Codes of an image (L).
    pub levels: usize,
    /// Centers of a level (K).
    pub size: usize,
    /// The codebooks, as [`ams_data::Id::of_prefixes`] takes them.
    pub book: u64,
}

/// The image keys of a block of groups: what the feature store made of the pictures' names.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Image of each behavior; (N).
    pub behaviors: Vec<ImageKey>,
    /// Image of each impression's ad; (B).
    pub ads: Vec<ImageKey>,
    /// For each behavior the ids of the prefixes of its image's codes, 0 where it has none; (N, L),
    /// or empty if the model sees no semantic ids.
    behavior_prefixes: Vec<Id>,
    /// The same for each impression's ad; (B, L).
    ad_prefixes: Vec<Id>,
    /// Codes of an image (L).
    levels: usize,
}

impl Keys {
    /// Resolves every picture of `groups` with `key`.
    pub fn resolve(
        &mut self,
        groups: &Groups,
        mut key: impl FnMut(ams_data::PictureName) -> ImageKey,
    ) {
        self.behaviors.clear();
        self.behaviors.extend(groups.behavior_pictures.iter().map(|&name| key(name)));
        self.ads.clear();
        self.ads.extend(groups.ad_pictures.iter().map(|&name| key(name)));
        self.behavior_prefixes.clear();
        self.ad_prefixes.clear();
    }

    /// Finds the semantic ids of every image by `codes`, which appends the codes (L) of an image
    /// that has some.
    pub fn resolve_codes(
        &mut self,
        semantic: Semantic,
        mut codes: impl FnMut(ImageKey, &mut Vec<u32>),
    ) {
        let Semantic { levels, book, .. } = semantic;
        let mut of_image = Vec::new();
        let mut prefixes = |keys: &[ImageKey], to: &mut Vec<Id>| {
            to.clear();
            for key in keys {
                of_image.clear();
                if key.is_some() {
                    codes(*key, &mut of_image);
                }
                let first = to.len();
                Id::of_prefixes(book, of_image.iter().copied().take(levels), to);
                to.resize(first + levels, Id(0));
            }
        };
        prefixes(&self.behaviors, &mut self.behavior_prefixes);
        prefixes(&self.ads, &mut self.ad_prefixes);
        self.levels = levels;
    }
}

impl Input {
    /// Whether it has one list per impression.
    pub fn is_per_impression(self) -> bool {
        matches!(self, Input::Ad(_) | Input::AdImage | Input::AdCode(_) | Input::Context(_))
    }

    /// Overwrites `lists` with this input's ids: one list per group (user and behavior side, of the
    /// `newest` behaviors), per impression (ad and context side), or per behavior.
    pub fn collect(self, groups: &Groups, keys: &Keys, newest: usize, lists: &mut Ragged<Id>) {
        self.collect_as(groups, keys, newest, lists, |id| id);
    }

    /// As [`Input::collect`], with `value` of each id in its stead, asked in their order.
    pub fn collect_as<T: Copy>(
        self,
        groups: &Groups,
        keys: &Keys,
        newest: usize,
        lists: &mut Ragged<T>,
        mut value: impl FnMut(Id) -> T,
    ) {
        lists.clear();
        let column = match self {
            Input::User(field) => &groups.user_fields[field],
            Input::Ad(field) => &groups.ad_fields[field],
            Input::Context(field) => &groups.context_fields[field],
            Input::EachBehavior(field) | Input::Behavior(field) => &groups.behavior_fields[field],
            Input::BehaviorImage => {
                for group in 0..groups.len() {
                    let behaviors = newest_of(groups, group, newest);
                    push_images(&keys.behaviors[behaviors], lists, &mut value);
                }
                return;
            }
            Input::BehaviorAge(buckets) | Input::EachBehaviorAge(buckets) => {
                let pooled = matches!(self, Input::BehaviorAge(_));
                for group in 0..groups.len() {
                    // A model that searches sees no ages.
                    let ages = groups.ages(group).map(|age| value(age_id(age, buckets)));
                    lists.values.extend(ages);
                    let behaviors = groups.behaviors.range(group).len();
                    match pooled {
                        true => lists.offsets.push(behaviors),
                        false => (0..behaviors).for_each(|_| lists.offsets.push(1)),
                    }
                }
                return;
            }
            Input::BehaviorCode(level) => {
                for group in 0..groups.len() {
                    let behaviors = newest_of(groups, group, newest);
                    let of = behaviors.start * keys.levels..behaviors.end * keys.levels;
                    let prefixes = keys.behavior_prefixes[of].chunks_exact(keys.levels);
                    push_some(prefixes.map(|of| of[level]), lists, &mut value);
                }
                return;
            }
            Input::EachBehaviorCode(level) => {
                for of in keys.behavior_prefixes.chunks_exact(keys.levels) {
                    push_some([of[level]].into_iter(), lists, &mut value);
                }
                return;
            }
            Input::AdCode(level) => {
                for of in keys.ad_prefixes.chunks_exact(keys.levels) {
                    push_some([of[level]].into_iter(), lists, &mut value);
                }
                return;
            }
            Input::AdImage => {
                for key in &keys.ads {
                    push_images(std::slice::from_ref(key), lists, &mut value);
                }
                return;
            }
        };
        if matches!(self, Input::Behavior(_)) {
            let starts = column.offsets.as_slice();
            for group in 0..groups.len() {
                let behaviors = newest_of(groups, group, newest);
                let ids = starts[behaviors.start] as usize..starts[behaviors.end] as usize;
                lists.offsets.push(ids.len());
                lists.values.extend(column.values[ids].iter().map(|&id| value(id)));
            }
        } else {
            lists.values.extend(column.values.iter().map(|&id| value(id)));
            lists.offsets.clone_from(&column.offsets);
        }
    }
}

/// Overwrites `weights` with the weight of each behavior by its age, 1 / (1 + days), where the
/// `similarity` of a model sees it; (N), or none. An unknown age weighs 1.
pub fn recency(similarity: Similarity, groups: &Groups, weights: &mut Vec<f32>) {
    weights.clear();
    if similarity.sees_ages() {
        let ages = (0..groups.len()).flat_map(|group| groups.ages(group));
        weights.extend(ages.map(|age| 1.0 / (1.0 + age as f32 / DAY)));
    }
}

/// The id of an age in seconds: its bucket is the logarithm to base 2, at most the last of
/// `buckets`. An unknown age, 0, has an id that no training sees, so its row is zeros.
fn age_id(age: u64, buckets: usize) -> Id {
    let bucket = age.checked_ilog2().map(|bucket| bucket.min(buckets as u32 - 1) as u8);
    Id::of_age(bucket.unwrap_or(u8::MAX))
}

/// The `newest` behaviors of a group.
fn newest_of(groups: &Groups, group: usize, newest: usize) -> std::ops::Range<usize> {
    let behaviors = groups.behaviors.range(group);
    behaviors.start..behaviors.end.min(behaviors.start.saturating_add(newest))
}

/// Appends one list: `value` of the ids of those `keys` that are an image.
fn push_images<T: Copy>(keys: &[ImageKey], lists: &mut Ragged<T>, value: &mut impl FnMut(Id) -> T) {
    let before = lists.values.len();
    let images = keys.iter().filter(|key| key.is_some());
    lists.values.extend(images.map(|&key| value(Id::of_image(key))));
    lists.offsets.push(lists.values.len() - before);
}

/// Appends one list: `value` of those `ids` that are one.
fn push_some<T: Copy>(
    ids: impl Iterator<Item = Id>,
    lists: &mut Ragged<T>,
    value: &mut impl FnMut(Id) -> T,
) {
    let before = lists.values.len();
    lists.values.extend(ids.filter(|id| *id != Id(0)).map(value));
    lists.offsets.push(lists.values.len() - before);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS};
    use ams_data::PictureName;
    use ams_model::ImageArm;

    /// The lists of `input` in a block of three groups with 3, 0 and 4 behaviors.
    fn lists(input: Input, newest: usize) -> Vec<Vec<Id>> {
        let groups = Fixture::new(ImageArm::Joint).groups(&ROWS);
        let mut keys = Keys::default();
        keys.resolve(&groups, |name| match name == PictureName::of("lost.png") {
            true => ImageKey::NONE,
            false => ImageKey(name.0),
        });
        // The picture 1.png has the codes 5 and 6, 4.png has 5 and 7, and 3.png none.
        let semantic = Semantic { levels: 2, size: 8, book: 9 };
        keys.resolve_codes(semantic, |key, to| {
            let known = [(6, "1.png"), (7, "4.png")].into_iter();
            let mut known = known.filter(|(_, name)| PictureName::of(name).0 == key.0);
            to.extend(known.next().iter().flat_map(|(code, _)| [5, *code]));
        });
        // What was there before must not show.
        let mut lists = Ragged::default();
        lists.push(&[Id(1), Id(2)]);
        input.collect(&groups, &keys, newest, &mut lists);
        (0..lists.len()).map(|list| lists.row(list).to_vec()).collect()
    }

    fn ids(field: &str, lists: &[&[&str]]) -> Vec<Vec<Id>> {
        lists.iter().map(|list| list.iter().map(|raw| Id::of(field, raw)).collect()).collect()
    }

    fn images(lists: &[&[&str]]) -> Vec<Vec<Id>> {
        let id = |name: &&str| Id::of_image(ImageKey(PictureName::of(name).0));
        lists.iter().map(|list| list.iter().map(id).collect()).collect()
    }

    #[test]
    fn ages_are_counted_in_powers_of_two() {
        let age = Id::of_age;
        let mut groups = Fixture::new(ImageArm::Joint).groups(&ROWS);
        // Three groups of 2, 1 and 3 impressions and 3, 0 and 4 behaviors.
        groups.times = vec![1000, 1_000_000, 2000, 5000, 6000, 7000];
        groups.behavior_times = vec![999, 997, 996, 4999, 5000, -4_000_000_000, 5001];
        let expected = [age(0), age(1), age(2), age(0), age(255), age(9), age(255)];
        for (input, lengths) in
            [(Input::BehaviorAge(10), &[3, 0, 4][..]), (Input::EachBehaviorAge(10), &[1; 7][..])]
        {
            let mut lists = Ragged::default();
            input.collect(&groups, &Keys::default(), usize::MAX, &mut lists);
            let got: Vec<usize> = (0..lists.len()).map(|list| lists.row(list).len()).collect();
            assert_eq!((&got[..], &lists.values[..]), (lengths, &expected[..]));
        }
    }

    fn prefixes(lists: &[&[&[u32]]]) -> Vec<Vec<Id>> {
        let id = |codes: &&[u32]| {
            let mut ids = Vec::new();
            Id::of_prefixes(9, codes.iter().copied(), &mut ids);
            ids[codes.len() - 1]
        };
        lists.iter().map(|list| list.iter().map(id).collect()).collect()
    }

    #[test]
    fn codes_are_lists_of_prefixes() {
        let cases = [
            (Input::BehaviorCode(0), 4, prefixes(&[&[&[5], &[5]], &[], &[&[5], &[5]]])),
            (Input::BehaviorCode(1), 4, prefixes(&[&[&[5, 6], &[5, 6]], &[], &[&[5, 7], &[5, 6]]])),
            (Input::BehaviorCode(1), 3, prefixes(&[&[&[5, 6], &[5, 6]], &[], &[&[5, 7]]])),
            (
                Input::EachBehaviorCode(1),
                4,
                prefixes(&[&[&[5, 6]], &[], &[&[5, 6]], &[], &[], &[&[5, 7]], &[&[5, 6]]]),
            ),
            (Input::AdCode(0), 4, prefixes(&[&[], &[&[5]], &[&[5]], &[], &[], &[]])),
            (Input::AdCode(1), 4, prefixes(&[&[], &[&[5, 7]], &[&[5, 6]], &[], &[], &[]])),
        ];
        for (input, newest, expected) in cases {
            assert_eq!(lists(input, newest), expected, "{input:?} {newest}");
        }
    }

    #[test]
    fn each_side_has_its_lists() {
        let cases = [
            (Input::User(1), ids("age", &[&["25"], &[], &["99"]])),
            (Input::User(2), ids("tags", &[&["a", "b"], &[], &["z", "a"]])),
            (Input::Behavior(0), ids("item", &[&["1", "5", "1"], &[], &["2", "77", "4", "6"]])),
            (
                Input::Behavior(1),
                ids("category", &[&["shoes", "hats", "shoes"], &[], &["shoes", "hats", "hats"]]),
            ),
            (
                Input::EachBehavior(0),
                ids("item", &[&["1"], &["5"], &["1"], &["2"], &["77"], &["4"], &["6"]]),
            ),
            (Input::BehaviorImage, images(&[&["1.png", "1.png"], &[], &["4.png", "1.png"]])),
            (Input::Ad(0), ids("item", &[&["3"], &["4"], &["1"], &["5"], &["78"], &["2"]])),
            (
                Input::Ad(1),
                ids("category", &[&[], &["hats"], &["shoes"], &["hats"], &[], &["shoes"]]),
            ),
            (Input::AdImage, images(&[&["3.png"], &["4.png"], &["1.png"], &[], &[], &[]])),
            (Input::Context(0), ids("hour", &[&["12"], &["12"], &["7"], &["8"], &["8"], &["8"]])),
        ];
        for (input, expected) in cases {
            assert_eq!(lists(input, usize::MAX), expected, "{input:?}");
        }
    }

    #[test]
    fn the_newest_behaviors_are_pooled() {
        let cases = [
            (Input::Behavior(0), ids("item", &[&["1", "5"], &[], &["2", "77"]])),
            (Input::Behavior(1), ids("category", &[&["shoes", "hats"], &[], &["shoes"]])),
            (Input::BehaviorImage, images(&[&["1.png"], &[], &[]])),
            (Input::Ad(0), ids("item", &[&["3"], &["4"], &["1"], &["5"], &["78"], &["2"]])),
        ];
        for (input, expected) in cases {
            assert_eq!(lists(input, 2), expected, "{input:?}");
        }
    }
}
