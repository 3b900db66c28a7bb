//! The share of each item among the training impressions, counted once before the first step.
//!
//! A worker needs the shares of the items that its own lane shows, and no others: negatives are
//! drawn within a lane. Workers read their samples, the owners of items add up what all lanes
//! counted, and each worker hears the sums of its own.

use ams_data::IdMap;
use ams_fabric::{Fabric, Outbox, Post, Topology, gather};
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::Result;
use crate::setup::network::Network;
use crate::step::dedup::Asks;
use crate::step::items::{Items, Popularity};
use crate::step::mail::{self, Occurrences};
use crate::step::share::Share;
use crate::step::worker::Worker;

/// The items of one lane, in order of their first impression.
#[derive(Default)]
struct Shown {
    items: Asks,
    counts: Vec<u32>,
}

impl Shown {
    fn add(&mut self, item: u64) {
        let number = self.items.add(item) as usize;
        self.counts.resize(self.items.len(), 0);
        self.counts[number] += 1;
    }

    /// Writes every owner its items with their counts; returns the items by owner.
    fn write(&mut self, lanes: usize, out: &mut Outbox) -> Vec<u64> {
        self.items.close(lanes);
        let mut by_owner = vec![0; self.counts.len()];
        for (number, count) in self.counts.iter().enumerate() {
            by_owner[self.items.position(number as u32) as usize] = *count;
        }
        out.clear();
        for lane in 0..lanes {
            let counts = &by_owner[self.items.range(lane)];
            for (&id, &count) in self.items.of(lane).iter().zip(counts) {
                mail::push_occurrences(Occurrences { id, count, field: 0 }, out.words());
            }
            out.seal();
        }
        self.items.by_owner().to_vec()
    }
}

/// The popularity of the items of each local lane. `workers` read all their samples, in `rounds`.
/// All processes call it together.
///
/// # Errors
/// If samples cannot be read or a process is lost.
pub(crate) fn count(
    network: &Network,
    workers: &mut [Worker],
    rounds: u64,
    topology: Topology,
    fabric: &mut dyn Fabric,
    pool: &ThreadPool,
) -> Result<Vec<Popularity>> {
    let (lanes, local) = (topology.lanes(), topology.local());
    let items = Items::of(&network.spec.fields);
    let shown: Vec<Result<Shown>> = pool.install(|| {
        let each = workers.par_iter_mut().with_max_len(1);
        each.map(|worker| read(worker, items, rounds)).collect()
    });
    let mut shown = shown.into_iter().collect::<Result<Vec<Shown>>>()?;
    let all: u64 = shown.iter().flat_map(|of| &of.counts).map(|count| u64::from(*count)).sum();
    let all = gather::numbers(fabric, &[all])?.iter().flatten().sum();
    let mut outboxes = vec![Outbox::default(); local.len()];
    let each = shown.iter_mut().zip(&mut outboxes);
    let asked: Vec<Vec<u64>> = each.map(|(shown, out)| shown.write(lanes, out)).collect();
    let mut post = Post::default();
    let mail = post.deliver(topology, fabric, &outboxes)?;
    let mut sums = Vec::new();
    for owner in local.clone() {
        let mut sum = IdMap::default();
        let counted = |worker| mail::occurrences(mail.read(worker, owner));
        for Occurrences { id, count, .. } in (0..lanes).flat_map(counted) {
            let sum = sum.entry(id).or_insert(0);
            *sum = sum.saturating_add(count);
        }
        let mut out = Outbox::default();
        for worker in 0..lanes {
            out.words().extend(counted(worker).map(|of| sum[&of.id]));
            out.seal();
        }
        sums.push(out);
    }
    let mut post = Post::default();
    let mail = post.deliver(topology, fabric, &sums)?;
    let hear = |(worker, asked): (usize, Vec<u64>)| {
        let answers = (0..lanes).flat_map(|owner| mail.read(owner, worker).iter().copied());
        Popularity::new(asked.into_iter().zip(answers), all)
    };
    Ok(local.zip(asked).map(hear).collect())
}

/// Counts the items that a lane shows.
fn read(worker: &mut Worker, items: Items, rounds: u64) -> Result<Shown> {
    let mut shown = Shown::default();
    for numerator in 1..=rounds {
        worker.read(Share { numerator, denominator: rounds }.of(worker.feed.impressions()))?;
        let groups = &worker.batch.groups;
        (0..groups.labels.len())
            .filter_map(|at| items.shown(groups, at))
            .for_each(|id| shown.add(id));
    }
    Ok(shown)
}
