//! Folders of deltas beside a bundle, and their manifests.
//!
//! ```text
//! <model>/<version>/deltas/0001/
//!   MANIFEST.json     format, and DeltaMeta: the bundle and the delta before
//!   ids.safetensors, image_table.safetensors, pictures.safetensors, items.safetensors
//!                     as in a bundle; each list of hashes x has x.gone u32: 1 where something is removed
//! <model>/<version>/deltas/0001-0009/
//!                     the same of deltas 1 to 9 as one, see `compact`
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::folder::{FileList, MANIFEST};

/// `format` of the deltas this build reads and writes.
pub(crate) const FORMAT: &str = "ams-delta/1";

/// The description of a delta in its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaMeta {
    /// Hash of the bundle.
    pub base: String,
    /// Hash of the delta before, or of the bundle.
    pub follows: String,
    /// Number of the delta, from 1.
    pub number: u64,
    /// Hashes of the deltas that this one takes the place of, from the first to number `number`;
    /// of one that was written as such, none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<String>,
    /// Ids whose rows change.
    pub ids: u64,
    /// Number of images that change.
    pub images: u64,
    /// Names of pictures that change.
    pub pictures: u64,
    /// Number of items that change.
    pub items: u64,
}

/// Where delta `number` of the version in a folder is.
pub(crate) fn place(version_dir: &Path, number: u64) -> PathBuf {
    deltas_of(version_dir).join(format!("{number:04}"))
}

/// Where deltas 1 to `last` are as one.
pub(crate) fn compacted_place(version_dir: &Path, last: u64) -> PathBuf {
    deltas_of(version_dir).join(format!("0001-{last:04}"))
}

pub(crate) fn deltas_of(version_dir: &Path) -> PathBuf {
    version_dir.join("deltas")
}

/// The numbers of the deltas that a folder stands for; in order of the first, then of the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
}

impl Span {
    /// Whether several deltas are one.
    pub(crate) fn is_compacted(self) -> bool {
        self.first < self.last
    }
}

/// The deltas a folder's name stands for.
pub(crate) fn span(name: &str) -> Option<Span> {
    let number = |text: &str| {
        text.parse().ok().filter(|number: &u64| *number > 0 && format!("{number:04}") == text)
    };
    match name.split_once('-') {
        None => number(name).map(|number| Span { first: number, last: number }),
        Some((first, last)) => {
            let span = Span { first: number(first)?, last: number(last)? };
            (span.first == 1).then_some(span)
        }
    }
}

/// The folders of deltas that are `wanted`, by first and last number; with or without a manifest.
///
/// # Errors
/// If their folder is there and cannot be listed.
pub(crate) fn listed(
    version_dir: &Path,
    wanted: impl Fn(Span) -> bool,
) -> Result<BTreeMap<Span, PathBuf>> {
    let deltas = deltas_of(version_dir);
    let entries = match fs::read_dir(&deltas) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Error::io(&deltas)(error)),
    };
    let mut listed = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(Error::io(&deltas))?.path();
        let span = path.file_name().and_then(|name| name.to_str()).and_then(span);
        if let Some(span) = span.filter(|&span| wanted(span)) {
            listed.insert(span, path);
        }
    }
    Ok(listed)
}

/// Whether there is a delta in a folder: it has a manifest.
pub(crate) fn is_there(place: &Path) -> bool {
    place.join(MANIFEST).is_file()
}

/// Where the delta is, or would be, that follows number `number`, and the number that comes with
/// it. Of deltas that are also there as one, that one: it brings everybody to its end who is before
/// it, and the others may be on their way out.
///
/// # Errors
/// If the folder of deltas is there and cannot be listed.
pub(crate) fn following(version_dir: &Path, number: u64) -> Result<(PathBuf, u64)> {
    // There may be thousands, at every look: only those that are several in one are looked at.
    let compacted = listed(version_dir, |span| span.is_compacted() && span.last > number)?;
    let widest = compacted.into_iter().rev().find(|(_, place)| is_there(place));
    Ok(match widest {
        Some((span, place)) => (place, span.last),
        None => (place(version_dir, number + 1), number + 1),
    })
}

/// How many bytes a version and its deltas have, by what their manifests list. A delta that cannot
/// be read, and what follows it, has none, as it is not opened either.
///
/// # Errors
/// If the version's manifest cannot be read, or its deltas cannot be listed.
pub fn version_bytes(version_dir: &Path) -> Result<u64> {
    let (mut bytes, mut number) = (FileList::read(version_dir)?.bytes(), 0);
    loop {
        let (place, last) = following(version_dir, number)?;
        let Ok(delta) = FileList::read(&place) else { return Ok(bytes) };
        bytes = bytes.saturating_add(delta.bytes());
        number = last;
    }
}

/// The number of the last delta that follows a version, 0 without any, by what there is: opening
/// says whether it is good.
///
/// # Errors
/// If its deltas cannot be listed.
pub(crate) fn last(version_dir: &Path) -> Result<u64> {
    let mut number = 0;
    loop {
        let (place, last) = following(version_dir, number)?;
        if !is_there(&place) {
            return Ok(number);
        }
        number = last;
    }
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;
    use ams_model::ImageArm;
    use std::fs;

    #[test]
    fn the_bytes_are_those_of_the_bundle_and_its_deltas() {
        let fixture = Fixture::new(ImageArm::Joint);
        let model = fixture.model();
        let on_disk = |folder: &std::path::Path| -> u64 {
            let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
            let sizes = entries.filter(|entry| entry.file_name() != "MANIFEST.json");
            sizes
                .map(|entry| entry.metadata().unwrap())
                .filter(|it| it.is_file())
                .map(|it| it.len())
                .sum()
        };
        let place = fixture.place(1);
        assert_eq!(super::version_bytes(&place).unwrap(), on_disk(&place));
        let rows = [(7, Some(vec![0.0; 3]))].into();
        model.change(&crate::Changes { rows, ..crate::Changes::default() }).unwrap();
        let delta = on_disk(&place.join("deltas/0001"));
        let described = crate::describe(&place).unwrap();
        assert_eq!((described.deltas, described.bytes), (1, on_disk(&place) + delta));
        assert_eq!((&described.hash[..], described.decision), (model.hash(), None));
        assert_eq!(super::version_bytes(&place).unwrap(), on_disk(&place) + delta);
        assert!(delta > 0 && super::version_bytes(&fixture.place(2)).is_err());
    }

    #[test]
    fn names_of_folders_are_numbers() {
        for (name, expected) in [
            ("0001", Some((1, 1))),
            ("12345", Some((12345, 12345))),
            ("0001-0009", Some((1, 9))),
            ("0002-0009", None),
            ("0000", None),
            ("1", None),
            ("01234", None),
            ("0001-9", None),
            ("0001-", None),
            ("-0001", None),
            (".0001.building", None),
            ("+001", None),
        ] {
            let span = super::span(name).map(|span| (span.first, span.last));
            assert_eq!(span, expected, "{name}");
        }
    }
}
