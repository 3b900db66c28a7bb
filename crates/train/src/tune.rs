//! Settings tried on samples held out: a grid, or successive halving of one.
//!
//! ```text
//! <name>.tune-<n>    variant n: a training with early stop, a run like any other
//! ```
//! With halving all variants are trained for a part of their steps, the better half of them for
//! twice as many, and so on, until one is left, which is trained to its end. How good a variant is
//! after a round is read from its metrics up to the steps of that round, so a job that was killed
//! and goes on decides the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_bundle::Predictions;
use ams_fabric::{Fabric, Lent, agree, gather, on_first, together};
use ams_model::metrics::Gain;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::run::compare::{gain, predict_held_out};
use crate::run::journal::ValidationLine;
use crate::run::layout::METRICS;
use crate::run::progress::{Cursor, StepReport, Validation};
use crate::run::{self, RunReport, folder};
use crate::settings::{Config, Criterion};
use crate::setup::job::{Job, Next, Start, facts_of};

/// One choice of settings, and the training that has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Key and value of each setting that is tried.
    pub settings: Vec<(String, String)>,
    /// The training; its name is that of the run it becomes.
    pub config: Config,
}

/// What the trainings of all variants found; `--json` of `ams tune`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TuneReport {
    /// The metric by which variants are compared.
    pub criterion: Criterion,
    /// Rounds of halving; 1 without.
    pub rounds: usize,
    /// The variants, in their order.
    pub variants: Vec<Tuned>,
    /// The best of those trained to their end, counted from 0; the first of equals. None, if no
    /// evaluation gives the metric.
    pub best: Option<usize>,
    /// False if the watcher stopped a training.
    pub finished: bool,
}

/// One variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tuned {
    /// Key and value of each setting that was tried.
    pub settings: Vec<(String, String)>,
    /// Path of its run folder.
    pub run: PathBuf,
    /// Rounds that it was trained in.
    pub rounds: usize,
    /// Epochs until its best evaluation; a fraction where that is within an epoch.
    pub epochs: f64,
    /// Its best evaluation.
    pub validation: Option<Validation>,
    /// How much better it is than the first one that was trained to its end; none of that one and
    /// of those that were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<Gain>,
}

/// Trains `variants` in turn, with `halving` only the better half of them to twice as many steps;
/// `watch` sees the number of the variant beside each step, and may stop. All processes of `job`
/// call it together.
///
/// # Errors
/// If a variant has no early stop or asks for a refit, a run folder is taken, or a training fails.
///
/// # Panics
/// Without a variant.
pub fn tune(
    variants: &[Variant],
    halving: bool,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(usize, &StepReport, u64) -> Next,
) -> Result<TuneReport> {
    let Job { mut fabric, threads, facts, places } = job;
    let criterion = variants[0].config.train.early_stop_by;
    together(&mut *fabric, variants.iter().try_for_each(|of| check(of, &variants[0].config)))?;
    for variant in variants {
        agree::<Error>(&mut *fabric, &facts_of(&variant.config))?;
    }
    let mut fabric = Lent::new(fabric);
    let lent = fabric.clone();
    let lend = move || Job {
        fabric: Box::new(lent.clone()),
        threads,
        facts: facts.clone(),
        places: Arc::clone(&places),
    };
    on_first(&mut fabric, || match start {
        Start::Fresh => variants.iter().try_for_each(|variant| is_free(variant, &lend())),
        Start::Resume | Start::Auto | Start::Replace => Ok(()),
    })?;
    let rounds = if halving { rounds(variants.len()) } else { 1 };
    let mut trained: Vec<Option<RunReport>> = vec![None; variants.len()];
    let mut taken = vec![0; variants.len()];
    let mut left: Vec<usize> = (0..variants.len()).collect();
    let mut finished = true;
    'rounds: for round in 0..rounds {
        let part = 1_u64 << (rounds - 1 - round);
        for &at in &left {
            let start = if round > 0 { Start::Auto } else { begun(start, at) };
            let asked = &mut |report: &StepReport, steps: u64| watch(at, report, steps);
            let (report, stopped) = take(&variants[at].config, start, lend(), part, asked)?;
            trained[at] = Some(report);
            if stopped {
                finished = false;
                break 'rounds;
            }
            taken[at] = round + 1;
        }
        if round + 1 < rounds {
            let scores = on_first(&mut fabric, || {
                let score = |&at: &usize| {
                    let run = lend().run_folder(&variants[at].config)?;
                    score(variants, &trained, at, part, run.here())
                };
                left.iter().map(score).collect()
            })?;
            left = better_half(&left, &tell(scores, &mut fabric)?);
        }
    }
    let mut alive = || {
        watch(left[0], &StepReport::round(Cursor::default()), 0);
    };
    let ended: &[usize] = if finished { &left } else { &[] };
    let gains = gains(variants, ended, criterion, &lend, &mut alive)?;
    let tuned = variants.iter().zip(trained).enumerate().map(|(at, (variant, report))| Tuned {
        settings: variant.settings.clone(),
        run: folder(&variant.config),
        rounds: taken[at],
        epochs: report.as_ref().map_or(0.0, RunReport::epochs_of_best),
        validation: report.and_then(|report| report.validation),
        gain: gains[at],
    });
    let variants: Vec<Tuned> = tuned.collect();
    let best = best(&variants, ended, criterion);
    Ok(TuneReport { criterion, rounds, variants, best, finished })
}

/// The best of `ended` by its best evaluation, the first of equals.
fn best(variants: &[Tuned], ended: &[usize], criterion: Criterion) -> Option<usize> {
    let value = |at: usize| variants[at].validation.and_then(|of| of.by(criterion));
    let valued = ended.iter().copied().filter(|&at| value(at).is_some());
    valued.reduce(|best, at| if value(at) > value(best) { at } else { best })
}

/// Checks that a variant finds its length on samples held out, which are those of `first`, and by
/// the same metric.
fn check(variant: &Variant, first: &Config) -> Result<()> {
    let train = &variant.config.train;
    let bad = |key: &str, what: &str| Err(Error::Config { key: key.into(), what: what.into() });
    if train.early_stop.is_none() {
        let what = "settings are compared on samples held out, each after its best evaluation: set \
                    train.validation_tail and train.early_stop";
        return bad("train.early_stop", what);
    }
    let compared = |config: &Config| {
        let Config { data, train, .. } = config;
        [
            ("train.early_stop_by", format!("{:?}", train.early_stop_by)),
            ("train.validation_tail", train.validation_tail.to_string()),
            ("train.validation_parts", train.validation_parts.to_string()),
            ("data.samples", data.samples.display().to_string()),
        ]
    };
    let pairs = compared(&variant.config).into_iter().zip(compared(first));
    if let Some(((key, _), _)) = pairs.into_iter().find(|(mine, of_first)| mine != of_first) {
        return bad(key, "is what settings are compared on: it cannot be tried");
    }
    if train.refit {
        return bad("train.refit", "variants are not trained on all samples");
    }
    variant.config.check()
}

/// Checks that no training is where that of `variant` will be.
fn is_free(variant: &Variant, job: &Job) -> Result<()> {
    let kept = job.run_folder(&variant.config)?;
    let run = folder(&variant.config);
    let is_taken = if kept.is_kept() { !kept.list()?.is_empty() } else { run.exists() };
    if is_taken {
        let what = "holds an earlier training; choose another name, go on with --resume, or \
                    --replace it";
        return Err(Error::content(run, what));
    }
    Ok(())
}

/// How the training of variant `at` begins, where the job begins with `start`: with `--resume`
/// there is something of the first one, at least.
fn begun(start: Start, at: usize) -> Start {
    if at > 0 { start.later() } else { start }
}

/// Rounds until one of `count` variants is left.
fn rounds(count: usize) -> usize {
    1 + (1..).take_while(|&round| count.div_ceil(1 << (round - 1)) > 1).count()
}

/// Trains for one `part`-th of the steps. The second value says whether `watch` stopped it.
fn take(
    config: &Config,
    start: Start,
    job: Job,
    part: u64,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<(RunReport, bool)> {
    let mut stopped = false;
    let mut until = |report: &StepReport, steps: u64| {
        if watch(report, steps) == Next::Stop {
            stopped = true;
            return Next::Stop;
        }
        // Steps of an alignment have no impressions.
        let is_step = report.impressions > 0;
        let is_end = part > 1 && is_step && report.cursor.step >= steps.div_ceil(part);
        if is_end { Next::Stop } else { Next::GoOn }
    };
    let mut fabric = Lent::new(job.fabric);
    let job = Job { fabric: Box::new(fabric.clone()), ..job };
    let report = run::train(config, start, job, &mut until)?;
    let stopped = fabric.any(stopped)?;
    Ok((report, stopped))
}

/// How good variant `at` was at its best within one `part`-th of its steps, by its metrics; less
/// than any without an evaluation. Its run is in the folder `run`.
fn score(
    variants: &[Variant],
    trained: &[Option<RunReport>],
    at: usize,
    part: u64,
    run: &Path,
) -> Result<f64> {
    let config = &variants[at].config;
    let all = trained[at].as_ref().map_or(0, |report| {
        let all = report.steps_per_epoch * u64::from(config.train.epochs);
        config.train.max_steps.map_or(all, |most| all.min(most))
    });
    let path = run.join(METRICS);
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<ValidationLine>(line).ok());
    let within = lines.filter(|line| line.step <= all.div_ceil(part));
    let by = |line: ValidationLine| line.validation.by(config.train.early_stop_by);
    Ok(within.filter_map(by).fold(f64::NEG_INFINITY, f64::max))
}

/// `scores` of the first process, at every process.
fn tell(scores: Option<Vec<f64>>, fabric: &mut dyn Fabric) -> Result<Vec<f64>> {
    let mine: Vec<u64> = scores.unwrap_or_default().into_iter().map(f64::to_bits).collect();
    let first = gather::numbers(fabric, &mine)?.swap_remove(0);
    Ok(first.into_iter().map(f64::from_bits).collect())
}

/// Those of `left` with the better half of `scores`, in their order; of equals the first ones.
fn better_half(left: &[usize], scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..left.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(left.len().div_ceil(2));
    order.sort_unstable();
    order.into_iter().map(|at| left[at]).collect()
}

/// Of each variant of `ended` its gain over the first of them.
fn gains(
    variants: &[Variant],
    ended: &[usize],
    criterion: Criterion,
    lend: &dyn Fn() -> Job,
    alive: &mut dyn FnMut(),
) -> Result<Vec<Option<Gain>>> {
    let mut gains = vec![None; variants.len()];
    let mut first: Option<Predictions> = None;
    for &at in ended.iter().filter(|_| ended.len() > 1) {
        let job = lend();
        let run = job.run_folder(&variants[at].config)?;
        let now = predict_held_out(run.here(), job, alive)?;
        match &first {
            None => first = Some(now),
            Some(first) => gains[at] = gain(criterion, first, &now, &mut *lend().fabric)?,
        }
    }
    Ok(gains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_ends_with_one() {
        for (count, expected) in [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5), (16, 5)] {
            assert_eq!(rounds(count), expected, "{count}");
            let mut left: Vec<usize> = (0..count).collect();
            for _ in 1..expected {
                let scores = vec![0.5; left.len()];
                left = better_half(&left, &scores);
            }
            assert_eq!(left, [0], "of equals the first one");
        }
    }

    #[test]
    fn the_better_half_stays_in_its_order() {
        let none = f64::NEG_INFINITY;
        let cases: [(&[f64], &[usize]); 4] = [
            (&[0.1, 0.3, 0.2, 0.4], &[11, 13]),
            (&[0.1, 0.3, 0.2], &[11, 12]),
            (&[none, none, 0.1], &[10, 12]),
            (&[-0.5, -0.4, -0.4, -0.4], &[11, 12]),
        ];
        for (scores, expected) in cases {
            let left: Vec<usize> = (10..10 + scores.len()).collect();
            assert_eq!(better_half(&left, scores), expected, "{scores:?}");
        }
    }
}
