//! Whether tables fit each other: shares of rows and ids that no sound log has are errors, with an
//! example of both sides and the option that accepts them.

use std::collections::BTreeMap;

use super::build::Tally;
use super::collect::Collected;
use super::options::{Accept, Inputs, PrepareOptions};
use super::report::Dropped;
use crate::source::Table;
use crate::value::loose;
use crate::{Error, Result};

/// Share of ids without a row that is an error.
const UNMATCHED: f64 = 0.5;

/// The same, where the ids seem to have a row in another form.
const MISSPELLED: f64 = 0.05;

/// Share of rows with implausible times that is an error.
const IMPLAUSIBLE: f64 = 0.01;

/// Share of rows left out, and of rows that contradict an earlier one, that is an error.
const LEFT_OUT: f64 = 0.5;

fn percent(part: u64, whole: u64) -> String {
    format!("{part} of {whole} ({:.0} %)", 100.0 * part as f64 / whole.max(1) as f64)
}

fn exceeds(part: u64, whole: u64, share: f64) -> bool {
    part as f64 > share * whole as f64
}

/// That times are plausible and most rows are kept.
pub(crate) fn check_rows(
    events: &dyn Table,
    collected: &Collected,
    options: &PrepareOptions,
) -> Result<()> {
    let (rows, dropped) = (collected.rows, &collected.dropped);
    let wrong = |what: String| Err(Error::content(events.path(), what));
    if exceeds(dropped.implausible_time, rows, IMPLAUSIBLE) {
        let example = collected.implausible.as_deref().unwrap_or_default();
        return wrong(format!(
            "{} rows have a time before 1990 or after 2099, such as {example}; state how times are written \
             (--time-format), name another column (--time), or keep such rows with --accept times",
            percent(dropped.implausible_time, rows)
        ));
    }
    if !options.accepts(Accept::DroppedRows) && exceeds(dropped.missing(), rows, LEFT_OUT) {
        return wrong(left_out(rows, dropped.missing(), dropped));
    }
    Ok(())
}

/// That most rows are kept once duplicates are known.
pub(crate) fn check_duplicates(
    events: &dyn Table,
    rows: u64,
    dropped: &Dropped,
    options: &PrepareOptions,
) -> Result<()> {
    let out = dropped.missing() + dropped.duplicates;
    if !options.accepts(Accept::DroppedRows) && exceeds(out, rows, LEFT_OUT) {
        return Err(Error::content(events.path(), left_out(rows, out, dropped)));
    }
    Ok(())
}

fn left_out(rows: u64, out: u64, dropped: &Dropped) -> String {
    let reasons = [
        ("without user", dropped.without_user),
        ("without item", dropped.without_item),
        ("without time", dropped.without_time),
        ("with a time before 1990 or after 2099", dropped.implausible_time),
        ("the same as another row", dropped.duplicates),
    ];
    let reasons: Vec<String> = (reasons.iter())
        .filter(|(_, rows)| *rows > 0)
        .map(|(why, rows)| format!("{rows} {why}"))
        .collect();
    format!(
        "{} rows would be left out: {}; expected at most half; name the right columns, or accept it with --accept \
         dropped-rows",
        percent(out, rows),
        reasons.join(", ")
    )
}

/// That the items table has rows for the items of the events, and says one thing of each.
pub(crate) fn check_items(
    inputs: &Inputs,
    collected: &Collected,
    options: &PrepareOptions,
) -> Result<()> {
    let Some(table) = &inputs.items else { return Ok(()) };
    let contradicted = collected.items_contradicted;
    if !options.accepts(Accept::RepeatedRows)
        && exceeds(contradicted, collected.items_rows, LEFT_OUT)
    {
        return Err(repeated(table.as_ref(), contradicted, collected.items_rows, "item"));
    }
    let described = collected.described_items;
    let unknown = described..collected.items.len();
    let known = collected.items_shown.iter().filter(|&&shown| shown).count();
    let (without, all) = (unknown.len() as u64, (unknown.len() + known) as u64);
    if options.accepts(Accept::ItemsWithoutRow) || !exceeds(without, all, MISSPELLED) {
        return Ok(());
    }
    let mut forms: BTreeMap<String, &str> = BTreeMap::new();
    for number in 0..described {
        let text = collected.items.text(number);
        let kept = forms.entry(loose(text)).or_insert(text);
        *kept = (*kept).min(text);
    }
    // The pair that comes first by its text, so that rows in another order say the same.
    let mut pairs = 0;
    let mut pair: Option<(&str, &str)> = None;
    for number in unknown.clone() {
        let text = collected.items.text(number);
        if let Some(row) = forms.get(&loose(text)) {
            pairs += 1;
            pair = Some(pair.map_or((text, *row), |pair| pair.min((text, *row))));
        }
    }
    let first = |numbers: std::ops::Range<usize>| numbers.map(|n| collected.items.text(n)).min();
    let pair = pair.filter(|_| exceeds(pairs, all, MISSPELLED));
    if pair.is_none() && !exceeds(without, all, UNMATCHED) {
        return Ok(());
    }
    let sides = pair.or_else(|| first(unknown).zip(first(0..described)));
    let example = sides.map(|(text, row)| Mismatch { text, row });
    let what = unmatched("item", without, all, example, pair.is_some(), table.as_ref());
    Err(Error::content(inputs.events.path(), what + Accept::ItemsWithoutRow.as_str()))
}

/// That the users table has rows for the users of the samples.
pub(crate) fn check_users(
    inputs: &Inputs,
    collected: &Collected,
    tally: &Tally,
    options: &PrepareOptions,
) -> Result<()> {
    let Some(table) = &inputs.users else { return Ok(()) };
    let (without, all) = (tally.users_without_row, tally.users);
    if options.accepts(Accept::UsersWithoutRow) || !exceeds(without, all, MISSPELLED) {
        return Ok(());
    }
    let rows = &collected.described_users.texts;
    let forms: BTreeMap<String, &String> =
        rows.iter().rev().map(|text| (loose(text), text)).collect();
    let texts = &tally.unknown_users.texts;
    let pairs: Vec<(&String, &String)> =
        texts.iter().filter_map(|text| Some((text, *forms.get(&loose(text))?))).collect();
    let misspelled = exceeds(pairs.len() as u64, texts.len() as u64, UNMATCHED);
    if !misspelled && !exceeds(without, all, UNMATCHED) {
        return Ok(());
    }
    let sides = pairs.first().copied().or_else(|| texts.first().zip(rows.first()));
    let example = sides.map(|(text, row)| Mismatch { text, row });
    let what = unmatched("user", without, all, example, misspelled, table.as_ref());
    Err(Error::content(inputs.events.path(), what + Accept::UsersWithoutRow.as_str()))
}

/// An id of the events, and an id that the table has in its place.
struct Mismatch<'a> {
    text: &'a str,
    row: &'a str,
}

/// The message that ids have no row; the name of what accepts it is to follow.
fn unmatched(
    what: &str,
    without: u64,
    all: u64,
    example: Option<Mismatch<'_>>,
    misspelled: bool,
    table: &dyn Table,
) -> String {
    let table = table.path().display();
    let sides = match example {
        Some(Mismatch { text, row }) if misspelled => format!(
            ": `{text}` in the events seems to be `{row}` there; write both the same way, best as text in both files"
        ),
        Some(Mismatch { text, row }) => {
            format!(
                ": `{text}` of the events is not there, which has `{row}`; name the column that both share (--{what})"
            )
        }
        None => ", which has none at all".to_string(),
    };
    format!(
        "{} {what}s have no row in {table}{sides}; or accept it with --accept ",
        percent(without, all)
    )
}

fn repeated(table: &dyn Table, rows: u64, all: u64, what: &str) -> Error {
    let what = format!(
        "{} rows contradict an earlier row of the same {what}, of which the first would count; expected one row for \
         each: keep the newest, name the right column (--{what}), or accept it with --accept {}",
        percent(rows, all),
        Accept::RepeatedRows.as_str()
    );
    Error::content(table.path(), what)
}
