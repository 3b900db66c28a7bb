//! Metrics of probabilities: log loss, normalized entropy, calibration. Sums are in f64.

use crate::loss;

/// The mean of -log p(label). `None` for no impressions.
///
/// `logits` and `labels` (0 or 1) are (B) each.
pub fn log_loss(logits: &[f32], labels: &[u8]) -> Option<f64> {
    assert_eq!(logits.len(), labels.len(), "logits and labels");
    let losses = logits.iter().zip(labels).map(|(&z, &y)| loss::cross_entropy_of(z, y));
    (!labels.is_empty()).then(|| losses.sum::<f64>() / labels.len() as f64)
}

/// Log loss over the log loss of predicting the base rate for all: below 1 is better than
/// that. `None` unless both classes occur.
///
/// `logits` and `labels` (0 or 1) are (B) each.
pub(crate) fn normalized_entropy(logits: &[f32], labels: &[u8]) -> Option<f64> {
    let rate = positives(labels) / labels.len() as f64;
    let entropy = -(rate * rate.ln() + (1.0 - rate) * (1.0 - rate).ln());
    // Without positives, negatives or impressions the entropy is NaN: 0 times infinity, or 0 / 0.
    (entropy > 0.0).then(|| log_loss(logits, labels).map(|loss| loss / entropy)).flatten()
}

/// The sum of predicted probabilities over the number of positives: above 1 is too hopeful. `None`
/// without positives.
///
/// `logits` and `labels` (0 or 1) are (B) each.
pub fn calibration(logits: &[f32], labels: &[u8]) -> Option<f64> {
    assert_eq!(logits.len(), labels.len(), "logits and labels");
    let predicted: f64 = logits.iter().map(|&z| 1.0 / (1.0 + (-f64::from(z)).exp())).sum();
    let clicked = positives(labels);
    (clicked > 0.0).then(|| predicted / clicked)
}

fn positives(labels: &[u8]) -> f64 {
    labels.iter().filter(|&&label| label != 0).count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// -log p(label) of every impression, from probabilities.
    fn naive_log_loss(probabilities: &[f64], labels: &[u8]) -> f64 {
        let of = |(&p, &y): (&f64, &u8)| if y == 1 { -p.ln() } else { -(1.0 - p).ln() };
        probabilities.iter().zip(labels).map(of).sum::<f64>() / labels.len() as f64
    }

    fn close(got: Option<f64>, expected: f64) -> bool {
        got.is_some_and(|got| (got - expected).abs() <= 1e-9 * expected.abs().max(1.0))
    }

    #[test]
    fn sets_of_one_class() {
        assert_eq!(log_loss(&[], &[]), None);
        assert_eq!(normalized_entropy(&[], &[]), None);
        assert_eq!(calibration(&[], &[]), None);
        assert_eq!(normalized_entropy(&[1.0], &[0]), None);
        assert_eq!(normalized_entropy(&[1.0], &[1]), None);
        assert_eq!(calibration(&[1.0], &[0]), None);
        assert_eq!(calibration(&[0.0, 0.0], &[1, 1]), Some(0.5));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn metrics_match_their_definitions(
            impressions in prop::collection::vec((-8.0..8.0f32, 0..2u8), 1..40)
        ) {
            let (mut logits, mut labels): (Vec<f32>, Vec<u8>) = impressions.into_iter().unzip();
            logits.extend([0.5, -0.5]);
            labels.extend([0, 1]);
            let p: Vec<f64> = logits.iter().map(|&z| 1.0 / (1.0 + f64::from(-z).exp())).collect();
            let positives: f64 = labels.iter().map(|&y| f64::from(y)).sum();
            let loss = naive_log_loss(&p, &labels);
            prop_assert!(close(log_loss(&logits, &labels), loss));
            let base = vec![positives / labels.len() as f64; labels.len()];
            let ne = loss / naive_log_loss(&base, &labels);
            prop_assert!(close(normalized_entropy(&logits, &labels), ne));
            prop_assert!(close(calibration(&logits, &labels), p.iter().sum::<f64>() / positives));
        }
    }
}
