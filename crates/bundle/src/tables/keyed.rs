//! What became of the rows of a table from one version to another, and the way back.
//!
//! A table is a list of ascending keys with columns beside it. Its changes are, for a table whose
//! keys are called K and that had n rows:
//! ```text
//! K.changed, K.removed   u8 (n / 8, rounded up): bit i % 8 of byte i / 8 is that of row i of the base
//! K.new                  u64: keys that the base does not have, ascending
//! the table's columns    of the changed rows in their order, then of the new ones
//! ```
//! Rows are bytes here: what comes back has the bits that were there. Only floats can be rounded,
//! on the way out.

use ams_data::Offsets;
use half::f16;
use safetensors::tensor::Dtype;

use crate::error::Result;
use crate::files::folder::{RawTensor, serialize_raw};
use crate::files::index::Index;
use crate::files::tensors::{RawSlice, TensorFile, lengths};
use crate::files::version_delta::RowCounts;

/// The names of the tensors of a table.
#[derive(Clone, Debug)]
pub(crate) struct KeyedTable {
    /// What it is called where its rows are counted.
    pub name: String,
    pub keys: String,
    /// Tensors with a row for each key.
    pub columns: Vec<String>,
    /// Tensors of lengths, one for each key, and of that many values.
    pub lists: Vec<[String; 2]>,
}

/// How exactly floats are told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Precision {
    /// To the bit.
    Exact,
    /// 32-bit floats are rounded to halfs.
    Halfs,
    /// A row whose floats all differ by at most this much from the base's stays the base's.
    Within(f32),
}

/// The changes of the tables of a file.
#[derive(Debug)]
pub(crate) struct FileChanges {
    /// The safetensors file of them.
    pub bytes: Vec<u8>,
    /// What became of the rows of each table.
    pub counts: Vec<RowCounts>,
    /// The largest difference of a float that comes back.
    pub error: f64,
}

/// The rows of a file's table.
struct Table<'a> {
    index: Index,
    columns: Vec<Column<'a>>,
    lists: Vec<List<'a>>,
}

/// One column: a row of `width` bytes for each key.
struct Column<'a> {
    of: RawSlice<'a>,
    width: usize,
}

/// A column of lists, whose values have `width` bytes each.
struct List<'a> {
    of: RawSlice<'a>,
    offsets: Offsets,
    width: usize,
}

/// Bytes of an element of a tensor.
///
/// # Errors
/// If it is not a whole number of them.
fn size_of(file: &TensorFile, name: &str, of: &RawSlice<'_>) -> Result<usize> {
    match of.dtype.bitsize() {
        bits if bits % 8 == 0 => Ok(bits / 8),
        _ => Err(file.wrong(name, &format!("is {:?}, expected whole bytes", of.dtype))),
    }
}

impl<'a> Column<'a> {
    /// # Errors
    /// If it has not `rows` rows.
    fn read(file: &'a TensorFile, name: &str, rows: usize) -> Result<Column<'a>> {
        let of = file.raw(name)?;
        if of.shape.first() != Some(&rows) {
            let what = format!("has shape {:?}, expected {rows} rows", of.shape);
            return Err(file.wrong(name, &what));
        }
        let width = of.shape[1..].iter().product::<usize>() * size_of(file, name, &of)?;
        Ok(Column { of, width })
    }

    fn row(&self, at: usize) -> &'a [u8] {
        &self.of.bytes[at * self.width..(at + 1) * self.width]
    }

    /// The floats of a row of 32-bit floats.
    fn floats(&self, at: usize) -> impl Iterator<Item = f32> + use<'a> {
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.row(at).chunks_exact(4).map(number)
    }
}

impl<'a> List<'a> {
    /// # Errors
    /// If it has not `rows` lists, or other values than these lists hold.
    fn read(file: &'a TensorFile, names: &[String; 2], rows: usize) -> Result<List<'a>> {
        let offsets = file.offsets(&names[0], rows)?;
        let of = file.raw(&names[1])?;
        if of.shape != [offsets.total()] {
            let what = format!("has shape {:?}, expected [{}]", of.shape, offsets.total());
            return Err(file.wrong(&names[1], &what));
        }
        let width = size_of(file, &names[1], &of)?;
        Ok(List { of, offsets, width })
    }

    fn row(&self, at: usize) -> &'a [u8] {
        let range = self.offsets.range(at);
        &self.of.bytes[range.start * self.width..range.end * self.width]
    }
}

impl<'a> Table<'a> {
    /// Reads a table with `lists` of its lists.
    fn read(file: &'a TensorFile, names: &KeyedTable, lists: &[[String; 2]]) -> Result<Table<'a>> {
        let index = file.index(&names.keys)?;
        let rows = index.len();
        let columns = names.columns.iter().map(|name| Column::read(file, name, rows));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let lists = lists.iter().map(|names| List::read(file, names, rows));
        let lists = lists.collect::<Result<Vec<_>>>()?;
        Ok(Table { index, columns, lists })
    }

    /// Whether the columns of `other` are of the same types and widths.
    fn is_alike(&self, other: &Table<'_>) -> bool {
        let columns = self.columns.iter().zip(&other.columns);
        let lists = self.lists.iter().zip(&other.lists);
        columns
            .into_iter()
            .all(|(a, b)| a.of.dtype == b.of.dtype && a.of.shape[1..] == b.of.shape[1..])
            && lists.into_iter().all(|(a, b)| a.of.dtype == b.of.dtype)
    }
}

/// The lists of a table that `file` has: older items have no texts.
fn lists_in(file: &TensorFile, table: &KeyedTable) -> Vec<[String; 2]> {
    table.lists.iter().filter(|names| file.has(&names[0])).cloned().collect()
}

/// What makes `target` of `base`; none where their tensors are of other types or widths.
///
/// # Errors
/// If a tensor is missing or contradicts another, or a number of a row is no half.
pub(crate) fn changes(
    base: &TensorFile,
    target: &TensorFile,
    tables: &[KeyedTable],
    precision: Precision,
) -> Result<Option<FileChanges>> {
    let (mut tensors, mut counts, mut error) = (Vec::new(), Vec::new(), 0.0_f64);
    for names in tables {
        let lists = lists_in(base, names);
        if lists != lists_in(target, names) {
            return Ok(None);
        }
        let old = Table::read(base, names, &lists)?;
        let new = Table::read(target, names, &lists)?;
        if !old.is_alike(&new) {
            return Ok(None);
        }
        let compared = compare(&old, &new, precision);
        error = error.max(compared.error);
        counts.push(compared.counts);
        let keys = new.index.hashes();
        let new_keys: Vec<u64> = compared.new.iter().map(|&at| keys[at]).collect();
        tensors.push(RawTensor::u8(format!("{}.changed", names.keys), compared.changed_bits));
        tensors.push(RawTensor::u8(format!("{}.removed", names.keys), compared.removed_bits));
        tensors.push(RawTensor::u64(format!("{}.new", names.keys), &new_keys));
        let told: Vec<usize> = compared.changed.iter().chain(&compared.new).copied().collect();
        for (name, column) in names.columns.iter().zip(&new.columns) {
            if precision == Precision::Halfs && column.of.dtype == Dtype::F32 {
                let rounded = rounded(target, name, column, &told)?;
                error = error.max(rounded.1);
                tensors.push(rounded.0);
            } else {
                tensors.push(picked(name, column, &told));
            }
        }
        for (list_names, list) in lists.iter().zip(&new.lists) {
            tensors.extend(picked_lists(list_names, list, &told));
        }
    }
    let bytes = serialize_raw(&tensors).map_err(|error| target.fault(&error.to_string()))?;
    Ok(Some(FileChanges { bytes, counts, error }))
}

/// What became of the rows of a table.
struct Compared {
    counts: RowCounts,
    changed_bits: Vec<u8>,
    removed_bits: Vec<u8>,
    /// Positions in the new table.
    changed: Vec<usize>,
    new: Vec<usize>,
    /// The largest difference of a row that stays.
    error: f64,
}

fn compare(old: &Table<'_>, new: &Table<'_>, precision: Precision) -> Compared {
    let (a, b) = (old.index.hashes(), new.index.hashes());
    let bits = || vec![0_u8; a.len().div_ceil(8)];
    let mut compared = Compared {
        counts: RowCounts::default(),
        changed_bits: bits(),
        removed_bits: bits(),
        changed: Vec::new(),
        new: Vec::new(),
        error: 0.0,
    };
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if j == b.len() || i < a.len() && a[i] < b[j] {
            compared.removed_bits[i / 8] |= 1 << (i % 8);
            compared.counts.gone += 1;
            i += 1;
        } else if i == a.len() || b[j] < a[i] {
            compared.new.push(j);
            j += 1;
        } else {
            match difference(old, i, new, j, precision) {
                Some(error) => {
                    compared.error = compared.error.max(error);
                    compared.counts.same += 1;
                }
                None => {
                    compared.changed_bits[i / 8] |= 1 << (i % 8);
                    compared.changed.push(j);
                }
            }
            (i, j) = (i + 1, j + 1);
        }
    }
    compared.counts.changed = compared.changed.len() as u64;
    compared.counts.new = compared.new.len() as u64;
    compared
}

/// By how much row `i` of `old` differs from row `j` of `new`, if it can stand for it.
fn difference(
    old: &Table<'_>,
    i: usize,
    new: &Table<'_>,
    j: usize,
    precision: Precision,
) -> Option<f64> {
    let mut lists = old.lists.iter().zip(&new.lists);
    if !lists.all(|(a, b)| a.row(i) == b.row(j)) {
        return None;
    }
    let mut largest = 0.0_f64;
    for (a, b) in old.columns.iter().zip(&new.columns) {
        if a.row(i) == b.row(j) {
            continue;
        }
        let is_float = a.of.dtype == Dtype::F32;
        let mut pairs = a.floats(i).zip(b.floats(j));
        match precision {
            Precision::Halfs if is_float => {
                let half = |value: f32| f16::from_f32(value).to_f32();
                for (old, new) in pairs {
                    if old.to_bits() != half(new).to_bits() {
                        return None;
                    }
                    largest = largest.max((f64::from(old) - f64::from(new)).abs());
                }
            }
            Precision::Within(most) if is_float => {
                let apart = |(a, b): (f32, f32)| (f64::from(a) - f64::from(b)).abs();
                let row = pairs.try_fold(0.0_f64, |so_far, pair| {
                    let apart = apart(pair);
                    (apart <= f64::from(most)).then(|| so_far.max(apart))
                })?;
                largest = largest.max(row);
            }
            _ => return None,
        }
    }
    Some(largest)
}

/// The rows `told` of a column.
fn picked(name: &str, column: &Column<'_>, told: &[usize]) -> RawTensor {
    let bytes = told.iter().flat_map(|&at| column.row(at)).copied().collect();
    let shape = [&[told.len()], &column.of.shape[1..]].concat();
    RawTensor { name: name.to_owned(), dtype: column.of.dtype, shape, bytes }
}

/// The same as halfs, and the largest difference.
///
/// # Errors
/// If a number is too large for a half.
fn rounded(
    file: &TensorFile,
    name: &str,
    column: &Column<'_>,
    told: &[usize],
) -> Result<(RawTensor, f64)> {
    let (mut bytes, mut error) = (Vec::with_capacity(told.len() * column.width / 2), 0.0_f64);
    for &at in told {
        for value in column.floats(at) {
            let half = f16::from_f32(value);
            if !half.is_finite() {
                let what = format!("is {value} in row {at}, which no half holds; tell rows as f32");
                return Err(file.wrong(name, &what));
            }
            error = error.max((f64::from(half.to_f32()) - f64::from(value)).abs());
            bytes.extend_from_slice(&half.to_le_bytes());
        }
    }
    let shape = [&[told.len()], &column.of.shape[1..]].concat();
    Ok((RawTensor { name: name.to_owned(), dtype: Dtype::F16, shape, bytes }, error))
}

/// The lists `told` of a column: their lengths and values.
fn picked_lists(names: &[String; 2], list: &List<'_>, told: &[usize]) -> [RawTensor; 2] {
    let bytes: Vec<u8> = told.iter().flat_map(|&at| list.row(at)).copied().collect();
    let counts: Vec<u32> = told.iter().map(|&at| list.offsets.range(at).len() as u32).collect();
    list_tensors(names, list.of.dtype, list.width, &counts, bytes)
}

fn list_tensors(
    names: &[String; 2],
    dtype: Dtype,
    width: usize,
    lengths: &[u32],
    bytes: Vec<u8>,
) -> [RawTensor; 2] {
    let shape = vec![bytes.len() / width];
    [
        RawTensor::u32(names[0].clone(), lengths),
        RawTensor { name: names[1].clone(), dtype, shape, bytes },
    ]
}

/// Where a row comes from.
#[derive(Clone, Copy)]
enum Origin {
    Base(u32),
    Delta(u32),
}

/// The file that `changes` make of `base`, as a bundle writes it.
///
/// # Errors
/// If a tensor is missing, or contradicts another or the base.
pub(crate) fn apply(
    base: &TensorFile,
    changes: &TensorFile,
    tables: &[KeyedTable],
) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for names in tables {
        let lists = lists_in(base, names);
        let old = Table::read(base, names, &lists)?;
        let (keys, order, told) = merged(&old, changes, &names.keys)?;
        tensors.push(RawTensor::u64(names.keys.clone(), &keys));
        for (name, column) in names.columns.iter().zip(&old.columns) {
            let new = Column::read(changes, name, told)?;
            tensors.push(merged_column(changes, name, column, &new, &order)?);
        }
        for (list_names, list) in lists.iter().zip(&old.lists) {
            let new = List::read(changes, list_names, told)?;
            if new.of.dtype != list.of.dtype {
                return Err(other_type(changes, &list_names[1], &new.of, &list.of));
            }
            let (mut bytes, mut offsets) = (Vec::new(), Offsets::default());
            for from in &order {
                let row = match *from {
                    Origin::Base(at) => list.row(at as usize),
                    Origin::Delta(at) => new.row(at as usize),
                };
                bytes.extend_from_slice(row);
                offsets.push(row.len() / list.width);
            }
            let lengths = lengths(&offsets);
            tensors.extend(list_tensors(list_names, list.of.dtype, list.width, &lengths, bytes));
        }
    }
    serialize_raw(&tensors).map_err(|error| changes.fault(&error.to_string()))
}

/// The keys of a table with its changes, the source of each row, and how many rows are told.
fn merged(
    old: &Table<'_>,
    changes: &TensorFile,
    name: &str,
) -> Result<(Vec<u64>, Vec<Origin>, usize)> {
    let a = old.index.hashes();
    let (changed_name, removed_name) = (format!("{name}.changed"), format!("{name}.removed"));
    let new_name = format!("{name}.new");
    let (changed, removed) =
        (bits(changes, &changed_name, a.len())?, bits(changes, &removed_name, a.len())?);
    let is_set = |bits: &[u8], at: usize| bits[at / 8] >> (at % 8) & 1 == 1;
    let count: usize = changed.iter().map(|byte| byte.count_ones() as usize).sum();
    let new = changes.index(&new_name)?;
    let b = new.hashes();
    if u32::try_from(a.len().max(count) + b.len()).is_err() {
        let what = format!("has {} values, expected less than 2^32 rows in all", b.len());
        return Err(changes.wrong(&new_name, &what));
    }
    let (mut keys, mut order) = (Vec::new(), Vec::new());
    let (mut i, mut j, mut told) = (0, 0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            let what = format!("has {} at {j}, which the base has already", b[j]);
            return Err(changes.wrong(&new_name, &what));
        }
        if j < b.len() && (i == a.len() || b[j] < a[i]) {
            keys.push(b[j]);
            order.push(Origin::Delta((count + j) as u32));
            j += 1;
            continue;
        }
        let (is_changed, is_removed) = (is_set(changed, i), is_set(removed, i));
        if is_changed && is_removed {
            let what = format!("has row {i}, which is in `{changed_name}`, too");
            return Err(changes.wrong(&removed_name, &what));
        }
        if !is_removed {
            keys.push(a[i]);
            order.push(if is_changed { Origin::Delta(told) } else { Origin::Base(i as u32) });
        }
        told += u32::from(is_changed);
        i += 1;
    }
    Ok((keys, order, count + b.len()))
}

/// The bits called `name`, one for each of `rows` rows.
///
/// # Errors
/// If there are more or fewer, or one is set behind the last row.
fn bits<'a>(file: &'a TensorFile, name: &str, rows: usize) -> Result<&'a [u8]> {
    let of = file.raw(name)?;
    let expected = rows.div_ceil(8);
    if of.dtype != Dtype::U8 || of.shape != [expected] {
        let what = format!(
            "is {:?} of shape {:?}, expected U8 of shape [{expected}], a bit for each of {rows} rows",
            of.dtype, of.shape
        );
        return Err(file.wrong(name, &what));
    }
    let behind = if rows.is_multiple_of(8) { 0 } else { of.bytes[expected - 1] >> (rows % 8) };
    if behind != 0 {
        return Err(file.wrong(name, &format!("has a bit behind the last of {rows} rows")));
    }
    Ok(of.bytes)
}

/// A column of the base with the rows of the changes, which may be halfs.
fn merged_column(
    changes: &TensorFile,
    name: &str,
    old: &Column<'_>,
    new: &Column<'_>,
    order: &[Origin],
) -> Result<RawTensor> {
    let are_halfs = old.of.dtype == Dtype::F32 && new.of.dtype == Dtype::F16;
    if new.of.shape[1..] != old.of.shape[1..] || new.of.dtype != old.of.dtype && !are_halfs {
        return Err(other_type(changes, name, &new.of, &old.of));
    }
    let mut bytes = Vec::with_capacity(order.len() * old.width);
    for from in order {
        match *from {
            Origin::Base(at) => bytes.extend_from_slice(old.row(at as usize)),
            Origin::Delta(at) if are_halfs => {
                for half in new.row(at as usize).chunks_exact(2) {
                    let value = f16::from_le_bytes([half[0], half[1]]).to_f32();
                    bytes.extend_from_slice(&value.to_le_bytes());
                }
            }
            Origin::Delta(at) => bytes.extend_from_slice(new.row(at as usize)),
        }
    }
    let shape = [&[order.len()], &old.of.shape[1..]].concat();
    Ok(RawTensor { name: name.to_owned(), dtype: old.of.dtype, shape, bytes })
}

fn other_type(
    file: &TensorFile,
    name: &str,
    got: &RawSlice<'_>,
    expected: &RawSlice<'_>,
) -> crate::error::Error {
    let what = format!(
        "is {:?} of shape {:?}, expected {:?} of shape {:?} but for the number of rows, as in the base",
        got.dtype, got.shape, expected.dtype, expected.shape
    );
    file.wrong(name, &what)
}
