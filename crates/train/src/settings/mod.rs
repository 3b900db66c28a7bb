//! The settings of a training, as a TOML file spells them.
//!
//! `docs/configuration.md` is generated from the doc comments of the fields here, in this order:
//! the meaning, `Default: ..` where a key without a value has one, `Range: ..`. A list below them
//! has the values of an enumeration that another crate defines.

pub mod align;
mod check;
pub mod eviction;
mod going_on;
pub mod phases;
pub mod preset;

use std::path::PathBuf;

use ams_bundle::NormalizeName;
pub use ams_bundle::{Normalize, TowerSharing, TowerWeights, Whiten};
use ams_fabric::Rounding;
use ams_model::settings::{Beside, Form};
pub use ams_model::settings::{IdRates, UnknownIds};
pub use ams_model::{
    Aggregator, Base, ImageArm, Interactions, NetworkSettings, RowOptimizer, SearchBy,
    SearchSettings, Similarity,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::settings::align::AlignConfig;
pub use crate::settings::eviction::EvictionConfig;
pub use crate::settings::phases::{ModelPart, PhaseConfig};
pub use crate::settings::preset::Preset;

/// Every setting that decides the result of a training. Threads and processes are not among them:
/// they decide only where it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of the run, and of its folder in `runs`. Range: a folder's name, which is not empty,
    /// has no `/` and no `\`, and does not begin with `.`.
    pub name: String,
    /// Seed of all initial weights, shuffles and dropout masks. Range: 0 to 9223372036854775807.
    #[serde(default = "Config::seed")]
    pub seed: u64,
    /// Folder of the run folders, or its address in a bucket; it is created where it does not
    /// exist.
    #[serde(default = "Config::runs")]
    pub runs: PathBuf,
    /// Dataset and image features of the training.
    pub data: DataConfig,
    /// Rank network and towers.
    #[serde(default)]
    pub model: ModelConfig,
    /// Optimization, and its division among lanes.
    #[serde(default)]
    pub train: TrainConfig,
    /// Alignment of image features with the items that users engage with together. `ams align`
    /// does it alone, `ams train` before clicks are learned if there is this table. Towers and
    /// `similarity` then see aligned vectors in place of features. `model.projection` and
    /// `model.pca` are then for further contents only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub align: Option<AlignConfig>,
}

impl Config {
    fn seed() -> u64 {
        1
    }

    fn runs() -> PathBuf {
        PathBuf::from("runs")
    }

    /// The alignment before clicks are learned, if there is one; a model without images has none.
    pub fn aligns(&self) -> Option<&AlignConfig> {
        self.align.as_ref().filter(|_| self.needs_images())
    }

    /// Whether the model needs a feature store: it reads features or semantic ids.
    pub(crate) fn needs_store(&self) -> bool {
        self.needs_images() || self.model.network.semantic_ids > 0
    }

    /// Whether the model reads features, and not only the ids of images.
    pub fn needs_images(&self) -> bool {
        self.model.network.images != ImageArm::None
            || self.model.network.compares()
            || self.model.network.searches_pictures()
            || !self.data.contents.is_empty()
    }
}

/// Dataset and image features of a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Dataset folder that `ams prepare`, `ams import` or another program wrote.
    pub samples: PathBuf,
    /// Feature store of the images, which `ams encode` wrote. Default: the folder `images` in
    /// `samples`, if it exists. Range: required without that folder if `model.images` or
    /// `model.similarity` is not `none`, if `model.semantic_ids` is not 0, or if there is a
    /// `data.contents`.
    #[serde(default)]
    pub images: Option<PathBuf>,
    /// Seed of a permutation of every store's features among its images, for a negative control:
    /// features, and semantic ids, are then independent of their items, and the ids of images are
    /// as they were. Default: no permutation. Range: 0 to 9223372036854775807.
    #[serde(default)]
    pub shuffle_images: Option<u64>,
    /// Names of fields that are no input of the model. Range: fields of the dataset.
    #[serde(default)]
    pub exclude_fields: Vec<String>,
    /// Further contents with towers of their own, for example vectors of texts. They have the arm,
    /// the aggregator and the tower widths of the images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<ContentConfig>,
}

/// A content besides images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentConfig {
    /// Name of the content, a prefix of the names of its towers. Range: letters, digits, `-` and
    /// `_` of ASCII; not empty, not `image`, and no two contents of one name.
    pub name: String,
    /// Feature store of the content, which `ams encode` wrote. Items have the names of their
    /// pictures in it, too.
    pub features: PathBuf,
}

/// Rank network and towers; the defaults are the network of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Name of a set of values that stand in for the defaults; keys of the file take precedence.
    /// Default: `paper`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The rank network, whose keys stand beside those of the towers.
    #[serde(flatten, skip_deserializing)]
    pub network: NetworkSettings,
    /// Output widths of the tower's layers, in numbers. Range: each 1 to 16777216; at least one
    /// layer, and the last width is `embedding_dim`; exactly one layer with `tower_weights =
    /// "pca"`.
    pub tower: Vec<usize>,
    /// Sharing of towers between the images of ads and of behaviors.
    /// - `separate`: One tower for ads and one for behaviors.
    /// - `shared`: One tower for both.
    pub towers: TowerSharing,
    /// Ad fields in the query of the second attention, and those whose behaviors DIN attends to.
    /// Default: `item` and `category`, where the ad has them. Range: ad fields of the dataset that
    /// are not excluded; at least one if attention has a query of fields; at least one that
    /// behaviors have, too, with `base = "din"`.
    pub query_fields: Option<Vec<String>>,
    /// Origin of the weights of the towers.
    /// - `trained`: Trained with the rank network.
    /// - `random`: The initial weights, which are not trained: a random projection.
    /// - `pca`: The first principal components of the features, in one linear layer that is not
    ///   trained.
    pub tower_weights: TowerWeights,
    /// Number of principal components of a feature that are the input of the towers. Default: the
    /// input is the feature itself. Range: at least 1, and at most the width of the features; not
    /// with a `projection`.
    pub pca: Option<usize>,
    /// Linear map from a feature to its principal components, which towers and `similarity` see in
    /// its place. `pca = N` is `{ components = N, whiten = "none", normalize = "none" }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection: Option<ProjectionConfig>,
}

impl ModelConfig {
    /// The map of features that `projection` or `pca` means.
    pub fn projected(&self) -> Option<ProjectionConfig> {
        let pca = self.pca.map(|components| ProjectionConfig {
            components,
            whiten: Whiten::None,
            normalize: Normalize::None,
        });
        self.projection.or(pca)
    }
}

/// Linear map from a feature to its principal components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionConfig {
    /// Number of principal components. Range: at least 1, and at most the width of the features.
    pub components: usize,
    /// Scale of the components; one without variance is 0.
    /// - `none`: Each has its variance.
    /// - `half`: Each is divided by the fourth root of its variance.
    /// - `full`: Each is divided by its standard deviation.
    #[serde(default = "ProjectionConfig::whiten")]
    pub whiten: Whiten,
    /// Treatment of a feature before the mean of all is subtracted.
    /// - `none`: It stays as it is.
    /// - `rows`: It is divided by its length (L2).
    #[serde(default = "ProjectionConfig::normalize", with = "NormalizeName")]
    pub normalize: Normalize,
}

impl ProjectionConfig {
    fn whiten() -> Whiten {
        Whiten::Half
    }

    fn normalize() -> Normalize {
        Normalize::Rows
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<ModelConfig, D::Error> {
        let mut network = NetworkSettings::default();
        let model = ModelConfig::deserialize(Beside::new(from, Form::Typed, &mut network))?;
        Ok(ModelConfig { network, ..model })
    }
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        ModelConfig::serialize(self, to)
    }
}

impl Default for ModelConfig {
    /// The paper's network.
    fn default() -> ModelConfig {
        ModelConfig {
            preset: None,
            network: NetworkSettings::default(),
            tower: vec![256, 64, 12],
            towers: TowerSharing::Separate,
            query_fields: None,
            tower_weights: TowerWeights::Trained,
            pca: None,
            projection: None,
        }
    }
}

/// Place of the image features and of the towers (Section 4 and Table 2 of the paper). All three
/// learn the same, but for the order in which gradients of the towers are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Features stay on the shard that owns the image, towers run there, and embeddings are sent:
    /// the Advanced Model Server.
    #[default]
    Ams,
    /// Features stay on the shard that owns the image and are sent to the workers, which run the
    /// towers.
    StoreInServer,
    /// Every worker has the features of its samples and runs the towers.
    StoreInWorker,
}

impl Placement {
    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Placement::Ams => "ams",
            Placement::StoreInServer => "store-in-server",
            Placement::StoreInWorker => "store-in-worker",
        }
    }
}

/// Number format of image features that are sent, with [`Placement::StoreInServer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureFormat {
    /// 16-bit floats, as they are stored.
    #[default]
    F16,
    /// 32-bit floats, as in the paper: the same values in twice the bytes.
    F32,
}

impl FeatureFormat {
    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            FeatureFormat::F16 => "f16",
            FeatureFormat::F32 => "f32",
        }
    }

    /// Words of one feature of `dim` numbers on its way.
    pub fn words(self, dim: usize) -> usize {
        match self {
            FeatureFormat::F16 => dim.div_ceil(2),
            FeatureFormat::F32 => dim,
        }
    }
}

/// Number format of the sums of dense gradients over lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Every partial sum is a 32-bit float.
    #[default]
    F32,
    /// Every partial sum is rounded to bf16, so that half the bytes are sent.
    Bf16,
}

impl From<Precision> for Rounding {
    fn from(precision: Precision) -> Rounding {
        match precision {
            Precision::F32 => Rounding::Exact,
            Precision::Bf16 => Rounding::Bf16,
        }
    }
}

/// Optimization, and its division among lanes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Number of passes over the training impressions. With `phases` it is the sum of theirs, and
    /// needs no value. Range: at least 1; with `phases`, no other number than their sum.
    pub epochs: u32,
    /// Number of impressions per step, over all lanes together. Range: at least `lanes`.
    pub batch: usize,
    /// Number of the dataset's parts, and with them of its users, that are held out of training
    /// and predicted at each evaluation. With 0 there is no validation. Range: 0, or a divisor
    /// of the dataset's number of parts that is less than it; `lanes` is then at most half the
    /// number of parts, and both sides have impressions.
    pub validation_parts: usize,
    /// Share of the training impressions, those of the newest groups, that are held out of training
    /// and predicted at each evaluation: the choice where the model will be tested on a later
    /// time, with items that are new by then. Range: at least 0 and less than 1; more than 0
    /// excludes `validation_parts`.
    pub validation_tail: f32,
    /// Number of consecutive evaluations, none of them the best so far, after which the training
    /// ends. The result of the run is then its best evaluation. Default: no early stop. Range: at
    /// least 0, where 0 counts as no value, also of a preset, whose `validation_tail`, `refit` and
    /// `candidates` then count for nothing; else needs `validation_parts` or `validation_tail`.
    pub early_stop: Option<u32>,
    /// Metric of what is held out by which evaluations and candidates are compared; the first of
    /// equals is the best.
    /// - `gauc`: The greatest AUC within users.
    /// - `auc`: The greatest AUC.
    /// - `logloss`: The least log loss.
    pub early_stop_by: Criterion,
    /// Number of evaluations per epoch on what is held out, at equal distances of steps; the last
    /// one is after the epoch. Range: at least 1.
    pub evaluations_per_epoch: u32,
    /// Whether the model is trained once more on all samples, from the initial weights and for the
    /// share of epochs that early stop found; the trainings before are runs of their own beside
    /// this one, `<name>.search` or `<name>.search-<candidate>`. Range: `true` needs `early_stop`.
    pub refit: bool,
    /// Variants of the model, each of which is trained on what is not held out; the best one by
    /// `early_stop_by` is trained once more on all samples. Default: the model alone. Range: no
    /// variant twice; `similarity` needs a `model.similarity`; needs `refit`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Number of standard errors by which a candidate must be better than the best one of those
    /// before it in `candidates`, so that of candidates that nothing tells apart the first one is
    /// chosen. Users are taken as independent, with `early_stop_by = "auc"` impressions. Default:
    /// 0, which counts any difference. Range: at least 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub candidate_errors: f32,
    /// Number of steps after which the training ends, if its epochs have more. Default: no limit.
    /// Range: at least 1.
    pub max_steps: Option<u64>,
    /// Number of lanes, among which the parts of the dataset and the rows of ids are divided. It
    /// is part of the result: another number is another training. Range: a power of two, at
    /// most the dataset's number of parts and at least the number of processes.
    pub lanes: usize,
    /// Place of the image features and of the towers.
    pub placement: Placement,
    /// Number format of image features that are sent; it has an effect with `placement =
    /// "store-in-server"` only.
    pub features_as: FeatureFormat,
    /// Number format of the sums of dense gradients over lanes.
    pub all_reduce: Precision,
    /// Learning rate of Adam at the first step. Range: more than 0.
    pub learning_rate: f32,
    /// Optimizer of the rows of ids, which updates only rows that the batch uses.
    /// - `adam`: Adam, with two numbers of state per weight.
    /// - `adagrad`: Adagrad, with one number of state per weight.
    pub rows: RowOptimizer,
    /// Learning rate of the rows of ids at the first step. A framework whose Adam updates all rows
    /// in every step, also without a gradient, moves rows further at the same rate. Default:
    /// `learning_rate`. Range: more than 0.
    pub rows_learning_rate: Option<f32>,
    /// Coefficient lambda of DIN's mini-batch aware L2 regularization of the rows of ids; the term
    /// of a row is divided by the occurrences of its id in the training samples. Range: at least
    /// 0.
    pub l2_ids: f32,
    /// Number of occurrences in the training samples from which an id has a row of its own; one
    /// with fewer has that of unknown ids, see `model.unknown`. Values of the user and of behaviors
    /// count once per group. Ids that a warm start brings a row for keep it. Default: `1`. Range:
    /// at least 1.
    #[serde(skip_serializing_if = "is_one")]
    pub min_occurrences: u32,
    /// Number of bytes, per lane, of a count-min sketch that counts the occurrences of ids as they
    /// come, in all epochs, in place of the exact count before the first step: an id gets its row
    /// in the step in which its count reaches `min_occurrences`. A sketch never counts too few, and
    /// rarely too many. Default: the exact count. Range: at least 4096; needs a `min_occurrences`
    /// of more than 1, and `l2_ids = 0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sketch_bytes: Option<u64>,
    /// Number of negatives that each click of a pre-rank network has besides what was shown: other
    /// impressions of its micro-batch, of other users and with items that the click's group does
    /// not know. The loss gains a sampled softmax over the click and them, each logit less the
    /// logarithm of the share of its item among the training impressions. Default: `0`. Range: at
    /// least 0; more than 0 needs `model.base = "pre-rank"`.
    #[serde(skip_serializing_if = "is_none")]
    pub in_batch_negatives: usize,
    /// Factor of the loss of `in_batch_negatives`, beside that of the impressions. Default: `1.0`.
    /// Range: more than 0.
    #[serde(skip_serializing_if = "is_whole")]
    pub in_batch_weight: f32,
    /// Probability that a hidden unit of a tower is dropped in training. Range: at least 0 and
    /// less than 1; more than 0 needs a `model.tower` of at least two layers.
    pub tower_dropout: f32,
    /// Decoupled weight decay (AdamW) of the towers' weight matrices, without biases and slopes:
    /// each step subtracts this times the learning rate times the weight. Range: at least 0;
    /// times `learning_rate`, less than 1.
    pub tower_weight_decay: f32,
    /// Maximum norm of the dense gradient, of W and E together; a longer gradient is scaled to it.
    /// Default: no maximum. Range: more than 0.
    pub clip_norm: Option<f32>,
    /// Factor by which both learning rates are multiplied every `decay_every` steps. Range: more
    /// than 0 and at most 1.
    pub decay: f32,
    /// Number of steps between two decays of the learning rates. Range: at least 1.
    pub decay_every: u64,
    /// Number of groups, approximately, that a lane holds in memory and shuffles together. Range:
    /// at least 0, where 0 counts as 1.
    pub shuffle_groups: usize,
    /// Number of steps between two checkpoints. Default: one checkpoint, at the end, and with
    /// `early_stop` one after each epoch. Range: at least 0, where 0 counts as no value.
    pub checkpoint_every: Option<u64>,
    /// Number of checkpoints, the newest, that are kept; with `early_stop`, that of the best epoch
    /// is kept as well. Range: at least 1.
    pub keep_checkpoints: usize,
    /// Number of steps between two lines of `metrics.jsonl`. Range: at least 0, where 0 counts as
    /// 1.
    pub log_every: u64,
    /// Whether the lines of `metrics.jsonl` are also written for TensorBoard, to the folder
    /// `tensorboard` of the run. Default: `true`.
    #[serde(skip_serializing_if = "is_on")]
    pub tensorboard: bool,
    /// Phases of the training, one after another, in each of which some parts of the model learn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<PhaseConfig>,
    /// Eviction of rows of ids, each with its optimizer state; those of `unknown = "learned"` stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionConfig>,
    /// Earlier training whose weights are the initial weights. Optimizers and schedules begin
    /// anew.
    pub warm_start: Option<WarmStart>,
}

/// A metric by which evaluations are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// AUC within users, weighted by their impressions.
    #[default]
    Gauc,
    /// Area under the ROC curve.
    Auc,
    /// Mean cross-entropy in nats.
    Logloss,
}

/// Whether a setting that is on by default is so; the hashes of runs from before it stay.
fn is_on(setting: &bool) -> bool {
    *setting
}

fn is_zero(setting: &f32) -> bool {
    *setting == 0.0
}

/// Whether there are no negatives of batches, as in runs from before the setting.
fn is_none(count: &usize) -> bool {
    *count == 0
}

fn is_whole(factor: &f32) -> bool {
    *factor == 1.0
}

/// Whether every id that occurs has a row, as in runs from before the setting.
fn is_one(occurrences: &u32) -> bool {
    *occurrences == 1
}

/// A variant of the model that is trained, to find out what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidate {
    /// Without images: `images = "none"` and `similarity = "none"`, and no further contents.
    Ids,
    /// Without towers: `images = "none"`.
    Similarity,
    /// As configured.
    Full,
}

impl Candidate {
    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Candidate::Ids => "ids",
            Candidate::Similarity => "similarity",
            Candidate::Full => "full",
        }
    }
}

/// Initial weights from an earlier training. Optimizers and schedules begin anew, unless the
/// training goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// Run folder of the earlier training; its newest checkpoint is read. Range: a run with a
    /// checkpoint, and the same shapes of all parts that are taken over.
    pub from: PathBuf,
    /// Parts of the model whose weights are taken over, or the whole training.
    #[serde(default)]
    pub parts: WarmParts,
}

/// Parts of a model that a warm start takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarmParts {
    /// The training as it ended: all parts with the optimizers' state, counts and last days of ids,
    /// and the number of steps, by which learning rates decay. The model has to be the same one.
    Training,
    /// All parts.
    All,
    /// All parts but the rows of ids: the paper's partial warm-up.
    #[default]
    AllButIds,
    /// The towers.
    Towers,
    /// No part: the training begins as without a warm start.
    None,
}

impl Default for TrainConfig {
    /// The paper's optimizer and two epochs, with a batch for one machine (the paper: 3,000 a
    /// node).
    fn default() -> TrainConfig {
        TrainConfig {
            epochs: 2,
            batch: 1024,
            validation_parts: 0,
            validation_tail: 0.0,
            early_stop: None,
            early_stop_by: Criterion::Gauc,
            evaluations_per_epoch: 1,
            refit: false,
            candidates: Vec::new(),
            candidate_errors: 0.0,
            max_steps: None,
            lanes: 8,
            placement: Placement::Ams,
            features_as: FeatureFormat::F16,
            all_reduce: Precision::F32,
            learning_rate: 0.001,
            rows: RowOptimizer::Adam,
            rows_learning_rate: None,
            l2_ids: 0.0,
            min_occurrences: 1,
            sketch_bytes: None,
            in_batch_negatives: 0,
            in_batch_weight: 1.0,
            tower_dropout: 0.0,
            tower_weight_decay: 0.0,
            clip_norm: None,
            decay: 0.9,
            decay_every: 24_000,
            shuffle_groups: 65_536,
            checkpoint_every: None,
            keep_checkpoints: 2,
            log_every: 10,
            tensorboard: true,
            phases: Vec::new(),
            eviction: None,
            warm_start: None,
        }
    }
}
