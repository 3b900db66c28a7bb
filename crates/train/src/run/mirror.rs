//! A run that is kept elsewhere, such as in a bucket: what is there, and the folder here.
//!
//! ```text
//! begin       every rank makes its folder here like what is there: whole checkpoints, of the
//!             newest one and the best epoch's the files of its lanes; rank 0 also the journal
//! checkpoint  every rank writes its files here and puts them there; all of them done,
//!             rank 0 puts the journal, then MANIFEST.json, then removes old checkpoints there
//! end         rank 0 puts the rest of the journal, ended.json, choice.json
//! ```
//! Nothing is renamed there, so the manifest is what makes a checkpoint: a folder without one is
//! looked at by nobody, and goes with the next checkpoint. The first file that a job puts there is
//! behind [`RunFolder::commit`], which makes it the one that writes the run; a job that was taken
//! for dead hears of it at its next checkpoint, before its manifest.

use std::fs;
use std::path::Path;

use ams_bundle::folder::{Folder, MANIFEST};
use ams_data::staging::remove_folder;
use ams_fabric::{Fabric, Topology, on_first, together};

use crate::align::files::{self, ALIGNED, ALIGNING};
use crate::error::{Error, Result};
use crate::run::checkpoint::{self, Checkpoint, Disk, Meta};
use crate::run::layout::{CHECKPOINTS, CONFIG, ENDED, PREDICTIONS};
use crate::setup::places::{RunFolder, whole};
use crate::step::Lanes;

/// Folders of a run that are not the journal's.
const FOLDERS: [&str; 4] = [CHECKPOINTS, ALIGNED, ALIGNING, PREDICTIONS];

/// Makes the folder of `run` here like what is there, as far as this process needs it for a
/// training on `lanes` lanes. Of a run that is kept here, nothing is done. All processes call it
/// together.
///
/// # Errors
/// If something cannot be fetched or written.
pub(crate) fn mirror(run: &RunFolder, lanes: usize, fabric: &mut dyn Fabric) -> Result<()> {
    let Some(names) = run.names(fabric)? else { return Ok(()) };
    // A number of processes that does not fit is an error later, with its words.
    let local = Topology::new(lanes, fabric).map_or(0..lanes, |topology| topology.local());
    let mut fetched = files::fetch(run, &names);
    if fabric.rank() == 0 {
        fetched = fetched.and_then(|()| fetch_journal(run, &names));
    }
    let is_mine = |file: &str| match checkpoint::lane_of(file) {
        Some(lane) => local.contains(&lane),
        None => true,
    };
    together(fabric, fetched.and_then(|()| fetch_checkpoints(run, &names, &is_mine)))
}

/// Fetches the files that are in no folder that appears whole, and removes others of them here.
fn fetch_journal(run: &RunFolder, names: &[String]) -> Result<()> {
    remove_journal(run.here())?;
    run.fetch(&names.iter().filter(|name| is_of_journal(name)).cloned().collect::<Vec<_>>())
}

fn remove_journal(run: &Path) -> Result<()> {
    journal_files(run)?.into_iter().try_for_each(|name| {
        let path = run.join(name);
        fs::remove_file(&path).map_err(Error::io(&path))
    })
}

fn is_of_journal(name: &str) -> bool {
    name.split_once('/').is_none_or(|(folder, _)| !FOLDERS.contains(&folder))
}

/// The files here that are in no folder that appears whole, without what is being written.
pub(crate) fn journal_files(run: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut left = vec![String::new()];
    while let Some(folder) = left.pop() {
        let path = run.join(&folder);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(Error::io(&path))?,
        };
        for entry in entries {
            let entry = entry.map_err(Error::io(&path))?;
            let file_name = entry.file_name();
            let Some(file) = file_name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let name = format!("{folder}{file}");
            if entry.path().is_dir() {
                left.push(format!("{name}/"));
            } else {
                found.push(name);
            }
        }
        left.retain(|folder| is_of_journal(folder));
    }
    found.sort();
    Ok(found)
}

/// Fetches the manifests of the checkpoints that are whole there, and of those that are gone on
/// from, or that may be the result, the files that `is_mine` says. Others are removed here.
fn fetch_checkpoints(
    run: &RunFolder,
    names: &[String],
    is_mine: &dyn Fn(&str) -> bool,
) -> Result<()> {
    let checkpoints = run.here().join(CHECKPOINTS);
    let steps = steps(names);
    checkpoint::sweep(&checkpoints)?;
    for (step, path) in checkpoint::list(&checkpoints)? {
        if !steps.contains(&step) {
            remove_folder(&path)?;
        }
    }
    let manifest = |step: &u64| format!("{CHECKPOINTS}/step-{step}/{MANIFEST}");
    run.fetch(&steps.iter().map(manifest).collect::<Vec<_>>())?;
    let Some(&newest) = steps.last() else { return Ok(()) };
    fetch_checkpoint(run, newest, is_mine)?;
    // A manifest that cannot be read is an error where it is needed, with its words.
    let opened = Checkpoint::open(&checkpoint::path(&checkpoints, newest)).ok();
    let best = opened.and_then(|checkpoint| Some(checkpoint.meta().history.best?.step));
    match best.filter(|best| *best != newest && steps.contains(best)) {
        Some(best) => fetch_checkpoint(run, best, is_mine),
        None => Ok(()),
    }
}

/// The steps of the whole checkpoints among files, ascending.
fn steps(names: &[String]) -> Vec<u64> {
    let step = |folder: &str| folder.strip_prefix("step-")?.parse().ok();
    let found = whole(names, CHECKPOINTS, MANIFEST).into_iter().filter_map(step);
    let mut steps: Vec<u64> = found.collect();
    steps.sort_unstable();
    steps
}

/// Fetches files of a checkpoint whose manifest is here, but for those that are here already.
fn fetch_checkpoint(run: &RunFolder, step: u64, is_mine: &dyn Fn(&str) -> bool) -> Result<()> {
    let path = checkpoint::path(&run.here().join(CHECKPOINTS), step);
    let opened: Result<Folder<serde_json::Value>, _> = Folder::open(&path, checkpoint::FORMAT);
    let Ok(folder) = opened else { return Ok(()) };
    let files = folder.manifest.files.keys();
    let missing = files.filter(|file| is_mine(file) && folder.tensors(file).is_err());
    let names = missing.map(|file| format!("{CHECKPOINTS}/step-{step}/{file}"));
    run.fetch(&names.collect::<Vec<_>>())
}

/// Writes the checkpoint of `lanes` as `meta` says, here and where `run` is kept. All processes
/// call it together.
///
/// # Errors
/// As [`checkpoint::save`]; and if files cannot be put there, or another job writes the run now.
/// The checkpoints there are untouched then.
pub(crate) fn save(run: &RunFolder, keep: usize, lanes: &mut Lanes, meta: Meta) -> Result<()> {
    let checkpoints = run.here().join(CHECKPOINTS);
    let step = meta.cursor.step;
    let disk = if run.is_kept() { Disk::Own } else { Disk::Shared };
    let written = checkpoint::save(&checkpoints, keep, lanes, meta, disk)?;
    let Some(files) = written.filter(|_| run.is_kept()) else { return Ok(()) };
    let name = |file: &str| format!("{CHECKPOINTS}/step-{step}/{file}");
    let put = run.put(&files.iter().map(|file| name(file)).collect::<Vec<_>>());
    together(lanes.fabric(), put)?;
    on_first(lanes.fabric(), || {
        run.commit(&journal_files(run.here())?, &name(MANIFEST))?;
        prune(run)
    })
    .map(drop)
}

/// Puts the journal there, as the job that writes the run; the first process calls it.
///
/// # Errors
/// If another job writes it now, or a file cannot be put there.
pub(crate) fn put_journal(run: &RunFolder) -> Result<()> {
    if !run.is_kept() {
        return Ok(());
    }
    let mut files = journal_files(run.here())?;
    // What says that there is a run.
    files.retain(|name| name != CONFIG);
    run.commit(&files, CONFIG)
}

/// Removes the checkpoints there that are not here; the first process calls it.
///
/// # Errors
/// If another job writes the run now, or a file cannot be removed.
pub(crate) fn prune(run: &RunFolder) -> Result<()> {
    if !run.is_kept() {
        return Ok(());
    }
    let here = checkpoint::list(&run.here().join(CHECKPOINTS))?;
    let is_old = |name: &String| {
        let folder = name.strip_prefix(CHECKPOINTS).and_then(|rest| rest.split('/').nth(1));
        folder.is_some_and(|folder| here.iter().all(|(step, _)| folder != format!("step-{step}")))
    };
    run.remove(run.list()?.into_iter().filter(is_old).collect(), MANIFEST)
}

/// Removes all that is there; the first process calls it.
///
/// # Errors
/// If another job writes the run now, or a file cannot be removed.
pub(crate) fn clear(run: &RunFolder) -> Result<()> {
    run.remove(run.list()?, MANIFEST)
}

/// Removes what a job left there that was ended before its first checkpoint, or while it removed an
/// earlier run, and the journal of that here; an alignment stays. The first process calls it.
///
/// # Errors
/// As [`clear`].
pub(crate) fn clear_leftovers(run: &RunFolder) -> Result<()> {
    if !run.is_kept() {
        return Ok(());
    }
    remove_journal(run.here())?;
    let mut names = run.list()?;
    // The states on the way to a result may have outlived their job, too.
    let alignment = match names.contains(&format!("{ALIGNED}/{MANIFEST}")) {
        true => ALIGNED,
        false => ALIGNING,
    };
    names.retain(|name| name.split_once('/').is_none_or(|(folder, _)| folder != alignment));
    run.remove(names, MANIFEST)
}

/// That no training is there.
///
/// # Errors
/// If one is.
pub(crate) fn is_free(run: &RunFolder) -> Result<()> {
    let names = run.list()?;
    let is_training = |name: &String| name == CONFIG || name == ENDED;
    if steps(&names).is_empty() && !names.iter().any(is_training) {
        return Ok(());
    }
    let what =
        "holds an earlier training; choose another name, go on with --resume, or --replace it";
    Err(Error::content(run.named(), what))
}

/// Which of the files `names` of a run that is kept elsewhere are needed to evaluate, publish or
/// report it: all but checkpoints, and of these the newest one that is whole.
pub fn readable(names: Vec<String>) -> Vec<String> {
    let newest = steps(&names).pop().map(|step| format!("{CHECKPOINTS}/step-{step}/"));
    let is_old = |name: &str| {
        name.starts_with(&format!("{CHECKPOINTS}/"))
            && newest.as_ref().is_none_or(|newest| !name.starts_with(&newest[..]))
    };
    names.into_iter().filter(|name| !is_old(name)).collect()
}
