//! A tower at work on one half of a lane: on the shard with the placement `ams`, else on the
//! worker.

use std::ops::Range;

use ams_data::ImageKey;
use ams_image::{FeatureStore, Place, Row, RowType};
use ams_model::dropout;
use ams_model::linalg::Packed;
use ams_model::tower::{Rows, TowerBuffers, TowerScratch, Upcoming};
use half::f16;

use crate::setup::network::{Network, TowerDefinition};

/// The weights of a step.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// All dense weights: W, then every tower.
    pub dense: &'a [f32],
    /// The first layer of every tower, packed.
    pub first: &'a [Packed],
}

/// The images of one tower.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    /// Image keys as numbers; (U).
    pub keys: &'a [u64],
    /// Their features, (U, F), where a shard sent them; else they are in the store.
    pub mailed: Option<&'a [f16]>,
}

/// What one tower keeps from its forward to its backward pass, and how much it did.
#[derive(Default)]
pub(crate) struct TowerRun {
    scratch: TowerScratch,
    /// Where the features are in the store, unless a shard sent them.
    places: Vec<Place>,
    /// The features as halfs, (U, F), where the store keeps them otherwise.
    widened: Vec<f16>,
    /// Images of the last forward pass.
    pub forwards: usize,
    /// Images of the last backward pass.
    pub backwards: usize,
}

/// A tower at work, and the features that a shard sent for it.
#[derive(Clone, Copy)]
pub(crate) struct TowerAt<'a> {
    /// The tower after its forward pass.
    pub run: &'a TowerRun,
    /// The features, (U, F), where a shard sent them; else they are in the store.
    pub mailed: Option<&'a [f16]>,
}

/// The features that are used after those at work, to be fetched meanwhile.
pub(crate) struct Prefetch<'a> {
    /// The tower whose features they are.
    pub tower: TowerAt<'a>,
    /// The columns of the first matrix.
    pub columns: Range<usize>,
}

/// The features of a tower's images.
enum Features<'a> {
    Stored(&'a FeatureStore, &'a [Place]),
    Mailed(&'a [f16], usize),
}

impl<'a> Features<'a> {
    /// The features that were mailed, of `dim` numbers each; else those that were widened, if any
    /// were; else those at `places`.
    fn of(
        store: &'a FeatureStore,
        places: &'a [Place],
        mailed: Option<&'a [f16]>,
        widened: &'a [f16],
        dim: usize,
    ) -> Features<'a> {
        match mailed {
            Some(rows) => Features::Mailed(rows, dim),
            None if widened.is_empty() => Features::Stored(store, places),
            None => Features::Mailed(widened, dim),
        }
    }
}

impl Rows for Features<'_> {
    fn len(&self) -> usize {
        match self {
            Features::Stored(_, places) => places.len(),
            Features::Mailed(rows, dim) => rows.len() / dim,
        }
    }

    fn row(&self, at: usize) -> &[f16] {
        match self {
            Features::Stored(store, places) => match store.row_at(places[at]) {
                Row::F16(row) => row,
                Row::Int8(..) => unreachable!("rows of bytes are widened before"),
            },
            Features::Mailed(rows, dim) => &rows[at * dim..(at + 1) * dim],
        }
    }
}

impl TowerRun {
    /// Embeds (U) images into `out`, (U, D). `dropout_seed` is that of the step, in training with
    /// dropout; a tower that does not learn drops no units.
    pub(crate) fn forward(
        &mut self,
        network: &Network,
        tower: usize,
        weights: Weights,
        stores: &[FeatureStore],
        images: Images,
        dropout_seed: Option<u64>,
        out: &mut Vec<f32>,
    ) {
        let TowerDefinition { spec, model, range, scale } = &network.towers[tower];
        let TowerRun { scratch, places, widened, forwards, backwards } = self;
        let dropout = scratch.dropout();
        match dropout_seed.filter(|_| spec.is_trained() && network.learns().images) {
            Some(seed) => {
                let seeds = images.keys.iter().map(|&key| dropout::row_seed(seed, tower, key));
                dropout.set(network.tower_dropout, seeds);
            }
            None => dropout.clear(),
        }
        let store = &stores[spec.content];
        places.clear();
        if images.mailed.is_none() {
            let place = |&key| store.place(ImageKey(key)).expect("the store named this key");
            places.extend(images.keys.iter().map(place));
        }
        widened.clear();
        if store.row_type() != RowType::F16 {
            places.iter().for_each(|&place| store.row_at(place).push_halfs(widened));
        }
        let rows = Features::of(store, places, images.mailed, widened, model.config().input);
        let first = weights.first[tower].panels();
        model.forward(&weights.dense[range.clone()], first, &rows, *scale, scratch, out);
        (*forwards, *backwards) = (rows.len(), 0);
    }

    /// Adds the gradient of the tower to its range of `dense_grad`, given `dout`, (U, D); but for
    /// the matrix of its first layer, see [`TowerRun::backward_columns`].
    pub(crate) fn backward(
        &mut self,
        network: &Network,
        tower: usize,
        dense: &[f32],
        dout: &[f32],
        dense_grad: &mut [f32],
    ) {
        let TowerDefinition { model, range, .. } = &network.towers[tower];
        let (e, de) = (&dense[range.clone()], &mut dense_grad[range.clone()]);
        model.backward(e, &mut self.scratch, dout, de);
        self.backwards = dout.len() / model.dim();
    }
}

impl TowerAt<'_> {
    /// Overwrites `dw`, (columns, outputs), with the gradient of `columns` of the first layer's
    /// matrix, transposed, after the backward pass, and fetches the features of `next` meanwhile.
    pub(crate) fn backward_columns(
        &self,
        network: &Network,
        tower: usize,
        stores: &[FeatureStore],
        columns: Range<usize>,
        next: Prefetch<'_>,
        room: &mut TowerBuffers,
        dw: &mut [f32],
    ) {
        let TowerDefinition { spec, model, scale, .. } = &network.towers[tower];
        let (store, dim) = (&stores[spec.content], model.config().input);
        let rows = self.features(store, dim);
        let next_rows = next.tower.features(store, dim);
        let next = Some(Upcoming { rows: &next_rows, columns: next.columns });
        model.backward_columns(&rows, *scale, &self.run.scratch, columns, next, room, dw);
    }
}

impl<'a> TowerAt<'a> {
    /// The features of the last forward pass.
    fn features<'b>(&self, store: &'b FeatureStore, dim: usize) -> Features<'b>
    where
        'a: 'b,
    {
        let TowerRun { places, widened, .. } = self.run;
        Features::of(store, places, self.mailed, widened, dim)
    }
}
