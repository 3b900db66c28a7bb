//! The lanes of this process, and the step of an alignment that they take together.
//!
//! ```text
//! worker                                       shard (owner of an image)
//! draws its pairs of the batch -- asks ------>  merges, looks up, map forward
//!                              <-- embeddings-
//! -- its pairs and their embeddings, to all ->  every process has the whole batch
//! q of its pairs, their sums   -- to all ---->
//! gradients of its embeddings  -- gradients ->  sum in lane order, map backward
//! ordered sum of dW over all lanes, Adam on the replicated map
//! ```
//! As in a step of a training, what a lane computes is single-threaded, and everything that lanes
//! tell each other is read in lane order. What goes to all goes once to each process.

use std::ops::Range;

use ams_fabric::{
    AllReduce, Fabric, Metered, Outbox, Post, Rounding, Topology, gather, sum, words,
};
use ams_model::adam::Adam;
use ams_model::align::{self, Pairs, Rows, Sums};
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;

use crate::align::draw::Order;
use crate::align::pairs::{Collected, Judges};
use crate::error::{Error, Result};
use crate::settings::align::AlignConfig;
use crate::step::dedup::{Asks, Merge};
use crate::step::traffic::bytes;

/// The map (D, P), replicated in every process, with Adam's moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Weights {
    pub w: Vec<f32>,
    pub m: Vec<f32>,
    pub v: Vec<f32>,
}

impl Weights {
    pub(crate) fn first(align: &AlignConfig) -> Weights {
        let [width, components] = align.resolved_shape();
        let w = align::identity(width, components);
        Weights { m: vec![0.0; w.len()], v: vec![0.0; w.len()], w }
    }
}

/// Bytes that lanes send in a step, as if each were a host of its own; the mean over steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Image keys asked for.
    pub asks: f64,
    /// Bytes of the answered embeddings.
    pub embeddings: f64,
    /// Pairs with their embeddings, and sums, from each lane to all others.
    pub pairs: f64,
    /// Bytes of the embeddings' gradients.
    pub gradients: f64,
    /// The sum of the map's gradient.
    pub all_reduce: f64,
    /// Bytes that left a process.
    pub wire: f64,
}

impl Traffic {
    fn numbers(&mut self) -> [&mut f64; 6] {
        let Traffic { asks, embeddings, pairs, gradients, all_reduce, wire } = self;
        [asks, embeddings, pairs, gradients, all_reduce, wire]
    }
}

/// The half of a lane that owns images.
pub(crate) struct Shard {
    /// The images that it owns, ascending.
    keys: Vec<u64>,
    /// What the map reads of each; (n, P).
    x: Vec<f32>,
    merge: Merge,
    /// Of the images asked for: what the map reads (U, P), embeddings (U, D), their lengths (U)
    /// and the gradients of the embeddings (U, D).
    asked: Vec<f32>,
    e: Vec<f32>,
    lengths: Vec<f32>,
    de: Vec<f32>,
    dw: Vec<f32>,
    sent: f64,
}

impl Shard {
    /// Owner of `keys`, ascending, of which the map reads `x`.
    pub(crate) fn new(keys: Vec<u64>, x: Vec<f32>) -> Shard {
        Shard {
            keys,
            x,
            merge: Merge::default(),
            asked: Vec::new(),
            e: Vec::new(),
            lengths: Vec::new(),
            de: Vec::new(),
            dw: Vec::new(),
            sent: 0.0,
        }
    }

    /// Embeds the images that `asks`, by lane, are for and writes each lane its own.
    fn answer<'a>(
        &mut self,
        shape: [usize; 2],
        w: &[f32],
        asks: impl Iterator<Item = &'a [u32]>,
        lane: usize,
        lanes: usize,
        out: &mut Outbox,
    ) {
        let [width, components] = shape;
        let Shard { keys, x, merge, asked, e, lengths, sent, .. } = self;
        merge.clear();
        asks.for_each(|words| merge.take(words));
        asked.clear();
        for key in &merge.keys {
            let at = keys.binary_search(key).expect("the store named this key");
            asked.extend_from_slice(&x[at * components..][..components]);
        }
        align::embed(shape, asked, w, e, lengths);
        out.clear();
        *sent = 0.0;
        for worker in 0..lanes {
            let words = out.words();
            let start = words.len();
            for &ask in merge.of(worker) {
                let e = &e[ask as usize * width..][..width];
                words.extend_from_slice(bytemuck::cast_slice(e));
            }
            *sent += bytes(words.len() - start, lane, worker);
            out.seal();
        }
    }

    /// Sums the gradients of all lanes, in their order, and runs the map backward.
    fn backward<'a>(&mut self, shape: [usize; 2], gradients: impl Iterator<Item = &'a [u32]>) {
        let [width, components] = shape;
        let Shard { merge, asked, e, lengths, de, dw, .. } = self;
        let de = ams_model::linalg::zeros(de, e.len());
        for (worker, words) in gradients.enumerate() {
            let values: &[f32] = bytemuck::cast_slice(words);
            let asks = merge.of(worker);
            assert_eq!(values.len(), asks.len() * width, "a gradient for every ask");
            for (&ask, value) in asks.iter().zip(values.chunks_exact(width)) {
                ams_model::linalg::add(value, &mut de[ask as usize * width..][..width]);
            }
        }
        let dw = ams_model::linalg::fit(dw, width * components);
        align::embed_backward(shape, asked, e, lengths, de, dw);
    }
}

/// The half of a lane that has pairs.
pub(crate) struct Worker {
    /// What its samples say.
    pub collected: Collected,
    /// Its pairs of the batch.
    drawn: Vec<u32>,
    /// Where they are in it.
    run: Range<usize>,
    asks: Asks,
    /// The places of a and b of each of them among the answers.
    places: Vec<[u32; 2]>,
    embeddings: Vec<f32>,
    rows: Rows,
    de: Vec<f32>,
    loss: f64,
    sent: f64,
}

impl Worker {
    /// Of what its samples say.
    pub(crate) fn new(collected: Collected) -> Worker {
        Worker {
            collected,
            drawn: Vec::new(),
            run: 0..0,
            asks: Asks::default(),
            places: Vec::new(),
            embeddings: Vec::new(),
            rows: Rows::default(),
            de: Vec::new(),
            loss: 0.0,
            sent: 0.0,
        }
    }

    /// Asks the owners of the images of the pairs drawn.
    fn ask(&mut self, lane: usize, lanes: usize, out: &mut Outbox) {
        let Worker { collected, drawn, asks, places, .. } = self;
        asks.clear();
        places.clear();
        for &at in &*drawn {
            places.push(collected.pairs[at as usize].images.map(|image| asks.add(image)));
        }
        asks.close(lanes);
        places.iter_mut().flatten().for_each(|place| *place = asks.position(*place));
        self.sent = write_asks(asks, lane, lanes, out);
    }

    /// Appends its pairs of the batch with their embeddings, of `width` numbers.
    fn write_pairs(&self, width: usize, decay_days: f32, out: &mut Vec<u32>) {
        for (&at, places) in self.drawn.iter().zip(&self.places) {
            let pair = &self.collected.pairs[at as usize];
            words::push(out, pair.user);
            pair.images.iter().for_each(|&image| words::push(out, image));
            out.push(self.collected.weight(pair, decay_days).to_bits());
            for &place in places {
                let e = &self.embeddings[place as usize * width..][..width];
                out.extend_from_slice(bytemuck::cast_slice(e));
            }
        }
    }

    /// The gradients of the embeddings, to their owners.
    fn write_gradients(&mut self, width: usize, lane: usize, lanes: usize, out: &mut Outbox) {
        let Worker { asks, places, rows, de, .. } = self;
        let de = ams_model::linalg::zeros(de, asks.len() * width);
        let gradients = rows.da.chunks_exact(width).zip(rows.db.chunks_exact(width));
        for (places, (da, db)) in places.iter().zip(gradients) {
            for (&place, gradient) in places.iter().zip([da, db]) {
                ams_model::linalg::add(gradient, &mut de[place as usize * width..][..width]);
            }
        }
        out.clear();
        self.sent = 0.0;
        for to in 0..lanes {
            let range = asks.range(to);
            let de = &de[range.start * width..range.end * width];
            out.words().extend_from_slice(bytemuck::cast_slice(de));
            out.seal();
            self.sent += bytes(de.len(), lane, to);
        }
    }
}

/// Writes every owner its asks; the bytes for other lanes.
fn write_asks(asks: &Asks, lane: usize, lanes: usize, out: &mut Outbox) -> f64 {
    out.clear();
    let mut sent = 0.0;
    for to in 0..lanes {
        let keys = asks.of(to);
        keys.iter().for_each(|&key| words::push(out.words(), key));
        out.seal();
        sent += bytes(2 * keys.len(), lane, to);
    }
    sent
}

/// All lanes of this process.
pub(crate) struct Lanes {
    topology: Topology,
    fabric: Metered,
    post: Post,
    pool: ThreadPool,
    shards: Vec<Shard>,
    workers: Vec<Worker>,
    requests: Vec<Outbox>,
    answers: Vec<Outbox>,
    order: Order,
    align: AlignConfig,
    seed: u64,
    first: Vec<f32>,
    batch: Pairs,
    all_reduce: AllReduce,
    traffic: Traffic,
    counted: u64,
}

impl Lanes {
    /// The local lanes, in their order. All processes call it together.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn new(
        align: AlignConfig,
        seed: u64,
        topology: Topology,
        shards: Vec<Shard>,
        workers: Vec<Worker>,
        mut fabric: Metered,
        pool: ThreadPool,
    ) -> Result<Lanes> {
        let pairs: Vec<_> = workers.iter().map(|worker| &worker.collected.pairs[..]).collect();
        let order = Order::of(&pairs, topology, &mut fabric)?;
        let boxes = || topology.local().map(|_| Outbox::default()).collect();
        Ok(Lanes {
            first: Weights::first(&align).w,
            requests: boxes(),
            answers: boxes(),
            topology,
            fabric,
            post: Post::default(),
            pool,
            shards,
            workers,
            order,
            align,
            seed,
            batch: Pairs::default(),
            all_reduce: AllReduce::default(),
            traffic: Traffic::default(),
            counted: 0,
        })
    }

    pub(crate) fn fabric(&mut self) -> &mut dyn Fabric {
        &mut self.fabric
    }

    /// Number of pairs that batches are drawn from.
    pub(crate) fn pairs(&self) -> usize {
        self.order.pairs()
    }

    /// Takes step `step`, counted from 1; its loss.
    ///
    /// # Errors
    /// If a process is lost, or the loss is not finite.
    pub(crate) fn step(&mut self, weights: &mut Weights, step: u64) -> Result<f64> {
        self.fabric.take();
        self.embed_batch(&weights.w, step)?;
        let loss = self.gradients()?;
        self.sum_map()?;
        let dw = &mut self.shards[0].dw[..];
        let penalty = align::pull(self.align.penalty, &weights.w, &self.first, dw);
        let loss = loss + penalty;
        if !loss.is_finite() || dw.iter().any(|dw| !dw.is_finite()) {
            return Err(Error::NotFinite { step, what: "the loss of the alignment".to_owned() });
        }
        let Weights { w, m, v } = weights;
        Adam::default().update(step, self.align.learning_rate, w, m, v, dw);
        self.traffic.wire += self.fabric.take().bytes as f64;
        self.counted += 1;
        Ok(loss)
    }

    /// Draws the batch of a step and gives every process all of it, with embeddings.
    fn embed_batch(&mut self, w: &[f32], step: u64) -> Result<()> {
        let AlignConfig { batch, window, decay_days, .. } = self.align;
        let [width, _] = self.align.resolved_shape();
        let drawn = self.order.draw(self.seed, step, batch, window);
        let local = self.topology.local();
        let mut start = drawn[..local.start].iter().map(Vec::len).sum();
        for (worker, drawn) in self.workers.iter_mut().zip(&drawn[local]) {
            worker.drawn.clone_from(drawn);
            worker.run = start..start + drawn.len();
            start = worker.run.end;
        }
        self.ask(w, Asker::Batch)?;
        let mine: Vec<Vec<u32>> = self.pool.install(|| {
            let each = self.workers.par_iter().with_max_len(1);
            each.map(|worker| {
                let mut words = Vec::new();
                worker.write_pairs(width, decay_days, &mut words);
                words
            })
            .collect()
        });
        self.traffic.asks += self.workers.iter().map(|worker| worker.sent).sum::<f64>();
        self.traffic.embeddings += self.shards.iter().map(|shard| shard.sent).sum::<f64>();
        let others = self.topology.lanes() - 1;
        // Two words more of each pair: its sums.
        let words = |words: &Vec<u32>| words.len() + 2 * words.len() / (7 + 2 * width);
        self.traffic.pairs +=
            mine.iter().map(|mine| bytes(words(mine) * others, 0, 1)).sum::<f64>();
        let all = gather::words(&mut self.fabric, &mine.concat())?.concat();
        self.batch.clear();
        for words in all.chunks_exact(7 + 2 * width) {
            let Pairs { users, items, weights, a, b } = &mut self.batch;
            users.push(words::number(words));
            items.push([words::number(&words[2..]), words::number(&words[4..])]);
            weights.push(f32::from_bits(words[6]));
            let (of_a, of_b) = words[7..].split_at(width);
            a.extend_from_slice(bytemuck::cast_slice(of_a));
            b.extend_from_slice(bytemuck::cast_slice(of_b));
        }
        Ok(())
    }

    /// Sends the gradients of the batch's embeddings to their owners, which run the map backward.
    /// Returns the loss, without the penalty.
    fn gradients(&mut self) -> Result<f64> {
        let [width, components] = self.align.resolved_shape();
        let temperature = self.align.temperature;
        let Lanes { topology, fabric, post, pool, shards, workers, requests, batch, .. } = self;
        let (local, lanes) = (topology.local(), topology.lanes());
        pool.install(|| {
            workers.par_iter_mut().with_max_len(1).for_each(|worker| {
                let Worker { rows, run, .. } = &mut *worker;
                [worker.loss, _] = rows.scores(batch, run.clone(), width, temperature);
            });
        });
        let (sums, losses) = tell_sums(workers, fabric)?;
        let weight: f64 = batch.weights.iter().map(|&weight| f64::from(weight)).sum();
        let loss = sum::tree_f64(&mut losses.clone()) / weight;
        pool.install(|| {
            let each = workers.par_iter_mut().zip(requests.par_iter_mut()).zip(local.clone());
            each.with_max_len(1).for_each(|((worker, out), lane)| {
                let Worker { rows, run, .. } = &mut *worker;
                rows.backward(batch, run.clone(), width, temperature, &sums);
                worker.write_gradients(width, lane, lanes, out);
            });
        });
        self.traffic.gradients += workers.iter().map(|worker| worker.sent).sum::<f64>();
        let mail = post.deliver(*topology, fabric, requests)?;
        pool.install(|| {
            let each = shards.par_iter_mut().zip(local).with_max_len(1);
            each.for_each(|(shard, lane)| {
                let gradients = (0..lanes).map(|worker| mail.read(worker, lane));
                shard.backward([width, components], gradients);
            });
        });
        Ok(loss)
    }

    /// Sums the gradient of the map over all lanes of all processes, into the first local lane's.
    fn sum_map(&mut self) -> Result<()> {
        let Lanes { shards, fabric, all_reduce, topology, traffic, .. } = self;
        let mut parts: Vec<&mut [f32]> = shards.iter_mut().map(|s| &mut s.dw[..]).collect();
        sum::tree(&mut parts, Rounding::Exact);
        let dw = &mut shards[0].dw;
        all_reduce.run(fabric, dw)?;
        // Once for the job, whatever the number of processes.
        if topology.local().start == 0 {
            traffic.all_reduce += 4.0 * all_reduce.words_moved(dw.len(), topology.lanes()) as f64;
        }
        Ok(())
    }

    /// Has the owners embed what `who` asks for, into the workers.
    fn ask(&mut self, w: &[f32], who: Asker) -> Result<()> {
        let [width, components] = self.align.resolved_shape();
        let Lanes { topology, fabric, post, pool, shards, workers, requests, answers, .. } = self;
        let (local, lanes) = (topology.local(), topology.lanes());
        pool.install(|| {
            let each = workers.par_iter_mut().zip(requests.par_iter_mut()).zip(local.clone());
            each.with_max_len(1).for_each(|((worker, out), lane)| match who {
                Asker::Batch => worker.ask(lane, lanes, out),
                Asker::Judges => {
                    write_asks(&worker.collected.judges.asks, lane, lanes, out);
                }
            });
        });
        let mail = post.deliver(*topology, fabric, requests)?;
        pool.install(|| {
            let each = shards.par_iter_mut().zip(answers.par_iter_mut()).zip(local.clone());
            each.with_max_len(1).for_each(|((shard, out), lane)| {
                let asks = (0..lanes).map(|worker| mail.read(worker, lane));
                shard.answer([width, components], w, asks, lane, lanes, out);
            });
        });
        let mail = post.deliver(*topology, fabric, answers)?;
        pool.install(|| {
            let each = workers.par_iter_mut().zip(local).with_max_len(1);
            each.for_each(|(worker, lane)| {
                worker.embeddings.clear();
                for shard in 0..lanes {
                    let values = bytemuck::cast_slice(mail.read(shard, lane));
                    worker.embeddings.extend_from_slice(values);
                }
            });
        });
        Ok(())
    }

    /// The scores by the map `w` of all impressions that judge, and their labels, in lane order;
    /// the same in every process.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn judge(&mut self, w: &[f32]) -> Result<(Vec<f32>, Vec<u8>)> {
        let [width, _] = self.align.resolved_shape();
        self.ask(w, Asker::Judges)?;
        let scored: Vec<Vec<u32>> = self.pool.install(|| {
            let each = self.workers.par_iter().with_max_len(1);
            each.map(|Worker { collected: Collected { judges, .. }, embeddings, .. }| {
                let Judges { labels, .. } = judges;
                let scores = judges.scores(embeddings, width);
                let pairs = scores.iter().zip(labels);
                pairs.flat_map(|(score, &label)| [score.to_bits(), u32::from(label)]).collect()
            })
            .collect()
        });
        let all = gather::words(&mut self.fabric, &scored.concat())?.concat();
        let scores = all.chunks_exact(2).map(|words| f32::from_bits(words[0])).collect();
        Ok((scores, all.chunks_exact(2).map(|words| u8::from(words[1] != 0)).collect()))
    }

    /// The mean per step of what all lanes of all processes sent. All processes ask together.
    ///
    /// # Errors
    /// If a process is lost.
    pub(crate) fn traffic(&mut self) -> Result<Traffic> {
        let mut mine = self.traffic;
        let bits = mine.numbers().map(|number| number.to_bits());
        let mut all = Traffic::default();
        for bits in gather::numbers(&mut self.fabric, &bits)? {
            let each = all.numbers().into_iter().zip(bits);
            each.for_each(|(sum, bits)| *sum += f64::from_bits(bits));
        }
        let steps = self.counted.max(1) as f64;
        all.numbers().into_iter().for_each(|number| *number /= steps);
        Ok(all)
    }
}

/// Whose images are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// Those of the pairs drawn.
    Batch,
    /// Those of the impressions that judge.
    Judges,
}

/// Tells all processes the sums of q of all pairs and the loss of each lane.
fn tell_sums(workers: &[Worker], fabric: &mut Metered) -> Result<(Sums, Vec<f64>)> {
    let mut mine = Vec::new();
    for Worker { rows, loss, .. } in workers {
        words::push(&mut mine, loss.to_bits());
        mine.push(rows.sums.r.len() as u32);
        mine.extend_from_slice(bytemuck::cast_slice(&rows.sums.r));
        mine.extend_from_slice(bytemuck::cast_slice(&rows.sums.s));
    }
    let (mut sums, mut losses) = (Sums::default(), Vec::new());
    let all = gather::words(fabric, &mine)?.concat();
    let mut rest = &all[..];
    while !rest.is_empty() {
        losses.push(f64::from_bits(words::number(rest)));
        let (values, tail) = rest[3..].split_at(2 * rest[2] as usize);
        let (r, s) = values.split_at(values.len() / 2);
        sums.r.extend_from_slice(bytemuck::cast_slice(r));
        sums.s.extend_from_slice(bytemuck::cast_slice(s));
        rest = tail;
    }
    Ok((sums, losses))
}
