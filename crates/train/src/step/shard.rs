//! The shard of a lane: owns rows and image features, runs the towers E where the features are.
//!
//! Requests of all lanes for one id or image are merged in lane order: one lookup, one forward, one
//! backward. With the placement `ams` image features stay here; only embeddings and gradients are
//! mailed.

use ams_data::{Id, IdMap, ImageKey};
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::adam::AdamStep;
use ams_model::linalg::{self, zeros};

use crate::settings::Placement;
use crate::setup::network::Network;
use crate::step::dedup::Merge;
use crate::step::mail::{self, Ask, Gradients, Seat, Values};
use crate::step::search::SearchShard;
use crate::step::table::{RowTable, TOGETHER};
use crate::step::tower_run::{Images, TowerAt, TowerRun, Weights};
use crate::step::traffic::{Counts, bytes};

/// Name from which, with seed and id, the first values of rows are drawn.
pub(crate) const ROWS: &str = "embedding";

/// How a lookup answers an id that has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// While rows learn: make the row, with its initial value, if the id occurs often enough.
    Create,
    /// Else, as in an evaluation: answer zeros, as the scorer does; the worker looks up what stands
    /// in for it.
    Zero,
}

/// What a lane keeps from step to step besides its worker.
pub(crate) struct Lane {
    /// The rows and images that it owns.
    pub shard: Shard,
    /// The gradient of the dense weights; of the first lane, after a step, the sum of all lanes.
    pub gradient: Vec<f32>,
}

/// The half of a lane that holds ids and images.
pub(crate) struct Shard {
    /// The rows this shard owns.
    pub table: RowTable,
    /// Counters of this shard in this step.
    pub counts: Counts,
    /// Occurrences of its ids in the training samples, where [`Network::counts_ids`].
    pub frequency: IdMap,
    /// Its part of searches.
    pub search: SearchShard,
    ids: Merge,
    /// The slot of each merged id; none for an unknown one.
    slots: Vec<Option<u32>>,
    drows: Vec<f32>,
    towers: Vec<ShardTower>,
}

/// One tower's images of the step.
#[derive(Default)]
struct ShardTower {
    images: Merge,
    run: TowerRun,
    embeddings: Vec<f32>,
    dembeddings: Vec<f32>,
}

impl Shard {
    /// A shard of `network`'s model without rows.
    pub(crate) fn new(network: &Network, seed: u64) -> Shard {
        let mut table = RowTable::new(ROWS, seed, network.spec.dim(), network.rows.states());
        table.start_from_zeros(&network.unknown);
        Shard {
            table,
            counts: Counts::default(),
            frequency: IdMap::default(),
            search: SearchShard::default(),
            ids: Merge::default(),
            slots: Vec::new(),
            drows: Vec::new(),
            towers: (0..network.towers.len()).map(|_| ShardTower::default()).collect(),
        }
    }

    /// Takes the asks of all lanes: merges them and looks up or makes the rows.
    pub(crate) fn take_asks(
        &mut self,
        network: &Network,
        mail: &Mailbox<'_>,
        seat: Seat,
        unknown: Unknown,
    ) {
        self.ids.clear();
        self.towers.iter_mut().for_each(|tower| tower.images.clear());
        for worker in 0..seat.lanes {
            let ask = Ask::read(mail.read(worker, seat.lane), 1 + self.towers.len());
            let images = self.towers.iter_mut().map(|tower| &mut tower.images);
            let merges = std::iter::once(&mut self.ids).chain(images);
            merges.zip(ask.lists()).for_each(|(merge, list)| merge.take(list));
        }
        self.slots.clear();
        match unknown {
            Unknown::Create if network.min_occurrences > 1 => self.admit(network),
            Unknown::Create => self.table.slots_or_new(&self.ids.keys, &mut self.slots),
            Unknown::Zero => self.table.slots(&self.ids.keys, &mut self.slots),
        }
    }

    /// Looks up the rows, and makes those of ids that occur often enough, or stand in for others.
    fn admit(&mut self, network: &Network) {
        let Shard { table, ids, slots, frequency, .. } = self;
        table.slots(&ids.keys, slots);
        for (slot, &id) in slots.iter_mut().zip(&ids.keys).filter(|(slot, _)| slot.is_none()) {
            let occurrences = frequency.get(&id).copied().unwrap_or(0);
            if occurrences >= network.min_occurrences || network.unknown.contains(&Id(id)) {
                *slot = Some(table.slot_or_new(id));
            }
        }
    }

    /// Runs the towers over the images asked for, if they run here; `dropout_seed`
    /// as for [`TowerRun::forward`].
    pub(crate) fn embed(
        &mut self,
        network: &Network,
        weights: Weights,
        stores: &[FeatureStore],
        dropout_seed: Option<u64>,
    ) {
        let Shard { towers, counts, .. } = self;
        *counts = Counts::default();
        counts.ids.unique_per_shard = self.ids.keys.len() as f64;
        counts.storage.shard = (self.ids.keys.len() * network.spec.dim() * size_of::<f32>()) as f64;
        for (index, tower) in towers.iter_mut().enumerate() {
            let images = &tower.images.keys;
            counts.images.unique_per_shard += images.len() as f64;
            counts.storage.shard += (images.len() * network.towers[index].input() * 2) as f64;
            if network.placement == Placement::Ams {
                let images = Images { keys: images, mailed: None };
                let out = &mut tower.embeddings;
                tower.run.forward(network, index, weights, stores, images, dropout_seed, out);
                counts.tower_forwards += tower.run.forwards as f64;
            }
        }
    }

    /// Writes every worker the rows that it asked for, and the embeddings or features.
    pub(crate) fn write_answers(
        &mut self,
        network: &Network,
        stores: &[FeatureStore],
        seat: Seat,
        out: &mut Outbox,
    ) {
        let Shard { table, ids, slots, towers, counts, .. } = self;
        let (dim, lane) = (table.dim(), seat.lane);
        out.clear();
        for worker in 0..seat.lanes {
            let words = out.words();
            let start = words.len();
            for numbers in ids.of(worker).chunks(TOGETHER) {
                table.fetch(numbers.iter().filter_map(|&number| slots[number as usize]));
                for &number in numbers {
                    match slots[number as usize] {
                        Some(slot) => mail::push_floats(table.row(slot), words),
                        None => mail::push_zeros(dim, words),
                    }
                }
            }
            if !network.unknown.is_empty() {
                let numbers = ids.of(worker).iter();
                mail::push_bits(numbers.map(|&number| slots[number as usize].is_some()), words);
            }
            let rows = words.len();
            counts.traffic.rows += bytes(rows - start, lane, worker);
            for (tower, definition) in towers.iter().zip(&network.towers) {
                let numbers = tower.images.of(worker);
                match network.placement {
                    Placement::Ams => {
                        let dim = definition.dim();
                        for &number in numbers {
                            let embedding = &tower.embeddings[number as usize * dim..][..dim];
                            mail::push_floats(embedding, words);
                        }
                    }
                    Placement::StoreInServer => {
                        let store = &stores[definition.spec.content];
                        for &number in numbers {
                            let key = ImageKey(tower.images.keys[number as usize]);
                            let row = store.row(key).expect("the store named this key");
                            mail::push_feature(&row.halfs(), network.features_as, words);
                        }
                    }
                    Placement::StoreInWorker => {
                        assert!(numbers.is_empty(), "features are at hand");
                    }
                }
            }
            let images = bytes(words.len() - rows, lane, worker);
            match network.placement {
                Placement::Ams => counts.traffic.embeddings += images,
                _ => counts.traffic.features += images,
            }
            out.seal();
        }
    }

    /// Sums the gradients of all lanes per id and per image, in lane order.
    pub(crate) fn sum_gradients(&mut self, network: &Network, mail: &Mailbox<'_>, seat: Seat) {
        let (dim, auxiliary) = (self.table.dim(), network.has_auxiliary_losses());
        let rows = if network.learns().ids { self.ids.keys.len() } else { 0 };
        zeros(&mut self.drows, rows * dim);
        for (tower, definition) in self.towers.iter_mut().zip(&network.towers) {
            zeros(&mut tower.dembeddings, tower.images.keys.len() * definition.dim());
        }
        for worker in 0..seat.lanes {
            let mut values = Gradients::read(mail.read(worker, seat.lane), auxiliary).values;
            if network.learns().ids {
                add_by_number(self.ids.of(worker), dim, &mut values, &mut self.drows);
            }
            if network.placement == Placement::Ams {
                for (index, definition) in network.learning() {
                    let tower = &mut self.towers[index];
                    let numbers = tower.images.of(worker);
                    add_by_number(numbers, definition.dim(), &mut values, &mut tower.dembeddings);
                }
            }
            values.end(worker);
        }
    }

    /// Updates the rows by the summed gradients, in the step of `adam` with the learning rate `lr`.
    pub(crate) fn update_rows(&mut self, network: &Network, adam: AdamStep, lr: f32) {
        let drows = self.drows.chunks_exact_mut(self.table.dim());
        for (at, ((slot, drow), id)) in self.slots.iter().zip(drows).zip(&self.ids.keys).enumerate()
        {
            if at.is_multiple_of(TOGETHER) {
                self.table.fetch(self.slots[at..].iter().take(TOGETHER).copied().flatten());
            }
            // An id that was not admitted has no row to learn.
            let &Some(slot) = slot else { continue };
            let row = self.table.row_mut(slot);
            if network.l2_ids > 0.0 && !network.unknown.contains(&Id(*id)) {
                let occurrences = self.frequency.get(id).copied().unwrap_or(1).max(1);
                let pull = network.l2_ids / occurrences as f32;
                drow.iter_mut().zip(&*row.row).for_each(|(drow, row)| *drow += pull * row);
            }
            network.rows.update(&adam, lr, row.row, row.state, drow);
        }
    }

    /// Adds the towers' gradients to `dense_grad`, in their ranges, but for the matrices of their
    /// first layers.
    pub(crate) fn towers_backward(
        &mut self,
        network: &Network,
        dense: &[f32],
        dense_grad: &mut [f32],
    ) {
        if network.placement != Placement::Ams {
            return;
        }
        for (index, _) in network.learning() {
            let tower = &mut self.towers[index];
            tower.run.backward(network, index, dense, &tower.dembeddings, dense_grad);
            self.counts.tower_backwards += tower.run.backwards as f64;
        }
    }

    /// Tower `tower`, where towers run on shards.
    pub(crate) fn tower(&self, tower: usize) -> TowerAt<'_> {
        TowerAt { run: &self.towers[tower].run, mailed: None }
    }
}

/// Adds one worker's gradients to the sums of the ids or images that it asked for.
fn add_by_number(numbers: &[u32], dim: usize, values: &mut Values<'_>, sums: &mut [f32]) {
    let gradients = values.floats(numbers.len() * dim);
    for (&number, gradient) in numbers.iter().zip(gradients.chunks_exact(dim)) {
        linalg::add(gradient, &mut sums[number as usize * dim..][..dim]);
    }
}
