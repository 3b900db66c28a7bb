//! Decisions of operators about the models of a folder. They are a file of the folder, so they
//! outlive a restart, and all servers of the folder follow them.
//!
//! ```text
//! MODELS/serving.json   {"format": "ams-serving/1", "models": {"shop": {
//!                          "pinned":    {"version": 1, "by": "ops@example.com", "at": 1764288000},
//!                          "chosen":    {"version": 1, "by": "..", "at": ..},         servers with --explicit
//!                          "withdrawn": {"3": {"by": "..", "at": ..}},
//!                          "canary":    {"version": 4, "percent": 5, "by": "..", "at": ..,
//!                                        "promotion": {"steps": [1, 5, 25, 50], ..}},   optional
//!                          "unloaded":  {"by": "..", "at": ..}}}}
//! ```
//! `at` is in unix seconds. The file is replaced as a whole, under the lock `.serving.lock` beside
//! it.

// Public for fuzz targets, which exist with every protocol only.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ams_bundle::Error;
use ams_data::lock::Lock;
use ams_data::staging::{sync_folder, write_whole};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;
use crate::promotion::Promotion;

/// Name of the file of decisions in the folder of models.
pub const FILE: &str = "serving.json";

/// `format` of the files this build reads and writes.
const FORMAT: &str = "ams-serving/1";

/// Most bytes of a file that is read.
const MOST: u64 = 16 << 20;

/// Time to wait for the lock of another server.
const WAIT: Duration = Duration::from_secs(5);

/// The author and the time of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Author {
    /// The header `From` or `User-Agent` of the order, with the fingerprint of its token.
    pub by: String,
    /// The time of the decision, in unix seconds.
    pub at: u64,
}

impl Author {
    /// `by`, with the present time.
    pub fn of(by: &str) -> Author {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Author { by: by.to_owned(), at: since.map_or(0, |since| since.as_secs()) }
    }
}

/// A version that serves until another decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    pub version: u64,
    #[serde(flatten)]
    pub author: Author,
}

/// A version that answers a share of the users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryShare {
    /// The version.
    pub version: u64,
    /// Percentage of the users, 1 to 100.
    pub percent: u8,
    /// By what rules it gets more users; none where only operators decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
    /// Who decided it, and when.
    #[serde(flatten)]
    pub author: Author,
}

/// All decisions about one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelDecisions {
    /// The version that serves until another decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
    /// The version that servers with `--explicit` serve until an order to search for a higher one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Pinned>,
    /// Versions that become live by order only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub withdrawn: BTreeMap<u64, Author>,
    /// The version that answers a share of the users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryShare>,
    /// Set if the model is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unloaded: Option<Author>,
}

impl ModelDecisions {
    /// Has a version serve: pinned, unless it is the `highest` good one.
    pub(super) fn serve(&mut self, version: u64, highest: Option<u64>, explicit: bool, by: &str) {
        let this = Pinned { version, author: Author::of(by) };
        self.pinned = (highest != Some(version)).then(|| this.clone());
        self.chosen = explicit.then_some(this);
    }
}

/// The version that would be live if nothing was pinned.
pub(super) fn highest(found: &[u64], decided: &ModelDecisions, refused: &[u64]) -> Option<u64> {
    let good = |it: &&u64| !decided.withdrawn.contains_key(it) && !refused.contains(it);
    found.iter().rev().find(good).copied()
}

/// All decisions about the models of a folder, by model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decisions(BTreeMap<String, ModelDecisions>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    models: BTreeMap<String, ModelDecisions>,
}

impl Decisions {
    /// The decisions about `model`; without any, the default.
    pub fn of(&self, model: &str) -> ModelDecisions {
        self.0.get(model).cloned().unwrap_or_default()
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// If they are not decisions, with line and column.
    pub fn parse(bytes: &[u8]) -> Result<Decisions, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!("format is {:?}, expected {FORMAT:?}", file.format));
        }
        for (model, decided) in &file.models {
            if let Some(CanaryShare { percent, .. }) = decided.canary
                && !(1..=100).contains(&percent)
            {
                return Err(format!(
                    "models.{model}.canary.percent is {percent}, expected 1 to 100"
                ));
            }
            let rules = decided.canary.as_ref().and_then(|canary| canary.promotion.as_ref());
            if let Some(Err(what)) = rules.map(Promotion::check) {
                return Err(format!("models.{model}.canary.promotion: {what}"));
            }
        }
        Ok(Decisions(file.models))
    }

    /// Reads the file in `folder`; without a file, there are no decisions.
    ///
    /// # Errors
    /// If the file cannot be read, is too large or damaged.
    pub fn read(folder: &Path) -> Result<Decisions, Error> {
        let path = folder.join(FILE);
        let length = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Decisions::default());
            }
            other => other.map_err(Error::io(&path))?.len(),
        };
        if length > MOST {
            let what = format!("{length} bytes, expected {MOST} at most");
            return Err(Error::content(&path, what));
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Decisions::parse(&bytes).map_err(|what| {
            let what = format!(
                "{what}; correct the file, or remove it so that the highest versions serve"
            );
            Error::content(&path, what)
        })
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let file = File { format: FORMAT.to_owned(), models: self.0.clone() };
        let text = serde_json::to_string_pretty(&file);
        text.expect("texts and numbers, by text or number, are JSON") + "\n"
    }

    fn write(&self, folder: &Path) -> Result<(), Error> {
        write_whole(&folder.join(FILE), self.to_text())?;
        Ok(sync_folder(folder)?)
    }

    /// A copy to whose decisions about `model` the `change` was applied, and the result of
    /// `change`.
    pub fn apply<R>(
        &self,
        model: &str,
        change: impl FnOnce(&mut ModelDecisions) -> Result<R, Refusal>,
    ) -> Result<(Decisions, R), Refusal> {
        let mut changed = self.clone();
        let decided = changed.0.entry(model.to_owned()).or_default();
        let result = change(decided)?;
        if *decided == ModelDecisions::default() {
            changed.0.remove(model);
        }
        Ok((changed, result))
    }
}

/// The decisions that hold in this server, and the state of the folder's file.
#[derive(Clone, Debug, Default)]
pub(super) struct DecisionStore {
    pub(super) decisions: Decisions,
    /// The decisions in the file when it was last read; `None` before the first read.
    on_disk: Option<Decisions>,
    /// The error of the last write, if the file differs from `decisions`.
    pub(super) unkept: Option<String>,
}

impl DecisionStore {
    /// Reads the file and takes its decisions over, unless it is unchanged since a decision of this
    /// server that could not be written.
    ///
    /// # Errors
    /// As [`Decisions::read`]; then the decisions stay.
    pub(super) fn follow(&mut self, folder: &Path) -> Result<(), Error> {
        let read = Decisions::read(folder)?;
        if self.unkept.is_none() || self.on_disk.as_ref() != Some(&read) {
            self.decisions = read.clone();
            self.unkept = None;
        }
        self.on_disk = Some(read);
        Ok(())
    }

    /// Whether the file was read, or found to be absent, once.
    pub(super) fn is_known(&self) -> bool {
        self.on_disk.is_some()
    }

    /// Decides about a model: writes the file, then applies the decision here. If the folder cannot
    /// be written, the decision holds in this server only and [`DecisionStore::unkept`] has the
    /// error, because a full disk must not prevent a rollback.
    ///
    /// # Errors
    /// If `change` fails, another server holds the lock for too long, or the file is damaged; then
    /// nothing has changed.
    pub(super) fn decide<R>(
        &mut self,
        folder: &Path,
        model: &str,
        change: impl FnOnce(&mut ModelDecisions) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let lock = Lock::wait(folder, "serving", WAIT);
        let unwritable = match lock {
            Ok(ref _held) => None,
            Err(error @ ams_data::Error::Io { .. }) => Some(error.to_string()),
            Err(error) => return Err(Refusal::State(error.to_string())),
        };
        self.follow(folder)?;
        let (decisions, result) = self.decisions.apply(model, change)?;
        let unkept = unwritable.or_else(|| decisions.write(folder).err().map(|e| e.to_string()));
        match &unkept {
            None => self.on_disk = Some(decisions.clone()),
            Some(error) => {
                tracing::error!(
                    model,
                    %error,
                    "the decision holds in this server only, until it is restarted"
                );
            }
        }
        self.decisions = decisions;
        self.unkept = unkept;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(version: u64) -> impl FnOnce(&mut ModelDecisions) -> Result<(), Refusal> {
        move |decided| {
            decided.pinned = Some(Pinned { version, author: Author::of("a test") });
            Ok(())
        }
    }

    fn pinned(book: &DecisionStore) -> Option<u64> {
        book.decisions.of("shop").pinned.map(|pinned| pinned.version)
    }

    #[test]
    fn what_one_server_decides_another_follows() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (DecisionStore::default(), DecisionStore::default());
        assert!(!one.is_known());
        one.decide(dir.path(), "shop", pin(3)).unwrap();
        assert_eq!((pinned(&one), pinned(&other), &one.unkept), (Some(3), None, &None));
        other.follow(dir.path()).unwrap();
        assert_eq!(pinned(&other), Some(3));
        // What the other decides about another model leaves this one alone.
        let withdraw = |decided: &mut ModelDecisions| {
            decided.withdrawn.insert(7, Author::of("a test"));
            Ok(())
        };
        other.decide(dir.path(), "films", withdraw).unwrap();
        one.decide(dir.path(), "shop", pin(4)).unwrap();
        assert!(one.decisions.of("films").withdrawn.contains_key(&7));
        assert_eq!(Decisions::read(dir.path()).unwrap(), one.decisions);
        // No decision is left of nothing.
        let clear = |decided: &mut ModelDecisions| {
            decided.withdrawn.clear();
            Ok(())
        };
        one.decide(dir.path(), "films", clear).unwrap();
        assert!(!std::fs::read_to_string(dir.path().join(FILE)).unwrap().contains("films"));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_cannot_be_written_counts_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models");
        std::fs::create_dir(&folder).unwrap();
        // A folder in the file's place: nobody can write it, not even root.
        let mut book = DecisionStore::default();
        book.follow(&folder).unwrap();
        std::fs::create_dir(folder.join(FILE)).unwrap();
        book.decide(&folder, "shop", pin(3)).unwrap_err();
        std::fs::remove_dir(folder.join(FILE)).unwrap();
        let lock = folder.join(".serving.lock");
        std::fs::create_dir(&lock).unwrap();
        book.decide(&folder, "shop", pin(3)).unwrap();
        assert!(book.unkept.is_some());
        book.follow(&folder).unwrap();
        assert_eq!(pinned(&book), Some(3), "the file says what it said before");
        std::fs::remove_dir(&lock).unwrap();
        DecisionStore::default().decide(&folder, "shop", pin(2)).unwrap();
        book.follow(&folder).unwrap();
        assert_eq!((pinned(&book), &book.unkept), (Some(2), &None));
    }

    #[test]
    fn files_that_are_damaged_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let author = r#""by": "x", "at": 1"#;
        for (text, expected) in [
            ("", "EOF"),
            ("{}", "missing field `format`"),
            (r#"{"format": "ams-serving/2", "models": {}}"#, "expected \"ams-serving/1\""),
            (
                r#"{"format": "ams-serving/1", "models": {"a": {"pined": 1}}}"#,
                "unknown field `pined`",
            ),
            (
                &format!(
                    r#"{{"format": "ams-serving/1", "models": {{"a": {{"canary": {{"version": 1, "percent": 0, {author}}}}}}}}}"#
                ),
                "models.a.canary.percent is 0, expected 1 to 100",
            ),
            (
                &format!(
                    r#"{{"format": "ams-serving/1", "models": {{"a": {{"canary": {{"version": 1, "percent": 5, {author},
                        "promotion": {{"steps": [5, 5], "impressions": 9, "calibration": 2, "errors": 0}}}}}}}}}}"#
                ),
                "models.a.canary.promotion: steps are [5, 5]",
            ),
            (r#"{"format": "ams-serving/1", "models": {"a": {"withdrawn": {"x": 1}}}}"#, "invalid"),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = Decisions::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("serving.json"), "{text}: {error}");
            let mut book = DecisionStore::default();
            assert!(book.decide(dir.path(), "a", pin(1)).is_err());
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }
}
