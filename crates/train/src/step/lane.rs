//! One lane of this process.

use crate::setup::network::Plan;
use crate::step::shard::Shard;

/// What a lane keeps from step to step besides its worker.
pub struct Lane {
    /// The rows and images that it owns.
    pub shard: Shard,
    /// The gradient of the dense weights; of the first lane, after a step, the sum of all lanes.
    pub gradient: Vec<f32>,
}

impl Lane {
    /// A lane of `plan`'s model without rows.
    pub fn new(plan: &Plan, seed: u64) -> Lane {
        Lane { shard: Shard::new(plan, seed), gradient: vec![0.0; plan.dense_len()] }
    }
}
