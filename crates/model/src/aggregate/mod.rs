//! Aggregators: from the image embeddings of a history to one vector.
//!
//! One file per aggregator and one list, here. To add one: a file that implements `Aggregate`, and
//! its line in [`Aggregator`] and in `LIST`. An empty history gives zeros, whichever the
//! aggregator.

mod across;
mod along;
pub(crate) mod attention;
mod attentive;
mod concatenate;
mod inputs;
mod max;
mod multi_query;
mod operation;
mod pairs;
mod sum;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::params::Layout;
use attentive::Attentive;
use concatenate::Concatenate;
use max::Max;
use multi_query::MultiQueryAttentive;
use sum::Sum;

pub(crate) use inputs::{Histories, Queries, QueryGrads, Widths};
pub(crate) use operation::{Aggregate, AggregateScratch, Per};

/// The aggregators there are, as a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregator {
    /// The newest embeddings, a fixed number, end to end: one vector per group.
    Concatenate,
    /// The largest value of each column: one vector per group.
    Max,
    /// The sum of the embeddings: one vector per group.
    Sum,
    /// A sum weighted by attention to the ad's image: one vector per impression.
    Attentive,
    /// Two such sums, one attending to the ad's image and one to its ids, side by side.
    MultiQueryAttentive,
}

/// What there is to know of an aggregator but its arithmetic.
struct Listed {
    aggregator: Aggregator,
    /// As a configuration spells it.
    name: &'static str,
    /// What of the ad it asks for.
    queries: &'static [Query],
    /// Makes it; appends its weights, whose names begin with the text, to the layout.
    build: fn(&mut Layout, &str, Widths) -> Arc<dyn Aggregate>,
}

/// Every aggregator, in the order of the documentation.
const LIST: [Listed; 5] = [
    Listed {
        aggregator: Aggregator::Concatenate,
        name: "concatenate",
        queries: &[],
        build: |_, _, widths| Arc::new(Concatenate { dim: widths.dim, length: widths.concatenate }),
    },
    Listed {
        aggregator: Aggregator::Max,
        name: "max",
        queries: &[],
        build: |_, _, widths| Arc::new(Max { dim: widths.dim }),
    },
    Listed {
        aggregator: Aggregator::Sum,
        name: "sum",
        queries: &[],
        build: |_, _, widths| Arc::new(Sum { dim: widths.dim }),
    },
    Listed {
        aggregator: Aggregator::Attentive,
        name: "attentive",
        queries: &[Query::Image],
        build: |layout, prefix, widths| Arc::new(Attentive::new(layout, prefix, widths)),
    },
    Listed {
        aggregator: Aggregator::MultiQueryAttentive,
        name: "multi-query-attentive",
        queries: &[Query::Image, Query::Fields],
        build: |layout, prefix, widths| Arc::new(MultiQueryAttentive::new(layout, prefix, widths)),
    },
];

impl Aggregator {
    /// Every aggregator, in the order of the documentation.
    pub const ALL: [Aggregator; LIST.len()] = {
        let mut all = [Aggregator::Sum; LIST.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = LIST[at].aggregator;
            at += 1;
        }
        all
    };

    fn listed(self) -> &'static Listed {
        static ALL: [Listed; LIST.len()] = LIST;
        ALL.iter().find(|listed| listed.aggregator == self).expect("every aggregator is listed")
    }

    /// As a configuration spells it.
    pub fn as_str(self) -> &'static str {
        self.listed().name
    }

    /// What of the ad the aggregator asks for.
    pub(crate) fn queries(self) -> &'static [Query] {
        self.listed().queries
    }

    /// Makes the aggregator; appends its weights, whose names begin with `prefix`, to `layout`.
    pub(crate) fn build(
        self,
        layout: &mut Layout,
        prefix: &str,
        widths: Widths,
    ) -> Arc<dyn Aggregate> {
        (self.listed().build)(layout, prefix, widths)
    }
}

/// Names one of [`Queries`], without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    Image,
    Fields,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::{assert_close, assert_gradient, values};

    /// Runs an aggregator that looks at nothing but the history; `out` and `dembeddings` are as for
    /// [`Aggregate`].
    pub(super) fn alone(
        aggregate: &dyn Aggregate,
        histories: Histories,
        out: &mut [f32],
        dout: &[f32],
        dembeddings: &mut [f32],
    ) {
        let (queries, mut scratch) = (Queries { image: &[], fields: &[] }, Default::default());
        aggregate.forward(&[], histories, queries, &mut scratch, out);
        let dqueries = QueryGrads { image: &mut [], fields: &mut [] };
        let (w, dw) = (&[], &mut []);
        aggregate.backward(w, histories, queries, &mut scratch, dout, dw, dqueries, dembeddings);
    }

    const WIDTHS: Widths = Widths {
        dim: 3,
        beside: 0,
        image_query: 2,
        field_query: 5,
        attention: [4, 3],
        concatenate: 2,
        product: false,
        cosine: false,
    };

    /// Histories apart from their floats.
    struct Case {
        name: &'static str,
        impressions: Vec<u32>,
        behaviors: Vec<u32>,
        images: Vec<u32>,
        /// Number of embeddings (U).
        unique: usize,
    }

    impl Case {
        /// Groups with these numbers of impressions, each with the images of its history.
        fn new(name: &'static str, unique: usize, groups: &[(u32, &[u32])]) -> Case {
            let (mut impressions, mut behaviors, mut images) = (vec![0], vec![0], vec![]);
            for &(count, history) in groups {
                images.extend(history);
                impressions.push(impressions[impressions.len() - 1] + count);
                behaviors.push(images.len() as u32);
            }
            Case { name, impressions, behaviors, images, unique }
        }

        fn histories<'a>(&'a self, embeddings: &'a [f32]) -> Histories<'a> {
            let Case { impressions, behaviors, images, .. } = self;
            let impressions = Some(&impressions[..]);
            Histories { impressions, behaviors, images, embeddings, cosines: &[] }
        }
    }

    fn cases() -> Vec<Case> {
        let many: Vec<u32> = (0..1000).map(|i| i * i % 17).collect();
        vec![
            Case::new("mixed", 3, &[(3, &[2, 0]), (1, &[]), (0, &[1, 1, 0]), (2, &[2])]),
            Case::new("no group", 2, &[]),
            Case::new("no history", 2, &[(2, &[]), (1, &[]), (0, &[])]),
            Case::new("one behavior", 2, &[(2, &[1])]),
            Case::new("an image again and again", 3, &[(2, &[1, 1, 1, 1, 1]), (1, &[0, 2, 0, 2])]),
            Case::new("as long as the concatenation", 3, &[(1, &[0, 2]), (2, &[2, 1])]),
            Case::new("1,000 behaviors", 17, &[(1, &[4]), (2, &many), (1, &[])]),
        ]
    }

    /// Everything an aggregate is a function of.
    #[derive(Clone)]
    struct Inputs {
        w: Vec<f32>,
        embeddings: Vec<f32>,
        image: Vec<f32>,
        fields: Vec<f32>,
    }

    fn build(aggregator: Aggregator, case: &Case) -> (Arc<dyn Aggregate>, Inputs) {
        let mut layout = Layout::default();
        let aggregate = aggregator.build(&mut layout, "", WIDTHS);
        let w = values(1, layout.len());
        let impressions = case.histories(&[]).impressions();
        let (image, fields) = (values(3, impressions * 2), values(4, impressions * 5));
        let embeddings = values(2, case.unique * WIDTHS.dim);
        (aggregate, Inputs { w, embeddings, image, fields })
    }

    fn forward(
        aggregate: &dyn Aggregate,
        case: &Case,
        x: &Inputs,
        scratch: &mut AggregateScratch,
    ) -> Vec<f32> {
        let histories = case.histories(&x.embeddings);
        let rows = match aggregate.per() {
            Per::Group => histories.groups(),
            Per::Impression => histories.impressions(),
        };
        let mut out = vec![f32::NAN; rows * aggregate.width()];
        let queries = Queries { image: &x.image, fields: &x.fields };
        aggregate.forward(&x.w, histories, queries, scratch, &mut out);
        out
    }

    fn check_gradients(aggregator: Aggregator, case: &Case) {
        let (aggregate, x) = build(aggregator, case);
        let mut scratch = AggregateScratch::default();
        let dout = values(5, forward(&*aggregate, case, &x, &mut scratch).len());
        let mut d = Inputs {
            w: vec![0.0; x.w.len()],
            embeddings: vec![0.0; x.embeddings.len()],
            image: vec![0.0; x.image.len()],
            fields: vec![0.0; x.fields.len()],
        };
        aggregate.backward(
            &x.w,
            case.histories(&x.embeddings),
            Queries { image: &x.image, fields: &x.fields },
            &mut scratch,
            &dout,
            &mut d.w,
            QueryGrads { image: &mut d.image, fields: &mut d.fields },
            &mut d.embeddings,
        );
        let loss = |x: &Inputs| {
            let out = forward(&*aggregate, case, x, &mut AggregateScratch::default());
            out.iter().zip(&dout).map(|(y, dy)| f64::from(y * dy)).sum::<f64>()
        };
        let with = |change: &dyn Fn(&mut Inputs)| {
            let mut x = x.clone();
            change(&mut x);
            loss(&x)
        };
        let name = format!("{aggregator:?}, {}", case.name);
        assert_gradient(&name, &x.w, &d.w, |v| with(&|x| x.w = v.to_vec()));
        assert_gradient(&name, &x.embeddings, &d.embeddings, |v| {
            with(&|x| x.embeddings = v.to_vec())
        });
        assert_gradient(&name, &x.image, &d.image, |v| with(&|x| x.image = v.to_vec()));
        assert_gradient(&name, &x.fields, &d.fields, |v| with(&|x| x.fields = v.to_vec()));
    }

    #[test]
    fn gradients_match_differences() {
        for aggregator in Aggregator::ALL {
            let attends = !aggregator.queries().is_empty();
            for case in cases() {
                // What attention rounds in sums over so many pairs is larger than a difference.
                if !(attends && case.images.len() > 1000) {
                    check_gradients(aggregator, &case);
                }
            }
        }
    }

    #[test]
    fn an_empty_history_gives_zeros() {
        for aggregator in Aggregator::ALL {
            for case in cases() {
                let (aggregate, x) = build(aggregator, &case);
                let out = forward(&*aggregate, &case, &x, &mut AggregateScratch::default());
                let (histories, width) = (case.histories(&x.embeddings), aggregate.width());
                for group in (0..histories.groups()).filter(|&g| histories.images(g).is_empty()) {
                    let rows = match aggregate.per() {
                        Per::Group => group..group + 1,
                        Per::Impression => {
                            case.impressions[group] as usize..case.impressions[group + 1] as usize
                        }
                    };
                    let zeros = vec![0.0; rows.len() * width];
                    let got = &out[rows.start * width..rows.end * width];
                    assert_eq!(got, zeros, "{aggregator:?}, {}", case.name);
                }
            }
        }
    }

    /// The aggregate of one history by an aggregator that does not look at the ad, the slow and
    /// obvious way; `length` is that of a concatenation.
    pub(crate) fn obvious(
        aggregator: Aggregator,
        dim: usize,
        length: usize,
        history: &[&[f32]],
    ) -> Vec<f32> {
        let column = |d: usize| -> Vec<f32> { history.iter().map(|e| e[d]).collect() };
        let per_column = |f: fn(Vec<f32>) -> f32| (0..dim).map(|d| f(column(d))).collect();
        match aggregator {
            Aggregator::Sum => per_column(|column| column.iter().sum()),
            Aggregator::Max => per_column(|mut column| {
                column.sort_by(f32::total_cmp);
                column.last().copied().unwrap_or(0.0)
            }),
            Aggregator::Concatenate => {
                let mut all = history.concat();
                all.resize(length * dim, 0.0);
                all
            }
            Aggregator::Attentive | Aggregator::MultiQueryAttentive => {
                unreachable!("attention has a twin of its own")
            }
        }
    }

    #[test]
    fn aggregates_of_groups_are_the_obvious_ones() {
        for aggregator in [Aggregator::Concatenate, Aggregator::Max, Aggregator::Sum] {
            for case in cases() {
                let (aggregate, x) = build(aggregator, &case);
                let out = forward(&*aggregate, &case, &x, &mut AggregateScratch::default());
                let histories = case.histories(&x.embeddings);
                let expected: Vec<f32> = (0..histories.groups())
                    .flat_map(|group| {
                        let embedding = |&image: &u32| &x.embeddings[image as usize * 3..][..3];
                        let history: Vec<&[f32]> =
                            histories.images(group).iter().map(embedding).collect();
                        obvious(aggregator, WIDTHS.dim, WIDTHS.concatenate, &history)
                    })
                    .collect();
                assert_eq!(out, expected, "{aggregator:?}, {}", case.name);
            }
        }
    }

    #[test]
    fn sums_are_sums() {
        let case = &cases()[0];
        let (aggregate, mut x) = build(Aggregator::Sum, case);
        x.embeddings = vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0, 100.0, 200.0, 300.0];
        let out = forward(&*aggregate, case, &x, &mut AggregateScratch::default());
        let expected = [101.0, 202.0, 303.0, 0.0, 0.0, 0.0, 21.0, 42.0, 63.0, 100.0, 200.0, 300.0];
        assert_close(&out, &expected, 0.0);
    }
}
