//! Ablations: the paper's tables on any dataset, with honest statistics.
//!
//! ```text
//! <out>/
//!   runs/<run>/              run folders, see `run`
//!   results/<run>.parquet    predictions of the test
//!   results/<run>.json       the result of the run; written last: with it, the run is done
//!   names.json               the name of each run, by the hash of everything that decides its result
//!   table.md, table.csv      the tables as far as they are known
//!   results.jsonl            the results, one a line, with the rows each stands for
//! <out>/.ablate.lock         held by the process that works on it
//! ```
//! The identity of a run is everything that decides its result (configuration, dataset, features).
//! So a finished run is not repeated in another table, and after a change of the configuration a
//! new run is trained beside it. A run that was interrupted goes on from its checkpoint.
//! Checkpoints of finished runs are removed, unless another run is to begin with them.
//!
//! In reading order: [`grid`], the rows that are compared, as data; [`plan`], their trainings;
//! [`outcome`], the result of one training; [`report`], that of all; [`text`], a report in words.
//! Does not know how settings are spelled or trainings watched: the caller configures and trains.

pub(crate) mod grid;
pub(crate) mod outcome;
pub(crate) mod plan;
pub(crate) mod report;
pub(crate) mod text;

pub use grid::{Figures, Twins, Warm};
pub use report::{
    DatasetFigures, Difference, Report, RowReport, SliceDifference, SliceFigures, SliceReport,
    Spread, TableReport,
};
pub use text::{Cells, differences, figures, interval, pipes, preamble, thousands, title};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ams_bundle::{Predictions, evaluate};
use ams_data::Id;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::staging::{remove_folder, write_whole};
use ams_model::metrics::Bootstrap;

use crate::ablate::grid::select;
use crate::ablate::outcome::{Finished, Frequency, SLICES, TestSet, predictions_of};
use crate::ablate::plan::{Plan, PlannedRow, Run, RunNames, check_base};
use crate::ablate::report::Outcome;
use crate::error::{Error, Result};
use crate::run::checkpoint;
use crate::run::layout::CONFIG;
use crate::run::{self, CHECKPOINTS, Record, RunReport};
use crate::settings::Config;
use crate::setup::job::{Job, facts_of};
use crate::setup::sources::{self, Sources};
use ams_data::lock::Lock;

/// The tables in Markdown.
const MARKDOWN: &str = "table.md";

/// The tables as CSV.
const CSV: &str = "table.csv";

/// The results, one a line.
const RESULTS: &str = "results.jsonl";

/// Names of runs by hash.
const NAMES: &str = "names.json";

/// The comparison that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names of the tables to train; all if there is none.
    pub tables: Vec<String>,
    /// Rows that get a twin with shuffled images.
    pub twins: Twins,
    /// Seeds; the first is the configuration's, the others follow it.
    pub seeds: u64,
    /// The folder; `<runs>/<name>-ablate` of the configuration unless given.
    pub out: Option<PathBuf>,
    /// Draws of users for the intervals.
    pub replicates: usize,
}

/// An ablation and how far it is.
pub struct Ablation {
    out: PathBuf,
    /// Held until the end.
    _lock: Lock,
    plan: Plan,
    seeds: Vec<u64>,
    bootstrap: Bootstrap,
    name: String,
    settings: Vec<String>,
    dataset: Dataset,
    encoder: Option<String>,
    frequency: Frequency,
    test: Option<TestSet>,
    /// The result of each run of the plan, where it is finished.
    finished: Vec<Option<(Finished, Outcome)>>,
}

impl Ablation {
    /// Plans the trainings of `request` and reads the results of those that are done. `configure`
    /// makes the configuration with some settings, `key=value` each.
    ///
    /// # Errors
    /// If there is no table of a name, a configuration does not make sense or does not fit its
    /// dataset, the folder is in use or cannot be written, or a result in it is damaged.
    pub fn open<E: From<Error>>(
        request: &Request,
        configure: &dyn Fn(&[String]) -> Result<Config, E>,
    ) -> Result<Ablation, E> {
        let tables = select(&request.tables)?;
        let base = configure(&[])?;
        check_base(&base)?;
        let (dataset, stores) = sources::open(&base)?;
        if dataset.card().counts.test == 0 {
            return Err(Error::content(dataset.dir(), "has no test impressions").into());
        }
        let out = match &request.out {
            Some(out) => out.clone(),
            None => base.runs.join(format!("{}-ablate", base.name)),
        };
        let lock = Lock::take(&out, "ablate").map_err(Error::from)?;
        let sources = Sources::of(&dataset, &stores);
        let mut names = read_names(&out.join(NAMES))?;
        let runs = out.join("runs");
        let mut run_names = RunNames { runs, sources: &sources, by_hash: &mut names };
        let seeds: Vec<u64> = (0..request.seeds).map(|at| base.seed + at).collect();
        let plan = Plan::new(&tables, request.twins, &seeds, &mut run_names, configure)?;
        let looks = |run: &&Run| run.config.needs_store();
        if let (true, Some(run)) = (stores.is_empty(), plan.runs.iter().find(looks)) {
            // Its error says that there are no images, and the way out.
            sources::open(&run.config)?;
        }
        let results = out.join("results");
        fs::create_dir_all(&results).map_err(Error::io(&results))?;
        let text = serde_json::to_string_pretty(&names).expect("names are JSON");
        write_whole(&out.join(NAMES), text + "\n").map_err(Error::from)?;
        let mut ablation = Ablation {
            _lock: lock,
            seeds,
            bootstrap: Bootstrap { replicates: request.replicates, seed: 1 },
            settings: settings_of(&base)?,
            name: base.name,
            frequency: dataset.item_counts(SplitName::Train).map_err(Error::from)?,
            encoder: stores.first().map(|store| store.card().encoder.clone()),
            dataset,
            test: None,
            finished: vec![None; plan.runs.len()],
            plan,
            out,
        };
        ablation.read_results()?;
        ablation.tidy()?;
        Ok(ablation)
    }

    /// The folder of runs and results.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// How many trainings there are to do in all, and how many are done.
    pub fn trainings(&self) -> (usize, usize) {
        (self.plan.runs.len(), self.finished.iter().flatten().count())
    }

    /// The training to do next, to go on from its checkpoint if there is one; none if all are done.
    ///
    /// # Errors
    /// If checkpoints cannot be listed.
    pub fn next(&self) -> Result<Option<&Run>> {
        let Some(next) = self.finished.iter().position(Option::is_none) else { return Ok(None) };
        let run = &self.plan.runs[next];
        if let Some(from) = run.from {
            // Its checkpoint was removed when no run was to begin with it: it is made again.
            let source = &self.plan.runs[from];
            let steps = self.finished[from].as_ref().map(|(finished, _)| finished.steps);
            let newest = checkpoint::list(&run::folder(&source.config).join(CHECKPOINTS))?;
            if newest.last().map(|(step, _)| *step) != steps {
                return Ok(Some(source));
            }
        }
        Ok(Some(run))
    }

    /// Records that the training `name` is done, with `report`: evaluates it, unless that was done
    /// before, and removes checkpoints that no run begins with. Returns the GAUC of the test.
    ///
    /// # Errors
    /// If its checkpoint or the test cannot be read, or a result not be written.
    pub fn finish(&mut self, name: &str, report: &RunReport, job: Job) -> Result<Option<f64>> {
        let at = self.plan.runs.iter().position(|run| run.name == name);
        let at = at.expect("the run is one of the plan");
        if self.finished[at].is_none() {
            let run = &self.plan.runs[at];
            let mut trainer = run::open(&run::folder(&run.config), job)?;
            let predictions = trainer.evaluate(SplitName::Test)?;
            let frequency = |item| self.frequency.get(&Id(item)).copied().unwrap_or(0);
            let evaluation = evaluate(&predictions, &frequency);
            let finished = Finished {
                name: run.name.clone(),
                hash: run.hash.clone(),
                seed: run.seed,
                steps: report.steps,
                loss: report.loss,
                seconds: report.seconds,
                evaluation: serde_json::to_value(evaluation).expect("an evaluation is JSON"),
            };
            finished.write(&self.out.join("results"), &predictions)?;
            self.take(at, finished, &predictions)?;
        }
        self.tidy()?;
        let outcome = self.finished[at].as_ref().map(|(_, outcome)| outcome);
        Ok(outcome.and_then(|outcome| outcome.scores[0].ranking.gauc.value))
    }

    /// The report of the trainings that are done.
    pub fn report(&self) -> Report {
        let outcomes: Vec<Option<&Outcome>> =
            self.finished.iter().map(|done| done.as_ref().map(|(_, outcome)| outcome)).collect();
        let test = self.test.as_ref();
        let impressions = test.map_or(vec![0; SLICES.len()], TestSet::impressions);
        let slice = |(&(name, _), impressions): (&(&str, _), u64)| SliceFigures {
            name: name.to_owned(),
            impressions,
        };
        let (trainings, trained) = self.trainings();
        Report {
            name: self.name.clone(),
            dataset: DatasetFigures {
                name: self.dataset.card().name.clone(),
                counts: self.dataset.card().counts.clone(),
                encoder: self.encoder.clone(),
                test_users: test.map_or(0, |test| test.users() as u64),
                slices: SLICES.iter().zip(impressions).map(slice).collect(),
            },
            settings: self.settings.clone(),
            seeds: self.seeds.clone(),
            bootstrap: self.bootstrap,
            trained,
            trainings,
            tables: report::tables(&self.plan, &outcomes, &self.seeds, test),
        }
    }

    /// What the trainings of the first seed say of themselves: one per row of each table, in the
    /// order of the report; none of one that has not begun.
    ///
    /// # Errors
    /// If a run folder cannot be read.
    pub fn records(&self) -> Result<Vec<Vec<Option<Record>>>> {
        let record = |row: &PlannedRow| {
            let Some(&first) = row.runs.first() else { return Ok(None) };
            let folder = run::folder(&self.plan.runs[first].config);
            folder.join(CONFIG).exists().then(|| Record::read(&folder)).transpose()
        };
        let tables = self.plan.tables.iter();
        tables.map(|table| table.rows.iter().map(record).collect()).collect()
    }

    /// Writes `report` and the results so far into the folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, report: &Report) -> Result<()> {
        write_whole(&self.out.join(MARKDOWN), report.markdown())?;
        write_whole(&self.out.join(CSV), report.csv())?;
        let mut lines = String::new();
        for (run, finished) in self.plan.runs.iter().zip(&self.finished) {
            let Some((finished, _)) = finished else { continue };
            let mut line = serde_json::to_value(finished).expect("a result is JSON");
            line["rows"] = serde_json::json!(run.rows);
            lines += &format!("{line}\n");
        }
        Ok(write_whole(&self.out.join(RESULTS), lines)?)
    }

    fn read_results(&mut self) -> Result<()> {
        let results = self.out.join("results");
        for at in 0..self.plan.runs.len() {
            let Run { name, hash, .. } = &self.plan.runs[at];
            if let Some((finished, predictions)) = Finished::read(&results, name, hash)? {
                self.take(at, finished, &predictions)?;
            }
        }
        Ok(())
    }

    /// Takes over the result of run `at`.
    fn take(&mut self, at: usize, finished: Finished, predictions: &Predictions) -> Result<()> {
        let frequency = &self.frequency;
        let test = self.test.get_or_insert_with(|| TestSet::of(predictions, frequency));
        if !test.is_of(predictions) {
            let path = predictions_of(&self.out.join("results"), &finished.name);
            let what = "has predictions of other impressions than the results before it; remove it to train the \
                        run again";
            return Err(Error::content(path, what));
        }
        let scores = test.score(predictions, &self.bootstrap);
        let outcome = Outcome { seconds: finished.seconds, scores };
        self.finished[at] = Some((finished, outcome));
        Ok(())
    }

    /// Removes the checkpoints of finished runs which no run is to begin with.
    fn tidy(&self) -> Result<()> {
        for (at, run) in self.plan.runs.iter().enumerate() {
            let mut others = self.plan.runs.iter().zip(&self.finished);
            let wanted = others.any(|(run, done)| run.from == Some(at) && done.is_none());
            if self.finished[at].is_none() || wanted {
                continue;
            }
            remove_folder(&run::folder(&run.config).join(CHECKPOINTS))?;
        }
        Ok(())
    }
}

/// The names of all runs so far, by hash.
fn read_names(path: &Path) -> Result<BTreeMap<String, String>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|error| Error::content(path, error.to_string()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// The settings of `base` that are not defaults, `key=value` each, without names and folders.
fn settings_of(base: &Config) -> Result<Vec<String>> {
    const PATHS: [&str; 5] = ["name", "seed", "runs", "data.samples", "data.images"];
    let plain: Config = toml::from_str("name = 'x'\ndata.samples = 'x'\n")
        .map_err(|error| Error::content("a configuration", error.to_string()))?;
    let plain = facts_of(&plain);
    let set = facts_of(base).into_iter().filter(|fact| !plain.contains(fact));
    let set = set.filter(|(key, _)| !PATHS.contains(&&key[..]));
    Ok(set.map(|(key, value)| format!("{key}={}", short(&value))).collect())
}

/// A number that is a float of 32 bits with the digits that a float needs; other texts unchanged.
fn short(value: &str) -> String {
    let number = value.parse::<f64>().ok().filter(|_| value.contains('.'));
    match number.map(|number| (number, number as f32)) {
        Some((number, float)) if f64::from(float) == number => float.to_string(),
        _ => value.to_owned(),
    }
}
