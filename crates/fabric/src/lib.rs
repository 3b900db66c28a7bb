//! Moving bytes between processes, and sums whose order is fixed.
//!
//! ```
//! use ams_fabric::{Fabric, Rounding, ThreadFabric, sum};
//!
//! // Four processes agree whether any of them wants to stop.
//! let stops = ThreadFabric::run(4, |mut fabric| {
//!     let mine = fabric.rank() == 2;
//!     fabric.any(mine)
//! });
//! assert!(stops.iter().all(|stop| *stop == Ok(true)));
//!
//! // A sum has one order, whichever process holds a part: (0 + 1) + (2 + 3).
//! let mut lanes = [[1e8], [1.0], [-1e8], [1.0]];
//! let mut parts = lanes.each_mut().map(|lane| &mut lane[..]);
//! sum::tree(&mut parts, Rounding::Exact);
//! assert_eq!(lanes[0], [(1e8f32 + 1.0) + (-1e8 + 1.0)]);
//! ```
//!
//! Knows words, ranks and lanes as addresses. Does not know what an id, a row, an image or a
//! gradient is.
//!
//! In reading order: the trait [`Fabric`] and its engines, [`Solo`] (one process), [`ThreadFabric`]
//! (several ranks inside one process, for tests and simulations) and, with the feature `mpi`, `mpi`
//! (processes of an MPI job); [`Lent`], a handle of one of them for several users in turn;
//! [`mail`], how lanes address each other across ranks; [`sum`], the fixed binary tree along which
//! lanes are added up, and [`reduce`], the same sum over processes; [`gather`], small values that
//! every process has to know; [`together`], errors that stop all processes; [`words`], larger
//! numbers as words; [`metered`], how much was sent.

#![deny(missing_docs)]
#![warn(unreachable_pub)]

pub mod gather;
mod lent;
pub mod mail;
pub mod metered;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod reduce;
mod solo;
pub mod sum;
mod threads;
mod together;
pub mod words;

pub use lent::Lent;
pub use mail::{Mailbox, Outbox, Post, Topology};
pub use metered::Metered;
pub use reduce::AllReduce;
pub use solo::Solo;
pub use sum::Rounding;
pub use threads::ThreadFabric;
pub use together::{Disagreement, Elsewhere, agree, on_first, together};

/// Why processes cannot exchange. The job ends; the launcher starts it again.
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
    /// MPI counts words with 31 bits.
    #[error(
        "an exchange of {words} words in one process, but MPI counts to {}; use a smaller batch or more processes",
        i32::MAX
    )]
    TooLarge {
        /// What was to be sent or received.
        words: usize,
    },
}

/// One job's processes, able to exchange words all to all.
///
/// Object-safe; one thread per process calls it. Buffers are flat and reused.
pub trait Fabric {
    /// The rank of this process, `0..size`.
    fn rank(&self) -> usize;

    /// Number of processes, a power of two.
    fn size(&self) -> usize;

    /// All-to-all. `send` holds the parts for ranks `0..size` end to end, `counts[p]` words each;
    /// `recv` is overwritten with the parts *from* ranks `0..size`, whose counts are
    /// returned.
    ///
    /// # Errors
    /// [`Lost`] if a process ended, or the engine cannot move so much at once.
    fn exchange(
        &mut self,
        send: &[u32],
        counts: &[usize],
        recv: &mut Vec<u32>,
    ) -> Result<Vec<usize>, Lost>;

    /// Returns when every process has arrived.
    ///
    /// # Errors
    /// As [`Fabric::exchange`].
    fn barrier(&mut self) -> Result<(), Lost> {
        let counts = vec![0; self.size()];
        self.exchange(&[], &counts, &mut Vec::new()).map(drop)
    }

    /// Whether any process says `mine`; the same answer everywhere.
    ///
    /// # Errors
    /// As [`Fabric::exchange`].
    fn any(&mut self, mine: bool) -> Result<bool, Lost> {
        let size = self.size();
        if size == 1 {
            return Ok(mine);
        }
        let mut all = Vec::new();
        self.exchange(&vec![u32::from(mine); size], &vec![1; size], &mut all)?;
        Ok(all.contains(&1))
    }
}
