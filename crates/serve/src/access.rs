//! The middleware around every request: it names the request, sends its span and writes its line of
//! the access log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use crate::state::ServerState;
use crate::trace::{Trace, WorkTimes};

/// Most characters of a path in the log.
const PATH: usize = 200;

/// Names a request, and writes what became of it into the log: always if it failed by a defect of
/// ours, else if asked to. Its span goes to the collector, if there is one; those of probes do not.
pub(crate) async fn traced(
    State(server): State<Arc<ServerState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let mut trace = Trace::of(request.headers());
    let line = (server.access_log || server.spans.is_some()).then(|| RequestLine::of(&request));
    let span = line.as_ref().filter(|line| !line.route.starts_with("/health"));
    let span = span.zip(server.spans.as_ref());
    let span = span.map(|(RequestLine { method, path, route }, spans)| {
        (spans, spans.begin(&mut trace, method.as_str(), route, path))
    });
    request.extensions_mut().insert(trace.clone());
    let (mut response, span) = match span {
        None => (next.run(request).await, None),
        Some((spans, span)) => {
            let work = Arc::new(WorkTimes::default());
            let response = work.of(next.run(request)).await;
            (response, Some((spans, span, work)))
        }
    };
    trace.write_headers(response.headers_mut());
    let status = response.status();
    if let Some((spans, span, work)) = span {
        let grpc = response.headers().get("grpc-status").and_then(|status| status.to_str().ok());
        spans.end(span, status.as_u16(), grpc, &work);
    }
    if let Some(RequestLine { method, path, route }) = line.filter(|_| server.access_log) {
        tracing::info!(
            target: "ams_serve::access",
            request_id = trace.id,
            trace_id = trace.trace_id(),
            %method,
            path,
            route,
            status = status.as_u16(),
            seconds = begin.elapsed().as_secs_f64(),
            "answered"
        );
    } else if status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id = trace.id, trace_id = trace.trace_id(), "failed by a defect");
    }
    response
}

/// The fields of a line of the access log.
struct RequestLine {
    method: Method,
    path: String,
    route: String,
}

impl RequestLine {
    fn of(request: &Request) -> RequestLine {
        let path = request.uri().path().chars().take(PATH).collect();
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
        RequestLine { method: request.method().clone(), path, route }
    }
}
