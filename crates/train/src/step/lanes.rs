//! All lanes of a process: what they are, and the order of a step.

use ams_fabric::{Fabric, Mailbox, Metered, Outbox, Post, Topology, gather};
use ams_image::FeatureStore;
use ams_model::adam::Adam;
use ams_model::dropout;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::setup::components;
use crate::setup::network::Network;
use crate::step::dense_sum::DenseSum;
use crate::step::first_layers::FirstLayers;
use crate::step::frequency::{self, FieldIds};
use crate::step::mail::{Losses, Seat};
use crate::step::plan::{Dense, DenseSettings, Pass, StepOutcome, StepPlan};
use crate::step::popularity;
use crate::step::row_counts::RowCounts;
use crate::step::shard::{Lane, Shard};
use crate::step::share::Share;
use crate::step::sighting::Sighting;
use crate::step::stages::{Stage, Stages};
use crate::step::traffic::Counts;
use crate::step::worker::Worker;

/// The mail between the lanes of all processes.
pub(super) struct Exchange {
    pub(super) post: Post,
    pub(super) fabric: Metered,
}

impl Exchange {
    /// Delivers the local lanes' outboxes. All processes call it together.
    pub(super) fn deliver<'a>(
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
    pub(super) lanes: Vec<Lane>,
    pub(super) stores: Vec<FeatureStore>,
    pub(super) exchange: Exchange,
    pub(super) pool: ThreadPool,
    pub(super) adam: Adam,
    pub(super) dense_sum: DenseSum,
    pub(super) clip_norm: Option<f32>,
    /// The seed of the run.
    pub(super) seed: u64,
    /// Counters of the local lanes since the last [`Lanes::take_counts`].
    pub(super) counts: Counts,
    /// Steps that they cover.
    pub(super) counted: u64,
    pub(super) first_layers: FirstLayers,
    pub(super) stages: Stages,
    /// Asks, then gradients, from workers to shards, by local lane.
    pub(super) requests: Vec<Outbox>,
    /// Answers from shards to workers, by local lane.
    pub(super) answers: Vec<Outbox>,
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
}

/// Runs `work` for every local lane with its part of `each`, side by side on the thread pool.
pub(super) fn each_lane<T: Send>(
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
