//! What happened: schema, ids, groups, sample files, importers, prepare, the synthetic shop.
//!
//! Knows files, fields, ids, time and seeds. Does not know what a weight, a gradient, a network or
//! a request is.

pub mod catalogue;
pub mod check;
pub mod dataset;
pub mod error;
pub mod groups;
mod guard;
pub mod id;
pub mod lock;
mod mapped;
pub mod movielens;
pub mod negatives;
mod parquet_file;
pub mod prepare;
pub mod ragged;
pub mod samples;
pub mod schema;
pub mod simulate;
pub mod source;
pub mod staging;
pub mod synth;
pub mod value;

pub use catalogue::Catalogue;
pub use dataset::{Dataset, SplitName};
pub use error::{Error, Result};
pub use groups::Groups;
pub use guard::guarded;
pub use id::{Id, ImageKey, PictureName, part_of};
pub use mapped::map;
pub use ragged::{Offsets, Ragged};
pub use samples::SampleFile;
pub use schema::{Card, Counts, Field, FieldKind, Labels, Schema, Side, Split};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_data;
#[cfg(test)]
#[path = "../tests/golden_log.rs"]
mod golden_log;
#[cfg(test)]
#[path = "../tests/it.rs"]
mod it;
