//! One lane of this process.

use crate::setup::network::Network;
use crate::step::shard::Shard;

/// What a lane keeps from step to step besides its worker.
pub(crate) struct Lane {
    /// The rows and images that it owns.
    pub shard: Shard,
    /// The gradient of the dense weights; of the first lane, after a step, the sum of all lanes.
    pub gradient: Vec<f32>,
}

impl Lane {
    /// A lane of `network`'s model without rows.
    pub(crate) fn new(network: &Network, seed: u64) -> Lane {
        Lane { shard: Shard::new(network, seed), gradient: vec![0.0; network.dense_len()] }
    }
}
