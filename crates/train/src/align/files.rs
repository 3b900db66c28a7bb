//! The files of an alignment, in the folder of its run.
//!
//! ```text
//! aligned/                 the result: MANIFEST.json (the card) and map.safetensors
//! aligning/step-N/         the state after step N, until the result is there: the same, and
//!                          state.safetensors
//!
//! map.safetensors          mean f32 (F); scales f32 (P); components f32 (P, F), scales multiplied;
//!                          map f32 (D, P), the best so far
//! state.safetensors        w, m, v f32 (D, P): the map after step N, Adam's moments
//! ```
//! An aligned vector is z / |z| with z = map * components * (feature / |feature| - mean). Both are
//! folders that appear whole. The state is replicated, so the first process writes it alone.

use std::fs;
use std::path::{Path, PathBuf};

use ams_bundle::folder::{Folder, FolderWriter, MANIFEST, Tensor};
use ams_data::staging::remove_folder;
use ams_image::{FeatureStore, Normalize, Projection};
use ams_model::align;
use ams_model::linalg::{self, Write};
use serde::{Deserialize, Serialize};

use crate::align::gate::Look;
use crate::align::lanes::Weights;
use crate::align::map::Components;
use crate::error::{Error, Result};
use crate::settings::Config;
use crate::settings::align::AlignConfig;
use crate::setup::places::{RunFolder, whole};
use crate::setup::sources::Sources;

/// `format` of the manifests this build reads and writes.
pub(crate) const FORMAT: &str = "ams-aligned/1";

/// The folder of the result in that of a run.
pub const ALIGNED: &str = "aligned";

/// The folder of unfinished work in that of a run.
pub(crate) const ALIGNING: &str = "aligning";

const MAP: &str = "map.safetensors";
const STATE: &str = "state.safetensors";

/// Everything that decides an alignment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basis {
    pub align: AlignConfig,
    /// The seed of held-out images and batches.
    pub seed: u64,
    pub lanes: usize,
    /// Parts whose users are held out.
    pub validation_parts: usize,
    /// Share of the training impressions that is held out, the newest.
    #[serde(default)]
    pub validation_tail: f32,
    /// The seed of a permutation of the images.
    pub shuffle_images: Option<u64>,
    /// blake3 of the cards of the dataset and of the feature store.
    pub sources: Sources,
}

impl Basis {
    /// Of `config` and what it reads: features of `dim` numbers.
    pub(crate) fn of(config: &Config, sources: Sources, dim: usize) -> Basis {
        let align = config.align.clone().unwrap_or_default().resolved(dim);
        // It is of the training afterwards.
        let align = AlignConfig { weight: 0.0, ..align };
        Basis {
            seed: align.seed.unwrap_or(config.seed),
            align,
            lanes: config.train.lanes,
            validation_parts: config.train.validation_parts,
            validation_tail: config.train.validation_tail,
            shuffle_images: config.data.shuffle_images,
            sources,
        }
    }

    /// How `other` differs, for a message.
    pub(crate) fn difference(&self, other: &Basis) -> Option<&'static str> {
        match (self == other, self.sources == other.sources) {
            (true, _) => None,
            (_, true) => Some(
                "was made with other settings: align, seed, train.lanes, \
                               train.validation_parts, train.validation_tail or data.shuffle_images",
            ),
            (_, false) => Some("was made of another dataset or feature store"),
        }
    }
}

/// What the samples hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// Pictures with a feature.
    pub images: u64,
    /// Pairs in the training samples, without held-out images.
    pub pairs: u64,
    /// Those that batches are drawn from.
    pub kept: u64,
    /// Impressions of held-out images that judge.
    pub judges: u64,
    /// Those that were clicked.
    pub clicked: u64,
}

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    pub basis: Basis,
    /// The encoder of the features, and its hash.
    pub encoder: String,
    pub encoder_hash: String,
    /// Numbers of a feature (F).
    pub features: usize,
    /// What the samples hold.
    pub found: Found,
    pub step: u64,
    /// The sum of the losses since the last look, and their number.
    pub losses: (f64, u64),
    /// What each look said; none without held-out images.
    pub looks: Vec<Look>,
    /// The step whose map is the result, so far.
    pub chosen: u64,
    /// Why no step was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lack: Option<String>,
}

/// A map, whole: what `ams align` leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Aligned {
    pub(crate) card: Card,
    pub(crate) components: Components,
    /// The map (D, P).
    pub(crate) map: Vec<f32>,
}

impl Aligned {
    /// Reads the result in the folder of a run.
    ///
    /// # Errors
    /// If there is none, or it is damaged.
    pub fn open(run: &Path) -> Result<Aligned> {
        let place = run.join(ALIGNED);
        if !place.exists() {
            let what = "holds no aligned map; run `ams align` with the configuration of this run";
            return Err(Error::content(run, what));
        }
        read_map(&Folder::open(&place, FORMAT)?)
    }

    /// `store`, with the vectors of the map in the folder `run` in place of its features; the map
    /// has to be that of `config` and `sources`.
    ///
    /// # Errors
    /// If there is no such map, or it is damaged.
    pub(crate) fn before(
        config: &Config,
        run: &Path,
        sources: &Sources,
        store: FeatureStore,
    ) -> Result<FeatureStore> {
        let aligned = Aligned::open(run)?;
        let sources = Sources { further: Vec::new(), ..sources.clone() };
        if let Some(what) = aligned.card.basis.difference(&Basis::of(config, sources, store.dim()))
        {
            let what = format!("{what}; train again with --replace");
            return Err(Error::content(run.join(ALIGNED), what));
        }
        aligned.check(&store)?;
        Ok(store.projected(aligned.projection()))
    }

    /// The width of a vector (D).
    pub fn width(&self) -> usize {
        self.card.basis.align.resolved_shape()[0]
    }

    /// The vectors, of length 1 or 0, of images of `store`; (n, D).
    ///
    /// # Errors
    /// If the store has features of another encoder.
    pub(crate) fn of(&self, store: &FeatureStore, keys: &[u64]) -> Result<Vec<f32>> {
        self.check(store)?;
        let x = self.components.of(store, keys);
        let (mut vectors, mut lengths) = (Vec::new(), Vec::new());
        let shape = [self.width(), self.components.shape()[1]];
        align::embed(shape, &x, &self.map, &mut vectors, &mut lengths);
        Ok(vectors)
    }

    /// The map from a feature (F) to an aligned vector (D), as a feature store applies it.
    pub fn projection(&self) -> Projection {
        let [features, count] = self.components.shape();
        let mut components = vec![0.0; self.width() * features];
        let of = &self.components.components;
        let shape = [self.width(), features, count];
        linalg::a_b(shape, &self.map, of, 1.0, Write::Overwrite, &mut components);
        let mean = self.components.mean.clone();
        Projection { normalize: Normalize::Rows, mean, components, unit: true }
    }

    /// Whether a store holds features of the encoder that the map was made of.
    ///
    /// # Errors
    /// The two encoders.
    fn check(&self, store: &FeatureStore) -> Result<()> {
        let card = store.card();
        if (&card.encoder_hash, card.dim) == (&self.card.encoder_hash, self.card.features) {
            return Ok(());
        }
        let what = format!(
            "the map was made of features of {} ({} numbers, {}), but the store has those of {} ({} numbers, {})",
            self.card.encoder,
            self.card.features,
            self.card.encoder_hash,
            card.encoder,
            card.dim,
            card.encoder_hash
        );
        Err(Error::Config { key: "data.images".to_owned(), what })
    }

    fn write(&self, folder: &mut FolderWriter) -> Result<()> {
        let Components { mean, scales, components } = &self.components;
        let ([features, count], width) = (self.components.shape(), self.width());
        let tensors = [
            Tensor::f32("mean", &[features], mean),
            Tensor::f32("scales", &[count], scales),
            Tensor::f32("components", &[count, features], components),
            Tensor::f32("map", &[width, count], &self.map),
        ];
        Ok(folder.add_tensors(MAP, &tensors)?)
    }

    /// Makes this the result in the folder of a run, and removes unfinished work.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn finish(&self, run: &RunFolder) -> Result<()> {
        let mut folder = FolderWriter::create(&run.here().join(ALIGNED))?;
        self.write(&mut folder)?;
        folder.finish(FORMAT, &self.card)?;
        run.commit(&[format!("{ALIGNED}/{MAP}")], &format!("{ALIGNED}/{MANIFEST}"))?;
        remove_folder(&run.here().join(ALIGNING))?;
        remove_kept(run, |name| name.starts_with(&format!("{ALIGNING}/")))
    }

    /// As [`Aligned::save`], where the run is kept.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn keep(&self, weights: &Weights, run: &RunFolder) -> Result<()> {
        self.save(weights, run.here())?;
        let state = format!("{ALIGNING}/step-{}/", self.card.step);
        let files = [MAP, STATE].map(|file| format!("{state}{file}"));
        run.commit(&files, &format!("{state}{MANIFEST}"))?;
        let is_state = |name: &str| name.starts_with(&format!("{ALIGNING}/"));
        remove_kept(run, |name| is_state(name) && !name.starts_with(&state))
    }

    /// Writes the state after its step, and removes earlier ones.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn save(&self, weights: &Weights, run: &Path) -> Result<()> {
        let states = run.join(ALIGNING);
        let place = states.join(format!("step-{}", self.card.step));
        if !place.exists() {
            let mut folder = FolderWriter::create(&place)?;
            self.write(&mut folder)?;
            let shape = [self.width(), self.components.shape()[1]];
            let Weights { w, m, v } = weights;
            let tensors = [("w", w), ("m", m), ("v", v)];
            let tensors = tensors.map(|(name, values)| Tensor::f32(name, &shape, values));
            folder.add_tensors(STATE, &tensors)?;
            folder.finish(FORMAT, &self.card)?;
        }
        for (step, place) in list(&states)? {
            if step != self.card.step {
                remove_folder(&place)?;
            }
        }
        Ok(())
    }
}

/// The newest state in the folder of a run, if there is one.
///
/// # Errors
/// If it is damaged.
pub(crate) fn newest(run: &Path) -> Result<Option<(Aligned, Weights)>> {
    let Some((_, place)) = list(&run.join(ALIGNING))?.pop() else { return Ok(None) };
    let folder: Folder<Card> = Folder::open(&place, FORMAT)?;
    let aligned = read_map(&folder)?;
    let shape = [aligned.width(), aligned.components.shape()[1]];
    let file = folder.tensors(STATE)?;
    let read = |name| Ok::<_, Error>(file.any_f32(name, &shape)?.to_vec());
    let weights = Weights { w: read("w")?, m: read("m")?, v: read("v")? };
    Ok(Some((aligned, weights)))
}

/// Whether the folder of a run has a result, and whether it has unfinished work.
///
/// # Errors
/// If it cannot be listed.
pub(crate) fn state_of(run: &Path) -> Result<(bool, bool)> {
    Ok((run.join(ALIGNED).exists(), !list(&run.join(ALIGNING))?.is_empty()))
}

/// Removes result and unfinished work.
///
/// # Errors
/// If something cannot be removed.
pub(crate) fn clear(run: &Path) -> Result<()> {
    remove_folder(&run.join(ALIGNED))?;
    Ok(remove_folder(&run.join(ALIGNING))?)
}

/// Removes files of a run where it is kept, if it is.
fn remove_kept(run: &RunFolder, is_old: impl Fn(&str) -> bool) -> Result<()> {
    let old = run.list()?.into_iter().filter(|name| is_old(name)).collect();
    run.remove(old, MANIFEST)
}

/// As [`clear`], where the run is kept.
///
/// # Errors
/// If something cannot be removed.
pub(crate) fn clear_kept(run: &RunFolder) -> Result<()> {
    let is_ours = |name: &str| {
        [ALIGNED, ALIGNING].iter().any(|folder| name.split('/').next() == Some(folder))
    };
    remove_kept(run, is_ours)
}

/// Makes result and unfinished work here those of a run that is kept elsewhere, where the files
/// `names` are: the result, or the newest state without one.
///
/// # Errors
/// If a file cannot be fetched, or what is here cannot be removed.
pub(crate) fn fetch(run: &RunFolder, names: &[String]) -> Result<()> {
    clear(run.here())?;
    let step = |folder: &str| folder.strip_prefix("step-")?.parse::<u64>().ok();
    let states = whole(names, ALIGNING, MANIFEST).into_iter().filter_map(step);
    let newest = states.max();
    let result = format!("{ALIGNED}/{MANIFEST}");
    let place = match newest {
        _ if names.contains(&result) => format!("{ALIGNED}/"),
        Some(step) => format!("{ALIGNING}/step-{step}/"),
        None => return Ok(()),
    };
    let files = names.iter().filter(|name| name.starts_with(&place)).cloned();
    run.fetch(&files.collect::<Vec<_>>())
}

/// Fetches the result that the first process made, if the run is kept elsewhere.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn fetch_result(run: &RunFolder) -> Result<()> {
    if run.is_kept() {
        fetch(run, &[MAP, MANIFEST].map(|file| format!("{ALIGNED}/{file}")))?;
    }
    Ok(())
}

/// The finished states, oldest first.
fn list(states: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(states) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(states))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(states))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

fn read_map(folder: &Folder<Card>) -> Result<Aligned> {
    let card = folder.manifest.meta.clone();
    let (features, align) = (card.features, &card.basis.align);
    let [width, count] = align.resolved_shape();
    let file = folder.tensors(MAP)?;
    let read = |name, shape: &[usize]| Ok::<_, Error>(file.any_f32(name, shape)?.to_vec());
    let components = Components {
        mean: read("mean", &[features])?,
        scales: read("scales", &[count])?,
        components: read("components", &[count, features])?,
    };
    let map = read("map", &[width, count])?;
    Ok(Aligned { card, components, map })
}
