//! Writing a version as its difference from an earlier one, a version delta.
//!
//! A file that the base has to the bit is left out. Tables tell what became of their rows; where
//! that does not give the file of the version back, or is longer, the file is told whole. So
//! opening gives the bits of the version, unless numbers are rounded to make the delta smaller;
//! then the golden logits are computed again from what comes back, and the delta says by how much
//! the version differs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ams_data::staging::FileEntry;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::folder::{
    BaseVersion, FileList, Folder, FolderWriter, MANIFEST, Manifest, Source, entry_of,
};
use crate::files::golden::{GOLDEN, Golden};
use crate::files::layout::{BundleMeta, FORMAT, IDS, IMAGE_TABLE, version_of};
use crate::files::numbers::{Bytes, Memory};
use crate::files::tensors::TensorFile;
use crate::files::version_delta::{
    LONGEST_CHAIN, Rounded, RowCounts, VERSION_DELTA, VersionDeltaMeta, bases, changes_of, too_long,
};
use crate::model::{Model, Scratch};
use crate::tables::keyed::{self, Precision};
use crate::unpack::{open_version, tables_of};
use crate::write::RowFormat;

/// How exactly a version delta tells its version.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VersionDeltaOptions {
    /// How changed and new rows of ids are told. If as halfs, the version has them rounded.
    pub rows: RowFormat,
    /// An image whose embeddings differ from the base's by at most this much, in every number,
    /// keeps those. 0: all that moved are told.
    pub image_tolerance: f32,
}

/// A version delta that was written.
#[derive(Clone, Debug)]
pub struct VersionDelta {
    /// The description in its manifest.
    pub meta: VersionDeltaMeta,
    /// Hash of the version.
    pub hash: String,
    /// Bytes of its files, with the manifest.
    pub bytes: u64,
    /// The same of the version when it is whole.
    pub whole_bytes: u64,
    /// Files of the version that are told whole.
    pub whole: Vec<String>,
}

/// Writes the version `to` (`<model>/<version>/`, or the highest of `<model>/`) at `place`, which
/// must not exist, as its difference from the version `from`. Deltas of either are not in it.
///
/// # Errors
/// If a version cannot be opened, the two have other shapes or are the same, `place` cannot follow
/// `from`, or something cannot be written; then nothing stays behind.
pub fn write_version_delta(
    from: &Path,
    to: &Path,
    place: &Path,
    options: VersionDeltaOptions,
) -> Result<VersionDelta> {
    let (from, to) = (Model::open_bundle(from)?, Model::open_bundle(to)?);
    check_place(&from, &to, place)?;
    check_shapes(&from, &to)?;
    let base = open_version(from.path(), Memory::Mapped)?;
    let target = open_version(to.path(), Memory::Mapped)?;
    let mut teller = Teller {
        base: &base,
        target: &target,
        options,
        folder: FolderWriter::create(place)?,
        result: BTreeMap::new(),
        sources: BTreeMap::new(),
        tables: BTreeMap::new(),
        rounded: Rounded::default(),
        whole: Vec::new(),
    };
    for name in target.manifest.files.keys().filter(|name| *name != GOLDEN) {
        teller.tell(name)?;
    }
    teller.tell_golden(&to)?;
    let is_rounded = teller.rounded != Rounded::default();
    let meta = VersionDeltaMeta {
        base_version: BaseVersion { number: from.version(), hash: from.hash().to_owned() },
        target: to.hash().to_owned(),
        bundle: target.manifest.meta.clone(),
        result: teller.result,
        tables: teller.tables,
        rounded: is_rounded.then_some(teller.rounded),
    };
    let hash = meta.hash();
    let written = teller.folder.publish(VERSION_DELTA, meta)?;
    Ok(VersionDelta {
        hash,
        bytes: bytes_of(&written),
        whole_bytes: bytes_of(&target.manifest),
        meta: written.meta,
        whole: teller.whole,
    })
}

/// Bytes of a folder's files, with the manifest.
fn bytes_of<T: serde::Serialize>(manifest: &Manifest<T>) -> u64 {
    let own = serde_json::to_string_pretty(manifest).map_or(0, |text| text.len() as u64);
    manifest.files.values().fold(own, |sum, entry| sum.saturating_add(entry.bytes))
}

/// That `place` can be a version that follows `from`.
fn check_place(from: &Model, to: &Model, place: &Path) -> Result<()> {
    let wrong = |what: String| Err(Error::content(place, what));
    let number = place.file_name().and_then(|name| name.to_str()).and_then(version_of);
    let base = from.version();
    if number.is_none_or(|number| number <= base) {
        return wrong(format!(
            "expected <model>/<version> with a version above {base}, which it follows"
        ));
    }
    if from.hash() == to.hash() {
        return wrong(format!(
            "nothing to tell: {} and {} are the same version, {}",
            from.path().display(),
            to.path().display(),
            to.hash()
        ));
    }
    if bases(from.path())?.len() >= LONGEST_CHAIN {
        return Err(too_long(from.path()));
    }
    // It may be meant for another host; where there is a base beside it, it is the right one.
    let beside = place.with_file_name(base.to_string());
    if beside.join(MANIFEST).exists() {
        let there = FileList::read(&beside)?.hash();
        if there != from.hash() {
            return wrong(format!(
                "follows version {base} with hash {}, and {} has {there}",
                from.hash(),
                beside.display()
            ));
        }
    }
    Ok(())
}

/// That two versions have one shape: all of the spec but numbers that come from the data, the scale
/// of features and the edges between numbers.
///
/// # Errors
/// Otherwise, with the first key that differs.
pub fn check_shapes(from: &Model, to: &Model) -> Result<()> {
    let json = |model: &Model| serde_json::to_value(model.spec()).unwrap_or_default();
    match spec_difference("spec", &json(from), &json(to)) {
        None => Ok(()),
        Some(what) => Err(Error::content(
            to.path(),
            format!(
                "{what} of {}, which it is to follow: versions of different shapes have no rows in common; \
                 publish it whole",
                from.path().display()
            ),
        )),
    }
}

/// How `new` differs from `old`, by the first key that does.
fn spec_difference(key: &str, old: &Value, new: &Value) -> Option<String> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let names = names.into_iter().filter(|name| !matches!(&name[..], "scale" | "edges"));
            let of = |map: &serde_json::Map<String, Value>, name: &str| {
                map.get(name).cloned().unwrap_or_default()
            };
            names.into_iter().find_map(|name| {
                spec_difference(&format!("{key}.{name}"), &of(old, name), &of(new, name))
            })
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let pairs = old.iter().zip(new).enumerate();
            pairs
                .into_iter()
                .find_map(|(at, (old, new))| spec_difference(&format!("{key}.{at}"), old, new))
        }
        _ if old == new => None,
        _ => Some(format!("{key} is {new}, expected {old} as")),
    }
}

/// A version delta on its way.
struct Teller<'a> {
    base: &'a Folder<BundleMeta>,
    target: &'a Folder<BundleMeta>,
    options: VersionDeltaOptions,
    folder: FolderWriter,
    /// The files of the version that comes back, and where they are now.
    result: BTreeMap<String, FileEntry>,
    sources: BTreeMap<String, Source>,
    tables: BTreeMap<String, RowCounts>,
    rounded: Rounded,
    whole: Vec<String>,
}

impl Teller<'_> {
    /// Tells the file `name` of the version.
    fn tell(&mut self, name: &str) -> Result<()> {
        let entry = self.target.manifest.files[name].clone();
        if self.base.manifest.files.get(name) == Some(&entry) {
            self.count_same(name)?;
            self.sources.insert(name.to_owned(), self.base.source(name));
            self.result.insert(name.to_owned(), entry);
            return Ok(());
        }
        if self.tell_changes(name, &entry)? {
            return Ok(());
        }
        self.folder.add(name, &self.target.read(name)?)?;
        self.sources.insert(name.to_owned(), self.target.source(name));
        self.result.insert(name.to_owned(), entry);
        self.whole.push(name.to_owned());
        Ok(())
    }

    /// Counts the rows of a file that is the base's.
    fn count_same(&mut self, name: &str) -> Result<()> {
        for table in tables_of(&self.target.manifest.meta.spec, name) {
            let same = self.base.tensors(name)?.index(&table.keys)?.len() as u64;
            self.tables.insert(table.name, RowCounts { same, ..RowCounts::default() });
        }
        Ok(())
    }

    /// Tells what became of the rows of the file `name`, if it has some and that is shorter.
    fn tell_changes(&mut self, name: &str, entry: &FileEntry) -> Result<bool> {
        let tables = tables_of(&self.target.manifest.meta.spec, name);
        if tables.is_empty() || !self.base.manifest.files.contains_key(name) {
            return Ok(false);
        }
        let precision = match (name, self.options) {
            (IDS, VersionDeltaOptions { rows: RowFormat::F16, .. }) => Precision::Halfs,
            (IMAGE_TABLE, VersionDeltaOptions { image_tolerance: most, .. }) if most > 0.0 => {
                Precision::Within(most)
            }
            _ => Precision::Exact,
        };
        let (old, new) = (self.base.tensors(name)?, self.target.tensors(name)?);
        let Some(told) = keyed::changes(&old, &new, &tables, precision)? else {
            return Ok(false);
        };
        for (table, counts) in tables.iter().zip(&told.counts) {
            self.tables.insert(table.name.clone(), *counts);
        }
        let changes_name = changes_of(name);
        let changes = TensorFile::new(Path::new(&changes_name), Bytes::Owned(told.bytes.clone()))?;
        let back = keyed::apply(&old, &changes, &tables)?;
        let of_back = entry_of(&back);
        // Of a table whose rows all stay within the tolerance, the base's is the whole of it.
        let is_base = self.base.manifest.files.get(name) == Some(&of_back);
        // An exact one that differs was written in another order of tensors.
        let is_wrong = told.error == 0.0 && of_back != *entry;
        if is_wrong || !is_base && told.bytes.len() as u64 >= entry.bytes {
            return Ok(false);
        }
        match name {
            IDS => self.rounded.rows = told.error,
            IMAGE_TABLE => self.rounded.embeddings = told.error,
            _ => {}
        }
        if !is_base {
            self.folder.add(&changes_name, &told.bytes)?;
        }
        self.sources.insert(name.to_owned(), Source::Bytes(Arc::new(Bytes::Owned(back))));
        self.result.insert(name.to_owned(), of_back);
        Ok(true)
    }

    /// Tells the golden logits; if numbers are rounded, those of what comes back.
    fn tell_golden(&mut self, to: &Model) -> Result<()> {
        if self.rounded == Rounded::default() {
            return self.tell(GOLDEN);
        }
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            meta: self.target.manifest.meta.clone(),
            files: self.result.clone(),
        };
        let path = self.target.path();
        let folder = Folder::assembled(path, Memory::Mapped, manifest, self.sources.clone());
        let model = Model::of_folder(&folder, to.name(), to.version())?;
        let of_target = Golden::read(&self.target.tensors(GOLDEN)?, to.spec())?;
        let mut logits = Vec::new();
        model.score_groups(&of_target.groups, &mut Scratch::default(), &mut logits);
        let apart = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs();
        let apart = logits.iter().zip(&of_target.logits).map(apart);
        self.rounded.logits = apart.fold(0.0, f64::max);
        Golden { logits, ..of_target }.write(to.spec(), &mut self.folder)?;
        self.result.insert(GOLDEN.to_owned(), self.folder.entries()[GOLDEN].clone());
        self.whole.push(GOLDEN.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::changes::Changes;
    use crate::files::arrival::{Arrival, look};
    use crate::fixture::{Fixture, Item, SHOP, noise, replace, semantic, spec, with};
    use crate::unpack::unpack;
    use ams_data::{Id, PictureName};
    use ams_model::ImageArm;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    const EXACT: VersionDeltaOptions =
        VersionDeltaOptions { rows: RowFormat::F32, image_tolerance: 0.0 };

    /// What becomes of the rows of a table: of each in turn 1, it is changed, or 2, it is gone; and
    /// keys that are new.
    type Fate = (Vec<u8>, Vec<u64>);

    /// The rows of `width` numbers with their keys, after `fate`; by how much those that are
    /// changed move is at most `by`.
    fn moved(keys: &mut Vec<u64>, tables: &mut [(usize, &mut Vec<f32>)], fate: &Fate, by: f32) {
        let fate_of = |at: usize| fate.0.get(at % fate.0.len().max(1)).copied().unwrap_or(0);
        for (width, values) in tables {
            let width = *width;
            let mut rows: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
            for (at, &key) in keys.iter().enumerate() {
                let row = values[at * width..][..width].iter();
                let move_by = if fate_of(at) == 1 { by * noise(key) } else { 0.0 };
                if fate_of(at) != 2 {
                    rows.insert(key, row.map(|value| value + move_by).collect());
                }
            }
            for &key in &fate.1 {
                rows.entry(key)
                    .or_insert_with(|| (0..width as u64).map(|d| noise(key ^ d)).collect());
            }
            **values = rows.into_values().flatten().collect();
        }
        let mut at = 0;
        keys.retain(|_| {
            at += 1;
            fate_of(at - 1) != 2
        });
        keys.extend(&fate.1);
        keys.sort_unstable();
        keys.dedup();
    }

    /// What another training makes of the fixture's model: its rows, embeddings of images and
    /// names after `fates`, some of its items.
    fn retrained(mut fixture: Fixture, fates: &[Fate; 3], items: &[Item], by: f32) -> Fixture {
        let weights = &mut fixture.weights;
        moved(&mut weights.ids, &mut [(3, &mut weights.rows)], &fates[0], by);
        let content = &mut weights.contents[0];
        let images = content.keys.len();
        let widths: Vec<usize> =
            content.embeddings.iter().map(|values| values.len() / images.max(1)).collect();
        let mut tables: Vec<_> = widths.into_iter().zip(&mut content.embeddings).collect();
        moved(&mut content.keys, &mut tables, &fates[1], by);
        if let Some(semantic) = &mut content.semantic {
            for codes in &mut semantic.codes {
                codes.resize(content.keys.len(), 1);
            }
        }
        let mut names: Vec<u64> = content.pictures.iter().map(|&(name, _)| name).collect();
        moved(&mut names, &mut [], &fates[2], by);
        let key = |name: &u64| content.keys.get(*name as usize % content.keys.len().max(1));
        content.pictures =
            names.iter().map(|name| (*name, key(name).copied().unwrap_or(7))).collect();
        weights.dense.iter_mut().for_each(|weight| *weight += by * 0.01);
        fixture.sell(items);
        fixture.golden.logits = fixture.slow_logits(&fixture.golden.groups);
        fixture
    }

    fn bits(model: &Model, fixture: &Fixture) -> Vec<u32> {
        let mut logits = Vec::new();
        model.score_groups(&fixture.golden.groups, &mut Scratch::default(), &mut logits);
        logits.iter().map(|logit| logit.to_bits()).collect()
    }

    fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: PathBuf| (path.file_name().unwrap().into(), fs::read(&path).unwrap());
        entries.filter(|path| path.is_file()).map(read).collect()
    }

    /// A model with every kind of table, as version 1.
    fn first() -> Fixture {
        let fixture = Fixture::of(semantic(&spec(ImageArm::Joint), 2));
        fixture.write(1).unwrap();
        fixture
    }

    /// Version 1, and version 2 after another training.
    fn two(by: f32) -> Fixture {
        let rows = (vec![0, 1, 2, 1], vec![5, 9]);
        // The new image is the last: codes of the others stay theirs.
        let fates = [rows, (vec![1, 0], vec![u64::MAX]), (vec![0, 1, 2], vec![3])];
        let items = [SHOP[0], ("2", None, None), SHOP[3], ("7", Some("1.png"), Some("hats"))];
        let fixture = retrained(first(), &fates, &items, by);
        fixture.write(2).unwrap();
        fixture
    }

    fn fate() -> impl Strategy<Value = Fate> {
        let new = proptest::collection::vec(1..u64::MAX, 0..4);
        (proptest::collection::vec(0..4_u8, 0..12), new)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        /// Whatever became of rows, images, names and items: the version comes back to the bit.
        #[test]
        fn a_version_comes_back_to_the_bit(
            fates in [fate(), fate(), fate()],
            sold in proptest::collection::vec(any::<bool>(), 6),
        ) {
            let items: Vec<Item> =
                SHOP.iter().zip(&sold).filter(|(_, sold)| **sold).map(|(item, _)| *item).collect();
            let fixture = retrained(first(), &fates, &items, 0.5);
            let target = fixture.write(2).unwrap();
            let [from, to, place, whole] = [1, 2, 3, 4].map(|version| fixture.place(version));
            let written = write_version_delta(&from, &to, &place, EXACT).unwrap();
            prop_assert_eq!(written.meta.rounded, None);
            let [to_model, model] = [&to, &place].map(|place| Model::open(place).unwrap());
            prop_assert_eq!(&target.hash(), model.hash());
            prop_assert_eq!(&written.hash, model.hash());
            prop_assert_eq!(bits(&model, &fixture), bits(&to_model, &fixture));
            unpack(&place, &whole).unwrap();
            prop_assert_eq!(files(&whole), files(&to));
        }
    }

    #[test]
    fn rows_that_stay_are_not_told() {
        let fixture = two(0.5);
        let [from, to, place] = [1, 2, 3].map(|version| fixture.place(version));
        let written = write_version_delta(&from, &to, &place, EXACT).unwrap();
        let names: Vec<String> =
            files(&place).keys().map(|name| name.display().to_string()).collect();
        let expected = "MANIFEST.json dense.safetensors golden.safetensors ids.changes.safetensors \
                        image_table.changes.safetensors items.changes.safetensors \
                        pictures.changes.safetensors";
        let at = |name: &str| written.meta.tables[name];
        assert_eq!(at("images"), RowCounts { same: 1, changed: 2, new: 1, gone: 0 });
        assert_eq!(at("pictures").gone, 1);
        assert_eq!(at("items"), RowCounts { same: 2, changed: 1, new: 1, gone: 3 });
        // Small tables may be told whole: they are shorter then.
        for name in names {
            let whole = name.replace(".changes", "");
            assert!(expected.contains(&name) || written.whole.contains(&whole), "{name}");
        }
        let on_disk: u64 = files(&place).values().map(|bytes| bytes.len() as u64).sum();
        let whole: u64 = files(&to).values().map(|bytes| bytes.len() as u64).sum();
        assert_eq!((written.bytes, written.whole_bytes), (on_disk, whole));
    }

    #[test]
    fn what_is_rounded_is_said() {
        let rows = (vec![0, 1, 2, 1], vec![5, 9]);
        let fates = [rows, (vec![1, 0], Vec::new()), Default::default()];
        let fixture = retrained(first(), &fates, &SHOP, 0.01);
        fixture.write(2).unwrap();
        let [from, to, place] = [1, 2, 3].map(|version| fixture.place(version));
        let options = VersionDeltaOptions { rows: RowFormat::F16, image_tolerance: 0.01 };
        let written = write_version_delta(&from, &to, &place, options).unwrap();
        let rounded = written.meta.rounded.unwrap();
        // Opening computes the golden logits of what comes back.
        let [target, model] = [&to, &place].map(|place| Model::open(place).unwrap());
        assert_eq!((&written.meta.target[..], model.hash()), (target.hash(), &written.hash[..]));
        assert_ne!(written.hash, written.meta.target);
        let apart = |a: &[f32], b: &[f32]| {
            let pairs = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
            pairs.fold(0.0, f64::max)
        };
        let rows = fixture
            .weights
            .ids
            .iter()
            .map(|&id| apart(&model.row(id).unwrap(), &target.row(id).unwrap()));
        assert_eq!(rows.fold(0.0, f64::max), rounded.rows);
        let keys = &fixture.weights.contents[0].keys;
        let images = keys.iter().flat_map(|&key| {
            let embedding = |model: &Model, tower| {
                model.embedding(tower, ams_data::ImageKey(key)).unwrap().to_vec()
            };
            [0, 1].map(|tower| apart(&embedding(&model, tower), &embedding(&target, tower)))
        });
        assert_eq!(images.fold(0.0, f64::max), rounded.embeddings);
        assert!(0.0 < rounded.rows && rounded.rows < 1e-3, "{rounded:?}");
        assert!(0.0 < rounded.embeddings && rounded.embeddings <= 0.01, "{rounded:?}");
        assert!(0.0 < rounded.logits && rounded.logits < 0.01, "{rounded:?}");
        // What follows it has what is on disk as its base: rounding does not add up.
        fs::rename(&place, fixture.place(9)).unwrap();
        let again = write_version_delta(&fixture.place(9), &to, &fixture.place(10), EXACT).unwrap();
        assert_eq!((again.meta.rounded, again.hash), (None, target.hash().to_owned()));
        assert_eq!(Model::open(&fixture.place(10)).unwrap().hash(), target.hash());
        assert_eq!(bases(&fixture.place(10)).unwrap(), [9, 1]);
    }

    #[test]
    fn deltas_follow_a_version_delta_and_the_whole_version_alike() {
        let fixture = two(0.5);
        let [from, to, place] = [1, 2, 3].map(|version| fixture.place(version));
        write_version_delta(&from, &to, &place, EXACT).unwrap();
        let model = Model::open(&place).unwrap();
        let mut changes = Changes::default();
        changes.rows.insert(Id::of("user", "u1").0, Some(vec![0.5, 1.0, -1.0]));
        changes
            .picture(&model, 0, PictureName::of("1.png"), ams_data::ImageKey(5), &[0.25; 8])
            .unwrap();
        changes.remove_item(&model, "4").unwrap();
        let changed = model.change(&changes).unwrap();
        assert_eq!((changed.deltas(), changed.items().find("4")), (1, None));
        fs::rename(place.join("deltas"), to.join("deltas")).unwrap();
        let whole = Model::open(&to).unwrap();
        assert_eq!(whole.deltas(), 1);
        assert_eq!(bits(&whole, &fixture), bits(&changed, &fixture));
        assert_ne!(bits(&model, &fixture), bits(&changed, &fixture));
    }

    #[test]
    fn what_cannot_follow_is_refused() {
        let fixture = two(0.5);
        let [from, to, place] = [1, 2, 3].map(|version| fixture.place(version));
        let refused = |from: &Path, to: &Path, place: &Path| {
            let error = write_version_delta(from, to, place, EXACT).unwrap_err().to_string();
            assert!(!place.exists() || place == from || place == to);
            error
        };
        let error = refused(&from, &from, &place);
        assert!(error.contains("nothing to tell"), "{error}");
        let error = refused(&to, &from, &to);
        assert!(error.contains("a version above 2"), "{error}");
        let other = Fixture::of(with(&semantic(&spec(ImageArm::Joint), 2), |n| n.mlp = vec![8, 6]));
        other.write(4).unwrap();
        let error = refused(&from, &other.place(4), &place);
        assert!(error.contains("spec.mlp.0 is 8, expected 7 as of"), "{error}");
        // The base beside its place is another one.
        other.write(1).unwrap();
        let error = refused(&from, &to, &other.place(3));
        assert!(error.contains("follows version 1 with hash"), "{error}");

        write_version_delta(&from, &to, &place, EXACT).unwrap();
        let opened = || Model::open(&place).unwrap_err().to_string();
        let parked = fixture.dir.path().join("parked");
        fs::rename(&from, &parked).unwrap();
        let error = opened();
        assert!(error.contains("is a version delta of version 1, which is not at"), "{error}");
        fs::rename(other.place(1), &from).unwrap();
        let error = opened();
        assert!(error.contains("base_version says that version 1 is"), "{error}");
        assert!(error.ends_with("it belongs elsewhere"), "{error}");
        fs::remove_dir_all(&from).unwrap();
        fs::rename(&parked, &from).unwrap();
        Model::open(&place).unwrap();
        let below = fixture.place(0);
        fs::rename(&place, &below).unwrap();
        let error = Model::open(&below).unwrap_err().to_string();
        assert!(error.contains("base_version is 1, expected one below"), "{error}");
        let error = unpack(&from, &place).unwrap_err().to_string();
        assert!(error.contains("is a whole version already"), "{error}");
    }

    #[test]
    fn a_damaged_version_delta_or_base_is_refused() {
        let fixture = two(0.5);
        let [from, to, place] = [1, 2, 3].map(|version| fixture.place(version));
        write_version_delta(&from, &to, &place, EXACT).unwrap();
        for folder in [&place, &from] {
            for (name, whole) in files(folder) {
                // What the version has whole is not read of its base.
                if folder == &from && place.join(&name).exists() {
                    continue;
                }
                let (path, name) = (folder.join(&name), name.display().to_string());
                let mut flipped = whole.clone();
                flipped[whole.len() / 2] ^= 1;
                for damaged in [&flipped[..], &whole[..whole.len() - 1], &[]] {
                    replace(&path, damaged);
                    let error = Model::open(&place).expect_err(&name).to_string();
                    assert!(error.contains(&name), "{name}: {error}");
                }
                replace(&path, whole);
            }
        }
        Model::open(&place).unwrap();
    }

    #[test]
    fn a_version_delta_arrives_with_its_base() {
        let fixture = two(0.5);
        let [from, to, place] = [1, 2, 3].map(|version| fixture.place(version));
        write_version_delta(&from, &to, &place, EXACT).unwrap();
        let (arrival, whole) = look(&place).unwrap();
        assert_eq!(arrival, Arrival::Whole);
        let own: u64 = FileList::read(&place).unwrap().files.values().map(|file| file.bytes).sum();
        assert_eq!(whole.bytes(), own);
        let parked = fixture.dir.path().join("parked");
        fs::rename(&from, &parked).unwrap();
        let (arrival, without) = look(&place).unwrap();
        let expected = "version 1, which it follows, is not there";
        assert_eq!(arrival, Arrival::Arriving(expected.to_owned()));
        let difference = whole.difference(&without).unwrap();
        assert_eq!(difference, "../1/MANIFEST.json is not there any more");
        fs::create_dir(&from).unwrap();
        for name in [MANIFEST, "dense.safetensors"] {
            fs::copy(parked.join(name), from.join(name)).unwrap();
        }
        let Arrival::Arriving(what) = look(&place).unwrap().0 else { panic!("it is not whole") };
        assert!(what.starts_with("version 1, which it follows, is not whole: "), "{what}");
    }
}
