//! The program as its users meet it: commands in a folder, exit codes, one JSON object on stdout,
//! and errors that say what to do. Knows no crate of this workspace; what a command computes is
//! tested where it is computed.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.

mod ablate;
mod align;
mod bad_input;
mod bad_pictures;
mod bench;
#[cfg(all(target_os = "linux", feature = "buckets"))]
mod bucket_runs;
#[cfg(all(unix, feature = "buckets"))]
mod buckets;
mod calibration;
mod check;
mod configuration;
#[cfg(unix)]
mod daily;
#[cfg(unix)]
mod deltas;
mod demo;
mod encode;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(unix)]
mod features;
#[cfg(unix)]
mod follow;
#[cfg(all(unix, feature = "grpc"))]
mod grpc;
#[cfg(all(unix, feature = "grpc"))]
mod grpc_client;
#[cfg(unix)]
mod init;
#[cfg(unix)]
mod interrupt;
mod manual;
#[cfg(unix)]
mod movielens;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(unix)]
mod numeric;
mod off_policy;
#[cfg(unix)]
mod operators;
#[cfg(unix)]
mod pages;
#[cfg(unix)]
mod pictures;
mod place;
#[cfg(unix)]
mod report;
#[cfg(all(unix, feature = "grpc"))]
mod requests;
#[cfg(unix)]
mod rollout;
#[cfg(unix)]
mod semantic;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod settings;
mod shop;
#[cfg(unix)]
mod simulate;
#[cfg(unix)]
mod sources;
mod tensorboard;
mod text;
#[cfg(all(unix, feature = "tls"))]
mod tls;
mod tune;
mod way;
