//! Bundles and deltas of which one file was replaced by bytes of strangers, for the fuzzer alone.
//!
//! Seeds are the files of a good folder, each with a byte before it: its place among all of them.
//! So a seed is an input of the fuzzer, and all of them together are the folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::delta::compact::compact;
use crate::error::{Error, Result};
use crate::files::deltas;
use crate::files::folder::MANIFEST;
use crate::files::layout::hash_of;
use crate::model::{Model, Scratch};
use crate::spec::Spec;

/// The files of a good folder, by name.
#[derive(Clone, Debug)]
pub struct Seeds(BTreeMap<String, Vec<u8>>);

impl Seeds {
    /// Reads the seeds in a folder.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn read(folder: &Path) -> Result<Seeds> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            files.insert(name, bytes.get(1..).unwrap_or_default().to_vec());
        }
        Ok(Seeds(files))
    }

    /// Opens the bundle with the file that `input` replaces, written below `place`, and scores its
    /// examples.
    ///
    /// # Errors
    /// If it is invalid, with the reason.
    pub fn open_bundle(&self, place: &Path, input: &[u8]) -> Result<(), String> {
        let folder = place.join("shop/1");
        self.write(&folder, input)?;
        let model = Model::open(&folder).map_err(|error| error.to_string())?;
        scores(&model);
        Ok(())
    }

    /// Opens the bundle of these seeds with the delta whose file `input` replaces. Scores the
    /// examples; once more, when it is compacted with another that follows.
    ///
    /// # Errors
    /// If the delta is invalid, with the reason.
    ///
    /// # Panics
    /// If scores differ then.
    pub fn open_with_delta(&self, delta: &Seeds, place: &Path, input: &[u8]) -> Result<(), String> {
        let say = |error: Error| error.to_string();
        let folder = place.join("shop/1");
        if !folder.exists() {
            self.write(&folder, &[])?;
        }
        // What the input before left.
        let _ = fs::remove_dir_all(deltas::deltas_of(&folder));
        delta.write(&deltas::place(&folder, 1), input)?;
        let model = Model::open(&folder).map_err(say)?;
        let mut changes = crate::Changes::default();
        changes.rows.insert(1, Some(vec![0.0; model.spec().dim()]));
        let expected = scores(&model.change(&changes).map_err(say)?);
        let compacted = compact(&folder).map_err(say)?;
        assert_eq!((compacted.before, scores(&compacted.model)), (2, expected));
        Ok(())
    }

    /// Writes all files to `folder`, of which `input` replaces one, and a manifest that fits them.
    fn write(&self, folder: &Path, input: &[u8]) -> Result<(), String> {
        let mut files = self.0.clone();
        let names: Vec<String> = files.keys().cloned().collect();
        let mut manifest = files.remove(MANIFEST).unwrap_or_default();
        if let Some((&at, bytes)) = input.split_first() {
            let name = &names[usize::from(at) % names.len()];
            match files.get_mut(name) {
                Some(file) => {
                    *file = bytes.to_vec();
                    manifest = fitting(&manifest, name, bytes).unwrap_or(manifest);
                }
                None => manifest = with_hashes(bytes).unwrap_or(bytes.to_vec()),
            }
        }
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        files.insert(MANIFEST.to_owned(), manifest);
        for (name, bytes) in &files {
            fs::write(folder.join(name), bytes).map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The manifest with the size and hash of the file `name` if that is `bytes`.
fn fitting(manifest: &[u8], name: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut manifest: Value = serde_json::from_slice(manifest).ok()?;
    let hash = blake3::hash(bytes).to_hex().to_string();
    *manifest.get_mut("files")?.get_mut(name)? = json!({"bytes": bytes.len(), "blake3": hash});
    serde_json::to_vec(&manifest).ok()
}

/// A bundle's manifest with the hashes of the spec that it has.
fn with_hashes(manifest: &[u8]) -> Option<Vec<u8>> {
    let mut manifest: Value = serde_json::from_slice(manifest).ok()?;
    let meta = manifest.get_mut("meta")?;
    let spec: Spec = serde_json::from_value(meta.get("spec")?.clone()).ok()?;
    *meta.get_mut("spec_hash")? = hash_of(&spec).into();
    *meta.get_mut("schema_hash")? = hash_of(&spec.fields).into();
    serde_json::to_vec(&manifest).ok()
}

/// The bits of the scores of all examples; of those that do not fit the model, none.
fn scores(model: &Model) -> Vec<Vec<u32>> {
    let mut scratch = Scratch::default();
    let score = |page| {
        let ranked = model.score_with(page, &mut scratch).ok()?;
        Some(ranked.ctr.iter().map(|rate| rate.to_bits()).collect())
    };
    model.samples().iter().filter_map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, spec, with};
    use crate::spec::{FurtherContent, ImageSource, TowerSharing, TowerWeights};
    use ams_data::{ImageKey, PictureName};
    use ams_model::{ImageArm, Interactions, Similarity};

    /// A model with all that a bundle may have.
    fn fixture() -> Fixture {
        let joint = spec(ImageArm::Joint);
        let source = joint.image_source.clone().expect("a joint model sees images");
        let spec = Spec {
            image_source: Some(ImageSource { pca: Some(3), ..source.clone() }),
            sharing: TowerSharing::Shared,
            tower_weights: TowerWeights::Pca,
            tower: vec![3],
            further: vec![FurtherContent {
                name: "text".to_owned(),
                source: ImageSource { dim: 5, pca: Some(2), ..source },
            }],
            ..joint
        };
        Fixture::of(with(&spec, |n| {
            (n.similarity, n.interactions) = (Similarity::Histogram, Interactions::Product);
        }))
    }

    /// Writes the seeds of the fuzzer.
    fn write_seeds(seeds: &Path) {
        let fixture = fixture();
        let model = fixture.model();
        let mut changes = crate::Changes::default();
        changes.rows.insert(7, Some(vec![0.5; 3]));
        changes.rows.insert(8, None);
        let name = PictureName::of("new.png");
        changes.picture(&model, 0, name, ImageKey(5), &[0.25; 8]).unwrap();
        changes.picture(&model, 1, name, ImageKey(5), &[0.25; 5]).unwrap();
        changes.remove_picture(&model, PictureName::of("3.png"));
        changes.item(&model, "9", Some("new.png"), &BTreeMap::new()).unwrap();
        changes.remove_item(&model, "2").unwrap();
        model.change(&changes).unwrap();
        let from = fixture.place(1);
        for (from, to) in [(from.clone(), "bundle"), (deltas::place(&from, 1), "delta")] {
            let to = seeds.join(to);
            fs::create_dir_all(&to).unwrap();
            let mut names: Vec<_> =
                fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.retain(|path| path.is_file());
            names.sort();
            for (at, path) in (0..).zip(names) {
                let bytes = [&[at], &fs::read(&path).unwrap()[..]].concat();
                fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
            }
        }
    }

    #[test]
    fn the_fuzzer_begins_with_what_is_opened() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
        if std::env::var_os("AMS_WRITE_SEEDS").is_some() {
            write_seeds(&seeds);
        }
        let read = |name: &str| Seeds::read(&seeds.join(name)).unwrap();
        let (bundle, delta) = (read("bundle"), read("delta"));
        let place = tempfile::tempdir().unwrap();
        let inputs = |name: &str| {
            let entries = fs::read_dir(seeds.join(name)).unwrap();
            entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect::<Vec<_>>()
        };
        for input in inputs("bundle") {
            assert_eq!(bundle.open_bundle(place.path(), &input), Ok(()));
        }
        for input in inputs("delta") {
            assert_eq!(bundle.open_with_delta(&delta, place.path(), &input), Ok(()));
        }
        let cut = bundle.open_bundle(place.path(), &[1, 2, 3]).unwrap_err();
        assert!(cut.contains("dense.safetensors: not a whole safetensors file"), "{cut}");
        let other = bundle.open_bundle(place.path(), b"\x00{").unwrap_err();
        assert!(other.contains("MANIFEST.json: EOF"), "{other}");
    }
}
