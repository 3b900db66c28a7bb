//! A user's day: page views, each with candidates, a ranking, an auction, and what the user does.
//!
//! Knows everything about one user on one day. Does not know other users, nor the days.

use std::collections::BTreeMap;

use ams_bundle::PageView;
use ams_bundle::request::{Cell, Text};
use ams_data::synth::{Entity, Look, ShopDay, Shown, View};

use crate::auction::rank;
use crate::explored::Explored;
use crate::lift::Sums;
use crate::matching::{Marks, Matching};
use crate::scene::{Click, Scene, cosine, remember};
use crate::variant::Desk;

/// An item that was shown, with what the market knows of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Impression {
    pub(crate) shown: Shown,
    /// The predicted click-through rate, which is that of the top of a page.
    pub(crate) rate: f64,
    /// The true one there.
    pub(crate) top: f64,
}

/// Sums over page views.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PageSums {
    /// Page views.
    pub(crate) pages: f64,
    /// Bids times true probabilities of what was shown, and of the best page of the candidates.
    pub(crate) value: f64,
    pub(crate) best: f64,
    /// Predicted and true rates at the top of the page, of the candidates that were ranked.
    pub(crate) ranked_rate: f64,
    pub(crate) ranked_truth: f64,
    /// The same of those that were shown.
    pub(crate) shown_rate: f64,
    pub(crate) shown_truth: f64,
    /// 1 - cosine over pairs of pictures of a page, and how many pairs.
    pub(crate) apart: f64,
    pub(crate) pairs: f64,
}

impl PageSums {
    pub(crate) fn add(&mut self, other: &PageSums) {
        let of_other = [
            other.pages,
            other.value,
            other.best,
            other.ranked_rate,
            other.ranked_truth,
            other.shown_rate,
            other.shown_truth,
            other.apart,
            other.pairs,
        ];
        let sums = [
            &mut self.pages,
            &mut self.value,
            &mut self.best,
            &mut self.ranked_rate,
            &mut self.ranked_truth,
            &mut self.shown_rate,
            &mut self.shown_truth,
            &mut self.apart,
            &mut self.pairs,
        ];
        sums.into_iter().zip(of_other).for_each(|(sum, other)| *sum += other);
    }
}

/// What a user did on a day.
#[derive(Debug, Default)]
pub(crate) struct UserDay {
    pub(crate) shown: Vec<Impression>,
    pub(crate) sums: Sums,
    pub(crate) pages: PageSums,
    pub(crate) explored: Vec<Explored>,
}

/// What all users of a variant meet on a day.
pub(crate) struct Traffic<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) day: &'a ShopDay<'a>,
    pub(crate) matching: &'a Matching<'a>,
    /// By item.
    pub(crate) bids: &'a [f64],
}

/// Buffers of a thread.
#[derive(Default)]
pub(crate) struct Buffers {
    marks: Marks,
    candidates: Vec<u32>,
    rates: Vec<f32>,
    order: Vec<u32>,
    page: PageView,
}

impl Traffic<'_> {
    /// The day of `user`, whose clicks are added to `history`.
    pub(crate) fn user_day(
        &self,
        user: u32,
        history: &mut Vec<Click>,
        desk: &mut dyn Desk,
        buffers: &mut Buffers,
    ) -> Result<UserDay, String> {
        let mut day = UserDay::default();
        for view in self.day.views(user) {
            let first = day.shown.len();
            self.page(view, history, desk, buffers, &mut day)?;
            remember(history, day.shown[first..].iter().map(|it| it.shown));
        }
        Ok(day)
    }

    fn page(
        &self,
        view: View,
        history: &[Click],
        desk: &mut dyn Desk,
        buffers: &mut Buffers,
        day: &mut UserDay,
    ) -> Result<(), String> {
        let Buffers { marks, candidates, rates, order, page } = buffers;
        let config = &self.scene.config;
        let mut dice = self.day.dice(Entity::Matching, view);
        self.matching.candidates(&mut dice, history, marks, candidates);
        let places = config.shop.items_per_page;
        let best = self.best_page(view, candidates, places);
        self.matching.pre_rank(self.bids, candidates);
        self.ask(view, history, candidates, page);
        desk.rates(page, rates)?;
        if rates.len() != candidates.len() {
            let (got, expected) = (rates.len(), candidates.len());
            return Err(format!("{got} rates for {expected} candidates"));
        }
        let bids: Vec<f64> = candidates.iter().map(|&item| self.bids[item as usize]).collect();
        rank(&bids, rates, order);
        let ranked = order.clone();
        let mut dice = self.day.dice(Entity::Exploration, view);
        let explores = dice.happens(config.exploration.share);
        let is_random = explores && dice.happens(config.exploration.random);
        // What a place costs is decided by the ranking; a place by chance costs the reserve.
        let prices = if is_random {
            *order = dice.permutation(order.len());
            vec![
                if config.is_first_price() { f64::INFINITY } else { config.auction.reserve };
                places
            ]
        } else {
            config.auction.prices(order, &bids, rates, places)
        };
        let mut sums = PageSums { pages: 1.0, best, ..PageSums::default() };
        for (&item, &rate) in candidates.iter().zip(&*rates) {
            let at = Look { position: 0, hour: view.hour };
            sums.ranked_rate += f64::from(rate);
            sums.ranked_truth += self.day.probability(view.user, item, at);
        }
        let first = day.shown.len();
        for (position, (&at, &price)) in order.iter().zip(&prices).take(places).enumerate() {
            let (item, bid) = (candidates[at as usize], bids[at as usize]);
            let rate = f64::from(rates[at as usize]);
            let impression = self.show(view, item, position, rate);
            day.sums.add(&self.earned(&impression, price.min(bid)));
            sums.value += bid * impression.shown.probability;
            sums.shown_rate += rate;
            sums.shown_truth += impression.top;
            day.shown.push(impression);
        }
        self.look_apart(&day.shown[first..], &mut sums);
        day.pages.add(&sums);
        if explores {
            let shown: Vec<Shown> = day.shown[first..].iter().map(|it| it.shown).collect();
            let bids = shown.iter().map(|it| self.bids[it.item as usize]).collect();
            let ranked = ranked.iter().map(|&at| candidates[at as usize]).collect();
            let mut explored = Explored {
                view,
                candidates: candidates.clone(),
                ranked,
                shown,
                bids,
                random: config.exploration.random,
                truths: Vec::new(),
            };
            let truths = |position| {
                let at = Look { position, hour: view.hour };
                let of = |item| self.day.probability(view.user, item, at);
                explored.left(position).map(of).collect()
            };
            explored.truths = (0..explored.shown.len()).map(truths).collect();
            day.explored.push(explored);
        }
        Ok(())
    }

    /// Overwrites `page` with the request for the candidates.
    fn ask(&self, view: View, history: &[Click], candidates: &[u32], page: &mut PageView) {
        let scene = self.scene;
        let text = |text: &str| Some(Cell::One(Text(text.to_owned())));
        let fields = scene.shop.user_fields(view.user);
        page.user.id = Some(Text(scene.users[view.user as usize].clone()));
        page.user.features =
            fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
        // Strictly earlier: a click of this second is not known yet.
        let known = history.partition_point(|click| click.time < view.time);
        let newest = history[..known].iter().rev().take(scene.config.behaviors);
        let behaviors = &mut page.user.behaviors;
        behaviors.item.clear();
        behaviors.item.extend(newest.clone().map(|it| self.text_of(it.item)));
        behaviors.time = Some(newest.map(|click| Some(click.time)).collect());
        page.time = Some(view.time);
        page.context = BTreeMap::from([
            ("hour".to_owned(), text(&view.hour.to_string())),
            ("position".to_owned(), text("0")),
        ]);
        page.candidates.item.clear();
        page.candidates.item.extend(candidates.iter().map(|&item| self.text_of(item)));
    }

    fn text_of(&self, item: u32) -> Text {
        Text(self.scene.names[item as usize].clone())
    }

    fn show(&self, view: View, item: u32, position: usize, rate: f64) -> Impression {
        let probability =
            |position| self.day.probability(view.user, item, Look { position, hour: view.hour });
        let truth = probability(position);
        let clicked = self.day.coin(view, item, 0) < truth;
        let shown = Shown { view, item, position: position as u32, clicked, probability: truth };
        Impression { shown, rate, top: probability(0) }
    }

    /// What an impression brought in, and what it could be expected to.
    fn earned(&self, impression: &Impression, price: f64) -> Sums {
        let Shown { view, item, clicked, probability, .. } = impression.shown;
        let conversion = self.scene.config.conversion;
        let (cost, buys) = (self.scene.shop.price(item), self.day.coin(view, item, 1) < conversion);
        let clicks = f64::from(u8::from(clicked));
        let cold = f64::from(u8::from(self.scene.is_cold(item, self.day.number())));
        Sums {
            impressions: 1.0,
            clicks,
            revenue: clicks * price,
            merchandise: if clicked && buys { cost } else { 0.0 },
            expected_clicks: probability,
            expected_revenue: probability * price,
            expected_merchandise: probability * conversion * cost,
            cold_impressions: cold,
            cold_clicks: cold * clicks,
            expected_cold_clicks: cold * probability,
        }
    }

    /// Bids times true probabilities of the best page of the candidates.
    fn best_page(&self, view: View, candidates: &[u32], places: usize) -> f64 {
        let value = |item: u32, position: usize| {
            let at = Look { position, hour: view.hour };
            self.bids[item as usize] * self.day.probability(view.user, item, at)
        };
        let mut at_top: Vec<(f64, u32)> =
            candidates.iter().map(|&item| (value(item, 0), item)).collect();
        at_top.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        at_top.iter().take(places).enumerate().map(|(place, it)| value(it.1, place)).sum()
    }

    fn look_apart(&self, shown: &[Impression], sums: &mut PageSums) {
        let vectors = &self.scene.vectors;
        if vectors.is_empty() {
            return;
        }
        for (at, a) in shown.iter().enumerate() {
            for b in &shown[..at] {
                let [a, b] = [a, b].map(|it| &vectors[it.shown.item as usize]);
                sums.apart += f64::from(1.0 - cosine(a, b));
                sums.pairs += 1.0;
            }
        }
    }
}
