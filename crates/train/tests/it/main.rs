//! Whole trainings on a tiny synthetic shop, on threads and on processes that are threads: bits,
//! the step beside an obvious one, what travels, checkpoints, refusals. Real processes and real
//! signals are tested where they are started, in `cli`.

// Helpers of tests may unwrap like tests.
#![allow(clippy::unwrap_used)]

mod align;
mod allocations;
mod beginnings;
mod bits;
mod calibrated;
mod checkpoints;
mod configuration;
mod early_stop;
mod feed;
mod jobs;
mod kept;
mod phases;
mod placements;
mod plain;
mod refit;
mod refusals;
mod regularization;
mod rows;
mod runs;
mod scorer;
mod shop;
mod step;
mod table;
mod traffic;
mod tune;
