//! The worker of a lane: reads its impressions, asks for what they need, runs the network W.
//!
//! The mail between a worker and a shard, as words (n: ids, k_t: image keys of tower t):
//! ```text
//! ask        worker -> shard   impressions, n, k_0.., n ids, k_0 keys, ..      (ids, keys: 2 words)
//! answer     shard -> worker   n rows of D, k_0 embeddings of D, ..            (f32)
//! gradient   worker -> shard   loss (f64, 2 words), then as the answer
//! ```

use ams_data::ImageKey;
use ams_fabric::Outbox;
use ams_model::loss;
use ams_model::rank::{InputGrads, RankScratch};

use crate::error::Result;
use crate::feed::Feed;
use crate::micro::MicroBatch;
use crate::plan::Plan;

/// Words of a gradient before the rows: the loss.
pub const GRADIENT_HEADER: usize = 2;

/// The half of a lane that holds samples.
pub struct Worker {
    /// Where the impressions come from.
    pub feed: Feed,
    /// What is being computed.
    pub batch: MicroBatch,
    /// Predicted logits of the micro-batch; (B).
    pub logits: Vec<f32>,
    /// Sum of the losses of the micro-batch.
    pub loss: f64,
    dlogits: Vec<f32>,
    scratch: RankScratch,
    grads: InputGrads,
}

impl Worker {
    /// A worker of `plan`'s model reading from `feed`.
    pub fn new(plan: &Plan, feed: Feed) -> Worker {
        Worker {
            feed,
            batch: MicroBatch::new(plan),
            logits: Vec::new(),
            loss: 0.0,
            dlogits: Vec::new(),
            scratch: RankScratch::default(),
            grads: InputGrads::default(),
        }
    }

    /// Reads the next micro-batch, until `until` impressions of the epoch were read.
    pub fn read(&mut self, until: u64) -> Result<()> {
        self.batch.groups.clear();
        self.feed.take(until, &mut self.batch.groups)
    }

    /// Predicts the micro-batch with the weights `w`.
    pub fn forward(&mut self, plan: &Plan, w: &[f32]) {
        let Worker { batch, scratch, logits, .. } = self;
        batch.view(plan, |batch| plan.network.forward(w, batch, scratch, logits));
    }

    /// Loss and gradients of the micro-batch, each impression weighing `weight` (1 / impressions of
    /// the step). Adds to `dw`.
    pub fn backward(&mut self, plan: &Plan, w: &[f32], weight: f32, dw: &mut [f32]) {
        let Worker { batch, scratch, logits, dlogits, grads, .. } = self;
        self.loss = loss::cross_entropy(logits, &batch.groups.labels, weight, dlogits);
        batch.view(plan, |batch| plan.network.backward(w, batch, scratch, dlogits, dw, grads));
    }

    /// Sends every shard the gradients of what it answered.
    pub fn write_gradients(&self, plan: &Plan, lanes: usize, out: &mut Outbox) {
        let dim = plan.spec.dim;
        let loss = self.loss.to_bits();
        out.clear();
        for shard in 0..lanes {
            let words = out.words();
            words.extend([loss as u32, (loss >> 32) as u32]);
            let range = self.batch.ids.range(shard);
            let drows = &self.grads.drows[range.start * dim..range.end * dim];
            words.extend_from_slice(bytemuck::cast_slice(drows));
            for (tower, asks) in self.batch.images.iter().enumerate() {
                let range = asks.range(shard);
                self.write_embedding_gradients(
                    plan,
                    tower,
                    range.start * dim..range.end * dim,
                    words,
                );
            }
            out.seal();
        }
    }

    /// Appends the embedding gradients of one tower; a shared tower gets the sum of both uses.
    fn write_embedding_gradients(
        &self,
        plan: &Plan,
        tower: usize,
        range: std::ops::Range<usize>,
        words: &mut Vec<u32>,
    ) {
        let ad = plan.ad_tower == Some(tower);
        let behavior = plan.behavior_tower == Some(tower);
        let (dad, dbehavior) = (&self.grads.dad_embeddings, &self.grads.dbehavior_embeddings);
        match (ad, behavior) {
            (true, false) => words.extend_from_slice(bytemuck::cast_slice(&dad[range])),
            (false, true) => words.extend_from_slice(bytemuck::cast_slice(&dbehavior[range])),
            _ => {
                let sums = dad[range.clone()].iter().zip(&dbehavior[range]);
                words.extend(sums.map(|(ad, behavior)| (ad + behavior).to_bits()));
            }
        }
    }

    /// The image of each impression's ad; (B).
    pub fn ad_keys(&self) -> &[ImageKey] {
        &self.batch.keys.ads
    }
}
