//! Which step's map is the result.
//!
//! Held-out images judge: the AUC of the mean cosine alone, on training impressions of images that
//! no pair had. A map is taken over the first one, of step 0, only if it gains more than twice the
//! standard error: the best of several looks is ahead by chance more often than not.

use ams_model::metrics::{Gain, auc, auc_gain};
use serde::{Deserialize, Serialize};

/// Standard errors that a gain has to exceed.
const SURE: f64 = 2.0;

/// What a look at the map after a step said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Steps taken before it.
    pub step: u64,
    /// The mean loss of the steps since the look before; none at step 0.
    pub loss: Option<f64>,
    /// AUC of the mean cosine.
    pub auc: f64,
    /// AUC less that of step 0.
    pub gain: f64,
    /// The standard error of the gain.
    pub error: f64,
}

impl Look {
    /// Of the scores of the impressions that judge, `first` at step 0 and `now`. None if one of
    /// both classes occurs less than twice.
    pub(crate) fn of(
        step: u64,
        loss: Option<f64>,
        first: &[f32],
        now: &[f32],
        labels: &[u8],
    ) -> Option<Look> {
        let Gain { gain, error } = auc_gain(first, now, labels)?;
        Some(Look { step, loss, auc: auc(now, labels)?, gain, error })
    }

    /// Whether the gain is more than chance.
    pub(crate) fn is_sure(&self) -> bool {
        self.gain > SURE * self.error
    }

    /// Whether this map is taken over `best`, the one to take so far.
    pub(crate) fn beats(&self, best: &Look) -> bool {
        self.is_sure() && self.auc > best.auc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gain_has_to_be_sure_and_the_best() {
        let look = |gain: f64, error| Look { step: 1, loss: None, auc: 0.6 + gain, gain, error };
        let first = look(0.0, 0.0);
        for (gain, error, best, expected) in [
            (0.01, 0.004, first, true),
            (0.01, 0.005, first, false),
            (0.0, 0.0, first, false),
            (-0.01, 0.001, first, false),
            (0.01, 0.004, look(0.02, 0.004), false),
            (0.03, 0.004, look(0.02, 0.004), true),
        ] {
            assert_eq!(look(gain, error).beats(&best), expected, "{gain} {error} {best:?}");
        }
    }
}
