//! Lifts with intervals: how much more of something B has than A, and how sure that is.
//!
//! A metric is a ratio of sums over users, such as clicks over impressions. Its variance is that of
//! its first-order terms over users (the delta method), or over clusters of users where these were
//! divided. Knows sums. Does not know what happened.

use serde::Serialize;

/// What some impressions brought in, and what they could be expected to by the true probabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Sums {
    pub impressions: f64,
    pub clicks: f64,
    pub revenue: f64,
    pub merchandise: f64,
    pub expected_clicks: f64,
    pub expected_revenue: f64,
    pub expected_merchandise: f64,
    /// Of items that came shortly before.
    pub cold_impressions: f64,
    pub cold_clicks: f64,
    pub expected_cold_clicks: f64,
}

impl Sums {
    /// Adds what others brought in.
    pub fn add(&mut self, other: &Sums) {
        self.impressions += other.impressions;
        self.clicks += other.clicks;
        self.revenue += other.revenue;
        self.merchandise += other.merchandise;
        self.expected_clicks += other.expected_clicks;
        self.expected_revenue += other.expected_revenue;
        self.expected_merchandise += other.expected_merchandise;
        self.cold_impressions += other.cold_impressions;
        self.cold_clicks += other.cold_clicks;
        self.expected_cold_clicks += other.expected_cold_clicks;
    }
}

/// Whether chance is in a metric, or what was to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Happened,
    Expected,
}

/// A ratio of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Clicks per impression.
    Ctr,
    /// Payments per thousand impressions.
    Ecpm,
    /// Prices of what was bought per thousand impressions.
    Gpm,
    /// Payments per user, also of those who did not come.
    Revenue,
    /// Clicks per impression of cold items.
    ColdCtr,
    /// Share of cold items in the impressions.
    ColdShare,
}

impl Metric {
    pub(crate) const ALL: [Metric; 6] = [
        Metric::Ctr,
        Metric::Ecpm,
        Metric::Gpm,
        Metric::Revenue,
        Metric::ColdCtr,
        Metric::ColdShare,
    ];

    /// Numerator and denominator of one user.
    pub(crate) fn parts(self, sums: &Sums, of: Of) -> Pair {
        let happened = of == Of::Happened;
        let choose = |happens: f64, expected: f64| if happened { happens } else { expected };
        let revenue = choose(sums.revenue, sums.expected_revenue);
        match self {
            Metric::Ctr => (choose(sums.clicks, sums.expected_clicks), sums.impressions),
            Metric::Ecpm => (1e3 * revenue, sums.impressions),
            Metric::Gpm => {
                let merchandise = choose(sums.merchandise, sums.expected_merchandise);
                (1e3 * merchandise, sums.impressions)
            }
            Metric::Revenue => (revenue, 1.0),
            Metric::ColdCtr => {
                (choose(sums.cold_clicks, sums.expected_cold_clicks), sums.cold_impressions)
            }
            Metric::ColdShare => (sums.cold_impressions, sums.impressions),
        }
    }
}

/// Numerator and denominator of a unit: a user, or a cluster of users.
pub(crate) type Pair = (f64, f64);

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// The lower end of its interval of 95 %; none of too few units.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
}

impl Estimate {
    /// Whether the interval has `value`.
    pub fn covers(&self, value: f64) -> bool {
        self.low.is_some_and(|low| low <= value) && self.high.is_some_and(|high| value <= high)
    }

    /// Of the logarithm of a factor and its variance: the lift, which is the factor less 1.
    fn of_logarithm(logarithm: f64, variance: Option<f64>, freedom: f64) -> Estimate {
        let side = |sign: f64| {
            variance.map(|it| (logarithm + sign * t_quantile(freedom) * it.sqrt()).exp_m1())
        };
        Estimate { value: logarithm.exp_m1(), low: side(-1.0), high: side(1.0) }
    }
}

/// The ratio of the sums, and the first-order terms of its logarithm, by unit.
struct Ratio {
    value: f64,
    terms: Vec<f64>,
}

impl Ratio {
    /// None without a numerator or a denominator.
    fn of(units: &[Pair]) -> Option<Ratio> {
        let above: f64 = units.iter().map(|unit| unit.0).sum();
        let below: f64 = units.iter().map(|unit| unit.1).sum();
        if !(above > 0.0 && below > 0.0) {
            return None;
        }
        let terms = units.iter().map(|(y, x)| y / above - x / below).collect();
        Some(Ratio { value: above / below, terms })
    }

    /// Variance of the logarithm; none of a single unit.
    fn variance(&self) -> Option<f64> {
        variance(&self.terms)
    }
}

/// Of a sum of terms that are 0 on average.
fn variance(terms: &[f64]) -> Option<f64> {
    let count = terms.len() as f64;
    let squares: f64 = terms.iter().map(|term| term * term).sum();
    (count > 1.0).then(|| squares * count / (count - 1.0))
}

/// How much more B has than A, relative to A, where their units are different users; none where one
/// of them has nothing.
pub fn lift(a: &[(f64, f64)], b: &[(f64, f64)]) -> Option<Estimate> {
    let (of_a, of_b) = (Ratio::of(a)?, Ratio::of(b)?);
    let variances = of_a.variance().zip(of_b.variance());
    // Welch's degrees of freedom.
    let freedom = variances.map_or(1.0, |(x, y)| {
        let parts = x * x / (a.len() - 1) as f64 + y * y / (b.len() - 1) as f64;
        if parts > 0.0 { (x + y).powi(2) / parts } else { 1.0 }
    });
    let variance = variances.map(|(x, y)| x + y);
    Some(Estimate::of_logarithm((of_b.value / of_a.value).ln(), variance, freedom))
}

/// How much more units have in one world than in another, relative to it: `then[i]` and `now[i]`
/// are the same unit.
///
/// # Panics
/// If they are not as many.
pub fn paired_lift(then: &[(f64, f64)], now: &[(f64, f64)]) -> Option<Estimate> {
    assert_eq!(then.len(), now.len(), "the same units");
    let (before, after) = (Ratio::of(then)?, Ratio::of(now)?);
    let terms: Vec<f64> = after.terms.iter().zip(&before.terms).map(|(x, y)| x - y).collect();
    let freedom = terms.len() as f64 - 1.0;
    Some(Estimate::of_logarithm((after.value / before.value).ln(), variance(&terms), freedom))
}

/// The factor by which B over A is another one in a world than in the truth, less 1: of the users
/// of A, what the world's A brought in against all on A, and the same of B.
pub(crate) fn bias(a: [&[Pair]; 2], b: [&[Pair]; 2]) -> Option<Estimate> {
    let [of_a, of_b] = [a, b].map(|[truth, world]| {
        let (truth, world) = (Ratio::of(truth)?, Ratio::of(world)?);
        let terms: Vec<f64> = world.terms.iter().zip(&truth.terms).map(|(x, y)| x - y).collect();
        Some(((world.value / truth.value).ln(), variance(&terms), terms.len()))
    });
    let ((of_a, a_variance, a_count), (of_b, b_variance, b_count)) = (of_a?, of_b?);
    let variance = a_variance.zip(b_variance).map(|(x, y)| x + y);
    let freedom = (a_count.min(b_count) as f64 - 1.0).max(1.0);
    Some(Estimate::of_logarithm(of_b - of_a, variance, freedom))
}

/// The mean of some values with an interval by Student's t; no interval of fewer than two.
pub(crate) fn mean(values: &[f64]) -> Option<Estimate> {
    if values.is_empty() {
        return None;
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let side =
        (count > 1.0).then(|| t_quantile(count - 1.0) * (squares / (count - 1.0) / count).sqrt());
    Some(Estimate {
        value: mean,
        low: side.map(|side| mean - side),
        high: side.map(|side| mean + side),
    })
}

/// The 97.5 % quantile of Student's t with `freedom` degrees of freedom, at least 1.
fn t_quantile(freedom: f64) -> f64 {
    const SMALL: [f64; 6] = [12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912];
    let at = freedom.floor();
    if at < 7.0 {
        return SMALL[(at.max(1.0) as usize) - 1];
    }
    // Cornish and Fisher's expansion around the normal distribution.
    let z = 1.959_963_985_f64;
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    let fourth = (79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5)
        - 1920.0 * z.powi(3)
        - 945.0 * z)
        / 92_160.0;
    let terms = [first, second, third, fourth];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom) + z
}

/// Spearman's rank correlation of pairs, ties at their mean rank; none of fewer than three pairs,
/// or where one side is all the same.
pub fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let first = ranks(pairs.iter().map(|pair| pair.0).collect());
    let second = ranks(pairs.iter().map(|pair| pair.1).collect());
    let middle = (pairs.len() as f64 - 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum()
    };
    let lengths = product(&first, &first) * product(&second, &second);
    (lengths > 0.0).then(|| product(&first, &second) / lengths.sqrt())
}

/// The rank of each value, from 0; equal values have the mean of theirs.
fn ranks(values: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let (mut ranks, mut begin) = (vec![0.0; values.len()], 0);
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = begin as f64 + (equal.len() as f64 - 1.0) / 2.0;
        equal.iter().for_each(|&at| ranks[at] = rank);
        begin += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use ams_data::synth::{Dice, Entity};

    /// Users who see 1 to 20 items, and click each by a rate of their own around `rate`.
    fn users(seed: u64, count: usize, rate: f64) -> Vec<Pair> {
        let mut dice = Dice::new(seed, Entity::Page, 0, 0);
        let user = |_| {
            let impressions = 1 + dice.below(20);
            let own = rate * (0.3 * dice.normal()).exp();
            let clicks = (0..impressions).filter(|_| dice.happens(own)).count();
            (clicks as f64, impressions as f64)
        };
        (0..count).map(user).collect()
    }

    #[test]
    fn intervals_cover_the_truth_as_often_as_they_say() {
        let truth: f64 = 0.12 / 0.1 - 1.0;
        let covered = (0..400).filter(|&seed| {
            let (a, b) = (users(seed, 150, 0.1), users(1000 + seed, 200, 0.12));
            lift(&a, &b).unwrap().covers(truth)
        });
        let covered = covered.count();
        assert!((366..=396).contains(&covered), "{covered} of 400, expected 380");
    }

    #[test]
    fn the_interval_of_a_lift_is_that_of_a_bootstrap() {
        let (a, b) = (users(1, 300, 0.1), users(2, 300, 0.15));
        let mut dice = Dice::new(3, Entity::Page, 0, 0);
        let mut draws: Vec<f64> = (0..2000)
            .map(|_| {
                let mut ratio = |units: &[Pair]| {
                    let (mut above, mut below) = (0.0, 0.0);
                    for _ in 0..units.len() {
                        let unit = units[dice.below(units.len())];
                        (above, below) = (above + unit.0, below + unit.1);
                    }
                    above / below
                };
                let of_a = ratio(&a);
                ratio(&b) / of_a - 1.0
            })
            .collect();
        draws.sort_by(f64::total_cmp);
        let got = lift(&a, &b).unwrap();
        let (low, high) = (got.low.unwrap(), got.high.unwrap());
        assert!((low - draws[50]).abs() < 0.04 && (high - draws[1949]).abs() < 0.04, "{got:?}");
    }

    #[test]
    fn the_same_users_in_two_worlds_differ_by_less() {
        let then = users(1, 200, 0.2);
        let now: Vec<Pair> = then.iter().map(|(y, x)| (1.1 * y, *x)).collect();
        let paired = paired_lift(&then, &now).unwrap();
        assert!((paired.value - 0.1).abs() < 1e-12);
        assert!(paired.high.unwrap() - paired.low.unwrap() < 1e-6);
        let biased = bias([&then, &then], [&then, &now]).unwrap();
        assert!((biased.value - 0.1).abs() < 1e-12);
        assert_eq!(lift(&then, &[(0.0, 3.0)]), None);
    }

    #[test]
    fn quantiles_are_those_of_tables() {
        for (freedom, expected) in [
            (1.0, 12.706),
            (2.0, 4.303),
            (6.0, 2.447),
            (7.0, 2.365),
            (10.0, 2.228),
            (30.0, 2.042),
            (1e9, 1.960),
        ] {
            assert!((t_quantile(freedom) - expected).abs() < 1e-3, "{freedom}");
        }
        let three = mean(&[1.0, 2.0, 3.0]).unwrap();
        assert!((three.high.unwrap() - (2.0 + 4.302_653 / 3.0_f64.sqrt())).abs() < 1e-6);
        assert_eq!(mean(&[1.0]).unwrap().low, None);
    }

    #[test]
    fn rank_correlations_are_spearmans() {
        let of = |pairs: &[(f64, f64)]| rank_correlation(pairs);
        assert_eq!(of(&[(1.0, 10.0), (2.0, 200.0), (3.0, 3000.0)]), Some(1.0));
        assert_eq!(of(&[(1.0, 3.0), (2.0, 2.0), (3.0, 1.0)]), Some(-1.0));
        assert_eq!(of(&[(1.0, 3.0), (1.0, 2.0), (1.0, 1.0)]), None);
        // scipy.stats.spearmanr([1, 2, 2, 4], [3, 1, 4, 5])
        let tied = of(&[(1.0, 3.0), (2.0, 1.0), (2.0, 4.0), (4.0, 5.0)]).unwrap();
        assert!((tied - 0.632_455_532).abs() < 1e-9, "{tied}");
    }
}
