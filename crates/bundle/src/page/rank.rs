//! Ranking the candidates of a page view: scores times bids, and a list of what the model did not
//! know.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use ams_data::Offsets;
use ams_data::{Groups, Id, IdMap, PictureName, Ragged};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{Model, Scratch};
use crate::page::resolve::{Resolved, add_shown, resolve};
use crate::request::PageView;

/// The answer to a page view: which version of which model ranked it, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored<'p> {
    /// Name of the model.
    pub model: &'p str,
    /// Version of the model, from 1.
    pub version: u64,
    /// The ranked candidates, flattened in JSON.
    #[serde(flatten)]
    pub ranked: Ranked<'p>,
}

/// Candidates in the order to show them; the texts are the request's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranked<'p> {
    /// The items, best first.
    pub items: Vec<&'p str>,
    /// Predicted click-through rate of each, calibrated if the bundle is.
    pub ctr: Vec<f32>,
    /// Bid times click-through rate of each, descending; equal ones stay in the order of the
    /// request.
    pub ecpm: Vec<f64>,
    /// Inputs that the model does not know.
    pub missing: Missing,
}

/// Inputs that the model does not know and scored with defaults.
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

impl Model {
    /// Ranks the candidates of a page view by eCPM. Unknown users, items, images and ids are scored
    /// with defaults and listed.
    ///
    /// # Errors
    /// If the request contradicts itself or names fields the model does not have.
    pub fn score<'p>(&self, page: &'p PageView) -> Result<Ranked<'p>> {
        self.score_with(page, &mut Scratch::default())
    }

    /// Like [`Model::score`], with buffers of the caller: nothing is allocated per candidate.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn score_with<'p>(&self, page: &'p PageView, scratch: &mut Scratch) -> Result<Ranked<'p>> {
        let ranked = score_while(self, page, scratch, || true)?;
        Ok(ranked.expect("nobody stops it"))
    }

    /// Overwrites `ctr` with the predicted click-through rate of every candidate, in the order of
    /// the request; what is unknown and scored with defaults.
    ///
    /// # Errors
    /// As [`Model::score`].
    pub fn ctrs(
        &self,
        page: &PageView,
        scratch: &mut Scratch,
        ctr: &mut Vec<f32>,
    ) -> Result<Missing> {
        let missing = ctrs_while(self, page, scratch, ctr, || true)?;
        Ok(missing.expect("nobody stops it"))
    }

    /// Appends to `ctr` the predicted click-through rate of every candidate of some visits, in
    /// order. A visit is page views of one user: the user and the history are those of the first
    /// page; those of the others are not looked at. Rates have the bits of [`Model::ctrs`], every
    /// history is read once, and candidates of many visits are scored together.
    ///
    /// # Errors
    /// As [`Model::score`], with the page.
    pub fn push_ctrs_of_visits<'p, V: IntoIterator<Item = &'p PageView>>(
        &self,
        visits: impl IntoIterator<Item = V>,
        scratch: &mut Scratch,
        ctr: &mut Vec<f32>,
    ) -> std::result::Result<(), OfPage> {
        let (mut all, mut logits) = (Groups::new(&self.spec().fields), Vec::new());
        let mut score = |all: &mut Groups| {
            if all.labels.is_empty() {
                return all.clear();
            }
            self.score_groups(all, scratch, &mut logits);
            self.rates(&mut logits);
            ctr.append(&mut logits);
            all.clear();
        };
        for (at, visit) in visits.into_iter().enumerate() {
            let visited = self.visit(visit).map_err(|of_page| OfPage { visit: at, ..of_page })?;
            let Some(visited) = visited else { continue };
            all.push_from(&visited, 0);
            if all.labels.len() >= CHUNK {
                score(&mut all);
            }
        }
        score(&mut all);
        Ok(())
    }

    /// The page views of one user as one group; none without a page view.
    fn visit<'p>(
        &self,
        pages: impl IntoIterator<Item = &'p PageView>,
    ) -> std::result::Result<Option<Groups>, OfPage> {
        let mut all: Option<Groups> = None;
        for (page, view) in pages.into_iter().enumerate() {
            let of_page = |error| OfPage { visit: 0, page, error };
            match &mut all {
                None => all = Some(resolve(self, view).map_err(of_page)?.groups),
                Some(all) => add_shown(self, view, all).map_err(of_page)?,
            }
        }
        Ok(all)
    }
}

/// What is wrong with one of several page views.
#[derive(Debug)]
pub struct OfPage {
    /// Position of the visit, from 0.
    pub visit: usize,
    /// Position of the page view in the visit, from 0.
    pub page: usize,
    /// What is wrong with it.
    pub error: Error,
}

/// Candidates that are scored together, and between two questions whether to go on: some
/// milliseconds.
const CHUNK: usize = 1024;

/// Like [`Model::ctrs`], as long as `goes_on`, which is asked before every thousand candidates;
/// none if it was stopped.
///
/// # Errors
/// As [`Model::score`].
pub fn ctrs_while(
    model: &Model,
    page: &PageView,
    scratch: &mut Scratch,
    ctr: &mut Vec<f32>,
    goes_on: impl FnMut() -> bool,
) -> Result<Option<Missing>> {
    in_chunks(model, page, scratch, ctr, CHUNK, goes_on)
}

/// Scores `chunk` candidates at a time. No score depends on what is beside it, so parts have the
/// bits of the whole.
fn in_chunks(
    model: &Model,
    page: &PageView,
    scratch: &mut Scratch,
    ctr: &mut Vec<f32>,
    chunk: usize,
    mut goes_on: impl FnMut() -> bool,
) -> Result<Option<Missing>> {
    let resolved = resolve(model, page)?;
    let (count, mut unknown) = (page.candidates.item.len(), Vec::new());
    if count <= chunk {
        if !goes_on() {
            return Ok(None);
        }
        model.score_groups(&resolved.groups, scratch, ctr);
        unknown.extend(scratch.unknown());
    } else {
        ctr.clear();
        let mut logits = Vec::with_capacity(chunk);
        for begin in (0..count).step_by(chunk) {
            if !goes_on() {
                return Ok(None);
            }
            let groups = shown(&resolved.groups, begin..count.min(begin + chunk));
            model.score_groups(&groups, scratch, &mut logits);
            ctr.append(&mut logits);
            unknown.resize(scratch.unknown().count(), 0);
            for ((sum, input), here) in
                unknown.iter_mut().zip(model.inputs()).zip(scratch.unknown())
            {
                // What is not a candidate's is the same in every chunk.
                *sum = if input.is_per_impression() { *sum + here } else { here };
            }
        }
    }
    model.rates(ctr);
    Ok(Some(missing(model, page, &resolved, &unknown)))
}

/// One group with some of its impressions.
fn shown(group: &Groups, rows: Range<usize>) -> Groups {
    let some = |columns: &[Ragged<Id>]| {
        let column = |of: &Ragged<Id>| {
            let mut column = Ragged::default();
            column.extend_from(of, rows.clone());
            column
        };
        columns.iter().map(column).collect()
    };
    let mut impressions = Offsets::default();
    impressions.push(rows.len());
    Groups {
        users: group.users.clone(),
        user_fields: group.user_fields.clone(),
        behaviors: group.behaviors.clone(),
        behavior_fields: group.behavior_fields.clone(),
        behavior_pictures: group.behavior_pictures.clone(),
        behavior_times: group.behavior_times.clone(),
        impressions,
        ad_fields: some(&group.ad_fields),
        ad_pictures: group.ad_pictures[rows.clone()].to_vec(),
        context_fields: some(&group.context_fields),
        labels: group.labels[rows.clone()].to_vec(),
        times: group.times[rows.clone()].to_vec(),
    }
}

/// The candidates of `page` by expected payment, bid times `ctr`, descending; equal ones stay in
/// the order of the request.
pub fn by_ecpm(page: &PageView, ctr: &[f32]) -> Vec<(usize, f64)> {
    let bids = page.candidates.bid.as_deref();
    let ecpm = |at: usize| bids.map_or(1.0, |bids| bids[at]) * f64::from(ctr[at]);
    let mut order: Vec<(usize, f64)> = (0..ctr.len()).map(|at| (at, ecpm(at))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order
}

/// Like [`Model::score_with`], as long as `goes_on`, which is asked before every thousand
/// candidates; none if it was stopped.
///
/// # Errors
/// As [`Model::score`].
pub fn score_while<'p>(
    model: &Model,
    page: &'p PageView,
    scratch: &mut Scratch,
    goes_on: impl FnMut() -> bool,
) -> Result<Option<Ranked<'p>>> {
    let mut ctr = Vec::with_capacity(page.candidates.item.len());
    let Some(missing) = ctrs_while(model, page, scratch, &mut ctr, goes_on)? else {
        return Ok(None);
    };
    let mut order = by_ecpm(page, &ctr);
    order.truncate(page.options.top_k.unwrap_or(usize::MAX));
    Ok(Some(Ranked {
        items: order.iter().map(|&(at, _)| &page.candidates.item[at].0[..]).collect(),
        ctr: order.iter().map(|&(at, _)| ctr[at]).collect(),
        ecpm: order.iter().map(|&(_, ecpm)| ecpm).collect(),
        missing,
    }))
}

fn missing(model: &Model, page: &PageView, resolved: &Resolved, unknown: &[usize]) -> Missing {
    let mut missing = Missing::default();
    for (input, &unknown) in model.inputs().zip(unknown) {
        let name = model.spec().input_name(input);
        if unknown > 0 && name == "user.user" {
            missing.users.extend(page.user.id.iter().map(|id| id.0.clone()));
        }
        if unknown > 0 {
            missing.ids.insert(name, unknown);
        }
    }
    let towers = model.spec().content_towers().first().copied().unwrap_or_default();
    let sketch = towers.sketch.or(towers.search).is_some();
    let sides = [
        (
            &resolved.behaviors,
            &resolved.groups.behavior_pictures,
            towers.behavior.is_some() || sketch,
        ),
        (&resolved.candidates, &resolved.groups.ad_pictures, towers.ad.is_some() || sketch),
    ];
    let (mut items, mut images) = (HashSet::new(), HashSet::new());
    // Long histories have few pictures.
    let mut lacking = IdMap::default();
    for (rows, pictures, sees) in sides {
        for ((&text, row), &picture) in rows.texts.iter().zip(&rows.items).zip(pictures) {
            if row.is_none() && items.insert(text) {
                missing.items.push(text.to_owned());
            }
            let mut lacks = || {
                let lacks = || u32::from(lacks_embedding(model, picture));
                *lacking.entry(picture.0).or_insert_with(lacks) == 1
            };
            if sees && lacks() && images.insert(text) {
                missing.images.push(text.to_owned());
            }
        }
    }
    missing
}

fn lacks_embedding(model: &Model, picture: PictureName) -> bool {
    picture.is_some() && !model.knows(model.image(picture))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS, spec, with};
    use ams_model::loss::sigmoid;
    use ams_model::{ImageArm, NetworkSettings, Similarity};

    /// The answer, and the items in their order, which are the request's.
    fn ranked(fixture: &Fixture, json: &str) -> (Vec<String>, Ranked<'static>) {
        let page = PageView::parse(json.as_bytes()).unwrap();
        let ranked = fixture.model().score(&page).unwrap();
        let Ranked { items, ctr, ecpm, missing } = ranked;
        let items = items.into_iter().map(str::to_owned).collect();
        (items, Ranked { items: Vec::new(), ctr, ecpm, missing })
    }

    const PAGE: &str = r#"{"user": {"id": "u1", "features": {"age": 25, "tags": ["a", "b"]},
        "behaviors": {"item": ["1", "5", "1"]}}, "context": {"hour": 12},
        "candidates": {"item": ["3", "4"]}}"#;

    #[test]
    fn scores_are_those_of_the_samples() {
        for images in ImageArm::ALL {
            let fixture = Fixture::new(images);
            let (items, got) = ranked(&fixture, PAGE);
            let logits = fixture.slow_logits(&fixture.groups(&ROWS[..1]));
            let mut expected = vec![("3", sigmoid(logits[0])), ("4", sigmoid(logits[1]))];
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            let got: Vec<(&str, f32)> = items.iter().map(|item| &item[..]).zip(got.ctr).collect();
            assert_eq!(got, expected, "{images:?}");
        }
    }

    /// A deadline can pass within a page view; what is scored in parts is what is scored at once,
    /// bit for bit.
    #[test]
    fn parts_are_the_whole() {
        let json = r#"{"user": {"id": "nobody", "features": {"age": "99", "tags": ["z", "a"]},
            "behaviors": {"item": ["2", "77", "5", "6"]}}, "context": {"hour": "99"},
            "candidates": {"item": ["78", "5", "2", "78", "1", "3", "79"]}}"#;
        for images in ImageArm::ALL {
            let fixture = Fixture::new(images);
            let (model, page) = (fixture.model(), PageView::parse(json.as_bytes()).unwrap());
            let score = |chunk, most: usize| {
                let (mut scratch, mut ctr, mut asked) = (Scratch::default(), vec![7.0], 0);
                let goes_on = || {
                    asked += 1;
                    asked <= most
                };
                let missing = in_chunks(&model, &page, &mut scratch, &mut ctr, chunk, goes_on);
                missing.unwrap().map(|missing| (ctr, missing))
            };
            let whole = score(7, 1).unwrap();
            assert_eq!(whole.0.len(), 7);
            for chunk in [1, 2, 3, 6] {
                assert_eq!(score(chunk, 7).unwrap(), whole, "{images:?} {chunk}");
            }
            assert_eq!((score(7, 0), score(3, 2)), (None, None));
        }
    }

    #[test]
    fn bids_decide_and_ties_stay_in_order() {
        let fixture = Fixture::new(ImageArm::Joint);
        let json = r#"{"candidates": {"item": ["2", "1", "2", "3", "2"],
            "bid": [1, 0, 1, 0.0, 2.5]}, "options": {"top_k": 4}}"#;
        let (items, got) = ranked(&fixture, json);
        assert_eq!(items, ["2", "2", "2", "1"]);
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
        assert_eq!(ranked(&fixture, json).1.missing, expected);
        assert_eq!(ranked(&Fixture::new(ImageArm::None), json).1.missing.images, [""; 0]);
        let known = PAGE.replace("\"5\"", "\"2\"");
        let fixture = Fixture::new(ImageArm::Joint);
        assert_eq!(ranked(&fixture, &known).1.missing, Missing::default());
    }
    /// A page view is the group of samples, whatever its instant; without one, ages are unknown.
    #[test]
    fn ages_are_those_of_samples() {
        type Change = fn(&mut NetworkSettings);
        let changes: [Change; 2] =
            [|n| n.behavior_age_buckets = 8, |n| n.similarity = Similarity::Statistics];
        for (case, change) in changes.into_iter().enumerate() {
            let fixture = Fixture::of(with(&spec(ImageArm::Joint), change));
            let (model, mut scratch) = (fixture.model(), Scratch::default());
            let mut page = PageView::parse(
                br#"{"user": {"id": "u1", "features": {"age": 25, "tags": ["a", "b"]},
                    "behaviors": {"item": ["1", "5", "1"], "time": [1999, 1998, 1996]}},
                    "time": 2000, "context": {"hour": 12}, "candidates": {"item": ["3", "4"]}}"#,
            )
            .unwrap();
            let mut ctr = Vec::new();
            let known = model.ctrs(&page, &mut scratch, &mut ctr).unwrap();
            let expected: Vec<f32> =
                fixture.golden.logits[..2].iter().map(|&logit| sigmoid(logit)).collect();
            assert_eq!(ctr, expected);
            page.time = None;
            let unknown = model.ctrs(&page, &mut scratch, &mut ctr).unwrap();
            if case == 0 {
                // Of 1, 2 and 4 seconds, the last bucket has no row in this model.
                assert_eq!(known.ids.get("behavior.time"), Some(&1));
                assert_eq!(unknown.ids.get("behavior.time"), Some(&3));
                assert_ne!(ctr, expected);
            }
        }
    }
}
