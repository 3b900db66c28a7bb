//! The right factor of a product as the kernel reads it.
//!
//! ```text
//! (k, n), in blocks of DEPTH rows; a block is panels side by side, each of them row-major:
//!
//!   block 0   | panel 0 |  panel 1 | ..| last, its columns filled up with zeros to a multiple of 16 |
//!   block 1   | panel 0 |  panel 1 | ..
//! ```

use super::fit;
use super::transpose::transpose;
use super::widths::{DEPTH, Widths};

/// Columns are filled up to a multiple of this, so that every vector is whole.
const ROUND: usize = 16;

/// A packed right factor; see the module.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a> {
    data: &'a [f32],
    depth: usize,
    columns: usize,
    /// Columns of a panel, but the last.
    width: usize,
}

impl<'a> Panels<'a> {
    /// Rows (k) of the matrix that was packed.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Columns (n), without those that fill up.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Columns of a panel in place that a product is fastest with; none if vectors are short.
    pub fn usual_columns() -> Option<usize> {
        Some(Widths::here().usual).filter(|columns| columns.is_multiple_of(ROUND))
    }

    /// A row-major (`depth`, `columns`) matrix that is one panel as it is, if it is: its columns
    /// are a multiple of 16, and not many more than usual.
    pub fn in_place(depth: usize, columns: usize, data: &'a [f32]) -> Option<Panels<'a>> {
        let whole = columns.is_multiple_of(ROUND) && columns <= Widths::here().in_place;
        whole.then_some(Panels { data, depth, columns, width: columns })
    }

    /// Rows `from` to `to`, both of them beginnings of blocks, or the end.
    pub fn part(self, from: usize, to: usize) -> Panels<'a> {
        assert!(
            from.is_multiple_of(DEPTH) && from <= to && to <= self.depth,
            "rows {from} to {to}"
        );
        let padded = padded(self.columns);
        Panels { data: &self.data[from * padded..to * padded], depth: to - from, ..self }
    }

    /// First column and width of every panel.
    pub(super) fn panels(self) -> impl Iterator<Item = (usize, usize)> {
        panels(self.columns, self.width)
    }

    /// First row of every block, and the panel that is `width` wide from column `first` on.
    pub(super) fn blocks(
        self,
        first: usize,
        width: usize,
    ) -> impl Iterator<Item = (usize, &'a [f32])> {
        blocks(self.depth).map(move |(from, rows)| (from, self.block([first, width], [from, rows])))
    }

    /// Rows `from` to `from + rows` of a panel.
    fn block(self, [first, width]: [usize; 2], [from, rows]: [usize; 2]) -> &'a [f32] {
        &self.data[from * padded(self.columns) + first * rows..][..rows * width]
    }
}

/// The right factor of one product.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    /// Packed before, or one panel in place.
    Panels(Panels<'a>),
    /// Row-major (depth, columns), packed panel by panel: the product reads what it was packed into
    /// while that is in the nearest cache.
    Rows { shape: [usize; 2], data: &'a [f32] },
    /// The same, row-major transposed, (columns, depth).
    Transposed { shape: [usize; 2], data: &'a [f32] },
    /// Made panel by panel.
    Made { shape: [usize; 2], make: MakePanel<'a> },
}

/// Overwrites a panel, row-major (rows, width): from which column on, its width, from which row on.
/// Columns beyond the last are filled up with zeros.
pub type MakePanel<'a> = &'a dyn Fn(usize, usize, usize, &mut [f32]);

impl Right<'_> {
    pub(super) fn depth(&self) -> usize {
        match self {
            Right::Panels(panels) => panels.depth(),
            Right::Rows { shape, .. }
            | Right::Transposed { shape, .. }
            | Right::Made { shape, .. } => shape[0],
        }
    }

    pub(super) fn columns(&self) -> usize {
        match self {
            Right::Panels(panels) => panels.columns(),
            Right::Rows { shape, .. }
            | Right::Transposed { shape, .. }
            | Right::Made { shape, .. } => shape[1],
        }
    }

    /// First column and width of every panel; those that are packed now are `usual` wide.
    #[inline(always)]
    pub(super) fn panels(&self, usual: usize) -> impl Iterator<Item = (usize, usize)> {
        let width = match self {
            Right::Panels(panels) => panels.width,
            Right::Rows { .. } | Right::Transposed { .. } | Right::Made { .. } => usual,
        };
        panels(self.columns(), width)
    }

    /// First row of every block of a panel, and how many it has.
    #[inline(always)]
    pub(super) fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        blocks(self.depth())
    }

    /// Rows `from` to `from + rows` of the panel that is `width` wide from column `first` on,
    /// packed in `room` unless they are already.
    pub(super) fn panel<'s>(
        &'s self,
        [first, width]: [usize; 2],
        [from, rows]: [usize; 2],
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        if let Right::Panels(panels) = self {
            return panels.block([first, width], [from, rows]);
        }
        let panel = fit(room, rows * width);
        match *self {
            Right::Panels(_) => unreachable!("returned before"),
            Right::Rows { shape: [_, columns], data } => {
                copy_panel(&data[from * columns..], columns, first, width, panel);
            }
            Right::Transposed { shape, data } => {
                transpose_panel(shape, data, from, first, width, panel);
            }
            Right::Made { make, .. } => make(first, width, from, panel),
        }
        panel
    }
}

/// A buffer for a right factor, reused from product to product.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    data: Vec<f32>,
    shape: Shape,
}

/// The shape of a packed factor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    depth: usize,
    columns: usize,
    /// Columns of a panel, but the last.
    width: usize,
}

impl Packed {
    /// What was packed last.
    pub fn panels(&self) -> Panels<'_> {
        let Shape { depth, columns, width } = self.shape;
        Panels { data: &self.data, depth, columns, width }
    }

    /// Packs a row-major (`depth`, `columns`) matrix.
    pub fn pack(&mut self, depth: usize, columns: usize, b: &[f32]) {
        self.pack_as(Widths::here().usual, depth, columns, b);
    }

    /// The same in wider panels, of which a [`Sparse`](super::Sparse) factor makes more.
    pub fn pack_wide(&mut self, depth: usize, columns: usize, b: &[f32]) {
        self.pack_as(Widths::here().wide, depth, columns, b);
    }

    /// Packs a matrix that is row-major transposed, (`columns`, `depth`).
    pub fn pack_transposed(&mut self, depth: usize, columns: usize, b: &[f32]) {
        let (shape, len, data) = self.blocks_to_transpose(depth, columns);
        data.chunks_mut(len).enumerate().for_each(|(at, block)| shape.transpose(at, b, block));
    }

    /// The same in parts that may be done in any order and beside each other: the shape, the length
    /// of a part, and all of them; part `at` is to be filled by [`Shape::transpose`].
    pub fn blocks_to_transpose(
        &mut self,
        depth: usize,
        columns: usize,
    ) -> (Shape, usize, &mut [f32]) {
        self.reshape(Shape { depth, columns, width: Widths::here().usual });
        (self.shape, DEPTH * padded(columns).max(1), &mut self.data)
    }

    fn reshape(&mut self, shape: Shape) {
        self.shape = shape;
        fit(&mut self.data, shape.depth * padded(shape.columns));
    }

    /// Packs in panels of `width`.
    pub(super) fn pack_as(&mut self, width: usize, depth: usize, columns: usize, b: &[f32]) {
        assert_eq!(b.len(), depth * columns, "a matrix of {depth}, {columns}");
        self.reshape(Shape { depth, columns, width });
        let padded = padded(columns);
        for (from, rows) in blocks(depth) {
            let block = &mut self.data[from * padded..][..rows * padded];
            for (first, width) in panels(columns, width) {
                let panel = &mut block[first * rows..][..rows * width];
                copy_panel(&b[from * columns..], columns, first, width, panel);
            }
        }
    }
}

impl Shape {
    /// Packs block `at` of `b`, which is row-major transposed, (columns, depth).
    pub fn transpose(self, at: usize, b: &[f32], block: &mut [f32]) {
        let Shape { depth, columns, width } = self;
        assert_eq!(b.len(), depth * columns, "a matrix of {columns}, {depth}");
        let from = at * DEPTH;
        let rows = DEPTH.min(depth - from);
        for (first, width) in panels(columns, width) {
            let panel = &mut block[first * rows..][..rows * width];
            transpose_panel([depth, columns], b, from, first, width, panel);
        }
    }
}

/// Fills `panel`, (rows, `width`), with columns from `first` on of `b`, rows of `columns`.
fn copy_panel(b: &[f32], columns: usize, first: usize, width: usize, panel: &mut [f32]) {
    /// The same where the panel has all of its columns.
    fn copy<const N: usize>(b: &[f32], columns: usize, first: usize, panel: &mut [f32]) {
        let rows = panel.as_chunks_mut::<N>().0.iter_mut().zip(b.chunks(columns));
        for (to, row) in rows {
            let from = row[first..].first_chunk::<N>().expect("a row has the panel's columns");
            *to = *from;
        }
    }
    let filled = width.min(columns - first);
    match width {
        16 if filled == width => copy::<16>(b, columns, first, panel),
        32 if filled == width => copy::<32>(b, columns, first, panel),
        _ => {
            for (to, row) in panel.chunks_exact_mut(width).zip(b.chunks(columns)) {
                let (values, rest) = to.split_at_mut(filled);
                values.copy_from_slice(&row[first..][..filled]);
                rest.fill(0.0);
            }
        }
    }
}

/// Fills `panel`, (rows, `width`), with rows from `from` and columns from `first` on of the matrix
/// (depth, columns) whose transposed is `b`.
fn transpose_panel(
    [depth, columns]: [usize; 2],
    b: &[f32],
    from: usize,
    first: usize,
    width: usize,
    panel: &mut [f32],
) {
    let filled = width.min(columns - first);
    if filled < width {
        panel.fill(0.0);
    }
    let rows = panel.len() / width;
    transpose([filled, rows], &b[first * depth + from..], depth, panel, width);
}

fn padded(columns: usize) -> usize {
    columns.next_multiple_of(ROUND)
}

/// First row and number of rows of every block.
fn blocks(depth: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..depth).step_by(DEPTH).map(move |from| (from, DEPTH.min(depth - from)))
}

/// First column and width of every panel.
fn panels(columns: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    let padded = padded(columns);
    (0..columns).step_by(width).map(move |first| (first, width.min(padded - first)))
}
