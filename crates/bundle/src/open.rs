//! Opening a bundle: what is in its files, checked.

use std::path::{Component, Path, PathBuf};

use ams_model::RankNetwork;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::calibration::Calibration;
use crate::error::{Error, Result};
use crate::files::deltas;
use crate::files::folder::{Folder, MANIFEST};
use crate::files::golden::{GOLDEN, Golden};
use crate::files::layout::{self, BundleMeta, CALIBRATION, DECISION, FORMAT, IDS, SAMPLES};
use crate::files::numbers::Memory;
use crate::model::{Bundle, Model, Scratch};
use crate::request::PageView;
use crate::spec::Spec;
use crate::tables::contents;
use crate::tables::embed::read_dense;
use crate::tables::items::{ITEMS, Items};
use crate::tables::rows;
use crate::unpack::{self, open_version};

/// Most a recomputed golden logit may differ from the trainer's, as a share of it where it is above
/// 1.
const GOLDEN_TOLERANCE: f32 = 1e-5;

impl Model {
    /// Opens a version (`<model>/<version>/`) or the highest version of a model (`<model>/`) as it
    /// was published, without deltas. Everything is checked: hashes, shapes, orders; and the golden
    /// logits are computed again.
    ///
    /// # Errors
    /// If there is no bundle, a file is missing, changed or does not fit the spec, or a golden
    /// logit differs.
    pub fn open_bundle(dir: &Path) -> Result<Model> {
        Model::open_bundle_in(dir, Memory::Mapped)
    }

    /// The same with its numbers in `memory`, and those of the deltas that follow.
    ///
    /// # Errors
    /// As [`Model::open_bundle`].
    pub fn open_bundle_in(dir: &Path, memory: Memory) -> Result<Model> {
        let (path, name, version) = locate(dir)?;
        let folder = open_version(&path, memory)?;
        let model = Model::of_folder(&folder, &name, version)?;
        model.check_golden(&folder)?;
        Ok(model)
    }

    /// The model of the files in `folder`, whose golden logits are not computed.
    ///
    /// # Errors
    /// If a file is missing, changed or does not fit the spec.
    pub(crate) fn of_folder(
        folder: &Folder<BundleMeta>,
        name: &str,
        version: u64,
    ) -> Result<Model> {
        let (path, name) = (folder.path().to_path_buf(), name.to_owned());
        let meta = folder.manifest.meta.clone();
        meta.check().map_err(|what| Error::content(path.join(MANIFEST), what))?;
        let spec = &meta.spec;
        let network = RankNetwork::new(spec.rank_config());
        let (w, embedder) = read_dense(folder, spec, &network)?;
        let hash = folder.manifest.hash();
        let rows = rows::LayeredRows::new(rows::read(&folder.tensors(IDS)?, spec.dim())?);
        let contents = contents::read(folder, spec)?;
        let items = read_items(folder, spec)?;
        let (group_inputs, impression_inputs) = (spec.group_inputs(), spec.impression_inputs());
        let behavior_inputs = spec.behavior_inputs();
        let inputs = group_inputs.iter().chain(&impression_inputs).chain(&behavior_inputs);
        let bundle = Bundle {
            unknown: inputs.map(|input| spec.unknown_id(*input)).collect(),
            path,
            name,
            version,
            memory: folder.memory(),
            hash,
            group_inputs,
            impression_inputs,
            behavior_inputs,
            w,
            embedder,
            network,
            samples: read_samples(folder)?,
            calibration: read_calibration(folder)?,
            decision: read_decision(folder)?,
            meta,
        };
        Ok(Model::new(bundle, rows, contents, items))
    }

    fn check_golden(&self, folder: &Folder<BundleMeta>) -> Result<()> {
        let file = folder.tensors(GOLDEN)?;
        let golden = Golden::read(&file, self.spec())?;
        let mut logits = Vec::new();
        self.score_groups(&golden.groups, &mut Scratch::default(), &mut logits);
        let near = |(got, expected): (&f32, &f32)| {
            (got - expected).abs() <= GOLDEN_TOLERANCE * expected.abs().max(1.0)
        };
        match logits.iter().zip(&golden.logits).position(|pair| !near(pair)) {
            None => Ok(()),
            Some(at) => {
                let what = format!(
                    "{} of impression {}, and this build computes {}: the bundle was changed, or \
                     this build computes other scores; do not serve it",
                    golden.logits[at],
                    at + 1,
                    logits[at]
                );
                Err(file.wrong("logits", &format!("says {what}")))
            }
        }
    }
}

/// The version folder meant by `dir`, where links lead; the model's name and the version. These are
/// those of the folders that were asked for: a model that links to another has a name of its own. A
/// link such as `latest`, which is no version, means the one it leads to.
fn locate(dir: &Path) -> Result<(PathBuf, String, u64)> {
    let mut asked = named(dir)?;
    let mut path = dir.canonicalize().map_err(Error::io(dir))?;
    if !path.join(MANIFEST).is_file() {
        // Also what may not be read is said here.
        layout::versions(&path)?;
        let Some(version) = layout::whole_versions(&path)?.pop() else {
            let what = format!(
                "no bundle: neither {MANIFEST} nor a version folder with one; \
                 `ams publish` writes bundles"
            );
            return Err(Error::content(dir, what));
        };
        asked.push(version.to_string());
        let place = path.join(version.to_string());
        path = place.canonicalize().map_err(Error::io(&place))?;
    }
    let name_of = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let called = |place: &Path| {
        let version = layout::version_of(&name_of(place)?)?;
        Some((place.parent().and_then(name_of).unwrap_or_default(), version))
    };
    match called(&asked).or_else(|| called(&path)) {
        Some((name, version)) => Ok((path, name, version)),
        None => {
            let what = "expected <model>/<version>/ with a whole number as version";
            Err(Error::content(&path, what))
        }
    }
}

/// `dir` from the root, with a name at its end: links are followed only where `..` follows them,
/// since it leads out of their target.
fn named(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir).map_err(Error::io(dir))?;
    let components: Vec<Component<'_>> = absolute.components().collect();
    let up = components.iter().rposition(|part| *part == Component::ParentDir);
    let (followed, rest) = components.split_at(up.map_or(0, |at| at + 1));
    let mut path: PathBuf = followed.iter().collect();
    if !followed.is_empty() {
        path = path.canonicalize().map_err(Error::io(dir))?;
    }
    path.extend(rest);
    Ok(path)
}

/// A version by its manifest and its decision: what can be told of it without reading its numbers.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its description.
    pub meta: BundleMeta,
    /// blake3 over its files, as the manifest lists them.
    pub hash: String,
    /// Bytes of its files and of its deltas, by their manifests.
    pub bytes: u64,
    /// The number of the last delta that follows, 0 without any.
    pub deltas: u64,
    /// By what decision it was published, if somebody decided.
    pub decision: Option<Map<String, Value>>,
}

/// Describes the version in the folder `path`.
///
/// # Errors
/// If its manifest or its decision cannot be read, or its deltas cannot be listed.
pub fn describe(path: &Path) -> Result<Described> {
    let (bytes, deltas) = (deltas::version_bytes(path)?, deltas::last(path)?);
    let (hash, decision, meta) = match unpack::delta_folder(path, Memory::Mapped)? {
        Some(folder) => {
            (folder.manifest.meta.hash(), read_decision(&folder)?, folder.manifest.meta.bundle)
        }
        None => {
            let folder = Folder::<BundleMeta>::open(path, FORMAT)?;
            (folder.manifest.hash(), read_decision(&folder)?, folder.manifest.meta)
        }
    };
    Ok(Described { meta, hash, bytes, deltas, decision })
}

fn read_items(folder: &Folder<BundleMeta>, spec: &Spec) -> Result<Items> {
    Items::read(&folder.tensors(ITEMS)?, &spec.fields)
}

fn read_samples(folder: &Folder<BundleMeta>) -> Result<Vec<PageView>> {
    let bytes = folder.read(SAMPLES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::content(folder.path().join(SAMPLES), error.to_string()))
}

fn read_calibration(folder: &Folder<BundleMeta>) -> Result<Option<Calibration>> {
    let wrong = |what: String| Error::content(folder.path().join(CALIBRATION), what);
    let is_there = folder.manifest.files.contains_key(CALIBRATION);
    match folder.manifest.meta.calibrated {
        false if is_there => Err(wrong(format!("is there, but `calibrated` is not in {MANIFEST}"))),
        false => Ok(None),
        true => {
            let bytes = folder.read(CALIBRATION)?;
            let calibration: Calibration =
                serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            calibration.check().map_err(wrong)?;
            Ok(Some(calibration))
        }
    }
}

fn read_decision<M: DeserializeOwned>(folder: &Folder<M>) -> Result<Option<Map<String, Value>>> {
    if !folder.manifest.files.contains_key(DECISION) {
        return Ok(None);
    }
    let decision = serde_json::from_slice(&folder.read(DECISION)?);
    let path = folder.path().join(DECISION);
    decision.map(Some).map_err(|error| Error::content(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Changes;
    use crate::files::folder::FolderWriter;
    use crate::files::layout::FORMAT;
    use crate::fixture::{Fixture, replace};
    use ams_data::Id;
    use ams_model::ImageArm;
    use std::fs;
    use std::io::Write;
    #[cfg(unix)]
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_model_folder_means_its_highest_whole_version() {
        let fixture = Fixture::new(ImageArm::Ad);
        let manifest = fixture.write(9).unwrap();
        fixture.write(10).unwrap();
        let shop = fixture.place(9).parent().unwrap().to_path_buf();
        for stray in ["11", "current", "012"] {
            fs::create_dir(shop.join(stray)).unwrap();
        }
        let model = Model::open(&shop).unwrap();
        assert_eq!((model.name(), model.version()), ("shop", 10));
        assert_eq!(Model::open(&fixture.place(9)).unwrap().version(), 9);
        assert_eq!((model.hash(), &model.meta().run[..]), (&manifest.hash()[..], "test"));
        assert_eq!((model.samples(), model.items().count()), (&fixture.samples[..], 6));
        assert_eq!(layout::next_version(&shop).unwrap(), 12);
        assert_eq!(layout::next_version(&shop.join("none")).unwrap(), 1);
    }

    /// What opening says after `change` was written in place of a fixture's parts.
    fn refused(change: impl FnOnce(&mut Fixture)) -> String {
        let mut fixture = Fixture::new(ImageArm::Joint);
        change(&mut fixture);
        fixture.write(1).unwrap();
        let error = Model::open(&fixture.place(1)).expect_err("a bad bundle").to_string();
        error.replace(&fixture.place(1).canonicalize().unwrap().display().to_string(), "DIR")
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        type Change = fn(&mut Fixture);
        let cases: [(Change, &str); 5] = [
            (
                |f| f.weights.ids.swap(3, 4),
                "DIR/ids.safetensors: tensor `ids` is not ascending at position 4",
            ),
            (
                |f| f.weights.contents[0].keys.reverse(),
                "DIR/image_table.safetensors: tensor `keys` is not ascending at position 1",
            ),
            (
                |f| f.weights.contents[0].pictures.reverse(),
                "DIR/pictures.safetensors: tensor `names` is not ascending at position 1",
            ),
            (|f| f.golden.logits[4] += 0.001, "DIR/golden.safetensors: tensor `logits` says"),
            (|f| f.weights.rows[0] += 1.0, "DIR/golden.safetensors: tensor `logits` says"),
        ];
        for (change, expected) in cases {
            let error = refused(change);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_damaged_bundle_is_refused() {
        let fixture = Fixture::new(ImageArm::Joint);
        let manifest = fixture.write(1).unwrap();
        for name in manifest.files.keys() {
            let path = fixture.place(1).join(name);
            let whole = fs::read(&path).unwrap();
            let mut flipped = whole.clone();
            flipped[whole.len() / 2] ^= 1;
            for damaged in [&flipped[..], &whole[..whole.len() - 1], &[]] {
                replace(&path, damaged);
                let error = Model::open(&fixture.place(1)).expect_err(name).to_string();
                assert!(error.contains(&**name) && error.contains("by MANIFEST.json"), "{error}");
            }
            replace(&path, whole);
        }
        Model::open(&fixture.place(1)).unwrap();
    }

    /// What was opened as a copy is out of reach: files are cut, written over in place and removed,
    /// one after the other.
    #[test]
    fn a_copied_model_does_not_need_its_files() {
        let fixture = Fixture::new(ImageArm::Joint);
        let rows = [(Id::of("user", "u1").0, Some(vec![0.5, -0.25, 1.0]))].into();
        let changes = Changes { rows, ..Changes::default() };
        fixture.model().change(&changes).unwrap();
        let bundle = Model::open_bundle_in(&fixture.place(1), Memory::Copied).unwrap();
        let model = bundle.next().unwrap().unwrap();
        assert_eq!((model.memory(), model.deltas()), (Memory::Copied, 1));
        let logits = |model: &Model| {
            let mut logits = Vec::new();
            let groups = &fixture.golden.groups;
            model.score_groups(groups, &mut Scratch::default(), &mut logits);
            logits
        };
        let expected = logits(&model);
        assert_eq!(logits(&Model::open(&fixture.place(1)).unwrap()), expected);
        assert_ne!(logits(&bundle), expected);
        type Damage = fn(&fs::File, u64);
        let damages: [Damage; 2] = [
            |mut file, length| file.write_all(&vec![0x3f; length as usize]).unwrap(),
            |file, _| file.set_len(0).unwrap(),
        ];
        for folder in [fixture.place(1), fixture.place(1).join("deltas/0001")] {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
                let length = entry.metadata().unwrap().len();
                if entry.path().is_dir() {
                    continue;
                }
                // As its owner may.
                #[cfg(unix)]
                fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o644)).unwrap();
                for damage in damages {
                    let file = fs::OpenOptions::new().write(true).open(entry.path()).unwrap();
                    damage(&file, length);
                    assert_eq!(logits(&model), expected, "{entry:?}");
                }
                fs::remove_file(entry.path()).unwrap();
            }
        }
        assert_eq!(logits(&model), expected);
        assert!(model.next().unwrap().is_none());
    }

    /// A name and a version are those of the folders that were asked for.
    #[cfg(unix)]
    #[test]
    fn links_do_not_change_names() {
        use std::os::unix::fs::symlink;
        let fixture = Fixture::new(ImageArm::None);
        fixture.write(1).unwrap();
        let root = fixture.dir.path();
        let shop = root.join("shop");
        symlink(&shop, root.join("fashion")).unwrap();
        symlink("1", shop.join("7")).unwrap();
        symlink("1", shop.join("latest")).unwrap();
        fs::create_dir_all(root.join("by/hash")).unwrap();
        symlink(fixture.place(1), root.join("by/hash/3")).unwrap();
        for (asked, name, version) in [
            ("shop", "shop", 7),
            ("shop/", "shop", 7),
            ("shop/1", "shop", 1),
            ("shop/7", "shop", 7),
            ("shop/./7/.", "shop", 7),
            ("fashion", "fashion", 7),
            ("fashion/1", "fashion", 1),
            ("by/hash/3", "hash", 3),
            // No version: the one it leads to.
            ("shop/latest", "shop", 1),
            // Out of where the link leads.
            ("by/hash/3/..", "shop", 7),
            ("by/../fashion/1", "fashion", 1),
        ] {
            let model = Model::open(&root.join(asked)).unwrap();
            assert_eq!((model.name(), model.version()), (name, version), "{asked}");
            assert_eq!(model.path(), fixture.place(1).canonicalize().unwrap());
        }
        assert!(named(Path::new(".")).unwrap().ends_with(std::env::current_dir().unwrap()));
    }

    #[test]
    fn a_changed_spec_is_refused() {
        let fixture = Fixture::new(ImageArm::Joint);
        fixture.write(1).unwrap();
        let path = fixture.place(1).join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let changed = [
            (text.replace("\"max_behaviors\": 4", "\"max_behaviors\": 5"), "the spec's blake3 is"),
            (text.replace("\"hour\"", "\"minute\""), "the spec's blake3 is"),
            (text.replace("\"dim\": 3", "\"dims\": 3"), "unknown field `dims`"),
        ];
        for (changed, expected) in changed {
            assert_ne!(changed, text);
            replace(&path, changed);
            let error = Model::open(&fixture.place(1)).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = Model::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no bundle: neither MANIFEST.json nor a version folder"), "{error}");
        let error = Model::open(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
        let other = dir.path().join("shop").join("1");
        FolderWriter::create(&other).unwrap().finish("ams-checkpoint/1", 0).unwrap();
        let error = Model::open(&other).unwrap_err().to_string();
        let expected = r#"format is "ams-checkpoint/1", expected "ams-bundle/1""#;
        assert!(error.ends_with(expected), "{error}");
        let stray = dir.path().join("shop").join("latest");
        FolderWriter::create(&stray).unwrap().finish(FORMAT, 0).unwrap();
        let error = Model::open(&stray).unwrap_err().to_string();
        assert!(error.ends_with("with a whole number as version"), "{error}");
    }
}
