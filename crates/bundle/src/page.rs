//! Ranking the candidates of a page view: scores times bids, and a list of what the model did not
//! know.

use std::collections::BTreeMap;

use ams_data::PictureName;
use ams_model::loss::sigmoid;
use serde::Serialize;

use crate::error::Result;
use crate::model::{Model, Scratch};
use crate::request::PageView;
use crate::resolve::{Resolved, resolve};

/// Candidates in the order to show them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked {
    /// The items, best first.
    pub items: Vec<String>,
    /// Predicted click-through rate of each.
    pub ctr: Vec<f32>,
    /// Bid times click-through rate of each, descending; equal ones stay in the order of the
    /// request.
    pub ecpm: Vec<f64>,
    /// What the model did not know.
    pub missing: Missing,
}

/// What the model did not know, and scored with defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Missing {
    /// The user, if the model sees users and has not learned this one.
    pub users: Vec<String>,
    /// Items of behaviors and candidates that the bundle does not list, in order of first use.
    pub items: Vec<String>,
    /// Items whose picture is to be seen and has no embedding, in order of first use.
    pub images: Vec<String>,
    /// Values without an embedding row, counted by input, such as `ad.item`.
    pub ids: BTreeMap<String, usize>,
}

/// See [`Model::score`].
pub(crate) fn score(model: &Model, page: &PageView) -> Result<Ranked> {
    let resolved = resolve(model, page)?;
    let (mut scratch, mut logits) = (Scratch::default(), Vec::new());
    model.score_groups(&resolved.groups, &mut scratch, &mut logits);
    let bids = page.candidates.bid.as_deref();
    let ecpm = |at: usize, ctr: f32| bids.map_or(1.0, |bids| bids[at]) * f64::from(ctr);
    let ctrs = logits.into_iter().map(sigmoid).enumerate();
    let mut ranked: Vec<(usize, f32, f64)> =
        ctrs.map(|(at, ctr)| (at, ctr, ecpm(at, ctr))).collect();
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2));
    ranked.truncate(page.options.top_k.unwrap_or(usize::MAX));
    Ok(Ranked {
        items: ranked.iter().map(|&(at, ..)| page.candidates.item[at].0.clone()).collect(),
        ctr: ranked.iter().map(|&(_, ctr, _)| ctr).collect(),
        ecpm: ranked.iter().map(|&(.., ecpm)| ecpm).collect(),
        missing: missing(model, page, &resolved, &scratch),
    })
}

fn missing(model: &Model, page: &PageView, resolved: &Resolved, scratch: &Scratch) -> Missing {
    let mut missing = Missing::default();
    for (input, unknown) in model.inputs().zip(scratch.unknown()) {
        let name = model.spec().input_name(input);
        if unknown > 0 && name == "user.user" {
            missing.users.extend(page.user.id.iter().map(|id| id.0.clone()));
        }
        if unknown > 0 {
            missing.ids.insert(name, unknown);
        }
    }
    let towers = model.spec().content_towers().first().copied().unwrap_or_default();
    let sketch = towers.sketch.is_some();
    let sides = [
        (
            &resolved.behaviors,
            &resolved.groups.behavior_pictures,
            towers.behavior.is_some() || sketch,
        ),
        (&resolved.candidates, &resolved.groups.ad_pictures, towers.ad.is_some() || sketch),
    ];
    for (rows, pictures, sees) in sides {
        for ((text, row), &picture) in rows.texts.iter().zip(&rows.items).zip(pictures) {
            if row.is_none() {
                push_new(&mut missing.items, text);
            }
            if sees && lacks_embedding(model, picture) {
                push_new(&mut missing.images, text);
            }
        }
    }
    missing
}

fn lacks_embedding(model: &Model, picture: PictureName) -> bool {
    picture.is_some() && !model.has_embedding(model.image(picture))
}

/// Appends `text` unless it is there already.
fn push_new(list: &mut Vec<String>, text: &str) {
    if !list.iter().any(|known| known == text) {
        list.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS};
    use ams_model::ImageArm;

    fn ranked(fixture: &Fixture, json: &str) -> Ranked {
        fixture.model().score(&PageView::parse(json.as_bytes()).unwrap()).unwrap()
    }

    const PAGE: &str = r#"{"user": {"id": "u1", "features": {"age": 25, "tags": ["a", "b"]},
        "behaviors": {"item": ["1", "5", "1"]}}, "context": {"hour": 12},
        "candidates": {"item": ["3", "4"]}}"#;

    #[test]
    fn scores_are_those_of_the_samples() {
        for images in ImageArm::ALL {
            let fixture = Fixture::new(images);
            let got = ranked(&fixture, PAGE);
            let logits = fixture.slow_logits(&fixture.groups(&ROWS[..1]));
            let mut expected = vec![("3", sigmoid(logits[0])), ("4", sigmoid(logits[1]))];
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let got: Vec<(&str, f32)> =
                got.items.iter().map(|item| &item[..]).zip(got.ctr).collect();
            assert_eq!(got, expected, "{images:?}");
        }
    }

    #[test]
    fn bids_decide_and_ties_stay_in_order() {
        let fixture = Fixture::new(ImageArm::Joint);
        let json = r#"{"candidates": {"item": ["2", "1", "2", "3", "2"],
            "bid": [1, 0, 1, 0.0, 2.5]}, "options": {"top_k": 4}}"#;
        let got = ranked(&fixture, json);
        assert_eq!(got.items, ["2", "2", "2", "1"]);
        let ctr = f64::from(got.ctr[0]);
        assert_eq!(got.ecpm, [2.5 * ctr, ctr, ctr, 0.0]);
        assert_ne!(got.ctr[3], got.ctr[0]);
    }

    #[test]
    fn what_is_unknown_is_listed() {
        let fixture = Fixture::new(ImageArm::Joint);
        let json = r#"{"user": {"id": "nobody", "features": {"age": "99", "tags": ["z", "a"]},
            "behaviors": {"item": ["2", "77", "5", "6"]}}, "context": {"hour": "12"},
            "candidates": {"item": ["78", "5", "2", "78"]}}"#;
        let ids = [
            ("user.user", 1),
            ("user.age", 1),
            ("user.tags", 1),
            ("behavior.item", 2),
            ("ad.item", 3),
        ];
        let expected = Missing {
            users: vec!["nobody".to_owned()],
            items: vec!["77".to_owned(), "78".to_owned()],
            images: vec!["5".to_owned()],
            ids: ids.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        };
        assert_eq!(ranked(&fixture, json).missing, expected);
        assert_eq!(ranked(&Fixture::new(ImageArm::None), json).missing.images, [""; 0]);
        let known = PAGE.replace("\"5\"", "\"2\"");
        let fixture = Fixture::new(ImageArm::Joint);
        assert_eq!(ranked(&fixture, &known).missing, Missing::default());
    }
}
