//! Negatives for logs that hold positives only. Knows items, instants and a seed; not where they
//! come from.
//!
//! Every draw is a hash of (seed, user, which event, which try), so it depends on nothing else: not
//! on the order of the rows, the parts or the threads. A negative is never an item the user has had
//! at any time, and the negatives of one event differ.
//!
//! Items held out of training are drawn for the test only, and there like all others: popularity
//! counts the positives of the training *period*, also those that the hold-out takes from the
//! training. Otherwise a held-out item would be a positive whenever the test shows it, and not to
//! know an item would tell the label. Hence the negatives of the test are the same with and without
//! a hold-out, and those of the training differ only where they would have been held out.

mod around;
mod contemporary;
mod positive;
mod strata;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::around::{Around, DAY};
use self::contemporary::Following;
pub(crate) use self::positive::Positive;
use self::strata::Strata;
use crate::{Id, part_of};

/// How negatives are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every item of the catalogue alike.
    Uniform,
    /// In proportion to the positives of the training period, those of held-out items among them.
    #[default]
    Popularity,
    /// As `popularity`, but each negative of a positive from another stratum of items: those that
    /// are had most, .., those that are had least, of equal positives.
    Stratified,
    /// Other users' next positives from the same side of the split: no count of an item's own past
    /// tells the label.
    Contemporary,
    /// Other users' positives within some days before and after, from the same side of the split.
    /// Those before count themselves in the past of their item, which tells the label where items
    /// are had seldom; for datasets as version 0.1 made them.
    Around,
}

impl Method {
    /// As the card spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Uniform => "uniform",
            Method::Popularity => "popularity",
            Method::Stratified => "stratified",
            Method::Contemporary => "contemporary",
            Method::Around => "around",
        }
    }
}

/// Which negatives are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeOptions {
    /// Number of negatives per positive.
    pub count: u32,
    /// How they are drawn.
    pub method: Method,
    /// How many days after (for `around`: before and after) count as the same time.
    pub days: u32,
    /// The seed of the draw.
    pub seed: u64,
}

impl Default for NegativeOptions {
    fn default() -> Self {
        NegativeOptions { count: 4, method: Method::default(), days: 3, seed: 1 }
    }
}

/// What came of the draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// Number of drawn negatives.
    pub negatives: u64,
    /// Of these, drawn uniformly because the method found nothing new in [`TRIES`] tries.
    pub fallback: u64,
    /// Negatives that do not exist: the user has had every other item (that is not held out).
    pub short: u64,
}

/// Tries per negative before the uniform fallback.
pub const TRIES: u64 = 64;

/// Draws negatives, after it has seen the positives of all users.
pub(crate) struct Sampler {
    options: NegativeOptions,
    /// Of every item of the catalogue, whether it is held out of training.
    held_out: Vec<bool>,
    /// Positives per item in the training period; summed up once settled.
    popularity: Vec<u64>,
    strata: Strata,
    /// Train and test, for `contemporary`.
    following: [Following; 2],
    /// Train and test, for `around`.
    around: [Around; 2],
}

impl Sampler {
    /// For a catalogue of which these items are held out of training.
    pub(crate) fn new(options: &NegativeOptions, held_out: &[bool]) -> Sampler {
        let items = |method| if options.method == method { held_out.len() } else { 0 };
        Sampler {
            options: options.clone(),
            held_out: held_out.to_vec(),
            popularity: vec![0; items(Method::Popularity)],
            strata: Strata::new(items(Method::Stratified)),
            following: [(); 2].map(|()| Following::new(items(Method::Contemporary))),
            around: Default::default(),
        }
    }

    /// Whether [`Sampler::observe`] has to see the positives before the first draw.
    pub(crate) fn needs_survey(&self) -> bool {
        self.options.method != Method::Uniform
    }

    /// Sees all positives of one user, who has had the items `had`.
    pub(crate) fn observe(&mut self, had: &[u32], positives: impl Iterator<Item = Positive>) {
        let mut counts = [0; 2];
        for positive in positives {
            counts[usize::from(positive.test)] += 1;
            let side = usize::from(positive.test);
            match self.options.method {
                Method::Uniform => {}
                Method::Popularity | Method::Stratified if positive.test => {}
                Method::Popularity => self.popularity[positive.item as usize] += 1,
                Method::Stratified => self.strata.add(positive.item),
                Method::Contemporary => self.following[side].add(&positive),
                Method::Around => self.around[side].add(positive),
            }
        }
        if self.options.method == Method::Contemporary {
            let sides = self.following.iter_mut().zip(counts);
            sides.for_each(|(side, positives)| side.add_user(had, positives));
        }
    }

    pub(crate) fn settle(&mut self) {
        let mut sum = 0;
        for count in &mut self.popularity {
            sum += *count;
            *count = sum;
        }
        self.strata.settle();
        self.following.iter_mut().for_each(Following::settle);
        self.around.iter_mut().for_each(Around::settle);
    }

    /// Draws the negatives of positive number `index` of its user, who has had the items `had`
    /// (ascending).
    pub(crate) fn draw(
        &self,
        positive: Positive,
        index: usize,
        had: &[u32],
        drawn: &mut Drawn,
        to: &mut Vec<u32>,
    ) {
        to.clear();
        let dice = Dice { seed: self.options.seed, user: positive.user, index: index as u64 };
        let items = self.held_out.len();
        let allowed = |item: u32| positive.test || !self.held_out[item as usize];
        if self.options.method == Method::Contemporary {
            self.draw_contemporary(positive, had, &dice, to);
        }
        for number in to.len() as u64..u64::from(self.options.count) {
            let throws = number * (2 * TRIES + 1);
            let new = |item: &u32| {
                allowed(*item) && had.binary_search(item).is_err() && !to.contains(item)
            };
            let mut tries = (0..TRIES).filter_map(|nth| {
                let at = throws + 2 * nth;
                let throws = [dice.throw(at), dice.throw(at + 1)];
                // A stratum of which little is left gives its turn to all items.
                let stratum = (nth < TRIES / 2).then_some(number);
                self.propose(positive, stratum, throws)
            });
            let found = tries.find(|item| new(item)).or_else(|| {
                let start = part_of(dice.throw(throws + 2 * TRIES), items);
                let found =
                    (start..items).chain(0..start).map(|item| item as u32).find(|item| new(item));
                drawn.fallback += u64::from(found.is_some());
                found
            });
            match found {
                Some(item) => to.push(item),
                None => drawn.short += 1,
            }
        }
        drawn.negatives += to.len() as u64;
    }

    /// Draws as if nothing was held out; where a held-out item comes, another one takes its place.
    fn draw_contemporary(&self, positive: Positive, had: &[u32], dice: &Dice, to: &mut Vec<u32>) {
        let side = &self.following[usize::from(positive.test)];
        let seconds = i64::from(self.options.days) * DAY;
        let count = self.options.count as usize;
        let first = u64::from(self.options.count) * (2 * TRIES + 1);
        let fraction = |throw: u64| (throw >> 11) as f64 / (1u64 << 53) as f64;
        let drawn = side.draw(&positive, count, seconds, had, fraction(dice.throw(first)));
        let allowed = |item: &u32| positive.test || !self.held_out[*item as usize];
        if drawn.iter().all(allowed) {
            return to.extend(drawn);
        }
        // The others stay, and are no candidates for the places that are left.
        let is_taken = |item: &u32| !allowed(item) || drawn.contains(item);
        let held = drawn.iter().filter(|&item| !allowed(item)).count();
        let start = fraction(dice.throw(first + 1));
        let more = side.draw_but(&positive, held, seconds, had, is_taken, start);
        let mut more = more.into_iter();
        to.extend(
            drawn.iter().filter_map(|&item| if allowed(&item) { Some(item) } else { more.next() }),
        );
    }

    /// An item for one try; `stratum` limits it, where there are strata.
    fn propose(
        &self,
        positive: Positive,
        stratum: Option<u64>,
        [first, second]: [u64; 2],
    ) -> Option<u32> {
        match self.options.method {
            Method::Uniform => Some(part_of(first, self.held_out.len()) as u32),
            Method::Popularity => {
                let total = *self.popularity.last()?;
                let at = part_of(first, usize::try_from(total).ok()?) as u64;
                (total > 0).then(|| self.popularity.partition_point(|&sum| sum <= at) as u32)
            }
            Method::Stratified => {
                let strata = u64::from(self.options.count);
                let [at, of] = stratum.map_or([0, 1], |stratum| [stratum, strata]);
                self.strata.propose(at, of, first)
            }
            // Drawn at once.
            Method::Contemporary => None,
            Method::Around => self.around[usize::from(positive.test)].propose(
                positive,
                i64::from(self.options.days) * DAY,
                first,
                second,
            ),
        }
    }
}

struct Dice {
    seed: u64,
    user: Id,
    index: u64,
}

impl Dice {
    fn throw(&self, at: u64) -> u64 {
        let words = [self.user.0, self.index, at].map(u64::to_le);
        xxh3_64_with_seed(bytemuck::bytes_of(&words), self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Method; 5] = [
        Method::Uniform,
        Method::Popularity,
        Method::Stratified,
        Method::Contemporary,
        Method::Around,
    ];

    fn positive(user: u64, time: i64, item: u32) -> Positive {
        Positive { user: Id(user), time, item, test: false }
    }

    /// The negatives of 300 positives of user 1 at `time` after everyone's positives were `seen`.
    fn draws(method: Method, seen: &[Positive], had: &[u32], time: i64) -> (Vec<Vec<u32>>, Drawn) {
        draws_for(positive(1, time, had[0]), method, seen, had, &[false; 10])
    }

    fn draws_for(
        positive: Positive,
        method: Method,
        seen: &[Positive],
        had: &[u32],
        held_out: &[bool],
    ) -> (Vec<Vec<u32>>, Drawn) {
        let options = NegativeOptions { count: 3, method, days: 1, seed: 7 };
        let mut sampler = Sampler::new(&options, held_out);
        seen.iter().for_each(|&positive| sampler.observe(&[], [positive].into_iter()));
        sampler.settle();
        let mut drawn = Drawn::default();
        let mut to = Vec::new();
        let all = (0..300).map(|index| {
            sampler.draw(positive, index, had, &mut drawn, &mut to);
            to.clone()
        });
        (all.collect(), drawn)
    }

    fn share(all: &[Vec<u32>], item: u32) -> f64 {
        let values: Vec<_> = all.iter().flatten().collect();
        values.iter().filter(|&&&found| found == item).count() as f64 / values.len() as f64
    }

    #[test]
    fn uniform_draws_every_item_alike_but_none_the_user_had() {
        let (all, drawn) = draws(Method::Uniform, &[], &[0, 1], 0);
        assert_eq!((share(&all, 0), share(&all, 1)), (0.0, 0.0));
        assert!((2..10).all(|item| (share(&all, item) - 0.125).abs() < 0.03));
        assert!(
            all.iter()
                .all(|items| items.len() == 3 && items[0] != items[1] && items[1] != items[2])
        );
        assert_eq!(drawn, Drawn { negatives: 900, fallback: 0, short: 0 });
    }

    #[test]
    fn popularity_follows_the_training_positives() {
        let mut seen: Vec<_> =
            (0..96).map(|n| positive(2 + n, 0, [3, 4, 4, 5, 6, 7][n as usize % 6])).collect();
        seen.push(Positive { test: true, ..positive(9, 0, 8) });
        let (all, _) = draws(Method::Popularity, &seen, &[0], 0);
        let first: Vec<_> = all.iter().map(|items| vec![items[0]]).collect();
        assert!((share(&first, 4) - 2.0 / 6.0).abs() < 0.08);
        assert_eq!(share(&all, 8), 0.0);
    }

    /// Of 60 positives items 2 and 3 have 20, item 4 has 10, items 5 and 6 have 5: three strata.
    #[test]
    fn every_stratum_of_popularity_has_one_of_three_negatives() {
        let counts = [(2, 20), (3, 20), (4, 10), (5, 5), (6, 5)];
        let each = counts.iter().flat_map(|&(item, count)| (0..count).map(move |_| item));
        let mut seen: Vec<_> =
            each.enumerate().map(|(n, item)| positive(2 + n as u64, 0, item)).collect();
        seen.push(Positive { test: true, ..positive(90, 0, 8) });
        let (all, drawn) = draws(Method::Stratified, &seen, &[0], 0);
        let strata: [&[u32]; 3] = [&[2], &[3], &[4, 5, 6]];
        assert!(all.iter().all(|items| {
            items.len() == 3 && items.iter().zip(strata).all(|(item, of)| of.contains(item))
        }));
        assert_eq!(drawn, Drawn { negatives: 900, fallback: 0, short: 0 });
        // Within a stratum in proportion to popularity.
        let last: Vec<_> = all.iter().map(|items| vec![items[2]]).collect();
        assert!((share(&last, 4) - 0.5).abs() < 0.1 && (share(&last, 5) - 0.25).abs() < 0.1);
        // Whose first stratum is had, has all others in its place.
        let (all, drawn) = draws(Method::Stratified, &seen, &[0, 2], 0);
        assert!(all.iter().all(|items| items.len() == 3 && !items.contains(&2)));
        assert_eq!((share(&all, 8), drawn.fallback), (0.0, 0));
        seen.reverse();
        assert_eq!(all, draws(Method::Stratified, &seen, &[0, 2], 0).0, "any order of the log");
    }

    #[test]
    fn those_around_are_near_in_time_and_of_other_users() {
        let mut seen: Vec<_> = (2..6).map(|item| positive(item.into(), 1_000_000, item)).collect();
        seen.push(positive(2, 1_000_000 + DAY + 1, 8));
        seen.push(positive(1, 1_000_000, 9));
        let (all, drawn) = draws(Method::Around, &seen, &[0, 9], 1_000_000);
        assert!(all.iter().flatten().all(|item| (2..6).contains(item)));
        assert_eq!(drawn.fallback, 0);
    }

    #[test]
    fn held_out_items_are_drawn_for_the_test_only_and_there_as_if_nothing_was_held_out() {
        let seen: Vec<_> = (0..90).map(|n| positive(2 + n, 0, 2 + (n % 9 / 2) as u32)).collect();
        let mut held_out = [false; 10];
        held_out[2..4].fill(true);
        for method in ALL {
            let train = positive(1, 0, 0);
            let (all, drawn) = draws_for(train, method, &seen, &[0], &held_out);
            assert!(
                all.iter()
                    .all(|items| items.len() == 3 && !items.iter().any(|i| [2, 3].contains(i)))
            );
            assert_eq!(drawn.short, 0);
            // Who was not held out stays.
            let (free, _) = draws(method, &seen, &[0], 0);
            let same = |a: &[u32], b: &[u32]| [2, 3].contains(&a[0]) || a[0] == b[0];
            assert!(free.iter().zip(&all).all(|(free, held)| same(free, held)));

            let test = Positive { test: true, ..train };
            let seen: Vec<_> =
                seen.iter().flat_map(|&p| [p, Positive { test: true, ..p }]).collect();
            let (held, _) = draws_for(test, method, &seen, &[0], &held_out);
            assert_eq!(held, draws_for(test, method, &seen, &[0], &[false; 10]).0);
            assert!(share(&held, 2) > 0.05);
        }
    }

    #[test]
    fn a_user_who_has_had_nearly_everything() {
        let (all, drawn) =
            draws(Method::Popularity, &[positive(2, 0, 0)], &[0, 1, 2, 3, 4, 5, 6, 7], 0);
        assert!(all.iter().all(|items| {
            let mut sorted = items.clone();
            sorted.sort_unstable();
            sorted == [8, 9]
        }));
        assert_eq!(drawn, Drawn { negatives: 600, fallback: 600, short: 300 });
    }
}
