//! The processes of one training, and what is wanted of them.

use std::sync::Arc;

use ams_fabric::{Fabric, Solo};

use crate::error::Result;
use crate::settings::Config;
use crate::setup::places::{Places, RunFolder, ThisHost};

/// The processes of a training, and the threads of this one.
pub struct Job {
    /// The connection between the processes.
    pub fabric: Box<dyn Fabric>,
    /// Threads of this process.
    pub threads: usize,
    /// Name and value of everything that has to be the same in all processes: the program's
    /// version, for example.
    pub facts: Vec<(String, String)>,
    /// Where things are that a configuration names.
    pub places: Arc<dyn Places>,
}

/// The number of processes of a job, and of threads of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JobSize {
    /// Processes of the job.
    pub processes: usize,
    /// Threads of each process.
    pub threads: usize,
}

impl Job {
    /// A job of this process alone.
    pub fn solo(threads: usize) -> Job {
        Job::of(Solo, threads)
    }

    /// The processes of `fabric`, which are known to be alike.
    pub fn of(fabric: impl Fabric + 'static, threads: usize) -> Job {
        let places = Arc::new(ThisHost);
        Job { fabric: Box::new(fabric), threads, facts: Vec::new(), places }
    }

    /// The folder of the run of `config`, for this process.
    ///
    /// # Errors
    /// If no run can be where it is named.
    pub(crate) fn run_folder(&self, config: &Config) -> Result<RunFolder> {
        RunFolder::of(config, &*self.places, self.fabric.rank())
    }

    /// The number of processes and of threads.
    pub(crate) fn size(&self) -> JobSize {
        JobSize { processes: self.fabric.size(), threads: self.threads }
    }
}

/// The decision of a watcher after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The training takes its next step.
    GoOn,
    /// The training writes a checkpoint and ends.
    Stop,
}

/// Whether a run folder may hold an earlier training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A new training; a folder with an earlier one is an error.
    Fresh,
    /// A new training; an earlier one of the same name is removed.
    Replace,
    /// Goes on from the newest checkpoint.
    Resume,
    /// Goes on from the newest checkpoint if there is one, and begins at step 0 if not: for a
    /// launcher that starts a job again.
    Auto,
}

impl Start {
    /// How a later training of a job with several starts: where an earlier one was resumed, it may
    /// not have begun.
    pub(crate) fn later(self) -> Start {
        match self {
            Start::Resume => Start::Auto,
            Start::Fresh | Start::Auto | Start::Replace => self,
        }
    }
}

/// The facts of a configuration: every key with its value.
pub(crate) fn facts_of(config: &Config) -> Vec<(String, String)> {
    fn walk(name: &str, value: &serde_json::Value, facts: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(keys) => {
                let dot = if name.is_empty() { "" } else { "." };
                for (key, value) in keys {
                    walk(&format!("{name}{dot}{key}"), value, facts);
                }
            }
            // A key without a value is no setting.
            serde_json::Value::Null => {}
            value => facts.push((name.to_owned(), value.to_string())),
        }
    }
    let mut facts = Vec::new();
    walk("", &serde_json::json!(config), &mut facts);
    facts
}
