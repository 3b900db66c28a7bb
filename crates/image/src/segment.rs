//! A part file: the images that one generation of the store added to a part.
//!
//! ```text
//! keys     u64 [n]        ascending
//! squares  f64 [n]        the sum of the squares of each row, from which the store's scale is made
//! sizes    u32 [n, 2]     width and height of the picture, 0 where unknown
//! scales   f32 [n]        with rows of bytes: what a byte of the row is worth
//! rows     f16 [n, dim]   or i8 [n, dim]
//! ```
//! Knows this file. Does not know which images anybody still wants.

use std::path::Path;

use ams_data::staging::FileEntry;
use ams_data::tensors::Slot;
use ams_data::{Error, ImageKey, Result};
use ams_linalg::Projection;
use half::f16;
use safetensors::Dtype;

use crate::card::StoreCard;
use crate::row::{Row, RowType, quantize};
use crate::tensors::{TensorWriter, Tensors};

/// A part file, mapped.
#[derive(Debug)]
pub(crate) struct Segment {
    tensors: Tensors,
    dim: usize,
    keys: Slot,
    squares: Slot,
    sizes: Slot,
    rows: Slot,
    /// With rows of bytes.
    scales: Option<Slot>,
    /// What stands in the place of the rows, if something does, and its numbers per row.
    projected: Option<(Vec<f16>, usize)>,
}

impl Segment {
    /// Maps a file of part `part` and checks everything but the rows' values.
    pub(crate) fn open(path: &Path, part: usize, card: &StoreCard) -> Result<Segment> {
        let tensors = Tensors::open(path)?;
        let keys = tensors.typed("keys", Dtype::U64, 1)?;
        let squares = tensors.typed("squares", Dtype::F64, 1)?;
        let sizes = tensors.typed("sizes", Dtype::U32, 2)?;
        let (rows, scales) = match card.rows {
            RowType::F16 => (tensors.typed("rows", Dtype::F16, 2)?, None),
            RowType::Int8 => {
                let scales = tensors.typed("scales", Dtype::F32, 1)?;
                tensors.slice::<f32>(&scales)?;
                (tensors.typed("rows", Dtype::I8, 2)?, Some(scales))
            }
        };
        let (count, dim) = (keys.shape[0], card.dim);
        let shape = |slot: &Slot, name: &str, expected: &[usize]| {
            if slot.shape == expected {
                Ok(())
            } else {
                let what = format!(
                    "`{name}` is {:?}, expected {expected:?} (keys, dim of the card)",
                    slot.shape
                );
                Err(Error::content(path, what))
            }
        };
        shape(&rows, "rows", &[count, dim])?;
        shape(&squares, "squares", &[count])?;
        shape(&sizes, "sizes", &[count, 2])?;
        if let Some(scales) = &scales {
            shape(scales, "scales", &[count])?;
        }
        tensors.slice::<f64>(&squares)?;
        tensors.slice::<[u32; 2]>(&sizes)?;
        if card.rows == RowType::F16 {
            tensors.slice::<f16>(&rows)?;
        }
        let list = tensors.slice::<ImageKey>(&keys)?;
        if let Some(at) = list.windows(2).position(|pair| pair[0] >= pair[1]) {
            let what =
                format!("`keys` must ascend, but row {} is not above row {}", at + 2, at + 1);
            return Err(Error::content(path, what));
        }
        let foreign = |key: &ImageKey| !key.is_some() || key.part(card.parts) != part;
        if let Some(at) = list.iter().position(foreign) {
            let what =
                format!("key {:016x} in row {} does not belong to part {part}", list[at].0, at + 1);
            return Err(Error::content(path, what));
        }
        Ok(Segment { tensors, dim, keys, squares, sizes, rows, scales, projected: None })
    }

    /// The keys of its rows, in ascending order.
    pub(crate) fn keys(&self) -> &[ImageKey] {
        self.slice(&self.keys)
    }

    /// The sum of the squares of each row.
    pub(crate) fn squares(&self) -> &[f64] {
        self.slice(&self.squares)
    }

    /// Width and height of each picture.
    pub(crate) fn sizes(&self) -> &[[u32; 2]] {
        self.slice(&self.sizes)
    }

    /// The feature in row `row`, or what was made of it.
    pub(crate) fn row(&self, row: usize) -> Row<'_> {
        match &self.projected {
            Some((rows, dim)) => Row::F16(&rows[row * dim..][..*dim]),
            None => self.stored(row),
        }
    }

    /// The feature in row `row` as it is in the file.
    fn stored(&self, row: usize) -> Row<'_> {
        let at = row * self.dim..(row + 1) * self.dim;
        match &self.scales {
            None => Row::F16(&self.slice::<f16>(&self.rows)[at]),
            Some(scales) => Row::Int8(&self.slice(&self.rows)[at], self.slice::<f32>(scales)[row]),
        }
    }

    /// Puts what `projection` makes of the rows into their place.
    pub(crate) fn project(&mut self, projection: &Projection) {
        let mut rows = Vec::with_capacity(self.keys().len() * projection.outputs());
        let mut row = Vec::with_capacity(self.dim);
        for at in 0..self.keys().len() {
            row.clear();
            self.stored(at).push_halfs(&mut row);
            rows.extend(projection.apply(&row));
        }
        self.projected = Some((rows, projection.outputs()));
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        self.tensors.path()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.tensors.bytes()
    }

    /// Reads every row: each number has to be finite, and what the file says of the row's size
    /// true.
    pub(crate) fn verify(&self) -> Result<()> {
        for (at, key) in self.keys().iter().enumerate() {
            let row = self.stored(at);
            let halfs = row.halfs();
            let bad = halfs.iter().position(|value| !value.is_finite());
            let what = match bad {
                Some(column) => {
                    let value = halfs[column];
                    format!("value {} is {value}, expected a number within ±65504", column + 1)
                }
                None if row.squares().to_bits() != self.squares()[at].to_bits() => {
                    "`squares` is not the sum of its squares".to_string()
                }
                None => continue,
            };
            let what = format!("image {:016x} (row {}): {what}", key.0, at + 1);
            return Err(Error::content(self.path(), what));
        }
        Ok(())
    }

    fn slice<T: bytemuck::Pod>(&self, slot: &Slot) -> &[T] {
        self.tensors.slice(slot).expect("checked when opened")
    }
}

/// Where rows come from that go into a new part file.
pub(crate) trait RowSource: Sync {
    /// The row of `key`; `buffer` may be used to hold it.
    fn row<'a>(&'a self, key: ImageKey, buffer: &'a mut Vec<f16>) -> Result<Row<'a>>;
}

/// An image to be written, with the size of its picture.
pub(crate) type Image = (ImageKey, [u32; 2]);

/// Writes `images`, ascending, as the new file `path`; its rows have `dim` values each.
/// Returns also the sum of the squares of each row.
pub(crate) fn write(
    path: &Path,
    dim: usize,
    rows: RowType,
    images: &[Image],
    source: &dyn RowSource,
) -> Result<(FileEntry, Vec<f64>)> {
    let count = images.len();
    // `squares` and `scales` stand before the rows they are made of, so rows are looked at twice.
    let mut bytes = Vec::with_capacity(dim);
    let mut buffer = Vec::with_capacity(dim);
    let mut squares = Vec::with_capacity(count);
    let mut scales = Vec::new();
    for (key, _) in images {
        let row = as_type(source.row(*key, &mut buffer)?, rows, &mut bytes);
        squares.push(row.squares());
        if let Row::Int8(_, scale) = row {
            scales.push(scale);
        }
    }
    let mut tensors = vec![
        ("keys", Dtype::U64, vec![count]),
        ("squares", Dtype::F64, vec![count]),
        ("sizes", Dtype::U32, vec![count, 2]),
    ];
    match rows {
        RowType::F16 => tensors.push(("rows", Dtype::F16, vec![count, dim])),
        RowType::Int8 => {
            tensors.push(("scales", Dtype::F32, vec![count]));
            tensors.push(("rows", Dtype::I8, vec![count, dim]));
        }
    }
    let mut writer = TensorWriter::create(path.to_path_buf(), &tensors)?;
    images.iter().try_for_each(|(key, _)| writer.push(&[*key]))?;
    writer.push(&squares)?;
    images.iter().try_for_each(|(_, size)| writer.push(size))?;
    writer.push(&scales)?;
    for (key, _) in images {
        match as_type(source.row(*key, &mut buffer)?, rows, &mut bytes) {
            Row::F16(row) => {
                assert_eq!(row.len(), dim, "a row of the encoder's width");
                writer.push(row)?;
            }
            Row::Int8(row, _) => writer.push(row)?,
        }
    }
    Ok((writer.finish()?, squares))
}

/// `row` as a store of `rows` keeps it. What is in bytes already stays as it is.
fn as_type<'a>(row: Row<'a>, rows: RowType, bytes: &'a mut Vec<i8>) -> Row<'a> {
    match (row, rows) {
        (Row::F16(row), RowType::Int8) => {
            let scale = quantize(row, bytes);
            Row::Int8(bytes, scale)
        }
        (Row::Int8(..), RowType::F16) => unreachable!("rows of bytes never become halfs again"),
        (row, _) => row,
    }
}
