//! Checkpoints: everything a training needs to go on as if it had never stopped.
//!
//! ```text
//! step-N/
//!   lane-LL.safetensors   ids u64 (n) ascending, rows f32 (n, 1 + states, D): embedding, optimizer;
//!                         with eviction seen u64 (n): last day, sightings; with a sketch its cells u32
//!   dense.safetensors     w, m, v f32: W, then every tower
//!   MANIFEST.json         cursor, configuration, their blake3, size and blake3 of every file; written last
//! ```
//! One file per lane: going on with another number of processes is assignment, not resharding. Rows
//! are written by ascending id, so the files do not depend on when an id was first seen.
//!
//! All processes write into one folder, which has to be on a disk that all of them see:
//! ```text
//! rank 0        makes .step-N.building, after removing the leftovers of a killed job
//! every rank    writes the files of its lanes, fsynced       (rank 0 also dense.safetensors)
//! rank 0        hears size and hash of every file, writes MANIFEST.json, fsyncs, renames to step-N
//! rank 0        removes all but the newest `keep`, and the best epoch's where there is an early stop
//! ```
//! Without such a disk, every rank makes and finishes a folder of its own, which has the files of
//! its lanes, and the run is kept where all of them see it (`mirror.rs`).
//!
//! The rename is the commit: before it the folder has a name that no reader looks at. Between any
//! two lines a process may die; the checkpoints before are untouched until the new one has its
//! name. A step that fails on one rank fails on all, see [`ams_fabric::together`].

use std::path::{Path, PathBuf};

use ams_bundle::Numbers;
use ams_bundle::folder::{Folder, FolderWriter, MANIFEST, Tensor};
use ams_bundle::{ImageSource, Spec};
use ams_data::staging::remove_folder;
use ams_fabric::{Fabric, gather, on_first, together};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run::progress::{Cursor, History};
use crate::settings::Config;
use crate::setup::sources::Sources;
use crate::step::shard::Shard;
use crate::step::sighting::Sighting;
use crate::step::{Dense, Lanes};

/// `format` of the manifests this build reads and writes.
pub(crate) const FORMAT: &str = "ams-checkpoint/2";

/// The file of the dense weights.
const DENSE: &str = "dense.safetensors";

/// The tensor of the sightings of rows.
const SEEN: &str = "seen";

/// The tensor of the cells of a sketch.
const SKETCH: &str = "sketch";

/// The manifest of a checkpoint, but for its list of files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    /// Where the training stood.
    pub cursor: Cursor,
    /// Configuration of the training.
    pub config: Config,
    /// Description of the model.
    pub spec: Spec,
    /// blake3 of the cards of the dataset and of the feature store: a cursor means something only
    /// in the samples it was made in.
    pub sources: Sources,
    /// The validations so far.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
    /// The newest day of the samples so far, counted from 1970-01-01, where shards see ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_day: Option<i32>,
    /// [`Meta::sealed`]: the manifest has hashes of all files but itself.
    pub blake3: String,
}

impl Meta {
    /// The same with its seal: blake3 of its JSON without the seal itself.
    pub(crate) fn sealed(mut self) -> Meta {
        let json = serde_json::to_string(&self).expect("a manifest is JSON");
        let value = serde_json::from_str(&json).expect("JSON of ours can be read");
        self.blake3 = seal(value);
        self
    }

    /// How the model and the sources of this checkpoint differ from `spec` and `sources`.
    pub(crate) fn difference(&self, spec: &Spec, sources: &Sources) -> Option<String> {
        let images = |source: &Option<ImageSource>| match source {
            Some(source) => format!("{} ({} numbers)", source.encoder, source.dim),
            None => "no image features".to_owned(),
        };
        let (was, is) = (images(&self.spec.image_source), images(&spec.image_source));
        if was != is {
            return Some(format!("was trained on image features of {was}, but now there are {is}"));
        }
        if self.spec.image_source != spec.image_source || self.sources.images != sources.images {
            return Some(format!(
                "was trained on other image features of {was} than there are now"
            ));
        }
        if self.spec != *spec {
            return Some("was trained on other fields than the dataset has now".to_owned());
        }
        let what = "was trained on another dataset than the one that is there now";
        (self.sources != *sources).then(|| what.to_owned())
    }
}

/// The seal of `meta`, of the JSON rather than of [`Meta`]: a later program may know more settings,
/// with defaults for those that are missing.
fn seal(mut meta: serde_json::Value) -> String {
    if let Some(keys) = meta.as_object_mut() {
        keys.remove("blake3");
    }
    blake3::hash(meta.to_string().as_bytes()).to_hex().to_string()
}

/// The folder of the checkpoint after `step` steps.
pub(crate) fn path(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!("step-{step}"))
}

/// The finished checkpoints below `checkpoints`, oldest first.
///
/// # Errors
/// If the folder cannot be listed; a missing folder holds none.
pub(crate) fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for path in entries(checkpoints)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The newest checkpoint below `checkpoints`, as the first process sees it. All processes call it
/// together.
///
/// # Errors
/// If there is none, or the folder cannot be listed.
pub(crate) fn newest(checkpoints: &Path, fabric: &mut dyn Fabric) -> Result<PathBuf> {
    let newest = || match list(checkpoints)?.last() {
        Some((step, _)) => Ok(*step),
        None => Err(Error::content(checkpoints, "holds no checkpoint; train the run first")),
    };
    let step = on_first(fabric, newest)?.unwrap_or(0);
    Ok(path(checkpoints, gather::numbers(fabric, &[step])?[0][0]))
}

/// `error` of the newest checkpoint, with the way out if there is an earlier one.
pub(crate) fn damaged(checkpoints: &Path, newest: &Path, error: Error) -> Error {
    let earlier = list(checkpoints).unwrap_or_default();
    match earlier.iter().rev().find(|(_, path)| path != newest) {
        None => error,
        Some((_, older)) => Error::Damaged {
            newest: Box::new(error),
            damaged: newest.display().to_string(),
            older: older.display().to_string(),
        },
    }
}

/// The paths in `folder`; none if the folder does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(Error::io(folder)),
    }
}

/// What the processes of a job see of one another's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// All of them.
    Shared,
    /// None: every process has a folder of its own, with its files and the manifest.
    Own,
}

/// Writes the checkpoint of `lanes` as `meta` says and removes all but the newest `keep`; the best
/// epoch's stays where there is an early stop. All processes call it together. The names of the
/// files that this process wrote; none, if the checkpoint is there already.
///
/// # Errors
/// If any process cannot write its part; then nothing of it stays behind, and earlier ones are
/// untouched.
pub(crate) fn save(
    checkpoints: &Path,
    keep: usize,
    lanes: &mut Lanes,
    meta: Meta,
    disk: Disk,
) -> Result<Option<Vec<String>>> {
    let target = path(checkpoints, meta.cursor.step);
    let first = lanes.fabric().rank() == 0;
    if lanes.fabric().any(first && target.exists())? {
        // Taken already: the training stopped right after it.
        return Ok(None);
    }
    let begins = first || disk == Disk::Own;
    let begun = if begins { begin(checkpoints, &target).map(Some) } else { Ok(None) };
    let mut folder = match together(lanes.fabric(), begun)? {
        Some(folder) => folder,
        None => FolderWriter::join(&target)?,
    };
    let written = write_files(lanes, first, &mut folder);
    together(lanes.fabric(), written)?;
    let files = folder.entries().keys().cloned().collect();
    let entries = serde_json::to_string(folder.entries()).expect("names and hashes are JSON");
    let all = gather::texts(lanes.fabric(), &entries)?;
    let finished = if begins { finish(folder, &all, meta, checkpoints, keep) } else { Ok(()) };
    together(lanes.fabric(), finished)?;
    Ok(Some(files))
}

/// Makes the folder to write into, after the leftovers of killed processes are removed.
fn begin(checkpoints: &Path, target: &Path) -> Result<FolderWriter> {
    sweep(checkpoints)?;
    Ok(FolderWriter::create(target)?)
}

/// Removes leftovers of killed processes.
///
/// # Errors
/// If something cannot be removed.
pub(crate) fn sweep(checkpoints: &Path) -> Result<()> {
    for path in entries(checkpoints)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(".step-") {
            std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Removes the checkpoints of later steps than `step`, and the leftovers of killed processes.
///
/// # Errors
/// If something cannot be removed.
pub(crate) fn remove_after(checkpoints: &Path, step: u64) -> Result<()> {
    sweep(checkpoints)?;
    let all = list(checkpoints)?.into_iter();
    all.filter(|(at, _)| *at > step).try_for_each(|(_, path)| Ok(remove_folder(&path)?))
}

/// Writes the files of the local lanes and, at the first process, of the dense weights.
fn write_files(lanes: &Lanes, first: bool, folder: &mut FolderWriter) -> Result<()> {
    if first {
        let dense = &lanes.dense;
        let shape = [dense.w.len()];
        folder.add_tensors(
            DENSE,
            &[
                Tensor::f32("w", &shape, &dense.w),
                Tensor::f32("m", &shape, &dense.m),
                Tensor::f32("v", &shape, &dense.v),
            ],
        )?;
    }
    for (lane, shard) in lanes.topology.local().zip(lanes.shards()) {
        write_lane(&lane_file(lane), shard, folder)?;
    }
    Ok(())
}

fn write_lane(file: &str, shard: &Shard, folder: &mut FolderWriter) -> Result<()> {
    let table = &shard.table;
    let slots = table.slots_by_id();
    let ids: Vec<u64> = slots.iter().map(|&slot| table.id(slot)).collect();
    // Room for one lane's rows, known beforehand: a list that doubles would take up to twice that.
    let mut rows: Vec<f32> = Vec::with_capacity(slots.len() * table.width());
    slots.iter().for_each(|&slot| rows.extend_from_slice(table.state(slot)));
    let seen = slots.iter().filter_map(|&slot| Some(table.sighting(slot)?.to_bits()));
    let seen: Vec<u64> = seen.collect();
    let shape = [ids.len(), table.width() / table.dim(), table.dim()];
    let mut tensors = vec![Tensor::u64("ids", &ids), Tensor::f32("rows", &shape, &rows)];
    if table.is_tracked() {
        tensors.push(Tensor::u64(SEEN, &seen));
    }
    if let Some(sketch) = &shard.sketch {
        tensors.push(Tensor::u32(SKETCH, sketch.cells()));
    }
    Ok(folder.add_tensors(file, &tensors)?)
}

/// Gives the folder its manifest and its name, then removes old checkpoints.
fn finish(
    mut folder: FolderWriter,
    entries: &[String],
    meta: Meta,
    checkpoints: &Path,
    keep: usize,
) -> Result<()> {
    for entries in entries {
        folder.adopt(serde_json::from_str(entries).expect("the other ranks write JSON"));
    }
    let best = meta.config.train.early_stop.and(meta.history.best).map(|best| best.step);
    folder.finish(FORMAT, meta)?;
    let mut all = list(checkpoints)?;
    all.truncate(all.len().saturating_sub(keep));
    let old = all.into_iter().filter(|(step, _)| Some(*step) != best);
    old.into_iter().try_for_each(|(_, path)| Ok(remove_folder(&path)?))
}

/// The rows of one lane.
pub(crate) struct LaneRows {
    /// Ids in ascending order; (n).
    pub ids: Numbers<u64>,
    /// Rows with their optimizer state; (n, 1 + states, D).
    pub rows: Numbers<f32>,
    /// Their sightings as [`Sighting::to_bits`]; (n). None in a training without eviction.
    seen: Option<Numbers<u64>>,
    /// Cells of the sketch that counts ids, if there is one.
    sketch: Option<Numbers<u32>>,
}

impl LaneRows {
    /// The sightings of row `at`; none where they are not known.
    pub(crate) fn sighting(&self, at: usize) -> Sighting {
        self.seen.as_ref().map_or(Sighting::NONE, |seen| Sighting::from_bits(seen[at]))
    }
}

/// A checkpoint on disk.
pub(crate) struct Checkpoint {
    folder: Folder<Meta>,
}

impl Checkpoint {
    /// Opens the checkpoint in `path`.
    ///
    /// # Errors
    /// If it is none, or of another format, or if its manifest has changed.
    pub(crate) fn open(path: &Path) -> Result<Checkpoint> {
        let folder: Folder<Meta> = Folder::open(path, FORMAT)?;
        let file = path.join(MANIFEST);
        let text = std::fs::read(&file).map_err(Error::io(&file))?;
        let mut manifest: serde_json::Value = serde_json::from_slice(&text)
            .map_err(|error| Error::content(&file, error.to_string()))?;
        let (got, want) = (seal(manifest["meta"].take()), &folder.manifest.meta.blake3);
        if got != *want {
            let what = format!("blake3 of meta is {got}, expected {want}");
            return Err(Error::content(file, what));
        }
        Ok(Checkpoint { folder })
    }

    /// The manifest, but for its list of files.
    pub(crate) fn meta(&self) -> &Meta {
        &self.folder.manifest.meta
    }

    /// The folder of the checkpoint.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills freshly made `lanes` of the same model.
    ///
    /// # Errors
    /// If a file is missing, changed, or does not fit the model.
    pub(crate) fn restore(&self, lanes: &mut Lanes) -> Result<()> {
        let (file, len) = (self.folder.tensors(DENSE)?, lanes.network.dense_len());
        let read = |name| Ok::<_, Error>(file.any_f32(name, &[len])?.to_vec());
        lanes.dense = Dense { w: read("w")?, m: read("m")?, v: read("v")? };
        for (lane, shard) in lanes.topology.local().zip(lanes.shards_mut()) {
            shard.newest = self.meta().newest_day;
            self.restore_lane(lane, shard)?;
        }
        Ok(())
    }

    fn restore_lane(&self, lane: usize, shard: &mut Shard) -> Result<()> {
        let wrong = |what| Err(Error::content(self.path().join(lane_file(lane)), what));
        let table = &mut shard.table;
        let (width, dim) = (table.width(), table.dim());
        let lane_rows = self.rows(lane, [width / dim, dim])?;
        let LaneRows { ids, rows, sketch, .. } = &lane_rows;
        if ids.len() > table.most() {
            let most = table.most();
            return wrong(format!("{} rows, but train.eviction allows {most}", ids.len()));
        }
        for (at, (&id, state)) in ids.iter().zip(rows.chunks_exact(width)).enumerate() {
            if !table.restore(id, state) {
                return wrong(format!("id {id} has two rows"));
            }
            table.see(at as u32, lane_rows.sighting(at));
        }
        if let (Some(sketch), Some(cells)) = (&mut shard.sketch, sketch)
            && !sketch.restore(cells)
        {
            let expected = sketch.cells().len();
            return wrong(format!("{SKETCH} of {} cells, expected {expected}", cells.len()));
        }
        Ok(())
    }

    /// The `len` dense weights.
    ///
    /// # Errors
    /// If the file is missing, changed, or has another number of weights.
    pub(crate) fn dense(&self, len: usize) -> Result<Numbers<f32>> {
        Ok(self.folder.tensors(DENSE)?.any_f32("w", &[len])?)
    }

    /// The rows of lane `lane`, of the shape (1 + states, D) each.
    ///
    /// # Errors
    /// If the file is missing, changed, or its rows have another shape.
    pub(crate) fn rows(&self, lane: usize, row: [usize; 2]) -> Result<LaneRows> {
        let file = self.folder.tensors(&lane_file(lane))?;
        let ids = file.u64("ids")?;
        let rows = file.any_f32("rows", &[ids.len(), row[0], row[1]])?;
        let seen = if file.has(SEEN) { Some(file.u64(SEEN)?) } else { None };
        if let Some(seen) = seen.as_ref().filter(|seen| seen.len() != ids.len()) {
            let what = format!("{SEEN} of {} rows, expected {}", seen.len(), ids.len());
            return Err(Error::content(self.path().join(lane_file(lane)), what));
        }
        let sketch = if file.has(SKETCH) { Some(file.u32(SKETCH)?) } else { None };
        Ok(LaneRows { ids, rows, seen, sketch })
    }
}

fn lane_file(lane: usize) -> String {
    format!("lane-{lane:02}.safetensors")
}

/// The lane whose file is called `file`; none of another file.
pub(crate) fn lane_of(file: &str) -> Option<usize> {
    file.strip_prefix("lane-")?.strip_suffix(".safetensors")?.parse().ok()
}
