//! Looking at pictures, on many threads at once: a picture is read and hashed, and, where its
//! content is new, decoded and encoded. A content is claimed by the thread that sees it first.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use ams_data::{ImageKey, Result};
use half::f16;
use rayon::prelude::*;

use super::known::{Known, RowPlace};
use crate::decode::{Limits, Rgb, decode};
use crate::encoder::{Encoder, Scratch};
use crate::failure::{Failure, Reason};
use crate::halves::{self, Unfit};
use crate::journal::{Chunk, Journal, JournalRow};
use crate::manifest::Picture;
use crate::picture_file::{PictureFolder, content_key};

/// What a thread found out about one name.
pub(super) enum Outcome {
    /// There are no bytes to look at.
    Unread(Failure),
    /// Another thread encodes this content, or it is done.
    Seen(File),
    /// This content is new: its row, or why not.
    New(File, std::result::Result<([u32; 2], Vec<f16>), Failure>),
}

/// A picture file that was read.
pub(super) struct File {
    key: ImageKey,
    bytes: u64,
    /// Its name, where that is spelled otherwise than the picture's.
    name: Option<String>,
}

/// What threads need to look at pictures.
pub(super) struct PictureReader<'a> {
    /// What one picture may cost.
    pub(super) limits: &'a Limits,
    pub(super) folder: PictureFolder,
    pub(super) encoder: &'a dyn Encoder,
    pub(super) known: Mutex<HashMap<ImageKey, Known>>,
}

impl PictureReader<'_> {
    /// Looks at some names, on the threads of the current pool.
    pub(super) fn look_at(&self, names: &[String]) -> Vec<Outcome> {
        let look = |scratch: &mut Scratch, names: &[String]| self.look(names, scratch);
        let batches = names.par_chunks(self.encoder.batch().max(1));
        batches.map_init(Scratch::default, look).flatten_iter().collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ImageKey, Known>> {
        self.known.lock().expect("no thread panics while it holds the lock")
    }

    /// The work of as many names as the encoder takes at once, on any thread.
    fn look(&self, names: &[String], scratch: &mut Scratch) -> Vec<Outcome> {
        let mut fitted = Vec::new();
        let look = |name: &String| self.look_before(name, &mut fitted, scratch);
        let mut found = names.iter().map(look).collect::<Vec<Outcome>>();
        let dim = self.encoder.dim();
        let mut rows = vec![0.0; fitted.len() * dim];
        let encoded = if fitted.is_empty() {
            Ok(())
        } else {
            self.encoder.encode(&fitted, scratch, &mut rows)
        };
        let mut rows = rows.chunks_exact(dim);
        for found in &mut found {
            if let Outcome::New(_, row) = found
                && let Ok((size, _)) = *row
            {
                let new = rows.next().expect("a row for every fitted picture");
                *row = encoded.clone().and_then(|()| Ok((size, halves(new)?)));
            }
        }
        found
    }

    /// What can be said of a name before its picture is encoded. If it has to be, `fitted` grows by
    /// it, and its row is still empty.
    fn look_before(&self, name: &str, fitted: &mut Vec<Rgb>, scratch: &mut Scratch) -> Outcome {
        let (bytes, name) = match self.folder.read(name, self.limits) {
            Ok(read) => read,
            Err(failure) => return Outcome::Unread(failure),
        };
        let key = content_key(&bytes);
        let file = File { key, bytes: bytes.len() as u64, name };
        {
            let mut known = self.known();
            if known.contains_key(&key) {
                return Outcome::Seen(file);
            }
            known.insert(key, Known::Claimed);
        }
        let row = decode(&bytes, self.limits).map(|picture| {
            let size = [picture.width, picture.height];
            fitted.push(self.encoder.fit(picture, scratch));
            (size, Vec::new())
        });
        Outcome::New(file, row)
    }

    /// Writes the new rows of a chunk to the journal; returns how many.
    pub(super) fn keep(&self, journal: &mut Journal, found: &[Outcome]) -> Result<u64> {
        let mut chunk = Chunk::default();
        for found in found {
            match found {
                Outcome::New(file, Ok((size, row))) => {
                    chunk.keys.push(file.key);
                    chunk.sizes.push(*size);
                    chunk.rows.extend_from_slice(row);
                }
                Outcome::New(file, Err(failure)) => {
                    self.known().insert(file.key, Known::Failed(failure.clone()));
                }
                Outcome::Unread(_) | Outcome::Seen(..) => {}
            }
        }
        if !chunk.keys.is_empty() {
            let number = journal.push(&chunk)?;
            let mut known = self.known();
            for (row, (key, size)) in chunk.keys.iter().zip(&chunk.sizes).enumerate() {
                let place = RowPlace::Journal(JournalRow { chunk: number, row });
                known.insert(*key, Known::Encoded { size: *size, place });
            }
        }
        Ok(chunk.keys.len() as u64)
    }

    /// The manifest's line for one name, once its chunk is kept.
    pub(super) fn picture(&self, name: &str, found: Outcome) -> Picture {
        let none = Picture {
            name: name.to_string(),
            key: ImageKey::NONE,
            bytes: 0,
            width: 0,
            height: 0,
            failure: None,
            file: None,
        };
        let (key, bytes, file) = match found {
            Outcome::Unread(failure) => return Picture { failure: Some(failure), ..none },
            Outcome::Seen(file) | Outcome::New(file, _) => (file.key, file.bytes, file.name),
        };
        match &self.known()[&key] {
            Known::Claimed => {
                unreachable!("every claim of a chunk is settled when the chunk is kept")
            }
            Known::Failed(failure) => {
                Picture { bytes, failure: Some(failure.clone()), file, ..none }
            }
            Known::Encoded { size: [width, height], .. } => {
                Picture { key, bytes, width: *width, height: *height, file, ..none }
            }
        }
    }
}

/// The row as f16, or why halfs cannot hold it.
fn halves(row: &[f32]) -> std::result::Result<Vec<f16>, Failure> {
    let mut halves = Vec::with_capacity(row.len());
    match halves::put(row.iter().copied(), f16::from_f32, &mut halves) {
        Ok(_) => Ok(halves),
        Err(unfit) => {
            let reason = match unfit {
                Unfit::Beyond(..) => Reason::NotFinite,
                Unfit::Small(_) => Reason::TooSmall,
            };
            Err(Failure::new(reason, unfit.words("the encoder's row")))
        }
    }
}
