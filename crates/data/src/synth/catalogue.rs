//! The catalogue: what each item is, how popular, and from which day it is shown.
//!
//! Knows items and exposure. Does not know users, clicks or pixels.

use super::config::ShopConfig;
use super::dice::{Dice, Entity, running_sums};
use super::style::Style;

/// Departments of the shop, independent of what an article looks like.
pub(super) const CATEGORIES: [&str; 8] =
    ["kitchen", "garden", "office", "kids", "travel", "sports", "bath", "pets"];

/// Brands; each department carries three of them.
const BRANDS: [&str; 15] = [
    "Alder", "Birchway", "Corvo", "Dune", "Elmore", "Fjord", "Gale", "Harrow", "Isla", "Juniper",
    "Kite", "Larkin", "Moss", "Nord", "Oriel",
];

const PRICES: [&str; 5] = ["0-10", "10-20", "20-50", "50-100", "100+"];

pub(super) struct Item {
    pub(super) category: u8,
    pub(super) brand: &'static str,
    pub(super) price: &'static str,
    /// Only the picture shows it.
    pub(super) style: Style,
    /// Only the item's id can tell it: standard normal, at most 2.5 in size.
    pub(super) quality: f64,
    /// Weight of being shown.
    pub(super) popularity: f64,
    /// First day it is shown.
    pub(super) first_day: usize,
    /// First day it is shown no longer.
    pub(super) gone_from: usize,
}

/// All items, in the order in which they came into the shop.
pub(super) fn stock(config: &ShopConfig) -> Vec<Item> {
    let ranks = Dice::new(config.seed, Entity::Ranks, 0, 0).permutation(config.items);
    let first_days = first_days(config);
    (0..config.items)
        .map(|item| {
            let mut dice = Dice::new(config.seed, Entity::Item, item as u64, 0);
            let category = dice.below(CATEGORIES.len());
            Item {
                category: category as u8,
                brand: BRANDS[(category + 5 * dice.below(3)) % BRANDS.len()],
                price: PRICES[dice.below(PRICES.len())],
                style: Style::draw(&mut dice),
                quality: dice.normal().clamp(-2.5, 2.5),
                popularity: f64::from(ranks[item] + 1).powf(-config.popularity_exponent),
                first_day: first_days[item],
                gone_from: gone_from(config, item, first_days[item]),
            }
        })
        .collect()
}

/// The item's id in the files.
pub(super) fn item_name(item: usize) -> String {
    format!("i{item:06}")
}

/// The day each item is shown first: some are new on every day, more on the test day.
fn first_days(config: &ShopConfig) -> Vec<usize> {
    let share = |share: f64| (share * config.items as f64).round() as usize;
    let mut days = Vec::with_capacity(config.items);
    for day in (1..config.days).rev() {
        let cold = if day == config.test_day() { config.cold_share / 2.0 } else { 0.0 };
        days.extend(std::iter::repeat_n(day, share(config.new_per_day + cold)));
    }
    days.resize(config.items, 0);
    days.reverse();
    days
}

/// The day from which the item is shown no longer; the number of days if it stays.
fn gone_from(config: &ShopConfig, item: usize, first_day: usize) -> usize {
    let mut dice = Dice::new(config.seed, Entity::Leaving, item as u64, 0);
    let mut days = first_day + 1..config.days;
    days.find(|_| dice.happens(config.leaving_per_day)).unwrap_or(config.days)
}

/// Which items a page of one day shows, and how often.
pub(super) struct Exposure {
    /// Running popularity of the items shown before.
    known: Vec<f64>,
    /// Items shown for the first time today, drawn with `fresh_share` instead of by popularity
    /// alone.
    fresh: Vec<u32>,
    fresh_popularity: Vec<f64>,
    fresh_share: f64,
}

impl Exposure {
    /// The exposure of `day`. Only the test day gives its new items a share of their own.
    pub(super) fn of_day(config: &ShopConfig, stock: &[Item], day: usize) -> Exposure {
        let own_share = day == config.test_day() && config.cold_share > 0.0;
        let known = running_sums(stock.iter().map(|item| {
            let came = item.first_day < day || (item.first_day == day && !own_share);
            if came && day < item.gone_from { item.popularity } else { 0.0 }
        }));
        let fresh: Vec<u32> = (0..stock.len() as u32)
            .filter(|&item| own_share && stock[item as usize].first_day == day)
            .collect();
        let fresh_popularity =
            running_sums(fresh.iter().map(|&item| stock[item as usize].popularity));
        let fresh_share = if fresh.is_empty() { 0.0 } else { config.cold_share };
        Exposure { known, fresh, fresh_popularity, fresh_share }
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> usize {
        if dice.happens(self.fresh_share) {
            self.fresh[dice.weighted(&self.fresh_popularity)] as usize
        } else {
            dice.weighted(&self.known)
        }
    }

    /// At most `count` different items (fewer where the shop is too small to find them quickly).
    pub(super) fn page(&self, dice: &mut Dice, count: usize) -> Vec<usize> {
        let mut page = Vec::with_capacity(count);
        for _ in 0..count * 8 {
            let item = self.draw(dice);
            if !page.contains(&item) {
                page.push(item);
            }
            if page.len() == count {
                break;
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_arrive_day_by_day() {
        let config = ShopConfig { items: 1000, days: 4, cold_share: 0.2, ..ShopConfig::tiny() };
        let count = |day| first_days(&config).iter().filter(|&&first| first == day).count();
        assert_eq!([0, 1, 2, 3].map(count), [870, 10, 10, 110]);
    }

    #[test]
    fn items_leave_day_by_day() {
        let config = ShopConfig { items: 10_000, leaving_per_day: 0.1, ..ShopConfig::tiny() };
        let stock = stock(&config);
        let count = |day| {
            let there = stock.iter().filter(|item| item.first_day == 0 && day < item.gone_from);
            there.count() as f64
        };
        for day in 0..3 {
            assert!((count(day + 1) / count(day) - 0.9).abs() < 0.01);
            let exposure = Exposure::of_day(&config, &stock, day);
            let mut dice = Dice::new(5, Entity::Page, day as u64, 0);
            let drawn = (0..1000).map(|_| &stock[exposure.draw(&mut dice)]);
            assert!(drawn.into_iter().all(|item| (item.first_day..item.gone_from).contains(&day)));
        }
    }

    #[test]
    fn the_test_day_shows_its_cold_share_and_no_day_shows_the_future() {
        let config = ShopConfig { items: 1000, days: 4, cold_share: 0.2, ..ShopConfig::tiny() };
        let stock = stock(&config);
        for day in 0..4 {
            let exposure = Exposure::of_day(&config, &stock, day);
            let mut dice = Dice::new(5, Entity::Page, day as u64, 0);
            let days: Vec<usize> =
                (0..5000).map(|_| stock[exposure.draw(&mut dice)].first_day).collect();
            assert!(days.iter().all(|&first| first <= day));
            let new = days.iter().filter(|&&first| first == day).count() as f64 / 5000.0;
            if day == 3 {
                assert!((new - 0.2).abs() < 0.02, "{new}");
            }
        }
    }

    #[test]
    fn popularity_is_a_power_law() {
        let config = ShopConfig { popularity_exponent: 0.5, ..ShopConfig::tiny() };
        let mut weights: Vec<f64> = stock(&config).iter().map(|item| item.popularity).collect();
        weights.sort_by(f64::total_cmp);
        weights.reverse();
        assert_eq!(weights[0], 1.0);
        assert!((weights[24] - 0.2).abs() < 1e-12 && (weights[63] - 0.125).abs() < 1e-12);
    }
}
