//! `ams bench rows`: tables of embedding rows filled to any size, looked up in and updated.

use ams_train::measure::{RowsReport, TableSize, resident, rows};
use serde::Serialize;

use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{BAR, Output, count, table};
use crate::threads::thread_count;

/// Fill the tables of 8 lanes with rows and Adam's state: bytes per row, pauses while they grow,
/// lookups and updates per second.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Rows of all lanes together, such as 5e7, which take about 8.5 GB of memory.
    #[arg(long, value_name = "N", default_value = "1e6", value_parser = row_count)]
    rows: u64,
    /// Numbers of a row.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=4096))]
    dim: u32,
    /// Ids of a step, all lanes together.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    portion: u32,
    /// Steps in which random rows are looked up and updated.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    steps: u64,
    /// Most bytes of a lane's table, such as 5e8: rows are evicted where more would not fit, and
    /// every step has, beside its new ids, as many of those before by Zipf's law.
    #[arg(long, value_name = "BYTES", value_parser = row_count)]
    lane_bytes: Option<u64>,
    /// Numbers of threads to do all of it with, one after the other; one and all cores unless
    /// given.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = thread_count)]
    threads: Vec<usize>,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    rows: u64,
    dim: u32,
    portion: u32,
    runs: Vec<RowsReport>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench rows")?;
    let Arguments { rows: many, dim, portion, steps, lane_bytes, .. } = arguments;
    // Room for a portion and its floor, whatever the lane that it falls on.
    let least = u64::from(portion) * (u64::from(dim) * 12 + 64) * 8;
    if let Some(bytes) = lane_bytes.filter(|bytes| *bytes < least) {
        return Err(Failure::user(format!(
            "--lane-bytes {bytes}: expected at least {least} for {portion} ids a step; or give a smaller --portion"
        )));
    }
    let size =
        TableSize { rows: many, dim: dim as usize, portion: portion as usize, steps, lane_bytes };
    let mut counts = arguments.threads;
    if counts.is_empty() {
        counts = vec![1, threads(None)];
        counts.dedup();
    }
    let mut runs: Vec<RowsReport> = Vec::new();
    for threads in counts {
        let bar = output.bar("rows", many, BAR);
        let run = rows(size, threads, &resident, &mut |made| bar.set_position(made));
        bar.finish_and_clear();
        if let Some(first) = runs.first() {
            assert_eq!(first.answer, run.answer, "{threads} threads make other rows");
        }
        runs.push(run);
    }
    let report = Report { rows: many, dim, portion, runs };
    output.finish(&report, || text(&report));
    Ok(())
}

/// As many rows as `text` says.
fn row_count(text: &str) -> Result<u64, String> {
    const MOST: f64 = 4e9;
    let count = text.parse().ok().filter(|count| (1.0..=MOST).contains(count));
    count.map(|count: f64| count as u64).ok_or_else(|| format!("expected 1 to {MOST:e}"))
}

fn text(report: &Report) -> String {
    let names: Vec<String> =
        report.runs.iter().map(|run| format!("{} threads", run.threads)).collect();
    let header: Vec<&str> = std::iter::once("").chain(names.iter().map(|name| &name[..])).collect();
    let row = |name: &str, value: &dyn Fn(&RowsReport) -> String| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(report.runs.iter().map(value)).collect()
    };
    let per_row = |run: &RowsReport, bytes: Option<u64>| {
        bytes.map_or("-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / run.rows as f64))
    };
    let milliseconds = |seconds: f64| format!("{:.2}", 1e3 * seconds);
    let per_second = |rate: f64| count(rate as u64);
    let rows = [
        row("bytes per row, its floats", &|run| format!("{:.1}", run.raw_bytes_per_row)),
        row("  allocated by the tables", &|run| format!("{:.1}", run.allocated_bytes_per_row)),
        row("  of the process", &|run| per_row(run, run.resident.map(|resident| resident.now))),
        row("  of the process, at most", &|run| per_row(run, run.resident.map(|r| r.most))),
        row("rows at the end", &|run| count(run.rows)),
        row("rows that were evicted", &|run| count(run.evicted)),
        row("bytes of the largest lane", &|run| count(run.largest_lane_bytes)),
        row("ms, longest insertion", &|run| milliseconds(run.longest_insertion_seconds)),
        row("ms, longest step of new rows", &|run| milliseconds(run.longest_portion_seconds)),
        row("ms, median step of new rows", &|run| milliseconds(run.median_portion_seconds)),
        row("rows made per second", &|run| per_second(run.made_per_second)),
        row("random lookups per second", &|run| per_second(run.lookups_per_second)),
        row("random updates per second", &|run| per_second(run.updates_per_second)),
        row("random lookups with updates", &|run| per_second(run.both_per_second)),
    ];
    let last = report.runs.last().expect("there is a run");
    format!(
        "{}{} rows of {} numbers with Adam's state, {} ids a step. All rows hash to {:.16} on any number of \
         threads.\n",
        table(&header, &rows),
        count(report.rows),
        report.dim,
        count(u64::from(report.portion)),
        last.answer,
    )
}
