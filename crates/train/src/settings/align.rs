//! The settings of an alignment.

use ams_model::align::LEAST_TEMPERATURE;
use ams_model::pca::Whiten;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Alignment of image features with the items that users engage with together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlignConfig {
    /// Number of principal components of the features, of length 1 each, that the map reads.
    /// Default: 128, or the width of the features if that is less. Range: at least `width`, and
    /// at most the width of the features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// Width of an aligned vector, in numbers. Default: 64, or `components` if that is less.
    /// Range: at least 1; at most `components`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Scale of the components; one without variance is 0.
    /// - `none`: Each has its variance.
    /// - `half`: Each is divided by the fourth root of its variance.
    /// - `full`: Each is divided by its standard deviation.
    pub whiten: Whiten,
    /// Number by which cosines are divided before their softmax. Range: at least 0.05.
    pub temperature: f32,
    /// Number of steps; with 0 the map is the first components, unchanged. Range: at least 0.
    pub steps: u64,
    /// Number of pairs per step, over all lanes together; they are one another's negatives. Range:
    /// at least 2.
    pub batch: usize,
    /// Number of batches, in the order of time, from which a batch is drawn. Range: at least 1.
    pub window: usize,
    /// Learning rate of Adam. Range: more than 0.
    pub learning_rate: f32,
    /// Factor of the squared distance of the map from its initial value in the loss. Range: at
    /// least 0.
    pub penalty: f32,
    /// Number of days between the two events of a pair at which its weight is divided by e. Range:
    /// more than 0.
    pub decay_days: f32,
    /// Share of the images, chosen by a hash, whose pairs are left out and whose impressions judge
    /// the map. With 0 nothing is judged, and the result is that of the last step. Range: at least
    /// 0 and less than 1.
    pub holdout: f32,
    /// Number of steps between two judgements, each of which writes a checkpoint. Range: at least
    /// 1.
    pub evaluate_every: u64,
    /// Factor of a contrastive loss beside that of the clicks, in the training after the alignment:
    /// InfoNCE, at the same `temperature` and `decay_days`, over pairs of a clicked image and one
    /// of its history, by the embeddings of their tower. The other pairs of a lane's micro-batch
    /// are negatives. With 0 there is none. Default: `0.0`. Range: at least 0; more than 0 needs
    /// `model.images = "joint"`, `model.towers = "shared"` and `model.tower_weights = "trained"`.
    #[serde(skip_serializing_if = "is_zero")]
    pub weight: f32,
    /// Seed of the held-out images and of the batches. Default: `seed`. Range: 0 to
    /// 9223372036854775807.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for AlignConfig {
    /// What was best on logs of some hundred thousand impressions.
    fn default() -> AlignConfig {
        AlignConfig {
            components: None,
            width: None,
            whiten: Whiten::Half,
            temperature: 0.25,
            steps: 400,
            batch: 512,
            window: 40,
            learning_rate: 0.001,
            penalty: 0.001,
            decay_days: 365.0,
            holdout: 0.2,
            evaluate_every: 50,
            weight: 0.0,
            seed: None,
        }
    }
}

/// Whether there is no loss beside the clicks, as in alignments from before the setting.
fn is_zero(weight: &f32) -> bool {
    *weight == 0.0
}

/// Components of wide features, unless a number is given.
const COMPONENTS: usize = 128;

/// Width of an aligned vector, unless a number is given.
const WIDTH: usize = 64;

impl AlignConfig {
    /// Width of an aligned vector (D), and the components that the map reads (P), of features of
    /// `dim` numbers.
    pub(crate) fn shape(&self, dim: usize) -> [usize; 2] {
        let components = self.components.unwrap_or(COMPONENTS.min(dim));
        [self.width.unwrap_or(WIDTH.min(components)), components]
    }

    /// The same with the numbers that it means for features of `dim` numbers.
    pub(crate) fn resolved(mut self, dim: usize) -> AlignConfig {
        let [width, components] = self.shape(dim);
        (self.width, self.components) = (Some(width), Some(components));
        self
    }

    /// [`AlignConfig::shape`] of a configuration that is resolved.
    pub(crate) fn resolved_shape(&self) -> [usize; 2] {
        self.shape(usize::MAX)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The key, what came and what is possible.
    pub fn check(&self) -> Result<()> {
        let bad =
            |key: &str, what: String| Err(Error::Config { key: format!("align.{key}"), what });
        let [width, components] = self.resolved_shape();
        if width == 0 || width > components {
            let what = format!("{width}, expected 1 to align.components = {components}");
            return bad("width", what);
        }
        if !(self.temperature >= LEAST_TEMPERATURE && self.temperature.is_finite()) {
            let what = format!("{}, expected at least {LEAST_TEMPERATURE}", self.temperature);
            return bad("temperature", what);
        }
        if self.batch < 2 {
            return bad("batch", format!("{}, expected at least 2 pairs", self.batch));
        }
        let counts = [("window", self.window as u64), ("evaluate_every", self.evaluate_every)];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return bad(key, "0, expected at least 1".to_owned());
        }
        let positive = [("learning_rate", self.learning_rate), ("decay_days", self.decay_days)];
        for (key, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return bad(key, format!("{value}, expected a positive number"));
            }
        }
        if !(self.penalty >= 0.0 && self.penalty.is_finite()) {
            return bad("penalty", format!("{}, expected a number of at least 0", self.penalty));
        }
        if !(self.weight >= 0.0 && self.weight.is_finite()) {
            return bad("weight", format!("{}, expected a number of at least 0", self.weight));
        }
        if !(0.0..1.0).contains(&self.holdout) {
            let what = format!("{}, expected a share of at least 0 and less than 1", self.holdout);
            return bad("holdout", what);
        }
        Ok(())
    }
}
