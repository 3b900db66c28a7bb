//! How a bundle's rates follow from logits, where it was published calibrated; `calibration.json`.
//!
//! ```text
//! logit' = curve(logit) + ln(negative_rate) - ln(click_weight)
//! rate   = 1 / (1 + exp(-logit'))
//! ```
//! The curve is fitted to samples; the logarithms are exact for what the samples hold of the log.

use ams_model::calibration::Curve;
use ams_model::loss::sigmoid;
use serde::{Deserialize, Serialize};

/// What the samples of a model hold of the log.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Share of the log's impressions without a click that the samples hold; above 0, at most 1.
    pub negative_rate: f64,
    /// How often the samples hold a click of the log, or how often it counts in the loss; above 0.
    pub click_weight: f64,
}

impl Default for Sampling {
    /// All of it, once.
    fn default() -> Sampling {
        Sampling { negative_rate: 1.0, click_weight: 1.0 }
    }
}

impl Sampling {
    /// What is out of range, if anything is.
    ///
    /// # Errors
    /// With the value and the range.
    pub fn check(&self) -> Result<(), String> {
        let Sampling { negative_rate, click_weight } = *self;
        if !(negative_rate > 0.0 && negative_rate <= 1.0) {
            return Err(format!("negative_rate = {negative_rate}, expected above 0 and at most 1"));
        }
        if !(click_weight > 0.0 && click_weight.is_finite()) {
            return Err(format!("click_weight = {click_weight}, expected a number above 0"));
        }
        Ok(())
    }

    /// What is added to a logit. The odds of a click are as many times less in the log as the
    /// samples lack of the others and have too much of the clicks.
    pub fn shift(&self) -> f64 {
        self.negative_rate.ln() - self.click_weight.ln()
    }

    /// How often an impression of the samples counts, by its label, for the log.
    pub fn weights(&self) -> [f64; 2] {
        [1.0 / self.negative_rate, 1.0 / self.click_weight]
    }
}

/// From a model's logit to its calibrated one. Greater stays greater.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Fitted to samples, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub curve: Option<Curve>,
    /// What these samples hold of the log; not written if that is all of it.
    #[serde(default, skip_serializing_if = "is_all")]
    pub sampling: Sampling,
}

fn is_all(sampling: &Sampling) -> bool {
    *sampling == Sampling::default()
}

impl Calibration {
    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// With the part of it, what it is and what was expected.
    pub fn check(&self) -> Result<(), String> {
        self.sampling.check()?;
        self.curve.as_ref().map_or(Ok(()), Curve::check)
    }

    /// Overwrites logits (B) with calibrated ones.
    pub fn apply(&self, logits: &mut [f32]) {
        let shift = self.sampling.shift();
        for logit in logits {
            let exact = f64::from(*logit);
            let curved = self.curve.as_ref().map_or(exact, |curve| curve.at(exact));
            *logit = (curved + shift) as f32;
        }
    }
}

/// Overwrites logits (B) with the rates that they mean, calibrated if there is a calibration.
pub(crate) fn rates(calibration: Option<&Calibration>, logits: &mut [f32]) {
    if let Some(calibration) = calibration {
        calibration.apply(logits);
    }
    logits.iter_mut().for_each(|logit| *logit = sigmoid(*logit));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS};
    use crate::{Changes, Model, PageView, Scratch};
    use ams_data::Id;
    use ams_model::ImageArm;
    use std::fs;

    fn isotonic() -> Calibration {
        let curve = Curve::Isotonic {
            logits: vec![-0.2, -0.05, 0.03, 0.1],
            calibrated: vec![-3.0, -2.5, -0.1, 0.0],
        };
        let sampling = Sampling { negative_rate: 0.1, click_weight: 2.0 };
        Calibration { curve: Some(curve), sampling }
    }

    /// Of a log with negatives kept at a rate, and clicks repeated, the odds are exact.
    #[test]
    fn sampling_is_undone_exactly() {
        let sampling = Sampling { negative_rate: 0.05, click_weight: 3.0 };
        for rate in [0.001, 0.02, 0.3, 0.9] {
            // Samples of 1 impression of the log.
            let (clicks, others): (f64, f64) = (rate * 3.0, (1.0 - rate) * 0.05);
            let logit = (clicks / others).ln();
            let mut got = [logit as f32];
            rates(Some(&Calibration { curve: None, sampling }), &mut got);
            assert!((f64::from(got[0]) - rate).abs() < 1e-6 * rate.max(0.1), "{rate}: {got:?}");
        }
    }

    #[test]
    fn every_answer_has_the_calibrated_rate() {
        let mut fixture = Fixture::new(ImageArm::Joint);
        let plain = fixture.write(1).unwrap();
        fixture.calibration = Some(isotonic());
        let calibrated = fixture.write(2).unwrap();
        assert_ne!(plain.hash(), calibrated.hash());
        fixture.calibration = None;
        assert_eq!(fixture.write(3).unwrap().hash(), plain.hash());
        let manifest = fs::read_to_string(fixture.place(3).join("MANIFEST.json")).unwrap();
        assert!(!manifest.contains("calibrat"), "{manifest}");

        let model = Model::open(&fixture.place(2)).unwrap();
        let raw = Model::open(&fixture.place(1)).unwrap();
        assert_eq!((model.calibration(), model.meta().calibrated), (Some(&isotonic()), true));
        let json = br#"{"user": {"id": "u1", "features": {"age": 25, "tags": ["a", "b"]},
            "behaviors": {"item": ["1", "5", "1"]}}, "context": {"hour": 12},
            "candidates": {"item": ["3", "4"], "bid": [1, 4]}}"#;
        let page = PageView::parse(json).unwrap();
        let mut expected = fixture.slow_logits(&fixture.groups(&ROWS[..1]));
        isotonic().apply(&mut expected);
        expected.iter_mut().for_each(|logit| *logit = sigmoid(*logit));
        let (mut scratch, mut ctr) = (Scratch::default(), Vec::new());
        model.ctrs(&page, &mut scratch, &mut ctr).unwrap();
        assert_eq!(ctr, expected);
        ctr.clear();
        model.push_ctrs_of_visits([[&page]], &mut scratch, &mut ctr).unwrap();
        assert_eq!(ctr, expected);
        raw.ctrs(&page, &mut scratch, &mut ctr).unwrap();
        assert_ne!(ctr, expected);

        let ranked = model.score(&page).unwrap();
        for (item, bid, expected) in [("3", 1.0, expected[0]), ("4", 4.0, expected[1])] {
            let at = ranked.items.iter().position(|known| *known == item).unwrap();
            assert_eq!(ranked.ctr[at], expected);
            assert_eq!(ranked.ecpm[at], bid * f64::from(expected));
        }
        let explained = model.explain(&page, &mut scratch).unwrap();
        for (at, candidate) in explained.candidates.iter().enumerate() {
            assert_eq!((&candidate.item[..], candidate.ctr), (ranked.items[at], ranked.ctr[at]));
        }
        // Later states keep it.
        let rows = [(Id::of("user", "u9").0, Some(vec![0.5, -0.25, 1.0]))].into();
        let changed = model.change(&Changes { rows, ..Changes::default() }).unwrap();
        assert_eq!((changed.deltas(), changed.score(&page).unwrap()), (1, ranked));
    }

    #[test]
    fn the_file_is_as_documented_and_checked() {
        let text = serde_json::to_string(&isotonic()).unwrap();
        let expected = r#"{"curve":{"isotonic":{"logits":[-0.2,-0.05,0.03,0.1],"calibrated":[-3.0,-2.5,-0.1,0.0]}},"sampling":{"negative_rate":0.1,"click_weight":2.0}}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Calibration>(&text).unwrap(), isotonic());
        for (text, expected) in [
            (
                r#"{"sampling":{"negative_rate":0,"click_weight":1}}"#,
                "negative_rate = 0, expected above 0 and",
            ),
            (
                r#"{"sampling":{"negative_rate":1,"click_weight":-1}}"#,
                "click_weight = -1, expected a number",
            ),
            (
                r#"{"curve":{"platt":{"slope":-1,"intercept":0}}}"#,
                "slope -1 and intercept 0, expected",
            ),
        ] {
            let mut fixture = Fixture::new(ImageArm::None);
            fixture.calibration = Some(serde_json::from_str(text).unwrap());
            fixture.write(1).unwrap();
            let error = Model::open(&fixture.place(1)).expect_err(expected).to_string();
            assert!(error.contains(&format!("calibration.json: {expected}")), "{error}");
        }
    }
}
