//! From picture to image feature: decode, resize, encoders, feature stores.
//!
//! Knows pictures, encoders and feature files. Does not know what a user, a click or a training
//! step is: a picture has a name and a content, nothing else.
//!
//! Reading order: [`decode`] turns bytes into pixels, an [`encoder`] turns pixels into a row of
//! numbers, [`mod@encode`] and [`mod@precomputed`] fill a [`store`] with rows, everybody else reads
//! that store.

pub mod builtin;
pub mod card;
pub mod crew;
pub mod decode;
pub mod edit;
pub mod encode;
pub mod encoder;
pub mod failure;
pub mod kind;
pub mod listing;
pub mod neighbors;
pub mod precomputed;
pub mod report;
pub mod resize;
pub mod row;
pub mod simulated;
pub mod store;
pub mod table;
pub mod thumbnail;

mod durable;
mod halves;
mod journal;
mod jpeg;
mod manifest;
mod matrix;
mod npy;
mod picture_file;
mod segment;
mod spelling;
pub mod tensors;
mod write;

pub use ams_linalg::Projection;
pub use builtin::Builtin;
pub use card::StoreCard;
pub use decode::{Limits, Rgb};
pub use encode::{EncodeOptions, Progress, encode, encode_together};
pub use encoder::{Encoder, Scratch};
pub use failure::{Failure, Reason};
pub use precomputed::{PrecomputedOptions, precomputed};
pub use report::EncodeReport;
pub use row::{Row, RowType};
pub use simulated::simulated;
pub use store::{FeatureStore, Place};

pub use ams_data::{Error, Result};
