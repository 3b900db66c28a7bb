//! The second half of a step: gradients, sent and summed, and what they change.

use std::ops::Range;

use ams_model::adam::AdamStep;
use ams_model::tower::TowerBuffers;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::settings::Placement;
use crate::setup::network::TowerDefinition;
use crate::step::dense_sum::CHUNK;
use crate::step::draws::Draws;
use crate::step::first_layers::Columns;
use crate::step::lanes::{Lanes, each_lane};
use crate::step::mail::{Gradients, Losses, Seat};
use crate::step::plan::StepPlan;
use crate::step::shard::Lane;
use crate::step::stages::Stage;
use crate::step::tower_run::Prefetch;
use crate::step::worker::Worker;

impl Lanes {
    /// Loss and gradients of every worker, each impression weighing `weight`: those of the dense
    /// weights are in the lanes, those of rows and embeddings in the workers.
    pub(super) fn backward(&mut self, workers: &mut [Worker], weight: f32, step_seed: u64) {
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
    pub(super) fn send_gradients(&mut self, workers: &mut [Worker]) -> Result<Losses> {
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
    pub(super) fn update_rows(&mut self, plan: &StepPlan) {
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
    pub(super) fn sum_dense(&mut self, workers: &[Worker]) -> Result<()> {
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
    pub(super) fn count(&mut self, workers: &[Worker]) {
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
    pub(super) fn update_dense(&mut self, plan: &StepPlan) -> Result<()> {
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
