//! The paths of the port that answers page views.
//!
//! ```text
//! POST /v1/models/{model}[/versions/{version}]/score
//! POST /v1/models/{model}[/versions/{version}]/prerank
//! POST /v1/models/{model}[/versions/{version}]/page?pre_rank=MODEL[&keep=400]
//! POST /v1/models/{model}[/versions/{version}]/explain
//! POST /v1/models/{model}[/versions/{version}]/similar
//! GET  /v1/models/{model}[/versions/{version}]          the model card
//! GET  /v1/models                                       names and live versions
//! POST /v2/models/{model}[/versions/{version}]/infer   the Open Inference Protocol, see `inference`
//! GET  /v2/models/{model}[/versions/{version}][/ready], /v2, /v2/health/live, /v2/health/ready
//! POST /v2/repository/index                             the versions in memory, as Triton lists them
//! GET  /health/live, /health/ready, /openapi.json
//! POST /ams.v1.Ranking/..                               gRPC, and two more of its services, see `grpc`
//! POST /v1/nothing                                      reads a body and does nothing: the control of a benchmark
//! GET  /docs, /demo                                     pages for people, see `pages`
//! ```
//! Pages of other hosts may ask if they are named, see `browser`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Path, Query, Request as HttpRequest, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::access::traced;
use crate::answer::{self, Ask, Target, version_of};
use crate::body::{Body, bytes};
use crate::browser::shared_with_pages;
use crate::cors::Cors;
use crate::http::{
    Accepts, Shareds, admitted, health, json_response, no_such_method, no_such_path, of_protocol,
};
use crate::models::Loaded;
use crate::problem::{Kind, Problem};
use crate::protocol::Protocol;
use crate::request::{About, Request};
use crate::shared::Shared;
use crate::{grpc, inference, pages};

/// The paths.
pub fn router(shared: &Arc<Shared>) -> Router {
    let mut router =
        Router::new().route("/v1/models", get(list)).route("/v1/nothing", post(nothing));
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
    let guarded = router.route_layer(from_fn_with_state(Arc::clone(shared), admitted));
    let router = guarded
        .merge(pages::router(shared, shared.demo.as_ref()))
        .merge(health())
        .merge(grpc::router(shared))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(of_protocol))
        .layer(from_fn_with_state(Arc::clone(shared), counted));
    let router = match shared.cors == Cors::default() {
        true => router,
        false => router.layer(from_fn_with_state(Arc::clone(shared), shared_with_pages)),
    };
    router.layer(from_fn_with_state(Arc::clone(shared), traced)).with_state(Arc::clone(shared))
}

/// Counts what is answered, by route and not by path: paths are as many as clients can think of.
async fn counted(State(shared): Shareds, request: HttpRequest, next: Next) -> Response {
    let begin = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = grpc::status_of(&response);
    shared.telemetry.answered(route, status, begin.elapsed().as_secs_f64());
    response
}

/// Where a request goes.
#[derive(Debug, Deserialize)]
struct Place {
    model: String,
    version: Option<String>,
}

impl Place {
    fn version(&self) -> Result<Option<u64>, Problem> {
        self.version.as_deref().map(version_of).transpose()
    }
}

/// What `page` is told beside the page view.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    pre_rank: String,
    #[serde(default, deserialize_with = "or_empty")]
    keep: Option<usize>,
}

/// A number, or nothing behind the `=`, which is as if the name were not there.
fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = |_| de::Error::custom(format!("`{text}` is no whole number"));
    text.parse().map(Some).map_err(wrong)
}

type Answer = Result<Response, Problem>;
type Places = Result<Path<Place>, axum::extract::rejection::PathRejection>;
type Queries = Result<Query<PageQuery>, axum::extract::rejection::QueryRejection>;

/// A page view in JSON, of which this is asked.
fn page_view(ask: Ask) -> impl FnOnce(Target) -> About {
    |target| About::PageView(Protocol::Json(target, ask))
}

async fn score(state: Shareds, place: Places, request: HttpRequest) -> Answer {
    ask(state, place, page_view(Ask::Score), Accepts::Json, request).await
}

async fn pre_rank(state: Shareds, place: Places, request: HttpRequest) -> Answer {
    ask(state, place, page_view(Ask::PreRank), Accepts::Json, request).await
}

async fn explain(state: Shareds, place: Places, request: HttpRequest) -> Answer {
    ask(state, place, page_view(Ask::Explain), Accepts::Json, request).await
}

async fn similar(state: Shareds, place: Places, request: HttpRequest) -> Answer {
    ask(state, place, About::Similar, Accepts::Json, request).await
}

async fn page(state: Shareds, place: Places, query: Queries, request: HttpRequest) -> Answer {
    let Query(PageQuery { pre_rank, keep }) =
        query.map_err(|error| Problem::new(Kind::Request, error.body_text()))?;
    if pre_rank.is_empty() {
        let what = "pre_rank is empty, expected the model that keeps the best candidates";
        return Err(Problem::new(Kind::Request, what));
    }
    let page = Ask::Page { pre_rank, keep: keep.unwrap_or(answer::KEEP) };
    ask(state, place, page_view(page), Accepts::Json, request).await
}

async fn describe(State(shared): Shareds, place: Places) -> Answer {
    let Path(place) = place.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    let loaded = shared.models.now().find(&place.model, place.version()?, None)?;
    Ok(Json(inference::describe(&loaded.model)).into_response())
}

async fn model_ready(State(shared): Shareds, place: Places) -> Answer {
    let Path(place) = place.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    shared.models.now().find(&place.model, place.version()?, None)?;
    Ok("ready\n".into_response())
}

/// How many bytes of a body are JSON, in the binary tensor data extension.
const HEADER_LENGTH: &str = "inference-header-content-length";

async fn infer(state: Shareds, place: Places, request: HttpRequest) -> Answer {
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
    let tensors = |target| About::PageView(Protocol::Tensors { target, header });
    // Triton's client says application/octet-stream, or nothing.
    ask(state, place, tensors, Accepts::Anything, request).await
}

/// Reads the body, has it answered on a compute thread, and says what came of it.
async fn ask(
    State(shared): Shareds,
    place: Places,
    about: impl FnOnce(Target) -> About,
    accepts: Accepts,
    request: HttpRequest,
) -> Answer {
    let came = Instant::now();
    let Path(place) = place.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    let version = place.version()?;
    accepts.check(request.headers())?;
    let about = about(Target { model: place.model, version });
    let (head, body) = request.into_parts();
    let (snapshot, deadline) = (shared.models.now(), shared.limits.deadline);
    let bounds = shared.bounds().within(deadline);
    let body = Body::read(bounds, &head.headers, body).await?;
    let request = Request { snapshot, about, body, came, deadline };
    Ok(json_response(shared.answer(request).await?))
}

async fn nothing(State(shared): Shareds, request: HttpRequest) -> Answer {
    let (head, body) = request.into_parts();
    let (body, _held) = bytes(shared.bounds(), &head.headers, body).await?;
    Ok(json_response(format!("{{\"bytes\":{}}}", body.len()).into_bytes()))
}

/// A model in the list.
#[derive(Serialize)]
struct Listed<'a> {
    model: &'a str,
    version: Option<u64>,
}

async fn list(State(shared): Shareds) -> Response {
    let now = shared.models.now();
    let listed = now
        .live()
        .map(|(model, live)| Listed { model, version: live.map(|live| live.model.version()) });
    Json(listed.collect::<Vec<_>>()).into_response()
}

/// What Triton's clients ask of the list of versions. They name a repository too, of which there is
/// one here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wanted {
    /// Whether only those that can be asked are wanted.
    ready: bool,
}

/// A version, as Triton lists it.
#[derive(Serialize)]
struct Indexed {
    name: String,
    version: String,
    state: &'static str,
    reason: String,
}

async fn index(State(shared): Shareds, request: HttpRequest) -> Answer {
    let (head, body) = request.into_parts();
    let (body, _held) = bytes(shared.bounds(), &head.headers, body).await?;
    let wanted = match body.trim_ascii() {
        // Triton's client sends nothing.
        b"" => Wanted::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            Problem::new(
                Kind::Request,
                format!("request: {error}, expected such as {{\"ready\": true}}"),
            )
        })?,
    };
    let mut listed = Vec::new();
    for status in shared.models.now().status() {
        let name = &status.model;
        let one = |version: u64, state, reason: &str| Indexed {
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

/// What a model card says.
#[derive(Serialize)]
struct Card<'a> {
    model: &'a str,
    version: u64,
    hash: &'a str,
    since: u64,
    deltas: u64,
    #[serde(flatten)]
    meta: &'a ams_bundle::Meta,
    samples: &'a [ams_bundle::PageView],
}

async fn card(State(shared): Shareds, place: Places) -> Answer {
    let Path(place) = place.map_err(|error| Problem::new(Kind::NotFound, error.body_text()))?;
    let loaded = shared.models.now().find(&place.model, place.version()?, None)?;
    let Loaded { model, since, .. } = &*loaded;
    let card = Card {
        model: model.name(),
        version: model.version(),
        hash: model.hash(),
        since: *since,
        deltas: model.deltas(),
        meta: model.meta(),
        samples: model.samples(),
    };
    Ok(Json(card).into_response())
}

#[cfg(test)]
mod tests {
    use crate::http::OPENAPI;
    use ams_bundle::{PageView, similar};
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
            "context": {"a": 1}, "candidates": {"item": [1], "bid": [1], "features": {"a": [1]}},
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
        let attention = ams_bundle::explain::Attention {
            over: String::new(),
            queries: vec![],
            weights: vec![],
        };
        let attention = serde_json::to_value(attention).unwrap();
        assert_eq!(keys(&properties("Attention")), keys(&attention));
        let similar = similar::Wanted {
            item: Some("1".into()),
            picture: Some("".into()),
            tower: Some(String::new()),
            top_k: Some(1),
        };
        assert_eq!(keys(&properties("Wanted")), keys(&serde_json::to_value(similar).unwrap()));
    }
}
