//! Versions that a command makes one after the other: from a folder of its own to where they serve,
//! whole or as a delta, and away again. Every part of it may be killed and is done once more.

use std::path::{Path, PathBuf};

use ams_bundle::{
    Model, VersionDeltaOptions, bases, check_shapes, whole_versions, write_version_delta,
};
use ams_data::staging::{appear, remove_folder};
use serde::Deserialize;

use crate::failure::Failure;
use crate::output::{Output, count};

/// How a version is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PublishAs {
    /// With all its files.
    #[default]
    Whole,
    /// As its difference from the version before.
    Delta,
}

/// The bundle of `version`, which will be `there`: in the folder `model`, where `publish` puts it
/// unless it was there before, or `there` already. `command` is the one that publishes.
pub(crate) fn candidate(
    model: &Path,
    there: &Path,
    version: u64,
    command: &str,
    publish: impl FnOnce(&Path) -> Result<(), Failure>,
) -> Result<PathBuf, Failure> {
    let path = model.join(version.to_string());
    match (whole_versions(model)?.contains(&version), there.exists()) {
        (true, false) => Ok(path),
        // It went there already, and the state was not written.
        (false, true) if model.exists() => Ok(there.to_path_buf()),
        // .. as a delta.
        (true, true) if Model::open(there)?.hash() == Model::open(&path)?.hash() => {
            remove_folder(&path)?;
            Ok(there.to_path_buf())
        }
        (_, true) => {
            let what = format!(
                "was published by somebody else meanwhile; move it away, or let `{command}` publish alone"
            );
            Err(Failure::user(format!("{}: {what}", there.display())))
        }
        (false, false) => {
            publish(&path)?;
            Ok(path)
        }
    }
}

/// The version that `candidate` is published as a delta of, `before` unless it is time for a whole
/// one.
pub(crate) fn base(
    before: PathBuf,
    candidate: &Path,
    whole_every: usize,
    output: Output<'_>,
) -> Result<Option<PathBuf>, Failure> {
    if bases(&before)?.len() + 1 >= whole_every {
        return Ok(None);
    }
    let (old, new) = (Model::open_bundle(&before)?, Model::open_bundle(candidate)?);
    if let Err(error) = check_shapes(&old, &new) {
        output.say(&format!("published whole: {error}"));
        return Ok(None);
    }
    Ok((old.hash() != new.hash()).then_some(before))
}

/// Moves `candidate` to where it serves, whole or as a delta of `base`.
pub(crate) fn bring(
    candidate: &Path,
    there: &Path,
    version: u64,
    base: Option<&Path>,
    output: Output<'_>,
) -> Result<(), Failure> {
    if let Some(folder) = there.parent() {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::user(format!("{}: {error}", folder.display())))?;
    }
    let Some(base) = base else { return Ok(appear(candidate, there)?) };
    let exact = VersionDeltaOptions::default();
    let written = write_version_delta(base, candidate, there, exact)?;
    output.say(&format!(
        "version {version} is a delta of {}: {} bytes, {} if it were whole",
        written.meta.base_version.number,
        count(written.bytes),
        count(written.whole_bytes)
    ));
    Ok(remove_folder(candidate)?)
}

/// Removes the versions of `model` that are `ours`, but the newest `keep`, the one that serves, and
/// those that others follow.
pub(crate) fn remove_old(
    model: &Path,
    keep: usize,
    serving: Option<u64>,
    ours: impl Fn(u64) -> bool,
) -> Result<(), Failure> {
    let all = whole_versions(model)?;
    let made: Vec<u64> = all.iter().copied().filter(|&version| ours(version)).collect();
    let old = &made[..made.len().saturating_sub(keep)];
    let goes = |version: &u64| old.contains(version) && Some(*version) != serving;
    let mut needed = Vec::new();
    for version in all.iter().filter(|version| !goes(version)) {
        needed.extend(bases(&model.join(version.to_string()))?);
    }
    for version in old.iter().filter(|version| goes(version) && !needed.contains(version)) {
        remove_folder(&model.join(version.to_string()))?;
    }
    Ok(())
}

/// Removes what is left in `folder` of folders whose removal was ended by force.
pub(crate) fn remove_retired(folder: &Path) -> Result<(), Failure> {
    let failed = |error| Failure::user(format!("{}: {error}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_retired = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with('.') && name.ends_with(".retired"));
        if is_retired {
            std::fs::remove_dir_all(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}
