//! The sum of the dense gradients, over the lanes of this process and over processes.
//!
//! ```text
//! of a step              over the lanes of this process         over processes
//! all but first layers   the tree, chunks side by side     -->  all-reduce, range by range
//! first layers of E      256 columns: the tree, in a cache -->  all-reduce, block by block
//!                        on the thread pool                     on this thread, meanwhile
//! ```
//! The order of every sum is fixed: lanes along the tree, blocks by their number, whichever thread
//! ends first.

use std::ops::Range;
use std::sync::mpsc;

use ams_fabric::{AllReduce, Fabric, Lost, Rounding, sum};
use ams_model::tower::TowerBuffers;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::setup::network::Network;
use crate::step::first_layers::{self, Block, Columns, FirstLayers};
use crate::step::shard::Lane;

/// Dense values that one task of the thread pool adds or updates.
pub(crate) const CHUNK: usize = 1 << 14;

/// Sums the dense gradients of a step.
pub(crate) struct DenseSum {
    all_reduce: AllReduce,
}

impl DenseSum {
    /// Whose sums round like `rounding`.
    pub(crate) fn new(rounding: Rounding) -> DenseSum {
        DenseSum { all_reduce: AllReduce::new(rounding) }
    }

    /// Adds the gradients of the lanes of this process, but for those of the first layers, into
    /// that of the first lane; on the thread pool it is called in.
    pub(crate) fn of_lanes(&self, network: &Network, lanes: &mut [Lane]) {
        let (ranges, rounding) = (&network.rest, self.all_reduce.rounding());
        if rounding != Rounding::Exact {
            lanes.par_iter_mut().for_each(|lane| {
                ranges.iter().for_each(|range| rounding.leaves(&mut lane.gradient[range.clone()]));
            });
        }
        let mut stride = 1;
        while stride < lanes.len() {
            lanes.par_chunks_mut(2 * stride).for_each(|pair| {
                let (left, right) = pair.split_at_mut(stride);
                add(&mut left[0].gradient, &right[0].gradient, ranges, rounding);
            });
            stride *= 2;
        }
    }

    /// Completes `gradient`, the sum that [`DenseSum::of_lanes`] made: computes the first layers'
    /// matrices of all `lanes` of this process, and adds everything up over processes. `of_lane`
    /// computes the gradient of some columns in one lane.
    ///
    /// While the thread pool computes, this thread, which is none of it, sums the finished blocks
    /// over processes.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn of_processes(
        &mut self,
        network: &Network,
        pool: &ThreadPool,
        fabric: &mut dyn Fabric,
        first: &mut FirstLayers,
        lanes: usize,
        of_lane: impl Fn(Columns, &mut TowerBuffers, &mut [f32]) + Sync,
        gradient: &mut [f32],
    ) -> Result<(), Lost> {
        let all_reduce = &mut self.all_reduce;
        let rounding = all_reduce.rounding();
        let compute = |block: Block, values: &mut Vec<f32>| {
            block.sum_of_lanes(lanes, rounding, &of_lane, values);
        };
        let blocks = first.blocks(network);
        if fabric.size() == 1 {
            pool.install(|| {
                blocks.with_max_len(1).for_each(|(block, values)| compute(block, values));
            });
        } else {
            let blocks = blocks.collect();
            overlapped(pool, blocks, compute, |summed| match summed {
                Summed::Rest => {
                    let mut ranges = network.rest.iter();
                    ranges
                        .try_for_each(|range| all_reduce.run(fabric, &mut gradient[range.clone()]))
                }
                Summed::Block(values) => all_reduce.run(fabric, values),
            })?;
        }
        pool.install(|| first.join(network, gradient));
        Ok(())
    }

    /// Words that all lanes would send in a step, if every lane were a process.
    pub(crate) fn words_moved(&self, network: &Network, lanes: usize) -> usize {
        let rest = network.rest.iter().map(|range| range.len());
        let messages = rest.chain(first_layers::blocks(network).map(|block| block.values()));
        messages.map(|values| self.all_reduce.words_moved(values, lanes)).sum()
    }
}

/// What is summed over processes next.
enum Summed<'a> {
    /// All but the first layers.
    Rest,
    /// A block of a first layer.
    Block(&'a mut Vec<f32>),
}

/// Computes `blocks` on the thread pool, and has this thread sum over processes the rest and then
/// every block, in their order, as soon as it is computed.
fn overlapped(
    pool: &ThreadPool,
    blocks: Vec<(Block, &mut Vec<f32>)>,
    compute: impl Fn(Block, &mut Vec<f32>) + Sync,
    mut sum: impl FnMut(Summed<'_>) -> Result<(), Lost>,
) -> Result<(), Lost> {
    pool.in_place_scope(|scope| {
        let (done, computed) = mpsc::channel();
        // Threads end blocks in any order; all processes sum them in one.
        let mut early: Vec<Option<&mut Vec<f32>>> = blocks.iter().map(|_| None).collect();
        for (at, (block, values)) in blocks.into_iter().enumerate() {
            let (compute, done) = (&compute, done.clone());
            scope.spawn(move |_| {
                compute(block, values);
                // Nobody listens after a process was lost.
                let _ = done.send((at, values));
            });
        }
        drop(done);
        sum(Summed::Rest)?;
        for at in 0..early.len() {
            while early[at].is_none() {
                // If a task panicked, the scope goes on with its panic.
                let Ok((at, values)) = computed.recv() else { return Ok(()) };
                early[at] = Some(values);
            }
            if let Some(values) = early[at].take() {
                sum(Summed::Block(values))?;
            }
        }
        Ok(())
    })
}

/// Adds `right` to `left` in `ranges`, a chunk per task.
fn add(left: &mut [f32], right: &[f32], ranges: &[Range<usize>], rounding: Rounding) {
    for range in ranges {
        let left = left[range.clone()].par_chunks_mut(CHUNK);
        let right = right[range.clone()].par_chunks(CHUNK);
        left.zip(right).for_each(|(left, right)| sum::add(left, right, rounding));
    }
}
