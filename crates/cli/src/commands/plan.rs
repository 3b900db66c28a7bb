//! `ams plan`: what a training would need of machines that are not there yet. All of it is
//! computed.

use ams_train::measure::{Cluster, Forecast, Workload, forecast};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Output, bytes, count, table};

/// Compute bytes, memory, seconds per step and efficiency of a training, for given numbers
/// of hosts. The defaults are the paper's workload.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Numbers of hosts, separated by commas.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "5,10,20,40")]
    hosts: Vec<u32>,
    /// Pictures of the catalogue.
    #[arg(long, value_name = "N", default_value_t = 0.12e9)]
    images: f64,
    /// Ids that will have a row.
    #[arg(long, value_name = "N", default_value_t = 0.5e9)]
    ids: f64,
    /// Impressions of one epoch.
    #[arg(long, value_name = "N", default_value_t = 3.9e9)]
    impressions: f64,
    /// Number of passes over the training split.
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    epochs: f64,
    /// Impressions per step and host.
    #[arg(long, value_name = "N", default_value_t = 3000.0)]
    batch: f64,
    /// Image references per impression: its ad, and its share of the group's behaviors.
    #[arg(long, value_name = "N", default_value_t = 5.33)]
    images_per_impression: f64,
    /// Ids per impression, counted in the same way, image ids included.
    #[arg(long, value_name = "N", default_value_t = 24.0)]
    ids_per_impression: f64,
    /// Width of an image feature.
    #[arg(long, value_name = "N", default_value_t = 4096)]
    feature_dim: u32,
    /// Widths of a tower's layers; the last one is the width of an embedding.
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "256,64,12")]
    tower: Vec<u32>,
    /// Towers: 2, or 1 shared by ads and behaviors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=2))]
    towers: u32,
    /// Weights of the rank network.
    #[arg(long, value_name = "N", default_value_t = 82_000.0)]
    network_weights: f64,
    /// The sum of the dense gradients in bf16.
    #[arg(long)]
    bf16: bool,
    /// Speed of each host's network in Gbit/s, each way.
    #[arg(long, value_name = "GBIT", default_value_t = 10.0)]
    link: f64,
    /// Latency of a message in microseconds.
    #[arg(long, value_name = "US", default_value_t = 30.0)]
    latency: f64,
    /// GFLOP/s that a host reaches in a training step; `bench table2` tells yours.
    #[arg(long, value_name = "N", default_value_t = 2000.0)]
    gflops: f64,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    workload: Workload,
    clusters: Vec<Cluster>,
    forecasts: Vec<Forecast>,
}

pub(crate) fn run(arguments: Arguments, output: Output<'_>) -> Result<(), Failure> {
    let workload = workload(&arguments)?;
    let cluster = |&hosts: &u32| Cluster {
        hosts: f64::from(hosts),
        link_bytes_per_second: arguments.link * 1e9 / 8.0,
        latency_seconds: arguments.latency / 1e6,
        flops: arguments.gflops * 1e9,
    };
    let clusters: Vec<Cluster> = arguments.hosts.iter().map(cluster).collect();
    let forecasts = clusters.iter().map(|cluster| forecast(&workload, cluster)).collect();
    let report = Report { workload, clusters, forecasts };
    output.finish(&report, || text(&report));
    Ok(())
}

/// The workload, if its numbers make sense.
fn workload(arguments: &Arguments) -> Result<Workload, Failure> {
    let positive = [
        ("--images", arguments.images),
        ("--ids", arguments.ids),
        ("--impressions", arguments.impressions),
        ("--epochs", arguments.epochs),
        ("--batch", arguments.batch),
        ("--images-per-impression", arguments.images_per_impression),
        ("--ids-per-impression", arguments.ids_per_impression),
        ("--network-weights", arguments.network_weights),
        ("--link", arguments.link),
        ("--gflops", arguments.gflops),
    ];
    for (name, value) in positive {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Failure::user(format!("{name} {value}: expected a number above 0")));
        }
    }
    if arguments.hosts.contains(&0) || arguments.tower.contains(&0) || arguments.feature_dim == 0 {
        return Err(Failure::user("--hosts, --tower and --feature-dim: expected numbers above 0"));
    }
    if !(arguments.latency >= 0.0 && arguments.latency.is_finite()) {
        let what = format!("--latency {}: expected microseconds, 0 or more", arguments.latency);
        return Err(Failure::user(what));
    }
    let mut width = f64::from(arguments.feature_dim);
    let mut tower_weights = 0.0;
    for &next in &arguments.tower {
        let next = f64::from(next);
        // Weights, bias and the slope of the PReLU.
        tower_weights += width * next + 2.0 * next;
        width = next;
    }
    Ok(Workload {
        images: arguments.images,
        ids: arguments.ids,
        impressions: arguments.impressions,
        epochs: arguments.epochs,
        batch_per_host: arguments.batch,
        images_per_impression: arguments.images_per_impression,
        ids_per_impression: arguments.ids_per_impression,
        feature_dim: f64::from(arguments.feature_dim),
        first_width: f64::from(arguments.tower[0]),
        dim: width,
        tower_weights,
        towers: f64::from(arguments.towers),
        network_weights: arguments.network_weights,
        all_reduce_bytes: if arguments.bf16 { 2.0 } else { 4.0 },
    })
}

fn text(report: &Report) -> String {
    let forecasts = &report.forecasts;
    let hosts: Vec<String> = forecasts.iter().map(|f| format!("{} hosts", f.hosts)).collect();
    let header: Vec<&str> =
        std::iter::once("computed").chain(hosts.iter().map(String::as_str)).collect();
    let row = |name: &str, value: &dyn Fn(&Forecast) -> String| {
        std::iter::once(name.to_owned()).chain(forecasts.iter().map(value)).collect()
    };
    let whole = |value: f64| count(value as u64);
    let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    let rows: Vec<Vec<String>> = vec![
        row("impressions per step", &|f| whole(f.batch)),
        row("steps", &|f| whole(f.steps)),
        row("images requested per step", &|f| whole(f.images[0])),
        row("  distinct per worker", &|f| whole(f.images[1])),
        row("  distinct", &|f| whole(f.images[2])),
        row("ids requested per step", &|f| whole(f.ids[0])),
        row("  distinct per worker", &|f| whole(f.ids[1])),
        row("sent per step, ids to gradients", &|f| bytes(f.exchange_bytes)),
        row("  with store-in-server", &|f| bytes(f.store_in_server_bytes)),
        row("sent per step, dense sum", &|f| bytes(f.all_reduce_bytes)),
        row("computing", &|f| ms(f.compute_seconds)),
        row("exchanging", &|f| ms(f.exchange_seconds)),
        row("dense sum", &|f| ms(f.all_reduce_seconds)),
        row("step", &|f| ms(f.step_seconds)),
        row("training", &|f| format!("{:.1} h", f.seconds / 3600.0)),
        row("efficiency", &|f| format!("{:.0} %", f.efficiency * 100.0)),
        row("memory per host: rows", &|f| bytes(f.rows_bytes_per_host)),
        row("  dense weights", &|f| bytes(f.dense_bytes_per_host)),
        row("  features (mapped from disk)", &|f| bytes(f.features_bytes_per_host)),
    ];
    table(&header, &rows)
}
