//! What a training reads, and how to tell that it is the same as before.

use ams_data::dataset::Dataset;
use ams_image::FeatureStore;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};

/// The folder of the feature store inside a dataset, unless the configuration names another.
const IMAGES: &str = "images";

/// What a training reads, as blake3 of the cards that describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// Of the dataset's card.
    pub dataset: String,
    /// Of the feature store's card, which lists the hash of each of its files.
    pub images: Option<String>,
}

impl Sources {
    /// Of what is open.
    pub fn of(dataset: &Dataset, store: Option<&FeatureStore>) -> Sources {
        fn hash(card: &impl Serialize) -> String {
            let json = serde_json::to_vec(card).expect("cards are JSON");
            blake3::hash(&json).to_hex().to_string()
        }
        Sources { dataset: hash(dataset.card()), images: store.map(|store| hash(store.card())) }
    }

    /// The hashes by name, for comparing processes.
    pub fn facts(&self) -> Vec<(String, String)> {
        let images = self.images.clone().unwrap_or_else(|| "none".to_owned());
        vec![
            ("blake3 of the dataset's card".to_owned(), self.dataset.clone()),
            ("blake3 of the feature store's card".to_owned(), images),
        ]
    }
}

/// Opens what a training of `config` reads: its dataset and, if there is one, its feature store.
///
/// # Errors
/// If the configuration does not make sense, or something cannot be opened or is empty.
pub fn open(config: &Config) -> Result<(Dataset, Option<FeatureStore>)> {
    config.check()?;
    let dataset = Dataset::open(&config.data.samples)?;
    if dataset.card().counts.train == 0 {
        return Err(Error::content(dataset.dir(), "has no training impressions"));
    }
    Ok((dataset, open_store(config)?))
}

/// The feature store of `config`, shuffled if it says so. Every arm gets image ids where there is one.
fn open_store(config: &Config) -> Result<Option<FeatureStore>> {
    let inside = config.data.samples.join(IMAGES);
    let dir = match &config.data.images {
        Some(dir) => dir.clone(),
        None if inside.exists() => inside,
        None if config.model.images.has_ad() || config.model.images.has_behavior() => {
            let what = format!(
                "the model sees images (model.images), but there is no feature store in {}; run \
                 `ams encode` or set data.images",
                inside.display()
            );
            return Err(Error::Config { key: "data.images".into(), what });
        }
        None => return Ok(None),
    };
    let store = FeatureStore::open(&dir)?;
    Ok(Some(match config.data.shuffle_images {
        Some(seed) => store.shuffled(seed),
        None => store,
    }))
}
