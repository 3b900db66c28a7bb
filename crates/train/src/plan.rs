//! What every lane knows about the model, resolved once per training.

use ams_bundle::{Input, Spec};
use ams_model::RowOptimizer;
use ams_model::params::Entry;
use ams_model::rank::RankNetwork;
use ams_model::tower::Tower;

use crate::config::{FeatureFormat, Placement, TrainConfig};

/// The networks of a [`Spec`] and where their weights lie in the one flat slice of dense weights.
pub struct Plan {
    /// The model.
    pub spec: Spec,
    /// What is pooled once per group.
    pub group_inputs: Vec<Input>,
    /// What is pooled per impression.
    pub impression_inputs: Vec<Input>,
    /// The rank network W.
    pub network: RankNetwork,
    /// The image model E; one shape for all towers.
    pub tower: Option<Tower>,
    /// Number of towers.
    pub towers: usize,
    /// Which tower embeds ad images.
    pub ad_tower: Option<usize>,
    /// Which tower embeds behavior images.
    pub behavior_tower: Option<usize>,
    /// What image features are multiplied with.
    pub scale: f32,
    /// Where features live and towers run.
    pub placement: Placement,
    /// How features travel, if they do.
    pub features_as: FeatureFormat,
    /// How rows are updated.
    pub rows: RowOptimizer,
    /// How strongly rows are drawn towards zero, see [`crate::frequency`].
    pub l2_ids: f32,
    /// Share of the towers' hidden units that are dropped in training.
    pub tower_dropout: f32,
    /// How much the towers' weight matrices shrink, in units of the learning rate.
    pub tower_weight_decay: f32,
}

impl Plan {
    /// Resolves `spec`, trained as `train` says.
    pub fn new(spec: Spec, train: &TrainConfig) -> Plan {
        let towers = spec.towers().len();
        Plan {
            group_inputs: spec.group_inputs(),
            impression_inputs: spec.impression_inputs(),
            network: RankNetwork::new(spec.rank_config()),
            tower: spec.tower_config().filter(|_| towers > 0).map(Tower::new),
            towers,
            ad_tower: spec.ad_tower(),
            behavior_tower: spec.behavior_tower(),
            scale: spec.image_source.as_ref().map_or(1.0, |source| source.scale),
            placement: train.placement,
            features_as: train.features_as,
            rows: train.rows,
            l2_ids: train.l2_ids,
            tower_dropout: train.tower_dropout,
            tower_weight_decay: train.tower_weight_decay,
            spec,
        }
    }

    /// Width of an image feature (F); 0 without towers.
    pub fn feature_dim(&self) -> usize {
        self.tower.as_ref().map_or(0, |tower| tower.config().input)
    }

    /// All inputs: per group, then per impression.
    pub fn inputs(&self) -> impl Iterator<Item = Input> {
        self.group_inputs.iter().chain(&self.impression_inputs).copied()
    }

    /// Where W lies among the dense weights.
    pub fn network_range(&self) -> std::ops::Range<usize> {
        0..self.network.layout().len()
    }

    /// Where tower `tower` lies among the dense weights.
    pub fn tower_range(&self, tower: usize) -> std::ops::Range<usize> {
        let each = self.tower.as_ref().map_or(0, |tower| tower.layout().len());
        let start = self.network.layout().len() + tower * each;
        start..start + each
    }

    /// Where the weight matrices of the towers lie among the dense weights.
    pub fn tower_matrices(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let entries = self.tower.iter().flat_map(|tower| &tower.layout().entries);
        let matrices = entries.filter(|entry| entry.shape.len() == 2);
        matrices.flat_map(|entry| {
            (0..self.towers).map(|tower| {
                let start = self.tower_range(tower).start + entry.view.offset;
                start..start + entry.view.len
            })
        })
    }

    /// Number of dense weights: W and every tower.
    pub fn dense_len(&self) -> usize {
        self.tower_range(self.towers).start
    }

    /// Which parameter the dense weight at `at` belongs to, for messages.
    pub fn name_of_dense(&self, at: usize) -> String {
        let (place, layout, at) = if at < self.network.layout().len() {
            ("the network".to_owned(), self.network.layout(), at)
        } else {
            let tower = self.tower.as_ref().expect("weights behind the network are a tower's");
            let index = (at - self.network.layout().len()) / tower.layout().len();
            let name = self.spec.towers()[index];
            (format!("tower {name}"), tower.layout(), at - self.tower_range(index).start)
        };
        let covers =
            |entry: &&Entry| (entry.view.offset..entry.view.offset + entry.view.len).contains(&at);
        let entry = layout.entries.iter().find(covers).map_or("?", |entry| &entry.name);
        format!("the gradient of {entry} of {place}")
    }

    /// The initial dense weights; they depend on the seed and the parameters' names only.
    pub fn dense_init(&self, seed: u64) -> Vec<f32> {
        let mut dense = self.network.init(seed);
        for name in self.spec.towers() {
            dense.extend(self.tower.as_ref().expect("a named tower exists").init(seed, name));
        }
        dense
    }
}
