//! Files hashed as they are written, and names beside other names.
//!
//! Does not know what is in a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use ams_data::staging::FileEntry;
use ams_data::{Error, Result};

/// A file being written under its final name inside a folder nobody reads yet; hashed on the way.
pub(crate) struct HashedFile {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashedFile {
    /// Creates the file, or fails where it exists already.
    pub(crate) fn create(path: impl Into<PathBuf>) -> Result<HashedFile> {
        let path = path.into();
        let file = File::create_new(&path).map_err(Error::io(&path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        Ok(HashedFile { path, file, hasher: blake3::Hasher::new(), bytes: 0 })
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Flushes to the disk itself; returns what the card says about the file.
    pub(crate) fn finish(mut self) -> Result<FileEntry> {
        self.file.flush().map_err(Error::io(&self.path))?;
        self.file.get_ref().sync_all().map_err(Error::io(&self.path))?;
        Ok(FileEntry { bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() })
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// `path` with `suffix` behind its last name: `a/images` and `.partial` give `a/images.partial`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_and_length_are_those_of_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = HashedFile::create(folder.path().join("a")).unwrap();
        file.push(b"abc").unwrap();
        file.push(b"def").unwrap();
        let blake3 = blake3::hash(b"abcdef").to_hex().to_string();
        assert_eq!(file.finish().unwrap(), FileEntry { bytes: 6, blake3 });
        let error = HashedFile::create(folder.path().join("a")).err().expect("it exists");
        assert!(error.to_string().contains("File exists"), "{error}");
    }

    #[test]
    fn beside_keeps_the_folder() {
        assert_eq!(beside(Path::new("a/images"), ".partial"), Path::new("a/images.partial"));
    }
}
