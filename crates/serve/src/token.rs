//! Bearer tokens: read from a file, compared in constant time, kept as hashes and never logged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::problem::{Kind, Problem};
use crate::reload::Reload;

/// Hashes of the valid tokens; without any, every request is admitted.
///
/// The file has a token per line, so that an old and a new one can be valid together; empty lines
/// and lines that begin with `#` are ignored. Clones share the tokens, so a reload reaches all of
/// them.
#[derive(Clone, Default)]
pub struct Tokens {
    hashes: Arc<ArcSwap<Vec<blake3::Hash>>>,
    file: Option<PathBuf>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.hashes.load().len())
    }
}

/// The scheme of the header `Authorization`.
const SCHEME: &[u8] = b"bearer";

/// Fewest characters of a token: shorter ones can be guessed.
const SHORTEST: usize = 16;

impl Tokens {
    /// The tokens in the file at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or has no token or one that is too short; the message has no token in
    /// it.
    pub fn read(path: &Path) -> Result<Tokens, String> {
        let hashes = Arc::new(ArcSwap::from_pointee(hashes(path)?));
        Ok(Tokens { hashes, file: Some(path.to_owned()) })
    }

    /// Whether requests need no token.
    pub fn is_open(&self) -> bool {
        self.hashes.load().is_empty()
    }

    /// The first 8 hex digits of the hash of the request's token: the log tells tokens apart
    /// without them.
    pub fn fingerprint(headers: &HeaderMap) -> Option<String> {
        let token = given(headers)?;
        Some(blake3::hash(token).to_hex()[..8].to_owned())
    }

    /// That `headers` have a valid token, if one is needed.
    ///
    /// # Errors
    /// With 401 if they have not.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let hashes = self.hashes.load();
        if hashes.is_empty() {
            return Ok(());
        }
        let Some(token) = given(headers) else {
            let what = "expected the header `Authorization: Bearer TOKEN`";
            return Err(Problem::new(Kind::Token, what));
        };
        let given = blake3::hash(token);
        // Hashes of blake3 are compared in constant time, and all of them are compared.
        let known = hashes.iter().fold(false, |known, token| known | (*token == given));
        if known { Ok(()) } else { Err(Problem::new(Kind::Token, "the token is not valid")) }
    }
}

impl Reload for Tokens {
    fn files(&self) -> Vec<&Path> {
        self.file.as_deref().into_iter().collect()
    }

    fn reload(&self) -> Result<(), String> {
        if let Some(file) = &self.file {
            self.hashes.store(Arc::new(hashes(file)?));
        }
        Ok(())
    }
}

/// The bearer token of the request.
fn given(headers: &HeaderMap) -> Option<&[u8]> {
    bearer(headers.get(AUTHORIZATION)?.as_bytes())
}

/// The token of a header's value. The scheme may be spelled in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    rest.strip_prefix(b" ").map(<[u8]>::trim_ascii)
}

fn hashes(path: &Path) -> Result<Vec<blake3::Hash>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(str::trim).enumerate();
    let mut tokens = Vec::new();
    for (at, token) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        if token.len() < SHORTEST {
            let (path, line, length) = (path.display(), at + 1, token.len());
            return Err(format!(
                "{path}: line {line}: a token of {length} characters, expected {SHORTEST} or more"
            ));
        }
        tokens.push(blake3::hash(token.as_bytes()));
    }
    if tokens.is_empty() {
        return Err(format!("{}: no token, expected one per line", path.display()));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_token_opens_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        std::fs::write(&file, "# old\nold-token-0123456789\n\n new-token-0123456789 \n").unwrap();
        let tokens = Tokens::read(&file).unwrap();
        let opens = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            tokens.check(&headers).is_ok()
        };
        assert!(opens(Some("Bearer old-token-0123456789")));
        assert!(opens(Some("Bearer new-token-0123456789")));
        assert!(opens(Some("bearer  new-token-0123456789")), "the scheme has no case");
        for wrong in [
            "new-token-0123456789",
            "Bearer # old",
            "Bearer ",
            "Bearer",
            "bearer\tnew-token-0123456789",
            "Bearer new-token",
            "Basic x",
        ] {
            assert!(!opens(Some(wrong)), "{wrong}");
        }
        assert!(!opens(None));
        assert!(Tokens::default().check(&HeaderMap::new()).is_ok());
    }

    #[test]
    fn files_without_good_tokens_are_refused_without_saying_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        for (text, expected) in [("# none\n", "no token"), ("secret\n", "line 1: a token of 6 ")] {
            std::fs::write(&file, text).unwrap();
            let error = Tokens::read(&file).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        assert!(Tokens::read(&dir.path().join("absent")).is_err());
    }
}
