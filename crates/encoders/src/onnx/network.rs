//! What computes a network.

use std::fmt::Debug;

/// A network for inputs of one shape, on as many threads as ask.
pub(super) trait Network: Debug + Send + Sync {
    /// Hands the output for `input`, pictures of the network's shape end to end, to `take`.
    ///
    /// # Errors
    /// What the network says that it cannot do.
    fn run(&self, input: &[f32], take: &mut dyn FnMut(&[f32])) -> Result<(), String>;
}

/// All that a network gives for `input`.
pub(super) fn values(network: &dyn Network, input: &[f32]) -> Result<Vec<f32>, String> {
    let mut all = Vec::new();
    network.run(input, &mut |values| all.extend_from_slice(values)).map(|()| all)
}
