//! The whole server, from start to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::encryption::Encryption;
use crate::listen::Port;
use crate::models::Models;
use crate::settings::{Control, Settings};
use crate::shared::Shared;
use crate::telemetry::Telemetry;
use crate::{admin, notify, routes};

/// How often what was observed is sorted into buckets.
const TIDY: Duration = Duration::from_secs(5);

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    ports: Vec<JoinHandle<()>>,
    farewell: Duration,
    /// Where page views are asked for.
    pub address: SocketAddr,
    /// Where it is watched and told what to serve.
    pub admin_address: SocketAddr,
}

/// Starts a server: binds both ports, then loads the models while it answers already that it lives, and is ready once
/// every model has a live version.
///
/// # Errors
/// If a port, a file of the encryption, or the folder of models is not to be had; what was expected.
pub fn start(settings: &Settings) -> Result<Server, String> {
    let listed = std::fs::read_dir(&settings.models);
    listed.map_err(|error| format!("{}: {error}", settings.models.display()))?;
    let encryption = settings.tls.as_ref().map(Encryption::read).transpose()?;
    let system = |error: std::io::Error| format!("the operating system: {error}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(system)?;
    let shared = Shared::new(settings).map_err(system)?;
    let bind = |address: SocketAddr| {
        let port = Port::bind(address, encryption.clone(), settings.limits);
        runtime.block_on(port).map_err(|error| format!("{address}: {error}"))
    };
    let (port, admin_port) = (bind(settings.address)?, bind(settings.admin_address)?);
    let address = port.address().map_err(system)?;
    let admin_address = admin_port.address().map_err(system)?;
    let (stop, stopped) = watch::channel(false);
    let open = &shared.telemetry.connections;
    let ports = vec![
        runtime.spawn(port.serve(routes::router(&shared), stopped.clone(), open.clone())),
        runtime.spawn(admin_port.serve(admin::router(&shared), stopped.clone(), open.clone())),
    ];
    let telemetry = Arc::clone(&shared.telemetry);
    let models = Arc::clone(&shared.models);
    runtime.spawn(watch_models(models, Arc::clone(&telemetry), settings.control));
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(TIDY).await;
            telemetry.tidy();
        }
    });
    let farewell = settings.limits.farewell;
    Ok(Server { runtime, shared, stop, ports, farewell, address, admin_address })
}

/// Looks for versions: at the start, and then as often as is set.
async fn watch_models(models: Arc<Models>, telemetry: Arc<Telemetry>, control: Control) {
    let mut told = false;
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
        if models.ready() && !told {
            notify::say("READY=1");
            told = true;
        }
        let (Control::Poll(pause) | Control::Explicit(pause)) = control;
        tokio::time::sleep(pause).await;
    }
}

impl Server {
    /// Waits for SIGTERM or Ctrl-C, then stops.
    pub fn run(self) {
        self.runtime.block_on(asked_to_stop());
        tracing::info!("stopping");
        notify::say("STOPPING=1");
        self.stop();
    }

    /// Is ready for nothing more, answers what is being asked, and ends.
    pub fn stop(self) {
        let Server { runtime, shared, stop, ports, farewell, .. } = self;
        shared.stopping.store(true, Ordering::Relaxed);
        let _ = stop.send(true);
        runtime.block_on(async {
            for port in ports {
                let _ = port.await;
            }
        });
        // A version that is being loaded is not waited for.
        runtime.shutdown_timeout(farewell.min(Duration::from_secs(1)));
    }
}

#[cfg(unix)]
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(not(unix))]
async fn asked_to_stop() {
    let _ = tokio::signal::ctrl_c().await;
}
