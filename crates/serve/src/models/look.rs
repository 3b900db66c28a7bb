//! What is found on disk, and what comes of it: new versions, decisions of other servers, deltas,
//! files that were changed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use ams_bundle::{arrival, whole_versions};
use ams_daily::{Days, Followed};

use super::decisions::{Author, CanaryShare, ModelDecisions, Pinned};
use super::{Canary, LoadedVersion, Models, Refusal, Versions};

impl Models {
    /// Looks for models, versions and decisions on disk, and makes of every model that version live
    /// that should be. What was refused is tried again when one of its files changes.
    ///
    /// # Errors
    /// If the folder cannot be listed, or what was decided is not known; what is wrong with a model
    /// is in [`super::Snapshot::status`].
    pub(crate) fn poll(&self) -> Result<(), Refusal> {
        self.look(false)
    }

    /// The same; what was refused is tried again anyway.
    ///
    /// # Errors
    /// As [`Models::poll`].
    pub(crate) fn poll_again(&self) -> Result<(), Refusal> {
        self.look(true)
    }

    fn look(&self, again: bool) -> Result<(), Refusal> {
        let _one_at_a_time = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let decisions = {
            let mut store = self.decisions();
            let read = store.follow(&self.folder);
            if !store.is_known() {
                // A version that was taken back must not be live because nobody can read that it
                // was.
                read?;
            } else if let Err(error) = read {
                tracing::error!(%error, "the decisions cannot be read; the earlier ones hold");
                self.telemetry.poll_failures.increment(1);
            }
            store.decisions.clone()
        };
        let names = self.names()?;
        for (name, version) in self.policy.pins.iter().filter(|(name, _)| !names.contains(name)) {
            if !self.ready() {
                tracing::error!(model = name, version, "--pin names a model that is not on disk");
            }
        }
        for name in &names {
            let decided = decisions.of(name);
            if let Err(error) = self.look_at(name, decided, again) {
                self.pass_over(name, &error);
            }
        }
        self.forget(&names);
        self.follow();
        names.iter().for_each(|name| self.judge(name));
        let now = self.now();
        if !now.ready && now.live().any(|(_, live)| live.is_some()) {
            self.become_ready();
        }
        Ok(())
    }

    /// One model: what is wrong with it is its own.
    fn look_at(&self, name: &str, decided: ModelDecisions, again: bool) -> Result<(), Refusal> {
        let folder = self.folder.join(name);
        // Its versions are none if it may not be read, and nobody would be told.
        std::fs::read_dir(&folder).map_err(ams_bundle::Error::io(&folder))?;
        let found = whole_versions(&folder)?;
        let now = self.now();
        let nothing = Versions::default();
        let known = now.models.get(name).unwrap_or(&nothing);
        let is_new = !now.models.contains_key(name);
        if is_new && found.is_empty() {
            // Such as `lost+found`: no model.
            return Ok(());
        }
        // A file of it changed: whether it is good, somebody says who needs it.
        let changed =
            known.refused.keys().filter(|version| !self.is_refused_still(name, **version));
        let changed: Vec<u64> = changed.copied().collect();
        let mut remembered = known.refused.keys().chain(known.arriving.keys());
        let is_removed = remembered.any(|version| !found.contains(version)) || !changed.is_empty();
        let differs = known.decided != decided || known.unreadable.is_some() || known.gone;
        if is_new || differs || is_removed || again {
            self.note(name, |versions| {
                (versions.unreadable, versions.gone) = (None, false);
                versions.decided = decided.clone();
                let fixed = self.pinned(name, &decided);
                let fixed = fixed.or(decided.chosen.as_ref().map(|chosen| chosen.version));
                versions.arriving.retain(|it, _| found.contains(it) || fixed == Some(*it));
                let stays = |version: &u64| found.contains(version) && !changed.contains(version);
                versions.refused.retain(|version, _| stays(version));
                if again {
                    versions.refused.clear();
                }
            });
        }
        self.watch(name, known);
        self.follow_days(name, known);
        if decided.unloaded.is_some() && !self.policy.pins.contains_key(name) {
            if !known.loaded.is_empty()
                && self.while_decided(name, &decided, || self.drop_versions(name))
            {
                tracing::warn!(model = name, "unloaded");
            }
            return Ok(());
        }
        self.choose(name, &decided, found, again);
        self.follow_canary(name, decided.canary);
        Ok(())
    }

    /// Makes the right version of those `found` live; `again` marks an order to search.
    fn choose(&self, name: &str, decided: &ModelDecisions, found: Vec<u64>, again: bool) {
        let now = self.now();
        let live = now.models.get(name).and_then(|known| known.live.as_ref());
        let live = live.map(|live| live.model.version());
        let taken_back = live.is_some_and(|live| decided.withdrawn.contains_key(&live));
        let explicit = self.policy.explicit;
        let chosen = decided.chosen.as_ref().filter(|_| explicit && !again);
        let fixed = self.pinned(name, decided).or(chosen.map(|chosen| chosen.version));
        if let Some(version) = fixed {
            if live != Some(version) && !self.is_refused_still(name, version) {
                match self.load(name, version) {
                    Ok(loaded) => {
                        self.while_decided(name, decided, || self.set_live(name, loaded));
                    }
                    Err(Refusal::Absent(_)) => self.say_absent(name, version),
                    // Said and remembered where it was found.
                    Err(_) => {}
                }
            }
            return;
        }
        // From the highest down: a corrupt one leaves the next best. What serves is not left for a
        // lower one but if it was taken back.
        let better = |version: &u64| taken_back || live.is_none_or(|live| *version > live);
        let good = |version: &u64| !decided.withdrawn.contains_key(version) && better(version);
        let found = found.into_iter().rev().filter(good);
        let mut found = found.filter(|&version| !self.is_refused_still(name, version));
        let loaded = found.find_map(|version| self.load(name, version).ok());
        match loaded {
            Some(loaded) => {
                let version = loaded.model.version();
                let is_live = self.while_decided(name, decided, || self.set_live(name, loaded));
                if is_live && explicit {
                    self.keep_choice(name, version);
                }
            }
            None if taken_back => tracing::error!(
                model = name,
                version = live,
                "the version was withdrawn and still serves, as no other version is valid"
            ),
            None => {}
        }
    }

    /// Does what follows from a decision, if nothing else was decided here meanwhile: loading takes
    /// time, and an order that came in between must not be undone until the next look. Whether
    /// it was done.
    fn while_decided(&self, name: &str, decided: &ModelDecisions, act: impl FnOnce()) -> bool {
        let store = self.decisions();
        let is_so = store.decisions.of(name) == *decided;
        if is_so {
            act();
        }
        is_so
    }

    /// Writes down what a server that is only to serve what it is told found first, so that it
    /// serves it after a restart too.
    fn keep_choice(&self, name: &str, version: u64) {
        let author = Author::of("the first poll of a server with --explicit");
        let kept = self.decide(name, |decided| {
            decided.chosen = Some(Pinned { version, author });
            Ok(())
        });
        if let Err(error) = kept {
            tracing::error!(model = name, version, %error, "the choice of the version was not written");
        }
    }

    /// Says once that a pinned version is not there; what serves serves on.
    fn say_absent(&self, name: &str, version: u64) {
        let now = self.now();
        let what = "the pinned version is not on disk";
        let said = now.models.get(name).and_then(|known| known.arriving.get(&version));
        if said.is_none_or(|said| said != what) {
            tracing::error!(model = name, version, "{what}");
            self.note(name, |versions| {
                versions.arriving.insert(version, what.to_owned());
            });
        }
    }

    /// The version that serves whatever comes: by this server's settings, or by what was decided.
    pub(super) fn pinned(&self, name: &str, decided: &ModelDecisions) -> Option<u64> {
        let set = self.policy.pins.get(name).copied();
        set.or(decided.pinned.as_ref().map(|pinned| pinned.version))
    }

    /// Whether a version was refused, and nothing of it has changed since.
    fn is_refused_still(&self, name: &str, version: u64) -> bool {
        let now = self.now();
        let Some((stamp, _)) = now.models.get(name).and_then(|known| known.refused.get(&version))
        else {
            return false;
        };
        let folder = self.folder.join(name).join(version.to_string());
        arrival::look(&folder).map_or(true, |(_, found)| found == *stamp)
    }

    /// Gives users the canary that was decided.
    fn follow_canary(&self, name: &str, share: Option<CanaryShare>) {
        let now = self.now();
        let Some(known) = now.models.get(name) else { return };
        let serves = known.canary.as_ref().map(|c| (c.loaded.model.version(), c.percent));
        let wanted = share.as_ref().map(|share| (share.version, share.percent));
        if serves == wanted
            || wanted.is_some_and(|(version, _)| self.is_refused_still(name, version))
        {
            return;
        }
        let canary = match wanted {
            None => None,
            Some((version, percent)) => match self.load(name, version) {
                Ok(loaded) => {
                    tracing::info!(model = name, version, percent, "canary");
                    Some(Canary { loaded, percent })
                }
                Err(_) => return,
            },
        };
        let decided = ModelDecisions { canary: share, ..known.decided.clone() };
        self.while_decided(name, &decided, || {
            self.note(name, |versions| {
                // An order may have loaded it meanwhile, and counts in what it loaded.
                let is_there = versions.canary.as_ref();
                let is_there = is_there.map(|c| (c.loaded.model.version(), c.percent));
                if is_there != wanted {
                    versions.canary = canary;
                }
            });
        });
    }

    /// Says that a model cannot be looked at, and goes on: it has nothing to do with others.
    fn pass_over(&self, name: &str, error: &Refusal) {
        let text = error.to_string();
        let now = self.now();
        let known = now.models.get(name);
        if known.is_some_and(|known| known.unreadable.as_ref() == Some(&text)) {
            return;
        }
        tracing::error!(model = name, error = %text, "the model is skipped, as its folder cannot be read");
        self.note(name, |versions| versions.unreadable = Some(text));
    }

    /// Forgets models whose folder is gone: at once where none of its versions served, otherwise
    /// when it was gone twice. If all are gone, the folder of models itself is not what it was,
    /// such as a disk that was taken away; then what serves serves on.
    fn forget(&self, names: &[String]) {
        let now = self.now();
        let is_gone = |name: &String| !names.contains(name);
        let gone: Vec<&String> = now.models.keys().filter(|name| is_gone(name)).collect();
        if gone.is_empty() {
            return;
        }
        let all = gone.len() == now.models.len();
        for name in gone {
            let known = &now.models[name];
            if known.live.is_none() || known.gone && !all {
                tracing::warn!(model = name, "the model is removed, as its folder is gone");
                self.replace(|models| models.remove(name));
            } else if !known.gone {
                tracing::error!(model = name, "its folder is gone; it serves from memory");
                let what = "the model's folder is gone; it serves from memory as it was";
                self.note(name, |versions| {
                    versions.gone = true;
                    let loaded = versions.loaded.keys();
                    versions.changed = loaded.map(|version| (*version, what.to_owned())).collect();
                });
            }
        }
    }

    /// Takes up what was decided about the model's days, and what is told of the log it follows.
    fn follow_days(&self, name: &str, known: &Versions) {
        match Days::read(&self.folder.join(name)) {
            Ok(days) if known.days.as_deref() != days.as_ref() => {
                self.note(name, |versions| versions.days = days.map(Arc::new));
            }
            Ok(_) => {}
            // They only tell of a model, and serve nobody.
            Err(error) => tracing::debug!(model = name, %error, "its days cannot be read"),
        }
        match Followed::read(&self.folder.join(name)) {
            Ok(followed) if known.followed.as_deref() != followed.as_ref() => {
                self.note(name, |versions| versions.followed = followed.map(Arc::new));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(model = name, %error, "its follow.json cannot be read"),
        }
    }

    /// Looks whether the files of the versions in memory are still what was read.
    fn watch(&self, name: &str, known: &Versions) {
        let changed: BTreeMap<u64, String> = (known.loaded.iter())
            .filter_map(|(version, loaded)| Some((*version, self.changed(name, loaded)?)))
            .collect();
        if changed == known.changed {
            return;
        }
        for (version, what) in &changed {
            if known.changed.get(version) != Some(what) {
                tracing::error!(model = name, version, %what, "files of a version in memory changed");
            }
        }
        self.note(name, |versions| versions.changed = changed);
    }

    /// How the files of a version differ from what was read.
    fn changed(&self, name: &str, loaded: &Arc<LoadedVersion>) -> Option<String> {
        let folder = self.folder.join(name).join(loaded.model.version().to_string());
        let what = match arrival::look(&folder) {
            Ok((_, stamp)) => loaded.stamp.difference(&stamp)?,
            Err(error) => error.to_string(),
        };
        Some(match loaded.model.memory() {
            ams_bundle::Memory::Copied => {
                format!("{what}; it serves from memory as it was, and could not be loaded again")
            }
            ams_bundle::Memory::Mapped => format!(
                "{what}; it is read from these files while it serves: publish it again as another version and activate that"
            ),
        })
    }

    /// Leaves nothing of a model in memory.
    pub(super) fn drop_versions(&self, name: &str) {
        self.note(name, |versions| {
            (versions.live, versions.canary) = (None, None);
            versions.before.clear();
            versions.loaded.clear();
        });
    }
}
