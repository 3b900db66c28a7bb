//! The image table of a bundle, and those of further contents: which picture has which embeddings.
//!
//! ```text
//! image_table.safetensors   keys u64 (m) ascending, for each tower its name: f32 (m, its width);
//!                           with semantic ids, for each level codes.1, codes.2, ..: u32 (m)
//! pictures.safetensors      names u64 (p) ascending, keys u64 (p): the image a name means
//! projection.safetensors    only where towers see principal components of features, for new images:
//!                           mean f32 (F), components f32 (P, F), whitened already
//! codebooks.safetensors     only with semantic ids, for new images: centers f32 (L, K, F)
//! ```
//! Tensors of a further content called text have the prefix `text.`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ams_data::{Groups, ImageKey, PictureName, Ragged};
use ams_model::linalg::{Codebooks, Projection};
use ams_model::{ContentBatch, NO_IMAGE, Sketches};

use crate::error::Result;
use crate::files::folder::{Folder, FolderWriter, OwnedTensor, Tensor};
use crate::files::layout::{BundleMeta, CODEBOOKS, IMAGE_TABLE, PICTURES, PROJECTION};
use crate::files::numbers::Numbers;
use crate::files::tensors::TensorFile;
use crate::input::{Keys, Semantic};
use crate::search::{self, SearchScratch};
use crate::spec::{ContentTowers, ImageSource, Spec, TowerSpec};
use crate::tables::keyed::KeyedTable;
use crate::tables::layer::{self, Layered, MergeSource, Position, SortedTable, Values};

/// The numbers of one content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContentTable {
    /// Hashed names of pictures and the image keys they mean, ascending by name; (p).
    pub pictures: Vec<(u64, u64)>,
    /// The images that have embeddings or codes, ascending; (m).
    pub keys: Vec<u64>,
    /// Their embeddings by each of the content's towers; (m, its width).
    pub embeddings: Vec<Vec<f32>>,
    /// Projection of features before the towers; `None` if towers see whole features.
    pub projection: Option<Projection>,
    /// Semantic ids, if the model sees those of this content.
    pub semantic: Option<CodeTable>,
}

/// The semantic ids of one content.
#[derive(Clone, Debug, PartialEq)]
pub struct CodeTable {
    /// The codebooks of the levels that the model sees.
    pub codebooks: Codebooks,
    /// For each level the code of each image; (m).
    pub codes: Vec<Vec<u32>>,
}

/// The names of the tensors of codes, level by level; none for a content without.
fn code_names(spec: &Spec, content: usize) -> impl Iterator<Item = String> {
    let levels = spec.semantic().filter(|_| content == 0).map_or(0, |of| of.levels);
    (1..=levels).map(|level| format!("codes.{level}"))
}

/// What stands before the names of each content's tensors. Bundles without contents have the files
/// too, with nothing in them.
fn prefixes(spec: &Spec) -> Vec<String> {
    let further = spec.further.iter().map(|content| format!("{}.", content.name));
    std::iter::once(String::new()).chain(further).collect()
}

/// The towers of content `content`.
fn towers_of(spec: &Spec, content: usize) -> Vec<TowerSpec> {
    spec.towers().into_iter().filter(|tower| tower.content == content).collect()
}

/// The tables of images, one for each content.
pub(crate) fn image_tables(spec: &Spec) -> Vec<KeyedTable> {
    let table = |(content, prefix): (usize, String)| {
        let towers = towers_of(spec, content).into_iter().map(|tower| tower.name);
        KeyedTable {
            name: format!("{prefix}images"),
            keys: format!("{prefix}keys"),
            columns: towers.chain(code_names(spec, content)).collect(),
            lists: Vec::new(),
        }
    };
    prefixes(spec).into_iter().enumerate().map(table).collect()
}

/// The tables of pictures' names, one for each content.
pub(crate) fn name_tables(spec: &Spec) -> Vec<KeyedTable> {
    let table = |prefix: String| KeyedTable {
        name: format!("{prefix}pictures"),
        keys: format!("{prefix}names"),
        columns: vec![format!("{prefix}keys")],
        lists: Vec::new(),
    };
    prefixes(spec).into_iter().map(table).collect()
}

/// Writes `tables`, one for each of the spec's contents, or one without.
pub(crate) fn write(spec: &Spec, tables: &[ContentTable], folder: &mut FolderWriter) -> Result<()> {
    let prefixes = prefixes(spec);
    assert_eq!(tables.len(), prefixes.len(), "a table for every content");
    let mut floats: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
    let mut projections = floats.clone();
    let (mut keys, mut names) = (Vec::new(), Vec::new());
    let mut codes: Vec<(String, &[u32])> = Vec::new();
    for (content, (table, prefix)) in tables.iter().zip(prefixes).enumerate() {
        let towers = towers_of(spec, content);
        assert_eq!(table.embeddings.len(), towers.len(), "embeddings of each tower");
        keys.push((format!("{prefix}keys"), &table.keys[..]));
        for (tower, values) in towers.into_iter().zip(&table.embeddings) {
            let shape = vec![table.keys.len(), tower.dim()];
            floats.push((tower.name, shape, values));
        }
        let of_levels = table.semantic.iter().flat_map(|semantic| &semantic.codes);
        codes.extend(code_names(spec, content).zip(of_levels.map(|codes| &codes[..])));
        let (hashes, means): (Vec<u64>, Vec<u64>) = table.pictures.iter().copied().unzip();
        names.extend([(format!("{prefix}names"), hashes), (format!("{prefix}keys"), means)]);
        if let Some(Projection { mean, components, .. }) = &table.projection {
            let shape = vec![components.len() / mean.len(), mean.len()];
            projections.push((format!("{prefix}mean"), vec![mean.len()], mean));
            projections.push((format!("{prefix}components"), shape, components));
        }
    }
    let keys = keys.iter().map(|(name, values)| Tensor::u64(name, values));
    let floats = floats.iter().map(|(name, shape, values)| Tensor::f32(name, shape, values));
    let codes = codes.iter().map(|(name, values)| Tensor::u32(name, values));
    folder.add_tensors(IMAGE_TABLE, &keys.chain(floats).chain(codes).collect::<Vec<_>>())?;
    let names = names.iter().map(|(name, values)| Tensor::u64(name, values));
    folder.add_tensors(PICTURES, &names.collect::<Vec<_>>())?;
    if !projections.is_empty() {
        let tensors =
            projections.iter().map(|(name, shape, values)| Tensor::f32(name, shape, values));
        folder.add_tensors(PROJECTION, &tensors.collect::<Vec<_>>())?;
    }
    if let Some(CodeTable { codebooks, .. }) = &tables[0].semantic {
        let (shape, centers) = (codebooks.shape(), codebooks.centers());
        folder.add_tensors(CODEBOOKS, &[Tensor::f32("centers", &shape, &centers)])?;
    }
    Ok(())
}

/// What is known of one image.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ImageRecord {
    /// Its embeddings by each of the content's towers.
    pub embeddings: Vec<Vec<f32>>,
    /// Its codes (L), if the model sees semantic ids of this content.
    pub codes: Vec<u32>,
}

/// Changes of one content, by hash; no value: it is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContentChanges {
    /// Images by key.
    pub images: BTreeMap<u64, Option<ImageRecord>>,
    /// The image a name means.
    pub pictures: BTreeMap<u64, Option<u64>>,
}

impl ContentChanges {
    pub(crate) fn is_empty(&self) -> bool {
        self.images.is_empty() && self.pictures.is_empty()
    }

    /// Removes the change of a name, and of its image if that has no other name.
    pub(crate) fn forget(&mut self, picture: PictureName) {
        let said = self.pictures.remove(&picture.0);
        if let Some(Some(key)) = said
            && !self.pictures.values().any(|other| *other == Some(key))
        {
            self.images.remove(&key);
        }
    }

    /// The part of these changes that differs from a content, with the images of changed names.
    pub(crate) fn news(&self, known: &Content) -> ContentChanges {
        let is_news = |name: u64, key: Option<u64>| match key {
            Some(key) => {
                let key = ImageKey(key);
                known.key(PictureName(name)) != key || !known.has(key)
            }
            None => known.key(PictureName(name)).is_some(),
        };
        let pictures = self.pictures.iter().map(|(name, key)| (*name, *key));
        let pictures: BTreeMap<u64, Option<u64>> =
            pictures.filter(|(name, key)| is_news(*name, *key)).collect();
        let named: BTreeSet<u64> = pictures.values().copied().flatten().collect();
        let image = |(key, image): &(&u64, &Option<_>)| {
            named.contains(key) || known.has(ImageKey(**key)) != image.is_some()
        };
        let images = self.images.iter().filter(image);
        ContentChanges { images: images.map(|(key, it)| (*key, it.clone())).collect(), pictures }
    }
}

/// Writes the changes of all contents as files of a delta. Returns how many images and names
/// change.
pub(crate) fn write_changes(
    spec: &Spec,
    changes: &[ContentChanges],
    folder: &mut FolderWriter,
) -> Result<(usize, usize)> {
    let nothing = ContentChanges::default();
    let (mut table, mut names, mut counts) = (Vec::new(), Vec::new(), (0, 0));
    for (content, prefix) in prefixes(spec).into_iter().enumerate() {
        let ContentChanges { images, pictures } = changes.get(content).unwrap_or(&nothing);
        counts = (counts.0 + images.len(), counts.1 + pictures.len());
        for (place, tower) in towers_of(spec, content).into_iter().enumerate() {
            let zeros = vec![0.0; tower.dim()];
            let of = |image: &Option<ImageRecord>| match image {
                Some(image) => image.embeddings[place].clone(),
                None => zeros.clone(),
            };
            let values = images.values().flat_map(of).collect();
            table.push((tower.name, OwnedTensor::F32([images.len(), zeros.len()], values)));
        }
        for (level, name) in code_names(spec, content).enumerate() {
            let code = |image: &Option<ImageRecord>| image.as_ref().map_or(0, |it| it.codes[level]);
            table.push((name, OwnedTensor::U32(images.values().map(code).collect())));
        }
        let (keys, gone) = layer::keys(images);
        table.push((format!("{prefix}keys"), OwnedTensor::U64(keys)));
        table.push((format!("{prefix}keys.gone"), OwnedTensor::U32(gone)));
        let (hashes, gone) = layer::keys(pictures);
        let means = pictures.values().map(|key| key.unwrap_or(ImageKey::NONE.0)).collect();
        names.push((format!("{prefix}names"), OwnedTensor::U64(hashes)));
        names.push((format!("{prefix}names.gone"), OwnedTensor::U32(gone)));
        names.push((format!("{prefix}keys"), OwnedTensor::U64(means)));
    }
    folder.add_owned(IMAGE_TABLE, &table)?;
    folder.add_owned(PICTURES, &names)?;
    Ok(counts)
}

/// One content, ready to be looked up.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    towers: ContentTowers,
    /// Which of the spec's towers is the content's first.
    first_tower: usize,
    images: Layered<Images>,
    names: Layered<Names>,
}

/// What is known of images, by place.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    /// Embeddings by each tower of the content: its width and (m, width).
    towers: Vec<(usize, Numbers<f32>)>,
    /// Codes of each level, if there are semantic ids; (m).
    codes: Vec<Numbers<u32>>,
}

/// The image each name means, by place.
#[derive(Clone, Debug)]
pub(crate) struct Names(Numbers<u64>);

impl Images {
    /// The embedding of the image at `at` by tower `tower` of the content.
    fn embedding(&self, tower: usize, at: usize) -> &[f32] {
        let (dim, table) = &self.towers[tower];
        &table[at * dim..][..*dim]
    }

    /// The codes of the image at `at`.
    fn codes(&self, at: usize) -> impl Iterator<Item = u32> {
        self.codes.iter().map(move |codes| codes[at])
    }
}

impl Values for Images {
    fn merged(&self, newer: &Images, order: &[MergeSource]) -> Images {
        let tower = |tower: usize| {
            let mut values = Vec::with_capacity(order.len() * self.towers[tower].0);
            for from in order {
                values.extend_from_slice(match *from {
                    MergeSource::Older(at) => self.embedding(tower, at),
                    MergeSource::Newer(at) => newer.embedding(tower, at),
                });
            }
            (self.towers[tower].0, Numbers::from(values))
        };
        let level = |level: usize| {
            let code = |from: &MergeSource| match *from {
                MergeSource::Older(at) => self.codes[level][at],
                MergeSource::Newer(at) => newer.codes[level][at],
            };
            Numbers::from(order.iter().map(code).collect::<Vec<u32>>())
        };
        Images {
            towers: (0..self.towers.len()).map(tower).collect(),
            codes: (0..self.codes.len()).map(level).collect(),
        }
    }
}

impl Values for Names {
    fn merged(&self, newer: &Names, order: &[MergeSource]) -> Names {
        let key = |from: &MergeSource| match *from {
            MergeSource::Older(at) => self.0[at],
            MergeSource::Newer(at) => newer.0[at],
        };
        Names(Numbers::from(order.iter().map(key).collect::<Vec<u64>>()))
    }
}

/// The tables of one content in a bundle or delta.
#[derive(Clone, Debug)]
pub(crate) struct ContentLayers {
    pub images: Arc<SortedTable<Images>>,
    pub names: Arc<SortedTable<Names>>,
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
pub(crate) fn read(folder: &Folder<BundleMeta>, spec: &Spec) -> Result<Vec<Content>> {
    let tables = read_tables(&folder.tensors(IMAGE_TABLE)?, &folder.tensors(PICTURES)?, spec)?;
    let towers = spec.content_towers();
    let mut first_tower = 0;
    let mut contents = Vec::new();
    for (content, ContentLayers { images, names }) in tables.into_iter().enumerate() {
        contents.push(Content {
            towers: towers.get(content).copied().unwrap_or_default(),
            first_tower,
            images: Layered::of(images),
            names: Layered::of(names),
        });
        first_tower += towers_of(spec, content).len();
    }
    Ok(contents)
}

/// Reads the tables of all contents, of a bundle or of a delta, from the files of images and of
/// names.
pub(crate) fn read_tables(
    table: &TensorFile,
    pictures: &TensorFile,
    spec: &Spec,
) -> Result<Vec<ContentLayers>> {
    let mut tables = Vec::new();
    for (content, prefix) in prefixes(spec).into_iter().enumerate() {
        let (index, gone) = table.keys(&format!("{prefix}keys"))?;
        let read = |tower: &TowerSpec| {
            let values = table.f32(&tower.name, &[index.len(), tower.dim()])?;
            Ok((tower.dim(), values))
        };
        let towers = towers_of(spec, content).iter().map(read).collect::<Result<Vec<_>>>()?;
        let read = |name: String| table.u32s(&name, index.len());
        let codes = code_names(spec, content).map(read).collect::<Result<Vec<_>>>()?;
        let images = SortedTable::new(index, gone, Images { towers, codes });
        let (index, gone) = pictures.keys(&format!("{prefix}names"))?;
        let keys = pictures.u64s(&format!("{prefix}keys"), index.len())?;
        let names = SortedTable::new(index, gone, Names(keys));
        tables.push(ContentLayers { images: Arc::new(images), names: Arc::new(names) });
    }
    Ok(tables)
}

/// The projection of each content; `None` where towers see whole features.
///
/// # Errors
/// If a tensor is missing or has another shape.
pub(crate) fn read_projections(
    folder: &Folder<BundleMeta>,
    spec: &Spec,
) -> Result<Vec<Option<Projection>>> {
    let contents = spec.contents();
    if contents.iter().all(|(_, source)| source.pca.is_none()) {
        return Ok(contents.iter().map(|_| None).collect());
    }
    let file = folder.tensors(PROJECTION)?;
    let read = |((_, source), prefix): ((&str, &ImageSource), String)| {
        let Some(pca) = source.pca else { return Ok(None) };
        let mean = file.f32(&format!("{prefix}mean"), &[source.dim])?.to_vec();
        let components = file.f32(&format!("{prefix}components"), &[pca, source.dim])?.to_vec();
        Ok(Some(Projection { normalize: source.normalize, mean, components, unit: source.aligned }))
    };
    contents.into_iter().zip(prefixes(spec)).map(read).collect()
}

/// The codebooks of the semantic ids, if the model sees some.
///
/// # Errors
/// If the tensor is missing or has another shape.
pub(crate) fn read_codebooks(
    folder: &Folder<BundleMeta>,
    spec: &Spec,
) -> Result<Option<Codebooks>> {
    let Some(Semantic { levels, size, .. }) = spec.semantic() else { return Ok(None) };
    let dim = spec.contents()[0].1.dim;
    let centers = folder.tensors(CODEBOOKS)?.f32("centers", &[levels, size, dim])?;
    Ok(Some(Codebooks::new([levels, size, dim], &centers)))
}

impl Content {
    /// A copy with the changes of a delta.
    pub(crate) fn apply(&self, delta: &ContentLayers) -> Content {
        Content {
            images: self.images.apply(&delta.images),
            names: self.names.apply(&delta.names),
            ..self.clone()
        }
    }

    /// All changes that deltas made to this content.
    pub(crate) fn changes(&self) -> ContentChanges {
        let image = |(images, at): (&Images, usize)| ImageRecord {
            embeddings: (0..images.towers.len())
                .map(|tower| images.embedding(tower, at).to_vec())
                .collect(),
            codes: images.codes(at).collect(),
        };
        let images = self.images.changes();
        let names = self.names.changes();
        ContentChanges {
            images: images.map(|(key, it)| (key, it.map(|it| image(self.images.at(it))))).collect(),
            pictures: names.map(|(name, it)| (name, it.map(|it| self.named(it)))).collect(),
        }
    }

    fn named(&self, found: Position) -> u64 {
        let (names, at) = self.names.at(found);
        names.0[at]
    }

    /// The image a picture's name means, if it is known.
    pub(crate) fn key(&self, name: PictureName) -> ImageKey {
        self.names.find(name.0).map_or(ImageKey::NONE, |found| ImageKey(self.named(found)))
    }

    /// Whether `key` has embeddings or codes.
    pub(crate) fn has(&self, key: ImageKey) -> bool {
        self.images.find(key.0).is_some()
    }

    /// The embedding of `key` by the content's tower number `tower`, if it is known.
    pub(crate) fn embedding(&self, tower: usize, key: ImageKey) -> Option<&[f32]> {
        let (images, at) = key.is_some().then(|| self.images.get(key.0))??;
        Some(images.embedding(tower, at))
    }

    /// Appends the codes of `key`, if it is known.
    pub(crate) fn push_codes(&self, key: ImageKey, to: &mut Vec<u32>) {
        if let Some((images, at)) = self.images.get(key.0) {
            to.extend(images.codes(at));
        }
    }

    /// Which behaviors of `groups` are kept for each impression, as [`search::by_pictures`] says.
    pub(crate) fn search(
        &self,
        groups: &Groups,
        keys: &Keys,
        keep: usize,
        scratch: &mut SearchScratch,
        kept: &mut Ragged<u32>,
    ) {
        let tower = self.towers.search.expect("the spec searches by this content");
        let vector = |key| self.embedding(tower - self.first_tower, key);
        search::by_pictures(groups, keys, self.dim(tower), keep, vector, scratch, kept);
    }

    /// Finds the embeddings of every use in `keys`.
    pub(crate) fn embed(&self, keys: &Keys, scratch: &mut ContentScratch) {
        let ContentTowers { ad, behavior, sketch, search: _ } = self.towers;
        for (tower, keys, to) in
            [(ad, &keys.ads, &mut scratch.ads), (behavior, &keys.behaviors, &mut scratch.behaviors)]
        {
            to.embeddings.clear();
            self.look_up(tower, keys, &mut to.embeddings, &mut to.images);
        }
        scratch.sketch_dim = sketch.map_or(0, |tower| self.dim(tower));
        scratch.sketches.clear();
        for (keys, to) in
            [(&keys.ads, &mut scratch.sketch_ads), (&keys.behaviors, &mut scratch.sketch_behaviors)]
        {
            self.look_up(sketch, keys, &mut scratch.sketches, to);
        }
    }

    /// Appends what `tower` makes of each of `keys` that is known; overwrites `places` with where
    /// that is.
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
        let (dim, tower) = (self.dim(tower), tower - self.first_tower);
        for &key in keys {
            places.push(self.embedding(tower, key).map_or(NO_IMAGE, |embedding| {
                embeddings.extend_from_slice(embedding);
                (embeddings.len() / dim) as u32 - 1
            }));
        }
    }

    /// Width of the spec's tower `tower`, one of the content's.
    fn dim(&self, tower: usize) -> usize {
        self.images.base().values.towers[tower - self.first_tower].0
    }
}

impl ContentScratch {
    /// As the network takes it.
    pub(crate) fn batch(&self) -> ContentBatch<'_> {
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
