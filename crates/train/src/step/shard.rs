//! The shard of a lane: owns rows and image features, runs the towers E where the features are.
//!
//! Requests of all lanes for one id or image are merged in lane order: one lookup, one forward, one
//! backward. With the placement `ams` image features stay here; only embeddings and gradients are
//! mailed.

use ams_data::ImageKey;
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::adam::AdamStep;

use crate::settings::Placement;
use crate::setup::network::{Plan, PlannedTower};
use crate::step::dedup::{IdMap, Merge};
use crate::step::mail::{self, Ask, Gradients, Values};
use crate::step::seat::Seat;
use crate::step::table::{TOGETHER, Table};
use crate::step::tower_run::{Images, TowerAt, TowerRun, Weights};
use crate::step::traffic::{Counts, bytes};

/// What the rows' first values are drawn for.
pub const ROWS: &str = "embedding";

/// What a lookup does with an id that has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Training: make the row, with its initial value.
    Create,
    /// Evaluation: answer zeros, as the scorer does.
    Zero,
}

/// The half of a lane that holds ids and images.
pub struct Shard {
    /// The rows this shard owns.
    pub table: Table,
    /// What this shard did and sent in this step.
    pub counts: Counts,
    /// Occurrences of its ids in the training samples, where rows are drawn towards zero.
    pub frequency: IdMap,
    ids: Merge,
    /// The slot of each merged id; none for an unknown one.
    slots: Vec<Option<u32>>,
    drows: Vec<f32>,
    towers: Vec<TowerState>,
}

/// One tower's images of the step.
#[derive(Default)]
struct TowerState {
    images: Merge,
    run: TowerRun,
    embeddings: Vec<f32>,
    dembeddings: Vec<f32>,
}

impl Shard {
    /// A shard of `plan`'s model without rows.
    pub fn new(plan: &Plan, seed: u64) -> Shard {
        Shard {
            table: Table::new(ROWS, seed, plan.spec.dim, plan.rows.states()),
            counts: Counts::default(),
            frequency: IdMap::default(),
            ids: Merge::default(),
            slots: Vec::new(),
            drows: Vec::new(),
            towers: (0..plan.towers.len()).map(|_| TowerState::default()).collect(),
        }
    }

    /// Takes the asks of all lanes: merges them and looks up or makes the rows.
    pub fn take_asks(&mut self, mail: &Mailbox<'_>, seat: Seat, unknown: Unknown) {
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
            Unknown::Create => self.table.slots_or_new(&self.ids.ids, &mut self.slots),
            Unknown::Zero => self.table.slots(&self.ids.ids, &mut self.slots),
        }
    }

    /// Runs the towers over the images asked for, if they run here; `dropout_seed`
    /// as for [`TowerRun::forward`].
    pub fn embed(
        &mut self,
        plan: &Plan,
        weights: Weights,
        stores: &[FeatureStore],
        dropout_seed: Option<u64>,
    ) {
        let Shard { towers, counts, .. } = self;
        *counts = Counts::default();
        counts.ids.unique_per_shard = self.ids.ids.len() as f64;
        counts.storage.shard = (self.ids.ids.len() * plan.spec.dim * size_of::<f32>()) as f64;
        for (index, tower) in towers.iter_mut().enumerate() {
            let images = &tower.images.ids;
            counts.images.unique_per_shard += images.len() as f64;
            counts.storage.shard += (images.len() * plan.towers[index].input() * 2) as f64;
            if plan.placement == Placement::Ams {
                let images = Images { keys: images, mailed: None };
                let out = &mut tower.embeddings;
                tower.run.forward(plan, index, weights, stores, images, dropout_seed, out);
                counts.tower_forwards += tower.run.forwards as f64;
            }
        }
    }

    /// Writes every worker the rows that it asked for, and the embeddings or features.
    pub fn write_answers(
        &mut self,
        plan: &Plan,
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
            for asks in ids.of(worker).chunks(TOGETHER) {
                table.fetch(asks.iter().filter_map(|&ask| slots[ask as usize]));
                for &ask in asks {
                    match slots[ask as usize] {
                        Some(slot) => mail::push_floats(table.row(slot), words),
                        None => mail::push_zeros(dim, words),
                    }
                }
            }
            let rows = words.len();
            counts.traffic.rows += bytes(rows - start, lane, worker);
            for (tower, planned) in towers.iter().zip(&plan.towers) {
                tower.write_answer(plan, planned, stores, worker, words);
            }
            let images = bytes(words.len() - rows, lane, worker);
            match plan.placement {
                Placement::Ams => counts.traffic.embeddings += images,
                _ => counts.traffic.features += images,
            }
            out.seal();
        }
    }

    /// Sums the gradients of all lanes per id and per image, in lane order.
    pub fn sum_gradients(&mut self, plan: &Plan, mail: &Mailbox<'_>, seat: Seat) {
        let dim = self.table.dim();
        zero(&mut self.drows, self.ids.ids.len() * dim);
        for (tower, planned) in self.towers.iter_mut().zip(&plan.towers) {
            zero(&mut tower.dembeddings, tower.images.ids.len() * planned.dim());
        }
        for worker in 0..seat.lanes {
            let mut values = Gradients::read(mail.read(worker, seat.lane)).values;
            add_by_ask(self.ids.of(worker), dim, &mut values, &mut self.drows);
            if plan.placement == Placement::Ams {
                for (index, planned) in plan.trained() {
                    let tower = &mut self.towers[index];
                    let asks = tower.images.of(worker);
                    add_by_ask(asks, planned.dim(), &mut values, &mut tower.dembeddings);
                }
            }
            values.end(worker);
        }
    }

    /// Updates the rows by the summed gradients, in the step of `adam` with the learning rate `lr`.
    pub fn update_rows(&mut self, plan: &Plan, adam: AdamStep, lr: f32) {
        let drows = self.drows.chunks_exact_mut(self.table.dim());
        for (at, ((slot, drow), id)) in self.slots.iter().zip(drows).zip(&self.ids.ids).enumerate()
        {
            if at.is_multiple_of(TOGETHER) {
                self.table.fetch(self.slots[at..].iter().take(TOGETHER).copied().flatten());
            }
            let row = self.table.row_mut(slot.expect("training makes every row"));
            if plan.l2_ids > 0.0 {
                let occurrences = self.frequency.get(id).copied().unwrap_or(1).max(1);
                let pull = plan.l2_ids / occurrences as f32;
                drow.iter_mut().zip(&*row.row).for_each(|(drow, row)| *drow += pull * row);
            }
            plan.rows.update(&adam, lr, row.row, row.state, drow);
        }
    }

    /// Adds the towers' gradients to `dense_grad`, at their place among the dense weights; but for
    /// the matrices of their first layers.
    pub fn towers_backward(&mut self, plan: &Plan, dense: &[f32], dense_grad: &mut [f32]) {
        if plan.placement != Placement::Ams {
            return;
        }
        for (index, _) in plan.trained() {
            let tower = &mut self.towers[index];
            tower.run.backward(plan, index, dense, &tower.dembeddings, dense_grad);
            self.counts.tower_backwards += tower.run.backwards as f64;
        }
    }
}

impl Shard {
    /// Tower `tower`, where towers run on shards.
    pub fn tower(&self, tower: usize) -> TowerAt<'_> {
        TowerAt { run: &self.towers[tower].run, mailed: None }
    }
}

impl TowerState {
    /// Appends what `worker` asked for of this tower.
    fn write_answer(
        &self,
        plan: &Plan,
        planned: &PlannedTower,
        stores: &[FeatureStore],
        worker: usize,
        words: &mut Vec<u32>,
    ) {
        let (asks, dim) = (self.images.of(worker), planned.dim());
        match plan.placement {
            Placement::Ams => {
                for &ask in asks {
                    let start = ask as usize * dim;
                    mail::push_floats(&self.embeddings[start..start + dim], words);
                }
            }
            Placement::StoreInServer => {
                let store = &stores[planned.spec.content];
                for &ask in asks {
                    let key = ImageKey(self.images.ids[ask as usize]);
                    let row = store.row(key).expect("the store named this key");
                    mail::push_feature(&row.halfs(), plan.features_as, words);
                }
            }
            Placement::StoreInWorker => assert!(asks.is_empty(), "features are at hand"),
        }
    }
}

/// Adds one worker's gradients to the sums of the ids or images that it asked for.
fn add_by_ask(asks: &[u32], dim: usize, values: &mut Values<'_>, sums: &mut [f32]) {
    let gradients = values.floats(asks.len() * dim);
    for (&ask, gradient) in asks.iter().zip(gradients.chunks_exact(dim)) {
        let start = ask as usize * dim;
        for (sum, value) in sums[start..start + dim].iter_mut().zip(gradient) {
            *sum += value;
        }
    }
}

fn zero(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}
