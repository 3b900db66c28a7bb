//! The settings of a rank network, as they are typed, kept beside a model, and read by the network:
//! one struct for all three.
//!
//! A setting is declared in `network.rs` and nowhere else. `[model]` of a configuration, the
//! description of a model and [`crate::RankConfig`] have the struct as it is, and its keys among
//! keys of their own (`flat.rs`).

#[macro_use]
mod declare;
mod choices;
mod flat;
mod network;
pub mod range;
mod rates;

pub use choices::{Base, ImageArm, Interactions, SearchBy, Similarity, UnknownIds};
pub use flat::{Beside, Form};
pub use network::{NetworkSettings, SearchSettings};
pub use rates::IdRates;

#[cfg(test)]
mod tests;
