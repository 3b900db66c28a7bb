//! Parts of a log as they land: which are new and whole; and the files of rows that wait.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ams_bundle::{Error, Result};
use ams_data::prepare::is_hidden_below;
use ams_data::source::{Files, Input};

use crate::follow::{PartRead, Waiting, to_milliseconds};

/// The first and the last bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// The parts in a folder.
#[derive(Debug, Default)]
pub struct Landed {
    /// Those that are whole and were not read, by name.
    pub new: Vec<Part>,
    /// Names of those whose last bytes are not there.
    pub unfinished: Vec<String>,
}

/// A part that was not read yet.
#[derive(Debug)]
pub struct Part {
    name: String,
    input: Arc<dyn Input>,
    stamp: Option<String>,
}

impl Landed {
    /// Looks into `folder`. `read` are the parts that were read; forgets those that are gone.
    ///
    /// # Errors
    /// If the folder cannot be listed, or a part that was read is another one now.
    pub fn look(
        files: &dyn Files,
        folder: &Path,
        read: &mut BTreeMap<String, PartRead>,
    ) -> Result<Landed> {
        let mut there: BTreeMap<String, (Arc<dyn Input>, String)> = BTreeMap::new();
        for of in files.list(folder)? {
            if !of.below.ends_with(".parquet") || is_hidden_below(&of.below) {
                continue;
            }
            // Without a stamp it was removed just now.
            if let Some(stamp) = of.input.stamp() {
                there.insert(of.below, (of.input, stamp));
            }
        }
        read.retain(|name, _| there.contains_key(name));
        let mut landed = Landed::default();
        for (name, (input, stamp)) in there {
            match read.get_mut(&name) {
                Some(read) => still(read, &*input, stamp)?,
                None if is_whole(&*input) => {
                    landed.new.push(Part { name, input, stamp: Some(stamp) });
                }
                None => landed.unfinished.push(name),
            }
        }
        Ok(landed)
    }
}

/// That a part is what it was when it was read.
fn still(read: &mut PartRead, input: &dyn Input, stamp: String) -> Result<()> {
    if read.stamp.as_ref() == Some(&stamp) {
        return Ok(());
    }
    let blake3 = match hash(input) {
        Err(_) if input.stamp().is_none() => return Ok(()),
        blake3 => blake3?,
    };
    if blake3 != read.blake3 {
        let what = format!(
            "was read with blake3 {}, and has {blake3} now; what was read is learned and stays so: put it back, or \
             remove it, and let new events land in a part of another name",
            read.blake3
        );
        return Err(Error::content(input.path(), what));
    }
    read.stamp = Some(stamp);
    Ok(())
}

impl Part {
    /// Its name below the folder, with `/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, or its address in a bucket.
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// Whether it is what it was when it was listed.
    pub fn is_as_listed(&self) -> bool {
        self.input.stamp() == self.stamp
    }

    /// What is kept of it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<PartRead> {
        Ok(PartRead { stamp: self.stamp.clone(), blake3: hash(&*self.input)? })
    }

    /// When its file was written, in Unix seconds; not known of an object in a bucket.
    pub fn written(&self) -> Option<f64> {
        let at = std::fs::metadata(self.path()).and_then(|about| about.modified()).ok()?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(to_milliseconds(since.as_secs_f64()))
    }
}

/// Name of the rows of part `number`, without its ending.
pub fn rows_name(number: u64) -> String {
    format!("{number:08}")
}

/// Removes files of rows in `folder` that do not wait.
///
/// # Errors
/// If the folder cannot be listed, or something in it not be removed.
pub fn sweep_rows(folder: &Path, waiting: &[Waiting]) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let waits = |window: &Path, name: Option<&str>| {
        let window = window.file_name().and_then(|name| name.to_str());
        waiting.iter().any(|of| {
            let file = format!("{}.parquet", rows_name(of.part));
            window == Some(&of.window.to_string()) && name.is_none_or(|name| name == file)
        })
    };
    for window in entries(folder)? {
        for file in entries(&window)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !waits(&window, Some(&name)) {
                std::fs::remove_file(&file).map_err(Error::io(&file))?;
            }
        }
        if !waits(&window, None) {
            std::fs::remove_dir(&window).map_err(Error::io(&window))?;
        }
    }
    Ok(())
}

/// The paths in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let path = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.path());
    entries.map(path).collect::<std::io::Result<_>>().map_err(Error::io(folder))
}

/// Whether a Parquet file has its last bytes, which are written last.
fn is_whole(input: &dyn Input) -> bool {
    let length = input.length();
    let Ok(file) = input.at_random() else { return false };
    let is_mark = |at| file.read_at(at, 4).is_ok_and(|bytes| bytes == PARQUET);
    length >= 12 && is_mark(0) && is_mark(length - 4)
}

/// blake3 of all bytes.
fn hash(input: &dyn Input) -> Result<String> {
    let failed = |error| Error::io(input.path())(error);
    let mut reader = input.reader().map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match reader.read(&mut bytes).map_err(failed)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            read => hasher.update(&bytes[..read]),
        };
    }
}

#[cfg(test)]
mod tests {
    use ams_data::source::LocalFiles;

    use super::*;

    #[test]
    fn parts_land_whole_and_stay_what_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("b.parquet", "PAR1....PAR1");
        write("a.parquet", "PAR1....");
        for hidden in ["_c.parquet", ".d.parquet", "e.csv"] {
            write(hidden, "PAR1....PAR1");
        }
        std::fs::create_dir(dir.path().join("day")).unwrap();
        write("day/f.parquet", "PAR1.....PAR1");
        let mut read = BTreeMap::new();
        let look = |read: &mut _| Landed::look(&LocalFiles, dir.path(), read);
        let landed = look(&mut read).unwrap();
        let names: Vec<&str> = landed.new.iter().map(Part::name).collect();
        assert_eq!(names, ["b.parquet", "day/f.parquet"]);
        assert_eq!(landed.unfinished, ["a.parquet"]);
        for part in &landed.new {
            read.insert(part.name().to_owned(), part.read().unwrap());
            assert!(part.is_as_listed() && part.written().is_some());
        }

        // The same bytes at another time are the same part, others are not.
        write("b.parquet", "PAR1....PAR1");
        std::fs::remove_file(dir.path().join("day/f.parquet")).unwrap();
        assert!(!landed.new[1].is_as_listed());
        assert!(look(&mut read).unwrap().new.is_empty());
        assert_eq!(read.keys().collect::<Vec<_>>(), ["b.parquet"]);
        write("b.parquet", "PAR1...PAR1");
        let error = look(&mut read).unwrap_err().to_string();
        assert!(error.contains("b.parquet") && error.contains("was read with blake3"), "{error}");
    }

    #[test]
    fn rows_that_do_not_wait_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("waiting");
        sweep_rows(&folder, &[]).unwrap();
        for (window, part) in [(60, 1), (60, 2), (120, 2), (180, 1)] {
            let folder = folder.join(window.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(rows_name(part) + ".parquet"), "").unwrap();
        }
        std::fs::write(folder.join("60/00000001.parquet.tmp-5"), "").unwrap();
        let of = |window, part| Waiting { window, part, rows: 1, landed: 0.0 };
        sweep_rows(&folder, &[of(60, 1), of(120, 2)]).unwrap();
        let mut left: Vec<PathBuf> =
            entries(&folder).unwrap().iter().flat_map(|of| entries(of).unwrap()).collect();
        left.sort();
        let expected = ["120/00000002.parquet", "60/00000001.parquet"].map(|of| folder.join(of));
        assert_eq!(left, expected);
    }
}
