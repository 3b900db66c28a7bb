//! What a training is made of before its first step: its sources, its model, its processes.

pub(crate) mod components;
pub(crate) mod job;
pub(crate) mod network;
pub(crate) mod places;
pub(crate) mod resolve;
pub(crate) mod sources;
