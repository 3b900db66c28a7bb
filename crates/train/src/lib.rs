//! Learning together: lanes, the step, tables, checkpoints, publishing.
//!
//! Knows samples, features, networks and how lanes exchange words. Does not know HTTP, requests,
//! the terminal or the environment.
//!
//! In reading order: [`config`] (with [`preset`]); [`trainer`], a training in memory, [`sources`],
//! [`setup`] and [`job`], what it is made of; [`lanes`], the step; its halves [`worker`] (with
//! [`micro`] and [`feed`]) and [`shard`] (with [`table`] and [`ask`]); [`embed`], the towers on
//! either half, and [`components`], some that do not learn; [`traffic`], what a step moves, and
//! [`frequency`], how often ids occur; [`checkpoint`], and
//! [`warm_start`], which begins with one;
//! [`gathered`], predictions in one place; [`freeze`], from lanes to a bundle; [`run`], a training
//! with its run folder (with [`journal`]); [`validation`], on users held out, and early stop;
//! [`ablate`], many trainings compared; [`compare`], [`capacity`], [`data_rate`], [`measure`] and
//! [`stages`], what is measured.

pub mod ablate;
pub mod ask;
pub mod capacity;
pub mod checkpoint;
pub mod compare;
pub mod components;
pub mod config;
pub mod data_rate;
pub mod embed;
pub mod error;
pub mod export;
pub mod feed;
pub mod first_layers;
pub mod forecast;
pub mod freeze;
pub mod frequency;
pub mod gathered;
pub mod job;
pub mod journal;
pub mod lanes;
pub mod measure;
pub mod micro;
pub mod plan;
pub mod preset;
pub mod run;
pub mod setup;
pub mod shard;
pub mod sources;
pub mod stages;
pub mod table;
pub mod traffic;
pub mod trainer;
pub mod validation;
pub mod warm_start;
pub mod worker;

pub use config::{Config, Placement};
pub use error::{Error, Result};
pub use job::Job;
pub use trainer::{StepReport, Trainer};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_train;
#[cfg(test)]
#[path = "../tests/it/main.rs"]
mod it;
