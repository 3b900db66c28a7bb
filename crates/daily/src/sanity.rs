//! Whether a day is like the days before it: limits by which a broken log is told from news.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;

/// How far a day may be from the days before it. Every limit is about the difference from the
/// median of up to seven earlier days.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sanity {
    /// Factor by which the click rate may be higher or lower. Range: more than 1.
    pub click_rate: f64,
    /// Factor by which a user may have more or fewer impressions. Range: more than 1.
    pub per_user: f64,
    /// Factor by which there may be more or fewer impressions. Range: more than 1.
    pub impressions: f64,
    /// Factor by which an impression may have more rows in the log. Range: more than 1.
    pub rows_per_impression: f64,
    /// Difference by which the share of impressions of new items may be higher. Range: 0 to 1.
    pub new_items: f64,
    /// Difference by which the share of impressions with a picture may be lower. Range: 0 to 1.
    pub pictures: f64,
    /// Share of the pictures that may be other pictures than the day before. Range: 0 to 1.
    pub pictures_changed: f64,
    /// Difference by which the share of impressions without a value of a field may be higher.
    /// Range: 0 to 1.
    pub missing: f64,
    /// Difference by which the AUC of the model that serves may be lower than on its days before.
    /// Range: 0 to 1.
    pub auc: f64,
    /// Number of earlier days from which on a day is judged. Range: at least 1.
    pub days: usize,
}

impl Default for Sanity {
    fn default() -> Sanity {
        Sanity {
            click_rate: 1.5,
            per_user: 2.0,
            impressions: 5.0,
            rows_per_impression: 1.5,
            new_items: 0.3,
            pictures: 0.1,
            pictures_changed: 0.2,
            missing: 0.2,
            auc: 0.05,
            days: 3,
        }
    }
}

impl Sanity {
    /// Days whose median a day is held against, at most.
    pub const MOST: usize = 7;

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// The key, what came and what is possible.
    pub fn check(&self) -> Result<(), String> {
        let factors = [
            ("click_rate", self.click_rate),
            ("per_user", self.per_user),
            ("impressions", self.impressions),
            ("rows_per_impression", self.rows_per_impression),
        ];
        if let Some((key, value)) =
            factors.into_iter().find(|(_, it)| !(*it > 1.0 && it.is_finite()))
        {
            return Err(format!("sanity.{key} is {value}, expected a factor of more than 1"));
        }
        let shares = [
            ("new_items", self.new_items),
            ("pictures", self.pictures),
            ("pictures_changed", self.pictures_changed),
            ("missing", self.missing),
            ("auc", self.auc),
        ];
        if let Some((key, value)) = shares.into_iter().find(|(_, it)| !(0.0..=1.0).contains(it)) {
            return Err(format!("sanity.{key} is {value}, expected 0 to 1"));
        }
        if self.days == 0 {
            return Err("sanity.days is 0, expected at least 1".to_owned());
        }
        Ok(())
    }

    /// What is wrong with `day`, held against `earlier` days, the newest first; nothing if there
    /// are too few of them.
    pub fn faults(&self, day: &Facts, earlier: &[&Facts]) -> Vec<String> {
        let earlier = &earlier[..earlier.len().min(Sanity::MOST)];
        if earlier.len() < self.days {
            return Vec::new();
        }
        let mut faults = Vec::new();
        let usual = |of: &dyn Fn(&Facts) -> f64| median(earlier.iter().map(|facts| of(facts)));
        let mut factor = |what: &str, limit: f64, of: &dyn Fn(&Facts) -> f64, both: bool| {
            let (now, before) = (of(day), usual(of).unwrap_or_default());
            let is_high = now > before * limit;
            if is_high || (both && now * limit < before) {
                faults.push(format!(
                    "{what} {}, {} on the days before; it may change by a factor of {limit}",
                    short(now),
                    short(before)
                ));
            }
        };
        factor("the click rate is", self.click_rate, &Facts::click_rate, true);
        factor("impressions are", self.impressions, &|of| of.impressions as f64, true);
        factor("impressions of a user are", self.per_user, &Facts::per_user, true);
        let rows = Facts::rows_per_impression;
        factor("rows for each impression are", self.rows_per_impression, &rows, false);

        let mut share = |what: &str, limit: f64, now: f64, before: f64| {
            if now > before + limit {
                let (now, before) = (percent(now), percent(before));
                let limit = percent(limit);
                faults.push(format!(
                    "{what}: {now}, {before} on the days before; it may be {limit} more"
                ));
            }
        };
        let new = usual(&|of| of.new_items).unwrap_or_default();
        share("impressions of items without an earlier one", self.new_items, day.new_items, new);
        let without = |of: &Facts| 1.0 - of.pictures;
        let before = usual(&without).unwrap_or_default();
        share("impressions without a picture", self.pictures, without(day), before);
        for (field, &now) in &day.missing {
            let of = |facts: &Facts| facts.missing.get(field).copied().unwrap_or_default();
            let before = usual(&of).unwrap_or_default();
            share(&format!("impressions without `{field}`"), self.missing, now, before);
        }
        let changed = day.pictures_changed.unwrap_or_default();
        share("pictures that are others than before", self.pictures_changed, changed, 0.0);

        let aucs = || earlier.iter().filter_map(|facts| facts.auc);
        if let (Some(now), Some(before)) = (day.auc, median(aucs()))
            && aucs().count() >= self.days
            && now < before - self.auc
        {
            faults.push(format!(
                "the model that serves has an AUC of {now:.4} on this day, {before:.4} on the days before; it may be \
                 {} lower: labels or items may be wrong",
                self.auc
            ));
        }
        faults
    }
}

/// The median; the lower one of two.
fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A number as people read it.
fn short(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual(seed: u64) -> Facts {
        let noise = 1.0 + (seed as f64 * 0.7).sin() * 0.1;
        Facts {
            rows: (1_010.0 * noise) as u64,
            impressions: (1_000.0 * noise) as u64,
            clicks: (200.0 * noise) as u64,
            users: (100.0 * noise) as u64,
            new_items: 0.02 * noise,
            pictures: 0.98,
            pictures_changed: Some(0.0),
            missing: [("brand".to_owned(), 0.03 * noise)].into(),
            auc: Some(0.74 + 0.005 * (noise - 1.0)),
            calibration: Some(1.0),
        }
    }

    fn faults(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let earlier: Vec<Facts> = (0..9).map(usual).collect();
        let mut day = usual(9);
        change(&mut day);
        Sanity::default().faults(&day, &earlier.iter().collect::<Vec<_>>())
    }

    #[test]
    fn an_ordinary_day_has_no_fault() {
        for seed in 0..60 {
            let earlier: Vec<Facts> = (0..7).map(|of| usual(seed + of)).collect();
            let earlier: Vec<&Facts> = earlier.iter().collect();
            assert_eq!(Sanity::default().faults(&usual(seed + 7), &earlier), [""; 0]);
            // Too few days to say anything.
            let odd = Facts { clicks: 1, ..usual(seed) };
            assert_eq!(Sanity::default().faults(&odd, &earlier[..2]), [""; 0]);
        }
    }

    #[test]
    fn every_bad_day_is_named_by_its_reason() {
        type Change = fn(&mut Facts);
        let bad: [(Change, &str); 9] = [
            (|day| day.clicks *= 2, "click rate"),
            (|day| day.clicks /= 2, "click rate"),
            (|day| day.impressions /= 6, "impressions are"),
            (|day| day.rows *= 10, "rows for each impression"),
            (|day| day.new_items = 0.5, "items without an earlier one"),
            (|day| day.pictures = 0.5, "without a picture"),
            (|day| day.pictures_changed = Some(0.5), "others than before"),
            (|day| *day.missing.get_mut("brand").unwrap() = 1.0, "without `brand`"),
            (|day| day.auc = Some(0.5), "AUC of 0.5000"),
        ];
        for (change, word) in bad {
            let found = faults(change);
            assert!(found.iter().any(|fault| fault.contains(word)), "{word}: {found:?}");
        }
    }

    #[test]
    fn limits_are_checked() {
        let bad = [
            (Sanity { click_rate: 1.0, ..Sanity::default() }, "sanity.click_rate is 1"),
            (Sanity { per_user: f64::NAN, ..Sanity::default() }, "sanity.per_user is NaN"),
            (Sanity { missing: 1.5, ..Sanity::default() }, "sanity.missing is 1.5"),
            (Sanity { days: 0, ..Sanity::default() }, "sanity.days is 0"),
        ];
        for (sanity, expected) in bad {
            let error = sanity.check().unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        Sanity::default().check().unwrap();
    }
}
