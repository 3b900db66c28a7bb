//! What is measured of one field: whether it tells the label, how often its values are seen, and
//! how the test differs from the training.

use hashbrown::HashMap;
use serde::Serialize;

use super::rows::{Column, MISSING, Rows};
use crate::Id;
use crate::own_past::Told;
use crate::schema::Side;

/// Impressions at the mean rate that are added to those of a value, so that few say little.
const PRIOR: f64 = 5.0;

/// Values with a bin of their own in a population stability index; the rest share one.
const BINS: usize = 18;

/// Parts of equal size that numbers are divided into.
const PARTS: usize = 10;

/// The figures of a field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldFigures {
    /// The field, or the column of a table of events.
    pub name: String,
    /// What it describes; none of a table of events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<Side>,
    /// Distinct values of the training.
    pub distinct: u64,
    /// Share of the impressions without a value.
    pub missing: f64,
    /// Share of the distinct values that the training has once.
    pub once: f64,
    /// Share of the training impressions that have such a value.
    pub once_impressions: f64,
    /// How well the click rates of the values, counted on one half of the training, tell the labels
    /// of the other half.
    pub told: Option<Told>,
    /// How well its number tells the label, if it has numbers.
    pub number_told: Option<Told>,
    /// Share of the test impressions none of whose values the training has.
    pub unseen: Option<f64>,
    /// Population stability index between training and test: the sum of `(q - p) ln(q / p)` over
    /// bins with shares p and q.
    pub stability: Option<f64>,
    /// The index that equal populations of these sizes have by chance, twice its mean.
    pub stability_by_chance: f64,
}

impl FieldFigures {
    pub(super) fn of(rows: &Rows, column: &Column) -> FieldFigures {
        let train: Vec<usize> = (0..rows.len()).filter(|&row| !rows.is_test[row]).collect();
        let test: Vec<usize> = (0..rows.len()).filter(|&row| rows.is_test[row]).collect();
        let mut counts: HashMap<Id, u64> = HashMap::new();
        for &row in &train {
            column.values.row(row).iter().for_each(|&id| *counts.entry(id).or_default() += 1);
        }
        let share = |count: usize, all: usize| count as f64 / all.max(1) as f64;
        let empty = |row: usize| column.values.row(row).iter().all(|&id| id == MISSING);
        let is_once = |id: &Id| *id != MISSING && counts.get(id) == Some(&1);
        let has_once = |row: &&usize| column.values.row(**row).iter().any(&is_once);
        let is_unseen = |row: &&usize| {
            !empty(**row) && !column.values.row(**row).iter().any(|id| counts.contains_key(id))
        };
        let distinct = counts.len() - usize::from(counts.contains_key(&MISSING));
        let stability = (!train.is_empty() && !test.is_empty()).then(|| match &column.numbers {
            Some(numbers) => Stability::of_numbers(numbers, &train, &test),
            None => Stability::of_values(column, &counts, &test),
        });
        FieldFigures {
            name: column.name.clone(),
            side: column.side,
            distinct: distinct as u64,
            missing: share((0..rows.len()).filter(|&row| empty(row)).count(), rows.len()),
            once: share(counts.keys().filter(|id| is_once(id)).count(), distinct),
            once_impressions: share(train.iter().filter(has_once).count(), train.len()),
            told: told_by_rates(rows, column, &train),
            number_told: column.numbers.as_ref().and_then(|it| told_by_numbers(rows, it, &train)),
            unseen: (!test.is_empty())
                .then(|| share(test.iter().filter(is_unseen).count(), test.len())),
            stability: stability.as_ref().map(Stability::index),
            stability_by_chance: stability.as_ref().map_or(0.0, Stability::by_chance),
        }
    }
}

/// The half of the training that rates are counted on. Rows that are alike are in one half.
fn is_fitted(rows: &Rows, row: usize) -> bool {
    let words = [rows.users[row].0, rows.items[row].0, rows.times[row] as u64];
    xxhash_rust::xxh3::xxh3_64(bytemuck::cast_slice(&words)) & 1 == 0
}

fn told_by_rates(rows: &Rows, column: &Column, train: &[usize]) -> Option<Told> {
    let mut seen: HashMap<Id, [u64; 2]> = HashMap::new();
    let mut all = [0u64; 2];
    for &row in train.iter().filter(|&&row| is_fitted(rows, row)) {
        let label = usize::from(rows.labels[row]);
        all[label] += 1;
        column.values.row(row).iter().for_each(|&id| seen.entry(id).or_default()[label] += 1);
    }
    let mean = all[1] as f64 / (all[0] + all[1]).max(1) as f64;
    let rate = |id: &Id| {
        let [negatives, positives] = seen.get(id).copied().unwrap_or_default();
        (positives as f64 + PRIOR * mean) / ((negatives + positives) as f64 + PRIOR)
    };
    let score = |row: usize| {
        let values = column.values.row(row);
        values.iter().map(rate).sum::<f64>() / values.len() as f64
    };
    let applied = train.iter().filter(|&&row| !is_fitted(rows, row));
    told(applied.map(|&row| Scored { score: score(row), label: rows.labels[row] }))
}

/// An order by the numbers, or against it; those without a number are left out.
fn told_by_numbers(rows: &Rows, numbers: &[f64], train: &[usize]) -> Option<Told> {
    let known = train.iter().filter(|&&row| !numbers[row].is_nan());
    told(known.map(|&row| Scored { score: numbers[row], label: rows.labels[row] }))
}

struct Scored {
    score: f64,
    label: u8,
}

fn told(scored: impl Iterator<Item = Scored>) -> Option<Told> {
    let mut scored: Vec<Scored> = scored.collect();
    scored.sort_unstable_by(|a, b| a.score.total_cmp(&b.score));
    let equal = scored.chunk_by(|a, b| a.score == b.score);
    Told::of_ascending(equal.map(|equal| {
        let positives = equal.iter().filter(|it| it.label == 1).count() as u64;
        [equal.len() as u64 - positives, positives]
    }))
}

/// Counts of training and test by bin.
struct Stability {
    bins: Vec<[u64; 2]>,
}

impl Stability {
    /// The most frequent values of the training, the rest of them, and those that it lacks.
    fn of_values(column: &Column, counts: &HashMap<Id, u64>, test: &[usize]) -> Stability {
        let mut order: Vec<(Id, u64)> = counts.iter().map(|(&id, &count)| (id, count)).collect();
        order.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let (rest, unseen) = (order.len().min(BINS), order.len().min(BINS) + 1);
        let mut bins = vec![[0; 2]; unseen + 1];
        let mut place: HashMap<Id, usize> = HashMap::new();
        for (at, &(id, count)) in order.iter().enumerate() {
            bins[at.min(rest)][0] += count;
            if at < rest {
                place.insert(id, at);
            }
        }
        for id in test.iter().flat_map(|&row| column.values.row(row)) {
            let other = if counts.contains_key(id) { rest } else { unseen };
            bins[place.get(id).copied().unwrap_or(other)][1] += 1;
        }
        Stability::of(bins)
    }

    /// Parts of equal size of the training, and those without a number.
    fn of_numbers(numbers: &[f64], train: &[usize], test: &[usize]) -> Stability {
        let mut known: Vec<f64> =
            train.iter().map(|&row| numbers[row]).filter(|number| !number.is_nan()).collect();
        known.sort_unstable_by(f64::total_cmp);
        let mut edges: Vec<f64> =
            (1..PARTS).filter_map(|at| known.get(known.len() * at / PARTS)).copied().collect();
        edges.dedup();
        let mut bins = vec![[0; 2]; edges.len() + 2];
        for (half, rows) in [train, test].into_iter().enumerate() {
            for &row in rows {
                let place = match numbers[row] {
                    number if number.is_nan() => edges.len() + 1,
                    number => edges.partition_point(|&edge| edge <= number),
                };
                bins[place][half] += 1;
            }
        }
        Stability::of(bins)
    }

    fn of(mut bins: Vec<[u64; 2]>) -> Stability {
        bins.retain(|bin| bin[0] + bin[1] > 0);
        Stability { bins }
    }

    fn sums(&self) -> [f64; 2] {
        [0, 1].map(|half| self.bins.iter().map(|bin| bin[half]).sum::<u64>().max(1) as f64)
    }

    /// Half an impression more in each bin, so that an empty one has a share.
    fn index(&self) -> f64 {
        let room = 0.5 * self.bins.len() as f64;
        let [train, test] = self.sums();
        let of = |&[train_count, test_count]: &[u64; 2]| {
            let p = (train_count as f64 + 0.5) / (train + room);
            let q = (test_count as f64 + 0.5) / (test + room);
            (q - p) * (q / p).ln()
        };
        self.bins.iter().map(of).sum()
    }

    fn by_chance(&self) -> f64 {
        let [train, test] = self.sums();
        2.0 * (self.bins.len() as f64 - 1.0).max(0.0) * (1.0 / train + 1.0 / test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_that_of_its_formula() {
        let index = |bins: &[[u64; 2]]| Stability::of(bins.to_vec()).index();
        assert!(index(&[[300, 30], [700, 70]]).abs() < 1e-3);
        // 50 : 50 becomes 90 : 10.
        let expected = 0.4 * (0.9_f64 / 0.5).ln() - 0.4 * (0.1_f64 / 0.5).ln();
        let found = index(&[[50_000, 90_000], [50_000, 10_000]]);
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}
