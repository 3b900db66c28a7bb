//! Changes before they are a delta: new and removed pictures, items and rows.
//!
//! A change says what is, not what is done: made twice it is the same, and the last one of a
//! picture or an item counts. What a model has already is no change and is left out, so that
//! whoever tells it again writes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ams_data::schema::ITEM;
use ams_data::value::is_missing;
use ams_data::{Field, Id, ImageKey, PictureName};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::request::Cell;
use crate::tables::contents::ContentChanges;
use crate::tables::items::{Item, Items};

/// Changes, on their way into a delta. Keys are hashes; no value: it is gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Rows (D) by id.
    pub rows: BTreeMap<u64, Option<Vec<f32>>>,
    /// Of images, and of each further content.
    pub(crate) contents: Vec<ContentChanges>,
    /// Items by the hash of their text; `None` removes the item.
    pub(crate) items: BTreeMap<u64, Option<ItemRecord>>,
}

/// Text, picture and fields of one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ItemRecord {
    pub text: String,
    pub picture: PictureName,
    /// By field of [`Items::fields`].
    pub fields: Vec<Vec<Id>>,
}

impl Changes {
    /// All that deltas brought to `model`.
    pub(crate) fn of(model: &Model) -> Changes {
        let items = model.items();
        Changes {
            rows: model.changed_rows().collect(),
            contents: model.contents().iter().map(|content| content.changes()).collect(),
            items: items.changes().map(|(id, item)| (id, item.map(|it| items.item(it)))).collect(),
        }
    }

    /// Whether a delta of these changes would be empty.
    pub fn is_empty(&self) -> bool {
        let Changes { rows, contents, items } = self;
        rows.is_empty() && items.is_empty() && contents.iter().all(ContentChanges::is_empty)
    }

    /// The name `picture` means image `key` from now on, whose feature of content `content` (0:
    /// images) is `feature` (F). Returns whether that is news to the model.
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
    ) -> Result<bool> {
        let image = model.image_record(content, feature)?;
        let known = &model.contents()[content];
        let is_news = known.key(picture) != key || !known.has(key);
        let changes = self.of_content(content);
        changes.forget(picture);
        if is_news {
            changes.images.insert(key.0, Some(image));
            changes.pictures.insert(picture.0, Some(key.0));
        }
        Ok(is_news)
    }

    /// The name `picture`, of which nothing is said here yet, means image `key` from now on, if
    /// that is known to the model or among these changes. Returns whether it is.
    pub(crate) fn name_picture(
        &mut self,
        model: &Model,
        content: usize,
        picture: PictureName,
        key: ImageKey,
    ) -> bool {
        let known = &model.contents()[content];
        let changes = self.of_content(content);
        if !known.has(key) && !changes.images.contains_key(&key.0) {
            return false;
        }
        if known.key(picture) != key {
            changes.pictures.insert(picture.0, Some(key.0));
        }
        true
    }

    /// The name `picture` means no image any more, in no content. Returns whether that is news to
    /// the model.
    pub fn remove_picture(&mut self, model: &Model, picture: PictureName) -> bool {
        let mut is_news = false;
        for (content, known) in model.contents().iter().enumerate() {
            is_news |= known.key(picture).is_some();
            self.remove_picture_of(model, content, picture);
        }
        is_news
    }

    /// The same in one content.
    pub(crate) fn remove_picture_of(
        &mut self,
        model: &Model,
        content: usize,
        picture: PictureName,
    ) {
        let changes = self.of_content(content);
        changes.forget(picture);
        if model.contents()[content].key(picture).is_some() {
            changes.pictures.insert(picture.0, None);
        }
    }

    /// `item` has this picture and these values from now on; `fields` are named, and those that are
    /// not have no value. Returns whether that is news to the model.
    ///
    /// # Errors
    /// If the model has no such item field, or a value cannot be read as one.
    pub fn item(
        &mut self,
        model: &Model,
        item: &str,
        picture: Option<&str>,
        fields: &BTreeMap<String, Cell>,
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
            let texts = match fields.get(&field.name) {
                None => Vec::new(),
                // A text alone may be a whole list, as a cell of a log is; a list is its values,
                // also if it is one.
                Some(Cell::One(text)) => field.cut(&text.0),
                Some(Cell::List(texts)) => {
                    texts.iter().map(|it| Cow::Borrowed(&it.0[..])).collect()
                }
            };
            let ids = texts.iter().filter_map(|text| field.id(text).map_err(at).transpose());
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
        Ok(self.set_item(items, id, Some(ItemRecord { text: text.into_owned(), picture, fields })))
    }

    /// `item` is not known any more. Returns whether that is news to the model.
    ///
    /// # Errors
    /// If it cannot be an item.
    pub fn remove_item(&mut self, model: &Model, item: &str) -> Result<bool> {
        let text = model.items().text(item).map_err(Error::request)?;
        Ok(self.set_item(model.items(), Id::of(ITEM, &text), None))
    }

    /// The item of this id is `item` from now on. Returns whether that is news to the model with
    /// `items`.
    pub(crate) fn set_item(&mut self, items: &Items, id: Id, item: Option<ItemRecord>) -> bool {
        let is_news = differs(items, id, item.as_ref());
        if is_news {
            self.items.insert(id.0, item);
        } else {
            self.items.remove(&id.0);
        }
        is_news
    }

    /// Those of these changes that are news to `model`.
    pub(crate) fn news(&self, model: &Model) -> Changes {
        let row_differs = |id: u64, row: Option<&Vec<f32>>| match (model.row(id), row) {
            (Some(before), Some(row)) => {
                !before.iter().map(|it| it.to_bits()).eq(row.iter().map(|it| it.to_bits()))
            }
            (before, row) => before.is_some() || row.is_some(),
        };
        let rows = self.rows.iter().filter(|(id, row)| row_differs(**id, row.as_ref()));
        let items = (self.items.iter())
            .filter(|(id, item)| differs(model.items(), Id(**id), item.as_ref()));
        let contents = self.contents.iter().zip(model.contents());
        Changes {
            rows: rows.map(|(id, row)| (*id, row.clone())).collect(),
            contents: contents.map(|(changes, known)| changes.news(known)).collect(),
            items: items.map(|(id, item)| (*id, item.clone())).collect(),
        }
    }

    /// The changes of content `content`.
    fn of_content(&mut self, content: usize) -> &mut ContentChanges {
        if self.contents.len() <= content {
            self.contents.resize_with(content + 1, ContentChanges::default);
        }
        &mut self.contents[content]
    }

    /// That every row has `dim` finite numbers.
    ///
    /// # Errors
    /// Otherwise, with the row.
    pub(crate) fn check(&self, dim: usize) -> Result<()> {
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

/// Whether `item` is another than what `items` know by its id; none: it is gone.
fn differs(items: &Items, id: Id, item: Option<&ItemRecord>) -> bool {
    match (items.find_id(id), item) {
        (Some(before), Some(item)) => {
            let same = |(place, ids): (usize, &Vec<Id>)| items.values(place, before) == &ids[..];
            items.picture(before) != item.picture || !item.fields.iter().enumerate().all(same)
        }
        (before, item) => before.is_some() || item.is_some(),
    }
}

impl Items {
    /// All that is known of an item, to be written again.
    fn item(&self, item: Item) -> ItemRecord {
        ItemRecord {
            text: self.name(item).unwrap_or_default().to_owned(),
            picture: self.picture(item),
            fields: (0..self.fields().len()).map(|at| self.values(at, item).to_vec()).collect(),
        }
    }
}
