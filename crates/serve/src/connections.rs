//! The open connections of a port: their number, their addresses, and which of them are idle.
//!
//! ```text
//! admit --> idle <--request begins, response is sent--> active --> closed
//!             \--the connection idle longest is evicted for a new one--/
//! ```
//! A connection is active from the head of a request until the last byte of its response is handed
//! to the connection. A response that stays open, such as that of a watch, does not count: its
//! connection can be evicted, but does not time out.
//!
//! Knows addresses and times. Does not know sockets or protocols.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::traffic::TrafficMetrics;

/// Pause between two lines of the log about the same event.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The open connections of a port, and their limits.
#[derive(Debug)]
pub(crate) struct Connections {
    state: Mutex<Registry>,
    /// Notified when a connection closes or becomes idle.
    changed: Notify,
    /// Notified when the last connection closes.
    empty: Notify,
    most: usize,
    most_per_address: usize,
    traffic: Arc<TrafficMetrics>,
}

#[derive(Debug, Default)]
struct Registry {
    open: usize,
    /// Connections that were evicted and are still open.
    leaving: usize,
    /// Requests that are being answered.
    active: usize,
    /// Connections closed since the last [`Connections::take_closed`].
    closed: usize,
    of_address: HashMap<IpAddr, usize>,
    /// For the warning about evictions.
    throttle: LogThrottle,
    /// Handles to evict idle connections, the longest idle first.
    idle: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// Limits a line of the log to one per second.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Option<Instant>);

impl LogThrottle {
    /// Whether it is time.
    pub(crate) fn now(&mut self) -> bool {
        let is_time = self.0.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if is_time {
            self.0 = Some(Instant::now());
        }
        is_time
    }
}

/// One open connection; dropped when it closes.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    connections: Arc<Connections>,
    address: IpAddr,
    leave: Arc<Notify>,
    activity: Mutex<Activity>,
}

#[derive(Debug)]
struct Activity {
    /// Requests that are being answered.
    active: usize,
    /// Responses that stay open, such as that of a watch.
    streams: usize,
    /// Its key among the idle connections, unless it is active.
    idle: Option<u64>,
    /// When it was last active, or accepted.
    since: Instant,
    /// Whether it had no request yet.
    is_fresh: bool,
    /// Responses that are being sent.
    sending: usize,
    /// When the client last read a part of one of them. One blocked response among several is the
    /// affair of a proxy and its clients.
    progress: Instant,
}

/// The result of a check of the timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing is due before this instant.
    At(Instant),
    /// The connection was idle for too long.
    Idle,
    /// The client reads none of its responses.
    Stuck,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens while one of the locks is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    /// Connections for `most` connections, of one address `most_per_address`.
    pub(crate) fn new(
        most: usize,
        most_per_address: usize,
        traffic: Arc<TrafficMetrics>,
    ) -> Arc<Connections> {
        Arc::new(Connections {
            state: Mutex::default(),
            changed: Notify::new(),
            empty: Notify::new(),
            most,
            most_per_address,
            traffic,
        })
    }

    /// Admits a connection of `address`, if needed after the eviction of the longest idle one. None
    /// if the address has reached its limit.
    pub(crate) async fn admit(
        self: &Arc<Connections>,
        address: IpAddr,
    ) -> Option<Arc<ConnectionSlot>> {
        let address = address.to_canonical();
        loop {
            {
                let mut state = lock(&self.state);
                if state.of_address.get(&address).is_some_and(|&open| open >= self.most_per_address)
                {
                    self.traffic.refused.increment(1);
                    return None;
                }
                if state.open < self.most {
                    state.open += 1;
                    *state.of_address.entry(address).or_default() += 1;
                    let leave = Arc::new(Notify::new());
                    let (idle, now) = (Some(state.push_idle(&leave)), Instant::now());
                    return Some(Arc::new(ConnectionSlot {
                        connections: Arc::clone(self),
                        address,
                        leave,
                        activity: Mutex::new(Activity {
                            active: 0,
                            streams: 0,
                            idle,
                            since: now,
                            is_fresh: true,
                            sending: 0,
                            progress: now,
                        }),
                    }));
                }
                if state.leaving == 0
                    && let Some((_, leave)) = state.idle.pop_first()
                {
                    state.leaving += 1;
                    leave.notify_one();
                    if state.throttle.now() {
                        let connections = self.most;
                        tracing::warn!(
                            connections,
                            "the limit of connections is reached; the connection idle longest is closed"
                        );
                    }
                }
            }
            self.changed.notified().await;
        }
    }

    /// Requests that are being answered.
    pub(crate) fn active(&self) -> usize {
        lock(&self.state).active
    }

    /// Number of connections closed since the last call.
    pub(crate) fn take_closed(&self) -> usize {
        std::mem::take(&mut lock(&self.state).closed)
    }

    /// Waits until no connection is open; none may be admitted meanwhile.
    pub(crate) async fn wait_until_empty(&self) {
        while lock(&self.state).open > 0 {
            self.empty.notified().await;
        }
    }
}

impl Registry {
    /// Adds a connection behind all other idle ones and returns its key.
    fn push_idle(&mut self, leave: &Arc<Notify>) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, Arc::clone(leave));
        self.next
    }

    /// Removes a connection from the idle ones. If it was evicted, another one has to be.
    fn remove_idle(&mut self, place: u64) {
        if self.idle.remove(&place).is_none() {
            self.leaving -= 1;
        }
    }
}

impl ConnectionSlot {
    /// Marks the begin of a request, which ends when the result is dropped.
    pub(crate) fn begin_request(self: &Arc<ConnectionSlot>) -> ActiveRequest {
        let mut activity = lock(&self.activity);
        activity.active += 1;
        activity.is_fresh = false;
        let mut state = lock(&self.connections.state);
        state.active += 1;
        if let Some(place) = activity.idle.take() {
            state.remove_idle(place);
            self.connections.changed.notify_one();
        }
        drop((state, activity));
        ActiveRequest { slot: Arc::clone(self), is_sent: false, is_stream: false }
    }

    /// Ends a request; the connection is idle after its last one.
    fn request_ended(&self, activity: &mut Activity) {
        activity.active -= 1;
        let mut state = lock(&self.connections.state);
        state.active -= 1;
        if activity.active == 0 {
            activity.idle = Some(state.push_idle(&self.leave));
            activity.since = Instant::now();
            self.connections.changed.notify_one();
        }
    }

    /// Resets the idle time, because a slow client read a part of a response.
    pub(crate) fn touch(&self) {
        lock(&self.activity).since = Instant::now();
    }

    /// Waits until the connection is evicted.
    pub(crate) async fn evicted(&self) {
        loop {
            self.leave.notified().await;
            let activity = lock(&self.activity);
            // A request may have come meanwhile.
            let leaves = activity
                .idle
                .is_some_and(|place| !lock(&self.connections.state).idle.contains_key(&place));
            if leaves {
                self.connections.traffic.dropped.increment(1);
                return;
            }
        }
    }

    /// Whether the connection had no request yet.
    pub(crate) fn is_fresh(&self) -> bool {
        lock(&self.activity).is_fresh
    }

    /// Checks the timeouts. A connection that is `closing` is idle as soon as it has no request.
    pub(crate) fn due(&self, idle: Duration, write: Duration, closing: bool) -> Due {
        let (activity, now) = (lock(&self.activity), Instant::now());
        let mut next = now + idle.min(write);
        if activity.sending > 0 {
            if now >= activity.progress + write {
                return Due::Stuck;
            }
            next = next.min(activity.progress + write);
        }
        if activity.active == 0 && (closing || activity.streams == 0) {
            if closing || now >= activity.since + idle {
                return Due::Idle;
            }
            next = next.min(activity.since + idle);
        }
        Due::At(next)
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let idle = lock(&self.activity).idle;
        let mut state = lock(&self.connections.state);
        state.open -= 1;
        state.closed += 1;
        if let Some(place) = idle {
            state.remove_idle(place);
        }
        if let Some(open) = state.of_address.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                state.of_address.remove(&self.address);
            }
        }
        if state.open == 0 {
            self.connections.empty.notify_one();
        }
        self.connections.changed.notify_one();
    }
}

/// A request that runs, from arrival to answer.
#[derive(Debug)]
pub(crate) struct ActiveRequest {
    slot: Arc<ConnectionSlot>,
    /// Whether its response is being sent.
    is_sent: bool,
    is_stream: bool,
}

impl ActiveRequest {
    /// Marks the begin of the response, or that the client read a part of it.
    pub(crate) fn progress(&mut self) {
        if self.is_stream {
            return;
        }
        let mut activity = lock(&self.slot.activity);
        if !std::mem::replace(&mut self.is_sent, true) {
            activity.sending += 1;
        }
        activity.progress = Instant::now();
    }

    /// Marks a response that stays open.
    pub(crate) fn mark_stream(&mut self) {
        let mut activity = lock(&self.slot.activity);
        if !std::mem::replace(&mut self.is_stream, true) {
            activity.streams += 1;
            self.slot.request_ended(&mut activity);
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut activity = lock(&self.slot.activity);
        if self.is_sent {
            activity.sending -= 1;
            activity.progress = Instant::now();
        }
        if self.is_stream {
            activity.streams -= 1;
            activity.since = Instant::now();
        } else {
            self.slot.request_ended(&mut activity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LONG: Duration = Duration::from_secs(3600);

    fn room(most: usize, most_per_address: usize) -> Arc<Connections> {
        Connections::new(most, most_per_address, Arc::new(TrafficMetrics::new(&Telemetry::new())))
    }

    /// Whether what would wait is done at once.
    async fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match future.as_mut().poll(context) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn the_longest_idle_one_makes_room() {
        let room = room(3, usize::MAX);
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.push(room.admit(HERE).await.unwrap());
        }
        // The first is at work, the second was after the third came.
        let work = slots[0].begin_request();
        drop(slots[1].begin_request());
        assert!(at_once(room.admit(HERE)).await.is_none(), "somebody has to leave first");
        for (slot, leaves) in slots.iter().zip([false, false, true]) {
            assert_eq!(at_once(slot.evicted()).await.is_some(), leaves);
        }
        slots.pop();
        slots.push(at_once(room.admit(HERE)).await.unwrap().unwrap());

        // Who is told to leave and has a request meanwhile stays, and another one goes.
        assert!(at_once(room.admit(HERE)).await.is_none());
        let second = slots[1].begin_request();
        assert!(at_once(slots[1].evicted()).await.is_none());
        assert!(at_once(room.admit(HERE)).await.is_none());
        assert!(at_once(slots[2].evicted()).await.is_some());
        // All are at work: whoever wants in waits for the first that is not.
        slots.pop();
        slots.push(at_once(room.admit(HERE)).await.unwrap().unwrap());
        let third = slots[2].begin_request();
        assert_eq!(room.active(), 3);
        assert!(at_once(room.admit(HERE)).await.is_none());
        assert!(at_once(slots[0].evicted()).await.is_none());
        drop(work);
        assert!(at_once(room.admit(HERE)).await.is_none());
        assert!(at_once(slots[0].evicted()).await.is_some());
        drop((second, third));
        drop(slots);
        assert_eq!((room.active(), room.take_closed()), (0, 5));
        assert!(at_once(room.wait_until_empty()).await.is_some());
    }

    #[tokio::test]
    async fn an_address_has_as_many_as_it_may() {
        let room = room(10, 2);
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let slots = [room.admit(HERE).await.unwrap(), room.admit(mapped).await.unwrap()];
        assert!(room.admit(HERE).await.is_none(), "both spellings are one address");
        assert!(room.admit("127.0.0.2".parse().unwrap()).await.is_some());
        drop(slots);
        assert!(room.admit(HERE).await.is_some());
    }

    #[tokio::test]
    async fn the_clock_is_for_who_does_nothing() {
        let room = room(1, usize::MAX);
        let slot = room.admit(HERE).await.unwrap();
        let due = |idle, write| slot.due(idle, write, false);
        assert!(matches!(due(LONG, LONG), Due::At(_)));
        assert_eq!(due(Duration::ZERO, LONG), Due::Idle);
        let mut work = slot.begin_request();
        assert!(matches!(due(Duration::ZERO, Duration::ZERO), Due::At(_)), "it is being answered");
        work.progress();
        assert_eq!(due(LONG, Duration::ZERO), Due::Stuck);
        drop(work);
        assert_eq!(due(Duration::ZERO, Duration::ZERO), Due::Idle);
        // Who listens makes room, and is not idle.
        let mut work = slot.begin_request();
        work.mark_stream();
        work.progress();
        assert!(matches!(due(Duration::ZERO, Duration::ZERO), Due::At(_)));
        assert_eq!(slot.due(LONG, LONG, true), Due::Idle);
        assert!(at_once(room.admit(HERE)).await.is_none());
        assert!(at_once(slot.evicted()).await.is_some());
    }
}
