//! Embedding rows by id.
//!
//! ```text
//! ids.safetensors           ids u64 (n) ascending, rows f32 or f16 (n, D)
//! ```

use ams_data::{Id, Ragged};

use crate::error::Result;
use crate::files::numbers::{Floats, Numbers};
use crate::files::tensors::TensorFile;
use crate::tables::layer::{MergeSource, SortedTable, Values};

/// Embedding rows of width D, in the order of their ids.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    dim: usize,
    /// The rows end to end; (n, D).
    values: Floats,
}

impl Rows {
    /// The row at `at`; (D).
    pub(crate) fn of(&self, at: usize) -> Vec<f32> {
        let mut row = Vec::with_capacity(self.dim);
        self.push(at, &mut row);
        row
    }

    /// Appends the row at `at`.
    fn push(&self, at: usize, to: &mut Vec<f32>) {
        self.values.push(at * self.dim..(at + 1) * self.dim, to);
    }
}

impl Values for Rows {
    fn merged(&self, newer: &Rows, order: &[MergeSource]) -> Rows {
        let mut values = Vec::with_capacity(order.len() * self.dim);
        for from in order {
            match *from {
                MergeSource::Older(at) => self.push(at, &mut values),
                MergeSource::Newer(at) => newer.push(at, &mut values),
            }
        }
        Rows { dim: self.dim, values: Floats::F32(Numbers::from(values)) }
    }
}

/// All rows of a model.
pub(crate) type LayeredRows = crate::tables::layer::Layered<Rows>;

/// Reads rows of `dim` numbers.
///
/// # Errors
/// If a tensor is missing or has another shape, or the ids are not ascending.
pub(crate) fn read(file: &TensorFile, dim: usize) -> Result<SortedTable<Rows>> {
    let (index, gone) = file.keys("ids")?;
    let values = file.f32_or_f16("rows", &[index.len(), dim])?;
    Ok(SortedTable::new(index, gone, Rows { dim, values }))
}

/// Appends to `rows` the row of each id that has one, or else that of the id `unknown` if there is
/// one, and overwrites `places` with where it is there, list by list. Returns how many ids have no
/// row of their own.
pub(crate) fn look_up(
    all: &LayeredRows,
    dim: usize,
    unknown: Option<Id>,
    ids: &Ragged<Id>,
    places: &mut Ragged<u32>,
    rows: &mut Vec<f32>,
) -> usize {
    places.clear();
    // What is the same for all candidates comes again and again.
    let mut last: Option<(Id, Option<u32>)> = None;
    let mut find = |id: Id| {
        all.get(id.0).map(|(table, at)| {
            table.push(at, rows);
            (rows.len() / dim - 1) as u32
        })
    };
    let (mut stand_in, mut lacking) = (None, 0);
    for list in 0..ids.len() {
        let before = places.values.len();
        for &id in ids.row(list) {
            let place = match last {
                Some((same, place)) if same == id => place,
                _ => find(id),
            };
            last = Some((id, place));
            let place = place.or_else(|| {
                lacking += 1;
                *stand_in.get_or_insert_with(|| unknown.and_then(&mut find))
            });
            places.values.extend(place);
        }
        places.offsets.push(places.values.len() - before);
    }
    lacking
}
