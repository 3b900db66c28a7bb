//! The worker of a lane: reads its impressions, asks for their rows and embeddings, runs the
//! network W.

use ams_data::ImageKey;
use ams_fabric::Outbox;
use ams_image::FeatureStore;
use ams_model::loss;
use ams_model::rank::{InputGrads, Moments, RankScratch};
use half::f16;

use crate::error::Result;
use crate::settings::Placement;
use crate::setup::network::{ContrastiveSettings, Network};
use crate::step::batch::MicroBatch;
use crate::step::contrastive::{Contrastive, Embedded};
use crate::step::draws::Draws;
use crate::step::feed::Feed;
use crate::step::id_dropout::IdDropout;
use crate::step::in_batch::InBatch;
use crate::step::items::Items;
use crate::step::mail::{self, Losses, Seat};
use crate::step::search::{SearchWorker, Searched};
use crate::step::tower_run::{Images, TowerAt, TowerRun, Weights};
use crate::step::traffic::{Counts, bytes};

/// The half of a lane that holds samples.
pub(crate) struct Worker {
    /// The samples that it reads.
    pub feed: Feed,
    /// The micro-batch at work.
    pub batch: MicroBatch,
    /// Predicted logits of the micro-batch; (B).
    pub logits: Vec<f32>,
    /// Losses of the micro-batch.
    pub losses: Losses,
    /// Counters of this worker in this step.
    pub counts: Counts,
    /// The search of the micro-batch.
    pub search: SearchWorker,
    /// Negatives of the micro-batch, if there are any.
    pub in_batch: InBatch,
    contrastive: Contrastive,
    dlogits: Vec<f32>,
    scratch: RankScratch,
    grads: InputGrads,
    /// The towers, where they run here.
    towers: Vec<TowerRun>,
    /// Sums of embedding gradients of a tower with two uses.
    sums: Vec<f32>,
}

impl Worker {
    /// A worker of `network`'s model reading from `feed`.
    pub(crate) fn new(network: &Network, feed: Feed) -> Worker {
        Worker {
            feed,
            batch: MicroBatch::new(network),
            logits: Vec::new(),
            losses: Losses::default(),
            counts: Counts::default(),
            search: SearchWorker::default(),
            in_batch: InBatch::default(),
            contrastive: Contrastive::default(),
            dlogits: Vec::new(),
            scratch: RankScratch::default(),
            grads: InputGrads::default(),
            towers: (0..network.towers.len()).map(|_| TowerRun::default()).collect(),
            sums: Vec::new(),
        }
    }

    /// Reads the next micro-batch, until `until` impressions of the epoch were read.
    pub(crate) fn read(&mut self, until: u64) -> Result<()> {
        self.batch.groups.clear();
        self.feed.take(until, &mut self.batch.groups)
    }

    /// Puts what a search left of the micro-batch in its place.
    pub(crate) fn take_searched(&mut self, Searched { groups, kept }: Searched) {
        (self.batch.groups, self.batch.kept) = (groups, kept);
    }

    /// Writes every shard the ids and image keys that the micro-batch needs, without the ids that
    /// `dropout` drops; `sees`: with the sightings of the ids.
    pub(crate) fn ask(
        &mut self,
        network: &Network,
        stores: &[FeatureStore],
        seat: Seat,
        dropout: Option<IdDropout<'_>>,
        sees: bool,
        out: &mut Outbox,
    ) {
        let Worker { batch, counts, .. } = self;
        *counts = Counts::default();
        batch.deduplicate(network, stores, seat.lanes, dropout);
        if sees {
            batch.see(network);
        }
        batch.write_asks(network.placement, sees, seat.lanes, out);
        let words = (0..seat.lanes).map(|shard| bytes(out.to(shard).len(), seat.lane, shard));
        counts.traffic.ids = words.sum();
        batch.count(network, counts);
    }

    /// Runs the towers over the images of the micro-batch, if they run here; `dropout_seed`
    /// as for [`TowerRun::forward`].
    pub(crate) fn embed(
        &mut self,
        network: &Network,
        weights: Weights,
        stores: &[FeatureStore],
        dropout_seed: Option<u64>,
    ) {
        let Worker { batch, towers, counts, .. } = self;
        if network.placement != Placement::Ams {
            for (index, tower) in towers.iter_mut().enumerate() {
                let mailed = mailed(network, &batch.features[index]);
                let images = Images { keys: batch.images[index].by_owner(), mailed };
                let out = &mut batch.embeddings[index];
                tower.forward(network, index, weights, stores, images, dropout_seed, out);
                counts.tower_forwards += tower.forwards as f64;
            }
        }
    }

    /// Predicts the micro-batch with the dense weights `dense`.
    pub(crate) fn predict(&mut self, network: &Network, dense: &[f32]) {
        let Worker { batch, scratch, logits, .. } = self;
        let w = &dense[network.rank_range()];
        batch.view(network, |batch| network.rank.forward(w, batch, scratch, logits));
    }

    /// Adds the similarities of the micro-batch to those of each content.
    pub(crate) fn add_moments(&mut self, network: &Network, to: &mut [Moments]) {
        let Worker { batch, scratch, .. } = self;
        batch.view(network, |batch| network.rank.add_moments(batch, scratch, to));
    }

    /// Loss and gradients of the micro-batch, each impression weighing `weight` (1 / impressions of
    /// the step); `draws` of auxiliary losses. Adds to `dense_grad`.
    pub(crate) fn backward(
        &mut self,
        network: &Network,
        dense: &[f32],
        weight: f32,
        draws: Draws,
        dense_grad: &mut [f32],
    ) {
        let Worker { batch, scratch, logits, dlogits, grads, losses, in_batch, .. } = self;
        losses.clicks = loss::cross_entropy(logits, &batch.groups.labels, weight, dlogits);
        if let Some(settings) = network.in_batch {
            let items = Items::of(&network.spec.fields);
            in_batch.draw(&batch.groups, items, settings.negatives, draws);
            let (negatives, scale) = (&in_batch.negatives, weight * settings.weight);
            let loss = network.rank.sampled_softmax(negatives, scale, scratch);
            losses.in_batch = [loss, negatives.clicks.len() as f64];
        }
        let w = network.rank_range();
        let (weights, dw) = (&dense[w.clone()], &mut dense_grad[w]);
        batch.view(network, |batch| {
            network.rank.backward(weights, batch, scratch, dlogits, dw, grads);
        });
        if let Some(settings) = &network.contrastive {
            self.contrast(network, settings, weight, draws);
        }
    }

    /// Adds the contrastive loss of the micro-batch and its gradients of embeddings, each
    /// impression weighing `weight`.
    fn contrast(
        &mut self,
        network: &Network,
        settings: &ContrastiveSettings,
        weight: f32,
        draws: Draws,
    ) {
        let Worker { batch, grads, losses, contrastive, .. } = self;
        let (keys, (ads, behaviors)) = (&batch.keys[0], batch.image_positions());
        let embedded = Embedded {
            keys: [&keys.ads, &keys.behaviors],
            places: [ads, behaviors],
            embeddings: &batch.embeddings[settings.tower],
            width: network.towers[settings.tower].dim(),
        };
        // The mean over the pairs of a lane, lanes weighing by their impressions.
        let scale = settings.weight * weight * batch.len() as f32;
        let (groups, grads) = (&batch.groups, &mut grads.contents[0]);
        losses.contrastive = contrastive.run(settings, groups, embedded, draws, scale, grads);
    }

    /// The gradients of the towers, if they run here, but for the matrices of their first layers.
    /// Adds to `dense_grad`.
    pub(crate) fn towers_backward(
        &mut self,
        network: &Network,
        dense: &[f32],
        dense_grad: &mut [f32],
    ) {
        let Worker { batch, grads, towers, sums, counts, .. } = self;
        if network.placement != Placement::Ams {
            for (index, definition) in network.learning() {
                let tower = &mut towers[index];
                let all = 0..batch.images[index].len() * definition.dim();
                let dout = embedding_gradients(network, index, grads, all, sums);
                tower.backward(network, index, dense, dout, dense_grad);
                counts.tower_backwards += tower.backwards as f64;
            }
        }
    }

    /// Writes every shard the gradients of its answer.
    pub(crate) fn write_gradients(&mut self, network: &Network, seat: Seat, out: &mut Outbox) {
        let Worker { batch, grads, sums, counts, losses, .. } = self;
        let (dim, lane) = (network.spec.dim(), seat.lane);
        out.clear();
        for shard in 0..seat.lanes {
            let words = out.words();
            let start = words.len();
            losses.push(network.has_auxiliary_losses(), words);
            if network.learns().ids {
                let range = batch.ids.range(shard);
                mail::push_floats(&grads.drows[range.start * dim..range.end * dim], words);
            }
            let rows = words.len();
            counts.traffic.row_grads += bytes(rows - start, lane, shard);
            if network.placement == Placement::Ams {
                for (tower, definition) in network.learning() {
                    let (range, dim) = (batch.images[tower].range(shard), definition.dim());
                    let range = range.start * dim..range.end * dim;
                    let gradients = embedding_gradients(network, tower, grads, range, sums);
                    mail::push_floats(gradients, words);
                }
                counts.traffic.embedding_grads += bytes(words.len() - rows, lane, shard);
            }
            out.seal();
        }
    }

    /// Tower `tower`, where towers run on workers.
    pub(crate) fn tower(&self, network: &Network, tower: usize) -> TowerAt<'_> {
        let mailed = mailed(network, &self.batch.features[tower]);
        TowerAt { run: &self.towers[tower], mailed }
    }

    /// The image of each impression's ad; (B).
    pub(crate) fn ad_keys(&self) -> &[ImageKey] {
        &self.batch.keys[0].ads
    }
}

/// The features of a tower's images as a shard sent them, if they do not lie in the store at hand.
fn mailed<'a>(network: &Network, features: &'a [f16]) -> Option<&'a [f16]> {
    (network.placement == Placement::StoreInServer).then_some(features)
}

/// The embedding gradients of one tower; a shared tower gets the sum of both uses, made in `sums`.
fn embedding_gradients<'a>(
    network: &Network,
    tower: usize,
    grads: &'a InputGrads,
    range: std::ops::Range<usize>,
    sums: &'a mut Vec<f32>,
) -> &'a [f32] {
    let content = network.towers[tower].spec.content;
    let ad = network.contents[content].ad == Some(tower);
    let behavior = network.contents[content].behavior == Some(tower);
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
