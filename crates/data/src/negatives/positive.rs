//! A positive event, as draws of negatives see it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Id;

/// A positive event, as a draw sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Positive {
    pub(crate) user: Id,
    pub(crate) time: i64,
    pub(crate) item: u32,
    pub(crate) test: bool,
}

impl Positive {
    /// A hash of who, when and what.
    pub(super) fn hash(&self) -> u64 {
        let words = [self.user.0, self.time as u64, u64::from(self.item)].map(u64::to_le);
        xxh3_64_with_seed(bytemuck::bytes_of(&words), 0)
    }
}
