//! What a lane draws in a step: hashes, so that a draw is the same wherever the lane is computed.

use ams_model::dropout;
use ams_model::init::mix;

/// What is drawn; in the seed it stands for a network, of which towers have numbers from 0 and
/// inputs from the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Negatives of clicks.
    Negatives = 1 << 30,
    /// The other image of clicks, of a contrastive loss.
    Pairs,
}

/// The draws of a lane in a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    /// The seed of the step.
    pub step_seed: u64,
    /// The lane.
    pub lane: usize,
}

impl Draws {
    /// Throw `number` of what is drawn for impression `at` of the micro-batch.
    pub(crate) fn throw(self, purpose: Purpose, at: usize, number: u64) -> u64 {
        let key = (self.lane as u64) << 32 | at as u64;
        mix(dropout::row_seed(self.step_seed, purpose as usize, key) ^ number)
    }
}
