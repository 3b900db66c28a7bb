//! Operations: what can be asked, and how it is answered, on a compute thread.
//!
//! Knows models, page views and deadlines. Does not know bytes or protocols, so HTTP and gRPC have
//! the same scores, limits and deadlines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_bundle::{
    Helpers, PageView, Parts, Scored, Scratch, Similar, SimilarRequest, by_ecpm, ctrs_while,
    score_while,
};
use ams_data::value;
use serde::Serialize;

use crate::compute::{Pool, Step};
use crate::inference::{self, InferenceOptions, Inferred};
use crate::models::{LoadedVersion, Snapshot};
use crate::problem::{Kind, Problem};
use crate::settings::Limits;

/// An operation on a page view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
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
    Infer(InferenceOptions),
}

/// As many as the paper's pre-rank leaves.
pub(crate) const KEEP: usize = 400;

/// The model and version that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Name of the model, which may be unknown.
    pub model: String,
    /// The version, if it has to be that.
    pub version: Option<u64>,
}

/// The version that `text` spells. It has one spelling, as its folder has: caches and logs know
/// paths.
///
/// # Errors
/// With 404 if `text` is no version.
pub(crate) fn version_of(text: &str) -> Result<u64, Problem> {
    let version = text.parse().ok().filter(|version: &u64| version.to_string() == text);
    let wrong = || Problem::new(Kind::NotFound, format!("version {text:?} is no whole number"));
    version.ok_or_else(wrong)
}

/// A parsed request, without its protocol.
#[derive(Debug)]
pub(crate) struct ParsedRequest {
    pub target: Target,
    pub operation: Operation,
    pub page: PageView,
}

/// An answer, to be written.
pub(crate) enum Answer<'a> {
    Ranked(Scored<'a>),
    Explained(Explanation<'a>),
    Inferred(Inferred<'a>),
}

/// Buffers of a compute thread.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    scratch: Scratch,
    ctr: Vec<f32>,
}

/// The compute threads, of which those without a request help with large page views.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageThreads<'a> {
    pub pool: &'a Pool<Buffers>,
    /// Most threads of a page view.
    pub most: usize,
}

impl Helpers for PageThreads<'_> {
    fn threads(&self) -> usize {
        self.most
    }

    fn call(&self, most: usize, parts: &Arc<Parts>) -> usize {
        let parts = Arc::clone(parts);
        let step: Step<Buffers> = Arc::new(move |buffers| parts.score_next(&mut buffers.scratch));
        self.pool.help(most, &step)
    }
}

/// An explanation, and whose.
#[derive(Serialize)]
pub(crate) struct Explanation<'a> {
    pub model: &'a str,
    pub version: u64,
    #[serde(flatten)]
    pub explained: ams_bundle::Explained,
}

/// Answers what is asked of a page view; `write` makes the answer's bytes.
///
/// # Errors
/// If a limit is exceeded, the model cannot do what is asked, or the deadline passes: that of
/// `clock`, or that of the page view if it is earlier.
pub(crate) fn page_view(
    asked: &ParsedRequest,
    snapshot: &Snapshot,
    limits: &Limits,
    clock: Clock,
    threads: PageThreads<'_>,
    buffers: &mut Buffers,
    write: impl FnOnce(&Answer<'_>) -> Vec<u8>,
) -> Result<Vec<u8>, Problem> {
    let ParsedRequest { target, operation, page } = asked;
    check(page, limits)?;
    let clock = clock.within(page.options.deadline_ms);
    clock.check()?;
    // In any spelling, so that one user has one version.
    let user = page.user.id.as_ref().and_then(|id| value::id(&id.0).ok());
    let user = user.as_deref().filter(|id| !id.is_empty());
    let loaded = snapshot.find(&target.model, target.version, user)?;
    let attempt = loaded.metrics.counts.attempt();
    let by = Answering { loaded: &loaded, snapshot, user, clock, threads };
    let answer = by.answer(operation, page, buffers, write);
    let answer = answer.and_then(|answer| clock.check().map(|()| answer));
    let is_ours = |problem: &Problem| problem.kind.status().is_server_error();
    attempt.end(answer.as_ref().is_err_and(is_ours));
    answer
}

/// The version that answers a page view of a user.
struct Answering<'a> {
    loaded: &'a LoadedVersion,
    snapshot: &'a Snapshot,
    user: Option<&'a str>,
    clock: Clock,
    threads: PageThreads<'a>,
}

impl<'a> Answering<'a> {
    fn answer(
        &self,
        operation: &Operation,
        page: &PageView,
        buffers: &mut Buffers,
        write: impl FnOnce(&Answer<'_>) -> Vec<u8>,
    ) -> Result<Vec<u8>, Problem> {
        let Answering { loaded, snapshot, user, .. } = *self;
        Ok(match operation {
            Operation::Score => write(&self.rank(page, buffers)?),
            Operation::PreRank => {
                loaded.model.require_vectors()?;
                write(&self.rank(page, buffers)?)
            }
            Operation::Page { keep: 0, .. } => {
                return Err(Problem::new(Kind::Request, "keep is 0, expected 1 or more"));
            }
            Operation::Page { pre_rank, keep } => {
                let first = snapshot.find(pre_rank, None, user)?;
                first.model.require_vectors()?;
                let places = self.best(&first, page, *keep, buffers)?;
                let page = PageView { candidates: page.candidates.at(&places), ..page.clone() };
                write(&self.rank(&page, buffers)?)
            }
            Operation::Explain => {
                let explained = loaded.model.explain(page, &mut buffers.scratch)?;
                let (model, version) = (loaded.model.name(), loaded.model.version());
                write(&Answer::Explained(Explanation { model, version, explained }))
            }
            Operation::Infer(wanted) => {
                loaded.metrics.counts.pages.increment(1);
                loaded.metrics.candidates.record(page.candidates.item.len() as f64);
                inference::check(wanted)?;
                self.rates(loaded, page, buffers)?;
                let inferred = inference::inferred(&loaded.model, page, wanted, &buffers.ctr);
                write(&Answer::Inferred(inferred))
            }
        })
    }

    fn rank<'p>(&self, page: &'p PageView, buffers: &mut Buffers) -> Result<Answer<'p>, Problem>
    where
        'a: 'p,
    {
        let Answering { loaded, clock, threads, .. } = *self;
        let model = &loaded.model;
        let runs = move || clock.runs();
        let ranked = score_while(model, page, &mut buffers.scratch, &threads, runs)?;
        let ranked = clock.scored(ranked)?;
        let metrics = &loaded.metrics;
        metrics.counts.pages.increment(1);
        metrics.candidates.record(page.candidates.item.len() as f64);
        metrics.counts.missing_items.increment(ranked.missing.items.len() as u64);
        metrics.counts.missing_images.increment(ranked.missing.images.len() as u64);
        ranked.ctr.iter().for_each(|&ctr| metrics.rates.record(f64::from(ctr)));
        Ok(Answer::Ranked(Scored { model: model.name(), version: model.version(), ranked }))
    }

    /// Overwrites `buffers.ctr` with the rates of all candidates by a model, in the order of the
    /// request.
    fn rates(
        &self,
        by: &LoadedVersion,
        page: &PageView,
        buffers: &mut Buffers,
    ) -> Result<(), Problem> {
        let Answering { clock, threads, .. } = *self;
        let Buffers { scratch, ctr } = buffers;
        let runs = move || clock.runs();
        let missing = ctrs_while(&by.model, page, scratch, ctr, &threads, runs)?;
        clock.scored(missing).map(|_| ())
    }

    /// The places of the best `keep` candidates by a model, in the order of the request.
    fn best(
        &self,
        by: &LoadedVersion,
        page: &PageView,
        keep: usize,
        buffers: &mut Buffers,
    ) -> Result<Vec<usize>, Problem> {
        self.rates(by, page, buffers)?;
        let best = by_ecpm(page, &buffers.ctr).into_iter().take(keep);
        let mut places: Vec<usize> = best.map(|(place, _)| place).collect();
        places.sort_unstable();
        Ok(places)
    }
}

/// The answer to a request for similar items.
#[derive(Serialize)]
pub(crate) struct SimilarAnswer<'a> {
    model: &'a str,
    version: u64,
    #[serde(flatten)]
    similar: Similar<'a>,
}

/// The items that `loaded` takes to be like the one that is `wanted`.
///
/// # Errors
/// If the model has no such item or picture, or no image tower.
pub(crate) fn similar<'a>(
    loaded: &'a LoadedVersion,
    wanted: &SimilarRequest,
) -> Result<SimilarAnswer<'a>, Problem> {
    let similar = loaded.model.similar(wanted)?;
    Ok(SimilarAnswer { model: loaded.model.name(), version: loaded.model.version(), similar })
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

/// When a request received, and how long its answer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub received: Instant,
    pub deadline: Duration,
}

impl Clock {
    /// With the deadline of a page view, in ms, if it is earlier; 0 is none.
    fn within(self, deadline_ms: Option<u64>) -> Clock {
        let asked = deadline_ms.filter(|&ms| ms > 0);
        let asked = asked.map_or(self.deadline, Duration::from_millis);
        Clock { deadline: asked.min(self.deadline), ..self }
    }

    /// Whether there is time left.
    fn runs(&self) -> bool {
        self.received.elapsed() < self.deadline
    }

    /// # Errors
    /// With 504 if no time is left.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        self.scored(self.runs().then_some(()))
    }

    /// The result, unless the deadline stopped it.
    fn scored<T>(&self, scored: Option<T>) -> Result<T, Problem> {
        scored.ok_or_else(|| {
            let what = format!("no answer within {} ms", self.deadline.as_millis());
            Problem::new(Kind::Deadline, what)
        })
    }
}
