//! Metrics and numbers with intervals: how much more of something B has than A.
//!
//! A metric is a ratio of sums over users, such as clicks over impressions. Knows sums. Does not
//! know what happened, nor what is luck.

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

    /// Of the logarithm of a factor and half the width of its interval: the lift, which is the
    /// factor less 1.
    pub(crate) fn of_logarithm(logarithm: f64, side: Option<f64>) -> Estimate {
        let at = |sign: f64| side.map(|it| (logarithm + sign * it).exp_m1());
        Estimate { value: logarithm.exp_m1(), low: at(-1.0), high: at(1.0) }
    }
}

/// The ratio of the sums, and the first-order terms of its logarithm, by unit.
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) terms: Vec<f64>,
}

impl Ratio {
    /// None without a numerator or a denominator.
    pub(crate) fn of(units: &[Pair]) -> Option<Ratio> {
        let above: f64 = units.iter().map(|unit| unit.0).sum();
        let below: f64 = units.iter().map(|unit| unit.1).sum();
        if !(above > 0.0 && below > 0.0) {
            return None;
        }
        let terms = units.iter().map(|(y, x)| y / above - x / below).collect();
        Some(Ratio { value: above / below, terms })
    }
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
pub(crate) fn t_quantile(freedom: f64) -> f64 {
    const SMALL: [f64; 7] =
        [12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624];
    let freedom = freedom.max(1.0);
    if freedom < 7.0 {
        // Between whole numbers, the logarithm goes about as 1 / freedom.
        let below = freedom.floor();
        let (first, second) = (SMALL[below as usize - 1], SMALL[below as usize]);
        let part = (1.0 / below - 1.0 / freedom) * below * (below + 1.0);
        return first * (second / first).powf(part);
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
        // Between whole numbers a little too wide.
        for (freedom, expected) in [(1.5, 6.0167), (2.5, 3.5747), (4.5, 2.6589)] {
            let over = t_quantile(freedom) / expected;
            assert!((1.0..1.03).contains(&over), "{freedom}: {over}");
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
