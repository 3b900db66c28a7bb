//! From lanes to a bundle: rows in the order of their ids, images embedded once each.

use std::borrow::Cow;
use std::path::Path;

use ams_bundle::folder::Manifest;
use ams_bundle::request::PageView;
use ams_bundle::{
    BundleMeta, CodeTable, ContentTable, Frozen, Golden, RowFormat, Spec, Weights, write,
};
use ams_data::catalogue::Catalogue;
use ams_data::dataset::SplitName;
use ams_data::{Groups, ImageKey, PictureName};
use ams_image::FeatureStore;
use ams_model::linalg::Packed;
use ams_model::tower::TowerScratch;
use half::f16;
use rayon::prelude::*;

use crate::calibrate::{CalibrationReport, CalibrationSettings, calibrate};
use crate::error::Result;
use crate::run::trainer::{Rounds, Trainer};
use crate::setup::network::TowerDefinition;
use crate::step::Lanes;
use crate::step::selection::{Selection, Subset};
use crate::step::table::RowTable;

/// Images embedded at once when the table is made.
const IMAGE_BLOCK: usize = 256;

/// Impressions whose scores a bundle carries to prove itself.
const GOLDEN_IMPRESSIONS: usize = 32;

/// The pictures of the feature stores that a bundle has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pictures {
    /// Those of the items of the dataset's catalogue.
    #[default]
    OfItems,
    /// All.
    All,
}

/// How a model is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishSettings {
    /// How rows are kept. If as halfs, those of the trainer are rounded first, for good, so that
    /// the bundle proves itself by the scores of rounded rows.
    pub rows: RowFormat,
    /// The pictures that it knows.
    pub pictures: Pictures,
    /// How its rates are calibrated.
    pub calibration: CalibrationSettings,
}

/// What was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// The bundle's manifest.
    pub manifest: Manifest<BundleMeta>,
    /// What the calibration changes, if there is one and samples to tell by.
    pub calibration: Option<CalibrationReport>,
    /// Names of pictures of the stores that are left out.
    pub pictures_left_out: u64,
}

/// Writes the model of `trainer`, a job of one process, as a bundle to `path`, which must not
/// exist. `samples` are example requests to put beside it, with the time of the page view only if
/// the model sees it.
///
/// # Errors
/// If the store or the samples cannot be read, rates cannot be calibrated, or the bundle cannot be
/// written.
pub fn publish(
    trainer: &mut Trainer,
    path: &Path,
    samples: &[PageView],
    settings: &PublishSettings,
) -> Result<Published> {
    let PublishSettings { rows, pictures, calibration } = settings;
    let rows = *rows;
    assert_eq!(trainer.lanes_mut().fabric().size(), 1, "a bundle holds the rows of all lanes");
    if rows == RowFormat::F16 {
        trainer.lanes_mut().shards_mut().for_each(|shard| round_rows(&mut shard.table));
    }
    let (calibration, report) = calibrate(trainer, calibration)?.unzip();
    let golden = golden(trainer)?;
    let catalogue = Catalogue::open(trainer.dataset())?;
    let named = match pictures {
        Pictures::OfItems => Some(names(&catalogue)),
        Pictures::All => None,
    };
    let lanes = trainer.lanes();
    let weights = weights(lanes, named.as_deref());
    let known: u64 = weights.contents.iter().map(|content| content.pictures.len() as u64).sum();
    let all: u64 = lanes.stores().iter().map(|store| store.pictures().count() as u64).sum();
    let mut samples = samples.to_vec();
    if !lanes.network.spec.sees_ages() {
        samples.iter_mut().for_each(|page| page.time = None);
    }
    let frozen = Frozen {
        spec: &lanes.network.spec,
        weights: &weights,
        catalogue: &catalogue,
        golden: &golden,
        run: &trainer.config().name,
        steps: trainer.cursor().step,
        samples: &samples,
        rows,
        calibration: calibration.as_ref(),
    };
    let manifest = write(path, &frozen)?;
    Ok(Published { manifest, calibration: report.flatten(), pictures_left_out: all - known })
}

/// The names of the items' pictures, ascending.
fn names(catalogue: &Catalogue) -> Vec<PictureName> {
    let of_items = (0..catalogue.len()).filter_map(|row| catalogue.image(row));
    let mut names: Vec<PictureName> = of_items.map(PictureName::of).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Rounds every row to halfs.
fn round_rows(table: &mut RowTable) {
    for slot in table.slots_by_id() {
        let row = table.row_mut(slot).row;
        row.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
    }
}

/// All numbers of the model. Ids and images come lane by lane, which is in ascending order: a lane
/// owns a range of the hash space.
fn weights(lanes: &Lanes, named: Option<&[PictureName]>) -> Weights {
    let all: usize = lanes.shards().map(|shard| shard.table.len()).sum();
    let mut ids = Vec::with_capacity(all);
    let mut rows = Vec::with_capacity(all * lanes.network.spec.dim());
    for shard in lanes.shards() {
        let table = &shard.table;
        for slot in table.slots_by_id() {
            ids.push(table.id(slot));
            rows.extend_from_slice(table.row(slot));
        }
    }
    let contents = match lanes.stores() {
        [] => vec![ContentTable::default()],
        stores => (0..stores.len()).map(|content| content_table(lanes, content, named)).collect(),
    };
    Weights { dense: lanes.dense.w.clone(), ids, rows, contents }
}

/// The images of a content's store through every tower of the content: those of the pictures
/// `named`, ascending, or all.
fn content_table(lanes: &Lanes, content: usize, named: Option<&[PictureName]>) -> ContentTable {
    let (network, store, dense) = (&lanes.network, &lanes.stores()[content], &lanes.dense.w[..]);
    let is_named = |name: &PictureName| named.is_none_or(|all| all.binary_search(name).is_ok());
    let pictures: Vec<(u64, u64)> = (store.pictures().filter(|(name, _)| is_named(name)))
        .map(|(name, key)| (name.0, key.0))
        .collect();
    let mut kept: Vec<u64> = pictures.iter().map(|(_, key)| *key).collect();
    kept.sort_unstable();
    // An image that no picture ever named stays where all are wanted.
    let is_kept = |key: &&ImageKey| named.is_none() || kept.binary_search(&key.0).is_ok();
    let projection = store.projection().cloned();
    let towers: Vec<&TowerDefinition> =
        network.towers.iter().filter(|tower| tower.spec.content == content).collect();
    let parts: Vec<Vec<ImageKey>> = (0..store.card().parts)
        .map(|part| store.keys(part).iter().filter(is_kept).copied().collect())
        .collect();
    let semantic = if content == 0 { code_table(&network.spec, store, &parts) } else { None };
    if towers.is_empty() && semantic.is_none() {
        return ContentTable { pictures, projection, ..ContentTable::default() };
    }
    let pack = |definition| PackedTower::new(definition, dense);
    let towers: Vec<PackedTower<'_>> = towers.into_iter().map(pack).collect();
    let embed = |keys: &Vec<ImageKey>| embed_part(&towers, store, keys);
    let embedded: Vec<Vec<Vec<f32>>> =
        lanes.pool().install(|| parts.par_iter().map(embed).collect());
    let keys = parts.iter().flat_map(|keys| keys.iter().map(|key| key.0)).collect();
    let of_tower = |tower: usize| embedded.iter().flat_map(|part| &part[tower]).copied().collect();
    let embeddings = (0..towers.len()).map(of_tower).collect();
    ContentTable { pictures, keys, embeddings, projection, semantic }
}

/// The semantic ids of the images `parts` of a store, as far as the model sees them.
fn code_table(spec: &Spec, store: &FeatureStore, parts: &[Vec<ImageKey>]) -> Option<CodeTable> {
    let levels = spec.semantic()?.levels;
    let codes = store.codes().expect("a model that sees semantic ids has a store with codes");
    let keys = || parts.iter().flatten();
    let of = |key: &ImageKey| codes.of(*key).expect("every image of the store has codes");
    let of_level = |level: usize| keys().map(|key| u32::from(of(key)[level])).collect();
    Some(CodeTable {
        codebooks: codes.codebooks().first(levels),
        codes: (0..levels).map(of_level).collect(),
    })
}

/// A tower with its weights, ready to run.
struct PackedTower<'a> {
    definition: &'a TowerDefinition,
    weights: &'a [f32],
    first: Packed,
}

impl PackedTower<'_> {
    fn new<'a>(definition: &'a TowerDefinition, dense: &'a [f32]) -> PackedTower<'a> {
        let weights = &dense[definition.range.clone()];
        let mut first = Packed::default();
        definition.model.pack(weights, &mut first);
        PackedTower { definition, weights, first }
    }
}

/// The embeddings of `keys`, the images of one part of the store: one list per tower, (keys, D).
fn embed_part(
    towers: &[PackedTower<'_>],
    store: &FeatureStore,
    keys: &[ImageKey],
) -> Vec<Vec<f32>> {
    let mut scratch = TowerScratch::default();
    let mut block = Vec::new();
    let mut embeddings = vec![Vec::new(); towers.len()];
    for keys in keys.chunks(IMAGE_BLOCK) {
        let row = |&key| store.row(key).expect("the store lists this key").halfs();
        let rows: Vec<Cow<[f16]>> = keys.iter().map(row).collect();
        let rows: Vec<&[f16]> = rows.iter().map(|row| &row[..]).collect();
        for (tower, embeddings) in towers.iter().zip(&mut embeddings) {
            let PackedTower { definition: TowerDefinition { model, scale, .. }, weights, first } =
                tower;
            model.forward(weights, first.panels(), &rows[..], *scale, &mut scratch, &mut block);
            embeddings.extend_from_slice(&block);
        }
    }
    embeddings
}

/// Some impressions of the test (or, without one, of the training) with their logits.
fn golden(trainer: &mut Trainer) -> Result<Golden> {
    let split = match trainer.dataset().card().counts.test {
        0 => SplitName::Train,
        _ => SplitName::Test,
    };
    let mut golden = Golden { groups: Groups::new(trainer.dataset().schema()), logits: Vec::new() };
    let selection = Selection { split, subset: Subset::All };
    trainer.predict(selection, GOLDEN_IMPRESSIONS, Rounds::First, |_, worker| {
        let groups = &worker.batch.groups;
        (0..groups.len()).for_each(|group| golden.groups.push_from(groups, group));
        golden.logits.extend_from_slice(&worker.logits);
    })?;
    Ok(golden)
}
