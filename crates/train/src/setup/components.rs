//! Principal components of a store's features: as towers that do not learn, and as the input of
//! towers instead of features.

use std::borrow::Cow;

use ams_bundle::TowerWeights;
use ams_data::ImageKey;
use ams_image::{FeatureStore, Normalize};
use ams_model::pca::Pca;
use half::f16;

use crate::settings::ProjectionConfig;
use crate::setup::network::{Network, TowerDefinition};

/// Most images that components are fitted to. Keys are hashes, so the first ones are a fair sample.
const SAMPLE: usize = 8192;

/// Root mean square of the numbers that components make of features: about that of rows of ids,
/// because dozens of them are summed.
const SIZE: f32 = 0.1;

/// The first `count` components of the features of `store`, after they are normalized.
pub(crate) fn fit(store: &FeatureStore, count: usize, normalize: Normalize) -> Pca {
    let keys = (0..store.card().parts).flat_map(|part| store.keys(part));
    let row = |key: &ImageKey| store.row(*key).expect("the store lists this key");
    let rows: Vec<Cow<[f16]>> = keys.take(SAMPLE).map(|key| row(key).halfs()).collect();
    let rows: Vec<&[f16]> = rows.iter().map(|row| &row[..]).collect();
    Pca::fit(&rows, store.dim(), count, normalize)
}

/// `store` with the components that `projection` says of every feature in its place.
pub(crate) fn project(store: FeatureStore, projection: ProjectionConfig) -> FeatureStore {
    let ProjectionConfig { components, whiten, normalize } = projection;
    let projection = fit(&store, components, normalize).projection(whiten);
    store.projected(projection)
}

/// Writes the weights of those towers among `dense` that are components of their content's
/// features.
pub(crate) fn write_weights(network: &Network, stores: &[FeatureStore], dense: &mut [f32]) {
    for tower in network.towers.iter().filter(|tower| tower.spec.weights == TowerWeights::Pca) {
        let pca = fit(&stores[tower.spec.content], tower.dim(), Normalize::None);
        write_weights_of(tower, &pca, &mut dense[tower.range.clone()]);
    }
}

/// One linear layer: it sees features times `tower.scale`.
fn write_weights_of(tower: &TowerDefinition, pca: &Pca, e: &mut [f32]) {
    let layout = tower.model.layout();
    let view = |name: &str| layout.get(name).expect("a tower of one layer has these").view;
    let power: f32 = pca.variances.iter().sum::<f32>() / pca.variances.len() as f32;
    let gain = if power > 0.0 { SIZE / power.sqrt() } else { 0.0 };
    let weights = view("0.weight").of_mut(e);
    for (weight, component) in weights.iter_mut().zip(&pca.components) {
        *weight = component * gain / tower.scale;
    }
    let rows = pca.components.chunks_exact(pca.mean.len());
    for (bias, component) in view("0.bias").of_mut(e).iter_mut().zip(rows) {
        let along: f32 = component.iter().zip(&pca.mean).map(|(c, mean)| c * mean).sum();
        *bias = -gain * along;
    }
}
