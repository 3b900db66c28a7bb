//! A version with its deltas, one after the other: opened, and followed while it is used.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::deltas::{DeltaMeta, FORMAT, following, is_there, listed};
use crate::files::folder::{Folder, MANIFEST};
use crate::files::layout::{IDS, IMAGE_TABLE, PICTURES};
use crate::model::{Delta, DeltaState, Model};
use crate::tables::items::{self, ITEMS};
use crate::tables::{contents, rows};

impl Model {
    /// Opens a version (`<model>/<version>/`) or the highest version of a model (`<model>/`), with
    /// all its deltas. Everything is checked: hashes, shapes, orders; and the golden logits are
    /// computed again.
    ///
    /// # Errors
    /// If there is no bundle, a file is missing, changed or does not fit the spec, or a golden
    /// logit differs.
    pub fn open(dir: &Path) -> Result<Model> {
        let mut model = Model::open_bundle(dir)?;
        while let Some(next) = model.next()? {
            model = next;
        }
        Ok(model)
    }

    /// The model with the delta that follows, if there is one on disk, in the same kind of memory.
    ///
    /// # Errors
    /// If that is damaged or does not follow this model.
    pub fn next(&self) -> Result<Option<Model>> {
        Ok(next(self)?.map(|delta| self.apply(delta)))
    }

    /// Where the delta is, or will be, that [`Model::next`] opens.
    ///
    /// # Errors
    /// If the folder of deltas is there and cannot be listed.
    pub fn next_place(&self) -> Result<PathBuf> {
        Ok(following(self.path(), self.deltas())?.0)
    }
}

/// The model with the delta that follows `model`, for those who write and those who want to know.
///
/// # Errors
/// If that is damaged, or is not there while a later one is: with what to do.
pub(crate) fn next_or_stuck(model: &Model) -> Result<Option<Model>> {
    let following = || following(model.path(), model.delta().number);
    loop {
        let (place, number) = following()?;
        let what = match model.next() {
            Ok(Some(next)) => return Ok(Some(next)),
            Err(error) => format!("is damaged: {error}"),
            Ok(None) => match listed(model.path(), |span| span.last >= number)?.values().next() {
                None => return Ok(None),
                // Written between the two looks.
                Some(_) if is_there(&following()?.0) => continue,
                Some(later) if is_there(later) => {
                    format!("is missing, while {} is there", later.display())
                }
                Some(later) => format!("cannot be: {} has no {MANIFEST}", later.display()),
            },
        };
        let what = format!(
            "delta {number} {what}. Nothing can follow it: put its files back from a copy; or remove it and all that come after it, and \
             make their changes again with `ams delta`"
        );
        return Err(Error::content(&place, what));
    }
}

/// Opens a version (`<model>/<version>/`, or the highest of `<model>/`) and all of its deltas,
/// which checks everything. `opened` is told each state of the model: as it was published, then
/// with each delta. Returns the last.
///
/// # Errors
/// At the first that is damaged or missing: which, what is wrong, and what to do.
pub fn verify(version_dir: &Path, mut opened: impl FnMut(&Model)) -> Result<Model> {
    let mut model = Model::open_bundle(version_dir)?;
    opened(&model);
    while let Some(next) = next_or_stuck(&model)? {
        opened(&next);
        model = next;
    }
    Ok(model)
}

/// The delta that follows `model`, if there is one.
///
/// # Errors
/// If it is damaged, or does not follow this model.
pub(crate) fn next(model: &Model) -> Result<Option<Delta>> {
    let following = || following(model.path(), model.delta().number);
    let mut found = following()?;
    loop {
        let read = read(model, &found.0, found.1);
        if matches!(read, Ok(Some(_))) {
            return read;
        }
        // It may have been compacted, and removed, while it was read.
        let now = following()?;
        if now == found {
            return read;
        }
        found = now;
    }
}

/// The delta at `path`, whose last number is `number`, if there is one.
fn read(model: &Model, path: &Path, number: u64) -> Result<Option<Delta>> {
    if !is_there(path) {
        return Ok(None);
    }
    let folder = Folder::<DeltaMeta>::open_in(path, FORMAT, model.memory())?;
    let meta = &folder.manifest.meta;
    let state = model.delta();
    let follows = if meta.covers.is_empty() { &state.hash[..] } else { model.hash() };
    for (what, got, expected) in [
        ("base", &meta.base[..], model.hash()),
        ("follows", &meta.follows, follows),
        ("number", &meta.number.to_string(), &number.to_string()),
    ] {
        if got != expected {
            let what = format!("meta.{what} is {got}, expected {expected}: it belongs elsewhere");
            return Err(Error::content(path.join(MANIFEST), what));
        }
    }
    let hash = match &meta.covers[..] {
        [] if state.number + 1 == number => folder.manifest.hash(),
        covers => covered(covers, number, state)
            .map_err(|what| Error::content(path.join(MANIFEST), what))?,
    };
    let spec = model.spec();
    Ok(Some(Delta {
        rows: Arc::new(rows::read(&folder.tensors(IDS)?, spec.dim())?),
        contents: contents::read_tables(
            &folder.tensors(IMAGE_TABLE)?,
            &folder.tensors(PICTURES)?,
            spec,
        )?,
        items: Arc::new(items::read(&folder.tensors(ITEMS)?, model.items().fields())?),
        state: DeltaState { number, hash, meta: Some(Arc::new(meta.clone())) },
    }))
}

/// The hash of delta `number`, the last of `covers`, if a model in `state` is among or before them.
fn covered(covers: &[String], number: u64, state: &DeltaState) -> Result<String, String> {
    if covers.len() as u64 != number {
        return Err(format!("meta.covers has {} hashes, expected {number}", covers.len()));
    }
    let before = state.number.checked_sub(1).and_then(|at| covers.get(at as usize));
    if let Some(before) = before.filter(|before| **before != state.hash) {
        let (number, hash) = (state.number, &state.hash);
        return Err(format!(
            "meta.covers says that delta {number} is {before}, expected {hash}: it belongs elsewhere"
        ));
    }
    Ok(covers[covers.len() - 1].clone())
}
