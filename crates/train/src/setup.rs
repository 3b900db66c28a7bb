//! From a configuration and what it reads to a model, lanes and workers.

use ams_bundle::{FurtherContent, ImageSource, Spec};
use ams_data::Side;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::schema::ITEM;
use ams_fabric::{Fabric, Topology};
use ams_image::FeatureStore;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::feed::{Feed, Order};
use crate::lanes::Lanes;
use crate::plan::Plan;
use crate::validation::{self, Users};
use crate::worker::Worker;

/// What a training consists of besides its files.
pub struct Setup {
    /// The model.
    pub plan: Plan,
    /// Where lanes are.
    pub topology: Topology,
    /// The threads of this process.
    pub pool: ThreadPool,
    /// The workers of the local lanes, in lane order.
    pub workers: Vec<Worker>,
}

/// Makes what `config` means on `dataset` and `store`, on `threads` threads of this process.
///
/// # Errors
/// If the configuration does not fit the dataset, the feature store, or the number of processes; or
/// if a sample file cannot be opened.
pub fn setup(
    config: &Config,
    dataset: &Dataset,
    stores: &[FeatureStore],
    fabric: &dyn Fabric,
    threads: usize,
) -> Result<Setup> {
    let spec = resolve(config, dataset, stores)?;
    let topology = topology(config, dataset, fabric)?;
    validation::check(config, dataset.card())?;
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| Error::Config { key: "threads".into(), what: error.to_string() })?;
    let plan = Plan::new(spec, &config.train);
    let mut workers = Vec::new();
    for lane in topology.local() {
        let order = Order::Shuffled { seed: config.seed, lane };
        let samples = (SplitName::Train, Users::Learned);
        let feed = feed(dataset, samples, (lane, topology.lanes()), order, config)?;
        workers.push(Worker::new(&plan, feed));
    }
    Ok(Setup { plan, topology, pool, workers })
}

/// The model that `config` means on this dataset.
fn resolve(config: &Config, dataset: &Dataset, stores: &[FeatureStore]) -> Result<Spec> {
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
    let query_fields = match &config.model.query_fields {
        Some(fields) => {
            if let Some(name) = fields.iter().find(|name| !ad.contains(&&name[..])) {
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
    let mut sources = stores.iter().map(|store| ImageSource {
        encoder: store.card().encoder.clone(),
        encoder_hash: store.card().encoder_hash.clone(),
        dim: store.card().dim,
        scale: store.scale(),
        pca: store.projection().map(|projection| projection.outputs()),
    });
    let names = config.data.contents.iter().map(|content| content.name.clone());
    let spec = Spec {
        fields: schema.clone(),
        exclude_fields: config.data.exclude_fields.clone(),
        max_behaviors: dataset.card().max_behaviors,
        images: config.model.images,
        aggregator: config.model.aggregator,
        dim: config.model.embedding_dim,
        attention: config.model.attention,
        concatenate_length: config.model.concatenate_length,
        mlp: config.model.mlp.clone(),
        query_fields,
        tower: config.model.tower.clone(),
        sharing: config.model.towers,
        image_source: sources.next(),
        base: config.model.base,
        pre_rank: config.model.pre_rank.clone(),
        interactions: config.model.interactions,
        similarity: config.model.similarity,
        tower_weights: config.model.tower_weights,
        further: names.zip(sources).map(|(name, source)| FurtherContent { name, source }).collect(),
    };
    if let Err(what) = spec.check() {
        return Err(Error::Config { key: "model".into(), what });
    }
    Ok(spec)
}

fn topology(config: &Config, dataset: &Dataset, fabric: &dyn Fabric) -> Result<Topology> {
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

/// The feed of one lane, over the samples of `users` in a split.
///
/// # Errors
/// If a sample file cannot be opened.
pub fn feed(
    dataset: &Dataset,
    (split, users): (SplitName, Users),
    (lane, lanes): (usize, usize),
    order: Order,
    config: &Config,
) -> Result<Feed> {
    let (parts, held_out) = (dataset.card().parts, config.train.validation_parts);
    // A part without users has a file without rows: a missing one is a loss nobody would notice.
    let open = |part| SampleFile::open(&dataset.part_path(split, part), dataset.schema());
    let files: ams_data::Result<Vec<SampleFile>> = Lanes::parts_of(dataset.card(), lane, lanes)
        .filter(|&part| users.read(part, parts, held_out))
        .map(open)
        .collect();
    Ok(Feed::new(files?, dataset.schema(), order, config.train.shuffle_groups))
}
