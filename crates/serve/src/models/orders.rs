//! What operators say: which version serves, which one no more, and who gets a new one first. Every
//! decision is written before it counts, so that it outlives this process and all servers of the
//! folder follow it.

use std::sync::Arc;

use ams_bundle::whole_versions;

use super::decisions::{Author, CanaryShare, ModelDecisions, highest};
use super::{Canary, Models, Refusal};
use crate::promotion::Promotion;

impl Models {
    /// Makes a version live, which is loaded first unless it is. The highest good one leaves the
    /// way free for higher ones; any other is pinned.
    ///
    /// # Errors
    /// If it is not there or not good; then what was live stays live.
    pub(crate) fn activate(&self, name: &str, version: u64, by: &str) -> Result<(), Refusal> {
        self.make_live(name, version, by, None)
    }

    /// As [`Models::activate`], if the canary is still `expected`, where one is.
    ///
    /// # Errors
    /// As [`Models::activate`], or if something else was decided about the canary.
    pub(super) fn make_live(
        &self,
        name: &str,
        version: u64,
        by: &str,
        expected: Option<&CanaryShare>,
    ) -> Result<(), Refusal> {
        self.require(name)?;
        self.require_free(name, Some(version))?;
        self.retry(name, version);
        let loaded = self.load(name, version)?;
        let found = whole_versions(&self.folder.join(name))?;
        let refused = self.refused(name);
        let explicit = self.policy.explicit;
        let decided = self.decide(name, |decided| {
            require_canary(decided, expected)?;
            decided.unloaded = None;
            decided.withdrawn.remove(&version);
            if decided.canary.as_ref().is_some_and(|canary| canary.version == version) {
                decided.canary = None;
            }
            decided.serve(version, highest(&found, decided, &refused), explicit, by);
            Ok(decided.clone())
        })?;
        self.note(name, |versions| versions.decided = decided);
        self.set_live(name, loaded);
        Ok(())
    }

    /// Takes the live version back: the one that was live before is live again, or the next lower
    /// good one on disk, and this one is not made live by itself. Returns which.
    ///
    /// # Errors
    /// If there is no other that is good.
    pub(crate) fn roll_back(&self, name: &str, by: &str) -> Result<u64, Refusal> {
        self.require_free(name, None)?;
        let now = self.now();
        let Some(known) = now.models.get(name) else {
            self.require(name)?;
            return Err(Refusal::State(format!("no version of {name} is live")));
        };
        let Some(live) = known.live.as_ref().map(|live| live.model.version()) else {
            return Err(Refusal::State(format!("no version of {name} is live")));
        };
        let found = whole_versions(&self.folder.join(name)).unwrap_or_default();
        let lower = found.iter().rev().copied().filter(|&version| version < live);
        let candidates = known.before.iter().rev().copied().chain(lower);
        let candidates = candidates.filter(|it| !known.decided.withdrawn.contains_key(it));
        let loaded = candidates.into_iter().find_map(|version| self.load(name, version).ok());
        let Some(loaded) = loaded else {
            let what =
                format!("{name} has no other valid version than {live} that was not withdrawn");
            return Err(Refusal::State(what));
        };
        let before = loaded.model.version();
        let refused = self.refused(name);
        let explicit = self.policy.explicit;
        let decided = self.decide(name, |decided| {
            decided.withdrawn.insert(live, Author::of(by));
            decided.withdrawn.remove(&before);
            if decided.canary.as_ref().is_some_and(|canary| canary.version == before) {
                decided.canary = None;
            }
            decided.serve(before, highest(&found, decided, &refused), explicit, by);
            Ok(decided.clone())
        })?;
        self.set_live(name, Arc::clone(&loaded));
        self.note(name, |versions| {
            versions.decided = decided;
            versions.before.retain(|&other| other != live);
        });
        tracing::warn!(model = name, version = before, by, "rolled back");
        Ok(before)
    }

    /// Gives `percent` of the users version `version`, or ends that with 0; it does not become live
    /// by itself then.
    ///
    /// # Errors
    /// If it is not there, not good, or live already.
    pub(crate) fn canary(
        &self,
        name: &str,
        version: u64,
        percent: u8,
        by: &str,
    ) -> Result<(), Refusal> {
        self.share(name, version, percent, None, by)
    }

    /// As [`Models::canary`]; with rules, it gets more users by itself.
    ///
    /// # Errors
    /// As [`Models::canary`].
    pub(super) fn share(
        &self,
        name: &str,
        version: u64,
        percent: u8,
        promotion: Option<Promotion>,
        by: &str,
    ) -> Result<(), Refusal> {
        if percent > 100 {
            return Err(Refusal::State(format!("percent is {percent}, expected 0 to 100")));
        }
        self.require(name)?;
        let canary = match percent {
            0 => None,
            _ => {
                let now = self.now();
                let live = now.models.get(name).and_then(|known| known.live.as_ref());
                if live.is_some_and(|live| live.model.version() == version) {
                    let what = format!("version {version} of {name} is live: all users have it");
                    return Err(Refusal::State(what));
                }
                self.retry(name, version);
                Some(Canary { loaded: self.load(name, version)?, percent })
            }
        };
        let author = Author::of(by);
        let share = canary.as_ref().map(|_| CanaryShare { version, percent, promotion, author });
        let decided = self.decide(name, |decided| {
            if share.is_some() {
                // Until somebody makes it live.
                decided.withdrawn.insert(version, Author::of(by));
            }
            decided.canary = share;
            Ok(decided.clone())
        })?;
        self.note(name, |versions| {
            versions.decided = decided;
            versions.canary = canary;
        });
        tracing::info!(model = name, version, percent, by, "canary");
        Ok(())
    }

    /// Serves a model no more, until a version of it is activated.
    ///
    /// # Errors
    /// If there is no such model, or the settings pin it.
    pub(crate) fn unload(&self, name: &str, by: &str) -> Result<(), Refusal> {
        self.require_free(name, None)?;
        if let Err(error) = self.require(name) {
            // Its folder is gone: there is nothing to decide for others.
            return match self.replace(|models| models.remove(name)) {
                Some(_) => Ok(()),
                None => Err(error),
            };
        }
        let decided = self.decide(name, |decided| {
            decided.unloaded = Some(Author::of(by));
            Ok(decided.clone())
        })?;
        self.note(name, |versions| versions.decided = decided);
        self.drop_versions(name);
        tracing::warn!(model = name, by, "unloaded");
        Ok(())
    }

    /// Decides something about a model; what is decided about it then.
    pub(super) fn decide<R>(
        &self,
        name: &str,
        change: impl FnOnce(&mut ModelDecisions) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.decisions().decide(&self.folder, name, change)
    }

    /// Whether something else than `version` may be decided about a model.
    fn require_free(&self, name: &str, version: Option<u64>) -> Result<(), Refusal> {
        match self.policy.pins.get(name) {
            Some(pinned) if version != Some(*pinned) => Err(Refusal::State(format!(
                "{name} is pinned to version {pinned} by --pin; start the server without it"
            ))),
            _ => Ok(()),
        }
    }

    /// Forgets that a version was refused.
    fn retry(&self, name: &str, version: u64) {
        let refused = self.refused(name).contains(&version);
        if refused {
            self.note(name, |versions| {
                versions.refused.remove(&version);
            });
        }
    }

    fn refused(&self, name: &str) -> Vec<u64> {
        let now = self.now();
        now.models.get(name).map_or_else(Vec::new, |known| known.refused.keys().copied().collect())
    }
}

/// That the canary is still `expected`, where one is.
///
/// # Errors
/// Otherwise.
pub(super) fn require_canary(
    decided: &ModelDecisions,
    expected: Option<&CanaryShare>,
) -> Result<(), Refusal> {
    if expected.is_none() || decided.canary.as_ref() == expected {
        return Ok(());
    }
    Err(Refusal::State("something else was decided about the canary meanwhile".to_owned()))
}
