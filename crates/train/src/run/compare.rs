//! Two trainings compared on the samples that both held out.

use std::path::Path;

use ams_bundle::Predictions;
use ams_fabric::{Fabric, gather};
use ams_model::metrics::{Gain, auc_gain, gauc_gain, logloss_gain};

use crate::error::Result;
use crate::run::layout::CHECKPOINTS;
use crate::run::trainer::Trainer;
use crate::settings::Criterion;
use crate::setup::job::Job;

/// Predictions of the result of `run` for the samples it held out, at the first process; calls
/// `alive` now and then. All processes call it together.
///
/// # Errors
/// If the run has no checkpoint or its samples cannot be read.
pub(crate) fn predict_held_out(
    run: &Path,
    job: Job,
    alive: &mut dyn FnMut(),
) -> Result<Predictions> {
    Trainer::resume(&run.join(CHECKPOINTS), job)?.predict_held_out(alive)
}

/// How much better `second` is than `first`, which the first process has, of the same impressions;
/// `None` where that is not defined. At every process; all call it together.
pub(crate) fn gain(
    criterion: Criterion,
    first: &Predictions,
    second: &Predictions,
    fabric: &mut dyn Fabric,
) -> Result<Option<Gain>> {
    let Predictions { users, labels, logits: first, .. } = first;
    let second = &second.logits;
    let mine = match criterion {
        Criterion::Gauc => gauc_gain(users, first, second, labels),
        Criterion::Auc => auc_gain(first, second, labels),
        Criterion::Logloss => logloss_gain(users, first, second, labels),
    };
    let words = mine.map_or(Vec::new(), |of| vec![of.gain.to_bits(), of.error.to_bits()]);
    let told = gather::numbers(fabric, &words)?.swap_remove(0);
    Ok(match told[..] {
        [gain, error] => Some(Gain { gain: f64::from_bits(gain), error: f64::from_bits(error) }),
        _ => None,
    })
}
