//! Learning together: lanes, the step, checkpoints, publishing.
//!
//! Knows samples, features, networks and how lanes exchange words. Does not know HTTP, requests,
//! the terminal or the environment. Each wing imports those above it in this list alone.

/// Why a training cannot start or go on.
pub mod error;

/// What a training computes, as a TOML file spells it.
pub mod settings;

/// What a training is made of before its first step: its sources, its model, its processes.
pub mod setup;

/// The step: workers, shards and the exchanges between them.
pub mod step;

/// A training with its folder: trainer, checkpoints, validation.
pub mod run;

/// From lanes to a bundle.
pub mod publish;

/// Many trainings compared.
pub mod ablate;

/// What is measured of trainings, steps, tables and samples.
pub mod measure;

pub use error::{Error, Result};
pub use run::state::StepReport;
pub use run::trainer::Trainer;
pub use settings::{Config, Placement};
pub use setup::job::Job;

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_train;
#[cfg(test)]
#[path = "../tests/it/main.rs"]
mod it;
