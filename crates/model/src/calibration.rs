//! Calibration: increasing curves from logits to logits, fitted to clicks.
//!
//! A curve leaves the order of scores as it is. Both kinds are increasing everywhere, also beyond
//! the logits that they were fitted to.

use serde::{Deserialize, Serialize};

use crate::loss::cross_entropy_at;

/// Most points of an isotonic curve.
pub const POINTS: usize = 1000;

/// Least impressions behind a point of an isotonic curve.
pub const POINT_IMPRESSIONS: usize = 25;

/// Newton's steps at most; some ten are usual.
const STEPS: usize = 100;

/// An increasing function of logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Curve {
    /// slope * logit + intercept (Platt, 1999).
    Platt {
        /// More than 0.
        slope: f64,
        /// The calibrated logit of logit 0.
        intercept: f64,
    },
    /// Lines between points, and of slope 1 beyond the first and the last one.
    Isotonic {
        /// Logits of the points, ascending; (K), at least 2.
        logits: Vec<f64>,
        /// The calibrated logit at each, ascending; (K).
        calibrated: Vec<f64>,
    },
}

impl Curve {
    /// The line of greatest likelihood, with Platt's targets: (clicks + 1) / (clicks + 2) for a
    /// click and 1 / (others + 2) for another impression, so that it exists for any logits.
    ///
    /// `logits` (B), finite, and `labels` (B) of 0 and 1; sums are in f64 and in this order.
    ///
    /// # Errors
    /// If there is one class, or clicks do not grow with the logits, with what was found.
    pub fn platt(logits: &[f32], labels: &[u8]) -> Result<Curve, String> {
        let Classes { clicks, others } = Classes::of(logits, labels)?;
        let least = logits.iter().copied().fold(f32::INFINITY, f32::min);
        if logits.iter().all(|&logit| logit == least) {
            return Err(format!("all of {} impressions have one score", logits.len()));
        }
        let targets = [1.0 / (others + 2.0), (clicks + 1.0) / (clicks + 2.0)];
        let (mean, deviation) = moments(logits);
        let line = Line { mean, deviation, targets, logits, labels };
        let (steepness, middle) = line.fit((0.0, (clicks / others).ln()));
        let slope = steepness / deviation;
        if slope.is_nan() || slope <= 0.0 {
            return Err(format!(
                "clicks do not grow with the score: the slope is {slope:.3} over {} impressions",
                logits.len()
            ));
        }
        Ok(Curve::Platt { slope, intercept: middle - slope * mean })
    }

    /// The points of the isotonic regression: impressions in the order of their logits are pooled
    /// as long as a pool has no more clicks per impression than the one before it. A point is a
    /// pool's mean logit, and the logit of its clicks per impression.
    ///
    /// Half a click at the least logit and half another impression at the greatest one keep rates
    /// away from 0 and 1. Neighbors are united until a pool has [`POINT_IMPRESSIONS`], and one of
    /// [`POINTS`] parts of all impressions.
    ///
    /// `logits` (B), finite, and `labels` (B) of 0 and 1, in any order.
    ///
    /// # Errors
    /// If there is one class, or one pool, with what was found.
    pub fn isotonic(logits: &[f32], labels: &[u8]) -> Result<Curve, String> {
        let classes = Classes::of(logits, labels)?;
        let pools = united(pooled(equal_logits(logits, labels)), logits.len());
        let (mut logits, mut calibrated) = (Vec::new(), Vec::<f64>::new());
        for pool in &pools {
            let rate = (pool.clicks / (pool.impressions - pool.clicks)).ln();
            // Rates may differ by less than their logits can.
            if calibrated.last().is_none_or(|last| *last < rate) {
                logits.push(pool.logit());
                calibrated.push(rate);
            }
        }
        if logits.len() < 2 {
            return Err(format!(
                "clicks do not grow with the score: the isotonic regression of {} clicks among {} \
                 impressions has one level",
                classes.clicks,
                classes.clicks + classes.others
            ));
        }
        Ok(Curve::Isotonic { logits, calibrated })
    }

    /// What is wrong with a curve that was read, if anything is.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Curve::Platt { slope, intercept } => {
                if !(slope.is_finite() && *slope > 0.0 && intercept.is_finite()) {
                    return Err(format!(
                        "slope {slope} and intercept {intercept}, expected numbers and a slope \
                         above 0"
                    ));
                }
            }
            Curve::Isotonic { logits, calibrated } => {
                if logits.len() < 2 || logits.len() != calibrated.len() {
                    return Err(format!(
                        "{} logits and {} calibrated ones, expected equal numbers of 2 or more",
                        logits.len(),
                        calibrated.len()
                    ));
                }
                for (name, values) in [("logits", logits), ("calibrated", calibrated)] {
                    let ascends = values.windows(2).all(|pair| pair[0] < pair[1]);
                    if !ascends || values.iter().any(|value| !value.is_finite()) {
                        return Err(format!("{name}: expected ascending numbers"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The calibrated logit. Never less for a greater logit, also as rounded.
    pub fn at(&self, logit: f64) -> f64 {
        match self {
            Curve::Platt { slope, intercept } => slope * logit + intercept,
            Curve::Isotonic { logits, calibrated } => {
                let next = logits.partition_point(|&point| point <= logit);
                if next == 0 {
                    return calibrated[0] + (logit - logits[0]);
                }
                let (from, to) = (logits[next - 1], calibrated[next - 1]);
                if next == logits.len() {
                    return to + (logit - from);
                }
                let slope = (calibrated[next] - to) / (logits[next] - from);
                (to + (logit - from) * slope).min(calibrated[next])
            }
        }
    }
}

/// Numbers of clicks and of other impressions.
struct Classes {
    clicks: f64,
    others: f64,
}

impl Classes {
    /// Both classes, or what is there.
    fn of(logits: &[f32], labels: &[u8]) -> Result<Classes, String> {
        assert_eq!(logits.len(), labels.len(), "logits and labels");
        let clicks = labels.iter().filter(|&&label| label != 0).count();
        let others = labels.len() - clicks;
        if clicks == 0 || others == 0 {
            let all = labels.len();
            return Err(format!("{clicks} clicks of {all} impressions, expected both classes"));
        }
        Ok(Classes { clicks: clicks as f64, others: others as f64 })
    }
}

/// Mean and standard deviation.
fn moments(logits: &[f32]) -> (f64, f64) {
    let count = logits.len() as f64;
    let mean = logits.iter().map(|&logit| f64::from(logit)).sum::<f64>() / count;
    let squares = logits.iter().map(|&logit| (f64::from(logit) - mean).powi(2)).sum::<f64>();
    (mean, (squares / count).sqrt())
}

/// A line through standardized logits: steps in its two parameters hardly depend on one another,
/// nor on where the logits are.
struct Line<'a> {
    mean: f64,
    deviation: f64,
    /// What to predict, by label.
    targets: [f64; 2],
    logits: &'a [f32],
    labels: &'a [u8],
}

/// The line's rise by a standard deviation, and its value at the mean logit.
type Parameters = (f64, f64);

impl Line<'_> {
    /// The parameters of greatest likelihood, by Newton's steps from `at` that are halved until
    /// they gain.
    fn fit(&self, mut at: Parameters) -> Parameters {
        let mut loss = self.loss(at);
        for _ in 0..STEPS {
            let (step, decrement) = self.step(at);
            let by = |share: f64| (at.0 - share * step.0, at.1 - share * step.1);
            if decrement <= 1e-10 * self.logits.len() as f64 {
                return by(1.0);
            }
            let gains = |share: &f64| self.loss(by(*share)) <= loss - 1e-4 * share * decrement;
            let shares = (0..40).map(|halvings| 0.5f64.powi(halvings));
            let Some(share) = shares.into_iter().find(gains) else { return at };
            at = by(share);
            loss = self.loss(at);
        }
        at
    }

    fn rows(&self) -> impl Iterator<Item = (f64, f64)> {
        let target = |label: u8| self.targets[usize::from(label != 0)];
        let rows = self.logits.iter().zip(self.labels);
        rows.map(move |(&logit, &label)| {
            ((f64::from(logit) - self.mean) / self.deviation, target(label))
        })
    }

    fn loss(&self, (slope, middle): Parameters) -> f64 {
        self.rows().map(|(x, target)| cross_entropy_at(slope * x + middle, target)).sum()
    }

    /// The inverse of the second derivatives times the gradient, and the product of both.
    fn step(&self, (slope, middle): Parameters) -> (Parameters, f64) {
        // As much as keeps the inverse finite where all rates are 0 or 1.
        const RIDGE: f64 = 1e-12;
        let (mut g, mut h) = ([0.0; 2], [RIDGE, 0.0, RIDGE]);
        for (x, target) in self.rows() {
            let p = 1.0 / (1.0 + (-(slope * x + middle)).exp());
            let (d, dd) = (p - target, p * (1.0 - p));
            g = [g[0] + d * x, g[1] + d];
            h = [h[0] + dd * x * x, h[1] + dd * x, h[2] + dd];
        }
        let determinant = h[0] * h[2] - h[1] * h[1];
        let step =
            ((h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant);
        (step, step.0 * g[0] + step.1 * g[1])
    }
}

/// Impressions with neighboring logits; halves of them count as well.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pool {
    impressions: f64,
    clicks: f64,
    /// Sum of the logits.
    sum: f64,
    least: f64,
    greatest: f64,
}

impl Pool {
    fn with(self, other: Pool) -> Pool {
        Pool {
            impressions: self.impressions + other.impressions,
            clicks: self.clicks + other.clicks,
            sum: self.sum + other.sum,
            least: self.least,
            greatest: other.greatest,
        }
    }

    /// The mean logit, which rounding does not take out of the pool.
    fn logit(&self) -> f64 {
        (self.sum / self.impressions).clamp(self.least, self.greatest)
    }

    /// Whether its rate is less than that of `next`, exactly.
    fn is_below(&self, next: &Pool) -> bool {
        self.clicks * next.impressions < next.clicks * self.impressions
    }
}

/// A pool for each logit, ascending, with the halves at both ends.
fn equal_logits(logits: &[f32], labels: &[u8]) -> Vec<Pool> {
    let mut rows: Vec<(f32, u8)> = logits.iter().copied().zip(labels.iter().copied()).collect();
    rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let pool = |rows: &[(f32, u8)]| {
        let (logit, count) = (f64::from(rows[0].0), rows.len() as f64);
        let clicks = rows.iter().filter(|row| row.1 != 0).count() as f64;
        Pool { impressions: count, clicks, sum: count * logit, least: logit, greatest: logit }
    };
    let mut pools: Vec<Pool> = rows.chunk_by(|a, b| a.0 == b.0).map(pool).collect();
    let half = |pool: &mut Pool, clicks: f64| {
        pool.sum += 0.5 * pool.least;
        (pool.impressions, pool.clicks) = (pool.impressions + 0.5, pool.clicks + clicks);
    };
    if let Some(first) = pools.first_mut() {
        half(first, 0.5);
    }
    if let Some(last) = pools.last_mut() {
        half(last, 0.0);
    }
    pools
}

/// Pool adjacent violators: rates ascend afterwards.
fn pooled(pools: Vec<Pool>) -> Vec<Pool> {
    let mut ascending: Vec<Pool> = Vec::new();
    for mut pool in pools {
        while let Some(last) = ascending.pop() {
            if last.is_below(&pool) {
                ascending.push(last);
                break;
            }
            pool = last.with(pool);
        }
        ascending.push(pool);
    }
    ascending
}

/// Neighbors united until each has enough of `all` impressions.
fn united(pools: Vec<Pool>, all: usize) -> Vec<Pool> {
    let enough = (all as f64 / POINTS as f64).max(POINT_IMPRESSIONS as f64);
    let mut large: Vec<Pool> = Vec::new();
    let mut open: Option<Pool> = None;
    for pool in pools {
        let pool = open.take().map_or(pool, |open| open.with(pool));
        match pool.impressions >= enough {
            true => large.push(pool),
            false => open = Some(pool),
        }
    }
    if let Some(rest) = open {
        let last = large.pop();
        large.push(last.map_or(rest, |last| last.with(rest)));
    }
    large
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::mix;

    fn uniform(seed: u64, row: usize) -> f64 {
        (mix(seed << 32 | row as u64) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn sigmoid(logit: f64) -> f64 {
        1.0 / (1.0 + (-logit).exp())
    }

    /// Logits, and clicks whose logit is `truth` of them.
    fn drawn(seed: u64, count: usize, truth: impl Fn(f64) -> f64) -> (Vec<f32>, Vec<u8>) {
        let logits: Vec<f32> =
            (0..count).map(|row| (uniform(seed, 2 * row) * 6.0 - 4.0) as f32).collect();
        let labels = logits.iter().enumerate().map(|(row, &logit)| {
            u8::from(uniform(seed, 2 * row + 1) < sigmoid(truth(f64::from(logit))))
        });
        let labels = labels.collect();
        (logits, labels)
    }

    fn parameters(curve: Curve) -> (f64, f64) {
        match curve {
            Curve::Platt { slope, intercept } => (slope, intercept),
            Curve::Isotonic { .. } => panic!("no line"),
        }
    }

    /// Plain descent of the same loss, for a long time.
    fn descended(logits: &[f32], labels: &[u8]) -> (f64, f64) {
        let clicks = labels.iter().filter(|&&label| label == 1).count() as f64;
        let others = labels.len() as f64 - clicks;
        let (mut slope, mut intercept) = (0.0, 0.0);
        for _ in 0..40_000 {
            let (mut d_slope, mut d_intercept) = (0.0, 0.0);
            for (&logit, &label) in logits.iter().zip(labels) {
                let target = match label {
                    1 => (clicks + 1.0) / (clicks + 2.0),
                    _ => 1.0 / (others + 2.0),
                };
                let d = sigmoid(slope * f64::from(logit) + intercept) - target;
                (d_slope, d_intercept) = (d_slope + d * f64::from(logit), d_intercept + d);
            }
            let rate = 1.0 / labels.len() as f64;
            (slope, intercept) = (slope - rate * d_slope, intercept - rate * d_intercept);
        }
        (slope, intercept)
    }

    #[test]
    fn platt_is_where_descent_ends() {
        for (seed, count) in [(1, 40), (2, 70), (3, 100)] {
            let (logits, labels) = drawn(seed, count, |logit| 0.7 * logit + 0.5);
            let got = parameters(Curve::platt(&logits, &labels).unwrap());
            let expected = descended(&logits, &labels);
            assert!((got.0 - expected.0).abs() < 1e-7, "{got:?} {expected:?}");
            assert!((got.1 - expected.1).abs() < 1e-7, "{got:?} {expected:?}");
        }
        // Classes that a threshold tells apart, and logits far away from their clicks.
        let apart = parameters(Curve::platt(&[-1.0, -0.5, 0.5, 1.0], &[0, 0, 1, 1]).unwrap());
        let expected = descended(&[-1.0, -0.5, 0.5, 1.0], &[0, 0, 1, 1]);
        assert!((apart.0 - expected.0).abs() < 1e-6, "{apart:?} {expected:?}");
        let (logits, labels) = drawn(4, 400, |logit| logit);
        let far: Vec<f32> = logits.iter().map(|logit| 300.0 * logit + 5000.0).collect();
        let near = parameters(Curve::platt(&logits, &labels).unwrap());
        let far = parameters(Curve::platt(&far, &labels).unwrap());
        assert!((far.0 * 300.0 - near.0).abs() < 1e-4, "{near:?} {far:?}");
        assert!((far.1 + far.0 * 5000.0 - near.1).abs() < 1e-3, "{near:?} {far:?}");
    }

    #[test]
    fn platt_finds_the_line_that_clicks_were_drawn_from() {
        for (slope, intercept) in [(0.6, -1.0), (1.0, 0.0), (1.5, 0.8)] {
            let (logits, labels) = drawn(5, 60_000, |logit| slope * logit + intercept);
            let got = parameters(Curve::platt(&logits, &labels).unwrap());
            assert!((got.0 - slope).abs() < 0.04, "{got:?}");
            assert!((got.1 - intercept).abs() < 0.05, "{got:?}");
        }
    }

    /// The definition: the rate of i is the greatest over beginnings up to i of the least over ends
    /// from i of the mean rate between them.
    fn by_definition(rows: &[(f64, f64)]) -> Vec<f64> {
        let mean = |from: usize, to: usize| {
            let (clicks, all) =
                rows[from..=to].iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.1, sum.1 + row.0));
            clicks / all
        };
        let least = |from: usize, at: usize| {
            (at..rows.len()).map(|to| mean(from, to)).fold(f64::INFINITY, f64::min)
        };
        let rate = |at: usize| (0..=at).map(|from| least(from, at)).fold(0.0, f64::max);
        (0..rows.len()).map(rate).collect()
    }

    #[test]
    fn pools_are_the_isotonic_regression() {
        for seed in 0..40 {
            let count = 1 + (uniform(seed, 1_000_000) * 40.0) as usize;
            let (mut logits, labels) = drawn(seed, count, |logit| 0.5 * logit);
            // Ties, too.
            logits.iter_mut().for_each(|logit| *logit = (*logit * 4.0).round() / 4.0);
            let pools = equal_logits(&logits, &labels);
            assert!(pools.windows(2).all(|pair| pair[0].greatest < pair[1].least));
            let all: f64 = pools.iter().map(|pool| pool.impressions).sum();
            assert_eq!(all, count as f64 + 1.0);
            let rows: Vec<_> = pools.iter().map(|pool| (pool.impressions, pool.clicks)).collect();
            let expected = by_definition(&rows);
            let found = pooled(pools.clone());
            assert!(found.windows(2).all(|pair| pair[0].is_below(&pair[1])), "{found:?}");
            for (pool, expected) in pools.iter().zip(expected) {
                let within = |wide: &&Pool| wide.least <= pool.least && pool.least <= wide.greatest;
                let wide = found.iter().find(within).expect("a pool has it");
                assert!((wide.clicks / wide.impressions - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn an_isotonic_curve_is_near_the_truth() {
        let truth = |logit: f64| if logit < -1.0 { -2.5 } else { 0.8 * logit };
        let (logits, labels) = drawn(7, 60_000, truth);
        let curve = Curve::isotonic(&logits, &labels).unwrap();
        for logit in [-3.5, -3.0, -2.0, -0.5, 0.0, 0.7, 1.5] {
            let (got, expected) = (sigmoid(curve.at(logit)), sigmoid(truth(logit)));
            assert!((got - expected).abs() < 0.03, "{logit}: {got} {expected}");
        }
        let Curve::Isotonic { logits, .. } = &curve else { panic!("{curve:?}") };
        assert!((10..=POINTS).contains(&logits.len()), "{}", logits.len());
        // Rows that are all alike but for their order make one curve.
        let (mut logits, mut labels) = drawn(8, 300, |logit| logit);
        let expected = Curve::isotonic(&logits, &labels).unwrap();
        logits.reverse();
        labels.reverse();
        assert_eq!(Curve::isotonic(&logits, &labels).unwrap(), expected);
    }

    #[test]
    fn curves_are_bounded_in_points_and_finite() {
        let rows = 60 * POINTS;
        let logits: Vec<f32> = (0..rows).map(|row| row as f32 * 1e-4 - 3.0).collect();
        // Clicks per impression ascend all the way.
        let labels: Vec<u8> =
            (0..rows).map(|row| u8::from(uniform(9, row) < row as f64 / rows as f64)).collect();
        let pools = united(pooled(equal_logits(&logits, &labels)), rows);
        assert!(pools.len() <= POINTS, "{}", pools.len());
        assert!(pools.iter().all(|pool| pool.impressions >= 60.0));
        // Clicks above a threshold alone: rates of 0 and 1 but for the halves.
        let labels: Vec<u8> = (0..rows).map(|row| u8::from(row >= rows / 2)).collect();
        let curve = Curve::isotonic(&logits, &labels).unwrap();
        let Curve::Isotonic { calibrated, .. } = &curve else { panic!("{curve:?}") };
        let expected = (0.5 / (rows as f64 / 2.0)).ln();
        assert_eq!((calibrated.len(), calibrated[0]), (2, expected));
        assert!((calibrated[1] + expected).abs() < 1e-9);
    }

    /// Between neighbors in f32, at points, and far away.
    #[test]
    fn order_is_kept() {
        let (logits, labels) = drawn(10, 3000, |logit| 0.4 * logit - 1.0);
        let curves = [Curve::platt(&logits, &labels), Curve::isotonic(&logits, &labels)];
        for curve in curves.map(Result::unwrap) {
            assert_eq!(curve.check(), Ok(()));
            let mut at: Vec<f32> = logits.clone();
            if let Curve::Isotonic { logits, .. } = &curve {
                let near = |&point: &f64| {
                    let point = point as f32;
                    [point, point.next_up(), point.next_down()]
                };
                at.extend(logits.iter().flat_map(near));
            }
            at.extend([-100.0, -30.0, 30.0, 100.0, -5.0, 3.0]);
            at.sort_unstable_by(f32::total_cmp);
            at.dedup();
            for pair in at.windows(2) {
                let [a, b] = [pair[0], pair[1]].map(|logit| curve.at(f64::from(logit)));
                assert!(a < b, "{pair:?} {a} {b}");
            }
            let text = serde_json::to_string(&curve).unwrap();
            assert_eq!(serde_json::from_str::<Curve>(&text).unwrap(), curve);
        }
    }

    #[test]
    fn what_cannot_be_fitted_is_explained() {
        type Fit = fn(&[f32], &[u8]) -> Result<Curve, String>;
        let up: Vec<f32> = (0..200).map(|row| row as f32).collect();
        let down: Vec<u8> = (0..200).map(|row| u8::from(row < 100)).collect();
        let one_score = vec![0.5; 200];
        let cases: [(Fit, &[f32], &[u8], &str); 6] = [
            (Curve::platt, &[], &[], "0 clicks of 0 impressions, expected both classes"),
            (Curve::platt, &up, &[0; 200], "0 clicks of 200 impressions, expected both classes"),
            (Curve::isotonic, &up, &[1; 200], "200 clicks of 200 impressions, expected both"),
            (Curve::platt, &up, &down, "clicks do not grow with the score: the slope is -"),
            (Curve::platt, &one_score, &down, "all of 200 impressions have one score"),
            (Curve::isotonic, &up, &down, "clicks do not grow with the score: the isotonic"),
        ];
        for (fit, logits, labels, expected) in cases {
            let error = fit(logits, labels).expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
        let isotonic = |logits: &[f64], calibrated: &[f64]| Curve::Isotonic {
            logits: logits.to_vec(),
            calibrated: calibrated.to_vec(),
        };
        for (curve, expected) in [
            (Curve::Platt { slope: 0.0, intercept: 1.0 }, "slope 0 and intercept 1, expected"),
            (Curve::Platt { slope: 1.0, intercept: f64::NAN }, "slope 1 and intercept NaN"),
            (isotonic(&[0.0], &[0.0]), "1 logits and 1 calibrated ones, expected equal"),
            (isotonic(&[0.0, 1.0], &[0.0]), "2 logits and 1 calibrated ones, expected equal"),
            (isotonic(&[0.0, 0.0], &[0.0, 1.0]), "logits: expected ascending numbers"),
            (isotonic(&[0.0, 1.0], &[0.0, f64::INFINITY]), "calibrated: expected ascending"),
        ] {
            let error = curve.check().expect_err(expected);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
