//! Connections: accepted while the limits allow, encrypted if set so, and ended when a client
//! dawdles.
//!
//! HTTP/1.1 and HTTP/2 on one port; which one, the first bytes say, or the encryption's handshake.
//! What a connection does is told to its [`ConnectionSlot`], which says when it has done nothing
//! for too long. In the end ([`Stage`]) answers ask clients of HTTP/1 to come no more, then
//! the port closes, HTTP/2 says so (GOAWAY), and what is being answered gets a while.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, Version};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use metrics::Gauge;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep, sleep_until, timeout};

use crate::connections::{ActiveRequest, ConnectionSlot, Connections, Due, LogThrottle};
use crate::encryption::Encryption;
use crate::settings::Limits;
use crate::traffic::TrafficMetrics;

/// HTTP/2 requests of one connection at once.
const STREAMS: u32 = 100;

/// Bytes of the heads of an HTTP/2 request.
const HEADS: u32 = 16 << 10;

/// Bytes of a body that an HTTP/2 client may send before they are read, of one stream and of all of
/// a connection.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Bytes of a buffer of a connection, for the head of a request and for what is written.
const BUFFER: usize = 64 << 10;

/// Connections that the operating system keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// How long a connection that has to end and is not being answered may stay: to be told, and to
/// send what it was about to.
const PARTING: Duration = Duration::from_secs(1);

/// How far the end of a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The server runs as usual.
    Serving,
    /// All is as before, but clients are asked to go elsewhere.
    Leaving,
    /// No connection is accepted, and those without a request are closed.
    Closing,
    /// Running requests are cut.
    Cut,
}

/// Waits until the end is so far. A server that is gone is at its end.
async fn reached(stage: &mut watch::Receiver<Stage>, at: Stage) {
    let _ = stage.wait_for(|&stage| stage >= at).await;
}

/// A port that is bound.
#[derive(Debug)]
pub(crate) struct Port {
    bound: Bound,
    encryption: Option<Encryption>,
    limits: Limits,
    connections: Arc<Connections>,
    traffic: Arc<TrafficMetrics>,
}

/// A bound port that is not served yet.
#[derive(Debug)]
enum Bound {
    /// Clients are let in and wait.
    Listening(TcpListener),
    /// Clients of the same address are another process's.
    Waiting(TcpSocket),
}

impl Bound {
    /// The listener, once clients may connect: a shared address waits for `ready`. None if the
    /// server stops before, or the operating system refuses.
    async fn listen(
        self,
        stage: &mut watch::Receiver<Stage>,
        mut ready: watch::Receiver<bool>,
    ) -> Option<TcpListener> {
        let socket = match self {
            Bound::Listening(listener) => return Some(listener),
            Bound::Waiting(socket) => socket,
        };
        tokio::select! {
            _ = ready.wait_for(|&ready| ready) => {}
            () = reached(stage, Stage::Closing) => return None,
        }
        let listener = socket.listen(BACKLOG);
        listener.inspect_err(|error| tracing::error!(%error, "the port cannot be opened")).ok()
    }
}

/// Whether another process may bind the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The address is exclusive.
    Alone,
    /// Another process with the same setting may bind it: the old and the new program of a rollout.
    Reused,
}

impl Port {
    /// Binds `address`, for at most `connections`.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn bind(
        address: SocketAddr,
        sharing: Sharing,
        encryption: Option<Encryption>,
        connections: usize,
        limits: Limits,
        traffic: &Arc<TrafficMetrics>,
    ) -> io::Result<Port> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As the standard library does: a port is free again when its server has ended.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        #[cfg(unix)]
        socket.set_reuseport(sharing == Sharing::Reused)?;
        #[cfg(not(unix))]
        if sharing == Sharing::Reused {
            return Err(io::Error::other("addresses cannot be shared on this operating system"));
        }
        socket.bind(address)?;
        let bound = match sharing {
            Sharing::Alone => Bound::Listening(socket.listen(BACKLOG)?),
            Sharing::Reused => Bound::Waiting(socket),
        };
        let connections =
            Connections::new(connections, limits.connections_per_address, Arc::clone(traffic));
        Ok(Port { bound, encryption, limits, connections, traffic: Arc::clone(traffic) })
    }

    /// The address, with the number the operating system chose for port 0.
    ///
    /// # Errors
    /// If the operating system does not know.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        match &self.bound {
            Bound::Listening(listener) => listener.local_addr(),
            Bound::Waiting(socket) => socket.local_addr(),
        }
    }

    /// The registry of its connections.
    pub(crate) fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Serves `router` until the server has stopped. Returns how many requests were cut: those
    /// still running after the shutdown grace, or at [`Stage::Cut`].
    pub(crate) async fn serve(
        self,
        router: Router,
        mut stage: watch::Receiver<Stage>,
        ready: watch::Receiver<bool>,
        open: Gauge,
    ) -> usize {
        let Port { bound, encryption, limits, connections, traffic } = self;
        let Some(listener) = bound.listen(&mut stage, ready).await else { return 0 };
        let serving = Serving { router: TowerToHyperService::new(router), encryption, limits };
        let serve = |stream, slot: Arc<ConnectionSlot>, stage: watch::Receiver<Stage>| {
            let (serving, open, traffic) = (serving.clone(), open.clone(), Arc::clone(&traffic));
            tokio::spawn(async move {
                open.increment(1.0);
                // What goes wrong with a connection is its client's to see.
                let _ = serving.connection(stream, slot, stage, &traffic).await;
                open.decrement(1.0);
            });
        };
        let mut throttle = LogThrottle::default();
        loop {
            let accepted = async {
                let (stream, address) = listener.accept().await?;
                Ok::<_, io::Error>((connections.admit(address.ip()).await, stream))
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = reached(&mut stage, Stage::Closing) => break,
            };
            match accepted {
                Ok((Some(slot), stream)) => serve(stream, slot, stage.clone()),
                Ok((None, _)) => {}
                Err(error) => {
                    // Such as too many open files: it passes when connections end.
                    traffic.accept_errors.increment(1);
                    if throttle.now() {
                        tracing::warn!(%error, "connections cannot be accepted");
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        // Those that the operating system has accepted for us would be reset.
        while let Ok(Ok((stream, address))) =
            timeout(Duration::from_millis(10), listener.accept()).await
        {
            match timeout(Duration::ZERO, connections.admit(address.ip())).await {
                Ok(Some(slot)) => serve(stream, slot, stage.clone()),
                Ok(None) => {}
                Err(_) => break,
            }
        }
        drop(listener);
        tokio::select! {
            () = connections.wait_until_empty() => {}
            () = sleep(limits.shutdown_grace) => {}
            () = reached(&mut stage, Stage::Cut) => {}
        }
        connections.active()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The state that all connections of a port share.
#[derive(Clone)]
struct Serving {
    router: TowerToHyperService<Router>,
    encryption: Option<Encryption>,
    limits: Limits,
}

impl Serving {
    async fn connection(
        self,
        stream: TcpStream,
        slot: Arc<ConnectionSlot>,
        mut stage: watch::Receiver<Stage>,
        traffic: &Arc<TrafficMetrics>,
    ) -> Result<(), Failure> {
        stream.set_nodelay(true)?;
        let (client_timeout, write) = (self.limits.client_timeout, self.limits.write_timeout);
        let stream = TimedStream::new(stream, Arc::clone(&slot), Arc::clone(traffic), write);
        let Some(encryption) = self.encryption.clone() else {
            return self.talk(stream, slot, stage, traffic).await;
        };
        let handshake = timeout(client_timeout, encryption.accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream,
            () = slot.evicted() => return Ok(()),
            () = reached(&mut stage, Stage::Cut) => return Ok(()),
        };
        let Ok(stream) = stream else {
            traffic.slow_handshakes.increment(1);
            return Ok(());
        };
        self.talk(stream?, slot, stage, traffic).await
    }

    /// Answers until the client goes, or has to go.
    async fn talk<S>(
        self,
        stream: S,
        slot: Arc<ConnectionSlot>,
        mut stage: watch::Receiver<Stage>,
        traffic: &TrafficMetrics,
    ) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Serving { router, limits, .. } = self;
        let Limits { idle_timeout: idle, write_timeout: write, .. } = limits;
        let answering = Handler { router, slot: Arc::clone(&slot), stage: stage.clone() };
        let builder = builder(&limits);
        let connection = builder.serve_connection(TokioIo::new(stream), answering);
        let mut connection = std::pin::pin!(connection);
        let (mut closing, mut due) = (false, Instant::now() + idle.min(write));
        loop {
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = slot.evicted() => return Ok(()),
                () = reached(&mut stage, Stage::Closing), if !closing => {
                    closing = true;
                    due = Instant::now() + PARTING;
                    // Who has just come is about to say something.
                    if !slot.is_fresh() {
                        connection.as_mut().graceful_shutdown();
                    }
                }
                () = sleep_until(due.into()) => match slot.due(idle, write, closing) {
                    Due::At(next) if closing => {
                        connection.as_mut().graceful_shutdown();
                        due = next.min(Instant::now() + PARTING);
                    }
                    Due::At(next) => due = next,
                    Due::Idle if closing => return Ok(()),
                    Due::Idle => {
                        traffic.idle.increment(1);
                        closing = true;
                        due = Instant::now() + PARTING;
                        connection.as_mut().graceful_shutdown();
                    }
                    Due::Stuck => {
                        traffic.stuck.increment(1);
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The slot's clock is for heads that do not end, too.
        .header_read_timeout(None)
        .max_buf_size(BUFFER)
        // Who has sent a request may close that half, as `nc -N` does, and still read the answer.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER)
        .keep_alive_interval(limits.client_timeout)
        .keep_alive_timeout(limits.client_timeout);
    builder
}

/// Marks an answer that lasts, such as that of a watch: gRPC alone has such.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongLivedResponse;

/// The router of a connection, which tells the connection's slot what it does.
struct Handler {
    router: TowerToHyperService<Router>,
    slot: Arc<ConnectionSlot>,
    stage: watch::Receiver<Stage>,
}

type HandlerFuture =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

impl Service<Request<Incoming>> for Handler {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = HandlerFuture;

    fn call(&self, request: Request<Incoming>) -> HandlerFuture {
        let (mut work, stage) = (self.slot.begin_request(), self.stage.clone());
        let is_one = request.version() < Version::HTTP_2;
        let answer = self.router.call(request.map(Body::new));
        Box::pin(async move {
            let mut response = answer.await?;
            if is_one && *stage.borrow() > Stage::Serving {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            match response.extensions().get::<LongLivedResponse>() {
                Some(LongLivedResponse) => work.mark_stream(),
                None => work.progress(),
            }
            Ok(response.map(|body| ResponseBody { body, work }))
        })
    }
}

/// The body of an answer, on its way.
struct ResponseBody {
    body: Body,
    work: ActiveRequest,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.work.progress();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that ends when its client takes nothing of what is sent for some time.
struct TimedStream {
    stream: TcpStream,
    slot: Arc<ConnectionSlot>,
    traffic: Arc<TrafficMetrics>,
    write: Duration,
    /// Runs while the client has to take something before more can be sent.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    fn new(
        stream: TcpStream,
        slot: Arc<ConnectionSlot>,
        traffic: Arc<TrafficMetrics>,
        write: Duration,
    ) -> TimedStream {
        TimedStream { stream, slot, traffic, write, blocked: None }
    }

    fn timed(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            if self.blocked.take().is_some() {
                self.slot.touch();
            }
            return polled;
        }
        let write = self.write;
        let clock = self.blocked.get_or_insert_with(|| Box::pin(sleep(write)));
        if clock.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.traffic.stuck.increment(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.timed(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.timed(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A socket has nothing to flush.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
