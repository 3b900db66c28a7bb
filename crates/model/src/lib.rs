//! Pure arithmetic: kernels, towers, aggregators, the rank network, losses, optimizers, metrics.
//!
//! Knows slices, shapes, offsets and a seed. Does not know files, clocks, sockets, threads, ids, or
//! where a row came from. Every function is single-threaded: parallelism is the caller's, so
//! results depend on the arguments alone.
//!
//! Letters: B impressions, G groups, N behaviors in all groups, U unique images, R unique rows,
//! D embedding width, F feature width. A gradient is `d` + the name of the value. Forward and
//! backward of an operation are neighbors, and all matrices are row-major.

pub mod init;
pub mod params;

pub mod dropout;
pub mod linear;
pub mod pool;
pub mod prelu;
pub mod stack;

pub mod aggregate;
pub mod rank;
pub mod settings;
pub mod tower;

pub mod adagrad;
pub mod adam;
pub mod loss;
pub mod row_optimizer;
pub mod schedule;

pub mod metrics;
pub mod pca;

#[cfg(test)]
mod check;

pub use aggregate::Aggregator;
pub use ams_linalg as linalg;
pub use params::{Entry, Layout, View};
pub use rank::{
    Attended, Base, ContentBatch, ContentGrads, ImageArm, InputGrads, Interactions, Lists,
    NO_IMAGE, RankBatch, RankConfig, RankNetwork, RankScratch, Similarity, Sketches,
};
pub use row_optimizer::RowOptimizer;
pub use settings::NetworkSettings;
pub use tower::{Room, Rows, Tower, TowerConfig, TowerScratch};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_model;
#[cfg(test)]
#[path = "../tests/golden.rs"]
mod golden;
