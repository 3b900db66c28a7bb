//! `ams simulate`: an A/B test of two variants of a model in a shop whose truth is known.
//!
//! ```text
//! OUT/report.json             what was found
//! OUT/report.html             a page about it
//! OUT/seed-S/shop             pictures, their features, items.csv as of the newest day
//! OUT/seed-S/before           the log of the days before the experiment
//! OUT/seed-S/WORLD/V/log      what the model V (a or b; a-2 is A's second) learns from, by day
//! OUT/seed-S/WORLD/V/daily    the days of `ams daily`
//! OUT/seed-S/WORLD/explored.parquet   page views in random order, with propensities
//! OUT/models/S-WORLD-V        the versions of V
//! ```

mod config;
mod nights;
mod remote;
mod text;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ams_data::PictureName;
use ams_data::staging::write_whole;
use ams_image::{FeatureStore, neighbors};
use ams_location::Locations;
use ams_market::{Lived, Report, Scene, SeedReport, World, live};
use ams_report::{experiment, html};
use rayon::ThreadPoolBuilder;

use self::config::SimulateConfig;
use self::nights::{Daily, Place};
use crate::failure::Failure;
use crate::interrupt::stop_on_interrupt;
use crate::launch::{Launch, threads};
use crate::output::{BAR, Caller, Output, count};
use crate::threads::thread_count;

/// Simulate an A/B test in a synthetic shop that lives: users arrive, two variants of a model rank
/// what they see, advertisers pay, and every night `ams daily` makes both anew. The report has the
/// measured lift beside the true one.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// What is simulated, a TOML file (docs/experiments.md); ids against pictures unless given.
    config: Option<PathBuf>,
    /// The folder for what is simulated, report.json and report.html; a new one, or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A small shop and few days: done within minutes. The file counts before it.
    #[arg(long)]
    quick: bool,
    /// Have a server answer, `ams serve OUT/models`, instead of this process.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Overrides one setting of the file, such as `market.days=5`; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Threads; as many as there are cores unless given. The result does not depend on it.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

pub(crate) fn run(
    arguments: Arguments,
    launch: &Launch,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    launch.one_process("ams simulate")?;
    let config =
        SimulateConfig::read(arguments.config.as_deref(), &arguments.set, arguments.quick)?;
    let out = &arguments.out;
    claim(out)?;
    let stop = stop_on_interrupt(0, output)?;
    let threads = threads(arguments.threads);
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| Failure::user(format!("--threads {threads}: {error}")))?;
    let place = Place {
        config: &config,
        out,
        url: arguments.url.as_deref(),
        threads,
        caller: Caller::stopped_by(&stop),
        launch,
        locations,
    };
    let mut seeds = Vec::new();
    for &seed in &config.market.seeds {
        seeds.push(of_seed(&place, seed, &pool, output)?);
    }
    let variants = [&config.a, &config.b].map(|it| it.name.clone());
    let report = Report::of(&config.market, variants, seeds);
    let json = serde_json::to_string_pretty(&report).expect("a report is JSON");
    write_whole(&out.join("report.json"), json + "\n")?;
    write_whole(&out.join("report.html"), html(&experiment(&report)))?;
    output.finish(&report, || text::text(&report, &out.join("report.json")));
    Ok(())
}

/// Makes the folder `out`. It may have a folder `models` already, which a server looks into.
fn claim(out: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::user(format!("{}: {error}", out.display()));
    let names = |dir: &Path| match std::fs::read_dir(dir) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let models = out.join("models");
    let others = names(out).map_err(failed)?.iter().any(|name| name != "models");
    if others || !names(&models).map_err(failed)?.is_empty() {
        let what = "has something in it; expected the name of a new folder, or an empty one";
        return Err(Failure::user(format!("{}: {what}", out.display())));
    }
    std::fs::create_dir_all(&models).map_err(failed)
}

/// Lives through all worlds of a seed.
fn of_seed(
    place: &Place<'_>,
    seed: u64,
    pool: &rayon::ThreadPool,
    output: Output<'_>,
) -> Result<SeedReport, Failure> {
    let market = &place.config.market;
    let mut scene = pool.install(|| Scene::open(market, seed))?;
    let nights = Daily::begin(place, &scene, |shop| {
        let bar = output.bar("draw", scene.shop().items() as u64, BAR);
        let images =
            pool.install(|| scene.shop().draw(shop, &mut |done| bar.set_position(done as u64)));
        bar.finish_and_clear();
        Ok(images?)
    })?;
    let store = FeatureStore::open(nights.store())?;
    scene.see(vectors(&store, nights.images())?);
    drop(store);
    let designs = market.designs.iter().map(|&design| World::Divided(design));
    let worlds: Vec<World> = [World::All(0), World::All(1)].into_iter().chain(designs).collect();
    let mut lived: Vec<Lived> = Vec::new();
    for world in worlds {
        let bar = output.bar("days", market.days as u64, BAR);
        let mut of_world = nights.of_world(&scene, world)?;
        let done = pool.install(|| {
            live(&scene, world, &mut of_world, &mut |day| bar.set_position(day as u64))
        });
        bar.finish_and_clear();
        let done = done?;
        of_world.end()?;
        let views = count(done.page_views);
        output.say(&format!("seed {seed}, {}: {views} page views", world.name()));
        lived.push(done);
    }
    Ok(SeedReport::of(&scene, &lived))
}

/// The features of the pictures named `images`.
fn vectors(store: &FeatureStore, images: &[String]) -> Result<Vec<Vec<f32>>, Failure> {
    let vector = |name: &String| {
        let mut vector = Vec::new();
        if neighbors::feature(store, store.key(PictureName::of(name)), &mut vector) {
            Ok(vector)
        } else {
            Err(Failure::user(format!("{name}: the picture has no feature")))
        }
    };
    images.iter().map(vector).collect()
}
