//! `ams tune`: settings tried on samples held out.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use ams_location::Locations;
use ams_train::Config;
use ams_train::run::{Next, gain_cell, two_decimals};
use ams_train::tune::{self, TuneReport, Tuned, Variant};
use toml::{Table, Value};

use crate::commands::job::{Begun, JobArguments};
use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::{Output, table};

/// Most trainings of one job.
const MOST: usize = 256;

/// Try settings: train each combination of values on a part of the training samples, compare them
/// on the samples held out, and print a table.
///
/// The configuration has to hold samples out and stop early (train.validation_tail,
/// train.early_stop). With candidates or a refit, the model itself is tried, without both.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    job: JobArguments,
    /// Key and values of a setting, such as `train.l2_ids=[0, 0.01]`; with several settings, each
    /// combination of their values is tried.
    #[arg(long = "try", value_name = "KEY=[VALUE, ..]", required = true)]
    tries: Vec<String>,
    /// Train all combinations for a part of their steps, the better half of them for twice as many,
    /// and so on, until one is left.
    #[arg(long)]
    halving: bool,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let variants = variants(&arguments, locations)?;
    let Begun { watchdog, start, stop, job } = arguments.job.begin(launch, locations, output)?;
    const BAR: &str = "{prefix:>10} {bar:32} step {pos}/{len} {msg}";
    let bar = output.bar("tune", 0, BAR);
    let mut watch = |at: usize, report: &ams_train::StepReport, steps: u64| {
        watchdog.alive(|| format!("step {} of variant {at}", report.cursor.step));
        bar.set_length(steps);
        bar.set_position(report.cursor.step);
        bar.set_message(format!("of variant {} of {}", at + 1, variants.len()));
        if stop.load(Ordering::Relaxed) { Next::Stop } else { Next::GoOn }
    };
    let report = tune::tune(&variants, arguments.halving, start, job, &mut watch)?;
    bar.finish_and_clear();
    output.finish(&report, || text(&report));
    if report.finished { Ok(()) } else { Err(Failure::Interrupted) }
}

/// The combinations, in the order of the settings and of their values.
fn variants(arguments: &Arguments, locations: &Locations) -> Result<Vec<Variant>, Failure> {
    let mut combinations: Vec<Vec<(String, String)>> = vec![Vec::new()];
    let mut keys = BTreeSet::new();
    for asked in &arguments.tries {
        let (key, values) = values(asked)?;
        if !keys.insert(key.clone()) {
            return Err(Failure::user(format!("--try {asked}: {key} is tried already")));
        }
        let count = combinations.len() * values.len();
        if count > MOST {
            let what = format!("--try {asked}: {count} combinations, expected at most {MOST}");
            return Err(Failure::user(what));
        }
        let with = |settings: Vec<(String, String)>| {
            let more = values.iter().map(|value| (key.clone(), value.clone()));
            let each = more.map(|one| settings.iter().cloned().chain([one]).collect());
            each.collect::<Vec<Vec<_>>>()
        };
        combinations = combinations.into_iter().flat_map(with).collect();
    }
    let each = combinations.into_iter().enumerate();
    each.map(|(at, settings)| variant(arguments, locations, at, settings)).collect()
}

/// Key and values of a `--try`.
fn values(asked: &str) -> Result<(String, Vec<String>), Failure> {
    let bad = |what: &str| Failure::user(format!("--try {asked}: {what}"));
    let (key, list) = asked.split_once('=').ok_or_else(|| bad("expected KEY=[VALUE, ..]"))?;
    let key = key.trim();
    if ["name", "runs", "model.preset"].contains(&key) {
        return Err(bad("no setting of the model or its training"));
    }
    let read = toml::from_str::<Table>(&format!("list = {list}"));
    match read.ok().and_then(|mut read| read.remove("list")) {
        Some(Value::Array(values)) if !values.is_empty() => {
            Ok((key.to_owned(), values.iter().map(ToString::to_string).collect()))
        }
        _ => Err(bad("expected a list of at least one value in TOML, such as [0, 0.01]")),
    }
}

fn variant(
    arguments: &Arguments,
    locations: &Locations,
    at: usize,
    settings: Vec<(String, String)>,
) -> Result<Variant, Failure> {
    let sets: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut config: Config = arguments.job.config_with(locations, &sets)?;
    // What a run writes down names no preset, which would fill what is left out here.
    config.model.preset = None;
    let train = &mut config.train;
    (train.refit, train.candidate_errors) = (false, 0.0);
    train.candidates.clear();
    config.name = format!("{}.tune-{at}", config.name);
    Ok(Variant { settings, config })
}

fn text(report: &TuneReport) -> String {
    let Some(first) = report.variants.first() else { return String::new() };
    let keys = first.settings.iter().map(|(key, _)| &key[..]);
    let mut head: Vec<&str> = keys.collect();
    head.extend(["rounds", "epochs", "GAUC", "AUC", "log loss", "gain", ""]);
    let row = |(at, tuned): (usize, &Tuned)| {
        let mut row: Vec<String> = tuned.settings.iter().map(|(_, value)| value.clone()).collect();
        row.push(format!("{} of {}", tuned.rounds, report.rounds));
        row.push(two_decimals(tuned.epochs).to_string());
        row.extend(tuned.validation.unwrap_or_default().cells());
        row.push(gain_cell(tuned.gain));
        row.push(if report.best == Some(at) { "best".to_owned() } else { String::new() });
        row
    };
    let rows: Vec<Vec<String>> = report.variants.iter().enumerate().map(row).collect();
    let table = table(&head, &rows);
    match (report.finished, report.best) {
        (false, _) => format!("{table}stopped with a checkpoint; go on with --resume\n"),
        (true, None) => {
            format!("{table}no evaluation gives the metric: no user held out has both labels\n")
        }
        (true, Some(best)) => {
            let sets = report.variants[best].settings.iter();
            let sets: Vec<String> =
                sets.map(|(key, value)| format!("--set '{key}={value}'")).collect();
            format!("{table}To train the best one: ams train CONFIG {}\n", sets.join(" "))
        }
    }
}
