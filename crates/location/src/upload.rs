//! A folder becomes objects, what says that they belong together last.
//!
//! Knows which files are manifests. Does not know what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ams_data::{Error, Result};

use crate::address::Address;
use crate::cache::Index;
use crate::object::{LocalFile, Object};
use crate::remote::Remote;
use crate::{BESIDE, is_manifest};

/// Makes the objects at `address` the files of `local`, a folder or a file. `base` are the
/// manifests that have to be there still, if a reader relies on them.
pub(crate) fn upload(
    remote: &Remote,
    address: &Address,
    local: &Path,
    base: Option<&Vec<Object>>,
    index: &mut Index,
) -> Result<()> {
    let there = remote.list(address)?;
    let manifests: Vec<&Object> = there.iter().filter(|it| is_manifest(&it.key)).collect();
    if base.is_some_and(|base| !base.iter().eq(manifests.iter().copied())) {
        let what = "another process has written there meanwhile; your files are kept on this host, run the command again";
        return Err(address.error(what));
    }
    let files = files(local, address)?;
    let object = |key: &str| {
        let at = there.binary_search_by(|object| object.key[..].cmp(key)).ok()?;
        Some(&there[at])
    };
    let is_new = |file: &&LocalFile| {
        object(&file.key).is_none_or(|object| !index.is_same(object, &file.path))
    };
    let changed: Vec<&LocalFile> = files.iter().filter(is_new).collect();
    let is_beside = |key: &str| BESIDE.iter().any(|name| key.rsplit('/').next() == Some(name));
    let (beside, changed): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|file| is_beside(&file.key));
    let (last, first): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|file| is_manifest(&file.key));
    // A manifest must not speak of objects that are being replaced.
    let spoken_of = spoken_of(remote, &there, &manifests)?;
    if first.iter().any(|file| spoken_of.contains(&file.key[..])) {
        remote.delete(manifests.iter().map(|object| &object.key[..]))?;
        let all = files.iter().filter(|file| is_manifest(&file.key)).collect();
        put(remote, &first, index)?;
        put_manifests(remote, all, index)?;
    } else {
        put(remote, &first, index)?;
        put_manifests(remote, last, index)?;
    }
    put(remote, &beside, index)?;
    let gone = there.iter().filter(|object| files.iter().all(|file| file.key != object.key));
    remote.delete(gone.map(|object| &object.key[..]))
}

/// The objects of `there` that manifests speak of: those whose names are listed as their `files`,
/// or, where a manifest has no such list, all beside and below it. What an upload that failed has
/// left behind is not among the former.
pub(crate) fn spoken_of<'t>(
    remote: &Remote,
    there: &'t [Object],
    manifests: &[&Object],
) -> Result<BTreeSet<&'t str>> {
    let mut found = BTreeSet::new();
    for manifest in manifests {
        let folder = manifest.key.rfind('/').map_or("", |at| &manifest.key[..=at]);
        let below = there.iter().filter_map(|it| Some((&it.key[..], it.key.strip_prefix(folder)?)));
        let json: Option<serde_json::Value> = serde_json::from_slice(&remote.read(manifest)?).ok();
        let files = json.as_ref().and_then(|json| json.get("files")?.as_object());
        let is_listed = |name: &str| files.is_none_or(|files| files.contains_key(name));
        found.extend(below.filter(|(_, name)| is_listed(name)).map(|(key, _)| key));
    }
    Ok(found)
}

/// Uploads manifests one by one, those of inner folders first.
fn put_manifests(remote: &Remote, mut manifests: Vec<&LocalFile>, index: &mut Index) -> Result<()> {
    manifests.sort_by_key(|file| std::cmp::Reverse(file.key.matches('/').count()));
    manifests.into_iter().try_for_each(|manifest| put(remote, &[manifest], index))
}

fn put(remote: &Remote, files: &[&LocalFile], index: &mut Index) -> Result<()> {
    let objects = remote.put(files)?;
    files.iter().zip(&objects).try_for_each(|(file, object)| index.insert(object, &file.path))
}

/// The files of `local`, by key.
fn files(local: &Path, address: &Address) -> Result<Vec<LocalFile>> {
    let mut files = Vec::new();
    let mut left = vec![(local.to_path_buf(), address.key.clone())];
    while let Some((path, key)) = left.pop() {
        if !path.is_dir() {
            files.push(LocalFile { path, key });
            continue;
        }
        for entry in fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Err(Error::content(entry.path(), "has no name that a bucket could take"));
            };
            // Locks and unfinished work are this host's.
            if !name.starts_with('.') && !name.ends_with(".partial") {
                left.push((entry.path(), format!("{key}/{name}")));
            }
        }
    }
    files.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(files)
}
