//! A bounded pool of threads that compute: scoring never runs on the threads that talk to clients.
//!
//! ```text
//! submit -> queue (at most `queue` jobs, else Busy) -> a thread, with buffers of its own -> the caller
//! a job  -> steps of it, for threads that have no job
//! ```
//! A job that panics costs its caller an answer and nobody else anything: the thread goes on with
//! fresh buffers. Threads that have nothing to do take steps of a job that runs, until another job
//! arrives: it waits for one step. Knows jobs and their buffers; not what they compute.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A step of a job, which any thread may take; false if none is left.
pub(crate) type Step<S> = Arc<dyn Fn(&mut S) -> bool + Send + Sync>;

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
    /// Steps for threads without a job; fewer than there are threads.
    steps: VecDeque<Step<S>>,
    /// Threads that have nothing to do, but for what was queued since they began to wait.
    idle: usize,
    stopping: bool,
}

/// What a thread does next.
enum Work<S> {
    Job(Job<S>),
    Steps(Step<S>),
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
        let jobs = VecDeque::with_capacity(queue);
        let state = State { jobs, steps: VecDeque::new(), idle: 0, stopping: false };
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

    /// Has up to `most` of the threads that have nothing to do repeat `step` until it is false, or
    /// a job waits. Returns at once, with their number.
    pub(crate) fn help(&self, most: usize, step: &Step<S>) -> usize {
        let mut state = self.queue.lock();
        let free = state.idle.saturating_sub(state.jobs.len() + state.steps.len());
        let helping = most.min(free);
        state.steps.extend(std::iter::repeat_n(step, helping).cloned());
        drop(state);
        (0..helping).for_each(|_| self.queue.arrived.notify_one());
        helping
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

    fn next(&self) -> Option<Work<S>> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(Work::Job(job));
            }
            if let Some(step) = state.steps.pop_front() {
                return Some(Work::Steps(step));
            }
            if state.stopping {
                return None;
            }
            state.idle += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl<S: Default> Queue<S> {
    fn work(&self) {
        let mut buffers = S::default();
        while let Some(work) = self.next() {
            let work = || match work {
                Work::Job(job) => job(&mut buffers),
                Work::Steps(step) => while step(&mut buffers) && self.lock().jobs.is_empty() {},
            };
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
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

    /// Only threads without a job help, and one whose step panics helps again.
    #[test]
    fn threads_without_a_job_take_steps_of_another() {
        let pool = Arc::new(Pool::<u32>::new(2, 4).unwrap());
        let steps = |last: u32, panics: bool| {
            let (taken, takes) = mpsc::channel();
            let step: Step<u32> = Arc::new(move |buffer: &mut u32| {
                *buffer += 1;
                taken.send((thread::current().name().map(str::to_owned), *buffer)).unwrap();
                assert!(!panics, "on purpose");
                *buffer < last
            });
            (step, takes)
        };
        let of_pool = Arc::clone(&pool);
        let job = pool.run(move |_: &mut u32| {
            let own = thread::current().name().map(str::to_owned);
            let help = |last, panics| {
                let (step, takes) = steps(last, panics);
                // The other thread may still be on its way to wait.
                while of_pool.help(5, &step) == 0 {
                    thread::yield_now();
                }
                drop(step);
                let (threads, buffers): (Vec<_>, Vec<_>) = takes.iter().unzip();
                assert!(threads.iter().all(|name| *name != own));
                buffers
            };
            [help(3, false), help(4, false), help(9, true), help(2, false)]
        });
        assert_eq!(block_on(job), Ok([vec![1, 2, 3], vec![4], vec![5], vec![1, 2]]));
    }

    #[test]
    fn a_job_waits_for_one_step() {
        let pool = Arc::new(Pool::<u32>::new(1, 4).unwrap());
        let (begun, begins) = mpsc::channel();
        let step: Step<u32> = Arc::new(move |_: &mut u32| {
            begun.send(()).unwrap();
            true
        });
        while pool.help(1, &step) == 0 {
            thread::yield_now();
        }
        begins.recv().unwrap();
        assert_eq!(block_on(pool.run(|_| 2)), Ok(2));
    }
}
