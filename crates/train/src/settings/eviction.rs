//! When rows of ids go.

use serde::{Deserialize, Serialize};

/// Eviction of rows of ids, each with its optimizer state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvictionConfig {
    /// Number of days of the data, the newest one included, on one of which an id must have been
    /// seen to keep its row at the end of an epoch. Default: no limit. Range: at least 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// Number of bytes that the rows of one lane take at most, with optimizer state, bookkeeping
    /// and index; more rows evict those of the oldest last day, among these of the fewest
    /// sightings, then of the lowest id. Default: no limit. Range: at least 40960; enough for the
    /// ids of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane_bytes: Option<u64>,
    /// Share of the rows that fit into `lane_bytes` which is left after an eviction, so that not
    /// every step evicts. Range: more than 0 and at most 1.
    pub floor: f32,
}

impl Default for EvictionConfig {
    fn default() -> EvictionConfig {
        EvictionConfig { days: None, lane_bytes: None, floor: 0.9 }
    }
}

impl EvictionConfig {
    /// Whether any row may go.
    pub(crate) fn is_any(&self) -> bool {
        self.days.is_some() || self.lane_bytes.is_some()
    }
}
