//! From a configuration and opened sources to a model, lanes and workers.

use ams_data::dataset::{Dataset, SplitName};
use ams_fabric::{Fabric, Topology};
use ams_image::FeatureStore;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::run::validation;
use crate::settings::Config;
use crate::setup::network::Plan;
use crate::setup::resolve::{resolve, topology};
use crate::step::feed::{self, Order};
use crate::step::users::Users;
use crate::step::worker::Worker;

/// What a training consists of besides its files.
pub struct Assembly {
    /// The model.
    pub plan: Plan,
    /// Where lanes are.
    pub topology: Topology,
    /// The threads of this process.
    pub pool: ThreadPool,
    /// The workers of the local lanes, in lane order.
    pub workers: Vec<Worker>,
}

/// Makes what `config` means on `dataset` and `store`, on `threads` threads of this process.
///
/// # Errors
/// If the configuration does not fit the dataset, the feature store, or the number of processes; or
/// if a sample file cannot be opened.
pub fn assemble(
    config: &Config,
    dataset: &Dataset,
    stores: &[FeatureStore],
    fabric: &dyn Fabric,
    threads: usize,
) -> Result<Assembly> {
    let spec = resolve(config, dataset, stores)?;
    let topology = topology(config, dataset, fabric)?;
    validation::check(config, dataset.card())?;
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| Error::Config { key: "threads".into(), what: error.to_string() })?;
    let plan = Plan::new(spec, &config.train);
    let mut workers = Vec::new();
    for lane in topology.local() {
        let order = Order::Shuffled { seed: config.seed, lane };
        let samples = (SplitName::Train, Users::Learned);
        let feed = feed::open(dataset, samples, (lane, topology.lanes()), order, config)?;
        workers.push(Worker::new(&plan, feed));
    }
    Ok(Assembly { plan, topology, pool, workers })
}
