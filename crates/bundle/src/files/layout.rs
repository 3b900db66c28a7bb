//! Names of files in a bundle, its manifest, and the folders of versions.
//!
//! ```text
//! <model>/<version>/
//!   MANIFEST.json             written last: format, meta (see BundleMeta), size and blake3 of every file
//!   dense.safetensors         see dense
//!   ids.safetensors           ids u64 (n) ascending, rows f32 or f16 (n, D); other ids are zero
//!   image_table.safetensors, pictures.safetensors [, projection.safetensors] [, codebooks.safetensors]
//!                             see contents
//!   items.safetensors         see items
//!   golden.safetensors        see golden
//!   samples.json              a few example requests
//!   [calibration.json]        see calibration
//!   [decision.json]           why this version may serve, an object of whoever decided it
//!   deltas/                   what came later, see deltas
//! ```
//! Versions are whole numbers and never change once they are there: their files are read-only.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ams_data::Error as FileError;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::folder::MANIFEST;
use crate::spec::Spec;

/// `format` of the bundles this build reads and writes.
pub(crate) const FORMAT: &str = "ams-bundle/1";

/// The weights of W and the towers.
pub(crate) const DENSE: &str = "dense.safetensors";
/// The file of ids and their embedding rows.
pub(crate) const IDS: &str = "ids.safetensors";
/// The file of image keys and embeddings.
pub(crate) const IMAGE_TABLE: &str = "image_table.safetensors";
/// The file of hashed picture names and image keys.
pub(crate) const PICTURES: &str = "pictures.safetensors";
/// The file of projections of features.
pub(crate) const PROJECTION: &str = "projection.safetensors";
/// The file of the calibration of rates.
pub(crate) const CALIBRATION: &str = "calibration.json";
/// The file of the decision by which the version was published.
pub(crate) const DECISION: &str = "decision.json";
/// The file of the codebooks of semantic ids.
pub(crate) const CODEBOOKS: &str = "codebooks.safetensors";
/// The file of example requests.
pub(crate) const SAMPLES: &str = "samples.json";

/// The description of a model in the manifest of its bundle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundleMeta {
    /// Fields, towers and networks of the model.
    pub spec: Spec,
    /// blake3 of the spec as compact JSON: another spec cannot be slipped under the same numbers.
    pub spec_hash: String,
    /// blake3 of the spec's `fields` as compact JSON: samples with equal fields fit the model.
    pub schema_hash: String,
    /// Ids with a row.
    pub ids: u64,
    /// Number of images with embeddings.
    pub images: u64,
    /// Known names of pictures.
    pub pictures: u64,
    /// Number of known items.
    pub items: u64,
    /// The run the model comes from.
    pub run: String,
    /// Training steps behind the model.
    pub steps: u64,
    /// Whether rates are calibrated, which a program that does not know [`CALIBRATION`] must not
    /// miss; not written where they are the network's own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub calibrated: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl BundleMeta {
    /// That the hashes are those of the spec, and that the spec is one.
    ///
    /// # Errors
    /// Otherwise, with what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        let hashes = [
            ("spec", &self.spec_hash, hash_of(&self.spec)),
            ("schema", &self.schema_hash, hash_of(&self.spec.fields)),
        ];
        for (name, expected, got) in hashes {
            if *expected != got {
                return Err(format!("the {name}'s blake3 is {got}, expected {expected}"));
            }
        }
        self.spec.check()
    }
}

/// The number the next version of a model gets: one more than the highest in its folder, or 1.
///
/// # Errors
/// If the folder is there and cannot be listed.
pub fn next_version(model_dir: &Path) -> Result<u64> {
    Ok(versions(model_dir)?.last().map_or(1, |last| last + 1))
}

/// The versions of a model, ascending: its folders whose name is a whole number.
pub(crate) fn versions(model_dir: &Path) -> Result<Vec<u64>> {
    let mut versions = Vec::new();
    let entries = match fs::read_dir(model_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(versions),
        Err(error) => return Err(Error::io(model_dir)(error)),
    };
    for entry in entries {
        let name = entry.map_err(Error::io(model_dir))?.file_name();
        versions.extend(name.to_str().and_then(version_of));
    }
    versions.sort_unstable();
    Ok(versions)
}

/// The versions of a model that have a manifest, ascending: what is being written has none. A
/// model's folder that may not be read has none (`lost+found`); a version's is listed, and opening
/// it says that it may not be read.
///
/// # Errors
/// If the disk does not answer.
pub fn whole_versions(model_dir: &Path) -> Result<Vec<u64>> {
    let mut versions = match versions(model_dir) {
        Err(Error::File(FileError::Io { source, .. }))
            if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::NotADirectory) =>
        {
            Vec::new()
        }
        versions => versions?,
    };
    versions.retain(|version| {
        match fs::metadata(model_dir.join(version.to_string()).join(MANIFEST)) {
            Ok(manifest) => manifest.is_file(),
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        }
    });
    Ok(versions)
}

/// The version a folder's name means. `07` or `+7` would be a second name of `7`.
pub(crate) fn version_of(name: &str) -> Option<u64> {
    name.parse().ok().filter(|version: &u64| version.to_string() == name)
}

/// blake3 of `value` as compact JSON, lowercase hex.
pub(crate) fn hash_of(value: &impl Serialize) -> String {
    blake3::hash(json(value).as_bytes()).to_hex().to_string()
}

/// `value` as compact JSON.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have text keys only")
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;
    use ams_model::ImageArm;
    use std::fs;

    #[test]
    fn what_cannot_be_read_has_no_versions() {
        let fixture = Fixture::new(ImageArm::None);
        fixture.write(3).unwrap();
        let shop = fixture.place(3).parent().unwrap().to_path_buf();
        // A file, a link to nothing, a version folder without a manifest.
        fs::write(shop.join("4"), "").unwrap();
        fs::create_dir(shop.join("5")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", shop.join("6")).unwrap();
        assert_eq!(super::whole_versions(&shop).unwrap(), [3]);
        assert_eq!(super::whole_versions(&shop.join("4")).unwrap(), [0; 0]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let closed = fixture.dir.path().join("lost+found");
            fs::create_dir(&closed).unwrap();
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
            assert_eq!(super::whole_versions(&closed).unwrap(), [0; 0]);
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}
