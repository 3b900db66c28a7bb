//! Errors of training: the value found, the value expected, the file or the key.

use std::path::Path;

use ams_data::Error as FileError;
use ams_fabric::{Disagreement, Elsewhere};

/// Result of training, with [`enum@Error`] unless stated.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a training cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of its range, or does not fit the data.
    #[error("{key}: {what}")]
    Config {
        /// The key, such as `train.lanes`.
        key: String,
        /// The value found and the possible ones.
        what: String,
    },
    /// A number left the finite range.
    #[error(
        "step {step}: {what} is not finite; lower train.learning_rate or look at the input features"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// The quantity, such as a parameter and its gradient.
        what: String,
    },
    /// A file cannot be read or written, or its content is invalid.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint or bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] ams_bundle::Error),
    /// Another process of the job has an error, which it reports itself.
    #[error("rank {rank}: {what}")]
    Elsewhere {
        /// Rank of the process that has the error.
        rank: usize,
        /// The message of its error.
        what: String,
    },
    /// The processes of the job differ in program, configuration or files.
    #[error(
        "the processes of this job differ, and would not compute one training:{differences}\nstart all of them \
         with the same program, configuration and files"
    )]
    Disagree {
        /// A line for each difference.
        differences: String,
    },
    /// The newest checkpoint cannot be used, but an earlier one is there.
    #[error("{newest}\nto go on from {older} instead, remove {damaged}")]
    Damaged {
        /// The error of the newest one.
        newest: Box<Error>,
        /// The folder of the newest checkpoint.
        damaged: String,
        /// The one before it.
        older: String,
    },
    /// The connection to another process is lost.
    #[error(transparent)]
    Lost(#[from] ams_fabric::Lost),
}

impl From<Elsewhere> for Error {
    fn from(Elsewhere { rank, what }: Elsewhere) -> Error {
        Error::Elsewhere { rank, what }
    }
}

impl From<Disagreement> for Error {
    fn from(Disagreement { differences }: Disagreement) -> Error {
        Error::Disagree { differences }
    }
}

impl Error {
    /// The operating system refused something at `path`; for `map_err`.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::File(FileError::io(path)(source))
    }

    /// The content of `path` is invalid; `what` says how.
    pub(crate) fn content(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::File(FileError::content(path, what))
    }
}
