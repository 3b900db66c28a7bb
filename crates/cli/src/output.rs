//! Where a command's words go: people read tables on stdout, programs one JSON object.

use std::io::{ErrorKind, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use ams_train::StepReport;

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure;
pub(crate) use crate::text::{bytes, count, fitted, metric, table};

/// Sees every step of a training, and how many there are.
pub type OnStep = Box<dyn Fn(&StepReport, u64) + Send + Sync>;

/// A caller in the same process, who gets as values what the program would print.
#[derive(Default)]
pub struct Caller {
    /// Ends a training, an alignment, an ablation or an encoding: it saves what it has.
    pub stop: Arc<AtomicBool>,
    on_step: Option<OnStep>,
    said: Mutex<String>,
    report: Mutex<String>,
}

impl Caller {
    /// A caller who looks at the steps of trainings.
    pub fn new(on_step: Option<OnStep>) -> Caller {
        Caller { on_step, ..Caller::default() }
    }

    /// A caller whose command ends when `stop` becomes true.
    pub(crate) fn stopped_by(stop: &Arc<AtomicBool>) -> Caller {
        Caller { stop: Arc::clone(stop), ..Caller::default() }
    }

    /// What the command ended with, a JSON object.
    pub fn report(&self) -> String {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The words along the way.
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where a command's words go.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    json: bool,
    /// Whether this process is the one of its job that speaks.
    speaks: bool,
    caller: Option<&'a Caller>,
}

impl<'a> Output<'a> {
    /// Output for programs if `json`, else for people; only the first process of a job has any.
    pub(crate) fn new(json: bool, rank: usize) -> Output<'a> {
        Output { json, speaks: rank == 0, caller: None }
    }

    /// Output for a caller in this process.
    pub(crate) fn to(caller: &'a Caller) -> Output<'a> {
        Output { json: true, speaks: true, caller: Some(caller) }
    }

    /// What ends a command early, where that is the caller's to say.
    pub(crate) fn stop(self) -> Option<Arc<AtomicBool>> {
        self.caller.map(|caller| Arc::clone(&caller.stop))
    }

    /// Shows a caller a step of a training.
    pub(crate) fn step(self, report: &StepReport, steps: u64) {
        if let Some(on_step) = self.caller.and_then(|caller| caller.on_step.as_ref()) {
            on_step(report, steps);
        }
    }

    /// Ends a command: `json` for programs, or what `text` prints for people.
    pub(crate) fn finish(self, json: &impl Serialize, text: impl FnOnce() -> String) {
        if !self.speaks {
            return;
        }
        let object = || serde_json::to_string(json).expect("reports are JSON");
        match self.caller {
            Some(caller) => {
                *caller.report.lock().unwrap_or_else(PoisonError::into_inner) = object();
            }
            None if self.json => print(&(object() + "\n")),
            None => print(&text()),
        }
    }

    /// Something to read along the way: stdout for people, stderr beside JSON.
    pub(crate) fn say(self, text: &str) {
        if !self.speaks {
            return;
        }
        match self.caller {
            Some(caller) => {
                let mut said = caller.said.lock().unwrap_or_else(PoisonError::into_inner);
                *said += &format!("{text}\n");
            }
            None if self.json => eprintln!("{text}"),
            None => print(&format!("{text}\n")),
        }
    }

    /// A progress bar on stderr, invisible where stderr is no terminal.
    pub(crate) fn bar(self, what: &'static str, total: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).expect("templates are constants");
        if !self.speaks {
            return ProgressBar::hidden();
        }
        ProgressBar::new(total).with_style(style.progress_chars("━╸ ")).with_prefix(what)
    }
}

/// Writes to stdout. A reader that left early has what it wanted; any other failure, such as a full
/// disk, ends the program as the user's error.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("stdout: {error}");
            std::process::exit(failure::USER.into());
        }
        _ => {}
    }
}

/// The usual look of a progress bar.
pub(crate) const BAR: &str =
    "{prefix:>10} {bar:32} {human_pos}/{human_len} {per_sec} eta {eta} {msg}";

/// Columns of the terminal that stdout is, or of what is usual elsewhere.
pub(crate) fn width() -> usize {
    const ELSEWHERE: usize = 120;
    let terminal = Term::stdout().size_checked().map(|(_, columns)| columns);
    terminal.map_or(ELSEWHERE, |width| usize::from(width).max(40))
}
