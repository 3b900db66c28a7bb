//! The rank network W: ids and image embeddings in, one logit per impression out.
//!
//! ```text
//! group fields (user, behaviors pooled) ---+
//! aggregate of the history alone ----------+--> u   once per group
//!
//! impression fields (ad, context) ---------+
//! ad image embedding ----------------------+
//! aggregate that asks for the ad ----------+--> a   once per impression
//! ad * aggregate, cosines      (settings) -+
//! behaviors weighed by the ad's ids  (DIN) +
//! ```
//! With a search, attention, DIN and cosines see the behaviors that are kept for the impression,
//! and every aggregate is part of a.
//!
//! `head` makes a logit of u and a; `content` what images add to them, which any other content with
//! towers (text) adds likewise; `interest` is DIN. An impression or behavior without an image has a
//! learned embedding instead.
//!
//! Knows rows and embeddings by index; not which id or image they belong to, nor who computed them.

mod batch;
mod config;
mod content;
mod head;
mod images;
mod inputs;
mod interest;
mod sampled;
mod similarity;

use crate::linalg::{fit, zeros};
use crate::params::Layout;
use crate::pool::{self, Columns};

use content::{Content, ContentScratch, Inputs};
use head::{Head, HeadScratch};
use inputs::Widths;
use interest::{Interest, InterestScratch};

pub use crate::pool::Lists;
pub use crate::settings::{Base, ImageArm, Interactions, SearchBy, Similarity};
pub use batch::{ContentBatch, ContentGrads, InputGrads, NO_IMAGE, RankBatch, Sketches};
pub use config::RankConfig;
pub use sampled::Negatives;
pub use similarity::Moments;

/// A rank network: the structure of its weights, which live elsewhere in one flat slice `w`.
#[derive(Clone, Debug)]
pub struct RankNetwork {
    config: RankConfig,
    layout: Layout,
    widths: Widths,
    /// The columns of a that attention over images asks for, and those DIN asks for.
    queries: Vec<Columns>,
    interest_queries: Vec<Columns>,
    contents: Vec<Content>,
    interest: Option<Interest>,
    head: Head,
}

/// What one channel of attention weighed in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attended<'a> {
    /// What of the history it weighed: a content, or `ids`.
    pub over: &'a str,
    /// What of the ad it asked for: `image` (the fields where the arm has no ad image), `fields`,
    /// or `ids`.
    pub query: &'static str,
    /// The weight of every pair of an impression and a behavior of its group, or that is kept for
    /// it, in order of impressions, then behaviors. Not normalized: a weight may be negative or
    /// more than 1.
    pub weights: &'a [f32],
}

/// Activations of a forward pass, for its backward pass, and room for gradients; reused from step
/// to step.
#[derive(Clone, Debug, Default)]
pub struct RankScratch {
    /// Input of the group part, (G, group width), and its gradient.
    u: Vec<f32>,
    du: Vec<f32>,
    /// Input of the impression part, (B, impression width), and its gradient.
    a: Vec<f32>,
    da: Vec<f32>,
    contents: Vec<ContentScratch>,
    interest: InterestScratch,
    head: HeadScratch,
}

impl RankScratch {
    /// User vectors, (G, V), and ad vectors, (B, V), of the last forward pass of a pre-rank
    /// network.
    pub fn vectors(&self) -> (&[f32], &[f32]) {
        (&self.head.users, &self.head.ads)
    }
}

impl RankNetwork {
    /// A rank network of shape `config`, which [`RankConfig::check`] finds good.
    pub fn new(config: RankConfig) -> RankNetwork {
        assert_eq!(config.check(), Ok(()), "the configuration was not checked");
        let mut layout = Layout::default();
        let dim = config.network.embedding_dim;
        let mut widths = Widths { u: config.group_fields * dim, a: config.impression_fields * dim };
        let contents = config.contents.iter().enumerate().map(|(index, name)| {
            let prefix = if index == 0 { String::new() } else { format!("{name}.") };
            Content::new(&config, &mut layout, &prefix, &mut widths)
        });
        let contents: Vec<Content> = contents.collect();
        let interest = (config.network.base == Base::Din).then(|| {
            let first = widths.in_a(Interest::width(&config));
            Interest::new(&config, &mut layout, first)
        });
        let (u, a) = (widths.u, widths.a);
        let head = match config.network.base {
            Base::Mlp | Base::Din => Head::layers(&mut layout, u, a, &config.network.mlp),
            Base::LogisticRegression => Head::layers(&mut layout, u, a, &[]),
            Base::PreRank => Head::vectors(&mut layout, u, a, &config.network.pre_rank),
        };
        let columns = |fields: &[usize]| -> Vec<Columns> {
            let columns = |&field| Columns { width: widths.a, first: field * dim, dim };
            fields.iter().map(columns).collect()
        };
        RankNetwork {
            queries: columns(&config.query_fields),
            interest_queries: columns(&config.behavior_fields),
            config,
            layout,
            widths,
            contents,
            interest,
            head,
        }
    }

    /// The configuration that the network was made from.
    pub fn config(&self) -> &RankConfig {
        &self.config
    }

    /// Names and places of the weights.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The first weights, which `seed` alone decides.
    pub fn init(&self, seed: u64) -> Vec<f32> {
        self.layout.init(seed, "rank")
    }

    /// Overwrites `logits` (B). Keeps in `scratch` what [`RankNetwork::backward`] needs.
    pub fn forward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        scratch: &mut RankScratch,
        logits: &mut Vec<f32>,
    ) {
        self.pass(w, batch, scratch, logits, false);
    }

    /// The same bits sooner, where no backward pass follows.
    pub fn score(
        &self,
        w: &[f32],
        batch: &RankBatch,
        scratch: &mut RankScratch,
        logits: &mut Vec<f32>,
    ) {
        self.pass(w, batch, scratch, logits, true);
    }

    fn pass(
        &self,
        w: &[f32],
        batch: &RankBatch,
        scratch: &mut RankScratch,
        logits: &mut Vec<f32>,
        scores_only: bool,
    ) {
        self.assert_shapes(w, batch);
        let RankScratch { u, a, contents, interest, head, .. } = scratch;
        let u = fit(u, batch.groups() * self.widths.u);
        let a = fit(a, batch.len() * self.widths.a);
        for (field, &lists) in batch.group_fields.iter().enumerate() {
            pool::forward(lists, batch.rows, self.group_field(field), u);
        }
        for (field, &lists) in batch.impression_fields.iter().enumerate() {
            pool::forward(lists, batch.rows, self.impression_field(field), a);
        }
        contents.resize_with(self.contents.len(), ContentScratch::default);
        contents.iter_mut().for_each(|s| s.attention.set_scores_only(scores_only));
        interest.attention.set_scores_only(scores_only);
        let mut to = Inputs { u, a, widths: self.widths, queries: &self.queries };
        let each = self.contents.iter().zip(batch.contents).zip(contents.iter_mut());
        for ((content, batch_of), s) in each {
            content.forward(&self.config, w, batch, batch_of, s, &mut to);
        }
        let Inputs { u, a, .. } = to;
        if let Some(network) = &self.interest {
            let (queries, width) = (&self.interest_queries, self.widths.a);
            network.forward(w, batch, interest, queries, cosines_of(contents), a, width);
        }
        self.head.forward(w, batch, u, a, head, logits);
    }

    /// Sum over clicks of the sampled softmax of a pre-rank network, after
    /// [`RankNetwork::forward`]. [`RankNetwork::backward`] adds the gradient of `scale` times it.
    ///
    /// # Panics
    /// If the network has no vectors.
    pub fn sampled_softmax(
        &self,
        negatives: &Negatives,
        scale: f32,
        scratch: &mut RankScratch,
    ) -> f64 {
        self.head.sampled_softmax(negatives, scale, &mut scratch.head)
    }

    /// Adds to `dw` and overwrites `grads`, given `dlogits` (B) and `w`, `batch` and `scratch` of
    /// the forward pass.
    pub fn backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        scratch: &mut RankScratch,
        dlogits: &[f32],
        dw: &mut [f32],
        grads: &mut InputGrads,
    ) {
        assert_eq!((dlogits.len(), dw.len()), (batch.len(), w.len()), "dlogits and dw");
        let RankScratch { u, du, a, da, contents, interest, head } = scratch;
        self.head.backward(w, batch, u, a, head, dlogits, dw, du, da);
        let drows = zeros(&mut grads.drows, batch.rows.len());
        grads.contents.resize_with(self.contents.len(), ContentGrads::default);
        let (widths, queries) = (self.widths, &self.queries[..]);
        let x = Inputs { u, a, widths, queries };
        let mut d = Inputs { u: du, a: da, widths, queries };
        let each = self.contents.iter().zip(batch.contents).zip(contents.iter_mut());
        for (((content, batch_of), s), grads) in each.zip(&mut grads.contents) {
            content.backward(w, batch, batch_of, s, &x, &mut d, dw, grads);
        }
        let Inputs { u: du, a: da, .. } = d;
        if let Some(network) = &self.interest {
            let (queries, width) = (&self.interest_queries, self.widths.a);
            let cosines = cosines_of(contents);
            network.backward(w, batch, interest, queries, cosines, da, width, dw, drows);
        }
        for (field, &lists) in batch.group_fields.iter().enumerate() {
            pool::backward(lists, du, self.group_field(field), drows);
        }
        for (field, &lists) in batch.impression_fields.iter().enumerate() {
            pool::backward(lists, da, self.impression_field(field), drows);
        }
    }

    /// Whether numbers of similarity are standardized, by what [`RankNetwork::standardize`] sets.
    pub fn standardizes(&self) -> bool {
        self.config.network.similarity == Similarity::Statistics
    }

    /// Adds the similarities of `batch` to those of each content.
    pub fn add_moments(&self, batch: &RankBatch, s: &mut RankScratch, to: &mut [Moments]) {
        s.contents.resize_with(self.contents.len(), ContentScratch::default);
        for ((content, s), to) in batch.contents.iter().zip(&mut s.contents).zip(to) {
            to.add(batch, content.sketches, &mut s.similarity);
        }
    }

    /// Standardizes the similarity of each content by its moments.
    pub fn standardize(&self, moments: &[Moments], w: &mut [f32]) {
        for (content, moments) in self.contents.iter().zip(moments) {
            content.standardize(moments, w);
        }
    }

    /// What attention weighed in the forward pass that `scratch` is of; nothing if the network has
    /// none.
    pub fn attention<'a>(&'a self, scratch: &'a RankScratch) -> Vec<Attended<'a>> {
        let names = self.config.contents.iter();
        let mut attended = Vec::new();
        for ((over, content), s) in names.zip(&self.contents).zip(&scratch.contents) {
            let channels = content.attention(s).into_iter();
            attended.extend(channels.map(|(query, weights)| Attended { over, query, weights }));
        }
        if self.interest.is_some() {
            let weights = Interest::attention(&scratch.interest);
            attended.push(Attended { over: "ids", query: "ids", weights });
        }
        attended
    }

    fn group_field(&self, field: usize) -> Columns {
        let dim = self.config.network.embedding_dim;
        Columns { width: self.widths.u, first: field * dim, dim }
    }

    fn impression_field(&self, field: usize) -> Columns {
        let dim = self.config.network.embedding_dim;
        Columns { width: self.widths.a, first: field * dim, dim }
    }

    fn assert_shapes(&self, w: &[f32], batch: &RankBatch) {
        let (config, groups) = (&self.config, batch.groups());
        assert_eq!(w.len(), self.layout.len(), "weights");
        assert_eq!(batch.behaviors.len(), groups + 1, "offsets of behaviors");
        assert_eq!(batch.group_fields.len(), config.group_fields, "group fields");
        assert_eq!(batch.impression_fields.len(), config.impression_fields, "impression fields");
        let each_behavior = config.each_behavior_fields();
        assert_eq!(batch.behavior_fields.len(), each_behavior, "behavior fields");
        if config.network.similarity.sees_ages() {
            assert_eq!(batch.recency.len(), batch.behaviors[groups] as usize, "recency");
        }
        assert_eq!(batch.contents.len(), config.contents.len(), "contents");
        assert!(batch.group_fields.iter().all(|lists| lists.len() == groups), "group lists");
        let impressions = batch.len();
        assert!(batch.impression_fields.iter().all(|l| l.len() == impressions), "impression lists");
        let behaviors = batch.behaviors[groups] as usize;
        assert!(batch.behavior_fields.iter().all(|l| l.len() == behaviors), "behavior lists");
        assert_eq!(batch.kept.is_some(), config.network.search.is_some(), "kept behaviors");
        if let Some(kept) = batch.kept {
            assert_eq!(kept.len(), impressions, "lists of kept behaviors");
        }
        for content in batch.contents {
            if config.network.images.has_ad() {
                assert_eq!(content.ad_images.len(), impressions, "ad images");
            }
            if config.network.images.has_behavior() {
                assert_eq!(content.behavior_images.len(), behaviors, "behavior images");
            }
            if config.network.compares() {
                let Sketches { ads, behaviors: of, .. } = content.sketches;
                assert_eq!((ads.len(), of.len()), (impressions, behaviors), "sketches");
            }
        }
    }
}

/// The cosines of the first content, if attention weighs by them.
fn cosines_of(contents: &[ContentScratch]) -> &[f32] {
    contents.first().map_or(&[], |content| &content.cosines)
}

#[cfg(test)]
mod tests;
