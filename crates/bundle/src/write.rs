//! Writing a bundle: everything needed to compute a score, in files any program can read, as
//! [`crate::files::layout`] says.

use std::path::Path;

use ams_data::catalogue::Catalogue;
use half::f16;
use serde_json::{Map, Value};

use crate::calibration::Calibration;
use crate::error::{Error, Result};
use crate::files::folder::{Folder, FolderWriter, Manifest, Tensor};
use crate::files::golden::Golden;
use crate::files::layout::{
    BundleMeta, CALIBRATION, DECISION, FORMAT, IDS, SAMPLES, hash_of, json,
};
use crate::request::PageView;
use crate::spec::Spec;
use crate::tables::contents::{self, ContentTable};
use crate::tables::dense;
use crate::tables::items::Items;

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
    /// Fields, towers and networks of the model.
    pub spec: &'a Spec,
    /// All numbers of the model, by [`Spec`].
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
    /// From logits to rates, if these are not the model's own.
    pub calibration: Option<&'a Calibration>,
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

/// Writes `frozen` as a bundle at `place`, which must not exist. The published hash is
/// [`Manifest::hash`] of what comes back.
///
/// # Errors
/// If something cannot be written, a weight is not finite, or two items have one hash; then nothing
/// stays behind.
pub fn write(place: &Path, frozen: &Frozen) -> Result<Manifest<BundleMeta>> {
    let Frozen { spec, weights, .. } = *frozen;
    assert_eq!(spec.check(), Ok(()), "a model that was trained has a good shape");
    check_finite(place, weights)?;
    let mut folder = FolderWriter::create(place)?;
    dense::write(spec, &weights.dense, &mut folder)?;
    let shape = [weights.ids.len(), spec.dim()];
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
    frozen.golden.write(frozen.spec, &mut folder)?;
    folder.add(SAMPLES, json(&frozen.samples).as_bytes())?;
    if let Some(calibration) = frozen.calibration {
        folder.add(CALIBRATION, json(calibration).as_bytes())?;
    }
    let meta = BundleMeta {
        spec: spec.clone(),
        spec_hash: hash_of(spec),
        schema_hash: hash_of(&spec.fields),
        ids: weights.ids.len() as u64,
        images: weights.contents[0].keys.len() as u64,
        pictures: weights.contents[0].pictures.len() as u64,
        items: items as u64,
        run: frozen.run.to_owned(),
        steps: frozen.steps,
        calibrated: frozen.calibration.is_some(),
    };
    folder.publish(FORMAT, meta)
}

/// Adds to the bundle at `place`, which does not serve yet, the `decision` by which it may; another
/// one that is there is replaced. Ended in between, it is a bundle without, or with the decision
/// before, and may be called again.
///
/// # Errors
/// If there is no bundle, or it cannot be written.
pub fn add_decision(place: &Path, decision: &Map<String, Value>) -> Result<Manifest<BundleMeta>> {
    let folder = Folder::<BundleMeta>::open(place, FORMAT)?;
    let text = serde_json::to_string_pretty(decision).expect("an object of JSON") + "\n";
    folder.publish_with(DECISION, text.as_bytes())
}

fn check_finite(place: &Path, weights: &Weights) -> Result<()> {
    let projections = weights.contents.iter().filter_map(|content| content.projection.as_ref());
    let projections = projections.flat_map(|p| [&p.mean, &p.components]);
    let semantic = weights.contents.iter().filter_map(|content| content.semantic.as_ref());
    let centers: Vec<Vec<f32>> = semantic.map(|semantic| semantic.codebooks.centers()).collect();
    let embeddings = weights.contents.iter().flat_map(|content| &content.embeddings);
    let images = embeddings.map(|values| ("image embeddings", values));
    let images = images.chain(projections.map(|values| ("projections", values)));
    let images = images.chain(centers.iter().map(|values| ("codebooks", values)));
    let all = [("dense weights", &weights.dense), ("rows", &weights.rows)];
    for (name, values) in all.into_iter().chain(images) {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let what = format!("not written: {name} hold {} at {at}", values[at]);
            return Err(Error::content(place, what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::Model;
    use crate::fixture::{Fixture, replace};
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
    fn a_decision_is_added_and_replaced() {
        let fixture = Fixture::new(ImageArm::Joint);
        let plain = fixture.write(1).unwrap();
        let of = |gain: f64| serde_json::json!({"gain": gain}).as_object().unwrap().clone();
        let mut hashes = vec![plain.hash()];
        for gain in [0.5, -0.25] {
            let manifest = super::add_decision(&fixture.place(1), &of(gain)).unwrap();
            assert!(!hashes.contains(&manifest.hash()));
            hashes.push(manifest.hash());
            let model = Model::open(&fixture.place(1)).unwrap();
            assert_eq!((model.decision(), model.hash()), (Some(&of(gain)), &manifest.hash()[..]));
            // Again, it is the same.
            let again = super::add_decision(&fixture.place(1), &of(gain)).unwrap();
            assert_eq!(again, manifest);
        }
        let text = fs::read_to_string(fixture.place(1).join("decision.json")).unwrap();
        assert_eq!(text, "{\n  \"gain\": -0.25\n}\n");
        let file = fixture.place(1).join("decision.json");
        replace(&file, text.replace('2', "3"));
        let error = Model::open(&fixture.place(1)).unwrap_err().to_string();
        assert!(error.contains("decision.json: blake3 is"), "{error}");
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
