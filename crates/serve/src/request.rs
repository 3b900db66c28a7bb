//! From the bytes of a request to those of its answer, on a compute thread.
//!
//! ```text
//! body --expanded--> bytes --protocol--> Asked --answer--> Answer --protocol--> bytes
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use ams_bundle::similar;

use crate::answer::{self, Buffers, Clock, Target};
use crate::body::Body;
use crate::compute::Lost;
use crate::models::Snapshot;
use crate::problem::{Kind, Problem};
use crate::protocol::{Protocol, json};
use crate::settings::Limits;
use crate::shared::Shared;
use crate::telemetry::Telemetry;
use crate::trace::Work;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A page view, in this protocol.
    PageView(Protocol),
    /// What is like an item or a picture, asked in JSON.
    Similar(Target),
}

/// One request, as it came.
#[derive(Debug)]
pub(crate) struct Request {
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

impl Request {
    /// The answer, in the protocol of the request.
    ///
    /// # Errors
    /// If the request is not good, or its deadline passes.
    fn answer(
        &self,
        limits: &Limits,
        telemetry: &Telemetry,
        buffers: &mut Buffers,
    ) -> Result<Vec<u8>, Problem> {
        let Request { snapshot, about, body, came, deadline } = self;
        let clock = Clock { came: *came, deadline: *deadline };
        telemetry.queue_seconds.record(came.elapsed().as_secs_f64());
        clock.check()?;
        let begin = Instant::now();
        let answer = match about {
            About::PageView(protocol) => {
                let asked = protocol.read(&body.expanded()?)?;
                let write = |answer: &answer::Answer<'_>| protocol.write(answer);
                answer::page_view(&asked, snapshot, limits, clock, buffers, write)?
            }
            About::Similar(Target { model, version }) => {
                let wanted = similar::Wanted::parse(&body.expanded()?)?;
                let loaded = snapshot.find(model, *version, None)?;
                let answer = json::write(&answer::similar(&loaded, &wanted)?);
                clock.check()?;
                answer
            }
        };
        telemetry.compute_seconds.record(begin.elapsed().as_secs_f64());
        Ok(answer)
    }
}

impl Shared {
    /// Has a request answered on a compute thread; the answer, in the request's protocol.
    pub(crate) async fn answer(self: &Arc<Shared>, request: Request) -> Result<Vec<u8>, Problem> {
        let Request { came, deadline, .. } = request;
        let (shared, work) = (Arc::clone(self), Work::queued());
        let job = self.pool.run(move |buffers: &mut Buffers| {
            let job = || request.answer(&shared.limits, &shared.telemetry, buffers);
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
