//! Ends a job in which nothing happens any more: a process that was stopped, a disk that hangs, a
//! network that swallows. Whoever waits for such a process waits for ever, and a launcher can only
//! start again what has ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure;

/// Ends this process unless it gives a sign of life often enough.
pub(crate) struct Watchdog {
    state: Arc<Mutex<State>>,
}

struct State {
    last: Instant,
    doing: String,
    off: bool,
}

impl Watchdog {
    /// Watches process `rank` from now on; it may be silent for `patience`. Without patience, for
    /// ever.
    pub(crate) fn start(patience: Option<Duration>, rank: usize) -> Watchdog {
        let doing = "starting".to_owned();
        let state = State { last: Instant::now(), doing, off: patience.is_none() };
        let state = Arc::new(Mutex::new(state));
        if let Some(patience) = patience {
            let watched = Arc::clone(&state);
            std::thread::spawn(move || watch(&watched, patience, rank));
        }
        Watchdog { state }
    }

    /// A sign of life; `doing` says after what.
    pub(crate) fn alive(&self, doing: impl FnOnce() -> String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last = Instant::now();
        if !state.off {
            state.doing = doing();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).off = true;
    }
}

fn watch(state: &Mutex<State>, patience: Duration, rank: usize) {
    loop {
        std::thread::sleep((patience / 8).min(Duration::from_secs(1)));
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.off {
            return;
        }
        let silent = state.last.elapsed();
        if silent > patience {
            eprintln!(
                "rank {rank}: nothing happened for {:.0} s (last: {}), more than --watchdog {}: a process of \
                 the job may be stopped, or a disk or the network may hang. The job ends here; started \
                 again with --auto-resume it goes on from its last checkpoint",
                silent.as_secs_f64(),
                state.doing,
                patience.as_secs_f64(),
            );
            // The main thread may be waiting inside MPI: nothing can be said to the others, but the
            // launcher ends them when one of its processes ends like this.
            std::process::exit(failure::USER.into());
        }
    }
}
