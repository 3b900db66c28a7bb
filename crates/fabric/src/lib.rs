//! Moving bytes between processes, and sums whose order is fixed.
//!
//! Knows words, ranks and lanes as addresses. Does not know what an id, a row, an image or a gradient is.
//!
//! In reading order: the trait [`Fabric`] and its one-process engine [`Solo`]; [`ThreadFabric`], several
//! ranks inside one process, for tests; [`mail`], how lanes address each other across ranks; [`sum`],
//! the fixed binary tree along which lanes are added up.

pub mod mail;
mod solo;
pub mod sum;
mod threads;

pub use mail::{Mailbox, Outbox, Post, Topology};
pub use solo::Solo;
pub use threads::ThreadFabric;

/// Another process is gone, or sent what it must not. The job ends; the launcher starts it again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The connection to a rank closed.
    #[error(
        "rank {rank} is gone; the job stops here and resumes from its last checkpoint when it is started again"
    )]
    Rank {
        /// The rank that went away.
        rank: usize,
    },
}

/// One job's processes, able to exchange words all to all.
///
/// Object-safe; one thread per process calls it. Buffers are flat and reused.
pub trait Fabric: Send {
    /// This process, `0..size`.
    fn rank(&self) -> usize;

    /// Number of processes, a power of two.
    fn size(&self) -> usize;

    /// All-to-all. `send` holds the parts for ranks `0..size` end to end, `counts[p]` words each;
    /// `recv` is overwritten likewise with the parts *from* ranks `0..size`, whose counts are returned.
    ///
    /// # Errors
    /// [`Lost`] if a process ended.
    fn exchange(
        &mut self,
        send: &[u32],
        counts: &[usize],
        recv: &mut Vec<u32>,
    ) -> Result<Vec<usize>, Lost>;

    /// Returns when every process has arrived.
    ///
    /// # Errors
    /// [`Lost`] if a process ended.
    fn barrier(&mut self) -> Result<(), Lost> {
        let counts = vec![0; self.size()];
        self.exchange(&[], &counts, &mut Vec::new()).map(drop)
    }

    /// Adds `values` (same length everywhere) over all ranks along the fixed binary tree of
    /// [`sum::tree`], and leaves the same bits in every process: a reduce-scatter, ordered sums, an
    /// all-gather.
    ///
    /// # Errors
    /// [`Lost`] if a process ended.
    fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), Lost> {
        let size = self.size();
        if size == 1 {
            return Ok(());
        }
        let share = |rank: usize| values.len() * rank / size..values.len() * (rank + 1) / size;
        let counts: Vec<usize> = (0..size).map(|rank| share(rank).len()).collect();
        let mine = counts[self.rank()];
        let mut recv = Vec::new();
        self.exchange(bytemuck::cast_slice(values), &counts, &mut recv)?;
        let partials: &mut [f32] = bytemuck::cast_slice_mut(&mut recv);
        if mine > 0 {
            sum::tree(&mut partials.chunks_mut(mine).collect::<Vec<_>>());
        }
        // The sum of my share goes to everybody.
        let total: Vec<u32> = bytemuck::cast_slice::<f32, u32>(&partials[..mine]).repeat(size);
        let got = self.exchange(&total, &vec![mine; size], &mut recv)?;
        debug_assert_eq!(got, counts);
        values.copy_from_slice(bytemuck::cast_slice(&recv));
        Ok(())
    }
}
