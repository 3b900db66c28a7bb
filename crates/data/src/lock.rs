//! One writer per folder: a lock that the system gives back when its holder dies, however it dies.
//!
//! The lock of `runs/<name>` is on `runs/.<name>.lock`, beside the folder, so that it outlives a
//! folder that is replaced. The file says who holds it, for messages. Its holder removes it in the
//! end; if it was killed the file stays and means nothing, because what counts is the lock on it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Between two looks at a lock that is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// A folder that one process at a time writes, such as a run or a feature store, held by this one.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it gives the lock back.
    _file: File,
    /// Folders made for it, deepest first.
    made: Vec<PathBuf>,
}

impl Lock {
    /// Takes what is called `name` in `folder`, which is made if needed.
    ///
    /// # Errors
    /// If another process holds it, or the file cannot be written.
    pub fn take(folder: &Path, name: &str) -> Result<Lock> {
        Lock::wait(folder, name, Duration::ZERO)
    }

    /// The same, but waits up to `patience` for another holder: for what is held for moments only.
    ///
    /// # Errors
    /// If another process holds it all that time, or the file cannot be written.
    pub fn wait(folder: &Path, name: &str, patience: Duration) -> Result<Lock> {
        let path = folder.join(format!(".{name}.lock"));
        let begun = Instant::now();
        let mut made = Vec::new();
        loop {
            // Each time: a holder before removes the folders that it made.
            let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
            made.extend(folder.ancestors().take_while(missing).map(Path::to_path_buf));
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
            let opened =
                OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = opened.map_err(Error::io(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let advice = if patience.is_zero() {
                        "wait for it, end it, or choose another name".to_owned()
                    } else {
                        format!(
                            "try again, or end it: {} s were not enough",
                            patience.as_secs_f32()
                        )
                    };
                    let what = format!("is held by another job ({}); {advice}", holder.trim());
                    return Err(Error::content(&path, what));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
            }
            // The holder before may have removed the file between opening and locking it.
            if !is_at(&file, &path) {
                continue;
            }
            let holder = format!("process {}\n", std::process::id());
            let said = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
            said.map_err(Error::io(&path))?;
            return Ok(Lock { path, _file: file, made });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // A training that was refused leaves nothing; folders that hold something stay by
        // themselves.
        for folder in &self.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Whether `path` still names `file`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if place(&a) == place(&b))
}

/// Whether `path` still names `file`: elsewhere an open file cannot be removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_at_a_time() {
        let runs = tempfile::tempdir().unwrap();
        let lock = Lock::take(runs.path(), "a").unwrap();
        let error = Lock::take(runs.path(), "a").unwrap_err().to_string();
        let holder = format!("is held by another job (process {})", std::process::id());
        assert!(error.contains(".a.lock") && error.contains(&holder), "{error}");
        Lock::take(runs.path(), "b").expect("another name");
        drop(lock);
        Lock::take(runs.path(), "a").expect("its holder is gone");
        assert_eq!(fs::read_dir(runs.path()).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn who_waits_gets_it_after_its_holder() {
        let runs = tempfile::tempdir().unwrap();
        let lock = Lock::take(runs.path(), "a").unwrap();
        let error = Lock::wait(runs.path(), "a", 2 * PAUSE).unwrap_err().to_string();
        assert!(error.contains("try again, or end it"), "{error}");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| Lock::wait(runs.path(), "a", Duration::from_secs(600)));
            std::thread::sleep(3 * PAUSE);
            assert!(!waits.is_finished());
            drop(lock);
            waits.join().unwrap().unwrap();
        });
        assert_eq!(fs::read_dir(runs.path()).unwrap().count(), 0, "nothing stays behind");
    }

    #[test]
    fn folders_made_for_nothing_go_away() {
        let place = tempfile::tempdir().unwrap();
        drop(Lock::take(&place.path().join("a/b"), "x").unwrap());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        let lock = Lock::take(&place.path().join("a/b"), "x").unwrap();
        fs::write(place.path().join("a/kept"), "").unwrap();
        drop(lock);
        assert!(place.path().join("a/kept").exists() && !place.path().join("a/b").exists());
    }
}
