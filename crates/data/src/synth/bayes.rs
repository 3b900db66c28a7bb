//! The best possible AUC and GAUC: the true probabilities ranked against the labels that were
//! drawn.
//!
//! Knows probabilities and labels. Does not know how they came about. Exact, ties count half; kept
//! here in small because this room may not know the trainer's metrics.

use serde::{Deserialize, Serialize};

/// What a perfect model would reach on the test day. `None` where there are no two classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bayes {
    /// AUC over all impressions; none if all labels are equal.
    pub auc: Option<f64>,
    /// Mean over users of the AUC within the user, weighted by impressions; users with one class
    /// left out.
    pub gauc: Option<f64>,
    /// `auc` of the impressions of cold items (never shown before the test day).
    pub cold_auc: Option<f64>,
    /// `gauc` of the impressions of cold items.
    pub cold_gauc: Option<f64>,
}

/// One impression of the test day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) user: u32,
    pub(super) cold: bool,
    pub(super) clicked: bool,
    pub(super) probability: f64,
}

impl Bayes {
    /// Of all test impressions, in any order.
    pub(super) fn of(outcomes: &mut [Outcome]) -> Bayes {
        outcomes.sort_by(|a, b| a.probability.total_cmp(&b.probability));
        let mut bayes = Bayes { auc: sorted_auc(outcomes.iter()), ..Bayes::default() };
        bayes.cold_auc = sorted_auc(outcomes.iter().filter(|outcome| outcome.cold));
        // Stable: within a user the order by probability stays.
        outcomes.sort_by_key(|outcome| outcome.user);
        bayes.gauc = gauc(outcomes, |_| true);
        bayes.cold_gauc = gauc(outcomes, |outcome| outcome.cold);
        bayes
    }
}

/// AUC of outcomes in ascending order of probability; `None` for a single class.
fn sorted_auc<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Option<f64> {
    // Pairs (clicked, not clicked) counted twice: 2 where the clicked one ranks higher, 1 for a
    // tie.
    let (mut clicks, mut others, mut doubled_wins) = (0_u128, 0_u128, 0_u128);
    let (mut tied_clicks, mut tied_others, mut tied_at) = (0_u128, 0_u128, f64::NEG_INFINITY);
    for outcome in outcomes {
        if outcome.probability != tied_at {
            (clicks, others) = (clicks + tied_clicks, others + tied_others);
            (tied_clicks, tied_others, tied_at) = (0, 0, outcome.probability);
        }
        if outcome.clicked {
            tied_clicks += 1;
            doubled_wins += 2 * others + tied_others;
        } else {
            tied_others += 1;
            doubled_wins += tied_clicks;
        }
    }
    let pairs = (clicks + tied_clicks) * (others + tied_others);
    (pairs > 0).then(|| doubled_wins as f64 / (2 * pairs) as f64)
}

/// GAUC over the outcomes that `keep` keeps, sorted by user, then probability.
fn gauc(outcomes: &[Outcome], keep: impl Fn(&Outcome) -> bool) -> Option<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for user in outcomes.chunk_by(|a, b| a.user == b.user) {
        if let Some(auc) = sorted_auc(user.iter().filter(|outcome| keep(outcome))) {
            let impressions = user.iter().filter(|outcome| keep(outcome)).count() as f64;
            sum += impressions * auc;
            weight += impressions;
        }
    }
    (weight > 0.0).then(|| sum / weight)
}

#[cfg(test)]
mod tests {
    use super::super::dice::{Dice, Entity};
    use super::*;

    /// By definition: the share of (clicked, not clicked) pairs in the right order.
    fn slow_auc(outcomes: &[Outcome]) -> Option<f64> {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for clicked in outcomes.iter().filter(|o| o.clicked) {
            for other in outcomes.iter().filter(|o| !o.clicked) {
                pairs += 1.0;
                if clicked.probability > other.probability {
                    wins += 1.0;
                } else if clicked.probability == other.probability {
                    wins += 0.5;
                }
            }
        }
        (pairs > 0.0).then(|| wins / pairs)
    }

    fn slow_gauc(outcomes: &[Outcome], users: u32) -> Option<f64> {
        let (mut sum, mut weight) = (0.0, 0.0);
        for user in 0..users {
            let own: Vec<Outcome> = outcomes.iter().copied().filter(|o| o.user == user).collect();
            if let Some(auc) = slow_auc(&own) {
                sum += own.len() as f64 * auc;
                weight += own.len() as f64;
            }
        }
        (weight > 0.0).then(|| sum / weight)
    }

    fn drawn(seed: u64, count: usize) -> Vec<Outcome> {
        let mut dice = Dice::new(seed, Entity::Page, 0, 0);
        (0..count)
            .map(|_| Outcome {
                user: dice.below(9) as u32,
                cold: dice.happens(0.3),
                clicked: dice.happens(0.3),
                // Few different values: many ties.
                probability: dice.below(12) as f64 / 12.0,
            })
            .collect()
    }

    fn near(got: Option<f64>, want: Option<f64>) -> bool {
        match (got, want) {
            (Some(got), Some(want)) => (got - want).abs() < 1e-12,
            (got, want) => got == want,
        }
    }

    #[test]
    fn equals_the_definition() {
        for seed in 0..30 {
            let outcomes = drawn(seed, 1 + 9 * seed as usize);
            let cold: Vec<Outcome> = outcomes.iter().copied().filter(|o| o.cold).collect();
            let bayes = Bayes::of(&mut outcomes.clone());
            assert!(near(bayes.auc, slow_auc(&outcomes)), "seed {seed}");
            assert!(near(bayes.gauc, slow_gauc(&outcomes, 9)), "seed {seed}");
            assert!(near(bayes.cold_auc, slow_auc(&cold)), "seed {seed}");
            assert!(near(bayes.cold_gauc, slow_gauc(&cold, 9)), "seed {seed}");
        }
    }

    #[test]
    fn one_class_has_no_auc() {
        let mut outcomes = drawn(3, 40);
        outcomes.iter_mut().for_each(|outcome| outcome.clicked = false);
        assert_eq!(Bayes::of(&mut outcomes), Bayes::default());
    }
}
