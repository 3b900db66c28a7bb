//! The first layers of the towers, which are almost all arithmetic of a step, shared by lanes.
//!
//! A layer is packed once a step for all lanes of the process. The gradient of its matrix, 4 MB in
//! the paper's tower, is not written once per lane to be added up afterwards: some columns at a
//! time, all local lanes' gradients are computed and added along the tree while they are in a
//! cache. An element is the same sum in the same order as if every lane had written its own, so
//! threads and processes do not show. And while the thread pool computes some columns, those that
//! are done are summed over processes.

use std::cell::RefCell;
use std::ops::Range;

use ams_fabric::{Rounding, sum};
use ams_model::linalg::{self, Packed};
use ams_model::tower::TowerBuffers;
use rayon::prelude::*;

use crate::setup::network::{Network, TowerDefinition};

/// Columns of a matrix whose gradient is one task: a piece of a feature is long enough to be
/// fetched well, and the sums of a task stay in a cache.
const COLUMNS: usize = 256;

/// Packed first layers, and room for the blocks of their gradients.
#[derive(Default)]
pub(crate) struct FirstLayers {
    packed: Vec<Packed>,
    /// Gradients of COLUMNS columns each, (outputs, columns), of one tower after the other.
    blocks: Vec<Vec<f32>>,
}

/// What a task needs, kept by its thread.
#[derive(Default)]
struct Task {
    room: TowerBuffers,
    /// Partial sums of the tree, see [`sum::tree_in_turn`].
    waiting: Vec<f32>,
}

impl FirstLayers {
    /// Packs the first layer of every tower of the dense weights `dense`, on the thread pool it is
    /// called in.
    pub(crate) fn pack(&mut self, network: &Network, dense: &[f32]) {
        self.packed.resize_with(network.towers.len(), Packed::default);
        for (tower, packed) in network.towers.iter().zip(&mut self.packed) {
            let (inputs, outputs) = (tower.input(), tower.model.config().widths[0]);
            let matrix = &dense[tower.first_matrix()];
            let (shape, len, blocks) = packed.blocks_to_transpose(inputs, outputs);
            let blocks = blocks.par_chunks_mut(len).enumerate();
            blocks.for_each(|(at, block)| shape.transpose(at, matrix, block));
        }
    }

    /// The packed layers, by tower.
    pub(crate) fn packed(&self) -> &[Packed] {
        &self.packed
    }

    /// Blocks of the gradients of all first layers that learn, and room for each.
    pub(crate) fn blocks(
        &mut self,
        network: &Network,
    ) -> impl IndexedParallelIterator<Item = (Block, &mut Vec<f32>)> {
        let blocks: Vec<Block> = blocks(network).collect();
        self.blocks.resize_with(blocks.len(), Vec::new);
        blocks.into_par_iter().zip(&mut self.blocks)
    }

    /// Overwrites the first layers' matrices in `gradient` with the blocks.
    pub(crate) fn join(&self, network: &Network, gradient: &mut [f32]) {
        let mut rest = &self.blocks[..];
        for (_, tower) in network.learning() {
            let (blocks, tail) = rest.split_at(count(shape(tower)));
            rest = tail;
            join(blocks, shape(tower)[1], &mut gradient[tower.first_matrix()]);
        }
    }
}

/// Some columns of one tower's first matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Index of the tower.
    pub tower: usize,
    /// Outputs and inputs of the matrix.
    shape: [usize; 2],
    /// Which block of the matrix.
    at: usize,
}

impl Block {
    /// Number of values, outputs times columns.
    pub(crate) fn values(&self) -> usize {
        self.shape[0] * columns(self.shape, self.at).len()
    }

    /// Overwrites `block`, (outputs, columns), with the sum of the gradients of the `lanes` of this
    /// process along the tree. `of_lane` computes one lane's, (columns, outputs).
    pub(crate) fn sum_of_lanes(
        self,
        lanes: usize,
        rounding: Rounding,
        of_lane: impl Fn(Columns, &mut TowerBuffers, &mut [f32]),
        block: &mut Vec<f32>,
    ) {
        thread_local! {
            static TASK: RefCell<Task> = RefCell::default();
        }
        let Block { tower, shape, at } = self;
        let (outputs, mine, last) = (shape[0], columns(shape, at), count(shape) - 1);
        let len = self.values();
        TASK.with_borrow_mut(|Task { room, waiting }| {
            sum::tree_in_turn(lanes, len, rounding, waiting, |lane, dw| {
                let (next_lane, next_columns) = if lane + 1 < lanes {
                    (lane + 1, mine.clone())
                } else {
                    (0, columns(shape, (at + 1).min(last)))
                };
                let here = Columns { tower, lane, columns: mine.clone(), next_lane, next_columns };
                of_lane(here, room, dw);
            });
            transpose(&waiting[..len], outputs, block);
        });
    }
}

/// Columns of a tower's first matrix whose gradient one lane computes.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    /// Index of the tower.
    pub tower: usize,
    /// The lane, of those of this process.
    pub lane: usize,
    /// The columns whose gradient is computed.
    pub columns: Range<usize>,
    /// The lane whose features are used next, to be fetched meanwhile.
    pub next_lane: usize,
    /// The columns that are used next.
    pub next_columns: Range<usize>,
}

/// Outputs and inputs of a tower's first layer.
fn shape(tower: &TowerDefinition) -> [usize; 2] {
    [tower.model.config().widths[0], tower.input()]
}

/// How many blocks a matrix has.
fn count([_, inputs]: [usize; 2]) -> usize {
    inputs.div_ceil(COLUMNS)
}

/// The blocks of all matrices that learn.
pub(crate) fn blocks(network: &Network) -> impl Iterator<Item = Block> {
    network.learning().flat_map(|(tower, definition)| {
        let shape = shape(definition);
        (0..count(shape)).map(move |at| Block { tower, shape, at })
    })
}

/// The columns of block `at`.
fn columns([_, inputs]: [usize; 2], at: usize) -> Range<usize> {
    at * COLUMNS..((at + 1) * COLUMNS).min(inputs)
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
    linalg::transpose([rows, width], from, width, linalg::fit(to, from.len()), rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_columns_become_one_matrix() {
        let (outputs, inputs, lanes) = (3, 2 * COLUMNS + 5, 4);
        let mut matrix = vec![f32::NAN; outputs * inputs];
        let of_lane =
            |Columns { lane, columns, .. }: Columns, _: &mut TowerBuffers, dw: &mut [f32]| {
                for (column, dw) in columns.zip(dw.chunks_exact_mut(outputs)) {
                    for (output, dw) in dw.iter_mut().enumerate() {
                        *dw = ((lane + 1) * (output * inputs + column)) as f32;
                    }
                }
            };
        let (shape, mut blocks) = ([outputs, inputs], vec![Vec::new(); 3]);
        for (at, block) in blocks.iter_mut().enumerate() {
            let it = Block { tower: 0, shape, at };
            it.sum_of_lanes(lanes, Rounding::Exact, of_lane, block);
        }
        join(&blocks, inputs, &mut matrix);
        let expected: Vec<f32> = (0..matrix.len()).map(|at| 10.0 * at as f32).collect();
        assert_eq!(matrix, expected);
    }
}
