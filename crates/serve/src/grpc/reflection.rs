//! gRPC's server reflection: the services and their messages, as the files of `proto/` describe
//! them, for clients that have no such files.
//!
//! What is known of a description is no more than names: enough to find the file that has one.

use std::pin::Pin;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Status, Streaming};

use super::call::{Raw, SERVICES};
use crate::http::AppState;
use crate::listen::LongLivedResponse;
use crate::problem::{Kind, Problem};
use crate::protocol::protobuf::messages::{DESCRIPTIONS, decoded, reflection as proto};
use proto::server_reflection_request::MessageRequest;
use proto::server_reflection_response::MessageResponse;

/// Several files: `google.protobuf.FileDescriptorSet`.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The names of a file: a part of `google.protobuf.FileDescriptorProto`.
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<Type>,
    #[prost(message, repeated, tag = "5")]
    enum_type: Vec<Named>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<Type>,
    #[prost(message, repeated, tag = "4")]
    enum_type: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Named>,
}

/// Something of which nothing but the name is needed.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// A file as it is sent, its name, and the full names of all that it describes.
struct Described {
    bytes: Bytes,
    name: String,
    symbols: Vec<String>,
}

static FILES: LazyLock<Vec<Described>> = LazyLock::new(|| {
    let files = Files::decode(DESCRIPTIONS).expect("the descriptions are ours");
    let described = |bytes: Bytes| {
        let file = File::decode(bytes.clone()).expect("the descriptions are ours");
        Described { bytes, symbols: symbols(&file), name: file.name }
    };
    files.file.into_iter().map(described).collect()
});

/// The full names of all that a file describes.
fn symbols(file: &File) -> Vec<String> {
    fn add(within: &str, message: &Type, symbols: &mut Vec<String>) {
        let name = format!("{within}.{}", message.name);
        message.nested_type.iter().for_each(|nested| add(&name, nested, symbols));
        symbols.extend(message.enum_type.iter().map(|of| format!("{name}.{}", of.name)));
        symbols.push(name);
    }
    let (package, mut symbols) = (&file.package, Vec::new());
    file.message_type.iter().for_each(|message| add(package, message, &mut symbols));
    symbols.extend(file.enum_type.iter().map(|of| format!("{package}.{}", of.name)));
    for service in &file.service {
        let name = format!("{package}.{}", service.name);
        symbols.extend(service.method.iter().map(|method| format!("{name}.{}", method.name)));
        symbols.push(name);
    }
    symbols
}

/// Answers one message of the stream.
fn answer(request: proto::ServerReflectionRequest) -> proto::ServerReflectionResponse {
    let file = |found: Option<&Described>, what: &str| match found {
        Some(Described { bytes, .. }) => {
            let file_descriptor_proto = vec![bytes.to_vec()];
            let files = proto::FileDescriptorResponse { file_descriptor_proto };
            MessageResponse::FileDescriptorResponse(files)
        }
        None => error(Code::NotFound, format!("nothing here is called {what:?}")),
    };
    let said = match &request.message_request {
        Some(MessageRequest::ListServices(_)) => {
            let service = |name: &str| proto::ServiceResponse { name: name.to_owned() };
            let service = SERVICES.into_iter().map(service).collect();
            MessageResponse::ListServicesResponse(proto::ListServiceResponse { service })
        }
        Some(MessageRequest::FileByFilename(name)) => {
            file(FILES.iter().find(|file| file.name == *name), name)
        }
        Some(MessageRequest::FileContainingSymbol(symbol)) => {
            file(FILES.iter().find(|file| file.symbols.contains(symbol)), symbol)
        }
        Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
            let base_type_name = name.clone();
            let none = proto::ExtensionNumberResponse { base_type_name, ..Default::default() };
            MessageResponse::AllExtensionNumbersResponse(none)
        }
        Some(MessageRequest::FileContainingExtension(_)) => {
            error(Code::NotFound, "there are no extensions".to_owned())
        }
        None => error(Code::InvalidArgument, "the message asks for nothing".to_owned()),
    };
    proto::ServerReflectionResponse {
        valid_host: request.host.clone(),
        original_request: Some(request),
        message_response: Some(said),
    }
}

fn error(code: Code, what: String) -> MessageResponse {
    let error_message = Problem::new(Kind::NotFound, what).detail;
    MessageResponse::ErrorResponse(proto::ErrorResponse { error_code: code.into(), error_message })
}

/// Answers, one message each.
type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

struct Answering;

impl StreamingService<Bytes> for Answering {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Bytes>>) -> Self::Future {
        let answers = request.into_inner().map(|message| {
            let request = message.and_then(|message| decoded(message).map_err(Status::from))?;
            Ok(answer(request).encode_to_vec().into())
        });
        let answers: Answers = Box::pin(answers);
        std::future::ready(Ok(tonic::Response::new(answers)))
    }
}

pub(super) async fn info(State(server): AppState, request: HttpRequest) -> Response {
    let mut grpc =
        Grpc::new(Raw).max_decoding_message_size(server.body_limits().unauthenticated().most);
    let mut response = grpc.streaming(Answering, request).await.map(axum::body::Body::new);
    response.extensions_mut().insert(LongLivedResponse);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: MessageRequest) -> MessageResponse {
        let message_request = Some(request);
        let request = proto::ServerReflectionRequest { host: "h".to_owned(), message_request };
        let answer = answer(request.clone());
        assert_eq!((&answer.valid_host[..], answer.original_request), ("h", Some(request)));
        answer.message_response.unwrap()
    }

    #[test]
    fn every_service_is_listed_and_described() {
        let MessageResponse::ListServicesResponse(listed) =
            asked(MessageRequest::ListServices(String::new()))
        else {
            panic!("no list")
        };
        let mut services: Vec<String> = listed.service.into_iter().map(|of| of.name).collect();
        services.sort_unstable();
        let mut described: Vec<String> = Vec::new();
        for file in FILES.iter() {
            let names = File::decode(file.bytes.clone()).unwrap();
            described
                .extend(names.service.iter().map(|of| format!("{}.{}", names.package, of.name)));
        }
        described.sort_unstable();
        assert_eq!(services, described);
    }

    #[test]
    fn names_lead_to_their_file() {
        for (symbol, expected) in [
            ("ams.v1.Ranking", Some("ranking.proto")),
            ("ams.v1.Ranking.Score", Some("ranking.proto")),
            ("ams.v1.PageView", Some("ranking.proto")),
            ("grpc.health.v1.HealthCheckResponse.ServingStatus", Some("health.proto")),
            ("inference.ModelInferRequest.InferInputTensor", Some("open_inference.proto")),
            ("ams.v1.Nothing", None),
            ("Ranking", None),
            ("", None),
        ] {
            match (asked(MessageRequest::FileContainingSymbol(symbol.to_owned())), expected) {
                (MessageResponse::FileDescriptorResponse(mut files), Some(expected)) => {
                    let bytes = Bytes::from(files.file_descriptor_proto.remove(0));
                    assert_eq!(File::decode(bytes).unwrap().name, expected, "{symbol}");
                    let by_name = asked(MessageRequest::FileByFilename(expected.to_owned()));
                    assert!(matches!(by_name, MessageResponse::FileDescriptorResponse(_)));
                }
                (MessageResponse::ErrorResponse(error), None) => assert_eq!(error.error_code, 5),
                (said, expected) => panic!("{symbol}: {said:?}, expected {expected:?}"),
            }
        }
    }
}
