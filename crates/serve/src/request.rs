//! From the bytes of a request to those of its answer, on a compute thread.
//!
//! ```text
//! body --expanded--> bytes --protocol--> ParsedRequest --answer--> Answer --protocol--> bytes
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::answer::{self, Buffers, Clock, PageThreads, Target};
use crate::body::Body;
use crate::compute::JobError;
use crate::models::Snapshot;
use crate::problem::{Kind, Problem};
use crate::protocol::Protocol;
use crate::state::ServerState;
use crate::trace::WorkTimes;

/// The operation of a request, before its body is parsed.
#[derive(Clone, Debug)]
pub(crate) enum RequestKind {
    /// A page view, in this protocol.
    PageView(Protocol),
    /// Anything else about a model, whose route reads the body and writes the answer.
    Question(Target, Question),
}

/// From a body to the bytes of its answer, about one of the models.
pub(crate) type Question = fn(&Snapshot, &Target, &[u8]) -> Result<Vec<u8>, Problem>;

/// One request, with its body unparsed.
#[derive(Debug)]
pub(crate) struct Request {
    /// All models when the request arrived: a request sees one state of them.
    pub snapshot: Arc<Snapshot>,
    pub kind: RequestKind,
    pub body: Body,
    pub received: Instant,
    /// Time for the answer, unless the request sets less.
    pub deadline: Duration,
}

impl Request {
    /// The answer, in the protocol of the request.
    ///
    /// # Errors
    /// If the request is invalid, or its deadline passes.
    fn answer(&self, server: &ServerState, buffers: &mut Buffers) -> Result<Vec<u8>, Problem> {
        let ServerState { limits, telemetry, pool, page_threads, .. } = server;
        let Request { snapshot, kind, body, received, deadline } = self;
        let clock = Clock { received: *received, deadline: *deadline };
        telemetry.queue_seconds.record(received.elapsed().as_secs_f64());
        clock.check()?;
        let begin = Instant::now();
        let answer = match kind {
            RequestKind::PageView(protocol) => {
                let asked = protocol.read(&body.expanded()?)?;
                let write = |answer: &answer::Answer<'_>| protocol.write(answer);
                let threads = PageThreads { pool, most: *page_threads };
                answer::page_view(&asked, snapshot, limits, clock, threads, buffers, write)?
            }
            RequestKind::Question(target, question) => {
                let answer = question(snapshot, target, &body.expanded()?)?;
                clock.check()?;
                answer
            }
        };
        telemetry.compute_seconds.record(begin.elapsed().as_secs_f64());
        Ok(answer)
    }
}

impl ServerState {
    /// Has a request answered on a compute thread; the answer, in the request's protocol.
    pub(crate) async fn answer(
        self: &Arc<ServerState>,
        request: Request,
    ) -> Result<Vec<u8>, Problem> {
        let Request { received, deadline, .. } = request;
        let (server, work) = (Arc::clone(self), WorkTimes::queued());
        let job = self.pool.run(move |buffers: &mut Buffers| {
            let job = || request.answer(&server, buffers);
            WorkTimes::run(work.as_deref(), job)
        });
        // The job looks at its deadline itself; this is for one that never gets a thread.
        let left = deadline.saturating_sub(received.elapsed());
        let outcome = match tokio::time::timeout(left, job).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                match error {
                    JobError::Busy => self.telemetry.sheds.increment(1),
                    JobError::Panicked => self.telemetry.panics.increment(1),
                }
                return Err(error.into());
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
