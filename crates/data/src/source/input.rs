//! Where the bytes of a table come from: a file of this host, bytes in memory, or whatever else can
//! be read twice.
//!
//! Knows bytes and how to find files ([`Files`]). Does not know formats; buckets implement the same
//! traits elsewhere.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{Error, Result};

/// Bytes that can be read from the start any number of times, always the same.
pub trait Input: Debug + Send + Sync {
    /// What messages call it.
    fn path(&self) -> &Path;

    /// Length in bytes, as stored, not as decompressed.
    fn length(&self) -> u64;

    /// Reads it from the start.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn reader(&self) -> io::Result<Box<dyn Read + Send>>;

    /// Opens it for reads at any place.
    ///
    /// # Errors
    /// If it cannot be opened.
    fn at_random(&self) -> io::Result<Arc<dyn ReadAt>>;

    /// A text that is another one when the content is, if it can be told without reading.
    fn stamp(&self) -> Option<String> {
        None
    }

    /// Whether reading waits for a network, so that reading ahead saves time.
    fn is_far(&self) -> bool {
        false
    }
}

/// Reads at any place.
pub trait ReadAt: Send + Sync {
    /// The `length` bytes from `start` on.
    ///
    /// # Errors
    /// If there are fewer, or they cannot be read.
    fn read_at(&self, start: u64, length: usize) -> io::Result<Bytes>;
}

/// A place where files are found by name: this host, or a bucket.
pub trait Files {
    /// The file `named`, or all files below the folder `named`, hidden ones too; none if there is
    /// nothing. Their order does not matter.
    ///
    /// # Errors
    /// If a folder cannot be listed, or what is there is neither a file nor a folder.
    fn list(&self, named: &Path) -> Result<Vec<Listed>>;

    /// The names of files and folders that `pattern` matches, with `*`, `?`, `[..]` and `**` as in
    /// a shell. Where a folder matches, what is below it need not be among them.
    ///
    /// # Errors
    /// If the pattern is none, or a folder cannot be listed.
    fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>>;
}

/// A file that was found.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name below the folder that was listed, with `/`; empty for a file that was itself
    /// named.
    pub below: String,
    /// The bytes, which are read only where a reader asks.
    pub input: Arc<dyn Input>,
}

/// The files of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

impl Files for LocalFiles {
    fn list(&self, named: &Path) -> Result<Vec<Listed>> {
        let about = match std::fs::metadata(named) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(named)(error)),
        };
        if about.is_file() {
            return Ok(vec![listed(String::new(), named, about.len())]);
        }
        if !about.is_dir() {
            let what = "neither a file nor a folder; a table is read more than once, so write a pipe's rows to a file";
            return Err(Error::content(named, what));
        }
        let mut files = Vec::new();
        walk(named, "", &mut files)?;
        Ok(files)
    }

    fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>> {
        let wrong = |error: glob::PatternError| {
            Error::option(format!("{pattern}: not a pattern of file names: {error}"))
        };
        let paths = glob::glob_with(pattern, GLOB).map_err(wrong)?;
        let path = |found: glob::GlobResult| {
            found.map_err(|error| Error::io(error.path().to_path_buf())(error.into()))
        };
        paths.map(path).collect()
    }
}

/// How names are matched: `*` stays within a folder and does not begin with a dot.
pub const GLOB: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

fn listed(below: String, path: &Path, length: u64) -> Listed {
    Listed { below, input: Arc::new(LocalFile { path: path.to_path_buf(), length }) }
}

/// Whether a name below a folder is not data by custom: `_SUCCESS`, `.part-0.crc`, `_delta_log`. A
/// partition's folder may begin with `_`.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || (name.starts_with('_') && !name.contains('='))
}

/// Lists the files below `folder`; hidden folders are named, and not looked into.
fn walk(folder: &Path, below: &str, files: &mut Vec<Listed>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(_) if is_gone(folder) && !below.is_empty() => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let inner = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        if is_hidden(&name) {
            files.push(listed(inner, &path, 0));
            continue;
        }
        // Links are followed; what leads in a circle is refused by the system.
        let about = match std::fs::metadata(&path) {
            Err(_) if is_gone(&path) => continue,
            about => about.map_err(Error::io(&path))?,
        };
        if about.is_dir() {
            walk(&path, &inner, files)?;
        } else if about.is_file() {
            files.push(listed(inner, &path, about.len()));
        } else {
            return Err(Error::content(&path, "neither a file nor a folder"));
        }
    }
    Ok(())
}

/// Whether somebody removed or renamed what was listed at `path`; a link that leads nowhere is
/// there.
fn is_gone(path: &Path) -> bool {
    let about = std::fs::symlink_metadata(path);
    about.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// A file of this host.
#[derive(Debug)]
pub(crate) struct LocalFile {
    path: PathBuf,
    length: u64,
}

impl Input for LocalFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn stamp(&self) -> Option<String> {
        let about = std::fs::metadata(&self.path).ok()?;
        let since = about.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(format!("{}-{}", about.len(), since.as_nanos()))
    }

    fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn at_random(&self) -> io::Result<Arc<dyn ReadAt>> {
        let file = File::open(&self.path)?;
        Ok(Arc::new(LocalAt { path: self.path.clone(), file, map: OnceLock::new() }))
    }
}

/// A file of this host at any place: short pieces are copied, long ones mapped, so that neither
/// takes memory for long.
struct LocalAt {
    path: PathBuf,
    file: File,
    map: OnceLock<Bytes>,
}

/// Pieces from this length on are mapped, bytes.
const LONG: usize = 32 << 20;

#[cfg(unix)]
fn read_exact_at(file: &File, to: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, to, start)
}

#[cfg(not(unix))]
fn read_exact_at(file: &File, to: &mut [u8], start: u64) -> io::Result<()> {
    use std::io::Seek;
    let mut file = file.try_clone()?;
    file.seek(io::SeekFrom::Start(start))?;
    file.read_exact(to)
}

impl ReadAt for LocalAt {
    fn read_at(&self, start: u64, length: usize) -> io::Result<Bytes> {
        if length < LONG {
            let mut bytes = vec![0; length];
            read_exact_at(&self.file, &mut bytes, start)?;
            return Ok(bytes.into());
        }
        let map = match self.map.get() {
            Some(map) => map,
            None => {
                let map = crate::map(&self.path).map_err(|error| match error {
                    Error::Io { source, .. } => source,
                    other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
                })?;
                self.map.get_or_init(|| Bytes::from_owner(map))
            }
        };
        map.read_at(start, length)
    }
}

impl ReadAt for Bytes {
    fn read_at(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start.checked_add(length).filter(|&end| end <= self.len());
        let end = end.ok_or_else(|| {
            let what = format!("{length} bytes at {start} are outside of its {} bytes", self.len());
            io::Error::new(io::ErrorKind::UnexpectedEof, what)
        })?;
        Ok(self.slice(start..end))
    }
}

/// Bytes in memory as a file.
#[derive(Debug)]
pub struct MemoryFile {
    path: PathBuf,
    bytes: Bytes,
}

impl MemoryFile {
    /// `bytes` as a file that messages call `path`.
    pub fn new(path: impl Into<PathBuf>, bytes: impl Into<Bytes>) -> MemoryFile {
        MemoryFile { path: path.into(), bytes: bytes.into() }
    }
}

impl Input for MemoryFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.bytes.clone())))
    }

    fn at_random(&self) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(self.bytes.clone()))
    }
}
