//! A client of gRPC: what it sends is made from `crates/serve/proto` alone.

use std::io::Write;
use std::path::Path;
use std::pin::Pin;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll};

use ams_testing::{hyper, hyper_util, prost, prost_reflect, protox, tokio, tonic};
#[cfg(feature = "tls")]
use ams_testing::{rustls, tokio_rustls};
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::{Body, Bytes, Frame};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
#[cfg(feature = "tls")]
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tonic::client::{Grpc, GrpcService};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::serve::Serving;

/// What a call comes to.
pub type Said = Result<Value, Status>;

/// A client of one server, over one connection. Messages are JSON.
pub struct Client {
    pub runtime: Runtime,
    pub connection: Connection,
    pub descriptions: DescriptorPool,
    token: Option<String>,
}

/// What requests are sent through.
#[derive(Clone)]
pub struct Connection(SendRequest<tonic::body::Body>);

type Sent = Result<hyper::Response<hyper::body::Incoming>, hyper::Error>;

impl GrpcService<tonic::body::Body> for Connection {
    type ResponseBody = hyper::body::Incoming;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Sent> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Messages of which only the descriptions are known.
#[derive(Clone)]
pub struct Described(pub MessageDescriptor);

impl Codec for Described {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Described;
    type Decoder = Described;

    fn encoder(&mut self) -> Described {
        self.clone()
    }

    fn decoder(&mut self) -> Described {
        self.clone()
    }
}

impl Encoder for Described {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Described {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), from);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Client {
    pub fn new(serving: &Serving) -> Client {
        Client::connected(&serving.address, async |stream| handshake(TokioIo::new(stream)).await)
    }

    /// Likewise, encrypted.
    #[cfg(feature = "tls")]
    pub fn encrypted(serving: &Serving, mut config: rustls::ClientConfig) -> Client {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        Client::connected(&serving.address, async |stream| {
            handshake(TokioIo::new(connector.connect(name, stream).await.unwrap())).await
        })
    }

    pub fn with_token(self, token: &str) -> Client {
        Client { token: Some(format!("Bearer {token}")), ..self }
    }

    fn connected(
        address: &str,
        greet: impl AsyncFnOnce(TcpStream) -> SendRequest<tonic::body::Body>,
    ) -> Client {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let host = address.split("//").nth(1).unwrap().to_owned();
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(&host).await.unwrap();
            greet(stream).await
        });
        let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../serve/proto");
        let files = ["ranking.proto", "open_inference.proto", "health.proto", "reflection.proto"];
        let described = protox::compile(files.map(|file| proto.join(file)), [&proto]).unwrap();
        let descriptions = DescriptorPool::from_file_descriptor_set(described).unwrap();
        Client { runtime, connection: Connection(sender), descriptions, token: None }
    }

    /// Calls `service/method` with a message, and headers.
    pub fn ask(&self, call: &str, message: &Value, headers: &[(&str, &str)]) -> Said {
        let (service, method) = call.split_once('/').unwrap();
        let known = self.descriptions.get_service_by_name(service).unwrap();
        let method = known.methods().find(|known| known.name() == method).expect("a method");
        let message = DynamicMessage::deserialize(method.input(), message).unwrap();
        let mut request = Request::new(message);
        let token = self.token.iter().map(|token| ("authorization", &token[..]));
        for (name, value) in headers.iter().copied().chain(token) {
            let name: tonic::metadata::MetadataKey<_> = name.parse().unwrap();
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        let path = format!("/{call}").parse().unwrap();
        let origin = "http://127.0.0.1".parse().unwrap();
        let mut grpc = Grpc::with_origin(self.connection.clone(), origin);
        let output = Described(method.output());
        let answer = self.runtime.block_on(async {
            grpc.ready().await.unwrap();
            if !method.is_server_streaming() {
                return grpc.unary(request, path, output).await.map(tonic::Response::into_inner);
            }
            let mut messages = grpc.server_streaming(request, path, output).await?.into_inner();
            messages.message().await?.ok_or_else(|| Status::internal("no message"))
        })?;
        Ok(said(&answer))
    }

    /// Calls `service/method` with a message that is marked as compressed by `encoding`, and is so
    /// by gzip.
    pub fn compressed(&self, call: &str, message: &Value, encoding: &str) -> (Code, Value) {
        let (service, method) = call.split_once('/').unwrap();
        let known = self.descriptions.get_service_by_name(service).unwrap();
        let method = known.methods().find(|known| known.name() == method).expect("a method");
        let message = DynamicMessage::deserialize(method.input(), message).unwrap();
        let mut encoder = GzEncoder::new(vec![1, 0, 0, 0, 0], Compression::default());
        encoder.write_all(&message.encode_to_vec()).unwrap();
        let mut frame = encoder.finish().unwrap();
        let length = frame.len() as u32 - 5;
        frame[1..5].copy_from_slice(&length.to_be_bytes());
        let request = hyper::Request::post(format!("http://127.0.0.1/{call}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding)
            .body(tonic::body::Body::new(Once(Some(frame.into()))))
            .unwrap();
        let (head, body, trailers) = self.runtime.block_on(async {
            let (head, mut body) =
                self.connection.clone().0.send_request(request).await.unwrap().into_parts();
            let (mut bytes, mut trailers) = (Vec::new(), head.headers.clone());
            while let Some(frame) =
                std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                match frame.unwrap().into_data() {
                    Ok(data) => bytes.extend(data),
                    Err(frame) => trailers.extend(frame.into_trailers().unwrap()),
                }
            }
            (head, bytes, trailers)
        });
        assert_eq!(head.headers["grpc-accept-encoding"], "gzip,identity");
        let status = Status::from_header_map(&trailers).unwrap();
        if status.code() != Code::Ok {
            return (status.code(), Value::String(status.message().to_owned()));
        }
        let answer = DynamicMessage::decode(method.output(), &body[5..]).unwrap();
        (Code::Ok, said(&answer))
    }

    /// The code of an answer, and what it says.
    pub fn code(&self, call: &str, message: &Value, headers: &[(&str, &str)]) -> (Code, String) {
        match self.ask(call, message, headers) {
            Ok(answer) => (Code::Ok, answer.to_string()),
            Err(status) => (status.code(), status.message().to_owned()),
        }
    }
}

/// A message as JSON.
fn said(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// A body of one piece.
struct Once(Option<Bytes>);

impl Body for Once {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

async fn handshake<S>(stream: TokioIo<S>) -> SendRequest<tonic::body::Body>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(connection);
    sender
}

/// What `connections` cost that ask for a lot without a token, and take nothing: calls of gRPC with
/// large bodies, and answers that nobody reads.
pub fn flood(address: &str, connections: usize) {
    let host = address.split("//").nth(1).unwrap().to_owned();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let large = Bytes::from(vec![0; 4 << 20]);
    runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(&host).await.unwrap();
            let sender = handshake(TokioIo::new(stream)).await;
            for stream in 0..200 {
                let (mut sender, large) = (sender.clone(), large.clone());
                calls.spawn(async move {
                    let request = match stream % 2 {
                        0 => hyper::Request::post("http://127.0.0.1/grpc.health.v1.Health/Check")
                            .header("content-type", "application/grpc")
                            .body(tonic::body::Body::new(Once(Some(large)))),
                        _ => hyper::Request::get("http://127.0.0.1/openapi.json")
                            .body(tonic::body::Body::empty()),
                    };
                    // Whether it is answered or refused: an answer's body is left where it is.
                    let _ = sender.ready().await;
                    sender.send_request(request.unwrap()).await.ok()
                });
            }
        }
        calls.join_all().await
    });
}
