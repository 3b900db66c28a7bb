//! Which versions of which models serve: found on disk, checked, warmed up, and swapped in whole.
//!
//! ```text
//! MODELS/<model>/<version>/MANIFEST.json      what `ams publish` makes appear at once
//! MODELS/serving.json                         what operators decided, see `decisions`
//!
//!   found --all files there?--> open, check hashes and golden scores, warm up --> loaded --> live
//!     |       \-- not yet --> arriving, looked at again
//!     \-- anything wrong --> refused, with the reason, until a file changes; what was live stays live
//! ```
//! Everything a request needs is in one [`Snapshot`] that never changes; a swap puts another in its
//! place. So no request sees two versions, and none waits for a swap. What is wrong with one model
//! changes nothing for another. Knows bundles; no requests, no HTTP.
//!
//! In reading order: `refusal`, errors; [`decisions`]; `look`, what is found on disk; `orders`,
//! what operators say; `deltas`.

pub mod decisions;
mod deltas;
mod look;
mod orders;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ams_bundle::arrival::{self, Arrival, Stamp};
use ams_bundle::{Memory, Model, Scratch, files};
use arc_swap::ArcSwap;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use self::decisions::{Book, Decided};
use crate::telemetry::{Telemetry, VersionMetrics};

pub use self::refusal::Refusal;

/// A version in memory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The scorer.
    pub model: Model,
    /// When it was ready, in unix seconds.
    pub since: u64,
    /// What is counted of it.
    pub metrics: VersionMetrics,
    /// What is wrong with the delta that follows it, if something is.
    pub refused_delta: Option<String>,
    /// Bytes of its files, without deltas.
    pub bytes: u64,
    /// Its files as they were when they were read.
    stamp: Stamp,
}

/// A second version that gets a share of the users.
#[derive(Clone, Debug)]
struct Canary {
    loaded: Arc<Loaded>,
    percent: u8,
}

/// The versions of one model.
#[derive(Clone, Debug, Default)]
struct Versions {
    live: Option<Arc<Loaded>>,
    canary: Option<Canary>,
    /// All in memory, with the two above.
    loaded: BTreeMap<u64, Arc<Loaded>>,
    /// What was live before, oldest first.
    before: Vec<u64>,
    /// What was decided, as of the last look.
    decided: Decided,
    /// Versions that could not be loaded, with their files as they were and the reason.
    refused: BTreeMap<u64, (Stamp, String)>,
    /// Versions of which some files are not there yet, and which.
    arriving: BTreeMap<u64, String>,
    /// Versions in memory whose files are not any more what was read, and how that matters.
    changed: BTreeMap<u64, String>,
    /// Why the model's folder cannot be looked through.
    unreadable: Option<String>,
    /// Whether the last look found no folder.
    gone: bool,
}

/// All models at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    models: BTreeMap<String, Versions>,
    /// Whether all models were looked through and one of them served: it stays so.
    ready: bool,
}

/// How versions are chosen, and where they are kept.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Whether new versions become live only when somebody says so.
    pub explicit: bool,
    /// Versions that serve whatever else is decided, by model.
    pub pins: BTreeMap<String, u64>,
    /// How many versions of a model stay in memory beside those that serve, to go back to.
    pub keep: usize,
    /// Bundles of up to so many bytes are copied into memory, where nobody can change them; larger
    /// ones are mapped.
    pub copied_bytes: u64,
}

/// The models of one folder.
#[derive(Debug)]
pub struct Models {
    folder: PathBuf,
    choice: Choice,
    snapshot: ArcSwap<Snapshot>,
    /// What is decided. Held while something is decided or followed.
    book: Mutex<Book>,
    /// Held while the snapshot is replaced: changes come one after the other.
    changes: Mutex<()>,
    /// Held while a delta is made.
    edits: Mutex<()>,
    /// Held while models are looked for.
    looking: Mutex<()>,
    /// Whether all models were looked through once, and one of them serves.
    telemetry: Arc<Telemetry>,
}

/// The state of a model, as the admin port says it.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The model.
    pub model: String,
    /// The version that serves.
    pub live: Option<u64>,
    /// The version that a share of the users gets, and the percentage.
    pub canary: Option<(u64, u8)>,
    /// Versions in memory.
    pub loaded: Vec<u64>,
    /// The version that serves whatever comes.
    pub pinned: Option<u64>,
    /// Versions that were taken back.
    pub withdrawn: Vec<u64>,
    /// Whether the model was unloaded.
    pub unloaded: bool,
    /// Versions of which some files are not there yet, and which.
    pub arriving: BTreeMap<u64, String>,
    /// Versions that could not be loaded, and why.
    pub refused: BTreeMap<u64, String>,
    /// Versions in memory whose files were changed on disk, and how that matters.
    pub changed: BTreeMap<u64, String>,
    /// Why the model's folder cannot be looked through.
    pub unreadable: Option<String>,
    /// The last delta of each version in memory.
    pub deltas: BTreeMap<u64, u64>,
    /// What is wrong with the delta that follows a version.
    pub refused_deltas: BTreeMap<u64, String>,
    /// Who decided what, and when.
    pub decided: Decided,
}

/// Times the examples are scored before a version serves.
const WARM_UP: usize = 3;

impl Snapshot {
    /// The version that answers: `version`, or for none the live one, or the canary for its share
    /// of users.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(
        &self,
        model: &str,
        version: Option<u64>,
        user: Option<&str>,
    ) -> Result<Arc<Loaded>, Refusal> {
        let absent = |what: String| match self.ready {
            true => Err(Refusal::Absent(what)),
            false => Err(Refusal::Unready(what)),
        };
        let Some(versions) = self.models.get(model) else {
            let names: Vec<&str> = self.models.keys().map(|name| &name[..]).collect();
            return absent(format!("no model {model:?}; there is {}", list(&names)));
        };
        if let Some(version) = version {
            return match versions.loaded.get(&version) {
                Some(loaded) => Ok(Arc::clone(loaded)),
                None => {
                    let known: Vec<String> =
                        versions.loaded.keys().map(|version| version.to_string()).collect();
                    let known: Vec<&str> = known.iter().map(|version| &version[..]).collect();
                    absent(format!(
                        "version {version} of {model} is not loaded; there is {}",
                        list(&known)
                    ))
                }
            };
        }
        // By user, so that each sees one of the two, page after page.
        let share = user.map(|user| (xxh3_64(user.as_bytes()) % 100) as u8);
        match (&versions.canary, &versions.live, share) {
            (Some(canary), _, Some(share)) if share < canary.percent => {
                Ok(Arc::clone(&canary.loaded))
            }
            (_, Some(live), _) => Ok(Arc::clone(live)),
            _ => absent(format!("no version of {model} is live")),
        }
    }

    /// Names and live versions.
    pub fn live(&self) -> impl Iterator<Item = (&str, Option<&Arc<Loaded>>)> {
        self.models.iter().map(|(name, versions)| (&name[..], versions.live.as_ref()))
    }

    /// Names of models, and each of their versions in memory.
    pub fn in_memory(&self) -> impl Iterator<Item = (&str, &Arc<Loaded>)> {
        self.models.iter().flat_map(|(name, versions)| {
            versions.loaded.values().map(move |loaded| (&name[..], loaded))
        })
    }

    /// The state of every model.
    pub fn status(&self) -> Vec<Status> {
        let status = |(name, versions): (&String, &Versions)| Status {
            model: name.clone(),
            live: versions.live.as_ref().map(|live| live.model.version()),
            canary: (versions.canary.as_ref()).map(|c| (c.loaded.model.version(), c.percent)),
            loaded: versions.loaded.keys().copied().collect(),
            pinned: versions.decided.pinned.as_ref().map(|pinned| pinned.version),
            withdrawn: versions.decided.withdrawn.keys().copied().collect(),
            unloaded: versions.decided.unloaded.is_some(),
            arriving: versions.arriving.clone(),
            refused: (versions.refused.iter())
                .map(|(version, (_, why))| (*version, why.clone()))
                .collect(),
            changed: versions.changed.clone(),
            unreadable: versions.unreadable.clone(),
            deltas: (versions.loaded.iter())
                .map(|(version, loaded)| (*version, loaded.model.deltas()))
                .collect(),
            refused_deltas: (versions.loaded.iter())
                .filter_map(|(version, loaded)| Some((*version, loaded.refused_delta.clone()?)))
                .collect(),
            decided: versions.decided.clone(),
        };
        self.models.iter().map(status).collect()
    }
}

/// A model with all of its deltas that are good, and what is wrong with the one after them.
fn followed(mut model: Model) -> (Model, Option<String>) {
    loop {
        match model.next() {
            Ok(Some(next)) => model = next,
            Ok(None) => return (model, None),
            Err(error) => return (model, Some(error.to_string())),
        }
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Models {
    /// The models of `folder`, of which none is loaded yet.
    pub fn new(folder: PathBuf, choice: Choice, telemetry: Arc<Telemetry>) -> Models {
        Models {
            folder,
            choice,
            snapshot: ArcSwap::default(),
            book: Mutex::default(),
            changes: Mutex::default(),
            edits: Mutex::default(),
            looking: Mutex::default(),
            telemetry,
        }
    }

    /// Whether page views may come: all models were looked through, and one of them serves. It
    /// stays so whatever becomes of models later; of one model, [`Snapshot::find`] tells.
    pub fn ready(&self) -> bool {
        self.now().ready
    }

    /// All models now.
    pub fn now(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Why decisions are not kept in the folder, if they are not.
    pub fn unkept(&self) -> Option<String> {
        self.book().unkept.clone()
    }

    /// Decisions are whole whatever panicked.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version, from memory or opened, checked and warmed up.
    fn load(&self, name: &str, version: u64) -> Result<Arc<Loaded>, Refusal> {
        let now = self.now();
        if let Some(loaded) = now.models.get(name).and_then(|known| known.loaded.get(&version)) {
            return Ok(Arc::clone(loaded));
        }
        self.require(name)?;
        let folder = self.folder.join(name).join(version.to_string());
        let (arrival, stamp) = match arrival::look(&folder) {
            Ok(found) => found,
            Err(error) => return self.refuse(name, version, Stamp::default(), error),
        };
        match arrival {
            Arrival::Absent => {
                return Err(Refusal::Absent(format!("no version {version} of {name}")));
            }
            Arrival::Arriving(what) => {
                if now.models.get(name).and_then(|known| known.arriving.get(&version))
                    != Some(&what)
                {
                    tracing::info!(model = name, version, %what, "arriving");
                }
                let said = format!("version {version} of {name} is arriving: {what}");
                self.note(name, |versions| {
                    versions.refused.remove(&version);
                    versions.arriving.insert(version, what);
                });
                return Err(Refusal::State(said));
            }
            Arrival::Whole => {}
        }
        match self.open(&folder) {
            Ok((model, refused_delta)) => {
                if let Some(error) = &refused_delta {
                    self.say_refused_delta(name, version, error);
                }
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let since = since.map_or(0, |since| since.as_secs());
                let metrics = self.telemetry.version(name);
                let bytes = stamp.bytes();
                Ok(Arc::new(Loaded { model, since, metrics, refused_delta, bytes, stamp }))
            }
            Err(error) => self.refuse(name, version, stamp, error),
        }
    }

    /// Remembers that a version is not good.
    fn refuse<T>(
        &self,
        name: &str,
        version: u64,
        stamp: Stamp,
        error: ams_bundle::Error,
    ) -> Result<T, Refusal> {
        let reason = error.to_string();
        let known = self.now();
        let before = known.models.get(name).and_then(|known| known.refused.get(&version));
        if before.is_none_or(|(_, before)| *before != reason) {
            tracing::error!(model = name, version, %error, "refused");
        }
        self.telemetry.refused(name);
        self.note(name, |versions| {
            versions.arriving.remove(&version);
            versions.refused.insert(version, (stamp, reason));
        });
        Err(error.into())
    }

    /// Opens a version, which checks everything, and scores its examples, so that the first request
    /// finds its memory read.
    fn open(&self, folder: &Path) -> ams_bundle::Result<(Model, Option<String>)> {
        let memory = match files::bytes(folder)? <= self.choice.copied_bytes {
            true => Memory::Copied,
            false => Memory::Mapped,
        };
        let (model, refused) = followed(Model::open_bundle_in(folder, memory)?);
        let mut scratch = Scratch::default();
        for page in (0..WARM_UP).flat_map(|_| model.samples()) {
            model.score_with(page, &mut scratch)?;
        }
        Ok((model, refused))
    }

    /// Replaces the snapshot by one in which `change` was done to all models.
    fn replace<R>(&self, change: impl FnOnce(&mut BTreeMap<String, Versions>) -> R) -> R {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&self.now());
        let result = change(&mut snapshot.models);
        self.snapshot.store(Arc::new(snapshot));
        result
    }

    /// Page views may come from here on.
    fn become_ready(&self) {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.snapshot.store(Arc::new(Snapshot { ready: true, ..Snapshot::clone(&self.now()) }));
    }

    /// The same of one model, which is on disk; what nothing needs any more leaves memory.
    fn note(&self, name: &str, change: impl FnOnce(&mut Versions)) {
        self.replace(|models| {
            let versions = models.entry(name.to_owned()).or_default();
            change(versions);
            let serving: Vec<Arc<Loaded>> = (versions.live.iter())
                .chain(versions.canary.iter().map(|canary| &canary.loaded))
                .map(Arc::clone)
                .collect();
            let kept: BTreeSet<u64> =
                versions.before.iter().rev().take(self.choice.keep).copied().collect();
            versions.loaded.retain(|version, _| kept.contains(version));
            for loaded in serving {
                let version = loaded.model.version();
                versions.refused.remove(&version);
                versions.arriving.remove(&version);
                versions.loaded.insert(version, loaded);
            }
            versions.changed.retain(|version, _| versions.loaded.contains_key(version));
        });
    }

    /// Makes a version live in memory.
    fn set_live(&self, name: &str, loaded: Arc<Loaded>) {
        let version = loaded.model.version();
        self.note(name, |versions| {
            if let Some(live) = versions.live.replace(loaded) {
                let before = live.model.version();
                versions.before.retain(|&other| other != before && other != version);
                if before != version {
                    versions.before.push(before);
                }
            }
            if versions.canary.as_ref().is_some_and(|c| c.loaded.model.version() == version) {
                versions.canary = None;
            }
        });
        tracing::info!(model = name, version, "live");
    }

    /// Whether a model is on disk. A name comes from a path of a request: only what is listed is
    /// opened, and nothing is remembered of what is not.
    fn require(&self, name: &str) -> Result<(), Refusal> {
        let names = self.names()?;
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let names: Vec<&str> = names.iter().map(|name| &name[..]).collect();
        Err(Refusal::Absent(format!("no model {name:?}; there is {}", list(&names))))
    }

    /// The models on disk.
    fn names(&self) -> Result<Vec<String>, Refusal> {
        let listed =
            std::fs::read_dir(&self.folder).map_err(ams_bundle::Error::io(&self.folder))?;
        let mut names: Vec<String> = listed
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort_unstable();
        Ok(names)
    }
}
