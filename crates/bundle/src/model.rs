//! A bundle in memory: the scorer.
//!
//! Runs the network exactly as the trainer's worker does, over rows looked up by id and images
//! embedded beforehand. An id without a row has the learned one of unknown ids, or is left out of
//! its list, which is the same sum as a row of zeros; an image without an embedding is no image,
//! for which the network has learned a vector. Single-threaded and without locks: one [`Scratch`]
//! per thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::{Groups, Id, ImageKey, PictureName, Ragged};
use ams_model::{Base, ContentBatch, Lists, RankBatch, RankNetwork, RankScratch};
use serde_json::{Map, Value};

use crate::calibration::{self, Calibration};
use crate::error::{Error, Result};
use crate::files::deltas;
use crate::files::layout::BundleMeta;
use crate::files::numbers::Memory;
use crate::input::{Input, Keys, recency};
use crate::request::PageView;
use crate::search::{self, SearchScratch};
use crate::spec::Spec;
use crate::tables::contents::{Content, ContentLayers, ContentScratch, ImageRecord};
use crate::tables::embed::Embedder;
use crate::tables::items::{ItemFields, Items};
use crate::tables::layer::SortedTable;
use crate::tables::rows;

/// A frozen model, ready to score. What it was published with is shared by all its states: a delta
/// makes another model of it, which costs what the deltas hold.
#[derive(Clone, Debug)]
pub struct Model {
    bundle: Arc<Bundle>,
    rows: rows::LayeredRows,
    /// Images, then each further content.
    contents: Vec<Content>,
    items: Items,
    delta: DeltaState,
}

/// The immutable part of a model, shared by all of its states.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) memory: Memory,
    pub(crate) hash: String,
    pub(crate) meta: BundleMeta,
    pub(crate) group_inputs: Vec<Input>,
    pub(crate) impression_inputs: Vec<Input>,
    pub(crate) behavior_inputs: Vec<Input>,
    /// [`Spec::unknown_id`] of each of [`Model::inputs`].
    pub(crate) unknown: Vec<Option<Id>>,
    pub(crate) network: RankNetwork,
    /// Weights W of the rank network, by its layout.
    pub(crate) w: Vec<f32>,
    pub(crate) embedder: Embedder,
    pub(crate) samples: Vec<PageView>,
    pub(crate) calibration: Option<Calibration>,
    /// The object of `decision.json`.
    pub(crate) decision: Option<Map<String, Value>>,
}

/// Which deltas a model has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeltaState {
    /// The number of the last one, or 0.
    pub number: u64,
    /// Its hash, or the bundle's. If it was compacted, that which it had before.
    pub hash: String,
    /// The `meta` of its manifest.
    pub meta: Option<Arc<deltas::DeltaMeta>>,
}

/// One delta, read and checked.
pub(crate) struct Delta {
    pub rows: Arc<SortedTable<rows::Rows>>,
    pub contents: Vec<ContentLayers>,
    pub items: Arc<SortedTable<ItemFields>>,
    pub state: DeltaState,
}

/// Buffers of the scorer, reused from call to call.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Keys of the images in use, by content.
    keys: Vec<Keys>,
    ids: Ragged<Id>,
    /// For each of [`Model::inputs`], where in `rows` those of the known ids are.
    columns: Vec<Ragged<u32>>,
    /// The rows in use; (.., D).
    rows: Vec<f32>,
    /// For each of them, how many ids are unknown.
    unknown: Vec<usize>,
    contents: Vec<ContentScratch>,
    recency: Vec<f32>,
    network: RankScratch,
    search: SearchScratch,
    /// With a search: the behaviors that are kept for each impression, (B) rows of indices into the
    /// behaviors of `searched`.
    kept: Ragged<u32>,
    /// With a search: which behaviors of each group the network saw, (G) rows.
    searched: Ragged<u32>,
}

/// The weights of attention of one impression.
pub(crate) struct Weighed {
    /// Where the first one is.
    pub first: usize,
    /// The behavior of each, a position in the history.
    pub behaviors: Vec<usize>,
}

impl Scratch {
    /// Whether the behavior at `row` of the only group's history can matter to a score.
    pub(crate) fn saw(&self, model: &Model, row: usize) -> bool {
        model.spec().network.search.is_none()
            || self.searched.values.binary_search(&(row as u32)).is_ok()
    }

    /// Where the weights of `impression` of the only group are, whose history has `behaviors`.
    pub(crate) fn weighed(&self, model: &Model, impression: usize, behaviors: usize) -> Weighed {
        if model.spec().network.search.is_none() {
            let first = impression * behaviors;
            return Weighed { first, behaviors: (0..behaviors).collect() };
        }
        let range = self.kept.offsets.range(impression);
        let behavior = |&at: &u32| self.searched.values[at as usize] as usize;
        Weighed {
            first: range.start,
            behaviors: self.kept.values[range].iter().map(behavior).collect(),
        }
    }

    /// With a search: the behaviors that the network saw of all groups.
    pub(crate) fn searched(&self) -> &[u32] {
        &self.searched.values
    }

    /// For each of [`Model::inputs`], how many of its ids had no row.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = usize> {
        self.unknown.iter().copied()
    }
}

impl Model {
    /// The bundle as it was published, without deltas.
    pub(crate) fn new(
        bundle: Bundle,
        rows: rows::LayeredRows,
        contents: Vec<Content>,
        items: Items,
    ) -> Model {
        let delta = DeltaState { number: 0, hash: bundle.hash.clone(), meta: None };
        Model { bundle: Arc::new(bundle), rows, contents, items, delta }
    }

    /// The same with what `delta` brings.
    pub(crate) fn apply(&self, delta: Delta) -> Model {
        let contents = self.contents.iter().zip(&delta.contents);
        Model {
            bundle: Arc::clone(&self.bundle),
            rows: self.rows.apply(&delta.rows),
            contents: contents.map(|(content, delta)| content.apply(delta)).collect(),
            items: self.items.apply(&delta.items),
            delta: delta.state,
        }
    }

    /// What each tower of content `content` (0: images) makes of a feature (F): as if the image had
    /// been there when the model was published.
    ///
    /// # Errors
    /// If the model has no such content, or the feature does not fit it.
    pub fn embed(&self, content: usize, feature: &[f32]) -> Result<Vec<Vec<f32>>> {
        Ok(self.image_record(content, feature)?.embeddings)
    }

    /// What the model makes of a feature (F) of content `content`.
    ///
    /// # Errors
    /// As [`Model::embed`].
    pub(crate) fn image_record(&self, content: usize, feature: &[f32]) -> Result<ImageRecord> {
        self.bundle.embedder.embed(self.spec(), content, feature)
    }

    /// The codes of an image (L), of which its semantic ids are made, if the model sees those and
    /// knows the image; else none.
    pub fn codes(&self, key: ImageKey) -> Vec<u32> {
        let mut codes = Vec::new();
        self.contents[0].push_codes(key, &mut codes);
        codes
    }

    /// Fields, towers and networks of the model.
    pub fn spec(&self) -> &Spec {
        &self.bundle.meta.spec
    }

    /// The `meta` of the manifest.
    pub fn meta(&self) -> &BundleMeta {
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
    pub fn last_delta(&self) -> Option<(&str, &deltas::DeltaMeta)> {
        self.delta.meta.as_ref().map(|meta| (&self.delta.hash[..], &**meta))
    }

    pub(crate) fn delta(&self) -> &DeltaState {
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

    /// How rates follow from logits, if the bundle was calibrated.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.bundle.calibration.as_ref()
    }

    /// By what decision the version was published, as its file says; none where nobody decided.
    pub fn decision(&self) -> Option<&Map<String, Value>> {
        self.bundle.decision.as_ref()
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
        let Some(search) = &self.spec().network.search else {
            return self.score_seen(groups, scratch, logits);
        };
        let mut kept = std::mem::take(&mut scratch.kept);
        match self.spec().search_field() {
            Some(field) => search::by_category(groups, field, search.keep, &mut kept),
            None => {
                let content = &self.contents[0];
                scratch.keys.resize_with(self.contents.len(), Keys::default);
                let keys = &mut scratch.keys[0];
                keys.resolve(groups, |name| content.key(name));
                content.search(groups, keys, search.keep, &mut scratch.search, &mut kept);
            }
        }
        let (groups, searched) = search::compact(groups, search.keep, &mut kept);
        (scratch.kept, scratch.searched) = (kept, searched);
        self.score_seen(&groups, scratch, logits);
    }

    /// Overwrites `logits` (B) with the click-through rates that they mean, calibrated if the
    /// bundle is. Every answer with a rate has it from here.
    pub fn rates(&self, logits: &mut [f32]) {
        calibration::rates(self.bundle.calibration.as_ref(), logits);
    }

    /// Looks up the images and the ids of `groups`, whose histories are searched if they are to be.
    pub(crate) fn look_up(&self, groups: &Groups, scratch: &mut Scratch) {
        scratch.keys.resize_with(self.contents.len(), Keys::default);
        for (content, keys) in self.contents.iter().zip(&mut scratch.keys) {
            keys.resolve(groups, |name| content.key(name));
        }
        if let Some(semantic) = self.spec().semantic() {
            let codes = |key, to: &mut Vec<u32>| self.contents[0].push_codes(key, to);
            scratch.keys[0].resolve_codes(semantic, codes);
        }
        scratch.unknown.clear();
        scratch.columns.resize_with(self.inputs().count(), Ragged::default);
        scratch.rows.clear();
        let newest = self.spec().pooled();
        let inputs = self.inputs().zip(&self.bundle.unknown);
        for ((input, &unknown), column) in inputs.zip(&mut scratch.columns) {
            input.collect(groups, &scratch.keys[0], newest, &mut scratch.ids);
            let (dim, rows) = (self.spec().dim(), &mut scratch.rows);
            let lacking = rows::look_up(&self.rows, dim, unknown, &scratch.ids, column, rows);
            scratch.unknown.push(lacking);
        }
    }

    /// As [`Model::score_groups`], of groups whose histories are searched, if they are to be.
    fn score_seen(&self, groups: &Groups, scratch: &mut Scratch, logits: &mut Vec<f32>) {
        self.look_up(groups, scratch);
        scratch.contents.resize_with(self.contents.len(), ContentScratch::default);
        let each = self.contents.iter().zip(&scratch.keys).zip(&mut scratch.contents);
        each.for_each(|((content, keys), embedded)| content.embed(keys, embedded));
        let lists: Vec<Lists<'_>> = scratch.columns.iter().map(lists_of).collect();
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
        recency(self.spec().network.similarity, groups, &mut scratch.recency);
        let batch = RankBatch {
            impressions: groups.impressions.as_slice(),
            behaviors: groups.behaviors.as_slice(),
            group_fields,
            impression_fields,
            behavior_fields,
            rows: &scratch.rows,
            contents: &contents,
            recency: &scratch.recency,
            kept: self.spec().network.search.as_ref().map(|_| lists_of(&scratch.kept)),
        };
        network.score(w, &batch, &mut scratch.network, logits);
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
        if self.spec().network.base != Base::PreRank {
            let what = format!(
                "model.base is {}; only a pre-rank network has vectors",
                self.spec().network.base.as_str()
            );
            return Err(Error::Model { what });
        }
        Ok(())
    }

    /// Weights of attention in the last use of `scratch`.
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
}

fn lists_of(column: &Ragged<u32>) -> Lists<'_> {
    Lists { offsets: column.offsets.as_slice(), rows: &column.values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS, semantic, spec, with};
    use crate::spec::{FurtherContent, ImageSource, TowerSharing, TowerWeights};
    use crate::write::RowFormat;
    use ams_model::settings::UnknownIds;
    use ams_model::{Aggregator, ImageArm, Interactions, SearchBy, SearchSettings, Similarity};

    #[test]
    fn scores_are_those_of_the_slow_network() {
        for images in ImageArm::ALL {
            for aggregator in Aggregator::ALL {
                for sharing in [TowerSharing::Separate, TowerSharing::Shared] {
                    let fixture = Fixture::of(with(&Spec { sharing, ..spec(images) }, |n| {
                        n.aggregator = aggregator
                    }));
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
        let pre_rank = with(&joint, |n| (n.base, n.aggregator) = (Base::PreRank, Aggregator::Max));
        let source = joint.image_source.clone().unwrap();
        let text = FurtherContent {
            name: "text".to_owned(),
            source: ImageSource { dim: 5, pca: Some(2), ..source.clone() },
        };
        let none = with(&joint, |n| n.images = ImageArm::None);
        let frozen = Spec {
            image_source: Some(ImageSource { pca: Some(3), ..source }),
            sharing: TowerSharing::Shared,
            tower_weights: TowerWeights::Pca,
            tower: vec![3],
            further: vec![text.clone()],
            ..joint.clone()
        };
        let everything = with(&frozen, |n| {
            (n.similarity, n.interactions) = (Similarity::Histogram, Interactions::Product);
        });
        let cases = [
            with(&joint, |n| n.base = Base::LogisticRegression),
            with(&joint, |n| n.base = Base::Din),
            with(&Spec { query_fields: vec!["category".to_owned()], ..none.clone() }, |n| {
                n.base = Base::Din
            }),
            with(&pre_rank, |n| n.images = ImageArm::Ad),
            pre_rank.clone(),
            with(&joint, |n| n.interactions = Interactions::Product),
            with(&joint, |n| n.behavior_age_buckets = 4),
            with(&joint, |n| {
                (n.base, n.behavior_age_buckets) = (Base::Din, 32);
                n.interactions = Interactions::Product;
            }),
            with(&none, |n| n.similarity = Similarity::Cosine),
            with(&none, |n| n.similarity = Similarity::Statistics),
            with(&joint, |n| n.attention_cosine = true),
            with(&none, |n| (n.base, n.attention_cosine) = (Base::Din, true)),
            Spec { further: vec![text], ..none.clone() },
            with(&everything, |n| (n.unknown, n.base) = (UnknownIds::Learned, Base::Din)),
            with(&joint, |n| n.unknown = UnknownIds::Learned),
            semantic(&joint, 2),
            semantic(&with(&pre_rank, |n| n.images = ImageArm::Ad), 1),
            with(
                &Spec { query_fields: vec!["semantic_2".to_owned()], ..semantic(&none, 3) },
                |n| (n.base, n.behavior_age_buckets) = (Base::Din, 4),
            ),
            with(&semantic(&none, 1), |n| n.unknown = UnknownIds::Learned),
            everything,
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

    /// Histories of three and four behaviors, with and without pictures and categories.
    #[test]
    fn a_search_scores_as_the_slow_network() {
        for images in [ImageArm::Behavior, ImageArm::Joint] {
            for aggregator in Aggregator::ALL {
                for (keep, by) in [1, 2, 3, 4]
                    .into_iter()
                    .flat_map(|keep| [(keep, SearchBy::Pictures), (keep, SearchBy::Category)])
                {
                    let field = SearchSettings::category();
                    let searched = with(&spec(images), |n| {
                        n.aggregator = aggregator;
                        n.search = Some(SearchSettings { keep, by, field });
                    });
                    let other = with(&searched, |n| {
                        (n.base, n.similarity) = (Base::Din, Similarity::Histogram);
                    });
                    for spec in [searched, other] {
                        let fixture = Fixture::of(spec.clone());
                        let (model, mut logits) = (fixture.model(), Vec::new());
                        let (groups, mut scratch) = (&fixture.golden.groups, Scratch::default());
                        for groups in [&fixture.groups(&ROWS[..1]), groups] {
                            model.score_groups(groups, &mut scratch, &mut logits);
                        }
                        assert_eq!(logits, fixture.golden.logits, "{spec:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_computed_apart_give_the_logits() {
        let joint = spec(ImageArm::Joint);
        let aggregator = Aggregator::Sum;
        let fixture =
            Fixture::of(with(&joint, |n| (n.base, n.aggregator) = (Base::PreRank, aggregator)));
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
        fixture.rows = RowFormat::F16;
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
}
