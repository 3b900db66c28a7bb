//! What operators decided about the models of a folder, kept in the folder: it outlives a restart,
//! and all servers of the folder follow it.
//!
//! ```text
//! MODELS/serving.json   {"format": "ams-serving/1", "models": {"shop": {
//!                          "pinned":    {"version": 1, "by": "ops@example.com", "at": 1764288000},
//!                          "chosen":    {"version": 1, "by": "..", "at": ..},         servers with --explicit
//!                          "withdrawn": {"3": {"by": "..", "at": ..}},
//!                          "canary":    {"version": 4, "percent": 5, "by": "..", "at": ..},
//!                          "unloaded":  {"by": "..", "at": ..}}}}
//! ```
//! `at` is in unix seconds. The file appears whole; who changes it holds the lock `.serving.lock`
//! beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ams_bundle::Error;
use ams_data::lock::Lock;
use ams_data::staging::{sync_folder, write_whole};
use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// The file's name.
pub const FILE: &str = "serving.json";

/// `format` of the files this build reads and writes.
const FORMAT: &str = "ams-serving/1";

/// Most bytes of a file: no hand writes more.
const MOST: u64 = 16 << 20;

/// How long a change of another server is waited for.
const WAIT: Duration = Duration::from_secs(5);

/// Who decided something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// What is known of who it was.
    pub by: String,
    /// In unix seconds.
    pub at: u64,
}

impl Mark {
    /// Of somebody, now.
    pub fn of(by: &str) -> Mark {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Mark { by: by.to_owned(), at: since.map_or(0, |since| since.as_secs()) }
    }
}

/// A version that serves whatever comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// The version.
    pub version: u64,
    /// Who decided it.
    #[serde(flatten)]
    pub mark: Mark,
}

/// A version that a share of the users gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The version.
    pub version: u64,
    /// Of 100 users, 1 to 100.
    pub percent: u8,
    /// Who decided it.
    #[serde(flatten)]
    pub mark: Mark,
}

/// What was decided about one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Decided {
    /// The version that serves whatever comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
    /// The version that servers with `--explicit` serve until they are told to look for a higher
    /// one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen: Option<Pinned>,
    /// Versions that do not become live by themselves.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub withdrawn: BTreeMap<u64, Mark>,
    /// The version that a share of the users gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Share>,
    /// The model is not served at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unloaded: Option<Mark>,
}

/// What was decided about all models of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decisions(BTreeMap<String, Decided>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    models: BTreeMap<String, Decided>,
}

impl Decisions {
    /// What was decided about a model.
    pub fn of(&self, model: &str) -> Decided {
        self.0.get(model).cloned().unwrap_or_default()
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them, and where.
    pub fn parse(bytes: &[u8]) -> Result<Decisions, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!("format is {:?}, expected {FORMAT:?}", file.format));
        }
        for (model, decided) in &file.models {
            if let Some(Share { percent, .. }) = decided.canary
                && !(1..=100).contains(&percent)
            {
                return Err(format!(
                    "models.{model}.canary.percent is {percent}, expected 1 to 100"
                ));
            }
        }
        Ok(Decisions(file.models))
    }

    /// What stands in `folder`; nothing, if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what it has to be.
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
            let what = format!("{what}; mend it, or remove it so that the highest versions serve");
            Error::content(&path, what)
        })
    }

    /// What a file of these says.
    pub fn to_text(&self) -> String {
        let file = File { format: FORMAT.to_owned(), models: self.0.clone() };
        let text = serde_json::to_string_pretty(&file);
        text.expect("texts and numbers, by text or number, are JSON") + "\n"
    }

    fn write(&self, folder: &Path) -> Result<(), Error> {
        write_whole(&folder.join(FILE), self.to_text())?;
        Ok(sync_folder(folder)?)
    }

    /// These with `change` done to what was decided about a model.
    pub fn with<R>(
        &self,
        model: &str,
        change: impl FnOnce(&mut Decided) -> Result<R, Refusal>,
    ) -> Result<(Decisions, R), Refusal> {
        let mut changed = self.clone();
        let decided = changed.0.entry(model.to_owned()).or_default();
        let result = change(decided)?;
        if *decided == Decided::default() {
            changed.0.remove(model);
        }
        Ok((changed, result))
    }
}

/// What is decided, and whether the folder's file says so too.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) decisions: Decisions,
    /// What the file said when it was read last; none: it was never read.
    on_disk: Option<Decisions>,
    /// Why the file does not say what is decided here.
    pub(super) unkept: Option<String>,
}

impl Book {
    /// Follows the file: what another server decided counts here, unless it says only what it said
    /// before a decision that could not be written.
    ///
    /// # Errors
    /// As [`Decisions::read`]; then what was known stays.
    pub(super) fn follow(&mut self, folder: &Path) -> Result<(), Error> {
        let read = Decisions::read(folder)?;
        if self.unkept.is_none() || self.on_disk.as_ref() != Some(&read) {
            self.decisions = read.clone();
            self.unkept = None;
        }
        self.on_disk = Some(read);
        Ok(())
    }

    /// Whether the file was read, or not there.
    pub(super) fn is_known(&self) -> bool {
        self.on_disk.is_some()
    }

    /// Decides something about a model: written first, then known. Where the folder cannot be
    /// written it is known here alone, and [`Book::unkept`] says why: an operator who takes a
    /// version back at night must not be stopped by a full disk.
    ///
    /// # Errors
    /// If `change` fails, another server does not end its change, or the file is damaged; then
    /// nothing has changed.
    pub(super) fn decide<R>(
        &mut self,
        folder: &Path,
        model: &str,
        change: impl FnOnce(&mut Decided) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let lock = Lock::wait(folder, "serving", WAIT);
        let unwritable = match lock {
            Ok(ref _held) => None,
            Err(error @ ams_data::Error::Io { .. }) => Some(error.to_string()),
            Err(error) => return Err(Refusal::State(error.to_string())),
        };
        self.follow(folder)?;
        let (decisions, result) = self.decisions.with(model, change)?;
        let unkept = unwritable.or_else(|| decisions.write(folder).err().map(|e| e.to_string()));
        match &unkept {
            None => self.on_disk = Some(decisions.clone()),
            Some(error) => {
                tracing::error!(
                    model,
                    %error,
                    "the decision counts in this server alone, until it is restarted"
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

    fn pin(version: u64) -> impl FnOnce(&mut Decided) -> Result<(), Refusal> {
        move |decided| {
            decided.pinned = Some(Pinned { version, mark: Mark::of("a test") });
            Ok(())
        }
    }

    fn pinned(book: &Book) -> Option<u64> {
        book.decisions.of("shop").pinned.map(|pinned| pinned.version)
    }

    #[test]
    fn what_one_server_decides_another_follows() {
        let dir = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (Book::default(), Book::default());
        assert!(!one.is_known());
        one.decide(dir.path(), "shop", pin(3)).unwrap();
        assert_eq!((pinned(&one), pinned(&other), &one.unkept), (Some(3), None, &None));
        other.follow(dir.path()).unwrap();
        assert_eq!(pinned(&other), Some(3));
        // What the other decides about another model leaves this one alone.
        let withdraw = |decided: &mut Decided| {
            decided.withdrawn.insert(7, Mark::of("a test"));
            Ok(())
        };
        other.decide(dir.path(), "films", withdraw).unwrap();
        one.decide(dir.path(), "shop", pin(4)).unwrap();
        assert!(one.decisions.of("films").withdrawn.contains_key(&7));
        assert_eq!(Decisions::read(dir.path()).unwrap(), one.decisions);
        // No decision is left of nothing.
        let clear = |decided: &mut Decided| {
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
        let mut book = Book::default();
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
        Book::default().decide(&folder, "shop", pin(2)).unwrap();
        book.follow(&folder).unwrap();
        assert_eq!((pinned(&book), &book.unkept), (Some(2), &None));
    }

    #[test]
    fn files_that_are_damaged_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mark = r#""by": "x", "at": 1"#;
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
                    r#"{{"format": "ams-serving/1", "models": {{"a": {{"canary": {{"version": 1, "percent": 0, {mark}}}}}}}}}"#
                ),
                "models.a.canary.percent is 0, expected 1 to 100",
            ),
            (r#"{"format": "ams-serving/1", "models": {"a": {"withdrawn": {"x": 1}}}}"#, "invalid"),
        ] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = Decisions::read(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("serving.json"), "{text}: {error}");
            let mut book = Book::default();
            assert!(book.decide(dir.path(), "a", pin(1)).is_err());
            assert_eq!(std::fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }
}
