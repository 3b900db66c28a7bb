//! Decisions where no server runs: servers of the folder follow them at their next look.

use std::path::Path;

use ams_bundle::{Error, Model, whole_versions};

use super::decisions::{Author, DecisionStore, Decisions, ModelDecisions, highest};
use super::refusal::Refusal;

/// The version of `model` that servers of the folder `models` serve: the pinned one, or else the
/// highest that was not withdrawn; none if there is none, or the model is unloaded.
///
/// # Errors
/// If the folder or its decisions cannot be read.
pub fn serving_version(models: &Path, model: &str) -> Result<Option<u64>, Error> {
    let found = whole_versions(&models.join(model))?;
    Ok(serving(&found, &Decisions::read(models)?.of(model)))
}

/// The same of the versions that were `found`.
pub(super) fn serving(found: &[u64], decided: &ModelDecisions) -> Option<u64> {
    let pinned = decided.pinned.as_ref().map(|pinned| pinned.version);
    let there = pinned.filter(|version| found.contains(version));
    there.or_else(|| highest(found, decided, &[])).filter(|_| decided.unloaded.is_none())
}

/// Takes the version of `model` that serves back: the highest one below it that opens and was not
/// withdrawn serves instead, and this one does not serve by itself again. Returns both.
///
/// # Errors
/// If there is no such version, or the decision cannot be written; then nothing has changed.
pub fn roll_back(models: &Path, model: &str, by: &str) -> Result<[u64; 2], Error> {
    let folder = models.join(model);
    let refused = |what: String| Error::content(&folder, what);
    let found = whole_versions(&folder)?;
    let decided = Decisions::read(models)?.of(model);
    let Some(live) = serving(&found, &decided) else {
        return Err(refused("has no version that serves".to_owned()));
    };
    let mut lower = found.iter().rev().copied().filter(|&version| version < live);
    let before = lower.find(|version| {
        !decided.withdrawn.contains_key(version)
            && Model::open(&folder.join(version.to_string())).is_ok()
    });
    let Some(before) = before else {
        let what = format!("has no valid version below {live} that was not withdrawn");
        return Err(refused(what));
    };
    let mut store = DecisionStore::default();
    let kept = store.decide(models, model, |decided: &mut ModelDecisions| {
        let explicit = decided.chosen.is_some();
        decided.withdrawn.insert(live, Author::of(by));
        if decided.canary.as_ref().is_some_and(|canary| canary.version == before) {
            decided.canary = None;
        }
        decided.serve(before, highest(&found, decided, &[]), explicit, by);
        Ok(())
    });
    kept.map_err(|refusal: Refusal| refused(refusal.to_string()))?;
    match store.unkept {
        None => Ok([live, before]),
        Some(error) => Err(Error::content(models, error)),
    }
}

/// The names of the models in a folder, ascending.
///
/// # Errors
/// If it cannot be listed.
pub(super) fn model_names(folder: &Path) -> Result<Vec<String>, Error> {
    let listed = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut names: Vec<String> = listed
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    Ok(names)
}
