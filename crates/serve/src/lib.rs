//! Answering: a server that ranks page views with published models, over HTTP and gRPC.
//!
//! Knows bundles and requests. Does not know training, shards or the fabric, and does no arithmetic
//! of its own: what a score is, [`ams_bundle`] says, so it is the same here, in `ams score` and in
//! an evaluation.
//!
//! In reading order: [`settings`], what can be set; [`models`], which versions serve, and how that
//! changes; [`compute`], the threads that score; [`body`], what came; [`answer`], from a request's
//! bytes to an answer's, and [`inference`] and `grpc`, the same in other protocols' words;
//! [`problem`], [`token`] and [`browser`], answers that are none and who gets none; [`edits`], how
//! what is served changes a little; [`pages`], what people look at; [`shared`], what all requests
//! share; [`routes`] and [`admin`], the paths of the two ports; [`listen`], `seats` and
//! [`encryption`], connections; [`server`], all of it together, from start to stop; `renewal`,
//! secrets that change meanwhile; [`system`], what the operating system gives; [`telemetry`] and
//! [`traffic`], what is counted; `exposition`, what Prometheus reads; `trace`, what requests are
//! called; `spans`, what a collector of traces is sent; `notify`, what systemd is told. And
//! [`load`], somebody who asks a lot.
//!
//! Cargo features: `grpc`, `otel` and `tls`. What is missing is refused in words that name the
//! feature.

mod access;
pub mod admin;
pub mod answer;
pub mod body;
pub mod browser;
pub mod compute;
mod cors;
pub mod edits;
#[cfg(feature = "tls")]
pub mod encryption;
#[cfg(not(feature = "tls"))]
#[path = "encryption_absent.rs"]
pub mod encryption;
mod exposition;
#[cfg(feature = "grpc")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(not(feature = "grpc"))]
#[path = "grpc_absent.rs"]
mod grpc;
mod http;
pub mod inference;
pub mod listen;
pub mod load;
pub mod models;
mod notify;
pub mod pages;
pub mod problem;
mod process;
mod renewal;
pub mod routes;
mod seats;
pub mod server;
pub mod settings;
pub mod shared;
#[cfg(feature = "otel")]
mod spans;
#[cfg(not(feature = "otel"))]
#[path = "spans_absent.rs"]
mod spans;
pub mod system;
pub mod telemetry;
pub mod token;
mod trace;
pub mod traffic;

pub use cors::Cors;
pub use server::{Server, start};
pub use settings::{Control, Demo, Limits, Settings, Tls};

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
#[cfg(feature = "otel")]
#[path = "../tests/collector.rs"]
mod collector;
#[cfg(test)]
#[path = "../tests/network.rs"]
mod network;
