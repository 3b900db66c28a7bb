//! Bundles, deltas and version deltas of which one file was replaced by bytes of strangers, for the
//! fuzzer alone.
//!
//! Seeds are the files of a good folder, each with a byte before it: its place among all of them.
//! So a seed is an input of the fuzzer, and all of them together are the folder. Those of a version
//! delta are among those of the delta: their names have a word in front, and the byte its highest
//! bit.

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
use crate::unpack::unpack;

/// What stands before the names of seeds of a version delta.
const OF_VERSION: &str = "version-";

/// The files of a good folder, by name.
#[derive(Clone, Debug)]
pub struct Seeds(BTreeMap<String, Vec<u8>>);

impl Seeds {
    /// Reads the seeds in a folder.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn read(folder: &Path) -> Result<Seeds> {
        Seeds::read_named(folder, |name| (!name.starts_with(OF_VERSION)).then_some(name))
    }

    /// Reads those of a version delta in a folder.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn read_version_delta(folder: &Path) -> Result<Seeds> {
        Seeds::read_named(folder, |name| name.strip_prefix(OF_VERSION))
    }

    /// Reads the seeds that `of` names.
    fn read_named(folder: &Path, of: impl Fn(&str) -> Option<&str>) -> Result<Seeds> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(name) = of(&name) else { continue };
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            files.insert(name.to_owned(), bytes.get(1..).unwrap_or_default().to_vec());
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

    /// Opens the version delta `delta` of the bundle of these seeds, whose file `input` replaces.
    /// Scores the examples; once more, when it is unpacked.
    ///
    /// # Errors
    /// If the version delta is invalid, with the reason.
    ///
    /// # Panics
    /// If hash or scores differ then.
    pub fn open_version_delta(
        &self,
        delta: &Seeds,
        place: &Path,
        input: &[u8],
    ) -> Result<(), String> {
        let say = |error: Error| error.to_string();
        let [base, folder, whole] =
            ["shop/1", "shop/2", "shop/3"].map(|version| place.join(version));
        if !base.exists() {
            self.write(&base, &[])?;
        }
        for left in [&folder, &whole] {
            let _ = fs::remove_dir_all(left);
        }
        let mut input = input.to_vec();
        if let Some(at) = input.first_mut() {
            *at &= 0x7f;
        }
        delta.write(&folder, &input)?;
        let model = Model::open(&folder).map_err(say)?;
        unpack(&folder, &whole).map_err(say)?;
        let unpacked = Model::open(&whole).map_err(say)?;
        assert_eq!((model.hash(), scores(&model)), (unpacked.hash(), scores(&unpacked)));
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

/// A bundle's manifest, or a version delta's, with the hashes of the spec that it has.
fn with_hashes(manifest: &[u8]) -> Option<Vec<u8>> {
    let mut manifest: Value = serde_json::from_slice(manifest).ok()?;
    let mut meta = manifest.get_mut("meta")?;
    if meta.get("bundle").is_some() {
        meta = meta.get_mut("bundle")?;
    }
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
    use crate::delta::between::{VersionDeltaOptions, write_version_delta};
    use crate::fixture::{Fixture, SHOP, spec, with};
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

    /// The same model after another training: rows that are changed, new and gone.
    fn moved(mut fixture: Fixture) -> Fixture {
        let weights = &mut fixture.weights;
        weights.rows[0] += 0.5;
        weights.ids.remove(2);
        weights.rows.drain(6..9);
        weights.ids.push(u64::MAX);
        weights.rows.extend([0.25; 3]);
        weights.dense[0] += 0.5;
        weights.contents[0].embeddings[0][1] += 0.5;
        weights.contents[1].pictures.pop();
        fixture.sell(&SHOP[1..]);
        fixture.golden.logits = fixture.slow_logits(&fixture.golden.groups);
        fixture
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
        let options = VersionDeltaOptions::default();
        let next = moved(fixture);
        next.write(2).unwrap();
        write_version_delta(&from, &next.place(2), &next.place(3), options).unwrap();
        for (from, to, prefix, bit) in [
            (from.clone(), "bundle", "", 0),
            (deltas::place(&from, 1), "delta", "", 0),
            (next.place(3), "delta", OF_VERSION, 0x80),
        ] {
            let to = seeds.join(to);
            fs::create_dir_all(&to).unwrap();
            let mut names: Vec<_> =
                fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.retain(|path| path.is_file());
            names.sort();
            for (at, path) in (0..).zip(names) {
                let bytes = [&[at | bit], &fs::read(&path).unwrap()[..]].concat();
                let name = path.file_name().unwrap().to_str().unwrap();
                fs::write(to.join(format!("{prefix}{name}")), bytes).unwrap();
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
        let version = Seeds::read_version_delta(&seeds.join("delta")).unwrap();
        for input in inputs("delta") {
            match input[0] & 0x80 {
                0 => assert_eq!(bundle.open_with_delta(&delta, place.path(), &input), Ok(())),
                _ => assert_eq!(bundle.open_version_delta(&version, place.path(), &input), Ok(())),
            }
        }
        let place_of = |name: &str| version.0.keys().position(|key| key == name).unwrap() as u8;
        let ids = place_of("ids.changes.safetensors");
        let cut = bundle.open_version_delta(&version, place.path(), &[ids, 1, 2]).unwrap_err();
        assert!(cut.contains("ids.changes.safetensors: not a whole safetensors file"), "{cut}");
        let cut = bundle.open_bundle(place.path(), &[1, 2, 3]).unwrap_err();
        assert!(cut.contains("dense.safetensors: not a whole safetensors file"), "{cut}");
        let other = bundle.open_bundle(place.path(), b"\x00{").unwrap_err();
        assert!(other.contains("MANIFEST.json: EOF"), "{other}");
    }
}
