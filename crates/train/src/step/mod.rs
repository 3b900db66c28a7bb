//! The lanes of this process, and the step they take together.
//!
//! ```text
//! worker                                    shard (owner of id / image)
//! read, deduplicate  --- asks ----------->  merge, look up, towers forward
//! W forward, loss,   <-- answers ---------
//! backward           --- gradients ------>  sum in lane order, row optimizer, towers backward
//! ordered sum of (dW, dE) over all lanes, Adam on the replicated (W, E)
//! ```
//! Every arrow is one exchange between all lanes. Everything a lane computes is single-threaded;
//! the lanes of a process run side by side on its thread pool, which is the only parallelism there
//! is.

pub mod batch;
pub mod dedup;
pub mod feed;
pub mod first_layers;
pub mod frequency;
pub mod shard;
pub mod share;
pub mod stages;
pub mod table;
pub mod tower_run;
pub mod traffic;
pub mod users;
pub mod worker;

use std::ops::Range;

use ams_fabric::{
    AllReduce, Fabric, Mailbox, Metered, Outbox, Post, Rounding, Topology, gather, sum,
};
use ams_image::FeatureStore;
use ams_model::adam::{Adam, AdamStep};
use ams_model::dropout;
use ams_model::tower::Room;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::settings::Placement;
use crate::setup::components;
use crate::setup::network::Plan;
use crate::step::first_layers::FirstLayers;
use crate::step::shard::{Shard, Unknown};
use crate::step::share::Share;
use crate::step::stages::{Stage, Stages};
use crate::step::tower_run::Weights;
use crate::step::traffic::Counts;
use crate::step::worker::Worker;

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
    first_layers: FirstLayers,
    stages: Stages,
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
            first_layers: FirstLayers::default(),
            stages: Stages::default(),
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

    /// The feature stores: of images, if the model or its image ids need one, and of further
    /// contents.
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

    /// The dense gradient of the last step, of all lanes.
    pub fn gradient(&self) -> &[f32] {
        &self.gradients[0]
    }

    /// Where time goes.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// The mean per step of what all lanes of all processes did and sent since it was last asked.
    /// All processes ask together.
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

    /// Counts the ids of all samples that `workers` read, in `rounds`, for their shards. All
    /// processes call it together.
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
    /// exchanges, and leaves the logits in the workers. Returns the impressions of all lanes.
    /// `masks` is the seed of the step's dropout, if it is a step with dropout.
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
        let Lanes { plan, topology, shards, dense, stores, fabric, pool, first_layers, .. } = self;
        let (stages, threads) = (&self.stages, pool.current_num_threads());
        let (plan, dense, stores) = (&*plan, &dense.w[..], &stores[..]);
        stages.run_on(threads, Stage::Pack, || pool.install(|| first_layers.pack(plan, dense)));
        let weights = Weights { dense, first: first_layers.packed() };
        let topology = *topology;
        let (lanes, local) = (topology.lanes(), topology.local());

        // Every lane reads, whatever the others' errors are, so that the first lane's is reported.
        let read: Vec<Result<()>> = pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut self.asks).zip(local.clone());
            each.with_max_len(1)
                .map(|((worker, asks), lane)| {
                    let until = share.of(worker.feed.impressions());
                    stages.run(Stage::Read, || worker.read(until))?;
                    stages.run(Stage::Ask, || worker.ask(plan, stores, (lane, lanes), asks));
                    Ok(())
                })
                .collect()
        });
        read.into_iter().collect::<Result<()>>()?;

        let (post, mailed, outboxes) = (&mut self.post, &mut *fabric, &self.asks);
        let mail = stages
            .run_on(threads, Stage::Mail, move || post.deliver(topology, mailed, outboxes))?;
        let impressions =
            (0..lanes).map(|worker| u64::from(mail.read(worker, local.start)[0])).sum();
        pool.install(|| {
            let each = shards.par_iter_mut().zip(&mut self.answers).zip(local.clone());
            each.with_max_len(1).for_each(|((shard, answers), lane)| {
                stages.run(Stage::Lookup, || shard.take_asks(&mail, lane, lanes, unknown));
                stages.run(Stage::TowerForward, || shard.embed(plan, weights, stores, masks));
                stages.run(Stage::Lookup, || {
                    shard.write_answers(plan, stores, (lane, lanes), answers);
                });
            });
        });

        let (post, mailed, outboxes) = (&mut self.post, &mut *fabric, &self.answers);
        let mail = stages
            .run_on(threads, Stage::Mail, move || post.deliver(topology, mailed, outboxes))?;
        pool.install(|| {
            let each = workers.par_iter_mut().zip(local);
            each.with_max_len(1).for_each(|(worker, lane)| {
                stages.run(Stage::Lookup, || worker.read_answers(plan, &mail, lane, lanes));
                stages.run(Stage::TowerForward, || worker.embed(plan, weights, stores, masks));
                stages.run(Stage::NetworkForward, || worker.predict(plan, dense));
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
        let (stages, threads) = (&self.stages, pool.current_num_threads());
        let rows_lr = lr * plan.rows_rate;
        let of_rows = (self.adam.at(step, rows_lr), rows_lr);
        let topology = *topology;
        let (lanes, local) = (topology.lanes(), topology.local());
        pool.install(|| {
            let each = workers.par_iter_mut().zip(&mut self.asks).zip(&mut self.gradients);
            each.zip(local.clone()).with_max_len(1).for_each(
                |(((worker, gradients), dense_grad), lane)| {
                    plan.rest.iter().for_each(|range| dense_grad[range.clone()].fill(0.0));
                    stages.run(Stage::NetworkBackward, || {
                        worker.backward(plan, &dense.w, weight, dense_grad);
                    });
                    stages.run(Stage::TowerBackward, || {
                        worker.towers_backward(plan, &dense.w, dense_grad);
                    });
                    stages.run(Stage::Lookup, || {
                        worker.write_gradients(plan, (lane, lanes), gradients);
                    });
                },
            );
        });

        let (post, mailed, outboxes) = (&mut self.post, &mut *fabric, &self.asks);
        let mail = stages
            .run_on(threads, Stage::Mail, move || post.deliver(topology, mailed, outboxes))?;
        let loss = sum_of_losses(&mail, lanes, local.start) / impressions as f64;
        if !loss.is_finite() {
            return Err(Error::NotFinite { step, what: "the loss".to_owned() });
        }
        pool.install(|| {
            let each = shards.par_iter_mut().zip(&mut self.gradients).zip(local);
            each.with_max_len(1).for_each(|((shard, dense_grad), lane)| {
                stages.run(Stage::Rows, || {
                    shard.take_gradients(plan, &mail, (lane, lanes), of_rows);
                });
                stages.run(Stage::TowerBackward, || {
                    shard.towers_backward(plan, &dense.w, dense_grad);
                });
            });
        });
        let run = |tower, at: usize| match plan.placement {
            Placement::Ams => (shards[at].tower(tower), None),
            _ => workers[at].tower(plan, tower),
        };
        let columns = |tower, (at, columns), (next, of_next), room: &mut Room, dw: &mut [f32]| {
            let ((mine, came), (other, of_other)) = (run(tower, at), run(tower, next));
            let next = Some((other, of_other, of_next));
            mine.backward_columns(plan, tower, stores, came, columns, next, room, dw);
        };
        let Lanes { first_layers, gradients, all_reduce, .. } = self;
        stages.run_on(threads, Stage::Sum, || {
            pool.install(|| sum_lanes(gradients, &plan.rest, all_reduce.rounding()));
        });
        let (count, processes) = (shards.len(), (fabric as &mut dyn Fabric, all_reduce));
        stages.run_on(threads, Stage::TowerMatrix, || {
            first_layers.gradient(plan, pool, count, columns, processes, &mut gradients[0])
        })?;
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
            let of = |values| self.all_reduce.words_moved(values, self.topology.lanes());
            let words: usize = FirstLayers::messages(&self.plan).map(of).sum();
            sum.traffic.all_reduce += 4.0 * words as f64;
        }
        *steps += 1;
    }

    /// Takes Adam's step of the dense weights, with the learning rate `lr`.
    fn update_dense(&mut self, step: u64, adam: AdamStep, lr: f32) -> Result<()> {
        let Lanes { plan, dense, pool, gradients, .. } = self;
        let (stages, threads) = (&self.stages, pool.current_num_threads());
        let gradient = &mut gradients[0];
        stages.run_on(threads, Stage::Optimizer, || {
            let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, g| all & g.is_finite());
            if !pool.install(|| gradient.par_chunks(DENSE_CHUNK).all(finite)) {
                let at = gradient.iter().position(|g| !g.is_finite()).expect("one of them is not");
                return Err(Error::NotFinite { step, what: plan.name_of_dense(at) });
            }
            if let Some(most) = self.clip_norm {
                clip(gradient, most);
            }
            // Decoupled, as in AdamW (Loshchilov and Hutter, 2019): no part of the gradient or its
            // moments.
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
        })
    }
}

/// Adds all lanes' gradients in `ranges` into the first one along the tree, a chunk per task.
fn sum_lanes(gradients: &mut [Vec<f32>], ranges: &[Range<usize>], rounding: Rounding) {
    if rounding != Rounding::Exact {
        gradients.par_iter_mut().for_each(|gradient| {
            ranges.iter().for_each(|range| rounding.leaves(&mut gradient[range.clone()]));
        });
    }
    let mut stride = 1;
    while stride < gradients.len() {
        gradients.par_chunks_mut(2 * stride).for_each(|pair| {
            let (left, right) = pair.split_at_mut(stride);
            for range in ranges {
                let left = left[0][range.clone()].par_chunks_mut(DENSE_CHUNK);
                let right = right[0][range.clone()].par_chunks(DENSE_CHUNK);
                left.zip(right).for_each(|(left, right)| sum::add(left, right, rounding));
            }
        });
        stride *= 2;
    }
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
