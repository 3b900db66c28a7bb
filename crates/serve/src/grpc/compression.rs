//! Messages that are compressed by gzip: the frame says that one is, so the mark is taken off and
//! the message is expanded elsewhere.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;

use crate::problem::{ENCODINGS, Kind, Problem};

/// How a call's messages are compressed, where their frames say that they are.
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPTED: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The body of a call of one message as if it were not compressed, and whether the message is gzip.
///
/// # Errors
/// If it is compressed in a way that is not known, or does not say how.
pub(super) fn taken_off(headers: &mut HeaderMap, body: Bytes) -> Result<(Bytes, bool), Problem> {
    let encoding = headers.remove(ENCODING);
    let gzip = match encoding.as_ref().map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => false,
        Some(b"gzip") => true,
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            let what = format!("grpc-encoding is `{other}`, expected {ENCODINGS}");
            return Err(Problem::new(Kind::Encoding, what));
        }
    };
    if body.first() != Some(&1) {
        return Ok((body, false));
    }
    if !gzip {
        let what = "the message is marked as compressed, and no grpc-encoding says how";
        return Err(Problem::new(Kind::Internal, what));
    }
    let mut frame = Vec::from(body);
    frame[0] = 0;
    Ok((frame.into(), true))
}

/// Says what messages may be compressed by.
pub(super) async fn advertised(mut response: Response) -> Response {
    response.headers_mut().insert(ACCEPTED, HeaderValue::from_static("gzip,identity"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_taken_off() {
        let take = |encoding: Option<&'static str>, body: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.extend(encoding.map(|encoding| (ENCODING, HeaderValue::from_static(encoding))));
            let taken = taken_off(&mut headers, Bytes::from_static(body));
            assert!(headers.is_empty());
            taken.map(|(body, gzip)| (Vec::from(body), gzip)).map_err(|problem| problem.kind)
        };
        let cases: [(Option<&str>, &[u8], _); 8] = [
            (None, b"\0body", Ok((b"\0body".to_vec(), false))),
            (Some("identity"), b"\0body", Ok((b"\0body".to_vec(), false))),
            (Some("gzip"), b"\0body", Ok((b"\0body".to_vec(), false))),
            (Some("gzip"), b"\x01body", Ok((b"\0body".to_vec(), true))),
            (Some("gzip"), b"", Ok((Vec::new(), false))),
            (None, b"\x01body", Err(Kind::Internal)),
            (Some("identity"), b"\x01body", Err(Kind::Internal)),
            (Some("deflate"), b"\0body", Err(Kind::Encoding)),
        ];
        for (encoding, body, expected) in cases {
            assert_eq!(take(encoding, body), expected, "{encoding:?} {body:?}");
        }
    }
}
