//! The progress of a training between two steps: its cursor, and the history of its validation.

use serde::{Deserialize, Serialize};

use crate::settings::Criterion;

/// Where a training stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Steps taken since the beginning of the training.
    pub step: u64,
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// Steps taken in this epoch.
    pub step_in_epoch: u64,
    /// Impressions learned from, once per epoch.
    pub impressions: u64,
}

/// A step of a training; of no impressions, if it was a round of a validation or of an alignment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Where the training stands after it.
    pub cursor: Cursor,
    /// Impressions of the step.
    pub impressions: u64,
    /// Mean loss of the step.
    pub loss: f64,
    /// Mean loss of its clicks beside their negatives of the batch, if they have some.
    pub in_batch: Option<f64>,
    /// Mean contrastive loss of its pairs of images, if it has one.
    pub contrastive: Option<f64>,
    /// Learning rate of the dense weights in the step.
    pub learning_rate: f32,
    /// Learning rate of the rows of ids in the step.
    pub rows_learning_rate: f32,
    /// Phase of the step, counted from 1; none without `train.phases`.
    pub phase: Option<u32>,
}

impl StepReport {
    /// A round of anything but clicks at `cursor`: of a validation, or of an alignment.
    pub(crate) fn round(cursor: Cursor) -> StepReport {
        StepReport {
            cursor,
            impressions: 0,
            loss: 0.0,
            in_batch: None,
            contrastive: None,
            learning_rate: 0.0,
            rows_learning_rate: 0.0,
            phase: None,
        }
    }
}

/// Metrics of a model for the samples held out; `None` where a metric is not defined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validation {
    /// AUC within users, weighted by their impressions.
    pub gauc: Option<f64>,
    /// Area under the ROC curve.
    pub auc: Option<f64>,
    /// Mean cross-entropy in nats.
    pub logloss: Option<f64>,
}

impl Validation {
    /// For people: GAUC, AUC and log loss; a dash where a metric is not defined.
    pub fn cells(&self) -> [String; 3] {
        [self.gauc, self.auc, self.logloss]
            .map(|value| value.map_or("-".to_owned(), |value| format!("{value:.4}")))
    }

    /// How good it is by `criterion`, more being better; `None` where the metric is not defined.
    pub(crate) fn by(&self, criterion: Criterion) -> Option<f64> {
        match criterion {
            Criterion::Gauc => self.gauc,
            Criterion::Auc => self.auc,
            Criterion::Logloss => self.logloss.map(|loss| -loss),
        }
    }
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Best {
    /// The epoch, counted from 0.
    pub epoch: u32,
    /// Steps taken before it.
    pub step: u64,
    /// How good it was.
    pub validation: Validation,
    /// Number of the evaluation, counted from 1. None in checkpoints of before 0.2.0, whose
    /// evaluations were those of epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<u32>,
}

/// The validations of a training so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct History {
    /// Evaluations due so far, all of them done.
    #[serde(rename = "epochs")]
    pub evaluations: u32,
    /// The last of them.
    pub last: Option<Validation>,
    /// The best one, the first of equals; none without any.
    pub best: Option<Best>,
}

impl History {
    /// Whether nothing was validated.
    pub(crate) fn is_empty(&self) -> bool {
        self.evaluations == 0
    }

    /// Adds evaluation `number`, counted from 1, which was at `cursor`.
    pub(crate) fn add(
        &mut self,
        cursor: Cursor,
        number: u32,
        validation: Validation,
        criterion: Criterion,
    ) {
        self.evaluations = number;
        self.last = Some(validation);
        let best = self.best.and_then(|best| best.validation.by(criterion));
        let now = validation.by(criterion);
        let better = now.is_some_and(|now| best.is_none_or(|best| now > best));
        if better {
            self.best = Some(Best {
                epoch: cursor.epoch,
                step: cursor.step,
                validation,
                evaluation: Some(number),
            });
        }
    }

    /// Whether `patience` evaluations, if there is such a limit, went by without a better one.
    pub(crate) fn is_spent(&self, patience: Option<u32>) -> bool {
        let best = self.best.map_or(0, |best| best.evaluation.unwrap_or(best.epoch + 1));
        patience.is_some_and(|patience| self.evaluations.saturating_sub(best) >= patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The best epoch and where it stops, of GAUCs epoch by epoch.
    fn history(gaucs: &[Option<f64>], patience: u32) -> (Option<u32>, Option<usize>) {
        let mut history = History::default();
        for (epoch, &gauc) in gaucs.iter().enumerate() {
            let cursor = Cursor { epoch: epoch as u32, step: 8, ..Cursor::default() };
            let validation = Validation { gauc, ..Validation::default() };
            history.add(cursor, epoch as u32 + 1, validation, Criterion::Gauc);
            if history.is_spent(Some(patience)) {
                return (history.best.map(|best| best.epoch), Some(epoch));
            }
            assert!(!history.is_spent(None));
        }
        (history.best.map(|best| best.epoch), None)
    }

    #[test]
    fn patience_counts_evaluations_without_a_better_gauc() {
        let some = |gaucs: &[f64]| gaucs.iter().map(|&gauc| Some(gauc)).collect::<Vec<_>>();
        assert_eq!(history(&some(&[0.5, 0.6, 0.55, 0.7]), 1), (Some(1), Some(2)));
        assert_eq!(history(&some(&[0.5, 0.6, 0.55, 0.7]), 2), (Some(3), None));
        assert_eq!(history(&some(&[0.6, 0.6, 0.6]), 2), (Some(0), Some(2)), "ties are not better");
        assert_eq!(history(&[None, None, None], 2), (None, Some(1)));
        assert_eq!(history(&[None, Some(0.4), None], 2), (Some(1), None));
    }

    #[test]
    fn evaluations_are_compared_by_the_criterion() {
        let of = |gauc: f64, auc: f64, logloss: f64| Validation {
            gauc: Some(gauc),
            auc: Some(auc),
            logloss: Some(logloss),
        };
        let evaluations = [of(0.7, 0.6, 0.5), of(0.6, 0.7, 0.4), of(0.5, 0.5, 0.3)];
        for (criterion, best) in
            [(Criterion::Gauc, 0), (Criterion::Auc, 1), (Criterion::Logloss, 2)]
        {
            let mut history = History::default();
            for (epoch, validation) in evaluations.into_iter().enumerate() {
                let cursor = Cursor { epoch: epoch as u32, ..Cursor::default() };
                history.add(cursor, epoch as u32 + 1, validation, criterion);
            }
            assert_eq!(history.best.map(|best| best.epoch), Some(best), "{criterion:?}");
        }
    }
}
