//! Where paths of commands lead: the one place where addresses in buckets become paths of this
//! host.
//!
//! The only place that reads credentials, addresses of servers and the place of the cache from the
//! environment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ams_data::staging::remove_folder;
use ams_location::{Growing, Locations, is_remote};
use ams_train::run::{CHECKPOINTS, KeptRun, Places, readable};
use ams_train::{Config, Job};

use crate::failure::{Failure, Refusal};
use crate::launch::host;

/// Variables that may hold credentials or addresses of servers.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Locations whose remote files are kept in `cache`, or where `AMS_CACHE` says, or in the user's
/// folder of caches.
pub(crate) fn locations(cache: Option<PathBuf>) -> Locations {
    let variable =
        |name: &str| std::env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
    let users = || {
        let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        caches.unwrap_or_else(std::env::temp_dir).join("ams")
    };
    let cache = cache.or_else(|| variable("AMS_CACHE")).unwrap_or_else(users);
    let own = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let environment = std::env::vars_os().filter_map(|(name, value)| {
        let pair = (name.into_string().ok()?, value.into_string().ok()?);
        own(&pair.0).then_some(pair)
    });
    Locations::new(cache, environment)
}

/// The folder of a bundle on this host: that of a version or of a model, or its copy in the cache
/// if `model` is an address in a bucket.
///
/// # Errors
/// If it cannot be fetched.
pub fn version_here(model: &Path) -> Result<PathBuf, Refusal> {
    Ok(version(&locations(None), model)?)
}

/// The same with what `locations` fetch. The versions that a version delta needs come with it.
///
/// # Errors
/// If one cannot be fetched.
pub(crate) fn version(locations: &Locations, named: &Path) -> Result<PathBuf, Failure> {
    let place = locations.input_version(named)?;
    if !is_remote(named) {
        return Ok(place);
    }
    let is_version = named.file_name() == place.file_name();
    let model = if is_version { named.parent().unwrap_or(named) } else { named };
    let mut at = place.clone();
    while let Some(delta) = ams_bundle::version_delta(&at)? {
        let base = delta.base_version.number;
        let own = at.file_name().and_then(|own| own.to_str()?.parse::<u64>().ok());
        // Opening says that it does not go down.
        if own.is_none_or(|own| base >= own) {
            break;
        }
        at = locations.input(&model.join(base.to_string()))?;
    }
    Ok(place)
}

/// The folder of a run on this host: of one in a bucket its copy in the cache, with the newest
/// checkpoint.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn run_here(locations: &Locations, named: &Path) -> Result<PathBuf, ams_data::Error> {
    let picked = RefCell::new(Vec::new());
    let pick = |all| {
        picked.replace(readable(all));
        picked.borrow().clone()
    };
    let run = locations.input_some(named, &pick)?;
    if is_remote(named) {
        remove_other_checkpoints(&run, &picked.borrow())?;
    }
    Ok(run)
}

/// Removes the checkpoints of a fetched run that have no file in `names`: those of before, and what
/// a killed process fetched in part.
fn remove_other_checkpoints(run: &Path, names: &[String]) -> Result<(), ams_data::Error> {
    let checkpoints = run.join(CHECKPOINTS);
    let entries = match std::fs::read_dir(&checkpoints) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(ams_data::Error::io(&checkpoints))?,
    };
    for entry in entries {
        let path = entry.map_err(ams_data::Error::io(&checkpoints))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = format!("{CHECKPOINTS}/{name}/");
        if names.iter().all(|name| !name.starts_with(&folder)) {
            remove_folder(&path)?;
        }
    }
    Ok(())
}

/// A job of this process alone, which reaches what `locations` do.
pub(crate) fn solo(locations: &Locations, threads: usize) -> Job {
    Job { places: places(locations), ..Job::solo(threads) }
}

/// What `locations` reach, for trainings.
pub(crate) fn places(locations: &Locations) -> Arc<dyn Places> {
    Arc::new(Reached { locations: locations.clone(), known: Mutex::default() })
}

struct Reached {
    locations: Locations,
    /// Places of what was fetched already: a job with several trainings reads it several times.
    known: Mutex<BTreeMap<PathBuf, PathBuf>>,
}

impl Places for Reached {
    fn input(&self, named: &Path) -> Result<PathBuf, ams_data::Error> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get(named) {
            return Ok(place.clone());
        }
        let place = self.locations.input(named)?;
        known.insert(named.to_path_buf(), place.clone());
        Ok(place)
    }

    fn run(&self, named: &Path) -> Result<PathBuf, ams_data::Error> {
        run_here(&self.locations, named)
    }

    fn kept(&self, named: &Path, rank: usize) -> Result<Option<Arc<dyn KeptRun>>, ams_data::Error> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.map_or(0, |since| since.as_nanos());
        let holder = format!("{}, process {}, {since}", host(), std::process::id());
        let growing = self.locations.growing(named, rank, holder)?;
        Ok(growing.map(|growing| Arc::new(InBucket(growing)) as Arc<dyn KeptRun>))
    }
}

/// A run in a bucket.
struct InBucket(Growing);

impl KeptRun for InBucket {
    fn here(&self) -> &Path {
        self.0.here()
    }

    fn list(&self) -> Result<Vec<String>, ams_data::Error> {
        self.0.list()
    }

    fn fetch(&self, names: &[String]) -> Result<(), ams_data::Error> {
        self.0.fetch(names)
    }

    fn put(&self, names: &[String]) -> Result<(), ams_data::Error> {
        self.0.put(names)
    }

    fn remove(&self, names: &[String]) -> Result<(), ams_data::Error> {
        self.0.remove(names)
    }

    fn hold(&self) -> Result<(), ams_data::Error> {
        self.0.hold()
    }
}

/// What a configuration reads, as paths of this host, for trainings whose runs are here too.
///
/// # Errors
/// If something cannot be fetched.
pub(crate) fn localize(config: &mut Config, locations: &Locations) -> Result<(), Failure> {
    let data = &mut config.data;
    // A store inside a dataset comes with it.
    data.samples = locations.input(&data.samples)?;
    if let Some(images) = &mut data.images {
        *images = locations.input(images)?;
    }
    for content in &mut data.contents {
        content.features = locations.input(&content.features)?;
    }
    if let Some(warm_start) = &mut config.train.warm_start {
        warm_start.from = run_here(locations, &warm_start.from)?;
    }
    Ok(())
}

/// Refuses an address where there has to be a path of this host.
pub(crate) fn here(what: &str, path: &Path, why: &str) -> Result<(), Failure> {
    if is_remote(path) {
        Err(Failure::user(format!("{what}: {} is not on this host; {why}", path.display())))
    } else {
        Ok(())
    }
}
