//! Encoding a folder of pictures into a feature store.
//!
//! A picture is read, hashed and, where its content is new, decoded and encoded, by as many threads
//! as asked for. Finished rows go to a journal chunk by chunk, while the threads look at the next
//! one; at the end the store is written from it in the order of the keys. Therefore the store's
//! bytes depend on the pictures, the names and the encoder, and not on threads, chunks,
//! interruptions or what an older store knew already.
//!
//! Knows folders, names and encoders. Does not know items or clicks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use ams_data::schema::PARTS;
use ams_data::{Error, ImageKey, Result};
use half::f16;
use rayon::prelude::*;
use serde::Serialize;

use crate::card::CARD;
use crate::crew::{self, Alone, Crew, Told};
use crate::decode::{Limits, Rgb, decode};
use crate::encoder::{Encoder, Scratch};
use crate::failure::{Failure, Reason};
use crate::halves::{self, Unfit};
use crate::journal::{Chunk, Journal, Place};
use crate::manifest::{Picture, read_pictures};
use crate::picture_file::{PictureFolder, content_key};
use crate::precomputed::Matched;
use crate::row::{self, RowType};
use crate::segment::RowSource;
use crate::store::FeatureStore;
use crate::write::{self, Maker, Target, Version};

/// Part files of one part from which on an encoding puts them together.
const SEGMENTS_MAX: usize = 32;

/// What to encode, and how.
#[derive(Clone, Debug)]
pub struct EncodeOptions {
    /// The folder that picture names are relative to.
    pub images: PathBuf,
    /// The store's folder: absent, empty or an older store.
    pub out: PathBuf,
    /// Threads, 0 for as many as the machine has.
    pub threads: usize,
    /// Pictures per journal chunk and per call of the progress function.
    pub chunk: usize,
    /// What one picture may cost.
    pub limits: Limits,
    /// Largest share of pictures that may fail, 0..1.
    pub max_failed: f64,
    /// How rows are kept; as the store does that is there, or as halfs, unless given.
    pub rows: Option<RowType>,
    /// What becomes of pictures of the store that are not named this time.
    pub others: Others,
}

/// What becomes of pictures that a store has and nobody named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// They go: the store covers exactly the names given.
    #[default]
    Remove,
    /// They stay.
    Keep,
}

impl EncodeOptions {
    /// The usual options for pictures in `images` and a store at `out`.
    pub fn new(images: impl Into<PathBuf>, out: impl Into<PathBuf>) -> EncodeOptions {
        EncodeOptions {
            images: images.into(),
            out: out.into(),
            threads: 0,
            chunk: 256,
            limits: Limits::default(),
            max_failed: 0.5,
            rows: None,
            others: Others::Remove,
        }
    }
}

/// How far a run is, in picture names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Names looked at so far.
    pub done: u64,
    /// Names to look at.
    pub total: u64,
    /// Names whose picture was encoded for them.
    pub encoded: u64,
    /// Names whose picture's content was known already.
    pub reused: u64,
    /// Names that failed.
    pub failed: u64,
}

/// What came out. Serialized, it is the core of `encode --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodeReport {
    /// Distinct images in the store.
    pub images: u64,
    /// Images encoded (or imported) by this run.
    pub encoded: u64,
    /// Images whose row was known: from the store that was there, or an interrupted run.
    pub reused: u64,
    /// Picture names that have no feature, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Pictures of formats that are not decoded, by format: part of `failed`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unsupported: BTreeMap<String, u64>,
    /// Numbers per row.
    pub dim: usize,
    /// The encoder in words.
    pub encoder: String,
    /// Picture names looked at.
    pub names: u64,
    /// Names that are those of a file but for their spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respelled: Option<Respelled>,
    /// How names were found in a list of precomputed features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
}

/// Names that are those of a file but for how they are spelled: whole paths, `\\`, `%20`, other
/// capitals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Respelled {
    /// How many.
    pub names: u64,
    /// The first of them.
    pub name: String,
    /// Its file.
    pub file: String,
}

impl Respelled {
    pub(crate) fn of(pictures: &[Picture]) -> Option<Respelled> {
        let mut found = pictures.iter().filter_map(|it| Some((&it.name, it.file.as_ref()?)));
        let (name, file) = found.next()?;
        let (name, file) = (name.clone(), file.clone());
        Some(Respelled { names: 1 + found.count() as u64, name, file })
    }
}

/// Encodes the pictures called `names` (relative to the folder of pictures; repeated and empty
/// names are ignored) into a feature store that covers exactly these names, or these too
/// ([`Others`]). A store that is there is added to: contents it knows are not encoded again, and
/// its files stay. Where a part has become [`SEGMENTS_MAX`] files, all parts are written anew as
/// one file each.
///
/// Pictures that cannot be encoded are counted and listed, the run goes on; where too many fail,
/// the run ends in an error and leaves no store, but its journal and a list of the failures.
/// `progress` is called after every chunk; on `Break` the run stops with an [`Error::Io`] of kind
/// `Interrupted`, and calling again continues where it stopped.
pub fn encode(
    options: &EncodeOptions,
    names: impl IntoIterator<Item = String>,
    encoder: &dyn Encoder,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<EncodeReport> {
    encode_together(options, names, encoder, &mut Alone, progress)
}

/// As [`encode`], by all processes of `crew`, whose options and names are the same and who see the
/// same disk. The store is the same as of one process, and so is the report, everywhere.
pub fn encode_together(
    options: &EncodeOptions,
    names: impl IntoIterator<Item = String>,
    encoder: &dyn Encoder,
    crew: &mut dyn Crew,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<EncodeReport> {
    let names = distinct(names)?;
    check(options)?;
    let first = crew.rank() == 0;
    let target = match first {
        true => Target::take(&options.out)?,
        false => {
            crew::barrier(crew)?;
            Target::taken_by_first(&options.out)
        }
    };
    let maker = Maker { encoder: encoder.id().into(), hash: encoder.hash(), dim: encoder.dim() };
    let mut run = Run::begin(options, encoder, &maker, &target, crew.rank())?;
    if first {
        crew::barrier(crew)?;
    }
    // Nobody writes before everybody has read what there is.
    crew::barrier(crew)?;
    if options.others == Others::Keep && run.older.is_none() && options.out.join(CARD).exists() {
        let what = "cannot keep the other pictures of this store: it is of another encoder, less exact than asked \
                    for, or not sound (`ams images verify` says which)";
        return Err(Error::content(&options.out, what));
    }
    let share =
        names.iter().skip(crew.rank()).step_by(crew.size()).cloned().collect::<Vec<String>>();
    let mine = match run.pictures(&share, progress) {
        Ok(pictures) => Some(pictures.into_iter().map(Told::from).collect::<Vec<Told>>()),
        Err(error) if crew.size() == 1 || !is_interrupt(&error) => return Err(error),
        Err(_) => None,
    };
    let all: Option<Vec<Vec<Told>>> = crew::gather(crew, mine)?.into_iter().collect();
    let Some(all) = all else { return Err(run.stopped(&Progress::default())) };
    let mut pictures: Vec<Picture> = all.into_iter().flatten().map(Picture::from).collect();
    pictures.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if crew.size() > 1 {
        run.read_journals()?;
    }
    // Every process says so, and writes the same list; the first one's is the one that stays.
    let refused = target.refuse_mostly_failed(&pictures, options.max_failed, &options.images);
    if refused.is_err() {
        crew::barrier(crew)?;
        return refused.map(|()| unreachable!("it is an error"));
    }
    let (images, reused) = run.counts(&pictures);
    let report = EncodeReport {
        images,
        encoded: images - reused,
        reused,
        failed: write::failed_by_reason(&pictures),
        unsupported: write::unsupported_by_format(&pictures),
        dim: maker.dim,
        encoder: maker.encoder.clone(),
        names: names.len() as u64,
        respelled: Respelled::of(&pictures),
        matched: None,
    };
    if let (Others::Keep, Some(older)) = (options.others, &run.older) {
        let is_other = |picture: &&Picture| names.binary_search(&picture.name).is_err();
        pictures.extend(older.pictures.iter().filter(is_other).cloned());
        pictures.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    if !run.older.as_ref().is_some_and(|older| older.holds(&pictures, run.rows)) {
        run.commit(&target, &maker, &pictures, crew)?;
    }
    crew::barrier(crew)?;
    if first {
        target.remove_partial()?;
    }
    Ok(report)
}

fn is_interrupt(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::Interrupted)
}

/// The names in ascending order, each once.
pub(crate) fn distinct(names: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let mut names = names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<String>>();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Err(Error::option("there is no picture to encode: no item names one"));
    }
    Ok(names)
}

fn check(options: &EncodeOptions) -> Result<()> {
    let EncodeOptions { images, out, .. } = options;
    if !images.is_dir() {
        let what = "expected a folder of pictures, there is none";
        return Err(Error::content(images, what));
    }
    let real = |path: &Path| path.canonicalize().ok();
    if out.exists() && images.ancestors().any(|above| real(above) == real(out)) {
        let what = "the store would replace the folder of pictures: choose another place";
        return Err(Error::content(out, what));
    }
    Ok(())
}

/// The store that was at `out` before, of the same encoder and sound.
struct Older {
    store: FeatureStore,
    pictures: Vec<Picture>,
}

impl Older {
    /// Opens it; a store that is damaged, of another encoder, or less exact than asked for is as
    /// good as none.
    fn open(options: &EncodeOptions, maker: &Maker) -> Option<Older> {
        let store = FeatureStore::open(&options.out).ok()?;
        let card = store.card();
        let exact = card.rows == RowType::F16 || options.rows != Some(RowType::F16);
        let same = (&card.encoder_hash, card.dim, card.parts) == (&maker.hash, maker.dim, PARTS);
        if !exact || !same || store.verify().is_err() {
            return None;
        }
        let pictures = read_pictures(&options.out.join(card.pictures_file())).ok()?;
        Some(Older { store, pictures })
    }

    /// Whether there is nothing to change.
    fn holds(&self, pictures: &[Picture], rows: RowType) -> bool {
        self.store.card().rows == rows
            && self.pictures.len() == pictures.len()
            && self.pictures.iter().zip(pictures).all(|(old, new)| old.same(new))
    }
}

/// What is known about a content.
#[derive(Clone, Debug)]
enum Known {
    /// A thread is encoding it just now.
    Claimed,
    /// It has a row.
    Encoded { size: [u32; 2], place: Row },
    /// It has none.
    Failed(Failure),
}

/// Where a row is.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// In the older store.
    Older,
    /// In the journal.
    Journal(Place),
}

/// What a thread found out about one name.
enum Found {
    /// There are no bytes to look at.
    Unread(Failure),
    /// This content is somebody else's work, or done.
    Seen(File),
    /// This content is new: its row, or why not.
    New(File, std::result::Result<([u32; 2], Vec<f16>), Failure>),
}

/// A picture file that was read.
struct File {
    key: ImageKey,
    bytes: u64,
    /// Its name, where that is spelled otherwise than the picture's.
    name: Option<String>,
}

/// One run of [`encode`].
struct Run<'a> {
    options: &'a EncodeOptions,
    threads: rayon::ThreadPool,
    older: Option<Older>,
    rows: RowType,
    /// The contents that were known before this run.
    before: HashSet<ImageKey>,
    journal: Journal,
    looker: Looker<'a>,
}

/// What threads need to look at pictures.
struct Looker<'a> {
    options: &'a EncodeOptions,
    folder: PictureFolder,
    encoder: &'a dyn Encoder,
    known: Mutex<HashMap<ImageKey, Known>>,
}

/// Where the rows are that a run found or knew.
struct KnownRows<'a> {
    journal: &'a Journal,
    older: Option<&'a FeatureStore>,
    known: &'a HashMap<ImageKey, Known>,
}

impl<'a> Run<'a> {
    fn begin(
        options: &'a EncodeOptions,
        encoder: &'a dyn Encoder,
        maker: &Maker,
        target: &Target,
        rank: usize,
    ) -> Result<Run<'a>> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()
            .map_err(|error| Error::option(format!("threads = {}: {error}", options.threads)))?;
        let journal = Journal::open(&target.partial(), maker, rank)?;
        let older = threads.install(|| Older::open(options, maker));
        let kept = older.as_ref().map_or_else(RowType::default, |older| older.store.card().rows);
        let rows = options.rows.unwrap_or(kept);
        let mut known = HashMap::new();
        for (key, size, place) in journal.entries() {
            known.insert(key, Known::Encoded { size, place: Row::Journal(place) });
        }
        for (key, size) in older.iter().flat_map(|older| older.store.stored()) {
            known.insert(key, Known::Encoded { size, place: Row::Older });
        }
        let before = known.keys().copied().collect();
        let folder = PictureFolder::new(&options.images);
        let looker = Looker { options, folder, encoder, known: Mutex::new(known) };
        Ok(Run { options, threads, older, rows, before, journal, looker })
    }

    /// Finds what the other processes have written.
    fn read_journals(&mut self) -> Result<()> {
        self.journal.read()?;
        let known = self.looker.known.get_mut().expect("no thread panics while it holds the lock");
        for (key, size, place) in self.journal.entries() {
            let place = Known::Encoded { size, place: Row::Journal(place) };
            let is_older =
                matches!(known.get(&key), Some(Known::Encoded { place: Row::Older, .. }));
            if !is_older {
                known.insert(key, place);
            }
        }
        Ok(())
    }

    /// Looks at every name; new rows go to the journal.
    fn pictures(
        &mut self,
        names: &[String],
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Picture>> {
        let mut pictures = Vec::with_capacity(names.len());
        let mut state = Progress { total: names.len() as u64, ..Progress::default() };
        let mut chunks = names.chunks(self.options.chunk.max(1));
        let mut last: Option<(&[String], Vec<Found>)> = None;
        loop {
            let next = chunks.next();
            let Run { threads, journal, looker, .. } = self;
            let mut found = Vec::new();
            // This thread writes what was found of the chunk before, meanwhile.
            let kept = threads.in_place_scope(|scope| {
                if let Some(names) = next {
                    scope.spawn(|_| found = looker.look_at(names));
                }
                last.as_ref().map_or(Ok(0), |(_, found)| looker.keep(journal, found))
            })?;
            if let Some((names, found)) = last.take() {
                for (name, found) in names.iter().zip(found) {
                    let picture = self.looker.picture(name, found);
                    state.failed += u64::from(picture.failure.is_some());
                    pictures.push(picture);
                }
                state.encoded += kept;
                state.done = pictures.len() as u64;
                state.reused = state.done - state.failed - state.encoded;
                if progress(&state).is_break() && state.done < state.total {
                    return Err(self.stopped(&state));
                }
            }
            match next {
                Some(names) => last = Some((names, found)),
                None => return Ok(pictures),
            }
        }
    }

    fn stopped(&self, state: &Progress) -> Error {
        let what = format!(
            "stopped after {} of {} pictures; the same command continues from there",
            state.done, state.total
        );
        let path = &self.options.out;
        Error::io(path)(io::Error::new(ErrorKind::Interrupted, what))
    }

    /// How many distinct images `pictures` show, and how many of them were known before this run.
    fn counts(&self, pictures: &[Picture]) -> (u64, u64) {
        let mut keys = pictures.iter().map(|picture| picture.key).collect::<Vec<ImageKey>>();
        keys.retain(|key| key.is_some());
        keys.sort_unstable();
        keys.dedup();
        let encoded = keys.iter().filter(|key| !self.before.contains(key)).count() as u64;
        (keys.len() as u64, keys.len() as u64 - encoded)
    }

    /// Makes `pictures` the store's newest version.
    fn commit(
        &mut self,
        target: &Target,
        maker: &Maker,
        pictures: &[Picture],
        crew: &mut dyn Crew,
    ) -> Result<()> {
        let Run { threads, older, rows, journal, looker, .. } = self;
        let known = looker.known.get_mut().expect("no thread panics while it holds the lock");
        let older = older.as_ref().map(|older| &older.store);
        let stays = |older: &&FeatureStore| {
            older.card().rows == *rows && older.card().generations() < SEGMENTS_MAX
        };
        let base = older.filter(stays);
        let source = &KnownRows { journal, older, known };
        let version = Version { maker, rows: *rows, pictures, base, source };
        target.commit_together(&version, crew, threads)?;
        Ok(())
    }
}

impl Looker<'_> {
    /// Looks at some names, on the threads of the current pool.
    fn look_at(&self, names: &[String]) -> Vec<Found> {
        let look = |scratch: &mut Scratch, names: &[String]| self.look(names, scratch);
        let batches = names.par_chunks(self.encoder.batch().max(1));
        batches.map_init(Scratch::default, look).flatten_iter().collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ImageKey, Known>> {
        self.known.lock().expect("no thread panics while it holds the lock")
    }

    /// The work of as many names as the encoder takes at once, on any thread.
    fn look(&self, names: &[String], scratch: &mut Scratch) -> Vec<Found> {
        let mut fitted = Vec::new();
        let look = |name: &String| self.look_before(name, &mut fitted, scratch);
        let mut found = names.iter().map(look).collect::<Vec<Found>>();
        let dim = self.encoder.dim();
        let mut rows = vec![0.0; fitted.len() * dim];
        let encoded = match fitted.is_empty() {
            true => Ok(()),
            false => self.encoder.encode(&fitted, scratch, &mut rows),
        };
        let mut rows = rows.chunks_exact(dim);
        for found in &mut found {
            if let Found::New(_, row) = found
                && let Ok((size, _)) = *row
            {
                let new = rows.next().expect("a row for every fitted picture");
                *row = encoded.clone().and_then(|()| Ok((size, halves(new)?)));
            }
        }
        found
    }

    /// What can be said of a name before its picture is encoded. If it has to be, `fitted` grows by
    /// it, and its row is still empty.
    fn look_before(&self, name: &str, fitted: &mut Vec<Rgb>, scratch: &mut Scratch) -> Found {
        let (bytes, name) = match self.folder.read(name, &self.options.limits) {
            Ok(read) => read,
            Err(failure) => return Found::Unread(failure),
        };
        let key = content_key(&bytes);
        let file = File { key, bytes: bytes.len() as u64, name };
        {
            let mut known = self.known();
            if known.contains_key(&key) {
                return Found::Seen(file);
            }
            known.insert(key, Known::Claimed);
        }
        let row = decode(&bytes, &self.options.limits).map(|picture| {
            let size = [picture.width, picture.height];
            fitted.push(self.encoder.fit(picture, scratch));
            (size, Vec::new())
        });
        Found::New(file, row)
    }

    /// Writes the new rows of a chunk to the journal; returns how many.
    fn keep(&self, journal: &mut Journal, found: &[Found]) -> Result<u64> {
        let mut chunk = Chunk::default();
        for found in found {
            match found {
                Found::New(file, Ok((size, row))) => {
                    chunk.keys.push(file.key);
                    chunk.sizes.push(*size);
                    chunk.rows.extend_from_slice(row);
                }
                Found::New(file, Err(failure)) => {
                    self.known().insert(file.key, Known::Failed(failure.clone()));
                }
                Found::Unread(_) | Found::Seen(..) => {}
            }
        }
        if !chunk.keys.is_empty() {
            let number = journal.push(&chunk)?;
            let mut known = self.known();
            for (row, (key, size)) in chunk.keys.iter().zip(&chunk.sizes).enumerate() {
                let place = Row::Journal(Place { chunk: number, row });
                known.insert(*key, Known::Encoded { size: *size, place });
            }
        }
        Ok(chunk.keys.len() as u64)
    }

    /// The manifest's line for one name, once its chunk is kept.
    fn picture(&self, name: &str, found: Found) -> Picture {
        let none = Picture {
            name: name.to_string(),
            key: ImageKey::NONE,
            bytes: 0,
            width: 0,
            height: 0,
            failure: None,
            file: None,
        };
        let (key, bytes, file) = match found {
            Found::Unread(failure) => return Picture { failure: Some(failure), ..none },
            Found::Seen(file) | Found::New(file, _) => (file.key, file.bytes, file.name),
        };
        match &self.known()[&key] {
            Known::Claimed => {
                unreachable!("every claim of a chunk is settled when the chunk is kept")
            }
            Known::Failed(failure) => {
                Picture { bytes, failure: Some(failure.clone()), file, ..none }
            }
            Known::Encoded { size: [width, height], .. } => {
                Picture { key, bytes, width: *width, height: *height, file, ..none }
            }
        }
    }
}

impl RowSource for KnownRows<'_> {
    fn row<'a>(&'a self, key: ImageKey, _: &'a mut Vec<f16>) -> Result<row::Row<'a>> {
        Ok(match &self.known[&key] {
            Known::Encoded { place: Row::Journal(place), .. } => {
                row::Row::F16(self.journal.row(*place))
            }
            Known::Encoded { place: Row::Older, .. } => {
                let older = self.older.and_then(|older| older.stored_row(key));
                older.expect("it was listed by the older store")
            }
            Known::Claimed | Known::Failed(_) => unreachable!("only images with a row are written"),
        })
    }
}

/// The row as f16, or why halfs cannot hold it.
fn halves(row: &[f32]) -> std::result::Result<Vec<f16>, Failure> {
    let mut halves = Vec::with_capacity(row.len());
    match halves::put(row.iter().copied(), f16::from_f32, &mut halves) {
        Ok(_) => Ok(halves),
        Err(unfit) => {
            let reason = match unfit {
                Unfit::Beyond(..) => Reason::NotFinite,
                Unfit::Small(_) => Reason::TooSmall,
            };
            Err(Failure::new(reason, unfit.words("the encoder's row")))
        }
    }
}

#[cfg(test)]
mod tests;
