//! Settings of a server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cors::Cors;
use crate::edits::PictureEncoder;
use crate::token::Tokens;

/// Settings of a server; [`crate::start`] takes them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of models, `<model>/<version>/`.
    pub models: PathBuf,
    /// The address of page views.
    pub address: SocketAddr,
    /// The address of the admin port.
    pub admin_address: SocketAddr,
    /// Whether new versions become live without an order.
    pub control: Control,
    /// Pinned versions by model; they override decisions of operators.
    pub pins: BTreeMap<String, u64>,
    /// Versions of a model that stay in memory beside the live one, for a rollback.
    pub keep: usize,
    /// Bundles of up to this many bytes are copied into memory; larger ones are mapped.
    pub copied_bytes: u64,
    /// Number of compute threads.
    pub threads: usize,
    /// Most compute threads that score one page view; those without a request help.
    pub page_threads: usize,
    /// Limits of requests and connections.
    pub limits: Limits,
    /// Tokens for page views.
    pub tokens: Tokens,
    /// Tokens for the admin port.
    pub admin_tokens: Tokens,
    /// Whether every request has a line in the log.
    pub access_log: bool,
    /// The URL for traces of an OpenTelemetry collector, if spans are exported.
    pub otlp: Option<String>,
    /// Host names of the admin port, beside `localhost` and all addresses.
    pub admin_hosts: Vec<String>,
    /// Origins whose pages may request page views.
    pub cors: Cors,
    /// Whether another process may bind the address of page views at the same time.
    pub reuse_port: bool,
    /// Whether to serve `/v1/nothing`, the control of a benchmark.
    pub bench_endpoint: bool,
    /// The page `/demo`, if it is served.
    pub demo: Option<Demo>,
    /// Files for the encryption of both ports, if they are encrypted.
    pub tls: Option<Tls>,
    /// The folder of outcomes, `<model>/<any>.parquet`, if they are read from files too.
    pub outcomes: Option<PathBuf>,
    /// The encoder of the models, for new pictures.
    pub pictures: Option<Arc<dyn PictureEncoder>>,
}

impl Settings {
    /// Settings for the models in a folder: free ports of this host, one thread for each core, one
    /// of them for a page view, and the default limits.
    pub fn new(models: impl Into<PathBuf>) -> Settings {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Settings {
            models: models.into(),
            address: any_port,
            admin_address: any_port,
            control: Control::Poll(Duration::from_secs(5)),
            pins: BTreeMap::new(),
            keep: 1,
            copied_bytes: u64::MAX,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            page_threads: 1,
            limits: Limits::default(),
            tokens: Tokens::default(),
            admin_tokens: Tokens::default(),
            access_log: false,
            otlp: None,
            admin_hosts: Vec::new(),
            cors: Cors::default(),
            reuse_port: false,
            bench_endpoint: false,
            demo: None,
            tls: None,
            outcomes: None,
            pictures: None,
        }
    }
}

/// Whether new versions become live without an order. The duration is the pause between polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The highest valid version of every model becomes live.
    Poll(Duration),
    /// The highest valid version becomes live when a server first finds the model; later versions
    /// become live by orders only.
    Explicit(Duration),
}

/// Limits of requests and connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes of the body of a request.
    pub body_bytes: usize,
    /// Most candidates of a page view.
    pub candidates: usize,
    /// Most behaviors of a page view; a model uses the newest of them.
    pub behaviors: usize,
    /// Most requests that wait for a thread; further ones are refused with 503.
    pub queue: usize,
    /// Most open connections; a further one closes the one that is idle longest, or waits if none
    /// is idle.
    pub connections: usize,
    /// Time for an answer; a request can set less.
    pub deadline: Duration,
    /// Most open connections of one address; further ones are closed at once.
    pub connections_per_address: usize,
    /// Most bytes of all bodies that are being read or wait for their answer.
    pub request_memory: usize,
    /// Time for the body of a request to arrive, if the deadline is not shorter.
    pub body_timeout: Duration,
    /// Time a connection stays open without a request whose head is complete.
    pub idle_timeout: Duration,
    /// Time a response may make no progress because the client does not read it.
    pub write_timeout: Duration,
    /// Time for the handshake of TLS, and for the answer to a ping of HTTP/2.
    pub client_timeout: Duration,
    /// Time after the signal to stop during which the server reports that it is not ready and
    /// still accepts requests.
    pub lame_duck: Duration,
    /// Time for running requests to end after the ports were closed.
    pub shutdown_grace: Duration,
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
            client_timeout: Duration::from_secs(60),
            lame_duck: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

/// Settings of the page `/demo`.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The folder of pictures, to which their names are relative; without it the page has none.
    pub pictures: Option<PathBuf>,
}

/// Files of a certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority that signs certificates of clients, PEM; without it clients need none.
    pub client_authority: Option<PathBuf>,
}
