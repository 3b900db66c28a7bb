//! The rank network W: ids and image embeddings in, one logit per impression out.
//!
//! ```text
//! group fields (user, behaviors pooled) ---+
//! aggregate of the history alone ----------+-> Wu u --+   once per group
//!                                                     +-> z0 -> PReLU -> FC 80 -> PReLU -> logit
//! impression fields (ad, context) ---------+-> Wa a --+   once per impression
//! ad image embedding ----------------------+
//! aggregate that asks for the ad ----------+
//! ```
//! The first layer is split, W[u; a] = Wu u + Wa a, so that what a group's impressions share is
//! computed once (the common-feature technique). An impression or behavior without an image has a
//! learned embedding instead.
//!
//! Knows rows and embeddings by index; not which id or image they belong to, nor who computed them.

mod batch;
mod config;
mod images;

use crate::aggregate::{Aggregate, AggregateScratch, Histories, Per, Queries, QueryGrads, Widths};
use crate::init::{Init, ROW_RANGE};
use crate::linalg::{self, fit, zeros};
use crate::linear::Linear;
use crate::params::{Layout, View};
use crate::pool::{self, Columns};
use crate::stack::{Stack, StackScratch};

use images::ImageScratch;

pub use crate::pool::Lists;
pub use batch::{InputGrads, NO_IMAGE, RankBatch};
pub use config::{ImageArm, RankConfig};

/// A rank network: the structure of its weights, which live elsewhere in one flat slice `w`.
#[derive(Clone, Debug)]
pub struct RankNetwork {
    config: RankConfig,
    layout: Layout,
    ad_no_image: Option<View>,
    behavior_no_image: Option<View>,
    aggregate: Option<Aggregate>,
    /// Wu with the bias, and Wa.
    group_layer: Linear,
    impression_layer: Linear,
    stack: Stack,
}

/// Activations of a forward pass, for its backward pass, and room for gradients; reused from step to
/// step.
#[derive(Clone, Debug, Default)]
pub struct RankScratch {
    /// Input of the group part, (G, group width), and its gradient.
    u: Vec<f32>,
    du: Vec<f32>,
    /// Input of the impression part, (B, impression width), and its gradient.
    a: Vec<f32>,
    da: Vec<f32>,
    /// Group part of the first pre-activation, (G, first width), and its gradient.
    zu: Vec<f32>,
    dzu: Vec<f32>,
    stack: StackScratch,
    ads: ImageScratch,
    behaviors: ImageScratch,
    /// Query fields of each impression, (B, query fields * D), and their gradient.
    queries: Vec<f32>,
    dqueries: Vec<f32>,
    /// Image query of each impression, and its gradient.
    image_queries: Vec<f32>,
    dimage_queries: Vec<f32>,
    /// The aggregate, (G or B, its width), and its gradient.
    aggregate: Vec<f32>,
    daggregate: Vec<f32>,
    attention: AggregateScratch,
}

impl RankNetwork {
    /// A rank network of shape `config`, which [`RankConfig::check`] finds good.
    pub fn new(config: RankConfig) -> RankNetwork {
        assert_eq!(config.check(), Ok(()), "the configuration was not checked");
        let mut layout = Layout::default();
        let (dim, arm) = (config.dim, config.images);
        let row = Init::Uniform(ROW_RANGE);
        let ad_no_image = arm.has_ad().then(|| layout.push("ad.no_image", &[dim], row));
        let behavior_no_image =
            arm.has_behavior().then(|| layout.push("behavior.no_image", &[dim], row));
        let field_query = config.query_fields.len() * dim;
        let widths = Widths {
            dim,
            image_query: if arm.has_ad() { dim } else { field_query },
            field_query,
            attention: config.attention,
            concatenate: config.concatenate_length,
        };
        let aggregate =
            arm.has_behavior().then(|| Aggregate::new(config.aggregator, &mut layout, widths));
        let width_if = |per| match &aggregate {
            Some(aggregate) if aggregate.per() == per => aggregate.width(),
            _ => 0,
        };
        let u = config.group_fields * dim + width_if(Per::Group);
        let ad = if arm.has_ad() { dim } else { 0 };
        let a = config.impression_fields * dim + ad + width_if(Per::Impression);
        let (init, first) = (Init::he(u + a), config.mlp[0]);
        let group_layer = Linear::new(&mut layout, "mlp.0.group", u, first, init);
        let impression_layer =
            Linear::without_bias(&mut layout, "mlp.0.impression", a, first, init);
        let outputs: Vec<usize> = config.mlp.iter().copied().chain([1]).collect();
        let stack = Stack::new(&mut layout, "mlp.", &outputs, 1.0);
        RankNetwork {
            config,
            layout,
            ad_no_image,
            behavior_no_image,
            aggregate,
            group_layer,
            impression_layer,
            stack,
        }
    }

    /// The shape.
    pub fn config(&self) -> &RankConfig {
        &self.config
    }

    /// Names and places of the weights.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// First weights.
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
        self.assert_shapes(w, batch);
        fit(&mut scratch.u, batch.groups() * self.group_layer.inputs);
        fit(&mut scratch.a, batch.len() * self.impression_layer.inputs);
        self.pool_fields(batch, scratch);
        self.place_ad_images(w, batch, scratch);
        self.aggregate(w, batch, scratch);
        self.first_layer(w, batch, scratch);
        self.stack.forward(w, batch.len(), &mut scratch.stack, logits);
    }

    /// Adds to `dw` and overwrites `grads`, given `dlogits` (B) and `w`, `batch` and `scratch` of the
    /// forward pass.
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
        self.stack.backward(w, batch.len(), &mut scratch.stack, dlogits, dw);
        self.first_layer_backward(w, batch, scratch, dw);
        self.aggregate_backward(w, batch, scratch, dw, grads);
        self.place_ad_images_backward(batch, scratch, dw, grads);
        self.pool_fields_backward(batch, scratch, grads);
    }

    fn pool_fields(&self, batch: &RankBatch, scratch: &mut RankScratch) {
        for (field, &lists) in batch.group_fields.iter().enumerate() {
            pool::forward(lists, batch.rows, self.group_field(field), &mut scratch.u);
        }
        for (field, &lists) in batch.impression_fields.iter().enumerate() {
            pool::forward(lists, batch.rows, self.impression_field(field), &mut scratch.a);
        }
    }

    fn pool_fields_backward(&self, batch: &RankBatch, s: &RankScratch, grads: &mut InputGrads) {
        let drows = zeros(&mut grads.drows, batch.rows.len());
        for (field, &lists) in batch.group_fields.iter().enumerate() {
            pool::backward(lists, &s.du, self.group_field(field), drows);
        }
        for (field, &lists) in batch.impression_fields.iter().enumerate() {
            pool::backward(lists, &s.da, self.impression_field(field), drows);
        }
    }

    fn place_ad_images(&self, w: &[f32], batch: &RankBatch, s: &mut RankScratch) {
        let Some(no_image) = self.ad_no_image else { return };
        s.ads.fill(batch.ad_embeddings, no_image.of(w), batch.ad_images);
        let (dim, columns) = (self.config.dim, self.ad_image());
        for (i, &image) in s.ads.images.iter().enumerate() {
            let embedding = &s.ads.embeddings[image as usize * dim..][..dim];
            columns.of_mut(&mut s.a, i).copy_from_slice(embedding);
        }
    }

    fn place_ad_images_backward(
        &self,
        batch: &RankBatch,
        s: &mut RankScratch,
        dw: &mut [f32],
        grads: &mut InputGrads,
    ) {
        let Some(no_image) = self.ad_no_image else {
            zeros(&mut grads.dad_embeddings, batch.ad_embeddings.len());
            return;
        };
        let (dim, columns) = (self.config.dim, self.ad_image());
        let dembeddings = zeros(&mut s.ads.dembeddings, s.ads.embeddings.len());
        for (i, &image) in s.ads.images.iter().enumerate() {
            let dembedding = &mut dembeddings[image as usize * dim..][..dim];
            linalg::add(columns.of(&s.da, i), dembedding);
        }
        s.ads.give(no_image.of_mut(dw), &mut grads.dad_embeddings);
    }

    /// Fills the aggregate's columns of `u` or `a`.
    fn aggregate(&self, w: &[f32], batch: &RankBatch, s: &mut RankScratch) {
        let (Some(aggregate), Some(no_image)) = (&self.aggregate, self.behavior_no_image) else {
            return;
        };
        s.behaviors.fill(batch.behavior_embeddings, no_image.of(w), batch.behavior_images);
        self.gather_queries(batch, s);
        let (per, columns) = (aggregate.per(), self.aggregate_columns(aggregate));
        let (rows, x) = match per {
            Per::Group => (batch.groups(), &mut s.u),
            Per::Impression => (batch.len(), &mut s.a),
        };
        let out = fit(&mut s.aggregate, rows * columns.dim);
        let queries = Queries { image: &s.image_queries, fields: &s.queries };
        aggregate.forward(w, histories(batch, &s.behaviors), queries, &mut s.attention, out);
        for (i, out) in out.chunks_exact(columns.dim).enumerate() {
            columns.of_mut(x, i).copy_from_slice(out);
        }
    }

    /// Adds the gradients of the queries to `da`.
    fn aggregate_backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        s: &mut RankScratch,
        dw: &mut [f32],
        grads: &mut InputGrads,
    ) {
        let (Some(aggregate), Some(no_image)) = (&self.aggregate, self.behavior_no_image) else {
            zeros(&mut grads.dbehavior_embeddings, batch.behavior_embeddings.len());
            return;
        };
        let (per, columns) = (aggregate.per(), self.aggregate_columns(aggregate));
        let dx = if per == Per::Group { &s.du } else { &s.da };
        let dout = fit(&mut s.daggregate, s.aggregate.len());
        for (i, dout) in dout.chunks_exact_mut(columns.dim).enumerate() {
            dout.copy_from_slice(columns.of(dx, i));
        }
        let queries = Queries { image: &s.image_queries, fields: &s.queries };
        let dqueries = QueryGrads {
            image: zeros(&mut s.dimage_queries, s.image_queries.len()),
            fields: zeros(&mut s.dqueries, s.queries.len()),
        };
        zeros(&mut s.behaviors.dembeddings, s.behaviors.embeddings.len());
        let mut dembeddings = std::mem::take(&mut s.behaviors.dembeddings);
        let histories = histories(batch, &s.behaviors);
        let attention = &mut s.attention;
        aggregate.backward(w, histories, queries, attention, dout, dw, dqueries, &mut dembeddings);
        s.behaviors.dembeddings = dembeddings;
        s.behaviors.give(no_image.of_mut(dw), &mut grads.dbehavior_embeddings);
        self.gather_queries_backward(batch, s);
    }

    /// Copies the columns of `a` that attention asks for.
    fn gather_queries(&self, batch: &RankBatch, s: &mut RankScratch) {
        let rows = batch.len();
        let fields = self.config.query_fields.iter().map(|&field| self.impression_field(field));
        gather(rows, fields.clone(), &s.a, &mut s.queries);
        match self.config.images.has_ad() {
            true => gather(rows, [self.ad_image()].into_iter(), &s.a, &mut s.image_queries),
            false => gather(rows, fields, &s.a, &mut s.image_queries),
        }
    }

    fn gather_queries_backward(&self, batch: &RankBatch, s: &mut RankScratch) {
        let rows = batch.len();
        let fields = self.config.query_fields.iter().map(|&field| self.impression_field(field));
        gather_backward(rows, fields.clone(), &s.dqueries, &mut s.da);
        match self.config.images.has_ad() {
            true => {
                let columns = [self.ad_image()].into_iter();
                gather_backward(rows, columns, &s.dimage_queries, &mut s.da);
            }
            false => gather_backward(rows, fields, &s.dimage_queries, &mut s.da),
        }
    }

    /// z0 = Wu u + b + Wa a.
    fn first_layer(&self, w: &[f32], batch: &RankBatch, s: &mut RankScratch) {
        let (groups, width) = (batch.groups(), self.group_layer.outputs);
        let zu = fit(&mut s.zu, groups * width);
        self.group_layer.forward(w, &s.u, groups, zu);
        let z = s.stack.first(batch.len(), &self.stack);
        self.impression_layer.forward(w, &s.a, batch.len(), z);
        for (group, zu) in zu.chunks_exact(width).enumerate() {
            let of_group = batch.impressions_of(group);
            for z in z[of_group.start * width..of_group.end * width].chunks_exact_mut(width) {
                linalg::add(zu, z);
            }
        }
    }

    /// Fills `du` and `da`.
    fn first_layer_backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        s: &mut RankScratch,
        dw: &mut [f32],
    ) {
        let (groups, width) = (batch.groups(), self.group_layer.outputs);
        let (group, impression) = (&self.group_layer, &self.impression_layer);
        let dz = s.stack.dfirst();
        let dzu = zeros(&mut s.dzu, groups * width);
        for (group, dzu) in dzu.chunks_exact_mut(width).enumerate() {
            let of_group = batch.impressions_of(group);
            for dz in dz[of_group.start * width..of_group.end * width].chunks_exact(width) {
                linalg::add(dz, dzu);
            }
        }
        group.backward_weights(&s.u, dzu, groups, dw);
        group.backward_input(w, dzu, groups, fit(&mut s.du, s.u.len()));
        impression.backward_weights(&s.a, dz, batch.len(), dw);
        impression.backward_input(w, dz, batch.len(), fit(&mut s.da, s.a.len()));
    }

    fn group_field(&self, field: usize) -> Columns {
        let dim = self.config.dim;
        Columns { width: self.group_layer.inputs, first: field * dim, dim }
    }

    fn impression_field(&self, field: usize) -> Columns {
        let dim = self.config.dim;
        Columns { width: self.impression_layer.inputs, first: field * dim, dim }
    }

    /// The ad's image embedding lies behind the impression fields.
    fn ad_image(&self) -> Columns {
        self.impression_field(self.config.impression_fields)
    }

    /// The aggregate is the last of its part.
    fn aggregate_columns(&self, aggregate: &Aggregate) -> Columns {
        let width = match aggregate.per() {
            Per::Group => self.group_layer.inputs,
            Per::Impression => self.impression_layer.inputs,
        };
        Columns { width, first: width - aggregate.width(), dim: aggregate.width() }
    }

    fn assert_shapes(&self, w: &[f32], batch: &RankBatch) {
        let (config, groups) = (&self.config, batch.groups());
        assert_eq!(w.len(), self.layout.len(), "weights");
        assert_eq!(batch.behaviors.len(), groups + 1, "offsets of behaviors");
        assert_eq!(batch.group_fields.len(), config.group_fields, "group fields");
        assert_eq!(batch.impression_fields.len(), config.impression_fields, "impression fields");
        assert!(batch.group_fields.iter().all(|lists| lists.len() == groups), "group lists");
        let impressions = batch.len();
        assert!(batch.impression_fields.iter().all(|l| l.len() == impressions), "impression lists");
        if config.images.has_ad() {
            assert_eq!(batch.ad_images.len(), impressions, "ad images");
        }
        if config.images.has_behavior() {
            let behaviors = batch.behaviors[groups] as usize;
            assert_eq!(batch.behavior_images.len(), behaviors, "behavior images");
        }
    }
}

fn histories<'a>(batch: &'a RankBatch, behaviors: &'a ImageScratch) -> Histories<'a> {
    Histories {
        impressions: batch.impressions,
        behaviors: batch.behaviors,
        images: &behaviors.images,
        embeddings: &behaviors.embeddings,
    }
}

/// Overwrites `out` with `columns` of each row of `x`, side by side.
fn gather(
    rows: usize,
    columns: impl Iterator<Item = Columns> + Clone,
    x: &[f32],
    out: &mut Vec<f32>,
) {
    out.clear();
    for row in 0..rows {
        columns.clone().for_each(|columns| out.extend_from_slice(columns.of(x, row)));
    }
}

/// Adds each row of `dout` to `columns` of `dx`.
fn gather_backward(
    rows: usize,
    columns: impl Iterator<Item = Columns> + Clone,
    dout: &[f32],
    dx: &mut [f32],
) {
    let mut rest = dout;
    for row in 0..rows {
        for columns in columns.clone() {
            let (part, after) = rest.split_at(columns.dim);
            linalg::add(part, columns.of_mut(dx, row));
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests;
