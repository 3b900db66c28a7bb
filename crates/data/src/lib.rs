//! What happened: schema, ids, groups, sample files, importers, prepare, the synthetic shop.
//!
//! A value is its hash, and a field of a group is a list of values:
//!
//! ```
//! use ams_data::{Id, Ragged};
//!
//! let tags = |texts: &[&str]| texts.iter().map(|text| Id::of("tag", text)).collect::<Vec<Id>>();
//! let mut rows: Ragged<Id> = Ragged::default();
//! rows.push(&tags(&["red", "wool"]));
//! rows.push(&tags(&[]));
//! assert_eq!((rows.row(0).len(), rows.row(1).len()), (2, 0));
//! assert_eq!(rows.row(0)[0], Id::of("tag", "red"));
//! assert_ne!(rows.row(0)[0], Id::of("color", "red"));
//! ```
//!
//! Knows files, fields, ids, time and seeds. Does not know what a weight, a gradient, a network or
//! a request is.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

pub mod barsctr;
pub mod catalogue;
pub mod check;
pub mod dataset;
pub mod edges;
mod error;
pub mod examine;
mod groups;
mod guard;
mod id;
pub mod lock;
mod mapped;
pub mod movielens;
pub mod negatives;
pub mod outcomes;
pub mod own_past;
mod parquet_file;
pub mod prepare;
pub mod propensities;
mod ragged;
pub mod samples;
pub mod schema;
pub mod simulate;
pub mod source;
pub mod staging;
pub mod synth;
pub mod tensors;
pub mod value;

pub use catalogue::Catalogue;
pub use dataset::{Dataset, SplitName};
pub use error::{Error, Result, built_without};
pub use groups::Groups;
pub use guard::guarded;
pub use id::{Id, IdMap, ImageKey, PictureName, part_of};
pub use mapped::map;
pub use ragged::{Offsets, Ragged};
pub use samples::SampleFile;
pub use schema::{Card, Counts, Field, FieldKind, Labels, Schema, Side, Split};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_data;
#[cfg(test)]
#[path = "../tests/examine.rs"]
mod examined;
#[cfg(test)]
#[path = "../tests/golden_log.rs"]
mod golden_log;
#[cfg(test)]
#[path = "../tests/importers.rs"]
mod importers;
#[cfg(test)]
#[path = "../tests/it.rs"]
mod it;
#[cfg(test)]
#[path = "../tests/sampled_labels.rs"]
mod sampled_labels;
