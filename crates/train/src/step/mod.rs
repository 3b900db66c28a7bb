//! The lanes of this process, and the step they take together.
//!
//! ```text
//! worker                                    shard (owner of id / image)
//! read [, search]
//! deduplicate        --- asks ----------->  merge, look up, towers forward
//! W forward, loss,   <-- answers ---------
//! backward           --- gradients ------>  sum in lane order, row optimizer, towers backward
//! ordered sum of (dW, dE) over all lanes, Adam on the replicated (W, E)
//! ```
//! Every arrow is one exchange between all lanes. Everything a lane computes is single-threaded;
//! the lanes of a process run side by side on its thread pool, which is the only parallelism there
//! is.

pub(crate) mod batch;
pub(crate) mod contrastive;
pub(crate) mod dedup;
pub(crate) mod dense_sum;
pub(crate) mod draws;
pub(crate) mod feed;
pub(crate) mod first_layers;
mod forward;
pub(crate) mod frequency;
pub(crate) mod id_dropout;
pub(crate) mod in_batch;
pub(crate) mod items;
mod lanes;
pub(crate) mod mail;
mod plan;
pub(crate) mod popularity;
pub(crate) mod row_counts;
pub(crate) mod search;
pub(crate) mod selection;
pub(crate) mod shard;
pub(crate) mod share;
pub(crate) mod sighting;
pub(crate) mod sketch;
pub(crate) mod stages;
pub(crate) mod table;
pub(crate) mod tower_run;
pub(crate) mod traffic;
mod update;
pub(crate) mod worker;

pub(crate) use lanes::Lanes;
pub(crate) use plan::{Dense, DenseSettings, PartSteps, Pass, StepOutcome, StepPlan};
