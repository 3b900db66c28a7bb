//! AUC and GAUC, exact: pairs are counted in integers, so neither the order of impressions nor rounding
//! plays a part.

use std::cmp::Ordering;

/// The area under the ROC curve: the share of (positive, negative) pairs in which the positive has the
/// greater score, pairs of equal scores counting half. `None` unless both classes occur.
///
/// `scores` and `labels` (0 or 1) are (B) each, in any order.
pub fn auc(scores: &[f32], labels: &[u8]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "scores and labels");
    let mut ranked: Vec<Scored> = scores
        .iter()
        .zip(labels)
        .map(|(&score, &label)| Scored { user: 0, score, label })
        .collect();
    ranked.sort_unstable_by(Scored::order);
    auc_of_ranked(&ranked)
}

/// GAUC, and whom it is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauc {
    /// The sum over users of impressions times AUC, over the sum of their impressions; users of one
    /// class are in neither sum. `None` if that leaves nobody.
    pub gauc: Option<f64>,
    /// Number of users.
    pub users: u64,
    /// Users whose impressions are all of one class.
    pub users_without_auc: u64,
}

/// AUC within each user, averaged with the users' impressions as weights.
///
/// `users`, `scores` and `labels` (0 or 1) are (B) each, in any order.
pub fn gauc(users: &[u64], scores: &[f32], labels: &[u8]) -> Gauc {
    assert_eq!((users.len(), scores.len()), (labels.len(), labels.len()), "users, scores, labels");
    let rows = users.iter().zip(scores).zip(labels);
    let mut ranked: Vec<Scored> =
        rows.map(|((&user, &score), &label)| Scored { user, score, label }).collect();
    ranked.sort_unstable_by(Scored::order);
    let (mut sum, mut weight) = (0.0, 0);
    let mut result = Gauc { gauc: None, users: 0, users_without_auc: 0 };
    for of_user in ranked.chunk_by(|a, b| a.user == b.user) {
        result.users += 1;
        match auc_of_ranked(of_user) {
            Some(auc) => {
                sum += of_user.len() as f64 * auc;
                weight += of_user.len();
            }
            None => result.users_without_auc += 1,
        }
    }
    result.gauc = (weight > 0).then(|| sum / weight as f64);
    result
}

/// One impression.
#[derive(Clone, Copy)]
struct Scored {
    user: u64,
    score: f32,
    label: u8,
}

impl Scored {
    fn order(&self, other: &Scored) -> Ordering {
        self.user.cmp(&other.user).then(self.score.total_cmp(&other.score))
    }
}

/// AUC of impressions in ascending order of scores.
fn auc_of_ranked(ranked: &[Scored]) -> Option<f64> {
    auc_of_counts(ranked.chunk_by(|a, b| a.score == b.score).map(|tied| {
        let positive = tied.iter().filter(|scored| scored.label != 0).count() as u64;
        [tied.len() as u64 - positive, positive]
    }))
}

/// AUC from how many negatives and positives have each score, in ascending order of scores.
pub(super) fn auc_of_counts(by_score: impl Iterator<Item = [u64; 2]>) -> Option<f64> {
    let (mut positives, mut negatives) = (0u64, 0u64);
    // Twice the pairs won, so that half a pair is an integer.
    let mut won = 0u128;
    for [negative, positive] in by_score {
        won += u128::from(positive) * u128::from(2 * negatives + negative);
        positives += positive;
        negatives += negative;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    (pairs > 0).then(|| won as f64 / (2 * pairs) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The definition, pair by pair.
    fn auc_by_pairs(impressions: &[(f32, u8)]) -> Option<f64> {
        let of = |label| impressions.iter().filter(move |i| i.1 == label).map(|i| i.0);
        let won = |p: f32, n: f32| match p.partial_cmp(&n) {
            Some(Ordering::Greater) => 1.0,
            Some(Ordering::Equal) => 0.5,
            _ => 0.0,
        };
        let wins: Vec<f64> = of(1).flat_map(|p| of(0).map(move |n| won(p, n))).collect();
        (!wins.is_empty()).then(|| wins.iter().sum::<f64>() / wins.len() as f64)
    }

    fn gauc_by_pairs(impressions: &[(u64, f32, u8)]) -> Gauc {
        let mut users = BTreeMap::<u64, Vec<(f32, u8)>>::new();
        for &(user, score, label) in impressions {
            users.entry(user).or_default().push((score, label));
        }
        let aucs: Vec<(f64, f64)> = users
            .values()
            .filter_map(|of_user| Some((of_user.len() as f64, auc_by_pairs(of_user)?)))
            .collect();
        let weight: f64 = aucs.iter().map(|(n, _)| n).sum();
        let sum: f64 = aucs.iter().map(|(n, auc)| n * auc).sum();
        Gauc {
            gauc: (!aucs.is_empty()).then(|| sum / weight),
            users: users.len() as u64,
            users_without_auc: (users.len() - aucs.len()) as u64,
        }
    }

    #[test]
    fn auc_of_small_sets() {
        for (scores, labels, expected) in [
            (vec![], vec![], None),
            (vec![1.0], vec![1], None),
            (vec![1.0, 2.0], vec![0, 1], Some(1.0)),
            (vec![2.0, 1.0], vec![0, 1], Some(0.0)),
            (vec![1.0, 1.0], vec![0, 1], Some(0.5)),
            (vec![0.0, -0.0], vec![0, 1], Some(0.5)),
            (vec![1.0, 2.0, 2.0, 3.0], vec![0, 0, 1, 1], Some(0.875)),
        ] {
            assert_eq!(auc(&scores, &labels), expected, "{scores:?} {labels:?}");
        }
    }

    #[test]
    fn gauc_weighs_users_by_impressions() {
        // User 1 has AUC 1 over 3 impressions, user 2 AUC 0 over 2, user 3 clicked on everything.
        let (users, labels) = ([2, 1, 3, 1, 2, 1], [1, 0, 1, 1, 0, 0]);
        let got = gauc(&users, &[0.1, 0.2, 0.5, 0.9, 0.4, 0.3], &labels);
        assert_eq!(got, Gauc { gauc: Some(0.6), users: 3, users_without_auc: 1 });
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn metrics_match_their_definitions(
            impressions in prop::collection::vec((0..6u64, -3..4i8, 0..2u8), 0..60)
        ) {
            // Seven scores and six users: ties and users of one class are the rule.
            let impressions: Vec<(u64, f32, u8)> =
                impressions.into_iter().map(|(u, s, y)| (u, f32::from(s) * 0.3, y)).collect();
            let users: Vec<u64> = impressions.iter().map(|i| i.0).collect();
            let scores: Vec<f32> = impressions.iter().map(|i| i.1).collect();
            let labels: Vec<u8> = impressions.iter().map(|i| i.2).collect();
            let pairs: Vec<(f32, u8)> = impressions.iter().map(|i| (i.1, i.2)).collect();
            prop_assert_eq!(auc(&scores, &labels), auc_by_pairs(&pairs));
            let (got, expected) = (gauc(&users, &scores, &labels), gauc_by_pairs(&impressions));
            prop_assert_eq!(got, expected);
            let reversed = |x: &[f32]| x.iter().rev().copied().collect::<Vec<_>>();
            let users: Vec<u64> = users.into_iter().rev().collect();
            let labels: Vec<u8> = labels.into_iter().rev().collect();
            prop_assert_eq!(gauc(&users, &reversed(&scores), &labels), got);
        }
    }
}
