//! Where a command's words go: people read tables on stdout, programs one JSON object.

use std::io::{ErrorKind, Write};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure;
pub(crate) use crate::text::{bytes, count, fitted, metric, table};

/// What stdout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    json: bool,
    /// Whether this process is the one of its job that speaks.
    speaks: bool,
}

impl Output {
    /// Output for programs if `json`, else for people; only the first process of a job has any.
    pub(crate) fn new(json: bool, rank: usize) -> Output {
        Output { json, speaks: rank == 0 }
    }

    /// Ends a command: `json` for programs, or what `text` prints for people.
    pub(crate) fn finish(self, json: &impl Serialize, text: impl FnOnce() -> String) {
        if !self.speaks {
            return;
        }
        if self.json {
            print(&(serde_json::to_string(json).expect("reports are JSON") + "\n"));
        } else {
            print(&text());
        }
    }

    /// Something to read along the way: stdout for people, stderr beside JSON.
    pub(crate) fn say(self, text: &str) {
        if !self.speaks {
            return;
        }
        if self.json {
            eprintln!("{text}");
        } else {
            print(&format!("{text}\n"));
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
