//! From picture to image feature: decode, resize, encoders, feature stores.
//!
//! ```
//! use ams_image::encoder::encode_one;
//! use ams_image::{Builtin, Encoder, Limits};
//!
//! // A white GIF of one pixel.
//! let gif = b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0!\xf9\x04\0\0\0\0\0\
//!     ,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
//! let encoder = Builtin::new(64, 1).unwrap();
//! let (key, row) = encode_one(&encoder, gif, &Limits::default()).unwrap();
//! assert_eq!(row.len(), encoder.dim());
//! // The key is a hash of the content: the same picture has the same key and the same row.
//! assert_eq!((key, row), encode_one(&encoder, gif, &Limits::default()).unwrap());
//! ```
//!
//! Knows pictures, encoders and feature files. Does not know what a user, a click or a training
//! step is: a picture has a name and a content, nothing else.
//!
//! Reading order: [`decode`] turns bytes into pixels, an [`encoder`] turns pixels into a row of
//! numbers, [`mod@encode`] and [`mod@precomputed`] fill a [`store`] with rows, everybody else reads
//! that store.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

pub mod builtin;
mod card;
mod codes;
pub mod decode;
pub mod edit;
pub mod encode;
pub mod encoder;
mod failure;
mod kind;
pub mod listing;
pub mod neighbors;
pub mod precomputed;
mod report;
pub mod resize;
mod row;
mod simulated;
pub mod sprite;
mod store;
pub mod table;
pub mod thumbnail;

mod durable;
mod halves;
mod journal;
mod jpeg;
mod manifest;
mod matrix;
mod messages;
mod npy;
mod picture_file;
mod segment;
mod semantic;
mod spelling;
pub mod tensors;
mod write;

pub use ams_linalg::{Codebooks, Normalize, Projection};
pub use builtin::Builtin;
pub use card::{CodesCard, StoreCard};
pub use codes::{ImageCodes, SemanticIds};
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
