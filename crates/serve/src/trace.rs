//! Which request is which: a request id and a trace's context come with it or are made here, go
//! back with its answer, and stand in the log (`access`).
//!
//! ```text
//! X-Request-Id: 1 to 128 visible characters                        as received, or 16 hex digits
//! traceparent: 00-<trace id, 32>-<span id, 16>-<flags, 2>          the trace's id with a span of ours
//! ```

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue};

/// The header of a request's id.
const ID: &str = "x-request-id";

/// The header of a trace's context.
const CONTEXT: &str = "traceparent";

/// The ids of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    /// 1 to 128 visible characters, of the client or made here.
    pub id: String,
    /// The trace it belongs to, 32 hex digits.
    trace: String,
    /// The span of the client, 16 hex digits, if `traceparent` named one.
    parent: Option<String>,
    /// Our span of it, 16 hex digits.
    span: String,
    /// Flags of `traceparent`; bit 0 is `sampled`.
    flags: u8,
}

/// Times of a request's work; recorded only for spans.
#[derive(Debug, Default)]
pub(crate) struct WorkTimes {
    queued: OnceLock<Instant>,
    begin: OnceLock<Instant>,
    end: OnceLock<Instant>,
}

tokio::task_local! {
    /// The work of the request that this task answers.
    static WORK: Arc<WorkTimes>;
}

impl WorkTimes {
    /// Notes here what `answering` queues.
    pub(crate) fn of<F: Future>(
        self: &Arc<WorkTimes>,
        answering: F,
    ) -> impl Future<Output = F::Output> {
        WORK.scope(Arc::clone(self), answering)
    }

    /// Of the request that this task answers, which is about to wait for a compute thread.
    pub(crate) fn queued() -> Option<Arc<WorkTimes>> {
        let work = WORK.try_with(Arc::clone).ok()?;
        let _ = work.queued.set(Instant::now());
        Some(work)
    }

    /// Does it on a compute thread.
    pub(crate) fn run<T>(work: Option<&WorkTimes>, job: impl FnOnce() -> T) -> T {
        let Some(work) = work else { return job() };
        let _ = work.begin.set(Instant::now());
        let done = job();
        let _ = work.end.set(Instant::now());
        done
    }

    /// When it waited, began and ended, if a compute thread did it.
    #[cfg(feature = "otel")]
    pub(crate) fn times(&self) -> Option<(Instant, Instant, Instant)> {
        Some((*self.queued.get()?, *self.begin.get()?, *self.end.get()?))
    }
}

impl Trace {
    /// The ids of a request with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Trace {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let is_id =
            |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        let id = text(ID).filter(is_id).map_or_else(|| hex(random()), str::to_owned);
        let span = hex(random());
        match text(CONTEXT).and_then(context) {
            Some((trace, parent, flags)) => Trace { id, trace, parent: Some(parent), span, flags },
            None => {
                let trace = format!("{}{}", hex(random()), hex(random()));
                Trace { id, trace, parent: None, span, flags: 0 }
            }
        }
    }

    /// The id of the trace, 32 hex digits.
    pub(crate) fn trace_id(&self) -> &str {
        &self.trace
    }

    /// The span it was sent from.
    #[cfg(feature = "otel")]
    pub(crate) fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// Flags of `traceparent`; bit 0 is `sampled`.
    #[cfg(feature = "otel")]
    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }

    /// Has it named by a span that was made for it.
    #[cfg(feature = "otel")]
    pub(crate) fn continued(&mut self, trace: String, span: String, flags: u8) {
        (self.trace, self.span, self.flags) = (trace, span, flags);
    }

    /// Writes the id and the context into the headers of an answer.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        let context = format!("00-{}-{}-{:02x}", self.trace, self.span, self.flags);
        for (name, value) in [(ID, &self.id), (CONTEXT, &context)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// The trace, the span and the flags of a context, of a version that is known.
fn context(text: &str) -> Option<(String, String, u8)> {
    let parts: Vec<&str> = text.trim().split('-').collect();
    let [version, trace, span, flags, later @ ..] = &parts[..] else { return None };
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_some = |part: &str| part.bytes().any(|digit| digit != b'0');
    // Versions to come may have more behind; 255 is none.
    let good = is_hex(version, 2) && *version != "ff" && (*version != "00" || later.is_empty());
    let good = good && is_hex(trace, 32) && is_some(trace) && is_hex(span, 16) && is_some(span);
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| is_hex(flags, 2))?;
    good.then(|| ((*trace).to_owned(), (*span).to_owned(), flags))
}

/// Unpredictable numbers, different for every request; never 0.
fn random() -> u64 {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    SEED.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)).max(1)
}

fn hex(number: u64) -> String {
    format!("{number:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Trace {
        let pairs = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        Trace::of(&pairs.collect())
    }

    #[test]
    fn ids_and_contexts_are_kept_where_they_are_good() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        for (context, kept) in [
            (format!("00-{trace}-b7ad6b7169203331-01"), true),
            (format!("cc-{trace}-b7ad6b7169203331-01-what-comes"), true),
            (format!("00-{trace}-b7ad6b7169203331-01-more"), false),
            (format!("ff-{trace}-b7ad6b7169203331-01"), false),
            (format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()), false),
            (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), false),
            (format!("00-{trace}-0000000000000000-01"), false),
            (format!("00-{trace}-b7ad6b7169203331"), false),
            (String::new(), false),
        ] {
            let of = of(&[("traceparent", &context)]);
            assert_eq!(of.trace_id() == trace, kept, "{context}");
            let mut headers = HeaderMap::new();
            of.write_headers(&mut headers);
            let told = headers["traceparent"].to_str().unwrap();
            assert!(super::context(told).is_some() && !told.contains("b7ad6b7169203331"), "{told}");
        }
        let long = "x".repeat(129);
        for (id, kept) in [("a-1", true), ("", false), ("two words", false), (&long[..], false)] {
            assert_eq!(of(&[("x-request-id", id)]).id == id, kept, "{id}");
        }
        assert_ne!(of(&[]).id, of(&[]).id);
    }
}
