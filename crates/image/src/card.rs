//! The card of a feature store: which files are one version of it, and what they hold.
//!
//! Knows `images.json`. Does not know what is in the other files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ams_data::staging::FileEntry;
use ams_data::{Error, Result};
use ams_linalg::{CENTERS_MAX, LEVELS_MAX};
use serde::{Deserialize, Serialize};

use crate::row::RowType;

/// `format` of a card this build reads and writes.
pub(crate) const FORMAT: &str = "ams-images/2";

/// The card's file name.
pub(crate) const CARD: &str = "images.json";

/// The list of pictures without a feature, for people.
pub(crate) const FAILED: &str = "failed.csv";

/// The name of the part file that `generation` added to part `part`.
pub(crate) fn part_file(part: usize, generation: u64) -> String {
    format!("{}{generation:06}.safetensors", part_prefix(part))
}

/// How the names of the files of part `part` begin.
fn part_prefix(part: usize) -> String {
    format!("part-{part:02}-")
}

/// The name of the table of names of `generation`.
pub(crate) fn names_file(generation: u64) -> String {
    format!("names-{generation:06}.safetensors")
}

/// The name of the manifest of `generation`.
pub(crate) fn pictures_file(generation: u64) -> String {
    format!("pictures-{generation:06}.parquet")
}

/// The name of the semantic ids of `generation`.
pub(crate) fn codes_file(generation: u64) -> String {
    format!("codes-{generation:06}.safetensors")
}

/// Whether a file called `name` is one that a store puts into its folder under a name of its own
/// per generation (or did so before generations).
pub(crate) fn is_versioned(name: &str) -> bool {
    ["part-", "names", "pictures", "codes-"].iter().any(|prefix| name.starts_with(prefix))
        && [".safetensors", ".parquet"].iter().any(|suffix| name.ends_with(suffix))
}

/// The generation in a file's name, where there is one.
pub(crate) fn generation_in(name: &str) -> Option<u64> {
    let stem = name.split('.').next()?;
    is_versioned(name).then(|| stem.rsplit('-').next()?.parse().ok())?
}

/// What a card says of semantic ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodesCard {
    /// Codes of an image (L).
    pub levels: usize,
    /// Centers of a level (K).
    pub size: usize,
    /// blake3 of the centers, hex: equal hash, comparable codes.
    pub hash: String,
    /// Images that share all of their codes with no other.
    pub own: u64,
}

impl CodesCard {
    /// Whether the numbers are in their ranges.
    pub(crate) fn is_sensible(&self) -> bool {
        (1..=LEVELS_MAX).contains(&self.levels) && (2..=CENTERS_MAX).contains(&self.size)
    }
}

/// The card of a store, `images.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreCard {
    /// Name and version of the format; equal to [`FORMAT`].
    pub format: String,
    /// Counts the versions of this store from 1.
    pub generation: u64,
    /// The encoder in words, such as `builtin-4096`.
    pub encoder: String,
    /// blake3 of all that defines the encoder, hex: equal hash, comparable rows.
    pub encoder_hash: String,
    /// Numbers per row (F).
    pub dim: usize,
    /// How a number is kept.
    pub rows: RowType,
    /// Number of parts, a power of two.
    pub parts: usize,
    /// Distinct images that a picture shows.
    pub images: u64,
    /// Further rows in the files, whose pictures were removed.
    pub dead: u64,
    /// Picture names that have a row.
    pub names: u64,
    /// Picture names that have none, by reason.
    pub failed: BTreeMap<String, u64>,
    /// 1 / rms over the rows of all images: multiplied by it, a feature is about 1 in size.
    pub scale: f32,
    /// The semantic ids of its images, if they have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codes: Option<CodesCard>,
    /// Every file of this version.
    pub files: BTreeMap<String, FileEntry>,
}

impl StoreCard {
    /// Reads the card of the store in `dir`.
    pub fn read(dir: &Path) -> Result<StoreCard> {
        let path = dir.join(CARD);
        let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let format = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|card| Some(card.get("format")?.as_str()?.to_string()));
        if let Some(format) = format.filter(|format| format != FORMAT) {
            let what =
                format!("format is \"{format}\", this build reads \"{FORMAT}\": encode again");
            return Err(Error::content(path, what));
        }
        let card: StoreCard = serde_json::from_str(&text).map_err(|error| {
            Error::content(&path, format!("not a card of image features: {error}"))
        })?;
        let sensible = card.dim > 0 && card.parts.is_power_of_two() && card.parts <= 1 << 16;
        if !sensible || !card.scale.is_finite() || card.scale <= 0.0 {
            let StoreCard { dim, parts, scale, .. } = &card;
            let what = format!(
                "dim {dim}, parts {parts}, scale {scale}: expected dim above 0, parts a power of two, \
                 a finite positive scale"
            );
            return Err(Error::content(path, what));
        }
        if let Some(codes) = card.codes.as_ref().filter(|codes| !codes.is_sensible()) {
            let CodesCard { levels, size, .. } = codes;
            let what = format!(
                "semantic ids of {levels} levels of {size} centers, expected 1 to 8 of 2 to 4096"
            );
            return Err(Error::content(path, what));
        }
        if let Some(name) = card.files.keys().find(|name| !is_versioned(name) || has_folder(name)) {
            let what = format!("lists `{name}`, which is no file of a feature store");
            return Err(Error::content(path, what));
        }
        Ok(card)
    }

    /// The part files of part `part`, oldest first.
    pub(crate) fn part_files(&self, part: usize) -> impl Iterator<Item = &String> {
        let prefix = part_prefix(part);
        self.files.keys().filter(move |name| name.starts_with(&prefix))
    }

    /// The manifest of this version.
    pub(crate) fn pictures_file(&self) -> String {
        pictures_file(self.generation)
    }

    /// The part files of the part that has most of them: what looking up an image costs, at worst.
    pub(crate) fn generations(&self) -> usize {
        (0..self.parts).map(|part| self.part_files(part).count()).max().unwrap_or(0)
    }
}

/// Whether `name` leads elsewhere.
fn has_folder(name: &str) -> bool {
    name.contains(['/', '\\'])
}
