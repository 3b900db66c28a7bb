//! Several ranks inside one process, one thread each: the fabric of tests and simulations.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::{Fabric, Lost};

/// One rank of a job whose processes are threads of this process.
pub struct ThreadFabric {
    rank: usize,
    to: Vec<Sender<Vec<u32>>>,
    from: Vec<Receiver<Vec<u32>>>,
}

impl ThreadFabric {
    /// The `size` ranks of a job, to be moved into one thread each.
    pub fn job(size: usize) -> Vec<ThreadFabric> {
        assert!(size.is_power_of_two(), "{size} ranks: a power of two is needed");
        let mut to: Vec<Vec<Sender<_>>> = (0..size).map(|_| Vec::new()).collect();
        let mut from: Vec<Vec<Receiver<_>>> = (0..size).map(|_| Vec::new()).collect();
        for sender in &mut to {
            for receiver in &mut from {
                let (tx, rx) = channel();
                sender.push(tx);
                receiver.push(rx);
            }
        }
        let ranks = to.into_iter().zip(from).enumerate();
        ranks.map(|(rank, (to, from))| ThreadFabric { rank, to, from }).collect()
    }

    /// Runs `body` once per rank of a job of `size`, each on its own thread, and returns what they
    /// return in rank order.
    ///
    /// # Panics
    /// If a rank does.
    pub fn run<T: Send>(size: usize, body: impl Fn(ThreadFabric) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let body = &body;
            let ranks = ThreadFabric::job(size).into_iter();
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(move || body(rank))).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, T>| match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        })
    }
}

impl Fabric for ThreadFabric {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn exchange(
        &mut self,
        send: &[u32],
        counts: &[usize],
        recv: &mut Vec<u32>,
    ) -> Result<Vec<usize>, Lost> {
        assert_eq!(counts.len(), self.size());
        assert_eq!(counts.iter().sum::<usize>(), send.len());
        let mut rest = send;
        for (rank, (to, &count)) in self.to.iter().zip(counts).enumerate() {
            let (part, tail) = rest.split_at(count);
            to.send(part.to_vec()).map_err(|_| Lost::Rank { rank })?;
            rest = tail;
        }
        recv.clear();
        let mut got = Vec::with_capacity(self.size());
        for (rank, from) in self.from.iter().enumerate() {
            let part = from.recv().map_err(|_| Lost::Rank { rank })?;
            got.push(part.len());
            recv.extend_from_slice(&part);
        }
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_delivers_ragged_parts_in_rank_order() {
        // Rank r sends r + p words, each 10 r + p, to rank p.
        let got = ThreadFabric::run(4, |mut fabric| {
            let rank = fabric.rank();
            let counts: Vec<usize> = (0..4).map(|p| rank + p).collect();
            let send: Vec<u32> =
                (0..4).flat_map(|p| vec![(10 * rank + p) as u32; rank + p]).collect();
            let mut recv = vec![99; 3];
            let counts = fabric.exchange(&send, &counts, &mut recv).unwrap();
            (counts, recv)
        });
        for (rank, (counts, recv)) in got.into_iter().enumerate() {
            assert_eq!(counts, (0..4).map(|from| from + rank).collect::<Vec<_>>());
            let want: Vec<u32> =
                (0..4).flat_map(|from| vec![(10 * from + rank) as u32; from + rank]).collect();
            assert_eq!(recv, want);
        }
    }

    #[test]
    fn a_dead_rank_is_reported() {
        let mut ranks = ThreadFabric::job(2);
        drop(ranks.pop());
        assert_eq!(ranks[0].barrier(), Err(Lost::Rank { rank: 1 }));
    }
}
