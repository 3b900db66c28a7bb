//! Errors of this room: what came, what was expected, where.

use std::path::Path;

use ams_data::Error as FileError;
use ams_fabric::together::{Disagreement, Elsewhere};

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
    /// A file cannot be read or written, or is not what it has to be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint or bundle could not be read or written.
    #[error(transparent)]
    Bundle(#[from] ams_bundle::Error),
    /// Another process of the job has an error; it says so itself.
    #[error("rank {rank}: {what}")]
    Elsewhere {
        /// That process.
        rank: usize,
        /// Its error.
        what: String,
    },
    /// The processes of the job are not of one kind.
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
        /// What is wrong with the newest one.
        newest: Box<Error>,
        /// Its folder.
        damaged: String,
        /// The one before it.
        older: String,
    },
    /// Another process is gone.
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
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::File(FileError::io(path)(source))
    }

    /// The content of `path` is not what it has to be.
    pub fn content(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::File(FileError::content(path, what))
    }
}
