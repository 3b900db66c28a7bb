//! Features that another program computed: a matrix and a list of picture names.
//!
//! Knows matrices and lists. Does not know pictures: what an image shows is identified by its row.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use ams_data::{Error, ImageKey, Result};
use half::f16;

use crate::card::StoreCard;
use crate::codes::SemanticIds;
use crate::failure::{Failure, Reason};
use crate::halves::Tally;
use crate::listing::lines_of;
use crate::manifest::{Picture, distinct, read_pictures};
use crate::matrix::Matrix;
use crate::picture_file::content_key;
use crate::report::{EncodeReport, Respelled, SemanticIdsReport};
use crate::row::{Row, RowType};
use crate::segment::RowSource;
use crate::semantic::CodesPlan;
use crate::spelling::{Files, Meant, readings};
use crate::store::FeatureStore;
use crate::table;
use crate::write::{self, EncoderId, Target, Version};

pub use crate::report::Matched;

/// Options of an import: the vectors, their names and the store.
#[derive(Clone, Debug)]
pub struct PrecomputedOptions {
    /// The matrix: `.npy` (f2, f4, f8; C order), safetensors (F16, BF16, F32, F64), or a Parquet
    /// column of lists of floats, one row per picture.
    pub features: PathBuf,
    /// The list: text, line `i` names the picture of row `i`; a Parquet file has names of its own.
    pub keys: Option<PathBuf>,
    /// Which tensor of a safetensors file, or column of a Parquet file, where it has several.
    pub tensor: Option<String>,
    /// Which column of a Parquet file names the pictures, where no usual name tells.
    pub key_column: Option<String>,
    /// The store's folder: absent, empty or an older store.
    pub out: PathBuf,
    /// How rows are kept; as the store does that is there, or as halfs, unless given.
    pub rows: Option<RowType>,
    /// Largest share of pictures that may have no row, 0..1.
    pub max_failed: f64,
    /// Which semantic ids the store is to have; those of the store that is there, unless given.
    pub semantic_ids: Option<SemanticIds>,
}

impl PrecomputedOptions {
    /// Options that take any row type of the store, and let half of the pictures fail.
    pub fn new(
        features: impl Into<PathBuf>,
        keys: Option<PathBuf>,
        out: impl Into<PathBuf>,
    ) -> PrecomputedOptions {
        let (features, out) = (features.into(), out.into());
        PrecomputedOptions {
            features,
            keys,
            tensor: None,
            key_column: None,
            out,
            rows: None,
            max_failed: 0.5,
            semantic_ids: None,
        }
    }
}

/// Imports the rows of the pictures called `names` (repeated and empty names are ignored) into a
/// feature store that covers exactly these names. An exact name in the list goes first, then the
/// name without its extension, then without its folders too, then the one name that differs in
/// spelling only. A name without a row counts as missing, as in [`crate::encode()`]. Equal rows are
/// one image.
///
/// # Errors
/// If the files do not fit each other, a number is beyond f16 or a row as a whole below it, or too
/// many names have no row: these are listed in `failed.csv` in the folder of unfinished work then.
pub fn precomputed(
    options: &PrecomputedOptions,
    names: impl IntoIterator<Item = String>,
) -> Result<EncodeReport> {
    let names = distinct(names)?;
    let target = Target::take(&options.out)?;
    let vectors = Vectors::open(options, &target)?;
    let Vectors { matrix, names: texts, named_in, tally } = &vectors;
    let list = list(named_in, texts, matrix, &options.features)?;
    let (matches, mut matched) = match_names(&names, &list, texts);
    let (pictures, row_of, of_rows) = pictures(&names, matches, matrix)?;
    let Tally { numbers, zeroed } = tally.unwrap_or(of_rows);
    (matched.numbers, matched.zeroed) = (numbers, zeroed);
    target.refuse_mostly_failed(&pictures, options.max_failed, named_in)?;
    target.forget_failures();
    let encoder_id = encoder_id(options, matrix)?;
    let images = row_of.len() as u64;
    let older = older(&options.out, &encoder_id);
    let rows = options.rows.unwrap_or_else(|| {
        older.as_ref().map_or_else(RowType::default, |(store, _)| store.card().rows)
    });
    let codes = CodesPlan::new(options.semantic_ids, older.as_ref().map(|(store, _)| store));
    let unchanged = older.as_ref().is_some_and(|(store, before)| {
        store.card().rows == rows
            && codes.is_that_of(store)
            && before.len() == pictures.len()
            && before.iter().zip(&pictures).all(|(old, new)| old.same(new))
    });
    let reused = if unchanged { images } else { 0 };
    if !unchanged {
        let source = &MatrixRows { matrix, row_of: &row_of };
        let (encoder_id, pictures) = (&encoder_id, &pictures);
        let version = Version { encoder_id, rows, pictures, base: None, source, codes };
        target.commit(&version)?;
    }
    Ok(EncodeReport {
        images,
        encoded: images - reused,
        reused,
        failed: write::failed_by_reason(&pictures),
        unsupported: BTreeMap::new(),
        dim: encoder_id.dim,
        runtime: None,
        encoder: encoder_id.encoder,
        names: names.len() as u64,
        respelled: Respelled::of(&pictures),
        matched: Some(matched),
        semantic_ids: SemanticIdsReport::of(StoreCard::read(&options.out)?),
    })
}

/// What to import, with its names.
struct Vectors {
    matrix: Matrix,
    names: Vec<String>,
    /// The file that names them.
    named_in: PathBuf,
    /// What became of their numbers, where that is known already.
    tally: Option<Tally>,
}

impl Vectors {
    /// Opens it; what cannot be mapped is unpacked beside the store first, and gone with the
    /// mapping.
    fn open(options: &PrecomputedOptions, target: &Target) -> Result<Vectors> {
        let PrecomputedOptions { features, keys, tensor, key_column, .. } = options;
        if table::is_parquet(features) {
            let partial = target.partial();
            target.remove_partial()?;
            fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
            let unpacked = partial.join("vectors.safetensors");
            let (vectors, names) = (tensor.as_deref(), key_column.as_deref());
            let names = table::unpack_vectors(features, vectors, names, &unpacked)
                .and_then(|names| Ok((names, Matrix::open(&unpacked, None)?)));
            target.remove_partial()?;
            let ((names, tally), matrix) = names?;
            return Ok(Vectors { matrix, names, named_in: features.clone(), tally: Some(tally) });
        }
        let Some(keys) = keys else {
            let what = "names no pictures itself: give the names of its rows, one a line";
            return Err(Error::content(features, what));
        };
        let matrix = Matrix::open(features, tensor.as_deref())?;
        Ok(Vectors { matrix, names: lines_of(keys)?, named_in: keys.clone(), tally: None })
    }
}

/// The row of each name in the list.
fn list<'t>(
    path: &Path,
    lines: &'t [String],
    matrix: &Matrix,
    features: &Path,
) -> Result<HashMap<&'t str, usize>> {
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
    for (row, name) in lines.iter().map(String::as_str).enumerate() {
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

/// How one name was found in the list.
struct Match {
    row: Option<usize>,
    /// The name in the list, where it differs in spelling only.
    respelled: Option<String>,
    /// What comes near a name that has no row.
    near: Option<String>,
}

/// The row of each name, where there is one.
fn match_names(
    names: &[String],
    list: &HashMap<&str, usize>,
    texts: &[String],
) -> (Vec<Match>, Matched) {
    let mut matched = Matched::default();
    let mut used = vec![false; list.len()];
    let spelled = OnceCell::new();
    let matches = names.iter().map(|name| {
        let exact = list.get(name.as_str());
        let row = exact.or_else(|| stems(name).into_iter().flatten().find_map(|it| list.get(it)));
        let mut found = Match { row: row.copied(), respelled: None, near: None };
        match row {
            Some(_) if exact.is_some() => matched.exact += 1,
            Some(_) => matched.stem += 1,
            None => {
                let files = spelled.get_or_init(|| Files::of(texts.to_vec()));
                for reading in readings(name, &[]) {
                    match files.meant(&reading) {
                        Meant::File(text) if found.row.is_none() => {
                            found.row = list.get(text.as_str()).copied();
                            found.respelled = Some(text);
                        }
                        Meant::Near(what) => found.near = found.near.take().or(Some(what)),
                        _ => {}
                    }
                }
            }
        }
        found.row.into_iter().for_each(|row| used[row] = true);
        found
    });
    let matches = matches.collect();
    matched.unused = used.iter().filter(|used| !**used).count() as u64;
    (matches, matched)
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

/// The manifest's lines, the row of each distinct image, and what became of the rows' numbers.
fn pictures(
    names: &[String],
    matches: Vec<Match>,
    matrix: &Matrix,
) -> Result<(Vec<Picture>, HashMap<ImageKey, usize>, Tally)> {
    let (mut row_of, mut tally) = (HashMap::new(), Tally::default());
    let mut pictures = Vec::with_capacity(names.len());
    let mut values: Vec<f16> = Vec::with_capacity(matrix.dim());
    for (name, Match { row, respelled, near }) in names.iter().zip(matches) {
        let mut picture = Picture {
            name: name.clone(),
            key: ImageKey::NONE,
            bytes: 0,
            width: 0,
            height: 0,
            failure: None,
            file: respelled,
        };
        if let Some(row) = row {
            tally.add(matrix.row(row, name, &mut values)?);
            picture.key = content_key(bytemuck::cast_slice(&values));
            row_of.entry(picture.key).or_insert(row);
        } else {
            let near = near.map_or(String::new(), |near| format!("; {near}"));
            let near = near.replace("the folder has", "the list has");
            let detail = format!("no line of the list names it, with or without extension{near}");
            picture.failure = Some(Failure::new(Reason::Missing, detail));
        }
        pictures.push(picture);
    }
    Ok((pictures, row_of, tally))
}

/// Who made the rows: the content of the matrix' file and which tensor of it.
fn encoder_id(options: &PrecomputedOptions, matrix: &Matrix) -> Result<EncoderId> {
    let file = options.features.file_stem().unwrap_or_default().to_string_lossy();
    let mut hasher = blake3::Hasher::new();
    let opened = fs::File::open(&options.features).map_err(Error::io(&options.features))?;
    hasher.update_reader(opened).map_err(Error::io(&options.features))?;
    hasher.update(options.tensor.as_deref().unwrap_or_default().as_bytes());
    Ok(EncoderId {
        encoder: format!("precomputed:{file}"),
        hash: hasher.finalize().to_hex().to_string(),
        dim: matrix.dim(),
    })
}

/// The store at `out`, if it is sound and of this encoder.
fn older(out: &Path, encoder_id: &EncoderId) -> Option<(FeatureStore, Vec<Picture>)> {
    let store = FeatureStore::open(out).ok()?;
    if EncoderId::of(store.card()) != *encoder_id || store.verify().is_err() {
        return None;
    }
    let pictures = read_pictures(&out.join(store.card().pictures_file())).ok()?;
    Some((store, pictures))
}

/// Rows by what is in them.
struct MatrixRows<'a> {
    matrix: &'a Matrix,
    row_of: &'a HashMap<ImageKey, usize>,
}

impl RowSource for MatrixRows<'_> {
    fn row<'a>(&'a self, key: ImageKey, buffer: &'a mut Vec<f16>) -> Result<Row<'a>> {
        // The name only serves an error, and a first reading has found the row sound.
        self.matrix.row(self.row_of[&key], "", buffer)?;
        Ok(Row::F16(buffer))
    }
}

#[cfg(test)]
mod tests;
