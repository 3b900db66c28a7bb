//! From the bytes of a request to those of its answer, on a compute thread.
//!
//! ```text
//! bytes --Words::read--> Asked: model, what, page view --score--> Answer --Words::write--> bytes
//! ```
//! What is between the two does not know what a client speaks, so HTTP and gRPC have the same
//! scores, limits and deadlines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_bundle::page::{by_ecpm, ctrs_while, score_while};
use ams_bundle::{PageView, Scored, Scratch, Similar, similar};
use ams_data::value;
use axum::body::Bytes;
use serde::Serialize;

use crate::body::Body;
use crate::compute::Lost;
#[cfg(feature = "grpc")]
use crate::grpc::{ranking, tensors};
use crate::inference::{self, Inferred, Wanted};
use crate::models::{Loaded, Snapshot};
use crate::problem::{Kind, Problem};
use crate::settings::Limits;
use crate::shared::Shared;
use crate::telemetry::Telemetry;
use crate::trace::Work;

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
    Infer(Wanted),
}

/// As many as the paper's pre-rank leaves.
pub(crate) const KEEP: usize = 400;

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The model.
    pub model: String,
    /// The version, if it has to be that.
    pub version: Option<u64>,
}

/// What a client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// JSON; the path said who is asked what.
    Json(Target, Ask),
    /// Tensors as JSON, and bytes behind that.
    Tensors {
        /// Who is asked.
        target: Target,
        /// Bytes of the body that are JSON, if not all of them are.
        header: Option<usize>,
    },
    /// Protocol buffers, of which this is the call.
    #[cfg(feature = "grpc")]
    Call(Call),
}

/// The calls that ask something of a page view.
#[cfg(feature = "grpc")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `ams.v1.Ranking/Score`
    Score,
    /// `ams.v1.Ranking/PreRank`
    PreRank,
    /// `ams.v1.Ranking/Page`
    Page,
    /// `ams.v1.Ranking/Explain`
    Explain,
    /// `inference.GRPCInferenceService/ModelInfer`
    Infer,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A page view, in these words.
    PageView(Words),
    /// What is like an item or a picture, asked in JSON.
    Similar(Target),
}

/// One request, as it came.
#[derive(Debug)]
pub struct Request {
    /// All models when it came: one request sees one state of them.
    pub snapshot: Arc<Snapshot>,
    /// What it is about.
    pub about: About,
    /// The message.
    pub body: Body,
    /// When it came.
    pub came: Instant,
    /// How long its answer may take, unless it asks for less itself.
    pub deadline: Duration,
}

/// A request, read.
#[derive(Debug)]
pub(crate) struct Asked {
    pub target: Target,
    pub ask: Ask,
    pub page: PageView,
}

/// An answer, to be written.
pub(crate) enum Answer<'a> {
    Ranked(Scored<'a>),
    Explained(Explanation<'a>),
    Inferred(Inferred<'a>),
}

impl Words {
    fn read(&self, body: &Bytes) -> Result<Asked, Problem> {
        match self {
            Words::Json(target, ask) => {
                let page = PageView::parse(body)?;
                Ok(Asked { target: target.clone(), ask: ask.clone(), page })
            }
            Words::Tensors { target, header } => {
                let (page, wanted) = inference::json::parse(body, *header)?;
                Ok(Asked { target: target.clone(), ask: Ask::Infer(wanted), page })
            }
            #[cfg(feature = "grpc")]
            Words::Call(Call::Infer) => tensors::parse(body.clone()),
            #[cfg(feature = "grpc")]
            Words::Call(call) => ranking::parse(*call, body.clone()),
        }
    }

    fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        match (self, answer) {
            #[cfg(feature = "grpc")]
            (Words::Call(_), Answer::Inferred(inferred)) => tensors::answer(inferred),
            #[cfg(feature = "grpc")]
            (Words::Call(_), answer) => ranking::answer(answer),
            (_, Answer::Ranked(scored)) => json(scored),
            (_, Answer::Explained(explanation)) => json(explanation),
            (_, Answer::Inferred(inferred)) => json(&inference::json::answer(inferred)),
        }
    }
}

/// Buffers of a compute thread.
#[derive(Debug, Default)]
pub struct Buffers {
    scratch: Scratch,
    ctr: Vec<f32>,
}

/// An explanation, and whose.
#[derive(Serialize)]
pub(crate) struct Explanation<'a> {
    pub model: &'a str,
    pub version: u64,
    #[serde(flatten)]
    pub explained: ams_bundle::Explained,
}

impl Shared {
    /// Has a request answered on a compute thread; the answer, in the request's words.
    pub(crate) async fn answer(self: &Arc<Shared>, request: Request) -> Result<Vec<u8>, Problem> {
        let Request { came, deadline, .. } = request;
        let (shared, work) = (Arc::clone(self), Work::queued());
        let job = self.pool.run(move |buffers: &mut Buffers| {
            let job = || answer(&request, &shared.limits, &shared.telemetry, buffers);
            Work::run(work.as_deref(), job)
        });
        // The job looks at its deadline itself; this is for one that never gets a thread.
        let left = deadline.saturating_sub(came.elapsed());
        let outcome = match tokio::time::timeout(left, job).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(lost)) => {
                match lost {
                    Lost::Busy => self.telemetry.sheds.increment(1),
                    Lost::Panicked => self.telemetry.panics.increment(1),
                }
                return Err(lost.into());
            }
            Err(_) => {
                let what = format!("no answer within {} ms", deadline.as_millis());
                Err(Problem::new(Kind::Deadline, what))
            }
        };
        if matches!(&outcome, Err(problem) if problem.kind == Kind::Deadline) {
            self.telemetry.deadlines.increment(1);
        }
        outcome
    }
}

/// The answer, in the words of the request.
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
    Clock::of(request).check()?;
    let begin = Instant::now();
    let answer = match &request.about {
        About::PageView(words) => page_view(request, words, limits, buffers)?,
        About::Similar(target) => similar(request, target)?,
    };
    telemetry.compute_seconds.record(begin.elapsed().as_secs_f64());
    Ok(answer)
}

fn page_view(
    request: &Request,
    words: &Words,
    limits: &Limits,
    buffers: &mut Buffers,
) -> Result<Vec<u8>, Problem> {
    let Asked { target, ask, page } = words.read(&request.body.expanded()?)?;
    check(&page, limits)?;
    let asked = page.options.deadline_ms.filter(|&ms| ms > 0);
    let asked = asked.map_or(request.deadline, Duration::from_millis);
    let clock = Clock { came: request.came, deadline: asked.min(request.deadline) };
    clock.check()?;
    // In any spelling, so that one user has one version.
    let user = page.user.id.as_ref().and_then(|id| value::id(&id.0).ok());
    let user = user.as_deref().filter(|id| !id.is_empty());
    let loaded = request.snapshot.find(&target.model, target.version, user)?;
    let answer = match &ask {
        Ask::Score => words.write(&rank(&loaded, &page, buffers, &clock)?),
        Ask::PreRank => {
            loaded.model.require_vectors()?;
            words.write(&rank(&loaded, &page, buffers, &clock)?)
        }
        Ask::Page { keep: 0, .. } => {
            return Err(Problem::new(Kind::Request, "keep is 0, expected 1 or more"));
        }
        Ask::Page { pre_rank, keep } => {
            let first = request.snapshot.find(pre_rank, None, user)?;
            first.model.require_vectors()?;
            let places = best(&first, &page, *keep, buffers, &clock)?;
            let page = PageView { candidates: page.candidates.at(&places), ..page.clone() };
            words.write(&rank(&loaded, &page, buffers, &clock)?)
        }
        Ask::Explain => {
            let explained = loaded.model.explain(&page, &mut buffers.scratch)?;
            let (model, version) = (loaded.model.name(), loaded.model.version());
            words.write(&Answer::Explained(Explanation { model, version, explained }))
        }
        Ask::Infer(wanted) => {
            loaded.metrics.counts.pages.increment(1);
            loaded.metrics.candidates.record(page.candidates.item.len() as f64);
            let Buffers { scratch, ctr } = buffers;
            inference::check(wanted)?;
            clock.scored(ctrs_while(&loaded.model, &page, scratch, ctr, || clock.runs())?)?;
            let inferred = inference::inferred(&loaded.model, &page, wanted, ctr);
            words.write(&Answer::Inferred(inferred))
        }
    };
    clock.check()?;
    Ok(answer)
}

/// What is like something, and whose answer that is.
#[derive(Serialize)]
struct Alike<'a> {
    model: &'a str,
    version: u64,
    #[serde(flatten)]
    similar: Similar<'a>,
}

fn similar(request: &Request, Target { model, version }: &Target) -> Result<Vec<u8>, Problem> {
    let wanted = similar::Wanted::parse(&request.body.expanded()?)?;
    let loaded = request.snapshot.find(model, *version, None)?;
    let similar = loaded.model.similar(&wanted)?;
    let (model, version) = (loaded.model.name(), loaded.model.version());
    let answer = json(&Alike { model, version, similar });
    Clock::of(request).check()?;
    Ok(answer)
}

fn rank<'a>(
    loaded: &'a Loaded,
    page: &'a PageView,
    buffers: &mut Buffers,
    clock: &Clock,
) -> Result<Answer<'a>, Problem> {
    let model = &loaded.model;
    let ranked = score_while(model, page, &mut buffers.scratch, || clock.runs())?;
    let ranked = clock.scored(ranked)?;
    let metrics = &loaded.metrics;
    metrics.counts.pages.increment(1);
    metrics.candidates.record(page.candidates.item.len() as f64);
    metrics.counts.missing_items.increment(ranked.missing.items.len() as u64);
    metrics.counts.missing_images.increment(ranked.missing.images.len() as u64);
    ranked.ctr.iter().for_each(|&ctr| metrics.rates.record(f64::from(ctr)));
    Ok(Answer::Ranked(Scored { model: model.name(), version: model.version(), ranked }))
}

/// The places of the best `keep` candidates, in the order of the request.
fn best(
    loaded: &Loaded,
    page: &PageView,
    keep: usize,
    buffers: &mut Buffers,
    clock: &Clock,
) -> Result<Vec<usize>, Problem> {
    let Buffers { scratch, ctr } = buffers;
    clock.scored(ctrs_while(&loaded.model, page, scratch, ctr, || clock.runs())?)?;
    let mut places: Vec<usize> =
        by_ecpm(page, ctr).into_iter().take(keep).map(|(place, _)| place).collect();
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

/// When a request came, and how long its answer may take.
#[derive(Clone, Copy, Debug)]
struct Clock {
    came: Instant,
    deadline: Duration,
}

impl Clock {
    fn of(request: &Request) -> Clock {
        Clock { came: request.came, deadline: request.deadline }
    }

    /// Whether there is time left.
    fn runs(&self) -> bool {
        self.came.elapsed() < self.deadline
    }

    fn check(&self) -> Result<(), Problem> {
        self.scored(self.runs().then_some(()))
    }

    /// What was scored while the clock ran.
    fn scored<T>(&self, scored: Option<T>) -> Result<T, Problem> {
        scored.ok_or_else(|| {
            let what = format!("no answer within {} ms", self.deadline.as_millis());
            Problem::new(Kind::Deadline, what)
        })
    }
}

/// `value` as JSON.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have text keys only")
}
