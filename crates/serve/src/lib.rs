//! Answering: a server that ranks page views with published models, over HTTP and gRPC.
//!
//! ```
//! # let dir = std::env::temp_dir().join(format!("ams-serve-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir).unwrap();
//! use ams_serve::{Settings, start};
//!
//! let settings = Settings { threads: 1, ..Settings::new(&dir) };
//! let server = start(&settings).unwrap();
//! assert_ne!(server.address.port(), 0);
//! assert_eq!(server.stop(), 0, "no request was cut");
//! # std::fs::remove_dir_all(&dir).unwrap();
//! ```
//!
//! Knows bundles and requests. Does not know training, shards or the fabric, and does no arithmetic
//! of its own: [`ams_bundle`] computes every score, so scores are the same here, in `ams score` and
//! in an evaluation.
//!
//! The modules, each above those it imports:
//!
//! ```text
//! server                            both ports, from start to stop
//! routes, admin                     the paths of the two ports
//! grpc, pages                       calls; pages for people
//! browser, access, exposition       requests of other origins; the access log; the page of metrics
//! http                              authentication, content types, health
//! request                           from a request's bytes to its response's, on a compute thread
//! protocol                          bytes as parsed requests, answers as bytes
//! state                             the state that all requests share
//! answer                            the operations on models and page views
//! inference                         page views as tensors
//! outcomes, outcome_parts           clicks on what was answered, posted or in files
//! listen, encryption, connections   sockets; TLS; the limits of connections
//! settings, cors, token, edits      settings; authentication; changes of a served model
//! body                              the body of a request, within limits
//! problem                           errors as responses
//! models, compute                   the versions that serve; the threads that score
//! spans, trace, reload              spans and ids of requests; files of secrets that are reloaded
//! traffic, telemetry                metrics
//! promotion                         whether a canary goes on, of what was counted
//! system, process, notify           the operating system; systemd
//! load                              a client that measures a server
//! ```
//!
//! A reader begins with `settings`, `models` and `answer`, and then follows a request: `listen`,
//! `routes`, `request`, `protocol`.
//!
//! Cargo features: `grpc`, `otel` and `tls`. The use of a missing feature is an error that names
//! it.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

mod access;
mod admin;
mod answer;
mod body;
mod browser;
mod compute;
mod connections;
mod cors;
mod edits;
#[cfg(feature = "tls")]
mod encryption;
#[cfg(not(feature = "tls"))]
#[path = "encryption_absent.rs"]
mod encryption;
mod exposition;
#[cfg(feature = "grpc")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(not(feature = "grpc"))]
#[path = "grpc_absent.rs"]
mod grpc;
mod http;
mod inference;
mod listen;
mod load;
mod models;
mod notify;
mod outcome_parts;
mod outcomes;
mod pages;
mod problem;
mod process;
mod promotion;
mod protocol;
mod reload;
mod request;
mod routes;
mod server;
mod settings;
#[cfg(feature = "otel")]
mod spans;
#[cfg(not(feature = "otel"))]
#[path = "spans_absent.rs"]
mod spans;
mod state;
mod system;
mod telemetry;
mod token;
mod trace;
mod traffic;

pub use cors::Cors;
pub use edits::PictureEncoder;
pub use load::{Asker, Latencies, Load, Outcome, post_each};
pub use models::{
    Author, CanaryShare, DECISIONS, DayOverview, ModelOverview, VersionOverview, VersionState,
    overview, roll_back, serving_version,
};
pub use promotion::Promotion;
pub use server::{Server, start};
pub use settings::{Control, Demo, Limits, Settings, Tls};
pub use token::Tokens;

// Its own tests are in the same program as those beside the code.
#[cfg(test)]
#[cfg(feature = "otel")]
#[path = "../tests/collector.rs"]
mod collector;
#[cfg(test)]
#[path = "../tests/network.rs"]
mod network;
