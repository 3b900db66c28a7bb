//! Files and folders that appear whole or not at all. Knows names and renames, not contents.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Length and hash of a file, as the list of a folder has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Length of the content in bytes.
    pub bytes: u64,
    /// blake3 of the content, lowercase hexadecimal.
    pub blake3: String,
}

/// A file written under a temporary name beside its place; [`StagedFile::commit`] moves it there.
/// Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct StagedFile {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
}

impl StagedFile {
    /// Begins the file that will be `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub fn create(path: &Path) -> Result<StagedFile> {
        let temporary = beside(path);
        let file = File::create(&temporary).map_err(Error::io(&temporary))?;
        Ok(StagedFile { path: path.to_path_buf(), temporary, file: Some(file) })
    }

    /// Where the file will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes the file to the disk and gives it its name, replacing what had it.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses; nothing is left under either name then.
    pub fn commit(mut self) -> Result<()> {
        let file = self.file.take().expect("the file is open until commit");
        let moved = file.sync_all().and_then(|()| fs::rename(&self.temporary, &self.path));
        if moved.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        moved.map_err(Error::io(&self.path))
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().expect("the file is open until commit").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().expect("the file is open until commit").flush()
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `content` to `path`, whole or not at all.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
pub fn write_whole(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut file = StagedFile::create(path)?;
    file.write_all(content.as_ref()).map_err(Error::io(path))?;
    file.commit()
}

/// Makes the names in `folder` survive a power cut.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // Windows has no way to sync a folder, and needs none.
    if cfg!(unix) {
        let file = File::open(folder).map_err(Error::io(folder))?;
        file.sync_all().map_err(Error::io(folder))?;
    }
    Ok(())
}

/// A folder filled under a temporary name beside its place; [`StagedFolder::commit`] moves it
/// there. Dropped without commit, it leaves nothing behind.
#[derive(Debug)]
pub struct StagedFolder {
    path: PathBuf,
    temporary: PathBuf,
    committed: bool,
}

impl StagedFolder {
    /// Begins the folder that will be `path`; parents are made.
    ///
    /// # Errors
    /// [`Error::Io`] if the parent cannot be written.
    pub fn create(path: &Path) -> Result<StagedFolder> {
        let temporary = beside(path);
        fs::create_dir_all(&temporary).map_err(Error::io(&temporary))?;
        Ok(StagedFolder { path: path.to_path_buf(), temporary, committed: false })
    }

    /// Where to write until the commit.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name; a folder that has it is replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses; the old folder then has its name back.
    pub fn commit(mut self) -> Result<()> {
        let retired = self.path.exists().then(|| beside(&self.path));
        if let Some(retired) = &retired {
            fs::rename(&self.path, retired).map_err(Error::io(&self.path))?;
        }
        if let Err(error) = fs::rename(&self.temporary, &self.path) {
            if let Some(retired) = &retired {
                let _ = fs::rename(retired, &self.path);
            }
            return Err(Error::io(&self.path)(error));
        }
        self.committed = true;
        match retired {
            Some(retired) => fs::remove_dir_all(&retired).map_err(Error::io(&retired)),
            None => Ok(()),
        }
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// An unused name in the folder of `path`: `NAME.tmp-PROCESS-N`.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    (0u64..)
        .map(|n| path.with_file_name(format!("{name}.tmp-{process}-{n}")))
        .find(|candidate| !candidate.exists())
        .expect("there is always an unused name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = StagedFile::create(&dir.path().join("a")).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn a_committed_folder_replaces_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        let folder = StagedFolder::create(&path).unwrap();
        fs::write(folder.temporary().join("new"), "").unwrap();
        folder.commit().unwrap();
        assert_eq!(names(dir.path()), ["set"]);
        assert_eq!(names(&path), ["new"]);
    }
}
