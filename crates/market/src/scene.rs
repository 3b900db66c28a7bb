//! What all worlds of a seed have in common: the shop, its bids, what its pictures are near to, and
//! the days before the experiment.
//!
//! Knows the shop. Does not know variants or designs.

use ams_data::Result;
use ams_data::synth::{Look, Shop, ShopDay, Shown};
use rayon::prelude::*;

use crate::config::MarketConfig;

/// Pictures that count as near to one.
const NEAREST: usize = 30;

/// A click of a user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Click {
    pub(crate) item: u32,
    /// Unix seconds.
    pub(crate) time: i64,
}

/// The shop of a seed as the experiment finds it.
pub struct Scene {
    pub(crate) config: MarketConfig,
    pub(crate) seed: u64,
    pub(crate) shop: Shop,
    /// The id of every item.
    pub(crate) names: Vec<String>,
    /// The id of every user.
    pub(crate) users: Vec<String>,
    /// Vectors of unit length of the items' pictures; empty without pictures.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// The items whose pictures are nearest to each item's, nearest first.
    pub(crate) nearest: Vec<Vec<u32>>,
    /// The log of the days before, by day, in order of time.
    before: Vec<Vec<Shown>>,
    /// Clicks of every user in these days, in order of time.
    pub(crate) histories: Vec<Vec<Click>>,
}

impl Scene {
    /// The shop of `seed`, and its days before the experiment.
    ///
    /// # Errors
    /// [`ams_data::Error::Option`] if the configuration makes no sense.
    pub fn open(config: &MarketConfig, seed: u64) -> Result<Scene> {
        config.check().map_err(ams_data::Error::option)?;
        let shop = Shop::open(config.shop_of(seed))?;
        let users = shop.config().users;
        let mut histories = vec![Vec::new(); users];
        let mut before = Vec::with_capacity(config.days_before);
        for number in 0..config.days_before {
            let day = shop.day(number);
            let of_user = |user: usize| unranked_day(&day, user as u32);
            let shown: Vec<Vec<Shown>> = (0..users).into_par_iter().map(of_user).collect();
            for (history, shown) in histories.iter_mut().zip(&shown) {
                remember(history, shown.iter().copied());
            }
            before.push(in_order(shown.into_iter().flatten()));
        }
        let names = (0..shop.items() as u32).map(|item| shop.item_name(item)).collect();
        let users = (0..users as u32).map(|user| shop.user_name(user)).collect();
        let nearest = vec![Vec::new(); shop.items()];
        Ok(Scene {
            config: config.clone(),
            seed,
            shop,
            names,
            users,
            vectors: Vec::new(),
            nearest,
            before,
            histories,
        })
    }

    /// The shop.
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// The seed of the shop.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The log of the days before, by day, in order of time.
    pub fn before(&self) -> &[Vec<Shown>] {
        &self.before
    }

    /// The first day of the experiment, counted from the first one of the shop.
    pub fn first_day(&self) -> usize {
        self.config.days_before
    }

    /// Whether an item came shortly before `day`; those of the first day of all did not come.
    pub(crate) fn is_cold(&self, item: u32, day: usize) -> bool {
        let listed = self.shop.first_day(item);
        listed > 0 && day < listed + self.config.cold_days
    }

    /// Takes a vector of the picture of every item, by which pictures are near to one another.
    ///
    /// # Panics
    /// If they are not as many as there are items.
    pub fn see(&mut self, mut vectors: Vec<Vec<f32>>) {
        assert_eq!(vectors.len(), self.shop.items(), "a vector of every item");
        center(&mut vectors);
        self.nearest = (0..vectors.len())
            .into_par_iter()
            .map(|item| {
                let mut others: Vec<(f32, u32)> = (0..vectors.len())
                    .filter(|&other| other != item)
                    .map(|other| (cosine(&vectors[item], &vectors[other]), other as u32))
                    .collect();
                others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                others.into_iter().take(NEAREST).map(|(_, item)| item).collect()
            })
            .collect();
        self.vectors = vectors;
    }
}

/// A user's day without ranking.
fn unranked_day(day: &ShopDay<'_>, user: u32) -> Vec<Shown> {
    let mut shown = Vec::new();
    for view in day.views(user) {
        for (position, item) in day.unranked(view).into_iter().enumerate() {
            let probability = day.probability(user, item, Look { position, hour: view.hour });
            let clicked = day.coin(view, item, 0) < probability;
            shown.push(Shown { view, item, position: position as u32, clicked, probability });
        }
    }
    shown
}

/// Adds what was clicked of `shown`, which is in order of time, to a history.
pub(crate) fn remember(history: &mut Vec<Click>, shown: impl Iterator<Item = Shown>) {
    let clicked = shown.filter(|shown| shown.clicked);
    history.extend(clicked.map(|Shown { view, item, .. }| Click { item, time: view.time }));
}

/// A log in order of time.
pub(crate) fn in_order(shown: impl Iterator<Item = Shown>) -> Vec<Shown> {
    let mut log: Vec<Shown> = shown.collect();
    log.sort_by_key(|shown| (shown.view.time, shown.view.user, shown.position));
    log
}

/// Takes the mean off all vectors, and makes their lengths 1; those without a direction are 0.
fn center(vectors: &mut [Vec<f32>]) {
    let width = vectors.first().map_or(0, Vec::len);
    let count = vectors.len() as f64;
    let mean: Vec<f64> = (0..width)
        .map(|at| vectors.iter().map(|it| f64::from(it[at])).sum::<f64>() / count)
        .collect();
    for vector in vectors {
        let moved: Vec<f64> = vector.iter().zip(&mean).map(|(x, m)| f64::from(*x) - m).collect();
        let length = moved.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        vector.iter_mut().zip(moved).for_each(|(x, moved)| *x = (moved * scale) as f32);
    }
}

/// The inner product of two vectors of unit length.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_days_before_are_those_of_a_shop_without_ranking() {
        let config = MarketConfig::quick();
        let scene = Scene::open(&config, 3).unwrap();
        assert_eq!(scene.before().len(), 2);
        let log: Vec<Shown> = scene.before().concat();
        assert!(log.is_sorted_by_key(|shown| shown.view.time));
        let clicks = log.iter().filter(|shown| shown.clicked).count();
        assert_eq!(clicks, scene.histories.iter().map(Vec::len).sum::<usize>());
        let rate = clicks as f64 / log.len() as f64;
        assert!((rate - config.shop.click_rate).abs() < 0.03, "{rate}");
    }

    #[test]
    fn the_nearest_pictures_are_those_with_the_largest_cosine() {
        let mut scene = Scene::open(&MarketConfig::quick(), 1).unwrap();
        let angle = |item: usize| item as f32 * 0.01;
        let items = scene.shop().items();
        scene.see((0..items).map(|item| vec![angle(item).cos(), angle(item).sin()]).collect());
        assert_eq!(scene.nearest[0].len(), NEAREST);
        assert_eq!(scene.nearest[0][0], 1);
        assert!(scene.vectors.iter().all(|it| (cosine(it, it) - 1.0).abs() < 1e-5));
    }
}
