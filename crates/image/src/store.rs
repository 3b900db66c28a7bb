//! The feature store: which picture has which row of numbers.
//!
//! A folder, written once and then only read:
//! ```text
//! part-00.safetensors ..  one file per part: the images whose key falls into the part (`ImageKey::part`)
//!     keys  u64 [n]       ascending, the first 8 bytes of blake3 of the picture file (or of its row)
//!     rows  f16 [n, dim]  the image features, in the order of `keys`
//! names.safetensors       the pictures that have a feature
//!     name  u64 [m]       `PictureName`, ascending
//!     key   u64 [m]       the `ImageKey` of each
//! pictures.parquet        the same for people and other programs: name, key, bytes, width, height, status
//! failed.csv              the pictures that have none: name, reason, detail
//! images.json             the card, written last: encoder, dim, counts, scale, blake3 of every file
//! ```
//! All numbers are little-endian. From Python each file is one line, say
//! `safetensors.numpy.load_file("part-00.safetensors")` or `polars.read_parquet("pictures.parquet")`.
//!
//! Knows these files. Does not know how a row was computed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ams_data::{Error, ImageKey, PictureName, Result};
use half::f16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

pub use crate::durable::FileCard;
use crate::projection::Projection;
use crate::tensors::{Slot, Tensors};

/// `format` of a card this build reads and writes.
pub const FORMAT: &str = "ams-images/1";

/// The card's file name.
pub const CARD: &str = "images.json";

/// The name of the part file `part`.
pub fn part_file(part: usize) -> String {
    format!("part-{part:02}.safetensors")
}

/// The card of a store, `images.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreCard {
    /// [`FORMAT`].
    pub format: String,
    /// The encoder in words, such as `builtin-4096`.
    pub encoder: String,
    /// blake3 of all that defines the encoder, hex: equal hash, comparable rows.
    pub encoder_hash: String,
    /// Numbers per row (F).
    pub dim: usize,
    /// Number of part files, a power of two.
    pub parts: usize,
    /// Distinct images, that is rows.
    pub images: u64,
    /// Picture names that have a row.
    pub names: u64,
    /// Picture names that have none, by reason.
    pub failed: BTreeMap<String, u64>,
    /// 1 / rms over all rows: multiplied by it, a feature is about 1 in size.
    pub scale: f32,
    /// Every other file of the store.
    pub files: BTreeMap<String, FileCard>,
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
            let what = format!("format is \"{format}\", this build reads \"{FORMAT}\"");
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
        Ok(card)
    }
}

/// One part, mapped.
#[derive(Debug)]
struct Part {
    tensors: Tensors,
    keys: Slot,
    rows: Slot,
    /// What stands in the place of the rows, if something does.
    projected: Option<Vec<f16>>,
}

impl Part {
    /// Maps part `part` of `parts` and checks everything but the rows' values.
    fn open(path: &Path, part: usize, card: &StoreCard) -> Result<Part> {
        let tensors = Tensors::open(path)?;
        let keys = tensors.typed("keys", Dtype::U64, 1)?;
        let rows = tensors.typed("rows", Dtype::F16, 2)?;
        tensors.slice::<f16>(&rows)?;
        let expected = [keys.shape[0], card.dim];
        if rows.shape != expected {
            let what = format!(
                "`rows` is {:?}, expected {expected:?} (keys, dim of the card)",
                rows.shape
            );
            return Err(Error::content(path, what));
        }
        let list = tensors.slice::<ImageKey>(&keys)?;
        if let Some(at) = list.windows(2).position(|pair| pair[0] >= pair[1]) {
            let what =
                format!("`keys` must ascend, but row {} is not above row {}", at + 2, at + 1);
            return Err(Error::content(path, what));
        }
        if let Some(at) = list.iter().position(|key| !key.is_some() || key.part(card.parts) != part)
        {
            let what =
                format!("key {:016x} in row {} does not belong to part {part}", list[at].0, at + 1);
            return Err(Error::content(path, what));
        }
        Ok(Part { tensors, keys, rows, projected: None })
    }

    fn keys(&self) -> &[ImageKey] {
        self.tensors.slice(&self.keys).expect("checked when opened")
    }

    fn rows(&self) -> &[f16] {
        match &self.projected {
            Some(rows) => rows,
            None => self.mapped_rows(),
        }
    }

    fn mapped_rows(&self) -> &[f16] {
        self.tensors.slice(&self.rows).expect("checked when opened")
    }
}

/// Where a feature is in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    part: u32,
    row: u32,
}

/// A store, memory-mapped. Shared freely between threads; rows are read from the file as they are used.
#[derive(Debug)]
pub struct FeatureStore {
    dir: PathBuf,
    card: StoreCard,
    parts: Vec<Part>,
    /// Ascending.
    names: Vec<PictureName>,
    /// The key of each name.
    name_keys: Vec<ImageKey>,
    projection: Option<Projection>,
    /// Numbers per row, and 1 / rms, of what there is in the place of features.
    dim: usize,
    scale: f32,
}

impl FeatureStore {
    /// Opens the store in `dir`: reads card and names, maps every part, checks format, shapes, order of
    /// the keys and the counts of the card. Rows are not read; [`FeatureStore::verify`] does that.
    pub fn open(dir: &Path) -> Result<FeatureStore> {
        let card = StoreCard::read(dir)?;
        let parts = (0..card.parts)
            .map(|part| Part::open(&dir.join(part_file(part)), part, &card))
            .collect::<Result<Vec<Part>>>()?;
        let (names, name_keys) = read_names(&dir.join("names.safetensors"))?;
        let images = parts.iter().map(|part| part.keys().len() as u64).sum::<u64>();
        if (images, names.len() as u64) != (card.images, card.names) {
            let (found, card_images, card_names) = (names.len(), card.images, card.names);
            let what = format!(
                "the card counts {card_images} images and {card_names} names, the files hold {images} \
                 and {found}: encode again"
            );
            return Err(Error::content(dir.join(CARD), what));
        }
        let (dim, scale) = (card.dim, card.scale);
        let dir = dir.to_path_buf();
        Ok(FeatureStore { dir, card, parts, names, name_keys, projection: None, dim, scale })
    }

    /// The same store with what `projection` makes of features in their place, in memory.
    ///
    /// # Panics
    /// If the projection is of features of another width, or there is one already.
    pub fn projected(mut self, projection: Projection) -> FeatureStore {
        assert_eq!(projection.mean.len(), self.dim, "a projection of other features");
        assert!(self.projection.is_none(), "projected already");
        self.parts.par_iter_mut().for_each(|part| {
            part.projected = Some(projection.apply(part.mapped_rows()));
        });
        let values = self.parts.iter().flat_map(Part::rows);
        let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), value| {
            (sum + f64::from(value.to_f32()).powi(2), count + 1)
        });
        self.scale = if sum > 0.0 { (count as f64 / sum).sqrt() as f32 } else { 1.0 };
        self.dim = projection.outputs();
        self.projection = Some(projection);
        self
    }

    /// What was made of the features, if anything.
    pub fn projection(&self) -> Option<&Projection> {
        self.projection.as_ref()
    }

    /// Numbers per row of [`FeatureStore::row`]: the card's, unless projected.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// 1 / rms over all rows: the card's, unless projected.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// What the store says about itself.
    pub fn card(&self) -> &StoreCard {
        &self.card
    }

    /// The image key of a picture: [`ImageKey::NONE`] for unknown and failed pictures and for no picture.
    pub fn key(&self, name: PictureName) -> ImageKey {
        self.names.binary_search(&name).map_or(ImageKey::NONE, |at| self.name_keys[at])
    }

    /// Every picture that has an image: (name, key), by ascending name.
    pub fn pictures(&self) -> impl Iterator<Item = (PictureName, ImageKey)> {
        self.names.iter().copied().zip(self.name_keys.iter().copied())
    }

    /// The feature of an image, or what was made of it, (dim), or nothing where the store has no such image.
    pub fn row(&self, key: ImageKey) -> Option<&[f16]> {
        Some(self.row_at(self.place(key)?))
    }

    /// Where the feature of an image is, for [`FeatureStore::row_at`]: to be looked for once and read often.
    pub fn place(&self, key: ImageKey) -> Option<Place> {
        if !key.is_some() {
            return None;
        }
        let part = key.part(self.card.parts);
        let row = self.parts[part].keys().binary_search(&key).ok()?;
        Some(Place { part: part as u32, row: row as u32 })
    }

    /// The feature at a place of this store, or what was made of it, (dim).
    pub fn row_at(&self, place: Place) -> &[f16] {
        let rows = self.parts[place.part as usize].rows();
        &rows[place.row as usize * self.dim..][..self.dim]
    }

    /// The keys of part `part`, ascending.
    ///
    /// # Panics
    /// Where there is no such part.
    pub fn keys(&self, part: usize) -> &[ImageKey] {
        self.parts[part].keys()
    }

    /// The control experiment: the same images, but handed to the wrong pictures. The keys are permuted
    /// (Fisher-Yates by `seed`) among the names that have one; rows and keys stay as they are.
    pub fn shuffled(mut self, seed: u64) -> FeatureStore {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for last in (1..self.name_keys.len()).rev() {
            // Multiply-shift: the bias is below 2^-32 for any store that fits on earth.
            let other = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
            self.name_keys.swap(last, other as usize);
        }
        self
    }

    /// Reads everything: checksums of all files, every value finite, every name's key has a row.
    pub fn verify(&self) -> Result<()> {
        for (name, file) in &self.card.files {
            let path = self.dir.join(name);
            let mut hasher = blake3::Hasher::new();
            let opened = fs::File::open(&path).map_err(Error::io(&path))?;
            hasher.update_reader(opened).map_err(Error::io(&path))?;
            let got = hasher.finalize().to_hex().to_string();
            if got != file.blake3 {
                let what = format!("checksum is {got}, the card says {}", file.blake3);
                return Err(Error::content(path, what));
            }
        }
        for part in &self.parts {
            let rows = part.mapped_rows();
            if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
                let (row, column) = (at / self.card.dim, at % self.card.dim);
                let (key, value) = (part.keys()[row].0, rows[at]);
                let what =
                    format!("image {key:016x} (row {}), value {}: {value}", row + 1, column + 1);
                return Err(Error::content(part.tensors.path(), what));
            }
        }
        match self.name_keys.iter().find(|key| self.row(**key).is_none()) {
            Some(key) => {
                let what = format!("a name has key {:016x}, but no part has such a row", key.0);
                Err(Error::content(self.dir.join("names.safetensors"), what))
            }
            None => Ok(()),
        }
    }
}

/// Reads `names.safetensors`: names, ascending, and their keys.
fn read_names(path: &Path) -> Result<(Vec<PictureName>, Vec<ImageKey>)> {
    let tensors = Tensors::open(path)?;
    let names = tensors.slice::<PictureName>(&tensors.typed("name", Dtype::U64, 1)?)?.to_vec();
    let keys = tensors.slice::<ImageKey>(&tensors.typed("key", Dtype::U64, 1)?)?.to_vec();
    if names.len() != keys.len() {
        let what = format!("{} names, but {} keys", names.len(), keys.len());
        return Err(Error::content(path, what));
    }
    if let Some(at) = names.windows(2).position(|pair| pair[0] >= pair[1]) {
        let what = format!("`name` must ascend, but row {} is not above row {}", at + 2, at + 1);
        return Err(Error::content(path, what));
    }
    Ok((names, keys))
}
