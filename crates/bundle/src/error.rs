//! Errors of this room: what came, what was expected, where.

use std::path::{Path, PathBuf};

/// Result of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a bundle or a request.
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
        /// The file.
        path: PathBuf,
        /// What came and what was expected.
        what: String,
    },
    /// A request does not fit the model.
    #[error("request: {what}")]
    Request {
        /// Which part, what came, what was expected.
        what: String,
    },
    /// Samples could not be read.
    #[error(transparent)]
    Data(#[from] ams_data::Error),
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

    /// An [`Error::Request`].
    pub fn request(what: impl Into<String>) -> Error {
        Error::Request { what: what.into() }
    }
}
