//! gRPC's health service: whether requests should be sent here, now or whenever that changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::server::{Grpc, ServerStreamingService};

use super::call::{Framed, Raw, SERVICES, framed, refused, said};
use crate::body::{Body, MemoryShare};
use crate::http::AppState;
use crate::listen::LongLivedResponse;
use crate::problem::{Kind, Problem};
use crate::protocol::protobuf::messages::decoded;
use crate::protocol::protobuf::messages::health::health_check_response::ServingStatus;
use crate::protocol::protobuf::messages::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use crate::state::ServerState;

/// Pause between two checks of the status for watches.
const LOOK: Duration = Duration::from_secs(1);

/// The status of a service; an empty name is the whole server.
fn status(server: &ServerState, service: &str) -> ServingStatus {
    if !service.is_empty() && !SERVICES.contains(&service) {
        ServingStatus::ServiceUnknown
    } else if server.ready() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

pub(super) async fn check(State(server): AppState, request: HttpRequest) -> Response {
    let answer = |HealthCheckRequest { service }| match status(&server, &service) {
        ServingStatus::ServiceUnknown => {
            Err(Problem::new(Kind::NotFound, format!("no service {service:?}")))
        }
        status => Ok(HealthCheckResponse { status: status.into() }),
    };
    said(server.body_limits().unauthenticated(), request, answer).await
}

pub(super) async fn list(State(server): AppState, request: HttpRequest) -> Response {
    let answer = |HealthListRequest {}| {
        let names = SERVICES.into_iter().chain([""]);
        let status = |name| HealthCheckResponse { status: status(&server, name).into() };
        let statuses = names.map(|name| (name.to_owned(), status(name))).collect();
        Ok(HealthListResponse { statuses })
    };
    said(server.body_limits().unauthenticated(), request, answer).await
}

/// Statuses, one message each.
type Statuses = ReceiverStream<Result<Bytes, Status>>;

struct Watching {
    server: Arc<ServerState>,
    gzip: bool,
    held: Option<MemoryShare>,
}

impl ServerStreamingService<Bytes> for Watching {
    type Response = Bytes;
    type ResponseStream = Statuses;
    type Future = std::future::Ready<Result<tonic::Response<Statuses>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let most = self.server.body_limits().unauthenticated().most;
        let body = Body::of(request.into_inner(), self.gzip, most, self.held.take());
        let asked: Result<HealthCheckRequest, Problem> = body.expanded().and_then(decoded);
        std::future::ready(asked.map_err(Status::from).map(|HealthCheckRequest { service }| {
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(tell(Arc::clone(&self.server), service, sender));
            tonic::Response::new(ReceiverStream::new(receiver))
        }))
    }
}

pub(super) async fn watch(State(server): AppState, request: HttpRequest) -> Response {
    let Framed { request, gzip, held } =
        match framed(server.body_limits().unauthenticated(), request).await {
            Ok(framed) => framed,
            Err(problem) => return refused(problem),
        };
    let watching = Watching { server, gzip, held: Some(held) };
    let answer = Grpc::new(Raw).server_streaming(watching, request).await;
    let mut response = answer.map(axum::body::Body::new);
    response.extensions_mut().insert(LongLivedResponse);
    response
}

/// Sends the status whenever it is another one, until nobody listens or the server ends.
async fn tell(
    server: Arc<ServerState>,
    service: String,
    sender: mpsc::Sender<Result<Bytes, Status>>,
) {
    let mut last = None;
    loop {
        let stopping = server.stopping.load(Ordering::Relaxed);
        let now = status(&server, &service);
        if last.replace(now) != Some(now) {
            let message = HealthCheckResponse { status: now.into() }.encode_to_vec();
            if sender.send(Ok(message.into())).await.is_err() {
                return;
            }
        }
        // Whoever watches has been told, and must not keep the server.
        if stopping {
            return;
        }
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
