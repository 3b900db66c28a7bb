//! Dropout of ids: in training some rows are those of an unknown id, zeros or learned, so that the
//! network learns to do without them, as it has to with the ids of new items and users.
//!
//! An id that is replaced is not asked for: if no other use of it is left, its row neither begins
//! nor moves in this step.

use ams_bundle::Input;
use ams_model::dropout;
use ams_model::settings::IdRates;

use crate::setup::network::Network;

/// The masks of one lane in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdDropout<'a> {
    /// For each input, the share of its ids that is dropped.
    rates: &'a [f32],
    /// Whether the inputs of one ad, and those of one user, have one draw.
    together: bool,
    /// The seed of the step's masks.
    step_seed: u64,
    lane: usize,
}

impl IdDropout<'_> {
    /// Those of `lane` in the step whose masks have the seed `step_seed`.
    pub(crate) fn new(network: &Network, step_seed: u64, lane: usize) -> IdDropout<'_> {
        let together = matches!(network.spec.network.id_dropout, IdRates::Fields(_));
        IdDropout { rates: &network.id_rates, together, step_seed, lane }
    }

    /// Whether value `value` of list `list` is dropped, in the input `input`, which is number
    /// `number` of all. A list is a group's or an impression's.
    pub(crate) fn drops(self, number: usize, input: Input, list: usize, value: usize) -> bool {
        let (is_user, is_ad) = (
            matches!(input, Input::User(_)),
            matches!(input, Input::Ad(_) | Input::AdImage | Input::AdCode(_)),
        );
        // Towers have the networks from 0, inputs those from the end, and sides a half between.
        let (network, unit) = match self.together {
            true => (usize::MAX / 2 - usize::from(is_ad), 0),
            false => (!number, value),
        };
        let row_seed =
            dropout::row_seed(self.step_seed, network, (self.lane as u64) << 32 | list as u64);
        (is_user || is_ad) && dropout::mask(self.rates[number], row_seed, 0, unit) == 0.0
    }
}
