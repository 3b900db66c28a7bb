//! The inputs u and a of the network's layers: how wide they are, and columns of them side by side.

use crate::linalg;
use crate::pool::Columns;

/// Widths of the inputs u and a.
#[derive(Clone, Copy, Debug)]
pub(super) struct Widths {
    pub(super) u: usize,
    pub(super) a: usize,
}

impl Widths {
    /// Makes room for `width` more columns in u; the first of them.
    pub(super) fn in_u(&mut self, width: usize) -> usize {
        self.u += width;
        self.u - width
    }

    /// The same in a.
    pub(super) fn in_a(&mut self, width: usize) -> usize {
        self.a += width;
        self.a - width
    }
}

/// Overwrites `out` with `columns` of each row of `x`, side by side.
pub(super) fn gather(rows: usize, columns: &[Columns], x: &[f32], out: &mut Vec<f32>) {
    out.clear();
    for row in 0..rows {
        columns.iter().for_each(|columns| out.extend_from_slice(columns.of(x, row)));
    }
}

/// Adds each row of `dout` to `columns` of `dx`.
pub(super) fn gather_backward(rows: usize, columns: &[Columns], dout: &[f32], dx: &mut [f32]) {
    let mut rest = dout;
    for row in 0..rows {
        for columns in columns {
            let (part, after) = rest.split_at(columns.dim);
            linalg::add(part, columns.of_mut(dx, row));
            rest = after;
        }
    }
}
