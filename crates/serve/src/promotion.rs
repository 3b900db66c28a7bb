//! Whether a canary goes on: a function of what was counted, and of nothing else. No clock is read,
//! and sums are of whole numbers, so neither time nor the order in which outcomes came decides.
//!
//! ```text
//! calibration = predicted clicks / clicks, in the interval calibration * exp(+-z / sqrt(clicks))
//! more errors = share of the canary's requests that failed - that of the version that serves,
//!               in the interval +-z * standard error of the difference
//! ```
//! Impressions and requests count as independent. Both are looked at again and again, so z is 4
//! until a step has all of its impressions, and 1.96 then.

use serde::{Deserialize, Serialize};

/// Units of predicted clicks: billionths of a click.
const CLICK: u64 = 1_000_000_000;

/// Standard errors on each side while a step has not all of its impressions.
const EARLY: f64 = 4.0;

/// The same at its end.
const AT_END: f64 = 1.96;

/// Clicks that impressions without any may have by chance, in 97.5 of 100 cases at most.
const BY_CHANCE: f64 = 3.689;

/// How a canary gets more users, and when it is taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// Percentages of the users, ascending; the version is live after the last.
    pub steps: Vec<u8>,
    /// Impressions of the canary with an outcome that a step needs.
    pub impressions: u64,
    /// Factor by which predicted clicks may be more or fewer than clicks, unless those of the
    /// version that serves are further off.
    pub calibration: f64,
    /// By how much the share of the requests that fail may be higher than that of the version that
    /// serves.
    pub errors: f64,
}

impl Default for Promotion {
    fn default() -> Promotion {
        Promotion { steps: vec![1, 5, 25, 50], impressions: 1_000, calibration: 1.25, errors: 0.01 }
    }
}

impl Promotion {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The key, what came and what is possible.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Promotion { steps, impressions, calibration, errors } = self;
        let ascends = steps.windows(2).all(|two| two[0] < two[1]);
        if steps.is_empty() || !ascends || steps.iter().any(|step| !(1..=100).contains(step)) {
            return Err(format!("steps are {steps:?}, expected ascending percentages of 1 to 100"));
        }
        if *impressions == 0 {
            return Err("impressions is 0, expected at least 1".to_owned());
        }
        if !(*calibration > 1.0 && calibration.is_finite()) {
            return Err(format!("calibration is {calibration}, expected a factor of more than 1"));
        }
        if !(0.0..=1.0).contains(errors) {
            return Err(format!("errors is {errors}, expected 0 to 1"));
        }
        Ok(())
    }

    /// The share after `percent`; none after the last.
    pub(crate) fn after(&self, percent: u8) -> Option<u8> {
        self.steps.iter().copied().find(|step| *step > percent)
    }
}

/// What was counted of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    /// Requests that it was to answer.
    pub(crate) requests: u64,
    /// Those that failed, and not by the client's fault.
    pub(crate) failures: u64,
    /// Impressions whose outcome is known.
    pub(crate) impressions: u64,
    /// Clicks among them.
    pub(crate) clicks: u64,
    /// Clicks that it predicted for them, in billionths.
    pub(crate) predicted: u64,
}

/// A predicted rate, in billionths of a click.
pub(crate) fn billionths(rate: f64) -> u64 {
    (rate * CLICK as f64).round() as u64
}

impl Counted {
    /// What came after `before`; all of it, if counting began anew since.
    #[must_use]
    pub(crate) fn since(self, before: Counted) -> Counted {
        let is_later = self.requests >= before.requests
            && self.failures >= before.failures
            && self.impressions >= before.impressions
            && self.clicks >= before.clicks
            && self.predicted >= before.predicted;
        if !is_later {
            return self;
        }
        Counted {
            requests: self.requests - before.requests,
            failures: self.failures - before.failures,
            impressions: self.impressions - before.impressions,
            clicks: self.clicks - before.clicks,
            predicted: self.predicted - before.predicted,
        }
    }

    /// Predicted clicks.
    pub(crate) fn predicted_clicks(&self) -> f64 {
        self.predicted as f64 / CLICK as f64
    }

    /// Predicted clicks over clicks; none without a click.
    pub(crate) fn calibration(&self) -> Option<f64> {
        (self.clicks > 0).then(|| self.predicted_clicks() / self.clicks as f64)
    }

    /// Its interval of `z` standard errors to both sides; without a click, from what chance allows.
    /// None without impressions.
    fn interval(&self, z: f64) -> Option<[f64; 2]> {
        if self.impressions == 0 {
            return None;
        }
        Some(match self.calibration() {
            Some(ratio) => {
                let side = (z / (self.clicks as f64).sqrt()).exp();
                [ratio / side, ratio * side]
            }
            // As many more where somebody looks more often.
            None => [self.predicted_clicks() / (BY_CHANCE * z / AT_END), f64::INFINITY],
        })
    }

    /// The interval of 95 %.
    pub(crate) fn calibration_interval(&self) -> Option<[f64; 2]> {
        self.interval(AT_END)
    }

    /// The share of the requests that failed.
    fn failing(&self) -> f64 {
        self.failures as f64 / self.requests.max(1) as f64
    }

    /// The variance of that share, by Agresti and Coull: two more of each kind, so that it is not 0
    /// where nothing failed.
    fn failing_variance(&self) -> f64 {
        let requests = self.requests as f64 + 4.0;
        let share = (self.failures as f64 + 2.0) / requests;
        share * (1.0 - share) / requests
    }
}

/// The step of a promotion, and what had been counted of both versions when it began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    /// The canary.
    pub(crate) canary: u64,
    /// Its share of the users.
    pub(crate) percent: u8,
    /// The version that serves.
    pub(crate) serving: u64,
    /// What had been counted of the canary, and of the version that serves.
    pub(crate) before: [Counted; 2],
}

/// A promotion, as it is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PromotionStatus {
    /// The version.
    pub(crate) version: u64,
    /// Percentage of the users that have it.
    pub(crate) percent: u8,
    /// By what rules it gets more.
    pub(crate) rules: Promotion,
    /// What was counted of it in this step.
    pub(crate) canary: Counted,
    /// The same of the version that serves.
    pub(crate) serving: Counted,
    /// Predicted clicks over clicks of the canary; none without a click.
    pub(crate) calibration: Option<f64>,
    /// The interval of 95 % of that; without a click only its lower end.
    pub(crate) interval: Option<[Option<f64>; 2]>,
    /// That of the version that serves.
    pub(crate) serving_calibration: Option<f64>,
}

/// What becomes of a canary.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Too little was counted.
    Wait,
    /// It holds: the next step.
    Raise,
    /// It does not, and why.
    TakeBack(String),
}

/// What becomes of a canary of which `canary` was counted in its present step, and `serving` of the
/// version that serves meanwhile.
pub(crate) fn verdict(rules: &Promotion, canary: &Counted, serving: &Counted) -> Verdict {
    let is_whole = canary.impressions >= rules.impressions;
    let z = if is_whole { AT_END } else { EARLY };
    let faults = [miscalibrated(rules, canary, serving, z), failing(rules, canary, serving, z)];
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    if !faults.is_empty() {
        return Verdict::TakeBack(faults.join("; "));
    }
    if is_whole { Verdict::Raise } else { Verdict::Wait }
}

fn miscalibrated(rules: &Promotion, canary: &Counted, serving: &Counted, z: f64) -> Option<String> {
    let [low, high] = canary.interval(z)?;
    let factor = rules.calibration;
    if low <= factor && high >= 1.0 / factor {
        return None;
    }
    // Both may be off by what the day is like.
    let off = |ratio: f64| ratio.ln().abs();
    let theirs = serving.calibration();
    if let (Some(ours), Some(theirs)) = (canary.calibration(), theirs)
        && off(ours) <= off(theirs)
    {
        return None;
    }
    let theirs = theirs.map_or("none known".to_owned(), |theirs| format!("{theirs:.3} times"));
    let times = if high.is_finite() {
        format!("{low:.3} to {high:.3}")
    } else {
        format!("at least {low:.3}")
    };
    Some(format!(
        "it predicted {:.1} clicks and got {} of {} impressions, {times} times as many; a factor of \
         {factor} is allowed, and that of the version that serves is {theirs}",
        canary.predicted_clicks(),
        canary.clicks,
        canary.impressions
    ))
}

fn failing(rules: &Promotion, canary: &Counted, serving: &Counted, z: f64) -> Option<String> {
    if canary.requests == 0 || serving.requests == 0 {
        return None;
    }
    let error = (canary.failing_variance() + serving.failing_variance()).sqrt();
    let more = canary.failing() - serving.failing();
    (more - z * error > rules.errors).then(|| {
        format!(
            "{} of its {} requests failed, of the version that serves {} of {}; {} more of all is allowed",
            canary.failures, canary.requests, serving.failures, serving.requests, rules.errors
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Impressions of a rate of .1, of which a tenth times `off` was predicted.
    fn counted(impressions: u64, off: f64) -> Counted {
        let predicted = billionths(0.1 * off) * impressions;
        let clicks = impressions / 10;
        Counted { requests: impressions, failures: 0, impressions, clicks, predicted }
    }

    fn failed(requests: u64, failures: u64) -> Counted {
        Counted { requests, failures, ..Counted::default() }
    }

    #[test]
    fn a_verdict_is_of_counts_alone() {
        use Verdict::{Raise, Wait};
        let rules = Promotion::default();
        let good = counted(5_000, 1.05);
        for (canary, serving, expected) in [
            (counted(999, 1.0), good, Wait),
            (counted(1_000, 1.0), good, Raise),
            (counted(1_000, 1.0), Counted::default(), Raise),
            // Far off, but of few clicks.
            (counted(20, 2.0), good, Wait),
            // 1.4 times, of 100 clicks: [1.15, 1.70].
            (counted(1_000, 1.4), good, Raise),
            // The version that serves is further off: it is the day.
            (counted(1_000, 2.0), counted(5_000, 2.1), Raise),
            (counted(1_000, 0.5), counted(5_000, 0.45), Raise),
            (Counted::default(), good, Wait),
            (failed(1_000, 15), failed(50_000, 10), Wait),
            (failed(10, 1), failed(50_000, 10), Wait),
            (failed(1_000, 500), failed(50_000, 25_000), Wait),
        ] {
            assert_eq!(verdict(&rules, &canary, &serving), expected, "{canary:?} {serving:?}");
        }
    }

    #[test]
    fn what_does_not_hold_is_taken_back_and_named() {
        let rules = Promotion::default();
        let good = counted(5_000, 1.05);
        let none = Counted { clicks: 0, ..counted(1_000, 1.0) };
        for (canary, serving, words) in [
            (counted(1_000, 1.6), good, "it predicted 160.0 clicks and got 100 of 1000"),
            (counted(1_000, 0.6), good, "is 1.050 times"),
            (counted(1_000, 1.6), Counted::default(), "serves is none known"),
            // Before its end, if it is as bad as that.
            (counted(500, 2.8), good, "it predicted 140.0 clicks and got 50 of 500"),
            (none, good, "and got 0 of 1000 impressions, at least 27.108 times"),
            (failed(1_000, 60), failed(50_000, 10), "60 of its 1000 requests failed, of the"),
            (failed(30, 30), failed(50_000, 10), "30 of its 30 requests failed"),
        ] {
            let Verdict::TakeBack(why) = verdict(&rules, &canary, &serving) else {
                panic!("{canary:?} {serving:?}")
            };
            assert!(why.contains(words), "{words}: {why}");
        }
    }

    /// Of canaries as good as the version that serves, few are taken back, though they are looked
    /// at after every impression.
    #[test]
    fn good_canaries_are_seldom_taken_back() {
        let rules = Promotion::default();
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        let mut taken_back = 0;
        for _ in 0..400 {
            let mut canary = Counted::default();
            let end = loop {
                canary.impressions += 1;
                canary.predicted += billionths(0.1);
                canary.clicks += u64::from(uniform() < 0.1);
                match verdict(&rules, &canary, &counted(5_000, 1.0)) {
                    Verdict::Wait => {}
                    end => break end,
                }
            };
            taken_back += u32::from(end != Verdict::Raise);
        }
        assert!(taken_back <= 8, "{taken_back} of 400");
    }

    #[test]
    fn counts_begin_anew_where_they_are_lower() {
        let (before, now) = (counted(100, 1.0), counted(300, 1.0));
        assert_eq!(now.since(before), counted(200, 1.0));
        assert_eq!(before.since(now), before);
        assert_eq!(now.since(Counted::default()), now);
    }

    #[test]
    fn rules_are_checked() {
        let usual = Promotion::default;
        let bad = [
            (Promotion { steps: vec![], ..usual() }, "steps are []"),
            (Promotion { steps: vec![5, 5], ..usual() }, "steps are [5, 5]"),
            (Promotion { steps: vec![0, 5], ..usual() }, "steps are [0, 5]"),
            (Promotion { steps: vec![5, 101], ..usual() }, "steps are [5, 101]"),
            (Promotion { impressions: 0, ..usual() }, "impressions is 0"),
            (Promotion { calibration: 1.0, ..usual() }, "calibration is 1"),
            (Promotion { errors: -0.1, ..usual() }, "errors is -0.1"),
        ];
        for (rules, expected) in bad {
            let error = rules.check().unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        usual().check().unwrap();
        assert_eq!((usual().after(5), usual().after(50)), (Some(25), None));
    }
}
