//! The state of a server that all requests share, over HTTP and gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::answer::Buffers;
use crate::body::{BodyLimits, RequestMemory};
use crate::compute::Pool;
use crate::cors::Cors;
use crate::edits::PictureEncoder;
use crate::models::{Models, ServingPolicy};
use crate::settings::{Control, Demo, Limits, Settings};
use crate::spans::Spans;
use crate::telemetry::Telemetry;
use crate::token::Tokens;
use crate::traffic::TrafficMetrics;

/// The state of a server.
#[derive(Debug)]
pub(crate) struct ServerState {
    /// Of which a request takes one snapshot.
    pub models: Arc<Models>,
    /// Compute threads; no other thread scores.
    pub pool: Pool<Buffers>,
    /// Most compute threads of a page view.
    pub page_threads: usize,
    /// Limits of requests and connections.
    pub limits: Limits,
    /// Whether every request has a line in the log.
    pub access_log: bool,
    /// The exporter of spans, if a collector is configured.
    pub spans: Option<Spans>,
    /// The page `/demo`, if it is served.
    pub demo: Option<Demo>,
    /// Metrics of requests and models.
    pub telemetry: Arc<Telemetry>,
    /// Metrics of connections and bodies.
    pub traffic: Arc<TrafficMetrics>,
    /// The budget of memory for bodies, shared by both ports.
    pub memory: Arc<RequestMemory>,
    /// Tokens for page views.
    pub tokens: Tokens,
    /// Tokens for the admin port.
    pub admin_tokens: Tokens,
    /// Host names of the admin port, beside localhost and addresses.
    pub admin_hosts: Vec<String>,
    /// Origins whose pages may request page views.
    pub cors: Cors,
    /// The encoder behind the models, for new pictures.
    pub pictures: Option<Arc<dyn PictureEncoder>>,
    /// Whether the server is stopping: it still answers, but is not ready.
    pub stopping: AtomicBool,
    /// Whether `/v1/nothing` is served, for benchmarks.
    pub bench_endpoint: bool,
}

impl ServerState {
    /// The state with no model loaded; has to be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the operating system refuses a thread, or spans cannot be exported as configured.
    pub(crate) fn new(settings: &Settings) -> Result<Arc<ServerState>, String> {
        let telemetry = Telemetry::new();
        let spans =
            settings.otlp.as_deref().map(|url| Spans::start(url, &telemetry)).transpose()?;
        let pool = Pool::new(settings.threads, settings.limits.queue);
        let pool = pool.map_err(|error| format!("the operating system: {error}"))?;
        let Settings { threads, page_threads, .. } = *settings;
        if page_threads > threads {
            tracing::warn!(page_threads, threads, "a page view has no more threads than there are");
        }
        let traffic = Arc::new(TrafficMetrics::new(&telemetry));
        let limits = settings.limits;
        let memory = RequestMemory::new(limits.request_memory, traffic.memory_refusals.clone());
        let policy = ServingPolicy {
            explicit: matches!(settings.control, Control::Explicit(_)),
            pins: settings.pins.clone(),
            keep: settings.keep,
            copied_bytes: settings.copied_bytes,
        };
        let models = Models::new(settings.models.clone(), policy, Arc::clone(&telemetry));
        Ok(Arc::new(ServerState {
            models: Arc::new(models),
            pool,
            page_threads: page_threads.min(threads),
            limits,
            access_log: settings.access_log,
            spans,
            demo: settings.demo.clone(),
            telemetry,
            traffic,
            memory,
            tokens: settings.tokens.clone(),
            admin_tokens: settings.admin_tokens.clone(),
            admin_hosts: settings.admin_hosts.clone(),
            cors: settings.cors.clone(),
            pictures: settings.pictures.clone(),
            stopping: AtomicBool::new(false),
            bench_endpoint: settings.bench_endpoint,
        }))
    }

    /// The limits of the body of a request.
    pub(crate) fn body_limits(&self) -> BodyLimits<'_> {
        let Limits { body_bytes, body_timeout, .. } = self.limits;
        BodyLimits { memory: &self.memory, most: body_bytes, within: body_timeout }
    }

    /// Whether the server is ready for requests: models serve and it is not stopping.
    pub(crate) fn ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.models.ready()
    }
}
