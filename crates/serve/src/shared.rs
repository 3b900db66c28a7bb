//! What all requests of a server share, whatever they speak.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::answer::Buffers;
use crate::body::{Bounds, Memory};
use crate::compute::Pool;
use crate::cors::Cors;
use crate::edits::Pictures;
use crate::models::{Choice, Models};
use crate::settings::{Control, Demo, Limits, Settings};
use crate::spans::Spans;
use crate::telemetry::Telemetry;
use crate::token::Tokens;
use crate::traffic::Traffic;

/// What all requests share.
#[derive(Debug)]
pub struct Shared {
    /// The models.
    pub models: Arc<Models>,
    /// The compute threads.
    pub pool: Pool<Buffers>,
    /// What is too much.
    pub limits: Limits,
    /// Whether every request is written into the log.
    pub access_log: bool,
    /// Where spans go, if anywhere.
    pub spans: Option<Spans>,
    /// The page to look at page views with, if it is served.
    pub demo: Option<Demo>,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// What is counted of connections and bodies.
    pub traffic: Arc<Traffic>,
    /// The memory of all bodies.
    pub memory: Arc<Memory>,
    /// Who may ask.
    pub tokens: Tokens,
    /// Who may watch and change.
    pub admin_tokens: Tokens,
    /// Names that the admin port may be asked by.
    pub admin_hosts: Vec<String>,
    /// The pages of other hosts that may ask for page views.
    pub cors: Cors,
    /// The encoder behind the models, for new pictures.
    pub pictures: Option<Arc<dyn Pictures>>,
    /// Whether the server is ending: it answers, and is not ready for more.
    pub stopping: AtomicBool,
}

impl Shared {
    /// With no model loaded; called inside a tokio runtime.
    ///
    /// # Errors
    /// If the operating system gives no thread, or spans cannot go where they should.
    pub fn new(settings: &Settings) -> Result<Arc<Shared>, String> {
        let telemetry = Telemetry::new();
        let spans =
            settings.otlp.as_deref().map(|url| Spans::start(url, &telemetry)).transpose()?;
        let pool = Pool::new(settings.threads, settings.limits.queue);
        let pool = pool.map_err(|error| format!("the operating system: {error}"))?;
        let traffic = Arc::new(Traffic::new(&telemetry));
        let limits = settings.limits;
        let memory = Memory::new(limits.request_memory, traffic.memory_refusals.clone());
        let choice = Choice {
            explicit: matches!(settings.control, Control::Explicit(_)),
            pins: settings.pins.clone(),
            keep: settings.keep,
            copied_bytes: settings.copied_bytes,
        };
        let models = Models::new(settings.models.clone(), choice, Arc::clone(&telemetry));
        Ok(Arc::new(Shared {
            models: Arc::new(models),
            pool,
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
        }))
    }

    /// What the body of a request may cost.
    pub(crate) fn bounds(&self) -> Bounds<'_> {
        let Limits { body_bytes, body_timeout, .. } = self.limits;
        Bounds { memory: &self.memory, most: body_bytes, within: body_timeout }
    }

    /// Whether requests should be sent here.
    pub fn ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.models.ready()
    }
}
