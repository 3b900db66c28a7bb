//! Encoding a folder of pictures into a feature store.
//!
//! A picture is read, hashed and, where its content is new, decoded and encoded, by as many threads
//! as asked for. Finished rows go to a journal chunk by chunk, while the threads look at the next
//! one; at the end the store is written from it in the order of the keys. Therefore the store's
//! bytes depend on the pictures, the names and the encoder, and not on threads, chunks,
//! interruptions or what an older store knew already.
//!
//! Knows folders, names and encoders. Does not know items or clicks.

mod known;
mod look;

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ams_data::schema::PARTS;
use ams_data::{Error, ImageKey, Result};
use ams_fabric::{Fabric, Solo};

use self::known::{Known, KnownRows, RowPlace};
use self::look::{Outcome, PictureReader};
use crate::card::{CARD, StoreCard};
use crate::codes::SemanticIds;
use crate::decode::Limits;
use crate::encoder::Encoder;
use crate::journal::Journal;
use crate::manifest::{Picture, distinct, read_pictures};
use crate::messages::{self, PictureMessage};
use crate::picture_file::PictureFolder;
use crate::row::RowType;
use crate::semantic::CodesPlan;
use crate::store::FeatureStore;
use crate::write::{self, EncoderId, Target, Version};

pub use crate::report::{EncodeReport, Respelled, SemanticIdsReport};

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
    /// Which semantic ids the store is to have; those of the store that is there, unless given.
    pub semantic_ids: Option<SemanticIds>,
}

/// What becomes of pictures that a store has and nobody named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// They go: the store covers exactly the names given.
    #[default]
    Remove,
    /// They stay in the store, with their rows.
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
            semantic_ids: None,
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
    /// Names whose picture has no row.
    pub failed: u64,
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
    encode_together(options, names, encoder, &mut Solo, progress)
}

/// As [`encode`], by all processes of `fabric`, whose options and names are the same and who see
/// the same disk. The store and every process's report are those of a single process.
pub fn encode_together(
    options: &EncodeOptions,
    names: impl IntoIterator<Item = String>,
    encoder: &dyn Encoder,
    fabric: &mut dyn Fabric,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<EncodeReport> {
    let names = distinct(names).and_then(|names| check(options).map(|()| names));
    let names = messages::together(fabric, names)?;
    let encoder_id =
        EncoderId { encoder: encoder.id().into(), hash: encoder.hash(), dim: encoder.dim() };
    let (target, mut run) = begin(options, encoder, &encoder_id, fabric)?;
    if options.others == Others::Keep && run.older.is_none() && options.out.join(CARD).exists() {
        let what = "cannot keep the other pictures of this store: it is of another encoder, less exact than asked \
                    for, or not sound (`ams images verify` says which)";
        return Err(Error::content(&options.out, what));
    }
    let mut pictures = run.pictures_of_all(&names, fabric, progress)?;
    // Every process says so, and writes the same list; the first one's is the one that stays.
    let refused = target.refuse_mostly_failed(&pictures, options.max_failed, &options.images);
    if let Err(error) = refused {
        messages::barrier(fabric)?;
        return Err(error);
    }
    let (images, reused) = run.counts(&pictures);
    let mut report = EncodeReport {
        images,
        encoded: images - reused,
        reused,
        failed: write::failed_by_reason(&pictures),
        unsupported: write::unsupported_by_format(&pictures),
        dim: encoder_id.dim,
        encoder: encoder_id.encoder.clone(),
        runtime: encoder.runtime().map(str::to_owned),
        names: names.len() as u64,
        respelled: Respelled::of(&pictures),
        matched: None,
        semantic_ids: None,
    };
    if let (Others::Keep, Some(older)) = (options.others, &run.older) {
        let is_other = |picture: &&Picture| names.binary_search(&picture.name).is_err();
        pictures.extend(older.pictures.iter().filter(is_other).cloned());
        pictures.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    let codes = CodesPlan::new(options.semantic_ids, run.older.as_ref().map(|it| &it.store));
    if !run.older.as_ref().is_some_and(|older| older.holds(&pictures, run.rows, &codes)) {
        run.commit(&target, &encoder_id, &pictures, fabric)?;
    }
    messages::barrier(fabric)?;
    let card = StoreCard::read(&options.out);
    report.semantic_ids = SemanticIdsReport::of(messages::together(fabric, card)?);
    let removed = if fabric.rank() == 0 { target.remove_partial() } else { Ok(()) };
    messages::together(fabric, removed)?;
    Ok(report)
}

/// Takes the store in the first process, and opens it and the journal in all of them. No process
/// writes before all have read the files that were there.
fn begin<'a>(
    options: &'a EncodeOptions,
    encoder: &'a dyn Encoder,
    encoder_id: &EncoderId,
    fabric: &mut dyn Fabric,
) -> Result<(Target, Run<'a>)> {
    let rank = fabric.rank();
    let begin = |target: Target| {
        let run = Run::begin(options, encoder, encoder_id, &target, rank)?;
        Ok((target, run))
    };
    // The first process may discard an old journal, so the others come after it.
    let first = (rank == 0).then(|| Target::take(&options.out).and_then(begin)).transpose();
    let first = messages::together(fabric, first)?;
    let mine = first.map_or_else(|| begin(Target::taken_by_first(&options.out)), Ok);
    messages::together(fabric, mine)
}

fn is_interrupt(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::Interrupted)
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
struct PreviousStore {
    store: FeatureStore,
    pictures: Vec<Picture>,
}

impl PreviousStore {
    /// Opens it; a store that is damaged, of another encoder, or less exact than asked for is as
    /// good as none.
    fn open(options: &EncodeOptions, encoder_id: &EncoderId) -> Option<PreviousStore> {
        let store = FeatureStore::open(&options.out).ok()?;
        let card = store.card();
        let exact = card.rows == RowType::F16 || options.rows != Some(RowType::F16);
        let same =
            (&card.encoder_hash, card.dim, card.parts) == (&encoder_id.hash, encoder_id.dim, PARTS);
        if !exact || !same || store.verify().is_err() {
            return None;
        }
        let pictures = read_pictures(&options.out.join(card.pictures_file())).ok()?;
        Some(PreviousStore { store, pictures })
    }

    /// Whether there is nothing to change.
    fn holds(&self, pictures: &[Picture], rows: RowType, codes: &CodesPlan<'_>) -> bool {
        self.store.card().rows == rows
            && codes.is_that_of(&self.store)
            && self.pictures.len() == pictures.len()
            && self.pictures.iter().zip(pictures).all(|(old, new)| old.same(new))
    }
}

/// One run of [`encode`].
struct Run<'a> {
    options: &'a EncodeOptions,
    threads: rayon::ThreadPool,
    older: Option<PreviousStore>,
    rows: RowType,
    /// The contents that were known before this run.
    before: HashSet<ImageKey>,
    journal: Journal,
    reader: PictureReader<'a>,
}

impl<'a> Run<'a> {
    fn begin(
        options: &'a EncodeOptions,
        encoder: &'a dyn Encoder,
        encoder_id: &EncoderId,
        target: &Target,
        rank: usize,
    ) -> Result<Run<'a>> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()
            .map_err(|error| Error::option(format!("threads = {}: {error}", options.threads)))?;
        let journal = Journal::open(&target.partial(), encoder_id, rank)?;
        let older = threads.install(|| PreviousStore::open(options, encoder_id));
        let kept = older.as_ref().map_or_else(RowType::default, |older| older.store.card().rows);
        let rows = options.rows.unwrap_or(kept);
        let mut known = HashMap::new();
        for (key, size, place) in journal.entries() {
            known.insert(key, Known::Encoded { size, place: RowPlace::Journal(place) });
        }
        for (key, size) in older.iter().flat_map(|older| older.store.stored()) {
            known.insert(key, Known::Encoded { size, place: RowPlace::Previous });
        }
        let before = known.keys().copied().collect();
        let folder = PictureFolder::new(&options.images);
        let (limits, known) = (&options.limits, Mutex::new(known));
        let reader = PictureReader { limits, folder, encoder, known };
        Ok(Run { options, threads, older, rows, before, journal, reader })
    }

    /// Finds what the other processes have written.
    fn read_journals(&mut self) -> Result<()> {
        self.journal.read()?;
        let known = self.reader.known.get_mut().expect("no thread panics while it holds the lock");
        for (key, size, place) in self.journal.entries() {
            let place = Known::Encoded { size, place: RowPlace::Journal(place) };
            let is_older =
                matches!(known.get(&key), Some(Known::Encoded { place: RowPlace::Previous, .. }));
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
        let mut last: Option<(&[String], Vec<Outcome>)> = None;
        loop {
            let next = chunks.next();
            let Run { threads, journal, reader, .. } = self;
            let mut found = Vec::new();
            // This thread writes what was found of the chunk before, meanwhile.
            let kept = threads.in_place_scope(|scope| {
                if let Some(names) = next {
                    scope.spawn(|_| found = reader.look_at(names));
                }
                last.as_ref().map_or(Ok(0), |(_, found)| reader.keep(journal, found))
            })?;
            if let Some((names, found)) = last.take() {
                for (name, found) in names.iter().zip(found) {
                    let picture = self.reader.picture(name, found);
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

    /// The pictures called `names`, ascending, of which every process of `fabric` reads its share.
    fn pictures_of_all(
        &mut self,
        names: &[String],
        fabric: &mut dyn Fabric,
        progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Picture>> {
        let size = fabric.size();
        let share: Vec<String> = names.iter().skip(fabric.rank()).step_by(size).cloned().collect();
        let mine = match self.pictures(&share, progress) {
            Ok(pictures) => Ok(Some(pictures.into_iter().map(PictureMessage::from).collect())),
            // The others finish their chunk, and stop as well.
            Err(error) if size > 1 && is_interrupt(&error) => Ok(None),
            Err(error) => Err(error),
        };
        let mine: Option<Vec<PictureMessage>> = messages::together(fabric, mine)?;
        let all: Option<Vec<Vec<PictureMessage>>> =
            messages::gather(fabric, mine)?.into_iter().collect();
        let Some(all) = all else { return Err(self.stopped(&Progress::default())) };
        let mut pictures: Vec<Picture> = all.into_iter().flatten().map(Picture::from).collect();
        pictures.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if size > 1 {
            let read = self.read_journals();
            messages::together(fabric, read)?;
        }
        Ok(pictures)
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
        encoder_id: &EncoderId,
        pictures: &[Picture],
        fabric: &mut dyn Fabric,
    ) -> Result<()> {
        let Run { options, threads, older, rows, journal, reader, .. } = self;
        let known = reader.known.get_mut().expect("no thread panics while it holds the lock");
        let older = older.as_ref().map(|older| &older.store);
        let stays = |older: &&FeatureStore| {
            older.card().rows == *rows && older.card().generations() < SEGMENTS_MAX
        };
        let base = older.filter(stays);
        let source = &KnownRows { journal, older, known };
        let codes = CodesPlan::new(options.semantic_ids, older);
        let version = Version { encoder_id, rows: *rows, pictures, base, source, codes };
        target.commit_together(&version, fabric, threads)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
