//! How good predictions are, on all impressions and on slices of them.

use ams_model::metrics::{Impression, Metrics, log_loss};
use rayon::prelude::*;
use serde::Serialize;

pub(crate) mod off_policy;
pub(crate) mod predictions;
pub(crate) mod ranking;
pub(crate) mod retrieval;

pub(crate) use predictions::Predictions;
use ranking::Ranking;

/// The metrics of a test; `None` where a metric is not defined.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// Metrics over all impressions.
    #[serde(flatten)]
    pub all: Metrics,
    /// Of some of them; every slice is there, also an empty one.
    pub slices: Vec<Slice>,
}

/// The metrics of a part of the impressions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Slice {
    /// Name of the slice, for example `cold items`.
    pub name: String,
    /// Number of impressions in the slice.
    pub impressions: u64,
    /// Area under the ROC curve.
    pub auc: Option<f64>,
    /// AUC within users, weighted by their impressions in this part.
    pub gauc: Option<f64>,
    /// Mean cross-entropy, in nats.
    pub logloss: Option<f64>,
}

/// The properties of an impression that slices select by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traits {
    /// Training impressions of the item.
    frequency: u32,
    behaviors: u32,
    with_image: bool,
}

/// Whether an impression is in a slice.
type Member = fn(Traits) -> bool;

/// Every slice: its name and its members.
const SLICES: [(&str, Member); 12] = [
    ("cold items", |t| t.frequency == 0),
    ("warm items", |t| t.frequency > 0),
    ("items shown 1-9 times", |t| (1..10).contains(&t.frequency)),
    ("items shown 10-99 times", |t| (10..100).contains(&t.frequency)),
    ("items shown 100-999 times", |t| (100..1000).contains(&t.frequency)),
    ("items shown 1000+ times", |t| t.frequency >= 1000),
    ("no history", |t| t.behaviors == 0),
    ("history 1-4", |t| (1..5).contains(&t.behaviors)),
    ("history 5-19", |t| (5..20).contains(&t.behaviors)),
    ("history 20+", |t| t.behaviors >= 20),
    ("with image", |t| t.with_image),
    ("without image", |t| !t.with_image),
];

/// The metrics of `predictions`; `frequency` tells how many training impressions an item has. Runs
/// on the threads of the current rayon pool.
pub fn evaluate(predictions: &Predictions, frequency: &dyn Fn(u64) -> u32) -> Evaluation {
    let Predictions { users, logits, labels, .. } = predictions;
    let impressions: Vec<Impression> = (0..predictions.len())
        .map(|row| {
            let traits = Traits {
                frequency: frequency(predictions.items[row]),
                behaviors: predictions.behaviors[row],
                with_image: predictions.with_image[row],
            };
            Impression::new(users[row], logits[row], labels[row], marks(traits))
        })
        .collect();
    let slices: Vec<u16> = impressions.iter().map(|impression| impression.marks).collect();
    let ranking = Ranking::new(impressions);
    let slice = |number: usize| {
        let (auc, gauc) = ranking.of(1 << number);
        let rows = || (0..predictions.len()).filter(|&row| slices[row] >> number & 1 == 1);
        let logits: Vec<f32> = rows().map(|row| logits[row]).collect();
        let labels: Vec<u8> = rows().map(|row| labels[row]).collect();
        Slice {
            name: SLICES[number].0.to_owned(),
            impressions: labels.len() as u64,
            auc,
            gauc: gauc.gauc,
            logloss: log_loss(&logits, &labels),
        }
    };
    let all = || {
        let (auc, gauc) = ranking.of(0);
        Metrics::with_ranking(auc, gauc, logits, labels)
    };
    let slices = || (0..SLICES.len()).into_par_iter().map(slice).collect();
    let (all, slices) = rayon::join(all, slices);
    Evaluation { all, slices }
}

/// The slices an impression is in, a bit each.
fn marks(traits: Traits) -> u16 {
    let members = SLICES.iter().enumerate();
    members.fold(0, |marks, (number, (_, member))| marks | u16::from(member(traits)) << number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::noise;
    use std::collections::BTreeMap;

    /// Ties, users of one class, cold items and every length of history.
    fn predictions(seed: u64, count: usize) -> Predictions {
        let pick = |column: u64, row: usize, of: u64| {
            let noise = noise(seed * 1_000_003 + column * 10_007 + row as u64);
            (f64::from(noise + 1.0) / 2.0 * of as f64) as u64
        };
        Predictions {
            users: (0..count).map(|row| pick(1, row, 8)).collect(),
            items: (0..count).map(|row| pick(2, row, 12)).collect(),
            labels: (0..count).map(|row| pick(3, row, 2) as u8).collect(),
            logits: (0..count).map(|row| pick(4, row, 9) as f32 * 0.5 - 2.0).collect(),
            behaviors: (0..count).map(|row| pick(5, row, 30) as u32).collect(),
            with_image: (0..count).map(|row| pick(6, row, 2) == 0).collect(),
            times: vec![0; count],
        }
    }

    fn frequency(item: u64) -> u32 {
        [0, 0, 1, 9, 10, 99, 100, 999, 1000, 5000, 0, 50][item as usize]
    }

    /// The definition, pair by pair.
    fn auc(rows: &[(f32, u8)]) -> Option<f64> {
        let (mut won, mut pairs) = (0.0, 0.0);
        for positive in rows.iter().filter(|row| row.1 == 1) {
            for negative in rows.iter().filter(|row| row.1 == 0) {
                pairs += 1.0;
                won += match positive.0 - negative.0 {
                    difference if difference > 0.0 => 1.0,
                    0.0 => 0.5,
                    _ => 0.0,
                };
            }
        }
        (pairs > 0.0).then(|| won / pairs)
    }

    fn by_definition(name: &str, predictions: &Predictions, rows: &[usize]) -> Slice {
        let pair = |row: usize| (predictions.logits[row], predictions.labels[row]);
        let mut users = BTreeMap::<u64, Vec<(f32, u8)>>::new();
        for &row in rows {
            users.entry(predictions.users[row]).or_default().push(pair(row));
        }
        let with_auc = users.values().filter_map(|rows| Some((rows.len() as f64, auc(rows)?)));
        let (sum, weight) = with_auc.fold((0.0, 0.0), |(s, w), (n, auc)| (s + n * auc, w + n));
        let loss = |&row: &usize| {
            let p = 1.0 / (1.0 + (-f64::from(predictions.logits[row])).exp());
            if predictions.labels[row] == 1 { -p.ln() } else { -(1.0 - p).ln() }
        };
        let losses: f64 = rows.iter().map(loss).sum();
        Slice {
            name: name.to_owned(),
            impressions: rows.len() as u64,
            auc: auc(&rows.iter().map(|&row| pair(row)).collect::<Vec<_>>()),
            gauc: (weight > 0.0).then(|| sum / weight),
            logloss: (!rows.is_empty()).then(|| losses / rows.len() as f64),
        }
    }

    fn assert_close(got: &Slice, expected: &Slice) {
        let numbers = |slice: &Slice| [slice.auc, slice.gauc, slice.logloss];
        let close = |pair: (Option<f64>, Option<f64>)| match pair {
            (Some(got), Some(expected)) => (got - expected).abs() < 1e-9,
            (got, expected) => got == expected,
        };
        let names = (&got.name, got.impressions) == (&expected.name, expected.impressions);
        let close = numbers(got).into_iter().zip(numbers(expected)).all(close);
        assert!(names && close, "got {got:?}, expected {expected:?}");
    }

    #[test]
    fn slices_match_their_definitions() {
        for (seed, count) in [(1, 0), (2, 1), (3, 7), (4, 60), (5, 400)] {
            let predictions = predictions(seed, count);
            let evaluation = evaluate(&predictions, &frequency);
            let shown = |row: usize| frequency(predictions.items[row]);
            let past = |row: usize| predictions.behaviors[row];
            let pictured = |row: usize| predictions.with_image[row];
            let members: [(&str, &dyn Fn(usize) -> bool); 12] = [
                ("cold items", &|row| shown(row) == 0),
                ("warm items", &|row| shown(row) != 0),
                ("items shown 1-9 times", &|row| shown(row) >= 1 && shown(row) <= 9),
                ("items shown 10-99 times", &|row| shown(row) >= 10 && shown(row) <= 99),
                ("items shown 100-999 times", &|row| shown(row) >= 100 && shown(row) <= 999),
                ("items shown 1000+ times", &|row| shown(row) >= 1000),
                ("no history", &|row| past(row) == 0),
                ("history 1-4", &|row| past(row) >= 1 && past(row) <= 4),
                ("history 5-19", &|row| past(row) >= 5 && past(row) <= 19),
                ("history 20+", &|row| past(row) >= 20),
                ("with image", &pictured),
                ("without image", &|row| !pictured(row)),
            ];
            assert_eq!(evaluation.slices.len(), members.len());
            for (got, (name, member)) in evaluation.slices.iter().zip(members) {
                let rows: Vec<usize> = (0..count).filter(|&row| member(row)).collect();
                assert_close(got, &by_definition(name, &predictions, &rows));
            }
            let all = &evaluation.all;
            let (impressions, auc, gauc, logloss) =
                (all.impressions, all.auc, all.gauc, all.logloss);
            let all = Slice { name: "all".to_owned(), impressions, auc, gauc, logloss };
            let rows: Vec<usize> = (0..count).collect();
            assert_close(&all, &by_definition("all", &predictions, &rows));
        }
    }

    #[test]
    fn the_keys_are_those_other_programs_read() {
        let mut evaluation = evaluate(&Predictions::default(), &frequency);
        evaluation.slices.truncate(1);
        let json = serde_json::to_string(&evaluation).unwrap();
        assert_eq!(
            json,
            r#"{"auc":null,"gauc":null,"logloss":null,"ne":null,"calibration":null,"impressions":0,"users":0,"users_without_auc":0,"slices":[{"name":"cold items","impressions":0,"auc":null,"gauc":null,"logloss":null}]}"#
        );
    }
}
