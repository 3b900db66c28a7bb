//! The whole server, from start to stop.
//!
//! ```text
//! asked to stop: not ready, answers still --lame duck--> ports closed, answers what came --farewell--> ended
//! asked again, at any time: ended
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::encryption::Encryption;
use crate::listen::{Port, Sharing, Stage};
use crate::models::Models;
use crate::renewal::{Look, Renewal, Renewed};
use crate::seats::Room;
use crate::settings::{Control, Limits, Settings};
use crate::shared::Shared;
use crate::telemetry::Telemetry;
use crate::{admin, notify, routes, system};

/// How often what was observed is sorted into buckets, and memory that was freed is given back.
const TIDY: Duration = Duration::from_secs(5);

/// How often files of tokens and certificates are looked at.
const RENEWED: Duration = Duration::from_secs(2);

/// Open files that are no connections: models, logs, ports, what the runtime needs.
const OWN_FILES: u64 = 64;

/// Connections of the admin port: a few people, a scraper, probes.
const ADMIN_CONNECTIONS: usize = 64;

/// Bytes of bodies after which memory is given back.
const BURST: usize = 1 << 20;

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    shared: Arc<Shared>,
    renewal: Arc<Renewal>,
    stage: watch::Sender<Stage>,
    ports: Vec<JoinHandle<usize>>,
    /// Where page views are asked for.
    pub address: SocketAddr,
    /// Where it is watched and told what to serve.
    pub admin_address: SocketAddr,
}

/// Starts a server: binds both ports, then loads the models while it answers already that it lives,
/// and is ready once every model has a live version.
///
/// # Errors
/// If a port, a file of the encryption, or the folder of models is not to be had; what was
/// expected.
pub fn start(settings: &Settings) -> Result<Server, String> {
    let listed = std::fs::read_dir(&settings.models);
    listed.map_err(|error| format!("{}: {error}", settings.models.display()))?;
    if settings.cors.is_for_all() && !settings.tokens.is_open() {
        let what = "--cors-origin *: pages of all hosts may ask only where no token is needed; name those that may";
        return Err(what.to_owned());
    }
    let encryption = settings.tls.as_ref().map(Encryption::read).transpose()?;
    let system = |error: std::io::Error| format!("the operating system: {error}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(system)?;
    let _inside = runtime.enter();
    let shared = Shared::new(settings)?;
    let (connections, admin_connections) = connections(&settings.limits);
    let bind = |address: SocketAddr, sharing, connections| {
        let (encryption, traffic) = (encryption.clone(), &shared.traffic);
        let port = Port::bind(address, sharing, encryption, connections, settings.limits, traffic);
        port.map_err(|error| format!("{address}: {error}"))
    };
    let sharing = if settings.reuse_port { Sharing::Reused } else { Sharing::Alone };
    let port = bind(settings.address, sharing, connections)?;
    let admin_port = bind(settings.admin_address, Sharing::Alone, admin_connections)?;
    let address = port.address().map_err(system)?;
    let admin_address = admin_port.address().map_err(system)?;
    if !admin_address.ip().is_loopback() && settings.admin_tokens.is_open() {
        tracing::warn!(%admin_address, "everybody who reaches the admin port may change what is served: --admin-token-file says who may");
    }
    let rooms = [port.room(), admin_port.room()];
    let (stage, reached) = watch::channel(Stage::Serving);
    let (ready, is_ready) = watch::channel(false);
    let serve = |port: Port, router| {
        let open = shared.telemetry.connections.clone();
        runtime.spawn(port.serve(router, reached.clone(), is_ready.clone(), open))
    };
    let ports =
        vec![serve(port, routes::router(&shared)), serve(admin_port, admin::router(&shared))];
    let (models, telemetry) = (Arc::clone(&shared.models), Arc::clone(&shared.telemetry));
    runtime.spawn(watch_models(models, telemetry, settings.control, ready));
    runtime.spawn(tidy(Arc::clone(&shared), rooms));
    let mut secrets: Vec<Box<dyn Renewed>> =
        vec![Box::new(settings.tokens.clone()), Box::new(settings.admin_tokens.clone())];
    secrets.extend(encryption.map(|encryption| Box::new(encryption) as Box<dyn Renewed>));
    let renewal = Arc::new(Renewal::new(secrets, Arc::clone(&shared.traffic)));
    let looking = Arc::clone(&renewal);
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(RENEWED).await;
            look(&looking, Look::Clock).await;
        }
    });
    drop(_inside);
    Ok(Server { runtime, shared, renewal, stage, ports, address, admin_address })
}

/// How many connections each port may have: as many as are set, and not more than files may be
/// open.
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
                "fewer connections: fewer files may be open"
            );
        }
        files => tracing::info!(?files, connections = most, "open files and connections, at most"),
    }
    (most, admin)
}

async fn look(renewal: &Arc<Renewal>, how: Look) {
    let renewal = Arc::clone(renewal);
    let _ = tokio::task::spawn_blocking(move || renewal.look(how)).await;
}

/// Sorts what was observed, and gives memory back after bodies or connections that needed some.
async fn tidy(shared: Arc<Shared>, rooms: [Arc<Room>; 2]) {
    loop {
        tokio::time::sleep(TIDY).await;
        shared.telemetry.tidy();
        let ended: usize = rooms.iter().map(|room| room.ended()).sum();
        if ended > 0 || shared.memory.peak() > BURST {
            let _ = tokio::task::spawn_blocking(system::give_back).await;
        }
    }
}

/// Looks for versions: at the start, and then as often as is set.
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
                tracing::error!(%error, "looking for models");
            }
            // The panic's own message is on stderr; the next look may find better files.
            Err(error) => {
                telemetry.poll_failures.increment(1);
                tracing::error!(%error, "looking for models");
            }
        }
        if models.ready() && !ready.send_replace(true) {
            notify::say("READY=1");
        }
        let (Control::Poll(pause) | Control::Explicit(pause)) = control;
        tokio::time::sleep(pause).await;
    }
}

impl Server {
    /// Says `open` once signals are heard, and waits for SIGTERM or Ctrl-C; then is not ready for
    /// the limits' lame duck, and ends as [`Server::stop`] does. A second signal ends it at
    /// once. SIGHUP has files of tokens and certificates read again. How many requests were
    /// cut.
    pub fn run(self, open: impl FnOnce()) -> usize {
        let mut signals = self.runtime.block_on(async { Signals::new() });
        open();
        let Limits { lame_duck, .. } = self.shared.limits;
        self.runtime.block_on(async {
            while signals.next().await == Signal::Renew {
                look(&self.renewal, Look::Asked).await;
            }
            self.shared.stopping.store(true, Ordering::Relaxed);
            let _ = self.stage.send(Stage::Leaving);
            notify::say("STOPPING=1");
            tracing::info!(
                ?lame_duck,
                "stopping: not ready, and the ports close after the lame duck"
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

    /// Is ready for nothing more, answers what is being asked, and ends. How many requests were
    /// cut.
    pub fn stop(self) -> usize {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.end(std::future::pending())
    }

    fn end(self, asked_again: impl Future<Output = ()>) -> usize {
        let Server { runtime, shared, stage, ports, .. } = self;
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
            0 => tracing::info!("stopped; nothing was cut"),
            requests => tracing::warn!(requests, "stopped; requests were cut"),
        }
        if let Some(spans) = &shared.spans {
            spans.flush();
        }
        // A version that is being loaded is not waited for.
        runtime.shutdown_timeout(shared.limits.farewell.min(Duration::from_secs(1)));
        cut
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    /// To end.
    Stop,
    /// To read files again.
    Renew,
}

/// The signals of the process, from when this was made on.
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
            _ = self.hang_up.recv() => Signal::Renew,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}

/// Ctrl-C, where there are no signals.
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
