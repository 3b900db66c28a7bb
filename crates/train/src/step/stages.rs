//! Where the time of a step goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The stages of a step, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Packing the towers' first layers.
    Pack,
    /// Reading samples into micro-batches.
    Read,
    /// Searching histories, but for the mail.
    Search,
    /// Finding the different ids and images, and asking for them.
    Ask,
    /// The three exchanges between lanes, and those of a search.
    Mail,
    /// Merging the asks of all lanes, looking up rows, answering.
    Lookup,
    /// Towers forward, where the placement runs them.
    TowerForward,
    /// The rank network forward.
    NetworkForward,
    /// Loss and rank network backward.
    NetworkBackward,
    /// Adding up the gradients of rows, and their optimizer.
    Rows,
    /// The towers backward, but for the matrices of their first layers.
    TowerBackward,
    /// The sum of the other dense gradients over the lanes of the process.
    Sum,
    /// The gradients of those matrices, of all lanes together, and meanwhile the sum of all dense
    /// gradients over processes.
    TowerMatrix,
    /// The dense weights' optimizer.
    Optimizer,
}

impl Stage {
    /// All of them, with their names.
    pub(crate) const ALL: [(Stage, &'static str); 14] = [
        (Stage::Pack, "pack"),
        (Stage::Read, "read"),
        (Stage::Search, "search"),
        (Stage::Ask, "ask"),
        (Stage::Mail, "mail"),
        (Stage::Lookup, "lookup"),
        (Stage::TowerForward, "tower_forward"),
        (Stage::NetworkForward, "network_forward"),
        (Stage::NetworkBackward, "network_backward"),
        (Stage::Rows, "rows"),
        (Stage::TowerBackward, "tower_backward"),
        (Stage::Sum, "sum"),
        (Stage::TowerMatrix, "tower_matrix"),
        (Stage::Optimizer, "optimizer"),
    ];
}

/// Busy time of every stage, added up over threads.
#[derive(Debug, Default)]
pub(crate) struct Stages {
    nanoseconds: [AtomicU64; Stage::ALL.len()],
}

impl Stages {
    /// Runs `work` as a part of `stage` on one thread.
    pub(crate) fn run<R>(&self, stage: Stage, work: impl FnOnce() -> R) -> R {
        self.run_on(1, stage, work)
    }

    /// Runs `work`, which keeps `threads` threads busy.
    pub(crate) fn run_on<R>(&self, threads: usize, stage: Stage, work: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = work();
        let spent = begin.elapsed().as_nanos() as u64 * threads as u64;
        self.nanoseconds[stage as usize].fetch_add(spent, Ordering::Relaxed);
        result
    }

    /// Seconds of every stage since they were last taken, in the order of [`Stage::ALL`].
    pub(crate) fn take(&self) -> [f64; Stage::ALL.len()] {
        std::array::from_fn(|at| self.nanoseconds[at].swap(0, Ordering::Relaxed) as f64 / 1e9)
    }
}
