//! Where files are: in a folder here, or in a bucket (`s3://`, `gs://`, `az://`).
//!
//! ```
//! use std::path::Path;
//!
//! assert!(ams_location::is_remote(Path::new("s3://bucket/models/shop")));
//! assert!(!ams_location::is_remote(Path::new("models/shop")));
//! ```
//!
//! Everything `ams` reads at random is mapped, so what is in a bucket is fetched into a folder of
//! this host first, and what is made is made here and then uploaded. Both are whole or not at all,
//! as far as a bucket allows that:
//!
//! - a fetch lists, fetches what it has not, and lists again; if something changed meanwhile, it
//!   begins anew;
//! - an upload writes the files that say what belongs together (the manifests) last. Where it has
//!   to write over objects that such a file speaks of, it takes that file away first: a reader
//!   finds the old, the new, or nothing.
//!
//! A folder that grows, such as that of a run, is written file by file ([`Growing`]); who writes it
//! says in which order.
//!
//! A crate of its own, so that nothing that computes depends on an HTTP client; without the cargo
//! feature `buckets`, nothing here does either, and every address in a bucket is an error that
//! names the feature.
//!
//! Knows buckets, keys and names of files. Does not know what is in a file. Reads no environment:
//! addresses of servers and credentials come in as arguments.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod address;
mod cache;
mod growing;
mod object;
#[cfg(feature = "buckets")]
mod remote;
#[cfg(not(feature = "buckets"))]
#[path = "remote_absent.rs"]
mod remote;
mod tables;
mod upload;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ams_data::lock::Lock;
use ams_data::{Error, Result};

pub use address::{Address, Scheme, is_remote, local};
pub use growing::Growing;

use crate::cache::{Cache, Index};
use crate::object::Object;
use crate::remote::Remote;

/// The files that say which others belong together. They are uploaded last.
pub(crate) const MANIFESTS: [&str; 3] = ["dataset.json", "images.json", "MANIFEST.json"];

/// Files that no manifest speaks of and that are written again with every version; uploaded after
/// the manifests.
const BESIDE: [&str; 1] = ["failed.csv"];

/// Where things are that commands name.
#[derive(Clone, Debug)]
pub struct Locations {
    cache: PathBuf,
    environment: Vec<(String, String)>,
}

/// What becomes of a change that was made here and could not be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfinished {
    /// It is kept, and made again by the same command at no cost.
    GoesOn,
    /// It is removed from the cache.
    IsDropped,
}

/// A place to write to.
#[derive(Debug)]
pub struct Destination<'a> {
    /// Where it is written first.
    local: PathBuf,
    /// As it was named.
    named: PathBuf,
    remote: Option<Upload<'a>>,
}

/// What is to happen with what was written here.
#[derive(Debug)]
struct Upload<'a> {
    locations: &'a Locations,
    address: Address,
    kind: Kind,
}

/// How a place in a bucket is written.
#[derive(Debug)]
enum Kind {
    /// From a folder made for it, which goes with this.
    New { folder: PathBuf },
    /// From the cache, where its content was fetched to.
    Update,
}

impl Locations {
    /// Locations whose remote files are kept below `cache`. `environment` is where credentials and
    /// addresses of servers are found: variables such as `AWS_ACCESS_KEY_ID`,
    /// `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`.
    pub fn new(
        cache: PathBuf,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Locations {
        Locations { cache, environment: environment.into_iter().collect() }
    }

    /// The file or folder `named`, as one that can be read here; fetched, if need be. What was
    /// fetched before and has not changed is not fetched again.
    ///
    /// # Errors
    /// If there is nothing at an address, or the server refuses or does not answer.
    pub fn input(&self, named: &Path) -> Result<PathBuf> {
        match Address::parse(named)? {
            None => Ok(local(named)?),
            Some(address) => self.fetch(&address, &|all| all).map(|fetched| fetched.path),
        }
    }

    /// As [`Locations::input`], of a folder of which only some files are wanted: those that `pick`
    /// leaves of the names of all, relative to it.
    ///
    /// # Errors
    /// As [`Locations::input`].
    pub fn input_some(&self, named: &Path, pick: &Pick<'_>) -> Result<PathBuf> {
        match Address::parse(named)? {
            None => local(named),
            Some(address) => self.fetch(&address, pick).map(|fetched| fetched.path),
        }
    }

    /// A folder of a bucket that is written file by file, by `holder`, words that nobody else has;
    /// none, if `named` is a path of this host. Its files are kept on this host apart for each
    /// `process` of a job.
    ///
    /// # Errors
    /// If `named` is no address, or credentials are malformed.
    pub fn growing(&self, named: &Path, process: usize, holder: String) -> Result<Option<Growing>> {
        let Some(address) = Address::parse(named)? else { return Ok(None) };
        let bucket = self.cache.join("growing").join(address.scheme.name()).join(&address.bucket);
        let folder = address.key.strip_suffix(address.name()).unwrap_or_default();
        let here = bucket.join(folder).join(process.to_string()).join(address.name());
        let remote = self.connect(&address)?;
        Ok(Some(Growing::new(remote, address, here, holder)))
    }

    /// As [`Locations::input`], of the version of a model: the folder `named`, or its newest
    /// version.
    ///
    /// # Errors
    /// As [`Locations::input`].
    pub fn input_version(&self, named: &Path) -> Result<PathBuf> {
        let Some(address) = Address::parse(named)? else { return local(named) };
        let remote = self.connect(&address)?;
        if remote.exists(&address.join("MANIFEST.json"))? {
            return self.input(named);
        }
        let versions = remote.versions(&address)?;
        let whole = versions.into_iter().rev().map(|version| address.join(&version.to_string()));
        for version in whole {
            if remote.exists(&version.join("MANIFEST.json"))? {
                return self.fetch(&version, &|all| all).map(|fetched| fetched.path);
            }
        }
        Err(address.error("there is no version of a model"))
    }

    /// The versions that there are of the model in the folder `named`, whole or not; of a folder
    /// here, none.
    ///
    /// # Errors
    /// As [`Locations::input`].
    pub fn versions(&self, named: &Path) -> Result<Vec<u64>> {
        match Address::parse(named)? {
            None => Ok(Vec::new()),
            Some(address) => self.connect(&address)?.versions(&address),
        }
    }

    /// A place for something new. With `replace`, what is there already will be replaced by
    /// [`Destination::publish`].
    ///
    /// # Errors
    /// If there is something whole already and `replace` is false; else as [`Locations::input`].
    pub fn destination(&self, named: &Path, replace: bool) -> Result<Destination<'_>> {
        let Some(address) = Address::parse(named)? else { return Destination::here(named) };
        let remote = self.connect(&address)?;
        let there = remote.list(&address)?;
        let whole = there.iter().any(|object| is_manifest(&object.key));
        if whole && !replace {
            return Err(address.error("is there already; choose another place, or replace it"));
        }
        let folder = (0..)
            .map(|n| self.cache.join("new").join(format!("{}-{n}", std::process::id())))
            .find(|folder| !folder.exists())
            .expect("there is always an unused name");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let local = folder.join(address.name());
        let upload = Upload { locations: self, address, kind: Kind::New { folder } };
        Ok(Destination { local, named: named.to_path_buf(), remote: Some(upload) })
    }

    /// A place for something that may be there already and is changed; its content is fetched. With
    /// [`Unfinished::GoesOn`], if an earlier [`Destination::publish`] failed and nobody else has
    /// written there since, what was to be published is there instead.
    ///
    /// # Errors
    /// As [`Locations::input`], but for there being nothing.
    pub fn update(&self, named: &Path, unfinished: Unfinished) -> Result<Destination<'_>> {
        let Some(address) = Address::parse(named)? else { return Destination::here(named) };
        let remote = self.connect(&address)?;
        let cache = Cache::new(&self.cache, &address);
        let _lock = cache.lock()?;
        let mut index = Index::read(&cache)?;
        let there = remote.list(&address)?;
        let manifests = there.iter().filter(|object| is_manifest(&object.key)).cloned().collect();
        let goes_on = unfinished == Unfinished::GoesOn;
        if !goes_on || index.pending(&address) != Some(&manifests) {
            index.set_pending(&address, None);
            cache.fetch(&remote, &address, &there, &mut index)?;
            index.set_pending(&address, Some(manifests));
            index.write(&cache)?;
        }
        let local = cache.path(&address.key);
        if let Some(parent) = local.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        let upload = Upload { locations: self, address, kind: Kind::Update };
        Ok(Destination { local, named: named.to_path_buf(), remote: Some(upload) })
    }

    fn fetch(&self, address: &Address, pick: &Pick<'_>) -> Result<Fetched> {
        /// Number of changes by other processes before this gives up.
        const TRIES: usize = 5;
        let remote = self.connect(address)?;
        let cache = Cache::new(&self.cache, address);
        let lock = cache.lock()?;
        let mut index = Index::read(&cache)?;
        let list = || remote.list(address).map(|all| picked(address, all, pick));
        let mut there = list()?;
        for _ in 0..TRIES {
            if there.is_empty() {
                return Err(address.error("there is nothing"));
            }
            let fetched = cache.fetch(&remote, address, &there, &mut index);
            index.write(&cache)?;
            let now = list()?;
            if now == there {
                fetched?;
                return Ok(Fetched { path: cache.path(&address.key), _lock: lock });
            }
            there = now;
        }
        Err(address.error("changes faster than it can be fetched"))
    }

    fn connect(&self, address: &Address) -> Result<Remote> {
        Remote::connect(address, &self.environment)
    }
}

/// Chooses among the names of files, relative to their folder.
type Pick<'a> = dyn Fn(Vec<String>) -> Vec<String> + 'a;

/// Those of `all` objects below `address` that `pick` chooses.
fn picked(address: &Address, all: Vec<Object>, pick: &Pick<'_>) -> Vec<Object> {
    let name = |object: &Object| address.relative(&object.key).unwrap_or_default().to_owned();
    let names = pick(all.iter().map(name).collect()).into_iter().collect::<BTreeSet<String>>();
    all.into_iter().filter(|object| names.contains(&name(object))).collect()
}

/// What was fetched, and the right to change it while this lives.
struct Fetched {
    path: PathBuf,
    _lock: Lock,
}

impl Destination<'_> {
    fn here(named: &Path) -> Result<Destination<'static>> {
        Ok(Destination { local: local(named)?, named: named.to_path_buf(), remote: None })
    }

    /// The local folder to write into.
    pub fn local(&self) -> &Path {
        &self.local
    }

    /// As it was named, for messages.
    pub fn named(&self) -> &Path {
        &self.named
    }

    /// Uploads what was written, if its place is not here.
    ///
    /// # Errors
    /// If another process has written there meanwhile, or the server refuses or is lost. Readers
    /// then find what was there before, or nothing.
    pub fn publish(&self) -> Result<()> {
        let Some(Upload { locations, address, kind }) = &self.remote else { return Ok(()) };
        let remote = locations.connect(address)?;
        let cache = Cache::new(&locations.cache, address);
        let _lock = cache.lock()?;
        let mut index = Index::read(&cache)?;
        let base = match kind {
            Kind::New { .. } => None,
            Kind::Update => index.pending(address).cloned(),
        };
        upload::upload(&remote, address, &self.local, base.as_ref(), &mut index)?;
        index.set_pending(address, None);
        if matches!(kind, Kind::New { .. }) {
            // The cache holds what was there before, if anything.
            index.forget(address);
        }
        index.write(&cache)
    }
}

impl Drop for Destination<'_> {
    fn drop(&mut self) {
        if let Some(Upload { kind: Kind::New { folder }, .. }) = &self.remote {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Whether the file `key` says which others belong together.
fn is_manifest(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    MANIFESTS.contains(&name)
}

#[cfg(test)]
#[cfg(feature = "buckets")]
mod tests;
