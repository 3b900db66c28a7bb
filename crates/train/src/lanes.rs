//! The lanes of this process, and the step they take together.
//!
//! ```text
//! worker                                    shard (owner of id / image)
//! read, deduplicate  --- asks ----------->  merge, look up, towers forward
//! W forward, loss,   <-- answers ---------
//! backward           --- gradients ------>  sum in lane order, row optimizer, towers backward
//! ordered sum of (dW, dE) over all lanes, Adam on the replicated (W, E)
//! ```
//! Every arrow is one exchange between all lanes. Everything a lane computes is single-threaded; the
//! lanes of a process run side by side on its thread pool, which is the only parallelism there is.

use ams_data::Card;
use ams_fabric::{
    AllReduce, Fabric, Mailbox, Metered, Outbox, Post, Rounding, Topology, gather, sum,
};
use ams_image::FeatureStore;
use ams_model::adam::{Adam, AdamStep};
use ams_model::dropout;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::components;
use crate::error::{Error, Result};
use crate::frequency;
use crate::plan::Plan;
use crate::shard::{Shard, Unknown};
use crate::traffic::Counts;
use crate::worker::Worker;

/// Dense weights updated by one task of the thread pool.
const DENSE_CHUNK: usize = 1 << 14;

/// The dense weights (W, then every tower), replicated in every process, with Adam's moments.
pub struct Dense {
    /// The weights.
    pub w: Vec<f32>,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
}

/// How far into the epoch a step reads: up to share `numerator / denominator` of each lane's impressions.
///
/// Every lane spends its impressions evenly over the steps of the epoch, so all lanes end together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Steps done when this one is.
    pub numerator: u64,
    /// Steps of the epoch.
    pub denominator: u64,
}

impl Share {
    /// Of a lane with `impressions`.
    pub fn of(self, impressions: u64) -> u64 {
        let part = u128::from(impressions) * u128::from(self.numerator);
        u64::try_from(part.div_ceil(u128::from(self.denominator))).expect("a share of a u64")
    }

    /// The number of steps that give about `batch` impressions each.
    pub fn steps(impressions: u64, batch: usize) -> u64 {
        impressions.div_ceil(batch as u64).max(1)
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Impressions of all lanes.
    pub impressions: u64,
    /// Mean loss over them.
    pub loss: f64,
}

/// All lanes of this process.
pub struct Lanes {
    /// The model.
    pub plan: Plan,
    /// Where lanes are.
    pub topology: Topology,
    /// The shards of the local lanes, in lane order.
    pub shards: Vec<Shard>,
    /// The dense weights.
    pub dense: Dense,
    stores: Vec<FeatureStore>,
    fabric: Metered,
    pool: ThreadPool,
    adam: Adam,
    all_reduce: AllReduce,
    clip_norm: Option<f32>,
    /// The seed of the run.
    seed: u64,
    /// What the local lanes did and sent since it was last asked, in so many steps.
    counts: (Counts, u64),
    gradients: Vec<Vec<f32>>,
    asks: Vec<Outbox>,
    answers: Vec<Outbox>,
    post: Post,
}

impl Lanes {
    /// The local lanes of a new model.
    pub fn new(
        plan: Plan,
        seed: u64,
        topology: Topology,
        stores: Vec<FeatureStore>,
        (rounding, clip_norm): (Rounding, Option<f32>),
        fabric: Metered,
        pool: ThreadPool,
    ) -> Lanes {
        let mut w = plan.dense_init(seed);
        components::place(&plan, &stores, &mut w);
        assert_eq!(w.len(), plan.dense_len());
        let local = topology.local();
        Lanes {
            shards: local.clone().map(|_| Shard::new(&plan, seed)).collect(),
            dense: Dense { m: vec![0.0; w.len()], v: vec![0.0; w.len()], w },
            gradients: local.clone().map(|_| vec![0.0; plan.dense_len()]).collect(),
            asks: local.clone().map(|_| Outbox::default()).collect(),
            answers: local.map(|_| Outbox::default()).collect(),
            post: Post::default(),
            adam: Adam::default(),
            all_reduce: AllReduce::new(rounding),
            clip_norm,
            seed,
            counts: (Counts::default(), 0),
            plan,
            topology,
            stores,
            fabric,
            pool,
        }
    }

    /// The feature stores: of images, if the model or its image ids need one, and of further contents.
    pub fn stores(&self) -> &[FeatureStore] {
        &self.stores
    }

    /// The processes.
    pub fn fabric(&mut self) -> &mut dyn Fabric {
        &mut self.fabric
    }

    /// The processes, and what was sent between them.
    pub fn metered(&mut self) -> &mut Metered {
        &mut self.fabric
    }

    /// The mean per step of what all lanes of all processes did and sent since it was last asked. All
    /// processes ask together.
    ///
    /// # Errors
    /// If a process is lost.
    pub fn take_counts(&mut self) -> Result<Counts> {
        let (mut mine, steps) = std::mem::take(&mut self.counts);
        mine.wire_bytes = self.fabric.take().bytes as f64;
        let mut sum = Counts::default();
        for bits in gather::numbers(&mut self.fabric, &mine.to_bits())? {
            sum += Counts::from_bits(&bits);
        }
        // Asking is no part of a step.
        self.fabric.take();
        Ok(sum.per_step(steps))
    }

    /// Counts the ids of all samples that `workers` read, in `rounds`, for their shards. All processes call
    /// it together.
    ///
    /// # Errors
    /// As [`frequency::count`].
    pub fn count_ids(&mut self, workers: &mut [Worker], rounds: u64) -> Result<()> {
        let Lanes { plan, stores, topology, fabric, pool, shards, .. } = self;
        let how = (fabric as &mut dyn Fabric, &*pool);
        let counted = frequency::count(plan, stores, workers, rounds, *topology, how)?;
        shards.iter_mut().zip(counted).for_each(|(shard, counted)| shard.frequency = counted);
        Ok(())
    }

    /// The thread pool, for work lane by lane.
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// The workers' part up to their predictions: reads each lane's impressions up to `share`,
    /// exchanges, and leaves the logits in the workers. Returns the impressions of all lanes. `masks` is the
    /// seed of the step's dropout, if it is a step with dropout.
    ///
    /// # Errors
    /// If samples cannot be read or a process is lost.
    pub fn predict(
        &mut self,
        workers: &mut [Worker],
        share: Share,
        unknown: Unknown,
        masks: Option<u64>,
    ) -> Result<u64> {
        let Lanes { plan, topology, shards, dense, stores, fabric, pool, .. } = self;
        let (plan, dense, stores) = (&*plan, &dense.w[..], &stores[..]);
        let (lanes, local) = (topology.lanes(), topology.local());

        // Every lane reads, whatever the others' errors are, so that the first lane's is reported.
        let read: Vec<Result<()>> = pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut self.asks).zip(local.clone());
            each.with_max_len(1)
                .map(|((worker, asks), lane)| {
                    worker.read(share.of(worker.feed.impressions()))?;
                    worker.ask(plan, stores, (lane, lanes), asks);
                    Ok(())
                })
                .collect()
        });
        read.into_iter().collect::<Result<()>>()?;

        let mail = self.post.deliver(*topology, fabric, &self.asks)?;
        let impressions =
            (0..lanes).map(|worker| u64::from(mail.read(worker, local.start)[0])).sum();
        pool.install(|| {
            let each = shards.par_iter_mut().zip(&mut self.answers).zip(local.clone());
            each.with_max_len(1).for_each(|((shard, answers), lane)| {
                shard.take_asks(&mail, lane, lanes, unknown);
                shard.embed(plan, dense, stores, masks);
                shard.write_answers(plan, stores, (lane, lanes), answers);
            });
        });

        let mail = self.post.deliver(*topology, fabric, &self.answers)?;
        pool.install(|| {
            let each = workers.par_iter_mut().zip(local);
            each.with_max_len(1).for_each(|(worker, lane)| {
                worker.predict(plan, dense, stores, &mail, (lane, lanes), masks);
            });
        });
        Ok(impressions)
    }

    /// Step `step` (counted from 1) of the training, with learning rate `lr`.
    ///
    /// # Errors
    /// If samples cannot be read, a process is lost, or the loss or a gradient is not finite.
    pub fn train_step(
        &mut self,
        workers: &mut [Worker],
        share: Share,
        step: u64,
        lr: f32,
    ) -> Result<StepOutcome> {
        let drops = self.plan.tower_dropout > 0.0;
        let masks = drops.then(|| dropout::step_seed(self.seed, step));
        let impressions = self.predict(workers, share, Unknown::Create, masks)?;
        if impressions == 0 {
            return Ok(StepOutcome { impressions, loss: 0.0 });
        }
        let weight = 1.0 / impressions as f32;
        let adam = self.adam.at(step, lr);

        let Lanes { plan, topology, shards, dense, stores, fabric, pool, .. } = self;
        let (plan, stores) = (&*plan, &stores[..]);
        let rows_lr = lr * plan.rows_rate;
        let of_rows = (self.adam.at(step, rows_lr), rows_lr);
        let (lanes, local) = (topology.lanes(), topology.local());
        pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut self.asks).zip(&mut self.gradients);
            each.zip(local.clone()).with_max_len(1).for_each(
                |(((worker, gradients), dense_grad), lane)| {
                    dense_grad.fill(0.0);
                    worker.backward(plan, &dense.w, stores, weight, dense_grad);
                    worker.write_gradients(plan, (lane, lanes), gradients);
                },
            );
        });

        let mail = self.post.deliver(*topology, fabric, &self.asks)?;
        let loss = sum_of_losses(&mail, lanes, local.start) / impressions as f64;
        if !loss.is_finite() {
            return Err(Error::NotFinite { step, what: "the loss".to_owned() });
        }
        pool.install(|| {
            let each = shards.par_iter_mut().zip(&mut self.gradients).zip(local);
            each.with_max_len(1).for_each(|((shard, dense_grad), lane)| {
                shard.take_gradients(
                    plan,
                    &mail,
                    (lane, lanes),
                    of_rows,
                    (&dense.w, dense_grad),
                    stores,
                );
            });
        });
        self.update_dense(step, adam, lr)?;
        self.count(workers);
        Ok(StepOutcome { impressions, loss })
    }

    /// Adds up what the local lanes did and sent in this step.
    fn count(&mut self, workers: &[Worker]) {
        let (sum, steps) = &mut self.counts;
        workers.iter().for_each(|worker| *sum += worker.counts);
        self.shards.iter().for_each(|shard| *sum += shard.counts);
        // Once for the job, whatever the number of processes.
        if self.topology.local().start == 0 {
            let words = self.all_reduce.words_moved(self.dense.w.len(), self.topology.lanes());
            sum.traffic.all_reduce += 4.0 * words as f64;
        }
        *steps += 1;
    }

    /// Adds the dense gradients of all lanes along the tree and takes Adam's step, with the learning rate
    /// `lr`.
    fn update_dense(&mut self, step: u64, adam: AdamStep, lr: f32) -> Result<()> {
        let Lanes { plan, dense, fabric, pool, all_reduce, gradients, .. } = self;
        pool.install(|| sum_lanes(gradients, all_reduce.rounding()));
        all_reduce.run(fabric, &mut gradients[0])?;
        let gradient = &mut gradients[0];
        if let Some(at) = gradient.iter().position(|g| !g.is_finite()) {
            return Err(Error::NotFinite { step, what: plan.name_of_dense(at) });
        }
        if let Some(most) = self.clip_norm {
            clip(gradient, most);
        }
        // Decoupled, as in AdamW (Loshchilov and Hutter, 2019): no part of the gradient or its moments.
        let decay = lr * plan.tower_weight_decay;
        pool.install(|| {
            for matrix in plan.tower_matrices().filter(|_| decay > 0.0) {
                let chunks = dense.w[matrix].par_chunks_mut(DENSE_CHUNK);
                chunks.for_each(|w| w.iter_mut().for_each(|w| *w -= decay * *w));
            }
            dense
                .w
                .par_chunks_mut(DENSE_CHUNK)
                .zip(dense.m.par_chunks_mut(DENSE_CHUNK))
                .zip(dense.v.par_chunks_mut(DENSE_CHUNK))
                .zip(gradient.par_chunks(DENSE_CHUNK))
                .for_each(|(((w, m), v), g)| adam.update(w, m, v, g));
        });
        Ok(())
    }

    /// The parts of the dataset that lane `lane` reads: an aligned run of them.
    pub fn parts_of(card: &Card, lane: usize, lanes: usize) -> std::ops::Range<usize> {
        let each = card.parts / lanes;
        lane * each..(lane + 1) * each
    }
}

/// Adds all lanes' gradients into the first one, a chunk per task; each element's tree is the same.
fn sum_lanes(gradients: &mut [Vec<f32>], rounding: Rounding) {
    let len = gradients[0].len();
    let mut chunks: Vec<Vec<&mut [f32]>> =
        (0..len.div_ceil(DENSE_CHUNK)).map(|_| Vec::with_capacity(gradients.len())).collect();
    for gradient in gradients {
        for (chunk, part) in chunks.iter_mut().zip(gradient.chunks_mut(DENSE_CHUNK)) {
            chunk.push(part);
        }
    }
    chunks.par_iter_mut().for_each(|parts| {
        parts.iter_mut().for_each(|part| rounding.leaves(part));
        sum::tree(parts, rounding);
    });
}

/// Scales the gradient to the norm `most` if it is longer. All processes have the same bits of it.
fn clip(gradient: &mut [f32], most: f32) {
    let squares: f64 = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
    let norm = squares.sqrt();
    if norm > f64::from(most) {
        let factor = (f64::from(most) / norm) as f32;
        gradient.iter_mut().for_each(|g| *g *= factor);
    }
}

/// The losses of all lanes, added along the tree.
fn sum_of_losses(mail: &Mailbox<'_>, lanes: usize, lane: usize) -> f64 {
    let loss = |worker| {
        let words = mail.read(worker, lane);
        f64::from_bits(u64::from(words[0]) | u64::from(words[1]) << 32)
    };
    sum::tree_f64(&mut (0..lanes).map(loss).collect::<Vec<_>>())
}
