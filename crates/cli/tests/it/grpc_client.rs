//! A client of gRPC: what it sends is made from `crates/serve/proto` alone.

use std::path::Path;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::task::{Context, Poll};

use ams_testing::{hyper, hyper_util, prost, prost_reflect, protox, tokio, tonic};
#[cfg(feature = "tls")]
use ams_testing::{rustls, tokio_rustls};
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
    type Future = std::pin::Pin<Box<dyn Future<Output = Sent> + Send>>;

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
        let files = ["ranking.proto", "open_inference.proto", "health.proto"];
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
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .stringify_64_bit_integers(false)
            .skip_default_fields(false);
        Ok(answer.serialize_with_options(serde_json::value::Serializer, &options).unwrap())
    }

    /// The code of an answer, and what it says.
    pub fn code(&self, call: &str, message: &Value, headers: &[(&str, &str)]) -> (Code, String) {
        match self.ask(call, message, headers) {
            Ok(answer) => (Code::Ok, answer.to_string()),
            Err(status) => (status.code(), status.message().to_owned()),
        }
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
