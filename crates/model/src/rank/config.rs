//! The shape of a rank network, as a setting.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregator, Query};

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
}

impl Similarity {
    /// Everything it can be told.
    pub const ALL: [Similarity; 3] = [Similarity::None, Similarity::Cosine, Similarity::Histogram];
}

/// The shape of a rank network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankConfig {
    /// Width of rows and image embeddings (D).
    pub dim: usize,
    /// Number of fields with one list per group.
    pub group_fields: usize,
    /// Number of fields with one list per impression.
    pub impression_fields: usize,
    /// Impression fields that attention asks for, as indices.
    pub query_fields: Vec<usize>,
    /// What a logit is made of.
    #[serde(default)]
    pub base: Base,
    /// For [`Base::Din`]: the impression field that each field with one list per behavior is
    /// compared with, as indices.
    #[serde(default)]
    pub behavior_fields: Vec<usize>,
    /// Names of the contents with towers, such as images; every one has the same arm, aggregator,
    /// and so forth. The parameters of the first one have no prefix.
    #[serde(default = "RankConfig::contents")]
    pub contents: Vec<String>,
    /// Which images the network sees.
    pub images: ImageArm,
    /// How a history's image embeddings become one vector.
    pub aggregator: Aggregator,
    /// Hidden widths of an attention network; the paper's are 64 and 16.
    pub attention: [usize; 2],
    /// How many embeddings of a history, the newest, [`Aggregator::Concatenate`] puts end to end
    /// (the paper does not say); the other aggregators do not look at it.
    #[serde(default = "RankConfig::concatenate_length")]
    pub concatenate_length: usize,
    /// Hidden widths of the network; the paper's are 200 and 80.
    pub mlp: Vec<usize>,
    /// For [`Base::PreRank`]: widths of the layers of both vectors; the paper's are 200 and 10.
    #[serde(default = "RankConfig::pre_rank")]
    pub pre_rank: Vec<usize>,
    /// Whether products stand beside what is compared.
    #[serde(default)]
    pub interactions: Interactions,
    /// What is told of likeness.
    #[serde(default)]
    pub similarity: Similarity,
}

impl RankConfig {
    /// [`RankConfig::contents`] unless said otherwise: images.
    pub fn contents() -> Vec<String> {
        vec!["image".to_owned()]
    }

    /// [`RankConfig::pre_rank`] unless said otherwise.
    pub fn pre_rank() -> Vec<usize> {
        vec![200, 10]
    }

    /// [`RankConfig::concatenate_length`] unless said otherwise.
    pub fn concatenate_length() -> usize {
        32
    }

    /// What is wrong with this configuration, if anything is: what came and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [
            ("dim", &[self.dim][..]),
            ("attention", &self.attention),
            ("pre_rank", &self.pre_rank),
            ("concatenate_length", &[self.concatenate_length]),
        ];
        for (name, widths) in sizes {
            if widths.is_empty() || widths.contains(&0) {
                return Err(format!("{name} is {widths:?}; every width must be at least 1"));
            }
        }
        if self.mlp.contains(&0) {
            return Err(format!("mlp is {:?}; every width must be at least 1", self.mlp));
        }
        let fields = self.query_fields.iter().chain(&self.behavior_fields);
        if let Some(field) = fields.into_iter().find(|&&f| f >= self.impression_fields) {
            return Err(format!(
                "query field {field} does not exist; there are {} impression fields, counted from 0",
                self.impression_fields
            ));
        }
        if self.asks_for_fields() && self.query_fields.is_empty() {
            return Err("this aggregator asks for ad fields, and query_fields is empty; \
                        name at least one impression field"
                .to_owned());
        }
        self.check_base()
    }

    fn check_base(&self) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("base = {} {what}", self.base.as_str()));
        match self.base {
            Base::Din if self.behavior_fields.is_empty() => wrong(
                "attends to fields that behaviors and the ad both have; query_fields names none of them",
            ),
            Base::PreRank
                if self.images.has_behavior() && !self.aggregator.queries().is_empty() =>
            {
                wrong(&format!(
                    "cannot look at the ad in the history; aggregator is {}, expected one of sum, max, \
                     concatenate",
                    self.aggregator.as_str()
                ))
            }
            Base::PreRank if self.interactions != Interactions::None => {
                wrong("has no products of user and ad; expected interactions = none")
            }
            Base::PreRank if self.similarity != Similarity::None => {
                wrong("cannot compare the ad with the history; expected similarity = none")
            }
            Base::Mlp | Base::LogisticRegression | Base::Din | Base::PreRank => Ok(()),
        }
    }

    /// Whether attention looks at the query fields.
    fn asks_for_fields(&self) -> bool {
        let queries = self.aggregator.queries();
        let asks = |query: &Query| match query {
            // Without the ad's image the fields stand in for it.
            Query::Image => !self.images.has_ad(),
            Query::Fields => true,
        };
        self.images.has_behavior() && queries.iter().any(asks)
    }
}
