//! Deltas: small changes of versions that serve, taken up from disk, or made here and written there
//! first.

use std::sync::{Arc, PoisonError};

use ams_bundle::{Changes, Model};

use super::{LoadedVersion, Models, Refusal, Snapshot, followed};

impl Models {
    /// Takes up the deltas that followed the versions in memory. One that is damaged is reported in
    /// [`Snapshot::status`], and what served before it serves on.
    pub(super) fn follow(&self) {
        let now = self.now();
        for (name, versions) in &now.models {
            for loaded in versions.loaded.values() {
                self.follow_one(name, loaded);
            }
        }
    }

    /// Takes up the deltas of one version, and returns what it is then.
    fn follow_one(&self, name: &str, loaded: &Arc<LoadedVersion>) -> Arc<LoadedVersion> {
        let (model, refused_delta) = followed(loaded.model.clone());
        let (version, before) = (model.version(), loaded.model.deltas());
        if model.deltas() == before && refused_delta == loaded.refused_delta {
            return Arc::clone(loaded);
        }
        if let Some(error) =
            refused_delta.as_ref().filter(|_| refused_delta != loaded.refused_delta)
        {
            self.say_refused_delta(name, version, error);
        }
        if model.deltas() > before {
            tracing::info!(model = name, version, delta = model.deltas(), "followed");
        }
        let loaded =
            Arc::new(LoadedVersion { model, refused_delta, ..LoadedVersion::clone(loaded) });
        self.replace(|models| {
            let Some(versions) = models.get_mut(name) else { return };
            let old = versions.loaded.get(&version);
            // Another thread may have gone further meanwhile, or another version taken its place.
            if old.is_some_and(|old| old.model.deltas() <= loaded.model.deltas()) {
                let is_it = |other: &Arc<LoadedVersion>| other.model.version() == version;
                let canary = versions.canary.iter_mut().map(|canary| &mut canary.loaded);
                for place in versions.live.iter_mut().chain(canary).filter(|it| is_it(it)) {
                    *place = Arc::clone(&loaded);
                }
                versions.loaded.insert(version, Arc::clone(&loaded));
            }
        });
        loaded
    }

    /// Says that the delta after a version is not good, once.
    pub(super) fn say_refused_delta(&self, name: &str, version: u64, error: &str) {
        tracing::error!(model = name, version, %error, "delta refused");
        self.telemetry.delta_refused(name);
    }

    /// Makes the delta that follows a version, the live one unless given: written to disk, then
    /// served. Returns its number; none, if `changes` are none.
    ///
    /// # Errors
    /// If the version is not loaded, `changes` fails, or the delta cannot be written; then nothing
    /// has changed.
    pub(crate) fn edit(
        &self,
        name: &str,
        version: Option<u64>,
        changes: impl FnOnce(&Model) -> Result<Changes, Refusal>,
    ) -> Result<Option<u64>, Refusal> {
        let _one_at_a_time = self.edits.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = Snapshot::find(&self.now(), name, version, None)?;
        let loaded = self.follow_one(name, &loaded);
        let changes = changes(&loaded.model)?;
        if changes.is_empty() {
            return Ok(None);
        }
        loaded.model.change(&changes)?;
        Ok(Some(self.follow_one(name, &loaded).model.deltas()))
    }
}
