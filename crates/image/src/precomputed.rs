//! Features somebody computed elsewhere: a matrix and a list of picture names.
//!
//! Knows matrices and lists. Does not know pictures: what an image shows is identified by its row.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ams_data::{Error, ImageKey, Result};
use half::f16;
use serde::Serialize;

use crate::encode::{EncodeReport, distinct};
use crate::failure::{Failure, Reason};
use crate::manifest::{Picture, read_pictures};
use crate::matrix::Matrix;
use crate::picture_file::content_key;
use crate::store::FeatureStore;
use crate::write::{self, Maker};

/// What to import.
#[derive(Clone, Debug)]
pub struct PrecomputedOptions {
    /// The matrix: `.npy` (f2, f4, f8; C order) or safetensors (F16, BF16, F32, F64), one row per picture.
    pub features: PathBuf,
    /// The list: text, line `i` names the picture of row `i`.
    pub keys: PathBuf,
    /// Which tensor of a safetensors file, where it has several.
    pub tensor: Option<String>,
    /// The store's folder: absent, empty or an older store.
    pub out: PathBuf,
    /// Largest share of pictures that may have no row, 0..1.
    pub max_failed: f64,
}

impl PrecomputedOptions {
    /// The usual options.
    pub fn new(
        features: impl Into<PathBuf>,
        keys: impl Into<PathBuf>,
        out: impl Into<PathBuf>,
    ) -> PrecomputedOptions {
        let (features, keys, out) = (features.into(), keys.into(), out.into());
        PrecomputedOptions { features, keys, tensor: None, out, max_failed: 0.5 }
    }
}

/// How picture names were found in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Matched {
    /// Names the list has as they are.
    pub exact: u64,
    /// Names the list has without the extension (`1193` for `1193.jpg`), or without folders as well.
    pub stem: u64,
    /// Rows of the list that no name asked for.
    pub unused: u64,
}

/// Imports the rows of the pictures called `names` (repeated and empty names are ignored) into a feature
/// store that covers exactly these names. An exact name in the list goes first, then the name without its
/// extension, then without its folders too. A name without a row counts as missing, as in
/// [`crate::encode()`]. Equal rows are one image.
pub fn precomputed(
    options: &PrecomputedOptions,
    names: impl IntoIterator<Item = String>,
) -> Result<EncodeReport> {
    let names = distinct(names)?;
    write::prepare(&options.out)?;
    let matrix = Matrix::open(&options.features, options.tensor.as_deref())?;
    let text = fs::read_to_string(&options.keys).map_err(Error::io(&options.keys))?;
    let list = list(&options.keys, &text, &matrix, &options.features)?;
    let (rows, matched) = match_names(&names, &list);
    let (pictures, row_of) = pictures(&names, &rows, &matrix)?;
    write::refuse_mostly_failed(&pictures, options.max_failed, &options.keys)?;
    let maker = maker(options, &matrix);
    let images = row_of.len() as u64;
    let reused = if unchanged(&options.out, &maker, &pictures) { images } else { 0 };
    if reused == 0 {
        // The name only serves an error, and a first reading has found the row sound.
        write::store(&options.out, &maker, &pictures, &|key, row| {
            matrix.row(row_of[&key], "", row)
        })?;
    }
    Ok(EncodeReport {
        images,
        encoded: images - reused,
        reused,
        failed: write::failed_by_reason(&pictures),
        dim: maker.dim,
        encoder: maker.encoder,
        names: names.len() as u64,
        matched: Some(matched),
    })
}

/// The row of each name in the list.
fn list<'t>(
    path: &Path,
    text: &'t str,
    matrix: &Matrix,
    features: &Path,
) -> Result<HashMap<&'t str, usize>> {
    let lines = text.lines().map(str::trim_end).collect::<Vec<&str>>();
    if lines.len() != matrix.rows() {
        let what = format!(
            "{} names, but {} has {} rows: expected one name per row",
            lines.len(),
            features.display(),
            matrix.rows()
        );
        return Err(Error::content(path, what));
    }
    let mut list = HashMap::with_capacity(lines.len());
    for (row, name) in lines.into_iter().enumerate() {
        if name.is_empty() {
            return Err(Error::content(
                path,
                format!("line {} is empty, expected a name", row + 1),
            ));
        }
        if let Some(before) = list.insert(name, row) {
            let what = format!("\"{name}\" is in line {} and in line {}", before + 1, row + 1);
            return Err(Error::content(path, what));
        }
    }
    Ok(list)
}

/// The row of each name, where there is one.
fn match_names(names: &[String], list: &HashMap<&str, usize>) -> (Vec<Option<usize>>, Matched) {
    let mut matched = Matched::default();
    let mut used = vec![false; list.len()];
    let rows = names.iter().map(|name| {
        let exact = list.get(name.as_str());
        let row = exact.or_else(|| stems(name).into_iter().flatten().find_map(|it| list.get(it)));
        let row = row.copied();
        match row {
            Some(_) if exact.is_some() => matched.exact += 1,
            Some(_) => matched.stem += 1,
            None => {}
        }
        row.into_iter().for_each(|row| used[row] = true);
        row
    });
    let rows = rows.collect();
    matched.unused = used.iter().filter(|used| !**used).count() as u64;
    (rows, matched)
}

/// The name without its extension, and the bare stem.
fn stems(name: &str) -> [Option<&str>; 2] {
    let file = Path::new(name).file_name().and_then(|file| file.to_str());
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
    let bare = file.zip(stem).and_then(|(file, stem)| {
        let without = name.strip_suffix(file.strip_prefix(stem)?)?;
        Some(without)
    });
    [bare, stem]
}

/// The manifest's lines, and the row of each distinct image.
fn pictures(
    names: &[String],
    rows: &[Option<usize>],
    matrix: &Matrix,
) -> Result<(Vec<Picture>, HashMap<ImageKey, usize>)> {
    let mut row_of = HashMap::new();
    let mut pictures = Vec::with_capacity(names.len());
    let mut values: Vec<f16> = Vec::with_capacity(matrix.dim());
    for (name, row) in names.iter().zip(rows) {
        let mut picture = Picture {
            name: name.clone(),
            key: ImageKey::NONE,
            bytes: 0,
            width: 0,
            height: 0,
            failure: None,
        };
        if let Some(row) = *row {
            matrix.row(row, name, &mut values)?;
            picture.key = content_key(bytemuck::cast_slice(&values));
            row_of.entry(picture.key).or_insert(row);
        } else {
            let detail = "no line of the list names it, with or without extension";
            picture.failure = Some(Failure::new(Reason::Missing, detail));
        }
        pictures.push(picture);
    }
    Ok((pictures, row_of))
}

/// Who made the rows: the content of the matrix' file and which tensor of it.
fn maker(options: &PrecomputedOptions, matrix: &Matrix) -> Maker {
    let file = options.features.file_stem().unwrap_or_default().to_string_lossy();
    let mut hasher = blake3::Hasher::new();
    hasher.update(matrix.bytes());
    hasher.update(options.tensor.as_deref().unwrap_or_default().as_bytes());
    Maker {
        encoder: format!("precomputed:{file}"),
        hash: hasher.finalize().to_hex().to_string(),
        dim: matrix.dim(),
    }
}

/// Whether the store at `out` holds just this.
fn unchanged(out: &Path, maker: &Maker, pictures: &[Picture]) -> bool {
    let same = |store: FeatureStore| {
        let card = store.card();
        (&card.encoder_hash, card.dim) == (&maker.hash, maker.dim) && store.verify().is_ok()
    };
    FeatureStore::open(out).is_ok_and(same)
        && read_pictures(&out.join("pictures.parquet")).is_ok_and(|before| {
            before.len() == pictures.len()
                && before.iter().zip(pictures).all(|(old, new)| old.same(new))
        })
}

#[cfg(test)]
mod tests;
