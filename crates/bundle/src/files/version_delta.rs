//! A version that is kept as its difference from an earlier one, and which that is.
//!
//! ```text
//! <model>/<version>/
//!   MANIFEST.json               format, and VersionDeltaMeta: the base, and the files of the version
//!   <table>.changes.safetensors what became of the rows of the base's file <table>, see tables::keyed
//!   any file of a bundle        as it is in the version, where the base has another one or none
//! ```
//! A file of the version that is not here is the base's, to the bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ams_data::staging::FileEntry;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::folder::{BaseVersion, FileList, MANIFEST};
use crate::files::layout::{BundleMeta, version_of};

/// `format` of the version deltas this build reads and writes.
pub(crate) const VERSION_DELTA: &str = "ams-version-delta/1";

/// Most version deltas that may lie over one whole version.
pub const LONGEST_CHAIN: usize = 64;

/// The description of a version delta in its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionDeltaMeta {
    /// The version that it changes.
    pub base_version: BaseVersion,
    /// Hash of the version that it was made of: that of `result`, unless numbers were rounded.
    pub target: String,
    /// The description of the version.
    pub bundle: BundleMeta,
    /// Every file of the version.
    pub result: BTreeMap<String, FileEntry>,
    /// What became of the rows, by table: `ids`, `images`, `pictures`, `items`.
    pub tables: BTreeMap<String, RowCounts>,
    /// By how much the version differs from the one it was made of; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounded: Option<Rounded>,
}

/// Counts of the rows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCounts {
    /// Rows that are the base's.
    pub same: u64,
    /// Rows with other values than in the base.
    pub changed: u64,
    /// Rows that the base does not have.
    pub new: u64,
    /// Rows that the base has and the version does not.
    pub gone: u64,
}

/// The largest absolute differences from the version that was to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounded {
    /// Of a number of a row of ids.
    pub rows: f64,
    /// Of a number of an image embedding.
    pub embeddings: f64,
    /// Of a logit of the golden groups.
    pub logits: f64,
}

impl VersionDeltaMeta {
    /// Hash of the version: that of a bundle of its files.
    pub fn hash(&self) -> String {
        FileList::of(self.result.clone()).hash()
    }
}

/// The name of the file with the changes of the table `name`.
pub(crate) fn changes_of(name: &str) -> String {
    let stem = name.strip_suffix(".safetensors").unwrap_or(name);
    format!("{stem}.changes.safetensors")
}

/// Where version `number` is that the version in `version_dir` follows: beside it, where links
/// lead.
///
/// # Errors
/// If it is not one below.
pub(crate) fn base_place(version_dir: &Path, number: u64) -> Result<PathBuf> {
    let place = version_dir.canonicalize().map_err(Error::io(version_dir))?;
    let own = place.file_name().and_then(|name| name.to_str()).and_then(version_of);
    match (own, place.parent()) {
        (Some(own), Some(model)) if number < own => Ok(model.join(number.to_string())),
        (own, _) => {
            let own = own.map_or("no version".to_owned(), |own| format!("version {own}"));
            let what = format!(
                "base_version is {number}, expected one below the folder's, which is {own}"
            );
            Err(Error::content(place.join(MANIFEST), what))
        }
    }
}

/// The versions that the one in `version_dir` needs, from the one it follows down to a whole one:
/// none if it is whole.
///
/// # Errors
/// If a manifest cannot be read, or there are more than [`LONGEST_CHAIN`].
pub fn bases(version_dir: &Path) -> Result<Vec<u64>> {
    let (mut place, mut numbers) = (version_dir.to_path_buf(), Vec::new());
    while let Some(base) = FileList::read(&place)?.base_version() {
        if numbers.len() == LONGEST_CHAIN {
            return Err(too_long(version_dir));
        }
        numbers.push(base.number);
        place = base_place(&place, base.number)?;
    }
    Ok(numbers)
}

/// The error of a chain that is too long.
pub(crate) fn too_long(version_dir: &Path) -> Error {
    let what = format!(
        "more than {LONGEST_CHAIN} version deltas one over the other; \
         `ams delta unpack` makes a whole version of one"
    );
    Error::content(version_dir.join(MANIFEST), what)
}
