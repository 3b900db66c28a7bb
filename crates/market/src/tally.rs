//! What happened to a variant in a world, day by day.
//!
//! Knows impressions. Does not know rankings, nor other variants.

use ams_data::synth::Shown;

use crate::lift::Sums;
use crate::page::{Impression, PageSums, UserDay};
use crate::scene::Scene;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// What one variant did in a world.
pub(crate) struct Tally {
    /// By day of the experiment, by user; all zeros for users of another variant.
    pub(crate) users: Vec<Vec<Sums>>,
    /// By day.
    pub(crate) pages: Vec<PageSums>,
    /// Impressions of every item.
    pub(crate) items: Vec<u64>,
    pub(crate) cold: Cold,
    /// Days since the listing of what was shown, summed over impressions.
    pub(crate) item_age: f64,
    /// By day: nights since the version that serves learned.
    pub(crate) model_age: Vec<usize>,
}

/// Items that came shortly before they were shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cold {
    pub(crate) impressions: f64,
    pub(crate) clicks: f64,
    /// Predicted and true rates, both at the top of a page.
    pub(crate) rate: f64,
    pub(crate) truth: f64,
    /// By item: days from its listing to the impression after which it counts as known.
    pub(crate) known_after: Vec<Option<f64>>,
}

impl Tally {
    pub(crate) fn new(scene: &Scene) -> Tally {
        let items = scene.shop.items();
        Tally {
            users: Vec::new(),
            pages: Vec::new(),
            items: vec![0; items],
            cold: Cold { known_after: vec![None; items], ..Cold::default() },
            item_age: 0.0,
            model_age: Vec::new(),
        }
    }

    /// Adds a day: what each user did, none of whom belong to another variant, and the impressions
    /// in order of time.
    pub(crate) fn day(
        &mut self,
        scene: &Scene,
        number: usize,
        users: &[Option<UserDay>],
        model_age: usize,
    ) {
        let sums = |day: &Option<UserDay>| day.as_ref().map_or_else(Sums::default, |it| it.sums);
        self.users.push(users.iter().map(sums).collect());
        let mut pages = PageSums::default();
        users.iter().flatten().for_each(|day| pages.add(&day.pages));
        self.pages.push(pages);
        self.model_age.push(model_age);
        let mut shown: Vec<&Impression> =
            users.iter().flatten().flat_map(|day| &day.shown).collect();
        shown.sort_by_key(|it| (it.shown.view.time, it.shown.view.user, it.shown.position));
        shown.into_iter().for_each(|it| self.impression(scene, number, it));
    }

    fn impression(&mut self, scene: &Scene, number: usize, impression: &Impression) {
        let Shown { view, item, clicked, .. } = impression.shown;
        let (at, listed) = (item as usize, scene.shop.first_day(item));
        self.items[at] += 1;
        let age = (view.time - scene.shop.midnight(listed)) as f64 / SECONDS_PER_DAY;
        self.item_age += age;
        if is_new(scene, item) && self.items[at] == u64::from(scene.config.cold_impressions) {
            self.cold.known_after[at] = Some(age);
        }
        if scene.is_cold(item, number) {
            self.cold.impressions += 1.0;
            self.cold.clicks += f64::from(u8::from(clicked));
            self.cold.rate += impression.rate;
            self.cold.truth += impression.top;
        }
    }
}

/// Whether an item came during the experiment.
pub(crate) fn is_new(scene: &Scene, item: u32) -> bool {
    scene.shop.first_day(item) >= scene.first_day()
}

/// The Gini coefficient of impressions of items: 0 if all have as many, near 1 if one has all.
pub(crate) fn gini(mut values: Vec<u64>) -> Option<f64> {
    values.sort_unstable();
    let (count, sum) = (values.len() as f64, values.iter().sum::<u64>() as f64);
    let weighted: f64 = (1..).zip(&values).map(|(rank, &it)| f64::from(rank) * it as f64).sum();
    (sum > 0.0).then(|| 2.0 * weighted / (count * sum) - (count + 1.0) / count)
}

/// The share that the hundredth of the items with the most impressions has; at least one item.
pub(crate) fn top_share(mut values: Vec<u64>) -> Option<f64> {
    values.sort_unstable_by(|a, b| b.cmp(a));
    let sum = values.iter().sum::<u64>() as f64;
    let top = values.len().div_ceil(100);
    (sum > 0.0).then(|| values[..top].iter().sum::<u64>() as f64 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concentration_is_that_of_the_definition() {
        let slow = |values: &[u64]| {
            let differences: u64 =
                values.iter().flat_map(|a| values.iter().map(move |b| a.abs_diff(*b))).sum();
            let (count, sum) = (values.len() as f64, values.iter().sum::<u64>() as f64);
            differences as f64 / (2.0 * count * sum)
        };
        for values in [vec![3, 3, 3], vec![0, 0, 9], vec![5, 1, 7, 7, 0, 2]] {
            assert!((gini(values.clone()).unwrap() - slow(&values)).abs() < 1e-12, "{values:?}");
        }
        assert_eq!(gini(vec![0, 0]), None);
        let hundreds = (0..200).map(|item| if item < 2 { 50 } else { 1 }).collect();
        assert_eq!(top_share(hundreds), Some(100.0 / 298.0));
    }
}
