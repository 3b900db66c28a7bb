//! Errors of this room: what came, what was expected, where.

use std::path::{Path, PathBuf};

/// Result of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a training cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting does not make sense.
    #[error("{key}: {what}")]
    Config {
        /// The key, such as `train.lanes`.
        key: String,
        /// What came and what is possible.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder is not what it has to be.
    #[error("{}: {what}", path.display())]
    Content {
        /// The file or folder.
        path: PathBuf,
        /// What came and what was expected.
        what: String,
    },
    /// A number left the finite range.
    #[error(
        "step {step}: {what} is not finite; lower train.learning_rate or look at the input features"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// Which number.
        what: String,
    },
    /// Samples or image features could not be read.
    #[error(transparent)]
    Data(#[from] ams_data::Error),
    /// A checkpoint or bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] ams_bundle::Error),
    /// Another process is gone.
    #[error(transparent)]
    Lost(#[from] ams_fabric::Lost),
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
}
