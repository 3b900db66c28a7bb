//! What a step is to do, and what came of it.

use ams_fabric::Rounding;

use crate::settings::phases::Learns;
use crate::setup::network::Network;
use crate::step::mail::Losses;
use crate::step::shard::Unknown;

/// The dense weights (W, then every tower), replicated in every process, with Adam's moments.
pub(crate) struct Dense {
    /// The weights; W, then every tower.
    pub w: Vec<f32>,
    /// First moments, as long as `w`.
    pub m: Vec<f32>,
    /// Second moments, as long as `w`.
    pub v: Vec<f32>,
}

/// What a step of the training learns, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepPlan {
    /// Number of the step, from 1.
    pub step: u64,
    /// The parts that learn in it.
    pub learns: Learns,
    /// Of each part, the number of this step among those in which it learns, from 1; for a part
    /// that does not learn in it, the number of the last one.
    pub counts: PartSteps,
    /// Learning rate of the dense weights.
    pub learning_rate: f32,
    /// Learning rate of the rows of ids.
    pub rows_learning_rate: f32,
}

/// Numbers of steps in which each part learns: those that Adam counts by, so that a part which
/// begins later begins as if the training did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartSteps {
    /// Of the towers.
    pub images: u64,
    /// Of the rows of ids.
    pub ids: u64,
    /// Of the rank network.
    pub network: u64,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepOutcome {
    /// Impressions of all lanes.
    pub impressions: u64,
    /// Mean loss over them.
    pub loss: f64,
    /// Mean of the sampled softmax over the clicks, if there is one.
    pub in_batch: Option<f64>,
    /// Weighted mean of the contrastive loss over the pairs of images, if there is one.
    pub contrastive: Option<f64>,
}

impl StepOutcome {
    /// Of the sums of all lanes.
    pub(super) fn of(impressions: u64, losses: Losses, network: &Network) -> StepOutcome {
        let mean = |[sum, count]: [f64; 2]| if count > 0.0 { sum / count } else { 0.0 };
        StepOutcome {
            impressions,
            loss: losses.clicks / impressions.max(1) as f64,
            in_batch: network.in_batch.map(|_| mean(losses.in_batch)),
            contrastive: network.contrastive.map(|_| mean(losses.contrastive)),
        }
    }

    pub(super) fn is_finite(&self) -> bool {
        let auxiliary = [self.in_batch, self.contrastive];
        self.loss.is_finite() && auxiliary.into_iter().flatten().all(f64::is_finite)
    }
}

/// Why lanes run forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// In a step, counted from 1: unknown ids get rows, if rows learn, and towers drop units, if
    /// they do.
    Train {
        /// Number of the step, from 1.
        step: u64,
    },
    /// To predict: the rows of unknown ids are zeros, as in the scorer.
    Evaluate,
}

/// How the dense gradient is summed and used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DenseSettings {
    /// How sums over lanes are rounded.
    pub rounding: Rounding,
    /// The largest norm of the gradient.
    pub clip_norm: Option<f32>,
}

impl Pass {
    /// How ids without a row are looked up.
    pub(super) fn unknown(self, network: &Network) -> Unknown {
        match self {
            // Rows that nothing trains would be noise that the network learns by heart.
            Pass::Train { .. } if network.learns().ids => Unknown::Create,
            Pass::Train { .. } | Pass::Evaluate => Unknown::Zero,
        }
    }
}
