//! The value of a policy from a log with propensities that another policy wrote.
//!
//! A policy of a model chooses among the candidates of a position that are not above it on the page
//! in the log: by their eCPM, as a server ranks them, mixed with chance. Estimators are
//! [`ams_model::metrics::ReweightedLog`]'s; this gives them their numbers, and says when not to
//! believe them.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use ams_data::propensities::{Columns, Further, Pages, PropensityLog, Shown};
use ams_data::source::Table;
use ams_data::{Id, Side};
use ams_model::metrics::{Bootstrap, Expected, Interval, Reweighted, ReweightedLog};
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::json;
use crate::model::{Model, Scratch};
use crate::request::{Cell, PageView, Text};

/// Below this many impressions' worth, weights say little.
const FEWEST_EFFECTIVE: f64 = 100.0;

/// Below this share of the impressions, overlap is poor.
const SMALLEST_SHARE: f64 = 0.01;

/// One impression with a larger share of all weights decides too much.
const LARGEST_SHARE: f64 = 0.05;

/// Rewards fewer than this have no interval to rely on.
const FEWEST_REWARDS: u64 = 30;

/// A larger part of the policy that the log could not show is said.
const UNSUPPORTED: f64 = 0.001;

/// The policy that is evaluated.
#[derive(Clone, Copy, Debug)]
pub enum Evaluated<'a> {
    /// Its probabilities are in the log: [`Further::policy`].
    Column,
    /// A model ranks, and `choice` is made of its ranking.
    Model {
        /// The model.
        model: &'a Model,
        /// How it chooses.
        choice: Choice,
    },
}

/// Where expected rewards are from, which the direct and the doubly robust method need.
#[derive(Clone, Copy, Debug)]
pub enum RewardModel<'a> {
    /// There are none.
    None,
    /// They are in the log: [`Further::expected`].
    Column,
    /// They are a model's click-through rates; for rewards of 0 and 1.
    Model(&'a Model),
}

/// A choice among ranked candidates: one of the best ones, or with `epsilon` any of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Among the best ones by their eCPM to the power of 1 over this, above 0; none: all the same.
    pub temperature: Option<f64>,
    /// How many are the best ones, 1 or more.
    pub top_k: usize,
    /// Probability, 0 to 1, that each candidate has the same chance.
    pub epsilon: f64,
}

impl Choice {
    /// The probability of each candidate, by its eCPM (0 or more, of one length with `allowed`).
    /// Candidates that are not allowed have none; one has to be. The first of equal ones is better.
    pub fn probabilities(&self, ecpm: &[f64], allowed: &[bool]) -> Vec<f64> {
        let mut order: Vec<usize> = (0..ecpm.len()).filter(|&at| allowed[at]).collect();
        let chance = self.epsilon / order.len() as f64;
        let mut probabilities: Vec<f64> =
            allowed.iter().map(|&allowed| if allowed { chance } else { 0.0 }).collect();
        order.sort_by(|&a, &b| ecpm[b].total_cmp(&ecpm[a]));
        order.truncate(self.top_k.max(1));
        let Some(best) = order.first().map(|&at| ecpm[at]) else { return probabilities };
        // Of the best one it is 1, so the sum is a number, also where all are 0.
        let share = |at: usize| match self.temperature {
            Some(temperature) if best > 0.0 => (ecpm[at] / best).powf(1.0 / temperature),
            _ => 1.0,
        };
        let sum: f64 = order.iter().map(|&at| share(at)).sum();
        for &at in &order {
            probabilities[at] += (1.0 - self.epsilon) * share(at) / sum;
        }
        probabilities
    }
}

/// How the positions of a page count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighing {
    /// Each by itself, below what the log shows above it.
    Position,
    /// With the weights of the positions above: as if the policy had filled the page down to it.
    Page,
}

/// How to read and evaluate a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Names of columns.
    pub columns: Columns,
    /// The column of [`Evaluated::Column`] and of [`RewardModel::Column`].
    pub further: Further,
    /// How positions count.
    pub weighing: Weighing,
    /// Draws of users.
    pub bootstrap: Bootstrap,
}

/// Page views by page.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    path: PathBuf,
    pages: BTreeMap<String, PageView>,
}

impl Requests {
    /// Reads JSON lines: a request as servers take it, with one more key, `page`. Its candidates
    /// may be left out; where it has bids or features of candidates, they are taken from there.
    ///
    /// # Errors
    /// With the line that is wrong, or whose page was there before.
    pub fn read(path: &Path) -> Result<Requests> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mut pages = BTreeMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: String| Error::content(path, format!("line {}: {what}", at + 1));
            let mut object: Map<String, Value> =
                json::read(line.as_bytes()).map_err(|error| wrong(error.to_string()))?;
            let page = match object.remove("page") {
                Some(Value::String(page)) if !page.trim().is_empty() => page.trim().to_owned(),
                Some(Value::Number(page)) => page.to_string(),
                _ => return Err(wrong("no `page`, expected the page of the log".to_owned())),
            };
            let view = page_view(object).map_err(|error| wrong(error.to_string()))?;
            if pages.insert(page.clone(), view).is_some() {
                return Err(wrong(format!(
                    "page `{page}` was there before; expected one line for each"
                )));
            }
        }
        Ok(Requests { path: path.to_path_buf(), pages })
    }
}

/// A page view, also one without candidates.
fn page_view(mut object: Map<String, Value>) -> Result<PageView> {
    if object.get("candidates").is_none_or(Value::is_null) {
        object.insert("candidates".to_owned(), serde_json::json!({"item": []}));
    }
    PageView::parse(Value::Object(object).to_string().as_bytes())
}

/// What a log says of a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OffPolicy {
    /// Impressions of the log.
    pub impressions: u64,
    /// Distinct users.
    pub users: u64,
    /// Pages; none in a log without them.
    pub pages: Option<u64>,
    /// How positions count.
    pub weighing: Weighing,
    /// Draws and seed of the intervals.
    pub bootstrap: Bootstrap,
    /// Mean reward of an impression in the log.
    pub logged: Option<Interval>,
    /// Mean reward of an impression under the policy; `ipw`, `snipw`, `direct`, `doubly-robust`.
    pub estimates: Vec<Estimate>,
    /// How much of the log speaks of the policy.
    pub overlap: Overlap,
    /// Why the estimates may be wrong.
    pub warnings: Vec<String>,
}

/// A value by one estimator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Its name.
    pub estimator: &'static str,
    /// Mean reward of an impression; none where it is undefined.
    pub value: Option<Interval>,
    /// The value less the log's, with the same draws of users.
    pub lift: Option<Interval>,
}

/// How much of a log speaks of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// Impressions that the weighted ones are worth.
    pub effective_sample_size: f64,
    /// Mean weight, which is 1 but for chance where propensities are right and cover the policy.
    pub mean_weight: Option<Interval>,
    /// The largest weight.
    pub largest_weight: f64,
    /// Its share of the sum of all.
    pub largest_share: f64,
    /// Rewards that are not 0 and have a weight above 0.
    pub rewards: u64,
    /// Mean probability that the policy gives to candidates whose probability was 0 in the log;
    /// none if the log does not have the probabilities of all candidates.
    pub unsupported: Option<f64>,
}

/// Evaluates a policy by a log. Runs on the threads of the current rayon pool; the result does not
/// depend on their number.
///
/// # Errors
/// With the first row of the log that is wrong, or that the policy's model cannot score.
pub fn off_policy(
    table: &dyn Table,
    policy: Evaluated<'_>,
    rewards: RewardModel<'_>,
    requests: Option<&Requests>,
    options: &LogOptions,
) -> Result<OffPolicy> {
    let log = PropensityLog::open(table, &options.columns, &options.further)?;
    check(&log, policy, rewards, requests, options)?;
    let pages = log.pages()?;
    let question = Question { path: log.path(), policy, rewards, requests, pages: pages.as_ref() };
    let mut all = Numbers::default();
    for batch in log.batches()? {
        question.ask(&batch?, &mut all)?;
    }
    if all.users.is_empty() {
        return Err(Error::content(log.path(), "no rows"));
    }
    let above = above(&all.weights, pages.as_ref().filter(|_| options.weighing == Weighing::Page));
    let mut warnings = Vec::new();
    let expected = match rewards {
        RewardModel::None => None,
        RewardModel::Model(_)
            if all.rewards.iter().any(|&reward| reward != 0.0 && reward != 1.0) =>
        {
            warnings.push(
                "rewards other than 0 and 1, of which a model that predicts clicks knows nothing: no direct and no \
                 doubly robust estimate; name a column of expected rewards (--expected)"
                    .to_owned(),
            );
            None
        }
        _ => Some(Expected { of_policy: &all.of_policy, of_logged: &all.of_logged }),
    };
    let log_of = ReweightedLog {
        users: &all.users,
        rewards: &all.rewards,
        weights: &all.weights,
        above: &above,
        expected,
    };
    let found = log_of.estimate(&options.bootstrap);
    let unsupported = log.has_probabilities().then(|| all.unsupported / all.users.len() as f64);
    let result = summary(found, &all, pages.as_ref(), unsupported, options);
    if let (Evaluated::Model { .. }, None, false) = (policy, requests, log.has_requests()) {
        warnings.push(
            "no requests: users are scored without history, features and context, which is not how a server scores \
             them (--requests)"
                .to_owned(),
        );
    }
    warnings.extend(doubts(&result));
    Ok(OffPolicy { warnings, ..result })
}

fn summary(
    found: Reweighted,
    all: &Numbers,
    pages: Option<&Pages>,
    unsupported: Option<f64>,
    options: &LogOptions,
) -> OffPolicy {
    let (values, lifts) = (&found.values, &found.lifts);
    let estimate = |estimator, value, lift| Estimate { estimator, value, lift };
    OffPolicy {
        impressions: all.users.len() as u64,
        users: found.users as u64,
        pages: pages.map(|pages| pages.count() as u64),
        weighing: options.weighing,
        bootstrap: options.bootstrap,
        logged: values.logged,
        estimates: vec![
            estimate("ipw", values.ipw, lifts.ipw),
            estimate("snipw", values.snipw, lifts.snipw),
            estimate("direct", values.direct, lifts.direct),
            estimate("doubly-robust", values.doubly_robust, lifts.doubly_robust),
        ],
        overlap: Overlap {
            effective_sample_size: found.effective,
            mean_weight: values.weight,
            largest_weight: found.largest,
            largest_share: found.largest_share,
            rewards: found.carrying,
            unsupported,
        },
        warnings: Vec::new(),
    }
}

/// That the log has what the question needs.
fn check(
    log: &PropensityLog<'_>,
    policy: Evaluated<'_>,
    rewards: RewardModel<'_>,
    requests: Option<&Requests>,
    options: &LogOptions,
) -> Result<()> {
    let model =
        matches!(policy, Evaluated::Model { .. }) || matches!(rewards, RewardModel::Model(_));
    let wrong = |what: &str| Err(Error::content(log.path(), what));
    if model && !log.has_candidates() {
        return wrong("no column `candidates`, among which the model is to choose");
    }
    if requests.is_some() && !log.has_pages() {
        return wrong("no column `page`, by which requests are found");
    }
    if options.weighing == Weighing::Page && !log.has_pages() {
        return wrong("no columns `page` and `position`, by which pages are weighed");
    }
    Ok(())
}

/// The product of the weights above each row; 1 without pages.
fn above(weights: &[f64], pages: Option<&Pages>) -> Vec<f64> {
    let product = |row: usize| {
        let above = pages.map_or(&[][..], |pages| pages.above(row));
        above.iter().map(|&above| weights[above as usize]).product()
    };
    (0..weights.len()).map(product).collect()
}

/// Why the estimates may be wrong.
fn doubts(of: &OffPolicy) -> Vec<String> {
    let Overlap { effective_sample_size: effective, largest_share, rewards, .. } = of.overlap;
    let mut doubts = Vec::new();
    if let Some(part) = of.overlap.unsupported.filter(|part| *part > UNSUPPORTED) {
        doubts.push(format!(
            "overlap: the policy gives {:.1} % of its probability to items that the log could not show, and no reward of \
             theirs was seen: ipw and snipw leave them out, direct and doubly-robust rely on the model there",
            100.0 * part
        ));
    }
    let share = effective / of.impressions as f64;
    if effective < FEWEST_EFFECTIVE || share < SMALLEST_SHARE {
        doubts.push(format!(
            "overlap: the weighted impressions are worth {effective:.0} of {} ({:.2} %); log longer, explore more, or \
             evaluate a policy that is nearer to the log's",
            of.impressions,
            100.0 * share
        ));
    }
    if largest_share > LARGEST_SHARE {
        doubts.push(format!(
            "overlap: one impression has {:.0} % of all weights (its weight is {:.1}): intervals are too narrow",
            100.0 * largest_share,
            of.overlap.largest_weight
        ));
    }
    if let Some(Interval { mean, low: Some(low), high: Some(high) }) = of.overlap.mean_weight {
        // Twice as far as an interval of 95 % reaches.
        if 1.0 > mean + 2.0 * (high - mean) || 1.0 < mean - 2.0 * (mean - low) {
            let why = match mean < 1.0 {
                true => "the log lacks what the policy would show, or propensities are too large",
                false => "propensities are too small, or not those of the items in these positions",
            };
            doubts.push(format!("the mean weight is {mean:.3}, expected 1: {why}"));
        }
    }
    if rewards < FEWEST_REWARDS {
        doubts.push(format!(
            "{rewards} rewards have a weight: an interval of fewer than {FEWEST_REWARDS} says little"
        ));
    }
    if of.logged.is_some_and(|logged| logged.low.is_none()) {
        doubts.push(format!("{} users are too few for intervals", of.users));
    }
    doubts
}

/// Numbers of each impression.
#[derive(Default)]
struct Numbers {
    users: Vec<u64>,
    rewards: Vec<f64>,
    weights: Vec<f64>,
    of_policy: Vec<f64>,
    of_logged: Vec<f64>,
    /// The sum of what the log could not show.
    unsupported: f64,
}

/// Numbers of one impression.
struct Weighed {
    weight: f64,
    of_policy: f64,
    of_logged: f64,
    unsupported: f64,
}

struct Question<'a> {
    path: &'a Path,
    policy: Evaluated<'a>,
    rewards: RewardModel<'a>,
    requests: Option<&'a Requests>,
    pages: Option<&'a Pages>,
}

/// What was scored last: the rows of a page often have the same candidates.
#[derive(Default)]
struct Last {
    asked: Option<(PathBuf, PageView)>,
    rates: Vec<f32>,
    scratch: Scratch,
}

impl Question<'_> {
    /// Adds the numbers of a batch.
    fn ask(&self, batch: &[Shown], all: &mut Numbers) -> Result<()> {
        let first = all.users.len();
        let page = |shown: &Shown| shown.on_page.as_ref().map(|on| on.page.clone());
        let mut begins = vec![0];
        begins.extend(
            (1..batch.len()).filter(|&at| {
                page(&batch[at]).is_none() || page(&batch[at - 1]) != page(&batch[at])
            }),
        );
        let ends = begins[1..].iter().copied().chain([batch.len()]);
        let pages: Vec<(usize, usize)> = begins.iter().copied().zip(ends).collect();
        let weighed: Vec<Vec<Result<Weighed>>> = pages
            .into_par_iter()
            .map_init(Last::default, |last, (begin, end)| {
                (begin..end).map(|at| self.weigh(first + at, &batch[at], last)).collect()
            })
            .collect();
        for (shown, weighed) in batch.iter().zip(weighed.into_iter().flatten()) {
            let weighed = weighed?;
            all.users.push(Id::of("user", &shown.user).0);
            all.rewards.push(shown.reward);
            all.weights.push(weighed.weight);
            all.of_policy.push(weighed.of_policy);
            all.of_logged.push(weighed.of_logged);
            all.unsupported += weighed.unsupported;
        }
        Ok(())
    }

    fn wrong(&self, shown: &Shown, what: &str) -> Error {
        Error::content(self.path, format!("{}: {what}", shown.place))
    }

    /// The numbers of the impression `shown` in row `row`, from 0.
    fn weigh(&self, row: usize, shown: &Shown, last: &mut Last) -> Result<Weighed> {
        let view = match (self.policy, self.rewards) {
            (Evaluated::Column, RewardModel::None | RewardModel::Column) => None,
            _ => Some(self.view(shown)?),
        };
        let policy = match (self.policy, &view) {
            (Evaluated::Model { model, choice }, Some(view)) => {
                let rates = self.rates(model, view, shown, last)?;
                let bids = view.candidates.bid.as_deref();
                let ecpm: Vec<f64> = (0..rates.len())
                    .map(|at| bids.map_or(1.0, |bids| bids[at]) * f64::from(rates[at]))
                    .collect();
                choice.probabilities(&ecpm, &self.allowed(row, shown)?)
            }
            _ => shown.policy.clone().unwrap_or_default(),
        };
        let expected = match (self.rewards, view) {
            (RewardModel::Model(model), Some(view)) => {
                let view = at_position(model, view, shown);
                let rates = self.rates(model, &view, shown, last)?;
                rates.iter().map(|&rate| f64::from(rate)).collect()
            }
            (RewardModel::Column, _) => shown.expected.clone().unwrap_or_default(),
            _ => Vec::new(),
        };
        let unsupported = shown.probabilities.iter().flatten().zip(&policy);
        let unsupported = unsupported.filter(|(logged, _)| **logged == 0.0);
        Ok(Weighed {
            weight: policy[shown.chosen] / shown.propensity,
            of_policy: policy.iter().zip(&expected).map(|(p, expected)| p * expected).sum(),
            of_logged: expected.get(shown.chosen).copied().unwrap_or_default(),
            unsupported: unsupported.map(|(_, of_policy)| of_policy).sum(),
        })
    }

    /// Which candidates are not above on the page.
    fn allowed(&self, row: usize, shown: &Shown) -> Result<Vec<bool>> {
        let above: HashSet<Id> =
            self.pages.map_or_else(HashSet::new, |pages| pages.items_above(row).collect());
        let allowed: Vec<bool> = shown
            .candidates
            .iter()
            .map(|item| above.is_empty() || !above.contains(&Id::of("item", item)))
            .collect();
        if !allowed.contains(&true) {
            return Err(self.wrong(shown, "all candidates are above it on the page"));
        }
        Ok(allowed)
    }

    /// The request of a row, with its candidates.
    fn view(&self, shown: &Shown) -> Result<PageView> {
        let wrong = |what: String| self.wrong(shown, &what);
        let mut view = match (self.requests, &shown.on_page, &shown.request) {
            (Some(requests), Some(on), _) => {
                requests.pages.get(&on.page).cloned().ok_or_else(|| {
                    wrong(format!("no page `{}` in {}", on.page, requests.path.display()))
                })?
            }
            (_, _, Some(request)) => json::read(request.as_bytes())
                .and_then(page_view)
                .map_err(|error| wrong(format!("`request`: {error}")))?,
            _ => PageView { time: shown.time, ..PageView::default() },
        };
        if view.user.id.is_none() {
            view.user.id = Some(Text(shown.user.clone()));
        }
        let asked = &view.candidates;
        let texts: Vec<Text> = shown.candidates.iter().map(|item| Text(item.clone())).collect();
        if asked.item.is_empty() {
            view.candidates.item = texts;
        } else if asked.item != texts {
            let places: BTreeMap<&str, usize> =
                asked.item.iter().enumerate().map(|(at, item)| (&item.0[..], at)).collect();
            let place = |item: &String| {
                places.get(&item[..]).copied().ok_or_else(|| {
                    wrong(format!("candidate `{item}` is not among those of the request"))
                })
            };
            let places: Result<Vec<usize>> = shown.candidates.iter().map(place).collect();
            view.candidates = asked.at(&places?);
        }
        Ok(view)
    }

    /// The rates of the candidates of `view`.
    fn rates(
        &self,
        model: &Model,
        view: &PageView,
        shown: &Shown,
        last: &mut Last,
    ) -> Result<Vec<f32>> {
        let asked = |(path, last): &(PathBuf, PageView)| path == model.path() && last == view;
        if !last.asked.as_ref().is_some_and(asked) {
            last.asked = None;
            model
                .ctrs(view, &mut last.scratch, &mut last.rates)
                .map_err(|error| self.wrong(shown, &error.to_string()))?;
            last.asked = Some((model.path().to_path_buf(), view.clone()));
        }
        Ok(last.rates.clone())
    }
}

/// The page view of a model of rewards: it knows the position, if it has learned of one.
fn at_position(model: &Model, mut view: PageView, shown: &Shown) -> PageView {
    const POSITION: &str = "position";
    let mut context = model.spec().fields.side(Side::Context);
    if let Some(on) = shown.on_page.as_ref().filter(|_| context.any(|field| field.name == POSITION))
    {
        let position = || Some(Cell::One(Text(on.position.to_string())));
        view.context.entry(POSITION.to_owned()).or_insert_with(position);
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use ams_data::source::MemoryTable;
    use ams_model::ImageArm;
    use ams_model::metrics::Bootstrap;

    fn close(got: &[f64], expected: &[f64]) {
        let near = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-12);
        assert!(near && got.len() == expected.len(), "{got:?}, expected {expected:?}");
    }

    #[test]
    fn choices_by_hand() {
        let best = Choice { temperature: None, top_k: 1, epsilon: 0.0 };
        let (all, some) = ([true; 4], [true, false, true, true]);
        let ecpm = [0.2, 0.4, 0.1, 0.2];
        close(&best.probabilities(&ecpm, &all), &[0.0, 1.0, 0.0, 0.0]);
        // The first of equal ones, as what is best is gone.
        close(&best.probabilities(&ecpm, &some), &[1.0, 0.0, 0.0, 0.0]);
        let any = Choice { epsilon: 0.3, ..best };
        close(&any.probabilities(&ecpm, &some), &[0.8, 0.0, 0.1, 0.1]);
        let three = Choice { top_k: 3, ..best };
        close(&three.probabilities(&ecpm, &all), &[1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0]);
        let soft = Choice { temperature: Some(1.0), top_k: usize::MAX, epsilon: 0.0 };
        close(&soft.probabilities(&ecpm, &all), &[2.0 / 9.0, 4.0 / 9.0, 1.0 / 9.0, 2.0 / 9.0]);
        let sharp = Choice { temperature: Some(0.5), epsilon: 0.4, top_k: 3 };
        let of = |share: f64| 0.1 + 0.6 * share;
        close(
            &sharp.probabilities(&ecpm, &all),
            &[of(1.0 / 6.0), of(4.0 / 6.0), 0.1, of(1.0 / 6.0)],
        );
        // Bids of 0 have nothing to prefer.
        close(&soft.probabilities(&[0.0; 4], &some), &[1.0 / 3.0, 0.0, 1.0 / 3.0, 1.0 / 3.0]);
        close(&soft.probabilities(&[0.0, 0.5, 0.0, 0.0], &all), &[0.0, 1.0, 0.0, 0.0]);
        let cold = Choice { temperature: Some(1e-9), ..soft };
        close(&cold.probabilities(&ecpm, &all), &[0.0, 1.0, 0.0, 0.0]);
    }

    const HEADER: [&str; 9] = [
        "user",
        "item",
        "page",
        "position",
        "clicked",
        "propensity",
        "candidates",
        "probabilities",
        "mine",
    ];

    fn log(rows: Vec<[String; 9]>) -> MemoryTable {
        MemoryTable::new("log.parquet", &HEADER, rows.into_iter().map(Vec::from).collect())
    }

    fn options(weighing: Weighing) -> LogOptions {
        LogOptions {
            columns: Columns::default(),
            further: Further { policy: Some("mine".to_owned()), expected: None },
            weighing,
            bootstrap: Bootstrap { replicates: 40, seed: 1 },
        }
    }

    fn by_column(table: &MemoryTable, weighing: Weighing) -> OffPolicy {
        let (policy, rewards) = (Evaluated::Column, RewardModel::None);
        off_policy(table, policy, rewards, None, &options(weighing)).unwrap()
    }

    fn mean(of: &OffPolicy, estimator: &str) -> f64 {
        let found = of.estimates.iter().find(|of| of.estimator == estimator).unwrap();
        found.value.unwrap().mean
    }

    /// `users` pages of two positions, where the item of a position was one of two by a coin and
    /// clicked if it is `a`; the policy shows `a` with a probability of its own.
    fn coins(users: usize, mine: &str) -> MemoryTable {
        let row = |at: usize| {
            let (user, position) = (at / 2, at % 2);
            // Each of the four pages as often.
            let item = ["a", "b"][user >> position & 1];
            let clicked = if item == "a" { "1" } else { "0" };
            let (page, user) = (format!("p{user}"), format!("u{user}"));
            let texts = [&user, item, &page, &position.to_string(), clicked, "0.5", "[a, b]"];
            let [user, item, page, position, clicked, propensity, candidates] =
                texts.map(str::to_owned);
            let probabilities = "[0.5 0.5]".to_owned();
            [
                user,
                item,
                page,
                position,
                clicked,
                propensity,
                candidates,
                probabilities,
                mine.to_owned(),
            ]
        };
        log((0..2 * users).map(row).collect())
    }

    #[test]
    fn a_log_of_coins_has_the_values_of_its_policies() {
        for (mine, expected) in [("[0.5 0.5]", 0.5), ("[0.9 0.1]", 0.9), ("[0 1]", 0.0)] {
            for weighing in [Weighing::Position, Weighing::Page] {
                let got = by_column(&coins(400, mine), weighing);
                assert!((mean(&got, "ipw") - expected).abs() < 1e-12, "{mine} {got:?}");
                assert!((mean(&got, "snipw") - expected).abs() < 1e-12, "{mine} {got:?}");
                assert_eq!((got.pages, got.users, got.impressions), (Some(400), 400, 800));
                assert_eq!(got.estimates[2].value, None, "there is no model");
                assert_eq!(got.overlap.unsupported, Some(0.0));
            }
        }
        let got = by_column(&coins(400, "[0.9 0.1]"), Weighing::Position);
        assert_eq!(got.warnings, [""; 0]);
        // Weights 1.8 and .2; of a page 3.24, .36, .36 and .04.
        assert!((got.overlap.effective_sample_size - 800.0 / 1.64).abs() < 1e-9);
        let got = by_column(&coins(400, "[0.9 0.1]"), Weighing::Page);
        assert!((got.overlap.largest_weight - 3.24).abs() < 1e-12);
    }

    /// A failed overlap is said, each kind by its words.
    #[test]
    fn failed_overlap_is_warned_of() {
        let warned = |table: &MemoryTable, words: &str| {
            let got = by_column(table, Weighing::Position);
            assert!(
                got.warnings.iter().any(|it| it.contains(words)),
                "{words}: {:#?}",
                got.warnings
            );
        };
        // What the log could not show, known by its probabilities or by the mean weight.
        let unseen = |probabilities: &str| {
            let row = |user: usize| {
                let candidates = "[a, b, c]";
                let user = format!("u{user}");
                let clicked = if user.ends_with('1') { "1" } else { "0" };
                let texts = [&user, "a", &user, "1", clicked, "0.5", candidates, probabilities];
                let [a, b, c, d, e, f, g, h] = texts.map(str::to_owned);
                [a, b, c, d, e, f, g, h, "[0.2 0.2 0.6]".to_owned()]
            };
            (0..400).map(row).collect::<Vec<_>>()
        };
        let table = log(unseen("[0.5 0.5 0]"));
        assert!(
            (by_column(&table, Weighing::Position).overlap.unsupported.unwrap() - 0.6).abs()
                < 1e-12
        );
        warned(&table, "gives 60.0 % of its probability to items that the log could not show");
        warned(&table, "the mean weight is 0.400, expected 1: the log lacks");
        let few = coins(20, "[0.5 0.5]");
        warned(&few, "worth 40 of 40");
        warned(&few, "20 rewards have a weight");
        warned(&coins(8, "[0.5 0.5]"), "8 users are too few for intervals");
        // A rare item that the policy loves.
        let rare = |user: usize| {
            let item = if user == 0 { "b" } else { "a" };
            let propensity = if user == 0 { "0.001" } else { "0.999" };
            let user = format!("u{user}");
            let texts =
                [&user, item, &user, "1", "1", propensity, "[a, b]", "[0.999 0.001]", "[0 1]"];
            texts.map(str::to_owned)
        };
        let rare = log((0..1000).map(rare).collect());
        warned(&rare, "one impression has 100 % of all weights (its weight is 1000.0)");
        warned(&rare, "worth 1 of 1000 (0.10 %)");
    }

    const PAGE: &str = r#"{"page": "p1", "user": {"id": "u1", "features": {"age": 25, "tags": ["a", "b"]},
        "behaviors": {"item": ["1", "5", "1"]}}, "context": {"hour": 12},
        "candidates": {"item": ["6", "4", "3"], "bid": [1, 2, 4]}}"#;

    /// Two positions of one page: rates are the scorer's, in the place of their candidates, and
    /// what is above is not chosen again.
    #[test]
    fn a_model_chooses_by_its_requests() {
        let fixture = Fixture::new(ImageArm::Joint);
        let model = fixture.model();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        std::fs::write(&path, PAGE.replace('\n', " ") + "\n\n{\"page\": 7}\n").unwrap();
        let requests = Requests::read(&path).unwrap();
        let row = |item: &str, position: &str, propensity: &str, candidates: &str| {
            ["u1", item, "p1", position, "1", propensity, candidates, "", ""].map(str::to_owned)
        };
        let rows = vec![row("3", "1", "0.5", "[3, 4, 6]"), row("4", "2", "0.25", "[3, 4, 6]")];
        let mut options = options(Weighing::Position);
        options.columns = Columns::renamed(["probabilities="]).unwrap();
        options.further = Further::default();
        let soft = Choice { temperature: Some(1.0), top_k: usize::MAX, epsilon: 0.0 };
        let policy = Evaluated::Model { model: &model, choice: soft };
        let ask = |rows: &[[String; 9]], requests: Option<&Requests>| {
            off_policy(&log(rows.to_vec()), policy, RewardModel::Model(&model), requests, &options)
        };
        let got = ask(&rows, Some(&requests)).unwrap();
        // The scorer's rates of 6, 4 and 3, and their eCPM.
        let page = PageView::parse(PAGE.replace(r#""page": "p1", "#, "").as_bytes()).unwrap();
        let mut rates = Vec::new();
        model.ctrs(&page, &mut Scratch::default(), &mut rates).unwrap();
        let rates: Vec<f64> = rates.into_iter().map(f64::from).collect();
        let ecpm = [rates[0], 2.0 * rates[1], 4.0 * rates[2]];
        let sum: f64 = ecpm.iter().sum();
        let first = ecpm[2] / sum / 0.5;
        let second = ecpm[1] / (ecpm[0] + ecpm[1]) / 0.25;
        close(&[mean(&got, "ipw")], &[(first + second) / 2.0]);
        let direct = [
            ecpm.iter().zip(&rates).map(|(of, rate)| of / sum * rate).sum::<f64>(),
            (ecpm[0] * rates[0] + ecpm[1] * rates[1]) / (ecpm[0] + ecpm[1]),
        ];
        close(&[mean(&got, "direct")], &[(direct[0] + direct[1]) / 2.0]);
        let robust = direct[0] + first * (1.0 - rates[2]) + direct[1] + second * (1.0 - rates[1]);
        close(&[mean(&got, "doubly-robust")], &[robust / 2.0]);
        assert!(!got.warnings.iter().any(|it| it.contains("no requests")), "{:?}", got.warnings);
        // Without requests, the user is all there is, and is said.
        let got = ask(&rows, None).unwrap();
        assert!(got.warnings.iter().any(|it| it.starts_with("no requests")), "{:?}", got.warnings);

        let error = |rows: &[[String; 9]]| ask(rows, Some(&requests)).unwrap_err().to_string();
        let mut other = rows.clone();
        other[1][2] = "p2".to_owned();
        assert!(
            error(&other).starts_with("log.parquet: row 2: no page `p2` in "),
            "{}",
            error(&other)
        );
        let mut other = rows.clone();
        other[0][6] = "[3, 5]".to_owned();
        let expected = "log.parquet: row 1: candidate `5` is not among those of the request";
        assert_eq!(error(&other), expected);
        let mut other = rows.clone();
        other[1] = row("3", "2", "0.25", "[3]");
        assert_eq!(error(&other), "log.parquet: row 2: all candidates are above it on the page");
    }

    #[test]
    fn a_request_is_wrong_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("requests.jsonl");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Requests::read(&path).unwrap_err().to_string()
        };
        for (text, expected) in [
            ("{\"page\": \"a\"}\n{\"page\": \"a\"}", "line 2: page `a` was there before"),
            ("\n{\"user\": {}}", "line 2: no `page`, expected the page of the log"),
            ("{\"page\": 1, \"usr\": {}}", "line 1: request: "),
            ("{\"page\": 1", "line 1: request: "),
        ] {
            assert!(error(text).contains(expected), "{}", error(text));
        }
    }

    #[test]
    fn questions_that_a_log_cannot_answer() {
        let (table, options) = (coins(12, "[0.5 0.5]"), options(Weighing::Page));
        let error = |columns: &[&str], options: &LogOptions, requests: Option<&Requests>| {
            let columns = Columns::renamed(columns.iter().copied()).unwrap();
            let options = LogOptions { columns, ..options.clone() };
            let (policy, rewards) = (Evaluated::Column, RewardModel::None);
            off_policy(&table, policy, rewards, requests, &options).unwrap_err().to_string()
        };
        let got = error(&["page="], &options, None);
        assert_eq!(
            got,
            "log.parquet: no columns `page` and `position`, by which pages are weighed"
        );
        let by_position = LogOptions { weighing: Weighing::Position, ..options.clone() };
        let got = error(&["page="], &by_position, Some(&Requests::default()));
        assert_eq!(got, "log.parquet: no column `page`, by which requests are found");
        let fixture = Fixture::new(ImageArm::None);
        let rewards = RewardModel::Model(&fixture.model());
        let columns = Columns::renamed(["candidates=", "page="]).unwrap();
        let further = Further { policy: Some("propensity".to_owned()), expected: None };
        let without = LogOptions { columns, further, ..by_position };
        let got = off_policy(&table, Evaluated::Column, rewards, None, &without).unwrap_err();
        let expected = "log.parquet: no column `candidates`, among which the model is to choose";
        assert_eq!(got.to_string(), expected);
        let got = off_policy(&table, Evaluated::Column, RewardModel::None, None, &without).unwrap();
        assert_eq!((mean(&got, "ipw"), got.pages, got.overlap.unsupported), (0.5, None, None));
    }

    /// A model of clicks has no expected payments.
    #[test]
    fn payments_are_not_clicks() {
        let fixture = Fixture::new(ImageArm::None);
        let rows = (0..4).map(|user: usize| {
            let user = user.to_string();
            let texts = [&user, "1", &user, "1", "2.5", "0.5", "[1, 2]", "[0.5 0.5]", "[1 0]"];
            texts.map(str::to_owned)
        });
        let (table, rewards) = (log(rows.collect()), RewardModel::Model(&fixture.model()));
        let options = options(Weighing::Position);
        let got = off_policy(&table, Evaluated::Column, rewards, None, &options).unwrap();
        assert_eq!((got.estimates[2].value, got.estimates[3].value), (None, None));
        assert!(got.warnings[0].starts_with("rewards other than 0 and 1"), "{:?}", got.warnings);
        assert_eq!(mean(&got, "ipw"), 5.0);
    }
}
