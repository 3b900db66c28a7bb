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

/// A folder filled under another name beside its place, and moved there as a whole. Dropped before
/// that, it leaves nothing behind.
///
/// Several processes that see the same disk can fill one together: the first begins it with
/// [`StagedFolder::create_shared`], the others [`StagedFolder::join`] it.
#[derive(Debug)]
pub struct StagedFolder {
    path: PathBuf,
    temporary: PathBuf,
    /// Whether this one removes what does not get its name.
    owner: bool,
}

impl StagedFolder {
    /// Begins the folder that will be `path`, under a name that nobody else has; parents are made.
    ///
    /// # Errors
    /// [`Error::Io`] if the parent cannot be written.
    pub fn create(path: &Path) -> Result<StagedFolder> {
        let temporary = beside(path);
        fs::create_dir_all(&temporary).map_err(Error::io(path))?;
        Ok(StagedFolder { path: path.to_path_buf(), temporary, owner: true })
    }

    /// The same under the name that [`building_name`] says; what a killed process left there is
    /// removed.
    ///
    /// # Errors
    /// If `path` cannot be the name of a folder, or its parent cannot be written.
    pub fn create_shared(path: &Path) -> Result<StagedFolder> {
        let mut folder = StagedFolder::join(path)?;
        if folder.temporary.exists() {
            fs::remove_dir_all(&folder.temporary).map_err(Error::io(&folder.temporary))?;
        }
        fs::create_dir_all(&folder.temporary).map_err(Error::io(path))?;
        folder.owner = true;
        Ok(folder)
    }

    /// The folder that another process began for `path`.
    ///
    /// # Errors
    /// If `path` cannot be the name of a folder.
    pub fn join(path: &Path) -> Result<StagedFolder> {
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.ok_or_else(|| Error::content(path, "is not the name of a folder"))?;
        let temporary = parent(path).join(building_name(&name));
        Ok(StagedFolder { path: path.to_path_buf(), temporary, owner: false })
    }

    /// Where the folder will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where to write until then.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name, which is free or that of an empty folder.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses; nothing stays behind then.
    pub fn commit(mut self) -> Result<()> {
        appear(&self.temporary, &self.path)?;
        self.owner = false;
        Ok(())
    }

    /// Gives the folder its name; a folder that has it is removed.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses; the old folder then has its name back.
    pub fn replace(mut self) -> Result<()> {
        let retired = self.path.exists().then(|| beside(&self.path));
        if let Some(retired) = &retired {
            fs::rename(&self.path, retired).map_err(Error::io(&self.path))?;
        }
        if let Err(error) = appear(&self.temporary, &self.path) {
            if let Some(retired) = &retired {
                let _ = fs::rename(retired, &self.path);
            }
            return Err(error);
        }
        self.owner = false;
        match retired {
            Some(retired) => fs::remove_dir_all(&retired).map_err(Error::io(&retired)),
            None => Ok(()),
        }
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if self.owner {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Moves the folder `built` to `place`, which is free or an empty folder, so that both survive a
/// power cut.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
pub fn appear(built: &Path, place: &Path) -> Result<()> {
    sync_folder(built)?;
    fs::rename(built, place).map_err(Error::io(place))?;
    sync_folder(parent(place))
}

/// Removes the folder at `place`, if it is there, and what a killed process left of it. It is
/// renamed to `.NAME.retired` first: nothing half-removed has its name.
///
/// # Errors
/// [`Error::Io`] if the system refuses.
pub fn remove_folder(place: &Path) -> Result<()> {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let retired = place.with_file_name(format!(".{name}.retired"));
    if retired.exists() {
        fs::remove_dir_all(&retired).map_err(Error::io(&retired))?;
    }
    if !place.exists() {
        return Ok(());
    }
    fs::rename(place, &retired).map_err(Error::io(place))?;
    fs::remove_dir_all(&retired).map_err(Error::io(&retired))
}

/// The name under which several processes build the folder called `name`.
pub fn building_name(name: &str) -> String {
    format!(".{name}.building")
}

/// Whether `name` is one of [`building_name`]: a folder that is being built, or was left behind.
pub fn is_building_name(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".building")
}

/// The folder that `path` is in.
fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
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
        folder.replace().unwrap();
        assert_eq!(names(dir.path()), ["set"]);
        assert_eq!(names(&path), ["new"]);
    }

    #[test]
    fn a_commit_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "").unwrap();
        StagedFolder::create(&path).unwrap().commit().unwrap_err();
        assert_eq!((names(dir.path()), names(&path)), (vec!["set".into()], vec!["old".into()]));
    }

    #[test]
    fn a_removed_folder_takes_what_was_left_of_it_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set");
        for made in [&["set"][..], &["set", ".set.retired"], &[".set.retired"], &[]] {
            for name in made {
                fs::create_dir(dir.path().join(name)).unwrap();
                fs::write(dir.path().join(name).join("file"), "").unwrap();
            }
            remove_folder(&path).unwrap();
            assert_eq!(names(dir.path()), [""; 0], "{made:?}");
        }
    }
}
