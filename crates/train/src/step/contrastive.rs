//! A contrastive loss beside that of the clicks: images that one user engages with have like
//! embeddings.
//!
//! A pair is the image of a click and one of its history, chosen by a hash. The other pairs of the
//! micro-batch are negatives, but for those of the same user or with an image of it. The loss is
//! that of an alignment ([`ams_model::align`]), of the embeddings of the tower that both images go
//! through. These are at the worker, and so are their gradients on their way back.

use ams_data::{Groups, ImageKey, part_of};
use ams_model::align::{self, Pairs, Rows};
use ams_model::linalg;
use ams_model::rank::ContentGrads;

use crate::setup::network::ContrastiveSettings;
use crate::step::draws::{Draws, Purpose};

const DAY: f64 = 86_400.0;

/// The images of a micro-batch, and their embeddings.
#[derive(Clone, Copy)]
pub(crate) struct Embedded<'a> {
    /// The images of ads, (B), and of behaviors, (N).
    pub keys: [&'a [ImageKey]; 2],
    /// Their places among the embeddings.
    pub places: [&'a [u32]; 2],
    /// Unique embeddings; (U, D).
    pub embeddings: &'a [f32],
    /// Width of an embedding (D).
    pub width: usize,
}

/// The pairs of a worker's micro-batch (P).
#[derive(Debug, Default)]
pub(crate) struct Contrastive {
    pairs: Pairs,
    /// Places of both images of each pair among the embeddings; (P).
    places: Vec<[u32; 2]>,
    /// Lengths of their embeddings; (P).
    lengths: [Vec<f32>; 2],
    rows: Rows,
}

impl Contrastive {
    /// The weighted sum of the losses of all pairs of `groups`, and the sum of the weights. Adds
    /// the gradient of `scale` times their quotient to `grads`.
    pub(crate) fn run(
        &mut self,
        settings: &ContrastiveSettings,
        groups: &Groups,
        embedded: Embedded<'_>,
        draws: Draws,
        scale: f32,
        grads: &mut ContentGrads,
    ) -> [f64; 2] {
        self.find(groups, embedded, settings.decay_days, draws);
        if self.pairs.is_empty() {
            return [0.0; 2];
        }
        let Embedded { embeddings, width, .. } = embedded;
        let Contrastive { pairs, places, lengths, rows } = self;
        for (which, to) in [&mut pairs.a, &mut pairs.b].into_iter().enumerate() {
            for place in &*places {
                to.extend_from_slice(&embeddings[place[which] as usize * width..][..width]);
            }
            align::unit(width, to, &mut lengths[which]);
        }
        let (all, temperature) = (0..pairs.len(), settings.temperature);
        let loss = rows.scores(pairs, all.clone(), width, temperature);
        let sums = std::mem::take(&mut rows.sums);
        rows.backward(pairs, all, width, temperature, &sums);
        rows.sums = sums;
        align::unit_backward(width, &pairs.a, &lengths[0], &mut rows.da);
        align::unit_backward(width, &pairs.b, &lengths[1], &mut rows.db);
        let ContentGrads { dad_embeddings, dbehavior_embeddings } = grads;
        for (which, (from, to)) in
            [(&rows.da, dad_embeddings), (&rows.db, dbehavior_embeddings)].into_iter().enumerate()
        {
            for (place, d) in places.iter().zip(from.chunks_exact(width)) {
                linalg::axpy(scale, d, &mut to[place[which] as usize * width..][..width]);
            }
        }
        loss
    }

    /// Finds the pairs, without their embeddings.
    fn find(&mut self, groups: &Groups, embedded: Embedded<'_>, decay_days: f32, draws: Draws) {
        let Embedded { keys: [ads, behaviors], places: [of_ads, of_behaviors], .. } = embedded;
        let Contrastive { pairs, places, .. } = self;
        pairs.clear();
        places.clear();
        for group in 0..groups.len() {
            let clicks = groups.impressions.range(group).filter(|&at| groups.labels[at] != 0);
            for click in clicks.filter(|&at| ads[at].is_some()) {
                let other = |at: &usize| behaviors[*at].is_some() && behaviors[*at] != ads[click];
                let past = || groups.behaviors.range(group).filter(other);
                let throw = draws.throw(Purpose::Pairs, click, 0);
                let Some(behavior) = past().nth(part_of(throw, past().count())) else { continue };
                let gap = groups.times[click].saturating_sub(groups.behavior_times[behavior]);
                let days = gap.max(0) as f64 / DAY;
                pairs.users.push(groups.users[group].0);
                pairs.items.push([ads[click].0, behaviors[behavior].0]);
                pairs.weights.push((-days / f64::from(decay_days)).exp() as f32);
                places.push([of_ads[click], of_behaviors[behavior]]);
            }
        }
        // Over the root of the number of the user's pairs, as in an alignment.
        let of_user = |user: &u64| pairs.users.iter().filter(|other| *other == user).count();
        let counts: Vec<usize> = pairs.users.iter().map(of_user).collect();
        for (weight, count) in pairs.weights.iter_mut().zip(counts) {
            *weight /= (count as f32).sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use ams_data::{Id, Ragged};

    use super::*;

    const D: usize = 3;

    const SETTINGS: ContrastiveSettings =
        ContrastiveSettings { tower: 0, weight: 1.0, temperature: 0.25, decay_days: 30.0 };

    /// Images and their labels.
    type Shown<'a> = &'a [(u64, u8)];

    /// Users 1, 2, 1 and 3; images are their own places plus 1, 0 is none.
    fn groups() -> (Groups, [Vec<ImageKey>; 2]) {
        let mut groups = Groups { ad_fields: vec![Ragged::default()], ..Groups::default() };
        let log: [(u64, &[u64], Shown<'_>); 4] = [
            (1, &[1, 2, 0], &[(3, 1), (4, 0)]),
            (2, &[4, 5], &[(5, 1), (0, 1), (6, 1)]),
            (1, &[2], &[(1, 1), (2, 1)]),
            (3, &[], &[(4, 1)]),
        ];
        let mut keys = [Vec::new(), Vec::new()];
        for (user, history, shown) in log {
            groups.users.push(Id(user));
            groups.behaviors.push(history.len());
            groups.impressions.push(shown.len());
            for (nth, image) in history.iter().enumerate() {
                keys[1].push(ImageKey(*image));
                groups.behavior_times.push(86_400 * (10 - nth as i64));
            }
            for (image, label) in shown {
                keys[0].push(ImageKey(*image));
                groups.labels.push(*label);
                groups.times.push(86_400 * 12);
            }
        }
        (groups, keys)
    }

    /// The loss and its weights, and the gradients of ads and behaviors.
    fn run(embeddings: &[f32], seed: u64, scale: f32) -> (Contrastive, [f64; 2], ContentGrads) {
        let (groups, keys) = groups();
        let places = keys.each_ref().map(|keys| -> Vec<u32> {
            keys.iter().map(|key| (key.0 as u32).wrapping_sub(1)).collect()
        });
        let embedded = Embedded {
            keys: keys.each_ref().map(|keys| &keys[..]),
            places: places.each_ref().map(|places| &places[..]),
            embeddings,
            width: D,
        };
        let mut grads = ContentGrads {
            dad_embeddings: vec![0.0; embeddings.len()],
            dbehavior_embeddings: vec![0.0; embeddings.len()],
        };
        let draws = Draws { step_seed: seed, lane: 2 };
        let mut of = Contrastive::default();
        let loss = of.run(&SETTINGS, &groups, embedded, draws, scale, &mut grads);
        (of, loss, grads)
    }

    fn embeddings() -> Vec<f32> {
        (0..6 * D).map(|at| ((at * at * 7 + 3 * at) % 19) as f32 / 8.0 - 1.1).collect()
    }

    #[test]
    fn pairs_are_clicks_with_an_image_of_their_history() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let (of, ..) = run(&embeddings(), seed, 1.0);
            assert_eq!(of.pairs.users, [1, 2, 2, 1]);
            seen.extend(of.pairs.items.iter().copied());
            let weight = |pair: usize, day: f64| {
                let expected = (-(12.0 - day) / 30.0).exp() / 2f64.sqrt();
                assert!((f64::from(of.pairs.weights[pair]) - expected).abs() < 1e-6);
            };
            weight(0, if of.pairs.items[0][1] == 1 { 10.0 } else { 9.0 });
            weight(3, 10.0);
        }
        // Not the click's own image, nor those that are missing.
        assert_eq!(Vec::from_iter(seen), [[1, 2], [3, 1], [3, 2], [5, 4], [6, 4], [6, 5]]);
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let x = embeddings();
        let (_, _, grads) = run(&x, 5, 0.5);
        let mean = |x: &[f32]| {
            let (_, [sum, weights], _) = run(x, 5, 0.0);
            0.5 * sum / weights
        };
        for at in 0..x.len() {
            let moved = |by: f32| {
                let mut x = x.clone();
                x[at] += by;
                mean(&x)
            };
            let slope = (moved(3e-3) - moved(-3e-3)) / 6e-3;
            let found = f64::from(grads.dad_embeddings[at] + grads.dbehavior_embeddings[at]);
            assert!((slope - found).abs() < 2e-3 * (1.0 + slope.abs()), "{at}: {slope} {found}");
        }
        assert!(grads.dad_embeddings.iter().any(|d| d.abs() > 1e-2));
    }
}
