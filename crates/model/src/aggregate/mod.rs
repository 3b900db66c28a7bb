//! Aggregators: from the image embeddings of a history to one vector.
//!
//! One file per aggregator and one list, here. To add one: a file with its forward and backward pass, a
//! variant of [`Aggregator`] and of `Aggregate`, an arm in each match below. An empty history gives
//! zeros, whichever the aggregator.

mod attention;
mod attentive;
mod multi_query;
mod sum;

use serde::{Deserialize, Serialize};

use crate::params::Layout;
use attentive::Attentive;
use multi_query::MultiQueryAttentive;
use sum::Sum;

/// The aggregators there are, as a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregator {
    /// The sum of the embeddings: one vector per group.
    Sum,
    /// A sum weighted by attention to the ad's image: one vector per impression.
    Attentive,
    /// Two such sums, one attending to the ad's image and one to its ids, side by side.
    MultiQueryAttentive,
}

impl Aggregator {
    /// Every aggregator.
    pub const ALL: [Aggregator; 3] =
        [Aggregator::Sum, Aggregator::Attentive, Aggregator::MultiQueryAttentive];
}

/// The histories of a batch. Its indices have been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Histories<'a> {
    /// Where each group's impressions begin, (G + 1).
    pub impressions: &'a [u32],
    /// Where each group's behaviors begin, (G + 1).
    pub behaviors: &'a [u32],
    /// The image of each behavior, an index into `embeddings`, (N).
    pub images: &'a [u32],
    /// Image embeddings, (U, D).
    pub embeddings: &'a [f32],
}

impl<'a> Histories<'a> {
    /// Number of groups (G).
    fn groups(&self) -> usize {
        self.behaviors.len() - 1
    }

    /// Number of impressions (B).
    fn impressions(&self) -> usize {
        self.impressions[self.groups()] as usize
    }

    /// The images of the behaviors of `group`.
    fn images(&self, group: usize) -> &'a [u32] {
        &self.images[self.behaviors[group] as usize..self.behaviors[group + 1] as usize]
    }
}

/// What attention may look for, per impression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queries<'a> {
    /// The ad's image embedding, or the ad's fields again where the arm has no ad image; (B, _).
    pub image: &'a [f32],
    /// The embeddings of the ad's query fields, (B, _).
    pub fields: &'a [f32],
}

/// Gradients of [`Queries`], of the same shapes; the aggregator adds to them.
#[derive(Debug)]
pub(crate) struct QueryGrads<'a> {
    pub image: &'a mut [f32],
    pub fields: &'a mut [f32],
}

/// Widths an aggregator is built from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Widths {
    /// Width of an image embedding (D).
    pub dim: usize,
    /// Width of [`Queries::image`].
    pub image_query: usize,
    /// Width of [`Queries::fields`].
    pub field_query: usize,
    /// Hidden widths of an attention network.
    pub attention: [usize; 2],
}

/// What an aggregate belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Per {
    Group,
    Impression,
}

/// An aggregator with the places of its weights.
#[derive(Clone, Debug)]
pub(crate) enum Aggregate {
    Sum(Sum),
    Attentive(Box<Attentive>),
    MultiQueryAttentive(Box<MultiQueryAttentive>),
}

/// Activations of a forward pass, for its backward pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct AggregateScratch {
    channels: [attention::AttentionScratch; 2],
}

impl Aggregate {
    pub fn new(aggregator: Aggregator, layout: &mut Layout, widths: Widths) -> Aggregate {
        match aggregator {
            Aggregator::Sum => Aggregate::Sum(Sum { dim: widths.dim }),
            Aggregator::Attentive => Aggregate::Attentive(Box::new(Attentive::new(layout, widths))),
            Aggregator::MultiQueryAttentive => {
                Aggregate::MultiQueryAttentive(Box::new(MultiQueryAttentive::new(layout, widths)))
            }
        }
    }

    pub fn per(&self) -> Per {
        match self {
            Aggregate::Sum(_) => Per::Group,
            Aggregate::Attentive(_) | Aggregate::MultiQueryAttentive(_) => Per::Impression,
        }
    }

    /// Width of the aggregate.
    pub fn width(&self) -> usize {
        match self {
            Aggregate::Sum(sum) => sum.dim,
            Aggregate::Attentive(attentive) => attentive.width(),
            Aggregate::MultiQueryAttentive(multi_query) => multi_query.width(),
        }
    }

    /// Overwrites `out`, (G or B, width).
    pub fn forward(
        &self,
        w: &[f32],
        histories: Histories,
        queries: Queries,
        scratch: &mut AggregateScratch,
        out: &mut [f32],
    ) {
        match self {
            Aggregate::Sum(sum) => sum.forward(histories, out),
            Aggregate::Attentive(attentive) => {
                attentive.forward(w, histories, queries, scratch, out);
            }
            Aggregate::MultiQueryAttentive(multi_query) => {
                multi_query.forward(w, histories, queries, scratch, out);
            }
        }
    }

    /// Adds to `dw`, `dqueries` and `dembeddings` (U, D), given `dout` (G or B, width).
    pub fn backward(
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
        match self {
            Aggregate::Sum(sum) => sum.backward(histories, dout, dembeddings),
            Aggregate::Attentive(attentive) => {
                attentive.backward(w, histories, queries, scratch, dout, dw, dqueries, dembeddings)
            }
            Aggregate::MultiQueryAttentive(multi_query) => multi_query.backward(
                w,
                histories,
                queries,
                scratch,
                dout,
                dw,
                dqueries,
                dembeddings,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, assert_gradient, values};

    const WIDTHS: Widths = Widths { dim: 3, image_query: 2, field_query: 5, attention: [4, 3] };

    /// Four groups over three images: (impressions, behaviors) are (3, 2), (1, 0), (0, 3), (2, 1).
    fn histories(embeddings: &[f32]) -> Histories<'_> {
        Histories {
            impressions: &[0, 3, 4, 4, 6],
            behaviors: &[0, 2, 2, 5, 6],
            images: &[2, 0, 1, 1, 0, 2],
            embeddings,
        }
    }

    /// Everything an aggregate is a function of.
    #[derive(Clone)]
    struct Inputs {
        w: Vec<f32>,
        embeddings: Vec<f32>,
        image: Vec<f32>,
        fields: Vec<f32>,
    }

    fn build(aggregator: Aggregator) -> (Aggregate, Inputs) {
        let mut layout = Layout::default();
        let aggregate = Aggregate::new(aggregator, &mut layout, WIDTHS);
        let w = values(1, layout.len());
        let (image, fields) = (values(3, 6 * 2), values(4, 6 * 5));
        (aggregate, Inputs { w, embeddings: values(2, 9), image, fields })
    }

    fn forward(aggregate: &Aggregate, x: &Inputs, scratch: &mut AggregateScratch) -> Vec<f32> {
        let rows = if aggregate.per() == Per::Group { 4 } else { 6 };
        let mut out = vec![f32::NAN; rows * aggregate.width()];
        let queries = Queries { image: &x.image, fields: &x.fields };
        aggregate.forward(&x.w, histories(&x.embeddings), queries, scratch, &mut out);
        out
    }

    #[test]
    fn gradients_match_differences() {
        for aggregator in Aggregator::ALL {
            let (aggregate, x) = build(aggregator);
            let mut scratch = AggregateScratch::default();
            let dout = values(5, forward(&aggregate, &x, &mut scratch).len());
            let mut d = Inputs {
                w: vec![0.0; x.w.len()],
                embeddings: vec![0.0; x.embeddings.len()],
                image: vec![0.0; x.image.len()],
                fields: vec![0.0; x.fields.len()],
            };
            aggregate.backward(
                &x.w,
                histories(&x.embeddings),
                Queries { image: &x.image, fields: &x.fields },
                &mut scratch,
                &dout,
                &mut d.w,
                QueryGrads { image: &mut d.image, fields: &mut d.fields },
                &mut d.embeddings,
            );
            let loss = |x: &Inputs| {
                let out = forward(&aggregate, x, &mut AggregateScratch::default());
                out.iter().zip(&dout).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
            };
            let with = |change: &dyn Fn(&mut Inputs)| {
                let mut x = x.clone();
                change(&mut x);
                loss(&x)
            };
            let name = format!("{aggregator:?}");
            assert_gradient(&name, &x.w, &d.w, |v| with(&|x| x.w = v.to_vec()));
            assert_gradient(&name, &x.embeddings, &d.embeddings, |v| {
                with(&|x| x.embeddings = v.to_vec())
            });
            assert_gradient(&name, &x.image, &d.image, |v| with(&|x| x.image = v.to_vec()));
            assert_gradient(&name, &x.fields, &d.fields, |v| with(&|x| x.fields = v.to_vec()));
        }
    }

    #[test]
    fn an_empty_history_gives_zeros() {
        for aggregator in Aggregator::ALL {
            let (aggregate, x) = build(aggregator);
            let out = forward(&aggregate, &x, &mut AggregateScratch::default());
            let row = if aggregate.per() == Per::Group { 1 } else { 3 };
            let width = aggregate.width();
            assert_eq!(out[row * width..][..width], vec![0.0; width], "{aggregator:?}");
        }
    }

    #[test]
    fn sums_are_sums() {
        let (aggregate, mut x) = build(Aggregator::Sum);
        x.embeddings = vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 100.0, 200.0, 300.0];
        let out = forward(&aggregate, &x, &mut AggregateScratch::default());
        let expected = [101.0, 202.0, 303.0, 0.0, 0.0, 0.0, 21.0, 42.0, 63.0, 100.0, 200.0, 300.0];
        assert_close(&out, &expected, 0.0);
    }
}
