//! Where things are that a configuration names, and runs that are kept elsewhere than on this host.
//!
//! A configuration keeps its names as they were typed: an address in a bucket is the same on every
//! host, the place of a copy of it is not. Who reaches such places implements [`Places`]; nothing
//! here knows how.
//!
//! A run that is kept elsewhere has a folder here too, one of each process, in which everything is
//! written first. What is there counts: a folder here that has more, or less, is made like it when
//! a training begins.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_data::lock::Lock;
use ams_fabric::{Fabric, gather, on_first};

use crate::error::{Error, Result};
use crate::settings::Config;

/// What a run's folder is found by: files of this host, unless somebody knows more places.
pub trait Places: Send + Sync {
    /// The file or folder `named` on this host, fetched if need be.
    ///
    /// # Errors
    /// If it cannot be fetched.
    fn input(&self, named: &Path) -> Result<PathBuf, ams_data::Error>;

    /// The folder of the run `named` on this host, with its newest checkpoint, fetched if need be.
    ///
    /// # Errors
    /// If it cannot be fetched.
    fn run(&self, named: &Path) -> Result<PathBuf, ams_data::Error>;

    /// The run `named` for process `rank` of the job that writes it; none, if it is a folder of
    /// this host.
    ///
    /// # Errors
    /// If nothing can be kept there.
    fn kept(&self, named: &Path, rank: usize) -> Result<Option<Arc<dyn KeptRun>>, ams_data::Error>;
}

/// The files of a run that is kept elsewhere. Names are relative to the run, with `/` between
/// parts.
pub trait KeptRun: Send + Sync {
    /// The run's folder of this process on this host; it may be missing.
    fn here(&self) -> &Path;

    /// The names of the files that are there, in order.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn list(&self) -> Result<Vec<String>, ams_data::Error>;

    /// Fetches files, each whole or not at all.
    ///
    /// # Errors
    /// If one is missing there, or cannot be fetched or written.
    fn fetch(&self, names: &[String]) -> Result<(), ams_data::Error>;

    /// Puts files there, each whole or not at all; all of them are there when this returns.
    ///
    /// # Errors
    /// If one cannot be put there; others may be there then.
    fn put(&self, names: &[String]) -> Result<(), ams_data::Error>;

    /// Removes files there, one after the other.
    ///
    /// # Errors
    /// If one cannot be removed.
    fn remove(&self, names: &[String]) -> Result<(), ams_data::Error>;

    /// Makes this job the one that writes the run; after the first time, checks that it still is.
    ///
    /// # Errors
    /// If another job has begun to write it since.
    fn hold(&self) -> Result<(), ams_data::Error>;
}

/// This host alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThisHost;

impl Places for ThisHost {
    fn input(&self, named: &Path) -> Result<PathBuf, ams_data::Error> {
        Ok(named.to_path_buf())
    }

    fn run(&self, named: &Path) -> Result<PathBuf, ams_data::Error> {
        Ok(named.to_path_buf())
    }

    fn kept(&self, _: &Path, _: usize) -> Result<Option<Arc<dyn KeptRun>>, ams_data::Error> {
        Ok(None)
    }
}

/// The folder of a run.
#[derive(Clone)]
pub(crate) struct RunFolder {
    /// As it is named.
    named: PathBuf,
    /// Where it is kept, if not on this host.
    kept: Option<Arc<dyn KeptRun>>,
}

impl fmt::Debug for RunFolder {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.named.fmt(to)
    }
}

impl RunFolder {
    /// That of `config` in `places`, for process `rank` of the job.
    ///
    /// # Errors
    /// If no run can be where it is named.
    pub(crate) fn of(config: &Config, places: &dyn Places, rank: usize) -> Result<RunFolder> {
        let named = config.runs.join(&config.name);
        let kept = places.kept(&named, rank)?;
        Ok(RunFolder { named, kept })
    }

    /// As it is named.
    pub(crate) fn named(&self) -> &Path {
        &self.named
    }

    /// The folder on this host: of all processes, or of this process if the run is kept elsewhere.
    pub(crate) fn here(&self) -> &Path {
        self.kept.as_ref().map_or(&self.named, |kept| kept.here())
    }

    /// Whether it is kept elsewhere, so that no process sees another one's files.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The right of one job of this host to write it.
    ///
    /// # Errors
    /// If another one has it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let here = self.here();
        let name = here.file_name().unwrap_or_default().to_string_lossy();
        Ok(Lock::take(here.parent().unwrap_or(Path::new("")), &name)?)
    }

    /// The names of its files where it is kept, as the first process sees them; none, if it is kept
    /// here. All processes call it together.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub(crate) fn names(&self, fabric: &mut dyn Fabric) -> Result<Option<Vec<String>>> {
        let Some(kept) = &self.kept else { return Ok(None) };
        let names = on_first(fabric, || Ok::<_, Error>(kept.list()?))?.unwrap_or_default();
        let told = gather::texts(fabric, &names.join("\n"))?.swap_remove(0);
        Ok(Some(told.lines().map(str::to_owned).collect()))
    }

    /// The same, as this process sees them.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub(crate) fn list(&self) -> Result<Vec<String>> {
        self.kept.as_ref().map_or(Ok(Vec::new()), |kept| Ok(kept.list()?))
    }

    /// Fetches files from where it is kept.
    ///
    /// # Errors
    /// If one cannot be fetched.
    pub(crate) fn fetch(&self, names: &[String]) -> Result<()> {
        self.kept.as_ref().map_or(Ok(()), |kept| Ok(kept.fetch(names)?))
    }

    /// Puts files of this process where the run is kept, if it is.
    ///
    /// # Errors
    /// If one cannot be put there.
    pub(crate) fn put(&self, names: &[String]) -> Result<()> {
        self.kept.as_ref().map_or(Ok(()), |kept| Ok(kept.put(names)?))
    }

    /// The same of the first process, as the one that writes the run; `last` behind all others, so
    /// that it may say that they are there.
    ///
    /// # Errors
    /// If another job writes it now, or a file cannot be put there.
    pub(crate) fn commit(&self, names: &[String], last: &str) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        kept.hold()?;
        kept.put(names)?;
        Ok(kept.put(&[last.to_owned()])?)
    }

    /// Removes files where the run is kept: the `last` of a folder, which say that the others are
    /// there, first.
    ///
    /// # Errors
    /// If another job writes it now, or a file cannot be removed.
    pub(crate) fn remove(&self, mut names: Vec<String>, last: &str) -> Result<()> {
        let Some(kept) = self.kept.as_ref().filter(|_| !names.is_empty()) else { return Ok(()) };
        kept.hold()?;
        let is_last = |name: &String| name.rsplit('/').next() == Some(last);
        names.sort_by_key(|name| !is_last(name));
        Ok(kept.remove(&names)?)
    }
}

/// The folders of `names` below `parent` that have the file `last`, which is written behind all
/// others: `step-8` of `checkpoints/step-8/MANIFEST.json`.
pub(crate) fn whole<'n>(names: &'n [String], parent: &str, last: &str) -> Vec<&'n str> {
    let folder = |name: &'n String| {
        let (folder, file) = name.strip_prefix(parent)?.strip_prefix('/')?.split_once('/')?;
        (file == last).then_some(folder)
    };
    names.iter().filter_map(folder).collect()
}

/// `config` with the places of what it reads on this host.
///
/// # Errors
/// If something cannot be fetched.
pub(crate) fn localized(config: &Config, places: &dyn Places) -> Result<Config> {
    let mut config = config.clone();
    let data = &mut config.data;
    // A store inside a dataset comes with it.
    data.samples = places.input(&data.samples)?;
    if let Some(images) = &mut data.images {
        *images = places.input(images)?;
    }
    for content in &mut data.contents {
        content.features = places.input(&content.features)?;
    }
    Ok(config)
}
