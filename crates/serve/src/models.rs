//! Which versions of which models serve: found on disk, checked, warmed up, and swapped in whole.
//!
//! ```text
//! MODELS/<model>/<version>/MANIFEST.json      what `ams publish` makes appear at once
//!
//!   found --open, check hashes and golden scores, warm up--> loaded --activate--> live
//!     \-- anything wrong --> refused, with the reason; what was live stays live
//! ```
//! Everything a request needs is in one [`Snapshot`] that never changes; a swap puts another in its place. So no request
//! sees two versions, and none waits for a swap. Knows bundles; no requests, no HTTP.

mod deltas;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ams_bundle::folder::MANIFEST;
use ams_bundle::{Model, Scratch, files};
use arc_swap::ArcSwap;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::telemetry::{Telemetry, VersionMetrics};

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
    /// Versions that were taken back, and are not made live by themselves again.
    withdrawn: BTreeSet<u64>,
    /// Versions that could not be loaded, with the manifest's time and the reason.
    refused: BTreeMap<u64, (Option<SystemTime>, String)>,
}

/// All models at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(BTreeMap<String, Versions>);

/// What is asked for and not there.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No model or version of that name.
    #[error("{0}")]
    Absent(String),
    /// Not in this state of the model.
    #[error("{0}")]
    State(String),
    /// The bundle is not good.
    #[error(transparent)]
    Bundle(#[from] ams_bundle::Error),
}

/// The models of one folder.
#[derive(Debug)]
pub struct Models {
    folder: PathBuf,
    /// How many versions of a model stay in memory beside those that serve, to go back to.
    keep: usize,
    snapshot: ArcSwap<Snapshot>,
    /// Held while the snapshot is replaced: changes come one after the other.
    changes: Mutex<()>,
    /// Held while a delta is made.
    edits: Mutex<()>,
    /// Whether all models were looked through once.
    looked: AtomicBool,
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
    /// Versions that were taken back.
    pub withdrawn: Vec<u64>,
    /// Versions that could not be loaded, and why.
    pub refused: BTreeMap<u64, String>,
    /// The last delta of each version in memory.
    pub deltas: BTreeMap<u64, u64>,
    /// What is wrong with the delta that follows a version.
    pub refused_deltas: BTreeMap<u64, String>,
}

/// Times the examples are scored before a version serves.
const WARM_UP: usize = 3;

impl Snapshot {
    /// The version that answers: `version`, or for none the live one, or the canary for its share of users.
    ///
    /// # Errors
    /// If there is none.
    pub fn find(
        &self,
        model: &str,
        version: Option<u64>,
        user: Option<&str>,
    ) -> Result<Arc<Loaded>, Refusal> {
        let absent = |what: String| Err(Refusal::Absent(what));
        let Some(versions) = self.0.get(model) else {
            let names: Vec<&str> = self.0.keys().map(|name| &name[..]).collect();
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
        self.0.iter().map(|(name, versions)| (&name[..], versions.live.as_ref()))
    }

    /// Whether every model has a version that serves, and there is one.
    pub fn ready(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|versions| versions.live.is_some())
    }

    /// The state of every model.
    pub fn status(&self) -> Vec<Status> {
        let status = |(name, versions): (&String, &Versions)| Status {
            model: name.clone(),
            live: versions.live.as_ref().map(|live| live.model.version()),
            canary: (versions.canary.as_ref()).map(|c| (c.loaded.model.version(), c.percent)),
            loaded: versions.loaded.keys().copied().collect(),
            withdrawn: versions.withdrawn.iter().copied().collect(),
            refused: (versions.refused.iter())
                .map(|(version, (_, why))| (*version, why.clone()))
                .collect(),
            deltas: (versions.loaded.iter())
                .map(|(version, loaded)| (*version, loaded.model.deltas()))
                .collect(),
            refused_deltas: (versions.loaded.iter())
                .filter_map(|(version, loaded)| Some((*version, loaded.refused_delta.clone()?)))
                .collect(),
        };
        self.0.iter().map(status).collect()
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Models {
    /// The models of `folder`, of which none is loaded yet.
    pub fn new(folder: PathBuf, keep: usize, telemetry: Arc<Telemetry>) -> Models {
        let snapshot = ArcSwap::default();
        Models {
            folder,
            keep,
            snapshot,
            changes: Mutex::default(),
            edits: Mutex::default(),
            looked: AtomicBool::new(false),
            telemetry,
        }
    }

    /// Whether every model on disk has a version that serves, as far as is known; until the first look is over, it is not.
    pub fn ready(&self) -> bool {
        self.looked.load(Ordering::Acquire) && self.now().ready()
    }

    /// All models now.
    pub fn now(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Looks for models and versions on disk, and makes the highest of each live if it is good. What was refused is
    /// tried again when its manifest changes.
    ///
    /// # Errors
    /// If the folder cannot be listed; what is wrong with a version is in [`Snapshot::status`].
    pub fn poll(&self) -> Result<(), Refusal> {
        for name in self.names()? {
            let versions = files::whole_versions(&self.folder.join(&name))?;
            let now = self.now();
            let known = now.0.get(&name);
            let live = known.and_then(|known| known.live.as_ref());
            let live = live.map_or(0, |live| live.model.version());
            // From the highest down: a corrupt one leaves the next best.
            for version in versions.into_iter().rev().take_while(|&version| version > live) {
                let taken_back = known.is_some_and(|known| known.withdrawn.contains(&version));
                let refused = known.and_then(|known| known.refused.get(&version));
                let seen = self.manifest_time(&name, version);
                let same = refused.is_some_and(|(time, _)| *time == seen);
                if !taken_back && !same && self.activate(&name, version).is_ok() {
                    break;
                }
            }
        }
        self.looked.store(true, Ordering::Release);
        self.follow()
    }

    /// Makes a version live, which is loaded first unless it is.
    ///
    /// # Errors
    /// If it is not there or not good; then what was live stays live.
    pub fn activate(&self, name: &str, version: u64) -> Result<(), Refusal> {
        let loaded = self.load(name, version)?;
        self.change(name, |versions| {
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
            versions.withdrawn.remove(&version);
            Ok(())
        })?;
        tracing::info!(model = name, version, "live");
        Ok(())
    }

    /// Takes the live version back: the one before it is live again, and this one is not made live by itself.
    ///
    /// # Errors
    /// If there was none before, or it is not good any more.
    pub fn roll_back(&self, name: &str) -> Result<u64, Refusal> {
        let now = self.now();
        let versions =
            now.0.get(name).ok_or_else(|| Refusal::Absent(format!("no model {name:?}")))?;
        let Some(&before) = versions.before.last() else {
            return Err(Refusal::State(format!("no version of {name} was live before")));
        };
        let loaded = self.load(name, before)?;
        self.change(name, |versions| {
            let live = versions.live.replace(Arc::clone(&loaded));
            versions.before.retain(|&other| other != before);
            versions.withdrawn.extend(live.map(|live| live.model.version()));
            Ok(())
        })?;
        tracing::warn!(model = name, version = before, "rolled back");
        Ok(before)
    }

    /// Gives `percent` of the users version `version`, or ends that with 0.
    ///
    /// # Errors
    /// If it is not there or not good.
    pub fn canary(&self, name: &str, version: u64, percent: u8) -> Result<(), Refusal> {
        if percent > 100 {
            return Err(Refusal::State(format!("percent is {percent}, expected 0 to 100")));
        }
        if percent == 0 {
            return self.change(name, |versions| {
                versions.canary = None;
                Ok(())
            });
        }
        let loaded = self.load(name, version)?;
        self.change(name, |versions| {
            versions.canary = Some(Canary { loaded, percent });
            // Until somebody makes it live.
            versions.withdrawn.insert(version);
            Ok(())
        })?;
        tracing::info!(model = name, version, percent, "canary");
        Ok(())
    }

    /// A version, from memory or opened, checked and warmed up.
    fn load(&self, name: &str, version: u64) -> Result<Arc<Loaded>, Refusal> {
        let now = self.now();
        if let Some(loaded) = now.0.get(name).and_then(|known| known.loaded.get(&version)) {
            return Ok(Arc::clone(loaded));
        }
        // A name comes from a path of a request: only what is listed is opened.
        if !self.names()?.iter().any(|known| known == name) {
            return Err(Refusal::Absent(format!("no model {name:?}")));
        }
        let folder = self.folder.join(name).join(version.to_string());
        if !folder.join(MANIFEST).is_file() {
            return Err(Refusal::Absent(format!("no version {version} of {name}")));
        }
        let seen = self.manifest_time(name, version);
        match open(&folder) {
            Ok((model, refused_delta)) => {
                if let Some(error) = &refused_delta {
                    self.say_refused_delta(name, version, error);
                }
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let since = since.map_or(0, |since| since.as_secs());
                let metrics = self.telemetry.version(name, version);
                Ok(Arc::new(Loaded { model, since, metrics, refused_delta }))
            }
            Err(error) => {
                tracing::error!(model = name, version, %error, "refused");
                self.telemetry.refused(name);
                let reason = error.to_string();
                self.change(name, |versions| {
                    versions.refused.insert(version, (seen, reason));
                    Ok(())
                })?;
                Err(error.into())
            }
        }
    }

    /// Replaces the snapshot by one in which `change` was done to a model.
    fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut Versions) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&self.now());
        let versions = snapshot.0.entry(name.to_owned()).or_default();
        change(versions)?;
        let serving: Vec<Arc<Loaded>> = (versions.live.iter())
            .chain(versions.canary.iter().map(|canary| &canary.loaded))
            .map(Arc::clone)
            .collect();
        let versions_kept: BTreeSet<u64> =
            versions.before.iter().rev().take(self.keep).copied().collect();
        versions.loaded.retain(|version, _| versions_kept.contains(version));
        for loaded in serving {
            versions.refused.remove(&loaded.model.version());
            versions.loaded.insert(loaded.model.version(), loaded);
        }
        if let Some(live) = &versions.live {
            self.telemetry.live(name, live.model.version(), live.since, live.model.deltas());
        }
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
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

    fn manifest_time(&self, name: &str, version: u64) -> Option<SystemTime> {
        let path = self.folder.join(name).join(version.to_string()).join(MANIFEST);
        std::fs::metadata(path).and_then(|file| file.modified()).ok()
    }
}

/// Opens a version, which checks everything, and scores its examples, so that the first request finds its memory read.
fn open(folder: &Path) -> ams_bundle::Result<(Model, Option<String>)> {
    let (model, refused) = deltas::followed(Model::open_bundle(folder)?);
    let mut scratch = Scratch::default();
    for page in (0..WARM_UP).flat_map(|_| model.samples()) {
        model.score_with(page, &mut scratch)?;
    }
    Ok((model, refused))
}
