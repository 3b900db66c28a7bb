//! Answering: a server that ranks page views with published models, over HTTP and gRPC.
//!
//! Knows bundles and requests. Does not know training, shards or the fabric, and does no arithmetic
//! of its own: what a score is, [`ams_bundle`] says, so it is the same here, in `ams score` and in
//! an evaluation.
//!
//! The modules, each above those it imports:
//!
//! ```text
//! server                            both ports, from start to stop
//! routes, admin                     the paths of the two ports
//! grpc, pages                       calls; pages for people
//! browser, access, exposition       what pages of other hosts may ask; the access log; metrics as text
//! http                              admission, content types, health
//! request                           from a request's bytes to its answer's, on a compute thread
//! protocol                          bytes as what is asked, answers as bytes
//! shared                            the state that all requests share
//! answer                            the operations, of models and page views
//! inference                         page views as tensors
//! listen, encryption, seats         connections
//! settings, cors, token, edits      what is set; who may ask; changes of a served model
//! body                              a request's body, within limits
//! problem                           errors as responses
//! models, compute                   which versions serve; the threads that score
//! spans, trace, renewal             spans and names of requests; files of secrets that are read again
//! traffic, telemetry                what is counted
//! system, process, notify           the operating system; systemd
//! load                              a client that measures a server
//! ```
//!
//! A reader begins with [`settings`], [`models`] and [`answer`], and then follows a request:
//! [`listen`], [`routes`], `request`, `protocol`.
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
mod protocol;
mod renewal;
mod request;
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
