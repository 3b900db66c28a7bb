//! A placement beside others: the same training, counted and timed.

use std::time::Instant;

use serde::Serialize;

use crate::error::Result;
use crate::run::trainer::Trainer;
use crate::settings::Config;
use crate::setup::job::Job;
use crate::step::traffic::{Asked, Counts, Storage, Traffic};

/// One placement, over some steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlacementReport {
    /// The placement, as a configuration spells it.
    pub placement: &'static str,
    /// Number format of features that are sent, `f16` or `f32`.
    pub features_as: &'static str,
    /// Bytes between lanes, mean per step.
    pub bytes_per_step: Traffic,
    /// Bytes that left a process, mean per step.
    pub wire_bytes_per_step: f64,
    /// Bytes of the step's data on all lanes together, mean per step.
    pub storage_bytes: Storage,
    /// How often images were asked for, mean per step.
    pub images: Asked,
    /// How often ids were asked for, mean per step.
    pub ids: Asked,
    /// Images run through a tower, mean per step.
    pub tower_forwards: f64,
    /// Impressions, mean per step.
    pub impressions: f64,
    /// Wall time; the first step, which makes the rows and the buffers, is not counted where there
    /// are others.
    pub seconds_per_step: f64,
    /// Mean loss of the last step.
    pub loss: f64,
    /// Number of steps taken.
    pub steps: u64,
}

/// Trains `steps` steps of `config` and reports about its placement. All processes call it
/// together.
///
/// # Errors
/// As [`Trainer::new`] and [`Trainer::step`].
pub fn placement(config: Config, steps: u64, job: Job) -> Result<PlacementReport> {
    let mut trainer = Trainer::new(config, job)?;
    let train = &trainer.config().train;
    let (placement, features_as) = (train.placement.as_str(), train.features_as.as_str());
    trainer.lanes_mut().take_counts()?;
    let (mut taken, mut timed, mut seconds, mut loss, mut impressions) = (0, 0, 0.0, 0.0, 0);
    while taken < steps {
        let begin = Instant::now();
        let Some(report) = trainer.step()? else { break };
        if taken == 1 {
            // The first one was the warm-up.
            (timed, seconds) = (0, 0.0);
        }
        taken += 1;
        timed += 1;
        seconds += begin.elapsed().as_secs_f64();
        loss = report.loss;
        impressions += report.impressions;
    }
    let counts = trainer.lanes_mut().take_counts()?;
    let Counts { traffic, images, ids, tower_forwards, storage, wire_bytes, .. } = counts;
    Ok(PlacementReport {
        placement,
        features_as,
        bytes_per_step: traffic,
        wire_bytes_per_step: wire_bytes,
        storage_bytes: storage,
        images,
        ids,
        tower_forwards,
        impressions: impressions as f64 / taken.max(1) as f64,
        seconds_per_step: seconds / f64::from(timed.max(1)),
        loss,
        steps: taken,
    })
}
