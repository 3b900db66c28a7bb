//! A load for servers, from outside: requests that arrive whether or not earlier ones were
//! answered.
//!
//! Arrivals are a Poisson process, as those of many users who do not know each other. A latency
//! counts from when a request should have been sent, not from when it was: a server that stalls is
//! charged for everybody who would have come meanwhile (no coordinated omission). Knows bytes and
//! statuses; not what they mean.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A load: bodies, their rate and duration.
#[derive(Clone, Debug)]
pub struct Load {
    /// The URL that every request is posted to.
    pub url: String,
    /// The bodies, one after the other and over again.
    pub bodies: Vec<Vec<u8>>,
    /// Mean requests per second.
    pub rate: f64,
    /// Duration of the arrivals in seconds.
    pub seconds: f64,
    /// Seed of the times of arrival: equal seeds, equal times.
    pub seed: u64,
    /// A bearer token, if the server needs one.
    pub token: Option<String>,
    /// Time after which a request counts as failed.
    pub timeout: Duration,
}

/// The result of a load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Requests per second that should be sent.
    pub rate: f64,
    /// Number of requests that were sent.
    pub sent: usize,
    /// Number of responses with status 200.
    pub answered: usize,
    /// Responses with status 200 per second.
    pub answered_per_second: f64,
    /// Number of responses with status 503.
    pub shed: usize,
    /// Number of responses with status 504.
    pub late: usize,
    /// Number of other responses, and of requests without one.
    pub failed: usize,
    /// Milliseconds from when a request should have been sent to its answer, of those with 200.
    pub ms: Latencies,
    /// The same of those with 503.
    pub shed_ms: Latencies,
}

/// Percentiles of latencies, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latencies {
    /// Of these, in any order; zeros for none.
    pub fn of(mut values: Vec<f64>) -> Latencies {
        values.sort_by(f64::total_cmp);
        let Some(&max) = values.last() else { return Latencies::default() };
        let share = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        Latencies { p50: share(0.5), p99: share(0.99), p999: share(0.999), max }
    }
}

/// Seconds from the beginning at which requests should be sent.
fn arrivals(load: &Load) -> Vec<f64> {
    let mut times = Vec::new();
    let mut time = 0.0;
    for at in 0u64.. {
        // A uniform number in (0, 1].
        let bits = xxh3_64_with_seed(&at.to_le_bytes(), load.seed) >> 11;
        let uniform = (bits + 1) as f64 / (1u64 << 53) as f64;
        time -= uniform.ln() / load.rate;
        if time >= load.seconds {
            break;
        }
        times.push(time);
    }
    times
}

impl Load {
    /// Sends all requests at their times and waits for every answer.
    ///
    /// # Errors
    /// If the URL is invalid, or the operating system refuses threads.
    pub fn send(&self) -> Result<Outcome, String> {
        let uri: Uri = self.url.parse().map_err(|error| format!("{}: {error}", self.url))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the operating system: {error}"))?;
        Ok(runtime.block_on(sending(self, uri)))
    }
}

/// Somebody who asks a server, one request after the other.
pub struct Asker {
    runtime: tokio::runtime::Runtime,
    client: Client<HttpConnector, Body>,
}

impl Asker {
    /// Without a connection yet.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn new() -> Result<Asker, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("the operating system: {error}"))?;
        Ok(Asker { runtime, client: client() })
    }

    /// Status and body of the answer to the JSON `body`.
    ///
    /// # Errors
    /// If the address is not one, or an answer does not come.
    pub fn post(&self, url: &str, body: Vec<u8>) -> Result<(u16, Vec<u8>), String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let request = Request::builder().method(Method::POST).uri(uri);
        let request = request.header(CONTENT_TYPE, "application/json").body(Body::from(body));
        let request = request.map_err(|error| format!("{url}: {error}"))?;
        self.runtime.block_on(async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| format!("{url}: {error}"))?;
            let status = response.status().as_u16();
            let answer = to_bytes(Body::new(response.into_body()), usize::MAX).await;
            Ok((status, answer.map_err(|error| format!("{url}: {error}"))?.to_vec()))
        })
    }
}

/// Sends bodies one after the other, and returns what is answered to each.
///
/// # Errors
/// If the address is not one, the operating system gives no threads, or an answer does not come.
pub fn post_each(url: &str, bodies: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Vec<u8>>, String> {
    let asker = Asker::new()?;
    bodies.map(|body| Ok(asker.post(url, body)?.1)).collect()
}

fn client() -> Client<HttpConnector, Body> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn sending(load: &Load, uri: Uri) -> Outcome {
    let client = client();
    let bodies: Vec<Arc<[u8]>> = load.bodies.iter().map(|body| body[..].into()).collect();
    let bearer = load.token.as_ref().map(|token| format!("Bearer {token}"));
    let (mut requests, begin) = (JoinSet::new(), Instant::now());
    for (at, time) in arrivals(load).into_iter().enumerate() {
        let due = begin + Duration::from_secs_f64(time);
        sleep_until(due).await;
        let mut request = Request::builder().method(Method::POST).uri(uri.clone());
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = &bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let body = Body::from(bodies[at % bodies.len()].to_vec());
        let (client, limit) = (client.clone(), load.timeout);
        requests.spawn(async move {
            let answered = async {
                let response = client.request(request.body(body).ok()?).await.ok()?;
                let status = response.status().as_u16();
                to_bytes(Body::new(response.into_body()), usize::MAX).await.ok()?;
                Some(status)
            };
            let status = timeout(limit, answered).await.ok().flatten();
            (status, 1e3 * due.elapsed().as_secs_f64())
        });
    }
    let (mut outcome, mut ms, mut shed_ms) = (Outcome::default(), Vec::new(), Vec::new());
    while let Some(done) = requests.join_next().await {
        outcome.sent += 1;
        match done {
            Ok((Some(200), latency)) => ms.push(latency),
            Ok((Some(503), latency)) => shed_ms.push(latency),
            Ok((Some(504), _)) => outcome.late += 1,
            _ => outcome.failed += 1,
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let (answered, shed) = (ms.len(), shed_ms.len());
    Outcome {
        rate: load.rate,
        answered,
        answered_per_second: answered as f64 / seconds,
        shed,
        ms: Latencies::of(ms),
        shed_ms: Latencies::of(shed_ms),
        ..outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_a_poisson_process() {
        let load = Load {
            url: String::new(),
            bodies: Vec::new(),
            rate: 1000.0,
            seconds: 20.0,
            seed: 1,
            token: None,
            timeout: Duration::ZERO,
        };
        let times = arrivals(&load);
        assert!((times.len() as f64 - 20_000.0).abs() < 600.0, "{}", times.len());
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Gaps of a Poisson process vary as much as they last.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn percentiles_are_of_all_values() {
        let latencies = Latencies::of((0..=1000).rev().map(f64::from).collect());
        let Latencies { p50, p99, p999, max } = latencies;
        assert_eq!((p50, p99, p999, max), (500.0, 990.0, 999.0, 1000.0));
    }
}
