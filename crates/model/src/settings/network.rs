//! The settings of a rank network: each with its meaning, its default and its range.
//!
//! The doc comments are those of `docs/configuration.md`, which is generated from them. `in` is
//! followed by a check of `range.rs`, which says what was expected. What concerns several settings
//! at once is checked where they meet, in [`crate::RankConfig::check`].

use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregator;
use crate::settings::choices::{Base, ImageArm, Interactions, SearchBy, Similarity, UnknownIds};
use crate::settings::range;
use crate::settings::rates::IdRates;

settings! {
    /// The settings of a rank network; the defaults are the network of the paper.
    pub struct NetworkSettings {
        /// Images whose embeddings are inputs of the rank network (the arm).
        /// - `none`: No images.
        /// - `ad`: The image of the ad.
        /// - `behavior`: The images of the behaviors.
        /// - `joint`: The images of the ad and of the behaviors.
        pub images: ImageArm = ImageArm::Joint;
        /// Function from the image embeddings of a history to one vector.
        /// - `concatenate`: The newest `concatenate_length` embeddings, end to end.
        /// - `max`: The maximum of each column.
        /// - `sum`: The sum of the embeddings.
        /// - `attentive`: A sum weighted by attention, whose query is the image of the ad, or the
        ///   query fields in an arm without it.
        /// - `multi-query-attentive`: Two such sums side by side, the second with the query fields
        ///   as its query.
        pub aggregator: Aggregator = Aggregator::MultiQueryAttentive;
        /// Width of every embedding of an id or of an image, in numbers. Range: 1 to 16777216.
        pub embedding_dim: usize = 12, in range::width;
        /// Widths of the two hidden layers of each attention network, in numbers. Range: each 1 to
        /// 16777216.
        pub attention: [usize; 2] = [64, 16], in range::widths;
        /// Number of image embeddings, the newest of a history, that the aggregator `concatenate`
        /// keeps. Range: at least 1; with `aggregator = "concatenate"`, at most 16777216 numbers in
        /// these embeddings.
        pub concatenate_length: usize = 32, in range::positive;
        /// Widths of the hidden layers of the rank network, in numbers. Range: each 1 to 16777216;
        /// the list may be empty.
        pub mlp: Vec<usize> = vec![200, 80], in range::widths;
        /// Form of the rank network. Range: `din` needs a query field that behaviors have, too;
        /// `pre-rank` needs `interactions = "none"`, `similarity = "none"` and, with images of
        /// behaviors, the aggregator `sum`, `max` or `concatenate`.
        /// - `mlp`: Fully connected layers over pooled embeddings, with one output.
        /// - `logistic-regression`: A weighted sum of all inputs, without hidden layers.
        /// - `din`: As `mlp`, with behaviors weighted by attention to the ad (Deep Interest
        ///   Network).
        /// - `pre-rank`: The inner product of a user vector and an ad vector, each from fully
        ///   connected layers; context fields are no input.
        pub base: Base = Base::Mlp;
        /// Output widths of the layers of both vectors of the pre-rank network, in numbers. Range:
        /// each 1 to 16777216; at least one layer.
        pub pre_rank: Vec<usize> = vec![200, 10], in range::layers;
        /// Elementwise products as further inputs.
        /// - `none`: No products, as in the paper.
        /// - `product`: Key times query in attention, and ad image times aggregate in the first
        ///   layer.
        pub interactions: Interactions = Interactions::None;
        /// Similarity of the ad's image feature to those of the history as a further input, which
        /// is not trained.
        /// - `none`: No similarity.
        /// - `cosine`: The mean, the maximum, the mean of the five largest, and the newest of the
        ///   cosines.
        /// - `histogram`: These four, and the number of cosines in each bucket of a histogram.
        /// - `statistics`: The maximum, the means of the three and of the five largest, the mean,
        ///   the newest, the mean weighted by 1 / (1 + days of age), the deviation and the minimum
        ///   of the cosines, and ln(1 + their number); each standardized by its mean and deviation
        ///   over the first 32 batches of a training, and clipped at 5.
        pub similarity: Similarity = Similarity::None;
        /// Probability that the row of an id of the ad or of the user is replaced in training by
        /// that of an unknown id, in one field of one impression; fields of the user are drawn once
        /// per group. The ad's image id is such an id. A table has a probability for each of its
        /// fields, such as `{ item = 0.2, image = 0.2 }`, and no other field is replaced: the
        /// fields of one ad are drawn together, so that of two with one probability both are
        /// replaced, as those of a new item are; so are the fields of one user. Range: at least 0
        /// and less than 1; fields are those of ads and users, `image` and `semantic_1` and so on.
        pub id_dropout: IdRates = IdRates::All(0.0), in IdRates::check;
        /// Number of buckets of a behavior's age, whose embeddings are a field beside the ids of
        /// behaviors: bucket b has ages of 2^b seconds to less than 2^(b+1) before the first
        /// impression of the group, the last bucket all older ones. 0 is no such field; 32 cover
        /// 136 years. Range: 0 to 64.
        pub behavior_age_buckets: usize = 0, in range::buckets;
        /// Addition of a factor times the cosine of ad and behavior to every weight of attention,
        /// by the vectors of `similarity` (SA-TA): those of images in the attention of `din`, those
        /// of its content in an attentive aggregator. The factor of each attention is learned,
        /// begins at 1, and stands for the share of the cosine over its temperature. A network
        /// without attention ignores it. Range: `true`, `false`.
        pub attention_cosine: bool = false;
        /// Row of an id that has none of its own: one that training did not see, or saw fewer than
        /// `train.min_occurrences` times. Range: `learned` needs an `id_dropout` of more than 0 or
        /// a `train.min_occurrences` of more than 1.
        /// - `zero`: Zeros.
        /// - `learned`: One row per input, such as `ad.item`, which begins as zeros. It is trained
        ///   by the ids of the input that `id_dropout` replaces and by those below
        ///   `train.min_occurrences`.
        pub unknown: UnknownIds = UnknownIds::Zero;
        /// Search in long histories for the behaviors that are most alike to the ad. Attention and
        /// `similarity` see these, and fields of behaviors pool the newest. Default: all behaviors
        /// are seen.
        pub search: Option<SearchSettings> = None, in SearchSettings::check;
        /// Number of levels of the semantic ids of pictures, each of which is a field of ads and of
        /// behaviors: `semantic_1` has the first code of a picture, `semantic_2` its first two, and
        /// so on. `query_fields` may name them. 0 is no such field. Range: 0 to 8, and at most the
        /// levels that `ams encode --semantic-ids` gave the feature store.
        pub semantic_ids: usize = 0, in range::levels;
        /// Ids of images as fields of ads and behaviors, in every arm, as in the paper. Range:
        /// `true`, `false`.
        pub image_ids: bool = true;
    }
}

impl NetworkSettings {
    /// Whether any attention weighs by cosines.
    pub fn attends_by_cosine(&self) -> bool {
        let attends = self.images.has_behavior() && !self.aggregator.queries().is_empty();
        self.attention_cosine && (attends || self.base == Base::Din)
    }

    /// Whether vectors of contents are compared as they were before any training.
    pub fn compares(&self) -> bool {
        self.similarity != Similarity::None || self.attends_by_cosine()
    }

    /// Whether histories are searched by pictures.
    pub fn searches_pictures(&self) -> bool {
        self.search.as_ref().is_some_and(|search| search.by == SearchBy::Pictures)
    }
}

/// Search in long histories for the behaviors that are most alike to an ad (the general search unit
/// of SIM, CIKM 2020). Of equally alike ones the newer come first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchSettings {
    /// Number of behaviors that are kept for an ad, and number of the newest ones that fields of
    /// behaviors pool. Range: at least 1, and at most the dataset's `max_behaviors`.
    pub keep: usize,
    /// What makes a behavior alike to an ad. Range: `pictures` needs a feature store; with either
    /// value `images` sees behaviors, `base` is `din`, or there is a `similarity`; not with `base =
    /// "pre-rank"`, `attention_cosine`, `behavior_age_buckets` or `similarity = "statistics"`.
    /// - `pictures`: The cosine of the first 64 principal components of both features, or of the
    ///   aligned vectors (soft search); behaviors without a picture come last, and an ad without
    ///   one finds the newest behaviors.
    /// - `category`: A value of `field` that both have (hard search); behaviors without come last.
    #[serde(default)]
    pub by: SearchBy,
    /// Field of the search with `by = "category"`. Range: a field that behaviors and the ad have
    /// and that is not excluded.
    #[serde(default = "SearchSettings::category")]
    pub field: String,
}

impl SearchSettings {
    /// Checks a search in histories, if there is one.
    ///
    /// # Errors
    /// If it keeps no behavior, or more than [`range::BEHAVIORS_MAX`].
    pub fn check(search: &Option<SearchSettings>) -> Result<(), String> {
        match search.as_ref().map(|search| search.keep) {
            None | Some(1..=range::BEHAVIORS_MAX) => Ok(()),
            Some(keep) => Err(format!("keep = {keep}, expected 1 to {}", range::BEHAVIORS_MAX)),
        }
    }

    /// The field `category`.
    pub fn category() -> String {
        "category".to_owned()
    }
}
