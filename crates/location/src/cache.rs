//! Objects kept on this host, and what they were when they were fetched.
//!
//! ```text
//! <cache>/<scheme>/<bucket>/<key>         a file as the object was
//! <cache>/<scheme>/.<bucket>.index.json   of each: length and tag of the object, blake3 of the file
//! <cache>/<scheme>/.<bucket>.lock         held by the process that fetches or publishes
//! ```
//! A file is used again if the object has the same tag and the file still its blake3.
//!
//! Knows files and objects. Does not know what they mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ams_data::lock::Lock;
use ams_data::staging::write_whole;
use ams_data::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::object::{Object, Wanted};
use crate::remote::Remote;

/// Longest wait for another process that fetches.
const PATIENCE: Duration = Duration::from_secs(3600);

/// The kept files of one bucket.
pub(crate) struct Cache {
    scheme: PathBuf,
    bucket: String,
}

/// What is known of a kept file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    tag: String,
    blake3: String,
}

/// What is known of the kept files of a bucket.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    objects: BTreeMap<String, Entry>,
    /// Folders that were fetched to be changed: the manifests that there were.
    pending: BTreeMap<String, Vec<Object>>,
}

impl Cache {
    /// The kept files of the bucket of `address`.
    pub(crate) fn new(cache: &Path, address: &Address) -> Cache {
        Cache { scheme: cache.join(address.scheme.name()), bucket: address.bucket.clone() }
    }

    /// Where the file of `key` is.
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.scheme.join(&self.bucket).join(key)
    }

    /// The right to change it; waits for who has it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let begin = Instant::now();
        loop {
            match Lock::take(&self.scheme, &self.bucket) {
                Ok(lock) => return Ok(lock),
                Err(Error::Content { .. }) if begin.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the files below `address` those of the objects `there`. What is being changed here
    /// ([`Index::pending`]) stays as it is.
    pub(crate) fn fetch(
        &self,
        remote: &Remote,
        address: &Address,
        there: &[Object],
        index: &mut Index,
    ) -> Result<()> {
        let changing: Vec<String> = index.pending.keys().cloned().collect();
        let is_changing = |key: &str| {
            let mut within = changing.iter().filter(|folder| **folder != address.key);
            within.any(|folder| key.strip_prefix(&folder[..]).is_some_and(|it| it.starts_with('/')))
        };
        let gone: Vec<String> = index
            .objects
            .keys()
            .filter(|key| address.relative(key).is_some() && !is_changing(key))
            .filter(|key| there.binary_search_by(|object| object.key.cmp(key)).is_err())
            .cloned()
            .collect();
        for key in gone {
            let _ = fs::remove_file(self.path(&key));
            index.objects.remove(&key);
        }
        let mut wanted = Vec::new();
        for object in there.iter().filter(|object| !is_changing(&object.key)) {
            // A bucket may hold what no folder can, such as `a//b` or a key that ends in `/`.
            let fits = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\\');
            if !object.key.split('/').all(fits) {
                continue;
            }
            let path = self.path(&object.key);
            if !index.is_kept(object, &path) {
                wanted.push(Wanted { object, to: path });
            }
        }
        for Wanted { to, .. } in &wanted {
            let folder = to.parent().unwrap_or(to);
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let found = remote.get(&wanted)?;
        for (Wanted { object, to }, found) in wanted.iter().zip(found) {
            if found {
                index.insert(object, to)?;
            }
        }
        Ok(())
    }
}

impl Index {
    /// Reads it; one that is not there, or not whole, is empty.
    pub(crate) fn read(cache: &Cache) -> Result<Index> {
        let path = index_path(cache);
        match fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    pub(crate) fn write(&self, cache: &Cache) -> Result<()> {
        let text = serde_json::to_string(self).expect("an index is plain names and numbers");
        write_whole(&index_path(cache), text)
    }

    /// Whether the file at `path` is `object`.
    fn is_kept(&self, object: &Object, path: &Path) -> bool {
        self.objects.get(&object.key).is_some_and(|entry| {
            (entry.bytes, &entry.tag) == (object.bytes, &object.tag)
                && blake3_of(path).is_ok_and(|hash| hash == entry.blake3)
        })
    }

    /// The object is the file at `path`.
    pub(crate) fn insert(&mut self, object: &Object, path: &Path) -> Result<()> {
        let blake3 = blake3_of(path)?;
        let entry = Entry { bytes: object.bytes, tag: object.tag.clone(), blake3 };
        self.objects.insert(object.key.clone(), entry);
        Ok(())
    }

    /// Whether `object` has the content of the file at `path`, as far as is known.
    pub(crate) fn is_same(&self, object: &Object, path: &Path) -> bool {
        self.is_kept(object, path)
    }

    /// Nothing is known of what is below `address`.
    pub(crate) fn forget(&mut self, address: &Address) {
        self.objects.retain(|key, _| address.relative(key).is_none());
    }

    /// The manifests that were at `address` when it was fetched to be changed.
    pub(crate) fn pending(&self, address: &Address) -> Option<&Vec<Object>> {
        self.pending.get(&address.key)
    }

    /// `address` is being changed, or no more.
    pub(crate) fn set_pending(&mut self, address: &Address, manifests: Option<Vec<Object>>) {
        match manifests {
            Some(manifests) => self.pending.insert(address.key.clone(), manifests),
            None => self.pending.remove(&address.key),
        };
    }
}

fn index_path(cache: &Cache) -> PathBuf {
    cache.scheme.join(format!(".{}.index.json", cache.bucket))
}

fn blake3_of(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = fs::File::open(path).map_err(Error::io(path))?;
    hasher.update_reader(file).map_err(Error::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}
