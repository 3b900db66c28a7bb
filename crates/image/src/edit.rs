//! Changes of a store that need no picture: names go, files are put together.
//!
//! Knows versions of a store. Does not know how a row was computed.

use std::collections::BTreeSet;
use std::path::Path;

use ams_data::{Error, ImageKey, Result};
use half::f16;
use serde::Serialize;

use crate::card::StoreCard;
use crate::manifest::{Picture, read_pictures};
use crate::row::Row;
use crate::segment::RowSource;
use crate::semantic::CodesPlan;
use crate::store::FeatureStore;
use crate::write::{EncoderId, Target, Version};

/// What a store is after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The version that the store has now.
    pub generation: u64,
    /// Distinct images that a picture shows.
    pub images: u64,
    /// Picture names that have a row.
    pub names: u64,
    /// Names that are no longer there.
    pub removed: u64,
    /// Rows that no picture shows, still in the files.
    pub dead: u64,
    /// Length of all files.
    pub bytes: u64,
}

impl Changed {
    fn new(card: &StoreCard, removed: usize) -> Changed {
        Changed {
            generation: card.generation,
            images: card.images,
            names: card.names,
            removed: removed as u64,
            dead: card.dead,
            bytes: card.files.values().map(|file| file.bytes).sum(),
        }
    }
}

/// Takes pictures out of the store at `dir`. Rows that no picture shows any more stay in the files,
/// unseen, until [`compact`]; were they shown again, they would not be encoded again.
///
/// # Errors
/// [`Error::Option`] if the store has no picture of one of these names, or no picture would be
/// left; nothing is changed then. Also if the store is not sound, or another process is writing it.
pub fn remove(dir: &Path, names: &[String]) -> Result<Changed> {
    let (target, store, pictures) = take(dir)?;
    let gone: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_gone = |picture: &Picture| gone.contains(picture.name.as_str());
    let known: BTreeSet<&str> = pictures.iter().map(|picture| &picture.name[..]).collect();
    if let Some(unknown) = gone.iter().find(|name| !known.contains(*name)) {
        let what = format!("{}: has no picture \"{unknown}\"", dir.display());
        return Err(Error::option(what));
    }
    let left: Vec<Picture> = pictures.iter().filter(|it| !is_gone(it)).cloned().collect();
    if left.iter().all(|picture| picture.failure.is_some()) {
        let what =
            format!("{}: no picture would be left; remove the folder instead", dir.display());
        return Err(Error::option(what));
    }
    let version = Version {
        encoder_id: &EncoderId::of(store.card()),
        rows: store.card().rows,
        pictures: &left,
        base: Some(&store),
        source: &store,
        codes: CodesPlan::new(None, Some(&store)),
    };
    Ok(Changed::new(&target.commit(&version)?, pictures.len() - left.len()))
}

/// Writes every part of the store at `dir` anew as one file, without the rows that no picture
/// shows.
///
/// # Errors
/// If the store is not sound, or another process is writing it.
pub fn compact(dir: &Path) -> Result<Changed> {
    let (target, store, pictures) = take(dir)?;
    if store.card().generations() <= 1 && store.card().dead == 0 {
        return Ok(Changed::new(store.card(), 0));
    }
    // Nobody notices a damaged row later, because its file gets a new checksum.
    store.verify()?;
    let version = Version {
        encoder_id: &EncoderId::of(store.card()),
        rows: store.card().rows,
        pictures: &pictures,
        base: None,
        source: &store,
        codes: CodesPlan::new(None, Some(&store)),
    };
    Ok(Changed::new(&target.commit(&version)?, 0))
}

/// The store at `dir` with the right to change it.
fn take(dir: &Path) -> Result<(Target, FeatureStore, Vec<Picture>)> {
    // Before the lock, so that no folder is made for a store that is not there.
    StoreCard::read(dir)?;
    let target = Target::take(dir)?;
    let store = FeatureStore::open(dir)?;
    let pictures = read_pictures(&dir.join(store.card().pictures_file()))?;
    Ok((target, store, pictures))
}

impl RowSource for FeatureStore {
    fn row<'a>(&'a self, key: ImageKey, _: &'a mut Vec<f16>) -> Result<Row<'a>> {
        Ok(self.stored_row(key).expect("the store lists this key"))
    }
}

#[cfg(test)]
mod tests;
