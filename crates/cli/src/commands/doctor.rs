//! `ams doctor`: whether the processes of a job find, understand and hear each other, and how fast;
//! whether data are fit to learn from.

use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ams_data::examine::{Examination, Verdict};
use ams_data::own_past::OwnPast;
use ams_fabric::{AllReduce, Fabric, Rounding, Topology, gather};
use ams_location::Locations;
use serde::{Deserialize, Serialize};

use crate::commands::examination::{self, ColumnArguments, examine};
use crate::failure::Failure;
use crate::features;
use crate::launch::{self, Launch};
use crate::output::{Output, bytes, table};
use crate::threads::thread_count;

/// Words that each process sends each other one when an exchange is timed: 1 MiB.
const EXCHANGE_WORDS: usize = 1 << 18;

/// Values that are summed when an all-reduce is timed: the paper's rank network and two towers.
const ALL_REDUCE_VALUES: usize = 2_250_000;

/// Timed rounds; the median is shown.
const ROUNDS: usize = 7;

/// Clocks that differ by more make logs hard to read.
const CLOCK_SKEW_SECONDS: f64 = 1.0;

/// List the processes of the job, compare their programs and processors, and time the exchanges of
/// a step; look at data before a model learns from them: fields that know the label, days that
/// differ, duplicates, missing pictures, drift.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Data to look at too: a dataset, or a table of events as `ams prepare --events` takes it.
    #[arg(value_name = "DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Lanes that a training would have.
    #[arg(long, value_name = "N", default_value_t = 8)]
    lanes: usize,
    /// Threads of each process; its share of the cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// One process of the job, as it describes itself.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    rank: usize,
    host: String,
    process: u32,
    threads: usize,
    lanes: [usize; 2],
    /// Against the first process; what an exchange takes is part of it.
    clock_offset_seconds: f64,
    processor: String,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    /// Cargo features of this program.
    features: Vec<&'static str>,
    engine: String,
    processes: usize,
    lanes: usize,
    ranks: Vec<Hello>,
    exchange_bytes: u64,
    exchange_seconds: f64,
    all_reduce_values: usize,
    all_reduce_seconds: f64,
    all_reduce_bf16_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_past: Option<OwnPast>,
    #[serde(skip_serializing_if = "Option::is_none")]
    examination: Option<Examination>,
    warnings: Vec<String>,
    /// Those of them that are about clocks, which come first.
    #[serde(skip)]
    clock_warnings: usize,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    let mut fabric = launch.fabric();
    let fabric = &mut *fabric;
    let topology = Topology::new(arguments.lanes, fabric).ok_or_else(|| {
        Failure::user(format!(
            "{} lanes cannot be shared by {} processes; both have to be powers of two, and at least one \
             lane per process",
            arguments.lanes,
            fabric.size()
        ))
    });
    let ranks = hello(fabric, launch::threads(arguments.threads), arguments.lanes)?;
    if fabric.rank() == 0 && fabric.size() > 1 {
        for hello in &ranks {
            let Hello { rank, host, process, threads, processor, .. } = hello;
            let cores = if *threads == 1 { "thread" } else { "threads" };
            output.say(&format!(
                "hello from rank {rank}: {host}, process {process}, {threads} {cores}, {processor}"
            ));
        }
    }
    let topology = topology?;
    let mut facts = launch::facts();
    facts.push(("lanes".to_owned(), arguments.lanes.to_string()));
    ams_fabric::agree::<ams_train::Error>(fabric, &facts)?;
    let (exchange_bytes, exchange_seconds) = time_exchange(fabric)?;
    let all_reduce_seconds = time_all_reduce(fabric, Rounding::Exact)?;
    let all_reduce_bf16_seconds = time_all_reduce(fabric, Rounding::Bf16)?;
    let mut warnings = warnings(&ranks);
    let clock_warnings = warnings.len();
    let examination = match &arguments.data {
        Some(data) if fabric.rank() == 0 => Some(examine(data, &arguments.columns, locations)?),
        _ => None,
    };
    // Where it was before there was an examination.
    let own_past = examination.as_ref().and_then(|examination| examination.own_past.clone());
    let bad = examination.iter().flat_map(|examination| &examination.findings);
    warnings.extend(bad.filter(|it| it.verdict == Verdict::Bad).map(|it| it.said.clone()));
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        features: features::with(),
        engine: launch.engine(),
        processes: fabric.size(),
        lanes: topology.lanes(),
        own_past,
        examination,
        warnings,
        clock_warnings,
        ranks,
        exchange_bytes,
        exchange_seconds,
        all_reduce_values: ALL_REDUCE_VALUES,
        all_reduce_seconds,
        all_reduce_bf16_seconds,
    };
    output.finish(&report, || text(&report));
    Ok(())
}

/// Every process, as it says itself.
fn hello(fabric: &mut dyn Fabric, threads: usize, lanes: usize) -> Result<Vec<Hello>, Failure> {
    let (rank, size) = (fabric.rank(), fabric.size());
    fabric.barrier()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let each = lanes / size;
    let mine = Hello {
        rank,
        host: launch::host(),
        process: std::process::id(),
        threads,
        lanes: [rank * each, (rank + 1) * each],
        clock_offset_seconds: now,
        processor: launch::processor(),
    };
    let text = serde_json::to_string(&mine).expect("a greeting is JSON");
    let texts = gather::texts(fabric, &text)?;
    let parse = |text: &String| serde_json::from_str(text).ok();
    let mut ranks: Vec<Hello> = texts.iter().filter_map(parse).collect();
    if ranks.len() < size {
        let what = "some processes say hello in words this one does not understand: are they another \
                    version of ams?";
        return Err(Failure::user(what));
    }
    let first = ranks[0].clock_offset_seconds;
    ranks.iter_mut().for_each(|hello| hello.clock_offset_seconds -= first);
    Ok(ranks)
}

/// Bytes that a process sends, and the median seconds until all have all.
fn time_exchange(fabric: &mut dyn Fabric) -> Result<(u64, f64), Failure> {
    let size = fabric.size();
    let send = vec![7; EXCHANGE_WORDS * size];
    let counts = vec![EXCHANGE_WORDS; size];
    let mut recv = Vec::new();
    let seconds = median(fabric, |fabric| {
        fabric.exchange(&send, &counts, &mut recv)?;
        Ok(())
    })?;
    Ok((4 * (EXCHANGE_WORDS * (size - 1)) as u64, seconds))
}

/// The median seconds of a sum over all processes.
fn time_all_reduce(fabric: &mut dyn Fabric, rounding: Rounding) -> Result<f64, Failure> {
    let mut values = vec![1.0; ALL_REDUCE_VALUES];
    let mut reduce = AllReduce::new(rounding);
    median(fabric, |fabric| Ok(reduce.run(fabric, &mut values)?))
}

/// The median seconds of `round`, after one that does not count.
fn median(
    fabric: &mut dyn Fabric,
    mut round: impl FnMut(&mut dyn Fabric) -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        fabric.barrier()?;
        let begin = Instant::now();
        round(fabric)?;
        times.push(begin.elapsed().as_secs_f64());
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}

fn warnings(ranks: &[Hello]) -> Vec<String> {
    let skewed = ranks.iter().filter(|hello| hello.clock_offset_seconds.abs() > CLOCK_SKEW_SECONDS);
    skewed
        .map(|hello| {
            format!(
                "the clock of rank {} ({}) is {:+.1} s off that of rank 0; no result depends on clocks, \
                 but logs do",
                hello.rank, hello.host, hello.clock_offset_seconds
            )
        })
        .collect()
}

fn text(report: &Report) -> String {
    let rows: Vec<Vec<String>> = report
        .ranks
        .iter()
        .map(|hello| {
            vec![
                format!("rank {} on {}", hello.rank, hello.host),
                format!("{}-{}", hello.lanes[0], hello.lanes[1] - 1),
                hello.threads.to_string(),
                format!("{:+.6}", hello.clock_offset_seconds),
            ]
        })
        .collect();
    let mut text = table(&["process", "lanes", "threads", "clock (s)"], &rows);
    text += &format!("ams {}, {}; all processes agree\n", report.version, report.engine);
    text += &format!("{}\n", features::lines());
    if report.processes > 1 {
        let rate = report.exchange_bytes as f64 / report.exchange_seconds;
        text += &format!(
            "an exchange of {} per process takes {:.2} ms ({}/s each way); a sum of {:.1} M floats {:.1} ms, \
             in bf16 {:.1} ms\n",
            bytes(report.exchange_bytes as f64),
            report.exchange_seconds * 1e3,
            bytes(rate),
            report.all_reduce_values as f64 / 1e6,
            report.all_reduce_seconds * 1e3,
            report.all_reduce_bf16_seconds * 1e3,
        );
    }
    // The findings of an examination are warnings of the object, and lines of the text.
    for warning in report.warnings.iter().take(report.clock_warnings) {
        text += &format!("note: {warning}\n");
    }
    text += &report.examination.as_ref().map_or(String::new(), examination::lines);
    text
}
