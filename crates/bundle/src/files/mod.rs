//! Files of a bundle: how they appear together, what they are called, and the numbers in them.
//!
//! In reading order: [`folder`], files that appear together, [`tensors`] in them, and [`numbers`]
//! where they are, found by an [`index`]; [`layout`], names and manifests of bundles, and
//! [`deltas`], of what comes later, and [`version_delta`], of versions kept as a difference;
//! [`golden`], logits to be computed again; [`arrival`], a folder that is being copied.

pub mod folder;
pub(crate) mod index;
pub(crate) mod numbers;
pub(crate) mod tensors;

pub(crate) mod deltas;
pub(crate) mod layout;
pub(crate) mod version_delta;

pub mod arrival;
pub(crate) mod golden;

pub use deltas::version_bytes;
