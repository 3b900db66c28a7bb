//! A folder of a bucket whose files are put and removed one by one, such as that of a run. Who
//! writes it says in which order: nothing here is whole by itself.
//!
//! ```text
//! s3://bucket/runs/joint                                      the folder
//! s3://bucket/runs/joint/holder.json                          who writes it: the last that began
//! <cache>/growing/s3/bucket/runs/<process>/joint              its files on this host
//! ```
//! A bucket knows no lock that ends with its holder. So whoever begins writes its name into
//! `holder.json`, and who writes on writes it again, on condition that nobody else has meanwhile:
//! the one before hears of it before it commits anything more.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ams_data::{Error, Result};

use crate::address::Address;
use crate::object::{Condition, LocalFile, Object, Tag, Wanted};
use crate::remote::Remote;

/// The object that says who writes the folder.
const HOLDER: &str = "holder.json";

/// A folder of a bucket that grows, and its files on this host.
#[derive(Debug)]
pub struct Growing {
    remote: Remote,
    address: Address,
    here: PathBuf,
    /// Words that nobody else has.
    holder: String,
    held: Mutex<Held>,
}

/// What was written as the holder.
#[derive(Debug, Default)]
struct Held {
    /// The object as it was written last; none before the first time.
    tag: Option<Tag>,
    times: u64,
}

impl Growing {
    /// The folder at `address`, whose files are in `here` on this host. Nothing is asked of a
    /// server yet.
    pub(crate) fn new(remote: Remote, address: Address, here: PathBuf, holder: String) -> Growing {
        Growing { remote, address, here, holder, held: Mutex::default() }
    }

    /// The folder on this host; it may be missing.
    pub fn here(&self) -> &Path {
        &self.here
    }

    /// The names of its files in the bucket, in order; none has a part such as `..`.
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub fn list(&self) -> Result<Vec<String>> {
        let listed = self.remote.list(&self.address)?;
        let names = listed.iter().filter_map(|object| self.address.relative(&object.key));
        let fits = |name: &&str| {
            let plain = |part: &str| !matches!(part, "" | "." | "..");
            name.split('/').all(plain) && !name.contains(['\\', '\n']) && *name != HOLDER
        };
        Ok(names.filter(fits).map(str::to_owned).collect())
    }

    /// Fetches files, each whole or not at all.
    ///
    /// # Errors
    /// If one is not there, cannot be written here, or the server refuses or is lost.
    pub fn fetch(&self, names: &[String]) -> Result<()> {
        let object = |name: &String| {
            let address = self.address.join(name);
            let found = self.remote.stat(&address)?;
            found.ok_or_else(|| address.error("is not there"))
        };
        let objects = names.iter().map(object).collect::<Result<Vec<Object>>>()?;
        let to = |name: &String| self.here.join(name);
        for path in names.iter().map(to) {
            let folder = path.parent().unwrap_or(&self.here);
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let wanted =
            objects.iter().zip(names).map(|(object, name)| Wanted { object, to: to(name) });
        self.remote.get(&wanted.collect::<Vec<_>>()).map(drop)
    }

    /// Puts files, each whole or not at all; all are there when this returns.
    ///
    /// # Errors
    /// If the server refuses or is lost; any of them may be there then.
    pub fn put(&self, names: &[String]) -> Result<()> {
        let file = |name: &String| LocalFile {
            path: self.here.join(name),
            key: self.address.join(name).key,
        };
        let files: Vec<LocalFile> = names.iter().map(file).collect();
        self.remote.put(&files.iter().collect::<Vec<_>>()).map(drop)
    }

    /// Removes files from the bucket one after the other.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn remove(&self, names: &[String]) -> Result<()> {
        let keys: Vec<String> = names.iter().map(|name| self.address.join(name).key).collect();
        self.remote.delete(keys.iter().map(|key| &key[..]))
    }

    /// Makes this the one that writes the folder, or, after the first time, checks that it still
    /// is. Services without conditional writes are not asked, and nobody is kept apart there.
    ///
    /// # Errors
    /// If another one has begun to write it since, or the server refuses or is lost.
    pub fn hold(&self) -> Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let address = self.address.join(HOLDER);
        let condition = match &held.tag {
            Some(tag) => Condition::Is(tag.clone()),
            None => match self.remote.tag(&address)? {
                Some(tag) => Condition::Is(tag),
                None => Condition::IsAbsent,
            },
        };
        let text = self.text(held.times + 1);
        let tag = match self.remote.put_if(&address, text.clone(), condition)? {
            Some(tag) => Some(tag),
            // A try whose answer was lost may have written it.
            None if self.remote.read_at(&address)?.as_deref() == Some(text.as_bytes()) => {
                self.remote.tag(&address)?
            }
            None => {
                let now = self.remote.read_at(&address)?.unwrap_or_default();
                let now = String::from_utf8_lossy(&now);
                let what =
                    format!("another job writes this folder now ({}); this one ends", now.trim());
                return Err(self.address.error(what));
            }
        };
        *held = Held { tag, times: held.times + 1 };
        Ok(())
    }

    /// What the object says when it is written for the `time`-th time.
    fn text(&self, time: u64) -> String {
        format!("{}\n", serde_json::json!({ "holder": self.holder, "writes": time }))
    }
}
