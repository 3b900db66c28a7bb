//! The settings of a training in phases: what learns in each, for how long, at which rates.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// A part of a training, of whole epochs, in which some parts of the model learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseConfig {
    /// Number of passes over the training impressions. Range: at least 1.
    pub epochs: u32,
    /// Parts of the model that learn; all others stay as they are, with the state of their
    /// optimizer. Range: at least one, none twice, and one of them is in the model: `images` needs
    /// towers that are trained.
    #[serde(default = "ModelPart::all")]
    pub learns: Vec<ModelPart>,
    /// Learning rate of Adam in this phase, as if it were that at the first step of the training.
    /// Default: `train.learning_rate`. Range: more than 0; times `train.tower_weight_decay`, less
    /// than 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f32>,
    /// Learning rate of the rows of ids in this phase, likewise. Default:
    /// `train.rows_learning_rate`, or `train.learning_rate` without it. Range: more than 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_learning_rate: Option<f32>,
}

/// A part of a model that learns in a phase, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelPart {
    /// The towers, of images and of further contents.
    Images,
    /// The rows of ids, with those of unknown ids. While they do not learn, no id gets a row: one
    /// without is unknown, as in an evaluation.
    Ids,
    /// The rank network: all other weights.
    Network,
}

impl ModelPart {
    /// Every part.
    pub const ALL: [ModelPart; 3] = [ModelPart::Images, ModelPart::Ids, ModelPart::Network];

    fn all() -> Vec<ModelPart> {
        ModelPart::ALL.to_vec()
    }

    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            ModelPart::Images => "images",
            ModelPart::Ids => "ids",
            ModelPart::Network => "network",
        }
    }
}

/// The parts of a model that learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Learns {
    /// The towers that are trained at all.
    pub images: bool,
    /// The rows of ids.
    pub ids: bool,
    /// The rank network.
    pub network: bool,
}

impl Learns {
    /// Where a training has no phases.
    pub(crate) const ALL: Learns = Learns { images: true, ids: true, network: true };

    /// Those that `parts` names.
    pub(crate) fn of(parts: &[ModelPart]) -> Learns {
        let has = |part| parts.contains(&part);
        let [images, ids, network] = ModelPart::ALL.map(has);
        Learns { images, ids, network }
    }
}

/// Epochs of all `phases` together.
pub(crate) fn epochs(phases: &[PhaseConfig]) -> u64 {
    phases.iter().map(|phase| u64::from(phase.epochs)).sum()
}

/// Gives `train.epochs` the sum of the epochs of `train.phases`, where a file has those alone.
pub(crate) fn fill_epochs(config: &mut Table) {
    let Some(Value::Table(train)) = config.get_mut("train") else { return };
    let Some(Value::Array(phases)) = train.get("phases") else { return };
    let epochs = |phase: &Value| phase.get("epochs").and_then(Value::as_integer);
    let sum = phases.iter().try_fold(0_i64, |sum, phase| sum.checked_add(epochs(phase)?));
    // What is no number is found out when the configuration is understood.
    if let Some(sum) = sum.filter(|sum| *sum > 0) {
        train.entry("epochs").or_insert(Value::Integer(sum));
    }
}
