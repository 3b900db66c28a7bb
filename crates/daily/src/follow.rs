//! A log that is followed: what was read of it and learned, a file for people, for the next start
//! and for servers.

use std::collections::BTreeMap;
use std::path::Path;

use ams_bundle::{Error, Result};
use ams_data::Groups;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::prepare::Clock;
use ams_data::samples::SampleFile;
use ams_data::staging::write_whole;
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::state::remove_leftovers;

/// `format` of the states this build reads and writes.
const STATE_FORMAT: &str = "ams-follow/1";

/// `format` of [`Followed`].
const FOLLOWED_FORMAT: &str = "ams-followed/1";

/// Name of the file of [`Followed`] in the folder of a model.
const FOLLOWED: &str = "follow.json";

/// Versions that a state remembers, at most.
pub const MOST_REMEMBERED: usize = 60;

/// A part of the log that was read and is still there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartRead {
    /// A text that is another one when the content is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stamp: Option<String>,
    /// blake3 of its bytes.
    pub blake3: String,
}

/// Rows of one part that wait until their window is closed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    /// When the window begins, in Unix seconds of the log.
    pub window: i64,
    /// Number of the part, in the order in which parts were read.
    pub part: u64,
    /// Number of rows.
    pub rows: u64,
    /// When the part landed, in Unix seconds by the clock of the host.
    pub landed: f64,
}

/// A version that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowMaking {
    /// When its window begins; none of the first version, which learns from the log before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// The version that it becomes.
    pub version: u64,
}

/// A delay in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// Of half of the events it was no longer.
    pub p50: f64,
    /// Of 95 % of the events it was no longer.
    pub p95: f64,
}

impl Delay {
    /// Of events that came at the instants `came`, as many each as is said, until the instant `at`;
    /// none of no events.
    pub fn until(at: f64, came: impl IntoIterator<Item = (f64, u64)>) -> Option<Delay> {
        let mut delays: Vec<(f64, u64)> =
            came.into_iter().map(|(instant, rows)| (at - instant, rows)).collect();
        delays.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all: u64 = delays.iter().map(|(_, rows)| rows).sum();
        let of = |share: f64| {
            let rank = ((all as f64 * share).ceil() as u64).max(1);
            let mut before = 0;
            let found = delays.iter().find(|(_, rows)| {
                before += rows;
                before >= rank
            });
            Some(to_milliseconds(found?.0))
        };
        Some(Delay { p50: of(0.5)?, p95: of(0.95)? })
    }
}

/// `seconds` without what is shorter than a millisecond: such numbers are read from a file as they
/// were written.
pub fn to_milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// A version that was published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// When its window begins, in Unix seconds of the log; none of the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// The instant behind the last event that it may have learned from, in Unix seconds.
    pub until: i64,
    /// Rows of the log in the window.
    pub rows: u64,
    /// Impressions that it learned from.
    pub impressions: u64,
    /// Mean loss of these impressions when they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Its version.
    pub version: u64,
    /// blake3 over the files of the version.
    pub hash: String,
    /// When it was published, in Unix seconds by the clock of the host.
    pub published: f64,
    /// From the time of an event to then; of a log of former times, that is how long ago it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_to_score: Option<Delay>,
    /// From the landing of an event's part to then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landed_to_score: Option<Delay>,
}

/// Rows of a log by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsRead {
    /// All.
    pub read: u64,
    /// Those of a window that was published.
    pub published: u64,
    /// Those of a window that was closed before they came.
    pub late: u64,
    /// Those without user, item or time, or with an implausible time.
    pub left_out: u64,
}

/// What was read and learned of a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowState {
    format: String,
    /// Name of the model.
    pub model: String,
    /// The first instant that is followed, and what time it is in the log; none before the first
    /// version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<FollowClock>,
    /// Counts of rows.
    pub rows: RowsRead,
    /// Number of parts that were read.
    pub parts_read: u64,
    /// Those that are still there, by name.
    pub parts: BTreeMap<String, PartRead>,
    /// Rows that wait until their window is closed.
    pub waiting: Vec<Waiting>,
    /// The version that is being made, so that it goes on as it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub making: Option<WindowMaking>,
    /// The newest versions, oldest first.
    pub windows: Vec<Window>,
}

/// What time it is in a log that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowClock {
    /// The first instant that is followed, in Unix seconds.
    pub begin: i64,
    /// The latest event.
    pub now: Clock,
    /// Length of a window in seconds.
    pub length: i64,
}

impl FollowState {
    /// That of a model whose log was not read.
    pub fn new(model: &str) -> FollowState {
        FollowState {
            format: STATE_FORMAT.to_owned(),
            model: model.to_owned(),
            clock: None,
            rows: RowsRead::default(),
            parts_read: 0,
            parts: BTreeMap::new(),
            waiting: Vec::new(),
            making: None,
            windows: Vec::new(),
        }
    }

    /// Reads the file `path`; a new state of `model` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is of another model.
    pub fn read(path: &Path, model: &str) -> Result<FollowState> {
        let Some(state) = read::<FollowState>(path)? else { return Ok(FollowState::new(model)) };
        check_format(path, &state.format, STATE_FORMAT)?;
        if state.model != model {
            let what = format!("is of the model `{}`, expected `{model}`", state.model);
            return Err(Error::content(path, what));
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

    /// Adds a version that was published.
    pub fn push(&mut self, window: Window) {
        self.rows.published += window.rows;
        self.waiting.retain(|waiting| Some(waiting.window) != window.window);
        self.making = None;
        self.windows.push(window);
        let more = self.windows.len().saturating_sub(MOST_REMEMBERED);
        self.windows.drain(..more);
    }

    /// The earliest window with rows that begins before `open`.
    pub fn closed(&self, open: i64) -> Option<i64> {
        let windows = self.waiting.iter().map(|waiting| waiting.window);
        windows.min().filter(|window| *window < open)
    }

    /// What is told beside the versions.
    pub fn told(&self) -> Followed {
        Followed {
            format: FOLLOWED_FORMAT.to_owned(),
            newest: self.clock.map(|clock| clock.now.newest),
            rows: self.rows,
            windows: self.windows.clone(),
        }
    }
}

/// What is told of a log that is followed beside the versions of its model, to servers and people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Followed {
    format: String,
    /// The latest event that was read, in Unix seconds of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<i64>,
    /// Counts of rows.
    pub rows: RowsRead,
    /// The newest versions, oldest first.
    pub windows: Vec<Window>,
}

impl Followed {
    /// Reads that of the model whose folder is `model`; none if it follows no log.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(model: &Path) -> Result<Option<Followed>> {
        let path = model.join(FOLLOWED);
        let Some(followed) = read::<Followed>(&path)? else { return Ok(None) };
        check_format(&path, &followed.format, FOLLOWED_FORMAT)?;
        Ok(Some(followed))
    }

    /// Writes it into the folder `model`, whole or not at all, unless it is there already.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, model: &Path) -> Result<()> {
        if Followed::read(model).is_ok_and(|there| there.as_ref() == Some(self)) {
            return Ok(());
        }
        std::fs::create_dir_all(model).map_err(Error::io(model))?;
        remove_leftovers(model, FOLLOWED)?;
        let text = serde_json::to_string_pretty(self).expect("texts and numbers are JSON");
        Ok(write_whole(&model.join(FOLLOWED), text + "\n")?)
    }

    /// What is told of `version`.
    pub fn of(&self, version: u64) -> Option<&Window> {
        self.windows.iter().rev().find(|window| window.version == version)
    }
}

/// The file `path` of JSON; none if it is not there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(Error::io(path))?,
    };
    serde_json::from_str(&text).map(Some).map_err(|error| Error::content(path, error.to_string()))
}

fn check_format(path: &Path, found: &str, expected: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::content(path, format!("format is {found:?}, expected {expected:?}")))
}

/// The instants of the training impressions of `dataset`, in Unix seconds.
///
/// # Errors
/// If samples cannot be read.
pub fn shown_at(dataset: &Dataset) -> Result<Vec<i64>> {
    let parts: Vec<usize> = (0..dataset.card().parts).collect();
    let each = parts.par_iter().with_max_len(1).map(|&part| {
        let file = SampleFile::open(&dataset.part_path(SplitName::Train, part), dataset.schema())?;
        let mut times = Vec::new();
        for block in 0..file.blocks() {
            let mut groups = Groups::new(dataset.schema());
            file.read(block, &mut groups)?;
            times.extend_from_slice(&groups.times);
        }
        Ok(times)
    });
    let each: Vec<Result<Vec<i64>>> = each.collect();
    let mut all = Vec::new();
    each.into_iter().try_for_each(|times| {
        all.extend(times?);
        Ok::<_, Error>(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_those_of_the_events() {
        let of = |came: &[(f64, u64)]| {
            Delay::until(100.0, came.iter().copied()).map(|delay| [delay.p50, delay.p95])
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(90.0, 1)]), Some([10.0, 10.0]));
        // Of 100 events, the 50th and the 95th.
        assert_eq!(of(&[(0.0, 5), (60.0, 45), (99.0, 50)]), Some([1.0, 40.0]));
        assert_eq!(of(&[(0.0, 6), (60.0, 45), (99.0, 49)]), Some([40.0, 100.0]));
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = FollowState::read(&path, "shop").unwrap();
        assert_eq!(state, FollowState::new("shop"));
        for (window, part, rows) in [(60, 1, 5), (120, 1, 2), (60, 2, 7)] {
            state.waiting.push(Waiting { window, part, rows, landed: 0.5 });
        }
        assert_eq!([60, 61, 180].map(|open| state.closed(open)), [None, Some(60), Some(60)]);
        let window = Window {
            window: Some(60),
            until: 120,
            rows: 12,
            impressions: 11,
            loss: None,
            version: 3,
            hash: "00".to_owned(),
            published: 1000.25,
            event_to_score: Delay::until(1000.25, [(60.0, 11)]),
            landed_to_score: None,
        };
        state.push(window.clone());
        assert_eq!((state.rows.published, state.waiting.len()), (12, 1));
        state.write(&path).unwrap();
        assert_eq!(FollowState::read(&path, "shop").unwrap(), state);
        state.told().write(dir.path()).unwrap();
        let told = Followed::read(dir.path()).unwrap().unwrap();
        assert_eq!((told.of(3), told.of(4)), (Some(&window), None));
        assert_eq!(Followed::read(&dir.path().join("other")).unwrap(), None);
        let error = FollowState::read(&path, "films").unwrap_err().to_string();
        assert!(error.contains("is of the model `shop`, expected `films`"), "{error}");
        for _ in 0..MOST_REMEMBERED {
            state.push(window.clone());
        }
        assert_eq!(state.windows.len(), MOST_REMEMBERED);
    }
}
