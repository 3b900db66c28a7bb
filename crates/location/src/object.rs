//! What is known of an object of a bucket before it is fetched.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// An object of a bucket as it was listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Object {
    /// Key within the bucket.
    pub key: String,
    /// Length in bytes, as listed.
    pub bytes: u64,
    /// Another content, another tag.
    pub tag: String,
}

/// An object and the file that it becomes.
pub(crate) struct Wanted<'a> {
    pub object: &'a Object,
    pub to: PathBuf,
}

/// A file and the key of the object that it becomes.
pub(crate) struct LocalFile {
    pub path: PathBuf,
    pub key: String,
}

/// Which content an object has: what a service compares.
#[cfg_attr(not(feature = "buckets"), expect(dead_code, reason = "no bucket is reached"))]
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    pub e_tag: Option<String>,
    pub version: Option<String>,
}

/// When an object may be written.
pub(crate) enum Condition {
    /// There is none yet.
    IsAbsent,
    /// It is as it was.
    #[cfg_attr(not(feature = "buckets"), expect(dead_code, reason = "no bucket is reached"))]
    Is(Tag),
}
