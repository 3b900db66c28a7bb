//! A log with propensities: what was shown, how probable that was, and what could have been shown
//! instead.
//!
//! ```text
//! user           who saw it
//! item           what was shown
//! page           optional, with position: the page view it was a part of
//! position       a whole number; the page is filled from the smallest one on
//! time           optional: when
//! clicked        the reward: a number, or true and false
//! propensity     probability of the item at this position by the policy that chose it, given what
//!                is above; may be left out where there are probabilities
//! candidates     optional list: what could be shown here; the item is one of them
//! probabilities  optional list: of each candidate by the policy that chose; their sum is 1
//! ```
//! Columns are found by name in any table ([`crate::source`]). A list is a list of the file's
//! format, or a cell such as `[a, b]`. Does not know where an evaluated policy is from.

use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::source::{Batches, Table, TextBatch};
use crate::{Error, Id, Result, value};

/// Sums of probabilities may differ from 1 by as much, and a propensity from its candidate's
/// probability by this part of it: files round.
const ROUNDING: f64 = 1e-4;

/// Names of columns; where none is given, no such column is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Each by the name of its meaning, see [`Columns::NAMES`].
    names: Vec<Option<String>>,
}

/// The meanings, as positions in [`Columns::NAMES`].
#[derive(Clone, Copy)]
enum Part {
    User,
    Item,
    Page,
    Position,
    Time,
    Clicked,
    Propensity,
    Candidates,
    Probabilities,
    Request,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns { names: Columns::NAMES.map(|name| Some(name.to_owned())).to_vec() }
    }
}

impl Columns {
    /// Meanings of columns, and their names unless others are said.
    pub const NAMES: [&str; 10] = [
        "user",
        "item",
        "page",
        "position",
        "time",
        "clicked",
        "propensity",
        "candidates",
        "probabilities",
        "request",
    ];

    /// Renames columns: `meaning=column`; `meaning=` leaves an optional one out.
    ///
    /// # Errors
    /// If a text is not of this form or has no known meaning.
    pub fn renamed<'a>(renames: impl IntoIterator<Item = &'a str>) -> Result<Columns> {
        let mut columns = Columns::default();
        for rename in renames {
            let known = rename.split_once('=').and_then(|(meaning, name)| {
                let at = Columns::NAMES.iter().position(|known| *known == meaning.trim())?;
                Some((at, name.trim()))
            });
            let Some((at, name)) = known else {
                let known = Columns::NAMES.join(", ");
                return Err(Error::option(format!(
                    "column `{rename}`: expected MEANING=NAME, where the meaning is one of {known}"
                )));
            };
            columns.names[at] = (!name.is_empty()).then(|| name.to_owned());
        }
        Ok(columns)
    }

    fn name(&self, part: Part) -> Option<&str> {
        self.names[part as usize].as_deref()
    }
}

/// Further columns that a question needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Further {
    /// The evaluated policy's probabilities of the candidates; without candidates, of the item.
    pub policy: Option<String>,
    /// Expected rewards of the candidates.
    pub expected: Option<String>,
}

/// One impression of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// Where it stands, for messages: `row 7`, with the file before it if there are several.
    pub place: String,
    /// The user.
    pub user: String,
    /// Page and position on it.
    pub on_page: Option<OnPage>,
    /// Unix seconds.
    pub time: Option<i64>,
    /// What it brought.
    pub reward: f64,
    /// In (0, 1].
    pub propensity: f64,
    /// What could be shown; none in a log that does not say so.
    pub candidates: Vec<String>,
    /// The item among the candidates.
    pub chosen: usize,
    /// Of each candidate by the policy of the log.
    pub probabilities: Option<Vec<f64>>,
    /// Of each candidate by the evaluated policy, or of the item alone if there are no candidates.
    pub policy: Option<Vec<f64>>,
    /// Expected reward of each candidate.
    pub expected: Option<Vec<f64>>,
    /// The page view as JSON.
    pub request: Option<String>,
}

/// A place on a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnPage {
    /// The page as the log spells it.
    pub page: String,
    /// The position as a number.
    pub position: i64,
    /// The item, as an id of the field `item`.
    pub item: Id,
}

/// A log whose columns are found.
pub struct PropensityLog<'a> {
    table: &'a dyn Table,
    /// Positions of the columns that are read.
    columns: Vec<usize>,
    layout: Layout,
}

/// Where the cells of a row are.
struct Layout {
    path: PathBuf,
    /// Of each meaning, and then of [`Further`], where among the columns that are read.
    places: Vec<Option<usize>>,
    further: Further,
    names: Columns,
}

/// Behind the meanings of [`Part`].
const POLICY: usize = Columns::NAMES.len();
const EXPECTED: usize = POLICY + 1;

impl<'a> PropensityLog<'a> {
    /// Finds the columns in `table`.
    ///
    /// # Errors
    /// If one that is needed is not there or cannot be read.
    pub fn open(table: &'a dyn Table, names: &Columns, further: &Further) -> Result<Self> {
        let layout = Layout {
            path: table.path().to_path_buf(),
            places: Vec::new(),
            further: further.clone(),
            names: names.clone(),
        };
        let mut log = PropensityLog { table, columns: Vec::new(), layout };
        for (name, usual) in names.names.iter().zip(Columns::NAMES) {
            let name = name.as_deref();
            log.add(name, name != Some(usual))?;
        }
        log.add(further.policy.as_deref(), true)?;
        log.add(further.expected.as_deref(), true)?;
        log.require(Part::User)?;
        log.require(Part::Item)?;
        log.require(Part::Clicked)?;
        if !log.has(Part::Candidates) {
            log.layout.places[Part::Probabilities as usize] = None;
        }
        if !log.has(Part::Probabilities) {
            log.require(Part::Propensity)?;
        }
        if !log.has(Part::Page) {
            log.layout.places[Part::Position as usize] = None;
        }
        if log.has(Part::Page) {
            log.require(Part::Position)?;
        }
        if further.expected.is_some() {
            log.require(Part::Candidates)?;
        }
        Ok(log)
    }

    /// Finds the next column; one that was `asked` for has to be there.
    fn add(&mut self, name: Option<&str>, asked: bool) -> Result<()> {
        let found = name.and_then(|name| self.table.columns().iter().position(|it| it == name));
        match (name, found) {
            (Some(name), None) if asked => return Err(self.lacks(name, "")),
            (_, Some(column)) => {
                self.table.check_usable(&[column])?;
                self.layout.places.push(Some(self.columns.len()));
                self.columns.push(column);
            }
            _ => self.layout.places.push(None),
        }
        Ok(())
    }

    fn has(&self, part: Part) -> bool {
        self.layout.has(part)
    }

    fn require(&self, part: Part) -> Result<()> {
        if self.has(part) {
            return Ok(());
        }
        let meaning = Columns::NAMES[part as usize];
        let advice = match part {
            Part::Propensity => "; it may be left out where `candidates` have `probabilities`",
            Part::Position => "; a log without it has its page left out: --columns page=",
            _ => "",
        };
        let rename = format!(" (another name: --columns {meaning}=NAME{advice})");
        Err(self.lacks(self.layout.names.name(part).unwrap_or(meaning), &rename))
    }

    fn lacks(&self, name: &str, more: &str) -> Error {
        let found = self.table.columns().join(", ");
        let hint = self.table.hint().map_or(String::new(), |hint| format!("; {hint}"));
        Error::content(self.table.path(), format!("no column `{name}`{more}; found: {found}{hint}"))
    }

    /// Whether impressions have candidates.
    pub fn has_candidates(&self) -> bool {
        self.has(Part::Candidates)
    }

    /// Whether the log says how probable each candidate was.
    pub fn has_probabilities(&self) -> bool {
        self.has(Part::Probabilities)
    }

    /// Whether impressions have a page and a position.
    pub fn has_pages(&self) -> bool {
        self.has(Part::Page)
    }

    /// Whether impressions have their page view.
    pub fn has_requests(&self) -> bool {
        self.has(Part::Request)
    }

    /// The log's name, for messages.
    pub fn path(&self) -> &Path {
        &self.layout.path
    }

    /// Where each impression stands on its page, in the order of rows; nothing in a log without
    /// pages.
    ///
    /// # Errors
    /// With the first row that is wrong, or one with the position of another.
    pub fn pages(&self) -> Result<Option<Pages>> {
        if !self.has_pages() {
            return Ok(None);
        }
        let parts = [Part::Item, Part::Page, Part::Position];
        let columns: Vec<usize> =
            parts.iter().filter_map(|part| self.layout.places[*part as usize]).collect();
        let columns: Vec<usize> = columns.into_iter().map(|at| self.columns[at]).collect();
        let mut rows = Vec::new();
        for batch in self.table.batches(&columns)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                let cells = [0, 1, 2].map(|column| batch.get(column, row));
                let on_page = on_page(cells[0], cells[1], cells[2])
                    .map_err(|what| self.layout.wrong(&batch.place(row), &what))?;
                rows.push((Id::of("page", &on_page.page), on_page.position, on_page.item));
            }
        }
        Pages::new(self.path(), &rows).map(Some)
    }

    /// The impressions in batches, in the order of rows; rows of a batch are read by the threads of
    /// the current rayon pool.
    ///
    /// # Errors
    /// As the batches, which end with the first row that is wrong.
    pub fn batches(&self) -> Result<impl Iterator<Item = Result<Vec<Shown>>>> {
        let batches: Batches<'_> = self.table.batches(&self.columns)?;
        let layout = &self.layout;
        Ok(batches.map(move |batch| {
            let batch = batch?;
            let rows: Vec<Result<Shown, String>> =
                (0..batch.rows()).into_par_iter().map(|row| layout.read(&batch, row)).collect();
            // The first one that is wrong, whichever was read first.
            rows.into_iter()
                .enumerate()
                .map(|(row, shown)| shown.map_err(|what| layout.wrong(&batch.place(row), &what)))
                .collect()
        }))
    }
}

impl Layout {
    fn has(&self, part: Part) -> bool {
        self.places[part as usize].is_some()
    }

    fn wrong(&self, place: &str, what: &str) -> Error {
        Error::content(&self.path, format!("{place}: {what}"))
    }

    fn read(&self, batch: &TextBatch, row: usize) -> Result<Shown, String> {
        let cell = |part: Part| self.places[part as usize].map(|at| batch.get(at, row));
        let required = |part: Part| cell(part).unwrap_or_default();
        let name = |part: Part| self.names.name(part).unwrap_or_default();
        let user = key(name(Part::User), required(Part::User))?;
        let item = key(name(Part::Item), required(Part::Item))?;
        let reward = number(name(Part::Clicked), required(Part::Clicked), "a finite number")?;
        let place = batch.place(row);
        let mut shown = Shown { place, user, reward, propensity: 1.0, ..Shown::default() };
        if let (Some(page), Some(position)) = (cell(Part::Page), cell(Part::Position)) {
            shown.on_page = Some(on_page(required(Part::Item), page, position)?);
        }
        if let Some(time) = cell(Part::Time).filter(|time| !value::is_missing(time)) {
            let (_, instant) =
                value::instant(time).map_err(|what| format!("`{}`: {what}", name(Part::Time)))?;
            shown.time = Some(instant);
        }
        shown.request = cell(Part::Request).filter(|it| !it.trim().is_empty()).map(str::to_owned);
        if let Some(candidates) = cell(Part::Candidates) {
            (shown.candidates, shown.chosen) =
                candidates_of(name(Part::Candidates), candidates, &item)?;
        }
        let count = shown.candidates.len();
        if let Some(cell) = cell(Part::Probabilities) {
            let name = name(Part::Probabilities);
            shown.probabilities = Some(distribution(name, cell, count)?);
        }
        self.read_propensity(cell(Part::Propensity), &mut shown)?;
        let further = |at: usize| self.places[at].map(|at| batch.get(at, row));
        if let (Some(cell), Some(name)) = (further(POLICY), &self.further.policy) {
            shown.policy = Some(match self.has(Part::Candidates) {
                true => distribution(name, cell, count)?,
                false => vec![probability(name, cell)?],
            });
        }
        if let (Some(cell), Some(name)) = (further(EXPECTED), &self.further.expected) {
            shown.expected = Some(list(name, cell, count)?);
        }
        Ok(shown)
    }

    /// The propensity of the item, by its own column or by that of all candidates, which have to
    /// agree.
    fn read_propensity(&self, cell: Option<&str>, shown: &mut Shown) -> Result<(), String> {
        let name = self.names.name(Part::Propensity).unwrap_or_default();
        let of_candidate = shown.probabilities.as_ref().map(|of| of[shown.chosen]);
        let stated = cell.map(|cell| probability(name, cell)).transpose()?;
        shown.propensity = stated.or(of_candidate).unwrap_or_default();
        if shown.propensity <= 0.0 {
            return Err(format!(
                "`{name}` is 0, so the item could not have been shown; expected a probability above 0"
            ));
        }
        match of_candidate {
            Some(other) if (other - shown.propensity).abs() > ROUNDING * shown.propensity => {
                Err(format!(
                    "`{name}` is {}, but `{}` have {other} for the item; expected the same",
                    shown.propensity,
                    self.names.name(Part::Probabilities).unwrap_or_default()
                ))
            }
            _ => Ok(()),
        }
    }
}

/// A key, which has to be there.
fn key(name: &str, cell: &str) -> Result<String, String> {
    let id = value::id(cell).map_err(|what| format!("`{name}`: {what}"))?;
    if id.is_empty() {
        return Err(format!("no `{name}`, expected one in every row"));
    }
    Ok(id.into_owned())
}

fn number(name: &str, cell: &str, expected: &str) -> Result<f64, String> {
    let wrong = |what: String| format!("`{name}`: {what}; expected {expected}");
    match value::measure(cell, None).map_err(wrong)? {
        Some(number) if number.is_finite() => Ok(number),
        Some(number) => Err(format!("`{name}` is {number}, expected {expected}")),
        None => Err(format!("no `{name}` (empty, null or NaN), expected {expected}")),
    }
}

fn probability(name: &str, cell: &str) -> Result<f64, String> {
    in_unit(name, number(name, cell, "a probability, 0 to 1")?)
}

/// A probability; what is above 1 by rounding is 1.
fn in_unit(name: &str, number: f64) -> Result<f64, String> {
    if (0.0..=1.0 + ROUNDING).contains(&number) {
        return Ok(number.min(1.0));
    }
    Err(format!("`{name}` is {number}, expected a probability, 0 to 1"))
}

fn on_page(item: &str, page: &str, position: &str) -> Result<OnPage, String> {
    let expected = "a whole number";
    let number = number("position", position, expected)?;
    if number.fract() != 0.0 || number.abs() > 1e15 {
        return Err(format!("`position` is {number}, expected {expected}"));
    }
    let item = Id::of("item", &key("item", item)?);
    Ok(OnPage { page: key("page", page)?, position: number as i64, item })
}

/// The candidates, and which of them the item is.
fn candidates_of(name: &str, cell: &str, item: &str) -> Result<(Vec<String>, usize), String> {
    let parts = value::parts(cell, None);
    let ids = parts.iter().map(|part| key(name, part));
    let ids = ids.collect::<Result<Vec<String>, String>>()?;
    let mut sorted: Vec<&String> = ids.iter().collect();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("`{name}` has `{}` twice", twice[0]));
    }
    match ids.iter().position(|id| id == item) {
        Some(chosen) => Ok((ids, chosen)),
        None => {
            let count = ids.len();
            Err(format!("`{name}` ({count}) do not have the item `{item}`, which was shown"))
        }
    }
}

/// A number for each of `count` candidates.
fn list(name: &str, cell: &str, count: usize) -> Result<Vec<f64>, String> {
    let parts = value::parts(cell, None);
    if parts.len() != count {
        return Err(format!(
            "`{name}` has {} numbers for {count} candidates (null and NaN are none)",
            parts.len()
        ));
    }
    parts.iter().map(|part| number(name, part, "finite numbers")).collect()
}

/// A probability for each of `count` candidates.
fn distribution(name: &str, cell: &str, count: usize) -> Result<Vec<f64>, String> {
    let list = list(name, cell, count)?;
    let list = list.into_iter().map(|number| in_unit(name, number));
    let list = list.collect::<Result<Vec<f64>, String>>()?;
    let sum: f64 = list.iter().sum();
    if (sum - 1.0).abs() > ROUNDING {
        return Err(format!("`{name}` add up to {sum}, expected 1"));
    }
    Ok(list)
}

/// Impressions by page, from the first position down.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Rows of the log, by page and position.
    order: Vec<u32>,
    /// Of each row, where in `order` its page begins and where it is itself.
    places: Vec<Range<u32>>,
    items: Vec<Id>,
}

impl Pages {
    fn new(path: &Path, rows: &[(Id, i64, Id)]) -> Result<Pages> {
        if u32::try_from(rows.len()).is_err() {
            let what = format!("{} rows; pages of more than {} are not read", rows.len(), u32::MAX);
            return Err(Error::content(path, what));
        }
        let mut order: Vec<u32> = (0..rows.len() as u32).collect();
        let of = |at: u32| (rows[at as usize].0, rows[at as usize].1);
        order.par_sort_unstable_by_key(|&at| (of(at), at));
        let mut places = vec![0..0; rows.len()];
        let mut begin = 0;
        for at in 0..order.len() {
            let row = order[at];
            if at > 0 {
                let before = order[at - 1];
                if of(before).0 != of(row).0 {
                    begin = at as u32;
                } else if of(before).1 == of(row).1 {
                    let what = format!(
                        "rows {} and {} of the log (counted over all files) are one page and one position, {}",
                        before + 1,
                        row + 1,
                        of(row).1
                    );
                    return Err(Error::content(path, what));
                }
            }
            places[row as usize] = begin..at as u32;
        }
        Ok(Pages { order, places, items: rows.iter().map(|row| row.2).collect() })
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.places.iter().filter(|place| place.is_empty()).count()
    }

    /// The rows above `row` on its page, from the first position down.
    pub fn above(&self, row: usize) -> &[u32] {
        let place = &self.places[row];
        &self.order[place.start as usize..place.end as usize]
    }

    /// The items above `row` on its page.
    pub fn items_above(&self, row: usize) -> impl Iterator<Item = Id> {
        self.above(row).iter().map(|&above| self.items[above as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryTable;

    const HEADER: [&str; 9] = [
        "user",
        "item",
        "page",
        "position",
        "time",
        "clicked",
        "propensity",
        "candidates",
        "probabilities",
    ];
    const ROW: [&str; 9] =
        ["u1", "a", "p1", "2", "1700000000", "1", "0.25", "[a, b, c]", "[0.25 0.75 0]"];

    fn table(rows: &[[&str; 9]]) -> MemoryTable {
        let rows = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        MemoryTable::new("log.parquet", &HEADER, rows)
    }

    fn read_as(table: &dyn Table, columns: &[&str], further: &Further) -> Result<Vec<Shown>> {
        let columns = Columns::renamed(columns.iter().copied())?;
        let log = PropensityLog::open(table, &columns, further)?;
        let _ = log.pages()?;
        let mut all = Vec::new();
        for batch in log.batches()? {
            all.extend(batch?);
        }
        Ok(all)
    }

    fn read(rows: &[[&str; 9]]) -> Result<Vec<Shown>> {
        read_as(&table(rows), &[], &Further::default())
    }

    #[test]
    fn a_row_is_what_it_says() {
        let expected = Shown {
            place: "row 1".to_owned(),
            user: "u1".to_owned(),
            on_page: Some(OnPage { page: "p1".to_owned(), position: 2, item: Id::of("item", "a") }),
            time: Some(1_700_000_000),
            reward: 1.0,
            propensity: 0.25,
            candidates: ["a", "b", "c"].map(str::to_owned).to_vec(),
            chosen: 0,
            probabilities: Some(vec![0.25, 0.75, 0.0]),
            ..Shown::default()
        };
        assert_eq!(read(&[ROW]).unwrap(), std::slice::from_ref(&expected));
        let further = Further {
            policy: Some("probabilities".to_owned()),
            expected: Some("probabilities".to_owned()),
        };
        let list = Some(vec![0.25, 0.75, 0.0]);
        let expected = Shown { policy: list.clone(), expected: list, ..expected };
        assert_eq!(read_as(&table(&[ROW]), &[], &further).unwrap(), [expected]);
    }

    #[test]
    fn a_log_may_say_less() {
        let least = ["user", "shown", "pay", "p"];
        let row = ["u1", "7.0", "2.5", "1"].map(str::to_owned).to_vec();
        let table = MemoryTable::new("log.csv", &least, vec![row]);
        let names = ["item=shown", "clicked=pay", "propensity=p"];
        let further = Further { policy: Some("p".to_owned()), expected: None };
        let got = read_as(&table, &names, &further).unwrap().remove(0);
        assert_eq!((got.reward, got.propensity, got.candidates.len()), (2.5, 1.0, 0));
        assert_eq!((got.policy, got.on_page, got.time), (Some(vec![1.0]), None, None));
        // The propensity follows from the probabilities.
        let table = self::table(&[ROW]);
        let got = read_as(&table, &["propensity="], &Further::default()).unwrap();
        assert_eq!(got[0].propensity, 0.25);
    }

    /// Where something is wrong, what it is, and what was expected.
    #[test]
    fn wrong_cells_are_named() {
        let cases = [
            ("propensity", "0", "row 2: `propensity` is 0, so the item could not have been shown"),
            ("propensity", "1.5", "row 2: `propensity` is 1.5, expected a probability, 0 to 1"),
            ("propensity", "-0.1", "row 2: `propensity` is -0.1, expected a probability"),
            ("propensity", "NaN", "row 2: no `propensity` (empty, null or NaN)"),
            ("propensity", "", "row 2: no `propensity` (empty, null or NaN)"),
            ("propensity", "inf", "row 2: `propensity` is inf"),
            ("propensity", "high", "row 2: `propensity`: `high` is not a number"),
            ("propensity", "0.3", "`propensity` is 0.3, but `probabilities` have 0.25"),
            ("probabilities", "[0.25 0.7 0]", "row 2: `probabilities` add up to 0.95, expected 1"),
            ("probabilities", "[0.25 0.75]", "`probabilities` has 2 numbers for 3 candidates"),
            ("probabilities", "[0.25, 0.75, nan]", "`probabilities` has 2 numbers for 3 cand"),
            ("probabilities", "[0.25 1.75 -1]", "`probabilities` is 1.75, expected a prob"),
            ("candidates", "[b, c, d]", "`candidates` (3) do not have the item `a`, which was"),
            ("candidates", "[a, b, a]", "row 2: `candidates` has `a` twice"),
            ("candidates", "", "`candidates` (0) do not have the item `a`"),
            ("clicked", "", "row 2: no `clicked` (empty, null or NaN), expected a finite number"),
            ("clicked", "inf", "row 2: `clicked` is inf, expected a finite number"),
            ("user", "null", "row 2: no `user`, expected one in every row"),
            ("item", "", "row 2: no `item`, expected one in every row"),
            ("page", "", "row 2: no `page`, expected one in every row"),
            ("position", "1.5", "row 2: `position` is 1.5, expected a whole number"),
            ("position", "2", "rows 1 and 2 of the log (counted over all files) are one page"),
            ("time", "soon", "row 2: `time`: "),
        ];
        for (name, cell, expected) in cases {
            let mut row = ROW;
            row[3] = "3";
            row[HEADER.iter().position(|it| *it == name).unwrap()] = cell;
            let error = read(&[ROW, row]).unwrap_err().to_string();
            assert!(error.starts_with("log.parquet: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn columns_that_are_not_there_are_named() {
        let none = Further::default();
        let error = |columns: &[&str], further: &Further| {
            read_as(&table(&[ROW]), columns, further).unwrap_err().to_string()
        };
        let got = error(&["user=who"], &none);
        assert!(got.starts_with("log.parquet: no column `who`; found: user, item, page"), "{got}");
        let got = error(&["propensity=", "probabilities="], &none);
        assert!(
            got.contains("no column `propensity` (another name: --columns propensity=NAME; it may"),
            "{got}"
        );
        let got = error(&["position="], &none);
        assert!(got.contains("no column `position` (another name"), "{got}");
        let got = error(&["users=who"], &none);
        assert!(got.starts_with("column `users=who`: expected MEANING=NAME, where"), "{got}");
        let further = Further { policy: Some("mine".to_owned()), ..none.clone() };
        assert!(error(&[], &further).contains("no column `mine`; found: "));
        let further = Further { expected: Some("time".to_owned()), ..none };
        let got = error(&["candidates="], &further);
        assert!(got.contains("no column `candidates`"), "{got}");
    }

    #[test]
    fn pages_are_ordered_by_position() {
        let row = |item, page, position| {
            let mut row = ROW;
            (row[1], row[2], row[3]) = (item, page, position);
            (row[6], row[8]) = ("", "");
            row
        };
        let rows =
            [row("c", "q", "3"), row("a", "p", "-1"), row("a", "q", "1"), row("b", "q", "2")];
        let table = table(&rows);
        let columns = Columns::default();
        let pages = PropensityLog::open(&table, &columns, &Further::default()).unwrap().pages();
        let pages = pages.unwrap().unwrap();
        assert_eq!(pages.count(), 2);
        let above: Vec<&[u32]> = (0..4).map(|row| pages.above(row)).collect();
        assert_eq!(above, [&[2, 3][..], &[], &[], &[2]]);
        let items = ["a", "b"].map(|item| Id::of("item", item));
        assert_eq!(pages.items_above(0).collect::<Vec<_>>(), items);
    }
}
