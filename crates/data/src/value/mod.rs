//! The one reading of values: what a text says, wherever it comes from.
//!
//! Tables, requests and deltas hand over texts (a typed number or boolean as the text people write
//! for it); what they mean is decided here and nowhere else, so that a value is the same id in
//! training and in serving. `docs/values.md` says the same to people. Errors are phrases to be
//! completed with file, row and column.

pub mod buckets;
mod id;
mod label;
mod list;
mod number;
mod time;

pub use buckets::{Buckets, Sketch};
pub(crate) use id::loose;
pub use id::{category, id, is_missing};
pub use label::{LabelRule, label};
pub(crate) use list::is_literal;
pub use list::{SEPARATOR, parts};
pub(crate) use number::number_text;
pub use number::{Decimal, measure, number};
pub use time::{TimeForm, TimeReader, instant};
pub(crate) use time::{is_plausible, show_time};
