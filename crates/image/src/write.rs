//! Writing a feature store: all files into a folder nobody reads, then one rename.
//!
//! Knows the format of [`crate::store`]. Does not know where rows come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ams_data::schema::PARTS;
use ams_data::staging::{sync_folder, write_whole};
use ams_data::{Error, ImageKey, PictureName, Result};
use half::f16;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::durable::{FileCard, beside};
use crate::manifest::{Picture, write_failed, write_pictures};
use crate::store::{CARD, FORMAT, StoreCard, part_file};
use crate::tensors::TensorWriter;

/// Who made the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// The encoder in words.
    pub encoder: String,
    /// blake3 of all that defines it.
    pub hash: String,
    /// Numbers per row.
    pub dim: usize,
}

/// Puts the row of an image into the buffer, which is (dim) afterwards.
pub type Rows<'a> = &'a (dyn Fn(ImageKey, &mut Vec<f16>) -> Result<()> + Sync);

/// Writes the store of `pictures` (names ascending, distinct) into the new folder `folder`, its parts on the threads of
/// the current rayon pool.
pub fn write_store(
    folder: &Path,
    maker: &Maker,
    pictures: &[Picture],
    rows: Rows<'_>,
) -> Result<StoreCard> {
    fs::create_dir(folder).map_err(Error::io(folder))?;
    let mut keys = pictures.iter().map(|picture| picture.key).collect::<Vec<ImageKey>>();
    keys.retain(|key| key.is_some());
    keys.sort_unstable();
    keys.dedup();
    let mut files = BTreeMap::new();
    let mut rest = keys.as_slice();
    let mut parts = Vec::with_capacity(PARTS);
    for part in 0..PARTS {
        let (own, others) = rest.split_at(rest.partition_point(|key| key.part(PARTS) <= part));
        parts.push((part_file(part), own));
        rest = others;
    }
    let write = |(name, own): (String, &[ImageKey])| {
        let (card, squares) = write_part(&folder.join(&name), maker.dim, own, rows)?;
        Ok((name, card, squares))
    };
    let written: Vec<Result<_>> = parts.into_par_iter().with_max_len(1).map(write).collect();
    // In f64 and in the order of the keys, so that the scale has the same bits whoever encoded what when.
    let mut sum = 0.0f64;
    for part in written {
        let (name, card, squares) = part?;
        files.insert(name, card);
        squares.iter().for_each(|squares| sum += squares);
    }
    let (names, card) = write_names(&folder.join("names.safetensors"), pictures)?;
    files.insert("names.safetensors".into(), card);
    files.insert("failed.csv".into(), write_failed(&folder.join("failed.csv"), pictures)?);
    let card = write_pictures(&folder.join("pictures.parquet"), pictures)?;
    files.insert("pictures.parquet".into(), card);
    let mean = sum / (keys.len() as f64 * maker.dim as f64);
    let card = StoreCard {
        format: FORMAT.into(),
        encoder: maker.encoder.clone(),
        encoder_hash: maker.hash.clone(),
        dim: maker.dim,
        parts: PARTS,
        images: keys.len() as u64,
        names,
        failed: failed_by_reason(pictures),
        scale: if mean > 1e-12 { (1.0 / mean.sqrt()) as f32 } else { 1.0 },
        files,
    };
    let text = serde_json::to_string_pretty(&card).expect("a card of plain numbers and names");
    write_whole(&folder.join(CARD), format!("{text}\n").as_bytes())?;
    sync_folder(folder)?;
    Ok(card)
}

/// Writes the store beside `out` and moves it there; on failure nothing stays behind.
pub fn store(out: &Path, maker: &Maker, pictures: &[Picture], rows: Rows<'_>) -> Result<StoreCard> {
    let partial = partial(out);
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(Error::io(&partial))?;
    }
    fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
    let built = partial.join("store");
    let written = write_store(&built, maker, pictures, rows)
        .and_then(|card| install(&built, out).map(|()| card));
    let removed = fs::remove_dir_all(&partial).map_err(Error::io(&partial));
    written.and_then(|card| removed.map(|()| card))
}

/// Writes the rows of `keys`; returns also the sum of the squares of each.
fn write_part(
    path: &Path,
    dim: usize,
    keys: &[ImageKey],
    rows: Rows<'_>,
) -> Result<(FileCard, Vec<f64>)> {
    let tensors =
        [("keys", Dtype::U64, vec![keys.len()]), ("rows", Dtype::F16, vec![keys.len(), dim])];
    let mut writer = TensorWriter::create(path.to_path_buf(), &tensors)?;
    writer.push(keys)?;
    let mut row = Vec::with_capacity(dim);
    let mut squares = Vec::with_capacity(keys.len());
    for key in keys {
        rows(*key, &mut row)?;
        assert_eq!(row.len(), dim, "a row of the encoder's width");
        squares.push(row.iter().map(|value| value.to_f64().powi(2)).sum::<f64>());
        writer.push(&row)?;
    }
    Ok((writer.finish()?, squares))
}

/// Writes the table of the names that have a key; returns how many.
fn write_names(path: &Path, pictures: &[Picture]) -> Result<(u64, FileCard)> {
    let mut table = pictures
        .iter()
        .filter(|picture| picture.key.is_some())
        .map(|picture| (PictureName::of(&picture.name), picture.key))
        .collect::<Vec<_>>();
    table.sort_unstable();
    if let Some(pair) = table.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let what = format!("two picture names share the hash {:016x}: rename one", pair[0].0.0);
        return Err(Error::content(path, what));
    }
    let (names, keys): (Vec<PictureName>, Vec<ImageKey>) = table.into_iter().unzip();
    let tensors = [("key", Dtype::U64, vec![keys.len()]), ("name", Dtype::U64, vec![names.len()])];
    let mut writer = TensorWriter::create(path.to_path_buf(), &tensors)?;
    writer.push(&keys)?;
    writer.push(&names)?;
    Ok((names.len() as u64, writer.finish()?))
}

/// How many pictures failed, by the reason's name.
pub fn failed_by_reason(pictures: &[Picture]) -> BTreeMap<String, u64> {
    let mut failed = BTreeMap::new();
    for failure in pictures.iter().filter_map(|picture| picture.failure.as_ref()) {
        *failed.entry(failure.reason.name().to_string()).or_default() += 1;
    }
    failed
}

/// An error where more than the share `most` of the pictures failed: then something is wrong with the
/// whole, not with single pictures. `looked_in` is the folder or file they were looked up in.
pub fn refuse_mostly_failed(pictures: &[Picture], most: f64, looked_in: &Path) -> Result<()> {
    let failed = pictures.iter().filter(|picture| picture.failure.is_some()).count();
    if failed as f64 <= most * pictures.len() as f64 {
        return Ok(());
    }
    let reasons = failed_by_reason(pictures)
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect::<Vec<_>>()
        .join(", ");
    let examples = pictures
        .iter()
        .filter_map(|picture| Some((&picture.name, picture.failure.as_ref()?)))
        .take(3)
        .map(|(name, failure)| format!("\n  {name}: {failure}"))
        .collect::<String>();
    let what = format!(
        "{failed} of {} pictures have no feature ({reasons}), more than the {:.0} % that may. Is this \
         the right place, and do the names match? First examples:{examples}",
        pictures.len(),
        most * 100.0,
    );
    Err(Error::content(looked_in, what))
}

/// The folder in which work for the store at `out` is kept until it is done.
pub fn partial(out: &Path) -> PathBuf {
    beside(out, ".partial")
}

/// Refuses an `out` that holds something else than a feature store, and brings back the old store if a
/// crash came between the two renames of [`install`].
pub fn prepare(out: &Path) -> Result<()> {
    if out.file_name().is_none() {
        return Err(Error::option(format!("{} is not a name for a feature store", out.display())));
    }
    let old = beside(out, ".old");
    if !out.exists() && old.join(CARD).is_file() {
        fs::rename(&old, out).map_err(Error::io(&old))?;
    }
    if !out.exists() {
        return Ok(());
    }
    let empty = fs::read_dir(out).map_err(Error::io(out))?.next().is_none();
    let card = out.join(CARD);
    let ours = fs::read(&card).is_ok_and(|text| {
        serde_json::from_slice::<serde_json::Value>(&text).is_ok_and(|card| {
            card["format"].as_str().is_some_and(|it| it.starts_with("ams-images/"))
        })
    });
    if empty || ours {
        return Ok(());
    }
    let what = "the folder exists and is not a feature store: choose another place, or empty it";
    Err(Error::content(out, what))
}

/// Moves the finished store `built` to `out`, in place of an older store.
pub fn install(built: &Path, out: &Path) -> Result<()> {
    let old = beside(out, ".old");
    if old.join(CARD).is_file() {
        fs::remove_dir_all(&old).map_err(Error::io(&old))?;
    }
    if out.exists() {
        fs::rename(out, &old).map_err(Error::io(out))?;
    }
    fs::rename(built, out).map_err(Error::io(out))?;
    if let Some(parent) = out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_folder(parent)?;
    }
    if old.exists() {
        fs::remove_dir_all(&old).map_err(Error::io(&old))?;
    }
    Ok(())
}
