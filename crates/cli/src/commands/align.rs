//! `ams align`: a map of image features, aligned with what users engage with together.

use std::sync::atomic::Ordering;

use ams_location::Locations;
use ams_train::align::{self, ALIGNED, AlignReport, Found, Progress, Traffic};
use ams_train::run::Next;

use crate::commands::job::JobArguments;
use crate::commands::train::stop_on_interrupt;
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, bytes, count, metric, table};

/// Align image features with the items that users engage with together, as the table `[align]` of a
/// configuration says.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    job: JobArguments,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output,
) -> Result<(), Failure> {
    let watchdog = arguments.job.watchdog(launch.rank());
    let config = arguments.job.config(locations)?;
    let start = arguments.job.start();
    let stop = stop_on_interrupt(launch.rank())?;
    let job = launch.job(threads(arguments.job.threads));
    const BAR: &str = "{prefix:>10} {bar:32} step {pos}/{len} eta {eta} {msg}";
    let bar = output.bar("align", 0, BAR);
    let mut watch = |progress: &Progress<'_>| {
        watchdog.alive(|| format!("step {} of the alignment", progress.step));
        bar.set_length(progress.steps);
        bar.set_position(progress.step);
        if let Some(look) = progress.look {
            bar.set_message(format!("AUC of held-out images {:.4}", look.auc));
        }
        if stop.load(Ordering::Relaxed) { Next::Stop } else { Next::GoOn }
    };
    let report = align::align(&config, start, job, &mut watch)?;
    bar.finish_and_clear();
    output.finish(&report, || text(&report));
    if report.finished { Ok(()) } else { Err(Failure::Interrupted) }
}

/// The gate's table, and what it decided.
fn text(report: &AlignReport) -> String {
    let Found { images, pairs, kept, judges, clicked } = report.found;
    let of = if kept < pairs { format!(" of {}", count(pairs)) } else { String::new() };
    let mut text = format!(
        "{} pictures; {}{of} pairs; {} impressions of held-out pictures, {} clicked\n",
        count(images),
        count(kept),
        count(judges),
        count(clicked)
    );
    let rows: Vec<Vec<String>> = report
        .looks
        .iter()
        .map(|look| {
            vec![
                format!("{}{}", look.step, if look.step == report.chosen { " *" } else { "" }),
                metric(look.loss),
                metric(Some(look.auc)),
                format!("{:+.4}", look.gain),
                format!("{:.4}", look.error),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text += &table(&["step", "loss", "AUC of cosines", "gain", "error"], &rows);
    }
    let run = report.run.display();
    text += &match (report.finished, report.looks.is_empty(), report.chosen) {
        (false, _, _) => {
            format!("stopped after {} steps; go on with --resume: {run}\n", report.steps)
        }
        (_, true, _) => {
            format!("no picture was held out, so nothing was judged: step {} it is\n", report.steps)
        }
        (_, _, 0) => {
            "no map gains more than twice its standard error: step 0, the components as they \
                      are, is the result\n"
                .to_owned()
        }
        (_, _, step) => format!("step {step} is the result\n"),
    };
    if report.finished {
        let place = report.run.join(ALIGNED);
        text += &format!(
            "aligned {}: {} numbers a picture, in {:.1} s\n",
            place.display(),
            report.width,
            report.seconds
        );
    }
    let Traffic { asks, embeddings, pairs, gradients, all_reduce, wire } = report.per_step;
    if asks > 0.0 {
        let kinds = [
            ("asks", asks),
            ("embeddings", embeddings),
            ("pairs, to all", pairs),
            ("gradients", gradients),
            ("all_reduce", all_reduce),
            ("between processes", wire),
        ];
        let rows: Vec<Vec<String>> =
            kinds.into_iter().map(|(kind, sent)| vec![kind.to_owned(), bytes(sent)]).collect();
        text += &table(&["per step, between lanes", "bytes"], &rows);
    }
    text
}
