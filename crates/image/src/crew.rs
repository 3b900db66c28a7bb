//! The processes that encode one store together, on one disk that all of them see.
//!
//! Every process encodes its share of the names, with a journal of its own beside the others', and
//! then writes its share of the parts from all journals. The first one writes what is about the
//! whole and commits it. So the store has the same files as if one process had made it.
//!
//! A process that fails has to end the job: the others wait for it in [`Crew::texts`].
//!
//! Knows that there are others. Does not know how they are reached.

use ams_data::{Error, ImageKey, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason};
use crate::manifest::Picture;

/// Processes that do one thing together. All of them call everything in the same order.
pub trait Crew {
    /// This process, `0..size`.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// What every process says, by rank.
    ///
    /// # Errors
    /// If one is gone.
    fn texts(&mut self, text: &str) -> Result<Vec<String>>;
}

/// One process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Crew for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn texts(&mut self, text: &str) -> Result<Vec<String>> {
        Ok(vec![text.to_owned()])
    }
}

/// Returns when all processes have arrived.
pub(crate) fn barrier(crew: &mut dyn Crew) -> Result<()> {
    match crew.size() {
        1 => Ok(()),
        _ => crew.texts("").map(drop),
    }
}

/// What every process has, by rank.
pub(crate) fn gather<T: Serialize + DeserializeOwned>(
    crew: &mut dyn Crew,
    mine: T,
) -> Result<Vec<T>> {
    if crew.size() == 1 {
        return Ok(vec![mine]);
    }
    let text = serde_json::to_string(&mine).expect("what processes say is JSON");
    let all = crew.texts(&text)?;
    let read = |text: &String| {
        serde_json::from_str(text).map_err(|error| {
            Error::option(format!("a process of this job says something else: {error}"))
        })
    };
    all.iter().map(read).collect()
}

/// A picture as processes tell each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    name: String,
    key: u64,
    bytes: u64,
    size: [u32; 2],
    failure: Option<(String, String)>,
    file: Option<String>,
}

impl From<Picture> for Told {
    fn from(picture: Picture) -> Told {
        let Picture { name, key, bytes, width, height, failure, file } = picture;
        let failure = failure.map(|failure| (failure.reason.name().to_owned(), failure.detail));
        Told { name, key: key.0, bytes, size: [width, height], failure, file }
    }
}

impl From<Told> for Picture {
    fn from(told: Told) -> Picture {
        let Told { name, key, bytes, size: [width, height], failure, file } = told;
        let failure = failure.and_then(|(reason, detail)| {
            let reason = Reason::ALL.into_iter().find(|known| known.name() == reason)?;
            Some(Failure { reason, detail })
        });
        Picture { name, key: ImageKey(key), bytes, width, height, failure, file }
    }
}
