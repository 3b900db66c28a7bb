//! The value of a policy, the mean reward of an impression under it, from the log of another.
//!
//! ```text
//! w      e(a) / b(a): probability of the logged item a by the evaluated policy e, over that by the
//!        policy b that wrote the log
//! W      w, times the weights of the positions above, where these are to count
//! q(a)   expected reward of an item by a model; q(e) its mean over the items that e may choose
//!
//! IPW             mean W r                     no model; unbiased if b(a) > 0 wherever e(a) > 0
//! SNIPW           sum W r / sum W              a little bias, less variance
//! direct          mean q(e)                    as good as the model
//! doubly robust   mean W/w q(e) + W (r - q(a)) unbiased if the propensities or the model are right
//! ```
//! Intervals are of users that are drawn with replacement. Does not know where probabilities are
//! from.

use crate::metrics::bootstrap::{Bootstrap, Interval, MetricPair, Resampled, difference};

/// Impressions of a log, (B) of each.
#[derive(Clone, Copy, Debug)]
pub struct ReweightedLog<'a> {
    /// Who saw it.
    pub users: &'a [u64],
    /// What it brought.
    pub rewards: &'a [f64],
    /// The evaluated policy's probability of the logged item over the logging policy's; 0 or more.
    pub weights: &'a [f64],
    /// The product of the weights of the positions above it on its page; 1 for each where
    /// positions are evaluated by themselves.
    pub above: &'a [f64],
    /// Of a model of rewards, if there is one.
    pub expected: Option<Expected<'a>>,
}

/// Expected rewards by a model, (B) of each.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Mean over the candidates by the evaluated policy's probabilities.
    pub of_policy: &'a [f64],
    /// Of the logged item.
    pub of_logged: &'a [f64],
}

/// A value by each estimator; none where it is undefined or has no model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Values<T> {
    /// Mean reward in the log: the value of the policy that wrote it.
    pub logged: Option<T>,
    /// Inverse propensity weights.
    pub ipw: Option<T>,
    /// The same over the sum of the weights; none where all are 0.
    pub snipw: Option<T>,
    /// The model of rewards alone.
    pub direct: Option<T>,
    /// The model, mended by weighted rewards that it did not expect.
    pub doubly_robust: Option<T>,
    /// Mean weight; 1 is expected of right propensities that cover the evaluated policy.
    pub weight: Option<T>,
}

/// What a log says of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Reweighted {
    /// Distinct users.
    pub users: usize,
    /// The values.
    pub values: Values<Interval>,
    /// Each less that of the log, with the same draws.
    pub lifts: Values<Interval>,
    /// Impressions that the weights are worth, `(sum W)^2 / sum W^2`; 0 where all are 0.
    pub effective: f64,
    /// The largest weight.
    pub largest: f64,
    /// Its share of the sum of all weights.
    pub largest_share: f64,
    /// Impressions with a reward and a weight above 0: what IPW sees.
    pub carrying: u64,
}

/// Sums over impressions of a user, or of many.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    impressions: f64,
    rewards: f64,
    weighted: f64,
    weights: f64,
    direct: f64,
    robust: f64,
}

impl Sums {
    fn add(&mut self, times: f64, of: &Sums) {
        self.impressions += times * of.impressions;
        self.rewards += times * of.rewards;
        self.weighted += times * of.weighted;
        self.weights += times * of.weights;
        self.direct += times * of.direct;
        self.robust += times * of.robust;
    }

    fn values(&self, with_model: bool) -> Values<f64> {
        let over = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        let mean = |sum: f64| over(sum, self.impressions);
        let of_model = |sum: f64| mean(sum).filter(|_| with_model);
        Values {
            logged: mean(self.rewards),
            ipw: mean(self.weighted),
            snipw: over(self.weighted, self.weights),
            direct: of_model(self.direct),
            doubly_robust: of_model(self.robust),
            weight: mean(self.weights),
        }
    }
}

impl<T> Default for Values<T> {
    fn default() -> Values<T> {
        let (logged, ipw, snipw, direct, doubly_robust, weight) =
            (None, None, None, None, None, None);
        Values { logged, ipw, snipw, direct, doubly_robust, weight }
    }
}

impl<T> Values<T> {
    fn map<U>(&self, f: impl Fn(&Option<T>) -> Option<U>) -> Values<U> {
        Values {
            logged: f(&self.logged),
            ipw: f(&self.ipw),
            snipw: f(&self.snipw),
            direct: f(&self.direct),
            doubly_robust: f(&self.doubly_robust),
            weight: f(&self.weight),
        }
    }
}

impl ReweightedLog<'_> {
    /// All estimates, with the draws of `bootstrap`.
    pub fn estimate(&self, bootstrap: &Bootstrap) -> Reweighted {
        let users = self.sums_of_users();
        let with_model = self.expected.is_some();
        let mut all = Sums::default();
        users.iter().for_each(|of| all.add(1.0, of));
        let values = all.values(with_model);
        let mut times = vec![0; users.len()];
        let mut draws = Vec::with_capacity(bootstrap.replicates);
        for replicate in 0..bootstrap.replicates {
            bootstrap.draw(replicate, &mut times);
            let mut drawn = Sums::default();
            users.iter().zip(&times).for_each(|(of, &times)| drawn.add(f64::from(times), of));
            draws.push(drawn.values(with_model));
        }
        let resampled = |pick: &dyn Fn(&Values<f64>) -> Option<f64>| Resampled {
            users: users.len(),
            value: pick(&values),
            replicates: draws.iter().map(pick).collect(),
        };
        let all = Values {
            logged: Some(resampled(&|of| of.logged)),
            ipw: Some(resampled(&|of| of.ipw)),
            snipw: Some(resampled(&|of| of.snipw)),
            direct: Some(resampled(&|of| of.direct)),
            doubly_robust: Some(resampled(&|of| of.doubly_robust)),
            weight: Some(resampled(&|of| of.weight)),
        };
        let logged = all.logged.clone().unwrap_or_default();
        let lift = |of: &Option<Resampled>| {
            difference(&[MetricPair { metric: of.as_ref()?, minus: &logged }])
        };
        Reweighted {
            users: users.len(),
            values: all.map(|of| of.as_ref()?.interval()),
            lifts: Values { logged: None, weight: None, ..all.map(lift) },
            ..self.overlap()
        }
    }

    /// The weight of an impression, with those above it.
    fn weight(&self, row: usize) -> f64 {
        self.above[row] * self.weights[row]
    }

    /// What weights alone say; the rest is empty.
    fn overlap(&self) -> Reweighted {
        let weights = || (0..self.rewards.len()).map(|row| self.weight(row));
        let (sum, squares) =
            weights().fold((0.0, 0.0), |(sum, squares), w| (sum + w, squares + w * w));
        let largest = weights().fold(0.0, f64::max);
        let share = |of: f64, whole: f64| if whole > 0.0 { of / whole } else { 0.0 };
        let carries = |row: usize| self.rewards[row] != 0.0 && self.weight(row) > 0.0;
        Reweighted {
            users: 0,
            values: Values::default(),
            lifts: Values::default(),
            // In this order, as squares of sums of large weights are larger than a number may be.
            effective: sum * share(sum, squares),
            largest,
            largest_share: share(largest, sum),
            carrying: (0..self.rewards.len()).filter(|&row| carries(row)).count() as u64,
        }
    }

    /// Of each user, in the order of their ids.
    fn sums_of_users(&self) -> Vec<Sums> {
        let count = self.users.len();
        let lengths = [self.rewards.len(), self.weights.len(), self.above.len()];
        assert_eq!(lengths, [count; 3], "one of each per impression");
        if let Some(of) = self.expected {
            assert_eq!([of.of_policy.len(), of.of_logged.len()], [count; 2], "expected rewards");
        }
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|&row| self.users[row]);
        let of = |rows: &[usize]| {
            let mut sums = Sums::default();
            for &row in rows {
                let (weight, reward) = (self.weight(row), self.rewards[row]);
                sums.impressions += 1.0;
                sums.rewards += reward;
                sums.weighted += weight * reward;
                sums.weights += weight;
                if let Some(Expected { of_policy, of_logged }) = self.expected {
                    sums.direct += of_policy[row];
                    let missed = reward - of_logged[row];
                    sums.robust += self.above[row] * of_policy[row] + weight * missed;
                }
            }
            sums
        };
        order.chunk_by(|&a, &b| self.users[a] == self.users[b]).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::mix;

    /// Of [0, 1), by a seed and a number.
    fn uniform(seed: u64, at: u64) -> f64 {
        mix(mix(seed) ^ at) as f64 / (u64::MAX as f64 + 1.0)
    }

    fn close(got: Option<Interval>, expected: f64) {
        let got = got.unwrap().mean;
        assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
    }

    const BOOTSTRAP: Bootstrap = Bootstrap { replicates: 100, seed: 3 };

    /// Four impressions, by hand: weights 2, .5, 0 and 1.5, expected .4 .2 .1 .5 of what the policy
    /// chooses and .5 .25 .125 .25 of what was logged.
    #[test]
    fn values_by_hand() {
        let log = ReweightedLog {
            users: &[7, 8, 7, 9],
            rewards: &[1.0, 0.0, 1.0, 2.0],
            weights: &[2.0, 0.5, 0.0, 1.5],
            above: &[1.0; 4],
            expected: Some(Expected {
                of_policy: &[0.4, 0.2, 0.1, 0.5],
                of_logged: &[0.5, 0.25, 0.125, 0.25],
            }),
        };
        let got = log.estimate(&BOOTSTRAP);
        close(got.values.logged, 1.0);
        close(got.values.ipw, (2.0 + 0.0 + 0.0 + 3.0) / 4.0);
        close(got.values.snipw, 5.0 / 4.0);
        close(got.values.direct, 1.2 / 4.0);
        // 2 * .5, .5 * -.25, 0 and 1.5 * 1.75 are what the model missed.
        close(got.values.doubly_robust, (1.2 + 1.0 - 0.125 + 2.625) / 4.0);
        close(got.values.weight, 1.0);
        close(got.lifts.ipw, 0.25);
        close(got.lifts.direct, -0.7);
        assert_eq!((got.users, got.carrying, got.largest, got.largest_share), (3, 2, 2.0, 0.5));
        assert!((got.effective - 16.0 / 6.5).abs() < 1e-12, "{}", got.effective);
        assert_eq!(got.values.ipw.unwrap().low, None, "an interval of three users");
        assert_eq!((got.lifts.logged, got.lifts.weight), (None, None));
        // Positions above: the second impression counts thrice, the last one is not reached.
        let page = ReweightedLog { above: &[1.0, 3.0, 1.0, 0.0], ..log };
        let got = page.estimate(&BOOTSTRAP);
        close(got.values.ipw, 2.0 / 4.0);
        close(got.values.snipw, 2.0 / 3.5);
        close(got.values.direct, 1.2 / 4.0);
        close(got.values.doubly_robust, (0.4 + 1.0 + 3.0 * 0.2 - 1.5 * 0.25 + 0.1) / 4.0);
        let alone = ReweightedLog { expected: None, ..log }.estimate(&BOOTSTRAP);
        assert_eq!((alone.values.direct, alone.values.doubly_robust), (None, None));
        assert_eq!(alone.values.ipw, log.estimate(&BOOTSTRAP).values.ipw);
    }

    #[test]
    fn weights_of_nothing_have_no_mean() {
        let nothing = ReweightedLog {
            users: &[1, 2],
            rewards: &[1.0, 1.0],
            weights: &[0.0; 2],
            above: &[1.0; 2],
            expected: None,
        };
        let got = nothing.estimate(&BOOTSTRAP);
        assert_eq!((got.values.snipw, got.effective, got.largest_share), (None, 0.0, 0.0));
        close(got.values.ipw, 0.0);
        let (users, rewards, weights) = (&[][..], &[][..], &[][..]);
        let empty = ReweightedLog { users, rewards, weights, above: &[], expected: None };
        assert_eq!(empty.estimate(&BOOTSTRAP).values, Values::default());
        let large = ReweightedLog { weights: &[1e200; 2], ..nothing }.estimate(&BOOTSTRAP);
        assert!(large.effective.is_finite() && large.values.ipw.unwrap().mean == 1e200);
    }

    /// A bandit of three items for two kinds of users, whose clicks are drawn of known rates.
    struct Bandit {
        users: Vec<u64>,
        rewards: Vec<f64>,
        weights: Vec<f64>,
        of_policy: Vec<f64>,
        of_logged: Vec<f64>,
    }

    const RATES: [[f64; 3]; 2] = [[0.1, 0.3, 0.5], [0.4, 0.2, 0.3]];
    const LOGGING: [[f64; 3]; 2] = [[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]];
    const EVALUATED: [[f64; 3]; 2] = [[0.1, 0.2, 0.7], [0.7, 0.2, 0.1]];

    /// Both kinds are equally frequent.
    fn truth() -> f64 {
        let kinds = EVALUATED.iter().flatten().zip(RATES.iter().flatten());
        kinds.map(|(chosen, rate)| chosen * rate).sum::<f64>() / 2.0
    }

    impl Bandit {
        /// `users` users of four impressions each. The model of rewards is `wrong` by as much for
        /// each item, and propensities are `stated` times what they are.
        fn drawn(seed: u64, users: u64, wrong: f64, stated: f64) -> Bandit {
            let mut bandit = Bandit::empty();
            for user in 0..users {
                let kind = (uniform(seed, user << 8) >= 0.5) as usize;
                for time in 0..4 {
                    let draw = |what: u64| uniform(seed, user << 8 | time << 2 | what);
                    let place = draw(1);
                    let item = if place < LOGGING[kind][0] {
                        0
                    } else {
                        1 + usize::from(place >= LOGGING[kind][0] + LOGGING[kind][1])
                    };
                    let of = |at: usize| RATES[kind][at] + wrong * (at as f64 - 0.5);
                    bandit.users.push(user);
                    bandit.rewards.push(f64::from(u8::from(draw(2) < RATES[kind][item])));
                    bandit.weights.push(EVALUATED[kind][item] / (LOGGING[kind][item] * stated));
                    bandit.of_policy.push((0..3).map(|at| EVALUATED[kind][at] * of(at)).sum());
                    bandit.of_logged.push(of(item));
                }
            }
            bandit
        }

        fn empty() -> Bandit {
            Bandit {
                users: Vec::new(),
                rewards: Vec::new(),
                weights: Vec::new(),
                of_policy: Vec::new(),
                of_logged: Vec::new(),
            }
        }

        fn estimate(&self, replicates: usize, seed: u64) -> Values<Interval> {
            let log = ReweightedLog {
                users: &self.users,
                rewards: &self.rewards,
                weights: &self.weights,
                above: &vec![1.0; self.users.len()],
                expected: Some(Expected { of_policy: &self.of_policy, of_logged: &self.of_logged }),
            };
            log.estimate(&Bootstrap { replicates, seed }).values
        }
    }

    type Pick = fn(&Values<Interval>) -> Option<Interval>;

    const PICKS: [(&str, Pick); 4] = [
        ("ipw", |of| of.ipw),
        ("snipw", |of| of.snipw),
        ("direct", |of| of.direct),
        ("doubly robust", |of| of.doubly_robust),
    ];

    /// Means over 200 logs are the truth within what their spread allows: the direct method's only
    /// if its model is right, the doubly robust one's also if the propensities are wrong instead.
    #[test]
    fn estimates_of_many_logs_are_the_truth_in_the_mean() {
        // Wrong model, stated propensities, and which of the four are right.
        let cases = [
            (0.0, 1.0, [true, true, true, true]),
            (0.3, 1.0, [true, true, false, true]),
            (0.0, 2.0, [false, true, true, true]),
            (0.3, 2.0, [false, true, false, false]),
        ];
        for (wrong, stated, expected) in cases {
            let logs: Vec<_> = (0..200)
                .map(|seed| Bandit::drawn(seed, 400, wrong, stated).estimate(1, seed))
                .collect();
            for ((name, pick), expected) in PICKS.iter().zip(expected) {
                let means: Vec<f64> = logs.iter().map(|of| pick(of).unwrap().mean).collect();
                let mean = means.iter().sum::<f64>() / 200.0;
                let squares = means.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
                let error = (squares / 199.0 / 200.0).sqrt();
                let right = (mean - truth()).abs() < 3.5 * error + 1e-3;
                assert_eq!(right, expected, "{name} {wrong} {stated}: {mean} {error} {}", truth());
            }
        }
    }

    /// 95 % intervals cover the truth in 183 to 197 of 200 logs.
    #[test]
    fn intervals_cover_the_truth() {
        let logs: Vec<_> = (0..200)
            .map(|seed| Bandit::drawn(9000 + seed, 300, 0.3, 1.0).estimate(200, 1))
            .collect();
        for (name, pick) in [PICKS[0], PICKS[1], PICKS[3]] {
            let covers = |of: &&Values<Interval>| {
                let Interval { low, high, .. } = pick(of).unwrap();
                (low.unwrap()..=high.unwrap()).contains(&truth())
            };
            let covered = logs.iter().filter(covers).count();
            assert!((183..=197).contains(&covered), "{name}: {covered} of 200");
        }
    }

    /// Four times the users halve the error.
    #[test]
    fn errors_fall_with_the_size_of_the_log() {
        let error = |users: u64, pick: Pick| {
            let of = |seed| {
                let got = pick(&Bandit::drawn(seed, users, 0.3, 1.0).estimate(1, 1)).unwrap().mean;
                (got / truth() - 1.0).powi(2)
            };
            ((5000..5060).map(of).sum::<f64>() / 60.0).sqrt()
        };
        for (name, pick) in [PICKS[0], PICKS[1], PICKS[3]] {
            let errors = [100, 400, 1600].map(|users| error(users, pick));
            for pair in errors.windows(2) {
                let ratio = pair[0] / pair[1];
                assert!((1.5..2.7).contains(&ratio), "{name}: {errors:?}");
            }
        }
    }

    /// The order of impressions is no part of the result beyond rounding, and a seed is a result.
    #[test]
    fn draws_follow_the_seed() {
        let bandit = Bandit::drawn(1, 50, 0.1, 1.0);
        let first = bandit.estimate(100, 4);
        assert_eq!(first, bandit.estimate(100, 4));
        assert_ne!(first, bandit.estimate(100, 5));
    }
}
