//! JSON: a page view as `ams_bundle` reads it, and answers as they serialize.

use ams_bundle::PageView;
use serde::Serialize;

use crate::answer::{Ask, Asked, Target};
use crate::problem::Problem;

/// Reads a page view; the path said what is asked of whom.
///
/// # Errors
/// With path, line and column, if the body is no page view.
pub(crate) fn read(target: &Target, ask: &Ask, body: &[u8]) -> Result<Asked, Problem> {
    let page = PageView::parse(body)?;
    Ok(Asked { target: target.clone(), ask: ask.clone(), page })
}

/// `value` as JSON.
pub(crate) fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("our own types have text keys only")
}
