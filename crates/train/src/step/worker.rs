//! The worker of a lane: reads its impressions, asks for what they need, runs the network W.

use ams_data::ImageKey;
use ams_fabric::{Mailbox, Outbox};
use ams_image::FeatureStore;
use ams_model::loss;
use ams_model::rank::{InputGrads, RankScratch};
use half::f16;

use crate::error::Result;
use crate::settings::Placement;
use crate::setup::network::Plan;
use crate::step::batch::MicroBatch;
use crate::step::feed::Feed;
use crate::step::mail;
use crate::step::seat::Seat;
use crate::step::tower_run::{Images, TowerAt, TowerRun, Weights};
use crate::step::traffic::{Counts, bytes};

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
    /// What this worker did and sent in this step.
    pub counts: Counts,
    dlogits: Vec<f32>,
    scratch: RankScratch,
    grads: InputGrads,
    /// The towers, where they run here.
    towers: Vec<TowerRun>,
    /// Sums of embedding gradients of a tower with two uses.
    sums: Vec<f32>,
}

impl Worker {
    /// A worker of `plan`'s model reading from `feed`.
    pub fn new(plan: &Plan, feed: Feed) -> Worker {
        Worker {
            feed,
            batch: MicroBatch::new(plan),
            logits: Vec::new(),
            loss: 0.0,
            counts: Counts::default(),
            dlogits: Vec::new(),
            scratch: RankScratch::default(),
            grads: InputGrads::default(),
            towers: (0..plan.towers.len()).map(|_| TowerRun::default()).collect(),
            sums: Vec::new(),
        }
    }

    /// Reads the next micro-batch, until `until` impressions of the epoch were read.
    pub fn read(&mut self, until: u64) -> Result<()> {
        self.batch.groups.clear();
        self.feed.take(until, &mut self.batch.groups)
    }

    /// Asks every shard for what the micro-batch needs.
    pub fn ask(&mut self, plan: &Plan, stores: &[FeatureStore], seat: Seat, out: &mut Outbox) {
        let Worker { batch, counts, .. } = self;
        *counts = Counts::default();
        batch.deduplicate(plan, stores, seat.lanes);
        batch.write_asks(plan.placement, seat.lanes, out);
        let words = (0..seat.lanes).map(|shard| bytes(out.to(shard).len(), seat.lane, shard));
        counts.traffic.ids = words.sum();
        batch.count(plan, counts);
    }

    /// Reads the answers of every shard.
    pub fn read_answers(&mut self, plan: &Plan, mail: &Mailbox<'_>, seat: Seat) {
        self.batch.read_answers(plan, mail, seat);
    }

    /// Runs the towers over the images of the micro-batch, if they run here; `dropout_seed`
    /// as for [`TowerRun::forward`].
    pub fn embed(
        &mut self,
        plan: &Plan,
        weights: Weights,
        stores: &[FeatureStore],
        dropout_seed: Option<u64>,
    ) {
        let Worker { batch, towers, counts, .. } = self;
        if plan.placement != Placement::Ams {
            for (index, tower) in towers.iter_mut().enumerate() {
                let mailed = mailed(plan, &batch.features[index]);
                let images = Images { keys: batch.images[index].by_owner(), mailed };
                let out = &mut batch.embeddings[index];
                tower.forward(plan, index, weights, stores, images, dropout_seed, out);
                counts.tower_forwards += tower.forwards as f64;
            }
        }
    }

    /// Predicts the micro-batch with the dense weights `dense`.
    pub fn predict(&mut self, plan: &Plan, dense: &[f32]) {
        let Worker { batch, scratch, logits, .. } = self;
        let w = &dense[plan.network_range()];
        batch.view(plan, |batch| plan.network.forward(w, batch, scratch, logits));
    }

    /// Loss and gradients of the micro-batch, each impression weighing `weight` (1 / impressions of
    /// the step). Adds to `dense_grad`.
    pub fn backward(&mut self, plan: &Plan, dense: &[f32], weight: f32, dense_grad: &mut [f32]) {
        let Worker { batch, scratch, logits, dlogits, grads, .. } = self;
        self.loss = loss::cross_entropy(logits, &batch.groups.labels, weight, dlogits);
        let w = plan.network_range();
        let (weights, dw) = (&dense[w.clone()], &mut dense_grad[w]);
        batch.view(plan, |batch| {
            plan.network.backward(weights, batch, scratch, dlogits, dw, grads);
        });
    }

    /// The gradients of the towers, if they run here, but for the matrices of their first layers.
    /// Adds to `dense_grad`.
    pub fn towers_backward(&mut self, plan: &Plan, dense: &[f32], dense_grad: &mut [f32]) {
        let Worker { batch, grads, towers, sums, counts, .. } = self;
        if plan.placement != Placement::Ams {
            for (index, planned) in plan.trained() {
                let tower = &mut towers[index];
                let all = 0..batch.images[index].len() * planned.dim();
                let dout = embedding_gradients(plan, index, grads, all, sums);
                tower.backward(plan, index, dense, dout, dense_grad);
                counts.tower_backwards += tower.backwards as f64;
            }
        }
    }

    /// Writes every shard the gradients of its answer.
    pub fn write_gradients(&mut self, plan: &Plan, seat: Seat, out: &mut Outbox) {
        let Worker { batch, grads, sums, counts, .. } = self;
        let (dim, lane) = (plan.spec.dim, seat.lane);
        out.clear();
        for shard in 0..seat.lanes {
            let words = out.words();
            let start = words.len();
            mail::push_loss(self.loss, words);
            let range = batch.ids.range(shard);
            mail::push_floats(&grads.drows[range.start * dim..range.end * dim], words);
            let rows = words.len();
            counts.traffic.row_grads += bytes(rows - start, lane, shard);
            if plan.placement == Placement::Ams {
                for (tower, planned) in plan.trained() {
                    let (range, dim) = (batch.images[tower].range(shard), planned.dim());
                    let range = range.start * dim..range.end * dim;
                    let gradients = embedding_gradients(plan, tower, grads, range, sums);
                    mail::push_floats(gradients, words);
                }
                counts.traffic.embedding_grads += bytes(words.len() - rows, lane, shard);
            }
            out.seal();
        }
    }

    /// Tower `tower`, where towers run on workers.
    pub fn tower(&self, plan: &Plan, tower: usize) -> TowerAt<'_> {
        let mailed = mailed(plan, &self.batch.features[tower]);
        TowerAt { run: &self.towers[tower], mailed }
    }

    /// The image of each impression's ad; (B).
    pub fn ad_keys(&self) -> &[ImageKey] {
        &self.batch.keys[0].ads
    }
}

/// The features of a tower's images as a shard sent them, if they do not lie in the store at hand.
fn mailed<'a>(plan: &Plan, features: &'a [f16]) -> Option<&'a [f16]> {
    (plan.placement == Placement::StoreInServer).then_some(features)
}

/// The embedding gradients of one tower; a shared tower gets the sum of both uses, made in `sums`.
fn embedding_gradients<'a>(
    plan: &Plan,
    tower: usize,
    grads: &'a InputGrads,
    range: std::ops::Range<usize>,
    sums: &'a mut Vec<f32>,
) -> &'a [f32] {
    let content = plan.towers[tower].spec.content;
    let ad = plan.contents[content].ad == Some(tower);
    let behavior = plan.contents[content].behavior == Some(tower);
    let grads = &grads.contents[content];
    let (dad, dbehavior) = (&grads.dad_embeddings, &grads.dbehavior_embeddings);
    match (ad, behavior) {
        (true, false) => &dad[range],
        (false, true) => &dbehavior[range],
        _ => {
            let pairs = dad[range.clone()].iter().zip(&dbehavior[range]);
            sums.clear();
            sums.extend(pairs.map(|(ad, behavior)| ad + behavior));
            sums
        }
    }
}
