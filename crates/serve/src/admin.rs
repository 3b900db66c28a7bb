//! The paths of the admin port: metrics, and orders that change the served versions.
//!
//! ```text
//! GET  /metrics                                        Prometheus
//! GET  /health/live, /health/ready
//! GET  /admin/models                                   the state of every model
//! GET  /admin/overview                                 what the folder's files tell of every model and version
//! GET  /status                                         the same as a page for people, see `pages`
//! POST /admin/poll                                     searches for new versions now, and retries refused ones
//! POST /admin/models/{model}/rollback                  makes the previous version live again
//! POST /admin/models/{model}/unload                    stops serving the model until a version is activated
//! POST /admin/models/{model}/versions/{version}/activate
//! POST /admin/models/{model}/versions/{version}/canary?percent=5
//! POST /admin/models/{model}/versions/{version}/promote[?steps=1,5,25,50&impressions=1000&..]
//! POST /admin/models/{model}/changes                   new pictures and items of the live version, see `edits`
//! PUT  /admin/models/{model}/pictures/{name}           a new picture of it
//! ```
//! Requests of pages of other origins are refused, see `browser`: a change has the header
//! `Content-Type: application/json` or `X-Ams-Admin: 1`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, FROM, USER_AGENT};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};

use crate::access::traced;
use crate::answer::version_of;
use crate::body::Body;
use crate::browser::reject_cross_site;
use crate::edits::{self, Edit};
use crate::exposition;
use crate::http::{
    Accepts, AppState, blocking, health, json_response, no_such_method, no_such_path, of_protocol,
};
use crate::models::{ModelOverview, Models, Refusal, Status};
use crate::pages;
use crate::problem::{Kind, Problem};
use crate::promotion::Promotion;
use crate::protocol::json;
use crate::state::ServerState;
use crate::token::Tokens;

/// The routes of the admin port, with their middleware.
pub(crate) fn router(server: &Arc<ServerState>) -> Router {
    let version = "/admin/models/{model}/versions/{version}";
    Router::new()
        .route("/metrics", get(metrics))
        .route("/admin/models", get(status))
        .route("/admin/overview", get(overview))
        .route("/admin/poll", post(poll))
        .route("/admin/models/{model}/rollback", post(roll_back))
        .route("/admin/models/{model}/unload", post(unload))
        .route("/admin/models/{model}/changes", post(edit))
        .route("/admin/models/{model}/pictures/{*name}", put(picture))
        .route(&format!("{version}/activate"), post(activate))
        .route(&format!("{version}/canary"), post(canary))
        .route(&format!("{version}/promote"), post(promote))
        .route_layer(from_fn_with_state(Arc::clone(server), admitted))
        .merge(pages::status())
        .route_layer(from_fn_with_state(Arc::clone(server), reject_cross_site))
        .merge(health())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(of_protocol))
        .layer(from_fn_with_state(Arc::clone(server), traced))
        .with_state(Arc::clone(server))
}

async fn admitted(
    State(server): AppState,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    server.admin_tokens.check(request.headers())?;
    Ok(next.run(request).await)
}

async fn metrics(State(server): AppState) -> Response {
    server.telemetry.waiting.set(server.pool.waiting() as f64);
    server.traffic.request_memory.set(server.memory.held() as f64);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], exposition::render(&server)).into_response()
}

async fn status(State(server): AppState) -> Response {
    status_response(&server.models)
}

/// What the page of the admin port shows.
#[derive(Serialize)]
struct Overview {
    /// By the files of the folder.
    models: Vec<ModelOverview>,
    /// In this server.
    here: Vec<Status>,
}

async fn overview(State(server): AppState) -> Result<Response, Problem> {
    let models = Arc::clone(&server.models);
    let told = move || {
        let here = models.status();
        let models = models.overview().map_err(|error| Problem::from(Refusal::from(error)))?;
        Ok(Overview { models, here })
    };
    Ok(json_response(json::write(&blocking(told).await?)))
}

fn status_response(models: &Models) -> Response {
    json_response(json::write(&models.status()))
}

/// Changes the served versions on a blocking thread, and responds with the state of all models.
async fn change<R: Send + 'static>(
    server: &Arc<ServerState>,
    change: impl FnOnce(&Models) -> Result<R, Refusal> + Send + 'static,
) -> Result<Response, Problem> {
    let models = Arc::clone(&server.models);
    blocking(move || change(&models).map_err(Problem::from)).await?;
    Ok(status_response(&server.models))
}

async fn poll(State(server): AppState) -> Result<Response, Problem> {
    change(&server, Models::poll_again).await
}

async fn roll_back(
    State(server): AppState,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let by = author(&headers);
    change(&server, move |models| models.roll_back(&model, &by)).await
}

async fn unload(
    State(server): AppState,
    Path(model): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let by = author(&headers);
    change(&server, move |models| models.unload(&model, &by)).await
}

/// Most characters of the name of an author.
const NAME: usize = 200;

/// The author of a decision: the header `From` or else `User-Agent`, with the fingerprint of the
/// token.
fn author(headers: &HeaderMap) -> String {
    let name = [FROM, USER_AGENT].into_iter().find_map(|name| headers.get(name)?.to_str().ok());
    let name: String = name.unwrap_or("somebody").chars().take(NAME).collect();
    match Tokens::fingerprint(headers) {
        Some(token) => format!("{name} (token {token})"),
        None => name,
    }
}

async fn edit(
    State(server): AppState,
    Path(model): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    Accepts::Json.check(request.headers())?;
    let (head, body) = request.into_parts();
    let body = Body::read(server.body_limits(), &head.headers, body).await?;
    let read = move || Ok(Edit::parse(&body.expanded()?)?);
    let edit = blocking(read).await?;
    change(&server, move |models| models.edit(&model, None, |model| edit.changes(model))).await
}

async fn picture(
    State(server): AppState,
    Path((model, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(encoder) = server.pictures.clone() else {
        let what = "the server has no encoder; start it with --pictures";
        return Err(Problem::new(Kind::Conflict, what));
    };
    let (head, body) = request.into_parts();
    let body = Body::read(server.body_limits(), &head.headers, body).await?;
    let body = blocking(move || body.expanded()).await?;
    let changes = move |models: &Models| {
        models.edit(&model, None, |model| edits::picture(model, &*encoder, &name, &body))
    };
    change(&server, changes).await
}

type Version = Result<Path<(String, String)>, axum::extract::rejection::PathRejection>;

fn version_path(version: Version) -> Result<(String, u64), Problem> {
    let Path((model, version)) =
        version.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    Ok((model, version_of(&version)?))
}

async fn activate(
    State(server): AppState,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (model, version) = version_path(version)?;
    let by = author(&headers);
    change(&server, move |models| models.activate(&model, version, &by)).await
}

/// The query parameters of a canary.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CanaryQuery {
    percent: u8,
}

async fn canary(
    State(server): AppState,
    version: Version,
    share: Result<Query<CanaryQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (model, version) = version_path(version)?;
    let Query(CanaryQuery { percent }) =
        share.map_err(|error| Problem::new(Kind::Request, error.body_text()))?;
    let by = author(&headers);
    change(&server, move |models| models.canary(&model, version, percent, &by)).await
}

/// The query parameters of a promotion; those that are absent are as usual.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PromoteQuery {
    /// Percentages, with commas between them.
    steps: Option<String>,
    impressions: Option<u64>,
    calibration: Option<f64>,
    errors: Option<f64>,
}

impl PromoteQuery {
    fn rules(self) -> Result<Promotion, String> {
        let usual = Promotion::default();
        let step = |text: &str| {
            let wrong = |_| format!("steps: {text:?} is no percentage, expected such as 1,5,25,50");
            text.trim().parse::<u8>().map_err(wrong)
        };
        let steps: Option<Result<Vec<u8>, String>> =
            self.steps.map(|steps| steps.split(',').map(step).collect());
        let rules = Promotion {
            steps: steps.transpose()?.unwrap_or(usual.steps),
            impressions: self.impressions.unwrap_or(usual.impressions),
            calibration: self.calibration.unwrap_or(usual.calibration),
            errors: self.errors.unwrap_or(usual.errors),
        };
        rules.check().map(|()| rules)
    }
}

async fn promote(
    State(server): AppState,
    version: Version,
    rules: Result<Query<PromoteQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (model, version) = version_path(version)?;
    let Query(rules) = rules.map_err(|error| Problem::new(Kind::Request, error.body_text()))?;
    let rules = rules.rules().map_err(|what| Problem::new(Kind::Request, what))?;
    let by = author(&headers);
    change(&server, move |models| models.promote(&model, version, rules, &by)).await
}
