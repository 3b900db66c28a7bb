//! A bounded pool of threads that compute: scoring never runs on the threads that talk to clients.
//!
//! ```text
//! submit -> queue (at most `queue` jobs, else Busy) -> a thread, with buffers of its own -> the caller
//! ```
//! A job that panics costs its caller an answer and nobody else anything: the thread goes on with
//! fresh buffers. Knows jobs and their buffers; not what they compute.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Why a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobError {
    /// The queue is full, or the pool is stopping: the client may retry.
    Busy,
    /// The job panicked; the panic's message is on stderr.
    Panicked,
}

/// Threads that run jobs, each with buffers `S`.
#[derive(Debug)]
pub(crate) struct Pool<S> {
    queue: Arc<Queue<S>>,
}

struct Queue<S> {
    state: Mutex<State<S>>,
    arrived: Condvar,
    capacity: usize,
}

struct State<S> {
    jobs: VecDeque<Job<S>>,
    stopping: bool,
}

impl<S> std::fmt::Debug for Queue<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl<S: Default + 'static> Pool<S> {
    /// Starts `threads` threads; at most `queue` jobs wait for one of them.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub(crate) fn new(threads: usize, queue: usize) -> std::io::Result<Pool<S>> {
        let state = State { jobs: VecDeque::with_capacity(queue), stopping: false };
        let queue =
            Arc::new(Queue { state: Mutex::new(state), arrived: Condvar::new(), capacity: queue });
        let pool = Pool { queue };
        for at in 0..threads {
            let queue = Arc::clone(&pool.queue);
            thread::Builder::new().name(format!("compute-{at}")).spawn(move || queue.work())?;
        }
        Ok(pool)
    }

    /// Runs `job` on one of the threads and waits for its result.
    ///
    /// # Errors
    /// [`JobError::Busy`] at once if the queue is full; [`JobError::Panicked`].
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, JobError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.queue.lock();
            if state.stopping || state.jobs.len() >= self.queue.capacity {
                return Err(JobError::Busy);
            }
            state.jobs.push_back(Box::new(move |buffers: &mut S| {
                // If the caller stopped waiting, the result is not needed.
                if !sender.is_closed() {
                    let _ = sender.send(job(buffers));
                }
            }));
        }
        self.queue.arrived.notify_one();
        receiver.await.map_err(|_| JobError::Panicked)
    }

    /// Number of jobs that wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().jobs.len()
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.queue.lock().stopping = true;
        self.queue.arrived.notify_all();
    }
}

impl<S> Queue<S> {
    /// No job runs while the lock is held, so nothing can be half-changed by a panic.
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job<S>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.stopping {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<S: Default> Queue<S> {
    fn work(&self) {
        let mut buffers = S::default();
        while let Some(job) = self.next() {
            if catch_unwind(AssertUnwindSafe(|| job(&mut buffers))).is_err() {
                buffers = S::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn buffers_are_kept_and_a_panic_costs_one_answer() {
        let pool = Pool::<Vec<u32>>::new(1, 4).unwrap();
        let push = |value| {
            pool.run(move |buffer: &mut Vec<u32>| {
                buffer.push(value);
                buffer.clone()
            })
        };
        assert_eq!(block_on(push(1)), Ok(vec![1]));
        assert_eq!(block_on(push(2)), Ok(vec![1, 2]));
        let panicked = block_on(pool.run(|_: &mut Vec<u32>| -> u32 { panic!("on purpose") }));
        assert_eq!(panicked, Err(JobError::Panicked));
        assert_eq!(block_on(push(3)), Ok(vec![3]));
    }

    #[test]
    fn a_full_queue_refuses_at_once() {
        let pool = Pool::<()>::new(1, 1).unwrap();
        let ((begun, begins), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
        block_on(async {
            let first = pool.run(move |()| {
                begun.send(()).unwrap();
                ends.recv().unwrap();
                1
            });
            let mut first = Box::pin(first);
            let mut second = Box::pin(pool.run(|()| 2));
            tokio::select! {
                biased;
                _ = &mut first => unreachable!("it waits"),
                () = std::future::ready(()) => {}
            }
            begins.recv().unwrap();
            tokio::select! {
                biased;
                _ = &mut second => unreachable!("it waits behind the first"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(pool.waiting(), 1);
            assert_eq!(pool.run(|()| 3).await, Err(JobError::Busy));
            end.send(()).unwrap();
            assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
        });
    }
}
