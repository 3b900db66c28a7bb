//! In place of gRPC, where the server was built without it: a call is answered in gRPC's words,
//! with UNIMPLEMENTED.

use std::sync::Arc;

use ams_data::Error;
use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use crate::problem::{Kind, Problem};
use crate::state::ServerState;

/// gRPC's code for what a server does not have: UNIMPLEMENTED.
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");

const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The services that there would be.
pub(crate) fn router(_: &Arc<ServerState>) -> Router<Arc<ServerState>> {
    let mut router = Router::new();
    for service in [
        "ams.v1.Ranking",
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ] {
        router = router.route(&format!("/{service}/{{method}}"), post(refuse));
    }
    router
}

async fn refuse(request: Request) -> Response {
    let what = Error::built_without("gRPC", "grpc").to_string();
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return Problem::new(Kind::MediaType, what).into_response();
    }
    // Trailers without an answer may come as headers; spaces and backquotes are fine in both, a
    // percent sign would not be.
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (STATUS, UNIMPLEMENTED),
        (
            HeaderName::from_static("grpc-message"),
            HeaderValue::from_str(&what).expect("the text is plain ASCII"),
        ),
    ];
    headers.into_response()
}

/// The status as HTTP would have it: gRPC's own is 200 whatever happens. It is for counting.
pub(crate) fn status_of<B>(response: &Response<B>) -> u16 {
    if response.headers().get(STATUS) == Some(&UNIMPLEMENTED) {
        Kind::Method.status().as_u16()
    } else {
        response.status().as_u16()
    }
}
