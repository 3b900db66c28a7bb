//! How well the labels of a dataset are told by popularity alone: the AUC of how often an item was
//! had, by anybody, in the days before an impression. Knows items, times and labels of impressions;
//! not how they were made.
//!
//! Where negatives are sampled, this AUC is a property of the sampling and not of anybody's taste:
//! far from .5 a model learns the sampling, from ids, from an item's age, from any count.
//!
//! Two passes over the impressions. The first keeps the positive events of the items, of one item
//! in 2, 4, 8, .. where these are more than [`HELD`]. The second counts for each impression of
//! these items the events strictly before it, into a histogram per window, half and label.

use hashbrown::HashMap;
use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::{Dataset, SplitName};
use crate::schema::Labels;
use crate::{Id, Result, SampleFile};

/// The windows, in days.
pub const DAYS: [u32; 4] = [1, 3, 7, 30];

/// How far from .5 an AUC may be.
pub const TOLERANCE: f64 = 0.02;

/// Positive events that are held.
const HELD: usize = 1 << 22;

const DAY: i64 = 86_400;

/// How well an item's past tells the label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OwnPast {
    /// One per window of [`DAYS`].
    pub windows: Vec<Window>,
    /// The share of the training's negatives whose item is had for the first time later than they
    /// are shown, if there is a negative.
    pub train_before_first: Option<f64>,
    /// The same of the test.
    pub test_before_first: Option<f64>,
    /// Of how many items one was looked at: a power of two, 1 for all.
    pub one_item_in: u64,
}

/// The counts of one window of days.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Length of the window, in days.
    pub days: u32,
    /// Of the training impressions; none if there is only one label.
    pub train: Option<Told>,
    /// Of the test impressions alone.
    pub test: Option<Told>,
}

/// An AUC and what it may owe to chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Told {
    /// The chance that a positive's item was had more often before than a negative's; a tie counts
    /// half.
    pub auc: f64,
    /// Two standard errors of an AUC of labels that know nothing.
    pub by_chance: f64,
}

impl Told {
    /// Of positives and negatives by count.
    fn of(counts: &HashMap<u32, [u64; 2]>) -> Option<Told> {
        let mut counts: Vec<_> = counts.iter().map(|(&count, &seen)| (count, seen)).collect();
        counts.sort_unstable_by_key(|&(count, _)| count);
        Told::of_ascending(counts.into_iter().map(|(_, seen)| seen))
    }

    /// Of negatives and positives by ascending score; none if there is only one label.
    pub(crate) fn of_ascending(counts: impl Iterator<Item = [u64; 2]>) -> Option<Told> {
        let (mut negatives, mut positives, mut twice_won) = (0, 0, 0u128);
        for [negative, positive] in counts {
            twice_won += u128::from(positive) * u128::from(2 * negatives + negative);
            negatives += negative;
            positives += positive;
        }
        let pairs = u128::from(positives) * u128::from(negatives);
        (pairs > 0).then(|| Told {
            auc: twice_won as f64 / (2.0 * pairs as f64),
            by_chance: 2.0 * ((positives + negatives + 1) as f64 / (12.0 * pairs as f64)).sqrt(),
        })
    }

    fn excess(&self) -> f64 {
        (self.auc - 0.5).abs() - TOLERANCE - self.by_chance
    }
}

impl OwnPast {
    /// Looks at all of a dataset.
    ///
    /// # Errors
    /// As [`SampleFile::open`] and [`SampleFile::read`].
    pub fn of(dataset: &Dataset) -> Result<OwnPast> {
        let files = |split| (0..dataset.card().parts).map(move |part| (split, part));
        let files: Vec<_> = SplitName::ALL.into_iter().flat_map(files).collect();
        let open = |&(split, part): &(SplitName, usize)| {
            SampleFile::open(&dataset.part_path(split, part), dataset.schema())
        };
        let mut events = Events::new(HELD);
        for file in &files {
            open(file)?.for_each_impression(|item, time, label| {
                if label == 1 {
                    events.add(item, time);
                }
            })?;
        }
        events.settle();
        let counted: Vec<Result<(SplitName, Half)>> = files
            .par_iter()
            .map(|file| {
                let mut seen = Half::default();
                open(file)?.for_each_impression(|item, time, label| {
                    if let Some(before) = events.before(item, time) {
                        seen.histograms.add(before, label);
                        seen.negatives += u64::from(label == 0);
                        let is_early = label == 0 && events.begins_after(item, time);
                        seen.early += u64::from(is_early);
                    }
                })?;
                Ok((file.0, seen))
            })
            .collect();
        let mut halves = [Half::default(), Half::default()];
        for counted in counted {
            let (split, seen) = counted?;
            halves[usize::from(split == SplitName::Test)].merge(seen);
        }
        let [train_before_first, test_before_first] = halves.each_ref().map(Half::before_first);
        let [train, test] = halves.map(|half| half.histograms.0.each_ref().map(Told::of));
        let windows = DAYS.iter().zip(train).zip(test);
        let windows = windows.map(|((&days, train), test)| Window { days, train, test }).collect();
        Ok(OwnPast {
            windows,
            train_before_first,
            test_before_first,
            one_item_in: 1 << events.halvings,
        })
    }

    /// What a user has to know, if labels were sampled and can be told; and the way out.
    pub fn warning(&self, labels: &Labels) -> Option<String> {
        let Labels::Sampled { method, .. } = labels else { return None };
        let told = self.windows.iter().flat_map(|window| {
            [("train", window.train), ("test", window.test)]
                .into_iter()
                .filter_map(move |(half, told)| Some((window.days, half, told?)))
        });
        let worst = told.max_by(|(_, _, one), (_, _, two)| one.excess().total_cmp(&two.excess()));
        let (days, half, worst) = worst.filter(|(_, _, told)| told.excess() > 0.0)?;
        let days = if days == 1 { "day".to_string() } else { format!("{days} days") };
        let who = if worst.auc > 0.5 { "clicked" } else { "drawn" };
        let way_out = match &method[..] {
            "contemporary" => {
                "draw with fewer --negatives-days or fewer --negatives, and compare every model with a ranking by \
                 that count"
            }
            _ => "draw them with --negatives-from contemporary",
        };
        Some(format!(
            "how often an item was had in the last {days} tells {who} items by itself ({half} AUC {:.3}, expected \
             {:.2} to {:.2}): the negatives were drawn so ({method}), and a model will learn that instead of taste; \
             {way_out}",
            worst.auc,
            0.5 - TOLERANCE,
            0.5 + TOLERANCE,
        ))
    }
}

/// What is counted of train or test.
#[derive(Default)]
struct Half {
    histograms: Histograms,
    negatives: u64,
    /// Negatives of items that are had for the first time later.
    early: u64,
}

impl Half {
    fn merge(&mut self, other: Half) {
        self.histograms.merge(other.histograms);
        self.negatives += other.negatives;
        self.early += other.early;
    }

    fn before_first(&self) -> Option<f64> {
        (self.negatives > 0).then(|| self.early as f64 / self.negatives as f64)
    }
}

/// Impressions by window, count and label.
#[derive(Default)]
struct Histograms([HashMap<u32, [u64; 2]>; DAYS.len()]);

impl Histograms {
    fn add(&mut self, before: [u32; DAYS.len()], label: u8) {
        for (seen, count) in self.0.iter_mut().zip(before) {
            seen.entry(count).or_default()[usize::from(label)] += 1;
        }
    }

    fn merge(&mut self, other: Histograms) {
        for (mine, its) in self.0.iter_mut().zip(other.0) {
            for (count, [negatives, positives]) in its {
                let sum = mine.entry(count).or_default();
                sum[0] += negatives;
                sum[1] += positives;
            }
        }
    }
}

/// When items were had.
struct Events {
    times: HashMap<Id, Vec<i64>>,
    held: usize,
    most: usize,
    /// Items stay whose ids end in so many zero bits.
    halvings: u32,
}

impl Events {
    fn new(most: usize) -> Events {
        Events { times: HashMap::new(), held: 0, most, halvings: 0 }
    }

    fn stays(&self, item: Id) -> bool {
        item.0.trailing_zeros() >= self.halvings
    }

    fn add(&mut self, item: Id, time: i64) {
        if !self.stays(item) {
            return;
        }
        self.times.entry(item).or_default().push(time);
        self.held += 1;
        // A single item may have more; it stays as long as it is among one in 2^32.
        while self.held > self.most && self.halvings < 32 {
            self.halvings += 1;
            let halvings = self.halvings;
            self.times.retain(|item, _| item.0.trailing_zeros() >= halvings);
            self.held = self.times.values().map(Vec::len).sum();
        }
    }

    fn settle(&mut self) {
        self.times.values_mut().for_each(|times| times.sort_unstable());
    }

    /// Whether the item is had, but not until `time`.
    fn begins_after(&self, item: Id, time: i64) -> bool {
        self.times.get(&item).is_some_and(|times| times[0] > time)
    }

    /// Events of the item strictly before `time`, in each window; none if it is not looked at.
    fn before(&self, item: Id, time: i64) -> Option<[u32; DAYS.len()]> {
        if !self.stays(item) {
            return None;
        }
        let Some(times) = self.times.get(&item) else { return Some([0; DAYS.len()]) };
        let end = times.partition_point(|&at| at < time);
        Some(DAYS.map(|days| {
            let from = time.saturating_sub(i64::from(days) * DAY);
            let count = end - times[..end].partition_point(|&at| at < from);
            u32::try_from(count).unwrap_or(u32::MAX)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auc_from_counts_is_that_of_all_pairs() {
        for (positives, negatives) in [
            (vec![1, 2, 3], vec![0, 2, 2]),
            (vec![0, 0], vec![5]),
            (vec![4; 7], vec![4; 3]),
            (vec![], vec![1]),
        ] {
            let mut counts = HashMap::<u32, [u64; 2]>::new();
            positives.iter().for_each(|&count| counts.entry(count).or_default()[1] += 1);
            negatives.iter().for_each(|&count| counts.entry(count).or_default()[0] += 1);
            let pairs =
                positives.iter().flat_map(|one| negatives.iter().map(move |two| (one, two)));
            let won = pairs.clone().map(|(one, two)| match one.cmp(two) {
                std::cmp::Ordering::Less => 0.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 1.0,
            });
            let pairs = pairs.clone().count();
            let expected = (pairs > 0).then(|| won.sum::<f64>() / pairs as f64);
            assert_eq!(Told::of(&counts).map(|told| told.auc), expected);
        }
    }

    #[test]
    fn which_items_are_held_does_not_depend_on_the_order() {
        let mut forwards = Events::new(50);
        let mut backwards = Events::new(50);
        let events: Vec<_> =
            (0..1000u64).map(|n| (Id::of("item", &(n % 90).to_string()), n as i64)).collect();
        events.iter().for_each(|&(item, time)| forwards.add(item, time));
        events.iter().rev().for_each(|&(item, time)| backwards.add(item, time));
        forwards.settle();
        backwards.settle();
        assert_eq!(forwards.halvings, backwards.halvings);
        assert_eq!(forwards.times, backwards.times);
        assert!(forwards.held <= 50 && forwards.held > 0);
    }

    #[test]
    fn the_past_is_strictly_before_and_within_the_window() {
        let mut events = Events::new(99);
        let item = Id(8);
        [0, 10 * DAY, 10 * DAY, 12 * DAY].iter().for_each(|&time| events.add(item, time));
        events.settle();
        assert_eq!(events.before(item, 12 * DAY), Some([0, 2, 2, 3]));
        assert_eq!(events.before(item, 12 * DAY + 1), Some([1, 3, 3, 4]));
        assert_eq!(events.before(item, 13 * DAY), Some([1, 3, 3, 4]));
        assert_eq!(events.before(Id(9), 0), Some([0; 4]));
    }
}
