//! The lanes of this process, and the step they take together.
//!
//! ```text
//! worker                                    shard (owner of id / image)
//! read [, search]
//! deduplicate        --- asks ----------->  merge, look up, towers forward
//! W forward, loss,   <-- answers ---------
//! backward           --- gradients ------>  sum in lane order, row optimizer, towers backward
//! ordered sum of (dW, dE) over all lanes, Adam on the replicated (W, E)
//! ```
//! Every arrow is one exchange between all lanes. Everything a lane computes is single-threaded;
//! the lanes of a process run side by side on its thread pool, which is the only parallelism there
//! is.

pub(crate) mod batch;
pub(crate) mod contrastive;
pub(crate) mod dedup;
pub(crate) mod dense_sum;
pub(crate) mod draws;
pub(crate) mod feed;
pub(crate) mod first_layers;
pub(crate) mod frequency;
pub(crate) mod id_dropout;
pub(crate) mod in_batch;
pub(crate) mod items;
pub(crate) mod mail;
pub(crate) mod popularity;
pub(crate) mod row_counts;
pub(crate) mod search;
pub(crate) mod selection;
pub(crate) mod shard;
pub(crate) mod share;
pub(crate) mod sighting;
pub(crate) mod sketch;
pub(crate) mod stages;
pub(crate) mod table;
pub(crate) mod tower_run;
pub(crate) mod traffic;
pub(crate) mod worker;

use std::ops::Range;

use ams_fabric::{Fabric, Mailbox, Metered, Outbox, Post, Rounding, Topology, gather};
use ams_image::FeatureStore;
use ams_model::adam::{Adam, AdamStep};
use ams_model::dropout;
use ams_model::tower::TowerBuffers;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::settings::Placement;
use crate::settings::phases::Learns;
use crate::setup::components;
use crate::setup::network::{Network, TowerDefinition};
use crate::step::dense_sum::{CHUNK, DenseSum};
use crate::step::draws::Draws;
use crate::step::first_layers::{Columns, FirstLayers};
use crate::step::frequency::FieldIds;
use crate::step::id_dropout::IdDropout;
use crate::step::mail::{Ask, Gradients, Losses, Seat};
use crate::step::row_counts::RowCounts;
use crate::step::search::{AtShard, ByPictures, SearchShard};
use crate::step::shard::{Lane, Shard, Unknown};
use crate::step::share::Share;
use crate::step::sighting::Sighting;
use crate::step::stages::{Stage, Stages};
use crate::step::tower_run::{Prefetch, Weights};
use crate::step::traffic::Counts;
use crate::step::worker::Worker;

/// The dense weights (W, then every tower), replicated in every process, with Adam's moments.
pub(crate) struct Dense {
    /// The weights; W, then every tower.
    pub w: Vec<f32>,
    /// First moments, as long as `w`.
    pub m: Vec<f32>,
    /// Second moments, as long as `w`.
    pub v: Vec<f32>,
}

/// What a step of the training learns, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepPlan {
    /// Number of the step, from 1.
    pub step: u64,
    /// The parts that learn in it.
    pub learns: Learns,
    /// Of each part, the number of this step among those in which it learns, from 1; for a part
    /// that does not learn in it, the number of the last one.
    pub counts: PartSteps,
    /// Learning rate of the dense weights.
    pub learning_rate: f32,
    /// Learning rate of the rows of ids.
    pub rows_learning_rate: f32,
}

/// Numbers of steps in which each part learns: those that Adam counts by, so that a part which
/// begins later begins as if the training did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartSteps {
    /// Of the towers.
    pub images: u64,
    /// Of the rows of ids.
    pub ids: u64,
    /// Of the rank network.
    pub network: u64,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepOutcome {
    /// Impressions of all lanes.
    pub impressions: u64,
    /// Mean loss over them.
    pub loss: f64,
    /// Mean of the sampled softmax over the clicks, if there is one.
    pub in_batch: Option<f64>,
    /// Weighted mean of the contrastive loss over the pairs of images, if there is one.
    pub contrastive: Option<f64>,
}

impl StepOutcome {
    /// Of the sums of all lanes.
    fn of(impressions: u64, losses: Losses, network: &Network) -> StepOutcome {
        let mean = |[sum, count]: [f64; 2]| if count > 0.0 { sum / count } else { 0.0 };
        StepOutcome {
            impressions,
            loss: losses.clicks / impressions.max(1) as f64,
            in_batch: network.in_batch.map(|_| mean(losses.in_batch)),
            contrastive: network.contrastive.map(|_| mean(losses.contrastive)),
        }
    }

    fn is_finite(&self) -> bool {
        let auxiliary = [self.in_batch, self.contrastive];
        self.loss.is_finite() && auxiliary.into_iter().flatten().all(f64::is_finite)
    }
}

/// Why lanes run forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// In a step, counted from 1: unknown ids get rows, if rows learn, and towers drop units, if
    /// they do.
    Train {
        /// Number of the step, from 1.
        step: u64,
    },
    /// To predict: the rows of unknown ids are zeros, as in the scorer.
    Evaluate,
}

/// How the dense gradient is summed and used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DenseSettings {
    /// How sums over lanes are rounded.
    pub rounding: Rounding,
    /// The largest norm of the gradient.
    pub clip_norm: Option<f32>,
}

/// The mail between the lanes of all processes.
struct Exchange {
    post: Post,
    fabric: Metered,
}

impl Exchange {
    /// Delivers the local lanes' outboxes. All processes call it together.
    fn deliver<'a>(
        &'a mut self,
        topology: Topology,
        stages: &Stages,
        pool: &ThreadPool,
        outboxes: &'a [Outbox],
    ) -> Result<Mailbox<'a>> {
        let (post, fabric) = (&mut self.post, &mut self.fabric);
        let threads = pool.current_num_threads();
        let mail =
            stages.run_on(threads, Stage::Mail, move || post.deliver(topology, fabric, outboxes));
        Ok(mail?)
    }
}

/// All lanes of this process.
pub(crate) struct Lanes {
    /// The networks of the model.
    pub network: Network,
    /// The process of each lane.
    pub topology: Topology,
    /// The copy of the dense weights that this process holds.
    pub dense: Dense,
    /// The local lanes, in their order.
    lanes: Vec<Lane>,
    stores: Vec<FeatureStore>,
    exchange: Exchange,
    pool: ThreadPool,
    adam: Adam,
    dense_sum: DenseSum,
    clip_norm: Option<f32>,
    /// The seed of the run.
    seed: u64,
    /// Counters of the local lanes since the last [`Lanes::take_counts`].
    counts: Counts,
    /// Steps that they cover.
    counted: u64,
    first_layers: FirstLayers,
    stages: Stages,
    /// Asks, then gradients, from workers to shards, by local lane.
    requests: Vec<Outbox>,
    /// Answers from shards to workers, by local lane.
    answers: Vec<Outbox>,
}

impl Lanes {
    /// The local lanes of a new model.
    pub(crate) fn new(
        network: Network,
        seed: u64,
        topology: Topology,
        stores: Vec<FeatureStore>,
        settings: DenseSettings,
        fabric: Metered,
        pool: ThreadPool,
    ) -> Lanes {
        let mut w = network.dense_init(seed);
        components::write_weights(&network, &stores, &mut w);
        assert_eq!(w.len(), network.dense_len());
        let local = topology.local();
        let lane = |_| Lane {
            shard: Shard::new(&network, seed),
            gradient: vec![0.0; network.dense_len()],
        };
        Lanes {
            lanes: local.clone().map(lane).collect(),
            dense: Dense { m: vec![0.0; w.len()], v: vec![0.0; w.len()], w },
            requests: local.clone().map(|_| Outbox::default()).collect(),
            answers: local.map(|_| Outbox::default()).collect(),
            exchange: Exchange { post: Post::default(), fabric },
            first_layers: FirstLayers::default(),
            stages: Stages::default(),
            adam: Adam::default(),
            dense_sum: DenseSum::new(settings.rounding),
            clip_norm: settings.clip_norm,
            seed,
            counts: Counts::default(),
            counted: 0,
            network,
            topology,
            stores,
            pool,
        }
    }

    /// The shards of the local lanes, in their order.
    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.lanes.iter().map(|lane| &lane.shard)
    }

    /// The same, to be changed.
    pub(crate) fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.lanes.iter_mut().map(|lane| &mut lane.shard)
    }

    /// The feature stores: of images, if the model or its image ids need one, and of further
    /// contents.
    pub(crate) fn stores(&self) -> &[FeatureStore] {
        &self.stores
    }

    /// The rank of this process.
    pub(crate) fn rank(&self) -> usize {
        self.exchange.fabric.rank()
    }

    /// The connection between the processes.
    pub(crate) fn fabric(&mut self) -> &mut dyn Fabric {
        &mut self.exchange.fabric
    }

    /// The same connection with its meter of bytes.
    pub(crate) fn metered(&mut self) -> &mut Metered {
        &mut self.exchange.fabric
    }

    /// The dense gradient of the last step, of all lanes.
    pub(crate) fn gradient(&self) -> &[f32] {
        &self.lanes[0].gradient
    }

    /// Busy time by stage.
    pub(crate) fn stages(&self) -> &Stages {
        &self.stages
    }

    /// The counters of all lanes of all processes since the last call, mean per step. All processes
    /// call it together.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn take_counts(&mut self) -> Result<Counts> {
        let mut mine = std::mem::take(&mut self.counts);
        let steps = std::mem::take(&mut self.counted);
        mine.wire_bytes = self.exchange.fabric.take().bytes as f64;
        let mut sum = Counts::default();
        for bits in gather::numbers(&mut self.exchange.fabric, &mine.to_bits())? {
            sum += Counts::from_bits(&bits);
        }
        // This exchange is no part of a step.
        self.exchange.fabric.take();
        Ok(sum.per_step(steps))
    }

    /// Takes over a row from another training into local lane `lane`, as [`Shard::take_over`].
    pub(crate) fn take_over(&mut self, lane: usize, id: u64, row: &[f32], seen: Sighting) {
        let Lanes { network, lanes, .. } = self;
        lanes[lane].shard.take_over(network, id, row, seen);
    }

    /// The newest day of the samples so far, where shards see ids; all lanes know the same one.
    pub(crate) fn newest_day(&self) -> Option<i32> {
        self.lanes[0].shard.newest
    }

    /// Evicts the rows of ids that were not seen for long, if ids learn now.
    pub(crate) fn evict_unseen(&mut self) {
        let Lanes { network, topology, lanes, pool, stages, .. } = self;
        if !network.learns().ids {
            return;
        }
        each_lane(pool, *topology, lanes.par_iter_mut(), |_, lane| {
            stages.run(Stage::Rows, || lane.shard.evict_unseen(network));
        });
    }

    /// The rows of all lanes of all processes, and those that came and went since the last call;
    /// none where they do not go, and none is refused as they come. All processes call it
    /// together.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn take_row_counts(&mut self) -> Result<Option<RowCounts>> {
        if !self.network.sees_ids() {
            return Ok(None);
        }
        let mut mine = RowCounts::default();
        self.shards_mut().for_each(|shard| mine.add(shard.take_row_counts()));
        let meter = self.exchange.fabric.meter();
        let mut all = RowCounts::default();
        for numbers in gather::numbers(&mut self.exchange.fabric, &mine.numbers())? {
            all.add(RowCounts::of(numbers.try_into().expect("as many as were sent")));
        }
        // This exchange is no part of a step.
        self.exchange.fabric.restore(meter);
        Ok(Some(all))
    }

    /// Counts the ids of all samples that `workers` read, in `rounds`, for their shards, and
    /// returns their numbers by field. All processes call it together.
    ///
    /// # Errors
    /// As [`frequency::count`].
    pub(crate) fn count_ids(
        &mut self,
        workers: &mut [Worker],
        rounds: u64,
    ) -> Result<Vec<FieldIds>> {
        let Lanes { network, stores, topology, exchange, pool, lanes, .. } = self;
        let fabric = &mut exchange.fabric;
        let counted = frequency::count(network, stores, workers, rounds, *topology, fabric, pool)?;
        let shards = lanes.iter_mut().zip(counted.shards);
        shards.for_each(|(lane, counted)| lane.shard.frequency = counted);
        Ok(counted.fields)
    }

    /// Counts how often items are shown in all samples that `readers` read, in `rounds`, for
    /// `workers`. All processes call it together.
    ///
    /// # Errors
    /// As [`popularity::count`].
    pub(crate) fn count_items(
        &mut self,
        readers: &mut [Worker],
        rounds: u64,
        workers: &mut [Worker],
    ) -> Result<()> {
        let Lanes { network, topology, exchange, pool, .. } = self;
        let fabric = &mut exchange.fabric;
        let counted = popularity::count(network, readers, rounds, *topology, fabric, pool)?;
        let each = workers.iter_mut().zip(counted);
        each.for_each(|(worker, popularity)| worker.in_batch.popularity = popularity);
        Ok(())
    }

    /// The thread pool, for work lane by lane.
    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// The step of the training that `plan` describes.
    ///
    /// # Errors
    /// If samples cannot be read, a process is lost, or the loss or a gradient is not finite.
    pub(crate) fn train_step(
        &mut self,
        workers: &mut [Worker],
        share: Share,
        plan: &StepPlan,
    ) -> Result<StepOutcome> {
        let step = plan.step;
        self.network.learn(plan.learns);
        let impressions = self.forward(workers, share, Pass::Train { step })?;
        if impressions == 0 {
            return Ok(StepOutcome::of(0, Losses::default(), &self.network));
        }
        self.backward(workers, 1.0 / impressions as f32, dropout::step_seed(self.seed, step));
        let losses = self.send_gradients(workers)?;
        let outcome = StepOutcome::of(impressions, losses, &self.network);
        if !outcome.is_finite() {
            return Err(Error::NotFinite { step, what: "the loss".to_owned() });
        }
        self.update_rows(plan);
        self.sum_dense(workers)?;
        self.update_dense(plan)?;
        self.count(workers);
        Ok(outcome)
    }

    /// Reads each lane's impressions up to `share`, exchanges asks and answers, and leaves the
    /// logits in the workers. Returns the impressions of all lanes.
    ///
    /// # Errors
    /// If samples cannot be read or a process is lost.
    pub(crate) fn forward(
        &mut self,
        workers: &mut [Worker],
        share: Share,
        pass: Pass,
    ) -> Result<u64> {
        let step_seed = match pass {
            Pass::Train { step } => Some(dropout::step_seed(self.seed, step)),
            Pass::Evaluate => None,
        };
        let dropout_seed = step_seed.filter(|_| self.network.tower_dropout > 0.0);
        let Lanes { network, dense, stages, pool, first_layers, .. } = self;
        let threads = pool.current_num_threads();
        stages.run_on(threads, Stage::Pack, || {
            pool.install(|| first_layers.pack(network, &dense.w));
        });
        self.read(workers, share)?;
        self.search(workers)?;
        self.ask(workers, step_seed);
        let impressions = self.answer(pass, dropout_seed)?;
        self.predict(workers, dropout_seed)?;
        Ok(impressions)
    }

    /// Has every worker read its impressions up to `share`.
    fn read(&mut self, workers: &mut [Worker], share: Share) -> Result<()> {
        let Lanes { pool, stages, .. } = self;
        // Every lane reads, whatever the others' errors are, so that the first lane's is reported.
        let read: Vec<Result<()>> = pool.install(|| {
            let each = workers.par_iter_mut().with_max_len(1);
            each.map(|worker| {
                let until = share.of(worker.feed.impressions());
                stages.run(Stage::Read, || worker.read(until))
            })
            .collect()
        });
        read.into_iter().collect()
    }

    /// Searches the histories of every worker, if the model does, and leaves what is kept in the
    /// micro-batches.
    fn search(&mut self, workers: &mut [Worker]) -> Result<()> {
        if self.network.spec.network.search.is_none() {
            return Ok(());
        }
        let Some(search) = ByPictures::of(&self.network) else {
            let Lanes { network, topology, pool, stages, .. } = self;
            each_lane(pool, *topology, workers.par_iter_mut(), |_, worker| {
                stages.run(Stage::Search, || {
                    let searched = worker.search.by_category(network, &worker.batch.groups);
                    worker.take_searched(searched);
                });
            });
            return Ok(());
        };
        self.ask_for_vectors(workers);
        self.answer_search(|shard, at| shard.answer(search, at))?;
        self.send_histories(workers, search)?;
        self.answer_search(|shard, at| shard.search(search, at))?;
        self.read_hits(workers, search)
    }

    fn ask_for_vectors(&mut self, workers: &mut [Worker]) {
        let Lanes { topology, stores, pool, stages, requests, .. } = self;
        let each = workers.par_iter_mut().zip(requests);
        each_lane(pool, *topology, each, |seat, (worker, request)| {
            let groups = &worker.batch.groups;
            stages.run(Stage::Search, || worker.search.ask(groups, stores, seat, request));
        });
    }

    /// Sends what the workers wrote to the shards, each of which answers by `answer`.
    fn answer_search(
        &mut self,
        answer: impl Fn(&mut SearchShard, AtShard<'_>) + Send + Sync,
    ) -> Result<()> {
        let mail =
            self.exchange.deliver(self.topology, &self.stages, &self.pool, &self.requests)?;
        let Lanes { network, topology, lanes, dense, stores, pool, first_layers, stages, .. } =
            self;
        let weights = Weights { dense: &dense.w, first: first_layers.packed() };
        let each = lanes.par_iter_mut().zip(&mut self.answers);
        each_lane(pool, *topology, each, |seat, (lane, out)| {
            let at = AtShard { network, weights, stores, mail: &mail, seat, out };
            stages.run(Stage::Search, || answer(&mut lane.shard.search, at));
        });
        Ok(())
    }

    fn send_histories(&mut self, workers: &mut [Worker], search: ByPictures) -> Result<()> {
        let mail = self.exchange.deliver(self.topology, &self.stages, &self.pool, &self.answers)?;
        let Lanes { topology, pool, stages, requests, .. } = self;
        let each = workers.par_iter_mut().zip(requests);
        each_lane(pool, *topology, each, |seat, (Worker { search: of, batch, .. }, request)| {
            stages.run(Stage::Search, || {
                of.send_histories(search, &batch.groups, &mail, seat, request);
            });
        });
        Ok(())
    }

    fn read_hits(&mut self, workers: &mut [Worker], search: ByPictures) -> Result<()> {
        let mail = self.exchange.deliver(self.topology, &self.stages, &self.pool, &self.answers)?;
        let Lanes { network, topology, pool, stages, .. } = self;
        each_lane(pool, *topology, workers.par_iter_mut(), |seat, worker| {
            stages.run(Stage::Search, || {
                let Worker { search: of, batch, .. } = &mut *worker;
                let searched = of.read_hits(network, search, &batch.groups, &mail, seat);
                worker.take_searched(searched);
            });
        });
        Ok(())
    }

    /// Has every worker write its asks; in training, with the seed of the step's masks.
    fn ask(&mut self, workers: &mut [Worker], step_seed: Option<u64>) {
        let Lanes { network, topology, stores, pool, stages, requests, .. } = self;
        let sees = step_seed.is_some() && network.sees_ids();
        let rate = network.spec.network.id_dropout;
        let step_seed = step_seed.filter(|_| rate > 0.0);
        let each = workers.par_iter_mut().zip(requests);
        each_lane(pool, *topology, each, |seat, (worker, request)| {
            let lane = seat.lane;
            let dropout = step_seed.map(|step_seed| IdDropout { rate, step_seed, lane });
            stages.run(Stage::Ask, || worker.ask(network, stores, seat, dropout, sees, request));
        });
    }

    /// Sends the asks to the shards, which look up rows, embed images and write their answers.
    /// Returns the impressions of all lanes.
    fn answer(&mut self, pass: Pass, dropout_seed: Option<u64>) -> Result<u64> {
        let mail =
            self.exchange.deliver(self.topology, &self.stages, &self.pool, &self.requests)?;
        let Lanes { network, topology, lanes, dense, stores, pool, first_layers, stages, .. } =
            self;
        let weights = Weights { dense: &dense.w, first: first_layers.packed() };
        let unknown = pass.unknown(network);
        let (all, first, lists) =
            (topology.lanes(), topology.local().start, 1 + network.towers.len());
        let impressions =
            (0..all).map(|worker| Ask::read(mail.read(worker, first), lists).impressions).sum();
        let mut taken: Vec<Result<()>> = lanes.iter().map(|_| Ok(())).collect();
        let each = lanes.par_iter_mut().zip(&mut self.answers).zip(&mut taken);
        each_lane(pool, *topology, each, |seat, ((lane, answer), taken)| {
            let shard = &mut lane.shard;
            *taken = stages.run(Stage::Lookup, || shard.take_asks(network, &mail, seat, unknown));
            if taken.is_ok() {
                stages.run(Stage::TowerForward, || {
                    shard.embed(network, weights, stores, dropout_seed);
                });
                stages.run(Stage::Lookup, || shard.write_answers(network, stores, seat, answer));
            }
        });
        // The first lane's error, whichever was first.
        taken.into_iter().collect::<Result<()>>()?;
        Ok(impressions)
    }

    /// Sends the answers to the workers, which predict.
    fn predict(&mut self, workers: &mut [Worker], dropout_seed: Option<u64>) -> Result<()> {
        let mail = self.exchange.deliver(self.topology, &self.stages, &self.pool, &self.answers)?;
        let Lanes { network, topology, dense, stores, pool, first_layers, stages, .. } = self;
        let weights = Weights { dense: &dense.w, first: first_layers.packed() };
        each_lane(pool, *topology, workers.par_iter_mut(), |seat, worker| {
            stages.run(Stage::Lookup, || worker.batch.read_answers(network, &mail, seat));
            stages
                .run(Stage::TowerForward, || worker.embed(network, weights, stores, dropout_seed));
            stages.run(Stage::NetworkForward, || worker.predict(network, &dense.w));
        });
        Ok(())
    }

    /// Loss and gradients of every worker, each impression weighing `weight`: those of the dense
    /// weights are in the lanes, those of rows and embeddings in the workers.
    fn backward(&mut self, workers: &mut [Worker], weight: f32, step_seed: u64) {
        let Lanes { network, topology, lanes, dense, pool, stages, .. } = self;
        let each = workers.par_iter_mut().zip(lanes);
        each_lane(pool, *topology, each, |Seat { lane, .. }, (worker, Lane { gradient, .. })| {
            let draws = Draws { step_seed, lane };
            network.rest.iter().for_each(|range| gradient[range.clone()].fill(0.0));
            if !network.learns().network {
                // It is computed on the way to the others; over many steps its sum would overflow.
                gradient[network.rank_range()].fill(0.0);
            }
            stages.run(Stage::NetworkBackward, || {
                worker.backward(network, &dense.w, weight, draws, gradient);
            });
            stages
                .run(Stage::TowerBackward, || worker.towers_backward(network, &dense.w, gradient));
        });
    }

    /// Sends the gradients of rows and embeddings to the shards, which sum them. Returns the sums
    /// of the losses of all lanes.
    fn send_gradients(&mut self, workers: &mut [Worker]) -> Result<Losses> {
        let Lanes { network, topology, pool, stages, requests, .. } = self;
        let each = workers.par_iter_mut().zip(requests);
        each_lane(pool, *topology, each, |seat, (worker, request)| {
            stages.run(Stage::Lookup, || worker.write_gradients(network, seat, request));
        });
        let mail =
            self.exchange.deliver(self.topology, &self.stages, &self.pool, &self.requests)?;
        let Lanes { network, topology, lanes, pool, stages, .. } = self;
        each_lane(pool, *topology, lanes.par_iter_mut(), |seat, lane| {
            stages.run(Stage::Rows, || lane.shard.sum_gradients(network, &mail, seat));
        });
        let first = topology.local().start;
        let auxiliary = network.has_auxiliary_losses();
        let of = |worker| Gradients::read(mail.read(worker, first), auxiliary).losses;
        let all: Vec<Losses> = (0..topology.lanes()).map(of).collect();
        Ok(Losses::sum(&all))
    }

    /// Updates the rows by the summed gradients, if they learn, and runs the towers of the shards
    /// backward.
    fn update_rows(&mut self, plan: &StepPlan) {
        let Lanes { network, topology, lanes, dense, pool, stages, adam, .. } = self;
        let lr = plan.rows_learning_rate;
        let adam = plan.learns.ids.then(|| adam.at(plan.counts.ids, lr));
        each_lane(pool, *topology, lanes.par_iter_mut(), |_, Lane { shard, gradient }| {
            if let Some(adam) = adam {
                stages.run(Stage::Rows, || shard.update_rows(network, adam, lr));
            }
            stages.run(Stage::TowerBackward, || shard.towers_backward(network, &dense.w, gradient));
        });
    }

    /// Sums the dense gradients of all lanes of all processes into that of the first local lane.
    fn sum_dense(&mut self, workers: &[Worker]) -> Result<()> {
        let Lanes {
            network, lanes, stores, exchange, pool, stages, dense_sum, first_layers, ..
        } = self;
        let fabric = &mut exchange.fabric;
        let threads = pool.current_num_threads();
        stages.run_on(threads, Stage::Sum, || pool.install(|| dense_sum.of_lanes(network, lanes)));
        let mut gradient = std::mem::take(&mut lanes[0].gradient);
        let at = |tower, lane: usize| match network.placement {
            Placement::Ams => lanes[lane].shard.tower(tower),
            _ => workers[lane].tower(network, tower),
        };
        let of_lane = |here: Columns, room: &mut TowerBuffers, dw: &mut [f32]| {
            let next =
                Prefetch { tower: at(here.tower, here.next_lane), columns: here.next_columns };
            let tower = at(here.tower, here.lane);
            tower.backward_columns(network, here.tower, stores, here.columns, next, room, dw);
        };
        let (count, sum) = (lanes.len(), &mut gradient);
        let summed = stages.run_on(threads, Stage::TowerMatrix, || {
            dense_sum.of_processes(network, pool, fabric, first_layers, count, of_lane, sum)
        });
        self.lanes[0].gradient = gradient;
        Ok(summed?)
    }

    /// Adds up the counters of the local lanes in this step.
    fn count(&mut self, workers: &[Worker]) {
        for worker in workers {
            self.counts += worker.counts;
            self.counts += worker.search.counts;
        }
        for Lane { shard, .. } in &self.lanes {
            self.counts += shard.counts;
            self.counts += shard.search.counts;
        }
        // Once for the job, whatever the number of processes.
        if self.topology.local().start == 0 {
            let words = self.dense_sum.words_moved(&self.network, self.topology.lanes());
            self.counts.traffic.all_reduce += 4.0 * words as f64;
        }
        self.counted += 1;
    }

    /// Takes Adam's step of the dense weights that learn.
    fn update_dense(&mut self, plan: &StepPlan) -> Result<()> {
        let Lanes { network, dense, pool, lanes, stages, adam, .. } = self;
        let StepPlan { step, learns, counts, learning_rate: lr, .. } = *plan;
        let (gradient, threads) = (&mut lanes[0].gradient, pool.current_num_threads());
        // Adam's step of each range: of the network, then of the towers.
        let rank = learns.network.then(|| (network.rank_range(), adam.at(counts.network, lr)));
        let tower =
            |(_, tower): (_, &TowerDefinition)| (tower.range.clone(), adam.at(counts.images, lr));
        let parts: Vec<(Range<usize>, AdamStep)> =
            rank.into_iter().chain(network.learning().map(tower)).collect();
        stages.run_on(threads, Stage::Optimizer, || {
            let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, g| all & g.is_finite());
            for (range, _) in &parts {
                let gradient = &gradient[range.clone()];
                if !pool.install(|| gradient.par_chunks(CHUNK).all(finite)) {
                    let at = gradient.iter().position(|g| !g.is_finite());
                    let at = range.start + at.expect("one of them is not");
                    return Err(Error::NotFinite { step, what: network.name_of_dense(at) });
                }
            }
            if let Some(most) = self.clip_norm {
                clip(gradient, parts.iter().map(|(range, _)| range.clone()), most);
            }
            // Decoupled, as in AdamW (Loshchilov and Hutter, 2019): no part of the gradient or its
            // moments.
            let decay = lr * network.tower_weight_decay;
            pool.install(|| {
                for matrix in network.tower_matrices().filter(|_| decay > 0.0) {
                    let chunks = dense.w[matrix].par_chunks_mut(CHUNK);
                    chunks.for_each(|w| w.iter_mut().for_each(|w| *w -= decay * *w));
                }
                for (range, adam) in parts {
                    dense.w[range.clone()]
                        .par_chunks_mut(CHUNK)
                        .zip(dense.m[range.clone()].par_chunks_mut(CHUNK))
                        .zip(dense.v[range.clone()].par_chunks_mut(CHUNK))
                        .zip(gradient[range].par_chunks(CHUNK))
                        .for_each(|(((w, m), v), g)| adam.update(w, m, v, g));
                }
            });
            Ok(())
        })
    }
}

impl Pass {
    /// How ids without a row are looked up.
    fn unknown(self, network: &Network) -> Unknown {
        match self {
            // Rows that nothing trains would be noise that the network learns by heart.
            Pass::Train { .. } if network.learns().ids => Unknown::Create,
            Pass::Train { .. } | Pass::Evaluate => Unknown::Zero,
        }
    }
}

/// Runs `work` for every local lane with its part of `each`, side by side on the thread pool.
fn each_lane<T: Send>(
    pool: &ThreadPool,
    topology: Topology,
    each: impl IndexedParallelIterator<Item = T>,
    work: impl Fn(Seat, T) + Send + Sync,
) {
    let lanes = topology.lanes();
    pool.install(|| {
        let each = each.zip(topology.local()).with_max_len(1);
        each.for_each(|(part, lane)| work(Seat { lane, lanes }, part));
    });
}

/// Scales `ranges` of the gradient, which are what learns, to the norm `most` if they are longer
/// together. All processes have the same bits of it.
fn clip(gradient: &mut [f32], ranges: impl Iterator<Item = Range<usize>> + Clone, most: f32) {
    let values = ranges.clone().flat_map(|range| &gradient[range]);
    let squares: f64 = values.map(|&g| f64::from(g) * f64::from(g)).sum();
    let norm = squares.sqrt();
    if norm > f64::from(most) {
        let factor = (f64::from(most) / norm) as f32;
        ranges.for_each(|range| gradient[range].iter_mut().for_each(|g| *g *= factor));
    }
}
