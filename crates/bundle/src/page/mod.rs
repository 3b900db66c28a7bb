//! Requests to a model, and its answers.
//!
//! In reading order: [`resolve`], what a request means to a model; [`parts`] of its candidates, for
//! several threads; [`rank`], the answer to a page view, and [`explain`], why; [`similar`],
//! pictures like one; [`vectors`] of a pre-rank network.

pub(crate) mod parts;
pub(crate) mod resolve;

pub(crate) mod explain;
pub(crate) mod rank;
pub(crate) mod similar;
pub mod vectors;

pub use parts::{Alone, Helpers, Parts, Team};
pub use rank::{Missing, OfPage, Ranked, Scored, by_ecpm, ctrs_while, score_while};
