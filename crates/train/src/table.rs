//! The rows of one shard: embedding, and what its optimizer keeps of it.

use ams_model::init::row_init;

use crate::ask::IdMap;

/// Rows by id, in memory: `[row | state ..]` of `dim` floats each, so that an update is one pass.
#[derive(Clone, Debug)]
pub struct Table {
    name: String,
    seed: u64,
    dim: usize,
    /// Floats per row with its state.
    width: usize,
    index: IdMap,
    ids: Vec<u64>,
    values: Vec<f32>,
}

/// What is kept of one row.
#[derive(Debug)]
pub struct RowMut<'a> {
    /// The embedding; (D).
    pub row: &'a mut [f32],
    /// What the optimizer keeps of it; (states, D).
    pub state: &'a mut [f32],
}

impl Table {
    /// An empty table whose rows start from (`seed`, `name`, id) and have so many numbers of state per
    /// weight.
    pub fn new(name: &str, seed: u64, dim: usize, states: usize) -> Table {
        Table {
            name: name.to_owned(),
            seed,
            dim,
            width: dim * (1 + states),
            index: IdMap::default(),
            ids: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Floats per row (D).
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Floats per row with its state, (1 + states) D.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The slot of `id`, made with its initial value if it is new.
    pub fn slot_or_new(&mut self, id: u64) -> u32 {
        let next = self.ids.len() as u32;
        let slot = *self.index.entry(id).or_insert(next);
        if slot == next {
            self.ids.push(id);
            let start = self.values.len();
            self.values.resize(start + self.width, 0.0);
            row_init(self.seed, &self.name, id, &mut self.values[start..start + self.dim]);
        }
        slot
    }

    /// The slot of `id`, if it has a row.
    pub fn slot(&self, id: u64) -> Option<u32> {
        self.index.get(&id).copied()
    }

    /// The embedding in `slot`; (D).
    pub fn row(&self, slot: u32) -> &[f32] {
        let start = slot as usize * self.width;
        &self.values[start..start + self.dim]
    }

    /// Everything in `slot`.
    pub fn row_mut(&mut self, slot: u32) -> RowMut<'_> {
        let start = slot as usize * self.width;
        let (row, state) = self.values[start..start + self.width].split_at_mut(self.dim);
        RowMut { row, state }
    }

    /// Slots in the order of their ids.
    pub fn slots_by_id(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = (0..self.ids.len() as u32).collect();
        slots.sort_unstable_by_key(|&slot| self.ids[slot as usize]);
        slots
    }

    /// The id in `slot`.
    pub fn id(&self, slot: u32) -> u64 {
        self.ids[slot as usize]
    }

    /// The row in `slot` and its state end to end; (1 + states, D).
    pub fn state(&self, slot: u32) -> &[f32] {
        let start = slot as usize * self.width;
        &self.values[start..start + self.width]
    }

    /// Adds a row with all its state, read from a checkpoint; false if `id` has one already.
    pub fn restore(&mut self, id: u64, state: &[f32]) -> bool {
        assert_eq!(state.len(), self.width);
        let next = self.ids.len() as u32;
        if *self.index.entry(id).or_insert(next) != next {
            return false;
        }
        self.ids.push(id);
        self.values.extend_from_slice(state);
        true
    }
}
