//! The settings of a training, as a TOML file spells them.

pub mod preset;

use std::path::PathBuf;

pub use ams_bundle::{TowerSharing, TowerWeights};
use ams_fabric::Rounding;
use ams_model::RankConfig;
pub use ams_model::{Aggregator, Base, ImageArm, Interactions, RowOptimizer, Similarity};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
pub use crate::settings::preset::Preset;

/// Everything that decides what a training computes. Threads and processes are not here: they
/// decide only where it is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the run is called: its folder below `runs`.
    pub name: String,
    /// The seed of every initial value and shuffle.
    #[serde(default = "Config::seed")]
    pub seed: u64,
    /// The folder that holds the run folders.
    #[serde(default = "Config::runs")]
    pub runs: PathBuf,
    /// What to learn from.
    pub data: DataConfig,
    /// What to learn.
    #[serde(default)]
    pub model: ModelConfig,
    /// How to learn.
    #[serde(default)]
    pub train: TrainConfig,
}

impl Config {
    fn seed() -> u64 {
        1
    }

    fn runs() -> PathBuf {
        PathBuf::from("runs")
    }

    /// Whether the model reads features, and not only the ids of images.
    pub fn needs_images(&self) -> bool {
        self.model.images != ImageArm::None
            || self.model.similarity != Similarity::None
            || !self.data.contents.is_empty()
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The key, what came and what is possible.
    pub fn check(&self) -> Result<()> {
        let TrainConfig { batch, lanes, learning_rate, decay, .. } = self.train;
        let bad = |key: &str, what: String| Err(Error::Config { key: key.to_owned(), what });
        if self.name.is_empty() || self.name.contains(['/', '\\']) || self.name.starts_with('.') {
            return bad("name", format!("{:?} is not the name of a folder", self.name));
        }
        if !lanes.is_power_of_two() {
            return bad("train.lanes", format!("{lanes}, expected a power of two such as 8"));
        }
        if batch < lanes {
            let what = format!("{batch} impressions for {lanes} lanes, expected at least one each");
            return bad("train.batch", what);
        }
        let rates = [
            ("train.learning_rate", Some(learning_rate)),
            ("train.rows_learning_rate", self.train.rows_learning_rate),
        ];
        for (key, rate) in rates {
            if let Some(rate) = rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
                return bad(key, format!("{rate}, expected a positive number"));
            }
        }
        let l2 = self.train.l2_ids;
        if !(l2 >= 0.0 && l2.is_finite()) {
            return bad("train.l2_ids", format!("{l2}, expected a number of at least 0"));
        }
        let TrainConfig { tower_dropout: rate, tower_weight_decay: wd, .. } = self.train;
        if !(0.0..1.0).contains(&rate) {
            let what = format!("{rate}, expected a share of at least 0 and less than 1");
            return bad("train.tower_dropout", what);
        }
        if rate > 0.0 && self.model.tower.len() == 1 {
            let what = format!(
                "{rate} of the hidden units, but model.tower = {:?} has none",
                self.model.tower
            );
            return bad("train.tower_dropout", what);
        }
        if !(wd >= 0.0 && wd * learning_rate < 1.0) {
            let what = format!(
                "{wd}, expected at least 0 and, times train.learning_rate = {learning_rate}, less than 1"
            );
            return bad("train.tower_weight_decay", what);
        }
        if let Some(norm) = self.train.clip_norm.filter(|norm| !(*norm > 0.0 && norm.is_finite())) {
            return bad("train.clip_norm", format!("{norm}, expected a positive number"));
        }
        if !(decay > 0.0 && decay <= 1.0) || self.train.decay_every == 0 {
            let what =
                format!("{decay} every {} steps, expected 0 < decay <= 1", self.train.decay_every);
            return bad("train.decay", what);
        }
        if self.train.epochs == 0 {
            return bad("train.epochs", "0, expected at least 1".to_owned());
        }
        match self.train.early_stop {
            Some(0) => {
                return bad("train.early_stop", "0 epochs, expected at least 1".to_owned());
            }
            Some(_) if self.train.validation_parts == 0 => {
                let what = "needs users held out of the training: set train.validation_parts";
                return bad("train.early_stop", what.to_owned());
            }
            _ => {}
        }
        if self.train.keep_checkpoints == 0 {
            return bad("train.keep_checkpoints", "0, expected at least 1".to_owned());
        }
        let model = &self.model;
        let widths = model.attention.iter().chain(&model.mlp).chain(&model.tower);
        let widths = widths.chain(&model.pre_rank).chain(&model.pca);
        if model.embedding_dim == 0 || widths.clone().any(|&width| width == 0) {
            return bad("model", "a width is 0, expected at least 1".to_owned());
        }
        if model.concatenate_length == 0 {
            return bad("model.concatenate_length", "0, expected at least 1".to_owned());
        }
        for (at, content) in self.data.contents.iter().enumerate() {
            let others = self.data.contents[..at].iter().map(|other| &other.name[..]);
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if content.name.is_empty() || !content.name.chars().all(plain) {
                let what = format!("{:?}, expected letters, digits, - and _", content.name);
                return bad("data.contents.name", what);
            }
            if others.chain(["image"]).any(|other| other == content.name) {
                return bad("data.contents.name", format!("{:?} is taken", content.name));
            }
        }
        if model.tower.last() != Some(&model.embedding_dim) {
            let what = format!(
                "{:?} ends in another width than model.embedding_dim = {}",
                model.tower, model.embedding_dim
            );
            return bad("model.tower", what);
        }
        Ok(())
    }
}

/// What to learn from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The dataset folder that `ams prepare`, `ams import` or another program wrote.
    pub samples: PathBuf,
    /// The feature store that `ams encode` wrote; `images` inside `samples` if there is one.
    #[serde(default)]
    pub images: Option<PathBuf>,
    /// Control: gives every picture name another picture, by this seed. Pictures then carry no
    /// information about their items, so nothing may be gained from them.
    #[serde(default)]
    pub shuffle_images: Option<u64>,
    /// Fields the model must not see, such as `user`.
    #[serde(default)]
    pub exclude_fields: Vec<String>,
    /// Further contents with towers of their own, such as vectors of texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<ContentConfig>,
}

/// A content besides images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentConfig {
    /// What it is called, such as `text`; names its towers.
    pub name: String,
    /// The feature store that `ams encode` wrote of it. Items have the names of their pictures
    /// here too.
    pub features: PathBuf,
}

/// What to learn: the rank network of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// A name for several settings, of which the file may change each: `paper`, the defaults, or
    /// `small`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Which images the network sees: `none`, `ad`, `behavior` or `joint`.
    pub images: ImageArm,
    /// How behavior images become one vector: `concatenate`, `max`, `sum`, `attentive` or
    /// `multi-query-attentive`.
    pub aggregator: Aggregator,
    /// Width of every embedding.
    pub embedding_dim: usize,
    /// Widths of the tower's layers; the last one is `embedding_dim`.
    pub tower: Vec<usize>,
    /// One tower for ad and behavior images, or one each.
    pub towers: TowerSharing,
    /// Widths of the attention's two hidden layers.
    pub attention: [usize; 2],
    /// How many image embeddings of a history, the newest, the aggregator `concatenate` puts end
    /// to end.
    pub concatenate_length: usize,
    /// Widths of the hidden layers behind the concatenation.
    pub mlp: Vec<usize>,
    /// Ad fields that ask the second attention, and DIN's; `item` and, where there is one,
    /// `category`.
    pub query_fields: Option<Vec<String>>,
    /// What a logit is made of: `mlp`, `logistic-regression`, `din` or `pre-rank`.
    pub base: Base,
    /// Widths of the layers of the pre-rank network's two vectors.
    pub pre_rank: Vec<usize>,
    /// `product`: attention sees key * query, and the first layer ad * aggregate; `none` is the
    /// paper's.
    pub interactions: Interactions,
    /// What the network is told of how alike the ad's image and those of the history are: `none`,
    /// `cosine` or `histogram`.
    pub similarity: Similarity,
    /// `trained`, or for comparison: `random` or `pca`, towers that do not learn.
    pub tower_weights: TowerWeights,
    /// How many principal components of a feature the towers see in its place.
    pub pca: Option<usize>,
}

impl Default for ModelConfig {
    /// The paper's network.
    fn default() -> ModelConfig {
        ModelConfig {
            preset: None,
            images: ImageArm::Joint,
            aggregator: Aggregator::MultiQueryAttentive,
            embedding_dim: 12,
            tower: vec![256, 64, 12],
            towers: TowerSharing::Separate,
            attention: [64, 16],
            concatenate_length: RankConfig::concatenate_length(),
            mlp: vec![200, 80],
            query_fields: None,
            base: Base::Mlp,
            pre_rank: RankConfig::pre_rank(),
            interactions: Interactions::None,
            similarity: Similarity::None,
            tower_weights: TowerWeights::Trained,
            pca: None,
        }
    }
}

/// Where image features live and where the towers run (Section 4 and Table 2 of the paper). All
/// three learn the same, but for the order in which gradients of the towers are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The Advanced Model Server: features stay on their shard, the towers run there, embeddings
    /// travel.
    #[default]
    Ams,
    /// Features stay on their shard and travel to the workers, which run the towers.
    StoreInServer,
    /// Every worker has the features its samples refer to, and runs the towers.
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

/// How image features travel with [`Placement::StoreInServer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureFormat {
    /// As they are stored.
    #[default]
    F16,
    /// As floats, like the paper's; the same numbers in twice the bytes.
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

/// How the dense gradients of the lanes are summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Every partial sum is a float.
    #[default]
    F32,
    /// Every partial sum is rounded to bf16, so that half the bytes travel.
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

/// How to learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// How often the training impressions are seen.
    pub epochs: u32,
    /// Impressions per step, over all lanes.
    pub batch: usize,
    /// How many of the dataset's parts, and with them of its users, are held out of the training;
    /// predicted after each epoch. Divides the number of parts.
    pub validation_parts: usize,
    /// Ends the training after so many epochs without a greater GAUC of the users held out; its
    /// result is then the best epoch.
    pub early_stop: Option<u32>,
    /// Virtual nodes; a power of two. Part of the result: another number is another training.
    pub lanes: usize,
    /// Where image features live and towers run: `ams`, `store-in-server` or `store-in-worker`.
    pub placement: Placement,
    /// How features travel with `store-in-server`: `f16`, as they are stored, or `f32`.
    pub features_as: FeatureFormat,
    /// How the dense gradients of the lanes are summed: exactly in `f32`, or in `bf16` for half
    /// the bytes.
    pub all_reduce: Precision,
    /// Adam's learning rate at the first step.
    pub learning_rate: f32,
    /// How embedding rows are updated: `adam` or `adagrad`.
    pub rows: RowOptimizer,
    /// Learning rate of the rows at the first step, if it is another one. Only the rows of a batch
    /// are touched; frameworks whose Adam moves all rows in every step, long after their last
    /// gradient, do more at one rate.
    pub rows_learning_rate: Option<f32>,
    /// Lambda of DIN's mini-batch aware L2 on the rows of ids, each divided by its occurrences in
    /// the training samples; 0 is none.
    pub l2_ids: f32,
    /// Dropout on the hidden units of the towers, in training alone: the share of them that is
    /// dropped.
    pub tower_dropout: f32,
    /// Decoupled weight decay (AdamW) of the towers' weight matrices, not of biases and slopes:
    /// each step takes this times the learning rate from them.
    pub tower_weight_decay: f32,
    /// The largest norm of the dense gradient, (W, E); a longer one is scaled to it.
    pub clip_norm: Option<f32>,
    /// What the learning rate is multiplied with every `decay_every` steps.
    pub decay: f32,
    /// Steps between decays.
    pub decay_every: u64,
    /// Groups of one lane that are held in memory and shuffled together.
    pub shuffle_groups: usize,
    /// Steps between checkpoints; without it, one at the end.
    pub checkpoint_every: Option<u64>,
    /// How many checkpoints stay.
    pub keep_checkpoints: usize,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// The training to begin from, such as yesterday's.
    pub warm_start: Option<WarmStart>,
}

/// Which weights of which training to begin with. Optimizers and schedules begin anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmStart {
    /// The run folder of that training; its newest checkpoint counts.
    pub from: PathBuf,
    /// What of it.
    #[serde(default)]
    pub parts: WarmParts,
}

/// The parts of a model that a warm start takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarmParts {
    /// Everything.
    All,
    /// Everything but the rows of ids: the paper's partial warm-up, its best.
    #[default]
    AllButIds,
    /// The towers alone.
    Towers,
    /// Nothing: as if there were no warm start.
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
            early_stop: None,
            lanes: 8,
            placement: Placement::Ams,
            features_as: FeatureFormat::F16,
            all_reduce: Precision::F32,
            learning_rate: 0.001,
            rows: RowOptimizer::Adam,
            rows_learning_rate: None,
            l2_ids: 0.0,
            tower_dropout: 0.0,
            tower_weight_decay: 0.0,
            clip_norm: None,
            decay: 0.9,
            decay_every: 24_000,
            shuffle_groups: 65_536,
            checkpoint_every: None,
            keep_checkpoints: 2,
            log_every: 10,
            warm_start: None,
        }
    }
}
