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
use crate::body::{Body, Held};
use crate::http::Shareds;
use crate::listen::Lasts;
use crate::problem::{Kind, Problem};
use crate::protocol::protobuf::messages::decoded;
use crate::protocol::protobuf::messages::health::health_check_response::ServingStatus;
use crate::protocol::protobuf::messages::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use crate::shared::Shared;

/// How often the status is looked at for those who watch.
const LOOK: Duration = Duration::from_secs(1);

/// The status of a service; an empty name is the whole server.
fn status(shared: &Shared, service: &str) -> ServingStatus {
    match service.is_empty() || SERVICES.contains(&service) {
        true if shared.ready() => ServingStatus::Serving,
        true => ServingStatus::NotServing,
        false => ServingStatus::ServiceUnknown,
    }
}

pub(super) async fn check(State(shared): Shareds, request: HttpRequest) -> Response {
    let answer = |HealthCheckRequest { service }| match status(&shared, &service) {
        ServingStatus::ServiceUnknown => {
            Err(Problem::new(Kind::NotFound, format!("no service {service:?}")))
        }
        status => Ok(HealthCheckResponse { status: status.into() }),
    };
    said(shared.bounds().small(), request, answer).await
}

pub(super) async fn list(State(shared): Shareds, request: HttpRequest) -> Response {
    let answer = |HealthListRequest {}| {
        let names = SERVICES.into_iter().chain([""]);
        let status = |name| HealthCheckResponse { status: status(&shared, name).into() };
        let statuses = names.map(|name| (name.to_owned(), status(name))).collect();
        Ok(HealthListResponse { statuses })
    };
    said(shared.bounds().small(), request, answer).await
}

/// Statuses, one message each.
type Statuses = ReceiverStream<Result<Bytes, Status>>;

struct Watching {
    shared: Arc<Shared>,
    gzip: bool,
    held: Option<Held>,
}

impl ServerStreamingService<Bytes> for Watching {
    type Response = Bytes;
    type ResponseStream = Statuses;
    type Future = std::future::Ready<Result<tonic::Response<Statuses>, Status>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let most = self.shared.bounds().small().most;
        let body = Body::of(request.into_inner(), self.gzip, most, self.held.take());
        let asked: Result<HealthCheckRequest, Problem> = body.expanded().and_then(decoded);
        std::future::ready(asked.map_err(Status::from).map(|HealthCheckRequest { service }| {
            let (sender, receiver) = mpsc::channel(1);
            tokio::spawn(tell(Arc::clone(&self.shared), service, sender));
            tonic::Response::new(ReceiverStream::new(receiver))
        }))
    }
}

pub(super) async fn watch(State(shared): Shareds, request: HttpRequest) -> Response {
    let Framed { request, gzip, held } = match framed(shared.bounds().small(), request).await {
        Ok(framed) => framed,
        Err(problem) => return refused(problem),
    };
    let watching = Watching { shared, gzip, held: Some(held) };
    let answer = Grpc::new(Raw).server_streaming(watching, request).await;
    let mut response = answer.map(axum::body::Body::new);
    response.extensions_mut().insert(Lasts);
    response
}

/// Sends the status whenever it is another one, until nobody listens or the server ends.
async fn tell(shared: Arc<Shared>, service: String, sender: mpsc::Sender<Result<Bytes, Status>>) {
    let mut last = None;
    loop {
        let stopping = shared.stopping.load(Ordering::Relaxed);
        let now = status(&shared, &service);
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
