//! `ams bench metrics`: AUC and GAUC of millions of scores.

use std::path::PathBuf;
use std::time::Instant;

use ams_bundle::{Predictions, evaluate};
use ams_bundle::{Ranking, by_score, by_user};
use ams_model::init::mix;
use ams_model::metrics::{Impression, auc_of_sorted, gauc_of_sorted};
use serde::Serialize;

use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::{Output, count, table};

/// Share of scores whose label is 1.
const CLICKED: f64 = 0.04;

/// Time AUC and GAUC of simulated scores: users from a Zipf law, 4 % clicks.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Number of scores, such as 1e7.
    #[arg(long, value_name = "N", default_value = "1e7", value_parser = amount)]
    scores: u64,
    /// Users they are of; the last ones may have none.
    #[arg(long, value_name = "N", default_value = "500000", value_parser = amount)]
    users: u64,
    /// Seed from which the scores and labels are drawn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where to write the scores, as `ams eval` writes predictions: user, logit, label and others.
    #[arg(long, value_name = "FILE.parquet")]
    export: Option<PathBuf>,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    scores: u64,
    /// Who has scores at all.
    users: u64,
    users_without_auc: u64,
    positives: u64,
    auc: Option<f64>,
    gauc: Option<f64>,
    seconds: Seconds,
}

/// From unsorted columns to the number.
#[derive(Debug, Serialize)]
struct Seconds {
    auc: f64,
    gauc: f64,
    both: f64,
    /// All metrics, and those of the slices, as `ams eval` prints them.
    evaluation: f64,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    if launch.rank() > 0 {
        return Ok(());
    }
    let predictions = simulated(&arguments);
    if let Some(path) = &arguments.export {
        predictions.write(path)?;
    }
    let report = measured(&predictions);
    output.finish(&report, || text(&report));
    Ok(())
}

/// Predictions that depend on the seed and their number alone. Clicked ones have scores that are
/// greater by one deviation.
fn simulated(arguments: &Arguments) -> Predictions {
    let mut predictions = Predictions::default();
    for row in 0..arguments.scores {
        let key = mix(mix(arguments.seed) ^ row);
        // Uniform in 0..1.
        let unit =
            |column: u64| (mix(key.wrapping_add(column)) >> 11) as f64 / (1_u64 << 53) as f64;
        let clicked = unit(0) < CLICKED;
        // The sum of four has a deviation of .577.
        let noise = (unit(1) + unit(2) + unit(3) + unit(4) - 2.0) / 0.577;
        // How often somebody is met goes with one over their number; ids are hashes.
        let user = (arguments.users as f64).powf(unit(5)) as u64;
        predictions.users.push(mix(user));
        predictions.items.push((1e6_f64).powf(unit(6)) as u64);
        predictions.labels.push(u8::from(clicked));
        predictions.logits.push((noise + f64::from(u8::from(clicked)) - 3.5) as f32);
        predictions.behaviors.push((unit(7) * 50.0) as u32);
        predictions.with_image.push(unit(8) < 0.9);
        predictions.times.push(0);
    }
    predictions
}

fn measured(predictions: &Predictions) -> Report {
    let Predictions { users, logits, labels, .. } = predictions;
    let impressions = || Impression::all(users, logits, labels);
    let (auc, auc_seconds) = timed(|| auc_of_sorted(&by_score(impressions())));
    let (gauc, gauc_seconds) = timed(|| gauc_of_sorted(&by_user(impressions())));
    let (both, both_seconds) = timed(|| Ranking::new(impressions()).of(0));
    assert_eq!(both, (auc, gauc), "the same scores have the same metrics");
    // Any function of the item will do: one in ten is cold.
    let frequency = |item: u64| if item.is_multiple_of(10) { 0 } else { (1_000_000 / item) as u32 };
    let (evaluation, evaluation_seconds) = timed(|| evaluate(predictions, &frequency));
    assert_eq!((evaluation.all.auc, evaluation.all.gauc), (auc, gauc.gauc), "the same scores");
    Report {
        scores: labels.len() as u64,
        users: gauc.users,
        users_without_auc: gauc.users_without_auc,
        positives: labels.iter().map(|&label| u64::from(label)).sum(),
        auc,
        gauc: gauc.gauc,
        seconds: Seconds {
            auc: auc_seconds,
            gauc: gauc_seconds,
            both: both_seconds,
            evaluation: evaluation_seconds,
        },
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed().as_secs_f64())
}

fn text(report: &Report) -> String {
    let Seconds { auc, gauc, both, evaluation } = report.seconds;
    let value = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.9}"));
    let row = |name: &str, seconds: f64, value: String| {
        vec![name.to_owned(), format!("{seconds:.3}"), value]
    };
    let rows = [
        row("AUC", auc, value(report.auc)),
        row("GAUC", gauc, value(report.gauc)),
        row("both", both, String::new()),
        row("all metrics and slices", evaluation, String::new()),
    ];
    format!(
        "{}{} scores, {} users ({} with one class only), {} positives\n",
        table(&["", "seconds", "value"], &rows),
        count(report.scores),
        count(report.users),
        count(report.users_without_auc),
        count(report.positives),
    )
}

/// Reads a number of things, also written as `1e7`.
fn amount(text: &str) -> Result<u64, String> {
    const MOST: f64 = 1e9;
    let number = text.parse().ok().filter(|&number: &f64| (1.0..=MOST).contains(&number));
    number.map(|number| number as u64).ok_or_else(|| format!("expected 1 to {MOST:.0}"))
}
