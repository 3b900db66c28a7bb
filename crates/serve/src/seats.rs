//! Room for connections: how many there are, of whom, and which of them have nothing to do.
//!
//! ```text
//! enter --> idle <--request begins, answer is sent--> at work --> gone
//!             \--the longest idle one leaves, if another one wants in--/
//! ```
//! A connection is at work from the head of a request to the last byte of its answer that is handed
//! to the connection. A call that lasts, such as a watch, does not count as work: whoever only
//! listens makes room, but is not too long idle.
//!
//! Knows addresses and times. Does not know sockets or protocols.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::traffic::Traffic;

/// How often what happens to many connections is logged.
const SELDOM: Duration = Duration::from_secs(1);

/// Room for connections.
#[derive(Debug)]
pub(crate) struct Room {
    state: Mutex<State>,
    /// Told whenever there may be room, or somebody who could make some.
    changed: Notify,
    /// Told when nobody is left.
    empty: Notify,
    most: usize,
    most_per_address: usize,
    traffic: Arc<Traffic>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    /// Connections that were told to leave and are still there.
    leaving: usize,
    /// Requests that are being answered.
    at_work: usize,
    /// Connections that ended since somebody asked.
    ended: usize,
    of_address: HashMap<IpAddr, usize>,
    /// When it was logged that somebody had to leave.
    seldom: Seldom,
    /// How idle connections are told to leave, the longest idle first.
    idle: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// What is logged once in a second, however often it happens.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is time.
    pub(crate) fn now(&mut self) -> bool {
        let is_time = self.0.is_none_or(|last| last.elapsed() >= SELDOM);
        if is_time {
            self.0 = Some(Instant::now());
        }
        is_time
    }
}

/// One connection's place.
#[derive(Debug)]
pub(crate) struct Seat {
    room: Arc<Room>,
    address: IpAddr,
    leave: Arc<Notify>,
    own: Mutex<Own>,
}

#[derive(Debug)]
struct Own {
    /// Requests that are being answered.
    at_work: usize,
    /// Calls that last.
    lasting: usize,
    /// Its place among the idle ones of the room, unless it is at work.
    idle: Option<u64>,
    /// When it was at work last, or came.
    since: Instant,
    /// Whether a request ever came.
    is_fresh: bool,
    /// Answers on their way.
    sending: usize,
    /// When a part of one of them was taken last. One of many that does not get on is between the
    /// client and whom it asks for.
    progress: Instant,
}

/// What a connection has to look at its clock for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing before this.
    At(Instant),
    /// It had nothing to do for too long.
    Idle,
    /// Its client takes none of its answers.
    Stuck,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic happens while one of the locks is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// Room for `most` connections, of one address `most_per_address`.
    pub(crate) fn new(most: usize, most_per_address: usize, traffic: Arc<Traffic>) -> Arc<Room> {
        Arc::new(Room {
            state: Mutex::default(),
            changed: Notify::new(),
            empty: Notify::new(),
            most,
            most_per_address,
            traffic,
        })
    }

    /// A place for a connection of `address`, as soon as there is one; the longest idle connection
    /// makes room. None if the address has as many as it may have.
    pub(crate) async fn enter(self: &Arc<Room>, address: IpAddr) -> Option<Arc<Seat>> {
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
                    let (idle, now) = (Some(state.idles(&leave)), Instant::now());
                    return Some(Arc::new(Seat {
                        room: Arc::clone(self),
                        address,
                        leave,
                        own: Mutex::new(Own {
                            at_work: 0,
                            lasting: 0,
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
                    if state.seldom.now() {
                        let connections = self.most;
                        tracing::warn!(
                            connections,
                            "as many connections as may be open: the longest idle one is closed for another"
                        );
                    }
                }
            }
            self.changed.notified().await;
        }
    }

    /// Requests that are being answered.
    pub(crate) fn at_work(&self) -> usize {
        lock(&self.state).at_work
    }

    /// Connections that ended since this was asked.
    pub(crate) fn ended(&self) -> usize {
        std::mem::take(&mut lock(&self.state).ended)
    }

    /// Waits until nobody is left, if nobody enters meanwhile.
    pub(crate) async fn emptied(&self) {
        while lock(&self.state).open > 0 {
            self.empty.notified().await;
        }
    }
}

impl State {
    /// Puts a connection behind all other idle ones; its place.
    fn idles(&mut self, leave: &Arc<Notify>) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, Arc::clone(leave));
        self.next
    }

    /// Takes a connection from the idle ones. If it was told to leave, another one has to.
    fn wakes(&mut self, place: u64) {
        if self.idle.remove(&place).is_none() {
            self.leaving -= 1;
        }
    }
}

impl Seat {
    /// A request came; it is answered when what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Seat>) -> Work {
        let mut own = lock(&self.own);
        own.at_work += 1;
        own.is_fresh = false;
        let mut state = lock(&self.room.state);
        state.at_work += 1;
        if let Some(place) = own.idle.take() {
            state.wakes(place);
            self.room.changed.notify_one();
        }
        drop((state, own));
        Work { seat: Arc::clone(self), is_sent: false, lasts: false }
    }

    /// One request less; whether the connection is idle now.
    fn rests(&self, own: &mut Own) {
        own.at_work -= 1;
        let mut state = lock(&self.room.state);
        state.at_work -= 1;
        if own.at_work == 0 {
            own.idle = Some(state.idles(&self.leave));
            own.since = Instant::now();
            self.room.changed.notify_one();
        }
    }

    /// Something was taken after a while: that is no idle client, only a slow one.
    pub(crate) fn touch(&self) {
        lock(&self.own).since = Instant::now();
    }

    /// Waits until it should leave, because another one wants in.
    pub(crate) async fn told(&self) {
        loop {
            self.leave.notified().await;
            let own = lock(&self.own);
            // A request may have come meanwhile.
            let leaves =
                own.idle.is_some_and(|place| !lock(&self.room.state).idle.contains_key(&place));
            if leaves {
                self.room.traffic.dropped.increment(1);
                return;
            }
        }
    }

    /// Whether no request came yet.
    pub(crate) fn is_fresh(&self) -> bool {
        lock(&self.own).is_fresh
    }

    /// What the clock says. Whoever `parts` is idle as soon as no request is answered.
    pub(crate) fn due(&self, idle: Duration, write: Duration, parts: bool) -> Due {
        let (own, now) = (lock(&self.own), Instant::now());
        let mut next = now + idle.min(write);
        if own.sending > 0 {
            if now >= own.progress + write {
                return Due::Stuck;
            }
            next = next.min(own.progress + write);
        }
        if own.at_work == 0 && (parts || own.lasting == 0) {
            if parts || now >= own.since + idle {
                return Due::Idle;
            }
            next = next.min(own.since + idle);
        }
        Due::At(next)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let idle = lock(&self.own).idle;
        let mut state = lock(&self.room.state);
        state.open -= 1;
        state.ended += 1;
        if let Some(place) = idle {
            state.wakes(place);
        }
        if let Some(open) = state.of_address.get_mut(&self.address) {
            *open -= 1;
            if *open == 0 {
                state.of_address.remove(&self.address);
            }
        }
        if state.open == 0 {
            self.room.empty.notify_one();
        }
        self.room.changed.notify_one();
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Work {
    seat: Arc<Seat>,
    /// Whether its answer is on its way.
    is_sent: bool,
    lasts: bool,
}

impl Work {
    /// The answer begins, or a part of it was taken.
    pub(crate) fn progress(&mut self) {
        if self.lasts {
            return;
        }
        let mut own = lock(&self.seat.own);
        if !std::mem::replace(&mut self.is_sent, true) {
            own.sending += 1;
        }
        own.progress = Instant::now();
    }

    /// The answer is one that lasts.
    pub(crate) fn last(&mut self) {
        let mut own = lock(&self.seat.own);
        if !std::mem::replace(&mut self.lasts, true) {
            own.lasting += 1;
            self.seat.rests(&mut own);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut own = lock(&self.seat.own);
        if self.is_sent {
            own.sending -= 1;
            own.progress = Instant::now();
        }
        if self.lasts {
            own.lasting -= 1;
            own.since = Instant::now();
        } else {
            self.seat.rests(&mut own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Telemetry;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const LONG: Duration = Duration::from_secs(3600);

    fn room(most: usize, most_per_address: usize) -> Arc<Room> {
        Room::new(most, most_per_address, Arc::new(Traffic::new(&Telemetry::new())))
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
        let mut seats = Vec::new();
        for _ in 0..3 {
            seats.push(room.enter(HERE).await.unwrap());
        }
        // The first is at work, the second was after the third came.
        let work = seats[0].begin();
        drop(seats[1].begin());
        assert!(at_once(room.enter(HERE)).await.is_none(), "somebody has to leave first");
        for (seat, leaves) in seats.iter().zip([false, false, true]) {
            assert_eq!(at_once(seat.told()).await.is_some(), leaves);
        }
        seats.pop();
        seats.push(at_once(room.enter(HERE)).await.unwrap().unwrap());

        // Who is told to leave and has a request meanwhile stays, and another one goes.
        assert!(at_once(room.enter(HERE)).await.is_none());
        let second = seats[1].begin();
        assert!(at_once(seats[1].told()).await.is_none());
        assert!(at_once(room.enter(HERE)).await.is_none());
        assert!(at_once(seats[2].told()).await.is_some());
        // All are at work: whoever wants in waits for the first that is not.
        seats.pop();
        seats.push(at_once(room.enter(HERE)).await.unwrap().unwrap());
        let third = seats[2].begin();
        assert_eq!(room.at_work(), 3);
        assert!(at_once(room.enter(HERE)).await.is_none());
        assert!(at_once(seats[0].told()).await.is_none());
        drop(work);
        assert!(at_once(room.enter(HERE)).await.is_none());
        assert!(at_once(seats[0].told()).await.is_some());
        drop((second, third));
        drop(seats);
        assert_eq!((room.at_work(), room.ended()), (0, 5));
        assert!(at_once(room.emptied()).await.is_some());
    }

    #[tokio::test]
    async fn an_address_has_as_many_as_it_may() {
        let room = room(10, 2);
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let seats = [room.enter(HERE).await.unwrap(), room.enter(mapped).await.unwrap()];
        assert!(room.enter(HERE).await.is_none(), "both spellings are one address");
        assert!(room.enter("127.0.0.2".parse().unwrap()).await.is_some());
        drop(seats);
        assert!(room.enter(HERE).await.is_some());
    }

    #[tokio::test]
    async fn the_clock_is_for_who_does_nothing() {
        let room = room(1, usize::MAX);
        let seat = room.enter(HERE).await.unwrap();
        let due = |idle, write| seat.due(idle, write, false);
        assert!(matches!(due(LONG, LONG), Due::At(_)));
        assert_eq!(due(Duration::ZERO, LONG), Due::Idle);
        let mut work = seat.begin();
        assert!(matches!(due(Duration::ZERO, Duration::ZERO), Due::At(_)), "it is being answered");
        work.progress();
        assert_eq!(due(LONG, Duration::ZERO), Due::Stuck);
        drop(work);
        assert_eq!(due(Duration::ZERO, Duration::ZERO), Due::Idle);
        // Who listens makes room, and is not idle.
        let mut work = seat.begin();
        work.last();
        work.progress();
        assert!(matches!(due(Duration::ZERO, Duration::ZERO), Due::At(_)));
        assert_eq!(seat.due(LONG, LONG, true), Due::Idle);
        assert!(at_once(room.enter(HERE)).await.is_none());
        assert!(at_once(seat.told()).await.is_some());
    }
}
