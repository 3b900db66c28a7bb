//! Settings of a network that are one of several.

use serde::{Deserialize, Serialize};

/// Which images the network sees. The ids of images are fields like any other, in every arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageArm {
    /// None: ids alone.
    None,
    /// The ad's.
    Ad,
    /// The behaviors'. Attention that would ask for the ad's image asks for the ad's query fields.
    Behavior,
    /// The ad's and the behaviors'.
    Joint,
}

impl ImageArm {
    /// Every arm.
    pub const ALL: [ImageArm; 4] =
        [ImageArm::None, ImageArm::Ad, ImageArm::Behavior, ImageArm::Joint];

    /// Whether the network sees the ad's image.
    pub fn has_ad(self) -> bool {
        matches!(self, ImageArm::Ad | ImageArm::Joint)
    }

    /// Whether the network sees the behaviors' images.
    pub fn has_behavior(self) -> bool {
        matches!(self, ImageArm::Behavior | ImageArm::Joint)
    }
}

/// What a logit is made of (Section 6.3 and Fig. 4 of the paper).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Embeddings, fully connected layers, one output.
    #[default]
    Mlp,
    /// No hidden layer: a weighted sum of all inputs. An id adds one number to it, the product of
    /// its row and the weights of its field.
    LogisticRegression,
    /// As `Mlp`, and the ids of behaviors are weighed by attention to the ad's before they are
    /// added (Deep Interest Network, KDD 2018).
    Din,
    /// The inner product of a user vector and an ad vector, each of fully connected layers: both
    /// can be computed ahead. Nothing may look at user and ad at once, nor at the context.
    PreRank,
}

impl Base {
    /// Every base network.
    pub const ALL: [Base; 4] = [Base::Mlp, Base::LogisticRegression, Base::Din, Base::PreRank];

    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Base::Mlp => "mlp",
            Base::LogisticRegression => "logistic-regression",
            Base::Din => "din",
            Base::PreRank => "pre-rank",
        }
    }
}

/// Whether products of what is compared stand beside it, in attention and before the first layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interactions {
    /// The paper's network.
    #[default]
    None,
    /// Attention sees key * query, the first layer sees ad image * aggregate, number by number. The
    /// differences, which go with the products elsewhere, are linear in what is there already.
    Product,
}

impl Interactions {
    /// Without and with products.
    pub const ALL: [Interactions; 2] = [Interactions::None, Interactions::Product];
}

/// What the network is told of how alike the ad's image and those of the history are, before any
/// training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Nothing.
    #[default]
    None,
    /// The mean, the largest, the mean of the five largest, and the newest cosine.
    Cosine,
    /// These, and how many cosines lie in each of some buckets (as SimTier does it, CIKM 2024).
    Histogram,
    /// Nine statistics, each brought to mean 0 and deviation 1.
    Statistics,
}

impl Similarity {
    /// Everything it can be told.
    pub const ALL: [Similarity; 4] =
        [Similarity::None, Similarity::Cosine, Similarity::Histogram, Similarity::Statistics];

    /// Whether it depends on the ages of behaviors.
    pub fn sees_ages(self) -> bool {
        self == Similarity::Statistics
    }
}

/// The row of an id that has none of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownIds {
    /// Zeros.
    #[default]
    Zero,
    /// One row per input, learned from the ids that training replaces by it.
    Learned,
}

/// What makes a behavior alike to an ad, when a history is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchBy {
    /// The cosine of their sketches (soft search).
    #[default]
    Pictures,
    /// A value of one field that both have (hard search).
    Category,
}
