//! From a configuration and the dataset that it names to a model and the place of its lanes. Reads
//! no file.

use std::collections::VecDeque;

use ams_bundle::{CodebookSource, FurtherContent, ImageSource, Spec};
use ams_data::Side;
use ams_data::dataset::Dataset;
use ams_data::schema::ITEM;
use ams_fabric::{Fabric, Topology};
use ams_image::FeatureStore;

use crate::error::{Error, Result};
use crate::settings::{Config, Whiten};

/// The model that `config` means on this dataset.
///
/// # Errors
/// The key of a setting that does not fit the dataset.
pub(crate) fn resolve(config: &Config, dataset: &Dataset, stores: &[FeatureStore]) -> Result<Spec> {
    let schema = dataset.schema();
    let names: Vec<&str> = schema.fields.iter().map(|field| &field.name[..]).collect();
    for name in &config.data.exclude_fields {
        if !names.contains(&&name[..]) {
            let what = format!("there is no field {name:?}; the dataset has {}", names.join(", "));
            return Err(Error::Config { key: "data.exclude_fields".into(), what });
        }
    }
    let excluded = |name: &str| config.data.exclude_fields.iter().any(|field| field == name);
    let ad: Vec<&str> =
        schema.side(Side::Ad).map(|field| &field.name[..]).filter(|name| !excluded(name)).collect();
    let levels = config.model.network.semantic_ids;
    let query_fields = match &config.model.query_fields {
        Some(fields) => {
            let semantic = (1..=levels).map(|level| format!("semantic_{level}"));
            let ad: Vec<String> =
                ad.iter().map(|name| (*name).to_owned()).chain(semantic).collect();
            if let Some(name) = fields.iter().find(|name| !ad.contains(name)) {
                let what = format!("there is no ad field {name:?}; possible are {}", ad.join(", "));
                return Err(Error::Config { key: "model.query_fields".into(), what });
            }
            fields.clone()
        }
        None => {
            let default = [ITEM, "category"].into_iter().filter(|name| ad.contains(name));
            default.map(str::to_owned).collect()
        }
    };
    let codebooks = match (levels, stores) {
        (1.., [images, ..]) => Some(codebooks(images, levels)?),
        _ => None,
    };
    let sources = stores.iter().map(|store| ImageSource {
        encoder: store.card().encoder.clone(),
        encoder_hash: store.card().encoder_hash.clone(),
        dim: store.card().dim,
        scale: store.scale(),
        pca: store.projection().map(|projection| projection.outputs()),
        normalize: store.projection().map_or_else(Default::default, |of| of.normalize),
        whiten: whiten(config, store),
        aligned: store.projection().is_some_and(|projection| projection.unit),
        codebooks: None,
    });
    let mut sources: VecDeque<ImageSource> = sources.collect();
    if let Some(images) = sources.front_mut() {
        images.codebooks = codebooks;
    }
    let names = config.data.contents.iter().map(|content| content.name.clone());
    let spec = Spec {
        network: config.model.network.clone(),
        fields: schema.clone(),
        exclude_fields: config.data.exclude_fields.clone(),
        max_behaviors: dataset.card().max_behaviors,
        query_fields,
        tower: config.model.tower.clone(),
        sharing: config.model.towers,
        image_source: sources.pop_front(),
        tower_weights: config.model.tower_weights,
        further: names.zip(sources).map(|(name, source)| FurtherContent { name, source }).collect(),
    };
    if let Err(what) = spec.check() {
        return Err(Error::Config { key: "model".into(), what });
    }
    Ok(spec)
}

/// The codebooks of the semantic ids of a store.
///
/// # Errors
/// If it has none, or fewer levels.
fn codebooks(store: &FeatureStore, levels: usize) -> Result<CodebookSource> {
    let what = match &store.card().codes {
        Some(card) if card.levels >= levels => {
            return Ok(CodebookSource { size: card.size, hash: card.hash.clone() });
        }
        Some(card) => format!(
            "{levels} levels, but the feature store has semantic ids of {}; expected at most that, or run \
             `ams encode --semantic-ids {levels}x{}` and train anew",
            card.levels, card.size
        ),
        None => format!(
            "{levels} levels, but the feature store has no semantic ids; run `ams encode` with \
             --semantic-ids {levels}x64"
        ),
    };
    Err(Error::Config { key: "model.semantic_ids".into(), what })
}

/// The scale of the components that the model sees of `store`.
fn whiten(config: &Config, store: &FeatureStore) -> Whiten {
    match (store.projection(), &config.align, config.model.projected()) {
        (Some(projection), Some(align), _) if projection.unit => align.whiten,
        (Some(_), _, Some(projected)) => projected.whiten,
        _ => Whiten::None,
    }
}

/// Where the lanes are.
///
/// # Errors
/// If the dataset or the job cannot be divided into so many lanes.
pub(crate) fn topology(
    config: &Config,
    dataset: &Dataset,
    fabric: &dyn Fabric,
) -> Result<Topology> {
    let (lanes, parts) = (config.train.lanes, dataset.card().parts);
    let bad = |what| Err(Error::Config { key: "train.lanes".into(), what });
    if lanes > parts || parts % lanes != 0 {
        return bad(format!("{lanes} lanes cannot share the dataset's {parts} parts evenly"));
    }
    match Topology::new(lanes, fabric) {
        Some(topology) => Ok(topology),
        None => bad(format!(
            "{lanes} lanes cannot be shared by {} processes; both have to be powers of two, and at \
             least one lane per process",
            fabric.size()
        )),
    }
}
