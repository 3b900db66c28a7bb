//! Ranking the candidates of a page view: scores times bids, and a list of what the model did not
//! know.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ams_data::{Groups, IdMap, PictureName};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{Model, Scratch};
use crate::page::parts::{Alone, CHUNK, Helpers, Parts, part_size};
use crate::page::resolve::{Resolved, ResolvedItems, add_shown, resolve};
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
        let ranked = score_while(self, page, scratch, &Alone, || true)?;
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
        let missing = ctrs_while(self, page, scratch, ctr, &Alone, || true)?;
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

/// Like [`Model::ctrs`], on the caller's thread and on `helpers`, as long as `goes_on`, which is
/// asked before every part of at most a thousand candidates; none if it was stopped. Rates and
/// counts have the bits of [`Model::ctrs`].
///
/// # Errors
/// As [`Model::score`].
pub fn ctrs_while(
    model: &Model,
    page: &PageView,
    scratch: &mut Scratch,
    ctr: &mut Vec<f32>,
    helpers: &dyn Helpers,
    goes_on: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<Option<Missing>> {
    let size = part_size(page.candidates.item.len(), helpers.threads());
    in_parts(model, page, scratch, ctr, size, helpers, goes_on)
}

/// Scores parts of `size` candidates.
fn in_parts(
    model: &Model,
    page: &PageView,
    scratch: &mut Scratch,
    ctr: &mut Vec<f32>,
    size: usize,
    helpers: &dyn Helpers,
    goes_on: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<Option<Missing>> {
    let Resolved { groups, behaviors, candidates } = resolve(model, page)?;
    let groups = Arc::new(groups);
    let unknown = if groups.labels.len() <= size {
        goes_on().then(|| {
            model.score_groups(&groups, scratch, ctr);
            scratch.unknown().collect()
        })
    } else {
        Arc::new(Parts::new(model, &groups, size, goes_on)).score(helpers, scratch, ctr)
    };
    let Some(unknown) = unknown else { return Ok(None) };
    model.rates(ctr);
    let sides =
        [(&behaviors, &groups.behavior_pictures[..]), (&candidates, &groups.ad_pictures[..])];
    Ok(Some(missing(model, page, sides, &unknown)))
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

/// Like [`Model::score_with`], on the caller's thread and on `helpers`, as long as `goes_on`, as
/// for [`ctrs_while`].
///
/// # Errors
/// As [`Model::score`].
pub fn score_while<'p>(
    model: &Model,
    page: &'p PageView,
    scratch: &mut Scratch,
    helpers: &dyn Helpers,
    goes_on: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<Option<Ranked<'p>>> {
    let mut ctr = Vec::with_capacity(page.candidates.item.len());
    let Some(missing) = ctrs_while(model, page, scratch, &mut ctr, helpers, goes_on)? else {
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

/// What is unknown: of the items and pictures of behaviors and of candidates, and by input.
fn missing(
    model: &Model,
    page: &PageView,
    [behaviors, candidates]: [(&ResolvedItems<'_>, &[PictureName]); 2],
    unknown: &[usize],
) -> Missing {
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
        (behaviors, towers.behavior.is_some() || sketch),
        (candidates, towers.ad.is_some() || sketch),
    ];
    let (mut items, mut images) = (HashSet::new(), HashSet::new());
    // Long histories have few pictures.
    let mut lacking = IdMap::default();
    for ((rows, pictures), sees) in sides {
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
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::thread;

    use crate::fixture::{Fixture, ROWS, spec, with};
    use crate::page::parts::Team;
    use crate::spec::Spec;
    use ams_model::loss::sigmoid;
    use ams_model::{Base, ImageArm, NetworkSettings, SearchBy, SearchSettings, Similarity};

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

    /// Models of every kind of inputs, and such that search histories.
    fn specs() -> Vec<Spec> {
        let joint = spec(ImageArm::Joint);
        let searched = |keep, by| {
            with(&joint, |n| {
                n.base = Base::Din;
                n.search = Some(SearchSettings { keep, by, field: SearchSettings::category() });
            })
        };
        let mut specs = ImageArm::ALL.map(spec).to_vec();
        for keep in [1, 2] {
            specs.extend([SearchBy::Category, SearchBy::Pictures].map(|by| searched(keep, by)));
        }
        specs
    }

    fn unknown_page() -> PageView {
        let json = r#"{"user": {"id": "nobody", "features": {"age": "99", "tags": ["z", "a"]},
            "behaviors": {"item": ["2", "77", "5", "6"]}}, "context": {"hour": "99"},
            "candidates": {"item": ["78", "5", "2", "78", "1", "3", "79"]}}"#;
        PageView::parse(json.as_bytes()).unwrap()
    }

    /// A deadline can pass within a page view; what is scored in parts, on any number of threads,
    /// is what is scored at once, bit for bit, and what is unknown is counted alike.
    #[test]
    fn parts_are_the_whole() {
        let page = unknown_page();
        let helpers: [&dyn Helpers; 4] = [&Alone, &team(2), &team(3), &team(5)];
        for spec in specs() {
            let model = Fixture::of(spec.clone()).model();
            // Twice in one scratch: what it held before must not show.
            let mut scratch = Scratch::default();
            let mut score = |size, helpers: &dyn Helpers, most: usize| {
                let (mut ctr, asked) = (vec![7.0], AtomicUsize::new(0));
                let goes_on = move || asked.fetch_add(1, Ordering::Relaxed) < most;
                in_parts(&model, &page, &mut scratch, &mut ctr, size, helpers, goes_on)
                    .unwrap()
                    .map(|missing| (ctr, missing))
            };
            let whole = score(7, &Alone, 1).unwrap();
            assert_eq!(whole.0.len(), 7);
            assert_eq!(score(7, &Alone, 0), None);
            for helpers in helpers {
                for size in [1, 2, 3, 6] {
                    let parts = score(size, helpers, 7usize.div_ceil(size)).unwrap();
                    assert_eq!(parts, whole, "{spec:?} {size} {}", helpers.threads());
                }
                assert_eq!(score(3, helpers, 2), None);
            }
        }
    }

    fn team(threads: usize) -> Team {
        Team::new(threads).unwrap()
    }

    /// Another thread scores one part whenever it is called, before the caller goes on.
    struct InTurn;

    impl Helpers for InTurn {
        fn threads(&self) -> usize {
            2
        }

        fn call(&self, _: usize, parts: &Arc<Parts>) -> usize {
            let parts = Arc::clone(parts);
            let helper = thread::spawn(move || parts.score_next(&mut Scratch::default()));
            let _ = helper.join();
            0
        }
    }

    /// A helper's end by a panic is the caller's, who would otherwise wait for ever or answer
    /// without its part; it says nothing about the next page view.
    #[test]
    fn a_panic_of_a_helper_is_the_callers() {
        let (model, page) = (Fixture::new(ImageArm::Joint).model(), unknown_page());
        let mut scratch = Scratch::default();
        let caller = thread::current().id();
        let mut score = |size, fails: bool| {
            let asked = Arc::new(Mutex::new(Vec::new()));
            let by = Arc::clone(&asked);
            let goes_on = move || {
                let mut by = by.lock().unwrap_or_else(PoisonError::into_inner);
                by.push(thread::current().id() == caller);
                assert!(!fails || thread::current().id() == caller, "on purpose");
                true
            };
            let mut ctr = Vec::new();
            let scored = || in_parts(&model, &page, &mut scratch, &mut ctr, size, &InTurn, goes_on);
            let missing = catch_unwind(AssertUnwindSafe(scored)).ok();
            let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
            (missing.map(|missing| (missing.unwrap().unwrap(), ctr)), asked)
        };
        let (whole, _) = score(7, false);
        assert_eq!(score(2, true), (None, vec![false]));
        let by_turns = vec![false, true, false, true];
        assert_eq!(score(2, false), (whole, by_turns));
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
