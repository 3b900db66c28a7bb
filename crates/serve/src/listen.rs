//! Connections: accepted as long as there is room, encrypted if set so, and ended when a client dawdles.
//!
//! HTTP/1.1 and HTTP/2 on one port; which one, the first bytes say, or the encryption's handshake.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Sleep, sleep, timeout};

use crate::encryption::Encryption;
use crate::settings::Limits;

/// HTTP/2 requests of one connection at once.
const STREAMS: u32 = 200;

/// Bytes of the heads of an HTTP/2 request.
const HEADS: u32 = 16 << 10;

/// A port that is bound.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    encryption: Option<Encryption>,
    limits: Limits,
}

impl Port {
    /// Binds `address`.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub async fn bind(
        address: SocketAddr,
        encryption: Option<Encryption>,
        limits: Limits,
    ) -> io::Result<Port> {
        Ok(Port { listener: TcpListener::bind(address).await?, encryption, limits })
    }

    /// The address, with the number the operating system chose for port 0.
    ///
    /// # Errors
    /// If the operating system does not know.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `router` until `stop` changes; then accepts nothing more, and gives requests that are being answered the limits'
    /// farewell.
    pub async fn serve(self, router: Router, mut stop: watch::Receiver<bool>, open: Gauge) {
        let Port { listener, encryption, limits } = self;
        let (graceful, room) =
            (GracefulShutdown::new(), Arc::new(Semaphore::new(limits.connections)));
        loop {
            let accepted = async {
                let room = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, room)
            };
            let (accepted, room) = tokio::select! {
                accepted = accepted => accepted,
                _ = stop.changed() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Such as too many open files: it passes when connections end.
                    tracing::warn!(%error, "not accepted");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (router, encryption, watcher) =
                (router.clone(), encryption.clone(), graceful.watcher());
            let open = open.clone();
            tokio::spawn(async move {
                open.increment(1.0);
                // What goes wrong with a connection is its client's to see.
                let _ = connection(stream, encryption, router, limits, watcher).await;
                open.decrement(1.0);
                drop(room);
            });
        }
        drop(listener);
        if timeout(limits.farewell, graceful.shutdown()).await.is_err() {
            tracing::warn!("connections were cut: their requests took too long");
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    encryption: Option<Encryption>,
    router: Router,
    limits: Limits,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        // Who has sent a request may close that half, as `nc -N` does, and still read the answer.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADS)
        .keep_alive_interval(limits.patience)
        .keep_alive_timeout(limits.patience);
    let service = TowerToHyperService::new(router);
    match encryption {
        None => {
            let io = TokioIo::new(Prompt::new(stream, limits.patience));
            watcher.watch(builder.serve_connection(io, service).into_owned()).await
        }
        Some(encryption) => {
            let stream = timeout(limits.patience, encryption.accept(stream)).await??;
            let io = TokioIo::new(Prompt::new(stream, limits.patience));
            watcher.watch(builder.serve_connection(io, service).into_owned()).await
        }
    }
}

/// Bytes after which a connection has said what it speaks: HTTP/2's preface.
const PREFACE: usize = 24;

/// A stream whose first bytes have to come within some time: until a protocol is known, nothing else watches the
/// clock.
struct Prompt<S> {
    stream: S,
    left: usize,
    patience: Pin<Box<Sleep>>,
}

impl<S> Prompt<S> {
    fn new(stream: S, patience: Duration) -> Prompt<S> {
        Prompt { stream, left: PREFACE, patience: Box::pin(sleep(patience)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.left > 0 {
            self.left = self.left.saturating_sub(buffer.filled().len() - before);
            if polled.is_pending() && self.patience.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
