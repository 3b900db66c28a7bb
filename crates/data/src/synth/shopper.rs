//! Users: who they are, what they like, how often they come.
//!
//! Knows one user at a time. Does not know items or clicks.

use super::catalogue::CATEGORIES;
use super::config::ShopConfig;
use super::dice::{Dice, Entity};
use super::style::{VisualTaste, contrast};

pub(super) const AGES: [&str; 4] = ["18-24", "25-39", "40-59", "60+"];
pub(super) const GENDERS: [&str; 3] = ["f", "m", "x"];

/// How many departments a user likes.
const LIKED_CATEGORIES: usize = 2;

#[derive(Clone)]
pub(super) struct Shopper {
    pub(super) age: u8,
    pub(super) gender: u8,
    /// Page views per day, on average.
    pub(super) pages_per_day: f64,
    /// Readiness to click, standard normal.
    pub(super) readiness: f64,
    pub(super) visual: VisualTaste,
    categories: u32,
}

impl Shopper {
    pub(super) fn draw(config: &ShopConfig, user: usize) -> Shopper {
        let mut dice = Dice::new(config.seed, Entity::Shopper, user as u64, 0);
        let age = dice.below(AGES.len());
        // Each age leans to two departments, so that user fields are worth something.
        let leaning: Vec<f64> = (0..CATEGORIES.len())
            .map(|category| if category % AGES.len() == age { 3.0 } else { 1.0 })
            .collect();
        Shopper {
            age: age as u8,
            gender: dice.weighted(&[0.52, 0.98, 1.0]) as u8,
            // Log-normal with mean 1.
            pages_per_day: config.pages_per_day * (0.45 * dice.normal() - 0.101_25).exp(),
            readiness: dice.normal().clamp(-2.5, 2.5),
            visual: VisualTaste::draw(&mut dice),
            categories: dice.subset(&leaning, LIKED_CATEGORIES),
        }
    }

    /// Lives through the night before `day`, which may change the taste in looks.
    pub(super) fn drift(&mut self, config: &ShopConfig, user: usize, day: usize) {
        let mut dice = Dice::new(config.seed, Entity::Drift, user as u64, day as u64);
        if dice.happens(config.taste_drift) {
            self.visual = VisualTaste::draw(&mut dice);
        }
    }

    /// How well `category` pleases: mean 0 and variance 1 over all categories.
    pub(super) fn category_match(&self, category: u8) -> f64 {
        contrast(self.categories, category, CATEGORIES.len())
    }
}

/// The user's id in the files.
pub(super) fn user_name(user: u32) -> String {
    format!("u{user:06}")
}
