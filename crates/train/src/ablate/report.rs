//! The report of an ablation's trainings: means over seeds, and differences between rows with their
//! intervals.

use ams_data::schema::Counts;
use ams_model::metrics::{Bootstrap, Interval, MetricPair, Resampled, difference};
use serde::Serialize;

use crate::ablate::grid::{Figures, Warm};
use crate::ablate::outcome::{SLICES, Scores, TestSet};
use crate::ablate::plan::{Plan, PlannedRow, PlannedTable};

/// The results so far; `--json` of `ams ablate`. Keys are added, never removed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Name of the configuration.
    pub name: String,
    /// The dataset of all trainings.
    pub dataset: DatasetFigures,
    /// Settings of all rows that are not defaults, `key=value` each.
    pub settings: Vec<String>,
    /// Seeds of every row.
    pub seeds: Vec<u64>,
    /// Draws and seed of the bootstrap that gives the intervals.
    pub bootstrap: Bootstrap,
    /// Trainings that are done.
    pub trained: usize,
    /// Trainings there are to do in all.
    pub trainings: usize,
    /// Tables in the order of the request.
    pub tables: Vec<TableReport>,
}

/// The dataset of an ablation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetFigures {
    /// Name of the dataset.
    pub name: String,
    /// Impressions, users and items of its card.
    pub counts: Counts,
    /// Encoder of its pictures, if it has any.
    pub encoder: Option<String>,
    /// Users in the test.
    pub test_users: u64,
    /// Test impressions in every slice.
    pub slices: Vec<SliceFigures>,
}

/// The size of a slice of the test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceFigures {
    /// Name of the slice.
    pub name: String,
    /// Test impressions in it.
    pub impressions: u64,
}

/// The results of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableReport {
    /// Name on the command line.
    pub name: String,
    /// Title of the grid.
    pub title: String,
    /// The paper's table or figure, if it has one.
    pub paper: Option<String>,
    /// Its rows, each followed by its shuffled twin if it has one.
    pub rows: Vec<RowReport>,
}

/// The results of a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowReport {
    /// Name, with `, shuffled` for a twin.
    pub name: String,
    /// Settings with the first seed, `key=value` each.
    pub settings: Vec<String>,
    /// Whether its images are shuffled.
    pub shuffled: bool,
    /// The row whose weights it begins with.
    pub warm_start: Option<Warm>,
    /// The seeds it was trained with so far.
    pub seeds: Vec<u64>,
    /// AUC within users, weighted by their impressions.
    pub gauc: Spread,
    /// AUC over all test impressions.
    pub auc: Spread,
    /// Mean cross-entropy in nats.
    pub logloss: Spread,
    /// The same for slices of the test.
    pub slices: Vec<SliceReport>,
    /// Against its first baseline, if it has one.
    pub difference: Option<Difference>,
    /// Against its other baselines.
    pub further_differences: Vec<Difference>,
    /// Against its twin: the part that more weights alone do not explain.
    pub twin_difference: Option<Difference>,
    /// The paper's GAUC and AUC, or their difference.
    pub paper: Figures,
    /// Seconds of training, on average.
    pub seconds: Option<f64>,
}

/// A figure over seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Mean; none if there is no seed yet, or a value is not defined.
    pub mean: Option<f64>,
    /// Standard deviation of two seeds or more.
    pub std: Option<f64>,
    /// The value of every seed.
    pub values: Vec<Option<f64>>,
}

/// The results of a row in a slice of the test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceReport {
    /// Name of the slice.
    pub name: String,
    /// Test impressions in it.
    pub impressions: u64,
    /// AUC within users, weighted by their impressions.
    pub gauc: Spread,
    /// AUC over the impressions of the slice.
    pub auc: Spread,
    /// Mean cross-entropy in nats.
    pub logloss: Spread,
}

/// A row less another one, on average over the seeds that both have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Name of the other row.
    pub to: String,
    /// Mean difference of GAUC, with its interval.
    pub gauc: Option<Interval>,
    /// Mean difference of AUC, with its interval.
    pub auc: Option<Interval>,
    /// The same for slices of the test.
    pub slices: Vec<SliceDifference>,
    /// The paper's GAUC and AUC, or their difference.
    pub paper: Figures,
}

/// A row less another one in a slice of the test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceDifference {
    /// Name of the slice.
    pub name: String,
    /// Mean difference of GAUC, with its interval.
    pub gauc: Option<Interval>,
    /// Mean difference of AUC, with its interval.
    pub auc: Option<Interval>,
}

/// A finished training as the report sees it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Wall time of the training, in seconds.
    pub seconds: f64,
    /// Its scores in each slice.
    pub scores: Vec<Scores>,
}

impl Spread {
    /// The spread of `values`; one without a value has no mean.
    pub(crate) fn of(values: Vec<Option<f64>>) -> Spread {
        let all: Option<Vec<f64>> = values.iter().copied().collect();
        let all = all.filter(|all| !all.is_empty()).unwrap_or_default();
        let count = all.len() as f64;
        let mean = (!all.is_empty()).then(|| all.iter().sum::<f64>() / count);
        let std = mean.filter(|_| all.len() > 1).map(|mean| {
            let squares = all.iter().map(|value| (value - mean) * (value - mean));
            (squares.sum::<f64>() / (count - 1.0)).sqrt()
        });
        Spread { mean, std, values }
    }
}

/// The tables of `plan` as far as its trainings are done; `outcomes` are in the order of its runs.
pub(crate) fn tables(
    plan: &Plan,
    outcomes: &[Option<&Outcome>],
    seeds: &[u64],
    test: Option<&TestSet>,
) -> Vec<TableReport> {
    let impressions = test.map_or(vec![0; SLICES.len()], TestSet::impressions);
    let about = About { outcomes, seeds, impressions };
    plan.tables.iter().map(|table| about.table(table)).collect()
}

/// What reports are made of.
struct About<'a> {
    outcomes: &'a [Option<&'a Outcome>],
    seeds: &'a [u64],
    impressions: Vec<u64>,
}

impl About<'_> {
    fn table(&self, planned: &PlannedTable) -> TableReport {
        let PlannedTable { table, rows } = planned;
        TableReport {
            name: table.name.to_owned(),
            title: table.title.to_owned(),
            paper: table.paper.map(str::to_owned),
            rows: rows.iter().map(|row| self.row(row, rows)).collect(),
        }
    }

    /// The trainings of a row that are done, with their seeds.
    fn done<'a>(&'a self, row: &'a PlannedRow) -> impl Iterator<Item = (u64, &'a Outcome)> {
        let pairs = self.seeds.iter().zip(&row.runs);
        pairs.filter_map(|(&seed, &run)| Some((seed, self.outcomes[run]?)))
    }

    fn row(&self, row: &PlannedRow, others: &[PlannedRow]) -> RowReport {
        let spread = |slice: usize, of: &dyn Fn(&Scores) -> Option<f64>| {
            Spread::of(self.done(row).map(|(_, outcome)| of(&outcome.scores[slice])).collect())
        };
        let gauc = |slice| spread(slice, &|scores| scores.ranking.gauc.value);
        let auc = |slice| spread(slice, &|scores| scores.ranking.auc.value);
        let logloss = |slice| spread(slice, &|scores| scores.logloss);
        let slice = |slice: usize| SliceReport {
            name: SLICES[slice].0.to_owned(),
            impressions: self.impressions[slice],
            gauc: gauc(slice),
            auc: auc(slice),
            logloss: logloss(slice),
        };
        // A twin has the baselines of its row.
        let baselines = row.row.baselines.iter().filter_map(|&name| {
            let other = others.iter().find(|other| other.is(name))?;
            Some(self.difference(row, other))
        });
        let mut baselines = baselines.collect::<Vec<_>>().into_iter();
        let twin = others.iter().find(|other| other.shuffled && other.row.name == row.row.name);
        RowReport {
            name: row.name(),
            settings: row.settings(self.seeds.first().copied().unwrap_or_default()),
            shuffled: row.shuffled,
            warm_start: row.row.warm,
            seeds: self.done(row).map(|(seed, _)| seed).collect(),
            gauc: gauc(0),
            auc: auc(0),
            logloss: logloss(0),
            slices: (1..SLICES.len()).map(slice).collect(),
            difference: baselines.next(),
            further_differences: baselines.collect(),
            twin_difference: twin.filter(|_| !row.shuffled).map(|twin| self.difference(row, twin)),
            paper: paper(row),
            seconds: Spread::of(self.done(row).map(|(_, done)| Some(done.seconds)).collect()).mean,
        }
    }

    fn difference(&self, row: &PlannedRow, other: &PlannedRow) -> Difference {
        let both: Vec<(&Outcome, &Outcome)> = row
            .runs
            .iter()
            .zip(&other.runs)
            .filter_map(|(&a, &b)| Some((self.outcomes[a]?, self.outcomes[b]?)))
            .collect();
        let interval = |slice: usize, of: fn(&Scores) -> &Resampled| {
            let pairs = both.iter().map(|(a, b)| MetricPair {
                metric: of(&a.scores[slice]),
                minus: of(&b.scores[slice]),
            });
            difference(&pairs.collect::<Vec<_>>())
        };
        let gauc = |slice| interval(slice, |scores| &scores.ranking.gauc);
        let auc = |slice| interval(slice, |scores| &scores.ranking.auc);
        let slice = |slice: usize| SliceDifference {
            name: SLICES[slice].0.to_owned(),
            gauc: gauc(slice),
            auc: auc(slice),
        };
        Difference {
            to: other.name(),
            gauc: gauc(0),
            auc: auc(0),
            slices: (1..SLICES.len()).map(slice).collect(),
            paper: paper(row).minus(paper(other)),
        }
    }
}

/// The paper's measurements of a row; it has no shuffled images.
fn paper(row: &PlannedRow) -> Figures {
    if row.shuffled { Figures::NONE } else { row.row.paper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let spread = |values: &[Option<f64>]| {
            let Spread { mean, std, .. } = Spread::of(values.to_vec());
            (mean, std)
        };
        assert_eq!(spread(&[]), (None, None));
        assert_eq!(spread(&[Some(2.0)]), (Some(2.0), None));
        assert_eq!(spread(&[Some(1.0), Some(3.0), Some(5.0)]), (Some(3.0), Some(2.0)));
        assert_eq!(spread(&[Some(1.0), None]), (None, None));
    }
}
