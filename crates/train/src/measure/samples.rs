//! How fast samples come: one epoch through the feeds, without a network behind them.
//!
//! The feeds and the deduplication are those of a training, step by step and lane by lane. Every
//! pass opens the files anew, so it decodes all of them (from the system's cache, if they were read
//! before).

use std::path::Path;
use std::time::Instant;

use ams_data::Groups;
use ams_data::dataset::Dataset;
use ams_fabric::{Outbox, Solo};
use ams_image::FeatureStore;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::run::assemble::{Assembly, assemble};
use crate::settings::{Config, DataConfig, ImageArm, ModelConfig, TrainConfig};
use crate::setup::sources;
use crate::step::mail::Seat;
use crate::step::selection::HeldOut;
use crate::step::share::Share;
use crate::step::traffic::Counts;

/// Counts and checksum of the samples, which do not depend on the threads, and the rates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DataReport {
    /// Impressions of the epoch.
    pub impressions: u64,
    /// Groups of these impressions.
    pub groups: u64,
    /// Behaviors of these groups.
    pub behaviors: u64,
    /// Steps of the epoch.
    pub steps: u64,
    /// Impressions per step, about.
    pub batch: usize,
    /// Lanes that share the samples.
    pub lanes: usize,
    /// References to ids, of all steps.
    pub ids_requested: u64,
    /// Ids asked for, after each worker has merged those of a step.
    pub ids_asked: u64,
    /// References to images, of all steps and towers.
    pub images_requested: u64,
    /// Images asked for, after the same merge.
    pub images_asked: u64,
    /// Checksum of everything read and everything asked for, in the order of steps and lanes.
    pub checksum: String,
    /// Rates by number of threads.
    pub rates: Vec<Rate>,
}

/// The rates with one number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Number of threads that read.
    pub threads: usize,
    /// Seconds to read the epoch, shuffled.
    pub read_seconds: f64,
    /// Impressions per second of it.
    pub read_per_second: f64,
    /// Seconds to read the epoch and find each step's ids and images, once each, by owner.
    pub batch_seconds: f64,
    /// Impressions per second of it.
    pub batch_per_second: f64,
}

/// The work on the impressions that were read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// No work: reading alone is timed.
    Read,
    /// Write the asks of the shards, as a training does.
    Batch,
}

/// Counts and checksum of a pass over the samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Found {
    impressions: u64,
    groups: u64,
    behaviors: u64,
    steps: u64,
    counts: Counts,
    checksum: u64,
}

/// Reads the training samples of the dataset `samples` in steps of `batch` impressions on `lanes`
/// lanes, for each of `threads`, and for the model that a configuration without further settings
/// means.
///
/// # Errors
/// If the dataset cannot be read, or not in that many lanes.
///
/// # Panics
/// If the answer depends on the number of threads.
pub fn samples(
    samples: &Path,
    batch: usize,
    lanes: usize,
    threads: &[usize],
    done: &mut dyn FnMut(&Rate),
) -> Result<DataReport> {
    let config = config(samples, batch, lanes);
    let (dataset, stores) = sources::open(&config)?;
    let mut rates = Vec::new();
    let mut found = None;
    // Files come from the cache in every measurement, also in the first one.
    run(&config, &dataset, &stores, 1, Work::Read)?;
    for &threads in threads {
        let (read, read_seconds) = run(&config, &dataset, &stores, threads, Work::Read)?;
        let (asked, batch_seconds) = run(&config, &dataset, &stores, threads, Work::Batch)?;
        let both = *found.get_or_insert((read, asked));
        assert!(both == (read, asked), "{threads} threads found {read:?}, {asked:?}, not {both:?}");
        let per_second = |seconds: f64| read.impressions as f64 / seconds.max(1e-9);
        let rate = Rate {
            threads,
            read_seconds,
            read_per_second: per_second(read_seconds),
            batch_seconds,
            batch_per_second: per_second(batch_seconds),
        };
        done(&rate);
        rates.push(rate);
    }
    let (read, asked) = found.unwrap_or_default();
    Ok(DataReport {
        impressions: read.impressions,
        groups: read.groups,
        behaviors: read.behaviors,
        steps: read.steps,
        batch,
        lanes,
        ids_requested: asked.counts.ids.requested as u64,
        ids_asked: asked.counts.ids.unique_per_worker as u64,
        images_requested: asked.counts.images.requested as u64,
        images_asked: asked.counts.images.unique_per_worker as u64,
        checksum: format!("{:016x}", asked.checksum),
        rates,
    })
}

fn config(samples: &Path, batch: usize, lanes: usize) -> Config {
    let mut config = Config {
        name: "data".to_owned(),
        seed: 1,
        // Nothing is written.
        runs: samples.to_path_buf(),
        data: DataConfig {
            samples: samples.to_path_buf(),
            images: None,
            shuffle_images: None,
            exclude_fields: Vec::new(),
            contents: Vec::new(),
        },
        model: ModelConfig::default(),
        train: TrainConfig { batch, lanes, ..TrainConfig::default() },
        align: None,
    };
    if !sources::has_images(samples) {
        config.model.network.images = ImageArm::None;
    }
    config
}

/// One epoch, and its seconds.
fn run(
    config: &Config,
    dataset: &Dataset,
    stores: &[FeatureStore],
    threads: usize,
    work: Work,
) -> Result<(Found, f64)> {
    let Assembly { network, topology, pool, mut workers } =
        assemble(config, dataset, stores, HeldOut::default(), &Solo, threads)?;
    let lanes = topology.lanes();
    let steps = Share::steps(dataset.card().counts.train, config.train.batch);
    let mut of_lanes = vec![(Found::default(), Outbox::default()); lanes];
    let begin = Instant::now();
    workers.iter_mut().for_each(|worker| worker.feed.start(0));
    for numerator in 1..=steps {
        let share = Share { numerator, denominator: steps };
        let read: Vec<Result<()>> = pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut of_lanes).zip(topology.local());
            each.with_max_len(1)
                .map(|((worker, (found, asks)), lane)| {
                    let seat = Seat { lane, lanes };
                    worker.read(share.of(worker.feed.impressions()))?;
                    found.add_groups(&worker.batch.groups);
                    if work == Work::Batch {
                        worker.ask(&network, stores, seat, None, false, asks);
                        found.counts += worker.counts;
                        found.mix(worker.batch.ids.by_owner());
                        worker.batch.images.iter().for_each(|asks| found.mix(asks.by_owner()));
                    }
                    Ok(())
                })
                .collect()
        });
        read.into_iter().collect::<Result<()>>()?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let mut all = Found { steps, ..Found::default() };
    for (found, _) in &of_lanes {
        all.impressions += found.impressions;
        all.groups += found.groups;
        all.behaviors += found.behaviors;
        all.counts += found.counts;
        all.mix(&[found.checksum]);
    }
    Ok((all, seconds))
}

impl Found {
    fn add_groups(&mut self, groups: &Groups) {
        self.impressions += groups.labels.len() as u64;
        self.groups += groups.len() as u64;
        self.behaviors += groups.behavior_times.len() as u64;
        let users = groups.users.iter().map(|id| id.0);
        let times = groups.times.iter().zip(&groups.labels);
        let times = times.map(|(&time, &label)| time as u64 * 2 + u64::from(label));
        self.mix_all(users.chain(times));
    }

    fn mix(&mut self, words: &[u64]) {
        self.mix_all(words.iter().copied());
    }

    /// Cheap, about a word a nanosecond, so that it does not show in the rates.
    fn mix_all(&mut self, words: impl Iterator<Item = u64>) {
        self.checksum = words.fold(self.checksum, |sum, word| {
            (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
    }
}
