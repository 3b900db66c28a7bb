//! Binary cross-entropy from logits.

/// 1 / (1 + exp(-logit)), without overflow.
pub fn sigmoid(logit: f32) -> f32 {
    if logit >= 0.0 {
        1.0 / (1.0 + (-logit).exp())
    } else {
        let e = logit.exp();
        e / (1.0 + e)
    }
}

/// Sum over a batch of -log p(label), and its gradient.
///
/// `logits` (B), `labels` (B) of 0 and 1; overwrites `dlogits` (B) with (p - label) * `scale`,
/// where `scale` is one over the impressions of the *global* batch. Returns the unscaled sum.
pub fn cross_entropy(logits: &[f32], labels: &[u8], scale: f32, dlogits: &mut Vec<f32>) -> f64 {
    assert_eq!(logits.len(), labels.len(), "logits and labels");
    dlogits.clear();
    let pairs = logits.iter().zip(labels);
    dlogits.extend(pairs.clone().map(|(&z, &y)| (sigmoid(z) - f32::from(y)) * scale));
    pairs.map(|(&z, &y)| cross_entropy_of(z, y)).sum()
}

/// -log p(label) of one impression: max(z, 0) - z y + log(1 + exp(-|z|)), exact for any logit.
pub(crate) fn cross_entropy_of(logit: f32, label: u8) -> f64 {
    cross_entropy_at(f64::from(logit), f64::from(label))
}

/// The same of a target `y` of 0 to 1.
pub(crate) fn cross_entropy_at(z: f64, y: f64) -> f64 {
    // Not `max`, which would turn a NaN into 0.
    let positive = if z < 0.0 { 0.0 } else { z };
    positive - z * y + (-z.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_gradient, values};

    #[test]
    fn losses_are_exact_and_stable() {
        for (logit, label, expected) in [
            (0.0, 0, std::f64::consts::LN_2),
            (0.0, 1, std::f64::consts::LN_2),
            (2.0, 1, (1.0 + (-2.0f64).exp()).ln()),
            (-2.0, 1, (1.0 + 2.0f64.exp()).ln()),
            (2.0, 0, (1.0 + 2.0f64.exp()).ln()),
            (1000.0, 1, 0.0),
            (1000.0, 0, 1000.0),
            (-1000.0, 1, 1000.0),
            (-1000.0, 0, 0.0),
        ] {
            let loss = cross_entropy_of(logit, label);
            assert!((loss - expected).abs() < 1e-12, "{logit} {label}: {loss}, not {expected}");
        }
        assert!(cross_entropy_of(f32::NAN, 0).is_nan());
        assert_eq!([-1000.0, 0.0, 1000.0].map(sigmoid), [0.0, 0.5, 1.0]);
        assert!(sigmoid(f32::NAN).is_nan());
    }

    #[test]
    fn gradient_matches_differences() {
        let (logits, labels) = (values(1, 6), [0, 1, 1, 0, 1, 0]);
        let mut dlogits = Vec::new();
        cross_entropy(&logits, &labels, 0.25, &mut dlogits);
        assert_gradient("logits", &logits, &dlogits, |logits| {
            0.25 * cross_entropy(logits, &labels, 0.0, &mut Vec::new())
        });
    }
}
