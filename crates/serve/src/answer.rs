//! From the bytes of a request to those of its answer, on a compute thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_bundle::page::by_ecpm;
use ams_bundle::{PageView, Scored, Scratch};
use serde::Serialize;

use crate::inference;
use crate::models::{Loaded, Refusal, Snapshot};
use crate::problem::{Kind, Problem};
use crate::settings::Limits;
use crate::telemetry::Telemetry;

/// What is asked of a page view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To rank the candidates.
    Score,
    /// To rank them with a model that has vectors.
    PreRank,
    /// To keep the best `keep` of many candidates by the model `pre_rank`, and rank these.
    Page {
        /// The model with vectors.
        pre_rank: String,
        /// How many candidates it leaves.
        keep: usize,
    },
    /// To say what every behavior did to the best candidates.
    Explain,
    /// To score the candidates, asked and answered as tensors.
    Infer {
        /// Bytes of the body that are JSON, if not all of them are.
        header: Option<usize>,
    },
}

/// One request, as it came.
#[derive(Debug)]
pub struct Request {
    /// All models when it came: one request sees one state of them.
    pub snapshot: Arc<Snapshot>,
    /// The model.
    pub model: String,
    /// The version, if it has to be that.
    pub version: Option<u64>,
    /// What is asked.
    pub ask: Ask,
    /// The page view, JSON.
    pub body: Vec<u8>,
    /// When it came.
    pub came: Instant,
}

/// Buffers of a compute thread.
#[derive(Debug, Default)]
pub struct Buffers {
    scratch: Scratch,
    ctr: Vec<f32>,
}

/// An explanation, and whose.
#[derive(Serialize)]
struct Explanation<'a> {
    model: &'a str,
    version: u64,
    #[serde(flatten)]
    explained: ams_bundle::Explained,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let kind = match &refusal {
            Refusal::Absent(_) => Kind::NotFound,
            Refusal::Bundle(ams_bundle::Error::Request { .. }) => Kind::Request,
            Refusal::State(_) | Refusal::Bundle(_) => Kind::Conflict,
        };
        Problem::new(kind, refusal.to_string())
    }
}

/// The answer, JSON.
///
/// # Errors
/// If the request is not good, or its deadline passes.
pub fn answer(
    request: &Request,
    limits: &Limits,
    telemetry: &Telemetry,
    buffers: &mut Buffers,
) -> Result<Vec<u8>, Problem> {
    telemetry.queue_seconds.record(request.came.elapsed().as_secs_f64());
    in_time(request, limits.deadline)?;
    let begin = Instant::now();
    let parsed = match request.ask {
        Ask::Infer { header } => inference::parse(&request.body, header)?,
        _ => PageView::parse(&request.body)?.into(),
    };
    let page = &parsed.page;
    check(page, limits)?;
    let asked = page.options.deadline_ms.filter(|&ms| ms > 0);
    let asked = asked.map_or(limits.deadline, Duration::from_millis);
    let deadline = asked.min(limits.deadline);
    in_time(request, deadline)?;
    let user = page.user.id.as_ref().map(|id| &id.0[..]);
    let loaded = request.snapshot.find(&request.model, request.version, user)?;
    let answer = match &request.ask {
        Ask::Score => rank(&loaded, page, buffers)?,
        Ask::PreRank => {
            loaded.model.require_vectors()?;
            rank(&loaded, page, buffers)?
        }
        Ask::Page { pre_rank, keep } => {
            let first = request.snapshot.find(pre_rank, None, user)?;
            first.model.require_vectors()?;
            let places = best(&first, page, *keep, buffers)?;
            in_time(request, deadline)?;
            let page = PageView { candidates: page.candidates.at(&places), ..page.clone() };
            rank(&loaded, &page, buffers)?
        }
        Ask::Explain => {
            let explained = loaded.model.explain(page, &mut buffers.scratch)?;
            let (model, version) = (loaded.model.name(), loaded.model.version());
            json(&Explanation { model, version, explained })
        }
        Ask::Infer { .. } => {
            loaded.metrics.pages.increment(1);
            loaded.metrics.candidates.record(page.candidates.item.len() as f64);
            let Buffers { scratch, ctr } = buffers;
            json(&inference::infer(&loaded.model, &parsed, scratch, ctr)?)
        }
    };
    in_time(request, deadline)?;
    telemetry.compute_seconds.record(begin.elapsed().as_secs_f64());
    Ok(answer)
}

fn rank(loaded: &Loaded, page: &PageView, buffers: &mut Buffers) -> Result<Vec<u8>, Problem> {
    let model = &loaded.model;
    let ranked = model.score_with(page, &mut buffers.scratch)?;
    let metrics = &loaded.metrics;
    metrics.pages.increment(1);
    metrics.candidates.record(page.candidates.item.len() as f64);
    metrics.missing_items.increment(ranked.missing.items.len() as u64);
    metrics.missing_images.increment(ranked.missing.images.len() as u64);
    ranked.ctr.iter().for_each(|&ctr| metrics.rates.record(f64::from(ctr)));
    Ok(json(&Scored { model: model.name(), version: model.version(), ranked }))
}

/// The places of the best `keep` candidates, in the order of the request.
fn best(
    loaded: &Loaded,
    page: &PageView,
    keep: usize,
    buffers: &mut Buffers,
) -> Result<Vec<usize>, Problem> {
    loaded.model.ctrs(page, &mut buffers.scratch, &mut buffers.ctr)?;
    let mut places: Vec<usize> =
        by_ecpm(page, &buffers.ctr).into_iter().take(keep).map(|(place, _)| place).collect();
    places.sort_unstable();
    Ok(places)
}

fn check(page: &PageView, limits: &Limits) -> Result<(), Problem> {
    let counts = [
        ("candidates.item", page.candidates.item.len(), limits.candidates),
        ("user.behaviors.item", page.user.behaviors.item.len(), limits.behaviors),
    ];
    for (path, count, most) in counts {
        if count > most {
            let what = format!("request: {path} has {count} items, expected up to {most}");
            return Err(Problem::new(Kind::Request, what));
        }
    }
    Ok(())
}

fn in_time(request: &Request, deadline: Duration) -> Result<(), Problem> {
    if request.came.elapsed() < deadline {
        return Ok(());
    }
    let what = format!("no answer within {} ms", deadline.as_millis());
    Err(Problem::new(Kind::Deadline, what))
}

/// `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have text keys only")
}
