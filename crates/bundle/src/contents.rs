//! The image table of a bundle, and those of further contents: which picture has which embeddings.
//!
//! ```text
//! image_table.safetensors   keys u64 (m) ascending, for each tower its name: f32 (m, its width)
//! pictures.safetensors      names u64 (p) ascending, keys u64 (p): the image a name means
//! projection.safetensors    only where towers see principal components of features, for new images:
//!                           mean f32 (F), components f32 (P, F)
//! ```
//! What belongs to a further content called text has `text.` before its name.

use ams_data::{ImageKey, PictureName};
use ams_model::{ContentBatch, NO_IMAGE, Sketches};

use crate::error::Result;
use crate::files::{IMAGE_TABLE, Meta, PICTURES, PROJECTION};
use crate::folder::{Folder, FolderWriter, Tensor};
use crate::index::Index;
use crate::input::Keys;
use crate::spec::{ContentTowers, Spec, TowerSpec};

/// The numbers of one content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContentTable {
    /// Hashed names of pictures and the image keys they mean, ascending by name; (p).
    pub pictures: Vec<(u64, u64)>,
    /// The images that have embeddings, ascending; (m).
    pub keys: Vec<u64>,
    /// Their embeddings by each of the content's towers; (m, its width).
    pub embeddings: Vec<Vec<f32>>,
    /// What the towers see of a feature, unless that is all of it.
    pub projection: Option<Projection>,
}

/// From a feature (F) to its principal components (P): components * (feature - mean).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Projection {
    /// (F)
    pub mean: Vec<f32>,
    /// (P, F)
    pub components: Vec<f32>,
}

/// What stands before the names of each content's tensors. Bundles without contents have the files too, with
/// nothing in them.
fn prefixes(spec: &Spec) -> Vec<String> {
    let further = spec.further.iter().map(|content| format!("{}.", content.name));
    std::iter::once(String::new()).chain(further).collect()
}

/// The towers of content `content`.
fn towers_of(spec: &Spec, content: usize) -> Vec<TowerSpec> {
    spec.towers().into_iter().filter(|tower| tower.content == content).collect()
}

/// Writes `tables`, one for each of the spec's contents, or one without.
pub(crate) fn write(spec: &Spec, tables: &[ContentTable], folder: &mut FolderWriter) -> Result<()> {
    let prefixes = prefixes(spec);
    assert_eq!(tables.len(), prefixes.len(), "a table for every content");
    let mut floats: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
    let mut projections = floats.clone();
    let (mut keys, mut names) = (Vec::new(), Vec::new());
    for (content, (table, prefix)) in tables.iter().zip(prefixes).enumerate() {
        let towers = towers_of(spec, content);
        assert_eq!(table.embeddings.len(), towers.len(), "embeddings of each tower");
        keys.push((format!("{prefix}keys"), &table.keys[..]));
        for (tower, values) in towers.into_iter().zip(&table.embeddings) {
            let shape = vec![table.keys.len(), tower.dim()];
            floats.push((tower.name, shape, values));
        }
        let (hashes, means): (Vec<u64>, Vec<u64>) = table.pictures.iter().copied().unzip();
        names.extend([(format!("{prefix}names"), hashes), (format!("{prefix}keys"), means)]);
        if let Some(Projection { mean, components }) = &table.projection {
            let shape = vec![components.len() / mean.len(), mean.len()];
            projections.push((format!("{prefix}mean"), vec![mean.len()], mean));
            projections.push((format!("{prefix}components"), shape, components));
        }
    }
    let keys = keys.iter().map(|(name, values)| Tensor::u64(name, values));
    let floats = floats.iter().map(|(name, shape, values)| Tensor::f32(name, shape, values));
    folder.add_tensors(IMAGE_TABLE, &keys.chain(floats).collect::<Vec<_>>())?;
    let names = names.iter().map(|(name, values)| Tensor::u64(name, values));
    folder.add_tensors(PICTURES, &names.collect::<Vec<_>>())?;
    if !projections.is_empty() {
        let tensors =
            projections.iter().map(|(name, shape, values)| Tensor::f32(name, shape, values));
        folder.add_tensors(PROJECTION, &tensors.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// One content, ready to be looked up.
#[derive(Debug)]
pub(crate) struct Content {
    towers: ContentTowers,
    /// Which of the spec's towers is the content's first.
    first_tower: usize,
    images: Index,
    /// By tower of the content, its width and (m, width).
    tables: Vec<(usize, Vec<f32>)>,
    names: Index,
    name_keys: Vec<ImageKey>,
}

/// The embeddings that a block of groups uses of one content.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContentScratch {
    ads: Embedded,
    behaviors: Embedded,
    sketches: Vec<f32>,
    sketch_dim: usize,
    sketch_ads: Vec<u32>,
    sketch_behaviors: Vec<u32>,
}

/// The embeddings of one side's images, in order of use.
#[derive(Clone, Debug, Default)]
struct Embedded {
    /// (uses with an image, D).
    embeddings: Vec<f32>,
    /// Of each impression or behavior: its place in `embeddings`, or [`NO_IMAGE`].
    images: Vec<u32>,
}

/// Reads the contents of a bundle; at least one, which knows no picture if there is none.
///
/// # Errors
/// If a tensor is missing or has another shape.
pub(crate) fn read(folder: &Folder<Meta>, spec: &Spec) -> Result<Vec<Content>> {
    let (table, pictures) = (folder.tensors(IMAGE_TABLE)?, folder.tensors(PICTURES)?);
    check_projections(folder, spec)?;
    let towers = spec.content_towers();
    let mut first_tower = 0;
    let mut contents = Vec::new();
    for (content, prefix) in prefixes(spec).into_iter().enumerate() {
        let images = table.index(&format!("{prefix}keys"))?;
        let of = towers_of(spec, content);
        let read = |tower: &TowerSpec| {
            let values = table.f32(&tower.name, &[images.len(), tower.dim()])?;
            Ok((tower.dim(), values))
        };
        let tables = of.iter().map(read).collect::<Result<Vec<_>>>()?;
        let names = pictures.index(&format!("{prefix}names"))?;
        let keys = pictures.u64s(&format!("{prefix}keys"), names.len())?;
        contents.push(Content {
            towers: towers.get(content).copied().unwrap_or_default(),
            first_tower,
            images,
            tables,
            names,
            name_keys: keys.into_iter().map(ImageKey).collect(),
        });
        first_tower += of.len();
    }
    Ok(contents)
}

/// Projections are for new images; here they are only held against the spec.
fn check_projections(folder: &Folder<Meta>, spec: &Spec) -> Result<()> {
    let contents = spec.contents();
    if contents.iter().all(|(_, source)| source.pca.is_none()) {
        return Ok(());
    }
    let file = folder.tensors(PROJECTION)?;
    for ((_, source), prefix) in contents.into_iter().zip(prefixes(spec)) {
        if let Some(pca) = source.pca {
            file.f32(&format!("{prefix}mean"), &[source.dim])?;
            file.f32(&format!("{prefix}components"), &[pca, source.dim])?;
        }
    }
    Ok(())
}

impl Content {
    /// The image a picture's name means, if it is known.
    pub fn key(&self, name: PictureName) -> ImageKey {
        self.names.find(name.0).map_or(ImageKey::NONE, |place| self.name_keys[place as usize])
    }

    /// Whether `key` has embeddings.
    pub fn has(&self, key: ImageKey) -> bool {
        self.images.find(key.0).is_some()
    }

    /// What the content's tower number `tower` makes of `key`, if that is known.
    pub fn embedding(&self, tower: usize, key: ImageKey) -> Option<&[f32]> {
        let (dim, table) = &self.tables[tower];
        let found = key.is_some().then(|| self.images.find(key.0))??;
        Some(&table[found as usize * dim..][..*dim])
    }

    /// Finds the embeddings of every use in `keys`.
    pub fn embed(&self, keys: &Keys, scratch: &mut ContentScratch) {
        let ContentTowers { ad, behavior, sketch } = self.towers;
        for (tower, keys, to) in
            [(ad, &keys.ads, &mut scratch.ads), (behavior, &keys.behaviors, &mut scratch.behaviors)]
        {
            to.embeddings.clear();
            self.look_up(tower, keys, &mut to.embeddings, &mut to.images);
        }
        scratch.sketch_dim = sketch.map_or(0, |tower| self.tables[tower - self.first_tower].0);
        scratch.sketches.clear();
        for (keys, to) in
            [(&keys.ads, &mut scratch.sketch_ads), (&keys.behaviors, &mut scratch.sketch_behaviors)]
        {
            self.look_up(sketch, keys, &mut scratch.sketches, to);
        }
    }

    /// Appends what `tower` makes of each of `keys` that is known; overwrites `places` with where that is.
    fn look_up(
        &self,
        tower: Option<usize>,
        keys: &[ImageKey],
        embeddings: &mut Vec<f32>,
        places: &mut Vec<u32>,
    ) {
        places.clear();
        let Some(tower) = tower else {
            places.resize(keys.len(), NO_IMAGE);
            return;
        };
        let (dim, table) = &self.tables[tower - self.first_tower];
        for key in keys {
            let found = if key.is_some() { self.images.find(key.0) } else { None };
            places.push(found.map_or(NO_IMAGE, |found| {
                embeddings.extend_from_slice(&table[found as usize * dim..][..*dim]);
                (embeddings.len() / dim) as u32 - 1
            }));
        }
    }
}

impl ContentScratch {
    /// As the network takes it.
    pub fn batch(&self) -> ContentBatch<'_> {
        ContentBatch {
            ad_embeddings: &self.ads.embeddings,
            ad_images: &self.ads.images,
            behavior_embeddings: &self.behaviors.embeddings,
            behavior_images: &self.behaviors.images,
            sketches: Sketches {
                vectors: &self.sketches,
                dim: self.sketch_dim,
                ads: &self.sketch_ads,
                behaviors: &self.sketch_behaviors,
            },
        }
    }
}
