//! Answers that are no success, as RFC 9457 has them: `application/problem+json` with type, title,
//! status and detail.

use axum::http::header::{ACCEPT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::compute::Lost;
use crate::models::Refusal;

/// What a body may be compressed with, for the header `Accept-Encoding` of an answer that refuses
/// something else.
pub(crate) const ENCODINGS: &str = "gzip, identity";

/// One kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is no JSON or does not fit the model.
    Request,
    /// No valid token came with it.
    Token,
    /// A page of another host asks, or the server is asked by another host's name.
    Forbidden,
    /// There is no such model, version or path.
    NotFound,
    /// The path knows other methods.
    Method,
    /// The model cannot do this, or is not in the state for it.
    Conflict,
    /// The body did not come in time.
    SlowBody,
    /// The body is too large.
    TooLarge,
    /// A body that is not JSON.
    MediaType,
    /// A body that is compressed in a way that is not known.
    Encoding,
    /// A defect of the server.
    Internal,
    /// Too much to do.
    Busy,
    /// Models are still being looked for.
    Unready,
    /// There is no answer before the deadline.
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

    /// The status of its answers.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// Bytes of a detail: what quotes a request is as long as that, and gRPC's clients refuse heads
/// that are long.
const DETAIL: usize = 1024;

/// What is written where a detail was cut.
const CUT: &str = "..";

/// A kind of problem and what it is this time.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Which kind.
    pub kind: Kind,
    /// What came, what was expected; at most 1 kB.
    pub detail: String,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Problem {
        let mut detail = detail.into();
        if detail.len() > DETAIL {
            detail.truncate(detail.floor_char_boundary(DETAIL - CUT.len()));
            detail.push_str(CUT);
        }
        Problem { kind, detail }
    }
}

impl From<Lost> for Problem {
    fn from(lost: Lost) -> Problem {
        match lost {
            Lost::Busy => {
                Problem::new(Kind::Busy, "more requests wait than can be answered in time")
            }
            Lost::Panicked => {
                Problem::new(Kind::Internal, "a defect of the server; its log says more")
            }
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

/// What is sent.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// What a problem was, beside its answer: for protocols that spell problems otherwise.
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
