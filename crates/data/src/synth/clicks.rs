//! The click model: the true probability of a click, known to nobody who trains on the log.
//!
//! Knows tastes and strengths. Does not know days, pages or files.

use super::catalogue::{Exposure, Item};
use super::config::{ShopConfig, Taste};
use super::dice::{Dice, Entity};
use super::shopper::Shopper;

/// Logits gained from 18 o'clock on.
const EVENING: f64 = 0.1;

/// logit = base + category match + visual match + quality + readiness - position + evening.
pub(super) struct ClickModel<'a> {
    config: &'a ShopConfig,
    base: f64,
}

/// Where and when an item is shown.
#[derive(Clone, Copy)]
pub(super) struct Circumstance {
    pub(super) position: usize,
    pub(super) hour: u8,
}

impl<'a> ClickModel<'a> {
    /// The model whose average click rate is the one asked for, found by bisection over a drawn
    /// sample of users and items.
    pub(super) fn calibrated(
        config: &'a ShopConfig,
        shoppers: &[Shopper],
        stock: &[Item],
    ) -> ClickModel<'a> {
        const SAMPLE: usize = 20_000;
        let mut dice = Dice::new(config.seed, Entity::Calibration, 0, 0);
        let exposure = Exposure::of_day(config, stock, 0);
        let mut model = ClickModel { config, base: 0.0 };
        let logits: Vec<f64> = (0..SAMPLE)
            .map(|_| {
                let shopper = &shoppers[dice.below(shoppers.len())];
                let item = &stock[exposure.draw(&mut dice)];
                let position = dice.below(config.items_per_page);
                model.logit(shopper, item, Circumstance { position, hour: 12 })
            })
            .collect();
        let rate = |base: f64| {
            logits.iter().map(|logit| sigmoid(base + logit)).sum::<f64>() / SAMPLE as f64
        };
        let (mut low, mut high) = (-60.0, 60.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if rate(middle) < config.click_rate { low = middle } else { high = middle }
        }
        model.base = 0.5 * (low + high);
        model
    }

    /// The model whose logit that all users share is `base`.
    pub(super) fn with_base(config: &'a ShopConfig, base: f64) -> ClickModel<'a> {
        ClickModel { config, base }
    }

    /// The logit that all users share.
    pub(super) fn base(&self) -> f64 {
        self.base
    }

    /// The true probability of a click.
    pub(super) fn probability(&self, shopper: &Shopper, item: &Item, at: Circumstance) -> f64 {
        sigmoid(self.logit(shopper, item, at))
    }

    fn logit(&self, shopper: &Shopper, item: &Item, at: Circumstance) -> f64 {
        let strengths = &self.config.strengths;
        let visual = match self.config.taste {
            Taste::Visual => strengths.visual * shopper.visual.matches(item.style),
            Taste::None => 0.0,
        };
        self.base
            + strengths.category * shopper.category_match(item.category)
            + visual
            + strengths.quality * item.quality
            + strengths.user * shopper.readiness
            - strengths.position * at.position as f64
            + if at.hour >= 18 { EVENING } else { 0.0 }
    }
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::stock;
    use super::super::config::Strengths;
    use super::*;

    #[test]
    fn the_average_click_rate_is_the_one_asked_for() {
        for (taste, click_rate) in [(Taste::Visual, 0.25), (Taste::None, 0.1)] {
            let config =
                ShopConfig { users: 400, items: 400, taste, click_rate, ..ShopConfig::tiny() };
            let shoppers: Vec<Shopper> = (0..400).map(|u| Shopper::draw(&config, u)).collect();
            let stock = stock(&config);
            let model = ClickModel::calibrated(&config, &shoppers, &stock);
            let exposure = Exposure::of_day(&config, &stock, 0);
            let mut dice = Dice::new(99, Entity::Page, 0, 0);
            let mean = (0..20_000)
                .map(|draw| {
                    let item = &stock[exposure.draw(&mut dice)];
                    let at = Circumstance { position: draw % 6, hour: 12 };
                    model.probability(&shoppers[dice.below(400)], item, at)
                })
                .sum::<f64>()
                / 20_000.0;
            assert!((mean - click_rate).abs() < 0.01, "{mean}");
        }
    }

    #[test]
    fn without_taste_the_picture_does_not_matter() {
        let strengths = Strengths { category: 0.0, quality: 0.0, ..Strengths::default() };
        let spread = |taste| {
            let config = ShopConfig { taste, strengths, ..ShopConfig::tiny() };
            let shopper = Shopper::draw(&config, 0);
            let model = ClickModel { config: &config, base: 0.0 };
            let at = Circumstance { position: 0, hour: 0 };
            let all: Vec<f64> =
                stock(&config).iter().map(|item| model.logit(&shopper, item, at)).collect();
            all.iter().fold(0.0_f64, |most, logit| most.max((logit - all[0]).abs()))
        };
        assert!(spread(Taste::Visual) > 1.0);
        assert_eq!(spread(Taste::None), 0.0);
    }
}
