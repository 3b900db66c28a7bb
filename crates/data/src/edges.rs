//! Who had what, without times: pairs of a user and an item, as collections for collaborative
//! filtering are published.
//!
//! ```text
//! *.txt            lines of a user and its items, separated by spaces or tabs: user item item ..
//! anything else    a table with a column of users and one of items, a row per pair
//! ```
//! Nothing says what came first, so histories are *leave-one-out*: a training positive has all
//! other training items of its user as history, a test positive all of them. Such a history may
//! have happened later than what it helps to predict; figures compare with others of this kind and
//! say little about serving. All pairs are in memory, 8 bytes each.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::dataset::SplitName;
use crate::negatives::{Drawn, Method, NegativeOptions, Positive, Sampler};
use crate::prepare::given::{Given, GivenCard, GivenGroup, GivenItem, MOST_BEHAVIORS};
use crate::prepare::items::{Interner, Items};
use crate::prepare::{Dropped, Existing, PrepareReport};
use crate::schema::{Labels, PARTS, USER};
use crate::source::{self, Table, TableOptions};
use crate::value::id;
use crate::{Error, Id, Result, part_of};

/// How pairs are imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What the dataset is called; not given: as its folder.
    pub name: Option<String>,
    /// The column of users; not given: one called `user`, `user_id` or `userid`, or the first of
    /// two.
    pub user: Option<String>,
    /// The column of items, likewise.
    pub item: Option<String>,
    /// The names of the columns of a table without a header.
    pub header: Option<Vec<String>>,
    /// Share of each user's items that is the test where no test is given, 0..1. The first item
    /// that a user names stays in train.
    pub test_fraction: f64,
    /// The negatives; `uniform` or `popularity`.
    pub negatives: NegativeOptions,
    /// Behaviors that a group keeps.
    pub max_behaviors: usize,
    /// What to do with a dataset that is there.
    pub existing: Existing,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: None,
            user: None,
            item: None,
            header: None,
            test_fraction: 0.1,
            negatives: NegativeOptions::default(),
            max_behaviors: 50,
            existing: Existing::Refuse,
        }
    }
}

/// What a report of such a dataset says first.
pub const LEAVE_ONE_OUT: &str = "the pairs have no times, so histories are leave-one-out: the other items of the \
                                 user, had before or after; compare with figures of such data only";

/// Makes the dataset `out` of the pairs in `train` and, if there is one, `test`.
///
/// # Errors
/// [`Error::Content`] with file and row where a file is not what it should be; [`Error::Option`];
/// [`Error::Io`].
pub fn import(
    train: &Path,
    test: Option<&Path>,
    out: &Path,
    options: &Options,
) -> Result<PrepareReport> {
    check_options(options)?;
    let folder = Given::place(out, options.existing)?;
    let mut pairs = Pairs::default();
    pairs.read(train, SplitName::Train, options)?;
    match test {
        Some(test) => pairs.read(test, SplitName::Test, options)?,
        None => pairs.hold_out(options.test_fraction, options.negatives.seed),
    }
    if pairs.users.len() == 0 {
        return Err(Error::content(train, "no pair of a user and an item"));
    }
    let Pairs { users, items, had, rows, dropped } = pairs;
    let negatives = &options.negatives;
    let card = GivenCard {
        name: options.name.clone(),
        parts: PARTS,
        max_behaviors: options.max_behaviors,
        labels: Labels::Sampled {
            negatives: negatives.count,
            method: negatives.method.as_str().to_string(),
            seed: negatives.seed,
        },
        rows,
        dropped,
    };
    let (given, item_rows) = Given::new(folder, items, &[], card)?;
    let users = Users::new(&users, had, &item_rows);
    let mut sampler = Sampler::new(negatives, &vec![false; item_rows.len()]);
    users.logs.iter().for_each(|log| sampler.observe(&log.had, log.positives()));
    sampler.settle();
    let mut drawn = Drawn::default();
    let mut report = given.write(out, None, |part, push| {
        let mut logs = users.logs.iter().filter(|log| log.part == part);
        logs.try_for_each(|log| log.groups(&sampler, options, &mut drawn, push))
    })?;
    report.drawn = Some(drawn);
    report.warnings.push(LEAVE_ONE_OUT.to_string());
    Ok(report)
}

fn check_options(options: &Options) -> Result<()> {
    let wrong = |what: String| Err(Error::option(what));
    let (most, fraction) = (options.max_behaviors, options.test_fraction);
    if most == 0 || most > MOST_BEHAVIORS {
        return wrong(format!("max_behaviors is {most}; expected 1 to {MOST_BEHAVIORS}"));
    }
    if !(fraction > 0.0 && fraction < 1.0) {
        return wrong(format!("a test fraction of {fraction}; expected between 0 and 1"));
    }
    if options.negatives.count == 0 {
        return wrong("0 negatives per positive; expected at least 1: pairs are positives".into());
    }
    match options.negatives.method {
        Method::Uniform | Method::Popularity | Method::Stratified => Ok(()),
        method => wrong(format!(
            "negatives from {}; expected uniform, popularity or stratified: the pairs have no times",
            method.as_str()
        )),
    }
}

/// What was read: numbers of users and items, in their order.
#[derive(Default)]
struct Pairs {
    users: Interner,
    items: Items,
    /// Of every user the items, each once.
    had: Vec<Vec<Had>>,
    rows: u64,
    dropped: Dropped,
}

/// An item that a user had.
struct Had {
    /// Its number in [`Pairs::items`].
    item: u32,
    split: SplitName,
}

impl Pairs {
    fn read(&mut self, path: &Path, split: SplitName, options: &Options) -> Result<()> {
        let is_text = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt"));
        let read = if is_text { Pairs::read_lines } else { Pairs::read_table };
        read(self, path, split, options)?;
        self.drop_repeated();
        Ok(())
    }

    fn read_lines(&mut self, path: &Path, split: SplitName, _: &Options) -> Result<()> {
        let file = File::open(path).map_err(Error::io(path))?;
        for (at, line) in BufReader::new(file).lines().enumerate() {
            let wrong = |what: String| Error::content(path, format!("line {}: {what}", at + 1));
            let line = line.map_err(|error| wrong(error.to_string()))?;
            if line.contains(',') {
                return Err(wrong(
                    "a comma; expected `user item item ..` separated by spaces or tabs; rows of a table go in a \
                     file that is not called .txt"
                        .to_string(),
                ));
            }
            let mut cells = line.split_whitespace();
            let Some(user) = cells.next() else { continue };
            for item in cells {
                self.add(user, item, split).map_err(&wrong)?;
            }
        }
        Ok(())
    }

    fn read_table(&mut self, path: &Path, split: SplitName, options: &Options) -> Result<()> {
        let header = options.header.clone();
        let table = source::open(path, &TableOptions { header, ..TableOptions::default() })?;
        let columns = columns(table.as_ref(), options)?;
        for batch in table.batches(&columns)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                let added = self.add(batch.get(0, row), batch.get(1, row), split);
                added.map_err(|what| {
                    Error::content(path, format!("{}: {what}", batch.place(row)))
                })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, user: &str, item: &str, split: SplitName) -> Result<(), String> {
        self.rows += 1;
        let (user, item) = (id(user)?, id(item)?);
        match (&*user, &*item) {
            ("", _) => self.dropped.without_user += 1,
            (_, "") => self.dropped.without_item += 1,
            (user, item) => {
                let (number, new) = self.users.intern(user);
                if new {
                    self.had.push(Vec::new());
                }
                self.items.add(item, item, &[]);
                self.had[number as usize].push(Had { item: self.items.number(item), split });
            }
        }
        Ok(())
    }

    /// The first of equal pairs stays, so those of train do.
    fn drop_repeated(&mut self) {
        let mut seen = HashSet::new();
        for had in &mut self.had {
            seen.clear();
            let before = had.len();
            had.retain(|had| seen.insert(had.item));
            self.dropped.duplicates += (before - had.len()) as u64;
        }
    }

    /// Puts a share of each user's items into the test, chosen by hashes of the texts.
    fn hold_out(&mut self, fraction: f64, seed: u64) {
        for (number, had) in self.had.iter_mut().enumerate() {
            let user = Id::of(USER, self.users.texts().get(number));
            for had in had.iter_mut().skip(1) {
                let item = Id::of(crate::schema::ITEM, self.items.text(had.item as usize));
                let words = [user.0, item.0].map(u64::to_le);
                let hash = xxh3_64_with_seed(bytemuck::bytes_of(&words), seed);
                let is_held = ((hash >> 11) as f64) < fraction * (1u64 << 53) as f64;
                had.split = if is_held { SplitName::Test } else { SplitName::Train };
            }
        }
    }
}

/// The columns of users and items.
fn columns(table: &dyn Table, options: &Options) -> Result<Vec<usize>> {
    let names = table.columns();
    let find = |given: &Option<String>, usual: [&str; 3], at: usize, flag: &str| {
        let position = match given {
            Some(name) => names.iter().position(|column| column == name),
            None => names
                .iter()
                .position(|column| usual.iter().any(|name| column.eq_ignore_ascii_case(name)))
                .or((names.len() == 2).then_some(at)),
        };
        position.ok_or_else(|| {
            let wanted = given.as_deref().unwrap_or(usual[0]);
            let found = names.join(", ");
            let what = format!("no column `{wanted}`; found: {found}; name it with {flag}");
            Error::content(table.path(), what)
        })
    };
    if options.header.is_none() && names.iter().all(|name| name.trim().parse::<f64>().is_ok()) {
        let what = format!(
            "the first line is {}, which is no header; name the columns with --header user,item",
            names.join(", ")
        );
        return Err(Error::content(table.path(), what));
    }
    Ok(vec![
        find(&options.user, ["user", "user_id", "userid"], 0, "--user")?,
        find(&options.item, ["item", "item_id", "itemid"], 1, "--item")?,
    ])
}

/// All users in order of their texts, with items as rows of the catalogue.
struct Users<'a> {
    logs: Vec<Log<'a>>,
}

struct Log<'a> {
    user: &'a str,
    id: Id,
    part: usize,
    train: Vec<u32>,
    test: Vec<u32>,
    /// All of them, ascending.
    had: Vec<u32>,
}

impl<'a> Users<'a> {
    fn new(users: &'a Interner, had: Vec<Vec<Had>>, item_rows: &[u32]) -> Users<'a> {
        let log = |number: u32| {
            let user = users.texts().get(number as usize);
            let id = Id::of(USER, user);
            let items = |split: SplitName| -> Vec<u32> {
                let items = had[number as usize].iter().filter(|had| had.split == split);
                items.map(|had| item_rows[had.item as usize]).collect()
            };
            let (train, test) = (items(SplitName::Train), items(SplitName::Test));
            let mut had = [&train[..], &test].concat();
            had.sort_unstable();
            Log { user, id, part: part_of(id.0, PARTS), train, test, had }
        };
        Users { logs: users.sorted().into_iter().map(log).collect() }
    }
}

impl Log<'_> {
    fn positive(&self, item: u32, test: bool) -> Positive {
        Positive { user: self.id, time: 0, item, test }
    }

    fn positives(&self) -> impl Iterator<Item = Positive> {
        let train = self.train.iter().map(|&item| self.positive(item, false));
        train.chain(self.test.iter().map(|&item| self.positive(item, true)))
    }

    /// A group for every training positive, and one for the test.
    fn groups(
        &self,
        sampler: &Sampler,
        options: &Options,
        drawn: &mut Drawn,
        push: &mut dyn FnMut(&GivenGroup) -> Result<()>,
    ) -> Result<()> {
        let mut negatives = Vec::new();
        let mut draw = |positive: Positive, index: usize, shown: &mut Vec<GivenItem>| {
            sampler.draw(positive, index, &self.had, drawn, &mut negatives);
            let from = shown.len();
            shown.push(GivenItem { item: positive.item, label: 1 });
            shown.extend(negatives.iter().map(|&item| GivenItem { item, label: 0 }));
            // The position does not tell the label.
            shown[from..].sort_unstable();
        };
        let user = self.user;
        let mut shown = Vec::new();
        for (at, &item) in self.train.iter().enumerate() {
            // Those before it, then those after: also where there are more than are kept, every
            // item is in some history.
            let (before, after) = (&self.train[..at], &self.train[at + 1..]);
            let others = before.iter().rev().chain(after.iter().rev());
            let history: Vec<u32> = others.take(options.max_behaviors).copied().collect();
            shown.clear();
            draw(self.positive(item, false), at, &mut shown);
            push(&GivenGroup { user, split: SplitName::Train, history: &history, shown: &shown })?;
        }
        shown.clear();
        for (at, &item) in self.test.iter().enumerate() {
            draw(self.positive(item, true), self.train.len() + at, &mut shown);
        }
        if shown.is_empty() {
            return Ok(());
        }
        let history: Vec<u32> =
            self.train.iter().rev().take(options.max_behaviors).copied().collect();
        push(&GivenGroup { user, split: SplitName::Test, history: &history, shown: &shown })
    }
}
