//! One training in its run folder: begun or resumed, step by step, to its last checkpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ams_data::lock::Lock;
use ams_data::staging::remove_folder;
use ams_fabric::{Fabric, Lent, agree, on_first, together};

use crate::align::{self, AlignReport, Progress, WithoutPairs};
use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::run::ended::{Ended, is_there};
use crate::run::journal::{self, Costs, Journal};
use crate::run::layout::{ADMITTED, CHECKPOINTS, CONFIG, ENDED};
use crate::run::mirror::{self, mirror};
use crate::run::progress::{Cursor, StepReport};
use crate::run::report::RunReport;
use crate::run::trainer::Trainer;
use crate::settings::Config;
use crate::setup::job::{Job, JobSize, Next, Start, facts_of};
use crate::setup::places::RunFolder;
use crate::step::row_counts::RowCounts;
use crate::step::share::Share;
use crate::step::stages::Stage;
use crate::step::traffic::Counts;

/// Trains `config`, which asks for no refit, in its run folder; as [`super::train`].
pub(super) fn train(
    config: &Config,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<RunReport> {
    let JobSize { processes, threads } = job.size();
    let begun = begin(config, start, job, watch)?;
    let Begun { run, mut trainer, mut journal, ended, alignment, lock: _lock } = match begun {
        Beginning::Whole(begun) => *begun,
        Beginning::Stopped(alignment) => return Ok(RunReport::stopped(config, *alignment)),
    };
    let (clock, before) = (Instant::now(), trainer.cursor());
    let mut counted = Counted { counts: Counts::default(), rows: None, until: before.step };
    let finished = match ended {
        Some(_) => true,
        None => learn(&run, &mut trainer, &mut journal, &mut counted, watch)?,
    };
    let seconds = clock.elapsed().as_secs_f64();
    let costs = counted.take(&mut trainer)?;
    let steps = ended.map_or(trainer.cursor().step, |ended| ended.steps);
    if let Some(journal) = &mut journal {
        journal.line(seconds, costs)?;
        journal.end(steps, seconds)?;
    }
    let history = ended.map_or(trainer.history(), |ended| ended.history);
    let result = conclude(&run, &mut trainer, ended.filter(|_| finished), finished)?;
    let admitted = trainer.admitted().map(<[_]>::to_vec);
    on_first(trainer.lanes_mut().fabric(), || {
        if let Some(journal) = &mut journal {
            journal.log(&format!("checkpoint {}", result.display()))?;
        }
        if let Some(fields) = &admitted {
            let text = serde_json::to_string_pretty(fields).expect("texts and numbers become JSON");
            ams_data::staging::write_whole(&run.here().join(ADMITTED), text + "\n")?;
        }
        mirror::put_journal(&run)
    })?;
    let best = history.best.filter(|_| config.train.early_stop.is_some());
    let impressions = trainer.cursor().impressions - before.impressions;
    Ok(RunReport {
        run: run.named().to_path_buf(),
        steps,
        impressions,
        seconds,
        impressions_per_second: impressions as f64 / seconds.max(1e-9),
        loss: journal.and_then(|journal| journal.loss()),
        threads,
        processes,
        lanes: config.train.lanes,
        resumed_from: before.step,
        finished,
        epochs: config.train.epochs,
        best_epoch: best.map(|best| best.epoch),
        validation: best.map(|best| best.validation).or(history.last),
        best_step: best.map(|best| best.step),
        steps_per_epoch: trainer.steps_per_epoch(),
        steps_per_epoch_of_all_users: Share::steps(
            trainer.dataset().card().counts.train,
            config.train.batch,
        ),
        per_step: counted.counts.per_step(trainer.cursor().step - before.step),
        admitted,
        rows: counted.rows,
        semantic_ids: trainer.semantic_ids(),
        alignment,
        choice: None,
    })
}

/// The beginning of a training.
enum Beginning {
    Whole(Box<Begun>),
    /// The watcher stopped the alignment before it.
    Stopped(Box<AlignReport>),
}

/// A training that takes its next step.
struct Begun {
    run: RunFolder,
    trainer: Trainer,
    /// At the first process.
    journal: Option<Journal>,
    /// How it ended, if it has nothing left to do.
    ended: Option<Ended>,
    /// The alignment before the first step, if there is one.
    alignment: Option<AlignReport>,
    /// Held while this process trains, by the first one; the system gives it back if the process
    /// dies.
    lock: Option<Lock>,
}

/// Begins or resumes the training of `config` in its run folder.
fn begin(
    config: &Config,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<Beginning> {
    let size = job.size();
    let named = job.run_folder(config);
    let Job { fabric, threads, facts, places } = job;
    let mut lent = Lent::new(fabric);
    let fabric = &mut lent;
    together(fabric, config.check())?;
    // Before anything is touched, and also where a checkpoint decides later: it is one for all
    // processes.
    agree::<Error>(fabric, &facts_of(config))?;
    let run = together(fabric, named)?;
    let here = run.here();
    let lock = on_first(fabric, || run.lock())?;
    mirror(&run, config.train.lanes, fabric)?;
    let begin = on_first(fabric, || decide(&run, config, start))?;
    let goes_on = fabric.any(begin == Some(Begin::GoOn))?;
    if run.is_kept() && !goes_on {
        // The first process replaces its whole folder later, where it has to.
        let is_first = fabric.rank() == 0;
        let removed = if is_first { Ok(()) } else { remove_folder(&here.join(CHECKPOINTS)) };
        together(fabric, removed.map_err(Error::from))?;
    }
    let settled = on_first(fabric, || if goes_on { Ended::settle(here) } else { Ok(None) })?;
    let ended = Ended::tell(settled.flatten(), fabric)?;
    // An alignment is made in the run folder, before it is known that a training can begin.
    let replaces = begin == Some(Begin::New { replace: true }) && config.aligns().is_some();
    let aside = if replaces { set_aside(&run).map(Some) } else { Ok(None) };
    let aside = together(fabric, aside)?;
    let alignment = match config.aligns() {
        Some(_) => {
            let places = Arc::clone(&places);
            let job = Job { places, ..Job::of(fabric.clone(), threads) };
            Some(aligned(config, &run, start, job, watch)?)
        }
        None => None,
    };
    if let Some(alignment) = alignment.as_ref().filter(|alignment| !alignment.finished) {
        let removed = aside.map_or(Ok(()), SetAside::remove);
        together(fabric, removed)?;
        return Ok(Beginning::Stopped(Box::new(alignment.clone())));
    }
    let job = Job { fabric: Box::new(lent), threads, facts, places };
    let mut trainer = if goes_on {
        resumed(config, here, job)?
    } else {
        let mut trainer = Trainer::within(here, config.clone(), job)?;
        trainer.warm_start()?;
        trainer
    };
    let best = trainer.history().best.filter(|_| goes_on && config.train.early_stop.is_some());
    on_first(trainer.lanes_mut().fabric(), || match best {
        Some(best) => is_there(&here.join(CHECKPOINTS), best.step),
        None => Ok(()),
    })?;
    let steps = ended.map_or(trainer.cursor().step, |ended| ended.steps);
    let begin = match aside {
        Some(aside) => aside.remove().map(|()| Some(Begin::New { replace: false })),
        None => Ok(begin),
    };
    let opened = begin.and_then(|begin| match begin {
        Some(begin) => open_journal(&run, begin, steps, &trainer, size).map(Some),
        None => Ok(None),
    });
    let journal = together(trainer.lanes_mut().fabric(), opened)?;
    Ok(Beginning::Whole(Box::new(Begun { run, trainer, journal, ended, alignment, lock })))
}

/// Sets the folder of `run` aside, so that an alignment can be made in its place. Where a run is
/// kept elsewhere, it cannot be set aside there.
fn set_aside(run: &RunFolder) -> Result<SetAside> {
    mirror::clear(run)?;
    SetAside::new(run.here())
}

/// The folder of a run that is being replaced, under another name; dropped, it has its name back.
struct SetAside {
    run: PathBuf,
    aside: PathBuf,
    is_kept: bool,
}

impl SetAside {
    fn new(run: &Path) -> Result<SetAside> {
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        let aside = run.with_file_name(format!(".{name}.replaced"));
        remove_folder(&aside)?;
        fs::rename(run, &aside).map_err(Error::io(run))?;
        Ok(SetAside { run: run.to_path_buf(), aside, is_kept: true })
    }

    /// Removes it: the new run takes its place.
    fn remove(mut self) -> Result<()> {
        self.is_kept = false;
        Ok(remove_folder(&self.aside)?)
    }
}

impl Drop for SetAside {
    fn drop(&mut self) {
        if self.is_kept {
            // What cannot be put back is still there, under its other name.
            let _ = remove_folder(&self.run);
            let _ = fs::rename(&self.aside, &self.run);
        }
    }
}

/// The alignment before clicks are learned, which `ams align` or an earlier process may have done
/// in part or as a whole. `watch` sees its steps as steps of no impressions.
fn aligned(
    config: &Config,
    run: &RunFolder,
    start: Start,
    job: Job,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<AlignReport> {
    let start = if start == Start::Replace { start } else { Start::Auto };
    let mut watch = |progress: &Progress<'_>| {
        let cursor = Cursor { step: progress.step, ..Cursor::default() };
        watch(&StepReport::round(cursor), progress.steps)
    };
    align::align_locked(config, run, start, WithoutPairs::TakeComponents, job, &mut watch)
}

/// The training of the newest checkpoint in `run`, which has to be that of `config`.
fn resumed(config: &Config, run: &Path, job: Job) -> Result<Trainer> {
    let trainer = Trainer::resume(&run.join(CHECKPOINTS), job)?;
    if !is_same(trainer.config(), config) {
        let what = "the checkpoint was trained with another configuration than this one";
        return Err(Error::content(run.join(CONFIG), what));
    }
    Ok(trainer)
}

/// Whether two configurations are those of one training: a run may have been moved since.
fn is_same(one: &Config, other: &Config) -> bool {
    let mut one = one.clone();
    one.runs.clone_from(&other.runs);
    one == *other
}

/// Writes the last checkpoint and, where an early stop ends the training, makes the best epoch's
/// the result. Returns the checkpoint that is the result.
fn conclude(
    run: &RunFolder,
    trainer: &mut Trainer,
    ended: Option<Ended>,
    finished: bool,
) -> Result<PathBuf> {
    let checkpoints = run.named().join(CHECKPOINTS);
    trainer.checkpoint(run)?;
    if !finished || trainer.config().train.early_stop.is_none() {
        return Ok(checkpoint::path(&checkpoints, trainer.cursor().step));
    }
    let ended = ended.unwrap_or_else(|| Ended::at(trainer.cursor(), trainer.history()));
    on_first(trainer.lanes_mut().fabric(), || {
        ended.conclude(run.here())?;
        if run.is_kept() {
            run.commit(&[], ENDED)?;
            mirror::prune(run)?;
        }
        Ok::<_, Error>(())
    })?;
    Ok(checkpoint::path(&checkpoints, ended.result))
}

/// The counters of all steps up to `until`.
struct Counted {
    counts: Counts,
    /// Of the rows, where they come and go.
    rows: Option<RowCounts>,
    until: u64,
}

impl Counted {
    /// Adds the counters of the steps since then; returns the costs of these steps.
    fn take(&mut self, trainer: &mut Trainer) -> Result<Costs> {
        let step = trainer.cursor().step;
        let per_step = trainer.lanes_mut().take_counts()?;
        let taken = (step - self.until) as f64;
        self.counts += per_step.times(taken);
        let rows = trainer.lanes_mut().take_row_counts()?;
        match (&mut self.rows, rows) {
            (Some(sum), Some(rows)) => sum.go_on(rows),
            (sum, rows) => *sum = rows,
        }
        self.until = step;
        let lanes = trainer.lanes();
        let threads = lanes.pool().current_num_threads() as f64;
        let ms = |busy: f64| if taken > 0.0 { 1e3 * busy / threads / taken } else { 0.0 };
        let stages = Stage::ALL.iter().zip(lanes.stages().take());
        let stages_ms = stages.map(|((_, name), busy)| ((*name).to_owned(), ms(busy))).collect();
        Ok(Costs { per_step, rows, stages_ms })
    }
}

/// Takes steps until the training is done, or `watch` stops it before; whether it is done.
fn learn(
    run: &RunFolder,
    trainer: &mut Trainer,
    journal: &mut Option<Journal>,
    counted: &mut Counted,
    watch: &mut dyn FnMut(&StepReport, u64) -> Next,
) -> Result<bool> {
    let clock = Instant::now();
    let (train, steps) = (trainer.config().train.clone(), trainer.steps());
    let begin = trainer.cursor().step;
    let mut stop = false;
    loop {
        let cursor = trainer.cursor();
        let round = StepReport::round(cursor);
        // First of all, so that every checkpoint at the end of an epoch has the epoch's validation.
        let validated = trainer.validate(&mut || {
            watch(&round, steps);
        })?;
        if let (Some(journal), Some(validation)) = (&mut *journal, validated) {
            journal.validation(trainer, validation)?;
        }
        if trainer.is_done() {
            return Ok(true);
        }
        if stop {
            return Ok(false);
        }
        let due = train.checkpoint_every.is_some_and(|n| n > 0 && cursor.step.is_multiple_of(n));
        let best = train.early_stop.is_some() && trainer.is_at_evaluation();
        if cursor.step > begin && (due || best) {
            trainer.checkpoint(run)?;
        }
        if let Some(journal) = journal
            && (cursor.step == 0 || trainer.is_at_phase_end())
        {
            journal.phase(trainer)?;
        }
        let Some(report) = trainer.step()? else { return Ok(true) };
        if let Some(journal) = journal {
            journal.step(&report);
        }
        let step = report.cursor.step;
        let due = step.is_multiple_of(train.log_every.max(1)) || trainer.is_at_phase_end();
        if due || step == steps {
            let costs = counted.take(trainer)?;
            if let Some(journal) = journal {
                journal.line(clock.elapsed().as_secs_f64(), costs)?;
            }
        }
        stop = trainer.lanes_mut().fabric().any(watch(&report, steps) == Next::Stop)?;
    }
}

/// How a training begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At step 0; `replace` removes an earlier training.
    New { replace: bool },
    /// At the newest checkpoint.
    GoOn,
}

/// How a training begins by `start` in the run folder as it is.
pub(super) fn decide(run: &RunFolder, config: &Config, start: Start) -> Result<Begin> {
    let (run, named) = (run.here(), run.named());
    let goes_on = !checkpoint::list(&run.join(CHECKPOINTS))?.is_empty();
    // A checkpoint that is there already is not written again: none may be left of another
    // training.
    let taken = goes_on || run.join(CONFIG).exists() || run.join(ENDED).exists();
    match start {
        Start::Fresh if taken => {
            let what = "holds an earlier training; choose another name, go on with --resume, or \
                        --replace it";
            Err(Error::content(named, what))
        }
        Start::Fresh => Ok(Begin::New { replace: false }),
        Start::Replace => Ok(Begin::New { replace: taken }),
        // Stopped in the alignment before its first step.
        Start::Resume if !taken && align::has_begun(run)? => Ok(Begin::New { replace: false }),
        Start::Resume => Ok(Begin::GoOn),
        Start::Auto if goes_on => Ok(Begin::GoOn),
        Start::Auto => {
            // Killed before its first checkpoint: to be taken over only if it was the same
            // training.
            if taken && !is_same(&journal::read_config(run)?, config) {
                let what = "holds a training with another configuration; choose another name, or \
                            --replace it";
                return Err(Error::content(named, what));
            }
            Ok(Begin::New { replace: taken })
        }
    }
}

/// Makes the run folder, or goes on in it after `taken` steps.
fn open_journal(
    run: &RunFolder,
    begin: Begin,
    taken: u64,
    trainer: &Trainer,
    size: JobSize,
) -> Result<Journal> {
    match begin {
        Begin::New { replace: true } => {
            mirror::clear(run)?;
            remove_folder(run.here())?;
        }
        Begin::New { replace: false } => mirror::clear_leftovers(run)?,
        Begin::GoOn => {}
    }
    let journal =
        Journal::open(run.here(), (begin == Begin::GoOn).then_some(taken), trainer, size)?;
    mirror::put_journal(run)?;
    Ok(journal)
}
