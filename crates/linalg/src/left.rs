//! The left factor of a product as the kernel reads it.
//!
//! ```text
//! rows      (m, k), maybe more than k numbers apart
//! columns   (k, m): the factor is the transposed of what is there
//! tiles     the same in tiles of T columns, of which each is row-major, (k, T):
//!             | tile 0 | some floats | tile 1 | ..
//! ```
//! A tile of a product reads T rows of the factor from its first column to its last one. Those of
//! `columns` are on as many lines of a cache as there are columns, and distances that are powers of
//! two put them all in a few sets of it; in `tiles` they follow each other.

use std::cell::RefCell;

use half::f16;

use super::fit;
use super::widen::widen;
use super::widths::{DEPTH, Widths};

/// The left factor (m, k).
#[derive(Clone, Copy, Debug)]
pub struct LeftFactor<'a> {
    data: &'a [f32],
    order: Order,
}

/// Where element (i, l) is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// At `i * row + l`.
    Rows { row: usize },
    /// At `i + l * column`.
    Columns { column: usize },
    /// At `i / rows * apart + i % rows + l * rows`.
    Tiles { rows: usize, apart: usize },
}

impl<'a> LeftFactor<'a> {
    /// Rows that begin `row` numbers after each other.
    pub fn rows(data: &'a [f32], row: usize) -> LeftFactor<'a> {
        LeftFactor { data, order: Order::Rows { row } }
    }

    /// Columns of `column` numbers, one after the other.
    pub fn columns(data: &'a [f32], column: usize) -> LeftFactor<'a> {
        LeftFactor { data, order: Order::Columns { column } }
    }

    /// Without the first `columns` columns.
    pub(super) fn after(self, columns: usize) -> LeftFactor<'a> {
        LeftFactor { data: &self.data[columns * self.column()..], ..self }
    }

    /// From a column to the next.
    pub(super) fn column(&self) -> usize {
        match self.order {
            Order::Rows { .. } => 1,
            Order::Columns { column } => column,
            Order::Tiles { rows, .. } => rows,
        }
    }

    /// From a row to the next, of those that a tile of a product has.
    pub(super) fn row(&self) -> usize {
        match self.order {
            Order::Rows { row } => row,
            Order::Columns { .. } | Order::Tiles { .. } => 1,
        }
    }

    /// Where row `first` begins.
    pub(super) fn start(&self, first: usize) -> usize {
        match self.order {
            Order::Rows { row } => first * row,
            Order::Columns { .. } => first,
            Order::Tiles { rows, apart } => first / rows * apart + first % rows,
        }
    }

    /// Most rows that a tile of a product may have.
    pub(super) fn rows_of_tile(&self) -> usize {
        match self.order {
            Order::Rows { .. } | Order::Columns { .. } => usize::MAX,
            Order::Tiles { rows, .. } => rows,
        }
    }

    /// Panics unless there are rows to `m` and columns to `depth`.
    #[inline(always)]
    pub(super) fn assert_reaches(&self, m: usize, depth: usize) {
        if m > 0 && depth > 0 {
            let last = self.start(m - 1) + (depth - 1) * self.column();
            assert!(self.data.len() > last, "a left factor of {m}, {depth}");
        }
    }

    pub(super) fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// Floats between tiles, so that their beginnings are in different sets of a cache.
const APART: usize = 16;

/// Room for the transposed of a matrix, in tiles; reused from product to product.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    data: Vec<f32>,
    line: Vec<f32>,
    rows: usize,
    apart: usize,
}

impl Tiles {
    /// The transposed, (columns, depth).
    pub fn factor(&self) -> LeftFactor<'_> {
        LeftFactor { data: &self.data, order: Order::Tiles { rows: self.rows, apart: self.apart } }
    }

    /// Takes a matrix (`depth`, `columns`) of halfs: `row` gives each of its rows.
    pub fn widen<'a>(&mut self, depth: usize, columns: usize, row: impl Fn(usize) -> &'a [f16]) {
        self.reshape(depth, columns);
        let mut line = std::mem::take(&mut self.line);
        let line_of = fit(&mut line, columns);
        for at in 0..depth {
            widen(columns, |_| row(at), line_of);
            self.put(at, line_of);
        }
        self.line = line;
    }

    /// Takes a row-major matrix (`depth`, `columns`).
    pub(super) fn pack(&mut self, depth: usize, columns: usize, b: &[f32]) {
        self.reshape(depth, columns);
        for (at, line) in b.chunks_exact(columns.max(1)).enumerate() {
            self.put(at, line);
        }
    }

    fn reshape(&mut self, depth: usize, columns: usize) {
        self.rows = Widths::here().rows;
        self.apart = depth * self.rows + APART;
        fit(&mut self.data, columns.div_ceil(self.rows) * self.apart);
    }

    /// Row `at` of the matrix is `line`.
    fn put(&mut self, at: usize, line: &[f32]) {
        match self.rows {
            6 => put::<6>(&mut self.data, self.apart, at, line),
            12 => put::<12>(&mut self.data, self.apart, at, line),
            rows => unreachable!("tiles of {rows}"),
        }
    }
}

/// Writes `line` into the tiles of `T` columns, `apart` floats after each other, as row `at`.
fn put<const T: usize>(data: &mut [f32], apart: usize, at: usize, line: &[f32]) {
    let (whole, rest) = line.as_chunks::<T>();
    for (part, tile) in whole.iter().zip(data.chunks_mut(apart)) {
        tile[at * T..][..T].copy_from_slice(part);
    }
    if let Some(tile) = data.chunks_mut(apart).nth(whole.len()) {
        tile[at * T..][..rest.len()].copy_from_slice(rest);
    }
}

/// Bytes of a factor in `columns` that stay in the nearest cache beside a panel.
const NEAR: usize = 16 << 10;

/// Columns of a product from which on it pays to make tiles first.
const ENOUGH: usize = 64;

/// Runs `run` with the transposed of a row-major (`depth`, `columns`) matrix, in tiles if a product
/// with `n` columns is faster by it.
pub(super) fn transposed<R>(
    [depth, columns]: [usize; 2],
    a: &[f32],
    n: usize,
    run: impl FnOnce(LeftFactor) -> R,
) -> R {
    thread_local! {
        static TILES: RefCell<Tiles> = RefCell::default();
    }
    if n < ENOUGH || size_of::<f32>() * columns * depth.min(DEPTH) <= NEAR {
        return run(LeftFactor::columns(a, columns));
    }
    TILES.with_borrow_mut(|tiles| {
        tiles.pack(depth, columns, a);
        run(tiles.factor())
    })
}
