//! Where a command's words go: people read tables on stdout, programs one JSON object.

use std::io::{ErrorKind, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::failure;

/// What stdout is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    json: bool,
    /// Whether this process is the one of its job that speaks.
    speaks: bool,
}

impl Output {
    /// Output for programs if `json`, else for people; only the first process of a job has any.
    pub fn new(json: bool, rank: usize) -> Output {
        Output { json, speaks: rank == 0 }
    }

    /// Ends a command: `json` for programs, or what `text` prints for people.
    pub fn finish(self, json: &impl Serialize, text: impl FnOnce() -> String) {
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
    pub fn say(self, text: &str) {
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
    pub fn bar(self, what: &'static str, total: u64, template: &str) -> ProgressBar {
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
pub const BAR: &str = "{prefix:>10} {bar:32} {human_pos}/{human_len} {per_sec} eta {eta} {msg}";

/// A table with a header line, first column left, the others right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.chars().count());
            match column {
                0 => text.push_str(&format!("{cell}{pad}")),
                _ => text.push_str(&format!("  {pad}{cell}")),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(&header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    for row in rows {
        assert_eq!(row.len(), columns, "a row has a cell per column");
        line(row);
    }
    text
}

/// A metric with four decimals, or a dash where it is not defined.
pub fn metric(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

/// An amount of bytes with three digits: `12.3 MB`.
pub fn bytes(value: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let decimals = if unit == 0 || scaled >= 99.95 { 0 } else { 1 };
    format!("{scaled:.decimals$} {}", UNITS[unit])
}

/// A count with thousands separated.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = [vec!["a".into(), "1".into()], vec!["long".into(), "23".into()]];
        assert_eq!(table(&["name", "n"], &rows), "name   n\na      1\nlong  23\n");
    }

    #[test]
    fn bytes_have_three_digits() {
        let cases = [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.0 kB"),
            (99_949.0, "99.9 kB"),
            (99_960.0, "100 kB"),
            (999_600.0, "1.0 MB"),
            (5.24e9, "5.2 GB"),
        ];
        for (value, want) in cases {
            assert_eq!(bytes(value), want);
        }
    }

    #[test]
    fn counts_have_separators() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (value, want) in cases {
            assert_eq!(count(value), want);
        }
    }
}
