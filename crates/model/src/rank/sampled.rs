//! Sampled softmax for the pre-rank network: each clicked impression beside others of its batch.
//!
//! ```text
//! z(x) = u v(x) - log q(x)                     x: the click i, or one of its negatives
//! L(i) = log(sum over x of exp z(x)) - z(i)
//! ```
//! u is the user vector of the click's group, v(x) the ad vector of an impression and q(x) the
//! share of its item among all impressions. Impressions of a batch show an item as often as it is
//! shown at all, so without log q popular items would be pushed down for being drawn more often
//! (Bengio and Senecal, 2008; for batches Yi et al., RecSys 2019).

use crate::linalg::{self, zeros};

/// Clicked impressions of a batch, and other impressions as negatives of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Negatives {
    /// Group and impression of each click; (C).
    pub clicks: Vec<[u32; 2]>,
    /// Where the negatives of each click begin in `drawn`; (C + 1), empty without clicks.
    pub starts: Vec<u32>,
    /// Impressions.
    pub drawn: Vec<u32>,
    /// log q of each impression; (B).
    pub log_shares: Vec<f32>,
}

impl Negatives {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        let Negatives { clicks, starts, drawn, log_shares } = self;
        clicks.clear();
        starts.clear();
        drawn.clear();
        log_shares.clear();
    }

    /// Ends the negatives of a click, which are the last of `drawn`.
    pub fn seal(&mut self, click: [u32; 2]) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.clicks.push(click);
        self.starts.push(self.drawn.len() as u32);
    }
}

/// Gradients that a sampled softmax leaves, and its room.
#[derive(Clone, Debug, Default)]
pub(super) struct SampledGrads {
    /// Of user vectors, (G, V), and of ad vectors, (B, V); empty without a sampled softmax.
    pub users: Vec<f32>,
    pub ads: Vec<f32>,
    /// z of a click and its negatives.
    scores: Vec<f32>,
}

impl SampledGrads {
    pub(super) fn clear(&mut self) {
        self.users.clear();
        self.ads.clear();
    }

    /// Sum of L over the clicks of `negatives`, given user vectors (G, V) and ad vectors (B, V).
    /// Overwrites the gradients with those of `scale` times the sum.
    pub(super) fn softmax(
        &mut self,
        negatives: &Negatives,
        [users, ads]: [&[f32]; 2],
        width: usize,
        scale: f32,
    ) -> f64 {
        let Negatives { clicks, starts, drawn, log_shares } = negatives;
        let SampledGrads { users: dusers, ads: dads, scores } = self;
        let (dusers, dads) = (zeros(dusers, users.len()), zeros(dads, ads.len()));
        let mut loss = 0.0;
        for (&[group, click], ends) in clicks.iter().zip(starts.windows(2)) {
            let of_group = group as usize * width..(group as usize + 1) * width;
            let (user, duser) = (&users[of_group.clone()], &mut dusers[of_group]);
            let drawn = &drawn[ends[0] as usize..ends[1] as usize];
            let shown = || std::iter::once(click).chain(drawn.iter().copied());
            let vector = |at: u32| at as usize * width..(at as usize + 1) * width;
            scores.clear();
            scores.extend(
                shown().map(|at| linalg::dot(user, &ads[vector(at)]) - log_shares[at as usize]),
            );
            let most = scores.iter().fold(f32::NEG_INFINITY, |most, z| most.max(*z));
            let own = f64::from(scores[0] - most);
            let sum: f32 = scores.iter_mut().map(|z| exp_in_place(z, most)).sum();
            loss += f64::from(sum).ln() - own;
            for (nth, (at, q)) in shown().zip(&*scores).enumerate() {
                let dz = (q / sum - f32::from(u8::from(nth == 0))) * scale;
                linalg::axpy(dz, &ads[vector(at)], duser);
                linalg::axpy(dz, user, &mut dads[vector(at)]);
            }
        }
        loss
    }
}

/// Overwrites z with exp(z - most), and returns it.
fn exp_in_place(z: &mut f32, most: f32) -> f32 {
    *z = (*z - most).exp();
    *z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, assert_gradient, values};

    const V: usize = 3;

    /// Three groups of 2, 1 and 3 impressions; clicks with three, one and no negatives.
    fn negatives() -> Negatives {
        let shares = [0.4_f32, 0.1, 0.25, 0.05, 0.1, 0.1];
        let mut negatives =
            Negatives { log_shares: shares.map(f32::ln).to_vec(), ..Negatives::default() };
        for (click, drawn) in [([0, 1], &[2, 4, 5][..]), ([2, 3], &[0]), ([1, 2], &[])] {
            negatives.drawn.extend(drawn);
            negatives.seal(click);
        }
        negatives
    }

    /// As the definition reads, in f64.
    fn plain(negatives: &Negatives, users: &[f32], ads: &[f32]) -> f64 {
        let z = |group: u32, at: u32| -> f64 {
            let [u, v] = [&users[group as usize * V..][..V], &ads[at as usize * V..][..V]];
            let product: f64 = u.iter().zip(v).map(|(u, v)| f64::from(*u) * f64::from(*v)).sum();
            product - f64::from(negatives.log_shares[at as usize])
        };
        let each = negatives.clicks.iter().zip(negatives.starts.windows(2));
        each.map(|(&[group, click], ends)| {
            let drawn = &negatives.drawn[ends[0] as usize..ends[1] as usize];
            let others: f64 = drawn.iter().map(|&at| z(group, at).exp()).sum();
            (z(group, click).exp() + others).ln() - z(group, click)
        })
        .sum()
    }

    #[test]
    fn the_loss_is_its_definition_and_the_gradients_those_of_it() {
        let (negatives, users, ads) = (negatives(), values(1, 3 * V), values(2, 6 * V));
        let mut grads = SampledGrads::default();
        let loss = grads.softmax(&negatives, [&users, &ads], V, 0.5);
        let expected = plain(&negatives, &users, &ads);
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        let half = |users: &[f32], ads: &[f32]| 0.5 * plain(&negatives, users, ads);
        assert_gradient("users", &users, &grads.users, |users| half(users, &ads));
        assert_gradient("ads", &ads, &grads.ads, |ads| half(&users, ads));
        // The click without negatives has nothing to learn.
        assert_eq!(grads.users[V..2 * V], [0.0; V]);
        assert_eq!(grads.softmax(&Negatives::default(), [&[], &[]], V, 1.0), 0.0);
    }

    /// Logits that are the logarithm of popularity, and nothing else: corrected, all are alike.
    #[test]
    fn popularity_alone_is_worth_nothing() {
        let mut negatives = Negatives::default();
        negatives.log_shares.extend([0.5_f32, 0.3, 0.15, 0.05].map(f32::ln));
        negatives.drawn.extend([0, 1, 3]);
        negatives.seal([0, 2]);
        let ads: Vec<f32> = negatives.log_shares.iter().map(|log_q| log_q + 2.0).collect();
        let mut grads = SampledGrads::default();
        let loss = grads.softmax(&negatives, [&[1.0], &ads], 1, 1.0);
        assert!((loss - 4f64.ln()).abs() < 1e-6, "{loss}");
        // Softmax less the click, each of four alike.
        assert_close(&grads.ads, &[0.25, 0.25, -0.75, 0.25], 1e-6);
        // Without the correction, it would be by popularity.
        negatives.log_shares.fill(0.0);
        grads.softmax(&negatives, [&[1.0], &ads], 1, 1.0);
        assert_close(&grads.ads, &[0.5, 0.3, -0.85, 0.05], 1e-6);
    }

    #[test]
    fn a_loss_of_vectors_that_are_not_finite_is_not_finite() {
        let (negatives, ads) = (negatives(), values(2, 6 * V));
        for bad in [f32::NAN, f32::INFINITY] {
            let users = vec![bad; 3 * V];
            let loss = SampledGrads::default().softmax(&negatives, [&users, &ads], V, 1.0);
            assert!(!loss.is_finite(), "{bad}");
        }
    }
}
