//! `ams bench table2`: the paper's Table 2 at the paper's size, on data that have only its shape.
//!
//! Samples and features are simulated; protocol, buffers and arithmetic are those of a training.

use std::path::{Path, PathBuf};

use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_data::simulate::{SimulateConfig, SimulateReport, simulate};
use ams_data::staging::write_whole;
use ams_image::simulated;
use ams_train::Config;
use ams_train::measure::PlacementReport;
use ams_train::settings::{DataConfig, FeatureFormat, ModelConfig, Placement, TrainConfig};
use serde::Serialize;
use tempfile::TempDir;

use super::placement::{Variant, compare, text};
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::Output;
use crate::threads::thread_count;

/// Virtual nodes: the power of two next to the paper's 20.
const LANES: usize = 32;

/// Width of the paper's image feature, the output of VGG16's FC6.
const FEATURE_DIM: usize = 4096;

/// The runs: the three placements, and the second one with features as floats too, as in the
/// paper.
const VARIANTS: [Variant; 4] = [
    Variant { placement: Placement::StoreInWorker, features_as: FeatureFormat::F16 },
    Variant { placement: Placement::StoreInServer, features_as: FeatureFormat::F32 },
    Variant { placement: Placement::StoreInServer, features_as: FeatureFormat::F16 },
    Variant { placement: Placement::Ams, features_as: FeatureFormat::F16 },
];

/// Run the three placements on simulated batches with the statistics of the paper's: 60,000
/// impressions, 320 k image references and 1.4 M ids on 32 lanes, 4096-D features.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The paper's own size: 60,000 impressions a batch. Needs about 3 GB of disk and 10 GB of
    /// memory.
    #[arg(long, conflicts_with = "scale")]
    paper: bool,
    /// A batch this many times smaller than the paper's.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=512))]
    scale: u64,
    /// Steps to take with each placement; the first one is not timed.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    steps: u64,
    /// Where samples and features are put; kept, and used again for the same shape, if given; else
    /// gone afterwards.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    scale: u64,
    lanes: usize,
    threads: usize,
    simulated: Option<SimulateReport>,
    placements: Vec<PlacementReport>,
    ratios: Ratios,
}

/// The figures the paper's argument rests on, all of measured bytes.
#[derive(Debug, Serialize)]
struct Ratios {
    /// Bytes sent by `store-in-server` per byte sent by `ams`, without the sum of the dense
    /// gradients; features travel as f32, as in the paper.
    store_in_server_to_ams: f64,
    /// The same with features as f16, as they are stored.
    store_in_server_f16_to_ams: f64,
    /// The first one, with the sum of the dense gradients in both.
    store_in_server_to_ams_with_all_reduce: f64,
    /// Bytes stored at the workers by `store-in-worker` per byte stored there by `ams`.
    worker_storage_store_in_worker_to_ams: f64,
    /// Bytes of the sum of the dense gradients per byte of everything else, `ams`.
    all_reduce_to_rest: f64,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench table2")?;
    let scale = if arguments.paper { 1 } else { arguments.scale };
    let threads = threads(arguments.threads);
    let temporary;
    let folder = match &arguments.out {
        Some(folder) => folder.as_path(),
        None => {
            let made = TempDir::with_prefix("ams-table2-");
            temporary = made.map_err(|error| {
                Failure::user(format!("{}: {error}", std::env::temp_dir().display()))
            })?;
            temporary.path()
        }
    };
    let shape = SimulateConfig { batches: arguments.steps, ..SimulateConfig::paper() };
    let simulated = prepare(&shape.scaled(scale), folder, output)?;
    let config = config(folder, 60_000 / scale as usize);
    let placements = compare(&config, &VARIANTS, arguments.steps, launch, threads, output)?;
    let ratios = ratios(&placements);
    let report = Report { scale, lanes: LANES, threads, simulated, placements, ratios };
    output.finish(&report, || {
        format!("{}{}{}", text(&report.placements), size(scale), words(&report.ratios))
    });
    Ok(())
}

/// Simulates samples and features of `shape`, unless they are there.
fn prepare(
    shape: &SimulateConfig,
    folder: &Path,
    output: Output<'_>,
) -> Result<Option<SimulateReport>, Failure> {
    let data = folder.join("data");
    // Written last: what is there is whole.
    let mark = folder.join("shape.json");
    let wanted = serde_json::to_string(shape).expect("a shape is JSON");
    if let Ok(found) = std::fs::read_to_string(&mark) {
        if found == wanted {
            return Ok(None);
        }
        let what = format!("{} says {found}, expected {wanted}", mark.display());
        return Err(Failure::user(format!("{what}; choose another folder with --out")));
    }
    output.say("simulating samples and features");
    let report = simulate(shape, &data)?;
    let catalogue = Catalogue::open(&Dataset::open(&data)?)?;
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row)).map(str::to_owned);
    simulated(&data.join("images"), names, FEATURE_DIM, shape.seed)?;
    write_whole(&mark, wanted)?;
    Ok(Some(report))
}

/// The paper's network on the simulated batches.
fn config(folder: &Path, batch: usize) -> Config {
    Config {
        name: "table2".to_owned(),
        seed: 1,
        runs: folder.join("runs"),
        data: DataConfig {
            samples: folder.join("data"),
            images: None,
            shuffle_images: None,
            exclude_fields: Vec::new(),
            contents: Vec::new(),
        },
        model: ModelConfig::default(),
        train: TrainConfig { batch, lanes: LANES, epochs: 1, ..TrainConfig::default() },
        align: None,
    }
}

fn ratios(placements: &[PlacementReport]) -> Ratios {
    let of = |placement: Placement, format: FeatureFormat| {
        let key = (placement.as_str(), format.as_str());
        let found = placements.iter().find(|report| (report.placement, report.features_as) == key);
        found.expect("all variants were run")
    };
    let ams = of(Placement::Ams, FeatureFormat::F16);
    let worker = of(Placement::StoreInWorker, FeatureFormat::F16);
    let server = of(Placement::StoreInServer, FeatureFormat::F32);
    let halfs = of(Placement::StoreInServer, FeatureFormat::F16);
    let sent = |report: &PlacementReport| report.bytes_per_step.without_all_reduce();
    let all_reduce = ams.bytes_per_step.all_reduce;
    Ratios {
        store_in_server_to_ams: sent(server) / sent(ams),
        store_in_server_f16_to_ams: sent(halfs) / sent(ams),
        store_in_server_to_ams_with_all_reduce: (sent(server) + all_reduce)
            / (sent(ams) + all_reduce),
        worker_storage_store_in_worker_to_ams: worker.storage_bytes.worker
            / ams.storage_bytes.worker,
        all_reduce_to_rest: all_reduce / sent(ams),
    }
}

/// What of the paper's batch was run.
fn size(scale: u64) -> String {
    match scale {
        1 => "A batch of the paper's size; samples and features are simulated.\n".to_owned(),
        scale => format!("A batch 1/{scale} of the paper's; samples and features are simulated.\n"),
    }
}

fn words(ratios: &Ratios) -> String {
    format!(
        "store-in-server sends {:.1}x the bytes of ams ({:.1}x with f16 features); {:.1}x with the sum of the \
         dense gradients in both.\n\
         store-in-worker stores {:.0}x the bytes of ams at the workers.\n\
         The sum of the dense gradients, which the paper leaves out, is {:.1}x everything else that ams sends; \
         half of that in bf16 (train.all_reduce = \"bf16\").\n",
        ratios.store_in_server_to_ams,
        ratios.store_in_server_f16_to_ams,
        ratios.store_in_server_to_ams_with_all_reduce,
        ratios.worker_storage_store_in_worker_to_ams,
        ratios.all_reduce_to_rest,
    )
}
