//! Whether the model of a day may take the place of the one that serves.

use std::collections::BTreeMap;

use ams_bundle::Predictions;
use ams_model::loss::sigmoid;
use ams_model::metrics::{
    Bootstrap, Gain, Interval, MetricPair, Metrics, ResampledRanking, difference, logloss_gain,
};
use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

/// How much worse a new model may be. Intervals are the middle 95 % of a bootstrap of users,
/// paired: both models predict the same impressions, which neither has learned from. A new model is
/// refused where the whole interval is worse than the margin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// GAUC that may be lost. Range: at least 0.
    pub gauc: f64,
    /// Log loss, in nats per impression, that may be gained. Range: at least 0.
    pub logloss: f64,
    /// AUC of cold items, which the training does not show, that may be lost; fewer than 30 of
    /// them are not compared. Range: at least 0.
    pub cold_auc: f64,
    /// Factor by which predicted clicks may be more or fewer than clicks, unless the predictions of
    /// the model that serves are further off; the whole interval has to be beyond it. Range: more
    /// than 1.
    pub calibration: f64,
    /// Number of draws of the bootstrap. Range: at least 20.
    pub draws: usize,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { gauc: 0.002, logloss: 0.002, cold_auc: 0.01, calibration: 1.25, draws: 200 }
    }
}

/// A metric of both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Name of the metric.
    pub metric: String,
    /// The new model's; none where the impressions define none.
    pub new: Option<f64>,
    /// That of the model that serves.
    pub serving: Option<f64>,
    /// The gain of the new model; positive is better. None of calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// The interval of the gain, of calibration that of the new model's value; none of fewer than
    /// ten users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// What may be lost by the gate's settings, of calibration the factor; none of a metric that
    /// does not decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

/// Fewest cold items that are compared: users are drawn, not items, and the luck of a few items is
/// that of all users.
const FEWEST_ITEMS: usize = 30;

/// Fewest users that have an interval.
const FEWEST_USERS: usize = 10;

/// Standard errors on each side of an interval of 95 %.
const SIDES: f64 = 1.96;

impl Gate {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The key, what came and what is possible.
    pub fn check(&self) -> Result<(), String> {
        let margins = [("gauc", self.gauc), ("logloss", self.logloss), ("cold_auc", self.cold_auc)];
        if let Some((key, value)) = margins.into_iter().find(|(_, value)| !(0.0..).contains(value))
        {
            return Err(format!("gate.{key} is {value}, expected at least 0"));
        }
        if !(self.calibration > 1.0 && self.calibration.is_finite()) {
            let value = self.calibration;
            return Err(format!("gate.calibration is {value}, expected a factor of more than 1"));
        }
        if self.draws < 20 {
            return Err(format!("gate.draws is {}, expected at least 20", self.draws));
        }
        Ok(())
    }

    /// Compares two models by their predictions of the same impressions in the same order;
    /// `is_cold` says of an item whether the training of the new model does not show it.
    ///
    /// # Panics
    /// If the predictions are of different impressions.
    pub fn compare(
        &self,
        new: &Predictions,
        serving: &Predictions,
        is_cold: &dyn Fn(u64) -> bool,
    ) -> Vec<Comparison> {
        assert_eq!(
            (&new.users, &new.items, &new.labels),
            (&serving.users, &serving.items, &serving.labels),
            "both are of the same impressions"
        );
        let all = Metrics::of(&new.users, &new.logits, &new.labels);
        let of_serving = Metrics::of(&serving.users, &serving.logits, &serving.labels);
        let rows: Vec<usize> = (0..new.len()).collect();
        let mut cold: Vec<usize> =
            rows.iter().copied().filter(|&row| is_cold(new.items[row])).collect();
        let items: HashSet<u64> = cold.iter().map(|&row| new.items[row]).collect();
        if items.len() < FEWEST_ITEMS {
            cold.clear();
        }
        let [ours, theirs] = [new, serving].map(|of| self.ranking(of, &rows));
        let [our_cold, their_cold] = [new, serving].map(|of| self.ranking(of, &cold));
        let ranked = |name: &str, ours, theirs| {
            let gain = difference(&[MetricPair { metric: ours, minus: theirs }]);
            comparison(name, ours.value, theirs.value, gain)
        };
        let gain = logloss_gain(&new.users, &serving.logits, &new.logits, &new.labels);
        let gain = gain.map(|Gain { gain, error }| {
            let side = |sign: f64| Some(gain + sign * SIDES * error);
            Interval { mean: gain, low: side(-1.0), high: side(1.0) }
        });
        let compared = vec![
            ranked("GAUC", &ours.gauc, &theirs.gauc),
            ranked("AUC", &ours.auc, &theirs.auc),
            ranked("AUC of cold items", &our_cold.auc, &their_cold.auc),
            comparison("log loss", all.logloss, of_serving.logloss, gain),
            Comparison {
                interval: calibration_interval(new),
                ..comparison("calibration", all.calibration, of_serving.calibration, None)
            },
        ];
        let with_margin = |of: Comparison| Comparison { margin: self.margin(&of.metric), ..of };
        compared.into_iter().map(with_margin).collect()
    }

    fn margin(&self, metric: &str) -> Option<f64> {
        match metric {
            "GAUC" => Some(self.gauc),
            "AUC of cold items" => Some(self.cold_auc),
            "log loss" => Some(self.logloss),
            "calibration" => Some(self.calibration),
            _ => None,
        }
    }

    fn ranking(&self, of: &Predictions, rows: &[usize]) -> ResampledRanking {
        // All users, so that the same ones are drawn for cold items.
        let mut numbers = HashMap::new();
        for &user in &of.users {
            let next = numbers.len() as u32;
            numbers.entry(user).or_insert(next);
        }
        let users: Vec<u32> = rows.iter().map(|&row| numbers[&of.users[row]]).collect();
        let logits: Vec<f32> = rows.iter().map(|&row| of.logits[row]).collect();
        let labels: Vec<u8> = rows.iter().map(|&row| of.labels[row]).collect();
        let bootstrap = Bootstrap { replicates: self.draws, seed: 1 };
        bootstrap.ranking(numbers.len(), &users, &logits, &labels)
    }

    /// Why the new model is refused; nothing if it may serve.
    pub fn faults(&self, compared: &[Comparison]) -> Vec<String> {
        let mut faults = Vec::new();
        for of in compared {
            if let (Some(margin), Some([low, high]), Some(gain)) =
                (self.margin(&of.metric), of.interval, of.gain)
                && high < -margin
            {
                faults.push(format!(
                    "{} is {:.4} worse than that of the model that serves [{:.4}, {:.4}]; {margin} is allowed",
                    of.metric, -gain, -high, -low
                ));
            }
            if of.metric == "calibration"
                && let (Some(new), Some(serving)) = (of.new, of.serving)
            {
                let off = |value: f64| value.ln().abs();
                let [low, high] = of.interval.unwrap_or([new, new]);
                let is_off = low > self.calibration || high < 1.0 / self.calibration;
                if is_off && off(new) > off(serving) {
                    faults.push(format!(
                        "predicted clicks are {new:.3} times the clicks, those of the model that serves {serving:.3} times; a \
                         factor of {} is allowed",
                        self.calibration
                    ));
                }
            }
        }
        faults
    }
}

/// The interval of predicted clicks over clicks, 1.96 standard errors to both sides, with users as
/// independent; none without a click, or of fewer than ten users.
fn calibration_interval(of: &Predictions) -> Option<[f64; 2]> {
    // In order of users, so that sums have one order.
    let mut users: BTreeMap<u64, [f64; 2]> = BTreeMap::new();
    for ((&user, &label), &logit) in of.users.iter().zip(&of.labels).zip(&of.logits) {
        let [clicks, predicted] = users.entry(user).or_default();
        *clicks += f64::from(label);
        *predicted += f64::from(sigmoid(logit));
    }
    let sum = |at: usize| users.values().map(|of| of[at]).sum::<f64>();
    let (clicks, predicted) = (sum(0), sum(1));
    if users.len() < FEWEST_USERS || clicks == 0.0 {
        return None;
    }
    let ratio = predicted / clicks;
    let squares = users.values().map(|[clicks, predicted]| (predicted - ratio * clicks).powi(2));
    let error = squares.sum::<f64>().sqrt() / clicks;
    Some([ratio - SIDES * error, ratio + SIDES * error])
}

fn comparison(
    metric: &str,
    new: Option<f64>,
    serving: Option<f64>,
    gain: Option<Interval>,
) -> Comparison {
    let interval = gain.and_then(|gain| Some([gain.low?, gain.high?]));
    Comparison {
        metric: metric.to_owned(),
        new,
        serving,
        gain: gain.map(|gain| gain.mean),
        interval,
        margin: None,
    }
}

#[cfg(test)]
mod tests {
    use ams_model::init::mix;
    use ams_model::metrics::auc;

    use super::*;

    /// A thousand impressions of a hundred users, predicted with more or less noise.
    fn predictions(noise: f64, shift: f32) -> Predictions {
        let uniform = |at: u64, column: u64| {
            let mixed = mix(mix(at) ^ column);
            (mixed >> 40) as f64 / (1u64 << 24) as f64
        };
        let rows = 0..1_000u64;
        let truth = |at: u64| 3.0 * (uniform(at, 1) - 0.5);
        let label = |at: u64| u8::from(uniform(at, 2) < 1.0 / (1.0 + (-truth(at)).exp()));
        let logit = |at: u64| (truth(at) + noise * (uniform(at, 3) - 0.5)) as f32 + shift;
        Predictions {
            users: rows.clone().map(|at| at % 100).collect(),
            items: rows.clone().map(|at| at % 50).collect(),
            labels: rows.clone().map(label).collect(),
            logits: rows.clone().map(logit).collect(),
            behaviors: vec![0; 1_000],
            with_image: vec![true; 1_000],
            times: vec![0; 1_000],
        }
    }

    fn faults(new: &Predictions, serving: &Predictions) -> Vec<String> {
        let gate = Gate::default();
        let compared = gate.compare(new, serving, &|item| item < 40);
        let value = |name: &str| compared.iter().find(|of| of.metric == name).unwrap().new;
        assert_eq!(value("AUC"), auc(&new.logits, &new.labels));
        gate.faults(&compared)
    }

    #[test]
    fn the_same_and_better_models_may_serve() {
        let good = predictions(0.0, 0.0);
        assert_eq!(faults(&good, &good), [""; 0]);
        assert_eq!(faults(&good, &predictions(20.0, 0.0)), [""; 0]);
        // Few cold items say nothing.
        let few = Gate::default().compare(&good, &predictions(20.0, 0.0), &|item| item < 29);
        let cold = few.iter().find(|of| of.metric == "AUC of cold items").unwrap();
        assert_eq!((cold.new, cold.gain), (None, None));
        // Worse, but not more than chance.
        assert_eq!(faults(&predictions(0.3, 0.0), &good), [""; 0]);
    }

    #[test]
    fn worse_models_are_refused_by_what_is_worse() {
        let good = predictions(0.0, 0.0);
        let noisy = faults(&predictions(20.0, 0.0), &good);
        for word in ["GAUC is", "log loss is", "AUC of cold items is"] {
            assert!(noisy.iter().any(|fault| fault.starts_with(word)), "{word}: {noisy:?}");
        }
        let shifted = faults(&predictions(0.0, 1.0), &good);
        assert!(shifted.iter().any(|fault| fault.starts_with("predicted clicks")), "{shifted:?}");
        assert!(!shifted.iter().any(|fault| fault.starts_with("GAUC")), "{shifted:?}");
        // Both are off, this one less.
        assert_eq!(faults(&predictions(0.0, 1.0), &predictions(0.0, 1.5)), [""; 0]);
    }

    #[test]
    fn margins_are_checked() {
        let bad = [
            (Gate { gauc: -0.1, ..Gate::default() }, "gate.gauc is -0.1"),
            (Gate { calibration: 1.0, ..Gate::default() }, "gate.calibration is 1"),
            (Gate { draws: 3, ..Gate::default() }, "gate.draws is 3"),
        ];
        for (gate, expected) in bad {
            let error = gate.check().unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
