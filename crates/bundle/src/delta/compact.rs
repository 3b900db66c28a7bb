//! Many deltas as one: opening a version then costs what changed, not how often.
//!
//! The deltas of a version, 1 to n, become one folder `0001-<n>`, which says what all of them say
//! and lists their hashes. Only after it is there whole and was opened and compared, they are
//! removed.
//!
//! - Who opens the version, or follows it, takes the folder of the widest span that goes further
//!   than what it has. So it does not matter which of the others are there still, or in pieces: a
//!   compaction that was killed anywhere leaves the same model, and the next one takes away what is
//!   left.
//! - A server that has deltas 1 to k < n takes the folder up too: its entries lie over all that the
//!   first k brought, so it has exactly deltas 1 to n then. The list of hashes proves that its k
//!   are among them.
//! - Delta n + 1 follows the hash of delta n, which stays the hash of the model. So writers and
//!   servers that have all n notice nothing.
//!
//! All of that under the writers' lock.

use std::fs;
use std::path::Path;

use ams_data::staging::is_building_name;

use crate::delta::changes::Changes;
use crate::delta::follow::next_or_stuck;
use crate::delta::write::{DeltaPosition, lock, write_at};
use crate::error::{Error, Result};
use crate::files::deltas::{self, Span};
use crate::model::{DeltaState, Model};

/// The result of a compaction.
#[derive(Clone, Debug)]
pub struct Compacted {
    /// The version with all of them.
    pub model: Model,
    /// How many folders of deltas there were.
    pub before: u64,
}

/// Makes the deltas of a version (`<model>/<version>/`, or the highest of `<model>/`) one.
///
/// # Errors
/// If the version or a delta is damaged, another process writes for too long, or something cannot
/// be written. Then all deltas are as they were.
pub fn compact(dir: &Path) -> Result<Compacted> {
    let bundle = Model::open_bundle(dir)?;
    let _writer = lock(&bundle)?;
    let (mut model, mut covers, mut before) = (bundle.clone(), Vec::new(), 0);
    while let Some(next) = next_or_stuck(&model)? {
        model = next;
        before += 1;
        match model.last_delta() {
            Some((_, meta)) if !meta.covers.is_empty() => covers.clone_from(&meta.covers),
            Some((hash, _)) => covers.push(hash.to_owned()),
            None => unreachable!("a delta was followed"),
        }
    }
    let last = model.deltas();
    if before > 1 {
        let all = Changes::of(&model);
        let place = deltas::compacted_place(model.path(), last);
        let follows = model.hash().to_owned();
        write_at(&place, &bundle, &all, DeltaPosition { number: last, follows, covers })?;
        let again = bundle.next();
        let same = |again: &Model| {
            let DeltaState { number, hash, .. } = again.delta();
            (*number, hash) == (last, &model.delta().hash) && Changes::of(again) == all
        };
        match again {
            Ok(Some(again)) if same(&again) => model = again,
            other => {
                fs::remove_dir_all(&place).map_err(Error::io(&place))?;
                let why = other.err().map_or("it differs".to_owned(), |error| error.to_string());
                let what = format!("did not come back as written, and was removed: {why}");
                return Err(Error::content(&place, what));
            }
        }
    }
    sweep(model.path())?;
    Ok(Compacted { model, before })
}

/// Removes deltas that are in a wider one, and what killed writers left.
fn sweep(version_dir: &Path) -> Result<()> {
    let compacted = deltas::listed(version_dir, Span::is_compacted)?;
    let widest = compacted.iter().rev().find(|(_, place)| deltas::is_there(place));
    let Some((&Span { last: widest, .. }, _)) = widest else { return Ok(()) };
    let deltas = deltas::deltas_of(version_dir);
    for entry in fs::read_dir(&deltas).map_err(Error::io(&deltas))? {
        let entry = entry.map_err(Error::io(&deltas))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let covered = deltas::span(name)
            .is_some_and(|span| span.last < widest || span.last == widest && !span.is_compacted());
        let left = is_building_name(name);
        if covered || left {
            fs::remove_dir_all(entry.path()).map_err(Error::io(entry.path()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS, noise};
    use crate::model::Scratch;
    use ams_data::{Id, ImageKey, PictureName};
    use ams_model::ImageArm;
    use std::collections::BTreeMap;

    fn logits(model: &Model, fixture: &Fixture) -> Vec<f32> {
        let mut logits = Vec::new();
        model.score_groups(&fixture.groups(&ROWS), &mut Scratch::default(), &mut logits);
        logits
    }

    /// Something of each kind that differs from step to step, and lies over what came before.
    fn changes(model: &Model, step: u64) -> Changes {
        let mut changes = Changes::default();
        let row = |seed: u64| Some((0..3).map(|at| noise(seed + at)).collect());
        changes.rows.insert(Id::of("item", "1").0, row(step));
        changes.rows.insert(Id::of("item", &step.to_string()).0, row(step + 50));
        changes
            .rows
            .insert(Id::of("user", "u2").0, step.is_multiple_of(2).then(|| row(step)).flatten());
        let feature: Vec<f32> = (0..8).map(|at| noise(step * 100 + at)).collect();
        let name = PictureName::of(["lost.png", "1.png"][step as usize % 2]);
        changes.picture(model, 0, name, ImageKey(900 + step), &feature).unwrap();
        changes.remove_picture(model, PictureName::of("3.png"));
        let item = format!("new {}", step % 2);
        changes.item(model, &item, Some("lost.png"), &BTreeMap::new()).unwrap();
        match step % 2 {
            0 => drop(changes.remove_item(model, "new 1").unwrap()),
            _ => drop(changes.remove_item(model, "2").unwrap()),
        }
        changes
    }

    fn names(fixture: &Fixture) -> Vec<String> {
        let entries = fs::read_dir(fixture.place(1).join("deltas")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn compacted_deltas_are_the_same_model_for_everybody() {
        let fixture = Fixture::new(ImageArm::Joint);
        // As servers that came so far.
        let mut states = vec![fixture.model()];
        let grow = |states: &mut Vec<Model>, steps: std::ops::Range<u64>| {
            for step in steps {
                let last = states.last().unwrap();
                states.push(last.change(&changes(last, step)).unwrap());
            }
        };
        let check = |states: &[Model], from: usize| {
            let expected = states.last().unwrap();
            let scores = logits(expected, &fixture);
            let opened = Model::open(&fixture.place(1)).unwrap();
            for (at, state) in states.iter().enumerate().skip(from) {
                let mut model = state.clone();
                while let Some(next) = model.next().unwrap() {
                    model = next;
                }
                for model in [&model, &opened] {
                    assert_eq!(model.delta().hash, expected.delta().hash, "from {at}");
                    assert_eq!(Changes::of(model), Changes::of(expected), "from {at}");
                    assert_eq!(logits(model, &fixture), scores, "from {at}");
                }
            }
        };
        let compacted = compact(&fixture.place(1)).unwrap();
        assert_eq!((compacted.before, compacted.model.deltas()), (0, 0));
        grow(&mut states, 0..1);
        assert_eq!(compact(&fixture.place(1)).unwrap().before, 1);
        assert_eq!(names(&fixture), ["0001"]);
        grow(&mut states, 1..4);
        let size = crate::files::version_bytes(&fixture.place(1)).unwrap();
        let compacted = compact(&fixture.place(1)).unwrap();
        assert_eq!((compacted.before, compacted.model.deltas()), (4, 4));
        assert_eq!(names(&fixture), ["0001-0004"]);
        assert!(crate::files::version_bytes(&fixture.place(1)).unwrap() < size);
        check(&states, 0);
        // Deltas go on after it, written by one that knows it and by one that does not.
        grow(&mut states, 4..6);
        states.push(states[5].change(&changes(&states[6], 6)).unwrap());
        assert_eq!(names(&fixture), ["0001-0004", "0005", "0006", "0007"]);
        check(&states, 0);
        let compacted = compact(&fixture.place(1)).unwrap();
        assert_eq!((compacted.before, compacted.model.deltas()), (4, 7));
        assert_eq!(names(&fixture), ["0001-0007"]);
        check(&states, 0);
        assert_eq!(compact(&fixture.place(1)).unwrap().before, 1);
    }

    /// Killed while it writes: nothing has happened. Killed while it removes, whatever is left in
    /// whatever state is not looked at, and is taken away by the next.
    #[test]
    fn a_killed_compaction_leaves_the_same_model() {
        let fixture = Fixture::new(ImageArm::Joint);
        let mut model = fixture.model();
        for step in 0..4 {
            model = model.change(&changes(&model, step)).unwrap();
        }
        let deltas = fixture.place(1).join("deltas");
        let expected = logits(&model, &fixture);
        let same = || {
            let opened = Model::open(&fixture.place(1)).unwrap();
            assert_eq!((opened.deltas(), logits(&opened, &fixture)), (4, expected.clone()));
        };
        let half = deltas.join(".0001-0004.building");
        fs::create_dir(&half).unwrap();
        fs::write(half.join("ids.safetensors"), "half").unwrap();
        same();
        // All of the others as they were, beside it.
        let kept = fixture.dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        for number in 1..=4 {
            let name = format!("{number:04}");
            fs::create_dir(kept.join(&name)).unwrap();
            for file in fs::read_dir(deltas.join(&name)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), kept.join(&name).join(file.file_name())).unwrap();
            }
        }
        compact(&fixture.place(1)).unwrap();
        for number in 1..=4 {
            let name = format!("{number:04}");
            fs::rename(kept.join(&name), deltas.join(&name)).unwrap();
        }
        same();
        let removals = [
            "0002/ids.safetensors",
            "0002/MANIFEST.json",
            "0001/MANIFEST.json",
            "0004/items.safetensors",
        ];
        for removed in removals {
            fs::remove_file(deltas.join(removed)).unwrap();
            same();
        }
        fs::create_dir(deltas.join(".0001-0003.building")).unwrap();
        let compacted = compact(&fixture.place(1)).unwrap();
        assert_eq!((compacted.before, names(&fixture)), (1, vec!["0001-0004".to_owned()]));
        same();
    }

    #[test]
    fn a_compacted_delta_belongs_to_one_history() {
        let (fixture, other) = (Fixture::new(ImageArm::Joint), Fixture::new(ImageArm::Joint));
        let (bundle, stranger) = (fixture.model(), other.model());
        // One bundle, two histories.
        let mut model = bundle.clone();
        for step in 0..3 {
            model = model.change(&changes(&model, step)).unwrap();
        }
        let mut elsewhere = stranger.change(&changes(&stranger, 7)).unwrap();
        for step in 8..10 {
            elsewhere = elsewhere.change(&changes(&elsewhere, step)).unwrap();
        }
        compact(&other.place(1)).unwrap();
        fs::rename(
            other.place(1).join("deltas/0001-0003"),
            fixture.place(1).join("deltas/0001-0003"),
        )
        .unwrap();
        let first = fs::read_dir(fixture.place(1).join("deltas")).unwrap().count();
        assert_eq!(first, 4);
        // Who has all three is past it; who has some finds that it is of others.
        assert!(model.next().unwrap().is_none());
        let mut place = fixture.place(1).join("deltas/0001-0003");
        let parked = fixture.dir.path().join("parked");
        fs::rename(&place, &parked).unwrap();
        let one = bundle.next().unwrap().unwrap();
        fs::rename(&parked, &place).unwrap();
        let error = one.next().map(|_| ()).unwrap_err().to_string();
        place.push("MANIFEST.json");
        assert!(error.contains("meta.covers says that delta 1 is "), "{error}");
        assert!(error.ends_with("it belongs elsewhere"), "{error}");
    }
}
