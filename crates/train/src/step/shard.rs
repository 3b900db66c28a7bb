//! The shard of a lane: owns rows and image features, runs the towers E where the features are.
//!
//! Requests of all lanes for one id or image are merged in lane order: one lookup, one forward, one
//! backward. With the placement `ams` image features stay here; only embeddings and gradients are
//! mailed.
//!
//! Where rows come and go, that depends on nothing but the asks of the steps: a row is made in the
//! step that asks for it, before that others are evicted if there is no room, and at the end of an
//! epoch those go that were not seen for long.

use ams_data::{Id, IdMap, ImageKey};
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::adam::AdamStep;
use ams_model::linalg::{self, zeros};

use crate::error::{Error, Result};
use crate::settings::{EvictionConfig, Placement};
use crate::setup::network::Network;
use crate::step::dedup::Merge;
use crate::step::mail::{self, Ask, Gradients, Seat, Values};
use crate::step::row_counts::RowCounts;
use crate::step::search::SearchShard;
use crate::step::sighting::Sighting;
use crate::step::sketch::Sketch;
use crate::step::table::{Evicted, RowTable, TOGETHER};
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
    /// Occurrences of ids that had no row, where they are counted as they come.
    pub sketch: Option<Sketch>,
    /// The newest day of the samples of all lanes so far, where shards see ids.
    pub newest: Option<i32>,
    /// Rows that came and went since [`Shard::take_row_counts`].
    changes: RowCounts,
    /// Of rows that were taken over and evicted again, the greatest key.
    beyond: Option<u128>,
    /// Its part of searches.
    pub search: SearchShard,
    ids: Merge,
    /// The slot of each merged id; none for an unknown one.
    slots: Vec<Option<u32>>,
    /// The sightings of each merged id in this step; empty where they are not sent.
    seen: Vec<Sighting>,
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
        if let Some(EvictionConfig { lane_bytes, .. }) = network.eviction {
            table.track(lane_bytes);
        }
        Shard {
            table,
            counts: Counts::default(),
            frequency: IdMap::default(),
            sketch: network.sketch_bytes.map(Sketch::new),
            newest: None,
            changes: RowCounts::default(),
            beyond: None,
            search: SearchShard::default(),
            ids: Merge::default(),
            slots: Vec::new(),
            seen: Vec::new(),
            drows: Vec::new(),
            towers: (0..network.towers.len()).map(|_| ShardTower::default()).collect(),
        }
    }

    /// Takes the asks of all lanes: merges them and looks up or makes the rows.
    ///
    /// # Errors
    /// If there is no room for the rows that they need.
    pub(crate) fn take_asks(
        &mut self,
        network: &Network,
        mail: &Mailbox<'_>,
        seat: Seat,
        unknown: Unknown,
    ) -> Result<()> {
        self.ids.clear();
        self.seen.clear();
        self.towers.iter_mut().for_each(|tower| tower.images.clear());
        for worker in 0..seat.lanes {
            let ask = Ask::read(mail.read(worker, seat.lane), 1 + self.towers.len());
            let images = self.towers.iter_mut().map(|tower| &mut tower.images);
            let merges = std::iter::once(&mut self.ids).chain(images);
            merges.zip(ask.lists()).for_each(|(merge, list)| merge.take(list));
            self.take_sightings(ask, worker);
        }
        self.slots.clear();
        let every = network.min_occurrences <= 1 && network.eviction.is_none();
        match unknown {
            Unknown::Create if every => self.table.slots_or_new(&self.ids.keys, &mut self.slots),
            Unknown::Create => self.admit(network, seat.lane)?,
            Unknown::Zero => self.table.slots(&self.ids.keys, &mut self.slots),
        }
        for (slot, &seen) in self.slots.iter().zip(&self.seen) {
            slot.iter().for_each(|&slot| self.table.see(slot, seen));
        }
        Ok(())
    }

    /// Takes the sightings of the ids that `worker` asked for, if it sent them.
    fn take_sightings(&mut self, ask: Ask<'_>, worker: usize) {
        let Some(newest) = ask.newest() else { return };
        self.newest = self.newest.max(Some(newest));
        self.seen.resize(self.ids.keys.len(), Sighting::NONE);
        let numbers = self.ids.of(worker).iter();
        numbers.zip(ask.sightings()).for_each(|(&at, seen)| self.seen[at as usize].add(seen));
    }

    /// Looks up the rows, and makes those of ids that occur often enough, or stand in for others.
    fn admit(&mut self, network: &Network, lane: usize) -> Result<()> {
        self.table.slots(&self.ids.keys, &mut self.slots);
        let all = 0..self.ids.keys.len();
        let lacking: Vec<usize> = all.filter(|&at| self.slots[at].is_none()).collect();
        let admitted = lacking.into_iter().filter(|&at| self.is_admitted(network, at));
        let admitted: Vec<usize> = admitted.collect();
        if self.table.len() + admitted.len() > self.table.most() {
            self.make_room(network, admitted.len(), lane)?;
        }
        for &at in &admitted {
            self.slots[at] = Some(self.table.slot_or_new(self.ids.keys[at]));
        }
        self.changes.admitted += admitted.len() as u64;
        Ok(())
    }

    /// Whether the merged id `at`, which has no row, gets one.
    fn is_admitted(&mut self, network: &Network, at: usize) -> bool {
        let (id, least) = (self.ids.keys[at], network.min_occurrences);
        if least <= 1 || network.unknown.contains(&Id(id)) {
            return true;
        }
        let occurrences = match &mut self.sketch {
            Some(sketch) => sketch.add(id, self.seen.get(at).map_or(0, |seen| seen.count)),
            None => self.frequency.get(&id).copied().unwrap_or(0),
        };
        occurrences >= least
    }

    /// Evicts rows so that there is room for `new` ones; none that the step asks for.
    fn make_room(&mut self, network: &Network, new: usize, lane: usize) -> Result<()> {
        let until = rows_left(network, &self.table).saturating_sub(new);
        let Evicted { rows, .. } = self.table.evict_to(until, &self.slots);
        self.changes.evicted_by_bytes += rows as u64;
        let (need, most) = (self.table.len() + new, self.table.most());
        if need > most {
            let bytes = network.eviction.and_then(|eviction| eviction.lane_bytes).unwrap_or(0);
            let what = format!(
                "{bytes} bytes have room for {most} rows, but a batch needs {need} of lane {lane}, which \
                 take {}: allow more bytes than these, or make train.batch smaller",
                self.table.bytes_of(need)
            );
            return Err(Error::Config { key: "train.eviction.lane_bytes".to_owned(), what });
        }
        self.slots.clear();
        self.table.slots(&self.ids.keys, &mut self.slots);
        Ok(())
    }

    /// Evicts the rows of ids that were not seen for as many days as `network` allows.
    pub(crate) fn evict_unseen(&mut self, network: &Network) {
        let days = network.eviction.and_then(|eviction| eviction.days);
        if let (Some(days), Some(newest)) = (days, self.newest) {
            let day = newest.saturating_sub_unsigned(days);
            self.changes.evicted_by_days += self.table.evict_through(day, newest) as u64;
        }
    }

    /// Takes over the row of `id` from another training, without optimizer state. Where there is no
    /// room for all such rows, those of the greatest [`Sighting::key`] are left in the end,
    /// whatever their order.
    pub(crate) fn take_over(&mut self, network: &Network, id: u64, row: &[f32], seen: Sighting) {
        let stands_in = network.unknown.contains(&Id(id));
        if !stands_in && self.beyond.is_some_and(|beyond| seen.key(id) <= beyond) {
            return;
        }
        if self.table.len() == self.table.most() && self.table.slot(id).is_none() {
            let until = rows_left(network, &self.table).min(self.table.most().saturating_sub(1));
            let Evicted { rows, last } = self.table.evict_to(until, &[]);
            self.beyond = self.beyond.max(last);
            if rows > 0 {
                self.take_over(network, id, row, seen);
            }
            // Else the first step finds that there is no room.
            return;
        }
        let slot = self.table.slot_or_new(id);
        self.table.row_mut(slot).row.copy_from_slice(row);
        self.table.see(slot, seen);
    }

    /// The rows that there are, and those that came and went since the last call.
    pub(crate) fn take_row_counts(&mut self) -> RowCounts {
        let bytes = self.table.bytes() as u64;
        let changes = std::mem::take(&mut self.changes);
        RowCounts { rows: self.table.len() as u64, bytes, largest_lane_bytes: bytes, ..changes }
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

/// Rows that an eviction for others leaves of `table`.
fn rows_left(network: &Network, table: &RowTable) -> usize {
    let floor = network.eviction.map_or(1.0, |eviction| eviction.floor);
    (table.most() as f64 * f64::from(floor)) as usize
}

/// Adds one worker's gradients to the sums of the ids or images that it asked for.
fn add_by_number(numbers: &[u32], dim: usize, values: &mut Values<'_>, sums: &mut [f32]) {
    let gradients = values.floats(numbers.len() * dim);
    for (&number, gradient) in numbers.iter().zip(gradients.chunks_exact(dim)) {
        linalg::add(gradient, &mut sums[number as usize * dim..][..dim]);
    }
}
