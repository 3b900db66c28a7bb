//! How many rows there are, what they take, and which came and went.

use serde::{Deserialize, Serialize};

/// Rows of all lanes, and their changes over some steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowCounts {
    /// Rows of ids, after the last step.
    pub rows: u64,
    /// Bytes that they take, with optimizer state, bookkeeping and index, used or not.
    pub bytes: u64,
    /// The same of the lane that takes most.
    pub largest_lane_bytes: u64,
    /// Rows that were made.
    pub admitted: u64,
    /// Rows whose ids were not seen for `train.eviction.days`.
    pub evicted_by_days: u64,
    /// Rows that went for others to fit into `train.eviction.lane_bytes`.
    pub evicted_by_bytes: u64,
}

impl RowCounts {
    /// Takes over the sizes of later steps, and adds their changes.
    pub fn go_on(&mut self, later: RowCounts) {
        let RowCounts { admitted, evicted_by_days, evicted_by_bytes, .. } = *self;
        *self = later;
        self.admitted += admitted;
        self.evicted_by_days += evicted_by_days;
        self.evicted_by_bytes += evicted_by_bytes;
    }

    /// Adds another lane or process.
    pub(crate) fn add(&mut self, other: RowCounts) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.largest_lane_bytes = self.largest_lane_bytes.max(other.largest_lane_bytes);
        self.admitted += other.admitted;
        self.evicted_by_days += other.evicted_by_days;
        self.evicted_by_bytes += other.evicted_by_bytes;
    }

    /// All numbers, to be sent.
    pub(crate) fn numbers(self) -> [u64; 6] {
        let RowCounts { rows, bytes, largest_lane_bytes, .. } = self;
        let RowCounts { admitted, evicted_by_days, evicted_by_bytes, .. } = self;
        [rows, bytes, largest_lane_bytes, admitted, evicted_by_days, evicted_by_bytes]
    }

    /// The inverse of [`RowCounts::numbers`].
    pub(crate) fn of(numbers: [u64; 6]) -> RowCounts {
        let [rows, bytes, largest_lane_bytes, admitted, evicted_by_days, evicted_by_bytes] =
            numbers;
        RowCounts { rows, bytes, largest_lane_bytes, admitted, evicted_by_days, evicted_by_bytes }
    }
}
