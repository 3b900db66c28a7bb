//! The shape of a rank network, as a setting.

use serde::{Deserialize, Deserializer};

use crate::aggregate::Query;
use crate::settings::{Base, Beside, Form, Interactions, NetworkSettings, Similarity};

/// The shape of a rank network: its settings, and what it is to find in a batch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct RankConfig {
    /// The settings, for every content the same.
    #[serde(skip)]
    pub network: NetworkSettings,
    /// Number of fields with one list per group.
    pub group_fields: usize,
    /// Number of fields with one list per impression.
    pub impression_fields: usize,
    /// Impression fields that attention asks for, as indices.
    pub query_fields: Vec<usize>,
    /// For [`Base::Din`]: the impression field that each field with one list per behavior is
    /// compared with, as indices.
    #[serde(default)]
    pub behavior_fields: Vec<usize>,
    /// Names of the contents with towers, such as images. The parameters of the first one have no
    /// prefix.
    #[serde(default = "RankConfig::contents")]
    pub contents: Vec<String>,
}

impl<'de> Deserialize<'de> for RankConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<RankConfig, D::Error> {
        let mut network = NetworkSettings::default();
        let config = RankConfig::deserialize(Beside::new(from, Form::Described, &mut network))?;
        Ok(RankConfig { network, ..config })
    }
}

impl RankConfig {
    /// [`RankConfig::contents`] unless said otherwise: images.
    pub fn contents() -> Vec<String> {
        vec!["image".to_owned()]
    }

    /// How many fields with one list per behavior a batch has: those of `behavior_fields`, then the
    /// age.
    pub fn each_behavior_fields(&self) -> usize {
        let NetworkSettings { base, behavior_age_buckets, .. } = self.network;
        let age = base == Base::Din && behavior_age_buckets > 0;
        self.behavior_fields.len() + usize::from(age)
    }

    /// What is wrong with this configuration, if anything is: what came and what was expected.
    pub fn check(&self) -> Result<(), String> {
        if let Err((key, what)) = self.network.check() {
            return Err(format!("{}: {what}", Form::Described.name(key)));
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
        let NetworkSettings { base, images, aggregator, interactions, similarity, .. } =
            self.network;
        let search = &self.network.search;
        let NetworkSettings { attention_cosine, behavior_age_buckets, .. } = self.network;
        if search.is_some()
            && (attention_cosine || behavior_age_buckets > 0 || similarity.sees_ages())
        {
            return Err(
                "search: not yet with attention_cosine, behavior_age_buckets or similarity = \
                        statistics; leave them out"
                    .to_owned(),
            );
        }
        let wrong = |what: &str| Err(format!("base = {} {what}", base.as_str()));
        match base {
            Base::Din if self.behavior_fields.is_empty() => wrong(
                "attends to fields that behaviors and the ad both have; query_fields names none of them",
            ),
            Base::PreRank if images.has_behavior() && !aggregator.queries().is_empty() => {
                wrong(&format!(
                    "cannot look at the ad in the history; aggregator is {}, expected one of sum, max, \
                     concatenate",
                    aggregator.as_str()
                ))
            }
            Base::PreRank if interactions != Interactions::None => {
                wrong("has no products of user and ad; expected interactions = none")
            }
            Base::PreRank if similarity != Similarity::None => {
                wrong("cannot compare the ad with the history; expected similarity = none")
            }
            Base::PreRank if search.is_some() => {
                wrong("cannot search a history for an ad; expected no search")
            }
            Base::Mlp | Base::LogisticRegression
                if search.is_some()
                    && !images.has_behavior()
                    && similarity == Similarity::None =>
            {
                Err("search: nothing sees the behaviors that are kept; expected images = behavior or \
                     joint, base = din, or a similarity"
                    .to_owned())
            }
            Base::Mlp | Base::LogisticRegression | Base::Din | Base::PreRank => Ok(()),
        }
    }

    /// Whether attention looks at the query fields.
    fn asks_for_fields(&self) -> bool {
        let queries = self.network.aggregator.queries();
        let asks = |query: &Query| match query {
            // Without the ad's image the fields stand in for it.
            Query::Image => !self.network.images.has_ad(),
            Query::Fields => true,
        };
        self.network.images.has_behavior() && queries.iter().any(asks)
    }
}
