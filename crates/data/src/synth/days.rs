//! Days of the shop: who looks at a page when, what it shows, what is clicked.
//!
//! Knows users, items and the click model. Does not know files. One day's visits are in memory at a
//! time, the events are handed on one by one in order of time.

use super::catalogue::{Exposure, Item};
use super::clicks::{Circumstance, ClickModel};
use super::config::ShopConfig;
use super::dice::{Dice, Entity};
use super::shopper::Shopper;
use super::style::VisualTaste;

/// Midnight (UTC) before the first day: Monday, March 4, 2024.
const OPENING: i64 = 1_709_510_400;

pub(super) const SECONDS_PER_DAY: i64 = 86_400;

/// Share of the pages of a passing interest on the days that have them, and of clicks on these.
const PASSING_SHARE: f64 = 0.85;
const PASSING_CLICKS: f64 = 0.9;

/// Items, per item of a page, of which a passing interest chooses.
const PASSING_CHOICE: usize = 6;

/// Running weights of the hours of a day.
pub(super) const HOURS: [f64; 24] = [
    1.0, 1.5, 1.8, 2.0, 2.2, 2.6, 3.6, 5.6, 8.6, 12.1, 16.1, 20.6, 26.1, 31.1, 35.6, 40.1, 45.1,
    51.1, 58.1, 66.1, 75.1, 83.1, 88.1, 90.1,
];

#[derive(Clone)]
pub(super) struct Event {
    pub(super) time: i64,
    pub(super) user: u32,
    pub(super) item: u32,
    pub(super) at: Circumstance,
    pub(super) clicked: bool,
    /// The true probability of the click.
    pub(super) probability: f64,
}

/// A page view: when, who, the user's how many-th that day. In this order they are sorted.
type Visit = (i64, u32, u32);

/// First instant of `day`, unix seconds.
pub(super) fn midnight(day: usize) -> i64 {
    OPENING + day as i64 * SECONDS_PER_DAY
}

/// The page views of `day` in order of time.
pub(super) fn visits(config: &ShopConfig, shoppers: &[Shopper], day: usize) -> Vec<Visit> {
    let mut visits = Vec::new();
    for (user, shopper) in shoppers.iter().enumerate() {
        let mut dice = Dice::new(config.seed, Entity::Visit, user as u64, day as u64);
        for page in 0..dice.poisson(shopper.pages_per_day) {
            let hour = dice.weighted(&HOURS) as i64;
            let time = midnight(day) + 3600 * hour + dice.below(3600) as i64;
            visits.push((time, user as u32, page as u32));
        }
    }
    visits.sort_unstable();
    visits
}

/// The impressions of one page view, from the top of the page down.
pub(super) fn page(
    config: &ShopConfig,
    model: &ClickModel<'_>,
    shoppers: &[Shopper],
    stock: &[Item],
    exposure: &Exposure,
    (time, user, page): Visit,
) -> Vec<Event> {
    let day = (time - OPENING) / SECONDS_PER_DAY;
    let key = (day as u64) << 32 | u64::from(page);
    let hour = ((time - OPENING) % SECONDS_PER_DAY / 3600) as u8;
    if config.is_passing(day as usize) {
        let mut dice = Dice::new(config.seed, Entity::Passing, u64::from(user), key);
        if dice.happens(PASSING_SHARE) {
            let items = passing_items(config, user, stock, exposure, &mut dice);
            let look = |(position, item): (usize, u32)| {
                let (at, clicked) = (Circumstance { position, hour }, dice.happens(PASSING_CLICKS));
                Event { time, user, item, at, clicked, probability: PASSING_CLICKS }
            };
            return items.into_iter().enumerate().map(look).collect();
        }
    }
    let mut dice = Dice::new(config.seed, Entity::Page, u64::from(user), key);
    let items = exposure.page(&mut dice, config.items_per_page);
    let look = |(position, item): (usize, usize)| {
        let at = Circumstance { position, hour };
        let probability = model.probability(&shoppers[user as usize], &stock[item], at);
        let clicked = dice.happens(probability);
        Event { time, user, item: item as u32, at, clicked, probability }
    };
    items.into_iter().enumerate().map(look).collect()
}

/// The items of a page of the passing interest of `user`: some that look alike.
fn passing_items(
    config: &ShopConfig,
    user: u32,
    stock: &[Item],
    exposure: &Exposure,
    dice: &mut Dice,
) -> Vec<u32> {
    let mut of_user = Dice::new(config.seed, Entity::Passing, u64::from(user), u64::MAX);
    let interest = VisualTaste::draw(&mut of_user);
    let mut items = exposure.page(dice, PASSING_CHOICE * config.items_per_page);
    let pleases = |item: &usize| interest.matches(stock[*item].style);
    items.sort_by(|a, b| pleases(b).total_cmp(&pleases(a)).then(a.cmp(b)));
    items.into_iter().take(config.items_per_page).map(|item| item as u32).collect()
}
