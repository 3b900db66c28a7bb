//! Metrics of probabilities: log loss, normalized entropy, calibration. Sums are in f64.

use serde::Serialize;

use crate::loss;

/// Parts of equal numbers of impressions, by prediction, over which [`Reliability::ece`] is.
const PARTS: usize = 10;

/// How far predicted rates are from clicks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reliability {
    /// Mean predicted rate.
    pub predicted: f64,
    /// Clicks per impression.
    pub clicked: f64,
    /// [`calibration`]; `None` without clicks.
    pub calibration: Option<f64>,
    /// [`log_loss`], in nats.
    pub logloss: f64,
    /// Expected calibration error: the distance of predicted and clicked in each of ten parts of
    /// equal numbers of impressions, ordered by prediction, and the mean of these.
    pub ece: f64,
}

/// The figures of some impressions, each of which counts as often as `weights` says of its label:
/// 1 / share where the data holds a share of the log. `None` for no impressions.
///
/// `logits`, finite, and `labels` (0 or 1) are (B) each.
pub fn reliability(logits: &[f32], labels: &[u8], weights: [f64; 2]) -> Option<Reliability> {
    assert_eq!(logits.len(), labels.len(), "logits and labels");
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let (mut all, mut distances) = (Sums::default(), 0.0);
    for part in 0..PARTS {
        let at = |part: usize| labels.len() * part / PARTS;
        let mut sums = Sums::default();
        for &row in &order[at(part)..at(part + 1)] {
            let (logit, label) = (logits[row], labels[row]);
            let weight = weights[usize::from(label != 0)];
            sums.weight += weight;
            sums.predicted += weight / (1.0 + (-f64::from(logit)).exp());
            sums.clicked += weight * f64::from(u8::from(label != 0));
            sums.loss += weight * loss::cross_entropy_of(logit, label);
        }
        distances += (sums.predicted - sums.clicked).abs();
        all = Sums {
            weight: all.weight + sums.weight,
            predicted: all.predicted + sums.predicted,
            clicked: all.clicked + sums.clicked,
            loss: all.loss + sums.loss,
        };
    }
    (!labels.is_empty()).then(|| Reliability {
        predicted: all.predicted / all.weight,
        clicked: all.clicked / all.weight,
        calibration: (all.clicked > 0.0).then(|| all.predicted / all.clicked),
        logloss: all.loss / all.weight,
        ece: distances / all.weight,
    })
}

/// Weighted sums over impressions.
#[derive(Clone, Copy, Default)]
struct Sums {
    weight: f64,
    predicted: f64,
    clicked: f64,
    loss: f64,
}

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

    /// An impression that counts three times is three impressions; parts are by prediction.
    #[test]
    fn reliability_is_its_definition() {
        let logits = [0.3, -1.0, 2.0, -0.2, 1.1, -2.2, 0.9, 0.0, -0.7, 1.6, -1.4];
        let labels = [0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0];
        let got = reliability(&logits, &labels, [1.0, 1.0]).unwrap();
        let p = |logit: f32| 1.0 / (1.0 + f64::from(-logit).exp());
        let mut rows: Vec<(f32, u8)> = logits.into_iter().zip(labels).collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Of 11 impressions, the last part has two.
        let mut distances: Vec<f64> =
            rows[..9].iter().map(|row| (p(row.0) - f64::from(row.1)).abs()).collect();
        let last = rows[9..].iter().map(|row| p(row.0) - f64::from(row.1)).sum::<f64>();
        distances.push(last.abs());
        assert!((got.ece - distances.iter().sum::<f64>() / 11.0).abs() < 1e-12, "{got:?}");
        assert!(close(log_loss(&logits, &labels), got.logloss));
        assert!(close(calibration(&logits, &labels), got.calibration.unwrap()));
        assert!((got.clicked - 5.0 / 11.0).abs() < 1e-12);
        let weighted = reliability(&logits, &labels, [3.0, 1.0]).unwrap();
        let thrice = rows.iter().flat_map(|&row| vec![row; if row.1 == 0 { 3 } else { 1 }]);
        let (logits, labels): (Vec<f32>, Vec<u8>) = thrice.unzip();
        let expected = reliability(&logits, &labels, [1.0, 1.0]).unwrap();
        for (got, expected) in [
            (weighted.predicted, expected.predicted),
            (weighted.clicked, expected.clicked),
            (weighted.logloss, expected.logloss),
        ] {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
        assert_eq!(reliability(&[], &[], [1.0, 1.0]), None);
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
