//! From the inputs of the rank network to its logits: the user part u once per group, the
//! impression part a once per impression.
//!
//! ```text
//! layers    Wu u ---+                                      W[u; a] = Wu u + Wa a: what a group's
//!                   +-> z0 -> PReLU -> FC 80 -> .. -> logit  impressions share is computed once
//!           Wa a ---+                                      no hidden layer: logistic regression
//!
//! vectors   u -> FC 200 -> PReLU -> FC 10 --+
//!                                           +-> inner product = logit        the pre-rank network
//!           a -> FC 200 -> PReLU -> FC 10 --+
//! ```

use super::batch::RankBatch;
use super::sampled::{Negatives, SampledGrads};
use crate::init::Init;
use crate::linalg::{self, fit, zeros};
use crate::linear::Linear;
use crate::params::Layout;
use crate::stack::{Stack, StackScratch};

/// The structure of the last part of a rank network.
#[derive(Clone, Debug)]
pub(super) enum Head {
    /// One network over both parts.
    Layers(Box<Layers>),
    /// One network for each part.
    Vectors(Box<Vectors>),
}

/// Wu with the bias, Wa, and the layers behind them.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    group: Linear,
    impression: Linear,
    stack: Stack,
}

/// The networks of the user vector and of the ad vector.
#[derive(Clone, Debug)]
pub(super) struct Vectors {
    user: Network,
    ad: Network,
}

/// A fully connected network.
#[derive(Clone, Debug)]
struct Network {
    first: Linear,
    stack: Stack,
}

/// Activations of a forward pass, for its backward pass, and room for gradients.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadScratch {
    /// Group part of the first pre-activation, (G, first width), and its gradient.
    zu: Vec<f32>,
    dzu: Vec<f32>,
    /// Of the layers, or of the ad vector.
    stack: StackScratch,
    /// Of the user vector.
    user_stack: StackScratch,
    /// User vectors, (G, V), ad vectors, (B, V), and their gradients.
    pub users: Vec<f32>,
    pub ads: Vec<f32>,
    dusers: Vec<f32>,
    dads: Vec<f32>,
    /// What a sampled softmax adds to these gradients.
    sampled: SampledGrads,
}

impl Head {
    /// The inputs' widths are `u` and `a`; appends the weights of hidden layers of `mlp` units and
    /// one output to `layout`.
    pub(crate) fn layers(layout: &mut Layout, u: usize, a: usize, mlp: &[usize]) -> Head {
        let outputs: Vec<usize> = mlp.iter().copied().chain([1]).collect();
        let init = if mlp.is_empty() { Init::xavier(u + a, 1) } else { Init::he(u + a) };
        let group = Linear::new(layout, "mlp.0.group", u, outputs[0], init);
        let impression = Linear::without_bias(layout, "mlp.0.impression", a, outputs[0], init);
        let stack = Stack::new(layout, "mlp.", &outputs, 1.0);
        Head::Layers(Box::new(Layers { group, impression, stack }))
    }

    /// The same for two networks of layers of `widths` units.
    pub(crate) fn vectors(layout: &mut Layout, u: usize, a: usize, widths: &[usize]) -> Head {
        let user = Network::new(layout, "user.", u, widths);
        let ad = Network::new(layout, "ad.", a, widths);
        Head::Vectors(Box::new(Vectors { user, ad }))
    }

    /// Overwrites `logits` (B), given `u` (G, _) and `a` (B, _).
    pub(crate) fn forward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        u: &[f32],
        a: &[f32],
        scratch: &mut HeadScratch,
        logits: &mut Vec<f32>,
    ) {
        match self {
            Head::Layers(layers) => layers.forward(w, batch, u, a, scratch, logits),
            Head::Vectors(vectors) => vectors.forward(w, batch, u, a, scratch, logits),
        }
    }

    /// As [`super::RankNetwork::sampled_softmax`].
    pub(crate) fn sampled_softmax(
        &self,
        negatives: &Negatives,
        scale: f32,
        scratch: &mut HeadScratch,
    ) -> f64 {
        let Head::Vectors(vectors) = self else { panic!("a network without vectors") };
        let HeadScratch { users, ads, sampled, .. } = scratch;
        sampled.softmax(negatives, [&users[..], &ads[..]], vectors.width(), scale)
    }

    /// Overwrites `du` and `da`, given `dlogits` (B); adds to `dw`.
    pub(crate) fn backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        u: &[f32],
        a: &[f32],
        scratch: &mut HeadScratch,
        dlogits: &[f32],
        dw: &mut [f32],
        du: &mut Vec<f32>,
        da: &mut Vec<f32>,
    ) {
        let (du, da) = (fit(du, u.len()), fit(da, a.len()));
        match self {
            Head::Layers(layers) => {
                layers.backward(w, batch, u, a, scratch, dlogits, dw, du, da);
            }
            Head::Vectors(vectors) => {
                vectors.backward(w, batch, u, a, scratch, dlogits, dw, du, da);
            }
        }
    }
}

impl Layers {
    fn forward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        u: &[f32],
        a: &[f32],
        s: &mut HeadScratch,
        logits: &mut Vec<f32>,
    ) {
        let (groups, width) = (batch.groups(), self.group.outputs);
        let zu = fit(&mut s.zu, groups * width);
        self.group.forward(w, u, groups, zu);
        let z = s.stack.first(batch.len(), &self.stack);
        self.impression.forward(w, a, batch.len(), z);
        for (group, zu) in zu.chunks_exact(width).enumerate() {
            let of_group = batch.impressions_of(group);
            for z in z[of_group.start * width..of_group.end * width].chunks_exact_mut(width) {
                linalg::add(zu, z);
            }
        }
        self.stack.forward(w, batch.len(), &mut s.stack, logits);
    }

    fn backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        u: &[f32],
        a: &[f32],
        s: &mut HeadScratch,
        dlogits: &[f32],
        dw: &mut [f32],
        du: &mut [f32],
        da: &mut [f32],
    ) {
        self.stack.backward(w, batch.len(), &mut s.stack, dlogits, dw);
        let (groups, width) = (batch.groups(), self.group.outputs);
        let dz = s.stack.dfirst();
        let dzu = zeros(&mut s.dzu, groups * width);
        for (group, dzu) in dzu.chunks_exact_mut(width).enumerate() {
            let of_group = batch.impressions_of(group);
            for dz in dz[of_group.start * width..of_group.end * width].chunks_exact(width) {
                linalg::add(dz, dzu);
            }
        }
        self.group.backward_weights(u, dzu, groups, dw);
        self.group.backward_input(w, dzu, groups, du);
        self.impression.backward_weights(a, dz, batch.len(), dw);
        self.impression.backward_input(w, dz, batch.len(), da);
    }
}

impl Vectors {
    fn forward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        u: &[f32],
        a: &[f32],
        s: &mut HeadScratch,
        logits: &mut Vec<f32>,
    ) {
        self.user.forward(w, u, batch.groups(), &mut s.user_stack, &mut s.users);
        self.ad.forward(w, a, batch.len(), &mut s.stack, &mut s.ads);
        let width = self.width();
        s.sampled.clear();
        logits.clear();
        for (group, user) in s.users.chunks_exact(width).enumerate() {
            let of_group = batch.impressions_of(group);
            let ads = s.ads[of_group.start * width..of_group.end * width].chunks_exact(width);
            logits.extend(ads.map(|ad| linalg::dot(user, ad)));
        }
    }

    fn backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        u: &[f32],
        a: &[f32],
        s: &mut HeadScratch,
        dlogits: &[f32],
        dw: &mut [f32],
        du: &mut [f32],
        da: &mut [f32],
    ) {
        let width = self.width();
        let dusers = zeros(&mut s.dusers, s.users.len());
        let dads = zeros(&mut s.dads, s.ads.len());
        let users = s.users.chunks_exact(width).zip(dusers.chunks_exact_mut(width));
        for (group, (user, duser)) in users.enumerate() {
            for impression in batch.impressions_of(group) {
                let place = impression * width..(impression + 1) * width;
                linalg::axpy(dlogits[impression], user, &mut dads[place.clone()]);
                linalg::axpy(dlogits[impression], &s.ads[place], duser);
            }
        }
        let SampledGrads { users, ads, .. } = &s.sampled;
        if !ads.is_empty() {
            linalg::add(users, dusers);
            linalg::add(ads, dads);
        }
        self.user.backward(w, u, batch.groups(), &mut s.user_stack, dusers, dw, du);
        self.ad.backward(w, a, batch.len(), &mut s.stack, dads, dw, da);
    }

    fn width(&self) -> usize {
        self.user.stack.outputs()
    }
}

impl Network {
    fn new(layout: &mut Layout, prefix: &str, inputs: usize, widths: &[usize]) -> Network {
        let init = match widths.len() {
            1 => Init::xavier(inputs, widths[0]),
            _ => Init::he(inputs),
        };
        let first = Linear::new(layout, &format!("{prefix}0"), inputs, widths[0], init);
        Network { first, stack: Stack::new(layout, prefix, widths, 1.0) }
    }

    fn forward(
        &self,
        w: &[f32],
        x: &[f32],
        rows: usize,
        scratch: &mut StackScratch,
        out: &mut Vec<f32>,
    ) {
        self.first.forward(w, x, rows, scratch.first(rows, &self.stack));
        self.stack.forward(w, rows, scratch, out);
    }

    fn backward(
        &self,
        w: &[f32],
        x: &[f32],
        rows: usize,
        scratch: &mut StackScratch,
        dout: &[f32],
        dw: &mut [f32],
        dx: &mut [f32],
    ) {
        self.stack.backward(w, rows, scratch, dout, dw);
        self.first.backward_weights(x, scratch.dfirst(), rows, dw);
        self.first.backward_input(w, scratch.dfirst(), rows, dx);
    }
}
