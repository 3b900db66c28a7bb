//! What is measured of trainings, steps, tables and samples.

pub mod export;
pub mod forecast;
pub mod placements;
pub mod samples;
pub mod steps;
pub mod tables;
