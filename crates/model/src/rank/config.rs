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
    /// Which images the network sees.
    pub images: ImageArm,
    /// How a history's image embeddings become one vector.
    pub aggregator: Aggregator,
    /// Hidden widths of an attention network; the paper's are 64 and 16.
    pub attention: [usize; 2],
    /// How many embeddings of a history, the newest, [`Aggregator::Concatenate`] puts end to end (the paper
    /// does not say); the other aggregators do not look at it.
    #[serde(default = "RankConfig::concatenate_length")]
    pub concatenate_length: usize,
    /// Hidden widths of the network; the paper's are 200 and 80.
    pub mlp: Vec<usize>,
}

impl RankConfig {
    /// [`RankConfig::concatenate_length`] unless said otherwise.
    pub fn concatenate_length() -> usize {
        32
    }

    /// What is wrong with this configuration, if anything is: what came and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [
            ("dim", &[self.dim][..]),
            ("attention", &self.attention),
            ("mlp", &self.mlp),
            ("concatenate_length", &[self.concatenate_length]),
        ];
        for (name, widths) in sizes {
            if widths.is_empty() || widths.contains(&0) {
                return Err(format!("{name} is {widths:?}; every width must be at least 1"));
            }
        }
        if let Some(field) = self.query_fields.iter().find(|&&f| f >= self.impression_fields) {
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
        Ok(())
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
