//! From a configuration and opened sources to a model, lanes and workers.

use ams_data::dataset::Dataset;
use ams_fabric::{Fabric, Topology};
use ams_image::FeatureStore;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};
use crate::run::validation;
use crate::settings::{Config, ModelPart, PhaseConfig};
use crate::setup::network::Network;
use crate::setup::resolve::{resolve, topology};
use crate::step::feed::{self, Order};
use crate::step::mail::Seat;
use crate::step::selection::{HeldOut, Selection};
use crate::step::worker::Worker;

/// What a training consists of besides its files.
pub(crate) struct Assembly {
    /// The networks of the model.
    pub network: Network,
    /// The process of each lane.
    pub topology: Topology,
    /// The threads of this process.
    pub pool: ThreadPool,
    /// The workers of the local lanes, in lane order.
    pub workers: Vec<Worker>,
}

/// The model, lanes and workers of `config` on `dataset` and `stores`, with `threads` threads of
/// this process.
///
/// # Errors
/// If the configuration does not fit the dataset, the feature store, or the number of processes; or
/// if a sample file cannot be opened.
pub(crate) fn assemble(
    config: &Config,
    dataset: &Dataset,
    stores: &[FeatureStore],
    held_out: HeldOut,
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
    let network = Network::new(spec, &config.train, config.aligns());
    check_phases(config, &network)?;
    let mut workers = Vec::new();
    for lane in topology.local() {
        let order = Order::Shuffled { seed: config.seed, lane };
        let seat = Seat { lane, lanes: topology.lanes() };
        let (learned, window) = (Selection::LEARNED, config.train.shuffle_groups);
        let feed = feed::open(dataset, learned, seat, order, held_out, window)?;
        workers.push(Worker::new(&network, feed));
    }
    Ok(Assembly { network, topology, pool, workers })
}

/// Checks that something learns in every phase: a model whose fields are all excluded has no ids.
fn check_phases(config: &Config, network: &Network) -> Result<()> {
    let has = |part: &ModelPart| match part {
        ModelPart::Images => network.trained().next().is_some(),
        ModelPart::Ids => network.inputs().next().is_some(),
        ModelPart::Network => true,
    };
    let learns = |phase: &PhaseConfig| phase.learns.iter().any(has);
    match config.train.phases.iter().position(|phase| !learns(phase)) {
        None => Ok(()),
        Some(at) => {
            let learns = config.train.phases[at].learns.iter().map(|part| part.as_str());
            let what = format!(
                "phase {}: {:?}, but the model has none of them: leave the phase out, or let \
                 something else learn",
                at + 1,
                learns.collect::<Vec<_>>()
            );
            Err(Error::Config { key: format!("train.phases[{at}].learns"), what })
        }
    }
}
