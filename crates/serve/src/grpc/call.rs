//! Calls: their services' names, and how messages come and go.

use std::pin::Pin;

use axum::body::Bytes;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, UnaryService};

use super::compression;
use crate::body::{Body, BodyLimits, MemoryShare, bytes};
use crate::problem::Problem;
use crate::protocol::protobuf::messages::decoded;

/// The services, as their clients call them.
pub(super) const RANKING: &str = "ams.v1.Ranking";
pub(super) const INFERENCE: &str = "inference.GRPCInferenceService";
pub(super) const HEALTH: &str = "grpc.health.v1.Health";
pub(super) const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
pub(super) const SERVICES: [&str; 4] = [RANKING, INFERENCE, HEALTH, REFLECTION];

/// The answer to a call that is refused.
pub(super) fn refused(problem: Problem) -> Response {
    Status::from(problem).into_http::<axum::body::Body>()
}

/// A message as its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The handler of a unary call.
struct Answering<F> {
    /// The handler and the memory of its message; taken by the one call.
    answer: Option<(F, MemoryShare)>,
    gzip: bool,
    most: usize,
}

impl<F, A> UnaryService<Bytes> for Answering<F>
where
    F: FnOnce(Body) -> A,
    A: Future<Output = Result<Vec<u8>, Problem>> + Send + 'static,
{
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (message, gzip, most) = (request.into_inner(), self.gzip, self.most);
        let once = self.answer.take();
        let answer = once.map(|(answer, held)| answer(Body::of(message, gzip, most, Some(held))));
        Box::pin(async move {
            let answer = answer.ok_or_else(|| Status::internal("a call is answered once"))?;
            Ok(tonic::Response::new(answer.await?.into()))
        })
    }
}

/// Reads a call's message within the limits, and sends what `answer` makes of it.
pub(super) async fn unary<F, A>(limits: BodyLimits<'_>, request: HttpRequest, answer: F) -> Response
where
    F: FnOnce(Body) -> A,
    A: Future<Output = Result<Vec<u8>, Problem>> + Send + 'static,
{
    let Framed { request, gzip, held } = match framed(limits, request).await {
        Ok(framed) => framed,
        Err(problem) => return refused(problem),
    };
    let most = limits.most;
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(most);
    let answering = Answering { answer: Some((answer, held)), gzip, most };
    grpc.unary(answering, request).await.map(axum::body::Body::new)
}

/// A call whose message has come.
pub(super) struct Framed {
    /// The message, in its frame.
    pub request: HttpRequest,
    /// Whether it is gzip.
    pub gzip: bool,
    /// Counts the message until it is answered.
    pub held: MemoryShare,
}

/// Reads the one message of a call.
pub(super) async fn framed(
    limits: BodyLimits<'_>,
    request: HttpRequest,
) -> Result<Framed, Problem> {
    let (mut head, body) = request.into_parts();
    let (body, held) = bytes(limits, &head.headers, body).await?;
    let (body, gzip) = compression::taken_off(&mut head.headers, body)?;
    Ok(Framed { request: HttpRequest::from_parts(head, body.into()), gzip, held })
}

/// Answers at once what needs no computing.
pub(super) async fn said<Q: Message + Default, A: Message>(
    limits: BodyLimits<'_>,
    request: HttpRequest,
    answer: impl FnOnce(Q) -> Result<A, Problem>,
) -> Response {
    let answer = |message: Body| {
        let message = message.expanded().and_then(decoded);
        let answer = message.and_then(answer).map(|answer| answer.encode_to_vec());
        std::future::ready(answer)
    };
    unary(limits, request, answer).await
}
