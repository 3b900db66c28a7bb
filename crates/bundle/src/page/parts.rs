//! A page view in parts, which several threads score.
//!
//! ```text
//! candidates   | part 0 | part 1 | part 2 | part 3 |
//! the caller     0                 2                  waits for part 3, answers
//! a helper       (wakes)  1          3
//! ```
//! A thread takes the first part that nobody has. No score depends on the candidates beside it, so
//! it cannot be seen who scored which part, nor where parts begin. The caller scores as others do:
//! it waits for parts that were begun, never for a thread. Knows threads by what they offer, and
//! starts none, except for a [`Team`].

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use ams_data::{Groups, Id, Offsets, Ragged};

use crate::model::{Model, Scratch};

/// Candidates that are scored together, and between two questions whether to go on: some
/// milliseconds.
pub(crate) const CHUNK: usize = 1024;

/// Fewer candidates than this are no part for another thread: it takes some tens of microseconds to
/// wake, and looks up the history again, which is little beside the scores of so many.
const LEAST: usize = 256;

/// Candidates of a part, where `count` are scored on up to `threads` threads. There are as many
/// parts as threads, or a multiple: all threads end together.
pub(crate) fn part_size(count: usize, threads: usize) -> usize {
    if threads <= 1 {
        return CHUNK;
    }
    let rounds = count.div_ceil(threads * CHUNK);
    let parts = (rounds * threads).min(count / LEAST).max(1);
    count.div_ceil(parts)
}

/// Further threads, which score parts of a page view beside the one that is asked for it.
pub trait Helpers {
    /// Most threads of a page view, of which the caller's is one.
    fn threads(&self) -> usize;

    /// Has up to `most` threads call [`Parts::score_next`], each with buffers of its own, as long
    /// as it is true and they have nothing better to do. Returns at once, with their number; a
    /// panic of theirs ends with them.
    fn call(&self, most: usize, parts: &Arc<Parts>) -> usize;
}

/// Nobody: the caller scores all parts.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Helpers for Alone {
    fn threads(&self) -> usize {
        1
    }

    fn call(&self, _: usize, _: &Arc<Parts>) -> usize {
        0
    }
}

/// Threads that only help, for a caller without a pool.
#[derive(Debug)]
pub struct Team {
    threads: usize,
    /// All but the caller's.
    pool: rayon::ThreadPool,
    /// Of threads that rest.
    scratches: Arc<Mutex<Vec<Scratch>>>,
}

impl Team {
    /// Threads for page views on up to `threads` threads, of which the caller's is one.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn new(threads: usize) -> Result<Team, rayon::ThreadPoolBuildError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.saturating_sub(1).max(1))
            .thread_name(|at| format!("page-{at}"))
            // The caller of the parts panics in its stead.
            .panic_handler(|_| ())
            .build()?;
        Ok(Team { threads, pool, scratches: Arc::default() })
    }
}

impl Helpers for Team {
    fn threads(&self) -> usize {
        self.threads
    }

    fn call(&self, most: usize, parts: &Arc<Parts>) -> usize {
        for _ in 0..most {
            let (parts, scratches) = (Arc::clone(parts), Arc::clone(&self.scratches));
            self.pool.spawn(move || {
                let mut scratch = locked(&scratches).pop().unwrap_or_default();
                while parts.score_next(&mut scratch) {}
                locked(&scratches).push(scratch);
            });
        }
        most
    }
}

/// What is behind a lock under which nothing panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page view that is being scored.
pub struct Parts {
    model: Model,
    /// One group.
    groups: Arc<Groups>,
    /// Candidates of a part.
    size: usize,
    goes_on: Box<dyn Fn() -> bool + Send + Sync>,
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    /// The first candidate that nobody has taken.
    next: usize,
    /// Parts that are being scored.
    running: usize,
    /// Whether it is of no use to go on.
    stopped: bool,
    panicked: bool,
    /// Of every candidate (B).
    logits: Vec<f32>,
    /// For each of [`Model::inputs`], how many ids had no row.
    unknown: Vec<usize>,
    /// With a search: behaviors that a part saw, in any order and with repetitions.
    searched: Vec<u32>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Parts {
    pub(crate) fn new(
        model: &Model,
        groups: &Arc<Groups>,
        size: usize,
        goes_on: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Parts {
        let state = State {
            next: 0,
            running: 0,
            stopped: false,
            panicked: false,
            logits: vec![0.0; groups.labels.len()],
            unknown: vec![0; model.inputs().count()],
            searched: Vec::new(),
        };
        Parts {
            model: model.clone(),
            groups: Arc::clone(groups),
            size,
            goes_on: Box::new(goes_on),
            state: Mutex::new(state),
            ended: Condvar::new(),
        }
    }

    /// Scores the next part that nobody has; false if there is none, or they are of no use any
    /// more.
    pub fn score_next(&self, scratch: &mut Scratch) -> bool {
        let Some(part) = self.take() else { return false };
        let running = Running(self);
        if (self.goes_on)() {
            let (groups, mut logits) = (shown(&self.groups, part.clone()), Vec::new());
            self.model.score_groups(&groups, scratch, &mut logits);
            self.put(part, &logits, scratch);
        } else {
            locked(&self.state).stopped = true;
        }
        drop(running);
        true
    }

    /// Scores all parts together with `helpers`. Overwrites `logits` with those of all candidates
    /// (B) and returns, for each of [`Model::inputs`], how many ids had no row; none if it was
    /// stopped.
    ///
    /// # Panics
    /// If a helper panicked.
    pub(crate) fn score(
        self: Arc<Parts>,
        helpers: &dyn Helpers,
        scratch: &mut Scratch,
        logits: &mut Vec<f32>,
    ) -> Option<Vec<usize>> {
        let mut helping = 1;
        loop {
            // Threads that were busy before may be free now.
            let others = helpers.threads().saturating_sub(helping);
            let most = others.min(self.left().saturating_sub(1));
            if most > 0 {
                helping += helpers.call(most, &self);
            }
            if !self.score_next(scratch) {
                break;
            }
        }
        let mut state = locked(&self.state);
        while state.running > 0 {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        assert!(!state.panicked, "a thread that helped with a page view panicked");
        if state.stopped {
            return None;
        }
        logits.clear();
        logits.extend_from_slice(&state.logits);
        let mut unknown = std::mem::take(&mut state.unknown);
        if self.model.spec().network.search.is_some() {
            // Each part saw the behaviors that its own candidates keep.
            let behaviors = std::mem::take(&mut state.searched);
            drop(state);
            self.count_behaviors(behaviors, scratch, &mut unknown);
        }
        Some(unknown)
    }

    /// Parts that nobody has taken.
    fn left(&self) -> usize {
        (self.groups.labels.len() - locked(&self.state).next).div_ceil(self.size)
    }

    fn take(&self) -> Option<Range<usize>> {
        let mut state = locked(&self.state);
        let (begin, count) = (state.next, self.groups.labels.len());
        if begin == count || state.stopped || state.panicked {
            return None;
        }
        state.next = count.min(begin + self.size);
        state.running += 1;
        Some(begin..state.next)
    }

    fn put(&self, part: Range<usize>, logits: &[f32], scratch: &Scratch) {
        let mut state = locked(&self.state);
        state.logits[part].copy_from_slice(logits);
        let inputs = self.model.inputs().zip(scratch.unknown());
        for (sum, (input, here)) in state.unknown.iter_mut().zip(inputs) {
            // What is not a candidate's is the same in every part, but for a search.
            *sum = if input.is_per_impression() { *sum + here } else { here };
        }
        if self.model.spec().network.search.is_some() {
            state.searched.extend(scratch.searched());
        }
    }

    /// Overwrites `unknown` of the inputs that are no candidate's, of all `behaviors` that a part
    /// saw.
    fn count_behaviors(
        &self,
        mut behaviors: Vec<u32>,
        scratch: &mut Scratch,
        unknown: &mut [usize],
    ) {
        behaviors.sort_unstable();
        behaviors.dedup();
        let mut rows = Ragged::default();
        rows.push(&behaviors);
        self.model.look_up(&shown(&self.groups, 0..1).with_behaviors(&rows), scratch);
        let inputs = self.model.inputs().zip(scratch.unknown());
        for (count, (input, here)) in unknown.iter_mut().zip(inputs) {
            if !input.is_per_impression() {
                *count = here;
            }
        }
    }
}

/// A part that is being scored; its end, also by a panic, is seen by the caller of all parts.
struct Running<'a>(&'a Parts);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = locked(&self.0.state);
        state.running -= 1;
        state.panicked |= thread::panicking();
        drop(state);
        self.0.ended.notify_all();
    }
}

/// One group with some of its impressions.
fn shown(group: &Groups, rows: Range<usize>) -> Groups {
    let some = |columns: &[Ragged<Id>]| {
        let column = |of: &Ragged<Id>| {
            let mut column = Ragged::default();
            column.extend_from(of, rows.clone());
            column
        };
        columns.iter().map(column).collect()
    };
    let mut impressions = Offsets::default();
    impressions.push(rows.len());
    Groups {
        users: group.users.clone(),
        user_fields: group.user_fields.clone(),
        behaviors: group.behaviors.clone(),
        behavior_fields: group.behavior_fields.clone(),
        behavior_pictures: group.behavior_pictures.clone(),
        behavior_times: group.behavior_times.clone(),
        impressions,
        ad_fields: some(&group.ad_fields),
        ad_pictures: group.ad_pictures[rows.clone()].to_vec(),
        context_fields: some(&group.context_fields),
        labels: group.labels[rows.clone()].to_vec(),
        times: group.times[rows.clone()].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_for_all_threads_and_neither_small_nor_long() {
        for (count, threads, expected) in [
            (1, 1, 1024),
            (4000, 1, 1024),
            (1, 2, 1),
            (511, 2, 511),
            (512, 2, 256),
            (700, 8, 350),
            (1500, 2, 750),
            (3000, 2, 750),
            (4000, 2, 1000),
            (4000, 3, 667),
            (4000, 1024, 267),
            (10_000, 8, 625),
        ] {
            assert_eq!(part_size(count, threads), expected, "{count} {threads}");
        }
    }
}
