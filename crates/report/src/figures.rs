//! The figures of runs: metrics of the test in slices with their intervals, differences between
//! runs, calibration.
//!
//! Knows predictions and configurations. Does not know files or texts.

use ams_bundle::Predictions;
use ams_data::Id;
use ams_model::loss::sigmoid;
use ams_model::metrics::{Bootstrap, Interval, MetricPair, Metrics, ResampledRanking};
use ams_model::metrics::{difference, reliability, shown};
use ams_train::Config;
use rayon::prelude::*;

use crate::gather::{Frequency, Run};

/// Parts of equal size that calibration divides the test into.
const BINS: usize = 10;

/// The property by which the slices of a family differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// All of the test.
    All,
    /// Training impressions of the item shown.
    Shown,
    /// Behaviors of the user before the impression.
    History,
    /// Whether the item shown has a picture.
    Picture,
}

/// The properties of an impression that slices select by.
#[derive(Clone, Copy, Debug)]
struct Traits {
    /// Training impressions of the item; none if they are not known.
    shown: Option<u32>,
    behaviors: u32,
    with_image: bool,
}

/// A part of the test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slice {
    pub family: Family,
    pub name: &'static str,
    member: fn(Traits) -> bool,
}

const fn slice(family: Family, name: &'static str, member: fn(Traits) -> bool) -> Slice {
    Slice { family, name, member }
}

/// Every slice; the first is all of the test.
pub(crate) const SLICES: [Slice; 12] = [
    slice(Family::All, "all", |_| true),
    slice(Family::Shown, "0", |t| t.shown == Some(0)),
    slice(Family::Shown, "1-9", |t| t.shown.is_some_and(|n| (1..10).contains(&n))),
    slice(Family::Shown, "10-99", |t| t.shown.is_some_and(|n| (10..100).contains(&n))),
    slice(Family::Shown, "100-999", |t| t.shown.is_some_and(|n| (100..1000).contains(&n))),
    slice(Family::Shown, "1000+", |t| t.shown.is_some_and(|n| n >= 1000)),
    slice(Family::History, "0", |t| t.behaviors == 0),
    slice(Family::History, "1-4", |t| (1..5).contains(&t.behaviors)),
    slice(Family::History, "5-19", |t| (5..20).contains(&t.behaviors)),
    slice(Family::History, "20+", |t| t.behaviors >= 20),
    slice(Family::Picture, "with picture", |t| t.with_image),
    slice(Family::Picture, "without", |t| !t.with_image),
];

/// The figures of all runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Of each run; none without predictions.
    pub runs: Vec<Option<RunFigures>>,
    /// The run that others are compared with, if there is another one.
    pub base: Option<usize>,
    pub bootstrap: Bootstrap,
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunFigures {
    pub metrics: Metrics,
    /// One for each of [`SLICES`].
    pub slices: Vec<SliceFigures>,
    pub calibration: Vec<Bin>,
    /// Of all impressions, and of those that the model would show.
    pub shown: Vec<Ratio>,
    /// Differences to the base; none for the base itself.
    pub over_base: Option<Over>,
    /// Less the run that differs by shuffled pictures alone.
    pub over_twin: Option<Over>,
    /// Whether the impressions are those of the base.
    pub comparable: bool,
}

/// The figures of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SliceFigures {
    pub impressions: u64,
    pub gauc: Option<Interval>,
    pub auc: Option<Interval>,
}

/// The differences to another run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Over {
    /// Index of the run that is subtracted.
    pub to: usize,
    /// Differences in each of [`SLICES`].
    pub slices: Vec<Difference>,
}

/// The difference of two runs in a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Difference {
    pub gauc: Option<Interval>,
    pub auc: Option<Interval>,
}

/// Impressions of about equal predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bin {
    pub impressions: u64,
    /// Mean of the predicted probabilities.
    pub predicted: f64,
    /// Share of the impressions that were clicked, 0 to 1.
    pub clicked: f64,
}

/// Predicted clicks against clicks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    /// How many impressions of a page view; all without.
    pub top: Option<usize>,
    pub impressions: u64,
    /// Mean of the predicted probabilities.
    pub predicted: f64,
    /// Share of the impressions that were clicked, 0 to 1.
    pub clicked: f64,
    /// Predicted clicks over clicks.
    pub calibration: Option<Interval>,
}

/// Computes all figures, with `replicates` draws of users, on the threads of the current pool.
pub(crate) fn figures(runs: &[Run], replicates: usize) -> Figures {
    let bootstrap = Bootstrap { replicates, seed: 1 };
    let base = base(runs);
    let comparable = |run: &Run| {
        let base = base.and_then(|base| Impressions::of(&runs[base]));
        base.is_some() && Impressions::of(run) == base
    };
    let comparable: Vec<bool> = runs.iter().map(comparable).collect();
    // Runs of one test also share how often its items were shown, as far as one knows it.
    let known = runs
        .iter()
        .zip(&comparable)
        .find_map(|(run, same)| run.frequency.as_deref().filter(|_| *same));
    let resampled: Vec<Option<Resampled>> = runs
        .par_iter()
        .zip(&comparable)
        .map(|(run, same)| {
            let frequency = run.frequency.as_deref().or(known.filter(|_| *same));
            let predictions = run.predictions.as_ref()?;
            Some(Resampled::of(predictions, frequency, &bootstrap))
        })
        .collect();
    let over = |run: usize, to: Option<usize>| {
        let to = to.filter(|&to| to != run && comparable[run] && comparable[to])?;
        let slices = differences(resampled[run].as_ref()?, resampled[to].as_ref()?);
        Some(Over { to, slices })
    };
    let of = |at: usize| {
        let predictions = runs[at].predictions.as_ref()?;
        let Predictions { users, logits, labels, .. } = predictions;
        Some(RunFigures {
            metrics: Metrics::of(users, logits, labels),
            slices: resampled[at].as_ref()?.figures(),
            calibration: bins(logits, labels),
            shown: ratios(predictions, bootstrap),
            over_base: over(at, base),
            over_twin: over(at, twin(runs, at)),
            comparable: comparable[at],
        })
    };
    let figures = (0..runs.len()).map(of).collect();
    Figures { runs: figures, base: base.filter(|_| runs.len() > 1), bootstrap }
}

/// The run to compare with: the first with predictions that sees no pictures, or else the first.
fn base(runs: &[Run]) -> Option<usize> {
    let mut predicted = runs.iter().enumerate().filter(|(_, run)| run.predictions.is_some());
    let plain = predicted.clone().find(|(_, run)| !run.record.config.needs_images());
    plain.or_else(|| predicted.next()).map(|(at, _)| at)
}

/// The run whose configuration differs from that of run `at` by shuffled pictures alone.
fn twin(runs: &[Run], at: usize) -> Option<usize> {
    let config = &runs[at].record.config;
    if !config.needs_images() || config.data.shuffle_images.is_some() {
        return None;
    }
    let same = |other: &Config| {
        let mut other = other.clone();
        other.name.clone_from(&config.name);
        other.runs.clone_from(&config.runs);
        let shuffled = other.data.shuffle_images.take().is_some();
        shuffled && other == *config
    };
    runs.iter().position(|run| same(&run.record.config))
}

/// The impressions that predictions are about.
#[derive(PartialEq)]
struct Impressions<'a> {
    users: &'a [u64],
    items: &'a [u64],
    times: &'a [i64],
    labels: &'a [u8],
}

impl Impressions<'_> {
    /// Those of a run that has predictions.
    fn of(run: &Run) -> Option<Impressions<'_>> {
        let Predictions { users, items, times, labels, .. } = run.predictions.as_ref()?;
        Some(Impressions { users, items, times, labels })
    }
}

/// The scores of a run in each of [`SLICES`], with the draws of users.
struct Resampled {
    slices: Vec<ResampledSlice>,
}

/// The scores in a slice.
struct ResampledSlice {
    impressions: u64,
    ranking: ResampledRanking,
}

impl Resampled {
    fn of(
        predictions: &Predictions,
        frequency: Option<&Frequency>,
        bootstrap: &Bootstrap,
    ) -> Resampled {
        let mut users = predictions.users.clone();
        users.sort_unstable();
        users.dedup();
        let number = |user: &u64| users.binary_search(user).expect("every user is listed") as u32;
        let numbers: Vec<u32> = predictions.users.iter().map(number).collect();
        let shown = |item: u64| Some(frequency?.get(&Id(item)).copied().unwrap_or(0));
        let traits = |row: usize| Traits {
            shown: shown(predictions.items[row]),
            behaviors: predictions.behaviors[row],
            with_image: predictions.with_image[row],
        };
        let of_slice = |slice: &Slice| {
            let rows: Vec<usize> =
                (0..predictions.len()).filter(|&row| (slice.member)(traits(row))).collect();
            let users: Vec<u32> = rows.iter().map(|&row| numbers[row]).collect();
            let logits: Vec<f32> = rows.iter().map(|&row| predictions.logits[row]).collect();
            let labels: Vec<u8> = rows.iter().map(|&row| predictions.labels[row]).collect();
            let ranking = match rows.is_empty() {
                true => ResampledRanking::default(),
                false => bootstrap.ranking(number_of(&numbers), &users, &logits, &labels),
            };
            ResampledSlice { impressions: rows.len() as u64, ranking }
        };
        Resampled { slices: SLICES.par_iter().map(of_slice).collect() }
    }

    fn figures(&self) -> Vec<SliceFigures> {
        let of = |slice: &ResampledSlice| SliceFigures {
            impressions: slice.impressions,
            gauc: slice.ranking.gauc.interval(),
            auc: slice.ranking.auc.interval(),
        };
        self.slices.iter().map(of).collect()
    }
}

/// How many users are numbered.
fn number_of(numbers: &[u32]) -> usize {
    numbers.iter().max().map_or(0, |last| *last as usize + 1)
}

fn differences(one: &Resampled, other: &Resampled) -> Vec<Difference> {
    let pairs = one.slices.iter().zip(&other.slices);
    let of = |(a, b): (&ResampledSlice, &ResampledSlice)| Difference {
        gauc: difference(&[MetricPair { metric: &a.ranking.gauc, minus: &b.ranking.gauc }]),
        auc: difference(&[MetricPair { metric: &a.ranking.auc, minus: &b.ranking.auc }]),
    };
    pairs.map(of).collect()
}

/// The impressions by ascending prediction in parts of equal size; equal predictions in the order
/// of rows.
fn bins(logits: &[f32], labels: &[u8]) -> Vec<Bin> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(a.cmp(&b)));
    let cut = |bin: usize| order.len() * bin / BINS;
    let of = |bin: usize| {
        let rows = &order[cut(bin)..cut(bin + 1)];
        let count = rows.len() as f64;
        Bin {
            impressions: rows.len() as u64,
            predicted: rows.iter().map(|&row| f64::from(sigmoid(logits[row]))).sum::<f64>() / count,
            clicked: rows.iter().map(|&row| f64::from(labels[row])).sum::<f64>() / count,
        }
    };
    (0..BINS).map(of).filter(|bin| bin.impressions > 0).collect()
}

/// Predicted clicks against clicks of all impressions, and of those of the greatest predictions in
/// each page view that has more: impressions of one user at one time.
fn ratios(predictions: &Predictions, bootstrap: Bootstrap) -> Vec<Ratio> {
    let Predictions { users, times, logits, labels, .. } = predictions;
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by_key(|&row| (users[row], times[row]));
    let page = |row: usize| (users[row], times[row]);
    let pages: Vec<usize> =
        order.chunk_by(|&a, &b| page(a) == page(b)).map(<[usize]>::len).collect();
    let scores: Vec<f64> = order.iter().map(|&row| f64::from(logits[row])).collect();
    let of = |top: Option<usize>| {
        let rows: Vec<usize> = match top {
            None => order.clone(),
            Some(top) => shown(&pages, &scores, top).into_iter().map(|at| order[at]).collect(),
        };
        let users: Vec<u64> = rows.iter().map(|&row| users[row]).collect();
        let logits: Vec<f32> = rows.iter().map(|&row| logits[row]).collect();
        let labels: Vec<u8> = rows.iter().map(|&row| labels[row]).collect();
        let rates = reliability(&logits, &labels, [1.0, 1.0])?;
        let calibration = bootstrap.calibration(&users, &logits, &labels, [1.0, 1.0]).interval();
        let (impressions, predicted, clicked) = (rows.len() as u64, rates.predicted, rates.clicked);
        Some(Ratio { top, impressions, predicted, clicked, calibration })
    };
    [None, Some(1), Some(3), Some(10)].into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two page views of one user, one of another; the second of the first user has one item.
    #[test]
    fn what_is_shown_is_the_first_of_a_page_view() {
        let predictions = Predictions {
            users: vec![1, 1, 1, 2, 2, 2, 2],
            items: vec![0; 7],
            times: vec![5, 5, 6, 5, 5, 5, 5],
            labels: vec![1, 0, 1, 0, 0, 1, 1],
            logits: vec![0.0, 1.0, 9.0, -1.0, 2.0, 0.5, -2.0],
            behaviors: vec![0; 7],
            with_image: vec![false; 7],
        };
        let got = ratios(&predictions, Bootstrap { replicates: 5, seed: 1 });
        let counts: Vec<_> = got.iter().map(|of| (of.top, of.impressions, of.clicked)).collect();
        assert_eq!(counts, [(None, 7, 4.0 / 7.0), (Some(1), 2, 0.0), (Some(3), 3, 1.0 / 3.0)]);
        let rates = [-1.0f64, 2.0, 0.5].map(|logit| 1.0 / (1.0 + (-logit).exp()));
        assert!((got[2].predicted - rates.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        let ratio = got[2].calibration.unwrap();
        assert!((ratio.mean - rates.iter().sum::<f64>()).abs() < 1e-12);
        assert_eq!((ratio.low, ratio.high, got[1].calibration), (None, None, None));
    }

    #[test]
    fn calibration_is_in_parts_of_equal_size() {
        let logits: Vec<f32> = (0..25).rev().map(|at| at as f32 / 5.0 - 2.0).collect();
        let labels: Vec<u8> = (0..25).map(|at| u8::from(at < 5)).collect();
        let bins = bins(&logits, &labels);
        let counts: Vec<u64> = bins.iter().map(|bin| bin.impressions).collect();
        assert_eq!(counts, [2, 3, 2, 3, 2, 3, 2, 3, 2, 3]);
        // Clicks are the five greatest predictions.
        let clicked: Vec<f64> = bins.iter().map(|bin| bin.clicked).collect();
        assert_eq!(clicked[..8], [0.0; 8]);
        assert_eq!(clicked[8..], [1.0, 1.0]);
        let first = (f64::from(sigmoid(-2.0)) + f64::from(sigmoid(-1.8))) / 2.0;
        assert!((bins[0].predicted - first).abs() < 1e-7, "{bins:?}");
        assert_eq!(super::bins(&[], &[]), []);
        assert_eq!(super::bins(&[0.0], &[1]).len(), 1);
    }

    #[test]
    fn slices_of_a_family_are_apart_and_hold_all() {
        let shown = [0, 1, 9, 10, 99, 100, 999, 1000, u32::MAX];
        for (at, shown) in shown.into_iter().enumerate() {
            for behaviors in [0, 1, 4, 5, 19, 20, 50] {
                let traits = Traits { shown: Some(shown), behaviors, with_image: at % 2 == 0 };
                for family in [Family::All, Family::Shown, Family::History, Family::Picture] {
                    let of = SLICES.iter().filter(|slice| slice.family == family);
                    let count = of.filter(|slice| (slice.member)(traits)).count();
                    assert_eq!(count, 1, "{family:?} {traits:?}");
                }
            }
        }
    }
}
