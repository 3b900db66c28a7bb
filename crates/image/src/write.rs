//! Writing a version of a feature store: all files into a folder nobody reads, then into the store,
//! the card last.
//!
//! ```text
//! <out>/              the store, as in `store.rs`
//! .<out>.lock         held by the process that changes it
//! <out>.partial/      what is not yet in it
//!     store/          the files of the next version
//!     ..              the journal of an encoding, see `journal.rs`
//! ```
//! The first version appears by renaming `store/` to `<out>`. The files of a later one are moved
//! into `<out>`, where no card names them, and then its card replaces the old one. Killed before
//! that, the old version stands and the next writer removes what nobody names; killed after it, the
//! new one stands.
//!
//! Knows the format of [`crate::store`]. Does not know where rows come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ams_data::lock::Lock;
use ams_data::schema::PARTS;
use ams_data::staging::{FileEntry, appear, sync_folder, write_whole};
use ams_data::{Error, ImageKey, PictureName, Result};
use ams_fabric::{Fabric, Solo};
use rayon::prelude::*;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::card::{
    CARD, FAILED, FORMAT, StoreCard, codes_file, generation_in, is_versioned, names_file,
    part_file, pictures_file,
};
use crate::durable::beside;
use crate::failure::{NOT_DECODED, Reason};
use crate::manifest::{Picture, write_failed, write_pictures};
use crate::messages;
use crate::row::RowType;
use crate::segment::{self, Image, RowSource};
use crate::semantic::{self, CodesPlan};
use crate::store::FeatureStore;
use crate::tensors::TensorWriter;

/// The encoder that made the rows of a store; equal ids make equal rows of equal pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncoderId {
    /// The encoder in words.
    pub encoder: String,
    /// blake3 of all that defines it.
    pub hash: String,
    pub dim: usize,
}

impl EncoderId {
    /// The encoder of a store's rows.
    pub(crate) fn of(card: &StoreCard) -> EncoderId {
        EncoderId { encoder: card.encoder.clone(), hash: card.encoder_hash.clone(), dim: card.dim }
    }
}

/// A version to be written.
pub(crate) struct Version<'a> {
    /// The encoder that made the rows.
    pub encoder_id: &'a EncoderId,
    /// How they are kept.
    pub rows: RowType,
    /// What it is to hold, names ascending and distinct.
    pub pictures: &'a [Picture],
    /// The version whose part files stay; those have the same encoder and type of rows.
    pub base: Option<&'a FeatureStore>,
    /// Where the rows are that `base` has not.
    pub source: &'a dyn RowSource,
    /// Where its semantic ids come from.
    pub codes: CodesPlan<'a>,
}

/// A store's folder, held by this process for writing.
#[derive(Debug)]
pub(crate) struct Target {
    out: PathBuf,
    /// Held by the first process, for all of them.
    _lock: Option<Lock>,
}

impl Target {
    /// Takes the store at `out`, which is absent, empty or a store; removes what a killed writer
    /// left in it.
    ///
    /// # Errors
    /// If there is something else, or another process is writing it.
    pub(crate) fn take(out: &Path) -> Result<Target> {
        let Some(name) = out.file_name() else {
            let what = format!("{} is not a name for a feature store", out.display());
            return Err(Error::option(what));
        };
        refuse_foreign(out)?;
        let parent = out.parent().unwrap_or(Path::new(""));
        let lock = Lock::take(parent, &name.to_string_lossy()).map_err(|error| match error {
            Error::Io { source, .. } => Error::io(out)(source),
            error => error,
        })?;
        let target = Target { out: out.to_path_buf(), _lock: Some(lock) };
        if let Ok(card) = StoreCard::read(out) {
            target.remove_unnamed(&card)?;
        }
        let staged = target.staged();
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(Error::io(&staged))?;
        }
        Ok(target)
    }

    /// The store at `out`, which the first process of the job has taken.
    pub(crate) fn taken_by_first(out: &Path) -> Target {
        Target { out: out.to_path_buf(), _lock: None }
    }

    /// The folder in which work for the store is kept until it is done.
    pub(crate) fn partial(&self) -> PathBuf {
        beside(&self.out, ".partial")
    }

    /// Removes the list of failures of a run before; what other work is unfinished stays.
    pub(crate) fn forget_failures(&self) {
        let partial = self.partial();
        let _ = fs::remove_file(partial.join(FAILED));
        // Only a folder that is empty goes.
        let _ = fs::remove_dir(partial);
    }

    /// Removes that folder with all that is in it.
    pub(crate) fn remove_partial(&self) -> Result<()> {
        let partial = self.partial();
        if partial.exists() {
            fs::remove_dir_all(&partial).map_err(Error::io(&partial))
        } else {
            Ok(())
        }
    }

    /// Where the next version is put together.
    fn staged(&self) -> PathBuf {
        self.partial().join("store")
    }

    /// Writes `version` and makes it the store's newest one, its parts on as many threads as there
    /// are cores. On failure the store is as before, and nothing of the version stays behind.
    pub(crate) fn commit(&self, version: &Version<'_>) -> Result<StoreCard> {
        let threads = rayon::ThreadPoolBuilder::new().build();
        let threads = threads.map_err(|error| Error::option(format!("threads: {error}")))?;
        self.commit_together(version, &mut Solo, &threads)
    }

    /// As [`Target::commit`], by all processes of `fabric`, each of which writes some of the parts,
    /// on `threads`.
    pub(crate) fn commit_together(
        &self,
        version: &Version<'_>,
        fabric: &mut dyn Fabric,
        threads: &rayon::ThreadPool,
    ) -> Result<StoreCard> {
        let (partial, staged) = (self.partial(), self.staged());
        let alone = !partial.exists();
        let created = fs::create_dir_all(&staged).map_err(Error::io(&staged));
        let generation = self.next_generation();
        // The new card may appear only after every process has read the number of the old one.
        messages::together(fabric, created)?;
        let rank = fabric.rank();
        let parts = write_parts(&staged, version, generation, fabric, threads);
        let card = parts.and_then(|parts| {
            let describe = || describe(&staged, version, generation, parts, rank);
            let card = threads.install(describe)?;
            if rank == 0 {
                self.install(&staged, &card)?;
            }
            Ok(card)
        });
        let written = messages::together(fabric, card);
        if rank > 0 {
            return written;
        }
        let left = if alone { &partial } else { &staged };
        if left.exists() {
            fs::remove_dir_all(left).map_err(Error::io(left))?;
        }
        written
    }

    /// A number that no file of the store has.
    fn next_generation(&self) -> u64 {
        let card = StoreCard::read(&self.out).map(|card| card.generation);
        card.unwrap_or_else(|_| {
            // A damaged card, or one of another format.
            let names = fs::read_dir(&self.out).into_iter().flatten().flatten();
            let numbers = names.filter_map(|entry| generation_in(entry.file_name().to_str()?));
            numbers.max().unwrap_or(0)
        }) + 1
    }

    /// Moves the files in `staged` into the store, the card last.
    fn install(&self, staged: &Path, card: &StoreCard) -> Result<()> {
        let out = &self.out;
        let is_there = out.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if is_there {
            let own = |name: &&String| staged.join(name).exists();
            for name in card.files.keys().filter(own) {
                let to = out.join(name);
                fs::rename(staged.join(name), &to).map_err(Error::io(&to))?;
            }
            sync_folder(out)?;
            let to = out.join(CARD);
            fs::rename(staged.join(CARD), &to).map_err(Error::io(&to))?;
            sync_folder(out)?;
            let to = out.join(FAILED);
            fs::rename(staged.join(FAILED), &to).map_err(Error::io(&to))?;
            self.remove_unnamed(card)
        } else {
            if out.exists() {
                fs::remove_dir(out).map_err(Error::io(out))?;
            }
            appear(staged, out)
        }
    }

    /// Removes the files of versions that no card names any more. Readers that have them keep them.
    fn remove_unnamed(&self, card: &StoreCard) -> Result<()> {
        for entry in fs::read_dir(&self.out).map_err(Error::io(&self.out))? {
            let entry = entry.map_err(Error::io(&self.out))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_versioned(&name) && !card.files.contains_key(&name) {
                let removed = fs::remove_file(entry.path());
                // Windows does not remove what a reader has mapped; a later writer will.
                if !cfg!(windows) {
                    removed.map_err(Error::io(entry.path()))?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses an `out` that holds something else than a feature store.
fn refuse_foreign(out: &Path) -> Result<()> {
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

/// A part of the new version.
#[derive(Serialize, Deserialize)]
struct WrittenPart {
    /// Name and card of its new file, if it has one.
    file: Option<(String, FileEntry)>,
    /// Sums of the squares of the rows that pictures show, by ascending key.
    squares: Vec<f64>,
    /// Number of its rows, shown or not.
    rows: usize,
}

/// Writes the part files that the base of `version` has not into `folder`, those of one process of
/// `fabric` each.
fn write_parts(
    folder: &Path,
    version: &Version<'_>,
    generation: u64,
    fabric: &mut dyn Fabric,
    threads: &rayon::ThreadPool,
) -> Result<Vec<WrittenPart>> {
    let Version { encoder_id, rows, pictures, base, source, .. } = version;
    let live = images(pictures);
    let (rank, size) = (fabric.rank(), fabric.size());
    let parts = (rank..PARTS).step_by(size).map(|part| {
        let from = live.partition_point(|(key, _)| key.part(PARTS) < part);
        let to = live.partition_point(|(key, _)| key.part(PARTS) <= part);
        (part, &live[from..to])
    });
    let write = |(part, live): (usize, &[Image])| {
        let old = base.map_or(&[][..], |base| base.segments(part));
        let is_new = |(key, _): &&Image| {
            !old.iter().any(|segment| segment.keys().binary_search(key).is_ok())
        };
        let new = live.iter().filter(is_new).copied().collect::<Vec<Image>>();
        let mut squares = Vec::new();
        for segment in old {
            squares.extend(segment.keys().iter().copied().zip(segment.squares().iter().copied()));
        }
        let stored = squares.len() + new.len();
        let mut file = None;
        if !new.is_empty() {
            let name = part_file(part, generation);
            let path = folder.join(&name);
            let (card, of_new) = segment::write(&path, encoder_id.dim, *rows, &new, *source)?;
            file = Some((name, card));
            squares.extend(new.iter().map(|(key, _)| *key).zip(of_new));
        }
        squares.sort_unstable_by_key(|(key, _)| *key);
        squares.retain(|(key, _)| live.binary_search_by_key(key, |(key, _)| *key).is_ok());
        let squares = squares.into_iter().map(|(_, squares)| squares).collect();
        Ok(WrittenPart { file, squares, rows: stored })
    };
    let parts: Vec<(usize, &[Image])> = parts.collect();
    let written: Vec<Result<WrittenPart>> =
        threads.install(|| parts.into_par_iter().with_max_len(1).map(write).collect());
    let written = written.into_iter().collect::<Result<Vec<WrittenPart>>>();
    let written = messages::together(fabric, written)?;
    let mut of_rank: Vec<_> =
        messages::gather(fabric, written)?.into_iter().map(Vec::into_iter).collect();
    let next = |part: usize| of_rank[part % size].next();
    let all: Option<Vec<WrittenPart>> = (0..PARTS).map(next).collect();
    all.ok_or_else(|| {
        Error::content(folder, "the processes of this job run different versions of ams")
    })
}

/// The card of `version`, whose parts are written; the first process writes it, and the tables.
fn describe(
    folder: &Path,
    version: &Version<'_>,
    generation: u64,
    parts: Vec<WrittenPart>,
    rank: usize,
) -> Result<StoreCard> {
    let Version { encoder_id, rows, pictures, base, codes, .. } = version;
    let images = images(pictures);
    let live = images.len();
    let mut files: BTreeMap<String, FileEntry> = base
        .iter()
        .flat_map(|base| {
            (0..PARTS)
                .flat_map(|part| base.card().part_files(part))
                .map(|name| (name.clone(), base.card().files[name].clone()))
        })
        .collect();
    // In f64 and in the order of the keys, so that the scale has the same bits whoever encoded what
    // when.
    let (mut sum, mut stored) = (0.0f64, 0);
    for WrittenPart { file, squares, rows } in parts {
        files.extend(file);
        squares.iter().for_each(|squares| sum += squares);
        stored += rows;
    }
    if rank == 0 {
        let card = write_names(&folder.join(names_file(generation)), pictures)?;
        files.insert(names_file(generation), card);
        let card = write_pictures(&folder.join(pictures_file(generation)), pictures)?;
        files.insert(pictures_file(generation), card);
        write_failed(&folder.join(FAILED), pictures)?;
    }
    let names = pictures.iter().filter(|picture| picture.key.is_some()).count() as u64;
    let mean = sum / (live as f64 * encoder_id.dim as f64);
    let mut card = StoreCard {
        format: FORMAT.into(),
        generation,
        encoder: encoder_id.encoder.clone(),
        encoder_hash: encoder_id.hash.clone(),
        dim: encoder_id.dim,
        rows: *rows,
        parts: PARTS,
        images: live as u64,
        dead: (stored - live) as u64,
        names,
        failed: failed_by_reason(pictures),
        scale: if mean > 1e-12 { (1.0 / mean.sqrt()) as f32 } else { 1.0 },
        codes: None,
        files,
    };
    if rank > 0 {
        return Ok(card);
    }
    if let Some((file, of_images)) = semantic::write(folder, *codes, *base, &card, &images)? {
        card.files.insert(codes_file(generation), file);
        card.codes = Some(of_images);
    }
    let text = serde_json::to_string_pretty(&card).expect("a card of plain numbers and names");
    write_whole(&folder.join(CARD), format!("{text}\n").as_bytes())?;
    sync_folder(folder)?;
    Ok(card)
}

/// The distinct images of some pictures, ascending.
fn images(pictures: &[Picture]) -> Vec<Image> {
    let shown = pictures.iter().filter(|picture| picture.key.is_some());
    let mut images =
        shown.map(|picture| (picture.key, [picture.width, picture.height])).collect::<Vec<_>>();
    images.sort_unstable();
    images.dedup_by_key(|(key, _)| *key);
    images
}

/// Writes the table of the names that have a key.
fn write_names(path: &Path, pictures: &[Picture]) -> Result<FileEntry> {
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
    writer.finish()
}

/// How many pictures failed, by the reason's name.
pub(crate) fn failed_by_reason(pictures: &[Picture]) -> BTreeMap<String, u64> {
    let mut failed = BTreeMap::new();
    for failure in pictures.iter().filter_map(|picture| picture.failure.as_ref()) {
        *failed.entry(failure.reason.name().to_string()).or_default() += 1;
    }
    failed
}

/// How many pictures are of formats that are not decoded, by format.
pub(crate) fn unsupported_by_format(pictures: &[Picture]) -> BTreeMap<String, u64> {
    let mut formats = BTreeMap::new();
    let failures = pictures.iter().filter_map(|picture| picture.failure.as_ref());
    for failure in failures.filter(|failure| failure.reason == Reason::Unsupported) {
        let format = failure.detail.split_once(NOT_DECODED).map_or("no picture", |(name, _)| name);
        *formats.entry(format.to_owned()).or_default() += 1;
    }
    formats
}

impl Target {
    /// An error where more than the share `most` of the pictures failed: then something is wrong
    /// with the whole, not with single pictures. They are listed in `failed.csv` in the folder
    /// of unfinished work, which stays. `looked_in` is the folder or file they were looked up
    /// in.
    pub(crate) fn refuse_mostly_failed(
        &self,
        pictures: &[Picture],
        most: f64,
        looked_in: &Path,
    ) -> Result<()> {
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
        let partial = self.partial();
        let list = partial.join(FAILED);
        fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
        write_failed(&list, pictures)?;
        let what = format!(
            "{failed} of {} pictures have no feature ({reasons}), more than the {:.0} % that may. Is this the right place, and \
             do the names match? All of them are in {}; what was encoded is kept for the next run. --max-failed 1 accepts any \
             share. First examples:{examples}",
            pictures.len(),
            most * 100.0,
            list.display(),
        );
        Err(Error::content(looked_in, what))
    }
}
