//! A bundle in memory: the scorer.
//!
//! Runs the network exactly as the trainer's worker does, over rows looked up by id and images
//! embedded beforehand. An id without a row is left out of its list, which is the same sum as a row
//! of zeros; an image without an embedding is no image, for which the network has learned a vector.
//! Single-threaded and without locks: one [`Scratch`] per thread.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ams_data::{Groups, Id, ImageKey, PictureName, Ragged};
use ams_model::{Base, ContentBatch, Lists, RankBatch, RankNetwork, RankScratch};

use crate::changes::Changes;
use crate::contents::{self, Content, ContentScratch};
use crate::delta::{self, State};
use crate::embed::{Embedder, read_dense};
use crate::error::{Error, Result};
use crate::explain::{self, Explained};
use crate::files::{self, FORMAT, IDS, Meta, SAMPLES};
use crate::folder::{Folder, MANIFEST};
use crate::golden::{GOLDEN, Golden};
use crate::input::{Input, Keys};
use crate::items::{ITEMS, Items};
use crate::layer::Layered;
use crate::numbers::Memory;
use crate::page::{self, Missing, Ranked};
use crate::request::PageView;
use crate::rows;
use crate::similar::{self, Similar, Wanted};
use crate::spec::Spec;

/// Most a recomputed golden logit may differ from the trainer's, as a share of it where it is above
/// 1.
const GOLDEN_TOLERANCE: f32 = 1e-5;

/// A frozen model, ready to score. What it was published with is shared by all its states: a delta
/// makes another model of it, which costs what the deltas hold.
#[derive(Clone, Debug)]
pub struct Model {
    bundle: Arc<Bundle>,
    rows: rows::Layered,
    /// Images, then each further content.
    contents: Vec<Content>,
    items: Items,
    delta: State,
}

/// What does not change.
#[derive(Debug)]
struct Bundle {
    path: PathBuf,
    name: String,
    version: u64,
    memory: Memory,
    hash: String,
    meta: Meta,
    group_inputs: Vec<Input>,
    impression_inputs: Vec<Input>,
    behavior_inputs: Vec<Input>,
    network: RankNetwork,
    /// The weights W.
    w: Vec<f32>,
    embedder: Embedder,
    samples: Vec<PageView>,
}

/// Buffers of the scorer, reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// By content.
    keys: Vec<Keys>,
    ids: Ragged<Id>,
    /// For each of [`Model::inputs`], where in `rows` those of the known ids are.
    columns: Vec<Ragged<u32>>,
    /// The rows in use; (.., D).
    rows: Vec<f32>,
    /// For each of them, how many ids are unknown.
    unknown: Vec<usize>,
    contents: Vec<ContentScratch>,
    network: RankScratch,
}

impl Scratch {
    /// For each of [`Model::inputs`], how many of its ids had no row.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = usize> {
        self.unknown.iter().copied()
    }
}

impl Model {
    /// Opens a version (`<model>/<version>/`) or the highest version of a model (`<model>/`), with
    /// all its deltas. Everything is checked: hashes, shapes, orders; and the golden logits are
    /// computed again.
    ///
    /// # Errors
    /// If there is no bundle, a file is missing, changed or does not fit the spec, or a golden
    /// logit differs.
    pub fn open(dir: &Path) -> Result<Model> {
        let mut model = Model::open_bundle(dir)?;
        while let Some(next) = model.next()? {
            model = next;
        }
        Ok(model)
    }

    /// The same as it was published, without deltas.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_bundle(dir: &Path) -> Result<Model> {
        Model::open_bundle_in(dir, Memory::Mapped)
    }

    /// The same with its numbers in `memory`, and those of the deltas that follow.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_bundle_in(dir: &Path, memory: Memory) -> Result<Model> {
        let (path, name, version) = locate(dir)?;
        let folder = Folder::<Meta>::open_in(&path, FORMAT, memory)?;
        let meta = folder.manifest.meta.clone();
        check_meta(&meta).map_err(|what| Error::content(path.join(MANIFEST), what))?;
        let spec = &meta.spec;
        let network = RankNetwork::new(spec.rank_config());
        let (w, embedder) = read_dense(&folder, spec, &network)?;
        let hash = folder.manifest.hash();
        let model = Model {
            rows: Layered::new(rows::read(&folder.tensors(IDS)?, spec.dim)?),
            contents: contents::read(&folder, spec)?,
            items: read_items(&folder, spec)?,
            delta: State { number: 0, hash: hash.clone(), meta: None },
            bundle: Arc::new(Bundle {
                path,
                name,
                version,
                memory,
                hash,
                group_inputs: spec.group_inputs(),
                impression_inputs: spec.impression_inputs(),
                behavior_inputs: spec.behavior_inputs(),
                w,
                embedder,
                network,
                samples: read_samples(&folder)?,
                meta,
            }),
        };
        model.check_golden(&folder)?;
        Ok(model)
    }

    /// The model with the delta that follows, if there is one on disk, in the same kind of memory.
    ///
    /// # Errors
    /// If that is damaged or does not follow this model.
    pub fn next(&self) -> Result<Option<Model>> {
        let Some(delta) = delta::next(self)? else { return Ok(None) };
        let contents = self.contents.iter().zip(&delta.contents);
        Ok(Some(Model {
            bundle: Arc::clone(&self.bundle),
            rows: self.rows.with(&delta.rows),
            contents: contents.map(|(content, delta)| content.with(delta)).collect(),
            items: self.items.with(&delta.items),
            delta: delta.state,
        }))
    }

    /// Writes `changes` as a delta after the last one on disk, which others may have written since
    /// this model was opened, and returns the model with all of them. What is no news by then
    /// is left out; if that is everything, nothing is written.
    ///
    /// # Errors
    /// If another process writes for too long, a delta before is damaged, or it cannot be written;
    /// then nothing has changed.
    pub fn change(&self, changes: &Changes) -> Result<Model> {
        delta::write(self, changes)
    }

    /// Where the delta is, or will be, that [`Model::next`] opens.
    ///
    /// # Errors
    /// If the folder of deltas is there and cannot be listed.
    pub fn next_place(&self) -> Result<PathBuf> {
        Ok(delta::following(self.path(), self.deltas())?.0)
    }

    /// What each tower of content `content` (0: images) makes of a feature (F): as if the image had
    /// been there when the model was published.
    ///
    /// # Errors
    /// If the model has no such content, or the feature does not fit it.
    pub fn embed(&self, content: usize, feature: &[f32]) -> Result<Vec<Vec<f32>>> {
        self.bundle.embedder.embed(self.spec(), content, feature)
    }

    /// What the model is made of.
    pub fn spec(&self) -> &Spec {
        &self.bundle.meta.spec
    }

    /// What the manifest says.
    pub fn meta(&self) -> &Meta {
        &self.bundle.meta
    }

    /// The model's name: its folder, as it was asked for.
    pub fn name(&self) -> &str {
        &self.bundle.name
    }

    /// The version: the bundle's folder.
    pub fn version(&self) -> u64 {
        self.bundle.version
    }

    /// blake3 over the bundle's files, lowercase hex: equal bits, equal hash. Deltas are not in it.
    pub fn hash(&self) -> &str {
        &self.bundle.hash
    }

    /// The folder of the version, where links lead.
    pub fn path(&self) -> &Path {
        &self.bundle.path
    }

    /// Where its numbers are.
    pub fn memory(&self) -> Memory {
        self.bundle.memory
    }

    /// The number of the last delta in this model, or 0.
    pub fn deltas(&self) -> u64 {
        self.delta.number
    }

    /// The hash of the last delta in this model and what its manifest says, if there is one.
    pub fn last_delta(&self) -> Option<(&str, &delta::Meta)> {
        self.delta.meta.as_ref().map(|meta| (&self.delta.hash[..], &**meta))
    }

    pub(crate) fn delta(&self) -> &State {
        &self.delta
    }

    /// Images, then each further content.
    pub(crate) fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// The row of an id (D), if there is one.
    pub(crate) fn row(&self, id: u64) -> Option<Vec<f32>> {
        self.rows.get(id).map(|(rows, at)| rows.of(at))
    }

    /// The rows that deltas brought, by id; none where it is gone.
    pub(crate) fn changed_rows(&self) -> impl Iterator<Item = (u64, Option<Vec<f32>>)> {
        self.rows.changes().map(|(id, found)| {
            let row = |(rows, at): (&rows::Rows, usize)| rows.of(at);
            (id, found.map(|found| row(self.rows.at(found))))
        })
    }

    /// The items the model knows.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// The example requests of the bundle.
    pub fn samples(&self) -> &[PageView] {
        &self.bundle.samples
    }

    /// Which image a picture's name means, if the bundle knows it.
    pub fn image(&self, picture: PictureName) -> ImageKey {
        self.contents[0].key(picture)
    }

    /// The towers that embed images, by name.
    pub fn image_towers(&self) -> Vec<String> {
        let towers = self.spec().towers().into_iter();
        towers.filter(|tower| tower.content == 0).map(|tower| tower.name).collect()
    }

    /// What tower number `tower` of [`Model::image_towers`] makes of an image, (its width), if the
    /// bundle knows that.
    ///
    /// # Panics
    /// If there is no such tower.
    pub fn embedding(&self, tower: usize, key: ImageKey) -> Option<&[f32]> {
        self.contents[0].embedding(tower, key)
    }

    /// Overwrites `logits` with one logit per impression of `groups` (B), whose columns are those
    /// of the spec's fields.
    pub fn score_groups(&self, groups: &Groups, scratch: &mut Scratch, logits: &mut Vec<f32>) {
        scratch.keys.resize_with(self.contents.len(), Keys::default);
        scratch.contents.resize_with(self.contents.len(), ContentScratch::default);
        let each = self.contents.iter().zip(&mut scratch.keys).zip(&mut scratch.contents);
        for ((content, keys), embedded) in each {
            keys.resolve(groups, |name| content.key(name));
            content.embed(keys, embedded);
        }
        scratch.unknown.clear();
        scratch.columns.resize_with(self.inputs().count(), Ragged::default);
        scratch.rows.clear();
        for (input, column) in self.inputs().zip(&mut scratch.columns) {
            input.collect(groups, &scratch.keys[0], &mut scratch.ids);
            let (dim, rows) = (self.spec().dim, &mut scratch.rows);
            rows::look_up(&self.rows, dim, &scratch.ids, column, rows);
            scratch.unknown.push(scratch.ids.values.len() - column.values.len());
        }
        let lists: Vec<Lists<'_>> = scratch
            .columns
            .iter()
            .map(|column| Lists { offsets: column.offsets.as_slice(), rows: &column.values })
            .collect();
        let Bundle { group_inputs, impression_inputs, network, w, .. } = &*self.bundle;
        let (group_fields, rest) = lists.split_at(group_inputs.len());
        let (impression_fields, behavior_fields) = rest.split_at(impression_inputs.len());
        // The network has as many as the spec, which may be none.
        let contents: Vec<ContentBatch<'_>> = scratch
            .contents
            .iter()
            .map(ContentScratch::batch)
            .take(network.config().contents.len())
            .collect();
        let batch = RankBatch {
            impressions: groups.impressions.as_slice(),
            behaviors: groups.behaviors.as_slice(),
            group_fields,
            impression_fields,
            behavior_fields,
            rows: &scratch.rows,
            contents: &contents,
        };
        network.forward(w, &batch, &mut scratch.network, logits);
    }

    /// The vectors of a pre-rank network, (V) numbers each: of the user of every group (G), and of
    /// the ad of every impression (B). Their inner products are the logits. A group may be
    /// without impressions.
    ///
    /// # Errors
    /// If the model is of another kind.
    pub fn vectors<'s>(
        &self,
        groups: &Groups,
        scratch: &'s mut Scratch,
    ) -> Result<(&'s [f32], &'s [f32])> {
        self.require_vectors()?;
        self.score_groups(groups, scratch, &mut Vec::new());
        Ok(scratch.network.vectors())
    }

    /// That this is a pre-rank network, whose scores are products of a user's and an ad's vector.
    ///
    /// # Errors
    /// If the model is of another kind.
    pub fn require_vectors(&self) -> Result<()> {
        if self.spec().base != Base::PreRank {
            let what = format!(
                "model.base is {}; only a pre-rank network has vectors",
                self.spec().base.as_str()
            );
            return Err(Error::Model { what });
        }
        Ok(())
    }

    /// Ranks the candidates of a page view by eCPM. Unknown users, items, images and ids are scored
    /// with defaults and listed.
    ///
    /// # Errors
    /// If the request contradicts itself or names fields the model does not have.
    pub fn score<'p>(&self, page: &'p PageView) -> Result<Ranked<'p>> {
        self.score_with(page, &mut Scratch::default())
    }

    /// Like [`Model::score`], with buffers of the caller: nothing is allocated per candidate.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn score_with<'p>(&self, page: &'p PageView, scratch: &mut Scratch) -> Result<Ranked<'p>> {
        page::score(self, page, scratch)
    }

    /// Overwrites `ctr` with the predicted click-through rate of every candidate, in the order of
    /// the request; what is unknown and scored with defaults.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn ctrs(
        &self,
        page: &PageView,
        scratch: &mut Scratch,
        ctr: &mut Vec<f32>,
    ) -> Result<Missing> {
        page::ctrs(self, page, scratch, ctr)
    }

    /// What every past behavior does to the scores of the best candidates; see
    /// [`mod@crate::explain`].
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn explain(&self, page: &PageView, scratch: &mut Scratch) -> Result<Explained> {
        explain::explain(self, page, scratch)
    }

    /// The known items whose pictures are most like one; see [`mod@crate::similar`].
    ///
    /// # Errors
    /// If the model has no images, or does not know what is asked for.
    pub fn similar(&self, wanted: &Wanted) -> Result<Similar<'_>> {
        similar::similar(self, &self.contents[0], wanted)
    }

    /// What attention weighed when `scratch` was used last.
    pub(crate) fn attention<'a>(&'a self, scratch: &'a Scratch) -> Vec<ams_model::Attended<'a>> {
        self.bundle.network.attention(&scratch.network)
    }

    /// All inputs: per group, then per impression, then per behavior.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = Input> {
        let Bundle { group_inputs, impression_inputs, behavior_inputs, .. } = &*self.bundle;
        group_inputs.iter().chain(impression_inputs).chain(behavior_inputs).copied()
    }

    /// Whether `key` has embeddings.
    pub fn knows(&self, key: ImageKey) -> bool {
        self.contents[0].has(key)
    }

    fn check_golden(&self, folder: &Folder<Meta>) -> Result<()> {
        let file = folder.tensors(GOLDEN)?;
        let golden = Golden::read(&file, &self.spec().fields)?;
        let mut logits = Vec::new();
        self.score_groups(&golden.groups, &mut Scratch::default(), &mut logits);
        let near = |(got, expected): (&f32, &f32)| {
            (got - expected).abs() <= GOLDEN_TOLERANCE * expected.abs().max(1.0)
        };
        match logits.iter().zip(&golden.logits).position(|pair| !near(pair)) {
            None => Ok(()),
            Some(at) => {
                let what = format!(
                    "{} of impression {}, and this build computes {}: the bundle was changed, or \
                     this build computes other scores; do not serve it",
                    golden.logits[at],
                    at + 1,
                    logits[at]
                );
                Err(file.wrong("logits", &format!("says {what}")))
            }
        }
    }
}

/// The version folder meant by `dir`, where links lead; the model's name and the version. These are
/// those of the folders that were asked for: a model that links to another has a name of its own. A
/// link such as `latest`, which is no version, means the one it leads to.
fn locate(dir: &Path) -> Result<(PathBuf, String, u64)> {
    let mut asked = named(dir)?;
    let mut path = dir.canonicalize().map_err(Error::io(dir))?;
    if !path.join(MANIFEST).is_file() {
        // Also what may not be read is said here.
        files::versions(&path)?;
        let Some(version) = files::whole_versions(&path)?.pop() else {
            let what = format!(
                "no bundle: neither {MANIFEST} nor a version folder with one; \
                 `ams publish` writes bundles"
            );
            return Err(Error::content(dir, what));
        };
        asked.push(version.to_string());
        let place = path.join(version.to_string());
        path = place.canonicalize().map_err(Error::io(&place))?;
    }
    let name_of = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let called = |place: &Path| {
        let version = files::version_of(&name_of(place)?)?;
        Some((place.parent().and_then(name_of).unwrap_or_default(), version))
    };
    match called(&asked).or_else(|| called(&path)) {
        Some((name, version)) => Ok((path, name, version)),
        None => {
            let what = "expected <model>/<version>/ with a whole number as version";
            Err(Error::content(&path, what))
        }
    }
}

/// `dir` from the root, with a name at its end: links are followed only where `..` follows them,
/// since it leads out of their target.
fn named(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir).map_err(Error::io(dir))?;
    let components: Vec<Component<'_>> = absolute.components().collect();
    let up = components.iter().rposition(|part| *part == Component::ParentDir);
    let (followed, rest) = components.split_at(up.map_or(0, |at| at + 1));
    let mut path: PathBuf = followed.iter().collect();
    if !followed.is_empty() {
        path = path.canonicalize().map_err(Error::io(dir))?;
    }
    path.extend(rest);
    Ok(path)
}

fn check_meta(meta: &Meta) -> Result<(), String> {
    let hashes = [
        ("spec", &meta.spec_hash, files::hash_of(&meta.spec)),
        ("schema", &meta.schema_hash, files::hash_of(&meta.spec.fields)),
    ];
    for (name, expected, got) in hashes {
        if *expected != got {
            return Err(format!("the {name}'s blake3 is {got}, expected {expected}"));
        }
    }
    meta.spec.check()
}

fn read_items(folder: &Folder<Meta>, spec: &Spec) -> Result<Items> {
    Items::read(&folder.tensors(ITEMS)?, &spec.fields)
}

fn read_samples(folder: &Folder<Meta>) -> Result<Vec<PageView>> {
    let bytes = folder.read(SAMPLES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::content(folder.path().join(SAMPLES), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS, replace, spec};
    use crate::folder::FolderWriter;
    use crate::spec::{FurtherContent, ImageSource, TowerSharing, TowerWeights};
    use ams_model::{Aggregator, ImageArm, Interactions, Similarity};
    use std::fs;
    use std::io::Write;
    #[cfg(unix)]
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn scores_are_those_of_the_slow_network() {
        for images in ImageArm::ALL {
            for aggregator in Aggregator::ALL {
                for sharing in [TowerSharing::Separate, TowerSharing::Shared] {
                    let fixture = Fixture::of(Spec { aggregator, sharing, ..spec(images) });
                    let (model, mut logits) = (fixture.model(), Vec::new());
                    let (groups, expected) = (&fixture.golden.groups, &fixture.golden.logits);
                    let mut scratch = Scratch::default();
                    // Twice: what a scratch held before must not show.
                    for groups in [&fixture.groups(&ROWS[..1]), groups] {
                        model.score_groups(groups, &mut scratch, &mut logits);
                    }
                    assert_eq!(&logits, expected, "{images:?} {aggregator:?} {sharing:?}");
                    assert_eq!(logits.len(), 6);
                    assert!(logits.iter().any(|logit| logit.abs() > 0.01), "{logits:?}");
                }
            }
        }
    }

    /// The settings beside the paper's: base networks, products, likeness, frozen towers, further
    /// contents.
    #[test]
    fn other_networks_score_as_the_slow_one() {
        let joint = spec(ImageArm::Joint);
        let pre_rank = Spec { base: Base::PreRank, aggregator: Aggregator::Max, ..joint.clone() };
        let source = joint.image_source.clone().unwrap();
        let text = FurtherContent {
            name: "text".to_owned(),
            source: ImageSource { dim: 5, pca: Some(2), ..source.clone() },
        };
        let none = Spec { images: ImageArm::None, ..joint.clone() };
        let cases = [
            Spec { base: Base::LogisticRegression, ..joint.clone() },
            Spec { base: Base::Din, ..joint.clone() },
            Spec { base: Base::Din, query_fields: vec!["category".to_owned()], ..none.clone() },
            Spec { images: ImageArm::Ad, ..pre_rank.clone() },
            pre_rank,
            Spec { interactions: Interactions::Product, ..joint.clone() },
            Spec { similarity: Similarity::Cosine, ..none.clone() },
            Spec { further: vec![text.clone()], ..none },
            Spec {
                image_source: Some(ImageSource { pca: Some(3), ..source }),
                sharing: TowerSharing::Shared,
                similarity: Similarity::Histogram,
                interactions: Interactions::Product,
                tower_weights: TowerWeights::Pca,
                tower: vec![3],
                further: vec![text],
                ..joint
            },
        ];
        for spec in cases {
            assert_eq!(spec.check(), Ok(()));
            let fixture = Fixture::of(spec.clone());
            let (model, mut logits) = (fixture.model(), Vec::new());
            model.score_groups(&fixture.golden.groups, &mut Scratch::default(), &mut logits);
            assert_eq!(logits, fixture.golden.logits, "{spec:?}");
            assert!(logits.iter().any(|logit| logit.abs() > 0.01), "{logits:?}");
        }
    }

    #[test]
    fn vectors_computed_apart_give_the_logits() {
        let joint = spec(ImageArm::Joint);
        let aggregator = Aggregator::Sum;
        let fixture = Fixture::of(Spec { base: Base::PreRank, aggregator, ..joint.clone() });
        let (model, mut scratch) = (fixture.model(), Scratch::default());
        // Users without impressions, and ads shown to nobody in particular.
        let users =
            ROWS.map(|(user, age, tags, behaviors, _)| (user, age, tags, behaviors, &[][..]));
        let users = model.vectors(&fixture.groups(&users), &mut scratch).unwrap().0.to_vec();
        let shown: Vec<_> = ROWS.iter().flat_map(|row| row.4).copied().collect();
        let ads = fixture.groups(&[("", "", &[], &[], &shown)]);
        let ads = model.vectors(&ads, &mut scratch).unwrap().1.to_vec();
        let pairs = [0, 0, 1, 2, 2, 2].into_iter().zip(ads.chunks(10));
        let products = pairs
            .map(|(user, ad)| users[10 * user..].iter().zip(ad).map(|(u, a)| u * a).sum::<f32>());
        for (product, logit) in products.zip(&fixture.golden.logits) {
            assert!((product - logit).abs() < 1e-6, "{product} {logit}");
        }
        let error = Fixture::of(joint).model().vectors(&fixture.groups(&[]), &mut scratch);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "the model: model.base is mlp; only a pre-rank network has vectors");
    }

    #[test]
    fn rows_as_halfs_score_as_rounded_rows() {
        let mut fixture = Fixture::new(ImageArm::Joint);
        let whole = fixture.golden.logits.clone();
        fixture.rows = files::RowFormat::F16;
        for value in &mut fixture.weights.rows {
            *value = half::f16::from_f32(*value).to_f32();
        }
        fixture.golden.logits = fixture.slow_logits(&fixture.golden.groups);
        let mut logits = Vec::new();
        let model = fixture.model();
        model.score_groups(&fixture.golden.groups, &mut Scratch::default(), &mut logits);
        assert_eq!(logits, fixture.golden.logits);
        assert_ne!(logits, whole);
    }

    #[test]
    fn a_model_without_images_at_all() {
        let spec = Spec {
            image_source: None,
            exclude_fields: vec!["user".into(), "category".into()],
            query_fields: vec![],
            ..spec(ImageArm::None)
        };
        let fixture = Fixture::of(spec);
        let mut logits = Vec::new();
        let model = fixture.model();
        model.score_groups(&fixture.golden.groups, &mut Scratch::default(), &mut logits);
        assert_eq!(logits, fixture.golden.logits);
    }

    #[test]
    fn no_groups_give_no_logits() {
        let fixture = Fixture::new(ImageArm::Joint);
        let mut logits = vec![1.0];
        fixture.model().score_groups(&fixture.groups(&[]), &mut Scratch::default(), &mut logits);
        assert_eq!(logits, [0.0; 0]);
    }

    #[test]
    fn a_model_folder_means_its_highest_whole_version() {
        let fixture = Fixture::new(ImageArm::Ad);
        let manifest = fixture.write(9).unwrap();
        fixture.write(10).unwrap();
        let shop = fixture.place(9).parent().unwrap().to_path_buf();
        for stray in ["11", "current", "012"] {
            fs::create_dir(shop.join(stray)).unwrap();
        }
        let model = Model::open(&shop).unwrap();
        assert_eq!((model.name(), model.version()), ("shop", 10));
        assert_eq!(Model::open(&fixture.place(9)).unwrap().version(), 9);
        assert_eq!((model.hash(), &model.meta().run[..]), (&manifest.hash()[..], "test"));
        assert_eq!((model.samples(), model.items().count()), (&fixture.samples[..], 6));
        assert_eq!(files::next_version(&shop).unwrap(), 12);
        assert_eq!(files::next_version(&shop.join("none")).unwrap(), 1);
    }

    /// What opening says after `change` was written in place of a fixture's parts.
    fn refused(change: impl FnOnce(&mut Fixture)) -> String {
        let mut fixture = Fixture::new(ImageArm::Joint);
        change(&mut fixture);
        fixture.write(1).unwrap();
        let error = Model::open(&fixture.place(1)).expect_err("a bad bundle").to_string();
        error.replace(&fixture.place(1).canonicalize().unwrap().display().to_string(), "DIR")
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        type Change = fn(&mut Fixture);
        let cases: [(Change, &str); 5] = [
            (
                |f| f.weights.ids.swap(3, 4),
                "DIR/ids.safetensors: tensor `ids` is not ascending at position 4",
            ),
            (
                |f| f.weights.contents[0].keys.reverse(),
                "DIR/image_table.safetensors: tensor `keys` is not ascending at position 1",
            ),
            (
                |f| f.weights.contents[0].pictures.reverse(),
                "DIR/pictures.safetensors: tensor `names` is not ascending at position 1",
            ),
            (|f| f.golden.logits[4] += 0.001, "DIR/golden.safetensors: tensor `logits` says"),
            (|f| f.weights.rows[0] += 1.0, "DIR/golden.safetensors: tensor `logits` says"),
        ];
        for (change, expected) in cases {
            let error = refused(change);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_damaged_bundle_is_refused() {
        let fixture = Fixture::new(ImageArm::Joint);
        let manifest = fixture.write(1).unwrap();
        for name in manifest.files.keys() {
            let path = fixture.place(1).join(name);
            let whole = fs::read(&path).unwrap();
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            for damaged in [&flipped[..], &whole[..whole.len() - 1], &[]] {
                replace(&path, damaged);
                let error = Model::open(&fixture.place(1)).expect_err(name).to_string();
                assert!(error.contains(&**name) && error.contains("by MANIFEST.json"), "{error}");
            }
            replace(&path, whole);
        }
        Model::open(&fixture.place(1)).unwrap();
    }

    /// What was opened as a copy is out of reach: files are cut, written over in place and removed,
    /// one after the other.
    #[test]
    fn a_copied_model_does_not_need_its_files() {
        let fixture = Fixture::new(ImageArm::Joint);
        let rows = [(Id::of("user", "u1").0, Some(vec![0.5, -0.25, 1.0]))].into();
        let changes = Changes { rows, ..Changes::default() };
        fixture.model().change(&changes).unwrap();
        let bundle = Model::open_bundle_in(&fixture.place(1), Memory::Copied).unwrap();
        let model = bundle.next().unwrap().unwrap();
        assert_eq!((model.memory(), model.deltas()), (Memory::Copied, 1));
        let logits = |model: &Model| {
            let mut logits = Vec::new();
            let groups = &fixture.golden.groups;
            model.score_groups(groups, &mut Scratch::default(), &mut logits);
            logits
        };
        let expected = logits(&model);
        assert_eq!(logits(&Model::open(&fixture.place(1)).unwrap()), expected);
        assert_ne!(logits(&bundle), expected);
        type Damage = fn(&fs::File, u64);
        let damages: [Damage; 2] = [
            |mut file, length| file.write_all(&vec![0x3f; length as usize]).unwrap(),
            |file, _| file.set_len(0).unwrap(),
        ];
        for folder in [fixture.place(1), fixture.place(1).join("deltas/0001")] {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
                let length = entry.metadata().unwrap().len();
                if entry.path().is_dir() {
                    continue;
                }
                // As its owner may.
                #[cfg(unix)]
                fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o644)).unwrap();
                for damage in damages {
                    let file = fs::OpenOptions::new().write(true).open(entry.path()).unwrap();
                    damage(&file, length);
                    assert_eq!(logits(&model), expected, "{entry:?}");
                }
                fs::remove_file(entry.path()).unwrap();
            }
        }
        assert_eq!(logits(&model), expected);
        assert!(model.next().unwrap().is_none());
    }

    /// A name and a version are those of the folders that were asked for.
    #[cfg(unix)]
    #[test]
    fn links_do_not_change_names() {
        use std::os::unix::fs::symlink;
        let fixture = Fixture::new(ImageArm::None);
        fixture.write(1).unwrap();
        let root = fixture.dir.path();
        let shop = root.join("shop");
        symlink(&shop, root.join("fashion")).unwrap();
        symlink("1", shop.join("7")).unwrap();
        symlink("1", shop.join("latest")).unwrap();
        fs::create_dir_all(root.join("by/hash")).unwrap();
        symlink(fixture.place(1), root.join("by/hash/3")).unwrap();
        for (asked, name, version) in [
            ("shop", "shop", 7),
            ("shop/", "shop", 7),
            ("shop/1", "shop", 1),
            ("shop/7", "shop", 7),
            ("shop/./7/.", "shop", 7),
            ("fashion", "fashion", 7),
            ("fashion/1", "fashion", 1),
            ("by/hash/3", "hash", 3),
            // No version: the one it leads to.
            ("shop/latest", "shop", 1),
            // Out of where the link leads.
            ("by/hash/3/..", "shop", 7),
            ("by/../fashion/1", "fashion", 1),
        ] {
            let model = Model::open(&root.join(asked)).unwrap();
            assert_eq!((model.name(), model.version()), (name, version), "{asked}");
            assert_eq!(model.path(), fixture.place(1).canonicalize().unwrap());
        }
        assert!(named(Path::new(".")).unwrap().ends_with(std::env::current_dir().unwrap()));
    }

    #[test]
    fn a_changed_spec_is_refused() {
        let fixture = Fixture::new(ImageArm::Joint);
        fixture.write(1).unwrap();
        let path = fixture.place(1).join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let changed = [
            (text.replace("\"max_behaviors\": 4", "\"max_behaviors\": 5"), "the spec's blake3 is"),
            (text.replace("\"hour\"", "\"minute\""), "the spec's blake3 is"),
            (text.replace("\"dim\": 3", "\"dims\": 3"), "unknown field `dims`"),
        ];
        for (changed, expected) in changed {
            assert_ne!(changed, text);
            replace(&path, changed);
            let error = Model::open(&fixture.place(1)).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Model::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no bundle: neither MANIFEST.json nor a version folder"), "{error}");
        let error = Model::open(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
        let other = dir.path().join("shop").join("1");
        FolderWriter::create(&other).unwrap().finish("ams-checkpoint/1", 0).unwrap();
        let error = Model::open(&other).unwrap_err().to_string();
        let expected = r#"format is "ams-checkpoint/1", expected "ams-bundle/1""#;
        assert!(error.ends_with(expected), "{error}");
        let stray = dir.path().join("shop").join("latest");
        FolderWriter::create(&stray).unwrap().finish(FORMAT, 0).unwrap();
        let error = Model::open(&stray).unwrap_err().to_string();
        assert!(error.ends_with("with a whole number as version"), "{error}");
    }
}
