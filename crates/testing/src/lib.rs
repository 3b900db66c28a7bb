//! What tests need that the program does not, behind the features of what they test.
//!
//! A dev-dependency cannot be optional, but its features can: so nobody who tests the program as it
//! is built by default compiles a client of gRPC. Has no code of its own.

#[cfg(feature = "grpc")]
pub use {hyper, hyper_util, prost, prost_build, prost_reflect, protox, tokio, tonic};

#[cfg(feature = "tls")]
pub use {rcgen, rustls, tokio_rustls};
