//! Two scores of the same impressions: how much better the second is, and how sure that is.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::loss;
use crate::metrics::auc::{Impression, aucs_of_sorted};

/// How much better a second score of the same impressions is than a first one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gain {
    /// The metric of the second score less that of the first; of log loss, the first less the
    /// second.
    pub gain: f64,
    /// Its standard error.
    pub error: f64,
}

impl fmt::Display for Gain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.4} ± {:.4}", self.gain, self.error)
    }
}

/// The gain in log loss from `first` to `second`, logits of the same impressions with these
/// `labels` (0 or 1), all (B) and as `users`. `None` with fewer than two users.
///
/// The standard error takes users as independent, and not the impressions of one user.
pub fn logloss_gain(users: &[u64], first: &[f32], second: &[f32], labels: &[u8]) -> Option<Gain> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&at| users[at]);
    let gain = |&at: &usize| {
        loss::cross_entropy_of(first[at], labels[at])
            - loss::cross_entropy_of(second[at], labels[at])
    };
    let of_users = order.chunk_by(|&i, &j| users[i] == users[j]);
    mean_of_users(of_users.map(|of| UserGain {
        weight: of.len() as f64,
        gain: of.iter().map(gain).sum::<f64>() / of.len() as f64,
    }))
}

/// The gain in GAUC from `first` to `second`, scores of the same impressions with these `labels` (0
/// or 1), all (B) and as `users`. `None` with fewer than two users who have both labels.
///
/// The standard error takes users as independent.
pub fn gauc_gain(users: &[u64], first: &[f32], second: &[f32], labels: &[u8]) -> Option<Gain> {
    let aucs = |scores: &[f32]| {
        let mut impressions = Impression::all(users, scores, labels);
        impressions.sort_unstable_by_key(Impression::by_user);
        let mut found = Vec::new();
        aucs_of_sorted(&impressions, |_, count, auc| {
            found.extend(auc.map(|gain| UserGain { weight: count as f64, gain }));
        });
        found
    };
    let both = aucs(first).into_iter().zip(aucs(second));
    mean_of_users(both.map(|(first, second)| UserGain { gain: second.gain - first.gain, ..first }))
}

/// The gain of one user.
struct UserGain {
    /// Number of impressions.
    weight: f64,
    gain: f64,
}

/// The mean over the impressions of all users; `None` of fewer than two users.
fn mean_of_users(users: impl Iterator<Item = UserGain>) -> Option<Gain> {
    let users: Vec<UserGain> = users.collect();
    let weight: f64 = users.iter().map(|user| user.weight).sum();
    let gain = users.iter().map(|user| user.weight * user.gain).sum::<f64>() / weight;
    let squares = users.iter().map(|user| (user.weight * (user.gain - gain)).powi(2)).sum::<f64>();
    let count = users.len() as f64;
    (users.len() > 1)
        .then(|| Gain { gain, error: (squares * count / (count - 1.0)).sqrt() / weight })
}

/// The gain in AUC from `first` to `second`, scores of the same impressions with these `labels` (0
/// or 1), all (B). `None` unless each class occurs twice.
///
/// The standard error is that of DeLong, DeLong and Clarke-Pearson (1988): an AUC is a mean over
/// positives of the share of negatives below them, and a mean over negatives likewise, and the
/// variances of the differences of these shares add up. It takes impressions as independent.
pub fn auc_gain(first: &[f32], second: &[f32], labels: &[u8]) -> Option<Gain> {
    let positives = labels.iter().filter(|label| **label != 0).count();
    let negatives = labels.len() - positives;
    if positives < 2 || negatives < 2 {
        return None;
    }
    let (first, second) = (shares(first, labels), shares(second, labels));
    let (mut gain, mut variance) = (0.0, 0.0);
    for (class, count) in [(1, positives), (0, negatives)] {
        let differences = || {
            let both = first.iter().zip(&second).zip(labels);
            both.filter(|(_, label)| u8::from(**label != 0) == class)
                .map(|((first, second), _)| second - first)
        };
        let mean = differences().sum::<f64>() / count as f64;
        let squares: f64 = differences().map(|x| (x - mean) * (x - mean)).sum();
        variance += squares / (count - 1) as f64 / count as f64;
        gain += if class == 1 { mean } else { 0.0 };
    }
    Some(Gain { gain, error: variance.sqrt() })
}

/// Of each positive the share of negatives below it, of each negative that of positives above it;
/// ties count half.
fn shares(scores: &[f32], labels: &[u8]) -> Vec<f64> {
    assert_eq!(scores.len(), labels.len(), "scores and labels");
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Adding 0 makes -0 the 0 that it equals.
    order.sort_by(|&i, &j| (scores[i] + 0.0).total_cmp(&(scores[j] + 0.0)));
    let mut below = [0_usize; 2];
    let class = |at: usize| usize::from(labels[at] != 0);
    let total = [0, 1].map(|of| (0..labels.len()).filter(|&at| class(at) == of).count() as f64);
    let mut shares = vec![0.0; scores.len()];
    for tied in order.chunk_by(|&i, &j| scores[i] == scores[j]) {
        let mut here = [0_usize; 2];
        tied.iter().for_each(|&at| here[class(at)] += 1);
        for &at in tied {
            let other = 1 - class(at);
            let rank = below[other] as f64 + 0.5 * here[other] as f64;
            shares[at] = if other == 0 { rank } else { total[1] - rank } / total[other];
        }
        below = [below[0] + here[0], below[1] + here[1]];
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;
    use crate::metrics::auc;

    /// Impressions whose scores say something of the labels, with ties.
    fn impressions(seed: u64, count: usize) -> (Vec<f32>, Vec<f32>, Vec<u8>) {
        let labels: Vec<u8> = values(seed, count).iter().map(|x| u8::from(*x > 0.3)).collect();
        let score = |seed, weight: f32| -> Vec<f32> {
            let noise = values(seed, count).into_iter().zip(&labels);
            noise.map(|(x, label)| ((x + weight * f32::from(*label)) * 20.0).round()).collect()
        };
        (score(seed + 1, 0.3), score(seed + 2, 0.5), labels)
    }

    #[test]
    fn the_gain_is_the_difference_of_aucs() {
        for seed in [10, 20, 30] {
            let (first, second, labels) = impressions(seed, 200);
            let got = auc_gain(&first, &second, &labels).unwrap();
            let expected = auc(&second, &labels).unwrap() - auc(&first, &labels).unwrap();
            assert!((got.gain - expected).abs() < 1e-12, "{got:?} {expected}");
            let none = auc_gain(&first, &first, &labels).unwrap();
            assert_eq!((none.gain, none.error), (0.0, 0.0));
        }
    }

    /// The spread of the gain over samples that are drawn again is what the error says.
    #[test]
    fn the_error_is_the_spread_of_samples() {
        let gains: Vec<Gain> = (0..300)
            .map(|seed| {
                let (first, second, labels) = impressions(1000 + 10 * seed, 150);
                auc_gain(&first, &second, &labels).unwrap()
            })
            .collect();
        let mean = gains.iter().map(|g| g.gain).sum::<f64>() / 300.0;
        let spread = (gains.iter().map(|g| (g.gain - mean).powi(2)).sum::<f64>() / 299.0).sqrt();
        let said = gains.iter().map(|g| g.error).sum::<f64>() / 300.0;
        assert!((said / spread - 1.0).abs() < 0.12, "{said} {spread}");
    }

    /// Impressions of `count` users, each of whom has a mood that both scores see a part of.
    fn of_users(seed: u64, count: usize) -> (Vec<u64>, Vec<f32>, Vec<f32>, Vec<u8>) {
        let sizes = values(seed + 7, count);
        let sizes = sizes.iter().map(|x| 2 + (x.abs() * 20.0) as usize);
        let users: Vec<u64> =
            sizes.enumerate().flat_map(|(user, n)| vec![user as u64 * 31 % 64; n]).collect();
        let moods = values(seed + 8, 64);
        let (mut first, mut second, labels) = impressions(seed, users.len());
        for ((user, first), second) in users.iter().zip(&mut first).zip(&mut second) {
            *first = *first * 0.05 + moods[*user as usize];
            *second = *second * 0.05 + 0.5 * moods[*user as usize];
        }
        (users, first, second, labels)
    }

    /// The gains by users are the differences of the metrics, and the errors their spread over
    /// users that are drawn again.
    #[test]
    fn gains_by_users_are_differences_of_metrics() {
        type By = fn(&[u64], &[f32], &[f32], &[u8]) -> Option<Gain>;
        type Metric = fn(&[u64], &[f32], &[u8]) -> Option<f64>;
        let loss: Metric = |_, logits, labels| crate::metrics::log_loss(logits, labels).map(|x| -x);
        let gauc: Metric = |users, scores, labels| crate::metrics::gauc(users, scores, labels).gauc;
        for (by, metric) in [(logloss_gain as By, loss), (gauc_gain as By, gauc)] {
            let samples: Vec<_> = (0..300).map(|seed| of_users(1000 + 10 * seed, 40)).collect();
            let gains: Vec<Gain> = samples
                .iter()
                .map(|(users, first, second, labels)| {
                    let got = by(users, first, second, labels).unwrap();
                    let expected = metric(users, second, labels).unwrap()
                        - metric(users, first, labels).unwrap();
                    assert!((got.gain - expected).abs() < 1e-12, "{got:?} {expected}");
                    assert_eq!(by(users, first, first, labels).unwrap().error, 0.0);
                    got
                })
                .collect();
            let mean = gains.iter().map(|g| g.gain).sum::<f64>() / 300.0;
            let spread = gains.iter().map(|g| (g.gain - mean).powi(2)).sum::<f64>() / 299.0;
            let said = gains.iter().map(|g| g.error).sum::<f64>() / 300.0;
            assert!((said / spread.sqrt() - 1.0).abs() < 0.15, "{said} {}", spread.sqrt());
            assert_eq!(by(&[3, 3], &[0.0, 1.0], &[1.0, 0.0], &[1, 0]), None, "one user");
            assert_eq!(by(&[], &[], &[], &[]), None);
        }
    }

    #[test]
    fn one_of_a_class_is_not_enough() {
        for labels in [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]] {
            assert_eq!(auc_gain(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4], &labels), None);
        }
    }
}
