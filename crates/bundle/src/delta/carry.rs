//! Carries the deltas of one version over to the next.
//!
//! A delta holds what a version's towers made of pictures, which means nothing to other towers, and
//! not the features they saw. So a name is carried over if the next version knows the image it
//! means, or changes beside it bring it from a feature store; items are carried with their fields;
//! rows are not, as they were learned together with the networks of their version.
//!
//! What the deltas say counts, also where the next version knows otherwise: it is meant for what
//! came while that was trained.

use ams_data::{Field, Id, ImageKey, PictureName};

use crate::delta::changes::{Changes, ItemRecord};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tables::items::Items;

/// Counts of carried changes. Changes that the next version has already are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Names of pictures, with those that are gone.
    pub pictures: u64,
    /// Names that stay behind: nobody knows what the next version's towers would make of their
    /// images.
    pub left: u64,
    /// Items, with those that are gone.
    pub items: u64,
}

impl Changes {
    /// Adds what deltas brought to `from`, as far as `model`, another version, can take it. What
    /// these changes say of a picture already stays as it is, and the images among them count
    /// as known.
    ///
    /// # Errors
    /// If an item field means something else in the two.
    pub fn carry(&mut self, model: &Model, from: &Model) -> Result<Carried> {
        let brought = Changes::of(from);
        let mut carried = Carried::default();
        let others: Vec<&str> = from.spec().contents().into_iter().map(|(name, _)| name).collect();
        for (content, (name, _)) in model.spec().contents().into_iter().enumerate() {
            let changes = others.iter().position(|other| *other == name);
            let Some(changes) = changes.and_then(|at| brought.contents.get(at)) else { continue };
            for (&picture, &key) in &changes.pictures {
                let picture = PictureName(picture);
                if self.says(content, picture) {
                    continue;
                }
                match key {
                    None => self.remove_picture_of(model, content, picture),
                    Some(key) if !self.name_picture(model, content, picture, ImageKey(key)) => {
                        carried.left += 1;
                    }
                    Some(_) => {}
                }
                carried.pictures += u64::from(self.says(content, picture));
            }
        }
        if !brought.items.is_empty() {
            let places = places(model, from)?;
            for (&id, item) in &brought.items {
                let item = item.as_ref().map(|item| ItemRecord {
                    fields: places.iter().map(|&at| item.fields[at].clone()).collect(),
                    ..item.clone()
                });
                carried.items += u64::from(self.set_item(model.items(), Id(id), item));
            }
        }
        Ok(carried)
    }

    /// Whether these changes speak of a name.
    fn says(&self, content: usize, picture: PictureName) -> bool {
        self.contents.get(content).is_some_and(|it| it.pictures.contains_key(&picture.0))
    }
}

/// Where `from` has each item field of `model`.
///
/// # Errors
/// If it has one not, or another of that name: ids of values would mean something else.
fn places(model: &Model, from: &Model) -> Result<Vec<usize>> {
    let (items, others) = (model.items(), from.items());
    let wrong = |field: &Field, what: &str| {
        let what = format!(
            "items of {} cannot be carried to {}: field {} {what}; add them with `ams delta MODEL --items DATASET`",
            from.path().display(),
            model.path().display(),
            field.name
        );
        Error::Model { what }
    };
    let alike = |one: &Field, other: &Field| one.reads_alike(other) && one.edges() == other.edges();
    if !alike(items.key(), others.key()) {
        return Err(wrong(items.key(), "is read differently there"));
    }
    let place = |field: &Field| match others.field(&field.name) {
        None => Err(wrong(field, "is not there")),
        Some(at) if !alike(&others.fields()[at], field) => {
            Err(wrong(field, "is of another kind there, or has other edges between its numbers"))
        }
        Some(at) => Ok(at),
    };
    Items::fields(items).iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, spec};
    use crate::request::{Cell, Text};
    use ams_data::FieldKind;
    use ams_model::ImageArm;
    use std::collections::BTreeMap;

    fn category(value: &str) -> BTreeMap<String, Cell> {
        [("category".to_owned(), Cell::List(vec![Text(value.to_owned())]))].into()
    }

    /// A version with a delta: a picture of a known image and one of its own, new, changed and
    /// removed items.
    fn told() -> (Fixture, Model) {
        let fixture = Fixture::new(ImageArm::Joint);
        let model = fixture.model();
        let mut changes = Changes::default();
        let known = model.image(PictureName::of("1.png"));
        let feature = [0.25; 8];
        for (name, key) in [("as 1.png", known), ("own.png", ImageKey(5))] {
            changes.picture(&model, 0, PictureName::of(name), key, &feature).unwrap();
        }
        changes.remove_picture(&model, PictureName::of("3.png"));
        changes.item(&model, "7", Some("as 1.png"), &category("hats")).unwrap();
        changes.item(&model, "1", Some("own.png"), &category("hats")).unwrap();
        changes.remove_item(&model, "2").unwrap();
        changes.rows.insert(7, Some(vec![0.5; 3]));
        let model = model.change(&changes).unwrap();
        (fixture, model)
    }

    #[test]
    fn pictures_and_items_are_carried_and_rows_are_not() {
        let (fixture, from) = told();
        fixture.write(2).unwrap();
        let next = Model::open(&fixture.place(2)).unwrap();
        let mut changes = Changes::default();
        let carried = changes.carry(&next, &from).unwrap();
        assert_eq!(carried, Carried { pictures: 2, left: 1, items: 3 });
        assert!(changes.rows.is_empty());
        let next = next.change(&changes).unwrap();
        let image = |model: &Model, name: &str| model.image(PictureName::of(name));
        assert_eq!(image(&next, "as 1.png"), image(&from, "1.png"));
        assert_eq!(image(&next, "3.png"), ImageKey::NONE);
        assert_eq!(image(&next, "own.png"), ImageKey::NONE);
        let item = |name: &str| {
            let found = next.items().find(name)?;
            let category = next.items().values(0, found).to_vec();
            Some((next.items().name(found)?.to_owned(), next.items().picture(found), category))
        };
        let hats = vec![Id::of("category", "hats")];
        for (name, picture) in [("7", "as 1.png"), ("1", "own.png")] {
            let expected = (name.to_owned(), PictureName::of(picture), hats.clone());
            assert_eq!(item(name), Some(expected));
        }
        assert_eq!(item("2"), None);
        // Again: all is known, but for what stayed behind.
        let mut changes = Changes::default();
        let again = Carried { left: 1, ..Carried::default() };
        assert_eq!(changes.carry(&next, &from).unwrap(), again);
        assert!(changes.is_empty());
        // From a store beside it, its feature is embedded by the next version's towers.
        let mut changes = Changes::default();
        changes.picture(&next, 0, PictureName(1), ImageKey(5), &[0.25; 8]).unwrap();
        let all = Carried { pictures: 1, ..Carried::default() };
        assert_eq!(changes.carry(&next, &from).unwrap(), all);
        let next = next.change(&changes).unwrap();
        assert_eq!(image(&next, "own.png"), ImageKey(5));
        assert!(next.knows(ImageKey(5)));
    }

    #[test]
    fn items_of_another_kind_stay_behind() {
        let (_fixture, from) = told();
        let mut other = spec(ImageArm::None);
        for field in other.fields.fields.iter_mut().filter(|field| field.name == "category") {
            field.kind = Some(FieldKind::Categorical);
        }
        let other = Fixture::of(other);
        let error = Changes::default().carry(&other.model(), &from).unwrap_err().to_string();
        let expected =
            "field category is of another kind there, or has other edges between its numbers";
        assert!(error.contains(expected), "{error}");
    }
}
