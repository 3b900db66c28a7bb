//! `ams serve`: answer page views over HTTP and gRPC.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ams_data::ImageKey;
use ams_image::{Encoder, Limits as PictureLimits};
use ams_location::local;
use ams_serve::{Control, Cors, Demo, Limits, PictureEncoder, Settings, Tls, Tokens};
use serde::Serialize;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::commands::encoder::EncoderArguments;
use crate::failure::Failure;
use crate::launch::threads;
use crate::locations::here;
use crate::output::Output;
use crate::threads::thread_count;

/// Serve the models of a folder over HTTP and gRPC: rank page views, and load new versions as they
/// are published. Every flag can also be set by an environment variable (`--admin-bind`:
/// AMS_SERVE_ADMIN_BIND) or by a key of the file --config.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder of models: `MODELS/<model>/<version>/`, as `ams publish --to MODELS` writes
    /// them.
    models: PathBuf,
    /// Read settings from this TOML file: `admin-bind = "0.0.0.0:8601"`. Flags and environment
    /// variables override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address that answers page views. Without --token-file, every client that reaches it is
    /// answered.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8600")]
    bind: SocketAddr,
    /// The address of metrics and of orders to change versions. Without --admin-token-file, every
    /// client that reaches it may change versions.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8601")]
    admin_bind: SocketAddr,
    /// Seconds between two searches for new versions.
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds)]
    poll: f64,
    /// Load no new version without an order to the admin port. Orders are kept in
    /// MODELS/serving.json.
    #[arg(long)]
    explicit: bool,
    /// Serve this version of a model and ignore other decisions about it, for example `shop=3`; can
    /// be given for several models.
    #[arg(long, value_name = "MODEL=VERSION", value_parser = pin)]
    pin: Vec<(String, u64)>,
    /// Versions of a model that stay in memory beside the live one, for a rollback.
    #[arg(long, value_name = "N", default_value_t = 1)]
    keep: usize,
    /// Copy bundles of up to this many megabytes into memory, where changes of their files do no
    /// harm; larger bundles are mapped.
    #[arg(long, value_name = "MB", default_value_t = 4096)]
    copy_below: u64,
    /// Threads that score; the default is the number of cores.
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Threads that score one page view of 512 candidates or more, of those of --threads that have
    /// no request: its answer comes earlier, but a server has no more answers.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = thread_count)]
    page_threads: usize,
    /// Requests that may wait for a thread; further requests are refused with 503.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Milliseconds an answer may take; a request can set less (`options.deadline_ms`).
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    deadline_ms: u64,
    /// Most bytes of the body of a request.
    #[arg(long, value_name = "N", default_value_t = 4 << 20)]
    body_bytes: usize,
    /// Most candidates of a page view.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    candidates: u32,
    /// Most behaviors of a page view.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    behaviors: u32,
    /// Bytes of memory for all requests that are being read or wait for their answer; further
    /// requests are refused with 503.
    #[arg(long, value_name = "N", default_value_t = 256 << 20)]
    request_memory: usize,
    /// Seconds within which the body of a request has to arrive, if the deadline is not shorter.
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    body_timeout: f64,
    /// Most open connections; a further one closes the connection that is idle longest.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Most open connections of one client address; no limit by default. Behind a proxy, all
    /// connections have the proxy's address.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_address: Option<u32>,
    /// Seconds a connection stays open without a request; longer than a load balancer in front
    /// keeps it.
    #[arg(long, value_name = "S", default_value_t = 75.0, value_parser = seconds)]
    idle_timeout: f64,
    /// Seconds without progress after which a response that a client does not read is aborted.
    #[arg(long, value_name = "S", default_value_t = 30.0, value_parser = seconds)]
    write_timeout: f64,
    /// Seconds a client may take for the handshake of TLS, and to answer a ping of HTTP/2.
    #[arg(long, alias = "patience", value_name = "S", default_value_t = 60.0, value_parser = seconds)]
    client_timeout: f64,
    /// Seconds after the signal to stop during which the server reports that it is not ready and
    /// still accepts requests; 0 for none.
    #[arg(long, value_name = "S", default_value_t = 5.0, value_parser = seconds_or_none)]
    lame_duck: f64,
    /// Seconds that running requests have to end after the ports were closed.
    #[arg(long, alias = "farewell", value_name = "S", default_value_t = 30.0, value_parser = seconds)]
    shutdown_grace: f64,
    /// Answer POST /v1/nothing, which reads a body and scores nothing: the control of a benchmark.
    #[arg(long, hide = true)]
    bench_endpoint: bool,
    /// Read outcomes for promotions of canaries from Parquet files as they land:
    /// `DIR/<model>/<any>.parquet` with the columns version, ctr and label. Files that are there
    /// when the server starts do not count.
    #[arg(long, value_name = "DIR")]
    outcomes: Option<PathBuf>,
    /// The format of the log on stderr.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// The level of the log: error, warn, info, debug or trace, or levels of parts of the program
    /// (`warn,ams_serve=debug`); the default is RUST_LOG, or info.
    #[arg(long, value_name = "LEVELS")]
    log_level: Option<String>,
    /// Write a line for every request: its id, route, status and seconds.
    #[arg(long)]
    access_log: bool,
    /// Send spans of requests to this OpenTelemetry collector (OTLP over HTTP), for example
    /// http://localhost:4318; the default is OTEL_EXPORTER_OTLP_ENDPOINT. Needs the feature otel.
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Let another process with this flag bind the same --bind at the same time (SO_REUSEPORT).
    #[arg(long)]
    reuse_port: bool,
    /// A host name under which the admin port accepts requests, beside localhost and addresses; can
    /// be repeated.
    #[arg(long, value_name = "NAME")]
    admin_host: Vec<String>,
    /// An origin whose pages may request page views from a browser (CORS), for example
    /// https://shop.example; can be repeated. `*` allows all origins, and only without tokens.
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Serve the page /demo too: the answers of the models to their sample requests, side by side,
    /// with explanations.
    #[arg(long)]
    demo: bool,
    /// The folder of pictures for /demo, as for `ams encode --images`; the page shows small copies
    /// of them.
    #[arg(long, value_name = "DIR", requires = "demo")]
    demo_pictures: Option<PathBuf>,
    /// File of the tokens for page views, one per line, sent as `Authorization: Bearer TOKEN`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File of the tokens for the admin port, one per line.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// The server's certificate, PEM: both ports are encrypted.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// The authority that has to sign the certificates of clients, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_client_authority: Option<PathBuf>,
    /// Accept new pictures (PUT /admin/models/MODEL/pictures/NAME) and encode them with the models'
    /// encoder.
    #[arg(long)]
    pictures: bool,
    #[command(flatten, next_help_heading = "The encoder, for --pictures")]
    encoder: EncoderArguments,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LogFormat {
    /// Lines of text, for people.
    Text,
    /// An object a line.
    Json,
}

/// The encoder of a command line, for pictures that arrive.
struct ServedEncoder {
    encoder: Box<dyn Encoder>,
    hash: String,
    limits: PictureLimits,
}

impl std::fmt::Debug for ServedEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.encoder.id())
    }
}

impl PictureEncoder for ServedEncoder {
    fn hash(&self) -> &str {
        &self.hash
    }

    fn encode(&self, bytes: &[u8]) -> Result<(ImageKey, Vec<f32>), String> {
        let text = |failure: ams_image::Failure| failure.to_string();
        ams_image::encoder::encode_one(&*self.encoder, bytes, &self.limits).map_err(text)
    }
}

/// What `--json` prints when the ports are open.
#[derive(Debug, Serialize)]
struct Open {
    address: SocketAddr,
    admin_address: SocketAddr,
    tls: bool,
}

/// A time in seconds, more than nothing.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.001..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected 0.001 to 86400 seconds".to_owned())
}

/// A model and a version.
fn pin(text: &str) -> Result<(String, u64), String> {
    let parts = text.rsplit_once('=').filter(|(model, _)| !model.is_empty());
    let parts = parts.and_then(|(model, version)| Some((model.to_owned(), version.parse().ok()?)));
    parts.ok_or_else(|| "expected MODEL=VERSION, such as shop=3".to_owned())
}

/// A time in seconds, which may be nothing.
fn seconds_or_none(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "expected 0 to 86400 seconds".to_owned())
}

pub(crate) fn run(arguments: Arguments, output: Output<'_>) -> Result<(), Failure> {
    log_to_stderr(&arguments)?;
    if let Some(path) = &arguments.config {
        tracing::info!(config = %path.display(), "settings");
    }
    let settings = settings(arguments)?;
    let server = ams_serve::start(&settings).map_err(Failure::user)?;
    let (address, admin_address) = (server.address, server.admin_address);
    let open = Open { address, admin_address, tls: settings.tls.is_some() };
    let say = || {
        output.finish(&open, || {
            let scheme = if open.tls { "https" } else { "http" };
            let page = if settings.demo.is_some() { "/demo" } else { "/docs" };
            format!(
                "page views: {scheme}://{}\nadmin:      {scheme}://{}\nto look at: {scheme}://{}{page}\n",
                open.address, open.admin_address, open.address
            )
        });
    };
    match server.run(say) {
        0 => Ok(()),
        cut => Err(Failure::user(format!(
            "{cut} requests were cut: they were still running at the end of --shutdown-grace"
        ))),
    }
}

/// Where spans go: the whole address of a collector's traces. OpenTelemetry's own variables mean
/// every program of a machine, so one that cannot send spans there says so and serves without.
fn collector(flag: Option<String>) -> Option<String> {
    let traces = |base: String| format!("{}/v1/traces", base.trim_end_matches('/'));
    let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if let Some(base) = flag {
        return Some(traces(base));
    }
    let says = |name, word| variable(name).is_some_and(|it| it.eq_ignore_ascii_case(word));
    let is_off = says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none");
    if is_off || !cfg!(feature = "otel") {
        return None;
    }
    let whole = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let url = whole.or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(traces))?;
    let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
    let protocol = protocol.or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let protocol = protocol.unwrap_or_else(|| "http/protobuf".to_owned());
    if url.starts_with("http://") && protocol == "http/protobuf" {
        return Some(url);
    }
    tracing::warn!(
        url,
        protocol,
        "no spans are sent: OTEL_EXPORTER_OTLP_* name a collector that is not reached by http:// \
         and http/protobuf; --otlp-endpoint names another one"
    );
    None
}

/// One version for each model.
fn pins(pins: Vec<(String, u64)>) -> Result<BTreeMap<String, u64>, Failure> {
    let mut all = BTreeMap::new();
    for (model, version) in pins {
        match all.insert(model.clone(), version) {
            Some(before) if before != version => {
                let what = format!(
                    "--pin: {model} is pinned to {before} and to {version}, expected one version"
                );
                return Err(Failure::user(what));
            }
            _ => {}
        }
    }
    Ok(all)
}

/// Writes the log on stderr from here on: what --log-level lets through, or RUST_LOG, or `info`.
fn log_to_stderr(arguments: &Arguments) -> Result<(), Failure> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let (origin, text) = match (&arguments.log_level, variable) {
        (Some(text), _) => ("--log-level", text.clone()),
        (None, Some(text)) => ("RUST_LOG", text),
        (None, None) => ("--log-level", "info".to_owned()),
    };
    let levels: Targets = text.parse().map_err(|error| {
        let what = format!("{origin} is {text:?}: {error}; expected a level (error, warn, info, debug, trace, off), or some for parts of \
             the program, such as `warn,ams_serve=debug`");
        Failure::user(what)
    })?;
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::TRACE);
    match arguments.log_format {
        LogFormat::Text => log.with_ansi(false).finish().with(levels).init(),
        LogFormat::Json => log.json().flatten_event(true).finish().with(levels).init(),
    }
    Ok(())
}

fn settings(arguments: Arguments) -> Result<Settings, Failure> {
    let tokens = |file: Option<PathBuf>| match file {
        Some(file) => Tokens::read(&file).map_err(Failure::user),
        None => Ok(Tokens::default()),
    };
    here("MODELS", &arguments.models, "the server reads it again at every poll")?;
    if let Some(folder) = &arguments.demo_pictures {
        here("--demo-pictures", folder, "its pictures are read when /demo shows them")?;
        let listed = std::fs::read_dir(folder);
        listed.map_err(|error| Failure::user(format!("{}: {error}", folder.display())))?;
    }
    if let Some(folder) = &arguments.outcomes {
        here("--outcomes", folder, "the server looks for new files at every poll")?;
    }
    let cors = Cors::new(&arguments.cors_origin);
    let cors = cors.map_err(|what| Failure::user(format!("--cors-origin: {what}")))?;
    let (limits, pictures) = (limits(&arguments), pictures(&arguments)?);
    let tls = arguments.tls_certificate.zip(arguments.tls_key);
    Ok(Settings {
        models: arguments.models,
        address: arguments.bind,
        admin_address: arguments.admin_bind,
        control: if arguments.explicit {
            Control::Explicit(Duration::from_secs_f64(arguments.poll))
        } else {
            Control::Poll(Duration::from_secs_f64(arguments.poll))
        },
        pins: pins(arguments.pin)?,
        keep: arguments.keep,
        copied_bytes: arguments.copy_below.saturating_mul(1 << 20),
        threads: threads(arguments.threads),
        page_threads: arguments.page_threads,
        limits,
        tokens: tokens(arguments.token_file)?,
        admin_tokens: tokens(arguments.admin_token_file)?,
        access_log: arguments.access_log,
        otlp: collector(arguments.otlp_endpoint),
        admin_hosts: arguments.admin_host,
        cors,
        reuse_port: arguments.reuse_port,
        bench_endpoint: arguments.bench_endpoint,
        demo: arguments.demo.then_some(Demo { pictures: arguments.demo_pictures }),
        tls: tls.map(|(certificate, key)| Tls {
            certificate,
            key,
            client_authority: arguments.tls_client_authority,
        }),
        outcomes: arguments.outcomes,
        pictures,
    })
}

fn limits(arguments: &Arguments) -> Limits {
    let per_address = arguments.connections_per_address;
    Limits {
        body_bytes: arguments.body_bytes,
        candidates: arguments.candidates as usize,
        behaviors: arguments.behaviors as usize,
        queue: arguments.queue as usize,
        connections: arguments.connections as usize,
        deadline: Duration::from_millis(arguments.deadline_ms),
        connections_per_address: per_address.map_or(usize::MAX, |most| most as usize),
        request_memory: arguments.request_memory,
        body_timeout: Duration::from_secs_f64(arguments.body_timeout),
        idle_timeout: Duration::from_secs_f64(arguments.idle_timeout),
        write_timeout: Duration::from_secs_f64(arguments.write_timeout),
        client_timeout: Duration::from_secs_f64(arguments.client_timeout),
        lame_duck: Duration::from_secs_f64(arguments.lame_duck),
        shutdown_grace: Duration::from_secs_f64(arguments.shutdown_grace),
    }
}

/// The encoder of pictures that arrive, if --pictures asks for one.
fn pictures(arguments: &Arguments) -> Result<Option<Arc<dyn PictureEncoder>>, Failure> {
    if !arguments.pictures {
        return Ok(None);
    }
    if arguments.encoder.is_precomputed() {
        let what =
            "--encoder precomputed takes no pictures; --pictures needs an encoder of pictures";
        return Err(Failure::user(what.to_owned()));
    }
    let encoder = arguments.encoder.open(|path| local(path).map_err(Failure::from))?;
    let (hash, limits) = (encoder.hash(), PictureLimits::default());
    Ok(Some(Arc::new(ServedEncoder { encoder, hash, limits })))
}
