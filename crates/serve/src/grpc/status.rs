//! Problems in gRPC's words: one code for every kind.

use axum::response::Response;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::problem::{Kind, Problem};

/// Milliseconds after which a client that was turned away may try again: gRPC's retry policies read
/// it from here.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

impl Kind {
    /// The code of its answers.
    pub fn code(self) -> Code {
        match self {
            Kind::Request | Kind::MediaType => Code::InvalidArgument,
            // As gRPC has it for compression.
            Kind::Encoding => Code::Unimplemented,
            Kind::Token => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::NotFound => Code::NotFound,
            Kind::Method => Code::Unimplemented,
            Kind::Conflict => Code::FailedPrecondition,
            Kind::TooLarge => Code::ResourceExhausted,
            Kind::Internal => Code::Internal,
            Kind::Busy | Kind::Unready => Code::Unavailable,
            Kind::SlowBody | Kind::Deadline => Code::DeadlineExceeded,
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let mut status = Status::new(problem.kind.code(), problem.detail);
        if matches!(problem.kind, Kind::Busy | Kind::Unready) {
            status.metadata_mut().insert(PUSHBACK, MetadataValue::from_static("1000"));
        }
        status
    }
}

/// The status as HTTP would have it: gRPC's own is 200 whatever happens. It is for counting.
pub(crate) fn status_of<B>(response: &Response<B>) -> u16 {
    let Some(status) = response.extensions().get::<Status>() else {
        return response.status().as_u16();
    };
    let kinds = [
        Kind::Request,
        Kind::Token,
        Kind::NotFound,
        Kind::Method,
        Kind::Conflict,
        Kind::TooLarge,
        Kind::Busy,
        Kind::Deadline,
    ];
    let kind = kinds.into_iter().find(|kind| kind.code() == status.code());
    kind.unwrap_or(Kind::Internal).status().as_u16()
}
