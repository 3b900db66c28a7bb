//! Requests that pages of other origins make a browser send: refused at the admin port, and allowed
//! at the port of page views for the configured origins (CORS).
//!
//! A browser names the page (`Origin`, `Sec-Fetch-Site`), and does not send JSON or custom headers
//! for pages of other origins without a preflight. DNS rebinding gives another page the address of
//! this host, so the name in `Host` is checked, too. Other clients send no such headers and are
//! admitted.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_TYPE, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::http::is_json;
use crate::problem::{Kind, Problem};
use crate::state::ServerState;

/// The relation of the page to this server, as browsers send it.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A header that pages of other origins cannot send, for changes whose body is not JSON.
const ADMIN: HeaderName = HeaderName::from_static("x-ams-admin");

/// Seconds for which a browser may cache the response to a preflight.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Refuses requests of pages of other origins to the admin port.
///
/// # Errors
/// With 403 if the headers name another origin, or `Host` is not a name of this server; with 415 if
/// a browser could send the request without a preflight.
pub(crate) async fn reject_cross_site(
    State(server): State<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    check(request.method(), request.uri(), request.headers(), &server.admin_hosts)?;
    Ok(next.run(request).await)
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap, names: &[String]) -> Result<(), Problem> {
    let forbidden = |what: String| Err(Problem::new(Kind::Forbidden, what));
    let text = |name: &HeaderName| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    // HTTP/2 names the host in the address, HTTP/1 in a header.
    let asked = [uri.authority().map(|authority| authority.as_str().to_owned()), text(&HOST)];
    let hosts: Vec<String> = asked.into_iter().flatten().collect();
    if let Some(host) = hosts.iter().find(|host| !is_own(host, names)) {
        return forbidden(format!(
            "Host is {host:?}, expected an address, localhost or a name of --admin-host"
        ));
    }
    if let Some(origin) = text(&ORIGIN) {
        let host = origin.split_once("://").map(|(_, host)| host);
        if !host.is_some_and(|host| hosts.iter().any(|own| own.eq_ignore_ascii_case(host))) {
            return forbidden(format!("pages of {origin:?} may not use the admin port"));
        }
    }
    // `none` means that a person typed the address.
    if let Some(site) = text(&SITE).filter(|site| site != "same-origin" && site != "none") {
        return forbidden(format!(
            "pages of other origins may not use the admin port: {SITE} is {site:?}"
        ));
    }
    let changes = ![Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    let marked = text(&ADMIN).is_some_and(|value| value == "1");
    if changes && !marked && !text(&CONTENT_TYPE).is_some_and(|kind| is_json(&kind)) {
        let what = "a change needs the header `Content-Type: application/json`, or `X-Ams-Admin: 1` if it has no body or another body";
        return Err(Problem::new(Kind::MediaType, what));
    }
    Ok(())
}

/// Whether a host, with or without a port, is an address, `localhost` or one of `names`.
fn is_own(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(name, _)| name),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.');
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|own| name.eq_ignore_ascii_case(own.trim_end_matches('.')))
}

/// Adds the headers of CORS to responses, and answers preflights.
pub(crate) async fn cors_headers(
    State(server): State<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let allowed = origin.and_then(|origin| server.cors.allowed(&origin));
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &allowed {
        Some(_) if is_preflight => {
            let headers = [
                (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST")),
                (
                    ACCESS_CONTROL_ALLOW_HEADERS,
                    HeaderValue::from_static(
                        "authorization, content-type, content-encoding, inference-header-content-length",
                    ),
                ),
                (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            ];
            (StatusCode::NO_CONTENT, headers).into_response()
        }
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(allowed) = allowed {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        let exposed = "retry-after, inference-header-content-length";
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let header = |&(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        of.iter().map(header).collect()
    }

    #[test]
    fn pages_of_others_are_refused() {
        let host = ("host", "10.0.0.1:8601");
        let own = ("origin", "http://10.0.0.1:8601");
        let (json, admin) =
            (("content-type", "application/json; charset=utf-8"), ("x-ams-admin", "1"));
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
        let cases: &[Case<'_>] = &[
            ("GET", &[], 200),
            ("GET", &[host], 200),
            ("GET", &[("host", "localhost:8601")], 200),
            ("GET", &[("host", "LOCALHOST.")], 200),
            ("GET", &[("host", "[::1]:8601")], 200),
            ("GET", &[("host", "ams-admin")], 200),
            ("GET", &[("host", "Ams-Admin.:8601")], 200),
            ("GET", &[("host", "attacker.example:8601")], 403),
            ("GET", &[("host", "localhost.attacker.example")], 403),
            ("GET", &[("host", "")], 403),
            ("GET", &[host, own, ("sec-fetch-site", "same-origin")], 200),
            ("GET", &[host, ("sec-fetch-site", "none")], 200),
            ("GET", &[host, ("sec-fetch-site", "cross-site")], 403),
            ("GET", &[host, ("sec-fetch-site", "same-site")], 403),
            ("GET", &[host, ("origin", "null")], 403),
            ("GET", &[host, ("origin", "http://10.0.0.1:8600")], 403),
            ("POST", &[host], 415),
            ("POST", &[host, ("content-type", "text/plain")], 415),
            ("POST", &[host, ("content-type", "application/jsonish")], 415),
            ("POST", &[host, json], 200),
            ("POST", &[host, admin], 200),
            ("POST", &[host, ("x-ams-admin", "0")], 415),
            ("POST", &[host, own, json], 200),
            ("POST", &[host, ("origin", "http://attacker.example"), json, admin], 403),
            ("PUT", &[host, ("content-type", "image/png")], 415),
            ("PUT", &[host, ("content-type", "image/png"), admin], 200),
            ("DELETE", &[host], 415),
        ];
        for (method, sent, expected) in cases {
            let (method, uri) = (method.parse().unwrap(), Uri::from_static("/admin/models"));
            let said = check(&method, &uri, &headers(sent), &["ams-admin".to_owned()]);
            let status = said.map_or_else(|problem| problem.kind.status().as_u16(), |()| 200);
            assert_eq!(status, *expected, "{method} {sent:?}");
        }
        // HTTP/2 has the host elsewhere.
        let uri = Uri::from_static("http://attacker.example/metrics");
        assert!(check(&Method::GET, &uri, &HeaderMap::new(), &[]).is_err());
    }
}
