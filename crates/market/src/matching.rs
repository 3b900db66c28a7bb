//! Match: the candidates of a page view, and the cheap score that leaves some of them.
//!
//! Knows the catalogue, the log that a variant learns from, and a user's clicks. Does not know the
//! models. Draws are those of the page view, so two variants that know the same have the same
//! candidates.

use ams_data::synth::{Dice, Shown, running_sums};

use crate::scene::{Click, Scene};

/// Clicks of a user, the newest, that candidates are drawn for.
const NEWEST: usize = 10;

/// Draws, per candidate, until a page view goes without the rest.
const PATIENCE: usize = 8;

/// Impressions at the average rate that every item is taken to have had.
const PRIOR: f64 = 20.0;

/// What a variant's log tells of the items.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    clicks: Vec<f64>,
    impressions: Vec<f64>,
}

impl Known {
    pub(crate) fn new(items: usize) -> Known {
        Known { clicks: vec![0.0; items], impressions: vec![0.0; items] }
    }

    pub(crate) fn learn(&mut self, log: &[Shown]) {
        for shown in log {
            self.impressions[shown.item as usize] += 1.0;
            self.clicks[shown.item as usize] += f64::from(u8::from(shown.clicked));
        }
    }
}

/// The items of one day, ready to be drawn.
pub(crate) struct Matching<'a> {
    scene: &'a Scene,
    listed: Vec<u32>,
    /// Running sums over `listed`.
    popularity: Vec<f64>,
    is_listed: Vec<bool>,
    by_category: Vec<Vec<u32>>,
    /// By item: the click-through rate that the log shows, drawn to the average.
    rates: Vec<f64>,
}

/// Buffers of a thread.
#[derive(Default)]
pub(crate) struct Marks {
    seen: Vec<u32>,
    round: u32,
}

impl Marks {
    fn begin(&mut self, items: usize) {
        self.seen.resize(items, 0);
        self.round = self.round.wrapping_add(1);
        if self.round == 0 {
            self.seen.fill(0);
            self.round = 1;
        }
    }

    /// Whether `item` is new in this round.
    fn is_first(&mut self, item: u32) -> bool {
        let seen = &mut self.seen[item as usize];
        std::mem::replace(seen, self.round) != self.round
    }
}

impl<'a> Matching<'a> {
    pub(crate) fn of_day(scene: &'a Scene, known: &Known, day: usize) -> Matching<'a> {
        let items = scene.shop.items();
        let is_listed: Vec<bool> =
            (0..items as u32).map(|item| scene.shop.is_listed(item, day)).collect();
        let listed: Vec<u32> = (0..items as u32).filter(|&it| is_listed[it as usize]).collect();
        let mut by_category = vec![Vec::new(); scene.shop.categories()];
        listed.iter().for_each(|&item| by_category[scene.shop.category(item)].push(item));
        let clicks: f64 = known.clicks.iter().sum();
        let average = (clicks + 1.0) / (known.impressions.iter().sum::<f64>() + 10.0);
        let rates = known.clicks.iter().zip(&known.impressions);
        let rates = rates.map(|(c, n)| (c + PRIOR * average) / (n + PRIOR)).collect();
        let popularity = running_sums(listed.iter().map(|&it| known.clicks[it as usize] + 1.0));
        Matching { scene, listed, popularity, is_listed, by_category, rates }
    }

    /// Overwrites `candidates` with different items; all that are listed, in a small shop.
    pub(crate) fn candidates(
        &self,
        dice: &mut Dice,
        history: &[Click],
        marks: &mut Marks,
        candidates: &mut Vec<u32>,
    ) {
        let wanted = self.scene.config.candidates;
        candidates.clear();
        if self.listed.len() <= wanted {
            candidates.extend_from_slice(&self.listed);
            return;
        }
        marks.begin(self.is_listed.len());
        for _ in 0..PATIENCE * wanted {
            let item = self.draw(dice, history);
            if self.is_listed[item as usize] && marks.is_first(item) {
                candidates.push(item);
                if candidates.len() == wanted {
                    break;
                }
            }
        }
    }

    fn draw(&self, dice: &mut Dice, history: &[Click]) -> u32 {
        let sources = &self.scene.config.sources;
        let source = dice.unit();
        let newest = &history[history.len().saturating_sub(NEWEST)..];
        if source >= sources.popularity && !newest.is_empty() {
            let clicked = newest[dice.below(newest.len())].item;
            let from = if source < sources.popularity + sources.category {
                &self.by_category[self.scene.shop.category(clicked)]
            } else {
                &self.scene.nearest[clicked as usize]
            };
            if !from.is_empty() {
                return from[dice.below(from.len())];
            }
        }
        self.listed[dice.weighted(&self.popularity)]
    }

    /// Keeps the candidates with the highest cheap score, bid times the rate that the log shows,
    /// best first; equal ones by item.
    pub(crate) fn pre_rank(&self, bids: &[f64], candidates: &mut Vec<u32>) {
        let score = |item: u32| bids[item as usize] * self.rates[item as usize];
        candidates.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
        candidates.truncate(self.scene.config.pre_ranked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MarketConfig;
    use ams_data::synth::Entity;

    #[test]
    fn candidates_are_listed_different_and_from_all_sources() {
        let config = MarketConfig { candidates: 30, pre_ranked: 10, ..MarketConfig::quick() };
        let mut scene = Scene::open(&config, 1).unwrap();
        let items = scene.shop().items();
        scene.see((0..items).map(|it| vec![(it as f32).sin(), (it as f32).cos()]).collect());
        let mut known = Known::new(items);
        scene.before().iter().for_each(|day| known.learn(day));
        let matching = Matching::of_day(&scene, &known, 2);
        let (mut marks, mut candidates) = (Marks::default(), Vec::new());
        let history = [Click { item: 5, time: 0 }];
        let (mut of_category, mut near, mut count) = (0, 0, 0);
        for page in 0..200 {
            let mut dice = Dice::new(1, Entity::Matching, page, 0);
            matching.candidates(&mut dice, &history, &mut marks, &mut candidates);
            assert_eq!(candidates.len(), 30);
            let mut sorted = candidates.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 30);
            assert!(candidates.iter().all(|&it| scene.shop.is_listed(it, 2)));
            let category = scene.shop.category(5);
            count += 30;
            of_category +=
                candidates.iter().filter(|&&it| scene.shop.category(it) == category).count();
            near += candidates.iter().filter(|it| scene.nearest[5].contains(it)).count();
            let bids = vec![1.0; items];
            matching.pre_rank(&bids, &mut candidates);
            let rates: Vec<f64> =
                candidates.iter().map(|&it| matching.rates[it as usize]).collect();
            assert!(rates.len() == 10 && rates.is_sorted_by(|a, b| a >= b));
        }
        let share = |of: usize| of as f64 / f64::from(count);
        // An eighth and a seventh if they were drawn like any others.
        assert!(share(of_category) > 0.25 && share(near) > 0.25, "{of_category} {near} {count}");
    }
}
