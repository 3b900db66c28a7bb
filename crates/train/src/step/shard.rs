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
use crate::setup::network::Plan;
use crate::step::dedup::{IdMap, Merge};
use crate::step::table::{TOGETHER, Table};
use crate::step::tower_run::{Images, TowerRun, Weights, push_feature};
use crate::step::traffic::{Counts, bytes};
use crate::step::worker::GRADIENT_HEADER;

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
    pub fn take_asks(&mut self, mail: &Mailbox<'_>, lane: usize, lanes: usize, unknown: Unknown) {
        self.ids.clear();
        self.towers.iter_mut().for_each(|tower| tower.images.clear());
        for worker in 0..lanes {
            let words = mail.read(worker, lane);
            let (header, mut rest) = words.split_at(2 + self.towers.len());
            let merges =
                std::iter::once(&mut self.ids).chain(self.towers.iter_mut().map(|t| &mut t.images));
            for (merge, &count) in merges.zip(&header[1..]) {
                let (part, tail) = rest.split_at(2 * count as usize);
                merge.take(part);
                rest = tail;
            }
            assert!(rest.is_empty(), "worker {worker} asks what it says");
        }
        self.slots.clear();
        match unknown {
            Unknown::Create => self.table.slots_or_new(&self.ids.ids, &mut self.slots),
            Unknown::Zero => self.table.slots(&self.ids.ids, &mut self.slots),
        }
    }

    /// Runs the towers over the images asked for, if they run here; `masks` as for
    /// [`TowerRun::forward`].
    pub fn embed(
        &mut self,
        plan: &Plan,
        weights: Weights,
        stores: &[FeatureStore],
        masks: Option<u64>,
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
                let images = Images { keys: images, came: None };
                let out = &mut tower.embeddings;
                tower.run.forward(plan, index, weights, stores, images, masks, out);
                counts.tower_forwards += tower.run.forwards as f64;
            }
        }
    }

    /// Writes every worker the rows it asked for, and the embeddings or features.
    pub fn write_answers(
        &mut self,
        plan: &Plan,
        stores: &[FeatureStore],
        (lane, lanes): (usize, usize),
        out: &mut Outbox,
    ) {
        let Shard { table, ids, slots, towers, counts, .. } = self;
        let dim = table.dim();
        out.clear();
        for worker in 0..lanes {
            let words = out.words();
            let start = words.len();
            for asks in ids.of(worker).chunks(TOGETHER) {
                table.fetch(asks.iter().filter_map(|&ask| slots[ask as usize]));
                for &ask in asks {
                    match slots[ask as usize] {
                        Some(slot) => {
                            words.extend_from_slice(bytemuck::cast_slice(table.row(slot)))
                        }
                        None => words.resize(words.len() + dim, 0),
                    }
                }
            }
            let rows = words.len();
            counts.traffic.rows += bytes(rows - start, lane, worker);
            for (index, tower) in towers.iter().enumerate() {
                let (asks, dim) = (tower.images.of(worker), plan.towers[index].dim());
                match plan.placement {
                    Placement::Ams => {
                        for &ask in asks {
                            let start = ask as usize * dim;
                            let row = &tower.embeddings[start..start + dim];
                            words.extend_from_slice(bytemuck::cast_slice(row));
                        }
                    }
                    Placement::StoreInServer => {
                        let store = &stores[plan.towers[index].spec.content];
                        for &ask in asks {
                            let key = ImageKey(tower.images.ids[ask as usize]);
                            let row = store.row(key).expect("the store named this key");
                            push_feature(&row.halfs(), plan.features_as, words);
                        }
                    }
                    Placement::StoreInWorker => assert!(asks.is_empty(), "features are at hand"),
                }
            }
            let images = bytes(words.len() - rows, lane, worker);
            match plan.placement {
                Placement::Ams => counts.traffic.embeddings += images,
                _ => counts.traffic.features += images,
            }
            out.seal();
        }
    }

    /// Sums the gradients of all lanes per id and per image, in lane order, and updates the rows in
    /// the step of `adam` with the learning rate `lr`.
    pub fn take_gradients(
        &mut self,
        plan: &Plan,
        mail: &Mailbox<'_>,
        (lane, lanes): (usize, usize),
        (adam, lr): (AdamStep, f32),
    ) {
        let dim = self.table.dim();
        zero(&mut self.drows, self.ids.ids.len() * dim);
        for (tower, planned) in self.towers.iter_mut().zip(&plan.towers) {
            zero(&mut tower.dembeddings, tower.images.ids.len() * planned.dim());
        }
        for worker in 0..lanes {
            let words = &mail.read(worker, lane)[GRADIENT_HEADER..];
            let mut rest: &[f32] = bytemuck::cast_slice(words);
            rest = add_by_ask(self.ids.of(worker), dim, rest, &mut self.drows);
            if plan.placement == Placement::Ams {
                for (index, planned) in plan.trained() {
                    let tower = &mut self.towers[index];
                    let asks = tower.images.of(worker);
                    rest = add_by_ask(asks, planned.dim(), rest, &mut tower.dembeddings);
                }
            }
            assert!(rest.is_empty(), "worker {worker} sends gradients of what it was answered");
        }
        let drows = self.drows.chunks_exact_mut(dim);
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
    /// The run of tower `tower`, where towers run on shards.
    pub fn tower(&self, tower: usize) -> &TowerRun {
        &self.towers[tower].run
    }
}

/// Adds one worker's gradients to the sums of what it asked for; returns the rest of the mail.
fn add_by_ask<'a>(asks: &[u32], dim: usize, words: &'a [f32], sums: &mut [f32]) -> &'a [f32] {
    let (part, rest) = words.split_at(asks.len() * dim);
    for (&ask, gradient) in asks.iter().zip(part.chunks_exact(dim)) {
        let start = ask as usize * dim;
        for (sum, value) in sums[start..start + dim].iter_mut().zip(gradient) {
            *sum += value;
        }
    }
    rest
}

fn zero(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}
