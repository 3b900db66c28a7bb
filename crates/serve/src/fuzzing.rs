//! Entry points of the fuzzer: the readers of requests.

use ams_bundle::{PageView, SimilarRequest};
use axum::body::Bytes;

use crate::answer::{Operation, ParsedRequest, Target};
use crate::edits::Edit;
pub use crate::models::decisions::Decisions;
use crate::problem::Problem;
use crate::protocol::protobuf::{self, GrpcMethod};
use crate::protocol::{json, tensors};

/// Reads `bytes` as what `kind` says: a page view in JSON, tensors over HTTP, a message, or
/// changes. The page view, if it is one.
///
/// # Errors
/// If they cannot be read, with the reason.
pub fn read(kind: u8, bytes: &[u8]) -> Result<Option<PageView>, String> {
    let target = Target { model: String::new(), version: None };
    let message = |call| protobuf::read(call, Bytes::copy_from_slice(bytes));
    let asked = |asked: Result<ParsedRequest, Problem>| asked.map(|asked| Some(asked.page));
    let read = match kind % 7 {
        0 => asked(json::read(&target, &Operation::Score, bytes)),
        1 => asked(tensors::read(&target, None, bytes)),
        2 => {
            // As many bytes as the first two say are JSON.
            let (length, bytes) = bytes.split_first_chunk().unwrap_or((&[0; 2], bytes));
            let header = usize::from(u16::from_le_bytes(*length));
            asked(tensors::read(&target, Some(header), bytes))
        }
        3 => asked(message(GrpcMethod::Score)),
        4 => asked(message(GrpcMethod::Page)),
        5 => asked(message(GrpcMethod::Infer)),
        _ => {
            let changes = Edit::parse(bytes).map(|_| None).map_err(Problem::from);
            changes.or_else(|problem| match SimilarRequest::parse(bytes) {
                Ok(_) => Ok(None),
                Err(_) => Err(problem),
            })
        }
    };
    read.map_err(|problem| problem.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_begins_with_what_is_read() {
        let seeds =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/request");
        let mut refused: Vec<(String, String)> = std::fs::read_dir(seeds)
            .unwrap()
            .filter_map(|entry| {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let what = read(bytes[0], &bytes[1..]).err()?;
                Some((path.file_name()?.to_str()?.to_owned(), what))
            })
            .collect();
        refused.sort();
        let names: Vec<&str> = refused.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["nan.json", "utf16.json"], "{refused:?}");
    }
}
