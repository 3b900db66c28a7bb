//! The paths of the port that watches and changes what is served.
//!
//! ```text
//! GET  /metrics                                        Prometheus
//! GET  /health/live, /health/ready
//! GET  /admin/models                                   the state of every model
//! POST /admin/poll                                     looks for new versions now, and tries again what was refused
//! POST /admin/models/{model}/rollback                  the version before is live again
//! POST /admin/models/{model}/unload                    it is served no more, until a version is activated
//! POST /admin/models/{model}/versions/{version}/activate
//! POST /admin/models/{model}/versions/{version}/canary?percent=5
//! POST /admin/models/{model}/changes                   new pictures and items of the live version, see `edits`
//! PUT  /admin/models/{model}/pictures/{name}           a new picture of it
//! ```
//! Pages of other hosts get nothing here, see `browser`: a change has the header `Content-Type:
//! application/json` or `X-Ams-Admin: 1`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, FROM, USER_AGENT};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::Deserialize;

use crate::access::traced;
use crate::answer::version_of;
use crate::body::Body;
use crate::browser::own_pages_only;
use crate::edits::{self, Edit};
use crate::exposition;
use crate::http::{
    Accepts, Shareds, health, json_response, no_such_method, no_such_path, of_protocol,
};
use crate::models::{Models, Refusal};
use crate::problem::{Kind, Problem};
use crate::protocol::json;
use crate::shared::Shared;
use crate::token::Tokens;

/// The paths.
pub fn router(shared: &Arc<Shared>) -> Router {
    let version = "/admin/models/{model}/versions/{version}";
    Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/models", get(status))
        .route("/admin/poll", post(poll))
        .route("/admin/models/{model}/rollback", post(roll_back))
        .route("/admin/models/{model}/unload", post(unload))
        .route("/admin/models/{model}/changes", post(edit))
        .route("/admin/models/{model}/pictures/{*name}", put(picture))
        .route(&format!("{version}/activate"), post(activate))
        .route(&format!("{version}/canary"), post(canary))
        .route_layer(from_fn_with_state(Arc::clone(shared), admitted))
        .route_layer(from_fn_with_state(Arc::clone(shared), own_pages_only))
        .merge(health())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(of_protocol))
        .layer(from_fn_with_state(Arc::clone(shared), traced))
        .with_state(Arc::clone(shared))
}

async fn admitted(
    State(shared): Shareds,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    shared.admin_tokens.check(request.headers())?;
    Ok(next.run(request).await)
}

async fn metrics(State(shared): Shareds) -> Response {
    shared.telemetry.waiting.set(shared.pool.waiting() as f64);
    shared.traffic.request_memory.set(shared.memory.held() as f64);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], exposition::render(&shared)).into_response()
}

async fn status(State(shared): Shareds) -> Response {
    said(&shared.models)
}

fn said(models: &Models) -> Response {
    json_response(json::write(&models.now().status()))
}

/// Changes what is served, away from the threads that talk to clients, and says what came of it.
async fn change<R: Send + 'static>(
    shared: &Arc<Shared>,
    change: impl FnOnce(&Models) -> Result<R, Refusal> + Send + 'static,
) -> Result<Response, Problem> {
    let models = Arc::clone(&shared.models);
    away(move || change(&models).map_err(Problem::from)).await?;
    Ok(said(&shared.models))
}

/// Does something away from the threads that talk to clients.
async fn away<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, Problem> + Send + 'static,
) -> Result<R, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Problem::new(Kind::Internal, "a defect of the server; its log says more")),
    }
}

async fn poll(State(shared): Shareds) -> Result<Response, Problem> {
    change(&shared, Models::poll_again).await
}

async fn roll_back(
    State(shared): Shareds,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let by = who(&headers);
    change(&shared, move |models| models.roll_back(&model, &by)).await
}

async fn unload(
    State(shared): Shareds,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let by = who(&headers);
    change(&shared, move |models| models.unload(&model, &by)).await
}

/// Most characters that are kept of who somebody says to be.
const NAME: usize = 200;

/// Who decides something, as far as it says so: the header `From`, or the program that asked; and
/// which token it had.
fn who(headers: &HeaderMap) -> String {
    let said = [FROM, USER_AGENT].into_iter().find_map(|name| headers.get(name)?.to_str().ok());
    let said: String = said.unwrap_or("somebody").chars().take(NAME).collect();
    match Tokens::mark(headers) {
        Some(mark) => format!("{said} (token {mark})"),
        None => said,
    }
}

async fn edit(
    State(shared): Shareds,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    Accepts::Json.check(request.headers())?;
    let (head, body) = request.into_parts();
    let body = Body::read(shared.bounds(), &head.headers, body).await?;
    let read = move || Ok(Edit::parse(&body.expanded()?)?);
    let edit = away(read).await?;
    change(&shared, move |models| models.edit(&model, None, |model| edit.changes(model))).await
}

async fn picture(
    State(shared): Shareds,
    Path((model, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(encoder) = shared.pictures.clone() else {
        let what = "the server was started without --pictures: it has no encoder";
        return Err(Problem::new(Kind::Conflict, what));
    };
    let (head, body) = request.into_parts();
    let body = Body::read(shared.bounds(), &head.headers, body).await?;
    let body = away(move || body.expanded()).await?;
    let changes = move |models: &Models| {
        models.edit(&model, None, |model| edits::picture(model, &*encoder, &name, &body))
    };
    change(&shared, changes).await
}

type Version = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;

fn place(version: Version) -> Result<(String, u64), Problem> {
    let Path((model, version)) =
        version.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    Ok((model, version_of(&version)?))
}

async fn activate(
    State(shared): Shareds,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (model, version) = place(version)?;
    let by = who(&headers);
    change(&shared, move |models| models.activate(&model, version, &by)).await
}

/// How many users get a version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    percent: u8,
}

async fn canary(
    State(shared): Shareds,
    version: Version,
    share: Result<Query<Share>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (model, version) = place(version)?;
    let Query(Share { percent }) =
        share.map_err(|error| Problem::new(Kind::Request, error.body_text()))?;
    let by = who(&headers);
    change(&shared, move |models| models.canary(&model, version, percent, &by)).await
}
