//! Two scores of the same impressions: how far their AUCs are apart, and how sure that is.

use serde::{Deserialize, Serialize};

/// A difference of two AUCs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AucGain {
    /// AUC of the second score less that of the first.
    pub gain: f64,
    /// Its standard error, impressions taken as independent.
    pub error: f64,
}

/// The gain in AUC from `first` to `second`, scores of the same impressions with these `labels` (0
/// or 1), all (B). `None` unless each class occurs twice.
///
/// The standard error is that of DeLong, DeLong and Clarke-Pearson (1988): an AUC is a mean over
/// positives of the share of negatives below them, and a mean over negatives likewise, and the
/// variances of the differences of these shares add up.
pub fn auc_gain(first: &[f32], second: &[f32], labels: &[u8]) -> Option<AucGain> {
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
    Some(AucGain { gain, error: variance.sqrt() })
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
        let gains: Vec<AucGain> = (0..300)
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

    #[test]
    fn one_of_a_class_is_not_enough() {
        for labels in [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]] {
            assert_eq!(auc_gain(&[1.0, 2.0, 3.0, 4.0], &[0.0; 4], &labels), None);
        }
    }
}
