//! The multi-query attentive aggregator: two channels of attention over the same embeddings, one
//! that asks for the ad's image and one for the ad's ids; their outputs lie side by side.

use super::attention::Attention;
use super::inputs::{Histories, Queries, QueryGrads, Widths};
use super::operation::{Aggregate, AggregateScratch, Per};
use crate::params::Layout;

/// The multi-query attentive aggregator.
#[derive(Clone, Debug)]
pub(crate) struct MultiQueryAttentive {
    image: Attention,
    fields: Attention,
}

impl MultiQueryAttentive {
    /// Appends the weights of `<prefix>attention.image` and `.fields` to `layout`.
    pub(crate) fn new(layout: &mut Layout, prefix: &str, widths: Widths) -> MultiQueryAttentive {
        let [image, fields] = ["image", "fields"].map(|name| format!("{prefix}attention.{name}"));
        MultiQueryAttentive {
            image: Attention::new(layout, &image, widths, widths.image_query),
            fields: Attention::new(layout, &fields, widths, widths.field_query),
        }
    }
}

impl Aggregate for MultiQueryAttentive {
    fn per(&self) -> Per {
        Per::Impression
    }

    fn width(&self) -> usize {
        2 * self.image.dim()
    }

    fn forward(
        &self,
        w: &[f32],
        histories: Histories,
        queries: Queries,
        scratch: &mut AggregateScratch,
        out: &mut [f32],
    ) {
        out.fill(0.0);
        let [image, fields] = &mut scratch.channels;
        let columns = self.image.columns(0, self.width());
        self.image.forward(w, histories, queries.image, image, columns, out);
        let columns = self.fields.columns(1, self.width());
        self.fields.forward(w, histories, queries.fields, fields, columns, out);
    }

    fn attention<'s>(&self, scratch: &'s AggregateScratch) -> Vec<(&'static str, &'s [f32])> {
        let [image, fields] = &scratch.channels;
        vec![("image", image.weights()), ("fields", fields.weights())]
    }

    fn backward(
        &self,
        w: &[f32],
        histories: Histories,
        queries: Queries,
        scratch: &mut AggregateScratch,
        dout: &[f32],
        dw: &mut [f32],
        dqueries: QueryGrads,
        dembeddings: &mut [f32],
    ) {
        let channels = [
            (&self.image, queries.image, dqueries.image),
            (&self.fields, queries.fields, dqueries.fields),
        ];
        for (i, (channel, query, dquery)) in channels.into_iter().enumerate() {
            let columns = channel.columns(i, self.width());
            let scratch = &mut scratch.channels[i];
            channel.backward(w, histories, query, scratch, columns, dout, dw, dquery, dembeddings);
        }
    }
}
