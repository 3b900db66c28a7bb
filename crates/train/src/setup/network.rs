//! The networks of a model with their weights' ranges, resolved once per training for all lanes.

use std::ops::Range;

use ams_bundle::{ContentTowers, Input, Spec, TowerSpec};
use ams_data::Id;
use ams_model::RowOptimizer;
use ams_model::params::Entry;
use ams_model::rank::RankNetwork;
use ams_model::tower::Tower;

use crate::settings::phases::Learns;
use crate::settings::{AlignConfig, EvictionConfig, FeatureFormat, Placement, TrainConfig};

/// The networks of a [`Spec`] and where their weights lie in the one flat slice of dense weights.
pub(crate) struct Network {
    /// Description of the model.
    pub spec: Spec,
    /// Inputs that are pooled once per group.
    pub group_inputs: Vec<Input>,
    /// Inputs that are pooled per impression.
    pub impression_inputs: Vec<Input>,
    /// Inputs that are pooled per behavior.
    pub behavior_inputs: Vec<Input>,
    /// The rank network W.
    pub rank: RankNetwork,
    /// The towers E; a tower's number is its index.
    pub towers: Vec<TowerDefinition>,
    /// The towers of each content by their use.
    pub contents: Vec<ContentTowers>,
    /// Where features live and towers run.
    pub placement: Placement,
    /// How features travel, if they do.
    pub features_as: FeatureFormat,
    /// How rows are updated.
    pub rows: RowOptimizer,
    /// The parts that learn in the step at work.
    learns: Learns,
    /// Ranges of the dense weights that learn in it, without the matrices of the towers' first
    /// layers: the gradients of those are computed for all lanes at once, see
    /// [`crate::step::first_layers`].
    pub rest: Vec<Range<usize>>,
    /// Occurrences in the training samples from which an id has a row of its own.
    pub min_occurrences: u32,
    /// Bytes of the sketch that counts them as they come, of each lane; none where they are counted
    /// before the first step.
    pub sketch_bytes: Option<u64>,
    /// When rows go, if any may.
    pub eviction: Option<EvictionConfig>,
    /// For each of [`Network::inputs`], the id whose row stands in for those without one; empty
    /// where that is zeros. These rows begin as zeros.
    pub unknown: Vec<Id>,
    /// For each of [`Network::inputs`], the rate of its field in `id_dropout`, which counts for
    /// those of users and ads alone; empty if nothing is ever dropped.
    pub id_rates: Vec<f32>,
    /// Names of the fields whose ids the inputs have, in order of their first input.
    pub fields: Vec<String>,
    /// For each of [`Network::inputs`], its field among them.
    pub field_of: Vec<usize>,
    /// Negatives of clicks from the same micro-batch, if there are any.
    pub in_batch: Option<InBatchSettings>,
    /// The contrastive loss of images, if there is one.
    pub contrastive: Option<ContrastiveSettings>,
    /// How strongly rows are drawn towards zero, see [`crate::step::frequency`].
    pub l2_ids: f32,
    /// Share of the towers' hidden units that are dropped in training.
    pub tower_dropout: f32,
    /// How much the towers' weight matrices shrink, in units of the learning rate.
    pub tower_weight_decay: f32,
}

/// Negatives of clicks from the same micro-batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InBatchSettings {
    /// Number for each click.
    pub negatives: usize,
    /// Factor of their loss.
    pub weight: f32,
}

/// A contrastive loss of the images of clicks and of their histories.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ContrastiveSettings {
    /// The tower that both go through.
    pub tower: usize,
    /// Factor of the loss.
    pub weight: f32,
    /// Number by which cosines are divided.
    pub temperature: f32,
    /// Days after which a pair weighs an e-th.
    pub decay_days: f32,
}

/// One tower, and where its weights lie.
pub(crate) struct TowerDefinition {
    /// Its name, content and weights.
    pub spec: TowerSpec,
    /// Layers and parameter layout.
    pub model: Tower,
    /// Where it lies among the dense weights.
    pub range: Range<usize>,
    /// Factor of the features.
    pub scale: f32,
}

impl TowerDefinition {
    /// Width of a feature (F).
    pub(crate) fn input(&self) -> usize {
        self.model.config().input
    }

    /// Where the matrix of the first layer lies among the dense weights.
    pub(crate) fn first_matrix(&self) -> Range<usize> {
        let view = self.model.first_matrix();
        self.range.start + view.offset..self.range.start + view.offset + view.len
    }

    /// Width of an embedding.
    pub(crate) fn dim(&self) -> usize {
        self.model.dim()
    }
}

impl Network {
    /// Resolves `spec`, trained by the settings `train`, and those of `align` beside clicks.
    pub(crate) fn new(spec: Spec, train: &TrainConfig, align: Option<&AlignConfig>) -> Network {
        let rank = RankNetwork::new(spec.rank_config());
        let mut end = rank.layout().len();
        let mut towers = Vec::new();
        for tower in spec.towers() {
            let model = Tower::new(tower.config.clone());
            let range = end..end + model.layout().len();
            end = range.end;
            let scale = spec.contents()[tower.content].1.scale;
            towers.push(TowerDefinition { spec: tower, model, range, scale });
        }
        let (group_inputs, impression_inputs) = (spec.group_inputs(), spec.impression_inputs());
        let behavior_inputs = spec.behavior_inputs();
        let inputs = group_inputs.iter().chain(&impression_inputs).chain(&behavior_inputs);
        let unknown = inputs.clone().filter_map(|input| spec.unknown_id(*input)).collect();
        let mut fields: Vec<String> = Vec::new();
        let field_of = inputs.map(|input| {
            let name = spec.input_name(*input);
            let (_, field) = name.split_once('.').expect("a side and a field");
            fields.iter().position(|known| known == field).unwrap_or_else(|| {
                fields.push(field.to_owned());
                fields.len() - 1
            })
        });
        let field_of: Vec<usize> = field_of.collect();
        let rates = &spec.network.id_dropout;
        let rate = |field: &usize| rates.of(&fields[*field]);
        let id_rates = match rates.is_none() {
            true => Vec::new(),
            false => field_of.iter().map(rate).collect(),
        };
        let mut network = Network {
            learns: Learns::ALL,
            rest: Vec::new(),
            group_inputs,
            impression_inputs,
            behavior_inputs,
            min_occurrences: train.min_occurrences,
            sketch_bytes: train.sketch_bytes,
            eviction: train.eviction.filter(EvictionConfig::is_any),
            unknown,
            id_rates,
            fields,
            field_of,
            rank,
            towers,
            contents: spec.content_towers(),
            placement: train.placement,
            features_as: train.features_as,
            rows: train.rows,
            in_batch: (train.in_batch_negatives > 0).then_some(InBatchSettings {
                negatives: train.in_batch_negatives,
                weight: train.in_batch_weight,
            }),
            contrastive: align.and_then(|align| contrastive(align, spec.content_towers().first())),
            l2_ids: train.l2_ids,
            tower_dropout: train.tower_dropout,
            tower_weight_decay: train.tower_weight_decay,
            spec,
        };
        network.rest = network.rest();
        network
    }

    /// Has the parts of `learns` learn from now on, and no others.
    pub(crate) fn learn(&mut self, learns: Learns) {
        if learns != self.learns {
            self.learns = learns;
            self.rest = self.rest();
        }
    }

    /// The parts that learn.
    pub(crate) fn learns(&self) -> Learns {
        self.learns
    }

    /// The value of `rest` for the parts that learn.
    fn rest(&self) -> Vec<Range<usize>> {
        let mut rest = Vec::new();
        if self.learns.network {
            rest.push(self.rank_range());
        }
        for (_, tower) in self.learning() {
            let matrix = tower.first_matrix();
            rest.extend([tower.range.start..matrix.start, matrix.end..tower.range.end]);
        }
        rest
    }

    /// All inputs: per group, then per impression, then per behavior.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = Input> {
        let inputs = self.group_inputs.iter().chain(&self.impression_inputs);
        inputs.chain(&self.behavior_inputs).copied()
    }

    /// Whether ids are counted before the first step.
    pub(crate) fn counts_ids(&self) -> bool {
        self.l2_ids > 0.0 || (self.min_occurrences > 1 && self.sketch_bytes.is_none())
    }

    /// Whether shards hear on which day, and how often, ids are seen in a step.
    pub(crate) fn sees_ids(&self) -> bool {
        self.eviction.is_some() || self.sketch_bytes.is_some()
    }

    /// Whether other losses than that of the impressions are sent.
    pub(crate) fn has_auxiliary_losses(&self) -> bool {
        self.in_batch.is_some() || self.contrastive.is_some()
    }

    /// Where W lies among the dense weights.
    pub(crate) fn rank_range(&self) -> Range<usize> {
        0..self.rank.layout().len()
    }

    /// Where the weight matrices of the towers that learn now lie among the dense weights.
    pub(crate) fn tower_matrices(&self) -> impl Iterator<Item = Range<usize>> {
        self.learning().flat_map(|(_, tower)| {
            let entries = tower.model.layout().entries.iter();
            let matrices = entries.filter(|entry| entry.shape.len() == 2);
            matrices.map(|entry| {
                let start = tower.range.start + entry.view.offset;
                start..start + entry.view.len
            })
        })
    }

    /// Number of dense weights: W and every tower.
    pub(crate) fn dense_len(&self) -> usize {
        self.towers.last().map_or(self.rank.layout().len(), |tower| tower.range.end)
    }

    /// The towers that learn now, with their numbers: gradients of their embeddings are sent.
    pub(crate) fn learning(&self) -> impl Iterator<Item = (usize, &TowerDefinition)> {
        self.trained().filter(|_| self.learns.images)
    }

    /// The towers that learn in some step or other, with their numbers.
    pub(crate) fn trained(&self) -> impl Iterator<Item = (usize, &TowerDefinition)> {
        self.towers.iter().enumerate().filter(|(_, tower)| tower.spec.is_trained())
    }

    /// Which parameter the dense weight at `at` belongs to, for messages.
    pub(crate) fn name_of_dense(&self, at: usize) -> String {
        let tower = self.towers.iter().find(|tower| tower.range.contains(&at));
        let (owner, layout, at) = match tower {
            Some(TowerDefinition { spec, model, range, .. }) => {
                (format!("tower {}", spec.name), model.layout(), at - range.start)
            }
            None => ("the network".to_owned(), self.rank.layout(), at),
        };
        let covers =
            |entry: &&Entry| (entry.view.offset..entry.view.offset + entry.view.len).contains(&at);
        let entry = layout.entries.iter().find(covers).map_or("?", |entry| &entry.name);
        format!("the gradient of {entry} of {owner}")
    }

    /// The initial dense weights; they depend on the seed and the parameters' names only.
    /// Components are not known here, see [`crate::setup::components::write_weights`].
    pub(crate) fn dense_init(&self, seed: u64) -> Vec<f32> {
        let mut dense = self.rank.init(seed);
        for tower in &self.towers {
            dense.extend(tower.model.init(seed, &tower.spec.name));
        }
        dense
    }
}

/// The contrastive loss that `align` asks for, of images that have these `towers`.
fn contrastive(align: &AlignConfig, towers: Option<&ContentTowers>) -> Option<ContrastiveSettings> {
    let AlignConfig { weight, temperature, decay_days, .. } = *align;
    let towers = towers.filter(|towers| weight > 0.0 && towers.ad == towers.behavior)?;
    towers.ad.map(|tower| ContrastiveSettings { tower, weight, temperature, decay_days })
}
