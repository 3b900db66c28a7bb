//! What can be set of a server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cors::Cors;
use crate::edits::Pictures;
use crate::token::Tokens;

/// A server's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of models.
    pub models: PathBuf,
    /// Where page views are asked for.
    pub address: SocketAddr,
    /// Where the server is watched and told what to serve.
    pub admin_address: SocketAddr,
    /// When versions become live.
    pub control: Control,
    /// Versions that serve whatever else is decided, by model.
    pub pins: BTreeMap<String, u64>,
    /// Versions of a model that stay in memory to go back to.
    pub keep: usize,
    /// Bundles of up to so many bytes are copied into memory; larger ones are read where they are.
    pub copied_bytes: u64,
    /// Threads that score.
    pub threads: usize,
    /// What is too much.
    pub limits: Limits,
    /// Who may ask.
    pub tokens: Tokens,
    /// Who may watch and change.
    pub admin_tokens: Tokens,
    /// Whether every request is written into the log.
    pub access_log: bool,
    /// The collector of OpenTelemetry that spans of requests are sent to: the whole address of its
    /// traces, if there is one.
    pub otlp: Option<String>,
    /// Names, beside `localhost` and all addresses, that the admin port may be asked by.
    pub admin_hosts: Vec<String>,
    /// The pages of other hosts that may ask for page views.
    pub cors: Cors,
    /// Whether another process may bind the same address of page views meanwhile.
    pub reuse_port: bool,
    /// The page to look at page views with, if it is served.
    pub demo: Option<Demo>,
    /// Encryption of both ports, if any.
    pub tls: Option<Tls>,
    /// The encoder behind the models, for new pictures.
    pub pictures: Option<Arc<dyn Pictures>>,
}

/// When versions become live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The highest good version of every model, looked for so often.
    Poll(Duration),
    /// The highest good version when a server sees a model first; later only what an admin port is
    /// told. Decisions and deltas are looked for so often.
    Explicit(Duration),
}

/// What is too much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Candidates of a page view.
    pub candidates: usize,
    /// Behaviors of a user, of which a model sees the newest.
    pub behaviors: usize,
    /// Requests that wait for a thread; more are turned away.
    pub queue: usize,
    /// Open connections; for another one the longest idle one is closed, or it waits if all are at
    /// work.
    pub connections: usize,
    /// How long an answer may take; a request may ask for less.
    pub deadline: Duration,
    /// Open connections of one address; more are closed at once.
    pub connections_per_address: usize,
    /// Bytes of all bodies that are being read, or wait to be answered; more are turned away.
    pub request_memory: usize,
    /// How long the body of a request may take, if not the deadline is shorter.
    pub body_timeout: Duration,
    /// How long a connection may be without a request that is whole up to its body.
    pub idle_timeout: Duration,
    /// How long a client may take none of what is sent to it.
    pub write_timeout: Duration,
    /// How long a client may take for the handshake of encryption, and to answer a ping of HTTP/2.
    pub patience: Duration,
    /// How long the server, asked to stop, says that it is not ready and answers still.
    pub lame_duck: Duration,
    /// How long requests that are being answered get when the server stops.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 4 << 20,
            candidates: 10_000,
            behaviors: 10_000,
            queue: 64,
            connections: 4096,
            deadline: Duration::from_secs(1),
            connections_per_address: usize::MAX,
            request_memory: 256 << 20,
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            patience: Duration::from_secs(60),
            lame_duck: Duration::from_secs(5),
            farewell: Duration::from_secs(30),
        }
    }
}

/// What the page to look at page views with shows.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The folder that names of pictures are relative to; none: no pictures.
    pub pictures: Option<PathBuf>,
}

/// Files of a certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate and those it rests on, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Who signs the certificates clients must have, PEM; none: clients need no certificate.
    pub client_authority: Option<PathBuf>,
}
