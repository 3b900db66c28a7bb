//! The first half of a step: from samples to logits in the workers.

use rayon::prelude::*;

use crate::error::Result;
use crate::step::id_dropout::IdDropout;
use crate::step::lanes::{Lanes, each_lane};
use crate::step::mail::Ask;
use crate::step::plan::Pass;
use crate::step::search::{AtShard, ByPictures, SearchShard};
use crate::step::share::Share;
use crate::step::stages::Stage;
use crate::step::tower_run::Weights;
use crate::step::worker::Worker;

impl Lanes {
    /// Has every worker read its impressions up to `share`.
    pub(super) fn read(&mut self, workers: &mut [Worker], share: Share) -> Result<()> {
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
    pub(super) fn search(&mut self, workers: &mut [Worker]) -> Result<()> {
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
    pub(super) fn ask(&mut self, workers: &mut [Worker], step_seed: Option<u64>) {
        let Lanes { network, topology, stores, pool, stages, requests, .. } = self;
        let sees = step_seed.is_some() && network.sees_ids();
        let network = &*network;
        let step_seed = step_seed.filter(|_| !network.id_rates.is_empty());
        let each = workers.par_iter_mut().zip(requests);
        each_lane(pool, *topology, each, |seat, (worker, request)| {
            let lane = seat.lane;
            let dropout = step_seed.map(|seed| IdDropout::new(network, seed, lane));
            stages.run(Stage::Ask, || worker.ask(network, stores, seat, dropout, sees, request));
        });
    }

    /// Sends the asks to the shards, which look up rows, embed images and write their answers.
    /// Returns the impressions of all lanes.
    pub(super) fn answer(&mut self, pass: Pass, dropout_seed: Option<u64>) -> Result<u64> {
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
    pub(super) fn predict(
        &mut self,
        workers: &mut [Worker],
        dropout_seed: Option<u64>,
    ) -> Result<()> {
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
}
