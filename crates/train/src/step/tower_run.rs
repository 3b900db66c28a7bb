//! A tower at work on one half of a lane: on the shard with the placement `ams`, else on the
//! worker.

use std::ops::Range;

use ams_data::ImageKey;
use ams_image::{FeatureStore, Place, Row, RowType};
use ams_model::dropout;
use ams_model::linalg::Packed;
use ams_model::tower::{Room, Rows, TowerScratch};
use half::f16;

use crate::settings::FeatureFormat;
use crate::setup::network::{Plan, PlannedTower};

/// The weights of a step.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// All dense weights.
    pub dense: &'a [f32],
    /// The first layer of every tower, packed.
    pub first: &'a [Packed],
}

/// The images of one tower.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    /// Their keys; (U).
    pub keys: &'a [u64],
    /// Their features, (U, F), where they came by mail; else they are in the store.
    pub came: Option<&'a [f16]>,
}

/// What one tower keeps from its forward to its backward pass, and how much it did.
#[derive(Default)]
pub struct TowerRun {
    scratch: TowerScratch,
    /// Where the features are in the store, unless they came.
    places: Vec<Place>,
    /// The features as halfs, (U, F), where the store keeps them otherwise.
    widened: Vec<f16>,
    /// Images of the last forward pass.
    pub forwards: usize,
    /// Images of the last backward pass.
    pub backwards: usize,
}

/// What will be asked for next: a run, its features if they came by mail, and columns.
pub type Next<'a> = (&'a TowerRun, Option<&'a [f16]>, Range<usize>);

/// The features of a tower's images.
enum Features<'a> {
    Stored(&'a FeatureStore, &'a [Place]),
    Came(&'a [f16], usize),
}

impl Rows for Features<'_> {
    fn len(&self) -> usize {
        match self {
            Features::Stored(_, places) => places.len(),
            Features::Came(rows, dim) => rows.len() / dim,
        }
    }

    fn row(&self, at: usize) -> &[f16] {
        match self {
            Features::Stored(store, places) => match store.row_at(places[at]) {
                Row::F16(row) => row,
                Row::Int8(..) => unreachable!("rows of bytes are widened before"),
            },
            Features::Came(rows, dim) => &rows[at * dim..(at + 1) * dim],
        }
    }
}

impl TowerRun {
    /// Embeds (U) images into `out`, (U, D). In training with dropout, `masks` is the seed of the
    /// step's masks.
    pub fn forward(
        &mut self,
        plan: &Plan,
        tower: usize,
        weights: Weights,
        stores: &[FeatureStore],
        images: Images,
        masks: Option<u64>,
        out: &mut Vec<f32>,
    ) {
        let PlannedTower { spec, model, range, scale } = &plan.towers[tower];
        let TowerRun { scratch, places, widened, forwards, backwards } = self;
        let dropout = scratch.dropout();
        match masks.filter(|_| spec.is_trained()) {
            Some(masks) => {
                let seeds = images.keys.iter().map(|&key| dropout::row_seed(masks, tower, key));
                dropout.set(plan.tower_dropout, seeds);
            }
            None => dropout.clear(),
        }
        let store = &stores[spec.content];
        places.clear();
        if images.came.is_none() {
            let place = |&key| store.place(ImageKey(key)).expect("the store named this key");
            places.extend(images.keys.iter().map(place));
        }
        widened.clear();
        if store.row_type() != RowType::F16 {
            places.iter().for_each(|&place| store.row_at(place).push_halfs(widened));
        }
        let came = images.came.or(some(widened));
        let rows = features(store, places, came, model.config().input);
        let first = weights.first[tower].panels();
        model.forward(&weights.dense[range.clone()], first, &rows, *scale, scratch, out);
        (*forwards, *backwards) = (rows.len(), 0);
    }

    /// Adds the gradient of the tower to its place in `dense_grad`, given `dout`, (U, D); but for
    /// the matrix of its first layer, see [`TowerRun::backward_columns`].
    pub fn backward(
        &mut self,
        plan: &Plan,
        tower: usize,
        dense: &[f32],
        dout: &[f32],
        dense_grad: &mut [f32],
    ) {
        let PlannedTower { model, range, .. } = &plan.towers[tower];
        let (e, de) = (&dense[range.clone()], &mut dense_grad[range.clone()]);
        model.backward(e, &mut self.scratch, dout, de);
        self.backwards = dout.len() / model.dim();
    }

    /// Overwrites `dw`, (columns, outputs), with the gradient of `columns` of the first layer's
    /// matrix, transposed, after the backward pass. `came` are the features that came by mail.
    pub fn backward_columns(
        &self,
        plan: &Plan,
        tower: usize,
        stores: &[FeatureStore],
        came: Option<&[f16]>,
        columns: Range<usize>,
        next: Option<Next>,
        room: &mut Room,
        dw: &mut [f32],
    ) {
        let PlannedTower { spec, model, scale, .. } = &plan.towers[tower];
        let (store, dim) = (&stores[spec.content], model.config().input);
        let rows = self.features(store, came, dim);
        let next = next.map(|(run, came, columns)| (run.features(store, came, dim), columns));
        let next = next.as_ref().map(|(rows, columns)| (rows, columns.clone()));
        model.backward_columns(&rows, *scale, &self.scratch, columns, next, room, dw);
    }

    /// The features of the last forward pass; `came` are those that came by mail.
    fn features<'a>(
        &'a self,
        store: &'a FeatureStore,
        came: Option<&'a [f16]>,
        dim: usize,
    ) -> Features<'a> {
        features(store, &self.places, came.or(some(&self.widened)), dim)
    }
}

/// The features that were widened, if any were.
fn some(widened: &[f16]) -> Option<&[f16]> {
    (!widened.is_empty()).then_some(widened)
}

fn features<'a>(
    store: &'a FeatureStore,
    places: &'a [Place],
    came: Option<&'a [f16]>,
    dim: usize,
) -> Features<'a> {
    came.map_or(Features::Stored(store, places), |rows| Features::Came(rows, dim))
}

/// Appends a feature as words: two halfs each, or one float.
pub fn push_feature(row: &[f16], format: FeatureFormat, words: &mut Vec<u32>) {
    match format {
        FeatureFormat::F16 => words.extend(row.chunks(2).map(|pair| {
            let high = pair.get(1).map_or(0, |half| u32::from(half.to_bits()));
            u32::from(pair[0].to_bits()) | high << 16
        })),
        FeatureFormat::F32 => words.extend(row.iter().map(|half| half.to_f32().to_bits())),
    }
}

/// Appends the features of `dim` numbers in `words`, as [`push_feature`] wrote them, to `into`.
pub fn read_features(words: &[u32], dim: usize, format: FeatureFormat, into: &mut Vec<f16>) {
    for row in words.chunks_exact(format.words(dim)) {
        match format {
            FeatureFormat::F16 => {
                let halfs = row.iter().flat_map(|word| [*word as u16, (word >> 16) as u16]);
                into.extend(halfs.take(dim).map(f16::from_bits));
            }
            FeatureFormat::F32 => {
                into.extend(row.iter().map(|word| f16::from_f32(f32::from_bits(*word))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_survive_the_way() {
        for (dim, format) in [1, 2, 5, 8]
            .into_iter()
            .flat_map(|dim| [(dim, FeatureFormat::F16), (dim, FeatureFormat::F32)])
        {
            let numbers = (0..3 * dim).map(|at| f16::from_f32((at as f32 - 2.5) / 7.0));
            let rows: Vec<f16> = numbers.collect();
            let mut words = Vec::new();
            rows.chunks(dim).for_each(|row| push_feature(row, format, &mut words));
            assert_eq!(words.len(), 3 * format.words(dim));
            let mut back = Vec::new();
            read_features(&words, dim, format, &mut back);
            assert_eq!(back, rows);
        }
    }
}
