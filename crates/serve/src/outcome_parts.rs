//! Outcomes from a folder: Parquet files as they land.
//!
//! ```text
//! FOLDER/<model>/<any>.parquet     rows as of `ams_data::outcomes`
//! ```
//! - A file counts once it is whole, all of it or nothing, and once: by its name.
//! - What is whole when the server begins counts for nothing, as what was posted to another server
//!   does: counts begin with the server. So no restart counts a file twice.
//! - A file that is wrong counts for nothing, and is tried again when it is another one, by size
//!   and time.
//! - A name that is gone is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ams_data::outcomes::{for_each, is_whole};

use crate::models::Models;
use crate::promotion::{Counted, billionths};
use crate::telemetry::Telemetry;

/// What is known of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It counts, or is from before the server.
    Done,
    /// It was wrong when it was so.
    Refused(Stamp),
}

/// Size and time of a file's last change.
type Stamp = (u64, Option<SystemTime>);

/// The folder, and what was read of it.
#[derive(Debug)]
pub(crate) struct OutcomeParts {
    folder: PathBuf,
    known: Mutex<BTreeMap<PathBuf, Known>>,
    telemetry: Arc<Telemetry>,
}

impl OutcomeParts {
    /// Those of `folder`; what is whole there now is done.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn new(folder: &Path, telemetry: &Arc<Telemetry>) -> Result<OutcomeParts, String> {
        let mut known = BTreeMap::new();
        for (_, path) in parts(folder)? {
            if is_whole(&path).map_err(|error| error.to_string())? {
                known.insert(path, Known::Done);
            }
        }
        tracing::info!(
            folder = %folder.display(),
            parts = known.len(),
            "outcomes are read as they land; parts that are there already do not count"
        );
        let (folder, known) = (folder.to_path_buf(), Mutex::new(known));
        Ok(OutcomeParts { folder, known, telemetry: Arc::clone(telemetry) })
    }

    /// Counts what landed since the last look, in the order of names. Files of a model that the
    /// server does not know wait.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(crate) fn look(&self, models: &Models) -> Result<(), String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = parts(&self.folder)?;
        let there: BTreeSet<&PathBuf> = found.iter().map(|(_, path)| path).collect();
        known.retain(|path, _| there.contains(path));
        let mut waiting = 0;
        for (model, path) in &found {
            // It may be gone by now.
            let Some(stamp) = stamp(path) else { continue };
            match known.get(path) {
                Some(Known::Done) => continue,
                Some(Known::Refused(before)) if *before == stamp => continue,
                _ => {}
            }
            if !models.knows(model) || !is_whole(path).unwrap_or(false) {
                waiting += 1;
                continue;
            }
            let now = match self.count(models, model, path) {
                Ok(()) => Known::Done,
                Err(error) => {
                    tracing::error!(
                        model,
                        error,
                        "a part of outcomes is refused: none of it counts"
                    );
                    self.telemetry.outcome_part_refused(model);
                    Known::Refused(stamp)
                }
            };
            known.insert(path.clone(), now);
        }
        self.telemetry.outcome_parts_waiting.set(f64::from(waiting));
        Ok(())
    }

    fn count(&self, models: &Models, model: &str, path: &Path) -> Result<(), String> {
        let mut of_versions: BTreeMap<u64, Counted> = BTreeMap::new();
        for_each(path, |outcome| {
            let counted = of_versions.entry(outcome.version).or_default();
            counted.impressions += 1;
            counted.clicks += u64::from(outcome.clicked);
            counted.predicted += billionths(outcome.ctr);
        })
        .map_err(|error| error.to_string())?;
        let counted: u64 = of_versions.values().map(|of| of.impressions).sum();
        let left_out =
            models.count_outcomes(model, of_versions).map_err(|refusal| refusal.to_string())?;
        let part = path.display();
        tracing::info!(model, %part, counted = counted - left_out, left_out, "outcomes");
        self.telemetry.outcome_part_counted(model);
        Ok(())
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()))
}

/// Every Parquet file with its model, in the order of their names. Names that begin with a point or
/// an underline are those of programs that still write.
fn parts(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut found = Vec::new();
    for (model, path) in entries(folder)? {
        if !path.is_dir() || is_hidden(&model) {
            continue;
        }
        for (name, path) in entries(&path)? {
            let is_part = path.extension().is_some_and(|extension| extension == "parquet");
            if is_part && !is_hidden(&name) && path.is_file() {
                found.push((model.clone(), path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

/// Names and paths in `folder`; names that are no text are left out.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let unread = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        all.extend(entry.file_name().to_str().map(|name| (name.to_owned(), entry.path())));
    }
    Ok(all)
}
