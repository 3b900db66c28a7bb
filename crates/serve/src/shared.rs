//! What all requests of a server share, whatever they speak.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::answer::Buffers;
use crate::compute::Pool;
use crate::edits::Pictures;
use crate::models::{Choice, Models};
use crate::settings::{Control, Demo, Limits, Settings};
use crate::telemetry::Telemetry;
use crate::token::Tokens;

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
    /// The page to look at page views with, if it is served.
    pub demo: Option<Demo>,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// Who may ask.
    pub tokens: Tokens,
    /// Who may watch and change.
    pub admin_tokens: Tokens,
    /// The encoder behind the models, for new pictures.
    pub pictures: Option<Arc<dyn Pictures>>,
    /// Whether the server is ending: it answers, and is not ready for more.
    pub stopping: AtomicBool,
}

impl Shared {
    /// With no model loaded.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn new(settings: &Settings) -> std::io::Result<Arc<Shared>> {
        let telemetry = Telemetry::new();
        let choice = Choice {
            explicit: matches!(settings.control, Control::Explicit(_)),
            pins: settings.pins.clone(),
            keep: settings.keep,
            copied_bytes: settings.copied_bytes,
        };
        let models = Models::new(settings.models.clone(), choice, Arc::clone(&telemetry));
        Ok(Arc::new(Shared {
            models: Arc::new(models),
            pool: Pool::new(settings.threads, settings.limits.queue)?,
            limits: settings.limits,
            access_log: settings.access_log,
            demo: settings.demo.clone(),
            telemetry,
            tokens: settings.tokens.clone(),
            admin_tokens: settings.admin_tokens.clone(),
            pictures: settings.pictures.clone(),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Whether requests should be sent here.
    pub fn ready(&self) -> bool {
        !self.stopping.load(Ordering::Relaxed) && self.models.ready()
    }
}
