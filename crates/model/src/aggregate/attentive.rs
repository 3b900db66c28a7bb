//! The attentive aggregator: one channel of attention that asks for the ad's image.

use super::attention::Attention;
use super::inputs::{Histories, Queries, QueryGrads, Widths};
use super::operation::{Aggregate, AggregateScratch, Per};
use crate::params::Layout;

/// Weights behaviors by an attention network over (behavior, ad).
#[derive(Clone, Debug)]
pub(crate) struct Attentive {
    channel: Attention,
}

impl Attentive {
    /// Appends the weights of `<prefix>attention.image` to `layout`.
    pub(crate) fn new(layout: &mut Layout, prefix: &str, widths: Widths) -> Attentive {
        let name = format!("{prefix}attention.image");
        Attentive { channel: Attention::new(layout, &name, widths, widths.image_query) }
    }
}

impl Aggregate for Attentive {
    fn per(&self) -> Per {
        Per::Impression
    }

    fn width(&self) -> usize {
        self.channel.dim()
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
        let columns = self.channel.columns(0, self.width());
        self.channel.forward(w, histories, queries.image, &mut scratch.channels[0], columns, out);
    }

    fn attention<'s>(&self, scratch: &'s AggregateScratch) -> Vec<(&'static str, &'s [f32])> {
        vec![("image", scratch.channels[0].weights())]
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
        let columns = self.channel.columns(0, self.width());
        self.channel.backward(
            w,
            histories,
            queries.image,
            &mut scratch.channels[0],
            columns,
            dout,
            dw,
            dqueries.image,
            dembeddings,
        );
    }
}
