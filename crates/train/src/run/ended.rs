//! How a training with early stop ends: the best epoch is the result of the run.
//!
//! ```text
//! 1  a checkpoint after each epoch; its manifest has the history of validation, so a training
//!    that goes on from it decides the same; that of the best epoch is never pruned
//! 2  the last epoch's history says that this is the end
//! 3  ended.json is written whole: which checkpoint is the result
//! 4  the checkpoints after it are removed, so that the newest one is the result
//! ```
//! Killed before 3, a training that goes on comes to 2 again; killed after it, it does the rest
//! of 4 and is done. A result whose checkpoint was removed does not count.

use std::fs;
use std::path::Path;

use ams_fabric::{Fabric, gather};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::run::layout::{CHECKPOINTS, ENDED};
use crate::run::progress::{Cursor, History};

/// How a training with early stop ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ended {
    /// The step of the checkpoint that is the result: the best epoch's, or the last one's without
    /// any.
    pub result: u64,
    /// Steps taken, also those after the result.
    pub steps: u64,
    /// The validations of the training.
    pub history: History,
}

impl Ended {
    /// Of a training that has nothing left to do at `cursor`.
    pub(crate) fn at(cursor: Cursor, history: History) -> Ended {
        let result = history.best.map_or(cursor.step, |best| best.step);
        Ended { result, steps: cursor.step, history }
    }

    /// Makes this the result of the training in `run`. The first process calls it.
    ///
    /// # Errors
    /// If the checkpoint that is the result is gone, or the folder cannot be written.
    pub(crate) fn conclude(&self, run: &Path) -> Result<()> {
        let checkpoints = run.join(CHECKPOINTS);
        is_there(&checkpoints, self.result)?;
        let text = serde_json::to_string_pretty(self).expect("numbers are JSON");
        ams_data::staging::write_whole(&run.join(ENDED), text + "\n")?;
        checkpoint::remove_after(&checkpoints, self.result)
    }

    /// How the training in `run` ended, if it did; removes the checkpoints that a killed process
    /// left. The first process calls it.
    ///
    /// # Errors
    /// If the folder cannot be read or written.
    pub(crate) fn settle(run: &Path) -> Result<Option<Ended>> {
        let (path, checkpoints) = (run.join(ENDED), run.join(CHECKPOINTS));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::io(&path))?,
        };
        let ended: Ended = serde_json::from_str(&text)
            .map_err(|error| Error::content(&path, error.to_string()))?;
        if checkpoint::path(&checkpoints, ended.result).exists() {
            checkpoint::remove_after(&checkpoints, ended.result)?;
            return Ok(Some(ended));
        }
        // Somebody removed it, perhaps a damaged one: the training goes on from an earlier one.
        fs::remove_file(&path).map_err(Error::io(&path))?;
        Ok(None)
    }

    /// `mine` of the first process, at every process. All call it together.
    pub(crate) fn tell(mine: Option<Ended>, fabric: &mut dyn Fabric) -> Result<Option<Ended>> {
        let text = mine.map_or(String::new(), |ended| {
            serde_json::to_string(&ended).expect("numbers are JSON")
        });
        let first = gather::texts(fabric, &text)?.swap_remove(0);
        Ok((!first.is_empty())
            .then(|| serde_json::from_str(&first).expect("the first writes JSON")))
    }
}

/// That the checkpoint of the best epoch, after `step` steps, is still there.
///
/// # Errors
/// If not.
pub(crate) fn is_there(checkpoints: &Path, step: u64) -> Result<()> {
    let path = checkpoint::path(checkpoints, step);
    if path.exists() {
        return Ok(());
    }
    let what = "is missing, but it is the best epoch's; remove the checkpoints after it to train these \
                epochs again, or --replace the run";
    Err(Error::content(path, what))
}
