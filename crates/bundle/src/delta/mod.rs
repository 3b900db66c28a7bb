//! Changes after publishing: new and removed pictures, items and rows.
//!
//! Deltas are numbered from 1 and follow each other; each appears whole, like a bundle, and is
//! read-only; [`crate::files::deltas`] says what is in one. The networks' weights are the bundle's:
//! with others, all rows and embeddings would mean something else.
//!
//! In reading order: [`Changes`] become a delta in `write`; `follow` reads deltas onto a model;
//! [`compact`] makes many one; `carry` tells the next version; `between` writes a trained version
//! as its difference from an earlier one.

pub(crate) mod changes;

pub(crate) mod follow;
pub(crate) mod write;

pub(crate) mod between;
pub(crate) mod carry;
pub(crate) mod compact;

#[cfg(test)]
mod tests;

pub use changes::Changes;
pub use follow::verify;
