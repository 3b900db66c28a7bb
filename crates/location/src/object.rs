//! What is known of an object of a bucket before it is fetched.

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
