//! gRPC, on the port of HTTP: `proto/` has its services.
//!
//! ```text
//! ams.v1.Ranking                   Score, PreRank, Page, Explain
//! inference.GRPCInferenceService   ServerLive, ServerReady, ServerMetadata, ModelReady, ModelMetadata, ModelInfer
//! grpc.health.v1.Health            Check, List, Watch
//! grpc.reflection.v1.ServerReflection   ServerReflectionInfo
//! ```
//! A call is an HTTP/2 request to `/service/method`, so it has a route like any other: counted,
//! admitted by the same tokens, with the same limits. Messages may come compressed by gzip; answers
//! are not. `tonic` knows frames and trailers; a message's bytes are expanded, read and written
//! where they are answered, on a compute thread; what they mean is `protocol::protobuf`'s. In
//! reading order: `status`, problems; `compression`; `call`, how messages come and go; `health` and
//! `reflection`.

mod call;
mod compression;
mod health;
mod reflection;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::post;

use crate::answer::Target;
use crate::http::AppState;
use crate::inference;
use crate::problem::{Kind, Problem};
use crate::protocol::Protocol;
use crate::protocol::protobuf::messages::inference as open;
use crate::protocol::protobuf::{GrpcMethod, tensors};
use crate::request::{Request, RequestKind};
use crate::state::ServerState;
use call::{HEALTH, INFERENCE, RANKING, REFLECTION, SERVICES, refused, said, unary};

pub(crate) use status::status_of;

/// The routes of all calls.
pub(crate) fn router(server: &Arc<ServerState>) -> Router<Arc<ServerState>> {
    let mut router = Router::new();
    for (service, method, call) in [
        (RANKING, "Score", GrpcMethod::Score),
        (RANKING, "PreRank", GrpcMethod::PreRank),
        (RANKING, "Page", GrpcMethod::Page),
        (RANKING, "Explain", GrpcMethod::Explain),
        (INFERENCE, "ModelInfer", GrpcMethod::Infer),
    ] {
        let handler = move |State(server): AppState, request| answer(server, call, request);
        router = router.route(&format!("/{service}/{method}"), post(handler));
    }
    let guarded = router
        .route(&format!("/{INFERENCE}/ModelReady"), post(model_ready))
        .route(&format!("/{INFERENCE}/ModelMetadata"), post(model_metadata))
        .route(&format!("/{REFLECTION}/ServerReflectionInfo"), post(reflection::info))
        .route_layer(from_fn_with_state(Arc::clone(server), admitted));
    let mut router = guarded
        .route(&format!("/{INFERENCE}/ServerLive"), post(server_live))
        .route(&format!("/{INFERENCE}/ServerReady"), post(server_ready))
        .route(&format!("/{INFERENCE}/ServerMetadata"), post(server_metadata))
        .route(&format!("/{HEALTH}/Check"), post(health::check))
        .route(&format!("/{HEALTH}/List"), post(health::list))
        .route(&format!("/{HEALTH}/Watch"), post(health::watch));
    for service in SERVICES {
        router = router.route(&format!("/{service}/{{method}}"), post(no_such_method));
    }
    router.route_layer(map_response(compression::advertised)).route_layer(from_fn(says_grpc))
}

/// Lets nothing else in, such as what pages of other sites can make a browser send.
async fn says_grpc(request: HttpRequest, next: Next) -> Result<Response, Problem> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !["application/grpc", "application/grpc+proto"].contains(&kind) {
        let what = "expected the header `Content-Type: application/grpc`: this path is a gRPC call";
        return Err(Problem::new(Kind::MediaType, what));
    }
    Ok(next.run(request).await)
}

/// Lets requests with a valid token in.
async fn admitted(State(server): AppState, request: HttpRequest, next: Next) -> Response {
    match server.tokens.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => refused(problem),
    }
}

async fn no_such_method() -> Response {
    refused(Problem::new(Kind::Method, "this service has no such method"))
}

/// Has a page view answered on a compute thread.
async fn answer(server: Arc<ServerState>, method: GrpcMethod, request: HttpRequest) -> Response {
    let received = Instant::now();
    let deadline = match timeout(request.headers()) {
        Ok(asked) => server.limits.deadline.min(asked.unwrap_or(Duration::MAX)),
        Err(problem) => return refused(problem),
    };
    let of_call = Arc::clone(&server);
    let answer = |body| async move {
        let (snapshot, kind) =
            (of_call.models.now(), RequestKind::PageView(Protocol::Grpc(method)));
        of_call.answer(Request { snapshot, kind, body, received, deadline }).await
    };
    unary(server.body_limits().within(deadline), request, answer).await
}

/// How long the client waits: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let parsed = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(digits, unit)| {
        let digits = digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(digits)?;
        let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
        Some(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        })
    });
    let wrong = || {
        let what =
            format!("grpc-timeout is {text:?}, expected up to 8 digits and H, M, S, m, u or n");
        Problem::new(Kind::Request, what)
    };
    parsed.map(Some).ok_or_else(wrong)
}

async fn server_live(State(server): AppState, request: HttpRequest) -> Response {
    let answer = |_: open::ServerLiveRequest| Ok(open::ServerLiveResponse { live: true });
    said(server.body_limits().unauthenticated(), request, answer).await
}

async fn server_ready(State(server): AppState, request: HttpRequest) -> Response {
    let ready = server.ready();
    let answer = |_: open::ServerReadyRequest| Ok(open::ServerReadyResponse { ready });
    said(server.body_limits().unauthenticated(), request, answer).await
}

async fn server_metadata(State(server): AppState, request: HttpRequest) -> Response {
    let answer = |_: open::ServerMetadataRequest| {
        Ok(open::ServerMetadataResponse {
            name: inference::SERVER.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: inference::EXTENSIONS.map(str::to_owned).to_vec(),
        })
    };
    said(server.body_limits().unauthenticated(), request, answer).await
}

async fn model_ready(State(server): AppState, request: HttpRequest) -> Response {
    let answer = |asked: open::ModelReadyRequest| {
        let Target { model, version } = tensors::target(asked.name, &asked.version)?;
        Ok(open::ModelReadyResponse {
            ready: server.models.now().find(&model, version, None).is_ok(),
        })
    };
    said(server.body_limits(), request, answer).await
}

async fn model_metadata(State(server): AppState, request: HttpRequest) -> Response {
    let answer = |asked: open::ModelMetadataRequest| {
        let Target { model, version } = tensors::target(asked.name, &asked.version)?;
        let loaded = server.models.now().find(&model, version, None)?;
        Ok(tensors::describe(&loaded.model))
    };
    said(server.body_limits(), request, answer).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_they_are_spelled() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("grpc-timeout"),
                text.parse().unwrap(),
            )]);
            timeout(&headers).ok().flatten()
        };
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("0S", Duration::ZERO),
            ("99999999m", Duration::from_millis(99_999_999)),
            ("5u", Duration::from_micros(5)),
            ("7n", Duration::from_nanos(7)),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
        for text in ["", "m", "5", "5s", "-5m", "+5m", "1.5S", "123456789m", "5 m", "\u{e9}"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
