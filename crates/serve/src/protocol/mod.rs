//! Protocols: the bytes of a request as what is asked, and an answer as bytes.
//!
//! ```text
//! bytes --read--> ParsedRequest: target, operation, page view --answer--> Answer --write--> bytes
//! ```
//! `json`, the page view as it is; `tensors`, the Open Inference Protocol over HTTP; `protobuf`,
//! the messages of gRPC.

pub(crate) mod json;
#[cfg(feature = "grpc")]
pub(crate) mod protobuf;
pub(crate) mod tensors;

use axum::body::Bytes;

#[cfg(feature = "grpc")]
use self::protobuf::GrpcMethod;
use crate::answer::{Answer, Operation, ParsedRequest, Target};
use crate::problem::Problem;

/// The format of a request, and the parts of it that are in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON; target and operation are in the path.
    Json(Target, Operation),
    /// Tensors as JSON, and bytes behind that.
    Tensors {
        target: Target,
        /// Bytes of the body that are JSON, if not all of them are.
        header: Option<usize>,
    },
    /// Protocol buffers, of which this is the call.
    #[cfg(feature = "grpc")]
    Grpc(GrpcMethod),
}

impl Protocol {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// If it is not what the protocol has.
    pub(crate) fn read(&self, body: &Bytes) -> Result<ParsedRequest, Problem> {
        match self {
            Protocol::Json(target, operation) => json::read(target, operation, body),
            Protocol::Tensors { target, header } => tensors::read(target, *header, body),
            #[cfg(feature = "grpc")]
            Protocol::Grpc(method) => protobuf::read(*method, body.clone()),
        }
    }

    /// Writes the body of an answer.
    pub(crate) fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        match (self, answer) {
            #[cfg(feature = "grpc")]
            (Protocol::Grpc(_), answer) => protobuf::write(answer),
            (_, Answer::Ranked(scored)) => json::write(scored),
            (_, Answer::Explained(explanation)) => json::write(explanation),
            (_, Answer::Inferred(inferred)) => tensors::write(inferred),
        }
    }
}
