//! `ams bench placement`: the three placements of one training side by side, as in Table 2 of the
//! paper.

use std::path::PathBuf;

use ams_train::Config;
use ams_train::measure::{PlacementReport, placement};
use ams_train::settings::{FeatureFormat, Placement};
use serde::Serialize;

use crate::commands::train::asked;
use crate::config_file;
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, bytes, count, table};
use crate::threads::thread_count;

/// The paper's Table 2 in bytes: placement, storage of workers and servers, communication, of it
/// images.
const PAPER: [(&str, [f64; 4]); 3] = [
    ("store-in-worker", [5.1e9, 0.0, 128e6, 0.0]),
    ("store-in-server", [134e6, 30.3e6, 5.1e9, 5.0e9]),
    ("ams", [134e6, 30.3e6, 158e6, 30e6]),
];

/// Run the three placements of a training side by side: bytes by kind, storage, time, loss.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, a TOML file.
    config: PathBuf,
    /// Overrides one setting, such as `train.lanes=32`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps to take with each placement; the first one is not timed.
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: u64,
    /// Threads of each process; its share of the cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    lanes: usize,
    processes: usize,
    threads: usize,
    placements: Vec<PlacementReport>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    let config: Config = config_file::read(&arguments.config, &arguments.set)?;
    let threads = threads(arguments.threads);
    let placements = compare(&config, &AS_STORED, arguments.steps, launch, threads, output)?;
    let (lanes, processes) = (config.train.lanes, launch.size());
    let report = Report { lanes, processes, threads, placements };
    output.finish(&report, || text(&report.placements));
    Ok(())
}

/// A placement, and the format in which features are sent.
pub(crate) struct Variant {
    pub placement: Placement,
    pub features_as: FeatureFormat,
}

/// The placements with features as they are stored.
const AS_STORED: [Variant; 3] = [
    Variant { placement: Placement::StoreInWorker, features_as: FeatureFormat::F16 },
    Variant { placement: Placement::StoreInServer, features_as: FeatureFormat::F16 },
    Variant { placement: Placement::Ams, features_as: FeatureFormat::F16 },
];

/// Trains `config` with each of `variants`, from the same beginning, and says how far it is.
pub(crate) fn compare(
    config: &Config,
    variants: &[Variant],
    steps: u64,
    launch: &Launch,
    threads: usize,
    output: Output<'_>,
) -> Result<Vec<PlacementReport>, Failure> {
    let mut reports = Vec::new();
    for variant in variants {
        let mut config = config.clone();
        config.train.placement = variant.placement;
        config.train.features_as = variant.features_as;
        let report = placement(config, steps, launch.job(threads))?;
        output.say(&format!(
            "{}: {} steps, {:.3} s each, loss {:.6}",
            name(&report),
            report.steps,
            report.seconds_per_step,
            report.loss
        ));
        reports.push(report);
    }
    Ok(reports)
}

/// The placement, and how features travel if not as they are stored.
pub(crate) fn name(report: &PlacementReport) -> String {
    match report.features_as {
        "f16" => report.placement.to_owned(),
        format => format!("{} ({format})", report.placement),
    }
}

/// The placements in the paper's table and the paper's order.
pub(crate) fn text(placements: &[PlacementReport]) -> String {
    let names: Vec<String> = placements.iter().map(name).collect();
    let header: Vec<&str> =
        ["per step, all lanes"].into_iter().chain(names.iter().map(|name| &name[..])).collect();
    let row = |name: &str, value: &dyn Fn(&PlacementReport) -> String| {
        std::iter::once(name.to_owned()).chain(placements.iter().map(value)).collect()
    };
    let mut rows: Vec<Vec<String>> = vec![
        row("storage, workers", &|p| bytes(p.storage_bytes.worker)),
        row("storage, shards", &|p| bytes(p.storage_bytes.shard)),
        row("sent, without all-reduce", &|p| bytes(p.bytes_per_step.without_all_reduce())),
    ];
    for (at, (kind, _)) in placements[0].bytes_per_step.kinds().into_iter().enumerate() {
        let of = |p: &PlacementReport| p.bytes_per_step.kinds()[at].1;
        if placements.iter().any(|p| of(p) > 0.0) {
            rows.push(row(&format!("  {kind}"), &|p| bytes(of(p))));
        }
    }
    rows.push(row("between processes", &|p| bytes(p.wire_bytes_per_step)));
    rows.push(row("images through towers", &|p| count(p.tower_forwards as u64)));
    rows.push(row("seconds", &|p| format!("{:.3}", p.seconds_per_step)));
    rows.push(row("loss of the last step", &|p| format!("{:.6}", p.loss)));
    let first = &placements[0];
    let merged = placements.iter().find(|p| p.images.unique_per_shard > 0.0).unwrap_or(first);
    format!(
        "{}{}{}\n{}",
        table(&header, &rows),
        asked("images", merged.images),
        asked("ids", merged.ids),
        beside(placements)
    )
}

/// Ours beside the paper's Table 2, in its columns.
fn beside(placements: &[PlacementReport]) -> String {
    let row = |name: String, whose: &str, numbers: [f64; 4]| -> Vec<String> {
        [name, whose.to_owned()].into_iter().chain(numbers.map(bytes)).collect()
    };
    let mut rows = Vec::new();
    for (placement, numbers) in PAPER {
        rows.push(row(placement.to_owned(), "paper", numbers));
        for ours in placements.iter().filter(|report| report.placement == placement) {
            let sent = &ours.bytes_per_step;
            let image = sent.embeddings + sent.embedding_grads + sent.features;
            let storage = ours.storage_bytes;
            let numbers = [storage.worker, storage.shard, sent.without_all_reduce(), image];
            rows.push(row(format!("  {}", name(ours)), "measured", numbers));
        }
    }
    let header = ["", "", "storage worker", "storage server", "communication all", "image"];
    format!(
        "{}The paper's step has 60,000 impressions; this one {}. Measured storage is that of the samples, rows and \
         f16 features of the step; communication is between lanes, where a worker asks for an id or image \
         once.\n",
        table(&header, &rows),
        count(placements[0].impressions as u64),
    )
}
