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

/// Columns of a matrix whose gradient is one task: a piece of a feature is long enough to be fetched well, and the
/// sums of a task stay in a cache.
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
    /// it is given tower, lane and columns, the lane and columns that follow, some room, and where to write (columns,
    /// outputs). On the thread pool it is called in.
    pub fn gradient(
        &mut self,
        plan: &Plan,
        lanes: usize,
        rounding: Rounding,
        of_lane: impl Fn(usize, LaneColumns, LaneColumns, &mut Room, &mut [f32]) + Sync,
        gradient: &mut [f32],
    ) {
        let blocks_of = |tower: usize| plan.towers[tower].input().div_ceil(COLUMNS);
        let count = plan.trained().map(|(tower, _)| blocks_of(tower)).sum();
        self.blocks.resize_with(count, Vec::new);
        let mut rest = &mut self.blocks[..];
        for (tower, planned) in plan.trained() {
            let (blocks, tail) = rest.split_at_mut(blocks_of(tower));
            rest = tail;
            let shape = [planned.model.config().widths[0], planned.input()];
            let of_lane =
                |of, next, room: &mut Room, dw: &mut [f32]| of_lane(tower, of, next, room, dw);
            let matrix = &mut gradient[planned.first_matrix()];
            of_tower(shape, lanes, rounding, of_lane, blocks, matrix);
        }
    }
}

/// The gradient of one tower's matrix, (outputs, inputs).
fn of_tower(
    [outputs, inputs]: [usize; 2],
    lanes: usize,
    rounding: Rounding,
    of_lane: impl Fn(LaneColumns, LaneColumns, &mut Room, &mut [f32]) + Sync,
    blocks: &mut [Vec<f32>],
    matrix: &mut [f32],
) {
    thread_local! {
        static TASK: RefCell<Task> = RefCell::default();
    }
    let last = blocks.len() - 1;
    let columns = |at: usize| at * COLUMNS..((at + 1) * COLUMNS).min(inputs);
    blocks.par_iter_mut().enumerate().with_max_len(1).for_each(|(at, block)| {
        let len = outputs * columns(at).len();
        TASK.with_borrow_mut(|Task { room, waiting }| {
            sum::tree_in_turn(lanes, len, rounding, waiting, |lane, dw| {
                let next = match lane + 1 < lanes {
                    true => (lane + 1, columns(at)),
                    false => (0, columns((at + 1).min(last))),
                };
                of_lane((lane, columns(at)), next, room, dw);
            });
            transpose(&waiting[..len], outputs, block);
        });
    });
    matrix.par_chunks_exact_mut(inputs).enumerate().for_each(|(output, row)| {
        for (row, block) in row.chunks_mut(COLUMNS).zip(&*blocks) {
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
        let blocks = &mut vec![Vec::new(); 3];
        of_tower([outputs, inputs], lanes, Rounding::Exact, of_lane, blocks, &mut matrix);
        let expected: Vec<f32> = (0..matrix.len()).map(|at| 10.0 * at as f32).collect();
        assert_eq!(matrix, expected);
    }
}
