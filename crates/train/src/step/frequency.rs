//! How often every id occurs in the training samples, counted once before the first step.
//!
//! Admission needs it: an id that occurs fewer than `train.min_occurrences` times has no row of its
//! own, but that of unknown ids. So does the mini-batch aware L2 of DIN (Zhou et al., KDD 2018,
//! Section 5.1): a row is drawn towards zero only in steps that use it, by lambda / (its
//! occurrences) times itself. So frequent ids, which have much to learn from, are hardly held back,
//! and rare ones cannot learn their few samples by heart.
//!
//! Workers read their samples in rounds and send the owners the counts of their ids.

use ams_data::IdMap;
use ams_fabric::{Fabric, Outbox, Post, Topology, gather};
use ams_image::FeatureStore;
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::setup::network::Network;
use crate::step::mail::{self, Occurrences};
use crate::step::share::Share;
use crate::step::worker::Worker;

/// The ids of one field in the training samples; each counts once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldIds {
    /// Name of the field.
    pub field: String,
    /// Different ids.
    pub ids: u64,
    /// Those of them that occur `train.min_occurrences` times or more, and have a row of their own.
    pub admitted: u64,
}

/// The ids of a shard.
#[derive(Clone, Debug, Default)]
struct Seen {
    occurrences: IdMap,
    /// Different ids, and those that are admitted, by field.
    by_field: Vec<[u64; 2]>,
}

impl Seen {
    /// Adds what a worker counted; an id is admitted from `min` occurrences.
    fn add(&mut self, counted: Occurrences, min: u32) {
        let before = self.occurrences.get(&counted.id).copied();
        let after = before.unwrap_or(0).saturating_add(counted.count);
        self.occurrences.insert(counted.id, after);
        let [ids, admitted] = &mut self.by_field[counted.field as usize];
        *ids += u64::from(before.is_none());
        *admitted += u64::from(before.unwrap_or(0) < min && after >= min);
    }
}

/// The occurrences of all ids.
pub(crate) struct Counted {
    /// Of the ids that each local shard owns.
    pub shards: Vec<IdMap>,
    /// Of all processes, by field.
    pub fields: Vec<FieldIds>,
}

/// The occurrences of the ids of all shards. `workers` read all their samples, in `rounds`. All
/// processes call it together.
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
) -> Result<Counted> {
    let (lanes, local) = (topology.lanes(), topology.local());
    let empty = Seen { by_field: vec![[0; 2]; network.fields.len()], ..Seen::default() };
    let mut seen = vec![empty; local.len()];
    let mut outboxes = vec![Outbox::default(); local.len()];
    let mut post = Post::default();
    for numerator in 1..=rounds {
        let share = Share { numerator, denominator: rounds };
        let read: Vec<Result<()>> = pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut outboxes).with_max_len(1);
            each.map(|(worker, outbox)| {
                worker.read(share.of(worker.feed.impressions()))?;
                worker.batch.deduplicate(network, stores, lanes, None);
                worker.batch.write_occurrences(network, lanes, outbox);
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
                    for counted in mail::occurrences(mail.read(worker, lane)) {
                        seen.add(counted, network.min_occurrences);
                    }
                }
            });
        });
    }
    let mine = (0..network.fields.len()).flat_map(|field| {
        [0, 1].map(|which| seen.iter().map(|seen| seen.by_field[field][which]).sum::<u64>())
    });
    let all = gather::numbers(fabric, &mine.collect::<Vec<_>>())?;
    let sum = |at: usize| all.iter().map(|numbers| numbers[at]).sum();
    let fields = network.fields.iter().enumerate().map(|(at, field)| FieldIds {
        field: field.clone(),
        ids: sum(2 * at),
        admitted: sum(2 * at + 1),
    });
    let fields = fields.collect();
    Ok(Counted { shards: seen.into_iter().map(|seen| seen.occurrences).collect(), fields })
}
