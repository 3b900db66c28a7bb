//! Handlers and middleware of both ports: authentication, content types, responses in JSON, health,
//! and problems of unknown paths.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::inference;
use crate::problem::{Detail, Kind, Problem};
use crate::state::ServerState;

/// The state of the server, as handlers receive it.
pub(crate) type AppState = State<Arc<ServerState>>;

/// The description of the API, OpenAPI 3.1.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

/// The routes that need no token: liveness, readiness and the description of the API.
pub(crate) fn health() -> Router<Arc<ServerState>> {
    let ready = |State(server): AppState| async move {
        if server.ready() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    };
    let alive = || async { "alive\n" };
    let about = || async {
        let (name, extensions) = (inference::SERVER, inference::EXTENSIONS);
        let version = env!("CARGO_PKG_VERSION");
        Json(json!({"name": name, "version": version, "extensions": extensions}))
    };
    Router::new()
        .route("/health/live", get(alive))
        .route("/health/ready", get(ready))
        .route("/openapi.json", get(|| async { json_response(OPENAPI) }))
        .route("/v2", get(about))
        .route("/v2/health/live", get(alive))
        .route("/v2/health/ready", get(ready))
}

/// Runs `work` on a blocking thread, because threads that talk to clients never wait for disks.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Problem> + Send + 'static,
) -> Result<R, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::new(
            Kind::Internal,
            "the server failed by a defect; the log has the details",
        )),
    }
}

pub(crate) async fn no_such_path() -> Problem {
    Problem::new(Kind::NotFound, "no such path")
}

/// Spells problems as the Open Inference Protocol does, below its path.
pub(crate) async fn of_protocol(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_of = path == "/v2" || path.starts_with("/v2/");
    let mut response = next.run(request).await;
    if is_of && (response.status().is_client_error() || response.status().is_server_error()) {
        let detail = match response.extensions_mut().remove() {
            Some(Detail(detail)) => detail,
            // A status without a `Problem`, for example that of readiness.
            None => response.status().canonical_reason().unwrap_or("problem").to_owned(),
        };
        let (mut head, _) = response.into_parts();
        head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(head, json!({ "error": detail }).to_string().into());
    }
    response
}

pub(crate) async fn no_such_method() -> Problem {
    Problem::new(Kind::Method, "this path does not support the method")
}

/// Refuses requests without a valid token.
pub(crate) async fn admitted(
    State(server): AppState,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    server.tokens.check(request.headers())?;
    Ok(next.run(request).await)
}

/// Content types of requests that a route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// JSON alone, or none at all.
    Json,
    /// Any content type: clients of the protocol send different ones.
    Anything,
}

impl Accepts {
    /// Checks the content type of a request.
    ///
    /// # Errors
    /// With 415 if it is not accepted.
    pub(crate) fn check(self, headers: &HeaderMap) -> Result<(), Problem> {
        let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        // Content types that pages of other sites can make a browser send are refused.
        if self == Accepts::Json && !value.is_none_or(is_json) {
            let what = "expected the header `Content-Type: application/json`";
            return Err(Problem::new(Kind::MediaType, what));
        }
        Ok(())
    }
}

/// Whether a content type is `application/json`, with or without parameters.
pub(crate) fn is_json(value: &str) -> bool {
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// A response whose body is JSON already.
pub(crate) fn json_response(body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_json_accepts_no_other_content_type() {
        for (value, json) in [
            (None, true),
            (Some("application/json"), true),
            (Some("Application/JSON; charset=utf-8"), true),
            (Some("application/jsonish"), false),
            (Some("application/octet-stream"), false),
            (Some("text/plain"), false),
        ] {
            let value = value.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)));
            let headers = HeaderMap::from_iter(value);
            assert_eq!(Accepts::Json.check(&headers).is_ok(), json, "{headers:?}");
            assert!(Accepts::Anything.check(&headers).is_ok(), "{headers:?}");
        }
        let plain = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]);
        assert_eq!(Accepts::Json.check(&plain).unwrap_err().kind, Kind::MediaType);
    }
}
