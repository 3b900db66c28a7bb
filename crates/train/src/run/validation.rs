//! Users held out of a training, and the metrics of the model for them after each epoch.

use ams_data::Card;
use ams_fabric::{Fabric, gather};
use ams_model::metrics::Metrics;

use crate::error::{Error, Result};
use crate::run::progress::Validation;
use crate::settings::Config;

/// Checks that every lane keeps parts to learn from.
///
/// # Errors
/// If the parts cannot be divided, with the number and the possible ones.
pub(crate) fn check(config: &Config, card: &Card) -> Result<()> {
    let (held_out, lanes, parts) = (config.train.validation_parts, config.train.lanes, card.parts);
    let bad = |what| Err(Error::Config { key: "train.validation_parts".into(), what });
    if held_out == 0 {
        return Ok(());
    }
    if held_out >= parts || !parts.is_multiple_of(held_out) {
        return bad(format!(
            "{held_out} of the dataset's {parts} parts, expected fewer than that, and a number that \
             divides it"
        ));
    }
    if lanes == parts {
        return bad(format!(
            "{held_out} of the dataset's {parts} parts, but each of {lanes} lanes has one: a lane would \
             have nothing to learn from; use at most {} lanes (train.lanes)",
            parts / 2
        ));
    }
    Ok(())
}

/// The validation by `metrics`, which the first process has, at every process. All call it
/// together.
pub(crate) fn tell(metrics: Option<Metrics>, fabric: &mut dyn Fabric) -> Result<Validation> {
    let mine: Vec<u64> = metrics.map_or(Vec::new(), |metrics| {
        let all = [metrics.gauc, metrics.auc, metrics.logloss];
        let words =
            |value: Option<f64>| [u64::from(value.is_some()), value.map_or(0, f64::to_bits)];
        all.into_iter().flat_map(words).collect()
    });
    let first = gather::numbers(fabric, &mine)?.swap_remove(0);
    let value = |at: usize| (first[2 * at] == 1).then(|| f64::from_bits(first[2 * at + 1]));
    Ok(Validation { gauc: value(0), auc: value(1), logloss: value(2) })
}
