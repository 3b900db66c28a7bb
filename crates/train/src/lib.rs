//! Training: lanes, the step, checkpoints, publishing.
//!
//! A training is divided into a fixed number of lanes. Threads and processes decide only where a
//! lane runs, so the bits of the result do not depend on them:
//!
//! ```
//! use ams_train::{Config, Job, Trainer};
//! # let folder = tempfile::tempdir()?;
//! # let samples = folder.path().join("samples");
//! # let shape = ams_data::simulate::SimulateConfig {
//! #     batches: 1,
//! #     impressions: 256,
//! #     groups: 64,
//! #     items: 50,
//! #     ..ams_data::simulate::SimulateConfig::paper()
//! # };
//! # ams_data::simulate::simulate(&shape, &samples)?;
//!
//! let toml = format!("name = 'joint'\nmodel.images = 'none'\ndata.samples = {samples:?}");
//! let config: Config = toml::from_str(&toml)?;
//! let mut one_thread = Trainer::new(config.clone(), Job::solo(1))?;
//! let mut two_threads = Trainer::new(config, Job::solo(2))?;
//! let step = one_thread.step()?.expect("the first step");
//! assert!(step.loss.is_finite());
//! assert_eq!(Some(step), two_threads.step()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Knows samples, features, networks and how lanes exchange words. Does not know HTTP, requests,
//! the terminal or the environment. Each module imports those above it in this list alone.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod error;

/// Settings of a training, as a TOML file spells them.
pub mod settings;

mod setup;

mod step;

/// A linear map of image features, aligned with the items that users engage with together.
pub mod align;

/// A training with its folder: steps, validation, checkpoints.
pub mod run;

mod calibrate;

mod publish;

/// Settings tried on samples held out.
pub mod tune;

/// Ablations: the rows of the paper's tables trained with several seeds, and compared.
pub mod ablate;

/// Measurements of trainings, steps, tables of rows and samples.
pub mod measure;

pub use calibrate::{
    BeforeAndAfter, CalibrationReport, CalibrationSettings, CurveKind, Figures, FittedTo, Shown,
};
pub use error::{Error, Result};
pub use publish::{Pictures, PublishSettings, Published, publish};
pub use run::progress::StepReport;
pub use run::trainer::Trainer;
pub use settings::{Config, Placement};
pub use setup::job::Job;
pub use step::frequency::FieldIds;
pub use step::row_counts::RowCounts;
pub use step::traffic::{Asked, Counts};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
extern crate self as ams_train;
#[cfg(test)]
#[path = "../tests/it/main.rs"]
mod it;
