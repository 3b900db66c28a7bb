//! Which samples are read: the split, and what is held out of a training to validate it.
//!
//! Users are spread over the parts of a dataset by hash. `train.validation_parts` of the training
//! samples' parts are held out, the last one of each run of `parts / validation_parts` parts, so
//! that lanes, which own runs of parts, lose about the same. `train.validation_tail` holds out the
//! newest groups of all users instead.

use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::{GroupTime, SampleFile};
use ams_fabric::{Fabric, gather, together};

use crate::error::{Error, Result};
use crate::settings::TrainConfig;

/// Some samples of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Training or test samples.
    pub split: SplitName,
    /// Test samples are never held out: [`Subset::All`].
    pub subset: Subset,
}

impl Selection {
    /// The training samples that are learned from.
    pub(crate) const LEARNED: Selection =
        Selection { split: SplitName::Train, subset: Subset::Learned };

    /// The training samples that are held out.
    pub(crate) const HELD_OUT: Selection =
        Selection { split: SplitName::Train, subset: Subset::HeldOut };
}

/// Samples by whether they are held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subset {
    /// All samples of the split.
    All,
    /// Those that are learned from.
    Learned,
    /// Those that are held out.
    HeldOut,
}

/// The training samples that are held out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeldOut {
    /// Number of parts, with all of their users.
    pub parts: usize,
    /// The time, in unix seconds, from which on groups are held out.
    pub from: Option<i64>,
}

/// The times of groups that are read; a group has the time of its first impression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Period {
    /// Groups of any time.
    Always,
    /// Before this one, in unix seconds.
    Before(i64),
    /// This one, in unix seconds, and later.
    From(i64),
}

impl Period {
    /// Whether a group of this time is read.
    pub(crate) fn contains(self, time: i64) -> bool {
        match self {
            Period::Always => true,
            Period::Before(end) => time < end,
            Period::From(begin) => time >= begin,
        }
    }
}

impl HeldOut {
    /// What `train` holds out of `dataset`. All processes call it together and read a share each.
    ///
    /// # Errors
    /// If samples cannot be read, or all of them have one time.
    pub(crate) fn of(
        train: &TrainConfig,
        dataset: &Dataset,
        fabric: &mut dyn Fabric,
    ) -> Result<HeldOut> {
        let parts = train.validation_parts;
        if train.validation_tail == 0.0 {
            return Ok(HeldOut { parts, from: None });
        }
        let read = group_times(dataset, fabric.rank(), fabric.size());
        let times = together(fabric, read)?;
        let all = dataset.card().counts.train;
        let most = (f64::from(train.validation_tail) * all as f64) as u64;
        let from = begin_of_tail(&times, most, fabric)?;
        Ok(HeldOut { parts, from: Some(from) })
    }

    /// Whether any sample is held out.
    pub(crate) fn is_any(self) -> bool {
        self.parts > 0 || self.from.is_some()
    }

    /// Whether `subset` has groups of part `part` of `parts`.
    pub(crate) fn reads(self, subset: Subset, part: usize, parts: usize) -> bool {
        if self.parts == 0 {
            // A tail is of all parts.
            return subset != Subset::HeldOut || self.from.is_some();
        }
        let is_held_out = (part + 1).is_multiple_of(parts / self.parts);
        match subset {
            Subset::All => true,
            Subset::Learned => !is_held_out,
            Subset::HeldOut => is_held_out,
        }
    }

    /// The times of the groups of `subset`.
    pub(crate) fn period(self, subset: Subset) -> Period {
        match (subset, self.from) {
            (Subset::Learned, Some(from)) => Period::Before(from),
            (Subset::HeldOut, Some(from)) => Period::From(from),
            _ => Period::Always,
        }
    }
}

/// The groups of every `of`-th part of the training samples, from part `first` on.
fn group_times(dataset: &Dataset, first: usize, of: usize) -> Result<Vec<GroupTime>> {
    let mut times = Vec::new();
    for part in (first..dataset.card().parts).step_by(of) {
        let path = dataset.part_path(SplitName::Train, part);
        let file = SampleFile::open(&path, dataset.schema())?;
        for block in 0..file.blocks() {
            times.extend(file.group_times(block)?);
        }
    }
    Ok(times)
}

/// The least time from which on all processes together have at most `most` impressions, found by
/// bisection; `times` are the groups of this process.
fn begin_of_tail(times: &[GroupTime], most: u64, fabric: &mut dyn Fabric) -> Result<i64> {
    let bound = |time: Option<i64>| time.unwrap_or(0) as u64;
    let (least, last) =
        (times.iter().map(|group| group.time), times.iter().map(|group| group.time));
    let mine = [u64::from(!times.is_empty()), bound(least.min()), bound(last.max())];
    let all = gather::numbers(fabric, &mine)?;
    let some = || all.iter().filter(|numbers| numbers[0] > 0);
    let (Some(mut low), Some(last)) = (
        some().map(|numbers| numbers[1] as i64).min(),
        some().map(|numbers| numbers[2] as i64).max(),
    ) else {
        return Err(tail_is_empty());
    };
    // The tail that begins after the last time is empty: it fits.
    let mut high = last.saturating_add(1);
    let first = low;
    while low < high {
        let middle = low + ((i128::from(high) - i128::from(low)) / 2) as i64;
        let since = times.iter().filter(|group| group.time >= middle);
        let mine: u64 = since.map(|group| u64::from(group.impressions)).sum();
        let count: u64 = gather::numbers(fabric, &[mine])?.iter().flatten().sum();
        if count <= most {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    if low > last || low == first { Err(tail_is_empty()) } else { Ok(low) }
}

fn tail_is_empty() -> Error {
    let what = "the newest impressions have one time, or there are too few: no group is held out, or all are; \
                set train.validation_tail = 0 and hold out users by train.validation_parts";
    Error::Config { key: "train.validation_tail".to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use ams_fabric::{Solo, ThreadFabric};

    use super::*;

    #[test]
    fn held_out_parts_are_spread_evenly() {
        for (parts, held_out) in [(64, 1), (64, 8), (64, 32), (4, 2)] {
            let held = HeldOut { parts: held_out, from: None };
            let of = |subset: Subset| -> Vec<usize> {
                (0..parts).filter(|&part| held.reads(subset, part, parts)).collect()
            };
            let (learned, held) = (of(Subset::Learned), of(Subset::HeldOut));
            assert_eq!((held.len(), learned.len()), (held_out, parts - held_out));
            let expected: Vec<usize> = (1..=held_out).map(|n| n * (parts / held_out) - 1).collect();
            assert_eq!(held, expected);
            assert_eq!(of(Subset::All).len(), parts);
        }
        let nothing = HeldOut::default();
        assert!((0..64).all(|part| nothing.reads(Subset::Learned, part, 64)));
        assert!(!(0..64).any(|part| nothing.reads(Subset::HeldOut, part, 64)));
    }

    #[test]
    fn a_tail_is_the_newest_groups_whatever_the_number_of_processes() {
        let times: Vec<GroupTime> = (0..100_u32)
            .map(|n| GroupTime {
                time: i64::from(n * 7919 % 50) * 86_400 - 3,
                impressions: 1 + n % 3,
            })
            .collect();
        let total: u64 = times.iter().map(|group| u64::from(group.impressions)).sum();
        let since = |from: i64| -> u64 {
            let newer = times.iter().filter(|group| group.time >= from);
            newer.map(|group| u64::from(group.impressions)).sum()
        };
        for most in [total / 10, total / 3, total - 10] {
            let alone = begin_of_tail(&times, most, &mut Solo).unwrap();
            let expected = times.iter().map(|group| group.time).filter(|&time| since(time) <= most);
            // The least possible time follows the newest one that is learned from.
            let newest = times.iter().map(|group| group.time).filter(|&time| since(time) > most);
            assert_eq!(since(alone), since(expected.min().unwrap()));
            assert_eq!(alone, newest.max().unwrap() + 1);
            for found in ThreadFabric::run(4, |mut fabric| {
                let mine: Vec<GroupTime> =
                    times.iter().skip(fabric.rank()).step_by(4).copied().collect();
                begin_of_tail(&mine, most, &mut fabric).unwrap()
            }) {
                assert_eq!(found, alone);
            }
        }
        for most in [0, total] {
            let error = begin_of_tail(&times, most, &mut Solo).expect_err("none").to_string();
            assert!(error.contains("train.validation_tail"), "{error}");
        }
    }
}
