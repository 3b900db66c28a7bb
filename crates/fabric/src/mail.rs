//! Mail between lanes.
//!
//! Every lane writes one [`Outbox`]: words for lane 0, words for lane 1, and so on. A [`Mailbox`]
//! then shows each local lane what every lane sent it, *in lane order*. Mail between lanes of one
//! process is read where it was written; only mail for other processes goes through the fabric, in
//! one exchange:
//! ```text
//! to rank p:  for each local lane l, for each lane d of p:  count (1 word)
//!             for each local lane l, for each lane d of p:  the words
//! ```

use std::ops::Range;

use crate::{Fabric, Lost};

/// Which lanes live where: rank `r` of `size` holds an aligned run of `lanes / size` lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    lanes: usize,
    rank: usize,
    size: usize,
}

impl Topology {
    /// The lanes of a job seen from `fabric`'s process. `None` unless both numbers are powers of
    /// two and there is at least one lane per process.
    pub fn new(lanes: usize, fabric: &dyn Fabric) -> Option<Topology> {
        let fits = lanes.is_power_of_two() && fabric.size().is_power_of_two();
        (fits && lanes >= fabric.size()).then(|| Topology {
            lanes,
            rank: fabric.rank(),
            size: fabric.size(),
        })
    }

    /// Lanes of the whole job.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The lanes of rank `rank`.
    pub(crate) fn lanes_of(&self, rank: usize) -> Range<usize> {
        let each = self.lanes / self.size;
        rank * each..(rank + 1) * each
    }

    /// The lanes of this process.
    pub fn local(&self) -> Range<usize> {
        self.lanes_of(self.rank)
    }
}

/// What one lane sends: the words for lanes `0..lanes` end to end.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    words: Vec<u32>,
    /// Where the words for each lane end.
    ends: Vec<usize>,
}

impl Outbox {
    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.words.clear();
        self.ends.clear();
    }

    /// The buffer to append the words for the next lane to; call [`Outbox::seal`] after.
    pub fn words(&mut self) -> &mut Vec<u32> {
        &mut self.words
    }

    /// Ends the words for the next lane, in lane order.
    pub fn seal(&mut self) {
        self.ends.push(self.words.len());
    }

    /// The words for lane `lane`.
    pub fn to(&self, lane: usize) -> &[u32] {
        let start = if lane == 0 { 0 } else { self.ends[lane - 1] };
        &self.words[start..self.ends[lane]]
    }
}

/// Delivers the mail of one exchange. Keeps its buffers from step to step.
#[derive(Debug, Default)]
pub struct Post {
    send: Vec<u32>,
    counts: Vec<usize>,
    recv: Vec<u32>,
    /// Where in `recv` the words from (lane, local lane) are; empty ranges for local lanes.
    slots: Vec<Range<usize>>,
}

impl Post {
    /// Sends every local lane's outbox and receives the others'. All processes call it together.
    ///
    /// # Errors
    /// [`Lost`] if a process ended.
    pub fn deliver<'a>(
        &'a mut self,
        topology: Topology,
        fabric: &mut dyn Fabric,
        outboxes: &'a [Outbox],
    ) -> Result<Mailbox<'a>, Lost> {
        let local = topology.local();
        assert_eq!(outboxes.len(), local.len(), "one outbox per local lane");
        for outbox in outboxes {
            assert_eq!(outbox.ends.len(), topology.lanes, "one sealed part per lane");
        }
        if topology.size > 1 {
            self.exchange(topology, fabric, outboxes)?;
        }
        Ok(Mailbox { local, outboxes, recv: &self.recv, slots: &self.slots })
    }

    fn exchange(
        &mut self,
        topology: Topology,
        fabric: &mut dyn Fabric,
        outboxes: &[Outbox],
    ) -> Result<(), Lost> {
        let local = topology.local();
        self.send.clear();
        self.counts.clear();
        for rank in 0..topology.size {
            let start = self.send.len();
            if rank != topology.rank {
                for outbox in outboxes {
                    let lanes = topology.lanes_of(rank);
                    self.send.extend(lanes.map(|lane| word_count(outbox.to(lane))));
                }
                for outbox in outboxes {
                    for lane in topology.lanes_of(rank) {
                        self.send.extend_from_slice(outbox.to(lane));
                    }
                }
            }
            self.counts.push(self.send.len() - start);
        }
        let got = fabric.exchange(&self.send, &self.counts, &mut self.recv)?;
        self.slots.clear();
        self.slots.resize(topology.lanes * local.len(), 0..0);
        let mut start = 0;
        for (rank, count) in got.into_iter().enumerate() {
            if rank == topology.rank {
                continue;
            }
            let lanes = topology.lanes_of(rank);
            let mut at = start + lanes.len() * local.len();
            let mut header = start;
            for from in lanes {
                for to in 0..local.len() {
                    let words = self.recv[header] as usize;
                    self.slots[from * local.len() + to] = at..at + words;
                    header += 1;
                    at += words;
                }
            }
            assert_eq!(at, start + count, "mail from rank {rank} adds up");
            start = at;
        }
        Ok(())
    }
}

fn word_count(words: &[u32]) -> u32 {
    u32::try_from(words.len()).expect("mail between two lanes stays below 2^32 words")
}

/// Mail as it arrived.
#[derive(Debug)]
pub struct Mailbox<'a> {
    local: Range<usize>,
    outboxes: &'a [Outbox],
    recv: &'a [u32],
    slots: &'a [Range<usize>],
}

impl Mailbox<'_> {
    /// What lane `from` sent to `to`, a lane of this process.
    pub fn read(&self, from: usize, to: usize) -> &[u32] {
        if self.local.contains(&from) {
            self.outboxes[from - self.local.start].to(to)
        } else {
            let slot = from * self.local.len() + (to - self.local.start);
            &self.recv[self.slots[slot].clone()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Solo, ThreadFabric};

    /// Lane `from` sends `from + 2 * to` words to lane `to`, all `100 * from + to`.
    fn outbox(from: usize, lanes: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for to in 0..lanes {
            outbox.words().extend(vec![(100 * from + to) as u32; from + 2 * to]);
            outbox.seal();
        }
        outbox
    }

    fn deliver(lanes: usize, mut fabric: impl Fabric) {
        let topology = Topology::new(lanes, &fabric).unwrap();
        let mut post = Post::default();
        for _ in 0..2 {
            let outboxes: Vec<Outbox> = topology.local().map(|from| outbox(from, lanes)).collect();
            let mail = post.deliver(topology, &mut fabric, &outboxes).unwrap();
            for to in topology.local() {
                for from in 0..lanes {
                    let want = vec![(100 * from + to) as u32; from + 2 * to];
                    assert_eq!(mail.read(from, to), want, "{from} -> {to}");
                }
            }
        }
    }

    #[test]
    fn every_lane_reads_what_was_sent_to_it() {
        deliver(8, Solo);
        for size in [1, 2, 4, 8] {
            std::thread::scope(|scope| {
                for rank in ThreadFabric::job(size) {
                    scope.spawn(move || deliver(8, rank));
                }
            });
        }
    }

    #[test]
    fn lanes_are_a_power_of_two_and_cover_the_processes() {
        let fits = |lanes, size: usize| {
            let rank = ThreadFabric::job(size).remove(0);
            Topology::new(lanes, &rank).is_some()
        };
        assert!(fits(8, 4) && fits(1, 1) && fits(4, 4));
        assert!(!fits(6, 2) && !fits(2, 4) && !fits(0, 1));
    }
}
