//! The server from start to stop.
//!
//! ```text
//! signal to stop: not ready, accepts requests
//!   --lame duck-->       ports closed, running requests end
//!   --shutdown grace-->  ended
//! second signal, at any time: ended
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connections::Connections;
use crate::encryption::Encryption;
use crate::listen::{Port, Sharing, Stage};
use crate::models::Models;
use crate::outcome_parts::OutcomeParts;
use crate::reload::{Reload, Reloader, Trigger};
use crate::settings::{Control, Limits, Settings};
use crate::state::ServerState;
use crate::telemetry::Telemetry;
use crate::{admin, notify, routes, system};

/// Pause between two upkeeps of metrics and of freed memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Pause between two checks of files of tokens and certificates.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Open files beside connections: models, logs, ports, the runtime.
const OWN_FILES: u64 = 64;

/// Most connections of the admin port: a few people, a scraper, probes.
const ADMIN_CONNECTIONS: usize = 64;

/// Peak bytes of bodies from which freed memory is returned to the operating system.
const BURST: usize = 1 << 20;

/// A running server: its runtime, its ports and their state.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    server: Arc<ServerState>,
    reloader: Arc<Reloader>,
    stage: watch::Sender<Stage>,
    ports: Vec<JoinHandle<usize>>,
    /// The bound address of page views.
    pub address: SocketAddr,
    /// The bound address of the admin port.
    pub admin_address: SocketAddr,
}

/// Starts a server: binds both ports, then loads the models. It reports at once that it is alive,
/// and that it is ready once all models were searched for and one serves.
///
/// # Errors
/// If a port cannot be bound, the folder of models or a file of TLS cannot be read, or settings
/// contradict each other.
pub fn start(settings: &Settings) -> Result<Server, String> {
    let listed = std::fs::read_dir(&settings.models);
    listed.map_err(|error| format!("{}: {error}", settings.models.display()))?;
    if settings.cors.is_for_all() && !settings.tokens.is_open() {
        let what = "--cors-origin * and --token-file exclude each other; name the origins that may send requests";
        return Err(what.to_owned());
    }
    let encryption = settings.tls.as_ref().map(Encryption::read).transpose()?;
    let system = |error: std::io::Error| format!("the operating system: {error}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(system)?;
    let _inside = runtime.enter();
    let server = ServerState::new(settings)?;
    let (connections, admin_connections) = connections(&settings.limits);
    let bind = |address: SocketAddr, sharing, connections| {
        let (encryption, traffic) = (encryption.clone(), &server.traffic);
        let port = Port::bind(address, sharing, encryption, connections, settings.limits, traffic);
        port.map_err(|error| format!("{address}: {error}"))
    };
    let sharing = if settings.reuse_port { Sharing::Reused } else { Sharing::Alone };
    let port = bind(settings.address, sharing, connections)?;
    let admin_port = bind(settings.admin_address, Sharing::Alone, admin_connections)?;
    let address = port.address().map_err(system)?;
    let admin_address = admin_port.address().map_err(system)?;
    if !admin_address.ip().is_loopback() && settings.admin_tokens.is_open() {
        tracing::warn!(%admin_address, "every client that reaches the admin port may change versions; --admin-token-file restricts it");
    }
    let registries = [port.connections(), admin_port.connections()];
    let (stage, reached) = watch::channel(Stage::Serving);
    let (ready, is_ready) = watch::channel(false);
    let serve = |port: Port, router| {
        let open = server.telemetry.connections.clone();
        runtime.spawn(port.serve(router, reached.clone(), is_ready.clone(), open))
    };
    let ports =
        vec![serve(port, routes::router(&server)), serve(admin_port, admin::router(&server))];
    let (models, telemetry) = (Arc::clone(&server.models), Arc::clone(&server.telemetry));
    runtime.spawn(watch_models(models, telemetry, settings.control, ready));
    if let Some(folder) = &settings.outcomes {
        let parts = Arc::new(OutcomeParts::new(folder, &server.telemetry)?);
        runtime.spawn(watch_outcomes(parts, Arc::clone(&server), settings.control));
    }
    runtime.spawn(upkeep(Arc::clone(&server), registries));
    let mut secrets: Vec<Box<dyn Reload>> =
        vec![Box::new(settings.tokens.clone()), Box::new(settings.admin_tokens.clone())];
    secrets.extend(encryption.map(|encryption| Box::new(encryption) as Box<dyn Reload>));
    let reloader = Arc::new(Reloader::new(secrets, Arc::clone(&server.traffic)));
    let looking = Arc::clone(&reloader);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            check_files(&looking, Trigger::Timer).await;
        }
    });
    drop(_inside);
    Ok(Server { runtime, server, reloader, stage, ports, address, admin_address })
}

/// The limits of connections of both ports: the configured one, lowered to the limit of open files.
fn connections(limits: &Limits) -> (usize, usize) {
    let files = system::open_files();
    let room = files.map_or(u64::MAX, |files| files.saturating_sub(OWN_FILES));
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let admin = limits.connections.min(ADMIN_CONNECTIONS).min(room / 4).max(1);
    let most = limits.connections.min(room.saturating_sub(admin)).max(1);
    match files {
        Some(files) if most < limits.connections => {
            let set = limits.connections;
            tracing::warn!(
                files,
                connections = most,
                set,
                "the limit of connections is lowered to the limit of open files"
            );
        }
        files => tracing::info!(?files, connections = most, "limits of open files and connections"),
    }
    (most, admin)
}

async fn check_files(reloader: &Arc<Reloader>, trigger: Trigger) {
    let reloader = Arc::clone(reloader);
    let _ = tokio::task::spawn_blocking(move || reloader.check(trigger)).await;
}

/// Runs the upkeep of metrics, and returns freed memory after large bodies or closed connections.
async fn upkeep(server: Arc<ServerState>, registries: [Arc<Connections>; 2]) {
    loop {
        tokio::time::sleep(UPKEEP_INTERVAL).await;
        server.telemetry.upkeep();
        let closed: usize = registries.iter().map(|registry| registry.take_closed()).sum();
        if closed > 0 || server.memory.peak() > BURST {
            let _ = tokio::task::spawn_blocking(system::give_back).await;
        }
    }
}

/// Polls the folder of models at the start and then at every pause of `control`.
async fn watch_models(
    models: Arc<Models>,
    telemetry: Arc<Telemetry>,
    control: Control,
    ready: watch::Sender<bool>,
) {
    loop {
        let looking = Arc::clone(&models);
        match tokio::task::spawn_blocking(move || looking.poll()).await {
            Ok(Ok(())) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                telemetry.last_good_poll.set(now.map_or(0.0, |now| now.as_secs_f64()));
            }
            Ok(Err(error)) => {
                telemetry.poll_failures.increment(1);
                tracing::error!(%error, "polling the folder of models failed");
            }
            // The panic's own message is on stderr; the next poll may find valid files.
            Err(error) => {
                telemetry.poll_failures.increment(1);
                tracing::error!(%error, "polling the folder of models panicked");
            }
        }
        if models.ready() && !ready.send_replace(true) {
            notify::send("READY=1");
        }
        let (Control::Poll(pause) | Control::Explicit(pause)) = control;
        tokio::time::sleep(pause).await;
    }
}

/// Looks at the folder of outcomes at every pause of `control`.
async fn watch_outcomes(parts: Arc<OutcomeParts>, server: Arc<ServerState>, control: Control) {
    loop {
        let (Control::Poll(pause) | Control::Explicit(pause)) = control;
        tokio::time::sleep(pause).await;
        let (looking, models) = (Arc::clone(&parts), Arc::clone(&server.models));
        let error = match tokio::task::spawn_blocking(move || looking.look(&models)).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(panic) => panic.to_string(),
        };
        server.telemetry.outcome_look_failures.increment(1);
        tracing::error!(error, "looking at the folder of outcomes failed");
    }
}

impl Server {
    /// Calls `open` once signals are handled, and waits for SIGTERM or Ctrl-C. Then it reports that
    /// it is not ready for the time of the lame duck, and stops as [`Server::stop`] does. A
    /// second signal ends it at once; SIGHUP reloads files of tokens and certificates. Returns
    /// how many requests were cut.
    pub fn run(self, open: impl FnOnce()) -> usize {
        let mut signals = self.runtime.block_on(async { Signals::new() });
        open();
        let Limits { lame_duck, .. } = self.server.limits;
        self.runtime.block_on(async {
            while signals.next().await == Signal::Reload {
                check_files(&self.reloader, Trigger::Signal).await;
            }
            self.server.stopping.store(true, Ordering::Relaxed);
            let _ = self.stage.send(Stage::Leaving);
            notify::send("STOPPING=1");
            tracing::info!(
                ?lame_duck,
                "stopping: the server is not ready, and its ports close after the lame duck"
            );
            tokio::select! {
                () = tokio::time::sleep(lame_duck) => {}
                () = signals.stop() => {
                    let _ = self.stage.send(Stage::Cut);
                }
            }
        });
        self.end(signals.stop())
    }

    /// Closes both ports, waits for running requests within the shutdown grace, and returns how
    /// many were cut.
    pub fn stop(self) -> usize {
        self.server.stopping.store(true, Ordering::Relaxed);
        self.end(std::future::pending())
    }

    fn end(self, asked_again: impl Future<Output = ()>) -> usize {
        let Server { runtime, server, stage, ports, .. } = self;
        stage.send_modify(|stage| *stage = (*stage).max(Stage::Closing));
        let ended = async {
            let mut cut = 0;
            for port in ports {
                cut += port.await.unwrap_or_default();
            }
            cut
        };
        let cut = runtime.block_on(async {
            let mut ended = std::pin::pin!(ended);
            tokio::select! {
                cut = &mut ended => return cut,
                () = asked_again => {}
            }
            let _ = stage.send(Stage::Cut);
            ended.await
        });
        match cut {
            0 => tracing::info!("stopped; all requests were answered"),
            requests => tracing::warn!(requests, "stopped; some requests were cut"),
        }
        if let Some(spans) = &server.spans {
            spans.flush();
        }
        // The loading of a version is not awaited.
        runtime.shutdown_timeout(server.limits.shutdown_grace.min(Duration::from_secs(1)));
        cut
    }
}

/// The effect of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Stop,
    Reload,
}

/// Handlers of the signals of the process; earlier signals have their default effect.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Signals {
        use tokio::signal::unix::{SignalKind, signal};
        let heard = |kind| signal(kind).expect("signals can be waited for");
        Signals {
            terminate: heard(SignalKind::terminate()),
            interrupt: heard(SignalKind::interrupt()),
            hang_up: heard(SignalKind::hangup()),
        }
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}

/// Ctrl-C, on systems without signals.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Signals {
        Signals
    }

    async fn next(&mut self) -> Signal {
        let _ = tokio::signal::ctrl_c().await;
        Signal::Stop
    }

    async fn stop(&mut self) {
        self.next().await;
    }
}
