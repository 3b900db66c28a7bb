//! Files of secrets that change while a server runs: looked at every few seconds and when somebody
//! asks, and read again when they are others than before.
//!
//! What a file holds decides, not its time: a cluster replaces secrets by links, and some disks
//! know whole seconds only. What cannot be taken up leaves what was before. Knows files; not what
//! they mean.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use blake3::Hash;

use crate::traffic::Traffic;

/// What is made of files and can be made again.
pub(crate) trait Renewed: Send + Sync {
    /// The files.
    fn files(&self) -> Vec<&Path>;

    /// Makes it again, of the files as they are now.
    ///
    /// # Errors
    /// If it cannot be made; then all stays as it was.
    fn renew(&self) -> Result<(), String>;
}

/// Everything of a server that is made of files.
pub(crate) struct Renewal {
    things: Vec<Box<dyn Renewed>>,
    /// What was in the files of each when they were tried last, and at the last look.
    seen: Mutex<Vec<Seen>>,
    traffic: Arc<Traffic>,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    tried: Hash,
    last: Hash,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The clock: a file that is just being written, or a key whose certificate comes next, is left
    /// for the next look.
    Clock,
    /// Somebody, who says that the files are whole.
    Asked,
}

impl Renewal {
    /// Of `things`, which were just made.
    pub(crate) fn new(things: Vec<Box<dyn Renewed>>, traffic: Arc<Traffic>) -> Renewal {
        let contents = things.iter().map(|thing| content(&**thing));
        let seen = Mutex::new(contents.map(|now| Seen { tried: now, last: now }).collect());
        Renewal { things, seen, traffic }
    }

    /// Looks at all files, and makes again what is of others than before.
    pub(crate) fn look(&self, look: Look) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (thing, seen) in self.things.iter().zip(&mut *seen) {
            let now = content(&**thing);
            let is_settled = std::mem::replace(&mut seen.last, now) == now;
            if now == seen.tried || (look == Look::Clock && !is_settled) {
                continue;
            }
            seen.tried = now;
            let files = thing.files();
            match thing.renew() {
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
fn content(thing: &dyn Renewed) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for file in thing.files() {
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
        let traffic = Arc::new(Traffic::new(&telemetry));
        let renewal = Renewal::new(vec![Box::new(tokens.clone())], traffic);
        let valid = || {
            let opens = |token: &&str| {
                let value = format!("Bearer {token}-token-0123456789").parse().unwrap();
                tokens.check(&HeaderMap::from_iter([(AUTHORIZATION, value)])).is_ok()
            };
            ["first", "second", "third"].into_iter().filter(opens).collect::<Vec<_>>()
        };
        renewal.look(Look::Asked);
        assert_eq!(valid(), ["first"]);
        let both = "first-token-0123456789\nsecond-token-0123456789";
        std::fs::write(&file, both).unwrap();
        renewal.look(Look::Clock);
        assert_eq!(valid(), ["first"], "it may be half written");
        renewal.look(Look::Clock);
        assert_eq!(valid(), ["first", "second"]);
        // Whatever is wrong with it, also if it is not there: what was read before holds, and it is
        // said once.
        for (bad, failures) in [(Some("short"), 1), (Some(""), 2), (None, 3)] {
            match bad {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            for _ in 0..3 {
                renewal.look(Look::Asked);
            }
            assert_eq!(valid(), ["first", "second"]);
            let line = format!("ams_reload_failures_total {failures}");
            assert!(telemetry.render().contains(&line), "no {line} in {}", telemetry.render());
        }
        std::fs::write(&file, "third-token-0123456789").unwrap();
        renewal.look(Look::Asked);
        assert_eq!(valid(), ["third"]);
    }
}
