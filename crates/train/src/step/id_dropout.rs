//! Dropout of ids: in training some rows are those of an unknown id, zeros or learned, so that the
//! network learns to do without them, as it has to with the ids of new items and users.
//!
//! An id that is replaced is not asked for: if no other use of it is left, its row neither begins
//! nor moves in this step.

use ams_bundle::Input;
use ams_model::dropout;

/// The masks of one lane in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdDropout {
    /// Share of the ids that are dropped.
    pub(crate) rate: f32,
    /// The seed of the step's masks.
    pub(crate) step_seed: u64,
    pub(crate) lane: usize,
}

impl IdDropout {
    /// Whether value `value` of list `list` is dropped, in the input `input`, which is number
    /// `number` of all. A list is a group's or an impression's.
    pub(crate) fn drops(self, number: usize, input: Input, list: usize, value: usize) -> bool {
        let concerned =
            matches!(input, Input::User(_) | Input::Ad(_) | Input::AdImage | Input::AdCode(_));
        // Towers have the networks from 0.
        let (network, key) = (!number, (self.lane as u64) << 32 | list as u64);
        let row_seed = dropout::row_seed(self.step_seed, network, key);
        concerned && dropout::mask(self.rate, row_seed, 0, value) == 0.0
    }
}
