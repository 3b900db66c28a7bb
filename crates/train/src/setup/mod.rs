//! What a training is made of before its first step: its sources, its model, its processes.

pub mod components;
pub mod job;
pub mod network;
pub mod resolve;
pub mod sources;
