//! What changed since a bundle was published: new pictures and items, rows, and what is gone.
//!
//! ```text
//! <model>/<version>/deltas/0001/
//!   MANIFEST.json     format, and Meta: the bundle and the delta before
//!   ids.safetensors, image_table.safetensors, pictures.safetensors, items.safetensors
//!                     as in a bundle; each list of hashes x has x.gone u32: 1 where something is removed
//! ```
//! Deltas are numbered from 1 and follow each other; each appears whole, like a bundle. The networks' weights are the bundle's:
//! with others, all rows and embeddings would mean something else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::lock::Lock;
use ams_data::schema::ITEM;
use ams_data::value::is_missing;
use ams_data::{Field, Id, ImageKey, PictureName, Ragged};
use serde::{Deserialize, Serialize};

use crate::contents::{self, ContentChanges, ContentTables};
use crate::error::{Error, Result};
use crate::files::{IDS, IMAGE_TABLE, PICTURES};
use crate::folder::{Folder, FolderWriter, MANIFEST, Owned};
use crate::items::{self, ITEMS, ItemFields};
use crate::layer::Table;
use crate::model::Model;
use crate::rows::{self, Rows};
use crate::tensors::{Texts, lengths};

/// `format` of the deltas this build reads and writes.
pub const FORMAT: &str = "ams-delta/1";

/// What a delta's manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Hash of the bundle.
    pub base: String,
    /// Hash of the delta before, or of the bundle.
    pub follows: String,
    /// From 1.
    pub number: u64,
    /// Ids whose rows change.
    pub ids: u64,
    /// Images that change.
    pub images: u64,
    /// Names of pictures that change.
    pub pictures: u64,
    /// Items that change.
    pub items: u64,
}

/// Changes, on their way into a delta. Keys are hashes; no value: it is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Rows (D) by id.
    pub rows: BTreeMap<u64, Option<Vec<f32>>>,
    /// Of images, and of each further content.
    pub(crate) contents: Vec<ContentChanges>,
    /// By item.
    pub(crate) items: BTreeMap<u64, Option<Item>>,
}

/// What is known of one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Item {
    text: String,
    picture: PictureName,
    /// By field of [`crate::items::Items::fields`].
    fields: Vec<Vec<Id>>,
}

impl Changes {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let Changes { rows, contents, items } = self;
        rows.is_empty() && items.is_empty() && contents.iter().all(ContentChanges::is_empty)
    }

    /// The name `picture` means image `key` from now on, whose feature of content `content` (0: images) is `feature` (F).
    ///
    /// # Errors
    /// If the model has no such content, or the feature does not fit it.
    pub fn picture(
        &mut self,
        model: &Model,
        content: usize,
        picture: PictureName,
        key: ImageKey,
        feature: &[f32],
    ) -> Result<()> {
        let embeddings = model.embed(content, feature)?;
        let changes = self.of_content(content);
        changes.images.insert(key.0, Some(embeddings));
        changes.pictures.insert(picture.0, Some(key.0));
        Ok(())
    }

    /// The name `picture` means no image any more, in no content.
    pub fn remove_picture(&mut self, model: &Model, picture: PictureName) {
        for content in 0..model.spec().contents().len() {
            self.of_content(content).pictures.insert(picture.0, None);
        }
    }

    /// `item` has this picture and these values from now on; `fields` are named, and those that are not have no value.
    /// Returns whether that is news to the model.
    ///
    /// # Errors
    /// If the model has no such item field, or a value cannot be read as one.
    pub fn item(
        &mut self,
        model: &Model,
        item: &str,
        picture: Option<&str>,
        fields: &BTreeMap<String, Vec<String>>,
    ) -> Result<bool> {
        let items = model.items();
        let wrong = |what: String| Error::request(format!("item {item:?}: {what}"));
        let known = |name: &String| items.field(name).is_some();
        if let Some(name) = fields.keys().find(|name| !known(name)) {
            let names: Vec<&str> = items.fields().iter().map(|field| &field.name[..]).collect();
            return Err(wrong(format!("has the field {name}; there is {}", names.join(", "))));
        }
        let text = items.text(item).map_err(wrong)?;
        let ids = |field: &Field| -> Result<Vec<Id>> {
            let at = |what: String| wrong(format!("field {}: {what}", field.name));
            let values = fields.get(&field.name).map_or(&[][..], Vec::as_slice);
            // One text may be a whole list, as a cell of a log is.
            let cut: Vec<Cow<'_, str>> = match values {
                [one] => field.cut(one),
                many => many.iter().map(|value| Cow::Borrowed(&value[..])).collect(),
            };
            let ids = cut.iter().filter_map(|value| field.id(value).map_err(at).transpose());
            let ids = ids.collect::<Result<Vec<_>>>()?;
            if ids.len() > 1 && !field.multi {
                return Err(at(format!("{} values; this field has one", ids.len())));
            }
            Ok(ids)
        };
        let picture = picture.filter(|name| !is_missing(name));
        let picture = picture.map_or(PictureName::NONE, PictureName::of);
        let fields = items.fields().iter().map(ids).collect::<Result<Vec<_>>>()?;
        let id = Id::of(ITEM, &text);
        let known = Item { text: text.into_owned(), picture, fields };
        let is_news = items.find_id(id).is_none_or(|before| {
            let same = |(place, ids): (usize, &Vec<Id>)| items.values(place, before) == &ids[..];
            items.picture(before) != picture || !known.fields.iter().enumerate().all(same)
        });
        if is_news {
            self.items.insert(id.0, Some(known));
        }
        Ok(is_news)
    }

    /// `item` is not known any more.
    ///
    /// # Errors
    /// If it cannot be an item.
    pub fn remove_item(&mut self, model: &Model, item: &str) -> Result<()> {
        let text = model.items().text(item).map_err(Error::request)?;
        self.items.insert(Id::of(ITEM, &text).0, None);
        Ok(())
    }

    fn of_content(&mut self, content: usize) -> &mut ContentChanges {
        if self.contents.len() <= content {
            self.contents.resize_with(content + 1, ContentChanges::default);
        }
        &mut self.contents[content]
    }

    fn check(&self, dim: usize) -> Result<()> {
        for (id, row) in &self.rows {
            let Some(row) = row else { continue };
            if row.len() != dim || row.iter().any(|value| !value.is_finite()) {
                let what = format!("the row of id {id}: {row:?}, expected {dim} finite numbers");
                return Err(Error::request(what));
            }
        }
        Ok(())
    }
}

/// What deltas brought to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The number of the last one, or 0.
    pub number: u64,
    /// Its hash, or the bundle's.
    pub hash: String,
}

/// One delta, read and checked.
pub(crate) struct Delta {
    pub rows: Arc<Table<Rows>>,
    pub contents: Vec<ContentTables>,
    pub items: Arc<Table<ItemFields>>,
    pub state: State,
}

/// Where delta `number` of the version in a folder is.
pub(crate) fn place(version_dir: &Path, number: u64) -> PathBuf {
    version_dir.join("deltas").join(format!("{number:04}"))
}

/// Writes `changes` as the delta that follows `model`.
///
/// # Errors
/// If `model` has been followed by another meanwhile, or something cannot be written; then nothing stays behind.
pub(crate) fn write(model: &Model, changes: &Changes) -> Result<()> {
    let spec = model.spec();
    changes.check(spec.dim)?;
    let number = model.delta().number + 1;
    let place = place(model.path(), number);
    let _writer = Lock::take(model.path(), "deltas")?;
    let mut folder = FolderWriter::create(&place)?;

    let row = |row: &Option<Vec<f32>>| row.clone().unwrap_or_else(|| vec![0.0; spec.dim]);
    let rows = changes.rows.values().flat_map(row).collect();
    let (ids, gone) = keys(&changes.rows);
    let tensors = [
        ("rows".to_owned(), Owned::F32([ids.len(), spec.dim], rows)),
        ("ids".to_owned(), Owned::U64(ids)),
        ("ids.gone".to_owned(), Owned::U32(gone)),
    ];
    folder.add_owned(IDS, &tensors)?;
    let of_contents = contents::write_changes(spec, &changes.contents, &mut folder)?;
    write_items(model, &changes.items, &mut folder)?;
    let meta = Meta {
        base: model.hash().to_owned(),
        follows: model.delta().hash.clone(),
        number,
        ids: changes.rows.len() as u64,
        images: of_contents.0 as u64,
        pictures: of_contents.1 as u64,
        items: changes.items.len() as u64,
    };
    folder.publish(FORMAT, meta)?;
    Ok(())
}

fn write_items(
    model: &Model,
    changes: &BTreeMap<u64, Option<Item>>,
    folder: &mut FolderWriter,
) -> Result<()> {
    static NOTHING: Item =
        Item { text: String::new(), picture: PictureName::NONE, fields: Vec::new() };
    let known: Vec<&Item> =
        changes.values().map(|item| item.as_ref().unwrap_or(&NOTHING)).collect();
    let (items, gone) = keys(changes);
    let mut tensors = vec![
        ("items".to_owned(), Owned::U64(items)),
        ("items.gone".to_owned(), Owned::U32(gone)),
        ("pictures".to_owned(), Owned::U64(known.iter().map(|item| item.picture.0).collect())),
    ];
    let texts: Texts = known.iter().map(|item| item.text.clone()).collect();
    let (name_lengths, bytes) = texts.parts();
    tensors.push((items::NAMES[0].to_owned(), Owned::U32(name_lengths)));
    tensors.push((items::NAMES[1].to_owned(), Owned::U8(bytes.as_bytes().to_vec())));
    for (field, known_field) in model.items().fields().iter().enumerate() {
        let mut column = Ragged::default();
        for item in &known {
            column.push(item.fields.get(field).map_or(&[][..], |ids| ids));
        }
        let [lengths_name, ids_name] = items::names(&known_field.name);
        tensors.push((lengths_name, Owned::U32(lengths(&column.offsets))));
        tensors.push((ids_name, Owned::U64(column.values.iter().map(|id: &Id| id.0).collect())));
    }
    folder.add_owned(ITEMS, &tensors)
}

/// The keys of `changes`, ascending, and which are gone.
pub(crate) fn keys<V>(changes: &BTreeMap<u64, Option<V>>) -> (Vec<u64>, Vec<u32>) {
    changes.iter().map(|(key, value)| (*key, u32::from(value.is_none()))).unzip()
}

/// The delta that follows `model`, if there is one.
///
/// # Errors
/// If it is damaged, or does not follow this model.
pub(crate) fn next(model: &Model) -> Result<Option<Delta>> {
    let number = model.delta().number + 1;
    let path = place(model.path(), number);
    if !path.join(MANIFEST).is_file() {
        return Ok(None);
    }
    let folder = Folder::<Meta>::open_in(&path, FORMAT, model.memory())?;
    let meta = &folder.manifest.meta;
    for (what, got, expected) in [
        ("base", &meta.base[..], model.hash()),
        ("follows", &meta.follows, &model.delta().hash),
        ("number", &meta.number.to_string(), &number.to_string()),
    ] {
        if got != expected {
            let what = format!("meta.{what} is {got}, expected {expected}: it belongs elsewhere");
            return Err(Error::content(path.join(MANIFEST), what));
        }
    }
    let spec = model.spec();
    let images = (&folder.tensors(IMAGE_TABLE)?, &folder.tensors(PICTURES)?);
    Ok(Some(Delta {
        rows: Arc::new(rows::read(&folder.tensors(IDS)?, spec.dim)?),
        contents: contents::read_tables(images, spec)?,
        items: Arc::new(items::read(&folder.tensors(ITEMS)?, model.items().fields())?),
        state: State { number, hash: folder.manifest.hash() },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS, noise, replace, spec};
    use crate::model::Scratch;
    use crate::similar::Wanted;
    use ams_model::ImageArm;
    use std::fs;

    fn logits(model: &Model, fixture: &Fixture) -> Vec<f32> {
        let (mut logits, groups) = (Vec::new(), fixture.groups(&ROWS));
        model.score_groups(&groups, &mut Scratch::default(), &mut logits);
        logits
    }

    fn row(seed: u64) -> Vec<f32> {
        (0..3).map(|at| noise(seed + at)).collect()
    }

    /// A new id, a changed one, and one that goes.
    fn ids() -> [(u64, Option<Vec<f32>>); 3] {
        let id = |field, text| Id::of(field, text).0;
        [
            (id("item", "5"), Some(row(70))),
            (id("user", "u1"), Some(row(80))),
            (id("category", "hats"), None),
        ]
    }

    /// The weights as they would be published after `changes`.
    fn published_with(fixture: &mut Fixture, changes: &Changes) {
        let mut rows: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
        for (id, row) in fixture.weights.ids.iter().zip(fixture.weights.rows.chunks(3)) {
            rows.insert(*id, row.to_vec());
        }
        for (id, row) in &changes.rows {
            match row {
                Some(row) => rows.insert(*id, row.clone()),
                None => rows.remove(id),
            };
        }
        fixture.weights.ids = rows.keys().copied().collect();
        fixture.weights.rows = rows.into_values().flatten().collect();
        for (content, changes) in changes.contents.iter().enumerate() {
            let table = &mut fixture.weights.contents[content];
            let mut names: BTreeMap<u64, u64> = table.pictures.iter().copied().collect();
            for (name, key) in &changes.pictures {
                match key {
                    Some(key) => names.insert(*name, *key),
                    None => names.remove(name),
                };
            }
            table.pictures = names.into_iter().collect();
            let widths: Vec<usize> =
                table.embeddings.iter().map(|values| values.len() / table.keys.len()).collect();
            let mut images: BTreeMap<u64, Vec<Vec<f32>>> = BTreeMap::new();
            for (at, key) in table.keys.iter().enumerate() {
                let of =
                    |(values, &width): (&Vec<f32>, &usize)| values[at * width..][..width].to_vec();
                images.insert(*key, table.embeddings.iter().zip(&widths).map(of).collect());
            }
            for (key, embeddings) in &changes.images {
                images.insert(*key, embeddings.clone().unwrap());
            }
            table.keys = images.keys().copied().collect();
            for (tower, values) in table.embeddings.iter_mut().enumerate() {
                *values = images.values().flat_map(|of| of[tower].clone()).collect();
            }
        }
    }

    #[test]
    fn a_model_with_deltas_is_the_model_published_with_them() {
        for images in ImageArm::ALL {
            let fixture = Fixture::new(images);
            let mut model = fixture.model();
            let bundle = logits(&model, &fixture);
            let mut all = Changes::default();
            // One after the other, so that later ones lie over earlier ones.
            for step in 0..3_u64 {
                let mut changes = Changes::default();
                let (id, values) = ids()[step as usize].clone();
                changes.rows.insert(id, values);
                changes.rows.insert(Id::of("item", "1").0, Some(row(step)));
                if images != ImageArm::None {
                    let dim = model.spec().image_source.as_ref().unwrap().dim;
                    let feature: Vec<f32> =
                        (0..dim as u64).map(|at| noise(step * 100 + at)).collect();
                    let lost = PictureName::of("lost.png");
                    changes.picture(&model, 0, lost, ImageKey(900 + step), &feature).unwrap();
                    changes.remove_picture(&model, PictureName::of("3.png"));
                }
                let next = model.change(&changes).unwrap();
                assert_eq!((next.deltas(), model.deltas()), (step + 1, step));
                assert_ne!(logits(&next, &fixture), logits(&model, &fixture));
                model = next;
                all.rows.extend(changes.rows);
                all.contents.resize_with(1, ContentChanges::default);
                for content in changes.contents {
                    all.contents[0].images.extend(content.images);
                    all.contents[0].pictures.extend(content.pictures);
                }
            }
            let mut other = Fixture::new(images);
            published_with(&mut other, &all);
            other.golden.logits = other.slow_logits(&other.golden.groups);
            let expected = logits(&other.model(), &other);
            assert_eq!(logits(&model, &fixture), expected, "{images:?}");
            // The same from disk; and the bundle itself has not changed.
            assert_eq!(logits(&Model::open(&fixture.place(1)).unwrap(), &fixture), expected);
            let model = Model::open_bundle(&fixture.place(1)).unwrap();
            assert_eq!(logits(&model, &fixture), bundle);
        }
    }

    #[test]
    fn items_come_and_go() {
        let fixture = Fixture::new(ImageArm::Joint);
        let model = fixture.model();
        let mut changes = Changes::default();
        let fields = |value: &str| [("category".to_owned(), vec![value.to_owned()])].into();
        assert!(changes.item(&model, "7", Some("1.png"), &fields("hats")).unwrap());
        // As it is known already.
        assert!(!changes.item(&model, "6", Some("1.png"), &fields("hats")).unwrap());
        assert!(changes.item(&model, "5", None, &fields("shoes")).unwrap());
        changes.remove_item(&model, "2").unwrap();
        let next = model.change(&changes).unwrap();
        let items = next.items();
        assert_eq!((items.count(), model.items().count()), (6, 6));
        let seven = items.find("7").unwrap();
        assert_eq!(items.picture(seven), PictureName::of("1.png"));
        assert_eq!(items.name(seven), Some("7"));
        let near = next.similar(&Wanted { item: Some("7".into()), ..Wanted::default() }).unwrap();
        let mut near = near.items;
        near.sort_unstable();
        assert_eq!(near, ["1", "3", "4", "6"]);
        assert_eq!(items.values(0, seven), [Id::of("category", "hats")]);
        assert_eq!(items.picture(items.find("5").unwrap()), PictureName::NONE);
        assert_eq!(items.find("2"), None);
        assert!(model.items().find("2").is_some());
        let error = changes.item(&model, "8", None, &[("brand".to_owned(), vec![])].into());
        let expected = "request: item \"8\": has the field brand; there is category";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }

    /// A model with one delta, after `damage` was done to it, and what opening says.
    fn refused(damage: impl FnOnce(&Path)) -> String {
        let fixture = Fixture::new(ImageArm::Joint);
        let model = fixture.model();
        let changes = Changes { rows: ids().into(), ..Changes::default() };
        model.change(&changes).unwrap();
        let place = place(model.path(), 1);
        damage(&place);
        // What serves before a damaged delta serves on.
        assert_eq!(logits(&model, &fixture), fixture.golden.logits);
        let error = Model::open(&fixture.place(1)).expect_err("a bad delta").to_string();
        error.replace(&place.display().to_string(), "DIR")
    }

    #[test]
    fn damage_is_named() {
        let edit = |name: &'static str, change: fn(&mut Vec<u8>)| {
            move |place: &Path| {
                let mut bytes = fs::read(place.join(name)).unwrap();
                change(&mut bytes);
                replace(&place.join(name), bytes);
            }
        };
        let error = refused(edit(IDS, |bytes| *bytes.last_mut().unwrap() ^= 1));
        assert!(error.starts_with("DIR/ids.safetensors: blake3 is "), "{error}");
        let error = refused(edit(ITEMS, |bytes| bytes.truncate(9)));
        assert!(error.starts_with("DIR/items.safetensors: 9 bytes, expected "), "{error}");
        let error = refused(edit(MANIFEST, |bytes| bytes.truncate(40)));
        assert!(error.starts_with("DIR/MANIFEST.json: "), "{error}");
    }

    #[test]
    fn a_delta_belongs_to_one_place() {
        let other = Fixture::of(crate::spec::Spec { mlp: vec![5], ..spec(ImageArm::Joint) });
        other.model().change(&Changes { rows: ids().into(), ..Changes::default() }).unwrap();
        let error = refused(|place| {
            fs::remove_dir_all(place).unwrap();
            fs::rename(other.place(1).join("deltas/0001"), place).unwrap();
        });
        assert!(error.starts_with("DIR/MANIFEST.json: meta.base is "), "{error}");
        let fixture = Fixture::new(ImageArm::None);
        let model = fixture.model();
        let changes = Changes { rows: ids().into(), ..Changes::default() };
        let first = model.change(&changes).unwrap();
        // Somebody who does not know of the first.
        let error = model.change(&changes).unwrap_err().to_string();
        assert!(error.ends_with("0001: exists already; nothing was overwritten"), "{error}");
        first.change(&changes).unwrap();
        let deltas = fixture.place(1).join("deltas");
        fs::remove_dir_all(deltas.join("0001")).unwrap();
        fs::rename(deltas.join("0002"), deltas.join("0001")).unwrap();
        let error = Model::open(&fixture.place(1)).unwrap_err().to_string();
        assert!(error.contains("0001/MANIFEST.json: meta.follows is "), "{error}");
    }

    #[test]
    fn what_a_killed_writer_left_is_not_seen() {
        let fixture = Fixture::new(ImageArm::None);
        let model = fixture.model();
        let half = fixture.place(1).join("deltas/.0001.building");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join(IDS), "half").unwrap();
        assert_eq!(Model::open(&fixture.place(1)).unwrap().deltas(), 0);
        let changes = Changes { rows: ids().into(), ..Changes::default() };
        assert_eq!(model.change(&changes).unwrap().deltas(), 1);
        assert!(!half.exists());
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_written() {
        let fixture = Fixture::new(ImageArm::Joint);
        let model = fixture.model();
        let bad = [vec![1.0, 2.0], vec![0.0, f32::NAN, 0.0]];
        for values in bad {
            let changes = Changes { rows: [(7, Some(values))].into(), ..Changes::default() };
            let error = model.change(&changes).unwrap_err().to_string();
            assert!(error.contains("expected 3 finite numbers"), "{error}");
        }
        let mut changes = Changes::default();
        let mut add = |model: &Model, feature: &[f32]| {
            let added = changes.picture(model, 0, PictureName(5), ImageKey(5), feature);
            added.unwrap_err().to_string()
        };
        assert!(
            add(&model, &[1.0]).contains("has 1 numbers, expected 8"),
            "{}",
            add(&model, &[1.0])
        );
        let mut feature = vec![0.0; 8];
        feature[3] = 1e6;
        assert!(add(&model, &feature).contains("is 1000000 at 3, expected a half"));
        assert!(changes.is_empty());
        assert!(!fixture.place(1).join("deltas").exists());
    }
}
