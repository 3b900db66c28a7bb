//! The versions that serve: found on disk, checked, warmed up, and swapped in as a whole.
//!
//! ```text
//! MODELS/<model>/<version>/MANIFEST.json      the last file of a version that `ams publish` writes
//! MODELS/serving.json                         decisions of operators, see `decisions`
//!
//!   found --all files complete--> open, check hashes and golden scores, warm up --> loaded --> live
//!     |       \-- not yet --> arriving, checked again at the next poll
//!     \-- a check fails --> refused, with the reason, until a file changes; the live version stays live
//! ```
//! One immutable [`Snapshot`] holds everything a request needs; a swap replaces it. So no request
//! sees two versions, and none waits for a swap. A fault of one model does not affect another.
//! Knows bundles; no requests, no HTTP.
//!
//! In reading order: `refusal`, errors; [`decisions`]; `look`, the search on disk; `orders`, the
//! orders of operators; `promote`, canaries that get more users; `deltas`; `overview`, what is told
//! of a folder.

pub(crate) mod decisions;
mod deltas;
mod look;
mod offline;
mod orders;
mod overview;
mod promote;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ams_bundle::arrival::{self, Arrival, Stamp};
use ams_bundle::{Memory, Model, Scratch, version_bytes};
use ams_daily::{Day, Days, Decision, Followed};
use arc_swap::ArcSwap;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use self::decisions::{DecisionStore, ModelDecisions};
use self::offline::model_names;
use crate::promotion::{Counted, PromotionStatus, Step};
use crate::telemetry::{Telemetry, VersionMetrics};

pub use self::decisions::{Author, CanaryShare, FILE as DECISIONS};
pub use self::offline::{roll_back, serving_version};
pub use self::overview::{DayOverview, ModelOverview, VersionOverview, VersionState, overview};
pub(crate) use self::refusal::Refusal;

/// A version in memory.
#[derive(Clone, Debug)]
pub(crate) struct LoadedVersion {
    /// With all valid deltas.
    pub model: Model,
    /// Unix seconds of the end of its loading.
    pub since: u64,
    /// Dropped with the version, except for histograms.
    pub metrics: VersionMetrics,
    /// The error of the next delta, if that is refused.
    pub refused_delta: Option<String>,
    /// Bytes of its files, without deltas.
    pub bytes: u64,
    /// Why it may serve, if `ams daily` made it.
    pub decision: Option<Decision>,
    /// Sizes and times of its files before they were read.
    stamp: Stamp,
}

/// A second version, which answers a share of the users.
#[derive(Clone, Debug)]
struct Canary {
    loaded: Arc<LoadedVersion>,
    percent: u8,
}

/// The versions of one model.
#[derive(Clone, Debug, Default)]
struct Versions {
    live: Option<Arc<LoadedVersion>>,
    canary: Option<Canary>,
    /// All versions in memory, including the two above.
    loaded: BTreeMap<u64, Arc<LoadedVersion>>,
    /// Versions that were live before, oldest first.
    before: Vec<u64>,
    /// Decisions of operators, as of the last poll.
    decided: ModelDecisions,
    /// Versions that could not be loaded, with the stamp of their files and the reason.
    refused: BTreeMap<u64, (Stamp, String)>,
    /// Versions whose files are incomplete, with the missing file.
    arriving: BTreeMap<u64, String>,
    /// Versions in memory whose files changed after they were read, with the consequence.
    changed: BTreeMap<u64, String>,
    /// The error of the last search of the model's folder.
    unreadable: Option<String>,
    /// The newest days of the model, if it is made day by day.
    days: Option<Arc<Days>>,
    /// The newest versions of the model by the log that it follows, if it follows one.
    followed: Option<Arc<Followed>>,
    /// Whether the last poll found no folder.
    gone: bool,
}

/// All models at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    models: BTreeMap<String, Versions>,
    /// Whether all models were searched for and one of them served; never reset.
    ready: bool,
}

/// Rules by which versions become live and stay in memory.
#[derive(Clone, Debug)]
pub(crate) struct ServingPolicy {
    /// Whether new versions become live by orders only.
    pub explicit: bool,
    /// Pinned versions by model; they override decisions of operators.
    pub pins: BTreeMap<String, u64>,
    /// Versions of a model that stay in memory beside those that serve, for a rollback.
    pub keep: usize,
    /// Bundles of up to this many bytes are copied into memory, where their bytes cannot change;
    /// larger ones are mapped.
    pub copied_bytes: u64,
}

/// The models of one folder.
#[derive(Debug)]
pub(crate) struct Models {
    folder: PathBuf,
    policy: ServingPolicy,
    snapshot: ArcSwap<Snapshot>,
    /// Locked while a decision is made or read.
    decisions: Mutex<DecisionStore>,
    /// Locked while the snapshot is replaced.
    changes: Mutex<()>,
    /// Steps of promotions, by model.
    steps: Mutex<BTreeMap<String, Step>>,
    /// Locked while a delta is written.
    edits: Mutex<()>,
    /// Locked while the folder is polled.
    looking: Mutex<()>,
    telemetry: Arc<Telemetry>,
}

/// The state of a model for `GET /admin/models`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Status {
    /// The name of its folder.
    pub model: String,
    /// The version that answers, if one is loaded.
    pub live: Option<u64>,
    /// The version that answers a share of the users, and the percentage.
    pub canary: Option<(u64, u8)>,
    /// Versions in memory, ascending.
    pub loaded: Vec<u64>,
    /// The pinned version, if an operator pinned one.
    pub pinned: Option<u64>,
    /// Versions that become live by order only.
    pub withdrawn: Vec<u64>,
    /// Whether the model was unloaded.
    pub unloaded: bool,
    /// Versions whose files are incomplete, with the missing file.
    pub arriving: BTreeMap<u64, String>,
    /// Versions that could not be loaded, with the reason.
    pub refused: BTreeMap<u64, String>,
    /// Versions in memory whose files changed on disk, with the consequence.
    pub changed: BTreeMap<u64, String>,
    /// The error of the last search of the model's folder.
    pub unreadable: Option<String>,
    /// The last delta of each version in memory.
    pub deltas: BTreeMap<u64, u64>,
    /// The error of the delta that follows a version.
    pub refused_deltas: BTreeMap<u64, String>,
    /// Decisions with their authors and times.
    pub decided: ModelDecisions,
    /// How the canary does, if it gets more users by itself.
    pub promotion: Option<PromotionStatus>,
}

/// How often the examples are scored before a version serves.
const WARM_UP: usize = 3;

impl Snapshot {
    /// The version that answers: `version`, or without one the live version, or the canary for its
    /// share of users.
    ///
    /// # Errors
    /// If the model is unknown, or no such version is in memory.
    pub(crate) fn find(
        &self,
        model: &str,
        version: Option<u64>,
        user: Option<&str>,
    ) -> Result<Arc<LoadedVersion>, Refusal> {
        let absent = |what: String| {
            Err(if self.ready { Refusal::Absent(what) } else { Refusal::Unready(what) })
        };
        let Some(versions) = self.models.get(model) else {
            let names: Vec<&str> = self.models.keys().map(|name| &name[..]).collect();
            return absent(format!("no model {model:?}; known models: {}", list(&names)));
        };
        if let Some(version) = version {
            return match versions.loaded.get(&version) {
                Some(loaded) => Ok(Arc::clone(loaded)),
                None => {
                    let known: Vec<String> =
                        versions.loaded.keys().map(|version| version.to_string()).collect();
                    let known: Vec<&str> = known.iter().map(|version| &version[..]).collect();
                    absent(format!(
                        "version {version} of {model} is not loaded; loaded versions: {}",
                        list(&known)
                    ))
                }
            };
        }
        // By user, so that all page views of one user have the same version.
        let share = user.map(|user| (xxh3_64(user.as_bytes()) % 100) as u8);
        match (&versions.canary, &versions.live, share) {
            (Some(canary), _, Some(share)) if share < canary.percent => {
                Ok(Arc::clone(&canary.loaded))
            }
            (_, Some(live), _) => Ok(Arc::clone(live)),
            _ => absent(format!("no version of {model} is live")),
        }
    }

    /// Names of models, each with its live version.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&str, Option<&Arc<LoadedVersion>>)> {
        self.models.iter().map(|(name, versions)| (&name[..], versions.live.as_ref()))
    }

    /// All versions in memory, each with the name of its model.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = (&str, &Arc<LoadedVersion>)> {
        self.models.iter().flat_map(|(name, versions)| {
            versions.loaded.values().map(move |loaded| (&name[..], loaded))
        })
    }

    /// The newest days of a model that is made day by day, as of the last poll.
    pub(crate) fn days(&self, model: &str) -> Option<&Arc<Days>> {
        self.models.get(model)?.days.as_ref()
    }

    /// What is told of the log that a model follows, as of the last poll.
    pub(crate) fn followed(&self, model: &str) -> Option<&Arc<Followed>> {
        self.models.get(model)?.followed.as_ref()
    }

    /// Who took a version back and when, if somebody did.
    pub(crate) fn withdrawn(&self, model: &str, version: u64) -> Option<&Author> {
        self.models.get(model)?.decided.withdrawn.get(&version)
    }

    /// The newest day of a model with data: of those that were done, and of its versions in memory.
    pub(crate) fn newest_day(&self, model: &str) -> Option<Day> {
        let versions = self.models.get(model)?;
        let of_versions = versions.loaded.values().filter_map(|loaded| loaded.decision.as_ref());
        let of_versions = of_versions.map(|decision| decision.day).max();
        of_versions.max(versions.days.as_ref().and_then(|days| days.newest()))
    }

    /// The state of every model, in order of their names.
    pub(crate) fn status(&self) -> Vec<Status> {
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
            promotion: None,
        };
        self.models.iter().map(status).collect()
    }
}

/// A model with all of its valid deltas, and the error of the next delta, if that is invalid.
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
    /// The models of `folder`, none of which is loaded yet.
    pub(crate) fn new(folder: PathBuf, policy: ServingPolicy, telemetry: Arc<Telemetry>) -> Models {
        Models {
            folder,
            policy,
            snapshot: ArcSwap::default(),
            decisions: Mutex::default(),
            changes: Mutex::default(),
            steps: Mutex::default(),
            edits: Mutex::default(),
            looking: Mutex::default(),
            telemetry,
        }
    }

    /// Whether all models were searched for and one of them serves. It stays true when models are
    /// removed later; for one model, see [`Snapshot::find`].
    pub(crate) fn ready(&self) -> bool {
        self.now().ready
    }

    /// The present snapshot of all models.
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The error that keeps decisions from the folder, if there is one.
    pub(crate) fn unkept(&self) -> Option<String> {
        self.decisions().unkept.clone()
    }

    /// A panic leaves decisions complete, so poison is ignored.
    fn decisions(&self) -> MutexGuard<'_, DecisionStore> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a version from memory, or opens, checks and warms it up.
    fn load(&self, name: &str, version: u64) -> Result<Arc<LoadedVersion>, Refusal> {
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
                let error = format!("version {version} of {name} is incomplete: {what}");
                self.note(name, |versions| {
                    versions.refused.remove(&version);
                    versions.arriving.insert(version, what);
                });
                return Err(Refusal::State(error));
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
                let decision = self.decision(name, &model);
                Ok(Arc::new(LoadedVersion {
                    model,
                    since,
                    metrics,
                    refused_delta,
                    bytes,
                    decision,
                    stamp,
                }))
            }
            Err(error) => self.refuse(name, version, stamp, error),
        }
    }

    /// Why a version may serve. One that this build cannot read says nothing against it.
    fn decision(&self, name: &str, model: &Model) -> Option<Decision> {
        let read = Decision::read(model.decision()?);
        if let Err(error) = &read {
            let version = model.version();
            tracing::warn!(model = name, version, %error, "its decision.json cannot be read");
        }
        read.ok()
    }

    /// Records that a version is refused.
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

    /// Opens a version with all checks, and scores its examples, which reads its pages before the
    /// first request.
    fn open(&self, folder: &Path) -> ams_bundle::Result<(Model, Option<String>)> {
        let fits = version_bytes(folder)? <= self.policy.copied_bytes;
        let memory = if fits { Memory::Copied } else { Memory::Mapped };
        let (model, refused) = followed(Model::open_bundle_in(folder, memory)?);
        let mut scratch = Scratch::default();
        for page in (0..WARM_UP).flat_map(|_| model.samples()) {
            model.score_with(page, &mut scratch)?;
        }
        Ok((model, refused))
    }

    /// Replaces the snapshot by a copy to which `change` was applied.
    fn replace<R>(&self, change: impl FnOnce(&mut BTreeMap<String, Versions>) -> R) -> R {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshot = Snapshot::clone(&self.now());
        let result = change(&mut snapshot.models);
        self.snapshot.store(Arc::new(snapshot));
        result
    }

    /// Marks the snapshot as ready.
    fn become_ready(&self) {
        let _one_at_a_time = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.snapshot.store(Arc::new(Snapshot { ready: true, ..Snapshot::clone(&self.now()) }));
    }

    /// As [`Models::replace`], for one model on disk; versions that are not needed leave memory.
    fn note(&self, name: &str, change: impl FnOnce(&mut Versions)) {
        self.replace(|models| {
            let versions = models.entry(name.to_owned()).or_default();
            change(versions);
            let serving: Vec<Arc<LoadedVersion>> = (versions.live.iter())
                .chain(versions.canary.iter().map(|canary| &canary.loaded))
                .map(Arc::clone)
                .collect();
            let kept: BTreeSet<u64> =
                versions.before.iter().rev().take(self.policy.keep).copied().collect();
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

    /// Makes a loaded version live; decisions are not changed.
    fn set_live(&self, name: &str, loaded: Arc<LoadedVersion>) {
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

    /// That a model is on disk. Names come from paths of requests: only listed names are opened,
    /// and others leave no trace.
    fn require(&self, name: &str) -> Result<(), Refusal> {
        let names = self.names()?;
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let names: Vec<&str> = names.iter().map(|name| &name[..]).collect();
        Err(Refusal::Absent(format!("no model {name:?}; known models: {}", list(&names))))
    }

    /// The state of every model, in order of their names.
    pub(crate) fn status(&self) -> Vec<Status> {
        let mut all = self.now().status();
        for status in &mut all {
            status.promotion = self.promotion(&status.model);
        }
        all
    }

    /// Whether there is such a model, as far as the last look at the folder says.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.now().models.contains_key(name)
    }

    /// Counts outcomes of impressions by the versions that answered. Returns how many are of
    /// versions that are not in memory, which count for nothing.
    ///
    /// # Errors
    /// If there is no such model.
    pub(crate) fn count_outcomes(
        &self,
        name: &str,
        outcomes: impl IntoIterator<Item = (u64, Counted)>,
    ) -> Result<u64, Refusal> {
        let now = self.now();
        let known = now.models.get(name);
        if known.is_none() {
            now.find(name, None, None)?;
        }
        let mut left_out = 0;
        for (version, counted) in outcomes {
            let Some(loaded) = known.and_then(|known| known.loaded.get(&version)) else {
                left_out += counted.impressions;
                continue;
            };
            let counts = &loaded.metrics.counts;
            counts.outcomes.increment(counted.impressions);
            counts.clicks.increment(counted.clicks);
            counts.predicted.increment(counted.predicted);
        }
        self.judge(name);
        Ok(left_out)
    }

    /// What can be told of the folder by its files.
    ///
    /// # Errors
    /// If the folder, or what was decided, cannot be read.
    pub(crate) fn overview(&self) -> ams_bundle::Result<Vec<ModelOverview>> {
        overview(&self.folder)
    }

    /// The names of the models on disk, ascending.
    fn names(&self) -> Result<Vec<String>, Refusal> {
        Ok(model_names(&self.folder)?)
    }
}
