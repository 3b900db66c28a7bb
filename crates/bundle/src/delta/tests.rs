//! Writing deltas and following them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ams_data::{FieldKind, Id, ImageKey, PictureName};
use ams_model::ImageArm;

use crate::delta::changes::Changes;
use crate::files::deltas::place;
use crate::files::folder::MANIFEST;
use crate::files::layout::IDS;
use crate::fixture::{Fixture, ROWS, noise, replace, semantic, spec, with};
use crate::model::{Model, Scratch};
use crate::page::similar::SimilarRequest;
use crate::request::{Cell, Text};
use crate::tables::contents::{ContentChanges, ImageRecord};
use crate::tables::items::ITEMS;

fn logits(model: &Model, fixture: &Fixture) -> Vec<f32> {
    let (mut logits, groups) = (Vec::new(), fixture.groups(&ROWS));
    model.score_groups(&groups, &mut Scratch::default(), &mut logits);
    logits
}

fn cells(cells: &[(&str, Cell)]) -> BTreeMap<String, Cell> {
    cells.iter().map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect()
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
        let mut images: BTreeMap<u64, ImageRecord> = BTreeMap::new();
        for (at, key) in table.keys.iter().enumerate() {
            let of = |(values, &width): (&Vec<f32>, &usize)| values[at * width..][..width].to_vec();
            let embeddings = table.embeddings.iter().zip(&widths).map(of).collect();
            let codes = table.semantic.iter().flat_map(|it| &it.codes).map(|it| it[at]).collect();
            images.insert(*key, ImageRecord { embeddings, codes });
        }
        for (key, image) in &changes.images {
            images.insert(*key, image.clone().unwrap());
        }
        table.keys = images.keys().copied().collect();
        for (tower, values) in table.embeddings.iter_mut().enumerate() {
            *values = images.values().flat_map(|of| of.embeddings[tower].clone()).collect();
        }
        for (level, codes) in table.semantic.iter_mut().flat_map(|it| &mut it.codes).enumerate() {
            *codes = images.values().map(|of| of.codes[level]).collect();
        }
    }
}

#[test]
fn a_model_with_deltas_is_the_model_published_with_them() {
    let semantic = [ImageArm::Joint, ImageArm::None].map(|images| semantic(&spec(images), 2));
    for spec in ImageArm::ALL.map(spec).into_iter().chain(semantic) {
        let fixture = Fixture::of(spec.clone());
        let mut model = fixture.model();
        let bundle = logits(&model, &fixture);
        let mut all = Changes::default();
        // One after the other, so that later ones lie over earlier ones.
        for step in 0..3_u64 {
            let mut changes = Changes::default();
            let (id, values) = ids()[step as usize].clone();
            changes.rows.insert(id, values);
            changes.rows.insert(Id::of("item", "1").0, Some(row(step)));
            if spec.network.images != ImageArm::None || spec.semantic().is_some() {
                let dim = model.spec().image_source.as_ref().unwrap().dim;
                let feature: Vec<f32> = (0..dim as u64).map(|at| noise(step * 100 + at)).collect();
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
        let mut other = Fixture::of(spec.clone());
        published_with(&mut other, &all);
        other.golden.logits = other.slow_logits(&other.golden.groups);
        let expected = logits(&other.model(), &other);
        assert_eq!(logits(&model, &fixture), expected, "{spec:?}");
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
    let fields = |value: &str| cells(&[("category", Cell::of(vec![Text(value.to_owned())]))]);
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
    let near = next
        .similar(&SimilarRequest { item: Some("7".into()), ..SimilarRequest::default() })
        .unwrap();
    let mut near = near.items;
    near.sort_unstable();
    assert_eq!(near, ["1", "3", "4", "6"]);
    assert_eq!(items.values(0, seven), [Id::of("category", "hats")]);
    assert_eq!(items.picture(items.find("5").unwrap()), PictureName::NONE);
    assert_eq!(items.find("2"), None);
    assert!(model.items().find("2").is_some());
    let error = changes.item(&model, "8", None, &cells(&[("brand", Cell::List(vec![]))]));
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
    let other = Fixture::of(with(&spec(ImageArm::Joint), |n| n.mlp = vec![5]));
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
    // Somebody who does not know of the first, and has no news.
    assert_eq!(model.change(&changes).unwrap().delta(), first.delta());
    first.change(&changes).unwrap();
    let deltas = fixture.place(1).join("deltas");
    fs::remove_dir_all(deltas.join("0001")).unwrap();
    fs::rename(deltas.join("0002"), deltas.join("0001")).unwrap();
    let error = Model::open(&fixture.place(1)).unwrap_err().to_string();
    assert!(error.contains("0001/MANIFEST.json: meta.follows is "), "{error}");
}

#[test]
fn what_is_known_adds_nothing() {
    let fixture = Fixture::new(ImageArm::Joint);
    let bundle = fixture.model();
    let (picture, feature) = (PictureName::of("new.png"), [0.25; 8]);
    let fields = |value: &str| cells(&[("category", Cell::of(vec![Text(value.to_owned())]))]);
    type Change = fn(&mut Changes, &Model) -> bool;
    let (mut model, mut said) = (bundle.clone(), Vec::new());
    for _ in 0..20 {
        let mut changes = Changes::default();
        said.push([
            changes.picture(&model, 0, picture, ImageKey(5), &feature).unwrap(),
            changes.item(&model, "9", Some("new.png"), &fields("hats")).unwrap(),
            changes.remove_picture(&model, PictureName::of("3.png")),
            changes.remove_item(&model, "2").unwrap(),
        ]);
        assert_eq!(changes.is_empty(), said.len() > 1);
        model = model.change(&changes).unwrap();
        assert_eq!(model.deltas(), 1);
    }
    assert_eq!((said[0], &said[1..]), ([true; 4], &[[false; 4]; 19][..]));
    // What is said last counts, also if it is what is known.
    let undone: [Change; 4] = [
        |c, m| c.remove_picture(m, PictureName::of("new.png")),
        |c, m| c.remove_item(m, "9").unwrap(),
        |c, m| c.picture(m, 0, PictureName::of("3.png"), ImageKey(5), &[0.25; 8]).unwrap(),
        |c, m| c.item(m, "2", None, &BTreeMap::new()).unwrap(),
    ];
    let done: [Change; 4] = [
        |c, m| c.picture(m, 0, PictureName::of("new.png"), ImageKey(5), &[0.25; 8]).unwrap(),
        |c, m| {
            let fields = cells(&[("category", Cell::of(vec![Text("hats".to_owned())]))]);
            c.item(m, "9", Some("new.png"), &fields).unwrap()
        },
        |c, m| c.remove_picture(m, PictureName::of("3.png")),
        |c, m| c.remove_item(m, "2").unwrap(),
    ];
    for (undo, redo) in undone.into_iter().zip(done) {
        let mut changes = Changes::default();
        assert!(undo(&mut changes, &model) && !changes.is_empty());
        assert!(!redo(&mut changes, &model) && changes.is_empty(), "{changes:?}");
    }
    // An image that came and went in between is not written.
    let mut changes = Changes::default();
    changes.picture(&model, 0, PictureName(77), ImageKey(78), &feature).unwrap();
    changes.remove_picture(&model, PictureName(77));
    assert!(changes.is_empty(), "{changes:?}");
}

/// Several who opened the same state write at once: all of it is there in the end, and what was
/// said twice is there once.
#[test]
fn writers_wait_for_each_other_and_follow() {
    let fixture = Fixture::new(ImageArm::None);
    let model = fixture.model();
    let of = |ids: &[u64]| {
        let rows = ids.iter().map(|id| (*id, Some(row(*id)))).collect();
        Changes { rows, ..Changes::default() }
    };
    std::thread::scope(|scope| {
        for writer in 0..6_u64 {
            let (model, changes) = (&model, of(&[writer / 2, 100]));
            scope.spawn(move || model.change(&changes).unwrap());
        }
    });
    let model = Model::open(&fixture.place(1)).unwrap();
    assert_eq!(model.deltas(), 3);
    for id in [0, 1, 2, 100] {
        assert_eq!(model.row(id), Some(row(id)));
    }
    let written = fs::read_dir(fixture.place(1).join("deltas")).unwrap();
    assert_eq!(written.count(), 3);
    let left = fixture.place(1).join(".deltas.lock");
    assert!(!left.exists());
}

#[test]
fn writers_are_told_what_is_in_their_way() {
    type Damage = fn(&Path);
    let cases: [(Damage, &str); 4] = [
        (
            |deltas| replace(&deltas.join("0002").join(IDS), "short"),
            "deltas/0002: delta 2 is damaged: ",
        ),
        (
            |deltas| fs::remove_dir_all(deltas.join("0002")).unwrap(),
            "deltas/0003 is there. Nothing can follow",
        ),
        (
            |deltas| {
                fs::remove_dir_all(deltas.join("0003")).unwrap();
                fs::remove_file(deltas.join("0002").join(MANIFEST)).unwrap();
            },
            "deltas/0002 has no MANIFEST.json. ",
        ),
        (
            |deltas| replace(&deltas.join("0002").join(MANIFEST), "{"),
            "deltas/0002: delta 2 is damaged: ",
        ),
    ];
    for (damage, expected) in cases {
        let fixture = Fixture::new(ImageArm::None);
        let mut model = fixture.model();
        let changes = |id| Changes { rows: [(id, Some(row(id)))].into(), ..Changes::default() };
        for id in 1..4 {
            model = model.change(&changes(id)).unwrap();
        }
        damage(&fixture.place(1).join("deltas"));
        let bundle = Model::open_bundle(&fixture.place(1)).unwrap();
        let error = bundle.change(&changes(9)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("put its files back from a copy; or remove it"), "{error}");
        let error = crate::compact(&fixture.place(1)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_list_of_one_is_one_value_and_a_text_may_be_a_list() {
    let mut spec = spec(ImageArm::None);
    let separator = "|".to_owned();
    for field in spec.fields.fields.iter_mut().filter(|field| field.name == "category") {
        field.multi = true;
        field.kind = Some(FieldKind::List { separator: separator.clone() });
    }
    let fixture = Fixture::of(spec);
    let model = fixture.model();
    let text = |text: &str| Text(text.to_owned());
    for (cell, expected) in [
        (Cell::One(text("hats|shoes")), &["hats", "shoes"][..]),
        (Cell::One(text("['hats', 'shoes']")), &["hats", "shoes"]),
        (Cell::List(vec![text("hats|shoes")]), &["hats|shoes"]),
        (Cell::List(vec![text("hats"), text("a|b")]), &["hats", "a|b"]),
        (Cell::List(Vec::new()), &[]),
    ] {
        let mut changes = Changes::default();
        assert!(changes.item(&model, "9", None, &cells(&[("category", cell)])).unwrap());
        let ids = changes.items.values().flatten().flat_map(|item| &item.fields[0]);
        let expected = expected.iter().map(|text| Id::of("category", text));
        assert!(ids.copied().eq(expected), "{changes:?}");
    }
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
    assert!(add(&model, &[1.0]).contains("has 1 numbers, expected 8"), "{}", add(&model, &[1.0]));
    let mut feature = vec![0.0; 8];
    feature[3] = 1e6;
    assert!(add(&model, &feature).contains("is 1000000 at 3, expected a half"));
    assert!(changes.is_empty());
    assert!(!fixture.place(1).join("deltas").exists());
}

#[test]
fn a_version_that_was_removed_or_replaced_has_no_more_deltas() {
    let changes = Changes { rows: ids().into(), ..Changes::default() };
    let fixture = Fixture::new(ImageArm::None);
    let model = fixture.model();
    let place = fixture.place(1);
    fs::rename(&place, place.with_file_name("2")).unwrap();
    let error = model.change(&changes).unwrap_err().to_string();
    assert!(error.contains("was removed after this model was opened"), "{error}");
    assert!(!place.exists(), "nothing was made");
    let other = Fixture::of(with(&spec(ImageArm::None), |n| n.mlp = vec![5]));
    other.model();
    fs::rename(other.place(1), &place).unwrap();
    let error = model.change(&changes).unwrap_err().to_string();
    assert!(error.contains("is another version now"), "{error}");
    assert_eq!(
        fs::read_dir(&place)
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().contains("delta")
            })
            .count(),
        0
    );
    fs::rename(&place, place.with_file_name("3")).unwrap();
    fs::rename(place.with_file_name("2"), &place).unwrap();
    assert_eq!(model.change(&changes).unwrap().deltas(), 1);
}
