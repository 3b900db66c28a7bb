//! Numbers and tables as people read them.
//!
//! Knows nothing of this program, so that its tests can include it without linking the rest.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A table with a header line, first column left, the others right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let columns = header.len();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.as_str().width());
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

/// A table as of [`table`] that is at most `width` wide: the cells of column `elastic`, texts of
/// any length from outside, are cut first, then those of the last column, then the others. Every
/// cell is on one line.
pub(crate) fn fitted(
    header: &[&str],
    rows: &[Vec<String>],
    elastic: usize,
    width: usize,
) -> String {
    /// Narrower, a cell says nothing.
    const LEAST: usize = 8;
    let mut cells: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| on_one_line(cell)).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.width()).collect();
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let last = header.len() - 1;
    let others = (0..last).rev().filter(|&column| column != elastic);
    for column in [elastic, last].into_iter().chain(others) {
        let total: usize = widths.iter().sum::<usize>() + 2 * last;
        let least = LEAST.max(header[column].width());
        // The texts that say how a column is read wrap nowhere; leave them most of the line.
        widths[column] = widths[column]
            .min(widths[column].saturating_sub(total.saturating_sub(width)).max(least));
    }
    for row in &mut cells {
        for (cell, &width) in row.iter_mut().zip(&widths) {
            cut(cell, width);
        }
    }
    table(header, &cells)
}

/// `text` without line breaks and other control characters.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // What separates the parts of a list.
            '\u{1f}' => line.push_str(", "),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    line
}

/// Cuts `text` to `width` columns; `…` stands for what is gone.
fn cut(text: &mut String, width: usize) {
    if text.as_str().width() <= width {
        return;
    }
    let mut taken = 0;
    let end = text.char_indices().find(|(_, character)| {
        taken += character.width().unwrap_or(0);
        taken + 1 > width
    });
    text.truncate(end.map_or(text.len(), |(at, _)| at));
    text.push('…');
}

/// A metric with four decimals, or a dash where it is not defined.
pub(crate) fn metric(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

/// An amount of bytes with three digits: `12.3 MB`.
pub(crate) fn bytes(value: f64) -> String {
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
pub(crate) fn count(value: u64) -> String {
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
