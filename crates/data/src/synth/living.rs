//! A shop that lives: who comes when, what is listed on a day, and the true probability of every
//! click that could happen, asked for one at a time by whoever decides what is shown.
//!
//! Users, items and the click model are those of [`generate`](super::generate). Whoever asks twice
//! is answered alike: what a user does is drawn from the seed, the user, the time and the item,
//! never from what else was shown or by whom. Knows no ranking, no bid and no model.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::catalogue::{CATEGORIES, Exposure, Item, item_name, stock};
use super::clicks::{Circumstance, ClickModel};
use super::config::ShopConfig;
use super::days::{Event, HOURS, SECONDS_PER_DAY, midnight};
use super::dice::{Dice, Entity};
use super::files::{self, Columns, EventFile};
use super::photographs::{draw_pictures, photograph};
use super::shopper::{AGES, GENDERS, Shopper, user_name};
use crate::error::Result;

/// Page views of a session, on average, and at most.
const SESSION_PAGES: f64 = 2.0;
const LONGEST_SESSION: usize = 12;

/// Seconds from a page view to the next one of its session: at least, and how many more at most.
const PAUSE: [usize; 2] = [20, 220];

/// Users with tastes, items with pictures, and what makes the ones click the others.
pub struct Shop {
    config: ShopConfig,
    stock: Vec<Item>,
    shoppers: Vec<Shopper>,
    base: f64,
}

/// A page view that a user opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Unix seconds.
    pub time: i64,
    /// Position of the user.
    pub user: u32,
    /// The user's how many-th of the day, from 0.
    pub page: u32,
    /// Hour of the day.
    pub hour: u8,
}

/// Where and when an item is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Place on the page, from 0.
    pub position: usize,
    /// Hour of the day.
    pub hour: u8,
}

/// An item that was shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// The page view.
    pub view: View,
    /// Position of the item.
    pub item: u32,
    /// Place on the page, from 0.
    pub position: u32,
    /// Whether the user clicked it.
    pub clicked: bool,
    /// The true probability of the click.
    pub probability: f64,
}

/// One day of a shop: tastes as they are by then.
pub struct ShopDay<'a> {
    shop: &'a Shop,
    number: usize,
    shoppers: Vec<Shopper>,
    exposure: Exposure,
}

impl Shop {
    /// The shop of `config`.
    ///
    /// # Errors
    /// [`crate::Error::Option`] if the config does not make sense.
    pub fn open(config: ShopConfig) -> Result<Shop> {
        config.check()?;
        let stock = stock(&config);
        let shoppers: Vec<Shopper> =
            (0..config.users).map(|user| Shopper::draw(&config, user)).collect();
        let base = ClickModel::calibrated(&config, &shoppers, &stock).base();
        Ok(Shop { config, stock, shoppers, base })
    }

    /// What the shop was made from.
    pub fn config(&self) -> &ShopConfig {
        &self.config
    }

    /// Number of items over all days.
    pub fn items(&self) -> usize {
        self.stock.len()
    }

    /// The user's id in the log.
    pub fn user_name(&self, user: u32) -> String {
        user_name(user)
    }

    /// The item's id in the log.
    pub fn item_name(&self, item: u32) -> String {
        item_name(item as usize)
    }

    /// The user's fields `age` and `gender` in the log.
    pub fn user_fields(&self, user: u32) -> [(&'static str, &'static str); 2] {
        let Shopper { age, gender, .. } = &self.shoppers[user as usize];
        [("age", AGES[usize::from(*age)]), ("gender", GENDERS[usize::from(*gender)])]
    }

    /// Number of departments.
    pub fn categories(&self) -> usize {
        CATEGORIES.len()
    }

    /// The department of an item, from 0.
    pub fn category(&self, item: u32) -> usize {
        usize::from(self.stock[item as usize].category)
    }

    /// The price of an item: the middle of the range that the log has.
    pub fn price(&self, item: u32) -> f64 {
        let price = self.stock[item as usize].price;
        let mut bounds = price.trim_end_matches('+').split('-').map(|it| it.parse::<f64>());
        match (bounds.next(), bounds.next()) {
            (Some(Ok(low)), Some(Ok(high))) => 0.5 * (low + high),
            (Some(Ok(low)), None) => 1.5 * low,
            _ => unreachable!("prices are ranges of numbers"),
        }
    }

    /// Weight by which an item was shown before anybody ranked.
    pub fn popularity(&self, item: u32) -> f64 {
        self.stock[item as usize].popularity
    }

    /// First day on which an item may be shown.
    pub fn first_day(&self, item: u32) -> usize {
        self.stock[item as usize].first_day
    }

    /// Whether an item may be shown on a day.
    pub fn is_listed(&self, item: u32, day: usize) -> bool {
        let Item { first_day, gone_from, .. } = self.stock[item as usize];
        (first_day..gone_from).contains(&day)
    }

    /// First instant of a day, unix seconds.
    pub fn midnight(&self, day: usize) -> i64 {
        midnight(day)
    }

    /// One day of the shop.
    pub fn day(&self, number: usize) -> ShopDay<'_> {
        let mut shoppers = self.shoppers.clone();
        for (user, shopper) in shoppers.iter_mut().enumerate() {
            (1..=number).for_each(|day| shopper.drift(&self.config, user, day));
        }
        let exposure = Exposure::of_day(&self.config, &self.stock, number);
        ShopDay { shop: self, number, shoppers, exposure }
    }

    /// Draws the pictures of all items into `folder`; their paths in it, by item. They are drawn on
    /// the threads of the current rayon pool; `progress` is told how many there are.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Content`] if something cannot be written.
    pub fn draw(&self, folder: &Path, progress: &mut dyn FnMut(usize)) -> Result<Vec<String>> {
        draw_pictures(&self.config, &self.stock, folder, progress)
    }

    /// Writes the table of the items that came until `day`, in the form of `items.csv`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if it cannot be written.
    pub fn write_items(&self, path: &Path, day: usize) -> Result<()> {
        let came = self.stock.partition_point(|item| item.first_day <= day);
        let images: Vec<String> = (0..came).map(|item| photograph(&self.config, item).0).collect();
        files::write_items(path, &self.stock[..came], &images)
    }

    /// Writes a log in the form of `events.parquet`.
    ///
    /// # Errors
    /// [`crate::Error::Io`] or [`crate::Error::Content`] if it cannot be written.
    pub fn write_log(&self, path: &Path, shown: impl Iterator<Item = Shown>) -> Result<()> {
        let mut file = EventFile::create(path.to_owned(), Columns::Log, &self.shoppers)?;
        for Shown { view, item, position, clicked, probability } in shown {
            let at = Circumstance { position: position as usize, hour: view.hour };
            let View { time, user, .. } = view;
            file.push(Event { time, user, item, at, clicked, probability })?;
        }
        file.finish()
    }
}

impl ShopDay<'_> {
    /// Which day it is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The page views of a user in order of time: sessions of some pages each.
    pub fn views(&self, user: u32) -> Vec<View> {
        let config = &self.shop.config;
        let mut dice = Dice::new(config.seed, Entity::Session, u64::from(user), self.number as u64);
        let mean = self.shoppers[user as usize].pages_per_day / SESSION_PAGES;
        let mut times = Vec::new();
        for _ in 0..dice.poisson(mean) {
            let hour = dice.weighted(&HOURS) as i64;
            let mut time = 3600 * hour + dice.below(3600) as i64;
            for _ in 0..LONGEST_SESSION {
                if time < SECONDS_PER_DAY {
                    times.push(time);
                }
                time += (PAUSE[0] + dice.below(PAUSE[1])) as i64;
                if dice.happens(1.0 / SESSION_PAGES) {
                    break;
                }
            }
        }
        times.sort_unstable();
        // Two pages of one second would be one.
        times.dedup();
        let view = |(page, time): (usize, i64)| View {
            time: midnight(self.number) + time,
            user,
            page: page as u32,
            hour: (time / 3600) as u8,
        };
        times.into_iter().enumerate().map(view).collect()
    }

    /// The items of a page that nobody ranks: by popularity.
    pub fn unranked(&self, view: View) -> Vec<u32> {
        let config = &self.shop.config;
        let mut dice = Dice::new(config.seed, Entity::Page, u64::from(view.user), self.key(view));
        let items = self.exposure.page(&mut dice, config.items_per_page);
        items.into_iter().map(|item| item as u32).collect()
    }

    /// The true probability that `user` clicks `item`.
    pub fn probability(&self, user: u32, item: u32, at: Look) -> f64 {
        let model = ClickModel::with_base(&self.shop.config, self.shop.base);
        let at = Circumstance { position: at.position, hour: at.hour };
        model.probability(&self.shoppers[user as usize], &self.shop.stock[item as usize], at)
    }

    /// A uniform number in 0..1 that decides whether something happens about `item` in `view`; one
    /// for each `matter`. It is the same wherever on the page the item is, and whoever shows it.
    pub fn coin(&self, view: View, item: u32, matter: u32) -> f64 {
        let mut of_view = [0; 24];
        let words = [
            self.shop.config.seed,
            Entity::Coin as u64,
            u64::from(view.user) << 32 | u64::from(item),
        ];
        for (bytes, word) in of_view.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let hash = xxh3_64_with_seed(&of_view, self.key(view) ^ u64::from(matter) << 20);
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A stream of random numbers of a page view.
    pub fn dice(&self, entity: Entity, view: View) -> Dice {
        Dice::new(self.shop.config.seed, entity, u64::from(view.user), self.key(view))
    }

    /// The page view among those of its user.
    fn key(&self, view: View) -> u64 {
        (self.number as u64) << 32 | u64::from(view.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Shop {
        let config =
            ShopConfig { users: 300, cold_share: 0.0, taste_drift: 0.3, ..ShopConfig::tiny() };
        Shop::open(config).unwrap()
    }

    #[test]
    fn sessions_have_the_page_views_of_the_shop() {
        let shop = shop();
        let views: Vec<View> = (0..3)
            .flat_map(|day| (0..300).flat_map(|user| shop.day(day).views(user)).collect::<Vec<_>>())
            .collect();
        let mean = views.len() as f64 / 900.0;
        assert!((mean / shop.config().pages_per_day - 1.0).abs() < 0.1, "{mean}");
        let together = views.windows(2).filter(|pair| {
            pair[0].user == pair[1].user && (1..600).contains(&(pair[1].time - pair[0].time))
        });
        assert!(together.count() * 3 > views.len(), "pages come in sessions");
        for pair in views.windows(2).filter(|pair| pair[1].page > 0) {
            assert!(pair[0].user == pair[1].user && pair[0].time < pair[1].time);
        }
    }

    /// What happens follows from the seed, the user, the time and the item.
    #[test]
    fn coins_agree_with_the_true_probability_and_with_themselves() {
        let shop = shop();
        let day = shop.day(2);
        let (mut clicks, mut expected, mut count) = (0.0, 0.0, 0.0);
        for view in (0..300).flat_map(|user| day.views(user)) {
            for (position, item) in day.unranked(view).into_iter().enumerate() {
                let look = Look { position, hour: view.hour };
                let probability = day.probability(view.user, item, look);
                clicks += f64::from(u8::from(day.coin(view, item, 0) < probability));
                expected += probability;
                count += 1.0;
                assert_eq!(day.coin(view, item, 0), shop.day(2).coin(view, item, 0));
                assert_ne!(day.coin(view, item, 0), day.coin(view, item, 1));
            }
        }
        let deviation = (expected * (1.0 - expected / count)).sqrt();
        assert!((clicks - expected).abs() < 3.0 * deviation, "{clicks} {expected}");
    }

    #[test]
    fn tastes_drift_and_items_come_and_go() {
        let config =
            ShopConfig { new_per_day: 0.05, leaving_per_day: 0.05, ..shop().config().clone() };
        let shop = Shop::open(config).unwrap();
        let look = Look { position: 0, hour: 12 };
        let of = |day: usize| -> Vec<f64> {
            let day = shop.day(day);
            (0..300).map(|user| day.probability(user, 3, look)).collect()
        };
        let (first, second) = (of(0), of(1));
        let changed = first.iter().zip(&second).filter(|(a, b)| a != b).count();
        assert!((60..120).contains(&changed), "{changed} of 300 by 0.3");
        let listed = |day| (0..80).filter(|&item| shop.is_listed(item, day)).count();
        let came = (0..80).filter(|&item| shop.first_day(item) == 1).count();
        assert_eq!(came, 4);
        assert!(listed(1) < listed(0) + came, "some have left");
        for view in (0..300).flat_map(|user| shop.day(1).views(user)) {
            assert!(shop.day(1).unranked(view).iter().all(|&item| shop.is_listed(item, 1)));
        }
    }

    #[test]
    fn prices_are_the_middles_of_their_ranges() {
        let shop = shop();
        let mut prices: Vec<f64> = (0..80).map(|item| shop.price(item)).collect();
        prices.sort_by(f64::total_cmp);
        prices.dedup();
        assert_eq!(prices, [5.0, 15.0, 35.0, 75.0, 150.0]);
    }

    #[test]
    fn the_files_are_those_of_a_shop() {
        let shop = shop();
        let dir = tempfile::tempdir().unwrap();
        let images = shop.draw(dir.path(), &mut |_| ()).unwrap();
        shop.write_items(&dir.path().join("items.csv"), 1).unwrap();
        let items = std::fs::read_to_string(dir.path().join("items.csv")).unwrap();
        let came = (0..80).filter(|&item| shop.first_day(item) <= 1).count();
        let named: Vec<&str> =
            items.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
        assert_eq!(named, images[..came]);
        let view = View { time: shop.midnight(0) + 7200, user: 4, page: 0, hour: 2 };
        let shown =
            |item| Shown { view, item, position: item, clicked: item == 1, probability: 0.5 };
        let log = dir.path().join("log.parquet");
        shop.write_log(&log, (0..3).map(shown)).unwrap();
        let written = crate::source::open(&log, &crate::source::TableOptions::default());
        assert!(written.is_ok());
    }
}
