//! Processes of an MPI job. The launcher (`mpirun`, Slurm, an operator) starts and ends them; MPI
//! moves the words.
//!
//! One thread per process talks to MPI, the one that started it. Errors stay fatal, as MPI has them
//! by default: the bindings do not look at return codes, and a job that lost a process ends anyway.

use mpi::Threading;
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

use crate::{Fabric, Lost};

/// This process's membership in an MPI job. Ends with MPI's own farewell, which waits for every
/// other process; a process that fails calls [`Membership::abort`] instead.
pub struct Membership {
    /// Dropped last: it says farewell.
    universe: Universe,
}

impl Membership {
    /// Joins the job. `None` if this process was in one before.
    pub fn join() -> Option<Membership> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)?;
        Some(Membership { universe })
    }

    /// All processes of the job as a fabric. Must not be used after the membership ended.
    pub fn fabric(&self) -> MpiFabric {
        MpiFabric {
            world: self.universe.world(),
            counts: Vec::new(),
            starts: Vec::new(),
            got: Vec::new(),
            got_starts: Vec::new(),
        }
    }

    /// Ends all processes of the job at once with this exit code.
    pub fn abort(&self, code: i32) -> ! {
        self.universe.world().abort(code)
    }

    /// The MPI library in words.
    pub fn library() -> String {
        let text = mpi::environment::library_version().unwrap_or_default();
        let first = text.split([',', '\n']).next().unwrap_or_default();
        first.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// One rank of an MPI job.
pub struct MpiFabric {
    world: SimpleCommunicator,
    counts: Vec<i32>,
    starts: Vec<i32>,
    got: Vec<i32>,
    got_starts: Vec<i32>,
}

impl Fabric for MpiFabric {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn exchange(
        &mut self,
        send: &[u32],
        counts: &[usize],
        recv: &mut Vec<u32>,
    ) -> Result<Vec<usize>, Lost> {
        assert_eq!(counts.len(), self.size(), "one count per rank");
        assert_eq!(counts.iter().sum::<usize>(), send.len(), "counts say what is sent");
        let MpiFabric { world, counts: sent, starts, got, got_starts } = self;
        // A count that MPI cannot say becomes one that everybody understands: nobody is left
        // waiting.
        let fits = send.len() <= i32::MAX as usize;
        sent.clear();
        sent.extend(counts.iter().map(|&count| if fits { count as i32 } else { -1 }));
        got.clear();
        got.resize(counts.len(), 0);
        world.all_to_all_into(&sent[..], &mut got[..]);
        let words: usize = got.iter().map(|&count| usize::try_from(count).unwrap_or(0)).sum();
        let bad = !fits || got.contains(&-1) || words > i32::MAX as usize;
        if bad {
            return Err(Lost::TooLarge { words: words.max(send.len()) });
        }
        starts_of(sent, starts);
        starts_of(got, got_starts);
        // Every word is overwritten: no need to clear what stays.
        recv.resize(words, 0);
        world.all_to_all_varcount_into(
            &Partition::new(send, &sent[..], &starts[..]),
            &mut PartitionMut::new(&mut recv[..], &got[..], &got_starts[..]),
        );
        Ok(got.iter().map(|&count| count as usize).collect())
    }
}

/// Where each part begins.
fn starts_of(counts: &[i32], starts: &mut Vec<i32>) {
    starts.clear();
    let mut at = 0;
    for &count in counts {
        starts.push(at);
        at += count;
    }
}
