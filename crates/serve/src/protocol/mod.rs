//! Protocols: the bytes of a request as what is asked, and an answer as bytes.
//!
//! ```text
//! bytes --read--> Asked: target, operation, page view --answer--> Answer --write--> bytes
//! ```
//! `json`, the page view as it is; `tensors`, the Open Inference Protocol over HTTP; `protobuf`,
//! the messages of gRPC.

pub(crate) mod json;
#[cfg(feature = "grpc")]
pub(crate) mod protobuf;
pub(crate) mod tensors;

use axum::body::Bytes;

#[cfg(feature = "grpc")]
use self::protobuf::Call;
use crate::answer::{Answer, Ask, Asked, Target};
use crate::problem::Problem;

/// What a client speaks, and what its path said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON; the path said who is asked what.
    Json(Target, Ask),
    /// Tensors as JSON, and bytes behind that.
    Tensors {
        /// Who is asked.
        target: Target,
        /// Bytes of the body that are JSON, if not all of them are.
        header: Option<usize>,
    },
    /// Protocol buffers, of which this is the call.
    #[cfg(feature = "grpc")]
    Call(Call),
}

impl Protocol {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// If it is not what the protocol has.
    pub fn read(&self, body: &Bytes) -> Result<Asked, Problem> {
        match self {
            Protocol::Json(target, ask) => json::read(target, ask, body),
            Protocol::Tensors { target, header } => tensors::read(target, *header, body),
            #[cfg(feature = "grpc")]
            Protocol::Call(call) => protobuf::read(*call, body.clone()),
        }
    }

    /// Writes the body of an answer.
    pub fn write(&self, answer: &Answer<'_>) -> Vec<u8> {
        match (self, answer) {
            #[cfg(feature = "grpc")]
            (Protocol::Call(_), answer) => protobuf::write(answer),
            (_, Answer::Ranked(scored)) => json::write(scored),
            (_, Answer::Explained(explanation)) => json::write(explanation),
            (_, Answer::Inferred(inferred)) => tensors::write(inferred),
        }
    }
}
