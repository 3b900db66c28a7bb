//! In place of spans, where the program was built without them: asking for them is an error.

use std::convert::Infallible;

use ams_data::Error;

use crate::telemetry::Telemetry;
use crate::trace::{Trace, WorkTimes};

/// Where spans go: nowhere.
#[derive(Debug)]
pub(crate) struct Spans(Infallible);

/// The span of a request, of which there is none.
#[derive(Debug)]
pub(crate) struct Span(Infallible);

impl Spans {
    /// Names the cargo feature that is missing.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn start(url: &str, _: &Telemetry) -> Result<Spans, String> {
        let what = format!("--otlp-endpoint {url}");
        Err(Error::built_without(what, "otel").to_string())
    }

    /// Never called, because [`Spans`] has no value.
    pub(crate) fn begin(&self, _: &mut Trace, _: &str, _: &str, _: &str) -> Span {
        match self.0 {}
    }

    /// Never called, because [`Spans`] has no value.
    pub(crate) fn end(&self, span: Span, _: u16, _: Option<&str>, _: &WorkTimes) {
        match span.0 {}
    }

    /// Never called, because [`Spans`] has no value.
    pub(crate) fn flush(&self) {
        match self.0 {}
    }
}
