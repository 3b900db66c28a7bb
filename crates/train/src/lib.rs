//! Learning together: lanes, the step, tables, checkpoints, publishing.
//!
//! Knows samples, features, networks and how lanes exchange words. Does not know HTTP, requests, the
//! terminal or the environment.
//!
//! In reading order: [`config`]; [`trainer`], a training in memory; [`lanes`], the step; its halves
//! [`worker`] (with [`micro`] and [`feed`]) and [`shard`] (with [`table`] and [`ask`]); [`checkpoint`];
//! [`freeze`], from lanes to a bundle; [`run`], a training with its run folder.

pub mod ask;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod feed;
pub mod freeze;
pub mod lanes;
pub mod micro;
pub mod plan;
pub mod run;
pub mod shard;
pub mod table;
pub mod trainer;
pub mod worker;

pub use config::Config;
pub use error::{Error, Result};
pub use trainer::{StepReport, Trainer};
