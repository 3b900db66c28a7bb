//! The program as its users meet it: commands in a folder, exit codes, one JSON object on stdout, and
//! errors that say what to do. Knows no crate of this workspace; what a command computes is tested
//! where it is computed.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.

mod ablate;
mod bad_input;
mod bad_pictures;
mod bench;
#[cfg(unix)]
mod buckets;
mod check;
#[cfg(unix)]
mod deltas;
mod demo;
#[cfg(target_os = "linux")]
mod faults;
#[cfg(unix)]
mod grpc;
#[cfg(unix)]
mod grpc_client;
#[cfg(unix)]
mod interrupt;
#[cfg(unix)]
mod movielens;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(unix)]
mod pages;
#[cfg(unix)]
mod pictures;
mod place;
#[cfg(unix)]
mod serve;
mod shop;
#[cfg(unix)]
mod tls;
mod way;
