//! Tables in buckets: their files are found and read where they are, a piece at a time.
//!
//! Knows objects and ranges of bytes. Does not know formats of tables.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ams_data::source::{Files, GLOB, Input, Listed, LocalFiles, ReadAt};
use ams_data::{Error, Result};
use bytes::Bytes;

use crate::Locations;
use crate::address::{Address, local};
use crate::object::Object;
use crate::remote::Remote;

impl Files for Locations {
    fn list(&self, named: &Path) -> Result<Vec<Listed>> {
        match Address::parse_folder(named)? {
            None => LocalFiles.list(&local(named)?),
            Some(address) => list(&Arc::new(self.connect(&address)?), &address),
        }
    }

    fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        let base = pattern.find(['*', '?', '[']).and_then(|at| pattern[..at].rfind('/'));
        let base = base.map_or("", |at| &pattern[..at]);
        match Address::parse_folder(Path::new(base))? {
            None => {
                let pattern = local(Path::new(pattern))?;
                LocalFiles.expand(&pattern.to_string_lossy())
            }
            Some(address) => expand(&self.connect(&address)?, &address, pattern),
        }
    }
}

/// The objects at `address` or below it.
pub(crate) fn list(remote: &Arc<Remote>, address: &Address) -> Result<Vec<Listed>> {
    let listed = remote.list(address)?.into_iter().filter_map(|object| {
        let below = address.relative(&object.key)?.to_owned();
        let path =
            PathBuf::from(Address { key: object.key.clone(), ..address.clone() }.to_string());
        Some(Listed {
            below,
            input: Arc::new(RemoteFile { remote: Arc::clone(remote), object, path }),
        })
    });
    Ok(listed.collect())
}

/// The objects and folders below `address` that the pattern matches, in full.
pub(crate) fn expand(remote: &Remote, address: &Address, pattern: &str) -> Result<Vec<PathBuf>> {
    let wrong = |error: glob::PatternError| {
        Error::option(format!("{pattern}: not a pattern of names: {error}"))
    };
    let matcher = glob::Pattern::new(pattern).map_err(wrong)?;
    let mut found = BTreeSet::new();
    for object in remote.list(address)? {
        // Whichever comes first, the object or a folder that it is in.
        let full = Address { key: object.key, ..address.clone() }.to_string();
        let ends = full.match_indices('/').map(|(at, _)| at).chain([full.len()]);
        found.extend(
            ends.map(|end| &full[..end])
                .find(|name| matcher.matches_with(name, GLOB))
                .map(PathBuf::from),
        );
    }
    Ok(found.into_iter().collect())
}

/// An object that is read in pieces. It has to stay what it was when it was listed.
#[derive(Debug)]
struct RemoteFile {
    remote: Arc<Remote>,
    object: Object,
    path: PathBuf,
}

impl Input for RemoteFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self) -> u64 {
        self.object.bytes
    }

    fn stamp(&self) -> Option<String> {
        Some(format!("{}-{}", self.object.bytes, self.object.tag))
    }

    fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        let (remote, object) = (Arc::clone(&self.remote), self.object.clone());
        Ok(Box::new(InOrder { remote, object, next: 0, piece: Bytes::new() }))
    }

    fn at_random(&self) -> io::Result<Arc<dyn ReadAt>> {
        let (remote, object) = (Arc::clone(&self.remote), self.object.clone());
        Ok(Arc::new(Blocks { remote, object, kept: Mutex::default() }))
    }

    fn is_far(&self) -> bool {
        true
    }
}

fn io_error(error: Error) -> io::Error {
    // Whoever reads says of which file.
    let what = match error {
        Error::Content { what, .. } => what,
        other => other.to_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// An object from its beginning on. One long answer would have to come faster than a server gives
/// up, however slowly its rows are used; so pieces are asked for.
struct InOrder {
    remote: Arc<Remote>,
    object: Object,
    /// Where the next piece begins.
    next: u64,
    piece: Bytes,
}

impl Read for InOrder {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.next < self.object.bytes && !to.is_empty() {
            // Whoever only looks at the beginning waits for little.
            let length = self.next.clamp(FIRST_PIECE, PIECE);
            let range = self.next..self.object.bytes.min(self.next + length);
            self.piece = whole(&self.remote, &self.object, range.clone())?;
            self.next = range.end;
        }
        let count = to.len().min(self.piece.len());
        to[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// All bytes of a range of an object.
fn whole(remote: &Remote, object: &Object, range: Range<u64>) -> io::Result<Bytes> {
    let length = range.end - range.start;
    let bytes = remote.range(object, range).map_err(io_error)?;
    if bytes.len() as u64 != length {
        return Err(invalid(&format!("received {} bytes, expected {length}", bytes.len())));
    }
    Ok(bytes)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Bytes that are fetched at a time from the beginning on, at first and later.
const FIRST_PIECE: u64 = 64 << 10;
const PIECE: u64 = 8 << 20;

/// Bytes that are fetched at a time for reads at any place.
const BLOCK: u64 = 4 << 20;

/// Blocks that are kept: as many columns as a log usually has are read side by side.
const KEPT: usize = 32;

/// An object at any place.
struct Blocks {
    remote: Arc<Remote>,
    object: Object,
    /// Blocks by their number, the one used last at the end.
    kept: Mutex<Vec<(u64, Bytes)>>,
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("object", &self.object).finish_non_exhaustive()
    }
}

impl Blocks {
    fn block(&self, number: u64) -> io::Result<Bytes> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let block = match kept.iter().position(|(other, _)| *other == number) {
            Some(at) => kept.remove(at).1,
            None => {
                let range = number * BLOCK..self.object.bytes.min((number + 1) * BLOCK);
                let block = whole(&self.remote, &self.object, range)?;
                if kept.len() >= KEPT {
                    kept.remove(0);
                }
                block
            }
        };
        kept.push((number, block.clone()));
        Ok(block)
    }
}

impl ReadAt for Blocks {
    fn read_at(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.object.bytes);
        let end = end.ok_or_else(|| invalid("bytes outside of the object"))?;
        let mut all = Vec::with_capacity(length);
        let mut at = start;
        while at < end {
            let block = self.block(at / BLOCK)?;
            let from = (at % BLOCK) as usize;
            let count = ((end - at) as usize).min(block.len().saturating_sub(from));
            if count == 0 {
                return Err(invalid("received fewer bytes than were asked for"));
            }
            if at == start && count == length {
                return Ok(block.slice(from..from + count));
            }
            all.extend_from_slice(&block[from..from + count]);
            at += count as u64;
        }
        Ok(all.into())
    }
}
