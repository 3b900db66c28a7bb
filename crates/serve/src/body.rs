//! A request's body: read within limits as it came, and expanded where it is answered.
//!
//! A compressed body has two sizes, and the limit is for both. Expanding is work, so the threads that talk to clients do not do it.

use std::io::Read;

use axum::body::{Bytes, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_ENCODING;
use flate2::read::MultiGzDecoder;

use crate::problem::{Kind, Problem};
use crate::settings::Limits;

/// What a body may be compressed with, for the header `Accept-Encoding` of an answer that refuses something else.
pub(crate) const ENCODINGS: &str = "gzip, identity";

/// A body as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    bytes: Bytes,
    gzip: bool,
    most: usize,
}

impl Body {
    /// Reads the body of an HTTP request.
    ///
    /// # Errors
    /// If it is compressed in a way that is not known, has too many bytes, or does not come in time.
    pub(crate) async fn read(
        limits: &Limits,
        headers: &HeaderMap,
        body: axum::body::Body,
    ) -> Result<Body, Problem> {
        let gzip = gzip(headers)?;
        let bytes = bytes(limits, body).await?;
        Ok(Body { bytes, gzip, most: limits.body_bytes })
    }

    /// A body whose bytes are there.
    #[cfg(any(test, feature = "grpc"))]
    pub(crate) fn of(bytes: Bytes, gzip: bool, most: usize) -> Body {
        Body { bytes, gzip, most }
    }

    /// Its bytes, expanded.
    ///
    /// # Errors
    /// If it is not what it says, or would be too large; then no more than the limit was expanded.
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
            let what = format!("request: the body is not the gzip that its headers say: {error}");
            Problem::new(Kind::Request, what)
        };
        read.map_err(not_gzip)?;
        Ok(expanded.into())
    }
}

/// The bytes of a body, as they came.
pub(crate) async fn bytes(limits: &Limits, body: axum::body::Body) -> Result<Bytes, Problem> {
    let read = tokio::time::timeout(limits.patience, to_bytes(body, limits.body_bytes)).await;
    let Ok(read) = read else {
        return Err(Problem::new(Kind::SlowBody, "the body did not come in time"));
    };
    read.map_err(|error| {
        // Too long, or the connection broke off; then nobody reads what is said here.
        let most = limits.body_bytes;
        Problem::new(Kind::TooLarge, format!("the body: {error}; it may have {most} bytes"))
    })
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
            let expanded = Body::of(bytes.into(), true, most).expanded();
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
                said.starts_with("request: the body is not the gzip that its headers say"),
                "{said}"
            );
        }
        let plain = Body::of(Bytes::from_static(b"as it is"), false, 1);
        assert_eq!(plain.expanded().unwrap(), &b"as it is"[..]);
    }
}
