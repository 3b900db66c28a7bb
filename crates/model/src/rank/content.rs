//! What the rank network makes of one content, such as images: the ad's embedding, the aggregate of
//! the history, products of both, and how alike they were before any training.

use std::sync::Arc;

use super::batch::{ContentBatch, ContentGrads, RankBatch};
use super::config::RankConfig;
use super::images::ImageScratch;
use super::inputs::{Widths as InputWidths, gather, gather_backward};
use super::similarity::{self, Moments, Scales, SimilarityScratch};
use crate::aggregate::{Aggregate, AggregateScratch, Per, Queries, QueryGrads, Widths};
use crate::init::{Init, ROW_RANGE};
use crate::linalg::{self, fit, zeros};
use crate::params::{Layout, View};
use crate::pool::Columns;
use crate::settings::{Interactions, Similarity};

/// The weights of one content, and its columns in the inputs of the network. Columns know no width
/// of the whole: that is settled when all contents are known.
#[derive(Clone, Debug)]
pub(super) struct Content {
    ad_no_image: Option<View>,
    behavior_no_image: Option<View>,
    aggregate: Option<Arc<dyn Aggregate>>,
    /// What an aggregate belongs to: with a search, an impression.
    per: Per,
    dim: usize,
    /// First column of the ad's embedding, in a.
    ad: usize,
    /// First column of the aggregate, in u or a.
    aggregate_at: usize,
    /// First column of ad * aggregate, in a, if there is that.
    product: Option<usize>,
    /// First column of the similarity, in a.
    similarity: usize,
    /// How it is standardized, if it is.
    scales: Option<Scales>,
}

/// Activations of a forward pass, for its backward pass, and room for gradients.
#[derive(Clone, Debug, Default)]
pub(super) struct ContentScratch {
    ads: ImageScratch,
    pub(super) behaviors: ImageScratch,
    /// Query fields of each impression, (B, query fields * D), and their gradient.
    queries: Vec<f32>,
    dqueries: Vec<f32>,
    /// Image query of each impression, and its gradient.
    image_queries: Vec<f32>,
    dimage_queries: Vec<f32>,
    /// The aggregate, (G or B, its width), and its gradient.
    pub(super) aggregate: Vec<f32>,
    daggregate: Vec<f32>,
    pub(super) attention: AggregateScratch,
    pub(super) similarity: SimilarityScratch,
    /// The cosine of every pair, where attention weighs by it; (P).
    pub(super) cosines: Vec<f32>,
}

/// The inputs of the network, or their gradients, and where the query fields are in them.
pub(super) struct Inputs<'a> {
    /// Rows of groups, (G, _).
    pub u: &'a mut [f32],
    /// Rows of impressions, (B, _).
    pub a: &'a mut [f32],
    pub widths: InputWidths,
    pub queries: &'a [Columns],
}

impl Inputs<'_> {
    fn in_u(&self, first: usize, dim: usize) -> Columns {
        Columns { width: self.widths.u, first, dim }
    }

    fn in_a(&self, first: usize, dim: usize) -> Columns {
        Columns { width: self.widths.a, first, dim }
    }
}

impl Content {
    /// Appends the weights, whose names begin with `prefix`, to `layout`, and the columns to
    /// `widths`.
    pub(crate) fn new(
        config: &RankConfig,
        layout: &mut Layout,
        prefix: &str,
        widths: &mut InputWidths,
    ) -> Content {
        let (dim, arm) = (config.network.embedding_dim, config.network.images);
        let row = Init::Uniform(ROW_RANGE);
        let mut no_image =
            |name: &str| layout.push(&format!("{prefix}{name}.no_image"), &[dim], row);
        let ad_no_image = arm.has_ad().then(|| no_image("ad"));
        let behavior_no_image = arm.has_behavior().then(|| no_image("behavior"));
        let field_query = config.query_fields.len() * dim;
        let product = config.network.interactions == Interactions::Product;
        let sizes = Widths {
            dim,
            beside: 0,
            image_query: if arm.has_ad() { dim } else { field_query },
            field_query,
            attention: config.network.attention,
            concatenate: config.network.concatenate_length,
            product,
            cosine: config.network.attends_by_cosine(),
        };
        let aggregate =
            arm.has_behavior().then(|| config.network.aggregator.build(layout, prefix, sizes));
        let ad = widths.in_a(if arm.has_ad() { dim } else { 0 });
        let per = match (&aggregate, &config.network.search) {
            (Some(aggregate), None) => aggregate.per(),
            _ => Per::Impression,
        };
        let aggregate_at = match &aggregate {
            Some(aggregate) if per == Per::Group => widths.in_u(aggregate.width()),
            Some(aggregate) => widths.in_a(aggregate.width()),
            None => 0,
        };
        let product = match &aggregate {
            Some(aggregate) if product && arm.has_ad() => Some(widths.in_a(aggregate.width())),
            _ => None,
        };
        let similarity = widths.in_a(config.network.similarity.width());
        let standardizes = config.network.similarity == Similarity::Statistics;
        let scales = standardizes.then(|| Scales::new(layout, prefix));
        Content {
            ad_no_image,
            behavior_no_image,
            aggregate,
            per,
            dim,
            ad,
            aggregate_at,
            product,
            similarity,
            scales,
        }
    }

    /// Sets how the similarity is standardized, if it is.
    pub(crate) fn standardize(&self, moments: &Moments, w: &mut [f32]) {
        if let Some(scales) = self.scales {
            scales.set(moments, w);
        }
    }

    /// Fills the content's columns of `to`, whose query fields are filled already.
    pub(crate) fn forward(
        &self,
        config: &RankConfig,
        w: &[f32],
        batch: &RankBatch,
        content: &ContentBatch,
        s: &mut ContentScratch,
        to: &mut Inputs,
    ) {
        self.place_ads(w, content, s, to);
        if config.network.attends_by_cosine() {
            similarity::of_pairs(batch, content.sketches, &mut s.similarity, &mut s.cosines);
        }
        self.aggregate(w, batch, content, s, to);
        self.products(batch, to);
        let (similarity, sketches) = (config.network.similarity, content.sketches);
        if similarity.width() > 0 {
            let columns = to.in_a(self.similarity, similarity.width());
            similarity::forward(similarity, batch, sketches, &mut s.similarity, columns, to.a);
            if let Some(scales) = self.scales {
                scales.standardize(w, columns, to.a);
            }
        }
    }

    /// Adds to `dw` and to the query fields of `d`, and overwrites `grads`, given the gradients `d`
    /// of the inputs `x` of the forward pass.
    pub(crate) fn backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        content: &ContentBatch,
        s: &mut ContentScratch,
        x: &Inputs,
        d: &mut Inputs,
        dw: &mut [f32],
        grads: &mut ContentGrads,
    ) {
        self.products_backward(batch, x, d);
        self.aggregate_backward(w, batch, content, s, d, dw, grads);
        self.place_ads_backward(content, s, d, dw, grads);
    }

    pub(crate) fn attention<'s>(&self, s: &'s ContentScratch) -> Vec<(&'static str, &'s [f32])> {
        self.aggregate.as_ref().map_or_else(Vec::new, |of| of.attention(&s.attention))
    }

    fn place_ads(
        &self,
        w: &[f32],
        content: &ContentBatch,
        s: &mut ContentScratch,
        to: &mut Inputs,
    ) {
        let Some(no_image) = self.ad_no_image else { return };
        s.ads.fill(content.ad_embeddings, no_image.of(w), content.ad_images);
        let (dim, columns) = (self.dim, to.in_a(self.ad, self.dim));
        for (i, &image) in s.ads.images.iter().enumerate() {
            let embedding = &s.ads.embeddings[image as usize * dim..][..dim];
            columns.of_mut(to.a, i).copy_from_slice(embedding);
        }
    }

    fn place_ads_backward(
        &self,
        content: &ContentBatch,
        s: &mut ContentScratch,
        d: &Inputs,
        dw: &mut [f32],
        grads: &mut ContentGrads,
    ) {
        let Some(no_image) = self.ad_no_image else {
            zeros(&mut grads.dad_embeddings, content.ad_embeddings.len());
            return;
        };
        let (dim, columns) = (self.dim, d.in_a(self.ad, self.dim));
        let dembeddings = zeros(&mut s.ads.dembeddings, s.ads.embeddings.len());
        for (i, &image) in s.ads.images.iter().enumerate() {
            let dembedding = &mut dembeddings[image as usize * dim..][..dim];
            linalg::add(columns.of(d.a, i), dembedding);
        }
        s.ads.give(no_image.of_mut(dw), &mut grads.dad_embeddings);
    }

    /// Fills the aggregate's columns of u or a.
    fn aggregate(
        &self,
        w: &[f32],
        batch: &RankBatch,
        content: &ContentBatch,
        s: &mut ContentScratch,
        to: &mut Inputs,
    ) {
        let (Some(aggregate), Some(no_image)) = (&self.aggregate, self.behavior_no_image) else {
            return;
        };
        s.behaviors.fill(content.behavior_embeddings, no_image.of(w), content.behavior_images);
        if let Some(kept) = batch.kept {
            s.behaviors.keep(kept);
        }
        let rows = batch.len();
        gather(rows, to.queries, to.a, &mut s.queries);
        gather(rows, self.image_query(to).as_slice(to.queries), to.a, &mut s.image_queries);
        let columns = self.aggregate_columns(&**aggregate, to);
        let (rows, x) = match self.per {
            Per::Group => (batch.groups(), &mut *to.u),
            Per::Impression => (batch.len(), &mut *to.a),
        };
        let out = fit(&mut s.aggregate, rows * columns.dim);
        let queries = Queries { image: &s.image_queries, fields: &s.queries };
        let histories = batch.histories(&s.behaviors.images, &s.behaviors.embeddings, &s.cosines);
        aggregate.forward(w, histories, queries, &mut s.attention, out);
        for (i, out) in out.chunks_exact(columns.dim).enumerate() {
            columns.of_mut(x, i).copy_from_slice(out);
        }
    }

    /// Adds the gradients of the queries to `d`.
    fn aggregate_backward(
        &self,
        w: &[f32],
        batch: &RankBatch,
        content: &ContentBatch,
        s: &mut ContentScratch,
        d: &mut Inputs,
        dw: &mut [f32],
        grads: &mut ContentGrads,
    ) {
        let (Some(aggregate), Some(no_image)) = (&self.aggregate, self.behavior_no_image) else {
            zeros(&mut grads.dbehavior_embeddings, content.behavior_embeddings.len());
            return;
        };
        let columns = self.aggregate_columns(&**aggregate, d);
        let dx = if self.per == Per::Group { &*d.u } else { &*d.a };
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
        let histories = batch.histories(&s.behaviors.images, &s.behaviors.embeddings, &s.cosines);
        let attention = &mut s.attention;
        aggregate.backward(w, histories, queries, attention, dout, dw, dqueries, &mut dembeddings);
        s.behaviors.dembeddings = dembeddings;
        s.behaviors.give(no_image.of_mut(dw), &mut grads.dbehavior_embeddings);
        let image = self.image_query(d);
        gather_backward(batch.len(), d.queries, &s.dqueries, d.a);
        gather_backward(batch.len(), image.as_slice(d.queries), &s.dimage_queries, d.a);
    }

    /// ad * aggregate, the ad repeated over what lies side by side in the aggregate.
    fn products(&self, batch: &RankBatch, to: &mut Inputs) {
        let (Some(first), Some(aggregate)) = (self.product, &self.aggregate) else { return };
        let product = to.in_a(first, aggregate.width());
        let (ad, columns) = (to.in_a(self.ad, self.dim), self.aggregate_columns(&**aggregate, to));
        for group in 0..batch.groups() {
            for i in batch.impressions_of(group) {
                for at in 0..product.dim {
                    let aggregate = match self.per {
                        Per::Group => columns.of(to.u, group)[at],
                        Per::Impression => columns.of(to.a, i)[at],
                    };
                    let ad = ad.of(to.a, i)[at % self.dim];
                    product.of_mut(to.a, i)[at] = ad * aggregate;
                }
            }
        }
    }

    /// Adds to the gradients of the ad and of the aggregate.
    fn products_backward(&self, batch: &RankBatch, x: &Inputs, d: &mut Inputs) {
        let (Some(first), Some(aggregate)) = (self.product, &self.aggregate) else { return };
        let product = x.in_a(first, aggregate.width());
        let (ad, columns) = (x.in_a(self.ad, self.dim), self.aggregate_columns(&**aggregate, x));
        for group in 0..batch.groups() {
            for i in batch.impressions_of(group) {
                for at in 0..product.dim {
                    let dproduct = product.of(d.a, i)[at];
                    let of_ad = ad.of(x.a, i)[at % self.dim];
                    let of_aggregate = match self.per {
                        Per::Group => {
                            columns.of_mut(d.u, group)[at] += dproduct * of_ad;
                            columns.of(x.u, group)[at]
                        }
                        Per::Impression => {
                            columns.of_mut(d.a, i)[at] += dproduct * of_ad;
                            columns.of(x.a, i)[at]
                        }
                    };
                    ad.of_mut(d.a, i)[at % self.dim] += dproduct * of_aggregate;
                }
            }
        }
    }

    /// What attention that would ask for the ad's image asks for.
    fn image_query(&self, inputs: &Inputs) -> ImageQuery {
        match self.ad_no_image {
            Some(_) => ImageQuery::Image([inputs.in_a(self.ad, self.dim)]),
            None => ImageQuery::Fields,
        }
    }

    fn aggregate_columns(&self, aggregate: &dyn Aggregate, inputs: &Inputs) -> Columns {
        match self.per {
            Per::Group => inputs.in_u(self.aggregate_at, aggregate.width()),
            Per::Impression => inputs.in_a(self.aggregate_at, aggregate.width()),
        }
    }
}

/// The ad's image where the network sees it, else the query fields.
enum ImageQuery {
    Image([Columns; 1]),
    Fields,
}

impl ImageQuery {
    fn as_slice<'a>(&'a self, fields: &'a [Columns]) -> &'a [Columns] {
        match self {
            ImageQuery::Image(image) => image,
            ImageQuery::Fields => fields,
        }
    }
}
