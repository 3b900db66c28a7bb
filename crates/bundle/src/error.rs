//! Errors of this crate: the value found, the value expected, and the place.

use std::path::Path;

use ams_data::Error as FileError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a bundle or a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written, or is not what it has to be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A request does not fit the model.
    #[error("request: {what}")]
    Request {
        /// The path, the value found and the value expected.
        what: String,
    },
    /// A model is asked for what models of its kind do not have.
    #[error("the model: {what}")]
    Model {
        /// The property of the model, and the expected one.
        what: String,
    },
}

impl Error {
    /// The operating system refused something at `path`; for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::File(FileError::io(path)(source))
    }

    /// The content of `path` is not what it has to be.
    pub fn content(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::File(FileError::content(path, what))
    }

    /// An error about a request: the value found and the value expected.
    pub fn request(what: impl Into<String>) -> Error {
        Error::Request { what: what.into() }
    }
}
