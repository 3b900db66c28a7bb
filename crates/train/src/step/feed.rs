//! One lane's impressions, in the order of one epoch.
//!
//! A lane reads the parts of the dataset that belong to it. What fits into one window of groups is
//! read once and shuffled again each epoch; a larger lane shuffles its blocks, then the groups of
//! one window after the other. The order depends on (seed, epoch, lane) alone.

use std::ops::Range;

use ams_data::dataset::Dataset;
use ams_data::samples::{GroupTime, SampleFile};
use ams_data::{Card, Groups, Schema};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::Result;
use crate::step::mail::Seat;
use crate::step::selection::{HeldOut, Period, Selection};

/// In which order a feed gives its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they lie in the files.
    Files,
    /// Shuffled by this seed and lane, in another order each epoch.
    Shuffled {
        /// The seed of the run.
        seed: u64,
        /// The lane, so that lanes differ in their orders.
        lane: usize,
    },
}

/// A block of a file that has groups of the period.
struct Block {
    /// The file, an index.
    file: usize,
    /// The block in it, an index.
    block: usize,
    /// Groups of the period.
    groups: usize,
}

/// Reads the groups of one lane.
pub(crate) struct Feed {
    files: Vec<SampleFile>,
    blocks: Vec<Block>,
    period: Period,
    /// A block with groups of other times, before these are left out.
    whole: Groups,
    impressions: u64,
    groups: usize,
    order: Order,
    window_groups: usize,
    /// This epoch's block order and the next one to read.
    queue: Vec<u32>,
    next_block: usize,
    /// Groups in memory, the order to give them in, and the next one.
    window: Groups,
    picks: Vec<u32>,
    next_pick: usize,
    windows_read: u64,
    epoch: u32,
    taken: u64,
}

impl Feed {
    /// A feed over the groups of `period` in `files`, holding about `window_groups` groups in
    /// memory.
    ///
    /// # Errors
    /// If the times of groups cannot be read.
    pub(crate) fn new(
        files: Vec<SampleFile>,
        schema: &Schema,
        order: Order,
        window_groups: usize,
        period: Period,
    ) -> Result<Feed> {
        let mut blocks = Vec::new();
        let (mut impressions, mut groups) = (0, 0);
        for (index, file) in files.iter().enumerate() {
            for block in 0..file.blocks() {
                let (mine, shown) = count(file, block, period)?;
                if mine > 0 {
                    blocks.push(Block { file: index, block, groups: mine });
                }
                impressions += shown;
                groups += mine;
            }
        }
        Ok(Feed {
            files,
            blocks,
            period,
            whole: Groups::new(schema),
            impressions,
            groups,
            order,
            window_groups: window_groups.max(1),
            queue: Vec::new(),
            next_block: 0,
            window: Groups::new(schema),
            picks: Vec::new(),
            next_pick: 0,
            windows_read: 0,
            epoch: 0,
            taken: 0,
        })
    }

    /// Impressions of one epoch.
    pub(crate) fn impressions(&self) -> u64 {
        self.impressions
    }

    /// Starts epoch `epoch` from its beginning.
    pub(crate) fn start(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.taken = 0;
        self.next_block = 0;
        self.next_pick = 0;
        self.windows_read = 0;
        self.queue.clear();
        self.queue.extend(0..self.blocks.len() as u32);
        if self.in_one_window() {
            if self.window.len() == self.groups {
                // Still in memory from the epoch before.
                self.next_block = self.queue.len();
                self.pick();
                return;
            }
        } else if let Order::Shuffled { seed, lane } = self.order {
            shuffle(&mut self.queue, &mut rng(seed, lane, epoch, 0));
        }
        self.picks.clear();
    }

    /// Appends whole groups to `into` until `until` impressions of this epoch were given (or the
    /// epoch ends).
    ///
    /// # Errors
    /// If a sample file cannot be read.
    pub(crate) fn take(&mut self, until: u64, into: &mut Groups) -> Result<()> {
        while self.taken < until {
            if self.next_pick == self.picks.len() && !self.read_window()? {
                break;
            }
            let group = self.picks[self.next_pick] as usize;
            self.next_pick += 1;
            self.taken += self.window.impressions.range(group).len() as u64;
            into.push_from(&self.window, group);
        }
        Ok(())
    }

    fn in_one_window(&self) -> bool {
        self.groups <= self.window_groups
    }

    /// Reads the next window; false at the end of the epoch.
    fn read_window(&mut self) -> Result<bool> {
        if self.next_block == self.queue.len() {
            return Ok(false);
        }
        self.window.clear();
        while self.next_block < self.queue.len()
            && (self.window.is_empty() || self.in_one_window() || self.next_fits())
        {
            let at = self.queue[self.next_block] as usize;
            self.read_block(at)?;
            self.next_block += 1;
        }
        self.pick();
        Ok(!self.window.is_empty())
    }

    /// Appends the groups of the period in block `at` to the window.
    fn read_block(&mut self, at: usize) -> Result<()> {
        let Block { file, block, groups } = self.blocks[at];
        let file = &self.files[file];
        if groups == file.groups(block) {
            return Ok(file.read(block, &mut self.window)?);
        }
        self.whole.clear();
        file.read(block, &mut self.whole)?;
        for group in 0..self.whole.len() {
            let time = self.whole.times[self.whole.impressions.range(group).start];
            if self.period.contains(time) {
                self.window.push_from(&self.whole, group);
            }
        }
        Ok(())
    }

    fn next_fits(&self) -> bool {
        let next = &self.blocks[self.queue[self.next_block] as usize];
        self.window.len() + next.groups <= self.window_groups
    }

    /// Decides the order of the groups in the window.
    fn pick(&mut self) {
        self.windows_read += 1;
        self.next_pick = 0;
        self.picks.clear();
        self.picks.extend(0..self.window.len() as u32);
        if let Order::Shuffled { seed, lane } = self.order {
            shuffle(&mut self.picks, &mut rng(seed, lane, self.epoch, self.windows_read));
        }
    }
}

/// Groups and impressions of `period` in a block of `file`.
fn count(file: &SampleFile, block: usize, period: Period) -> Result<(usize, u64)> {
    if period == Period::Always {
        return Ok((file.groups(block), file.impressions(block) as u64));
    }
    let times = file.group_times(block)?;
    let mine = || times.iter().filter(|group| period.contains(group.time));
    let impressions = mine().map(|&GroupTime { impressions, .. }| u64::from(impressions)).sum();
    Ok((mine().count(), impressions))
}

/// The generator of one shuffle: each (seed, lane, epoch, window) has its own.
fn rng(seed: u64, lane: usize, epoch: u32, window: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    let words = [seed, lane as u64, u64::from(epoch), window];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Fisher and Yates; the bias of the multiply-shift draw is below 2^-32.
fn shuffle(values: &mut [u32], rng: &mut ChaCha8Rng) {
    for last in (1..values.len()).rev() {
        let draw = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        values.swap(last, draw as usize);
    }
}

/// The feed of the lane at `seat`, over the samples of `selection`, with `window_groups` groups in
/// memory.
///
/// # Errors
/// If a sample file cannot be opened.
pub(crate) fn open(
    dataset: &Dataset,
    selection: Selection,
    seat: Seat,
    order: Order,
    held_out: HeldOut,
    window_groups: usize,
) -> Result<Feed> {
    let Selection { split, subset } = selection;
    let parts = dataset.card().parts;
    // A part without users has a file without rows: a missing one would be an unnoticed loss.
    let open = |part| SampleFile::open(&dataset.part_path(split, part), dataset.schema());
    let files: ams_data::Result<Vec<SampleFile>> = parts_of(dataset.card(), seat)
        .filter(|&part| held_out.reads(subset, part, parts))
        .map(open)
        .collect();
    Feed::new(files?, dataset.schema(), order, window_groups, held_out.period(subset))
}

/// The parts of the dataset that the lane at `seat` reads: an aligned run of them.
fn parts_of(card: &Card, seat: Seat) -> Range<usize> {
    let each = card.parts / seat.lanes;
    seat.lane * each..(seat.lane + 1) * each
}
