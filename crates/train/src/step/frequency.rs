//! How often every id occurs in the training samples, counted once before the first step.
//!
//! The mini-batch aware L2 of DIN (Zhou et al., KDD 2018, Section 5.1) needs it: a row is drawn
//! towards zero only in steps that use it, by lambda / (its occurrences) times itself. So frequent
//! ids, which have much to learn from, are hardly held back, and rare ones cannot learn their few
//! samples by heart.
//!
//! Workers read their samples in rounds and send the owners the counts of their ids.

use ams_fabric::{Fabric, Outbox, Post, Topology};
use ams_image::FeatureStore;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::Result;
use crate::setup::network::Network;
use crate::step::dedup::IdMap;
use crate::step::mail;
use crate::step::share::Share;
use crate::step::worker::Worker;

/// The occurrences of the ids that each local shard owns. `workers` read all their samples, in
/// `rounds`. All processes call it together.
///
/// # Errors
/// If samples cannot be read or a process is lost.
pub(crate) fn count(
    network: &Network,
    stores: &[FeatureStore],
    workers: &mut [Worker],
    rounds: u64,
    topology: Topology,
    fabric: &mut dyn Fabric,
    pool: &ThreadPool,
) -> Result<Vec<IdMap>> {
    let (lanes, local) = (topology.lanes(), topology.local());
    let mut seen = vec![IdMap::default(); local.len()];
    let mut outboxes = vec![Outbox::default(); local.len()];
    let mut post = Post::default();
    for numerator in 1..=rounds {
        let share = Share { numerator, denominator: rounds };
        let read: Vec<Result<()>> = pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut outboxes).with_max_len(1);
            each.map(|(worker, outbox)| {
                worker.read(share.of(worker.feed.impressions()))?;
                worker.batch.deduplicate(network, stores, lanes, None);
                worker.batch.write_occurrences(lanes, outbox);
                Ok(())
            })
            .collect()
        });
        read.into_iter().collect::<Result<()>>()?;
        let mail = post.deliver(topology, fabric, &outboxes)?;
        pool.install(|| {
            let each = seen.par_iter_mut().zip(local.clone()).with_max_len(1);
            each.for_each(|(seen, lane)| {
                for worker in 0..lanes {
                    for (id, more) in mail::occurrences(mail.read(worker, lane)) {
                        let count = seen.entry(id).or_default();
                        *count = count.saturating_add(more);
                    }
                }
            });
        });
    }
    Ok(seen)
}
