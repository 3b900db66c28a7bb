//! What there is to say of runs: their records, predictions of the test, and page views that a
//! model explains.
//!
//! What is missing is a note of the run, not an error: a report of a run whose data are gone says
//! the rest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ams_bundle::{Model, Predictions};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::{Card, Id};
use ams_train::run::{self, Places, Record};
use ams_train::{Job, Result, Trainer};
use hashbrown::HashMap;

use crate::document::{Page, Sheet};
use crate::look::{Looked, Wanted, look};

/// How often items are shown in training.
pub(crate) type Frequency = HashMap<Id, u32>;

/// Opens the model of a training; the folder is that of its files.
pub type Freeze<'a> = dyn Fn(&mut Trainer) -> Result<Frozen, String> + 'a;

/// A model in a temporary folder.
pub struct Frozen {
    /// Removed with this value.
    pub folder: tempfile::TempDir,
    /// The run, published into a temporary folder.
    pub model: Model,
}

/// What a report is made with.
pub struct Ways<'a> {
    /// Threads of an evaluation.
    pub threads: usize,
    /// Where things are that a run's configuration names.
    pub places: Arc<dyn Places>,
    /// Number of page views that are explained; with 0 no model is opened.
    pub pages: usize,
    /// The folder that the names of pictures are relative to.
    pub images: Option<PathBuf>,
    /// Publishes a run into a folder and opens it.
    pub freeze: &'a Freeze<'a>,
}

/// A run with all that is known of it.
pub(crate) struct Run {
    /// Name in the report, unique in it.
    pub name: String,
    pub record: Record,
    /// Predictions of the test; none if there is nothing to predict or to predict with.
    pub predictions: Option<Predictions>,
    /// Training impressions of items; none if the dataset is gone.
    pub frequency: Option<Arc<Frequency>>,
    /// What is missing, and what it would take.
    pub notes: Vec<String>,
}

/// All runs of a report.
pub struct Runs {
    pub(crate) runs: Vec<Run>,
    /// The run whose model explains page views.
    pub(crate) shown: Option<usize>,
    pub(crate) pages: Vec<Page>,
    pub(crate) sheets: Vec<Sheet>,
    /// What is missing in the page views and sheets.
    pub(crate) notes: Vec<String>,
}

impl Runs {
    /// Reads the run folders `folders`, evaluates the models that have no predictions of the test
    /// yet, and asks one model to explain itself. Nothing is written.
    ///
    /// # Errors
    /// If a folder is no run folder.
    pub fn gather(folders: &[PathBuf], ways: &Ways<'_>) -> Result<Runs> {
        let mut runs: Vec<Run> = Vec::with_capacity(folders.len());
        for folder in folders {
            let run = Run::gather(folder, ways, &runs)?;
            runs.push(run);
        }
        name_apart(&mut runs);
        let mut all =
            Runs { shown: None, pages: Vec::new(), sheets: Vec::new(), notes: Vec::new(), runs };
        if ways.pages > 0 {
            all.look(ways);
        }
        Ok(all)
    }

    /// Has the last model that sees pictures of its items explain page views, or else the last one.
    fn look(&mut self, ways: &Ways<'_>) {
        let sees = |run: &Run| {
            run.record.config.needs_images() && run.record.config.data.shuffle_images.is_none()
        };
        let openable = |run: &Run| run.record.checkpoint.is_some() && run.frequency.is_some();
        let of_all = self.runs.iter().enumerate().filter(|(_, run)| openable(run));
        let last = of_all.max_by_key(|(at, run)| (sees(run), *at));
        let Some((at, run)) = last else {
            let what =
                "No page view is explained: this takes a run with a checkpoint and its dataset.";
            self.notes.push(what.to_owned());
            return;
        };
        let opened = open(&run.record.run, ways);
        let looked = opened.and_then(|mut trainer| {
            let frozen = (ways.freeze)(&mut trainer)?;
            let wanted = Wanted { pages: ways.pages, images: ways.images.as_deref() };
            let mut config = run.record.config.clone();
            if let Some(images) = &mut config.data.images {
                *images = ways.places.input(images).map_err(|error| error.to_string())?;
            }
            look(&frozen.model, trainer.dataset(), &config, &wanted)
        });
        match looked {
            Ok(Looked { pages, sheets, notes }) => {
                self.shown = Some(at);
                (self.pages, self.sheets) = (pages, sheets);
                self.notes.extend(notes);
            }
            Err(why) => self.notes.push(format!("No page view is explained: {why}")),
        }
    }
}

impl Run {
    /// Reads a run; `others` may have read its dataset already.
    fn gather(folder: &Path, ways: &Ways<'_>, others: &[Run]) -> Result<Run> {
        let record = Record::read(folder)?;
        let mut run = Run {
            name: record.config.name.clone(),
            record,
            predictions: None,
            frequency: None,
            notes: Vec::new(),
        };
        if run.record.unreadable_lines > 0 {
            let count = run.record.unreadable_lines;
            run.notes
                .push(format!("{count} lines of metrics.jsonl cannot be read and are left out."));
        }
        let dataset = run.dataset(ways);
        match &dataset {
            Ok(dataset) => run.count_items(dataset, others),
            Err(why) => run.notes.push(format!(
                "The dataset {} cannot be read ({why}): how often items were shown in training is not known.",
                run.record.config.data.samples.display()
            )),
        }
        run.predictions = match run.predict(dataset.is_ok(), ways) {
            Ok(predictions) => Some(predictions),
            Err(why) => {
                run.notes.push(why);
                None
            }
        };
        Ok(run)
    }

    /// The dataset of the training, if it is still there.
    fn dataset(&self, ways: &Ways<'_>) -> Result<Dataset, String> {
        let samples = ways.places.input(&self.record.config.data.samples);
        let dataset = samples.and_then(|samples| Dataset::open(&samples));
        let dataset = dataset.map_err(|error| error.to_string())?;
        let trained: Option<&Card> = self.record.environment.as_ref().map(|it| &it.dataset);
        if trained.is_some_and(|card| card != dataset.card()) {
            return Err("it is another one than the run was trained on".to_owned());
        }
        Ok(dataset)
    }

    fn count_items(&mut self, dataset: &Dataset, others: &[Run]) {
        let samples = &self.record.config.data.samples;
        let known = others.iter().find(|other| other.record.config.data.samples == *samples);
        if let Some(frequency) = known.and_then(|other| other.frequency.clone()) {
            self.frequency = Some(frequency);
            return;
        }
        match dataset.item_counts(SplitName::Train) {
            Ok(counts) => self.frequency = Some(Arc::new(counts)),
            Err(error) => {
                self.notes.push(format!("Items of the training cannot be counted: {error}."))
            }
        }
    }

    /// Predictions of the test: those that `ams eval` or `ams ablate` wrote, or new ones.
    fn predict(&self, has_data: bool, ways: &Ways<'_>) -> Result<Predictions, String> {
        let folder = &self.record.run;
        let written = folder.join("predictions").join("test.parquet");
        // An ablation has its runs and its results beside one another.
        let name = format!("{}.parquet", self.record.config.name);
        let of_ablation = folder.join("../../results").join(name);
        if let Some(path) = [written, of_ablation].into_iter().find(|path| path.exists()) {
            return Predictions::read(&path)
                .map_err(|error| format!("Predictions cannot be read: {error}."));
        }
        let missing = |what: &str| {
            format!(
                "There are no predictions of the test, and {what}: nothing can be said of the test."
            )
        };
        if self.record.checkpoint.is_none() {
            return Err(missing("no checkpoint to predict with"));
        }
        if !has_data {
            return Err(missing("no dataset to predict"));
        }
        let mut trainer = open(folder, ways)?;
        if trainer.dataset().card().counts.test == 0 {
            return Err(
                "The dataset has no test impressions: nothing can be said of the test.".to_owned()
            );
        }
        trainer.evaluate(SplitName::Test).map_err(|error| missing(&error.to_string()))
    }
}

fn open(folder: &Path, ways: &Ways<'_>) -> Result<Trainer, String> {
    let job = Job { places: Arc::clone(&ways.places), ..Job::solo(ways.threads) };
    run::open(folder, job).map_err(|error| {
        format!("The newest checkpoint of {} cannot be opened: {error}.", folder.display())
    })
}

/// Names runs of one name by their folders.
fn name_apart(runs: &mut [Run]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.record.run.display().to_string();
        }
    }
}
