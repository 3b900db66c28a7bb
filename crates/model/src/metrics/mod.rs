//! Metrics of predictions against labels, by their definitions.
//!
//! Each takes logits and labels side by side, one pair per impression. Ranking metrics look at the
//! order of logits alone. Logits are finite; whoever read or computed them has checked.

mod auc;
mod bootstrap;
mod off_policy;
mod paired;
mod probability;
mod shown;

pub use auc::{Gauc, Impression, auc, auc_of_sorted, gauc, gauc_of_sorted};
pub use bootstrap::{Bootstrap, Interval, MetricPair, Resampled, ResampledRanking, difference};
pub use off_policy::{Expected, Reweighted, ReweightedLog, Values};
pub use paired::{Gain, auc_gain, gauc_gain, logloss_gain};
pub(crate) use probability::normalized_entropy;
pub use probability::{Reliability, calibration, log_loss, reliability};
pub use shown::shown;

use serde::Serialize;

/// All metrics of one set of impressions; `None` where the definition gives no value.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metrics {
    /// [`auc()`] over all impressions, 0..=1.
    pub auc: Option<f64>,
    /// [`gauc`] of all users, 0..=1.
    pub gauc: Option<f64>,
    /// [`log_loss`] per impression, in nats.
    pub logloss: Option<f64>,
    /// [`normalized_entropy`], below 1 if better than the mean rate.
    pub ne: Option<f64>,
    /// [`calibration`], 1 if clicks are as many as predicted.
    pub calibration: Option<f64>,
    /// Number of impressions (B).
    pub impressions: u64,
    /// Number of distinct users, those of one label included.
    pub users: u64,
    /// Users whose impressions are of one class, and whom GAUC leaves out.
    pub users_without_auc: u64,
}

impl Metrics {
    /// The metrics of impressions in any order: `users`, `logits` and `labels` (0 or 1) are (B)
    /// each.
    pub fn of(users: &[u64], logits: &[f32], labels: &[u8]) -> Metrics {
        let mut impressions = Impression::all(users, logits, labels);
        impressions.sort_unstable_by_key(Impression::by_score);
        let auc = auc_of_sorted(&impressions);
        impressions.sort_unstable_by_key(Impression::by_user);
        Metrics::with_ranking(auc, gauc_of_sorted(&impressions), logits, labels)
    }

    /// The metrics of impressions whose AUC and GAUC are known; `logits` and `labels` (0 or 1) are
    /// (B) each.
    pub fn with_ranking(auc: Option<f64>, gauc: Gauc, logits: &[f32], labels: &[u8]) -> Metrics {
        Metrics {
            auc,
            gauc: gauc.gauc,
            logloss: log_loss(logits, labels),
            ne: normalized_entropy(logits, labels),
            calibration: calibration(logits, labels),
            impressions: labels.len() as u64,
            users: gauc.users,
            users_without_auc: gauc.users_without_auc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_without_a_class_has_no_ranking_metrics() {
        let metrics = Metrics::of(&[7, 7, 8], &[0.0, 0.0, 0.0], &[0, 0, 0]);
        let expected = Metrics {
            logloss: Some(std::f64::consts::LN_2),
            impressions: 3,
            users: 2,
            users_without_auc: 2,
            ..Metrics::default()
        };
        assert_eq!(metrics, expected);
        assert_eq!(Metrics::of(&[], &[], &[]), Metrics::default());
    }
}
