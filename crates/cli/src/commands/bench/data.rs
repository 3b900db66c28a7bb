//! `ams bench data`: how fast a dataset's samples can be read and batched, without a model behind.

use std::path::PathBuf;

use ams_train::measure::{self, DataReport, Rate};

use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, count, table};
use crate::threads::thread_count;

/// Read one epoch of a dataset, shuffled, as a training does: impressions per second of reading
/// alone and of reading and finding every step's distinct ids and images.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of a dataset, as `ams prepare` writes it.
    samples: PathBuf,
    /// Impressions per step, of all lanes together.
    #[arg(long, value_name = "N", default_value_t = 512)]
    batch: usize,
    /// Number of lanes, a power of two.
    #[arg(long, value_name = "N", default_value_t = 8)]
    lanes: usize,
    /// The most threads, measured beside one; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench data")?;
    let mut counts = vec![1, threads(arguments.threads)];
    counts.dedup();
    let mut done = |rate: &Rate| {
        output.say(&format!(
            "{} thread{}: read in {:.2} s, read and batched in {:.2} s",
            rate.threads,
            if rate.threads == 1 { "" } else { "s" },
            rate.read_seconds,
            rate.batch_seconds
        ));
    };
    let Arguments { samples, batch, lanes, .. } = arguments;
    let report = measure::samples(&samples, batch, lanes, &counts, &mut done)?;
    output.finish(&report, || text(&report));
    Ok(())
}

fn text(report: &DataReport) -> String {
    let rows: Vec<Vec<String>> = (report.rates.iter())
        .map(|rate| {
            let per_second = [rate.read_per_second, rate.batch_per_second];
            let cells = per_second.map(|per_second| count(per_second as u64));
            std::iter::once(rate.threads.to_string()).chain(cells).collect()
        })
        .collect();
    format!(
        "{} impressions, {} groups, {} behaviors in {} steps on {} lanes\n\
         ids: {} requested, {} asked for; images: {} requested, {} asked for; checksum {}\n{}",
        count(report.impressions),
        count(report.groups),
        count(report.behaviors),
        count(report.steps),
        report.lanes,
        count(report.ids_requested),
        count(report.ids_asked),
        count(report.images_requested),
        count(report.images_asked),
        report.checksum,
        table(&["threads", "impressions/s read", "read and batched"], &rows),
    )
}
