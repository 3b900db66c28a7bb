//! Writing a bundle: everything needed to compute a score, in files any program can read.
//!
//! ```text
//! <model>/<version>/
//!   MANIFEST.json             written last: format, meta (see Meta), size and blake3 of every file
//!   dense.safetensors         f32 tensors by name: rank.mlp.0.group.weight, tower.ad.0.weight, ...
//!   ids.safetensors           ids u64 (n) ascending, rows f32 or f16 (n, D); other ids are zero
//!   image_table.safetensors, pictures.safetensors [, projection.safetensors]   see contents
//!   items.safetensors         see items
//!   golden.safetensors        see golden
//!   samples.json              a few example requests
//!   deltas/                   what came later, see delta
//! ```
//! Versions are whole numbers and never change once they are there: their files are read-only.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ams_data::Error as FileError;
use ams_data::catalogue::Catalogue;
use ams_model::{Layout, RankNetwork, Tower};
use half::f16;
use serde::{Deserialize, Serialize};

use crate::contents;
pub use crate::contents::ContentTable;
use crate::delta;
use crate::error::{Error, Result};
use crate::folder::{FolderWriter, Listed, MANIFEST, Manifest, Tensor};
pub use crate::golden::Golden;
use crate::items::Items;
use crate::request::PageView;
use crate::spec::{Spec, TowerSpec};

/// `format` of the bundles this build reads and writes.
pub const FORMAT: &str = "ams-bundle/1";

/// The weights of W and the towers.
pub const DENSE: &str = "dense.safetensors";
/// The embedding rows.
pub const IDS: &str = "ids.safetensors";
/// The image embeddings.
pub const IMAGE_TABLE: &str = "image_table.safetensors";
/// The pictures' names.
pub const PICTURES: &str = "pictures.safetensors";
/// What towers see of features.
pub const PROJECTION: &str = "projection.safetensors";
/// The example requests.
pub const SAMPLES: &str = "samples.json";

/// All numbers of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// W, then each tower of [`Spec::towers`].
    pub dense: Vec<f32>,
    /// The ids that have a row, ascending; (n).
    pub ids: Vec<u64>,
    /// Their rows; (n, D).
    pub rows: Vec<f32>,
    /// Images, then each further content; one without anything if the model has no image source.
    pub contents: Vec<ContentTable>,
}

/// A model to be written as a bundle.
#[derive(Clone, Copy, Debug)]
pub struct Frozen<'a> {
    /// What the model is made of.
    pub spec: &'a Spec,
    /// All its numbers.
    pub weights: &'a Weights,
    /// The items, with the fields of the spec.
    pub catalogue: &'a Catalogue,
    /// A few groups and their logits.
    pub golden: &'a Golden,
    /// The run the model comes from.
    pub run: &'a str,
    /// Training steps behind the model.
    pub steps: u64,
    /// A few example requests.
    pub samples: &'a [PageView],
    /// How rows are kept. If not whole, `weights` holds them rounded already, and `golden` is of
    /// the rounded ones.
    pub rows: RowFormat,
}

/// How a bundle keeps embedding rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowFormat {
    /// As they were learned, 4 bytes a number.
    #[default]
    F32,
    /// Rounded to halfs, 2 bytes a number.
    F16,
}

/// What a bundle's manifest says about the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// What the model is made of.
    pub spec: Spec,
    /// blake3 of the spec as compact JSON: another spec cannot be slipped under the same numbers.
    pub spec_hash: String,
    /// blake3 of the spec's `fields` as compact JSON: samples with equal fields fit the model.
    pub schema_hash: String,
    /// Ids with a row.
    pub ids: u64,
    /// Images with embeddings.
    pub images: u64,
    /// Known names of pictures.
    pub pictures: u64,
    /// Known items.
    pub items: u64,
    /// The run the model comes from.
    pub run: String,
    /// Training steps behind the model.
    pub steps: u64,
}

/// Writes `frozen` as a bundle at `place`, which must not exist. The published hash is
/// [`Manifest::hash`] of what comes back.
///
/// # Errors
/// If something cannot be written, a weight is not finite, or two items have one hash; then nothing
/// stays behind.
pub fn write(place: &Path, frozen: &Frozen) -> Result<Manifest<Meta>> {
    let Frozen { spec, weights, .. } = *frozen;
    assert_eq!(spec.check(), Ok(()), "a model that was trained has a good shape");
    check_finite(place, weights)?;
    let mut folder = FolderWriter::create(place)?;
    write_dense(spec, weights, &mut folder)?;
    let shape = [weights.ids.len(), spec.dim];
    let halfs: Vec<f16>;
    let rows = match frozen.rows {
        RowFormat::F32 => Tensor::f32("rows", &shape, &weights.rows),
        RowFormat::F16 => {
            halfs = weights.rows.iter().map(|&value| f16::from_f32(value)).collect();
            Tensor::f16("rows", &shape, &halfs)
        }
    };
    folder.add_tensors(IDS, &[Tensor::u64("ids", &weights.ids), rows])?;
    contents::write(spec, &weights.contents, &mut folder)?;
    let items = Items::write(frozen.catalogue, &frozen.spec.fields, &mut folder)?;
    frozen.golden.write(&mut folder)?;
    folder.add(SAMPLES, json(&frozen.samples).as_bytes())?;
    let meta = Meta {
        spec: spec.clone(),
        spec_hash: hash_of(spec),
        schema_hash: hash_of(&spec.fields),
        ids: weights.ids.len() as u64,
        images: weights.contents[0].keys.len() as u64,
        pictures: weights.contents[0].pictures.len() as u64,
        items: items as u64,
        run: frozen.run.to_owned(),
        steps: frozen.steps,
    };
    folder.publish(FORMAT, meta)
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

/// How many bytes a version and its deltas have, by what their manifests list. A delta that cannot
/// be read, and what follows it, has none, as it is not opened either.
///
/// # Errors
/// If the version's manifest cannot be read, or its deltas cannot be listed.
pub fn bytes(version_dir: &Path) -> Result<u64> {
    let (mut bytes, mut number) = (Listed::read(version_dir)?.bytes(), 0);
    loop {
        let (place, last) = delta::following(version_dir, number)?;
        let Ok(delta) = Listed::read(&place) else { return Ok(bytes) };
        bytes = bytes.saturating_add(delta.bytes());
        number = last;
    }
}

/// The version a folder's name means. `07` or `+7` would be a second name of `7`.
pub(crate) fn version_of(name: &str) -> Option<u64> {
    name.parse().ok().filter(|version: &u64| version.to_string() == name)
}

/// The names of the dense tensors of a model, with layouts, in order of the weights.
pub(crate) fn dense_layouts(spec: &Spec, network: &RankNetwork) -> Vec<(String, Layout)> {
    let tower = |tower: TowerSpec| {
        (format!("tower.{}.", tower.name), Tower::new(tower.config).layout().clone())
    };
    let network = ("rank.".to_owned(), network.layout().clone());
    std::iter::once(network).chain(spec.towers().into_iter().map(tower)).collect()
}

/// blake3 of `value` as compact JSON, lowercase hex.
pub(crate) fn hash_of(value: &impl Serialize) -> String {
    blake3::hash(json(value).as_bytes()).to_hex().to_string()
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have text keys only")
}

fn check_finite(place: &Path, weights: &Weights) -> Result<()> {
    let projections = weights.contents.iter().filter_map(|content| content.projection.as_ref());
    let projections = projections.flat_map(|p| [&p.mean, &p.components]);
    let embeddings = weights.contents.iter().flat_map(|content| &content.embeddings);
    let images = embeddings.map(|values| ("image embeddings", values));
    let images = images.chain(projections.map(|values| ("projections", values)));
    let all = [("dense weights", &weights.dense), ("rows", &weights.rows)];
    for (name, values) in all.into_iter().chain(images) {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let what = format!("not written: {name} hold {} at {at}", values[at]);
            return Err(Error::content(place, what));
        }
    }
    Ok(())
}

fn write_dense(spec: &Spec, weights: &Weights, folder: &mut FolderWriter) -> Result<()> {
    let network = RankNetwork::new(spec.rank_config());
    let layouts = dense_layouts(spec, &network);
    let mut rest = &weights.dense[..];
    let mut named = Vec::new();
    for (prefix, layout) in &layouts {
        let (part, after) = rest.split_at(layout.len());
        rest = after;
        named.extend(
            layout.entries.iter().map(|entry| {
                (format!("{prefix}{}", entry.name), &entry.shape, entry.view.of(part))
            }),
        );
    }
    assert!(rest.is_empty(), "{} dense weights too many", rest.len());
    let tensors: Vec<Tensor> =
        named.iter().map(|(name, shape, values)| Tensor::f32(name, shape, values)).collect();
    folder.add_tensors(DENSE, &tensors)
}

#[cfg(test)]
mod tests {
    use crate::fixture::Fixture;
    use ams_model::ImageArm;
    use safetensors::SafeTensors;
    use std::fs;

    #[test]
    fn equal_models_have_equal_hashes() {
        let hash = |change: fn(&mut Fixture)| {
            let mut fixture = Fixture::new(ImageArm::Joint);
            change(&mut fixture);
            fixture.write(3).unwrap().hash()
        };
        let first = hash(|_| ());
        assert_eq!(hash(|_| ()), first);
        assert_ne!(hash(|fixture| fixture.weights.rows[5] = 0.25), first);
    }

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
        assert_eq!(super::bytes(&place).unwrap(), on_disk(&place));
        let rows = [(7, Some(vec![0.0; 3]))].into();
        model.change(&crate::Changes { rows, ..crate::Changes::default() }).unwrap();
        let delta = on_disk(&place.join("deltas/0001"));
        assert_eq!(super::bytes(&place).unwrap(), on_disk(&place) + delta);
        assert!(delta > 0 && super::bytes(&fixture.place(2)).is_err());
    }

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

    #[test]
    fn tensors_are_named_for_other_programs() {
        let fixture = Fixture::new(ImageArm::Joint);
        fixture.write(1).unwrap();
        let names = |file: &str| {
            let bytes = fs::read(fixture.place(1).join(file)).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let mut names: Vec<String> = tensors
                .tensors()
                .iter()
                .map(|(name, view)| format!("{name} {:?} {:?}", view.dtype(), view.shape()))
                .collect();
            names.sort();
            names
        };
        let dense = names("dense.safetensors");
        for name in [
            "rank.mlp.0.group.weight F32",
            "tower.ad.0.weight F32 [4, 8]",
            "tower.behavior.1.bias F32 [3]",
        ] {
            assert!(dense.iter().any(|known| known.starts_with(name)), "{name} in {dense:?}");
        }
        assert_eq!(names("ids.safetensors"), ["ids U64 [17]", "rows F32 [17, 3]"]);
        let table = ["ad F32 [3, 3]", "behavior F32 [3, 3]", "keys U64 [3]"];
        assert_eq!(names("image_table.safetensors"), table);
        assert_eq!(names("pictures.safetensors"), ["keys U64 [3]", "names U64 [3]"]);
        let items = [
            "field.category.ids U64 [5]",
            "field.category.lengths U32 [6]",
            "items U64 [6]",
            "names.bytes U8 [6]",
            "names.lengths U32 [6]",
            "pictures U64 [6]",
        ];
        assert_eq!(names("items.safetensors"), items);
    }

    #[test]
    fn a_model_that_is_not_finite_is_not_written() {
        let mut fixture = Fixture::new(ImageArm::Joint);
        fixture.weights.contents[0].embeddings[1][2] = f32::NAN;
        let error = fixture.write(1).unwrap_err().to_string();
        assert!(error.ends_with("not written: image embeddings hold NaN at 2"), "{error}");
        assert!(!fixture.place(1).parent().unwrap().exists());
    }
}
