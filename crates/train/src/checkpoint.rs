//! Checkpoints: everything a training needs to go on as if it had never stopped.
//!
//! ```text
//! step-N/
//!   lane-LL.safetensors   ids u64 (n) ascending, rows f32 (n, 3, D): embedding, m, v
//!   dense.safetensors     w, m, v f32: W, then every tower
//!   MANIFEST.json         cursor, configuration, size and blake3 of every file; written last
//! ```
//! One file per lane: going on with another number of processes is assignment, not resharding. Rows are
//! written by ascending id, so the files do not depend on when an id was first seen.

use std::path::{Path, PathBuf};

use ams_bundle::Spec;
use ams_bundle::folder::{Folder, FolderWriter, Tensor};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::lanes::{Dense, Lanes};
use crate::table::Table;

/// `format` of the manifests this build reads and writes.
pub const FORMAT: &str = "ams-checkpoint/1";

/// Where a training stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Steps taken.
    pub step: u64,
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// Steps taken in this epoch.
    pub step_in_epoch: u64,
    /// Impressions learned from.
    pub impressions: u64,
}

/// What the manifest of a checkpoint says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Where the training stood.
    pub cursor: Cursor,
    /// Its configuration.
    pub config: Config,
    /// The model.
    pub spec: Spec,
}

/// The folder of the checkpoint after `step` steps.
pub fn path(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!("step-{step}"))
}

/// The finished checkpoints below `checkpoints`, oldest first.
///
/// # Errors
/// If the folder cannot be listed; a missing folder holds none.
pub fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(checkpoints) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(Error::io(checkpoints)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(checkpoints))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Writes the checkpoint of `lanes` at `cursor` and removes all but the newest `keep`.
///
/// # Errors
/// If it cannot be written; then nothing of it stays behind, and earlier ones are untouched.
pub fn save(
    checkpoints: &Path,
    keep: usize,
    lanes: &Lanes,
    cursor: Cursor,
    config: &Config,
) -> Result<PathBuf> {
    let place = path(checkpoints, cursor.step);
    if place.exists() {
        // Taken already: the training stopped right after it.
        return Ok(place);
    }
    let mut folder = FolderWriter::create(&place)?;
    let dense = &lanes.dense;
    let shape = [dense.w.len()];
    folder.add_tensors(
        "dense.safetensors",
        &[
            Tensor::f32("w", &shape, &dense.w),
            Tensor::f32("m", &shape, &dense.m),
            Tensor::f32("v", &shape, &dense.v),
        ],
    )?;
    for (lane, shard) in lanes.topology.local().zip(&lanes.shards) {
        let table = &shard.table;
        let slots = table.slots_by_id();
        let ids: Vec<u64> = slots.iter().map(|&slot| table.id(slot)).collect();
        let rows: Vec<f32> = slots.iter().flat_map(|&slot| table.state(slot)).copied().collect();
        let tensors =
            [Tensor::u64("ids", &ids), Tensor::f32("rows", &[ids.len(), 3, table.dim()], &rows)];
        folder.add_tensors(&lane_file(lane), &tensors)?;
    }
    let meta = Meta { cursor, config: config.clone(), spec: lanes.plan.spec.clone() };
    folder.finish(FORMAT, meta)?;
    let mut all = list(checkpoints)?;
    all.truncate(all.len().saturating_sub(keep));
    for (_, old) in all {
        std::fs::remove_dir_all(&old).map_err(Error::io(&old))?;
    }
    Ok(place)
}

/// A checkpoint on disk.
pub struct Checkpoint {
    folder: Folder<Meta>,
}

impl Checkpoint {
    /// Opens the checkpoint in `path`.
    ///
    /// # Errors
    /// If it is none, or of another format.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Ok(Checkpoint { folder: Folder::open(path, FORMAT)? })
    }

    /// Opens the newest checkpoint below `checkpoints`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn newest(checkpoints: &Path) -> Result<Checkpoint> {
        match list(checkpoints)?.pop() {
            Some((_, path)) => Checkpoint::open(&path),
            None => Err(Error::content(checkpoints, "holds no checkpoint; train the run first")),
        }
    }

    /// What the manifest says.
    pub fn meta(&self) -> &Meta {
        &self.folder.manifest.meta
    }

    /// Fills freshly made `lanes` of the same model.
    ///
    /// # Errors
    /// If a file is missing, changed, or does not fit the model.
    pub fn restore(&self, lanes: &mut Lanes) -> Result<()> {
        let len = lanes.plan.dense_len();
        self.tensors("dense.safetensors", |tensors, path| {
            let read = |name: &str| -> Result<Vec<f32>> {
                let values = floats(tensors, name, path)?;
                if values.len() != len {
                    let what = format!("{name} has {} floats, expected {len}", values.len());
                    return Err(Error::content(path, what));
                }
                Ok(values)
            };
            lanes.dense = Dense { w: read("w")?, m: read("m")?, v: read("v")? };
            Ok(())
        })?;
        for (lane, shard) in lanes.topology.local().zip(&mut lanes.shards) {
            self.tensors(&lane_file(lane), |tensors, path| {
                restore_table(&mut shard.table, tensors, path)
            })?;
        }
        Ok(())
    }

    /// Reads and verifies a file and shows its tensors to `read`.
    fn tensors(
        &self,
        name: &str,
        read: impl FnOnce(&SafeTensors<'_>, &Path) -> Result<()>,
    ) -> Result<()> {
        let path = self.folder.path().join(name);
        let bytes = self.folder.read(name)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| Error::content(&path, error.to_string()))?;
        read(&tensors, &path)
    }
}

fn restore_table(table: &mut Table, tensors: &SafeTensors<'_>, path: &Path) -> Result<()> {
    let ids = tensors.tensor("ids").map_err(|error| Error::content(path, error.to_string()))?;
    let ids: Vec<u64> = bytemuck::pod_collect_to_vec(ids.data());
    let rows = floats(tensors, "rows", path)?;
    let width = 3 * table.dim();
    if rows.len() != ids.len() * width {
        let what = format!("{} floats for {} rows of {width}", rows.len(), ids.len());
        return Err(Error::content(path, what));
    }
    for (&id, state) in ids.iter().zip(rows.chunks_exact(width)) {
        if !table.restore(id, state) {
            return Err(Error::content(path, format!("id {id} has two rows")));
        }
    }
    Ok(())
}

fn floats(tensors: &SafeTensors<'_>, name: &str, path: &Path) -> Result<Vec<f32>> {
    let view = tensors.tensor(name).map_err(|error| Error::content(path, error.to_string()))?;
    if view.dtype() != safetensors::Dtype::F32 {
        return Err(Error::content(path, format!("{name} is {:?}, expected F32", view.dtype())));
    }
    Ok(bytemuck::pod_collect_to_vec(view.data()))
}

fn lane_file(lane: usize) -> String {
    format!("lane-{lane:02}.safetensors")
}
