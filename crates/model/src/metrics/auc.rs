//! AUC and GAUC, exact: pairs are counted in integers, so neither the order of impressions nor
//! rounding plays a part.
//!
//! Sorting is all the work, so it is apart from counting: what is sorted once may be counted as a
//! whole and in any parts, each of which is in order too, and whoever has threads may sort with all
//! of them.

/// The area under the ROC curve: the share of (positive, negative) pairs in which the positive has
/// the greater score, pairs of equal scores counting half. `None` unless both classes occur.
///
/// `scores` and `labels` (0 or 1) are (B) each, in any order.
pub fn auc(scores: &[f32], labels: &[u8]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "scores and labels");
    let pairs = scores.iter().zip(labels);
    let mut impressions: Vec<Impression> =
        pairs.map(|(&score, &label)| Impression::new(0, score, label, 0)).collect();
    impressions.sort_unstable_by_key(Impression::by_score);
    auc_of_sorted(&impressions)
}

/// GAUC, and whom it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gauc {
    /// The sum over users of impressions times AUC, over the sum of their impressions; users of
    /// one class are in neither sum. `None` if that leaves nobody.
    pub gauc: Option<f64>,
    /// Number of distinct users, those without an AUC included.
    pub users: u64,
    /// Users whose impressions are all of one class.
    pub users_without_auc: u64,
}

/// AUC within each user, averaged with the users' impressions as weights.
///
/// `users`, `scores` and `labels` (0 or 1) are (B) each, in any order.
pub fn gauc(users: &[u64], scores: &[f32], labels: &[u8]) -> Gauc {
    let mut impressions = Impression::all(users, scores, labels);
    impressions.sort_unstable_by_key(Impression::by_user);
    gauc_of_sorted(&impressions)
}

/// An impression as rankings see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impression {
    user: u64,
    /// In the order of scores, and equal where they are.
    rank: u32,
    label: u8,
    /// Bits by which its maker finds it again, such as the parts that it is in.
    pub marks: u16,
}

impl Impression {
    /// One impression; its label is 0 or 1.
    pub fn new(user: u64, score: f32, label: u8, marks: u16) -> Impression {
        // The bits of floats are in the order of floats but for the sign: negative ones run
        // backwards, and come after the others. Adding 0 makes -0 the 0 that it equals.
        let bits = (score + 0.0).to_bits();
        let rank = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        Impression { user, rank, label, marks }
    }

    /// Impressions without marks: `users`, `scores` and `labels` (0 or 1) are (B) each.
    pub fn all(users: &[u64], scores: &[f32], labels: &[u8]) -> Vec<Impression> {
        assert_eq!((users.len(), scores.len()), (labels.len(), labels.len()), "impressions");
        let rows = users.iter().zip(scores).zip(labels);
        rows.map(|((&user, &score), &label)| Impression::new(user, score, label, 0)).collect()
    }

    pub(super) fn user(&self) -> u64 {
        self.user
    }

    /// 0 negative, 1 positive.
    pub(super) fn class(&self) -> usize {
        usize::from(self.label != 0)
    }

    /// Ascending, the order that [`auc_of_sorted`] wants.
    pub fn by_score(&self) -> u32 {
        self.rank
    }

    /// Ascending, the order that [`gauc_of_sorted`] wants.
    pub fn by_user(&self) -> u128 {
        u128::from(self.user) << 32 | u128::from(self.rank)
    }
}

/// [`auc()`] of impressions in the order of [`Impression::by_score`].
pub fn auc_of_sorted<'a>(impressions: impl IntoIterator<Item = &'a Impression>) -> Option<f64> {
    let mut pairs = Pairs::default();
    let mut rank = 0;
    for impression in impressions {
        debug_assert!(rank <= impression.rank, "impressions are not in order");
        if impression.rank != rank {
            pairs.end_of_ties();
            rank = impression.rank;
        }
        pairs.tied[impression.class()] += 1;
    }
    pairs.auc()
}

/// [`gauc`] of impressions in the order of [`Impression::by_user`].
pub fn gauc_of_sorted<'a>(impressions: impl IntoIterator<Item = &'a Impression>) -> Gauc {
    let (mut sum, mut weight) = (0.0, 0);
    let mut result = Gauc::default();
    aucs_of_sorted(impressions, |_, impressions, auc| {
        result.users += 1;
        match auc {
            Some(auc) => {
                sum += impressions as f64 * auc;
                weight += impressions;
            }
            None => result.users_without_auc += 1,
        }
    });
    result.gauc = (weight > 0).then(|| sum / weight as f64);
    result
}

/// Shows `visit` each user with the number of their impressions and their AUC. Impressions are in
/// the order of [`Impression::by_user`], and so are the users.
pub(super) fn aucs_of_sorted<'a>(
    impressions: impl IntoIterator<Item = &'a Impression>,
    mut visit: impl FnMut(u64, u64, Option<f64>),
) {
    let mut pairs = Pairs::default();
    let mut last: Option<&Impression> = None;
    for impression in impressions {
        if let Some(last) = last.filter(|last| last.by_user() != impression.by_user()) {
            debug_assert!(last.by_user() < impression.by_user(), "impressions are not in order");
            pairs.end_of_ties();
            if last.user != impression.user {
                visit(last.user, pairs.impressions(), pairs.auc());
                pairs = Pairs::default();
            }
        }
        pairs.tied[impression.class()] += 1;
        last = Some(impression);
    }
    if let Some(last) = last {
        pairs.end_of_ties();
        visit(last.user, pairs.impressions(), pairs.auc());
    }
}

/// Pairs of a negative and a positive, counted while scores ascend.
#[derive(Clone, Copy, Default)]
pub(super) struct Pairs {
    /// Negatives and positives of the score that is being counted.
    pub tied: [u64; 2],
    /// Those of lower scores.
    below: [u64; 2],
    /// Twice the pairs won, so that half a pair is an integer.
    won: u128,
}

impl Pairs {
    /// What comes has a greater score.
    pub(crate) fn end_of_ties(&mut self) {
        let [negatives, positives] = self.tied;
        // Most scores are of negatives alone.
        if positives > 0 {
            self.won += u128::from(positives) * u128::from(2 * self.below[0] + negatives);
        }
        self.below[0] += negatives;
        self.below[1] += positives;
        self.tied = [0; 2];
    }

    /// All impressions of all scores that ended.
    fn impressions(&self) -> u64 {
        self.below[0] + self.below[1]
    }

    /// AUC of all that was counted.
    pub(crate) fn auc(mut self) -> Option<f64> {
        self.end_of_ties();
        let pairs = u128::from(self.below[0]) * u128::from(self.below[1]);
        (pairs > 0).then(|| self.won as f64 / (2 * pairs) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;
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

    #[test]
    fn ranks_are_in_the_order_of_scores() {
        let scores = [f32::MIN, -1.5, -1.0, -f32::MIN_POSITIVE, 0.0, 1e-40, 0.5, 2.0, f32::MAX];
        let ranks = scores.map(|score| Impression::new(0, score, 0, 0).by_score());
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(Impression::new(0, -0.0, 0, 0), Impression::new(0, 0.0, 0, 0));
    }

    #[test]
    fn a_part_of_what_is_sorted_is_sorted() {
        let rows = [(3, 0.5, 1), (1, 0.5, 0), (3, -0.5, 0), (1, 2.0, 1), (3, 0.25, 1), (1, 2.5, 0)];
        let all = rows.map(|(user, score, label)| {
            Impression::new(user, score, label, u16::from(score < 2.25))
        });
        let marked = |impression: &&Impression| impression.marks == 1;
        let (mut by_score, mut by_user) = (all, all);
        by_score.sort_unstable_by_key(Impression::by_score);
        by_user.sort_unstable_by_key(Impression::by_user);
        let part: Vec<_> = rows.into_iter().filter(|row| row.1 < 2.25).collect();
        let users: Vec<u64> = part.iter().map(|row| row.0).collect();
        let scores: Vec<f32> = part.iter().map(|row| row.1).collect();
        let labels: Vec<u8> = part.iter().map(|row| row.2).collect();
        assert_eq!(auc_of_sorted(by_score.iter().filter(marked)), auc(&scores, &labels));
        let expected = gauc(&users, &scores, &labels);
        assert_eq!(gauc_of_sorted(by_user.iter().filter(marked)), expected);
        assert_eq!(expected.users, 2);
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
