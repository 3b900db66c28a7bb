//! `ams bench step`: what a training step costs, stage by stage, and how near that is to what the
//! processor can do.

use std::fs;
use std::path::{Path, PathBuf};

use ams_data::catalogue::Catalogue;
use ams_data::dataset::Dataset;
use ams_data::simulate::{SimulateConfig, simulate};
use ams_image::simulated;
use ams_train::measure::{self, StepTimes};
use ams_train::settings::{DataConfig, ModelConfig, NetworkSettings, TrainConfig};
use ams_train::{Config, Trainer};
use tempfile::TempDir;

use crate::config_file;
use crate::failure::Failure;
use crate::launch::{Launch, threads};
use crate::output::{Output, bytes, table};
use crate::threads::thread_count;

/// Time the steps of a training by stage: of a configuration, or without one the reference step:
/// 1,024 impressions in 128 groups, histories of 64, 60 fields of ids of width 16, a tower
/// 4096-256-64-16 for ads and behaviors, two-query attention, layers of 200 and 80. It is taken
/// again and again on one batch.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration, a TOML file; the reference step without one.
    config: Option<PathBuf>,
    /// Overrides one setting, such as `train.lanes=32`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Different images of the reference step; at most 9,216, which is how often it refers to one.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=9_216))]
    images: u64,
    /// Behaviors of each of its histories.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    behaviors: u64,
    /// Number of steps to time, after those that warm up.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    steps: u64,
    /// Steps to take before.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    warm_up: u64,
    /// Threads; as many as there are cores unless given.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Also writes the first batch and all weights into this folder, as `step.json` and
    /// `step.safetensors`, so that another program can take the same step.
    #[arg(long, value_name = "DIR")]
    export: Option<PathBuf>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams bench step")?;
    let folder;
    let config = match &arguments.config {
        Some(path) => config_file::read(path, &arguments.set)?,
        None => {
            let made = TempDir::with_prefix("ams-step-");
            folder = made.map_err(|error| {
                Failure::user(format!("{}: {error}", std::env::temp_dir().display()))
            })?;
            let config = reference(folder.path(), &arguments)?;
            let text = toml::to_string(&config).expect("a configuration is TOML");
            config_file::parse("the reference step", &text, &arguments.set)?
        }
    };
    let mut trainer = Trainer::new(config, launch.job(threads(arguments.threads)))?;
    if let Some(dir) = &arguments.export {
        fs::create_dir_all(dir)
            .map_err(|error| Failure::user(format!("{}: {error}", dir.display())))?;
        measure::export_step(&mut trainer, dir)?;
    }
    let times = measure::steps(&mut trainer, arguments.warm_up, arguments.steps)?;
    output.finish(&times, || text(&times));
    Ok(())
}

/// Simulates the samples and features of the reference step.
fn reference(folder: &Path, arguments: &Arguments) -> Result<Config, Failure> {
    let shape = SimulateConfig {
        seed: 1,
        batches: 1,
        impressions: 1_024,
        groups: 128,
        behaviors_mean: arguments.behaviors as f64,
        items: arguments.images,
        // With item and image of the ad and of the history, 20 fields of a group and 40 of an
        // impression.
        user_fields: 18,
        item_fields: 1,
        context_fields: 38,
        even: true,
    };
    let data = folder.join("data");
    simulate(&shape, &data)?;
    let catalogue = Catalogue::open(&Dataset::open(&data)?)?;
    let names = (0..catalogue.len()).filter_map(|row| catalogue.image(row)).map(str::to_owned);
    simulated(&data.join("images"), names, 4_096, shape.seed)?;
    Ok(Config {
        name: "step".to_owned(),
        seed: 1,
        runs: folder.join("runs"),
        data: DataConfig {
            samples: data,
            images: None,
            shuffle_images: None,
            exclude_fields: Vec::new(),
            contents: Vec::new(),
        },
        model: ModelConfig {
            network: NetworkSettings { embedding_dim: 16, ..NetworkSettings::default() },
            tower: vec![256, 64, 16],
            towers: ams_bundle::TowerSharing::Shared,
            ..ModelConfig::default()
        },
        train: TrainConfig { batch: 1_024, epochs: u32::MAX, ..TrainConfig::default() },
        align: None,
    })
}

fn text(times: &StepTimes) -> String {
    let stages = times.stages_ms.iter().map(|(stage, ms)| {
        let ms = ms.as_f64().unwrap_or(f64::NAN);
        vec![stage.clone(), format!("{ms:.2}"), format!("{:.0} %", 100.0 * ms / times.ms)]
    });
    let rows: Vec<Vec<String>> = stages.collect();
    let memory = times.peak_memory_bytes.map_or("unknown".to_owned(), |most| bytes(most as f64));
    let [fastest, slowest] = times.ms_range;
    format!(
        "{}step {:.1} ms ({fastest:.1} to {slowest:.1}, {} steps, {} threads): {:.0} impressions/s, {:.0} images/s, \
         {:.0} GFLOP/s\n\
         towers' products {:.1} ms at {:.0} GFLOP/s, {:.0} % of {:.0} GFLOP/s at most; the step is {:.2} times them\n\
         the machine meanwhile: memory {:.1} GB/s copied, third cache {:.1} GB/s read\n\
         peak memory {memory}, loss {:.6}, gradient {}\n",
        table(&["stage", "ms", "of the step"], &rows),
        times.ms,
        times.steps,
        times.threads,
        times.impressions_per_second,
        times.images_per_second,
        times.gflops,
        times.tower_ms,
        times.tower_gflops,
        100.0 * times.tower_share_of_peak,
        times.peak_gflops,
        times.step_to_tower,
        times.memory_gbs,
        times.third_cache_gbs,
        times.loss,
        times.checksum,
    )
}
