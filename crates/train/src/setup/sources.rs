//! The sources of a training: dataset and feature stores, and hashes that identify them.

use std::path::{Path, PathBuf};

use ams_data::dataset::Dataset;
use ams_image::FeatureStore;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::settings::{Config, ProjectionConfig};
use crate::setup::components;
use crate::setup::places::{Places, localized};

/// The folder of the feature store inside a dataset, unless the configuration names another.
const IMAGES: &str = "images";

/// The sources of a training, as blake3 of the cards that describe them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sources {
    /// Of the dataset's card.
    pub dataset: String,
    /// Of the feature store's card, which lists the hash of each of its files.
    pub images: Option<String>,
    /// The same for each further content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<String>,
}

impl Sources {
    /// The hashes of open sources.
    pub(crate) fn of(dataset: &Dataset, stores: &[FeatureStore]) -> Sources {
        fn hash(card: &impl Serialize) -> String {
            let json = serde_json::to_vec(card).expect("cards are JSON");
            blake3::hash(&json).to_hex().to_string()
        }
        let mut stores = stores.iter().map(|store| hash(store.card()));
        Sources { dataset: hash(dataset.card()), images: stores.next(), further: stores.collect() }
    }

    /// The hashes by name, for comparing processes.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let images = self.images.clone().unwrap_or_else(|| "none".to_owned());
        let mut facts = vec![
            ("blake3 of the dataset's card".to_owned(), self.dataset.clone()),
            ("blake3 of the feature store's card".to_owned(), images),
        ];
        let further = self.further.iter().enumerate();
        facts.extend(further.map(|(at, hash)| {
            (format!("blake3 of the card of data.contents[{at}]"), hash.clone())
        }));
        facts
    }
}

/// As [`open`], of what `config` names in `places`.
///
/// # Errors
/// As [`open`], and if something cannot be fetched.
pub(crate) fn open_in(
    places: &dyn Places,
    config: &Config,
) -> Result<(Dataset, Vec<FeatureStore>)> {
    config.check()?;
    open(&localized(config, places)?)
}

/// Opens the sources of `config`: its dataset and its feature stores, none, that of images, or
/// more.
///
/// # Errors
/// If the configuration is invalid, or a source cannot be opened or is empty.
pub(crate) fn open(config: &Config) -> Result<(Dataset, Vec<FeatureStore>)> {
    config.check()?;
    let dataset = Dataset::open(&config.data.samples)?;
    if dataset.card().counts.train == 0 {
        return Err(Error::content(dataset.dir(), "has no training impressions"));
    }
    let Some(dir) = image_dir(config)? else { return Ok((dataset, Vec::new())) };
    let key = match config.model.projection {
        Some(_) => "model.projection.components",
        None => "model.pca",
    };
    let projection = config.model.projected().filter(|_| config.needs_images());
    // The map of an alignment is made of features as they are; it is put before them later.
    let of_images = projection.filter(|_| config.aligns().is_none());
    let mut stores = vec![open_store(config, &dir, of_images, key)?];
    for content in &config.data.contents {
        stores.push(open_store(config, &content.features, projection, "data.contents")?);
    }
    Ok((dataset, stores))
}

/// Whether the dataset at `samples` has a feature store inside.
pub(crate) fn has_images(samples: &Path) -> bool {
    samples.join(IMAGES).exists()
}

/// Where the image features are. Every arm gets image ids where there are some.
fn image_dir(config: &Config) -> Result<Option<PathBuf>> {
    let inside = config.data.samples.join(IMAGES);
    match &config.data.images {
        Some(dir) => Ok(Some(dir.clone())),
        None if inside.exists() => Ok(Some(inside)),
        None if config.needs_store() => {
            let what = format!(
                "the model sees images (model.images, model.similarity, model.semantic_ids or data.contents), but \
                 there is no feature store in {}; run `ams encode` or set data.images",
                inside.display()
            );
            Err(Error::Config { key: "data.images".into(), what })
        }
        None => Ok(None),
    }
}

/// One store: shuffled if the configuration says so, and projected.
fn open_store(
    config: &Config,
    dir: &Path,
    projection: Option<ProjectionConfig>,
    key: &str,
) -> Result<FeatureStore> {
    let mut store = FeatureStore::open(dir)?;
    if let Some(seed) = config.data.shuffle_images {
        store = store.shuffled(seed);
    }
    let Some(projection) = projection else { return Ok(store) };
    let (components, dim) = (projection.components, store.dim());
    if components > dim {
        let what = format!("{components} components of {dim} numbers in {}", dir.display());
        return Err(Error::Config { key: key.to_owned(), what });
    }
    Ok(components::project(store, projection))
}
