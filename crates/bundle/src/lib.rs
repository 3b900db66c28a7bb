//! A frozen model: its files, the scorer, the request, the evaluator.
//!
//! Knows samples and networks. Does not know gradients, optimizer state, shards or processes.
//!
//! In reading order: [`spec`], what a model is, and [`input`], what it reads of a sample;
//! [`folder`], files that appear together, [`tensors`] in them, and [`numbers`] where they are;
//! [`layout`], the names of files, and [`deltas`], of those that come later; [`contents`],
//! [`items`] and [`golden`], parts of a bundle; [`files`], a bundle being written, or [`arrival`],
//! one being copied; [`request`], what a model is asked, read by [`json`]; [`model`], the state of
//! a bundle in memory, which imports nothing that asks it. After it: [`resolve`], what a request
//! means to it, and [`page`], what it answers, and [`mod@explain`], why; [`mod@similar`], pictures
//! like one; [`Changes`] after publishing, [`delta`]s of them, which [`mod@compact`] makes one, and
//! [`carry`], what of them the next version gets; [`predictions`], [`ranking`] and
//! [`mod@evaluate`], how good a model is; [`vectors`], those of a pre-rank network.

pub mod error;
pub mod folder;
pub mod index;
pub mod input;
pub mod layout;
pub mod numbers;
pub mod spec;
pub mod tensors;

pub mod arrival;
pub mod contents;
mod dense;
pub mod files;
pub mod golden;
pub mod items;

pub mod carry;
mod changes;
pub mod compact;
pub mod delta;
pub mod deltas;
mod embed;
mod layer;
mod rows;

pub mod explain;
pub mod json;
pub mod model;
mod open;
pub mod page;
pub mod request;
pub mod resolve;
pub mod similar;

pub mod evaluate;
pub mod predictions;
pub mod ranking;
pub mod vectors;

pub mod fuzzing;

#[cfg(test)]
mod fixture;

pub use ams_model::linalg::Projection;
pub use arrival::{Arrival, Stamp};
pub use changes::Changes;
pub use compact::{Compacted, compact};
pub use contents::ContentTable;
pub use error::{Error, Result};
pub use evaluate::{Evaluation, evaluate};
pub use explain::Explained;
pub use files::{Frozen, Meta, RowFormat, Weights};
pub use golden::Golden;
pub use input::{Input, Keys};
pub use model::{Model, Scratch};
pub use numbers::Memory;
pub use page::{Missing, Ranked, Scored};
pub use predictions::Predictions;
pub use request::PageView;
pub use similar::Similar;
pub use spec::{
    ContentTowers, FurtherContent, ImageSource, Spec, TowerSharing, TowerSpec, TowerWeights,
};
