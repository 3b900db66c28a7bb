//! Pure arithmetic: kernels, towers, aggregators, the rank network, losses, optimizers, metrics.
//!
//! ```
//! use ams_model::linalg::Packed;
//! use ams_model::{Tower, TowerConfig, TowerScratch};
//! use half::f16;
//!
//! // A tower turns features (U, F) into embeddings (U, D); its weights are one slice.
//! let tower = Tower::new(TowerConfig { input: 4, widths: vec![3, 2] });
//! let weights = tower.init(1, "image");
//! let (mut first, mut scratch, mut out) = (Packed::default(), TowerScratch::default(), Vec::new());
//! tower.pack(&weights, &mut first);
//! let zeros = [f16::ZERO; 4];
//! let rows: &[&[f16]] = &[&zeros];
//! tower.forward(&weights, first.panels(), rows, 1.0, &mut scratch, &mut out);
//! assert_eq!(out, [0.0, 0.0]);
//! ```
//!
//! Knows slices, shapes, offsets and a seed. Does not know files, clocks, sockets, threads, ids, or
//! where a row came from. Every function is single-threaded: parallelism is the caller's, so
//! results depend on the arguments alone.
//!
//! Letters: B impressions, G groups, N behaviors in all groups, U unique images, R unique rows,
//! D embedding width, F feature width. A gradient is `d` + the name of the value. Forward and
//! backward of an operation are neighbors, and all matrices are row-major.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

pub mod init;
pub mod params;

pub mod dropout;
mod linear;
mod pool;
mod prelu;
mod stack;

mod aggregate;
pub mod rank;
pub mod search;
pub mod settings;
pub mod tower;

pub mod align;

mod adagrad;
pub mod adam;
pub mod loss;
mod row_optimizer;
pub mod schedule;

pub mod calibration;
pub mod metrics;
pub mod pca;

#[cfg(test)]
mod check;

pub use aggregate::Aggregator;
pub use ams_linalg as linalg;
pub use params::{Entry, Layout, View};
pub use rank::{
    Attended, Base, ContentBatch, ContentGrads, ImageArm, InputGrads, Interactions, Lists, Moments,
    NO_IMAGE, RankBatch, RankConfig, RankNetwork, RankScratch, Similarity, Sketches,
};
pub use row_optimizer::RowOptimizer;
pub use settings::{NetworkSettings, SearchBy, SearchSettings};
pub use tower::{Rows, Tower, TowerBuffers, TowerConfig, TowerScratch, Upcoming};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_model;
#[cfg(test)]
#[path = "../tests/golden.rs"]
mod golden;
