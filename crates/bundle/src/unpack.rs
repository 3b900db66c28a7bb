//! A version as the files of a bundle: as it was published, or put together from a version delta
//! and the version that it follows.
//!
//! Each file that is put together is held against the hash of the version's own file. So who opens
//! a version delta has the bits of the version, or an error.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ams_data::Side;
use ams_data::schema::ITEM;

use crate::error::{Error, Result};
use crate::files::folder::{self, Folder, FolderWriter, MANIFEST, Manifest, Source};
use crate::files::layout::{BundleMeta, FORMAT, IDS, IMAGE_TABLE, PICTURES};
use crate::files::numbers::{Bytes, Memory};
use crate::files::version_delta::{
    LONGEST_CHAIN, VERSION_DELTA, VersionDeltaMeta, base_place, changes_of, too_long,
};
use crate::spec::Spec;
use crate::tables::contents;
use crate::tables::items::{self, ITEMS};
use crate::tables::keyed::{self, KeyedTable};

/// The version at `path`, whose numbers are in `memory`; those of tables that are put together are
/// in memory of their own.
///
/// # Errors
/// If there is none, it or a version that it needs is damaged or not there, or one it needs is
/// another than it was made for.
pub(crate) fn open_version(path: &Path, memory: Memory) -> Result<Folder<BundleMeta>> {
    let (mut place, mut deltas) = (path.to_path_buf(), Vec::new());
    while let Some(delta) = delta_folder(&place, memory)? {
        if deltas.len() == LONGEST_CHAIN {
            return Err(too_long(path));
        }
        let number = delta.manifest.meta.base_version.number;
        let base = base_place(&place, number)?;
        if !base.join(MANIFEST).exists() {
            let what = format!(
                "is a version delta of version {number}, which is not at {}; put that there, or a whole version here",
                base.display()
            );
            return Err(Error::content(place.join(MANIFEST), what));
        }
        deltas.push(delta);
        place = base;
    }
    let mut version = Folder::<BundleMeta>::open_in(&place, FORMAT, memory)?;
    for delta in deltas.into_iter().rev() {
        version = follow(&version, &delta, memory)?;
    }
    Ok(version)
}

/// The description of the version delta at `path`; none of a whole version.
///
/// # Errors
/// If there is no version, or its manifest cannot be read.
pub fn version_delta(path: &Path) -> Result<Option<VersionDeltaMeta>> {
    Ok(delta_folder(path, Memory::Mapped)?.map(|delta| delta.manifest.meta))
}

/// The files of the version delta at `path`; none of a whole version.
///
/// # Errors
/// As [`version_delta`].
pub(crate) fn delta_folder(
    path: &Path,
    memory: Memory,
) -> Result<Option<Folder<VersionDeltaMeta>>> {
    if folder::format_of(path)? != VERSION_DELTA {
        return Ok(None);
    }
    open_delta(path, memory).map(Some)
}

fn open_delta(path: &Path, memory: Memory) -> Result<Folder<VersionDeltaMeta>> {
    let delta = Folder::<VersionDeltaMeta>::open_in(path, VERSION_DELTA, memory)?;
    let manifest = path.join(MANIFEST);
    folder::check_names(&manifest, &delta.manifest.meta.result)?;
    let checked = delta.manifest.meta.bundle.check();
    checked.map_err(|what| Error::content(&manifest, what))?;
    Ok(delta)
}

/// The version that `delta` makes of `base`.
fn follow(
    base: &Folder<BundleMeta>,
    delta: &Folder<VersionDeltaMeta>,
    memory: Memory,
) -> Result<Folder<BundleMeta>> {
    let meta = &delta.manifest.meta;
    let wrong = |what: String| Error::content(delta.path().join(MANIFEST), what);
    let (got, expected) = (base.manifest.hash(), &meta.base_version.hash);
    if got != *expected {
        return Err(wrong(format!(
            "base_version says that version {} is {expected}, and {} is {got}: it belongs elsewhere",
            meta.base_version.number,
            base.path().display()
        )));
    }
    let mut elsewhere = BTreeMap::new();
    for (name, entry) in &meta.result {
        let listed = &delta.manifest.files;
        let changes = changes_of(name);
        let source = if let Some(own) = listed.get(name) {
            if own != entry {
                return Err(wrong(format!("files and meta.result say different things of {name}")));
            }
            delta.source(name)
        } else if listed.contains_key(&changes) {
            let tables = tables_of(&meta.bundle.spec, name);
            if tables.is_empty() {
                return Err(wrong(format!("lists {changes}, and {name} has no rows")));
            }
            let bytes = keyed::apply(&base.tensors(name)?, &delta.tensors(&changes)?, &tables)?;
            let got = folder::entry_of(&bytes);
            if got != *entry {
                return Err(wrong(format!(
                    "{name} is put together as {} bytes with blake3 {}, expected {} with {}",
                    got.bytes, got.blake3, entry.bytes, entry.blake3
                )));
            }
            Source::Bytes(Arc::new(Bytes::Owned(bytes)))
        } else if base.manifest.files.get(name) == Some(entry) {
            base.source(name)
        } else {
            let what = "is neither listed in files nor that of the version it follows";
            return Err(wrong(format!("{name} {what}")));
        };
        elsewhere.insert(name.clone(), source);
    }
    let files = meta.result.clone();
    let manifest = Manifest { format: FORMAT.to_owned(), meta: meta.bundle.clone(), files };
    Ok(Folder::assembled(delta.path(), memory, manifest, elsewhere))
}

/// The tables of the file `name` of a bundle of `spec`; none of a file of another kind.
pub(crate) fn tables_of(spec: &Spec, name: &str) -> Vec<KeyedTable> {
    match name {
        IDS => vec![KeyedTable {
            name: "ids".to_owned(),
            keys: "ids".to_owned(),
            columns: vec!["rows".to_owned()],
            lists: Vec::new(),
        }],
        IMAGE_TABLE => contents::image_tables(spec),
        PICTURES => contents::name_tables(spec),
        ITEMS => {
            let fields = spec.fields.side(Side::Ad).filter(|field| field.name != ITEM);
            let lists = fields.map(|field| items::names(&field.name));
            vec![KeyedTable {
                name: "items".to_owned(),
                keys: "items".to_owned(),
                columns: vec!["pictures".to_owned()],
                lists: std::iter::once(items::NAMES.map(str::to_owned)).chain(lists).collect(),
            }]
        }
        _ => Vec::new(),
    }
}

/// Writes the version at `from`, a version delta, as a whole version at `place`, which must not
/// exist. Its hash stays.
///
/// # Errors
/// If it is whole already or cannot be opened, or something cannot be written; then nothing stays
/// behind.
pub fn unpack(from: &Path, place: &Path) -> Result<Manifest<BundleMeta>> {
    if version_delta(from)?.is_none() {
        return Err(Error::content(from, "is a whole version already"));
    }
    let version = open_version(from, Memory::Mapped)?;
    let mut folder = FolderWriter::create(place)?;
    for name in version.manifest.files.keys() {
        folder.add(name, &version.read(name)?)?;
    }
    folder.publish(FORMAT, version.manifest.meta)
}
