//! The rows of one shard: embeddings with their optimizer state.
//!
//! Nothing here takes long because the table is large: rows are in pages that never move, and the
//! index grows a small part at a time.

use ams_data::Id;
use ams_model::init::row_init;

mod index;
mod pages;

use index::Index;
use pages::Pages;

/// Ids or rows that are read from memory side by side. Some dozens take hardly more time than one.
pub(crate) const TOGETHER: usize = 16;

/// Rows by id, in memory: `[row | state ..]` of `dim` floats each, so that an update is one pass.
#[derive(Clone, Debug)]
pub(crate) struct RowTable {
    name: String,
    seed: u64,
    dim: usize,
    /// Floats per row with its state.
    width: usize,
    /// Ids whose rows start from zeros.
    blank: Vec<Id>,
    index: Index,
    ids: Pages<u64>,
    values: Pages<f32>,
}

/// One row, to be changed.
#[derive(Debug)]
pub(crate) struct RowMut<'a> {
    /// The embedding of the id; (D).
    pub row: &'a mut [f32],
    /// Its optimizer state; (states, D).
    pub state: &'a mut [f32],
}

impl RowTable {
    /// An empty table whose rows start from (`seed`, `name`, id) and have `states` numbers
    /// of optimizer state per weight.
    pub(crate) fn new(name: &str, seed: u64, dim: usize, states: usize) -> RowTable {
        let width = dim * (1 + states);
        RowTable {
            name: name.to_owned(),
            seed,
            dim,
            width,
            blank: Vec::new(),
            index: Index::default(),
            ids: Pages::new(1),
            values: Pages::new(width),
        }
    }

    /// Has the rows of `ids` start from zeros.
    pub(crate) fn start_from_zeros(&mut self, ids: &[Id]) {
        self.blank = ids.to_vec();
    }

    /// Number of rows; slots are below it.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Floats per row (D).
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Floats per row with its state, (1 + states) D.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Bytes allocated, used or not.
    pub(crate) fn bytes(&self) -> usize {
        self.index.bytes() + self.ids.bytes() + self.values.bytes()
    }

    /// The slot of `id`, made with its initial value if it is new. Slots count from 0 in order of
    /// first need.
    pub(crate) fn slot_or_new(&mut self, id: u64) -> u32 {
        if let Some(slot) = self.slot(id) {
            return slot;
        }
        let slot = self.push(id);
        if !self.blank.contains(&Id(id)) {
            row_init(self.seed, &self.name, id, &mut self.values.get_mut(slot)[..self.dim]);
        }
        slot
    }

    /// The slot of `id`, if it has a row.
    pub(crate) fn slot(&self, id: u64) -> Option<u32> {
        self.index.find(id)
    }

    /// Appends the slot of each of `ids`, made if it is new, as [`RowTable::slot_or_new`] one after
    /// the other.
    pub(crate) fn slots_or_new(&mut self, ids: &[u64], slots: &mut Vec<Option<u32>>) {
        for ids in ids.chunks(TOGETHER) {
            let found = self.at_home(ids);
            let made = |(&id, slot): (_, Option<u32>)| slot.unwrap_or_else(|| self.slot_or_new(id));
            slots.extend(ids.iter().zip(found).map(made).map(Some));
        }
    }

    /// Appends the slot of each of `ids`, where it has a row.
    pub(crate) fn slots(&self, ids: &[u64], slots: &mut Vec<Option<u32>>) {
        for ids in ids.chunks(TOGETHER) {
            let found = self.at_home(ids);
            slots.extend(ids.iter().zip(found).map(|(&id, slot)| slot.or_else(|| self.slot(id))));
        }
    }

    /// The slots of up to [`TOGETHER`] ids that are found at once: memory is asked for all of them,
    /// and no read waits for another.
    fn at_home(&self, ids: &[u64]) -> [Option<u32>; TOGETHER] {
        let mut slots = [None; TOGETHER];
        slots.iter_mut().zip(ids).for_each(|(slot, &id)| *slot = self.index.at_home(id));
        slots
    }

    /// Asks memory for some rows at once that are about to be used one after the other,
    /// [`TOGETHER`] or so.
    pub(crate) fn fetch(&self, slots: impl IntoIterator<Item = u32>) {
        /// Floats of the smallest cache line there is.
        const LINE: usize = 16;
        let mut bits = 0;
        for slot in slots {
            let values = self.values.get(slot);
            let ends = values.iter().step_by(LINE).chain(values.last());
            bits |= ends.fold(0, |bits, value| bits | value.to_bits());
        }
        // Nobody wants them, but they have to be read.
        std::hint::black_box(bits);
    }

    /// The embedding in `slot`; (D).
    pub(crate) fn row(&self, slot: u32) -> &[f32] {
        &self.values.get(slot)[..self.dim]
    }

    /// The embedding in `slot` and its optimizer state.
    pub(crate) fn row_mut(&mut self, slot: u32) -> RowMut<'_> {
        let (row, state) = self.values.get_mut(slot).split_at_mut(self.dim);
        RowMut { row, state }
    }

    /// Slots in the order of their ids.
    pub(crate) fn slots_by_id(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = (0..self.len() as u32).collect();
        slots.sort_unstable_by_key(|&slot| self.id(slot));
        slots
    }

    /// The id in `slot`.
    pub(crate) fn id(&self, slot: u32) -> u64 {
        self.ids.get(slot)[0]
    }

    /// The row in `slot` and its state end to end; (1 + states, D).
    pub(crate) fn state(&self, slot: u32) -> &[f32] {
        self.values.get(slot)
    }

    /// Adds a row with all its state, read from a checkpoint; false if `id` has one already.
    pub(crate) fn restore(&mut self, id: u64, state: &[f32]) -> bool {
        assert_eq!(state.len(), self.width);
        let new = self.slot(id).is_none();
        if new {
            let slot = self.push(id);
            self.values.get_mut(slot).copy_from_slice(state);
        }
        new
    }

    /// A row of zeros in the next slot, for an id that has none.
    fn push(&mut self, id: u64) -> u32 {
        let slot = u32::try_from(self.len()).ok().filter(|&slot| slot < u32::MAX);
        let slot = slot.expect("a lane has fewer than 4,294,967,295 rows");
        self.index.insert(id, slot);
        self.ids.push()[0] = id;
        self.values.push();
        slot
    }
}
