//! The first layers of the towers, where almost all arithmetic of a step is: what lanes share of
//! them.
//!
//! A layer is packed once a step for all lanes of the process. The gradient of its matrix, 4 MB in
//! the paper's tower, is not written once per lane to be added up afterwards: some columns at a
//! time, all local lanes' gradients are computed and added along the tree while they are in a
//! cache. An element is the same sum in the same order as if every lane had written its own, so
//! threads and processes do not show. And while the thread pool computes some columns, those that
//! are done are summed over processes.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::mpsc;

use ams_fabric::{AllReduce, Fabric, Lost, Rounding, sum};
use ams_model::linalg::Packed;
use ams_model::tower::Room;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::setup::network::{Plan, PlannedTower};

/// Columns of a matrix whose gradient is one task: a piece of a feature is long enough to be
/// fetched well, and the sums of a task stay in a cache.
const COLUMNS: usize = 256;

/// See the module.
#[derive(Default)]
pub struct FirstLayers {
    packed: Vec<Packed>,
    /// Gradients of COLUMNS columns each, (outputs, columns), of one tower after the other.
    blocks: Vec<Vec<f32>>,
}

/// A lane, and some columns of a matrix.
type LaneColumns = (usize, Range<usize>);

/// What a task needs, kept by its thread.
#[derive(Default)]
struct Task {
    room: Room,
    /// See [`sum::tree_in_turn`].
    waiting: Vec<f32>,
}

impl FirstLayers {
    /// Packs the first layer of every tower of the dense weights `dense`, on the thread pool it is
    /// called in.
    pub fn pack(&mut self, plan: &Plan, dense: &[f32]) {
        self.packed.resize_with(plan.towers.len(), Packed::default);
        for (tower, packed) in plan.towers.iter().zip(&mut self.packed) {
            let (inputs, outputs) = (tower.input(), tower.model.config().widths[0]);
            let matrix = &dense[tower.first_matrix()];
            let (shape, len, blocks) = packed.blocks_to_transpose(inputs, outputs);
            let blocks = blocks.par_chunks_mut(len).enumerate();
            blocks.for_each(|(at, block)| shape.transpose(at, matrix, block));
        }
    }

    /// The packed layers, by tower.
    pub fn packed(&self) -> &[Packed] {
        &self.packed
    }

    /// How many values of the dense gradient are summed over processes at once, by
    /// [`FirstLayers::gradient`].
    pub fn messages(plan: &Plan) -> impl Iterator<Item = usize> {
        let block =
            |(_, shape, at): (usize, [usize; 2], usize)| shape[0] * columns(shape, at).len();
        plan.rest.iter().map(|range| range.len()).chain(blocks(plan).map(block))
    }

    /// Overwrites the first layers' matrices in `gradient` with the sum over all lanes of what
    /// `of_lane` computes for the `lanes` of this process: it is given tower, lane and columns,
    /// the lane and columns that follow, some room, and where to write (columns, outputs). Adds
    /// up the rest of `gradient`, which is the sum of the lanes of this process, over processes
    /// besides.
    ///
    /// While the thread pool computes, this thread, which is none of it, sums over processes what
    /// is done.
    ///
    /// # Errors
    /// If a process is lost.
    pub fn gradient(
        &mut self,
        plan: &Plan,
        pool: &ThreadPool,
        lanes: usize,
        of_lane: impl Fn(usize, LaneColumns, LaneColumns, &mut Room, &mut [f32]) + Sync,
        processes: (&mut dyn Fabric, &mut AllReduce),
        gradient: &mut [f32],
    ) -> Result<(), Lost> {
        let (fabric, all_reduce) = processes;
        let of_towers: Vec<(usize, [usize; 2], usize)> = blocks(plan).collect();
        self.blocks.resize_with(of_towers.len(), Vec::new);
        let rounding = all_reduce.rounding();
        let compute = |(number, shape, at): (usize, [usize; 2], usize), block: &mut Vec<f32>| {
            sum_of_lanes(
                shape,
                at,
                lanes,
                rounding,
                |of, next, room, dw| of_lane(number, of, next, room, dw),
                block,
            );
        };
        if fabric.size() == 1 {
            let blocks = self.blocks.par_iter_mut().zip(&of_towers).with_max_len(1);
            pool.install(|| blocks.for_each(|(block, &of)| compute(of, block)));
        } else {
            pool.in_place_scope(|scope| {
                let (done, arrived) = mpsc::channel();
                for (at, (block, &of)) in self.blocks.iter_mut().zip(&of_towers).enumerate() {
                    let (compute, done) = (&compute, done.clone());
                    scope.spawn(move |_| {
                        compute(of, block);
                        // Nobody listens after a process was lost.
                        let _ = done.send((at, block));
                    });
                }
                drop(done);
                for range in &plan.rest {
                    all_reduce.run(fabric, &mut gradient[range.clone()])?;
                }
                // Threads end blocks in any order; all processes sum them in one.
                let mut early: Vec<Option<&mut Vec<f32>>> =
                    of_towers.iter().map(|_| None).collect();
                for at in 0..early.len() {
                    while early[at].is_none() {
                        // If a task panicked, the scope goes on with its panic.
                        let Ok((at, block)) = arrived.recv() else { return Ok(()) };
                        early[at] = Some(block);
                    }
                    if let Some(block) = early[at].take() {
                        all_reduce.run(fabric, block)?;
                    }
                }
                Ok(())
            })?;
        }
        let mut rest = &self.blocks[..];
        for (_, tower) in plan.trained() {
            let (blocks, tail) = rest.split_at(count(shape(tower)));
            rest = tail;
            let matrix = &mut gradient[tower.first_matrix()];
            pool.install(|| join(blocks, shape(tower)[1], matrix));
        }
        Ok(())
    }
}

/// Outputs and inputs of a tower's first layer.
fn shape(tower: &PlannedTower) -> [usize; 2] {
    [tower.model.config().widths[0], tower.input()]
}

/// How many blocks a matrix has.
fn count([_, inputs]: [usize; 2]) -> usize {
    inputs.div_ceil(COLUMNS)
}

/// The blocks of all matrices that learn: tower, shape, and which one of the matrix.
fn blocks(plan: &Plan) -> impl Iterator<Item = (usize, [usize; 2], usize)> {
    plan.trained().flat_map(|(number, tower)| {
        let shape = shape(tower);
        (0..count(shape)).map(move |at| (number, shape, at))
    })
}

/// The columns of block `at`.
fn columns([_, inputs]: [usize; 2], at: usize) -> Range<usize> {
    at * COLUMNS..((at + 1) * COLUMNS).min(inputs)
}

/// Block `at` of the gradient of one matrix, of all local lanes.
fn sum_of_lanes(
    shape: [usize; 2],
    at: usize,
    lanes: usize,
    rounding: Rounding,
    of_lane: impl Fn(LaneColumns, LaneColumns, &mut Room, &mut [f32]),
    block: &mut Vec<f32>,
) {
    thread_local! {
        static TASK: RefCell<Task> = RefCell::default();
    }
    let outputs = shape[0];
    let (mine, last) = (columns(shape, at), count(shape) - 1);
    let len = outputs * mine.len();
    TASK.with_borrow_mut(|Task { room, waiting }| {
        sum::tree_in_turn(lanes, len, rounding, waiting, |lane, dw| {
            let next = match lane + 1 < lanes {
                true => (lane + 1, mine.clone()),
                false => (0, columns(shape, (at + 1).min(last))),
            };
            of_lane((lane, mine.clone()), next, room, dw);
        });
        transpose(&waiting[..len], outputs, block);
    });
}

/// Overwrites a matrix, rows of `inputs` values, with its blocks.
fn join(blocks: &[Vec<f32>], inputs: usize, matrix: &mut [f32]) {
    matrix.par_chunks_exact_mut(inputs).enumerate().for_each(|(output, row)| {
        for (row, block) in row.chunks_mut(COLUMNS).zip(blocks) {
            row.copy_from_slice(&block[output * row.len()..][..row.len()]);
        }
    });
}

/// Overwrites `to` with the transposed of `from`, whose rows are `width` long.
fn transpose(from: &[f32], width: usize, to: &mut Vec<f32>) {
    let rows = from.len() / width;
    to.resize(from.len(), 0.0);
    for (column, to) in to.chunks_exact_mut(rows).enumerate() {
        for (row, to) in to.iter_mut().enumerate() {
            *to = from[row * width + column];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_columns_become_one_matrix() {
        let (outputs, inputs, lanes) = (3, 2 * COLUMNS + 5, 4);
        let mut matrix = vec![f32::NAN; outputs * inputs];
        let of_lane =
            |(lane, columns): LaneColumns, _: LaneColumns, _: &mut Room, dw: &mut [f32]| {
                for (column, dw) in columns.zip(dw.chunks_exact_mut(outputs)) {
                    for (output, dw) in dw.iter_mut().enumerate() {
                        *dw = ((lane + 1) * (output * inputs + column)) as f32;
                    }
                }
            };
        let (shape, mut blocks) = ([outputs, inputs], vec![Vec::new(); 3]);
        for (at, block) in blocks.iter_mut().enumerate() {
            sum_of_lanes(shape, at, lanes, Rounding::Exact, of_lane, block);
        }
        join(&blocks, inputs, &mut matrix);
        let expected: Vec<f32> = (0..matrix.len()).map(|at| 10.0 * at as f32).collect();
        assert_eq!(matrix, expected);
    }
}
