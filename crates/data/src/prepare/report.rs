//! What a preparation tells while it runs and when it is done.

use serde::Serialize;

use super::columns::Understood;
use crate::negatives::Drawn;
use crate::own_past::OwnPast;
use crate::schema::{Counts, Labels, Split};

/// How far the preparation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The table of events is being read.
    Reading {
        /// Rows that were read so far.
        rows: u64,
    },
    /// Looking at all positives before negatives are drawn.
    Surveying {
        /// Parts that are finished so far.
        done: usize,
        /// Parts that there are in all.
        total: usize,
    },
    /// Sample files are being written.
    Writing {
        /// Parts that are finished so far.
        done: usize,
        /// Parts that there are in all.
        total: usize,
    },
}

/// The rows of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayRows {
    /// Number of rows.
    pub rows: u64,
    /// The latest instant among them, in Unix seconds.
    pub last: i64,
}

/// Rows that are not in the dataset as they were in the log, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Same user, item, time and label as another row.
    pub duplicates: u64,
    /// Positives for an item the user had before, if only first ones are kept.
    pub repeated: u64,
    /// Positives that weigh too little to be behaviors; they are still impressions.
    pub light: u64,
    /// Rows below `positive_from` where negatives are sampled.
    pub not_positive: u64,
    /// Rows of the training period for an item that is held out.
    pub held_out: u64,
    /// Rows without user: empty, or a word such as NULL.
    pub without_user: u64,
    /// Rows without item, counted in the same way.
    pub without_item: u64,
    /// Rows without time, counted in the same way.
    pub without_time: u64,
    /// Rows whose time is before 1990 or after 2099.
    pub implausible_time: u64,
    /// Rows at or after `until`.
    pub after_until: u64,
    /// Rows before `train_from`, which are no impressions.
    pub before_train: u64,
}

/// Counts of what `prepare` read, left out and wrote.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrepareReport {
    /// As in the card.
    #[serde(flatten)]
    pub counts: Counts,
    /// As in the card.
    pub split: Split,
    /// As in the card.
    pub labels: Labels,
    /// Rows of the events, without those at or after `until`.
    pub rows: u64,
    /// What was left out.
    pub dropped: Dropped,
    /// Items that only the events know.
    pub items_without_row: u64,
    /// Users of the samples that the users table does not know, if there is one.
    pub users_without_row: u64,
    /// Cells that hold a word for nothing, such as NULL or nan, and are read as missing.
    pub null_words: u64,
    /// Rows of the items table for an item that had one before (the first counts).
    pub items_redescribed: u64,
    /// Rows of the users table for a user that had one before (the first counts).
    pub users_redescribed: u64,
    /// What came of drawing negatives.
    pub drawn: Option<Drawn>,
    /// What each column was taken for; empty where an importer knows its files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub understood: Vec<Understood>,
    /// Whether the drawn negatives can be told by how often an item was had before.
    pub own_past: Option<OwnPast>,
    /// What a user of the dataset should know.
    pub warnings: Vec<String>,
}

impl Dropped {
    /// Rows that never reached a part.
    pub(super) fn missing(&self) -> u64 {
        self.without_user + self.without_item + self.without_time + self.implausible_time
    }
}
