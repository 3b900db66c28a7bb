//! The paths of the port that answers page views.
//!
//! ```text
//! POST /v1/models/{model}[/versions/{version}]/score
//! POST /v1/models/{model}[/versions/{version}]/prerank
//! POST /v1/models/{model}[/versions/{version}]/page?pre_rank=MODEL[&keep=400]
//! POST /v1/models/{model}[/versions/{version}]/explain
//! POST /v1/models/{model}[/versions/{version}]/similar
//! POST /v1/models/{model}/outcomes                      clicks on what was answered, see `outcomes`
//! GET  /v1/models/{model}[/versions/{version}]          the model card
//! GET  /v1/models                                       names and live versions
//! POST /v2/models/{model}[/versions/{version}]/infer   the Open Inference Protocol, see `inference`
//! GET  /v2/models/{model}[/versions/{version}][/ready], /v2, /v2/health/live, /v2/health/ready
//! POST /v2/repository/index                             the versions in memory, as Triton lists them
//! GET  /health/live, /health/ready, /openapi.json
//! POST /ams.v1.Ranking/..                               gRPC, and two more of its services, see `grpc`
//! POST /v1/nothing                                      with --bench-endpoint: reads a body and scores nothing
//! GET  /docs, /demo                                     pages for people, see `pages`
//! ```
//! Pages of other origins may send requests if `--cors-origin` names them, see `browser`.

use std::sync::Arc;
use std::time::Instant;

use ams_bundle::SimilarRequest;
use axum::extract::{MatchedPath, Path, Query, Request as HttpRequest, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::access::traced;
use crate::answer::{self, Operation, Target, version_of};
use crate::body::{Body, bytes};
use crate::browser::cors_headers;
use crate::cors::Cors;
use crate::http::{
    Accepts, AppState, admitted, blocking, health, json_response, no_such_method, no_such_path,
    of_protocol,
};
use crate::models::{Author, LoadedVersion};
use crate::outcomes::Received;
use crate::problem::{Kind, Problem};
use crate::promotion::PromotionStatus;
use crate::protocol::{Protocol, json};
use crate::request::{Question, Request, RequestKind};
use crate::state::ServerState;
use crate::{grpc, inference, outcomes, pages};

/// The routes of the port for page views, with their middleware.
pub(crate) fn router(server: &Arc<ServerState>) -> Router {
    let mut router = Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{model}/outcomes", post(outcomes));
    if server.bench_endpoint {
        router = router.route("/v1/nothing", post(nothing));
    }
    for model in ["/v1/models/{model}", "/v1/models/{model}/versions/{version}"] {
        router = router
            .route(model, get(card))
            .route(&format!("{model}/score"), post(score))
            .route(&format!("{model}/prerank"), post(pre_rank))
            .route(&format!("{model}/page"), post(page))
            .route(&format!("{model}/explain"), post(explain))
            .route(&format!("{model}/similar"), post(similar));
    }
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router = router
            .route(model, get(describe))
            .route(&format!("{model}/ready"), get(model_ready))
            .route(&format!("{model}/infer"), post(infer));
    }
    router = router.route("/v2/repository/index", post(index));
    let guarded = router.route_layer(from_fn_with_state(Arc::clone(server), admitted));
    let router = guarded
        .merge(pages::router(server, server.demo.as_ref()))
        .merge(health())
        .merge(grpc::router(server))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(of_protocol))
        .layer(from_fn_with_state(Arc::clone(server), counted));
    let router = if server.cors == Cors::default() {
        router
    } else {
        router.layer(from_fn_with_state(Arc::clone(server), cors_headers))
    };
    router.layer(from_fn_with_state(Arc::clone(server), traced)).with_state(Arc::clone(server))
}

/// Counts responses by route, not by path: clients choose paths, so their number has no limit.
async fn counted(State(server): AppState, request: HttpRequest, next: Next) -> Response {
    let begin = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = grpc::status_of(&response);
    server.telemetry.answered(route, status, begin.elapsed().as_secs_f64());
    response
}

/// The parameters of a path: model, and version if the path has one.
#[derive(Debug, Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

impl ModelPath {
    fn version(&self) -> Result<Option<u64>, Problem> {
        self.version.as_deref().map(version_of).transpose()
    }
}

/// The query parameters of `page`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    pre_rank: String,
    #[serde(default, deserialize_with = "or_empty")]
    keep: Option<usize>,
}

/// Reads a number; an empty value means that the parameter is absent.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| de::Error::custom(format!("`{text}` is no whole number"));
    text.parse().map(Some).map_err(wrong)
}

type RouteResult = Result<Response, Problem>;
type PathResult = Result<Path<ModelPath>, axum::extract::rejection::PathRejection>;
type PageQueryResult = Result<Query<PageQuery>, axum::extract::rejection::QueryRejection>;

/// A page view in JSON, for `operation`.
fn page_view(operation: Operation) -> impl FnOnce(Target) -> RequestKind {
    |target| RequestKind::PageView(Protocol::Json(target, operation))
}

async fn score(state: AppState, path: PathResult, request: HttpRequest) -> RouteResult {
    answer(state, path, page_view(Operation::Score), Accepts::Json, request).await
}

async fn pre_rank(state: AppState, path: PathResult, request: HttpRequest) -> RouteResult {
    answer(state, path, page_view(Operation::PreRank), Accepts::Json, request).await
}

async fn explain(state: AppState, path: PathResult, request: HttpRequest) -> RouteResult {
    answer(state, path, page_view(Operation::Explain), Accepts::Json, request).await
}

async fn similar(state: AppState, path: PathResult, request: HttpRequest) -> RouteResult {
    let question: Question = |snapshot, Target { model, version }, body| {
        let wanted = SimilarRequest::parse(body)?;
        let loaded = snapshot.find(model, *version, None)?;
        Ok(json::write(&answer::similar(&loaded, &wanted)?))
    };
    let kind = |target| RequestKind::Question(target, question);
    answer(state, path, kind, Accepts::Json, request).await
}

async fn page(
    state: AppState,
    path: PathResult,
    query: PageQueryResult,
    request: HttpRequest,
) -> RouteResult {
    let Query(PageQuery { pre_rank, keep }) =
        query.map_err(|error| Problem::new(Kind::Request, error.body_text()))?;
    if pre_rank.is_empty() {
        let what = "pre_rank is empty, expected the name of a pre-rank model";
        return Err(Problem::new(Kind::Request, what));
    }
    let page = Operation::Page { pre_rank, keep: keep.unwrap_or(answer::KEEP) };
    answer(state, path, page_view(page), Accepts::Json, request).await
}

async fn describe(State(server): AppState, path: PathResult) -> RouteResult {
    let Path(path) = path.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    let loaded = server.models.now().find(&path.model, path.version()?, None)?;
    Ok(Json(inference::describe(&loaded.model)).into_response())
}

async fn model_ready(State(server): AppState, path: PathResult) -> RouteResult {
    let Path(path) = path.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    server.models.now().find(&path.model, path.version()?, None)?;
    Ok("ready\n".into_response())
}

/// How many bytes of a body are JSON, in the binary tensor data extension.
const HEADER_LENGTH: &str = "inference-header-content-length";

async fn infer(state: AppState, path: PathResult, request: HttpRequest) -> RouteResult {
    let header = request.headers().get(HEADER_LENGTH).map(|value| value.to_str());
    let header = match header {
        None => None,
        Some(value) => {
            Some(value.ok().and_then(|value| value.trim().parse().ok()).ok_or_else(|| {
                let what = "Inference-Header-Content-Length: expected a whole number";
                Problem::new(Kind::Request, what)
            })?)
        }
    };
    let tensors = |target| RequestKind::PageView(Protocol::Tensors { target, header });
    // Triton's client sends application/octet-stream, or no content type.
    answer(state, path, tensors, Accepts::Anything, request).await
}

/// Reads the body and answers the request on a compute thread.
async fn answer(
    State(server): AppState,
    path: PathResult,
    kind: impl FnOnce(Target) -> RequestKind,
    accepts: Accepts,
    request: HttpRequest,
) -> RouteResult {
    let received = Instant::now();
    let Path(path) = path.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    let version = path.version()?;
    accepts.check(request.headers())?;
    let kind = kind(Target { model: path.model, version });
    let (head, body) = request.into_parts();
    let (snapshot, deadline) = (server.models.now(), server.limits.deadline);
    let limits = server.body_limits().within(deadline);
    let body = Body::read(limits, &head.headers, body).await?;
    let request = Request { snapshot, kind, body, received, deadline };
    Ok(json_response(server.answer(request).await?))
}

async fn outcomes(State(server): AppState, path: PathResult, request: HttpRequest) -> RouteResult {
    let Path(path) = path.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    Accepts::Json.check(request.headers())?;
    let (head, body) = request.into_parts();
    let body = Body::read(server.body_limits(), &head.headers, body).await?;
    let models = Arc::clone(&server.models);
    let count = move || {
        let outcomes = outcomes::parse(&body.expanded()?)?;
        let all = outcomes.len() as u64;
        let left_out = models.count_outcomes(&path.model, outcomes)?;
        Ok(Received { counted: all - left_out, left_out })
    };
    Ok(json_response(json::write(&blocking(count).await?)))
}

async fn nothing(State(server): AppState, request: HttpRequest) -> RouteResult {
    let (head, body) = request.into_parts();
    let (body, _held) = bytes(server.body_limits(), &head.headers, body).await?;
    Ok(json_response(format!("{{\"bytes\":{}}}", body.len()).into_bytes()))
}

/// A model in the list.
#[derive(Serialize)]
struct ModelEntry<'a> {
    model: &'a str,
    version: Option<u64>,
}

async fn list(State(server): AppState) -> Response {
    let now = server.models.now();
    let listed = now
        .live()
        .map(|(model, live)| ModelEntry { model, version: live.map(|live| live.model.version()) });
    Json(listed.collect::<Vec<_>>()).into_response()
}

/// The body of a request for the index of versions, as Triton's clients send it. Its key for a
/// repository is ignored: a server has one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IndexQuery {
    /// Whether to list only versions in memory.
    ready: bool,
}

/// A version, as Triton lists it.
#[derive(Serialize)]
struct IndexEntry {
    name: String,
    version: String,
    state: &'static str,
    reason: String,
}

async fn index(State(server): AppState, request: HttpRequest) -> RouteResult {
    let (head, body) = request.into_parts();
    let (body, _held) = bytes(server.body_limits(), &head.headers, body).await?;
    let wanted = match body.trim_ascii() {
        // Triton's client sends an empty body.
        b"" => IndexQuery::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            Problem::new(
                Kind::Request,
                format!("request: {error}, expected for example {{\"ready\": true}}"),
            )
        })?,
    };
    let mut listed = Vec::new();
    for status in server.models.now().status() {
        let name = &status.model;
        let one = |version: u64, state, reason: &str| IndexEntry {
            name: name.clone(),
            version: version.to_string(),
            state,
            reason: reason.to_owned(),
        };
        listed.extend(status.loaded.iter().map(|&version| one(version, "READY", "")));
        if !wanted.ready {
            let refused = status.refused.iter();
            listed.extend(refused.map(|(&version, reason)| one(version, "UNAVAILABLE", reason)));
        }
    }
    Ok(Json(listed).into_response())
}

/// The model card: the manifest of a bundle, and its state.
#[derive(Serialize)]
struct Card<'a> {
    model: &'a str,
    version: u64,
    hash: &'a str,
    since: u64,
    deltas: u64,
    #[serde(flatten)]
    meta: &'a ams_bundle::BundleMeta,
    #[serde(skip_serializing_if = "Option::is_none")]
    calibration: Option<&'a ams_bundle::Calibration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promotion: Option<PromotionStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<&'a Author>,
    samples: &'a [ams_bundle::PageView],
}

async fn card(State(server): AppState, path: PathResult) -> RouteResult {
    let Path(path) = path.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    let now = server.models.now();
    let loaded = now.find(&path.model, path.version()?, None)?;
    let LoadedVersion { model, since, .. } = &*loaded;
    let promotion = server.models.promotion(&path.model);
    let card = Card {
        model: model.name(),
        version: model.version(),
        hash: model.hash(),
        since: *since,
        deltas: model.deltas(),
        meta: model.meta(),
        calibration: model.calibration(),
        decision: model.decision(),
        promotion: promotion.filter(|of| of.version == model.version()),
        withdrawn: now.withdrawn(&path.model, model.version()),
        samples: model.samples(),
    };
    Ok(Json(card).into_response())
}

#[cfg(test)]
mod tests {
    use crate::http::OPENAPI;
    use ams_bundle::{PageView, SimilarRequest};
    use serde_json::Value;

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(|key| &key[..]).collect();
        keys.sort_unstable();
        keys
    }

    /// The description is written by hand; this holds it to what requests and answers have.
    #[test]
    fn the_description_has_the_keys_of_requests() {
        let described: Value = serde_json::from_str(OPENAPI).unwrap();
        let properties =
            |name: &str| described["components"]["schemas"][name]["properties"].clone();
        let json = br#"{"user": {"id": 1, "features": {"a": 1}, "behaviors": {"item": [1], "time": [1], "features": {"a": [1]}}},
            "time": 1, "context": {"a": 1},
            "candidates": {"item": [1], "bid": [1], "features": {"a": [1]}},
            "options": {"top_k": 1, "deadline_ms": 1}}"#;
        let page = serde_json::to_value(PageView::parse(json).unwrap()).unwrap();
        for (name, value) in [
            ("PageView", &page),
            ("User", &page["user"]),
            ("Behaviors", &page["user"]["behaviors"]),
            ("Candidates", &page["candidates"]),
            ("Options", &page["options"]),
        ] {
            assert_eq!(keys(&properties(name)), keys(value), "{name}");
        }
        let ranked = ams_bundle::Ranked {
            items: vec![],
            ctr: vec![],
            ecpm: vec![],
            missing: Default::default(),
        };
        let scored = ams_bundle::Scored { model: "m", version: 1, ranked };
        let scored = serde_json::to_value(scored).unwrap();
        assert_eq!(keys(&properties("Scored")), keys(&scored));
        assert_eq!(keys(&properties("Missing")), keys(&scored["missing"]));
        let attention =
            ams_bundle::Attention { over: String::new(), queries: vec![], weights: vec![] };
        let attention = serde_json::to_value(attention).unwrap();
        assert_eq!(keys(&properties("Attention")), keys(&attention));
        let similar = SimilarRequest {
            item: Some("1".into()),
            picture: Some("".into()),
            tower: Some(String::new()),
            top_k: Some(1),
        };
        assert_eq!(keys(&properties("Wanted")), keys(&serde_json::to_value(similar).unwrap()));
    }
}
