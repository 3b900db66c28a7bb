//! The rows of one shard: embeddings with their optimizer state.
//!
//! Nothing here takes long because the table is large: rows are in pages that never move, and the
//! index grows a small part at a time. An eviction does: it reads every row's sightings some times.
//!
//! A row is one thing: embedding, optimizer state and, where rows may be evicted, its sightings.
//! Rows of a table have the slots from 0 on without a gap. Where one goes, the last one takes its
//! slot, so memory that was allocated is used again before there is more of it.

use ams_data::Id;
use ams_model::init::row_init;

use crate::step::sighting::Sighting;

mod index;
mod order;
mod pages;

use index::Index;
use order::nth_key;
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
    /// Where rows may be evicted, their sightings: day and count.
    sightings: Option<Pages<u32>>,
    /// Rows that there may be.
    most: usize,
}

/// What an eviction took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Number of rows.
    pub rows: usize,
    /// The greatest [`Sighting::key`] of those that had to go for others.
    pub last: Option<u128>,
}

/// Slots that no eviction takes, one bit each.
struct Stays(Vec<u64>);

impl Stays {
    fn has(&self, slot: usize) -> bool {
        self.0[slot / 64] >> (slot % 64) & 1 == 1
    }
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
            sightings: None,
            // A slot is less than the largest number, which the index needs.
            most: u32::MAX as usize - 1,
        }
    }

    /// Keeps the sightings of rows from now on, so that rows can be evicted; no more rows than fit
    /// into `bytes`, if given. For an empty table.
    pub(crate) fn track(&mut self, bytes: Option<u64>) {
        let mut sightings = Pages::new(2);
        if let Some(bytes) = bytes {
            let fits = |rows: usize| self.bytes_of(rows) as u64 <= bytes;
            let (mut fitting, mut beyond) = (0, self.most + 1);
            while beyond - fitting > 1 {
                let middle = fitting.midpoint(beyond);
                if fits(middle) { fitting = middle } else { beyond = middle }
            }
            self.most = fitting;
            self.ids.bound(fitting);
            self.values.bound(fitting);
            sightings.bound(fitting);
        }
        self.sightings = Some(sightings);
    }

    /// Whether the sightings of rows are kept.
    pub(crate) fn is_tracked(&self) -> bool {
        self.sightings.is_some()
    }

    /// Bytes that a table of these rows takes with the sightings of `rows` rows, at most.
    pub(crate) fn bytes_of(&self, rows: usize) -> usize {
        let lists = Pages::<u64>::bytes_of(rows, 1) + Pages::<u32>::bytes_of(rows, 2);
        lists + Pages::<f32>::bytes_of(rows, self.width) + Index::bytes_of(rows)
    }

    /// Rows that there may be.
    pub(crate) fn most(&self) -> usize {
        self.most
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
        let sightings = self.sightings.as_ref().map_or(0, Pages::bytes);
        self.index.bytes() + self.ids.bytes() + self.values.bytes() + sightings
    }

    /// The slot of `id`, made with its initial value if it is new. Slots count from 0 in order of
    /// first need, until rows are evicted; then the slots of others may be others, too.
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

    /// The sightings of the row in `slot`; none where they are not kept.
    pub(crate) fn sighting(&self, slot: u32) -> Option<Sighting> {
        let words = self.sightings.as_ref()?.get(slot);
        Some(Sighting { day: words[0].cast_signed(), count: words[1] })
    }

    /// Adds sightings to those of the row in `slot`, where they are kept.
    pub(crate) fn see(&mut self, slot: u32, more: Sighting) {
        if let Some(mut sighting) = self.sighting(slot) {
            sighting.add(more);
            self.set_sighting(slot, sighting);
        }
    }

    /// Removes the rows of the least [`Sighting::key`], down to `until` rows; those in the slots
    /// `asked` and those that started from zeros stay in any case.
    pub(crate) fn evict_to(&mut self, until: usize, asked: &[Option<u32>]) -> Evicted {
        let stays = self.stays(asked);
        let stay: usize = stays.0.iter().map(|bits| bits.count_ones() as usize).sum();
        let rows = self.len().saturating_sub(until.max(stay));
        if rows == 0 {
            return Evicted::default();
        }
        let last = nth_key(rows - 1, |see| {
            let slots = (0..self.len()).filter(|&slot| !stays.has(slot));
            slots.for_each(|slot| see(self.key(slot as u32)));
        });
        let evicted = self.evict(&stays, |table, slot| table.key(slot) <= last);
        assert_eq!(evicted, rows, "keys are different");
        Evicted { rows, last: Some(last) }
    }

    /// Removes the rows whose last day is `day` or an earlier one, but for those that started from
    /// zeros. A row whose last day is not known is seen on the day `newest`.
    pub(crate) fn evict_through(&mut self, day: i32, newest: i32) -> usize {
        let stays = self.stays(&[]);
        for slot in 0..self.len() as u32 {
            if self.day(slot) == Sighting::NEVER {
                self.see(slot, Sighting { day: newest, count: 0 });
            }
        }
        self.evict(&stays, |table, slot| table.day(slot) <= day)
    }

    fn key(&self, slot: u32) -> u128 {
        self.sighting(slot).unwrap_or(Sighting::NONE).key(self.id(slot))
    }

    fn day(&self, slot: u32) -> i32 {
        self.sighting(slot).map_or(i32::MAX, |sighting| sighting.day)
    }

    fn stays(&self, asked: &[Option<u32>]) -> Stays {
        let mut bits = vec![0; self.len().div_ceil(64)];
        let blank = self.blank.iter().filter_map(|id| self.slot(id.0));
        for slot in asked.iter().copied().flatten().chain(blank) {
            bits[slot as usize / 64] |= 1 << (slot % 64);
        }
        Stays(bits)
    }

    /// Removes the rows of which `goes` says so. Returns how many.
    fn evict(&mut self, stays: &Stays, goes: impl Fn(&RowTable, u32) -> bool) -> usize {
        let before = self.len();
        // Backwards: the last row, which takes the place of one that goes, was found to stay.
        for slot in (0..before as u32).rev() {
            if !stays.has(slot as usize) && goes(self, slot) {
                self.swap_remove(slot);
            }
        }
        before - self.len()
    }

    /// Removes the row in `slot`; the last one takes its place.
    fn swap_remove(&mut self, slot: u32) {
        self.index.remove(self.id(slot));
        let last = self.len() as u32 - 1;
        if slot < last {
            self.index.replace(self.id(last), slot);
            self.ids.copy(last, slot);
            self.values.copy(last, slot);
            self.sightings.iter_mut().for_each(|sightings| sightings.copy(last, slot));
        }
        self.ids.pop();
        self.values.pop();
        self.sightings.iter_mut().for_each(Pages::pop);
    }

    fn set_sighting(&mut self, slot: u32, Sighting { day, count }: Sighting) {
        if let Some(sightings) = &mut self.sightings {
            sightings.get_mut(slot).copy_from_slice(&[day.cast_unsigned(), count]);
        }
    }

    /// A row of zeros in the next slot, for an id that has none.
    fn push(&mut self, id: u64) -> u32 {
        assert!(self.len() < self.most, "a lane has at most {} rows", self.most);
        let slot = self.len() as u32;
        self.index.insert(id, slot);
        self.ids.push()[0] = id;
        self.values.push();
        if let Some(sightings) = &mut self.sightings {
            sightings.push();
            self.set_sighting(slot, Sighting::NONE);
        }
        slot
    }
}
