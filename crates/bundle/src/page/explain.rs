//! Why a candidate has its score: what the click-through rate would be without each past behavior.
//!
//! Leaving one out asks the model itself, so it is true of every kind of network. Where a network
//! has attention, its weights are beside: they say what it looked at, which is not what changed its
//! answer. A behavior that a search leaves out raises nothing and weighs nothing.

use serde::Serialize;

use crate::error::Result;
use crate::model::{Model, Scratch};
use crate::page::rank::by_ecpm;
use crate::page::resolve::newest_first;
use crate::request::PageView;

/// Candidates that are explained unless the request's `top_k` says otherwise, and the most there
/// may be.
const EXPLAINED: usize = 5;
const EXPLAINED_MAX: usize = 50;

/// The best candidates and what drew their scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The behaviors the model looked at, newest first: their items.
    pub behaviors: Vec<String>,
    /// Where each is in the request.
    pub rows: Vec<usize>,
    /// The best candidates, best first.
    pub candidates: Vec<ExplainedCandidate>,
}

/// The explanation of one candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExplainedCandidate {
    /// The item as the request spells it.
    pub item: String,
    /// Its predicted click-through rate.
    pub ctr: f32,
    /// The rate for a user without history.
    pub ctr_without_history: f32,
    /// By how much each behavior raises the rate: what it is less what it would be without the
    /// behavior.
    pub raises: Vec<f32>,
    /// Weights of the behaviors in each attention of the network; empty without attention.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<Attention>,
}

/// Weights of the behaviors in one attention.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attention {
    /// The attended inputs of the behaviors: `image`, another content, or `ids`.
    pub over: String,
    /// What of the candidate it asked for: `image` (the fields where the model does not see the
    /// candidate's), `fields`, or `ids`.
    pub queries: Vec<String>,
    /// The weight of each behavior, the mean over the queries. Not normalized: it may be negative
    /// or more than 1.
    pub weights: Vec<f32>,
}

impl Model {
    /// The effect of every behavior on the scores of the best candidates.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn explain(&self, page: &PageView, scratch: &mut Scratch) -> Result<Explained> {
        let mut ctr = Vec::new();
        self.ctrs(page, scratch, &mut ctr)?;
        let most = page.options.top_k.unwrap_or(EXPLAINED).min(EXPLAINED_MAX);
        let places: Vec<usize> =
            by_ecpm(page, &ctr).into_iter().map(|(at, _)| at).take(most).collect();
        let rows = newest_first(self, page)?;
        let mut asked = page.clone();
        asked.options.top_k = None;
        asked.candidates = page.candidates.at(&places);
        // What these look at: the page may have been scored in parts.
        self.ctrs(&asked, scratch, &mut Vec::new())?;
        let attention = attention(self, scratch, places.len(), rows.len());
        let seen: Vec<bool> = (0..rows.len()).map(|at| scratch.saw(self, at)).collect();
        let mut without = |left: &[usize], ctr: &mut Vec<f32>| {
            asked.user.behaviors = page.user.behaviors.at(left);
            self.ctrs(&asked, scratch, ctr)
        };
        let (mut nothing, mut raises) = (Vec::new(), vec![Vec::new(); places.len()]);
        without(&[], &mut nothing)?;
        let mut others = Vec::new();
        for (row, seen) in rows.iter().zip(seen) {
            if !seen {
                // A search left it out, so nothing would change.
                raises.iter_mut().for_each(|raises| raises.push(0.0));
                continue;
            }
            let left: Vec<usize> = rows.iter().copied().filter(|other| other != row).collect();
            without(&left, &mut others)?;
            for ((raises, &at), other) in raises.iter_mut().zip(&places).zip(&others) {
                raises.push(ctr[at] - other);
            }
        }
        let candidates = places.iter().zip(nothing).zip(raises).zip(attention);
        Ok(Explained {
            behaviors: rows.iter().map(|&row| page.user.behaviors.item[row].0.clone()).collect(),
            rows,
            candidates: candidates
                .map(|(((&at, ctr_without_history), raises), attention)| ExplainedCandidate {
                    item: page.candidates.item[at].0.clone(),
                    ctr: ctr[at],
                    ctr_without_history,
                    raises,
                    attention,
                })
                .collect(),
        })
    }
}

/// What was weighed when `candidates` were scored, each with `behaviors` behaviors.
fn attention(
    model: &Model,
    scratch: &Scratch,
    candidates: usize,
    behaviors: usize,
) -> Vec<Vec<Attention>> {
    let attended = model.attention(scratch);
    let of = |candidate: usize| {
        let weighed = scratch.weighed(model, candidate, behaviors);
        let channels = attended.chunk_by(|a, b| a.over == b.over);
        let attention = channels.map(|channels| {
            // What a search left out weighs nothing.
            let mut weights = vec![0.0; behaviors];
            for (at, &behavior) in weighed.behaviors.iter().enumerate() {
                let each = channels.iter().map(|channel| channel.weights[weighed.first + at]);
                weights[behavior] = each.sum::<f32>() / channels.len() as f32;
            }
            Attention {
                over: channels[0].over.to_owned(),
                queries: channels.iter().map(|channel| channel.query.to_owned()).collect(),
                weights,
            }
        });
        attention.collect()
    };
    (0..candidates).map(of).collect()
}

#[cfg(test)]
mod tests {
    use crate::fixture::{Fixture, spec, with};
    use crate::model::Scratch;
    use crate::request::PageView;
    use crate::spec::{Spec, TowerSharing};
    use ams_model::{Aggregator, Base, ImageArm, SearchBy, SearchSettings};

    #[test]
    fn leaving_out_is_asking_without() {
        let model = Fixture::new(ImageArm::Joint).model();
        let page = |history: &str| {
            let json = format!(
                r#"{{"user": {{"id": "u1", "behaviors": {history}}},
                    "candidates": {{"item": ["4", "1", "3"], "bid": [1, 2, 0]}}, "options": {{"top_k": 2}}}}"#
            );
            PageView::parse(json.as_bytes()).unwrap()
        };
        // The model looks at the newest four: "6" is too old.
        let asked = page(r#"{"item": ["6", "1", "4", "2", "3"], "time": [1, 2, 5, 3, 4]}"#);
        let explained = model.explain(&asked, &mut Scratch::default()).unwrap();
        assert_eq!(explained.behaviors, ["4", "3", "2", "1"]);
        assert_eq!(explained.rows, [2, 4, 3, 1]);
        let ranked = model.score(&asked).unwrap();
        let without = page(r#"{"item": ["4", "2", "1"]}"#);
        let without = model.score(&without).unwrap();
        let nothing = page(r#"{"item": []}"#);
        let nothing = model.score(&nothing).unwrap();
        for (at, candidate) in explained.candidates.iter().enumerate() {
            let of = |ranked: &crate::Ranked<'_>| {
                ranked.ctr[ranked.items.iter().position(|item| *item == candidate.item).unwrap()]
            };
            assert_eq!((&candidate.item[..], candidate.ctr), (ranked.items[at], ranked.ctr[at]));
            assert_eq!(candidate.raises.len(), 4);
            assert_eq!(candidate.raises[1], candidate.ctr - of(&without));
            assert_ne!(candidate.raises[1], 0.0);
            assert_eq!(candidate.ctr_without_history, of(&nothing));
        }
    }

    /// What a search leaves out raises nothing and weighs nothing, and is not asked for.
    #[test]
    fn a_search_is_explained() {
        for by in [SearchBy::Pictures, SearchBy::Category] {
            let spec = with(&spec(ImageArm::Joint), |n| {
                n.search = Some(SearchSettings { keep: 2, by, field: SearchSettings::category() });
            });
            let (model, mut scratch) = (Fixture::of(spec).model(), Scratch::default());
            let page = |past: &[&str]| {
                let json = format!(
                    r#"{{"user": {{"behaviors": {{"item": {past:?}}}}},
                        "candidates": {{"item": ["4", "1", "3"]}}}}"#
                );
                PageView::parse(json.as_bytes()).unwrap()
            };
            let past = ["5", "2", "4", "1"];
            let explained = model.explain(&page(&past), &mut scratch).unwrap();
            for (at, candidate) in explained.candidates.iter().enumerate() {
                for row in 0..past.len() {
                    let mut left = past.to_vec();
                    left.remove(row);
                    let ranked = model.score(&page(&left)).map(|ranked| {
                        let place = ranked.items.iter().position(|item| *item == candidate.item);
                        ranked.ctr[place.unwrap()]
                    });
                    let raised = candidate.ctr - ranked.unwrap();
                    assert_eq!(candidate.raises[row], raised, "{by:?} {at} {row}");
                }
                let weights = &candidate.attention[0].weights;
                let weighed = weights.iter().filter(|weight| **weight != 0.0).count();
                assert_eq!((weights.len(), weighed), (4, 2), "{by:?} {weights:?}");
            }
        }
    }

    /// The weights are those of asking for the candidate alone, with the history in the order the
    /// model sees.
    #[test]
    fn attention_is_what_the_network_used() {
        let spec = |images, aggregator| with(&spec(images), |n| n.aggregator = aggregator);
        let joint = spec(ImageArm::Joint, Aggregator::Attentive);
        let shared = Spec { sharing: TowerSharing::Shared, ..joint };
        let cases: [(Spec, &[&str]); 6] = [
            (spec(ImageArm::Joint, Aggregator::MultiQueryAttentive), &["image by image, fields"]),
            (spec(ImageArm::Behavior, Aggregator::Attentive), &["image by image"]),
            (spec(ImageArm::Joint, Aggregator::Sum), &[]),
            (spec(ImageArm::Ad, Aggregator::MultiQueryAttentive), &[]),
            (with(&spec(ImageArm::None, Aggregator::Sum), |n| n.base = Base::Din), &["ids by ids"]),
            (with(&shared, |n| n.base = Base::Din), &["image by image", "ids by ids"]),
        ];
        let page = |times: &str, candidates: &str| {
            let json = format!(
                r#"{{"user": {{"behaviors": {{"item": ["1", "4", "2"]{times}}}}},
                    "candidates": {{"item": {candidates}}}}}"#
            );
            PageView::parse(json.as_bytes()).unwrap()
        };
        for (spec, expected) in cases {
            let (model, mut scratch) = (Fixture::of(spec.clone()).model(), Scratch::default());
            let asked = page(r#", "time": [1, 3, 2]"#, r#"["4", "3", "1"]"#);
            let explained = model.explain(&asked, &mut scratch).unwrap();
            assert_eq!(explained.rows, [1, 2, 0]);
            for candidate in explained.candidates {
                let said = |a: &super::Attention| format!("{} by {}", a.over, a.queries.join(", "));
                let over: Vec<String> = candidate.attention.iter().map(said).collect();
                assert_eq!(over, expected, "{spec:?}");
                let mut alone = page("", &format!("[{:?}]", candidate.item));
                alone.user.behaviors = alone.user.behaviors.at(&[1, 2, 0]);
                model.ctrs(&alone, &mut scratch, &mut Vec::new()).unwrap();
                let mut channels = model.attention(&scratch).into_iter();
                for attention in &candidate.attention {
                    let count = attention.queries.len();
                    let of: Vec<_> = channels.by_ref().take(count).map(|c| c.weights).collect();
                    for (at, weight) in attention.weights.iter().enumerate() {
                        let mean = of.iter().map(|weights| weights[at]).sum::<f32>() / count as f32;
                        assert!((weight - mean).abs() < 1e-5, "{weight} {mean}");
                    }
                    assert_eq!(attention.weights.len(), 3);
                    assert_ne!(attention.weights[0], attention.weights[1]);
                }
            }
        }
    }
}
