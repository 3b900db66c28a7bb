//! Where paths of commands lead: the one place where addresses in buckets become paths of this
//! host.
//!
//! The only place that reads credentials, addresses of servers and the place of the cache from the
//! environment.

use std::path::{Path, PathBuf};

use ams_location::{Locations, is_remote};
use ams_train::Config;

use crate::failure::{Failure, Refusal};

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

/// What a configuration reads, as paths of this host. What it writes has to be one already.
///
/// # Errors
/// If something cannot be fetched, or `runs` is elsewhere.
pub(crate) fn localize(config: &mut Config, locations: &Locations) -> Result<(), Failure> {
    here(
        "runs",
        &config.runs,
        "checkpoints are renamed into place, which no bucket can; `ams publish --to` writes there",
    )?;
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
        warm_start.from = locations.input(&warm_start.from)?;
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
