//! What a run knows of contents: which have a row and where it is, which have none and why.

use std::collections::HashMap;

use ams_data::{ImageKey, Result};
use half::f16;

use crate::failure::Failure;
use crate::journal::{Journal, JournalRow};
use crate::row;
use crate::segment::RowSource;
use crate::store::FeatureStore;

/// What is known about a content.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// A thread is encoding it just now.
    Claimed,
    /// It has a row.
    Encoded {
        size: [u32; 2],
        place: RowPlace,
    },
    Failed(Failure),
}

/// Where a row is.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowPlace {
    /// In the older store.
    Previous,
    Journal(JournalRow),
}

/// Where the rows are that a run found or knew.
pub(super) struct KnownRows<'a> {
    pub(super) journal: &'a Journal,
    pub(super) older: Option<&'a FeatureStore>,
    pub(super) known: &'a HashMap<ImageKey, Known>,
}

impl RowSource for KnownRows<'_> {
    fn row<'a>(&'a self, key: ImageKey, _: &'a mut Vec<f16>) -> Result<row::Row<'a>> {
        Ok(match &self.known[&key] {
            Known::Encoded { place: RowPlace::Journal(place), .. } => {
                row::Row::F16(self.journal.row(*place))
            }
            Known::Encoded { place: RowPlace::Previous, .. } => {
                let older = self.older.and_then(|older| older.stored_row(key));
                older.expect("it was listed by the older store")
            }
            Known::Claimed | Known::Failed(_) => unreachable!("only images with a row are written"),
        })
    }
}
