//! Options for tables that nobody has described: a proposal, every part of it with its evidence.
//!
//! Names of columns say what they may be, and the first rows whether that holds. A proposal decides
//! nothing in silence: what it is unsure of is a doubt of the guess, in words.

use std::collections::{BTreeMap, BTreeSet};

use super::columns::{FieldColumn, Kind, Peek, RESERVED, Role, plain};
use super::options::{PrepareOptions, SplitBy};
use crate::negatives::{Method, NegativeOptions};
use crate::source::Table;
use crate::value::{self, LabelRule, TimeReader, instant, show_time};
use crate::{Error, Result};

/// Rows of a table that are looked at.
const ROWS: usize = 200_000;

/// Distinct values of a column that are counted; a column with more has too many to be a category.
const VALUES: usize = 10_000;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// What a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// One row per impression or positive event.
    Events,
    /// One row per item.
    Items {
        /// Whether a column names pictures.
        pictures: bool,
    },
    /// One row per user.
    Users,
    /// Something else.
    Nothing,
}

/// A part of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// What it is about: `columns.user`, `split`.
    pub of: String,
    /// What was seen.
    pub evidence: String,
    /// Why it may be wrong, if there is a reason.
    pub doubt: Option<String>,
}

/// Options for `prepare`, with the reason of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The options.
    pub options: PrepareOptions,
    /// The reasons in the order of the options.
    pub guesses: Vec<Guess>,
    /// Names of pictures in the items table, some of them.
    pub pictures: Vec<String>,
}

/// Other names of a label, whose values are not clicks by themselves.
const RATINGS: [&str; 5] = ["rating", "ratings", "stars", "score", "overall"];
const ACTIONS: [&str; 8] =
    ["event", "eventtype", "action", "actiontype", "behavior", "behaviortype", "type", "feedback"];

/// Values of [`ACTIONS`] that are positive.
const POSITIVE: [&str; 12] = [
    "click",
    "clicked",
    "clk",
    "buy",
    "purchase",
    "order",
    "cart",
    "addtocart",
    "like",
    "fav",
    "transaction",
    "conversion",
];

/// What the columns of `table` say that it is about.
///
/// # Errors
/// If its first rows cannot be read, or it has none.
pub fn about(table: &dyn Table) -> Result<About> {
    let peek = Peek::new(table)?;
    let has = |role| find(&peek, role).is_some();
    Ok(match (has(Role::User), has(Role::Item)) {
        (true, true) => About::Events,
        (false, true) => About::Items { pictures: has(Role::Image) },
        (true, false) => About::Users,
        (false, false) => About::Nothing,
    })
}

/// A column that was found, and why it may be another one.
struct Found {
    column: usize,
    doubt: Option<String>,
}

/// The column of `role`: the only one with a known name, else the first of several, else one whose
/// name contains a known one.
fn find(peek: &Peek<'_>, role: Role) -> Option<Found> {
    let columns = peek.table.columns();
    if let Ok(Some(column)) = peek.find(role, None) {
        return Some(Found { column, doubt: None });
    }
    let (column, doubt) = match peek.find(role, None) {
        Err(error) => {
            let known = |name: &String| role.aliases().contains(&&plain(name)[..]);
            let column = columns.iter().position(known)?;
            (column, format!("the first of several: {error}"))
        }
        Ok(_) => {
            let parts: &[&str] = match role {
                Role::User => &["user", "visitor", "customer", "member", "client"],
                Role::Item => &["item", "product", "movie", "article", "video", "goods"],
                Role::Time => &["time", "date"],
                Role::Image => &["image", "picture", "photo", "poster", "thumb"],
                Role::Label | Role::Weight => &[],
            };
            let contains = |name: &String| parts.iter().any(|part| plain(name).contains(part));
            let column = columns.iter().position(contains)?;
            (column, "its name only resembles a known one".to_owned())
        }
    };
    Some(Found { column, doubt: Some(doubt) })
}

/// What was seen of a column of events.
#[derive(Default)]
struct Seen {
    /// Clicks and rows of each value; none if there are too many.
    values: Option<BTreeMap<String, [u64; 2]>>,
    missing: u64,
    /// Whether every user that was seen has one value only.
    of_user: bool,
}

/// The events that were looked at.
struct Events {
    rows: u64,
    users: usize,
    items: BTreeSet<String>,
    times: Vec<i64>,
    seen: Vec<Seen>,
}

/// Proposes options for these tables.
///
/// # Errors
/// If a table cannot be read, or the events have no user, item or time.
pub fn propose(
    events: &dyn Table,
    items: Option<&dyn Table>,
    users: Option<&dyn Table>,
) -> Result<Proposal> {
    let mut proposal =
        Proposal { options: PrepareOptions::default(), guesses: Vec::new(), pictures: Vec::new() };
    let peek = Peek::new(events)?;
    let role = |role| match find(&peek, role) {
        Some(found) => Ok(found),
        // Its error lists the columns and the names that are known.
        None => peek.require(role, None).map(|column| Found { column, doubt: None }),
    };
    let (user, item, time) = (role(Role::User)?, role(Role::Item)?, role(Role::Time)?);
    let columns = events.columns();
    let label = proposal.label(&peek)?;
    proposal.time(&peek, time.column);
    let known = Known { user: user.column, item: item.column, time: time.column, label };
    let seen = look(events, &known, &proposal.options)?;
    let counted =
        |count: usize, what: &str| format!("{count} {what} in the first {} rows", seen.rows);
    let options = &mut proposal.options.columns;
    options.user = Some(columns[user.column].clone());
    options.item = Some(columns[item.column].clone());
    options.time = Some(columns[time.column].clone());
    let times = match (seen.times.iter().min(), seen.times.iter().max()) {
        (Some(first), Some(last)) => format!("{} to {} UTC", show_time(*first), show_time(*last)),
        _ => "no time can be read".to_owned(),
    };
    proposal.guess("columns.user", counted(seen.users, "users"), user.doubt);
    proposal.guess("columns.item", counted(seen.items.len(), "items"), item.doubt);
    proposal.guess("columns.time", times, time.doubt);
    proposal.split(&seen.times);
    proposal.event_fields(&peek, &known, &seen, users.is_some())?;
    if let Some(items) = items {
        proposal.items(items, &seen.items)?;
    }
    if let Some(users) = users {
        proposal.users(users)?;
    }
    Ok(proposal)
}

/// Positions of the columns that are no fields.
struct Known {
    user: usize,
    item: usize,
    time: usize,
    label: Option<usize>,
}

/// Looks at the first rows of the events.
fn look(table: &dyn Table, known: &Known, options: &PrepareOptions) -> Result<Events> {
    let usable: Vec<usize> =
        (0..table.columns().len()).filter(|&at| table.unusable(at).is_none()).collect();
    let at = |column: usize| {
        let found = usable.iter().position(|usable| *usable == column);
        found.ok_or_else(|| table.check_usable(&[column]).expect_err("it is not usable"))
    };
    let (user, item, time) = (at(known.user)?, at(known.item)?, at(known.time)?);
    let label = known.label.map(at).transpose()?;
    let rule = options.label_rule();
    let mut times = TimeReader::new(options.time_format.as_deref()).map_err(Error::option)?;
    let mut users: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
    let fresh = || Seen { values: Some(BTreeMap::new()), missing: 0, of_user: true };
    let mut found = Events {
        rows: 0,
        users: 0,
        items: BTreeSet::new(),
        times: Vec::new(),
        seen: (0..table.columns().len()).map(|_| fresh()).collect(),
    };
    'rows: for batch in table.batches(&usable)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            if found.rows as usize == ROWS {
                break 'rows;
            }
            found.rows += 1;
            found.items.insert(batch.get(item, row).trim().to_owned());
            found.times.extend(times.read(batch.get(time, row)));
            let click = label.map(|at| value::label(batch.get(at, row).trim(), rule));
            let click = usize::from(matches!(click, Some(Ok(1))));
            let of_user = users
                .entry(batch.get(user, row).trim().to_owned())
                .or_insert_with(|| vec![None; usable.len()]);
            for (at, &column) in usable.iter().enumerate() {
                let text = batch.get(at, row).trim();
                found.seen[column].add(text, click, &mut of_user[at]);
            }
        }
    }
    found.users = users.len();
    Ok(found)
}

impl Seen {
    /// Takes note of a cell; `before` is the first value of the row's user.
    fn add(&mut self, text: &str, click: usize, before: &mut Option<String>) {
        if value::is_missing(text) {
            self.missing += 1;
            return;
        }
        match before {
            Some(before) => self.of_user &= before == text,
            None => *before = Some(text.to_owned()),
        }
        let Some(values) = &mut self.values else { return };
        let has_room = values.len() < VALUES;
        match values.get_mut(text) {
            Some(counts) => counts[click] += 1,
            None if has_room => {
                let mut counts = [0, 0];
                counts[click] = 1;
                values.insert(text.to_owned(), counts);
            }
            None => self.values = None,
        }
    }

    /// Whether the values tell clicks from other impressions: both are there, and no value has
    /// both.
    fn knows_label(&self) -> bool {
        let Some(values) = &self.values else { return false };
        let pure = |click: usize| {
            let mut of = values.values().filter(|counts| counts[click] > 0);
            of.clone().next().is_some() && of.all(|counts| counts[1 - click] == 0)
        };
        // Every value its own row tells nothing.
        let rows: u64 = values.values().flatten().sum();
        pure(0) && pure(1) && (values.len() as u64) * 2 < rows
    }
}

impl Proposal {
    fn guess(&mut self, of: &str, evidence: impl Into<String>, doubt: Option<String>) {
        self.guesses.push(Guess { of: of.to_owned(), evidence: evidence.into(), doubt });
    }

    /// The label's column, with what makes it positive.
    fn label(&mut self, peek: &Peek<'_>) -> Result<Option<usize>> {
        let columns = peek.table.columns();
        let named =
            |names: &[&str]| columns.iter().position(|column| names.contains(&&plain(column)[..]));
        let found = find(peek, Role::Label);
        let doubt = found.as_ref().and_then(|found| found.doubt.clone());
        let column = found.map(|found| found.column);
        let Some(column) = column.or_else(|| named(&RATINGS)).or_else(|| named(&ACTIONS)) else {
            self.options.negatives = Some(NegativeOptions {
                count: 4,
                method: Method::Contemporary,
                ..NegativeOptions::default()
            });
            let what = "no column says clicked or not, so every row is taken for a positive event";
            let doubt = "if one does, name it as columns.label and remove negatives";
            self.guess("negatives", what, Some(doubt.to_owned()));
            return Ok(None);
        };
        self.options.columns.label = Some(columns[column].clone());
        let values = peek.values(column);
        let read = |text: &String| value::label(text, LabelRule::default());
        let clicks = values.iter().filter(|text| read(text) == Ok(1)).count();
        if values.iter().all(|text| read(text).is_ok()) {
            let share = 100.0 * clicks as f64 / values.len().max(1) as f64;
            let evidence = format!("0 or 1; {share:.1} % are 1 in the first {} rows", values.len());
            let doubt = doubt.or((clicks == 0 || clicks == values.len())
                .then(|| "all of these rows are of one class".to_owned()));
            self.guess("columns.label", evidence, doubt);
            return Ok(Some(column));
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        values.iter().for_each(|text| *counts.entry(text).or_default() += 1);
        let shown: Vec<String> =
            counts.iter().take(12).map(|(text, count)| format!("{text}: {count}")).collect();
        self.guess("columns.label", format!("values and rows: {}", shown.join(", ")), doubt);
        let numbers = values.iter().map(|text| value::number(text, None).ok());
        if let Some(numbers) = numbers.collect::<Option<Vec<f64>>>() {
            let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let above = numbers.iter().copied().filter(|number| *number > (low + high) / 2.0);
            let from = above.fold(high, f64::min);
            self.options.positive_from = Some(from);
            let evidence = format!("numbers from {low} to {high}");
            let doubt = "the upper half counts as positive; which value does is yours to say";
            self.guess("positive_from", evidence, Some(doubt.to_owned()));
        } else {
            let good = |text: &&&str| POSITIVE.contains(&&plain(text)[..]);
            self.options.positive =
                counts.keys().filter(good).map(|text| (*text).to_owned()).collect();
            let doubt = match self.options.positive.is_empty() {
                true => "none of the words is a known one: list those that are positive",
                false => "which words are positive is yours to say",
            };
            self.guess("positive", format!("words: {}", shown.join(", ")), Some(doubt.to_owned()));
        }
        Ok(Some(column))
    }

    /// How times are written, where that has to be said.
    fn time(&mut self, peek: &Peek<'_>, column: usize) {
        let values = peek.values(column);
        let mut reader = TimeReader::new(None).expect("no format is a format");
        let Some(Err(why)) = values.iter().map(|text| reader.read(text)).find(Result::is_err)
        else {
            return;
        };
        // The first format that all of them have.
        const FORMATS: [&str; 8] = [
            "%d/%m/%Y %H:%M:%S",
            "%m/%d/%Y %H:%M:%S",
            "%d/%m/%Y %H:%M",
            "%m/%d/%Y %H:%M",
            "%d/%m/%Y",
            "%m/%d/%Y",
            "%Y%m%d",
            "%Y%m%d%H%M%S",
        ];
        let fits = |format: &&&str| {
            let mut reader = TimeReader::new(Some(format)).expect("a format");
            values.iter().all(|text| reader.read(text).is_ok())
        };
        let fitting: Vec<&&str> = FORMATS.iter().filter(fits).collect();
        self.options.time_format = fitting.first().map(|format| (**format).to_owned());
        let doubt = match fitting.len() {
            0 => "no format is known that all of these times have: state one".to_owned(),
            1 => "the only known format that all of these times have".to_owned(),
            _ => format!(
                "others fit as well: {}",
                fitting.iter().skip(1).map(|it| **it).collect::<Vec<_>>().join(", ")
            ),
        };
        self.guess("time_format", why, Some(doubt));
    }

    /// The test: the last day, where it is a fitting part of the log.
    fn split(&mut self, times: &[i64]) {
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return };
        let midnight = last.div_euclid(DAY) * DAY;
        let share =
            times.iter().filter(|time| **time >= midnight).count() as f64 / times.len() as f64;
        let partial = (times.len() == ROWS)
            .then(|| "the log may go on after the rows that were looked at".to_owned());
        if last - first >= 3 * DAY && (0.02..0.4).contains(&share) && partial.is_none() {
            self.options.split = SplitBy::TestFrom(show_time(midnight));
            let evidence = format!("the last day has {:.1} % of the rows", 100.0 * share);
            self.guess("split", evidence, None);
        } else {
            self.guess("split", "the last tenth of the events, cut at an instant", partial);
        }
    }

    /// Which columns of the events describe users or circumstances.
    fn event_fields(
        &mut self,
        peek: &Peek<'_>,
        known: &Known,
        seen: &Events,
        has_users: bool,
    ) -> Result<()> {
        let (mut of_users, mut of_context) = (Vec::new(), Vec::new());
        let (mut reasons, mut left_out) = ([Vec::new(), Vec::new()], Vec::new());
        let taken = [Some(known.user), Some(known.item), Some(known.time), known.label];
        for (at, name) in peek.table.columns().iter().enumerate() {
            if taken.contains(&Some(at)) {
                continue;
            }
            let column = &seen.seen[at];
            if known.label.is_some() && column.knows_label() {
                left_out.push(format!("{name} (it tells the label of every row)"));
                continue;
            }
            let field = match peek.default_field(at, None) {
                Err(why) => {
                    left_out.push(format!("{name} ({})", why.trim_start_matches("ignored: ")));
                    continue;
                }
                Ok(field) => field,
            };
            let distinct = match &column.values {
                Some(values) => format!("{name}: {} values", values.len()),
                None => format!("{name}: more than {VALUES} values"),
            };
            if column.of_user && !has_users && seen.users > 1 && (seen.users as u64) < seen.rows {
                reasons[0].push(distinct);
                of_users.push(field);
            } else if column.values.is_none() && field.kind == Kind::Categorical {
                left_out.push(format!("{distinct}, too many for a category"));
            } else {
                reasons[1].push(distinct);
                of_context.push(field);
            }
        }
        let [users, context] = reasons.map(|reasons| reasons.join("; "));
        if !of_users.is_empty() {
            self.options.columns.user_fields = Some(of_users);
            self.guess(
                "columns.user_fields",
                format!("the same in all rows of a user; {users}"),
                None,
            );
        }
        // Listed even if empty, so that nothing is taken in silence.
        self.options.columns.context_fields = Some(of_context);
        let doubt = "what is known only after a click is no field: remove it";
        let doubt = (!context.is_empty()).then(|| doubt.to_owned());
        self.guess("columns.context_fields", or(context, "no column is left"), doubt);
        if !left_out.is_empty() {
            self.guess("left out of the events", left_out.join("; "), None);
        }
        Ok(())
    }

    fn items(&mut self, table: &dyn Table, shown: &BTreeSet<String>) -> Result<()> {
        let peek = Peek::new(table)?;
        let Some(key) = find(&peek, Role::Item) else { return Ok(()) };
        let image = find(&peek, Role::Image);
        let taken = [Some(key.column), image.as_ref().map(|found| found.column)];
        let (fields, evidence, left_out) = described(&peek, &taken);
        self.options.columns.item_fields = Some(fields);
        let known: BTreeSet<&str> = self.first_of(table, key.column, shown)?;
        let share = 100.0 * known.len() as f64 / shown.len().max(1) as f64;
        let evidence = or(evidence, "no column is left");
        let evidence = format!("{share:.1} % of the events' items have a row; {evidence}");
        let few = (share < 50.0).then(|| "most items of the events have no row here".to_owned());
        self.guess("columns.item_fields", evidence, few.or(key.doubt));
        match image {
            Some(found) => {
                self.options.columns.image = Some(table.columns()[found.column].clone());
                self.pictures = peek.values(found.column).to_vec();
                let example = peek.example(found.column).to_owned();
                self.guess("columns.image", format!("for example {example}"), found.doubt);
            }
            None => self.guess("pictures", "no column of the items names a picture", None),
        }
        if !left_out.is_empty() {
            self.guess("left out of the items", left_out, None);
        }
        Ok(())
    }

    /// Which of `shown` are in a column.
    fn first_of<'a>(
        &self,
        table: &dyn Table,
        column: usize,
        shown: &'a BTreeSet<String>,
    ) -> Result<BTreeSet<&'a str>> {
        let mut known = BTreeSet::new();
        for batch in table.batches(&[column])? {
            let batch = batch?;
            let rows = (0..batch.rows()).map(|row| batch.get(0, row).trim());
            known.extend(rows.filter_map(|text| shown.get(text)).map(String::as_str));
        }
        Ok(known)
    }

    fn users(&mut self, table: &dyn Table) -> Result<()> {
        let peek = Peek::new(table)?;
        let Some(key) = find(&peek, Role::User) else { return Ok(()) };
        let (fields, evidence, left_out) = described(&peek, &[Some(key.column)]);
        self.options.columns.user_fields = Some(fields);
        self.guess("columns.user_fields", or(evidence, "no column is left"), key.doubt);
        if !left_out.is_empty() {
            self.guess("left out of the users", left_out, None);
        }
        Ok(())
    }
}

fn or(text: String, other: &str) -> String {
    if text.is_empty() { other.to_owned() } else { text }
}

/// The fields of a table that describes users or items, what was seen of them, and of the columns
/// that are none.
fn described(peek: &Peek<'_>, taken: &[Option<usize>]) -> (Vec<FieldColumn>, String, String) {
    let (mut fields, mut evidence, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    for (at, name) in peek.table.columns().iter().enumerate() {
        if taken.contains(&Some(at)) {
            continue;
        }
        match listed(peek, at) {
            Ok(field) => {
                let distinct: BTreeSet<&String> = peek.values(at).iter().collect();
                evidence.push(format!("{name}: {} values", distinct.len()));
                fields.push(field);
            }
            Err(why) => left_out.push(format!("{name} ({})", why.trim_start_matches("ignored: "))),
        }
    }
    (fields, evidence.join("; "), left_out.join("; "))
}

/// As [`Peek::default_field`], and lists that a separator divides.
fn listed(peek: &Peek<'_>, at: usize) -> std::result::Result<FieldColumn, &'static str> {
    let values = peek.values(at);
    let name = &peek.table.columns()[at];
    let parts = |separator: char| {
        let texts: BTreeSet<&str> = values.iter().flat_map(|text| text.split(separator)).collect();
        let divided = values.iter().filter(|text| text.contains(separator)).count();
        // Parts that come again, and no words: `a|b`, not `Toys, games and more`.
        let words = texts.iter().any(|text| text.trim().contains(' ') || text.len() > 24);
        divided * 5 > values.len() && texts.len() * 3 < values.len() && !words
    };
    let separator = ['|', ';', ','].into_iter().find(|separator| parts(*separator));
    match separator.filter(|_| !RESERVED.contains(&&name[..]) && instant(peek.example(at)).is_err())
    {
        Some(separator) => Ok(FieldColumn {
            name: name.clone(),
            column: name.clone(),
            kind: Kind::Multi(separator.to_string()),
        }),
        None => peek.default_field(at, None),
    }
}
