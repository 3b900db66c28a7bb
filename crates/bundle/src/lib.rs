//! A frozen model: its files, the scorer, the request, the evaluator.
//!
//! Knows samples and networks. Does not know gradients, optimizer state, shards or processes.
//!
//! In reading order, each of which imports none that come later: [`spec`], what a model is, and
//! [`input`], what it reads of a sample; [`request`], what a model is asked, read by [`json`];
//! [`files`], how they appear together, their names, and the numbers in them; [`tables`] of rows,
//! items and embeddings, and deltas over them; [`model`], the state of a bundle in memory, which
//! scores groups of samples, and `open`, which checks and reads one; [`mod@write`], a bundle being
//! written. Who asks the model: [`delta`], what changed after publishing; [`page`], what is
//! answered to a request; [`mod@evaluate`], how good a model is, of predictions alone.

pub mod error;
pub mod input;
pub mod json;
pub mod request;
pub mod spec;

pub mod files;
pub mod tables;

pub mod model;
mod open;
pub mod write;

pub mod delta;
pub mod page;

pub mod evaluate;

pub mod fuzzing;

#[cfg(test)]
mod fixture;

pub use ams_model::linalg::Projection;
pub use delta::compact::{Compacted, compact};
pub use delta::{Changes, carry};
pub use error::{Error, Result};
pub use evaluate::predictions::Predictions;
pub use evaluate::ranking;
pub use evaluate::{Evaluation, evaluate};
pub use files::arrival::{Arrival, Stamp};
pub use files::golden::Golden;
pub use files::layout::Meta;
pub use files::numbers::Memory;
pub use files::{arrival, folder};
pub use input::{Input, Keys};
pub use model::{Model, Scratch};
pub use page::explain::Explained;
pub use page::similar::Similar;
pub use page::{Missing, Ranked, Scored, explain, similar, vectors};
pub use request::PageView;
pub use spec::{
    ContentTowers, FurtherContent, ImageSource, Spec, TowerSharing, TowerSpec, TowerWeights,
};
pub use tables::contents::ContentTable;
pub use write::{Frozen, RowFormat, Weights, write};
