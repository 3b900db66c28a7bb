//! What the processes that encode one store together tell each other, over their fabric.
//!
//! Every process encodes its share of the names, with a journal of its own beside the others', and
//! then writes its share of the parts from all journals. The first one writes the files of the
//! whole store and commits it. So the store has the same files as if one process had made it, on
//! one disk that all of them see. An error of one process is an error of all ([`together`]).

use ams_data::{Error, ImageKey, Result};
use ams_fabric::Elsewhere;
use ams_fabric::{Fabric, Lost, gather as all};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason};
use crate::manifest::Picture;

/// An error of this crate where the fabric speaks of its own errors as well.
struct Shared(Error);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Lost> for Shared {
    fn from(lost: Lost) -> Shared {
        Shared(Error::option(lost.to_string()))
    }
}

impl From<Elsewhere> for Shared {
    fn from(elsewhere: Elsewhere) -> Shared {
        Shared(Error::option(elsewhere.to_string()))
    }
}

/// `mine`, if no process has an error; else the error of the lowest rank that has one.
pub(crate) fn together<T>(fabric: &mut dyn Fabric, mine: Result<T>) -> Result<T> {
    ams_fabric::together(fabric, mine.map_err(Shared)).map_err(|error| error.0)
}

/// Returns when all processes have arrived.
pub(crate) fn barrier(fabric: &mut dyn Fabric) -> Result<()> {
    fabric.barrier().map_err(|lost| Shared::from(lost).0)
}

/// The values of all processes, by rank.
pub(crate) fn gather<T: Serialize + DeserializeOwned>(
    fabric: &mut dyn Fabric,
    mine: T,
) -> Result<Vec<T>> {
    if fabric.size() == 1 {
        return Ok(vec![mine]);
    }
    let text = serde_json::to_string(&mine).expect("messages have string keys only");
    let texts = all::texts(fabric, &text).map_err(|lost| Shared::from(lost).0)?;
    let read = |text: &String| {
        serde_json::from_str(text).map_err(|error| {
            Error::option(format!("a process of this job runs another version of ams: {error}"))
        })
    };
    texts.iter().map(read).collect()
}

/// A line of the manifest on its way to the other processes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PictureMessage {
    name: String,
    key: u64,
    bytes: u64,
    size: [u32; 2],
    failure: Option<(String, String)>,
    file: Option<String>,
}

impl From<Picture> for PictureMessage {
    fn from(picture: Picture) -> PictureMessage {
        let Picture { name, key, bytes, width, height, failure, file } = picture;
        let failure = failure.map(|failure| (failure.reason.name().to_owned(), failure.detail));
        PictureMessage { name, key: key.0, bytes, size: [width, height], failure, file }
    }
}

impl From<PictureMessage> for Picture {
    fn from(message: PictureMessage) -> Picture {
        let PictureMessage { name, key, bytes, size: [width, height], failure, file } = message;
        let failure = failure.and_then(|(reason, detail)| {
            let reason = Reason::ALL.into_iter().find(|known| known.name() == reason)?;
            Some(Failure { reason, detail })
        });
        Picture { name, key: ImageKey(key), bytes, width, height, failure, file }
    }
}
