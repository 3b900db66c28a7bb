//! `ams align`: a map of image features, aligned with what users engage with together.

use std::sync::atomic::Ordering;

use ams_location::Locations;
use ams_train::align::{self, Progress};
use ams_train::run::Next;

use crate::alignment;
use crate::commands::job::{Begun, JobArguments};
use crate::failure::Failure;
use crate::launch::Launch;
use crate::output::Output;

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
    output: Output<'_>,
) -> Result<(), Failure> {
    let config = arguments.job.config(locations)?;
    let Begun { watchdog, start, stop, job } = arguments.job.begin(launch, locations, output)?;
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
    output.finish(&report, || alignment::text(&report));
    if report.finished { Ok(()) } else { Err(Failure::Interrupted) }
}
