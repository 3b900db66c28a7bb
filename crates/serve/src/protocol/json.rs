//! JSON: a page view as `ams_bundle` reads it, and answers as they serialize.

use ams_bundle::PageView;
use serde::Serialize;

use crate::answer::{Operation, ParsedRequest, Target};
use crate::problem::Problem;

/// Reads a page view, for the target and operation of the path.
///
/// # Errors
/// With path, line and column, if the body is no page view.
pub(crate) fn read(
    target: &Target,
    operation: &Operation,
    body: &[u8],
) -> Result<ParsedRequest, Problem> {
    let page = PageView::parse(body)?;
    Ok(ParsedRequest { target: target.clone(), operation: operation.clone(), page })
}

/// Serializes `value` as compact JSON.
pub(crate) fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have text keys only")
}
