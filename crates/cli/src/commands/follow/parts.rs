//! Parts of a log as they land: which are new and whole; and the files of rows that wait.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ams_daily::{PartRead, Waiting, to_milliseconds};
use ams_data::prepare::is_hidden_below;
use ams_data::source::{Files, Input};
use ams_location::{Locations, is_remote};

use crate::failure::Failure;
use crate::output::Output;

/// The first and the last bytes of a Parquet file.
const PARQUET: &[u8] = b"PAR1";

/// The folder in which parts land.
pub(super) struct Parts {
    pub(super) folder: PathBuf,
    /// Parts that were not whole at the last look.
    pub(super) unfinished: Vec<String>,
}

/// A part that was not read yet.
pub(super) struct Part {
    pub(super) name: String,
    input: Arc<dyn Input>,
    stamp: Option<String>,
}

impl Parts {
    /// The parts that are whole and were not read, by name. `read` are those that were; forgets
    /// those that are gone.
    ///
    /// # Errors
    /// If one that was read is another one now.
    pub(super) fn look(
        &mut self,
        locations: &Locations,
        read: &mut BTreeMap<String, PartRead>,
        output: Output<'_>,
    ) -> Result<Vec<Part>, Failure> {
        // A disk that is away for a moment has not lost its parts.
        if !is_remote(&self.folder) && !self.folder.is_dir() {
            let folder = self.folder.display();
            let what = format!("{folder}: no such folder; expected one in which parts land");
            return Err(Failure::user(what));
        }
        let mut there: BTreeMap<String, Arc<dyn Input>> = BTreeMap::new();
        for of in locations.list(&self.folder)? {
            if of.below.ends_with(".parquet") && !is_hidden_below(&of.below) {
                there.insert(of.below, of.input);
            }
        }
        read.retain(|name, _| there.contains_key(name));
        let mut new = Vec::new();
        let mut unfinished = Vec::new();
        for (name, input) in there {
            let stamp = input.stamp();
            match read.get_mut(&name) {
                Some(read) if stamp.is_some() && read.stamp == stamp => {}
                Some(read) => {
                    let blake3 = hash(&*input)?;
                    if blake3 != read.blake3 {
                        return Err(Failure::user(format!(
                            "{}: was read with blake3 {}, and has {blake3} now; what was read is learned and stays so: \
                             put it back, or remove it, and let new events land in a part of another name",
                            input.path().display(),
                            read.blake3
                        )));
                    }
                    read.stamp = stamp;
                }
                None if is_whole(&*input) => new.push(Part { name, input, stamp }),
                None => unfinished.push(name),
            }
        }
        for name in unfinished.iter().filter(|name| !self.unfinished.contains(name)) {
            output.say(&format!("{name} is not whole yet; it is read when it is"));
        }
        self.unfinished = unfinished;
        Ok(new)
    }
}

impl Part {
    pub(super) fn path(&self) -> &Path {
        self.input.path()
    }

    /// Whether it is what it was when it was listed.
    pub(super) fn is_as_listed(&self) -> bool {
        self.input.stamp() == self.stamp
    }

    /// What is kept of it.
    pub(super) fn read(&self) -> Result<PartRead, Failure> {
        Ok(PartRead { stamp: self.stamp.clone(), blake3: hash(&*self.input)? })
    }

    /// When it landed, in Unix seconds: when its file was written, or of an object, now.
    pub(super) fn landed(&self) -> f64 {
        let about = std::fs::metadata(self.path()).and_then(|about| about.modified());
        let since = about.ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map_or_else(now, |since| to_milliseconds(since.as_secs_f64()))
    }
}

/// What the rows of part `number` are called.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}")
}

/// Removes files of rows in `folder` that do not wait.
pub(super) fn sweep(folder: &Path, waiting: &[Waiting]) -> Result<(), Failure> {
    if !folder.exists() {
        return Ok(());
    }
    let waits = |window: &Path, name: Option<&str>| {
        let window = window.file_name().and_then(|name| name.to_str());
        waiting.iter().any(|of| {
            let file = format!("{}.parquet", file_name(of.part));
            window == Some(&of.window.to_string()) && name.is_none_or(|name| name == file)
        })
    };
    for window in entries(folder)? {
        for file in entries(&window)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !waits(&window, Some(&name)) {
                std::fs::remove_file(&file).map_err(failed(&file))?;
            }
        }
        if !waits(&window, None) {
            std::fs::remove_dir(&window).map_err(failed(&window))?;
        }
    }
    Ok(())
}

/// The paths in a folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(failed(folder))?;
    let path = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.path());
    entries.map(path).collect::<std::io::Result<_>>().map_err(failed(folder))
}

/// Unix seconds by the clock of the host.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| to_milliseconds(since.as_secs_f64()))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::user(format!("{}: {error}", path.display()))
}

/// Whether a Parquet file has its last bytes, which are written last.
fn is_whole(input: &dyn Input) -> bool {
    let length = input.length();
    let Ok(file) = input.at_random() else { return false };
    let is_mark = |at| file.read_at(at, 4).is_ok_and(|bytes| bytes == PARQUET);
    length >= 12 && is_mark(0) && is_mark(length - 4)
}

/// blake3 of all bytes.
fn hash(input: &dyn Input) -> Result<String, Failure> {
    let failed = failed(input.path());
    let mut reader = input.reader().map_err(&failed)?;
    let mut hasher = blake3::Hasher::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match reader.read(&mut bytes).map_err(&failed)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            read => hasher.update(&bytes[..read]),
        };
    }
}
