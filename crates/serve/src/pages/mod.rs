//! Pages for people: `/docs`, the description of what can be asked, `/demo`, page views to look at,
//! and `/status` of the admin port, what the models are and what was decided about them.
//!
//! ```text
//! GET /docs, /docs/app.js, app.css, ..         the description, readable, with requests to try
//! GET /docs/page.js, page.css, icon.svg        what all pages use
//! GET /status, /status/app.js, app.css         only on the admin port
//! GET /demo, /demo/app.js, app.css, ..         only if set so
//! GET /demo/picture?model=MODEL&item=ITEM      the picture of an item, small; with a token, if tokens are asked for
//! ```
//! All of it is in the binary and written by hand, and asks no other host for anything. The pages
//! ask what every other client may ask, so they know nothing of models that a client could not
//! know.

mod pictures;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::http::admitted;
use crate::problem::{Kind, Problem};
use crate::settings::Demo;
use crate::state::ServerState;
use pictures::Thumbnails;

/// Nothing but what this server sends runs, is shown or is asked; `blob:` are pictures that had to
/// be asked for with a token.
const POLICY: &str = "default-src 'self'; img-src 'self' blob:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; object-src 'none'";

/// How long somebody waits for a picture. A person's past is dozens of them, which may be large,
/// and come one after the other.
const WAIT: Duration = Duration::from_secs(30);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// The paths; those of the demo if it is set.
pub(crate) fn router(server: &Arc<ServerState>, demo: Option<&Demo>) -> Router<Arc<ServerState>> {
    let mut router = Router::new()
        .route("/docs", file(HTML, with_meta(include_str!("docs.html"), "demo", demo.is_some())))
        .route("/docs/app.js", file(JS, include_str!("docs.js")))
        .route("/docs/app.css", file(CSS, include_str!("docs.css")))
        .route("/docs/schema.js", file(JS, include_str!("schema.js")))
        .merge(parts());
    if let Some(Demo { pictures }) = demo {
        let html = with_meta(include_str!("demo.html"), "pictures", pictures.is_some());
        router = router
            .route("/demo", file(HTML, html))
            .route("/demo/app.js", file(JS, include_str!("demo.js")))
            .route("/demo/board.js", file(JS, include_str!("board.js")))
            .route("/demo/explain.js", file(JS, include_str!("explain.js")))
            .route("/demo/app.css", file(CSS, include_str!("demo.css")));
        if let Some(folder) = pictures {
            let pictures = Arc::new(Thumbnails::new(folder.clone()));
            let asked = move |state, query| picture(state, Arc::clone(&pictures), query);
            let guard = from_fn_with_state(Arc::clone(server), admitted);
            let guarded = Router::new().route("/demo/picture", get(asked)).route_layer(guard);
            router = router.merge(guarded);
        }
    }
    router.route_layer(from_fn(security_headers))
}

/// The page of the admin port.
pub(crate) fn status() -> Router<Arc<ServerState>> {
    Router::new()
        .route("/status", file(HTML, include_str!("status.html")))
        .route("/status/app.js", file(JS, include_str!("status.js")))
        .route("/status/app.css", file(CSS, include_str!("status.css")))
        .merge(parts())
        .route_layer(from_fn(security_headers))
}

/// What all pages use.
fn parts() -> Router<Arc<ServerState>> {
    Router::new()
        .route("/docs/page.js", file(JS, include_str!("page.js")))
        .route("/docs/page.css", file(CSS, include_str!("page.css")))
        .route("/docs/icon.svg", file("image/svg+xml", include_str!("icon.svg")))
}

/// The page with a `meta` element: whether there is `what`.
fn with_meta(page: &str, what: &str, is_there: bool) -> String {
    let said = if is_there { "yes" } else { "no" };
    page.replace("</head>", &format!("<meta name=\"{what}\" content=\"{said}\">\n</head>"))
}

/// A file of the binary, of which no answer has a copy. ParsedRequest for each time: another
/// version of the program may have another one.
fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    text: impl Into<Bytes>,
) -> axum::routing::MethodRouter<S> {
    let text = text.into();
    get(move || async move {
        ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")], text).into_response()
    })
}

/// Tells browsers what they may do with an answer.
async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let rules: [(HeaderName, &'static str); 3] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, rule) in rules {
        response.headers_mut().insert(name, HeaderValue::from_static(rule));
    }
    response
}

/// PictureQuery picture is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PictureQuery {
    model: String,
    item: String,
}

/// The picture of an item. The client says which item, and the model which picture: no text of a
/// request is ever part of a path.
async fn picture(
    State(server): State<Arc<ServerState>>,
    pictures: Arc<Thumbnails>,
    query: Result<Query<PictureQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(PictureQuery { model, item }) =
        query.map_err(|error| Problem::new(Kind::Request, error.body_text()))?;
    let loaded = server.models.now().find(&model, None, None)?;
    let items = loaded.model.items();
    let name = items.find(&item).map(|row| items.picture(row)).filter(|name| name.is_some());
    let Some(name) = name else {
        let what = format!("{model} knows no item {item:?} with a picture");
        return Err(Problem::new(Kind::NotFound, what));
    };
    let Ok(small) = tokio::time::timeout(WAIT, pictures.small(name)).await else {
        let what = format!("no picture within {} s", WAIT.as_secs());
        return Err(Problem::new(Kind::Deadline, what));
    };
    let jpeg = small.map_err(|why| {
        Problem::new(Kind::NotFound, format!("the picture of item {item:?}: {why}"))
    })?;
    let headers = [(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, "private, max-age=600")];
    Ok((headers, jpeg).into_response())
}
