//! What a step moves between lanes and how often it asks for the same thing, counted on the buffers
//! themselves.
//!
//! Bytes count from lane to *other* lane, as if every lane were a machine of its own: that does not
//! depend on how many lanes share a process. What really left a process is [`Counts::wire_bytes`].

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Bytes sent to other lanes, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Ids and image keys asked for, with the headers of the asks.
    pub ids: f64,
    /// Embedding rows in answers.
    pub rows: f64,
    /// Image embeddings answered; with the placement `ams`.
    pub embeddings: f64,
    /// Gradients of rows, with each lane's loss.
    pub row_grads: f64,
    /// Gradients of image embeddings; with the placement `ams`.
    pub embedding_grads: f64,
    /// Image features answered; with the placement `store-in-server`.
    pub features: f64,
    /// The sum of the dense gradients, (W, E), as lanes would exchange them.
    pub all_reduce: f64,
    /// Vectors of ads, pictures of histories and hits of a search by pictures.
    #[serde(default)]
    pub search: f64,
}

impl Traffic {
    /// All kinds by name, in the order of the step.
    pub fn kinds(&self) -> [(&'static str, f64); 8] {
        [
            ("search", self.search),
            ("ids", self.ids),
            ("rows", self.rows),
            ("embeddings", self.embeddings),
            ("features", self.features),
            ("row_grads", self.row_grads),
            ("embedding_grads", self.embedding_grads),
            ("all_reduce", self.all_reduce),
        ]
    }

    /// What depends on the impressions of the step: all but the sum of the dense gradients.
    pub fn without_all_reduce(&self) -> f64 {
        self.kinds().iter().map(|(_, bytes)| bytes).sum::<f64>() - self.all_reduce
    }
}

/// How often things of one kind were asked for, and how often that was the same thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// References in the impressions and behaviors.
    pub requested: f64,
    /// After each worker has merged its own.
    pub unique_per_worker: f64,
    /// After each shard has merged those of all workers.
    pub unique_per_shard: f64,
}

/// Bytes that the step's own data take, on all lanes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// At the workers: samples, and with `store-in-worker` the features they refer to.
    pub worker: f64,
    /// At the shards: rows of the ids asked for and, unless at the workers, features of the
    /// images.
    pub shard: f64,
}

/// Everything counted, either of one step or the mean over several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Bytes sent to other lanes.
    pub traffic: Traffic,
    /// Image keys, of all towers.
    pub images: Asked,
    /// Ids of all fields.
    pub ids: Asked,
    /// Images run forward through a tower.
    pub tower_forwards: f64,
    /// Images run backward through a tower.
    pub tower_backwards: f64,
    /// Pairs of an ad and a picture of a history whose likeness a search computed.
    #[serde(default)]
    pub searched: f64,
    /// Where the step's data are.
    pub storage: Storage,
    /// Bytes that left a process, everything included.
    pub wire_bytes: f64,
}

impl Counts {
    /// Every number by its place, for sums and for the mail.
    fn numbers(&mut self) -> [&mut f64; 20] {
        let Counts { traffic: t, images, ids, storage, .. } = self;
        [
            &mut t.ids,
            &mut t.rows,
            &mut t.embeddings,
            &mut t.row_grads,
            &mut t.embedding_grads,
            &mut t.features,
            &mut t.all_reduce,
            &mut t.search,
            &mut images.requested,
            &mut images.unique_per_worker,
            &mut images.unique_per_shard,
            &mut ids.requested,
            &mut ids.unique_per_worker,
            &mut ids.unique_per_shard,
            &mut self.tower_forwards,
            &mut self.tower_backwards,
            &mut self.searched,
            &mut storage.worker,
            &mut storage.shard,
            &mut self.wire_bytes,
        ]
    }

    /// The numbers as bits, to be sent.
    pub(crate) fn to_bits(mut self) -> Vec<u64> {
        self.numbers().map(|number| number.to_bits()).to_vec()
    }

    /// The inverse of [`Counts::to_bits`].
    pub(crate) fn from_bits(bits: &[u64]) -> Counts {
        let mut counts = Counts::default();
        counts.numbers().into_iter().zip(bits).for_each(|(to, &from)| *to = f64::from_bits(from));
        counts
    }

    /// Everything divided by `steps`.
    pub(crate) fn per_step(mut self, steps: u64) -> Counts {
        self.numbers().into_iter().for_each(|number| *number /= steps.max(1) as f64);
        self
    }

    /// Every number times `factor`.
    pub(crate) fn times(mut self, factor: f64) -> Counts {
        self.numbers().into_iter().for_each(|number| *number *= factor);
        self
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, mut other: Counts) {
        self.numbers().into_iter().zip(other.numbers()).for_each(|(sum, more)| *sum += *more);
    }
}

/// Bytes of words sent from `from` to `to`: nothing that stays in a lane counts.
pub(crate) fn bytes(words: usize, from: usize, to: usize) -> f64 {
    if from == to { 0.0 } else { 4.0 * words as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_summed_and_sent() {
        let mut counts = Counts::default();
        counts.numbers().into_iter().enumerate().for_each(|(at, number)| *number = at as f64 + 1.0);
        let json = serde_json::to_string(&counts).unwrap();
        let leaves = json.matches(',').count() + 1;
        assert_eq!(leaves, counts.numbers().len(), "{json}");
        assert_eq!(Counts::from_bits(&counts.to_bits()), counts);
        let mut twice = counts;
        twice += counts;
        assert_eq!(twice.per_step(2), counts);
        assert_eq!(twice.traffic.without_all_reduce(), 2.0 * (1 + 2 + 3 + 4 + 5 + 6 + 8) as f64);
    }
}
