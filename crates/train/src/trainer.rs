//! A training: from a configuration to steps, predictions and a checkpoint.

use std::path::{Path, PathBuf};

use ams_bundle::Predictions;
use ams_bundle::{ImageSource, Spec};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::schema::ITEM;
use ams_data::{Side, id::Id};
use ams_fabric::{Fabric, Metered, Topology, gather};
use ams_image::FeatureStore;
use ams_model::schedule::Schedule;
use rayon::prelude::*;

use crate::checkpoint::{self, Checkpoint, Cursor, Meta, Sources};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::feed::{Feed, Order};
use crate::gathered::gather_predictions;
use crate::job::{Job, agree, facts_of, together};
use crate::lanes::{Lanes, Share, StepOutcome};
use crate::plan::Plan;
use crate::shard::Unknown;
use crate::worker::Worker;

/// The folder of the feature store inside a dataset, unless the configuration names another.
const IMAGES: &str = "images";

/// What a step of a training did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Where the training stands after it.
    pub cursor: Cursor,
    /// Impressions of the step.
    pub impressions: u64,
    /// Mean loss of the step.
    pub loss: f64,
    /// Learning rate of the step.
    pub learning_rate: f32,
}

/// How much of a split to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// One batch.
    First,
    /// All of it.
    All,
}

/// A training in memory.
pub struct Trainer {
    config: Config,
    dataset: Dataset,
    sources: Sources,
    lanes: Lanes,
    workers: Vec<Worker>,
    cursor: Cursor,
    steps_per_epoch: u64,
    /// Whether the feeds stand where the cursor says.
    started: bool,
}

impl Trainer {
    /// A new training of `config` on the processes of `job`, which all call this together.
    ///
    /// # Errors
    /// If the configuration does not make sense, or does not fit the dataset or the feature store, or if
    /// the processes of the job are not alike.
    pub fn new(config: Config, job: Job) -> Result<Trainer> {
        let Job { fabric, threads, mut facts } = job;
        let mut fabric = Metered::new(fabric);
        facts.extend(facts_of(&config));
        agree(&mut fabric, &facts)?;
        let sources = open_sources(&config);
        let (dataset, store) = together(&mut fabric, sources)?;
        let sources = sources_of(&dataset, store.as_ref());
        agree(&mut fabric, &sources.facts())?;
        let made = make(&config, &dataset, store.as_ref(), &fabric, threads);
        let Made { plan, topology, pool, workers } = together(&mut fabric, made)?;
        let steps_per_epoch = Share::steps(dataset.card().counts.train, config.train.batch);
        let rounding = config.train.all_reduce.into();
        let lanes = Lanes::new(plan, config.seed, topology, store, rounding, fabric, pool);
        let cursor = Cursor::default();
        let started = false;
        Ok(Trainer { config, dataset, sources, lanes, workers, cursor, steps_per_epoch, started })
    }

    /// The training as the newest checkpoint below `checkpoints` left it.
    ///
    /// # Errors
    /// If there is no checkpoint, or it is damaged, or does not fit the dataset or the feature store of
    /// today.
    pub fn resume(checkpoints: &Path, mut job: Job) -> Result<Trainer> {
        let newest = newest(checkpoints, &mut *job.fabric)?;
        let opened =
            Checkpoint::open(&newest).map_err(|error| damaged(checkpoints, &newest, error));
        let checkpoint = together(&mut *job.fabric, opened)?;
        let meta = checkpoint.meta();
        let mut trainer = Trainer::new(meta.config.clone(), job)?;
        let Trainer { lanes, sources, .. } = &mut trainer;
        let restored = match difference(meta, &lanes.plan.spec, sources) {
            Some(what) => Err(Error::content(&newest, what)),
            None => checkpoint.restore(lanes).map_err(|error| damaged(checkpoints, &newest, error)),
        };
        together(trainer.lanes.fabric(), restored)?;
        trainer.cursor = meta.cursor;
        Ok(trainer)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The dataset.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The lanes, for publishing.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The lanes, for counting and for exchanges of all processes.
    pub fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// Where the training stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> u64 {
        self.steps_per_epoch * u64::from(self.config.train.epochs)
    }

    /// Takes the next step; `None` when all epochs are done.
    ///
    /// # Errors
    /// As [`Lanes::train_step`].
    pub fn step(&mut self) -> Result<Option<StepReport>> {
        if self.cursor.step_in_epoch == self.steps_per_epoch {
            self.cursor.epoch += 1;
            self.cursor.step_in_epoch = 0;
            self.started = false;
        }
        if self.cursor.epoch >= self.config.train.epochs {
            return Ok(None);
        }
        if !self.started {
            self.start_epoch()?;
        }
        let share = self.share(self.cursor.step_in_epoch + 1);
        let step = self.cursor.step + 1;
        let train = &self.config.train;
        let lr = Schedule { lr: train.learning_rate, decay: train.decay, every: train.decay_every }
            .at(self.cursor.step);
        let StepOutcome { impressions, loss } =
            self.lanes.train_step(&mut self.workers, share, step, lr)?;
        self.cursor.step = step;
        self.cursor.step_in_epoch += 1;
        self.cursor.impressions += impressions;
        Ok(Some(StepReport { cursor: self.cursor, impressions, loss, learning_rate: lr }))
    }

    fn share(&self, step_in_epoch: u64) -> Share {
        Share { numerator: step_in_epoch, denominator: self.steps_per_epoch }
    }

    /// Brings the feeds to where the cursor says, passing over what was learned from already.
    fn start_epoch(&mut self) -> Result<()> {
        let Cursor { epoch, step_in_epoch, .. } = self.cursor;
        let share = self.share(step_in_epoch);
        let done: Vec<Result<()>> = self.lanes.pool().install(|| {
            let each = self.workers.par_iter_mut().with_max_len(1);
            each.map(|worker| {
                worker.feed.start(epoch);
                if step_in_epoch > 0 {
                    worker.read(share.of(worker.feed.impressions()))?;
                }
                Ok(())
            })
            .collect()
        });
        self.started = true;
        done.into_iter().collect()
    }

    /// Predicts a split with the model as it is; ids never trained on count as zero rows. Rows come
    /// part by part, whatever the number of lanes and processes. All processes call it together; the
    /// first one gets all rows, the others none.
    ///
    /// # Errors
    /// If samples cannot be read or a process is lost.
    pub fn evaluate(&mut self, split: SplitName) -> Result<Predictions> {
        let item = self.item_column();
        let mut lanes = vec![Predictions::default(); self.lanes.shards.len()];
        let batch = self.config.train.batch;
        self.predict(split, batch, Rounds::All, |lane, worker| {
            collect(worker, item, &mut lanes[lane]);
        })?;
        let mut all = Predictions::default();
        lanes.into_iter().for_each(|predictions| all.extend(predictions));
        Ok(gather_predictions(self.lanes.fabric(), all)?)
    }

    /// Predicts a split about `batch` impressions at a time; shows `visit` each local lane's worker
    /// after each round.
    pub(crate) fn predict(
        &mut self,
        split: SplitName,
        batch: usize,
        rounds: Rounds,
        mut visit: impl FnMut(usize, &Worker),
    ) -> Result<()> {
        let topology = self.lanes.topology;
        let mut workers = Vec::new();
        for lane in topology.local() {
            let lane = (lane, topology.lanes());
            let mut feed = feed(&self.dataset, split, lane, Order::Files, &self.config)?;
            feed.start(0);
            workers.push(Worker::new(&self.lanes.plan, feed));
        }
        let counts = &self.dataset.card().counts;
        let impressions = match split {
            SplitName::Train => counts.train,
            SplitName::Test => counts.test,
        };
        let denominator = Share::steps(impressions, batch);
        let last = match rounds {
            Rounds::First => 1,
            Rounds::All => denominator,
        };
        for numerator in 1..=last {
            let share = Share { numerator, denominator };
            self.lanes.predict(&mut workers, share, Unknown::Zero)?;
            workers.iter().enumerate().for_each(|(lane, worker)| visit(lane, worker));
        }
        Ok(())
    }

    /// Which ad column holds the item.
    fn item_column(&self) -> usize {
        let mut fields = self.dataset.schema().side(Side::Ad);
        fields.position(|field| field.name == ITEM).expect("every schema has the ad's item")
    }

    /// Writes a checkpoint below `checkpoints`. All processes call it together.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn checkpoint(&mut self, checkpoints: &Path) -> Result<PathBuf> {
        let meta = Meta {
            cursor: self.cursor,
            config: self.config.clone(),
            spec: self.lanes.plan.spec.clone(),
            sources: self.sources.clone(),
        };
        checkpoint::save(checkpoints, self.config.train.keep_checkpoints, &mut self.lanes, meta)
    }
}

/// Appends what a worker predicted.
fn collect(worker: &Worker, item: usize, to: &mut Predictions) {
    let groups = &worker.batch.groups;
    for group in 0..groups.len() {
        let impressions = groups.impressions.range(group);
        to.users.extend(impressions.clone().map(|_| groups.users[group].0));
        let behaviors = groups.behaviors.range(group).len() as u32;
        to.behaviors.extend(impressions.map(|_| behaviors));
    }
    let items = &groups.ad_fields[item];
    let item = |row| items.row(row).first().copied().unwrap_or(Id(0)).0;
    to.items.extend((0..items.len()).map(item));
    to.labels.extend_from_slice(&groups.labels);
    to.times.extend_from_slice(&groups.times);
    to.logits.extend_from_slice(&worker.logits);
    to.with_image.extend(worker.ad_keys().iter().map(|key| key.is_some()));
}

/// The newest checkpoint below `checkpoints`, as the first process sees it.
fn newest(checkpoints: &Path, fabric: &mut dyn Fabric) -> Result<PathBuf> {
    let mine = match fabric.rank() {
        0 => checkpoint::list(checkpoints).and_then(|all| match all.last() {
            Some((step, _)) => Ok(*step),
            None => Err(Error::content(checkpoints, "holds no checkpoint; train the run first")),
        }),
        _ => Ok(0),
    };
    let step = together(fabric, mine)?;
    Ok(checkpoint::path(checkpoints, gather::numbers(fabric, &[step])?[0][0]))
}

/// `error` of the newest checkpoint, with the way out if there is an earlier one.
fn damaged(checkpoints: &Path, newest: &Path, error: Error) -> Error {
    let earlier = checkpoint::list(checkpoints).unwrap_or_default();
    match earlier.iter().rev().find(|(_, path)| path != newest) {
        None => error,
        Some((_, older)) => Error::Damaged {
            newest: Box::new(error),
            damaged: newest.display().to_string(),
            older: older.display().to_string(),
        },
    }
}

/// How the model and the sources of a checkpoint differ from what they are today.
fn difference(then: &Meta, spec: &Spec, sources: &Sources) -> Option<String> {
    let images = |source: &Option<ImageSource>| match source {
        Some(source) => format!("{} ({} numbers)", source.encoder, source.dim),
        None => "no image features".to_owned(),
    };
    let (was, is) = (images(&then.spec.image_source), images(&spec.image_source));
    if was != is {
        return Some(format!("was trained on image features of {was}, but now there are {is}"));
    }
    if then.spec.image_source != spec.image_source || then.sources.images != sources.images {
        return Some(format!("was trained on other image features of {was} than there are now"));
    }
    if then.spec != *spec {
        return Some("was trained on other fields than the dataset has now".to_owned());
    }
    let what = "was trained on another dataset than the one that is there now";
    (then.sources != *sources).then(|| what.to_owned())
}

/// Opens the files that a training reads.
fn open_sources(config: &Config) -> Result<(Dataset, Option<FeatureStore>)> {
    config.check()?;
    let dataset = Dataset::open(&config.data.samples)?;
    if dataset.card().counts.train == 0 {
        return Err(Error::content(dataset.dir(), "has no training impressions"));
    }
    Ok((dataset, open_store(config)?))
}

/// What identifies them.
fn sources_of(dataset: &Dataset, store: Option<&FeatureStore>) -> Sources {
    fn hash(card: &impl serde::Serialize) -> String {
        let json = serde_json::to_vec(card).expect("cards are JSON");
        blake3::hash(&json).to_hex().to_string()
    }
    Sources { dataset: hash(dataset.card()), images: store.map(|store| hash(store.card())) }
}

/// What a training consists of besides its files.
struct Made {
    plan: Plan,
    topology: Topology,
    pool: rayon::ThreadPool,
    workers: Vec<Worker>,
}

fn make(
    config: &Config,
    dataset: &Dataset,
    store: Option<&FeatureStore>,
    fabric: &dyn Fabric,
    threads: usize,
) -> Result<Made> {
    let spec = resolve(config, dataset, store)?;
    let topology = topology(config, dataset, fabric)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| Error::Config { key: "threads".into(), what: error.to_string() })?;
    let plan = Plan::new(spec, &config.train);
    let mut workers = Vec::new();
    for lane in topology.local() {
        let order = Order::Shuffled { seed: config.seed, lane };
        let feed = feed(dataset, SplitName::Train, (lane, topology.lanes()), order, config)?;
        workers.push(Worker::new(&plan, feed));
    }
    Ok(Made { plan, topology, pool, workers })
}

/// The feature store of `config`, shuffled if it says so. Every arm gets image ids where there is one.
fn open_store(config: &Config) -> Result<Option<FeatureStore>> {
    let inside = config.data.samples.join(IMAGES);
    let dir = match &config.data.images {
        Some(dir) => dir.clone(),
        None if inside.exists() => inside,
        None if config.model.images.has_ad() || config.model.images.has_behavior() => {
            let what = format!(
                "the model sees images (model.images), but there is no feature store in {}; run \
                 `ams encode` or set data.images",
                inside.display()
            );
            return Err(Error::Config { key: "data.images".into(), what });
        }
        None => return Ok(None),
    };
    let store = FeatureStore::open(&dir)?;
    Ok(Some(match config.data.shuffle_images {
        Some(seed) => store.shuffled(seed),
        None => store,
    }))
}

/// The model that `config` means on this dataset.
fn resolve(config: &Config, dataset: &Dataset, store: Option<&FeatureStore>) -> Result<Spec> {
    let schema = dataset.schema();
    let names: Vec<&str> = schema.fields.iter().map(|field| &field.name[..]).collect();
    for name in &config.data.exclude_fields {
        if !names.contains(&&name[..]) {
            let what = format!("there is no field {name:?}; the dataset has {}", names.join(", "));
            return Err(Error::Config { key: "data.exclude_fields".into(), what });
        }
    }
    let excluded = |name: &str| config.data.exclude_fields.iter().any(|field| field == name);
    let ad: Vec<&str> =
        schema.side(Side::Ad).map(|field| &field.name[..]).filter(|name| !excluded(name)).collect();
    let query_fields = match &config.model.query_fields {
        Some(fields) => {
            if let Some(name) = fields.iter().find(|name| !ad.contains(&&name[..])) {
                let what = format!("there is no ad field {name:?}; possible are {}", ad.join(", "));
                return Err(Error::Config { key: "model.query_fields".into(), what });
            }
            fields.clone()
        }
        None => {
            let default = [ITEM, "category"].into_iter().filter(|name| ad.contains(name));
            default.map(str::to_owned).collect()
        }
    };
    let spec = Spec {
        fields: schema.clone(),
        exclude_fields: config.data.exclude_fields.clone(),
        max_behaviors: dataset.card().max_behaviors,
        images: config.model.images,
        aggregator: config.model.aggregator,
        dim: config.model.embedding_dim,
        attention: config.model.attention,
        mlp: config.model.mlp.clone(),
        query_fields,
        tower: config.model.tower.clone(),
        sharing: config.model.towers,
        image_source: store.map(|store| ImageSource {
            encoder: store.card().encoder.clone(),
            encoder_hash: store.card().encoder_hash.clone(),
            dim: store.card().dim,
            scale: store.card().scale,
        }),
    };
    if let Err(what) = spec.rank_config().check() {
        return Err(Error::Config { key: "model".into(), what });
    }
    Ok(spec)
}

fn topology(config: &Config, dataset: &Dataset, fabric: &dyn Fabric) -> Result<Topology> {
    let (lanes, parts) = (config.train.lanes, dataset.card().parts);
    let bad = |what| Err(Error::Config { key: "train.lanes".into(), what });
    if lanes > parts || parts % lanes != 0 {
        return bad(format!("{lanes} lanes cannot share the dataset's {parts} parts evenly"));
    }
    match Topology::new(lanes, fabric) {
        Some(topology) => Ok(topology),
        None => bad(format!(
            "{lanes} lanes cannot be shared by {} processes; both have to be powers of two, and at \
             least one lane per process",
            fabric.size()
        )),
    }
}

/// The feed of one lane.
fn feed(
    dataset: &Dataset,
    split: SplitName,
    (lane, lanes): (usize, usize),
    order: Order,
    config: &Config,
) -> Result<Feed> {
    // A part without users has a file without rows: a missing one is a loss nobody would notice.
    let open = |part| SampleFile::open(&dataset.part_path(split, part), dataset.schema());
    let files: ams_data::Result<Vec<SampleFile>> =
        Lanes::parts_of(dataset.card(), lane, lanes).map(open).collect();
    Ok(Feed::new(files?, dataset.schema(), order, config.train.shuffle_groups))
}
