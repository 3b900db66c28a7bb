//! Error responses by RFC 9457: `application/problem+json` with type, title,
//! status and detail.

use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::compute::JobError;
use crate::models::Refusal;

/// The supported content codings, for the header `Accept-Encoding` of a response that refuses
/// another one.
pub(crate) const ENCODINGS: &str = "gzip, identity";

/// One kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is not valid JSON or does not fit the model.
    Request,
    /// The request has no valid token.
    Token,
    /// The request is from a page of another origin, or its `Host` is not a name of this server.
    Forbidden,
    /// There is no such model, version or path.
    NotFound,
    /// The path does not support the method.
    Method,
    /// The model does not support the operation, or not in its present state.
    Conflict,
    /// The body did not arrive in time.
    SlowBody,
    /// The body has more bytes than the limit.
    TooLarge,
    /// The content type is not the one that the route accepts.
    MediaType,
    /// The content coding of the body is not supported.
    Encoding,
    /// A defect of the server.
    Internal,
    /// The queue or the memory for requests is full.
    Busy,
    /// The models are not loaded yet.
    Unready,
    /// The deadline passed before the answer was ready.
    Deadline,
}

impl Kind {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Kind::Request => (StatusCode::BAD_REQUEST, "request"),
            Kind::Token => (StatusCode::UNAUTHORIZED, "token"),
            Kind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
            Kind::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Kind::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            Kind::Conflict => (StatusCode::CONFLICT, "conflict"),
            Kind::SlowBody => (StatusCode::REQUEST_TIMEOUT, "slow-body"),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Kind::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type"),
            Kind::Encoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Kind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Kind::Unready => (StatusCode::SERVICE_UNAVAILABLE, "not-ready"),
            Kind::Deadline => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
        }
    }

    /// The HTTP status of this kind.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// Most bytes of a detail: details quote requests, and gRPC's clients refuse long headers.
const DETAIL: usize = 1024;

/// The end of a detail that was cut.
const CUT: &str = "..";

/// One error: its kind, and the detail for the client.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Decides status and type of the response.
    pub kind: Kind,
    /// The value found and the value expected; at most 1 kB.
    pub detail: String,
}

impl Problem {
    /// Cuts `detail` to 1 kB.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        let mut detail = detail.into();
        if detail.len() > DETAIL {
            detail.truncate(detail.floor_char_boundary(DETAIL - CUT.len()));
            detail.push_str(CUT);
        }
        Problem { kind, detail }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Problem {
        match error {
            JobError::Busy => Problem::new(Kind::Busy, "the queue of requests is full"),
            JobError::Panicked => Problem::new(
                Kind::Internal,
                "the server failed by a defect; the log has the details",
            ),
        }
    }
}

impl From<ams_bundle::Error> for Problem {
    fn from(error: ams_bundle::Error) -> Problem {
        let kind = match error {
            ams_bundle::Error::Request { .. } => Kind::Request,
            ams_bundle::Error::Model { .. } => Kind::Conflict,
            _ => Kind::Internal,
        };
        Problem::new(kind, error.to_string())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let kind = match &refusal {
            Refusal::Absent(_) => Kind::NotFound,
            Refusal::Unready(_) => Kind::Unready,
            Refusal::Bundle(ams_bundle::Error::Request { .. }) => Kind::Request,
            Refusal::State(_) | Refusal::Bundle(_) => Kind::Conflict,
        };
        Problem::new(kind, refusal.to_string())
    }
}

/// The JSON of a problem, `application/problem+json`.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// The detail beside the response, for protocols with another format of errors.
#[derive(Clone, Debug)]
pub(crate) struct Detail(pub String);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, name) = self.kind.parts();
        let body = Body {
            r#type: format!("urn:ams:problem:{name}"),
            title: status.canonical_reason().unwrap_or("problem"),
            status: status.as_u16(),
            detail: &self.detail,
        };
        let body = serde_json::to_vec(&body).expect("texts and a number are JSON");
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(Detail(self.detail));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.kind {
            Kind::Busy | Kind::Unready => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Kind::Encoding => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
            }
            Kind::Token => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_end_at_a_character() {
        for (text, expected) in [
            ("x".repeat(1024), "x".repeat(1024)),
            ("x".repeat(1025), format!("{}..", "x".repeat(1022))),
            ("\u{20ac}".repeat(500), format!("{}..", "\u{20ac}".repeat(340))),
        ] {
            assert_eq!(Problem::new(Kind::Request, text).detail, expected);
        }
    }
}
