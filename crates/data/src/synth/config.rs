//! How large the shop is and what its customers react to.
//!
//! Knows the knobs and their limits. Does not know how anything is drawn or written.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Whether pictures matter to anyone in this shop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Taste {
    /// Users like some visual styles and dislike others; only the pictures show the style.
    #[default]
    Visual,
    /// Pictures are drawn all the same, but no click depends on them.
    None,
}

/// How strongly each part of the click model moves the logit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strengths {
    /// Standard deviation over items of "the user likes this category".
    pub category: f64,
    /// Standard deviation over items of "the user likes what this looks like".
    pub visual: f64,
    /// Standard deviation of the items' quality, which only an item's id can tell.
    pub quality: f64,
    /// Standard deviation of the users' readiness to click.
    pub user: f64,
    /// Logits lost per position down the page.
    pub position: f64,
}

impl Default for Strengths {
    fn default() -> Self {
        Strengths { category: 0.4, visual: 1.8, quality: 0.2, user: 0.3, position: 0.05 }
    }
}

/// What to generate. The default is the shop of the demo; the same config gives the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShopConfig {
    /// Seed from which everything in the shop is drawn.
    pub seed: u64,
    /// Number of users, each with a taste.
    pub users: usize,
    /// Number of items over all days, each with one picture.
    pub items: usize,
    /// Number of days; the last one is the test day.
    pub days: usize,
    /// Page views per user and day, on average (users differ).
    pub pages_per_day: f64,
    /// Items per page view.
    pub items_per_page: usize,
    /// Clicks per impression, on average.
    pub click_rate: f64,
    /// Share of the items that are new on each day after the first.
    pub new_per_day: f64,
    /// Share of the test day's impressions given to items that were never shown before that day.
    pub cold_share: f64,
    /// Exponent of the power law of item popularity: the item of rank r is shown ~ r^-exponent.
    pub popularity_exponent: f64,
    /// Whether clicks depend on what the pictures show.
    pub taste: Taste,
    /// What moves a click.
    pub strengths: Strengths,
    /// Smallest and largest side of a picture, in pixels.
    pub picture_sides: [u32; 2],
    /// Number of days before the test day on which a passing interest of each user fills most
    /// pages: what the user clicks there tells nothing of the lasting taste, which clicks on the
    /// other pages and on the test day depend on. Only old behaviors show it then.
    #[serde(skip_serializing_if = "is_zero")]
    pub passing_days: usize,
    /// Probability, on each day after the first, that a user's taste in looks is drawn anew.
    #[serde(skip_serializing_if = "is_zero")]
    pub taste_drift: f64,
    /// Share of the items that are shown no longer from each day on, after the day they came.
    #[serde(skip_serializing_if = "is_zero")]
    pub leaving_per_day: f64,
}

/// Whether a shop has nothing of the kind; its description stays as it was before there was any.
fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Default for ShopConfig {
    fn default() -> Self {
        ShopConfig {
            seed: 1,
            users: 5_000,
            items: 1_500,
            days: 8,
            pages_per_day: 1.9,
            items_per_page: 8,
            click_rate: 0.23,
            new_per_day: 0.01,
            cold_share: 0.18,
            popularity_exponent: 0.7,
            taste: Taste::Visual,
            strengths: Strengths::default(),
            picture_sides: [96, 224],
            passing_days: 0,
            taste_drift: 0.0,
            leaving_per_day: 0.0,
        }
    }
}

impl ShopConfig {
    /// A shop for tests: 60 users, 80 items, four days, small pictures.
    pub fn tiny() -> ShopConfig {
        ShopConfig {
            users: 60,
            items: 80,
            days: 4,
            items_per_page: 6,
            picture_sides: [96, 112],
            ..ShopConfig::default()
        }
    }

    /// The day after the last training day, counted from 0: the test day.
    pub(super) fn test_day(&self) -> usize {
        self.days - 1
    }

    /// Whether pages of `day` may be of passing interests.
    pub(super) fn is_passing(&self, day: usize) -> bool {
        day < self.test_day() && day + self.passing_days >= self.test_day()
    }

    /// Checks every knob.
    ///
    /// # Errors
    /// [`Error::Option`] naming the first knob out of its range, what it is and what it may be.
    pub fn check(&self) -> Result<()> {
        let [least, most] = self.picture_sides.map(f64::from);
        let strengths = self.strengths;
        in_range("users", self.users as f64, 1.0, 1e8)?;
        in_range("items_per_page", self.items_per_page as f64, 1.0, 1000.0)?;
        in_range("items", self.items as f64, 4.0 * self.items_per_page as f64, 1e8)?;
        in_range("days", self.days as f64, 2.0, 1000.0)?;
        in_range("pages_per_day", self.pages_per_day, 0.01, 50.0)?;
        in_range("passing_days", self.passing_days as f64, 0.0, self.days as f64 - 1.0)?;
        in_range("taste_drift", self.taste_drift, 0.0, 1.0)?;
        in_range("leaving_per_day", self.leaving_per_day, 0.0, 0.5)?;
        in_range("click_rate", self.click_rate, 0.001, 0.9)?;
        in_range("new_per_day", self.new_per_day, 0.0, 0.5 / self.days as f64)?;
        in_range("cold_share", self.cold_share, 0.0, 0.9)?;
        in_range("popularity_exponent", self.popularity_exponent, 0.0, 3.0)?;
        in_range("strengths.category", strengths.category, 0.0, 10.0)?;
        in_range("strengths.visual", strengths.visual, 0.0, 10.0)?;
        in_range("strengths.quality", strengths.quality, 0.0, 10.0)?;
        in_range("strengths.user", strengths.user, 0.0, 10.0)?;
        in_range("strengths.position", strengths.position, -1.0, 1.0)?;
        in_range("picture_sides[0]", least, 32.0, 1024.0)?;
        in_range("picture_sides[1]", most, least, 1024.0)
    }
}

fn in_range(name: &str, value: f64, least: f64, most: f64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::option(format!("synthetic shop: {name} is {value}, expected {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(change: impl FnOnce(&mut ShopConfig)) -> String {
        let mut config = ShopConfig::tiny();
        change(&mut config);
        config.check().map_or_else(|error| error.to_string(), |()| "fine".into())
    }

    #[test]
    fn knobs_out_of_range_are_named() {
        assert_eq!(complaint(|_| ()), "fine");
        assert_eq!(complaint(|c| c.days = 1), "synthetic shop: days is 1, expected 2 to 1000");
        assert_eq!(
            complaint(|c| c.items = 5),
            "synthetic shop: items is 5, expected 24 to 100000000"
        );
        assert_eq!(
            complaint(|c| c.click_rate = f64::NAN),
            "synthetic shop: click_rate is NaN, expected 0.001 to 0.9"
        );
        assert_eq!(
            complaint(|c| c.picture_sides = [128, 96]),
            "synthetic shop: picture_sides[1] is 96, expected 128 to 1024"
        );
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_take_the_default() {
        let read = |text: &str| toml::from_str::<ShopConfig>(text);
        let config = read("users = 7\ntaste = \"none\"\n[strengths]\nvisual = 2.0").unwrap();
        assert_eq!(
            (config.users, config.taste, config.items),
            (7, Taste::None, ShopConfig::default().items)
        );
        assert_eq!(config.strengths, Strengths { visual: 2.0, ..Strengths::default() });
        assert!(read("user = 7").unwrap_err().to_string().contains("unknown field `user`"));
    }
}
