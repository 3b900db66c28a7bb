//! Files read where they are.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps a whole file for reading.
///
/// # Errors
/// If it cannot be opened, or is empty: no format here has an empty file.
pub fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length == 0 {
        return Err(Error::content(path, "the file is empty"));
    }
    // SAFETY: the map is read-only and lives as long as its users. What cannot be ruled out, as
    // with any map, is another program changing the file meanwhile: what is mapped here is
    // never written in place, only created under a new name and renamed.
    #[allow(unsafe_code)]
    unsafe { Mmap::map(&file) }.map_err(Error::io(path))
}
