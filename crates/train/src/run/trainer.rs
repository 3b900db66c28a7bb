//! A training: from a configuration to steps, predictions and a checkpoint.

use std::path::Path;
use std::sync::Arc;

use ams_bundle::Predictions;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::schema::ITEM;
use ams_data::{Groups, Id, Side};
use ams_fabric::{Metered, agree, gather, together};
use ams_model::metrics::Metrics;
use rayon::ThreadPool;
use rayon::prelude::*;

use crate::align::Aligned;
use crate::error::{Error, Result};
use crate::run::assemble::{Assembly, assemble};
use crate::run::checkpoint::{self, Checkpoint, Meta};
use crate::run::layout::{CHECKPOINTS, folder};
use crate::run::mirror;
use crate::run::phases::Phases;
use crate::run::predictions::gather_predictions;
use crate::run::progress::{Cursor, History, StepReport, Validation};
use crate::run::semantic::SemanticReport;
use crate::run::standardize::standardize;
use crate::run::validation;
use crate::run::warm_start;
use crate::settings::{Config, WarmParts};
use crate::setup::job::{Job, facts_of};
use crate::setup::places::{Places, RunFolder};
use crate::setup::sources::{self, Sources};
use crate::step::feed::{self, Order};
use crate::step::frequency::FieldIds;
use crate::step::mail::Seat;
use crate::step::selection::{HeldOut, Selection, Subset};
use crate::step::share::Share;
use crate::step::worker::Worker;
use crate::step::{DenseSettings, Lanes, Pass, StepOutcome};

/// How much of a split to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounds {
    /// One batch of it.
    First,
    /// As many rounds as the selection has batches.
    All,
}

/// A training in memory.
pub struct Trainer {
    config: Config,
    places: Arc<dyn Places>,
    dataset: Dataset,
    sources: Sources,
    lanes: Lanes,
    workers: Vec<Worker>,
    /// Readers of the samples held out, with what fits into their windows, between two evaluations.
    validators: Vec<Worker>,
    cursor: Cursor,
    history: History,
    held_out: HeldOut,
    /// Impressions of one epoch.
    learned: u64,
    steps_per_epoch: u64,
    phases: Phases,
    /// Whether the feeds stand where the cursor says.
    started: bool,
    /// The ids of the training samples by field, once they are counted.
    ids: Option<Vec<FieldIds>>,
    /// Whether the workers know how often items are shown, where negatives of batches need it.
    knows_items: bool,
}

impl Trainer {
    /// A new training of `config` on the processes of `job`, which all call this together.
    ///
    /// # Errors
    /// If the configuration does not make sense, or does not fit the dataset or the feature store,
    /// or if the processes of the job are not alike.
    pub fn new(config: Config, job: Job) -> Result<Trainer> {
        let run = folder(&config);
        Trainer::within(&run, config, job)
    }

    /// The same, with the aligned map in the folder `run` if the configuration asks for one.
    pub(super) fn within(run: &Path, config: Config, job: Job) -> Result<Trainer> {
        let Job { fabric, threads, mut facts, places } = job;
        let mut fabric = Metered::new(fabric);
        facts.extend(facts_of(&config));
        agree::<Error>(&mut fabric, &facts)?;
        let sources = sources::open_in(&*places, &config);
        let (dataset, mut stores) = together(&mut fabric, sources)?;
        let sources = Sources::of(&dataset, &stores);
        agree::<Error>(&mut fabric, &sources.facts())?;
        if config.aligns().is_some() {
            let aligned = Aligned::before(&config, run, &sources, stores.remove(0));
            stores.insert(0, together(&mut fabric, aligned)?);
        }
        let held_out = HeldOut::of(&config.train, &dataset, &mut fabric)?;
        let made = assemble(&config, &dataset, &stores, held_out, &fabric, threads);
        let Assembly { network, topology, pool, workers } = together(&mut fabric, made)?;
        let learned = learned(held_out, &dataset, &workers, &mut fabric)?;
        let steps_per_epoch = Share::steps(learned, config.train.batch);
        let sum = DenseSettings {
            rounding: config.train.all_reduce.into(),
            clip_norm: config.train.clip_norm,
        };
        let lanes = Lanes::new(network, config.seed, topology, stores, sum, fabric, pool);
        let phases = Phases::of(&config.train, steps_per_epoch);
        Ok(Trainer {
            config,
            places,
            dataset,
            sources,
            lanes,
            workers,
            validators: Vec::new(),
            cursor: Cursor::default(),
            history: History::default(),
            held_out,
            learned,
            steps_per_epoch,
            phases,
            started: false,
            ids: None,
            knows_items: false,
        })
    }

    /// Takes over the weights of the configuration's warm start, if it has one. For a new training
    /// only.
    ///
    /// # Errors
    /// If that training has no checkpoint, it is damaged, or its parts do not fit this model.
    pub(crate) fn warm_start(&mut self) -> Result<()> {
        let Some(warm) = self.config.train.warm_start.clone() else { return Ok(()) };
        let from = self.places.run(&warm.from).map_err(Error::from);
        let checkpoints = together(self.lanes.fabric(), from)?.join(CHECKPOINTS);
        let newest = checkpoint::newest(&checkpoints, self.lanes.fabric())?;
        let taken = warm_start::take(&newest, warm.parts, &mut self.lanes);
        self.cursor.step = together(self.lanes.fabric(), taken)?;
        Ok(())
    }

    /// The training as the newest checkpoint below `checkpoints` left it.
    ///
    /// # Errors
    /// If there is no checkpoint, or it is damaged, or does not fit the dataset or the feature
    /// store of today.
    pub(crate) fn resume(checkpoints: &Path, mut job: Job) -> Result<Trainer> {
        let newest = checkpoint::newest(checkpoints, &mut *job.fabric)?;
        let opened = Checkpoint::open(&newest)
            .map_err(|error| checkpoint::damaged(checkpoints, &newest, error));
        let checkpoint = together(&mut *job.fabric, opened)?;
        let meta = checkpoint.meta();
        // Not the configuration's folder: the run may have been moved since.
        let run = checkpoints.parent().unwrap_or(Path::new("."));
        let mut trainer = Trainer::within(run, meta.config.clone(), job)?;
        let Trainer { lanes, sources, .. } = &mut trainer;
        let restored = match meta.difference(&lanes.network.spec, sources) {
            Some(what) => Err(Error::content(&newest, what)),
            None => checkpoint
                .restore(lanes)
                .map_err(|error| checkpoint::damaged(checkpoints, &newest, error)),
        };
        together(trainer.lanes.fabric(), restored)?;
        (trainer.cursor, trainer.history) = (meta.cursor, meta.history);
        Ok(trainer)
    }

    /// The configuration of the training.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The dataset of the training.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// The rank of this process; the first one has the predictions.
    pub fn rank(&self) -> usize {
        self.lanes.rank()
    }

    /// The threads of this process.
    pub fn pool(&self) -> &ThreadPool {
        self.lanes.pool()
    }

    /// The lanes, for publishing.
    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// The lanes, for counting and for exchanges of all processes.
    pub(crate) fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// Where the training stands.
    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The validations so far.
    pub(crate) fn history(&self) -> History {
        self.history
    }

    /// How many ids of each field have a row of their own, where `train.min_occurrences` decides it
    /// and a step was taken by this process.
    pub fn admitted(&self) -> Option<&[FieldIds]> {
        self.ids.as_deref().filter(|_| self.config.train.min_occurrences > 1)
    }

    /// The semantic ids that the model sees, if it does.
    pub fn semantic_ids(&self) -> Option<SemanticReport> {
        SemanticReport::of(&self.lanes.network.spec, self.lanes.stores())
    }

    /// Whether an epoch just ended.
    pub(crate) fn is_at_epoch_end(&self) -> bool {
        self.cursor.step_in_epoch == self.steps_per_epoch
    }

    /// Number, counted from 1, of the last evaluation that is due where the cursor stands; none
    /// between two of them.
    fn evaluation(&self) -> Option<u32> {
        let Cursor { epoch, step_in_epoch, .. } = self.cursor;
        let per_epoch = self.config.train.evaluations_per_epoch;
        let within = evaluations(step_in_epoch, self.steps_per_epoch, per_epoch)?;
        Some(epoch.saturating_mul(per_epoch).saturating_add(within))
    }

    /// Whether the held-out samples are predicted where the cursor stands.
    pub(crate) fn is_at_evaluation(&self) -> bool {
        self.held_out.is_any() && self.evaluation().is_some()
    }

    /// Epochs until where the cursor stands; a fraction within one.
    pub(crate) fn epochs_taken(&self) -> f64 {
        (self.cursor.step - self.steps_before()) as f64 / self.steps_per_epoch as f64
    }

    /// Steps of the trainings that this one goes on with.
    fn steps_before(&self) -> u64 {
        let Cursor { step, epoch, step_in_epoch, .. } = self.cursor;
        step.saturating_sub(self.steps_per_epoch * u64::from(epoch) + step_in_epoch)
    }

    /// Steps of an epoch.
    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Number of the phase of the last step, counted from 1; none without `train.phases`.
    pub(crate) fn phase(&self) -> Option<u32> {
        self.phases.number(self.cursor.step)
    }

    /// Whether a phase just ended, and another one follows.
    pub(crate) fn is_at_phase_end(&self) -> bool {
        self.phases.ends(self.cursor.step)
    }

    /// Whether all steps were taken, or validation ends the training early.
    pub(crate) fn is_done(&self) -> bool {
        self.cursor.step >= self.steps() || self.history.is_spent(self.config.train.early_stop)
    }

    /// Steps of the whole training, with those before it, if validation does not end it early.
    pub(crate) fn steps(&self) -> u64 {
        let all = self.steps_per_epoch * u64::from(self.config.train.epochs);
        self.steps_before() + self.config.train.max_steps.map_or(all, |most| all.min(most))
    }

    /// Takes the next step; `None` when all steps were taken.
    ///
    /// # Errors
    /// As [`Lanes::train_step`].
    pub fn step(&mut self) -> Result<Option<StepReport>> {
        if self.is_at_epoch_end() {
            self.cursor.epoch += 1;
            self.cursor.step_in_epoch = 0;
            self.started = false;
        }
        if self.cursor.step >= self.steps() {
            return Ok(None);
        }
        if !self.started {
            if self.lanes.network.counts_ids() && self.ids.is_none() {
                let mut readers = self.readers(Selection::LEARNED)?;
                self.ids = Some(self.lanes.count_ids(&mut readers, self.steps_per_epoch)?);
            }
            self.count_items()?;
            self.start_epoch()?;
            self.standardize()?;
        }
        let share = self.share(self.cursor.step_in_epoch + 1);
        let step = self.cursor.step + 1;
        let plan = self.phases.plan(step);
        let outcome = self.lanes.train_step(&mut self.workers, share, &plan)?;
        let StepOutcome { impressions, loss, in_batch, contrastive } = outcome;
        self.cursor.step = step;
        self.cursor.step_in_epoch += 1;
        self.cursor.impressions += impressions;
        // In the middle of an epoch it is not known who is still to be seen: samples are shuffled.
        if self.is_at_epoch_end() || step == self.steps() {
            self.lanes.evict_unseen();
        }
        Ok(Some(StepReport {
            cursor: self.cursor,
            impressions,
            loss,
            in_batch,
            contrastive,
            learning_rate: plan.learning_rate,
            rows_learning_rate: plan.rows_learning_rate,
            phase: self.phase(),
        }))
    }

    /// Counts how often items are shown, if negatives of batches need it and it was not done yet.
    fn count_items(&mut self) -> Result<()> {
        if self.lanes.network.in_batch.is_none() || self.knows_items {
            return Ok(());
        }
        // No part of a step.
        let meter = self.lanes.metered().meter();
        let mut readers = self.readers(Selection::LEARNED)?;
        let (workers, rounds) = (&mut self.workers, self.steps_per_epoch);
        self.lanes.count_items(&mut readers, rounds, workers)?;
        self.lanes.metered().restore(meter);
        self.knows_items = true;
        Ok(())
    }

    /// Standardizes similarities where a training begins, unless a warm start brought the scales.
    fn standardize(&mut self) -> Result<()> {
        let warm = self.config.train.warm_start.as_ref().map(|warm| warm.parts);
        let is_known =
            matches!(warm, Some(WarmParts::Training | WarmParts::All | WarmParts::AllButIds));
        if self.cursor.step > 0 || is_known || !self.lanes.network.rank.standardizes() {
            return Ok(());
        }
        // No part of a step.
        let meter = self.lanes.metered().meter();
        standardize(&mut self.lanes, &mut self.workers, self.steps_per_epoch)?;
        self.lanes.metered().restore(meter);
        self.start_epoch()
    }

    fn share(&self, step_in_epoch: u64) -> Share {
        Share { numerator: step_in_epoch, denominator: self.steps_per_epoch }
    }

    /// Brings the feeds to the cursor, passing over the impressions learned from already.
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
    /// part by part, whatever the number of lanes and processes. All processes call it together;
    /// the first one gets all rows, the others none.
    ///
    /// # Errors
    /// If samples cannot be read or a process is lost.
    pub fn evaluate(&mut self, split: SplitName) -> Result<Predictions> {
        self.predictions(Selection { split, subset: Subset::All }, &mut || ())
    }

    /// Evaluates on the held-out samples, if there are any, this is due where the cursor stands,
    /// and it was not done yet. Calls `alive` now and then. All processes call it together.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`].
    pub(crate) fn validate(&mut self, alive: &mut dyn FnMut()) -> Result<Option<Validation>> {
        let due = self.evaluation().filter(|number| self.history.evaluations < *number);
        let Some(number) = due.filter(|_| self.is_at_evaluation()) else { return Ok(None) };
        // No part of a step.
        let meter = self.lanes.metered().meter();
        let all = self.predict_held_out(alive)?;
        let first = self.lanes.fabric().rank() == 0;
        let metrics = first.then(|| Metrics::of(&all.users, &all.logits, &all.labels));
        let validation = validation::tell(metrics, self.lanes.fabric())?;
        self.lanes.metered().restore(meter);
        let criterion = self.config.train.early_stop_by;
        self.history.add(self.cursor, number, validation, criterion);
        Ok(Some(validation))
    }

    /// Predictions of the held-out samples, at the first process. Calls `alive` now and then. All
    /// processes call it together.
    ///
    /// # Errors
    /// As [`Trainer::evaluate`].
    pub(crate) fn predict_held_out(&mut self, alive: &mut dyn FnMut()) -> Result<Predictions> {
        self.predictions(Selection::HELD_OUT, alive)
    }

    /// Predictions of `selection`, at the first process.
    fn predictions(
        &mut self,
        selection: Selection,
        alive: &mut dyn FnMut(),
    ) -> Result<Predictions> {
        let item = self.item_column();
        let mut lanes = vec![Predictions::default(); self.lanes.shards().count()];
        let batch = self.config.train.batch;
        self.predict(selection, batch, Rounds::All, |lane, worker| {
            if lane == 0 {
                alive();
            }
            collect(worker, item, &mut lanes[lane]);
        })?;
        let mut all = Predictions::default();
        lanes.into_iter().for_each(|predictions| all.extend(predictions));
        Ok(gather_predictions(self.lanes.fabric(), all)?)
    }

    /// The groups of about one batch of the training samples, as they lie in the files of one lane
    /// after the other.
    pub(crate) fn first_batch(&mut self) -> Result<Groups> {
        let mut all = Groups::new(self.dataset.schema());
        let batch = self.config.train.batch;
        let all_users = Selection { split: SplitName::Train, subset: Subset::All };
        self.predict(all_users, batch, Rounds::First, |_, worker| {
            let groups = &worker.batch.groups;
            (0..groups.len()).for_each(|group| all.push_from(groups, group));
        })?;
        Ok(all)
    }

    /// Predicts `selection` about `batch` impressions at a time; shows `visit` each local lane's
    /// worker after each round.
    pub(crate) fn predict(
        &mut self,
        selection: Selection,
        batch: usize,
        rounds: Rounds,
        mut visit: impl FnMut(usize, &Worker),
    ) -> Result<()> {
        let is_held_out = selection == Selection::HELD_OUT;
        let kept = if is_held_out { std::mem::take(&mut self.validators) } else { Vec::new() };
        let mut workers = if kept.is_empty() { self.readers(selection)? } else { kept };
        let counts = &self.dataset.card().counts;
        let impressions = match (selection.split, selection.subset) {
            (SplitName::Test, _) => counts.test,
            (SplitName::Train, Subset::All) => counts.train,
            (SplitName::Train, Subset::Learned) => self.learned,
            (SplitName::Train, Subset::HeldOut) => counts.train.saturating_sub(self.learned),
        };
        let denominator = Share::steps(impressions, batch);
        let last = match rounds {
            Rounds::First => 1,
            Rounds::All => denominator,
        };
        for numerator in 1..=last {
            let share = Share { numerator, denominator };
            self.lanes.forward(&mut workers, share, Pass::Evaluate)?;
            workers.iter().enumerate().for_each(|(lane, worker)| visit(lane, worker));
        }
        if is_held_out {
            workers.iter_mut().for_each(|worker| worker.feed.start(0));
            self.validators = workers;
        }
        Ok(())
    }

    /// Workers that read `selection` once, as it lies in the files.
    fn readers(&self, selection: Selection) -> Result<Vec<Worker>> {
        let topology = self.lanes.topology;
        let reader = |lane| {
            let seat = Seat { lane, lanes: topology.lanes() };
            let window = self.config.train.shuffle_groups;
            let mut feed =
                feed::open(&self.dataset, selection, seat, Order::Files, self.held_out, window)?;
            feed.start(0);
            Ok(Worker::new(&self.lanes.network, feed))
        };
        topology.local().map(reader).collect()
    }

    /// Which ad column holds the item.
    fn item_column(&self) -> usize {
        let mut fields = self.dataset.schema().side(Side::Ad);
        fields.position(|field| field.name == ITEM).expect("every schema has the ad's item")
    }

    /// Writes a checkpoint of `run`. All processes call it together.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn checkpoint(&mut self, run: &RunFolder) -> Result<()> {
        let meta = Meta {
            cursor: self.cursor,
            config: self.config.clone(),
            spec: self.lanes.network.spec.clone(),
            sources: self.sources.clone(),
            history: self.history,
            newest_day: self.lanes.newest_day(),
            blake3: String::new(),
        };
        let keep = self.config.train.keep_checkpoints;
        mirror::save(run, keep, &mut self.lanes, meta.sealed())
    }
}

/// How many of an epoch's `count` evaluations are due after `step` of its `steps`, if one of them
/// is due just there.
fn evaluations(step: u64, steps: u64, count: u32) -> Option<u32> {
    // Evaluation k, counted from 1, is after step ceil(k * steps / count).
    let until = |step: u64| u128::from(step) * u128::from(count) / u128::from(steps);
    let due = until(step);
    (step > 0 && due > until(step - 1)).then(|| u32::try_from(due).expect("at most count"))
}

/// The training impressions that are not held out, which `workers` read.
fn learned(
    held_out: HeldOut,
    dataset: &Dataset,
    workers: &[Worker],
    fabric: &mut Metered,
) -> Result<u64> {
    let all = dataset.card().counts.train;
    if !held_out.is_any() {
        return Ok(all);
    }
    let mine: u64 = workers.iter().map(|worker| worker.feed.impressions()).sum();
    let learned: u64 = gather::numbers(fabric, &[mine])?.iter().flatten().sum();
    if learned == 0 || learned >= all {
        let what = format!(
            "{} of {} parts leave {learned} of {all} impressions to learn from, expected some on both sides",
            held_out.parts,
            dataset.card().parts
        );
        return Err(Error::Config { key: "train.validation_parts".into(), what });
    }
    Ok(learned)
}

/// Appends the predictions of a worker's micro-batch.
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
