//! Tables of rows of any size: their memory, the pauses while they grow, the rates at which ids are
//! found and rows updated. No samples, no network.

use std::time::Instant;

use ams_data::part_of;
use ams_model::RowOptimizer;
use ams_model::adam::Adam;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;

use crate::step::sighting::Sighting;
use crate::step::table::{RowTable, TOGETHER};

/// Lanes, as many as a training has.
const LANES: usize = 8;

/// Optimizer of the rows.
const OPTIMIZER: RowOptimizer = RowOptimizer::Adam;

/// Share of the rows that fit to which an eviction goes down.
const FLOOR: f64 = 0.9;

/// Learning rate of the updates.
const RATE: f32 = 0.001;

/// The size of the tables, and of the steps that use them.
#[derive(Clone, Copy, Debug)]
pub struct TableSize {
    /// Rows of all lanes together.
    pub rows: u64,
    /// Floats of a row without its state (D).
    pub dim: usize,
    /// Ids of a step, of all lanes together.
    pub portion: usize,
    /// Steps in which random rows are looked up and updated.
    pub steps: u64,
    /// Most bytes of a lane's table. With them every step has, beside its new ids, as many of those
    /// before by Zipf's law, and rows are evicted down to nine tenths of what fits.
    pub lane_bytes: Option<u64>,
}

/// Bytes of memory of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Resident {
    /// Bytes in use now.
    pub now: u64,
    /// Most bytes in use so far.
    pub most: u64,
}

/// The measurements with one number of threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowsReport {
    /// Threads; the rest of a report is of all of them together.
    pub threads: usize,
    /// Rows of all tables at the end.
    pub rows: u64,
    /// Rows that were evicted.
    pub evicted: u64,
    /// Bytes allocated by the largest table at the end.
    pub largest_lane_bytes: u64,
    /// Bytes of a row's floats, with Adam's state.
    pub raw_bytes_per_row: f64,
    /// Bytes the tables allocated, per row.
    pub allocated_bytes_per_row: f64,
    /// Bytes of the whole process when all rows were made, where the system tells it.
    pub resident: Option<Resident>,
    /// Rows made per second, with their first values.
    pub made_per_second: f64,
    /// The longest it took to make 16 rows or fewer.
    pub longest_insertion_seconds: f64,
    /// The longest step's portion of new rows.
    pub longest_portion_seconds: f64,
    /// The portion in the middle of all by its time.
    pub median_portion_seconds: f64,
    /// Random ids found per second.
    pub lookups_per_second: f64,
    /// Random rows updated per second, when their slots are known.
    pub updates_per_second: f64,
    /// Random rows looked up and updated per second.
    pub both_per_second: f64,
    /// blake3 of all rows and their state at the end: the same on any number of threads.
    pub answer: String,
}

/// One lane's table and its part of a step.
struct RowsLane {
    table: RowTable,
    ids: Vec<u64>,
    slots: Vec<Option<u32>>,
    gradients: Vec<f32>,
    longest: f64,
    evicted: u64,
}

/// Fills tables on `threads` threads, then looks up and updates random rows. `resident` gives
/// the memory of the process, where the system tells it.
///
/// # Panics
/// If threads cannot be started.
pub fn rows(
    size: TableSize,
    threads: usize,
    resident: &dyn Fn() -> Option<Resident>,
    made: &mut dyn FnMut(u64),
) -> RowsReport {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
    let mut lanes: Vec<RowsLane> = (0..LANES).map(|_| RowsLane::new(size)).collect();

    let mut portions = Vec::new();
    let mut begin = 0;
    while begin < size.rows {
        let end = size.rows.min(begin + size.portion as u64);
        let before = size.lane_bytes.map(|_| by_zipf(size, begin, begin)).into_iter().flatten();
        take(&mut lanes, (begin..end).chain(before));
        let day = i32::try_from(portions.len()).unwrap_or(i32::MAX);
        portions.push(timed(&pool, &mut lanes, |lane| lane.make(day)));
        begin = end;
        made(end);
    }
    let resident = resident();
    let allocated: usize = lanes.iter().map(|lane| lane.table.bytes()).sum();
    let width = lanes[0].table.width();

    let (mut looked_up, mut look_up_seconds) = (0, 0.0);
    let (mut updated, mut update_seconds, mut both_seconds) = (0, 0.0, 0.0);
    for step in 1..=size.steps {
        // Looked up as they come, some of them twice.
        lanes_take(&mut lanes, size, 2 * step);
        look_up_seconds += timed(&pool, &mut lanes, RowsLane::look_up);
        looked_up += size.portion;
        // Updated as in a training: every row once, by a gradient that is there.
        lanes_take(&mut lanes, size, 2 * step + 1);
        lanes.iter_mut().for_each(|lane| lane.prepare(step));
        let found = timed(&pool, &mut lanes, RowsLane::look_up);
        let changed = timed(&pool, &mut lanes, |lane| lane.update(step));
        updated += lanes.iter().map(|lane| lane.ids.len()).sum::<usize>();
        update_seconds += changed;
        both_seconds += found + changed;
    }

    let total: f64 = portions.iter().sum();
    let longest_insertion_seconds = lanes.iter().map(|lane| lane.longest).fold(0.0, f64::max);
    portions.sort_by(f64::total_cmp);
    let rows: usize = lanes.iter().map(|lane| lane.table.len()).sum();
    let largest = lanes.iter().map(|lane| lane.table.bytes()).max().unwrap_or_default();
    RowsReport {
        threads,
        rows: rows as u64,
        evicted: lanes.iter().map(|lane| lane.evicted).sum(),
        largest_lane_bytes: largest as u64,
        raw_bytes_per_row: (width * size_of::<f32>()) as f64,
        allocated_bytes_per_row: allocated as f64 / rows as f64,
        resident,
        made_per_second: size.rows as f64 / total,
        longest_insertion_seconds,
        longest_portion_seconds: portions.last().copied().unwrap_or_default(),
        median_portion_seconds: portions.get(portions.len() / 2).copied().unwrap_or_default(),
        lookups_per_second: looked_up as f64 / look_up_seconds,
        updates_per_second: updated as f64 / update_seconds,
        both_per_second: updated as f64 / both_seconds,
        answer: answer(&pool, &lanes),
    }
}

impl RowsLane {
    fn new(size: TableSize) -> RowsLane {
        let mut table = RowTable::new("embedding", 1, size.dim, OPTIMIZER.states());
        if size.lane_bytes.is_some() {
            table.track(size.lane_bytes);
        }
        RowsLane {
            table,
            ids: Vec::new(),
            slots: Vec::new(),
            gradients: Vec::new(),
            longest: 0.0,
            evicted: 0,
        }
    }

    /// Makes the rows of all ids that have none, on the day `day`; evicts others where they have no
    /// room.
    fn make(&mut self, day: i32) {
        self.slots.clear();
        if self.table.is_tracked() && self.table.len() + self.ids.len() > self.table.most() {
            self.table.slots(&self.ids, &mut self.slots);
            let floor = (FLOOR * self.table.most() as f64) as usize;
            let evicted = self.table.evict_to(floor.saturating_sub(self.ids.len()), &self.slots);
            self.evicted += evicted.rows as u64;
            self.slots.clear();
        }
        let mut before = Instant::now();
        for ids in self.ids.chunks(TOGETHER) {
            self.table.slots_or_new(ids, &mut self.slots);
            let now = Instant::now();
            self.longest = self.longest.max((now - before).as_secs_f64());
            before = now;
        }
        let seen = Sighting { day, count: 1 };
        self.slots.iter().flatten().for_each(|&slot| self.table.see(slot, seen));
    }

    fn look_up(&mut self) {
        self.slots.clear();
        self.table.slots(&self.ids, &mut self.slots);
    }

    /// Every id once, and a gradient for each, from id and step alone.
    fn prepare(&mut self, step: u64) {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.gradients.clear();
        for id in &self.ids {
            for at in 0..self.table.dim() as u64 {
                let bits = mix(id.wrapping_add(step << 32 | at)) >> 40;
                self.gradients.push(bits as f32 / (1 << 24) as f32 - 0.5);
            }
        }
    }

    /// One step of Adam for the rows in `slots`, as [`crate::step::shard::Shard::update_rows`] does
    /// it.
    fn update(&mut self, step: u64) {
        let adam = Adam::default().at(step, RATE);
        let RowsLane { table, slots, gradients, .. } = self;
        let gradients = gradients.chunks_exact(table.dim());
        for (at, (slot, gradient)) in slots.iter().zip(gradients).enumerate() {
            if at.is_multiple_of(TOGETHER) {
                table.fetch(slots[at..].iter().take(TOGETHER).copied().flatten());
            }
            // It may have been evicted.
            let &Some(slot) = slot else { continue };
            let row = table.row_mut(slot);
            OPTIMIZER.update(&adam, RATE, row.row, row.state, gradient);
        }
    }
}

/// Gives every lane its part of the ids with these numbers.
fn take(lanes: &mut [RowsLane], numbers: impl Iterator<Item = u64>) {
    lanes.iter_mut().for_each(|lane| lane.ids.clear());
    for number in numbers {
        let id = mix(number);
        lanes[part_of(id, LANES)].ids.push(id);
    }
}

/// Gives every lane its part of a portion of random rows.
fn lanes_take(lanes: &mut [RowsLane], size: TableSize, draw: u64) {
    match size.lane_bytes {
        None => take(lanes, chosen(size, draw)),
        Some(_) => take(lanes, by_zipf(size, size.rows - 1, draw)),
    }
}

/// The numbers of a portion of random rows.
fn chosen(size: TableSize, draw: u64) -> impl Iterator<Item = u64> {
    (0..size.portion as u64).map(move |at| mix(draw << 40 | at) % size.rows)
}

/// The numbers of a portion of those up to `last`, number n with a probability near 1 / (n + 1).
fn by_zipf(size: TableSize, last: u64, draw: u64) -> impl Iterator<Item = u64> {
    let most = (last + 1) as f64;
    (0..size.portion as u64).map(move |at| {
        let unit = (mix(draw << 24 ^ at) >> 11) as f64 / (1u64 << 53) as f64;
        (most.powf(unit) as u64).saturating_sub(1).min(last)
    })
}

/// Seconds of `work` on all lanes.
fn timed(
    pool: &ThreadPool,
    lanes: &mut [RowsLane],
    work: impl Fn(&mut RowsLane) + Send + Sync,
) -> f64 {
    let begin = Instant::now();
    pool.install(|| lanes.par_iter_mut().with_max_len(1).for_each(work));
    begin.elapsed().as_secs_f64()
}

/// blake3 of everything in the tables, in lane order.
fn answer(pool: &ThreadPool, lanes: &[RowsLane]) -> String {
    let of_lane = |lane: &RowsLane| {
        let mut hasher = blake3::Hasher::new();
        for slot in 0..lane.table.len() as u32 {
            hasher.update(&lane.table.id(slot).to_le_bytes());
            hasher.update(bytemuck::cast_slice(lane.table.state(slot)));
        }
        hasher.finalize()
    };
    let hashes: Vec<blake3::Hash> =
        pool.install(|| lanes.par_iter().with_max_len(1).map(of_lane).collect());
    let mut all = blake3::Hasher::new();
    hashes.iter().for_each(|hash| {
        all.update(hash.as_bytes());
    });
    all.finalize().to_hex().to_string()
}

/// A number that looks random, another one for every `x` (splitmix64).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
