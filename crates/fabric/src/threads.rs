//! Several ranks inside one process, one thread each: the fabric of tests.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::{Fabric, Lost};

/// One rank of a job whose processes are threads of this process.
pub struct ThreadFabric {
    rank: usize,
    /// To each rank.
    to: Vec<Sender<Vec<u32>>>,
    /// From each rank.
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
    use crate::sum;

    /// Runs `body` once per rank, each on its own thread, and returns the results in rank order.
    fn job<T: Send>(size: usize, body: impl Fn(ThreadFabric) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let body = &body;
            let ranks = ThreadFabric::job(size).into_iter();
            let threads: Vec<_> = ranks.map(|rank| scope.spawn(move || body(rank))).collect();
            threads.into_iter().map(|thread| thread.join().expect("rank panicked")).collect()
        })
    }

    #[test]
    fn exchange_delivers_ragged_parts_in_rank_order() {
        // Rank r sends r + p words, each 10 r + p, to rank p.
        let got = job(4, |mut fabric| {
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
    fn all_reduce_gives_every_rank_the_bits_of_the_tree() {
        let values = |rank: usize, len: usize| -> Vec<f32> {
            (0..len).map(|i| ((i * 7 + rank * 13) as f32).sin() * 10f32.powi(rank as i32)).collect()
        };
        // 3 values over 8 ranks: some ranks sum nothing.
        for (size, len) in [(1, 37), (2, 37), (4, 37), (8, 37), (8, 3), (4, 0)] {
            let mut parts: Vec<Vec<f32>> = (0..size).map(|rank| values(rank, len)).collect();
            sum::tree(&mut parts.iter_mut().map(|part| &mut part[..]).collect::<Vec<_>>());
            let got = job(size, |mut fabric| {
                let mut mine = values(fabric.rank(), len);
                fabric.all_reduce(&mut mine).unwrap();
                mine
            });
            for mine in got {
                assert_eq!(mine, parts[0], "{size} ranks, {len} values");
            }
        }
    }

    #[test]
    fn a_dead_rank_is_reported() {
        let mut ranks = ThreadFabric::job(2);
        drop(ranks.pop());
        assert_eq!(ranks[0].barrier(), Err(Lost::Rank { rank: 1 }));
    }
}
