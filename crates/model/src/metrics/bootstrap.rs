//! How far a metric, or the difference of two, may be trusted: a bootstrap by users.
//!
//! Impressions of one user are not independent, users are. So users are drawn with replacement, as
//! many as there are, and a metric is computed of the impressions of those drawn, again and again.
//! Draws depend on the seed alone: two models tested on the same impressions see the same draws,
//! and their difference is *paired*, free of what is hard or easy for both.

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::init::mix;
use crate::metrics::auc::{Impression, Pairs, auc_of_sorted, aucs_of_sorted, gauc_of_sorted};

/// Number and seed of the draws; equal values give equal draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// Number of draws, at least 1.
    pub replicates: usize,
    /// The seed of all of them.
    pub seed: u64,
}

/// Fewest users whose draws say anything: those of one user are all the same.
const FEWEST_USERS: usize = 10;

/// A metric of all users, and of each draw of them; `None` where the definition gives no value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resampled {
    /// How many users it is about.
    pub users: usize,
    /// The metric over all users; none where it is undefined.
    pub value: Option<f64>,
    /// The metric of each draw; none where it is undefined.
    pub replicates: Vec<Option<f64>>,
}

impl Resampled {
    /// The value with the middle 95 % of its draws; none where the value is undefined.
    pub fn interval(&self) -> Option<Interval> {
        let draws = self.replicates.len();
        let zero =
            Resampled { users: self.users, value: Some(0.0), replicates: vec![Some(0.0); draws] };
        difference(&[MetricPair { metric: self, minus: &zero }])
    }
}

/// A value with the middle 95 % of its bootstrap; without, if it is about fewer than ten users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The value, of all users.
    pub mean: f64,
    /// 2.5 % of the draws have less.
    pub low: Option<f64>,
    /// 2.5 % of the draws have more.
    pub high: Option<f64>,
}

/// GAUC and AUC, resampled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResampledRanking {
    /// The draws of [`gauc`](crate::metrics::gauc()).
    pub gauc: Resampled,
    /// The draws of [`auc`](crate::metrics::auc()).
    pub auc: Resampled,
}

impl Bootstrap {
    /// How often each user is drawn in draw `replicate`: as many draws as `times` has users.
    pub(super) fn draw(&self, replicate: usize, times: &mut [u32]) {
        times.fill(0);
        let key = mix(xxh3_64_with_seed(b"bootstrap", self.seed) ^ mix(replicate as u64));
        for i in 0..times.len() as u64 {
            let uniform = u128::from(mix(key.wrapping_add(i)));
            times[((uniform * times.len() as u128) >> 64) as usize] += 1;
        }
    }

    /// GAUC and AUC of some impressions by `population` users in all, numbered from 0; who has none
    /// of these impressions is drawn like all others.
    ///
    /// `users`, `logits` and `labels` (0 or 1) are (B) each, in any order.
    pub fn ranking(
        &self,
        population: usize,
        users: &[u32],
        logits: &[f32],
        labels: &[u8],
    ) -> ResampledRanking {
        let ids: Vec<u64> = users.iter().map(|&user| u64::from(user)).collect();
        let mut impressions = Impression::all(&ids, logits, labels);
        let mut result = ResampledRanking::default();
        impressions.sort_unstable_by_key(Impression::by_user);
        let of_all = gauc_of_sorted(&impressions);
        let of_users = users_with_auc(&impressions);
        impressions.sort_unstable_by_key(Impression::by_score);
        result.gauc.value = of_all.gauc;
        result.auc.value = auc_of_sorted(&impressions);
        result.gauc.users = of_users.len();
        result.auc.users = of_all.users as usize;
        let mut times = vec![0; population];
        for replicate in 0..self.replicates {
            self.draw(replicate, &mut times);
            result.gauc.replicates.push(gauc_of_draw(&of_users, &times));
            result.auc.replicates.push(auc_of_draw(&impressions, &times));
        }
        result
    }

    /// Predicted clicks over clicks of some impressions, each of which counts as often as `weights`
    /// says of its label; of the users who have these impressions alone.
    ///
    /// `users`, `logits` and `labels` (0 or 1) are (B) each, in any order.
    pub fn calibration(
        &self,
        users: &[u64],
        logits: &[f32],
        labels: &[u8],
        weights: [f64; 2],
    ) -> Resampled {
        let of_users = clicks_of_users(users, logits, labels, weights);
        let ratio = |times: &mut dyn Iterator<Item = u32>| {
            let (mut predicted, mut clicked) = (0.0, 0.0);
            for (of, times) in of_users.iter().zip(times) {
                predicted += f64::from(times) * of[0];
                clicked += f64::from(times) * of[1];
            }
            (clicked > 0.0).then(|| predicted / clicked)
        };
        let mut times = vec![0; of_users.len()];
        let value = ratio(&mut std::iter::repeat(1));
        let mut replicates = Vec::with_capacity(self.replicates);
        for replicate in 0..self.replicates {
            self.draw(replicate, &mut times);
            replicates.push(ratio(&mut times.iter().copied()));
        }
        Resampled { users: of_users.len(), value, replicates }
    }
}

/// Predicted clicks and clicks of each user, in the order of their ids.
fn clicks_of_users(
    users: &[u64],
    logits: &[f32],
    labels: &[u8],
    weights: [f64; 2],
) -> Vec<[f64; 2]> {
    assert!(users.len() == labels.len() && logits.len() == labels.len(), "one of each per row");
    let mut order: Vec<usize> = (0..users.len()).collect();
    order.sort_by_key(|&row| users[row]);
    let of = |rows: &[usize]| {
        let mut sums = [0.0; 2];
        for &row in rows {
            let clicked = labels[row] != 0;
            let weight = weights[usize::from(clicked)];
            sums[0] += weight / (1.0 + (-f64::from(logits[row])).exp());
            sums[1] += if clicked { weight } else { 0.0 };
        }
        sums
    };
    order.chunk_by(|&a, &b| users[a] == users[b]).map(of).collect()
}

/// Two metrics of the same impressions, with the same draws.
pub struct MetricPair<'a> {
    /// The metric from which the other one is subtracted.
    pub metric: &'a Resampled,
    /// The metric that is subtracted from it.
    pub minus: &'a Resampled,
}

/// The mean over `pairs` (of seeds, say) of a metric minus the other, with the interval of that
/// mean. `None` if there is no pair or a value is not defined.
///
/// Draws that define no value are left out.
pub fn difference(pairs: &[MetricPair<'_>]) -> Option<Interval> {
    let mean = |of: &dyn Fn(&Resampled) -> Option<f64>| {
        let differences = pairs.iter().map(|pair| Some(of(pair.metric)? - of(pair.minus)?));
        let sum = differences.sum::<Option<f64>>()?;
        (!pairs.is_empty()).then(|| sum / pairs.len() as f64)
    };
    let value = mean(&|metric| metric.value)?;
    let replicates = match pairs.first() {
        Some(MetricPair { metric, .. }) if metric.users >= FEWEST_USERS => metric.replicates.len(),
        _ => 0,
    };
    let mut drawn: Vec<f64> =
        (0..replicates).filter_map(|draw| mean(&|metric| metric.replicates[draw])).collect();
    drawn.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&drawn, 0.025), quantile(&drawn, 0.975));
    Some(Interval { mean: value, low, high })
}

/// The quantile of ascending values, between two of them by proportion.
fn quantile(ascending: &[f64], share: f64) -> Option<f64> {
    let last = ascending.len().checked_sub(1)?;
    let at = share * last as f64;
    let below = ascending[at.floor() as usize];
    let above = ascending[at.ceil() as usize];
    Some(below + (above - below) * at.fract())
}

/// A user who has an AUC, with the number of impressions as its weight.
struct UserAuc {
    user: u32,
    impressions: f64,
    auc: f64,
}

/// The users who have an AUC.
fn users_with_auc(by_user: &[Impression]) -> Vec<UserAuc> {
    let mut found = Vec::new();
    aucs_of_sorted(by_user, |user, impressions, auc| {
        let (user, impressions) = (user as u32, impressions as f64);
        found.extend(auc.map(|auc| UserAuc { user, impressions, auc }));
    });
    found
}

/// GAUC of the users drawn.
fn gauc_of_draw(of_users: &[UserAuc], times: &[u32]) -> Option<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for &UserAuc { user, impressions, auc } in of_users {
        let drawn = f64::from(times[user as usize]) * impressions;
        sum += drawn * auc;
        weight += drawn;
    }
    (weight > 0.0).then(|| sum / weight)
}

/// AUC of the impressions of the users drawn: sorted once, walked through for each draw.
fn auc_of_draw(by_score: &[Impression], times: &[u32]) -> Option<f64> {
    let mut pairs = Pairs::default();
    for tied in by_score.chunk_by(|a, b| a.by_score() == b.by_score()) {
        for impression in tied {
            pairs.tied[impression.class()] += u64::from(times[impression.user() as usize]);
        }
        pairs.end_of_ties();
    }
    pairs.auc()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{auc, gauc};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BOOTSTRAP: Bootstrap = Bootstrap { replicates: 20, seed: 7 };

    /// A user drawn twice is two users, an impression that counts thrice is three.
    #[test]
    fn calibration_is_that_of_the_users_drawn() {
        let users = [30, 10, 20, 10, 30, 30, 20];
        let logits = [0.5, -1.0, 2.0, 0.0, -0.5, 1.5, -2.0];
        let labels = [1, 0, 1, 1, 0, 0, 0];
        let got = BOOTSTRAP.calibration(&users, &logits, &labels, [3.0, 1.0]);
        let of = |times: &[u32]| {
            let (mut copied, mut clicks) = (Vec::new(), Vec::new());
            for row in 0..users.len() {
                let user = [10, 20, 30].iter().position(|id| *id == users[row]).unwrap();
                let copies = times[user] * if labels[row] == 0 { 3 } else { 1 };
                (0..copies).for_each(|_| {
                    copied.push(logits[row]);
                    clicks.push(labels[row]);
                });
            }
            crate::metrics::calibration(&copied, &clicks)
        };
        let close = |got: Option<f64>, expected: Option<f64>| match (got, expected) {
            (Some(got), Some(expected)) => (got - expected).abs() < 1e-9,
            (got, expected) => got == expected,
        };
        assert!(close(got.value, of(&[1, 1, 1])), "{got:?}");
        assert_eq!((got.users, got.replicates.len()), (3, BOOTSTRAP.replicates));
        for (replicate, of_draw) in got.replicates.iter().enumerate() {
            let mut times = vec![0; 3];
            BOOTSTRAP.draw(replicate, &mut times);
            assert!(close(*of_draw, of(&times)), "{replicate}: {of_draw:?}");
        }
        assert_eq!(BOOTSTRAP.calibration(&[], &[], &[], [1.0, 1.0]).value, None);
    }

    /// Every draw written out: a user drawn twice is two users with the same impressions.
    fn by_copies(population: u32, impressions: &[(u32, f32, u8)]) -> ResampledRanking {
        let mut result = ResampledRanking::default();
        let metrics = |rows: &[(u64, f32, u8)]| {
            let users: Vec<u64> = rows.iter().map(|row| row.0).collect();
            let logits: Vec<f32> = rows.iter().map(|row| row.1).collect();
            let labels: Vec<u8> = rows.iter().map(|row| row.2).collect();
            (gauc(&users, &logits, &labels).gauc, auc(&logits, &labels))
        };
        let all: Vec<_> = impressions.iter().map(|i| (u64::from(i.0), i.1, i.2)).collect();
        (result.gauc.value, result.auc.value) = metrics(&all);
        let present: BTreeSet<u32> = impressions.iter().map(|i| i.0).collect();
        let both = |user: &u32| {
            let labels = impressions.iter().filter(|i| i.0 == *user).map(|i| i.2);
            labels.collect::<BTreeSet<u8>>().len() == 2
        };
        result.gauc.users = present.iter().copied().filter(both).count();
        result.auc.users = present.len();
        for replicate in 0..BOOTSTRAP.replicates {
            let mut times = vec![0; population as usize];
            BOOTSTRAP.draw(replicate, &mut times);
            let mut rows = Vec::new();
            let mut copies = 0;
            for user in 0..population {
                for _ in 0..times[user as usize] {
                    let of_user = impressions.iter().filter(|i| i.0 == user);
                    rows.extend(of_user.map(|i| (copies, i.1, i.2)));
                    copies += 1;
                }
            }
            let (gauc, auc) = metrics(&rows);
            result.gauc.replicates.push(gauc);
            result.auc.replicates.push(auc);
        }
        result
    }

    fn close(a: &Resampled, b: &Resampled) -> bool {
        let near = |a: &Option<f64>, b: &Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-12,
            (a, b) => a == b,
        };
        let pairs = a.replicates.iter().zip(&b.replicates);
        near(&a.value, &b.value)
            && a.users == b.users
            && a.replicates.len() == b.replicates.len()
            && pairs.into_iter().all(|(a, b)| near(a, b))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..Default::default() })]

        #[test]
        fn draws_are_users_with_all_their_impressions(
            impressions in prop::collection::vec((0..6u32, -3..4i8, 0..2u8), 0..40)
        ) {
            // User 6 has no impression; ties and users of one class are the rule.
            let impressions: Vec<(u32, f32, u8)> =
                impressions.into_iter().map(|(u, s, y)| (u, f32::from(s) * 0.3, y)).collect();
            let users: Vec<u32> = impressions.iter().map(|i| i.0).collect();
            let logits: Vec<f32> = impressions.iter().map(|i| i.1).collect();
            let labels: Vec<u8> = impressions.iter().map(|i| i.2).collect();
            let got = BOOTSTRAP.ranking(7, &users, &logits, &labels);
            let expected = by_copies(7, &impressions);
            prop_assert_eq!(&got.auc, &expected.auc);
            prop_assert!(close(&got.gauc, &expected.gauc), "{:?} {:?}", got.gauc, expected.gauc);
        }
    }

    #[test]
    fn every_user_is_drawn_as_often_as_another() {
        let mut times = vec![0; 50];
        let mut sums = vec![0; 50];
        for replicate in 0..2000 {
            BOOTSTRAP.draw(replicate, &mut times);
            assert_eq!(times.iter().sum::<u32>(), 50);
            sums.iter_mut().zip(&times).for_each(|(sum, &times)| *sum += times);
        }
        // Five standard deviations of a Poisson count of 2000.
        assert!(sums.iter().all(|&sum| (1776..2224).contains(&sum)), "{sums:?}");
    }

    fn resampled(value: f64, replicates: &[Option<f64>]) -> Resampled {
        Resampled { users: 10, value: Some(value), replicates: replicates.to_vec() }
    }

    fn pair<'a>(metric: &'a Resampled, minus: &'a Resampled) -> MetricPair<'a> {
        MetricPair { metric, minus }
    }

    #[test]
    fn the_interval_is_of_the_mean_over_pairs() {
        let draws = |scale: f64| (0..41).map(|i| Some(scale * f64::from(i))).collect::<Vec<_>>();
        let (a, b, none) =
            (resampled(3.0, &draws(1.0)), resampled(5.0, &draws(3.0)), resampled(0.0, &draws(0.0)));
        // The draws of the mean are 0, 2, 4 ... 80: 2.5 % of 40 steps is one.
        let interval = |mean, low, high| Interval { mean, low: Some(low), high: Some(high) };
        let expected = interval(4.0, 2.0, 78.0);
        assert_eq!(difference(&[pair(&a, &none), pair(&b, &none)]), Some(expected));
        let same = interval(0.0, 0.0, 0.0);
        assert_eq!(difference(&[pair(&a, &a)]), Some(same), "draws are paired");
        assert_eq!(difference(&[]), None);
        assert_eq!(difference(&[pair(&a, &Resampled::default())]), None);
        let gaps = resampled(1.0, &[None, Some(1.0), None]);
        let zero = resampled(0.0, &[None, Some(0.0), None]);
        assert_eq!(difference(&[pair(&gaps, &zero)]), Some(interval(1.0, 1.0, 1.0)));
        // The draws are 0, 1, 2 ... 40.
        assert_eq!(a.interval(), Some(interval(3.0, 1.0, 39.0)));
        assert_eq!(Resampled::default().interval(), None);
        let few = Resampled { users: 9, ..a.clone() };
        let expected = Interval { mean: 3.0, low: None, high: None };
        assert_eq!(difference(&[pair(&few, &none)]), Some(expected));
    }
}
