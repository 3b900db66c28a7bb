//! What runs found, as one page: figures with their intervals, charts, pictures, what is missing.
//!
//! A report has three steps, each of which knows only the one before: [`Runs::gather`] reads what
//! there is, `figures` computes, `sections` words the result as a [`Document`]. [`html()`] and
//! [`markdown()`] write a document. The same runs give the same bytes: no clock, no path of this
//! host but those of the runs, and no sum whose order depends on threads.
//!
//! Knows runs, bundles and pictures. Does not know HTTP, the terminal, or how a model is published:
//! the caller opens it.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod document;

mod chart;
mod markdown;

mod html;

mod pictures;

mod look;

mod gather;

mod choice;
mod figures;
mod learning;

mod ablation;
mod experiment;
mod sections;

pub use ablation::ablation;
pub use document::Document;
pub use experiment::experiment;
pub use gather::{Freeze, Frozen, Runs, Ways};
pub use html::html;
pub use markdown::markdown;
pub use sections::report;
