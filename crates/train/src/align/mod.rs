//! Aligned image features: a linear map of frozen features, trained so that images which one user
//! engages with have like vectors, before any click is learned.
//!
//! ```text
//! ams align CONFIG
//!   samples (train) --> pairs of images, and impressions of held-out images
//!   feature store   --> components of each image, on the shard that owns it
//!   steps           --> the map, by InfoNCE over pairs of one time (see `lanes`)
//!   looks           --> which step's map is the result (see `gate`)
//! ```
//! In the manner of a training: lanes are virtual, threads and processes decide only where a lane
//! runs, and a killed alignment goes on to the same bits. Everything that a step changes is small
//! and replicated.

pub(crate) mod draw;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod gate;
pub(crate) mod lanes;
pub(crate) mod map;
pub(crate) mod pairs;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ams_data::dataset::{Dataset, SplitName};
use ams_data::part_of;
use ams_fabric::{Fabric, Metered, Topology, agree, gather, on_first, together};
use ams_image::FeatureStore;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::Serialize;

use crate::align::files::{Basis, Card, fetch};
use crate::align::lanes::{Lanes, Shard, Weights, Worker};
use crate::align::map::Components;
use crate::align::pairs::{Collected, Reader};
use crate::error::{Error, Result};
use crate::settings::{Config, ImageArm};
use crate::setup::job::{Job, Next, Start, facts_of};
use crate::setup::places::{Places, RunFolder};
use crate::setup::resolve::topology;
use crate::setup::sources::{self, Sources};
use crate::step::feed::{self, Order};
use crate::step::mail::Seat;
use crate::step::selection::{HeldOut, Selection, Subset};

pub use crate::align::export::{Exported, IMAGES, vectors};
pub use crate::align::files::{ALIGNED, Aligned, Found};
pub use crate::align::gate::Look;
pub use crate::align::lanes::Traffic;

/// How far an alignment is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Steps taken so far.
    pub step: u64,
    /// Steps of the whole alignment.
    pub steps: u64,
    /// The loss of the step; none before the first one.
    pub loss: Option<f64>,
    /// The look at the map after this step, if it was looked at.
    pub look: Option<&'a Look>,
}

/// What an alignment came to; `--json` of `ams align`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlignReport {
    /// Path of the run folder.
    pub run: PathBuf,
    /// Steps taken, over all processes that worked on it.
    pub steps: u64,
    /// The step whose map is the result; 0 is that of the first components.
    pub chosen: u64,
    /// What each look said.
    pub looks: Vec<Look>,
    /// Why no step was taken, where the samples do not suffice and the alignment is a part of a
    /// training; the result is then the map of step 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lack: Option<String>,
    /// What the samples hold.
    pub found: Found,
    /// Width of an aligned vector.
    pub width: usize,
    /// Seconds of this process.
    pub seconds: f64,
    /// Threads of each process.
    pub threads: usize,
    /// Number of processes of the job.
    pub processes: usize,
    /// Number of lanes, over all processes.
    pub lanes: usize,
    /// The step it went on from; 0 for a new alignment.
    pub resumed_from: u64,
    /// Whether all steps were taken; false if the watcher stopped it.
    pub finished: bool,
    /// What all lanes together sent per step, on average over this process's steps.
    pub per_step: Traffic,
}

/// Aligns as `config` says in its run folder, on the processes of `job`, which all call this
/// together and see the same disk. `watch` sees every step and may stop it.
///
/// # Errors
/// If the run folder is taken or cannot be written, or the samples hold no pairs.
pub fn align(
    config: &Config,
    start: Start,
    mut job: Job,
    watch: &mut dyn FnMut(&Progress<'_>) -> Next,
) -> Result<AlignReport> {
    let fabric = &mut *job.fabric;
    together(fabric, config.check())?;
    let mut facts = std::mem::take(&mut job.facts);
    facts.extend(facts_of(config));
    agree::<Error>(fabric, &facts)?;
    let run = job.run_folder(config);
    let fabric = &mut *job.fabric;
    let run = together(fabric, run)?;
    let _lock = on_first(fabric, || run.lock())?;
    if let Some(names) = run.names(fabric)? {
        let fetched = fetch(&run, &names);
        together(fabric, fetched)?;
    }
    align_locked(config, &run, start, WithoutPairs::Refuse, job, watch)
}

/// What becomes of an alignment whose samples do not suffice to learn or to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithoutPairs {
    /// It is an error.
    Refuse,
    /// Its map is that of step 0, the first components, and the report says why.
    TakeComponents,
}

/// The same for a caller that holds the lock of the run and knows that its processes are alike.
///
/// # Errors
/// As [`align`].
pub(crate) fn align_locked(
    config: &Config,
    run: &RunFolder,
    start: Start,
    without: WithoutPairs,
    mut job: Job,
    watch: &mut dyn FnMut(&Progress<'_>) -> Next,
) -> Result<AlignReport> {
    let clock = Instant::now();
    let (threads, processes) = (job.threads, job.fabric.size());
    let begin = on_first(&mut *job.fabric, || decide(run, start))?;
    let goes_on = job.fabric.any(begin == Some(Begin::GoOn))?;
    let mut alignment = Alignment::new(config, run.here(), goes_on, job)?;
    if let Some(Lack { key, what }) = alignment.lack() {
        if without == WithoutPairs::Refuse {
            return Err(Error::Config { key: key.to_owned(), what });
        }
        alignment.aligned.card.lack = Some(what);
    }
    let resumed_from = alignment.aligned.card.step;
    let finished = alignment.run(run, watch)?;
    let per_step = match &mut alignment.lanes {
        Some(lanes) => lanes.traffic()?,
        None => Traffic::default(),
    };
    let Card { step, chosen, looks, found, lack, .. } = alignment.aligned.card;
    Ok(AlignReport {
        run: run.named().to_path_buf(),
        steps: step,
        chosen,
        looks,
        lack,
        found,
        width: alignment.width,
        seconds: clock.elapsed().as_secs_f64(),
        threads,
        processes,
        lanes: config.train.lanes,
        resumed_from,
        finished,
        per_step,
    })
}

/// How an alignment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    New,
    GoOn,
}

/// What `start` means for what is in the run folder.
fn decide(run: &RunFolder, start: Start) -> Result<Begin> {
    let (done, begun) = files::state_of(run.here())?;
    match start {
        Start::Fresh if done || begun => {
            let what = "holds an earlier alignment; choose another name, go on with --resume, or --replace it";
            Err(Error::content(run.named(), what))
        }
        Start::Resume if !(done || begun) => {
            let what = "holds no alignment to go on with; leave --resume out";
            Err(Error::content(run.named(), what))
        }
        Start::Resume | Start::Auto if done || begun => Ok(Begin::GoOn),
        Start::Fresh | Start::Resume | Start::Auto => Ok(Begin::New),
        Start::Replace => {
            files::clear(run.here())?;
            files::clear_kept(run).map(|()| Begin::New)
        }
    }
}

/// Whether the run folder holds an alignment, whole or in part.
pub(crate) fn has_begun(run: &Path) -> Result<bool> {
    files::state_of(run).map(|(done, begun)| done || begun)
}

/// Why the samples do not suffice.
struct Lack {
    /// The setting that it is about.
    key: &'static str,
    what: String,
}

/// An alignment in memory.
struct Alignment {
    /// None if there is nothing left to do.
    lanes: Option<Lanes>,
    weights: Weights,
    /// The best map so far, and where the alignment stands.
    aligned: Aligned,
    /// The scores of the impressions that judge at step 0, and their labels; none without any.
    first: Option<(Vec<f32>, Vec<u8>)>,
    width: usize,
}

impl Alignment {
    /// A new one, or the one in the folder `run`.
    fn new(config: &Config, run: &Path, goes_on: bool, job: Job) -> Result<Alignment> {
        let Job { fabric, threads, places, .. } = job;
        let mut fabric = Metered::new(fabric);
        let opened = open(config, &*places);
        let (dataset, store) = together(&mut fabric, opened)?;
        let sources = Sources::of(&dataset, std::slice::from_ref(&store));
        agree::<Error>(&mut fabric, &sources.facts())?;
        let basis = Basis::of(config, sources, store.dim());
        let [width, _] = basis.align.resolved_shape();
        let topology = topology(config, &dataset, &fabric);
        let topology = together(&mut fabric, topology)?;
        let earlier = if goes_on { earlier(run, &basis) } else { Ok(None) };
        let earlier = together(&mut fabric, earlier)?;
        if let Some(Earlier::Done(aligned)) = earlier {
            let weights = Weights::default();
            return Ok(Alignment { lanes: None, weights, aligned, first: None, width });
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        let pool =
            pool.map_err(|error| Error::Config { key: "threads".into(), what: error.to_string() });
        let pool = together(&mut fabric, pool)?;
        let (aligned, weights) = match earlier {
            Some(Earlier::At(aligned, weights)) => (aligned, weights),
            _ => begin(basis.clone(), &store),
        };
        let held_out = HeldOut::of(&config.train, &dataset, &mut fabric)?;
        let samples = Samples { dataset: &dataset, held_out };
        let read = workers(config, &basis, samples, &store, topology, &pool);
        let mut workers = together(&mut fabric, read)?;
        let found = tell(&mut workers, &basis, &mut fabric)?;
        let shards = shards(&store, &aligned.components, topology, &pool);
        let align = basis.align.clone();
        let lanes = Lanes::new(align, basis.seed, topology, shards, workers, fabric, pool)?;
        let mut made = Alignment { lanes: Some(lanes), weights, aligned, first: None, width };
        let lanes = made.lanes.as_mut().expect("just made");
        if basis.align.holdout > 0.0 {
            made.first = Some(lanes.judge(&Weights::first(&basis.align).w)?);
        }
        let images = (0..store.card().parts).map(|part| store.keys(part).len() as u64).sum();
        let kept = lanes.pairs() as u64;
        made.aligned.card.found = Found { images, kept, ..found };
        Ok(made)
    }

    /// What the samples lack of pairs to learn from, or of impressions to judge by.
    fn lack(&self) -> Option<Lack> {
        let lanes = self.lanes.as_ref()?;
        let holdout = self.aligned.card.basis.align.holdout;
        if lanes.pairs() < 2 {
            let what = format!(
                "the training samples hold {} pairs of a clicked image and an earlier one of the same user without \
                 the images held out by align.holdout = {holdout}, expected thousands; are pictures encoded, and do \
                 clicks have histories?",
                lanes.pairs(),
            );
            return Some(Lack { key: "align", what });
        }
        let (first, labels) = self.first.as_ref()?;
        if Look::of(0, None, first, first, labels).is_some() {
            return None;
        }
        let clicked = labels.iter().filter(|label| **label != 0).count();
        let what = format!(
            "{holdout} leaves {} impressions with a history to judge by, {clicked} of them clicked, expected at least \
             two of both kinds; hold out more, or 0 to judge by none",
            labels.len()
        );
        Some(Lack { key: "align.holdout", what })
    }

    /// Takes the steps that are left, unless `watch` stops it; whether it is done.
    fn run(
        &mut self,
        run: &RunFolder,
        watch: &mut dyn FnMut(&Progress<'_>) -> Next,
    ) -> Result<bool> {
        let Some(mut lanes) = self.lanes.take() else { return Ok(true) };
        if self.aligned.card.lack.is_some() {
            self.finish(&mut lanes, run)?;
            return Ok(true);
        }
        let done = self.steps(&mut lanes, run, watch);
        self.lanes = Some(lanes);
        done
    }

    fn steps(
        &mut self,
        lanes: &mut Lanes,
        run: &RunFolder,
        watch: &mut dyn FnMut(&Progress<'_>) -> Next,
    ) -> Result<bool> {
        let (steps, every) = {
            let align = &self.aligned.card.basis.align;
            (align.steps, align.evaluate_every)
        };
        if self.aligned.card.step == 0 && self.aligned.card.looks.is_empty() {
            let look = self.look(lanes)?;
            watch(&Progress { step: 0, steps, loss: None, look: look.as_ref() });
        }
        while self.aligned.card.step < steps {
            let step = self.aligned.card.step + 1;
            let loss = lanes.step(&mut self.weights, step)?;
            let card = &mut self.aligned.card;
            card.step = step;
            card.losses = (card.losses.0 + loss, card.losses.1 + 1);
            let due = step.is_multiple_of(every) || step == steps;
            let look = if due { self.look(lanes)? } else { None };
            let progress = Progress { step, steps, loss: Some(loss), look: look.as_ref() };
            let wish = watch(&progress);
            let stop = lanes.fabric().any(wish == Next::Stop)? && step < steps;
            if (due && step < steps) || stop {
                on_first(lanes.fabric(), || self.aligned.keep(&self.weights, run))?;
            }
            if stop {
                return Ok(false);
            }
        }
        self.finish(lanes, run)?;
        Ok(true)
    }

    /// Makes the map the result in the run's folder, of every process.
    fn finish(&self, lanes: &mut Lanes, run: &RunFolder) -> Result<()> {
        let first = lanes.fabric().rank() == 0;
        on_first(lanes.fabric(), || self.aligned.finish(run))?;
        let told = if first { Ok(()) } else { files::fetch_result(run) };
        together(lanes.fabric(), told)
    }

    /// Looks at the map as it is, and takes it if it is the best. Without held-out images every map
    /// is.
    fn look(&mut self, lanes: &mut Lanes) -> Result<Option<Look>> {
        let Aligned { card, map, .. } = &mut self.aligned;
        let (sum, count) = std::mem::take(&mut card.losses);
        let loss = (count > 0).then(|| sum / count as f64);
        let Some((first, labels)) = &self.first else {
            (card.chosen, *map) = (card.step, self.weights.w.clone());
            return Ok(None);
        };
        let (now, _) = lanes.judge(&self.weights.w)?;
        let look = Look::of(card.step, loss, first, &now, labels).expect("judges of both classes");
        let best = card.looks.iter().find(|look| look.step == card.chosen);
        if best.is_some_and(|best| look.beats(best)) {
            (card.chosen, *map) = (card.step, self.weights.w.clone());
        }
        card.looks.push(look);
        Ok(Some(look))
    }
}

/// What an earlier process left.
enum Earlier {
    Done(Aligned),
    At(Aligned, Weights),
}

/// What is in the folder of the run, if it is of `basis`.
fn earlier(run: &Path, basis: &Basis) -> Result<Option<Earlier>> {
    let found = match files::state_of(run)? {
        (true, _) => Some(Earlier::Done(Aligned::open(run)?)),
        _ => files::newest(run)?.map(|(aligned, weights)| Earlier::At(aligned, weights)),
    };
    let card = match &found {
        Some(Earlier::Done(aligned) | Earlier::At(aligned, _)) => &aligned.card,
        None => return Ok(None),
    };
    match card.basis.difference(basis) {
        Some(what) => {
            let what = format!("its alignment {what}; choose another name, or --replace it");
            Err(Error::content(run, what))
        }
        None => Ok(found),
    }
}

/// The alignment of `basis` at step 0.
fn begin(basis: Basis, store: &FeatureStore) -> (Aligned, Weights) {
    let components = Components::fit(store, basis.align.resolved_shape()[1], basis.align.whiten);
    let weights = Weights::first(&basis.align);
    let card = Card {
        encoder: store.card().encoder.clone(),
        encoder_hash: store.card().encoder_hash.clone(),
        features: store.dim(),
        basis,
        found: Found::default(),
        step: 0,
        losses: (0.0, 0),
        looks: Vec::new(),
        chosen: 0,
        lack: None,
    };
    (Aligned { card, components, map: weights.w.clone() }, weights)
}

/// Opens the dataset and the feature store of images, as they are, whatever the model makes of
/// them.
fn open(config: &Config, places: &dyn Places) -> Result<(Dataset, FeatureStore)> {
    let mut config = config.clone();
    (config.model.pca, config.model.projection) = (None, None);
    config.model.network.images = ImageArm::Joint;
    config.data.contents = Vec::new();
    let (dataset, mut stores) = sources::open_in(places, &config)?;
    let Some(store) = stores.pop() else {
        let what =
            "there is no feature store of images to align; run `ams encode` or set data.images";
        return Err(Error::Config { key: "data.images".to_owned(), what: what.to_owned() });
    };
    let [_, count] = config.align.unwrap_or_default().shape(store.dim());
    if count > store.dim() {
        let what = format!("{count} components of features of {} numbers", store.dim());
        return Err(Error::Config { key: "align.components".to_owned(), what });
    }
    Ok((dataset, store))
}

/// A dataset without what is held out of its training samples.
#[derive(Clone, Copy)]
struct Samples<'a> {
    dataset: &'a Dataset,
    held_out: HeldOut,
}

/// Reads the samples of the local lanes.
fn workers(
    config: &Config,
    basis: &Basis,
    samples: Samples<'_>,
    store: &FeatureStore,
    topology: Topology,
    pool: &ThreadPool,
) -> Result<Vec<Worker>> {
    let Samples { dataset, held_out } = samples;
    let lanes = topology.lanes();
    let impressions = dataset.card().counts.train;
    let reader = Reader { store, align: &basis.align, seed: basis.seed, lanes, impressions };
    let window = config.train.shuffle_groups;
    let learned = Selection { split: SplitName::Train, subset: Subset::Learned };
    let read: Vec<Result<Worker>> = pool.install(|| {
        let each = topology.local().into_par_iter().with_max_len(1);
        each.map(|lane| {
            let mut feed =
                feed::open(dataset, learned, Seat { lane, lanes }, Order::Files, held_out, window)?;
            Ok(Worker::new(reader.collect(&mut feed, dataset.schema())?))
        })
        .collect()
    });
    read.into_iter().collect()
}

/// Leaves every lane the pairs that all lanes keep; what there is in all.
fn tell(workers: &mut [Worker], basis: &Basis, fabric: &mut dyn Fabric) -> Result<Found> {
    let collected = || workers.iter().map(|worker| &worker.collected);
    let threshold = collected().map(|collected| collected.threshold).min().unwrap_or(u64::MAX);
    let sum = |count: fn(&Collected) -> u64| collected().map(count).sum::<u64>();
    let mine = [
        threshold,
        sum(|collected| collected.seen),
        sum(|collected| collected.judges.labels.len() as u64),
        sum(|collected| collected.judges.labels.iter().map(|&label| u64::from(label)).sum()),
    ];
    let all = gather::numbers(fabric, &mine)?;
    let threshold = all.iter().map(|numbers| numbers[0]).min().unwrap_or(u64::MAX);
    workers.iter_mut().for_each(|worker| worker.collected.limit(basis.seed, threshold));
    let sum = |at: usize| all.iter().map(|numbers| numbers[at]).sum();
    Ok(Found { images: 0, pairs: sum(1), kept: 0, judges: sum(2), clicked: sum(3) })
}

/// The images of each local lane, and what the map reads of them.
fn shards(
    store: &FeatureStore,
    components: &Components,
    topology: Topology,
    pool: &ThreadPool,
) -> Vec<Shard> {
    let mut keys = vec![Vec::new(); topology.local().len()];
    for key in (0..store.card().parts).flat_map(|part| store.keys(part)) {
        let lane = part_of(key.0, topology.lanes());
        if topology.local().contains(&lane) {
            keys[lane - topology.local().start].push(key.0);
        }
    }
    pool.install(|| {
        let each = keys.into_par_iter().with_max_len(1);
        each.map(|keys| {
            let x = components.of(store, &keys);
            Shard::new(keys, x)
        })
        .collect()
    })
}
