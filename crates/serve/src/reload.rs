//! Files of secrets that change while a server runs: looked at every few seconds and when somebody
//! asks, and read again when they are others than before.
//!
//! What a file holds decides, not its time: a cluster replaces secrets by links, and some disks
//! know whole seconds only. What cannot be taken up leaves what was before. Knows files; not what
//! they mean.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use blake3::Hash;

use crate::traffic::TrafficMetrics;

/// State that is read from files and can be reloaded.
pub(crate) trait Reload: Send + Sync {
    /// The files whose content decides whether to reload.
    fn files(&self) -> Vec<&Path>;

    /// Makes it again, of the files as they are now.
    ///
    /// # Errors
    /// If it cannot be made; then all stays as it was.
    fn reload(&self) -> Result<(), String>;
}

/// Everything of a server that is made of files.
pub(crate) struct Reloader {
    sources: Vec<Box<dyn Reload>>,
    /// Hashes of the files at the last reload and at the last check.
    seen: Mutex<Vec<Hashes>>,
    traffic: Arc<TrafficMetrics>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Hashes {
    tried: Hash,
    last: Hash,
}

/// The trigger of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The clock: a file that is just being written, or a key whose certificate comes next, is left
    /// for the next look.
    Timer,
    /// SIGHUP: the files are complete.
    Signal,
}

impl Reloader {
    /// Of `sources`, which were just made.
    pub(crate) fn new(sources: Vec<Box<dyn Reload>>, traffic: Arc<TrafficMetrics>) -> Reloader {
        let contents = sources.iter().map(|source| content(&**source));
        let seen = Mutex::new(contents.map(|now| Hashes { tried: now, last: now }).collect());
        Reloader { sources, seen, traffic }
    }

    /// Looks at all files, and makes again what is of others than before.
    pub(crate) fn check(&self, trigger: Trigger) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, seen) in self.sources.iter().zip(&mut *seen) {
            let now = content(&**source);
            let is_settled = std::mem::replace(&mut seen.last, now) == now;
            if now == seen.tried || (trigger == Trigger::Timer && !is_settled) {
                continue;
            }
            seen.tried = now;
            let files = source.files();
            match source.reload() {
                Ok(()) => tracing::info!(?files, "read again"),
                Err(error) => {
                    self.traffic.reload_failures.increment(1);
                    tracing::error!(%error, "files changed and are not taken up: what was read before holds");
                }
            }
        }
    }
}

/// A hash of all that is in the files; a file that cannot be read is another one than every file.
fn content(source: &dyn Reload) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for file in source.files() {
        match std::fs::read(file) {
            Ok(bytes) => hasher.update(blake3::hash(&bytes).as_bytes()),
            Err(error) => hasher.update(error.to_string().as_bytes()),
        };
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;
    use crate::token::Tokens;
    use axum::http::HeaderMap;
    use axum::http::header::AUTHORIZATION;

    #[test]
    fn tokens_are_those_of_the_file_now_if_it_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        std::fs::write(&file, "first-token-0123456789").unwrap();
        let (tokens, telemetry) = (Tokens::read(&file).unwrap(), Telemetry::new());
        let traffic = Arc::new(TrafficMetrics::new(&telemetry));
        let renewal = Reloader::new(vec![Box::new(tokens.clone())], traffic);
        let valid = || {
            let opens = |token: &&str| {
                let value = format!("Bearer {token}-token-0123456789").parse().unwrap();
                tokens.check(&HeaderMap::from_iter([(AUTHORIZATION, value)])).is_ok()
            };
            ["first", "second", "third"].into_iter().filter(opens).collect::<Vec<_>>()
        };
        renewal.check(Trigger::Signal);
        assert_eq!(valid(), ["first"]);
        let both = "first-token-0123456789\nsecond-token-0123456789";
        std::fs::write(&file, both).unwrap();
        renewal.check(Trigger::Timer);
        assert_eq!(valid(), ["first"], "it may be half written");
        renewal.check(Trigger::Timer);
        assert_eq!(valid(), ["first", "second"]);
        // Whatever is wrong with it, also if it is not there: what was read before holds, and it is
        // said once.
        for (bad, failures) in [(Some("short"), 1), (Some(""), 2), (None, 3)] {
            match bad {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            for _ in 0..3 {
                renewal.check(Trigger::Signal);
            }
            assert_eq!(valid(), ["first", "second"]);
            let line = format!("ams_reload_failures_total {failures}");
            assert!(telemetry.render().contains(&line), "no {line} in {}", telemetry.render());
        }
        std::fs::write(&file, "third-token-0123456789").unwrap();
        renewal.check(Trigger::Signal);
        assert_eq!(valid(), ["third"]);
    }
}
