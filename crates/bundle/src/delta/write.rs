//! Writing deltas. One process at a time does, under the lock `.deltas.lock` of the version.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ams_data::lock::Lock;
use ams_data::{Id, PictureName, Ragged};

use crate::delta::changes::{Changes, ItemRecord};
use crate::delta::follow::next_or_stuck;
use crate::error::{Error, Result};
use crate::files::deltas::{DeltaMeta, FORMAT, place};
use crate::files::folder::{FileList, FolderWriter, MANIFEST, OwnedTensor};
use crate::files::layout::IDS;
use crate::files::tensors::{Texts, lengths};
use crate::model::Model;
use crate::tables::contents;
use crate::tables::items::{self, ITEMS};
use crate::tables::layer::keys;

/// How long a writer waits for another: a delta is written in moments.
const PATIENCE: Duration = Duration::from_secs(5);

impl Model {
    /// Writes `changes` as a delta after the last one on disk, which others may have written since
    /// this model was opened, and returns the model with all of them. What is no news by then
    /// is left out; if that is everything, nothing is written.
    ///
    /// # Errors
    /// If another process writes for too long, a delta before is damaged, or it cannot be written;
    /// then nothing has changed.
    pub fn change(&self, changes: &Changes) -> Result<Model> {
        write(self, changes)
    }
}

/// Waits for the lock of writers of a version's deltas.
///
/// # Errors
/// If the version is not there any more, another process holds the lock for too long, or it cannot
/// be written.
pub(crate) fn lock(model: &Model) -> Result<Lock> {
    // Before, so that no folder is made where one was removed; and after, because it may be removed
    // meanwhile.
    check_there(model)?;
    let lock = Lock::wait(model.path(), "deltas", PATIENCE)?;
    check_there(model)?;
    Ok(lock)
}

/// Checks that the version on disk is still the one that was opened: a model in memory outlives its
/// files.
fn check_there(model: &Model) -> Result<()> {
    let there = model.path().join(MANIFEST).exists();
    if there && FileList::read(model.path())?.hash() == model.hash() {
        return Ok(());
    }
    let what = if there { "is another version now" } else { "was removed" };
    let what = format!("{what} after this model was opened: no delta can follow it");
    Err(Error::content(model.path(), what))
}

/// Writes `changes` as the delta that follows `model` and what others wrote after it. Returns the
/// model with all of these.
///
/// # Errors
/// If another process writes for too long, a delta before is damaged, or something cannot be
/// written; then nothing stays behind.
pub(crate) fn write(model: &Model, changes: &Changes) -> Result<Model> {
    changes.check(model.spec().dim())?;
    let _writer = lock(model)?;
    let mut newest = model.clone();
    while let Some(next) = next_or_stuck(&newest)? {
        newest = next;
    }
    // Changes say what is, so they mean the same after those of others; but may be no news any
    // more.
    let changes = if newest.deltas() == model.deltas() {
        Cow::Borrowed(changes)
    } else {
        Cow::Owned(changes.news(&newest))
    };
    if changes.is_empty() {
        return Ok(newest);
    }
    let number = newest.deltas() + 1;
    let follows = newest.delta().hash.clone();
    let position = DeltaPosition { number, follows, covers: Vec::new() };
    write_at(&place(model.path(), number), model, &changes, position)?;
    let next = newest.next()?;
    next.ok_or_else(|| Error::content(model.path(), "the delta just written is not there"))
}

/// The position of a delta among those of its version.
pub(crate) struct DeltaPosition {
    pub(crate) number: u64,
    /// Hash of the delta before, or of the bundle.
    pub(crate) follows: String,
    /// Hashes of the deltas that this one replaces, from the first; none for a new delta.
    pub(crate) covers: Vec<String>,
}

/// Writes `changes` of `model` as a delta at `place`.
///
/// # Errors
/// If it cannot be written; then nothing stays behind.
pub(crate) fn write_at(
    place: &Path,
    model: &Model,
    changes: &Changes,
    position: DeltaPosition,
) -> Result<()> {
    let DeltaPosition { number, follows, covers } = position;
    let spec = model.spec();
    let mut folder = FolderWriter::create(place)?;
    let row = |row: &Option<Vec<f32>>| row.clone().unwrap_or_else(|| vec![0.0; spec.dim()]);
    let rows = changes.rows.values().flat_map(row).collect();
    let (ids, gone) = keys(&changes.rows);
    let tensors = [
        ("rows".to_owned(), OwnedTensor::F32([ids.len(), spec.dim()], rows)),
        ("ids".to_owned(), OwnedTensor::U64(ids)),
        ("ids.gone".to_owned(), OwnedTensor::U32(gone)),
    ];
    folder.add_owned(IDS, &tensors)?;
    let of_contents = contents::write_changes(spec, &changes.contents, &mut folder)?;
    write_items(model, &changes.items, &mut folder)?;
    let meta = DeltaMeta {
        base: model.hash().to_owned(),
        follows,
        number,
        covers,
        ids: changes.rows.len() as u64,
        images: of_contents.0 as u64,
        pictures: of_contents.1 as u64,
        items: changes.items.len() as u64,
    };
    folder.publish(FORMAT, meta)?;
    Ok(())
}

fn write_items(
    model: &Model,
    changes: &BTreeMap<u64, Option<ItemRecord>>,
    folder: &mut FolderWriter,
) -> Result<()> {
    static NOTHING: ItemRecord =
        ItemRecord { text: String::new(), picture: PictureName::NONE, fields: Vec::new() };
    let known: Vec<&ItemRecord> =
        changes.values().map(|item| item.as_ref().unwrap_or(&NOTHING)).collect();
    let (items, gone) = keys(changes);
    let mut tensors = vec![
        ("items".to_owned(), OwnedTensor::U64(items)),
        ("items.gone".to_owned(), OwnedTensor::U32(gone)),
        (
            "pictures".to_owned(),
            OwnedTensor::U64(known.iter().map(|item| item.picture.0).collect()),
        ),
    ];
    let texts: Texts = known.iter().map(|item| item.text.clone()).collect();
    let (name_lengths, bytes) = texts.parts();
    tensors.push((items::NAMES[0].to_owned(), OwnedTensor::U32(name_lengths)));
    tensors.push((items::NAMES[1].to_owned(), OwnedTensor::U8(bytes.as_bytes().to_vec())));
    for (field, known_field) in model.items().fields().iter().enumerate() {
        let mut column = Ragged::default();
        for item in &known {
            column.push(item.fields.get(field).map_or(&[][..], |ids| ids));
        }
        let [lengths_name, ids_name] = items::names(&known_field.name);
        tensors.push((lengths_name, OwnedTensor::U32(lengths(&column.offsets))));
        tensors
            .push((ids_name, OwnedTensor::U64(column.values.iter().map(|id: &Id| id.0).collect())));
    }
    folder.add_owned(ITEMS, &tensors)
}
