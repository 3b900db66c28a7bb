//! Canaries that get more users step by step while they hold against the version that serves, and
//! are taken back where they do not. [`crate::promotion`] decides by what was counted; here it is
//! counted from when, and done.
//!
//! A server judges by what it counted itself; the first one whose counts suffice decides for all
//! servers of the folder, and each begins to count anew with the step.

use std::sync::PoisonError;

use super::decisions::{Author, CanaryShare};
use super::orders::require_canary;
use super::{Canary, Models, Refusal};
use crate::promotion::{Counted, Promotion, PromotionStatus, Step, Verdict, verdict};

impl Models {
    /// Gives a version the first share of users of `rules`, and more by itself while it holds.
    ///
    /// # Errors
    /// If the rules are wrong, or as of [`Models::canary`].
    pub(crate) fn promote(
        &self,
        name: &str,
        version: u64,
        rules: Promotion,
        by: &str,
    ) -> Result<(), Refusal> {
        rules.check().map_err(Refusal::State)?;
        self.share(name, version, rules.steps[0], Some(rules), by)?;
        self.judge(name);
        Ok(())
    }

    /// The promotion of a model as it stands, if there is one.
    pub(crate) fn promotion(&self, name: &str) -> Option<PromotionStatus> {
        let (share, rules, counted) = self.counted(name)?;
        let [canary, serving] = counted;
        let finite = |end: f64| end.is_finite().then_some(end);
        Some(PromotionStatus {
            version: share.version,
            percent: share.percent,
            rules,
            calibration: canary.calibration(),
            interval: canary.calibration_interval().map(|ends| ends.map(finite)),
            serving_calibration: serving.calibration(),
            canary,
            serving,
        })
    }

    /// What was counted in the present step of a promotion; a step that is new begins.
    fn counted(&self, name: &str) -> Option<(CanaryShare, Promotion, [Counted; 2])> {
        let now = self.now();
        let known = now.models.get(name)?;
        let (canary, live) = (known.canary.as_ref()?, known.live.as_ref()?);
        let share = known.decided.canary.clone()?;
        let rules = share.promotion.clone()?;
        let [version, serving] = [&canary.loaded, live].map(|of| of.model.version());
        if (share.version, share.percent) != (version, canary.percent) {
            // It is about to change.
            return None;
        }
        let counts = [&canary.loaded, live].map(|of| of.metrics.counts.counted());
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Step { canary: version, percent: share.percent, serving, before: counts };
        let step = steps.entry(name.to_owned()).or_insert(new);
        if (Step { before: counts, ..*step }) != new {
            *step = new;
        }
        let since = [0usize, 1].map(|of| counts[of].since(step.before[of]));
        Some((share, rules, since))
    }

    /// Judges the promotion of a model, if there is one, and does what follows.
    pub(crate) fn judge(&self, name: &str) {
        let Some((share, rules, [canary, serving])) = self.counted(name) else { return };
        let done = match verdict(&rules, &canary, &serving) {
            Verdict::Wait => return,
            Verdict::Raise => self.raise(name, &share, &rules, &canary),
            Verdict::TakeBack(why) => self.take_back(name, &share, &why),
        };
        if let Err(error) = done {
            tracing::warn!(model = name, version = share.version, %error, "the canary stays as it is");
        }
    }

    /// The next step, or after the last the version is live.
    fn raise(
        &self,
        name: &str,
        share: &CanaryShare,
        rules: &Promotion,
        counted: &Counted,
    ) -> Result<(), Refusal> {
        let version = share.version;
        let by = format!(
            "the promotion of its canary: {:.1} clicks predicted, {} of {} impressions at {} %",
            counted.predicted_clicks(),
            counted.clicks,
            counted.impressions,
            share.percent
        );
        match rules.after(share.percent) {
            None => self.make_live(name, version, &by, Some(share))?,
            Some(percent) => {
                let next = CanaryShare { percent, author: Author::of(&by), ..share.clone() };
                let decided = self.decide(name, |decided| {
                    require_canary(decided, Some(share))?;
                    decided.canary = Some(next);
                    Ok(decided.clone())
                })?;
                let loaded = self.load(name, version)?;
                self.note(name, |versions| {
                    versions.decided = decided;
                    versions.canary = Some(Canary { loaded, percent });
                });
                // Its step begins now.
                self.counted(name);
                tracing::info!(model = name, version, percent, by, "the canary is raised");
            }
        }
        self.telemetry.canary_raised(name);
        Ok(())
    }

    /// Nobody has the canary any more, and it does not become live by itself.
    fn take_back(&self, name: &str, share: &CanaryShare, why: &str) -> Result<(), Refusal> {
        let version = share.version;
        let by = format!("the promotion of its canary: {why}");
        let decided = self.decide(name, |decided| {
            require_canary(decided, Some(share))?;
            decided.canary = None;
            decided.withdrawn.insert(version, Author::of(&by));
            Ok(decided.clone())
        })?;
        self.note(name, |versions| {
            versions.decided = decided;
            versions.canary = None;
        });
        tracing::error!(model = name, version, why, "the canary is taken back");
        self.telemetry.canary_taken_back(name);
        Ok(())
    }
}
