//! The body of a request: read within limits, and decompressed on a compute thread.
//!
//! ```text
//! frames --a buffer that grows with the received bytes--> Body, with its share of the memory --expanded--> bytes
//! ```
//! A compressed body has two sizes, and the limit is for both. Expanding is work, so the threads
//! that talk to clients do not do it. All bodies share one [`RequestMemory`], from their first byte
//! until they are answered: many clients together cost no more than it has.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, EXPECT};
use flate2::read::MultiGzDecoder;
use metrics::Counter;

use crate::problem::{ENCODINGS, Kind, Problem};

/// Bytes of the body of a call that needs no token: all of them ask for something by name, if for
/// anything.
#[cfg(feature = "grpc")]
const UNAUTHENTICATED_BYTES: usize = 4 << 10;

/// How long what is left of a refused body is read and forgotten, so that a client that is still
/// sending reads the refusal: a connection that is closed before is reset.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The memory of all bodies.
pub(crate) struct RequestMemory {
    /// Bytes that may be held.
    most: usize,
    held: AtomicUsize,
    /// The most that was held since the last [`RequestMemory::peak`].
    peak: AtomicUsize,
    /// Requests turned away because all of it is held.
    refusals: Counter,
}

impl std::fmt::Debug for RequestMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.held(), self.most)
    }
}

impl RequestMemory {
    /// Of `most` bytes, none of them held.
    pub(crate) fn new(most: usize, refusals: Counter) -> Arc<RequestMemory> {
        Arc::new(RequestMemory {
            most,
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            refusals,
        })
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// The most bytes that were held since this was asked.
    pub(crate) fn peak(&self) -> usize {
        self.peak.swap(self.held(), Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Problem> {
        let grown = |held: usize| held.checked_add(bytes).filter(|&held| held <= self.most);
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(_) => {
                self.refusals.increment(1);
                let most = self.most;
                let what = format!("requests that are being answered hold all of {most} bytes");
                Err(Problem::new(Kind::Busy, what))
            }
        }
    }
}

/// A share of the memory, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    memory: Arc<RequestMemory>,
    bytes: usize,
}

impl MemoryShare {
    fn none(memory: &Arc<RequestMemory>) -> MemoryShare {
        MemoryShare { memory: Arc::clone(memory), bytes: 0 }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.memory.take(bytes.saturating_sub(self.bytes))?;
        self.bytes = self.bytes.max(bytes);
        Ok(())
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Limits of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits<'a> {
    /// The budget that all bodies share.
    pub memory: &'a Arc<RequestMemory>,
    /// Most bytes, compressed and decompressed.
    pub most: usize,
    /// Time until its last byte.
    pub within: Duration,
}

impl BodyLimits<'_> {
    /// The limits for a call that needs no token.
    #[cfg(feature = "grpc")]
    pub(crate) fn unauthenticated(self) -> Self {
        BodyLimits { most: self.most.min(UNAUTHENTICATED_BYTES), ..self }
    }

    /// The same limits with at most the time `within`.
    pub(crate) fn within(self, within: Duration) -> Self {
        BodyLimits { within: self.within.min(within), ..self }
    }
}

/// A received body, possibly compressed.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    gzip: bool,
    most: usize,
    _held: Option<MemoryShare>,
}

impl Body {
    /// Reads the body of an HTTP request.
    ///
    /// # Errors
    /// If it is compressed in a way that is not known, has too many bytes, is broken or does not
    /// come in time, or if there is no memory for it now.
    pub(crate) async fn read(
        limits: BodyLimits<'_>,
        headers: &HeaderMap,
        body: axum::body::Body,
    ) -> Result<Body, Problem> {
        let gzip = gzip(headers)?;
        let (bytes, held) = bytes(limits, headers, body).await?;
        Ok(Body { bytes, gzip, most: limits.most, _held: Some(held) })
    }

    /// A body whose bytes are there.
    #[cfg(any(test, feature = "grpc"))]
    pub(crate) fn of(bytes: Bytes, gzip: bool, most: usize, held: Option<MemoryShare>) -> Body {
        Body { bytes, gzip, most, _held: held }
    }

    /// Its bytes, expanded.
    ///
    /// # Errors
    /// If it is not gzip, or larger than the limit; then no more than the limit was decompressed.
    pub(crate) fn expanded(&self) -> Result<Bytes, Problem> {
        if !self.gzip {
            return Ok(self.bytes.clone());
        }
        let most = self.most;
        let mut expanded = Vec::with_capacity(self.bytes.len().saturating_mul(4).min(most));
        let read = MultiGzDecoder::new(&self.bytes[..])
            .take((most as u64).saturating_add(1))
            .read_to_end(&mut expanded);
        if expanded.len() > most {
            let what = format!(
                "the body has more than {most} bytes when it is expanded; it may have {most} bytes"
            );
            return Err(Problem::new(Kind::TooLarge, what));
        }
        let not_gzip = |error| {
            let what = format!("request: Content-Encoding is gzip, but the body is not: {error}");
            Problem::new(Kind::Request, what)
        };
        read.map_err(not_gzip)?;
        Ok(expanded.into())
    }
}

/// The received bytes of a body, and their share of the memory.
pub(crate) async fn bytes(
    limits: BodyLimits<'_>,
    headers: &HeaderMap,
    mut body: axum::body::Body,
) -> Result<(Bytes, MemoryShare), Problem> {
    let announced = body.size_hint().lower();
    if announced > limits.most as u64 {
        // Whoever waits for `100 Continue` has sent nothing yet, and should not.
        if !headers.contains_key(EXPECT) {
            tokio::spawn(discard(body));
        }
        let most = limits.most;
        let what = format!("the body has {announced} bytes; it may have {most} bytes");
        return Err(Problem::new(Kind::TooLarge, what));
    }
    let Ok(read) = tokio::time::timeout(limits.within, collect(limits, &mut body)).await else {
        let what = format!("the body was not whole within {} ms", limits.within.as_millis());
        return Err(Problem::new(Kind::SlowBody, what));
    };
    if matches!(&read, Err(problem) if problem.kind != Kind::Request) {
        tokio::spawn(discard(body));
    }
    read
}

/// Everything that comes, in one buffer: it grows with what came, not with what was announced, and
/// a frame of one byte costs one byte.
async fn collect(
    limits: BodyLimits<'_>,
    body: &mut axum::body::Body,
) -> Result<(Bytes, MemoryShare), Problem> {
    let (mut bytes, mut held) = (Vec::<u8>::new(), MemoryShare::none(limits.memory));
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await {
        let broken = |error| Problem::new(Kind::Request, format!("the body: {error}"));
        // Trailers say nothing here.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limits.most {
            let most = limits.most;
            let what = format!("the body has more than {most} bytes; it may have {most} bytes");
            return Err(Problem::new(Kind::TooLarge, what));
        }
        if length > bytes.capacity() {
            let capacity = length.max(2 * bytes.capacity()).min(limits.most);
            held.grow(capacity)?;
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.into(), held))
}

/// Reads what is left of a body for a while, and keeps nothing.
async fn discard(mut body: axum::body::Body) {
    let all = async {
        while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
    };
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}

/// Whether the body is gzip.
fn gzip(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut gzip = false;
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        for coding in value.split(',').map(str::trim) {
            match coding {
                "" | "identity" => {}
                "gzip" | "x-gzip" if !gzip => gzip = true,
                _ => {
                    let what = format!("Content-Encoding is `{value}`, expected {ENCODINGS}");
                    return Err(Problem::new(Kind::Encoding, what));
                }
            }
        }
    }
    Ok(gzip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn encodings_are_named() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            gzip(&headers).map_err(|problem| problem.detail)
        };
        for (values, expected) in [
            (&[][..], false),
            (&["identity"], false),
            (&[""], false),
            (&["gzip"], true),
            (&["x-gzip"], true),
            (&["GZip"], true),
            (&["identity, gzip"], true),
            (&["identity", "gzip"], true),
        ] {
            assert_eq!(of(values), Ok(expected), "{values:?}");
        }
        for values in [
            &["br"][..],
            &["deflate"],
            &["zstd"],
            &["gzip, gzip"],
            &["gzip", "gzip"],
            &["gzip;q=1"],
        ] {
            let said = of(values).unwrap_err();
            assert!(said.ends_with("expected gzip, identity"), "{said}");
        }
    }

    #[test]
    fn bodies_expand_within_the_limit() {
        let (text, most) = (b"0123456789".repeat(10), 100);
        let expand = |bytes: Vec<u8>| {
            let expanded = Body::of(bytes.into(), true, most, None).expanded();
            expanded.map(Vec::from).map_err(|problem| (problem.kind, problem.detail))
        };
        assert_eq!(expand(compressed(&text)), Ok(text.clone()));
        assert_eq!(expand(compressed(b"")), Ok(Vec::new()));
        let parts = [compressed(&text[..30]), compressed(&text[30..])].concat();
        assert_eq!(expand(parts), Ok(text.clone()), "gzip of several parts is one body");
        // A hundred megabytes: what is expanded of it is 101 bytes.
        let bomb = compressed(&vec![0; 100 << 20]);
        let (kind, said) = expand(bomb).unwrap_err();
        assert_eq!(kind, Kind::TooLarge);
        assert!(said.ends_with("it may have 100 bytes"), "{said}");
        assert_eq!(expand(compressed(&[&text[..], b"!"].concat())).unwrap_err().0, Kind::TooLarge);
        let whole = compressed(&text);
        let mut changed = whole.clone();
        let last = changed.len() - 8;
        changed[last] ^= 1;
        for bad in [text.clone(), Vec::new(), whole[..whole.len() - 3].to_vec(), changed] {
            let (kind, said) = expand(bad).unwrap_err();
            assert_eq!(kind, Kind::Request);
            assert!(
                said.starts_with("request: Content-Encoding is gzip, but the body is not"),
                "{said}"
            );
        }
        let plain = Body::of(Bytes::from_static(b"as it is"), false, 1, None);
        assert_eq!(plain.expanded().unwrap(), &b"as it is"[..]);
    }
    /// A body of these frames, of which the last may be an error.
    struct Frames(std::collections::VecDeque<Result<Bytes, &'static str>>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, &'static str>>> {
            std::task::Poll::Ready(
                self.0.pop_front().map(|next| next.map(hyper::body::Frame::data)),
            )
        }
    }

    async fn gather(
        memory: &Arc<RequestMemory>,
        frames: impl IntoIterator<Item = Result<Bytes, &'static str>>,
    ) -> Result<(Bytes, MemoryShare), (Kind, String)> {
        let limits = BodyLimits { memory, most: 1000, within: Duration::from_secs(60) };
        let body = axum::body::Body::new(Frames(frames.into_iter().collect()));
        let read = bytes(limits, &HeaderMap::new(), body).await;
        read.map_err(|problem| (problem.kind, problem.detail))
    }

    /// They were kept as frames, which cost 32 bytes each, and told apart from what is too long by
    /// nothing.
    #[tokio::test]
    async fn frames_of_one_byte_cost_one_byte() {
        let memory = RequestMemory::new(4096, Counter::noop());
        let ones = |count: usize| vec![Ok(Bytes::from_static(b"x")); count];
        let (bytes, held) = gather(&memory, ones(1000)).await.unwrap();
        assert_eq!((bytes.len(), held.bytes, memory.held()), (1000, 1000, 1000));
        let (kind, said) = gather(&memory, ones(1001)).await.unwrap_err();
        assert_eq!(
            (kind, &said[..]),
            (Kind::TooLarge, "the body has more than 1000 bytes; it may have 1000 bytes")
        );
        let broken = ones(3).into_iter().chain([Err("invalid chunk size")]);
        let (kind, said) = gather(&memory, broken).await.unwrap_err();
        assert_eq!((kind, &said[..]), (Kind::Request, "the body: invalid chunk size"));
        assert_eq!(memory.held(), 1000, "what was refused holds nothing");
        drop(held);
        assert_eq!((memory.held(), memory.peak(), memory.peak()), (0, 2000, 0));
    }

    #[tokio::test]
    async fn bodies_together_hold_no_more_than_there_is() {
        let memory = RequestMemory::new(1500, Counter::noop());
        let body = || [Ok(Bytes::from(vec![0; 800]))];
        let first = gather(&memory, body()).await.unwrap();
        assert_eq!(gather(&memory, body()).await.unwrap_err().0, Kind::Busy);
        drop(first);
        assert!(gather(&memory, body()).await.is_ok());
    }
}
