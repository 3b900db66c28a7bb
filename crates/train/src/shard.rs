//! The shard of a lane: owns rows and image features, runs the towers E where the features are.
//!
//! Requests of all lanes for one id or image are merged in lane order: one lookup, one forward, one
//! backward. Image features never leave this file's hands; only embeddings and gradients are mailed.

use ams_data::ImageKey;
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::adam::AdamStep;
use ams_model::tower::TowerScratch;
use half::f16;

use crate::ask::Merge;
use crate::plan::Plan;
use crate::table::Table;
use crate::worker::GRADIENT_HEADER;

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
    scratch: TowerScratch,
    embeddings: Vec<f32>,
    dembeddings: Vec<f32>,
}

impl Shard {
    /// A shard of `plan`'s model without rows.
    pub fn new(plan: &Plan, seed: u64) -> Shard {
        Shard {
            table: Table::new("embedding", seed, plan.spec.dim),
            ids: Merge::default(),
            slots: Vec::new(),
            drows: Vec::new(),
            towers: (0..plan.towers).map(|_| TowerState::default()).collect(),
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
        self.slots.extend(self.ids.ids.iter().map(|&id| match unknown {
            Unknown::Create => Some(self.table.slot_or_new(id)),
            Unknown::Zero => self.table.slot(id),
        }));
    }

    /// Runs the towers over the images asked for; `dense` are all dense weights.
    pub fn embed(&mut self, plan: &Plan, dense: &[f32], store: Option<&FeatureStore>) {
        let Some(model) = &plan.tower else { return };
        for (index, tower) in self.towers.iter_mut().enumerate() {
            let rows = features(store, &tower.images.ids);
            model.forward(
                &dense[plan.tower_range(index)],
                &rows,
                plan.scale,
                &mut tower.scratch,
                &mut tower.embeddings,
            );
        }
    }

    /// Writes every worker the rows and embeddings it asked for.
    pub fn write_answers(&self, lanes: usize, out: &mut Outbox) {
        let dim = self.table.dim();
        out.clear();
        for worker in 0..lanes {
            let words = out.words();
            for &ask in self.ids.of(worker) {
                match self.slots[ask as usize] {
                    Some(slot) => {
                        words.extend_from_slice(bytemuck::cast_slice(self.table.row(slot)));
                    }
                    None => words.resize(words.len() + dim, 0),
                }
            }
            for tower in &self.towers {
                for &ask in tower.images.of(worker) {
                    let start = ask as usize * dim;
                    let row = &tower.embeddings[start..start + dim];
                    words.extend_from_slice(bytemuck::cast_slice(row));
                }
            }
            out.seal();
        }
    }

    /// Sums the gradients of all lanes per id and per image, in lane order; updates the rows with
    /// `adam` and adds the towers' gradients to `dense_grad`, at their place among the dense weights.
    pub fn take_gradients(
        &mut self,
        plan: &Plan,
        mail: &Mailbox<'_>,
        (lane, lanes): (usize, usize),
        adam: AdamStep,
        (dense, dense_grad): (&[f32], &mut [f32]),
        store: Option<&FeatureStore>,
    ) {
        let dim = self.table.dim();
        zero(&mut self.drows, self.ids.ids.len() * dim);
        for tower in &mut self.towers {
            zero(&mut tower.dembeddings, tower.images.ids.len() * dim);
        }
        for worker in 0..lanes {
            let words = &mail.read(worker, lane)[GRADIENT_HEADER..];
            let mut rest: &[f32] = bytemuck::cast_slice(words);
            rest = add_by_ask(self.ids.of(worker), dim, rest, &mut self.drows);
            for tower in &mut self.towers {
                let asks = tower.images.of(worker);
                rest = add_by_ask(asks, dim, rest, &mut tower.dembeddings);
            }
            assert!(rest.is_empty(), "worker {worker} sends gradients of what it was answered");
        }
        for (slot, drow) in self.slots.iter().zip(self.drows.chunks_exact(dim)) {
            let row = self.table.row_mut(slot.expect("training makes every row"));
            adam.update(row.row, row.m, row.v, drow);
        }
        let Some(model) = &plan.tower else { return };
        for (index, tower) in self.towers.iter_mut().enumerate() {
            let rows = features(store, &tower.images.ids);
            let range = plan.tower_range(index);
            model.backward(
                &dense[range.clone()],
                &rows,
                plan.scale,
                &mut tower.scratch,
                &tower.dembeddings,
                &mut dense_grad[range],
            );
        }
    }
}

/// The feature rows of `keys`.
fn features<'a>(store: Option<&'a FeatureStore>, keys: &[u64]) -> Vec<&'a [f16]> {
    let Some(store) = store else {
        assert!(keys.is_empty(), "images are asked for only with a feature store");
        return Vec::new();
    };
    let row = |&key| store.row(ImageKey(key)).expect("the store named this key");
    keys.iter().map(row).collect()
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
