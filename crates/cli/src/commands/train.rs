//! `ams train`: learn a model.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use ams_location::Locations;
use ams_train::run::{self, Choice, Next, RunReport, SemanticReport, Start, two_decimals};
use ams_train::{Asked, Config, Counts, FieldIds, Job, RowCounts};

use crate::alignment;
use crate::commands::job::{Begun, JobArguments};
use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::{Output, bytes, count, metric, table};
use crate::watchdog::Watchdog;

/// Train a model as a TOML file says; or, with --follow, go on with it as a log lands.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) job: JobArguments,
    /// Learn from the Parquet files that land in this folder, here or in a bucket, and publish a
    /// version every few minutes of the log; the configuration is that of docs/follow.md.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["resume", "auto_resume", "replace"])]
    pub(crate) follow: Option<PathBuf>,
    /// End when all files that are there were read.
    #[arg(long, requires = "follow")]
    pub(crate) once: bool,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let config = arguments.job.config(locations)?;
    let Begun { watchdog, start, stop, job } = arguments.job.begin(launch, locations, output)?;
    let report = train(&config, start, job, &stop, Some(&watchdog), output)?;
    output.finish(&report, || text(&report));
    if report.finished { Ok(()) } else { Err(Failure::Interrupted) }
}

/// Trains with a progress bar until done or `stop`.
pub(crate) fn train(
    config: &Config,
    start: Start,
    job: Job,
    stop: &AtomicBool,
    watchdog: Option<&Watchdog>,
    output: Output<'_>,
) -> Result<RunReport, Failure> {
    const BAR: &str = "{prefix:>10} {bar:32} step {pos}/{len} eta {eta} {msg}";
    let bar = output.bar("train", 0, BAR);
    let begin = std::time::Instant::now();
    let mut seen = 0;
    let (mut smooth, mut phase) = (None, None);
    let mut watch = |report: &ams_train::StepReport, steps: u64| {
        if let Some(watchdog) = watchdog {
            watchdog.alive(|| format!("step {}", report.cursor.step));
        }
        output.step(report, steps);
        // None, if it is a round of a validation.
        if report.impressions > 0 {
            seen += report.impressions;
            let loss = smooth.map_or(report.loss, |loss: f64| 0.95 * loss + 0.05 * report.loss);
            smooth = Some(loss);
        }
        if report.impressions > 0 && report.phase != phase {
            phase = report.phase;
            let number = phase.unwrap_or_default();
            let text = format!("step {} of {steps}: phase {number}", report.cursor.step);
            bar.suspend(|| output.say(&text));
        }
        bar.set_length(steps);
        bar.set_position(report.cursor.step);
        let rate = seen as f64 / begin.elapsed().as_secs_f64().max(1e-9);
        bar.set_message(format!(
            "{} impressions/s loss {:.4}",
            count(rate as u64),
            smooth.unwrap_or_default()
        ));
        if stop.load(Ordering::Relaxed) { Next::Stop } else { Next::GoOn }
    };
    let report = run::train(config, start, job, &mut watch);
    bar.finish_and_clear();
    Ok(report?)
}

fn text(report: &RunReport) -> String {
    let end =
        if report.finished { "trained" } else { "stopped with a checkpoint; go on with --resume:" };
    let place = match report.processes {
        1 => String::new(),
        processes => format!(" on {processes} processes of {} threads", report.threads),
    };
    let validation = report.validation.map_or(String::new(), |validation| {
        let epoch = report.best_step.map_or("validation".to_owned(), |step| {
            let epochs = two_decimals(step as f64 / report.steps_per_epoch as f64);
            format!("best after {epochs} of {} epochs: validation", report.epochs)
        });
        let of =
            [("GAUC", validation.gauc), ("AUC", validation.auc), ("log loss", validation.logloss)];
        let of = of.map(|(name, value)| format!("{name} {}", metric(value)));
        format!("{epoch} {}\n", of.join(", "))
    });
    let choice = report.choice.as_ref().map_or(String::new(), chosen);
    let admitted = report.admitted.as_deref().map_or(String::new(), admitted);
    let rows = report.rows.as_ref().map_or(String::new(), rows);
    let semantic = report.semantic_ids.as_ref().map_or(String::new(), semantic_ids);
    let alignment = report.alignment.as_ref().map_or(String::new(), alignment::text);
    format!(
        "{alignment}{choice}{admitted}{rows}{semantic}{end} {}: {} steps, {} impressions in {:.1} s{place} ({} impressions/s), loss {}\n{validation}{}",
        report.run.display(),
        count(report.steps),
        count(report.impressions),
        report.seconds,
        count(report.impressions_per_second as u64),
        metric(report.loss),
        traffic(report),
    )
}

/// The semantic ids of a model, in a line.
fn semantic_ids(of: &SemanticReport) -> String {
    let SemanticReport { levels, size, images, own } = *of;
    format!("{}\n", own_codes([levels, size], own, images))
}

/// How many pictures have codes of their own, in words.
pub(crate) fn own_codes([levels, size]: [usize; 2], own: u64, images: u64) -> String {
    let share = 100.0 * own as f64 / images.max(1) as f64;
    format!(
        "semantic ids: {levels} levels of {size}; {share:.1} % of the images have codes of their own"
    )
}

/// The ids with a row of their own, as a table.
fn admitted(fields: &[FieldIds]) -> String {
    let row = |of: &FieldIds| vec![of.field.clone(), count(of.ids), count(of.admitted)];
    table(
        &["ids in training", "different", "admitted"],
        &fields.iter().map(row).collect::<Vec<_>>(),
    )
}

/// The rows that are there, and those that came and went, in a line.
fn rows(of: &RowCounts) -> String {
    format!(
        "rows of ids: {} in {}, at most {} of a lane; {} admitted, {} not seen for long, {} without room\n",
        count(of.rows),
        bytes(of.bytes as f64),
        bytes(of.largest_lane_bytes as f64),
        count(of.admitted),
        count(of.evicted_by_days),
        count(of.evicted_by_bytes),
    )
}

/// What was compared before a refit, as a table.
fn chosen(choice: &Choice) -> String {
    let (header, rows) = choice.table();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let table = table(&header, &rows);
    if choice.left_out.is_empty() {
        return table;
    }
    let left_out: Vec<&str> = choice.left_out.iter().map(|of| of.as_str()).collect();
    format!(
        "{table}not trained: {}; the dataset has no image features (`ams encode` makes them, or set \
         data.images)\n",
        left_out.join(", ")
    )
}

/// What a step moved, as a table.
fn traffic(report: &RunReport) -> String {
    let Counts { traffic, images, ids, wire_bytes, .. } = report.per_step;
    if images.requested + ids.requested == 0.0 {
        return String::new();
    }
    let kinds = traffic.kinds().into_iter().filter(|(_, bytes)| *bytes > 0.0);
    let mut rows: Vec<Vec<String>> =
        kinds.map(|(kind, sent)| vec![kind.to_owned(), bytes(sent)]).collect();
    rows.push(vec!["between processes".to_owned(), bytes(wire_bytes)]);
    let table = table(&["per step, between lanes", "bytes"], &rows);
    format!("{table}{}{}", asked("ids", ids), asked("images", images))
}

/// How often something was asked for in a step, and how often that was the same thing.
pub(crate) fn asked(what: &str, asked: Asked) -> String {
    format!(
        "{what} per step: {} requested, {} distinct per worker, {} distinct in all\n",
        count(asked.requested as u64),
        count(asked.unique_per_worker as u64),
        count(asked.unique_per_shard as u64),
    )
}
