//! Negatives of clicks from the same micro-batch, for the pre-rank network.
//!
//! Every draw is a hash of (seed, step, lane, impression, draw), so it is the same wherever the
//! lane is computed. A negative is an impression of another user, with an item that the click's
//! group neither shows nor has in its history; the negatives of a click are different impressions.

use ams_data::{Groups, part_of};
use ams_model::rank::Negatives;

use crate::step::draws::{Draws, Purpose};
use crate::step::items::{Items, Popularity};

/// Tries of a draw before the next impression that may be one is taken.
const TRIES: u64 = 32;

/// The negatives of a worker's micro-batch.
#[derive(Debug, Default)]
pub(crate) struct InBatch {
    /// The shares of the lane's items.
    pub popularity: Popularity,
    /// What was drawn.
    pub negatives: Negatives,
    /// The item of each impression; (B).
    items: Vec<Option<u64>>,
    /// The group of each impression; (B).
    group_of: Vec<u32>,
    /// Items that the group at work knows.
    known: Vec<u64>,
    /// The last click, counted from 1, that each impression is a negative of; (B).
    taken: Vec<u32>,
}

impl InBatch {
    /// Draws `count` negatives, or as many as there are, for each click of `groups`.
    pub(crate) fn draw(&mut self, groups: &Groups, columns: Items, count: usize, draws: Draws) {
        let InBatch { popularity, negatives, items, group_of, known, taken } = self;
        negatives.clear();
        let all = groups.labels.len();
        items.clear();
        items.extend((0..all).map(|at| columns.shown(groups, at)));
        let log_share = |item: &Option<u64>| item.map_or(0.0, |item| popularity.log_share(item));
        negatives.log_shares.extend(items.iter().map(log_share));
        group_of.clear();
        for group in 0..groups.len() {
            group_of.extend(groups.impressions.range(group).map(|_| group as u32));
        }
        taken.clear();
        taken.resize(all, 0);
        for group in 0..groups.len() {
            let shown = groups.impressions.range(group);
            let mut clicks = shown.filter(|&at| groups.labels[at] != 0 && items[at].is_some());
            let Some(first) = clicks.next() else { continue };
            columns.known(groups, group, known);
            for click in std::iter::once(first).chain(clicks) {
                let number = negatives.clicks.len() as u32 + 1;
                for nth in 0..count as u64 {
                    let fits = |&at: &usize| {
                        let is_new = |item| known.binary_search(&item).is_err();
                        let other = groups.users[group_of[at] as usize] != groups.users[group];
                        other && taken[at] != number && items[at].is_some_and(is_new)
                    };
                    let throw = |of: u64| {
                        part_of(draws.throw(Purpose::Negatives, click, nth * (TRIES + 1) + of), all)
                    };
                    let found = (0..TRIES).map(throw).find(fits).or_else(|| {
                        let start = throw(TRIES);
                        (start..all).chain(0..start).find(fits)
                    });
                    let Some(found) = found else { break };
                    taken[found] = number;
                    negatives.drawn.push(found as u32);
                }
                negatives.seal([group as u32, click as u32]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ams_data::{Id, Ragged};

    use super::*;

    /// Of each group its user, the items of its history, and those it shows with their labels.
    type Log<'a> = &'a [(u64, &'a [u64], &'a [(u64, u8)])];

    fn groups_of(of: Log<'_>) -> (Groups, Items) {
        let mut groups = Groups {
            ad_fields: vec![Ragged::default()],
            behavior_fields: vec![Ragged::default()],
            ..Groups::default()
        };
        for (user, history, shown) in of {
            groups.users.push(Id(*user));
            for item in *history {
                groups.behavior_fields[0].push(&[Id(*item)]);
            }
            groups.behaviors.push(history.len());
            for (item, label) in *shown {
                groups.ad_fields[0].push(&[Id(*item)]);
                groups.labels.push(*label);
            }
            groups.impressions.push(shown.len());
        }
        (groups, Items::at(0, 0))
    }

    fn of_click(negatives: &Negatives, click: usize) -> &[u32] {
        let ends = &negatives.starts[click..click + 2];
        &negatives.drawn[ends[0] as usize..ends[1] as usize]
    }

    #[test]
    fn negatives_are_of_other_users_and_unknown_to_the_group() {
        let (groups, items) = groups_of(&[
            (1, &[10, 11], &[(12, 1), (13, 0)]),
            (2, &[], &[(11, 0), (14, 1), (15, 0)]),
            (1, &[], &[(16, 0), (17, 0)]),
            (3, &[14], &[(12, 0), (18, 1), (14, 0), (19, 0)]),
        ]);
        let mut drawn: Vec<BTreeSet<u32>> = vec![BTreeSet::new(); 3];
        let popularity = Popularity::new([(12, 1), (14, 3)].into_iter(), 8);
        let mut in_batch = InBatch { popularity, ..InBatch::default() };
        for step_seed in 0..200 {
            in_batch.draw(&groups, items, 2, Draws { step_seed, lane: 3 });
            let negatives = &in_batch.negatives;
            assert_eq!(negatives.clicks, [[0, 0], [1, 3], [3, 8]]);
            for (click, all) in drawn.iter_mut().enumerate() {
                let [one, two] = of_click(negatives, click) else { panic!("two each") };
                assert_ne!(one, two);
                all.extend([one, two]);
            }
        }
        // By hand: places of what is left for users 1, 2 and 3.
        let expected: [&[u32]; 3] = [&[3, 4, 8, 9, 10], &[0, 1, 5, 6, 7, 8, 10], &[1, 2, 4, 5, 6]];
        let expected = expected.map(|places| places.iter().copied().collect::<BTreeSet<u32>>());
        assert_eq!(drawn, expected);
        // A share of three eighths; who was not counted was shown once.
        let log = |share: f64| share.ln() as f32;
        assert_eq!(in_batch.negatives.log_shares[3], log(0.375));
        assert_eq!(in_batch.negatives.log_shares[0], log(0.125));
        // As many as there are.
        in_batch.draw(&groups, items, 100, Draws { step_seed: 1, lane: 3 });
        let all: Vec<usize> =
            (0..3).map(|click| of_click(&in_batch.negatives, click).len()).collect();
        assert_eq!(all, [5, 7, 5]);
        in_batch.draw(&groups_of(&[]).0, items, 2, Draws { step_seed: 1, lane: 0 });
        assert_eq!(in_batch.negatives, Negatives::default());
    }

    #[test]
    fn draws_depend_on_step_lane_and_impression_and_are_even() {
        let shown: Vec<(u64, u8)> = (100..120).map(|item| (item, 0)).collect();
        let (groups, items) = groups_of(&[(1, &[], &[(1, 1), (2, 1)]), (2, &[], &shown)]);
        let mut in_batch = InBatch::default();
        let mut draw = |step_seed, lane| {
            in_batch.draw(&groups, items, 1, Draws { step_seed, lane });
            in_batch.negatives.drawn.clone()
        };
        let first: Vec<Vec<u32>> = (0..4000).map(|seed| draw(seed, 0)).collect();
        assert_eq!(first, (0..4000).map(|seed| draw(seed, 0)).collect::<Vec<_>>());
        let other: Vec<Vec<u32>> = (0..4000).map(|seed| draw(seed, 1)).collect();
        let same =
            |pairs: &mut dyn Iterator<Item = (u32, u32)>| pairs.filter(|(a, b)| a == b).count();
        assert!(same(&mut first.iter().zip(&other).map(|(a, b)| (a[0], b[0]))) < 300);
        assert!(same(&mut first.iter().map(|both| (both[0], both[1]))) < 300);
        for place in 2..22 {
            let times = first.iter().flatten().filter(|at| **at == place).count();
            assert!((300..500).contains(&times), "{place}: {times} of 8000");
        }
    }
}
