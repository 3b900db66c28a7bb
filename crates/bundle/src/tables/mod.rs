//! Tables of a bundle, which deltas lie over: looked up by hash, written and read.
//!
//! In reading order: `layer`, a table with changes over it; `rows` of ids; [`items`]; [`contents`],
//! what towers made of pictures; `dense`, the weights, and `embed`, towers for new pictures;
//! `keyed`, what became of a table's rows from one version to another.

pub(crate) mod layer;

pub(crate) mod contents;
pub(crate) mod items;
pub(crate) mod rows;

pub(crate) mod dense;
pub(crate) mod embed;

pub(crate) mod keyed;
