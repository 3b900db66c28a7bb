//! A published model: its files, the scorer, requests, the evaluator.
//!
//! ```
//! use ams_bundle::{PageView, by_ecpm};
//!
//! let json = br#"{"candidates": {"item": ["shoe", "hat"], "bid": [1.0, 3.0]}}"#;
//! let page = PageView::parse(json).unwrap();
//! // The order is by bid times predicted click-through rate, which a `Model` computes.
//! assert_eq!(by_ecpm(&page, &[0.5, 0.25]), [(1, 0.75), (0, 0.5)]);
//! ```
//!
//! Knows samples and networks. Does not know gradients, optimizer state, shards or processes.
//!
//! In reading order, each of which imports none that come later: `spec`, the shape of a model, and
//! `input`, the columns of a sample that it reads; `calibration`, from
//! its logits to rates; [`search`], the behaviors that it
//! keeps of them; [`request`], a page view, read by [`json`];
//! `files`, folders that appear as a whole, their names, and the numbers in them; `tables` of rows,
//! items and embeddings, and deltas over them; `model`, the state of a bundle in memory, which
//! scores groups of samples; `unpack`, a version as the files of a bundle, and `open`, which checks
//! and reads one; `write`, which publishes one.
//! Users of the model: `delta`, changes after publishing; `page`, answers to requests; `evaluate`,
//! metrics of predictions.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod calibration;
mod error;
mod input;
pub mod json;
pub mod request;
pub mod search;
mod spec;

mod files;
mod tables;

mod model;
mod unpack;

mod open;
mod write;

mod delta;
mod page;

mod evaluate;

#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod fixture;

pub use ams_model::linalg::{Codebooks, Normalize, Projection};
pub use ams_model::pca::Whiten;
pub use calibration::{Calibration, Sampling};
pub use delta::between::{VersionDelta, VersionDeltaOptions, check_shapes, write_version_delta};
pub use delta::carry::Carried;
pub use delta::compact::{Compacted, compact};
pub use delta::{Changes, verify};
pub use error::{Error, Result};
pub use evaluate::off_policy::{
    Choice, Estimate, Evaluated, LogOptions, OffPolicy, Overlap, Requests, RewardModel, Weighing,
    off_policy,
};
pub use evaluate::predictions::Predictions;
pub use evaluate::ranking::{Ranking, by_score, by_user};
pub use evaluate::retrieval::{At, Retrieval, Seen, retrieval};
pub use evaluate::{Evaluation, evaluate};
pub use files::arrival::{Arrival, Stamp};
pub use files::golden::Golden;
pub use files::layout::{BundleMeta, next_version, whole_versions};
pub use files::numbers::{Memory, Numbers};
pub use files::version_delta::{LONGEST_CHAIN, Rounded, RowCounts, VersionDeltaMeta, bases};
pub use files::{arrival, folder, version_bytes};
pub use input::{Input, Keys, Semantic, recency};
pub use model::{Model, Scratch};
pub use open::{Described, describe};
pub use page::explain::{Attention, Explained};
pub use page::similar::{Similar, SimilarRequest};
pub use page::{
    Alone, Helpers, Missing, OfPage, Parts, Ranked, Scored, Team, by_ecpm, ctrs_while, score_while,
    vectors,
};
pub use request::PageView;
pub use spec::{
    CodebookSource, ContentTowers, FurtherContent, ImageSource, NormalizeName, Spec, TowerSharing,
    TowerSpec, TowerWeights,
};
pub use tables::contents::{CodeTable, ContentTable};
pub use unpack::{unpack, version_delta};
pub use write::{Frozen, RowFormat, Weights, add_decision, write};
