//! What was decided, day by day: a file for people and for the next day.

use std::path::Path;

use ams_bundle::{Error, Result};
use ams_data::staging::write_whole;
use serde::{Deserialize, Serialize};

use crate::day::Day;
use crate::facts::Facts;
use crate::gate::Comparison;

/// `format` of the files this build reads and writes.
const FORMAT: &str = "ams-daily/1";

/// What became of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Its model was published.
    Published,
    /// It has a fault, or its model is worse than the one that serves, which serves on.
    Refused,
    /// The log has no event of it.
    Empty,
}

/// A day that is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The day.
    pub day: Day,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The version of its model, if that was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// blake3 over the files of that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The version that served when the day was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<u64>,
    /// The first instant of the impressions that judged its model, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_from: Option<i64>,
    /// The day in numbers; none of a day without events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// Its model beside the one that served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<Comparison>,
}

impl Entry {
    /// A day without events.
    pub fn empty(day: Day) -> Entry {
        Entry {
            day,
            outcome: Outcome::Empty,
            reasons: Vec::new(),
            version: None,
            hash: None,
            serving: None,
            judged_from: None,
            facts: None,
            compared: Vec::new(),
        }
    }

    /// A day whose model is published, as long as nothing is found against it.
    pub fn of(making: &Making) -> Entry {
        Entry {
            outcome: Outcome::Published,
            serving: making.serving,
            judged_from: Some(making.judged_from),
            ..Entry::empty(making.day)
        }
    }
}

/// A day that is being made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Making {
    /// The day.
    pub day: Day,
    /// Number of rows of the log that it has.
    pub rows: u64,
    /// The first instant of the impressions that judge its model, in Unix seconds.
    pub judged_from: i64,
    /// The instant at which the log ends for it, in Unix seconds.
    pub until: i64,
    /// The version that its model gets if it is published.
    pub version: u64,
    /// The version that serves meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<u64>,
}

/// Removes what a process that was killed left in `folder`, if it is there, of the file or folder
/// `name`, which it was writing under another name. Nobody else may be writing it.
///
/// # Errors
/// If the folder cannot be listed, or something in it not be removed.
pub fn remove_leftovers(folder: &Path, name: &str) -> Result<()> {
    let begin = format!("{name}.tmp-");
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let named = path.file_name().and_then(|name| name.to_str());
        if named.is_some_and(|named| named.starts_with(&begin)) {
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Name of the file of [`Days`] in the folder of a model.
const DAYS: &str = "days.json";

/// `format` of [`Days`].
const DAYS_FORMAT: &str = "ams-days/1";

/// Days that are told there, at most.
const MOST: usize = 60;

/// What is told of the newest days beside the versions of their model, to servers and people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Days {
    format: String,
    /// The days, oldest first.
    pub days: Vec<Entry>,
}

impl Days {
    /// Reads those of the model whose folder is `model`; none if nobody makes it day by day.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(model: &Path) -> Result<Option<Days>> {
        let path = model.join(DAYS);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io(&path))?,
        };
        let wrong = |what: String| Error::content(&path, what);
        let days: Days = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if days.format != DAYS_FORMAT {
            return Err(wrong(format!("format is {:?}, expected {DAYS_FORMAT:?}", days.format)));
        }
        Ok(Some(days))
    }

    /// Writes them into the folder `model`, whole or not at all, unless they are there already.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, model: &Path) -> Result<()> {
        if Days::read(model).is_ok_and(|there| there.as_ref() == Some(self)) {
            return Ok(());
        }
        std::fs::create_dir_all(model).map_err(Error::io(model))?;
        remove_leftovers(model, DAYS)?;
        let text = serde_json::to_string_pretty(self).expect("texts and numbers are JSON");
        Ok(write_whole(&model.join(DAYS), text + "\n")?)
    }

    /// The newest day with events, whatever became of it.
    pub fn newest(&self) -> Option<Day> {
        let mut days = self.days.iter().rev();
        days.find(|entry| entry.outcome != Outcome::Empty).map(|entry| entry.day)
    }

    /// The newest day that was refused.
    pub fn last_refused(&self) -> Option<&Entry> {
        self.days.iter().rev().find(|entry| entry.outcome == Outcome::Refused)
    }
}

/// The days of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: String,
    /// Name of the model.
    pub model: String,
    /// The days that are done, oldest first.
    pub days: Vec<Entry>,
    /// The day that is being made, so that it goes on as it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub making: Option<Making>,
}

impl State {
    /// That of a model without a day.
    pub fn new(model: &str) -> State {
        State { format: FORMAT.to_owned(), model: model.to_owned(), days: Vec::new(), making: None }
    }

    /// Reads the file `path`; a new state of `model` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is of another model.
    pub fn read(path: &Path, model: &str) -> Result<State> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(State::new(model));
            }
            text => text.map_err(Error::io(path))?,
        };
        let state: State =
            serde_json::from_str(&text).map_err(|error| Error::content(path, error.to_string()))?;
        if state.format != FORMAT {
            let what = format!("format is {:?}, expected {FORMAT:?}", state.format);
            return Err(Error::content(path, what));
        }
        if state.model != model {
            let what = format!("is of the model `{}`, expected `{model}`", state.model);
            return Err(Error::content(path, what));
        }
        if !state.days.is_sorted_by(|a, b| a.day < b.day) {
            return Err(Error::content(path, "its days are not in order"));
        }
        Ok(state)
    }

    /// Writes the file `path`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("texts and numbers are JSON");
        Ok(write_whole(path, text + "\n")?)
    }

    /// What is told beside the versions.
    pub fn told(&self) -> Days {
        let days = &self.days[self.days.len().saturating_sub(MOST)..];
        Days { format: DAYS_FORMAT.to_owned(), days: days.to_vec() }
    }

    /// What was decided about `day`.
    pub fn of(&self, day: Day) -> Option<&Entry> {
        self.days.iter().find(|entry| entry.day == day)
    }

    /// The newest day that is done.
    pub fn newest(&self) -> Option<Day> {
        self.days.last().map(|entry| entry.day)
    }

    /// The numbers of the days before `day` that were not refused, the newest first.
    pub fn sound_before(&self, day: Day) -> Vec<&Facts> {
        let before = self.days.iter().rev().filter(|entry| entry.day < day);
        before
            .filter(|entry| entry.outcome == Outcome::Published)
            .filter_map(|entry| entry.facts.as_ref())
            .collect()
    }

    /// The day whose model is `version`.
    pub fn of_version(&self, version: u64) -> Option<&Entry> {
        self.days.iter().find(|entry| entry.version == Some(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(day: &str, outcome: Outcome) -> Entry {
        let facts = Some(Facts::default());
        Entry { outcome, facts, ..Entry::empty(day.parse().unwrap()) }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = State::read(&path, "shop").unwrap();
        assert_eq!(state, State::new("shop"));
        let first = Entry { version: Some(7), ..entry("2024-03-04", Outcome::Published) };
        state.days.push(first);
        state.days.push(entry("2024-03-05", Outcome::Refused));
        state.write(&path).unwrap();
        assert_eq!(State::read(&path, "shop").unwrap(), state);
        let day = "2024-03-06".parse().unwrap();
        assert_eq!((state.of_version(7), state.of_version(8)), (Some(&state.days[0]), None));
        assert_eq!(state.sound_before(day).len(), 1);
        assert_eq!(state.newest(), Some(state.days[1].day));

        let told = state.told();
        std::fs::create_dir(dir.path().join("shop")).unwrap();
        std::fs::write(dir.path().join("shop/days.json.tmp-17-0"), "half").unwrap();
        std::fs::create_dir_all(dir.path().join("shop/days.json.tmp-18-0/train")).unwrap();
        std::fs::write(dir.path().join("shop/days.js"), "other").unwrap();
        told.write(&dir.path().join("shop")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("shop")).unwrap().count(), 2);
        assert_eq!(Days::read(&dir.path().join("shop")).unwrap().as_ref(), Some(&told));
        assert_eq!(Days::read(dir.path()).unwrap(), None);
        assert_eq!(told.newest(), Some(state.days[1].day));
        assert_eq!(told.last_refused(), Some(&state.days[1]));

        let error = State::read(&path, "films").unwrap_err().to_string();
        assert!(error.contains("is of the model `shop`, expected `films`"), "{error}");
        state.days.swap(0, 1);
        state.write(&path).unwrap();
        assert!(State::read(&path, "shop").unwrap_err().to_string().contains("not in order"));
        std::fs::write(&path, "{}").unwrap();
        let error = State::read(&path, "shop").unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
    }
}
