//! The auction of a page: who is shown where, and what a click costs.
//!
//! Knows bids and predicted rates. Does not know users, items or the truth.

use ams_data::synth::{Dice, Entity};
use serde::{Deserialize, Serialize};

/// What a click costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pricing {
    /// As much as keeps the place: the eCPM of the next candidate over one's own rate.
    #[default]
    Second,
    /// One's own bid.
    First,
}

/// What advertisers bid and pay, per click.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auction {
    /// What a click costs.
    pub pricing: Pricing,
    /// The least that a click costs; lower bids are raised to it. Range: at least 0.
    pub reserve: f64,
    /// Standard deviation of the logarithms of bids between items. Range: 0 to 3.
    pub spread: f64,
    /// The same of an item's bids between days. Range: 0 to 3.
    pub daily_spread: f64,
}

impl Default for Auction {
    fn default() -> Auction {
        Auction { pricing: Pricing::Second, reserve: 0.05, spread: 0.3, daily_spread: 0.1 }
    }
}

impl Auction {
    /// The bid for a click on `item` on `day`: around 1, whatever the item.
    pub(crate) fn bid(&self, seed: u64, item: u32, day: usize) -> f64 {
        let draw = |day: u64| Dice::new(seed, Entity::Bid, u64::from(item), day).normal();
        let logarithm = self.spread * draw(u64::MAX) + self.daily_spread * draw(day as u64);
        logarithm.exp().max(self.reserve)
    }

    /// What a click on each place costs, where `order` ranks candidates by bid times rate, from the
    /// top; `places` of them are shown.
    pub(crate) fn prices(
        &self,
        order: &[u32],
        bids: &[f64],
        rates: &[f32],
        places: usize,
    ) -> Vec<f64> {
        let ecpm = |at: u32| bids[at as usize] * f64::from(rates[at as usize]);
        (0..places.min(order.len()))
            .map(|place| {
                let own = order[place];
                let bid = bids[own as usize];
                let next = order.get(place + 1).map_or(0.0, |&next| ecpm(next));
                let rate = f64::from(rates[own as usize]);
                match self.pricing {
                    Pricing::First => bid,
                    Pricing::Second if rate > 0.0 => (next / rate).clamp(self.reserve, bid),
                    Pricing::Second => self.reserve,
                }
            })
            .collect()
    }
}

/// Overwrites `order` with the candidates by bid times rate, descending; equal ones stay in the
/// order in which they came.
pub(crate) fn rank(bids: &[f64], rates: &[f32], order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..rates.len() as u32);
    let ecpm = |at: u32| bids[at as usize] * f64::from(rates[at as usize]);
    order.sort_by(|&a, &b| ecpm(b).total_cmp(&ecpm(a)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_costs_what_keeps_the_place_and_never_more_than_the_bid() {
        let (bids, rates) = ([1.0, 2.0, 0.5, 1.0], [0.2, 0.2, 0.4, 0.01]);
        let mut order = Vec::new();
        rank(&bids, &rates, &mut order);
        assert_eq!(order, [1, 0, 2, 3]);
        let auction = Auction { reserve: 0.1, ..Auction::default() };
        let near = |got: &[f64], want: &[f64]| {
            assert_eq!(got.len(), want.len());
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}");
        };
        // The tie of 0.2 and 0.2 costs the whole bid; the last one the reserve.
        near(&auction.prices(&order, &bids, &rates, 9), &[1.0, 1.0, 0.1, 0.1]);
        near(&auction.prices(&order, &bids, &rates, 2), &[1.0, 1.0]);
        let first = Auction { pricing: Pricing::First, ..auction };
        near(&first.prices(&order, &bids, &rates, 3), &[2.0, 1.0, 0.5]);
    }

    #[test]
    fn bids_are_the_items_and_change_a_little_every_day() {
        let auction = Auction { reserve: 0.0, ..Auction::default() };
        let bids = |day: usize| -> Vec<f64> {
            (0..2000).map(|item| auction.bid(1, item, day).ln()).collect()
        };
        let spread = |of: &[f64]| (of.iter().map(|x| x * x).sum::<f64>() / 2000.0).sqrt();
        let (today, tomorrow) = (bids(3), bids(4));
        assert!((spread(&today) - 0.316).abs() < 0.02, "{}", spread(&today));
        let change: Vec<f64> = today.iter().zip(&tomorrow).map(|(a, b)| a - b).collect();
        assert!((spread(&change) - 0.141).abs() < 0.02, "{}", spread(&change));
    }
}
