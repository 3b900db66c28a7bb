//! What is said of the versions of a log that is followed.

use ams_daily::{Delay, RowsRead, Window, instant};
use serde::Serialize;

use crate::output::{count, metric, table};

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) model: &'a str,
    /// The versions that were published, the newest 60.
    pub(super) windows: &'a [Window],
    pub(super) rows: RowsRead,
    /// Rows of windows that are not closed.
    pub(super) waiting: u64,
    /// Parts that are not whole yet.
    pub(super) unfinished: &'a [String],
}

/// A version in a line.
pub(super) fn words(of: &Window) -> String {
    let rows = count(of.impressions);
    let Some(window) = of.window else {
        return format!(
            "version {}: {rows} impressions of the log before {}",
            of.version,
            instant(of.until)
        );
    };
    let delay = |name: &str, delay: Option<Delay>| {
        delay.map_or(String::new(), |of| {
            format!(", {name} {:.1} s (p50), {:.1} s (p95)", of.p50, of.p95)
        })
    };
    format!(
        "version {}: {rows} impressions from {} on, loss {}{}{}",
        of.version,
        instant(window),
        metric(of.loss),
        delay("event to score", of.event_to_score),
        delay("landed to score", of.landed_to_score)
    )
}

/// What was done, as a table.
pub(super) fn text(report: &Report<'_>) -> String {
    let seconds = |delay: Option<Delay>| {
        delay.map_or("-".to_owned(), |delay| format!("{:.1} / {:.1}", delay.p50, delay.p95))
    };
    let row = |of: &Window| {
        vec![
            of.window.map_or("before".to_owned(), instant),
            count(of.impressions),
            of.version.to_string(),
            metric(of.loss),
            seconds(of.event_to_score),
            seconds(of.landed_to_score),
        ]
    };
    let rows: Vec<Vec<String>> = report.windows.iter().map(row).collect();
    let header =
        ["window", "impressions", "version", "loss", "event to score, s p50 / p95", "landed, s"];
    let RowsRead { read, published, late, left_out } = report.rows;
    let mut told = format!(
        "{}{} rows read: {} published, {} wait, {} late, {} left out\n",
        table(&header, &rows),
        count(read),
        count(published),
        count(report.waiting),
        count(late),
        count(left_out)
    );
    for part in report.unfinished {
        told += &format!("{part} is not whole yet\n");
    }
    told
}
