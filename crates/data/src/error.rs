//! Errors of this room: what came, what was expected, where.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Result of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with the world's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content is not what it has to be.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file or folder that was read or written.
        path: PathBuf,
        /// What came, what was expected, in which row or column.
        what: String,
    },
    /// An option does not make sense.
    #[error("{what}")]
    Option {
        /// Which option, what came, what was expected.
        what: String,
    },
}

impl Error {
    /// An [`Error::Io`] at `path`, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// An [`Error::Content`] of `path`.
    pub fn content(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Content { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// An [`Error::Option`]: `what` needs a cargo feature that this program was built without.
    pub fn built_without(what: impl Display, feature: &str) -> Error {
        Error::option(format!("{what}: {}", built_without(feature)))
    }

    /// An [`Error::Option`], whose text names the setting and the expected value.
    pub fn option(what: impl Into<String>) -> Error {
        Error::Option { what: what.into() }
    }
}

/// Says that a cargo feature is missing, and how to get it.
pub fn built_without(feature: &str) -> String {
    format!(
        "this program was built without {feature}; build it with `cargo build --release --features {feature}` (or `full`)"
    )
}
