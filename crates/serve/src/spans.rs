//! Spans of requests for an OpenTelemetry collector, sent as OTLP over HTTP (protocol buffers).
//!
//! ```text
//! POST /v1/models/{model}/score                server: from its head to its answer
//!   queue                                      internal: until a compute thread has it
//!   compute                                    internal: read, scored and written
//! ```
//! Sampling, batches, attributes of the resource and headers are set by OpenTelemetry's own
//! variables (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SERVICE_NAME`,
//! `OTEL_EXPORTER_OTLP_HEADERS`). Spans that cannot be sent are counted and lost; no request waits
//! for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use metrics::Counter;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span as SdkSpan, SpanData, SpanExporter as Exporter,
};
use tokio::runtime::Handle;

use crate::telemetry::Telemetry;
use crate::trace::{Trace, WorkTimes};

/// How long a collector may take for a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a collector's answer.
const ANSWER_BYTES: usize = 1 << 20;

/// How long the last spans may take when the server ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The exporter of spans, in batches, to one collector.
#[derive(Debug)]
pub(crate) struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// The span of a request that is being answered.
#[derive(Debug)]
pub(crate) struct Span {
    span: SdkSpan,
    begin: (Instant, SystemTime),
}

impl Spans {
    /// Sends to the collector at `url`, the whole address of its traces; called inside a tokio
    /// runtime, which sends.
    ///
    /// # Errors
    /// If `url` is not one of HTTP without encryption, or a variable of OpenTelemetry is not
    /// understood.
    pub(crate) fn start(url: &str, telemetry: &Telemetry) -> Result<Spans, String> {
        if !url.starts_with("http://") {
            return Err(format!(
                "--otlp-endpoint {url}: expected http://HOST:PORT, of a collector near by that passes on what is encrypted"
            ));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let sender = Sender { client, runtime: Handle::current() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(sender)
            .with_endpoint(url)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| format!("--otlp-endpoint {url}: {error}"))?;
        let lost = telemetry.counter("ams_spans_lost_total", &[]);
        let exporter = Watched { exporter, lost, is_failing: AtomicBool::new(false) };
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty())
            && !std::env::var("OTEL_RESOURCE_ATTRIBUTES")
                .is_ok_and(|all| all.contains("service.name="))
        {
            resource = resource.with_service_name("ams-serve");
        }
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.with_attribute(version).build())
            .build();
        Ok(Spans { tracer: provider.tracer("ams-serve"), provider })
    }

    /// The span of a request that just came, of which `trace` knows what it was sent; `trace` then
    /// names this span.
    pub(crate) fn begin(&self, trace: &mut Trace, method: &str, route: &str, path: &str) -> Span {
        let begin = (Instant::now(), SystemTime::now());
        let attributes = [
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("url.path", path.to_owned()),
            KeyValue::new("ams.request_id", trace.id.clone()),
        ];
        let builder = self
            .tracer
            .span_builder(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_start_time(begin.1)
            .with_attributes(attributes);
        let span = self.tracer.build_with_context(builder, &parent(trace));
        let context = span.span_context();
        trace.continued(
            context.trace_id().to_string(),
            context.span_id().to_string(),
            context.trace_flags().to_u8(),
        );
        Span { span, begin }
    }

    /// Ends the span of a request that was answered with `status`, and of the `work` it was.
    pub(crate) fn end(&self, span: Span, status: u16, grpc_status: Option<&str>, work: &WorkTimes) {
        let Span { mut span, begin: (came, began) } = span;
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        let at = |instant: Instant| began + instant.saturating_duration_since(came);
        let part = |name: &'static str, from: Instant, to: Instant| {
            let builder = self.tracer.span_builder(name).with_start_time(at(from));
            self.tracer.build_with_context(builder, &context).end_with_timestamp(at(to));
        };
        if let Some((queued, begin, end)) = work.times() {
            part("queue", queued, begin);
            part("compute", begin, end);
        }
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if let Some(status) = grpc_status {
            span.set_attribute(KeyValue::new("rpc.grpc.status_code", status.to_owned()));
        }
        if status >= 500 {
            span.set_status(Status::error(String::new()));
        }
        span.end_with_timestamp(at(Instant::now()));
    }

    /// Sends what is left.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The context of a request's span: that of its `traceparent`, if it had one.
fn parent(trace: &Trace) -> Context {
    let Some(parent) = trace.parent() else { return Context::new() };
    let ids = TraceId::from_hex(trace.trace_id()).ok().zip(SpanId::from_hex(parent).ok());
    let Some((trace_id, span_id)) = ids else { return Context::new() };
    let flags = TraceFlags::new(trace.flags());
    let remote = SpanContext::new(trace_id, span_id, flags, true, TraceState::default());
    Context::new().with_remote_span_context(remote)
}

/// Sends requests on the server's runtime, from any thread.
#[derive(Clone, Debug)]
struct Sender {
    client: Client<HttpConnector, Body>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = async move {
            let response = client.request(request.map(Body::from)).await?;
            let (head, body) = response.into_parts();
            let bytes = to_bytes(Body::new(body), ANSWER_BYTES).await?;
            Ok::<_, HttpError>(Response::from_parts(head, bytes))
        };
        self.runtime
            .spawn(async move { tokio::time::timeout(EXPORT_TIMEOUT, sent).await })
            .await??
    }
}

/// Says when spans begin to be lost and when no longer.
#[derive(Debug)]
struct Watched {
    exporter: SpanExporter,
    lost: Counter,
    is_failing: AtomicBool,
}

impl Exporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let outcome = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) => {
                self.lost.increment(spans);
                if !was_failing {
                    tracing::warn!(%error, "spans are lost: the collector does not take them");
                }
            }
            Ok(()) if was_failing => tracing::info!("the collector takes spans again"),
            Ok(()) => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
