//! The first layers of the towers, where almost all arithmetic of a step is: what lanes share of them.
//!
//! A layer is packed once a step for all lanes of the process. The gradient of its matrix, 4 MB in the paper's tower, is
//! not written once per lane to be added up afterwards: some columns at a time, all local lanes' gradients are
//! computed and added along the tree while they are in a cache. An element is the same sum in the same
//! order as if every lane had written its own, so threads and processes do not show.

use std::cell::RefCell;
use std::ops::Range;

use ams_fabric::{Rounding, sum};
use ams_model::linalg::Packed;
use ams_model::tower::Room;
use rayon::prelude::*;

use crate::plan::Plan;

/// Columns of a matrix whose gradient is one task.
const COLUMNS: usize = 64;

/// See the module.
#[derive(Default)]
pub struct FirstLayers {
    packed: Vec<Packed>,
    /// Gradients of COLUMNS columns each, (outputs, columns), of one tower after the other.
    blocks: Vec<Vec<f32>>,
}

/// What a task needs, kept by its thread.
#[derive(Default)]
struct Task {
    room: Room,
    /// The gradients of all lanes, end to end.
    lanes: Vec<f32>,
}

impl FirstLayers {
    /// Packs the first layer of every tower of the dense weights `dense`, on the thread pool it is called in.
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

    /// Overwrites the first layers' matrices in `gradient` with the sum over `lanes` lanes of what `of_lane` computes:
    /// it is given lane, tower, columns, some room, and where to write (columns, outputs). On the
    /// thread pool it is called in.
    pub fn gradient(
        &mut self,
        plan: &Plan,
        lanes: usize,
        rounding: Rounding,
        of_lane: impl Fn(usize, usize, Range<usize>, &mut Room, &mut [f32]) + Sync,
        gradient: &mut [f32],
    ) {
        thread_local! {
            static TASK: RefCell<Task> = RefCell::default();
        }
        let blocks_of = |tower: usize| plan.towers[tower].input().div_ceil(COLUMNS);
        let count = plan.trained().map(|(tower, _)| blocks_of(tower)).sum();
        self.blocks.resize_with(count, Vec::new);
        let mut rest = &mut self.blocks[..];
        for (tower, planned) in plan.trained() {
            let (inputs, outputs) = (planned.input(), planned.model.config().widths[0]);
            let (blocks, tail) = rest.split_at_mut(blocks_of(tower));
            rest = tail;
            blocks.par_iter_mut().enumerate().with_max_len(1).for_each(|(at, block)| {
                let columns = at * COLUMNS..((at + 1) * COLUMNS).min(inputs);
                let len = outputs * columns.len();
                TASK.with_borrow_mut(|task| {
                    task.lanes.resize(lanes * len, 0.0);
                    for (lane, dw) in task.lanes.chunks_exact_mut(len).enumerate() {
                        of_lane(lane, tower, columns.clone(), &mut task.room, dw);
                        rounding.leaves(dw);
                    }
                    sum::tree_of_chunks(&mut task.lanes, len, rounding);
                    transpose(&task.lanes[..len], outputs, block);
                });
            });
            let rows = gradient[planned.first_matrix()].par_chunks_exact_mut(inputs);
            rows.enumerate().for_each(|(output, row)| {
                for (row, block) in row.chunks_mut(COLUMNS).zip(&*blocks) {
                    row.copy_from_slice(&block[output * row.len()..][..row.len()]);
                }
            });
        }
    }
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
