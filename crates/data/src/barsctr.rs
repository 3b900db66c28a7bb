//! The short-video data of the open benchmark BARS-CTR, MicroVideo1.7M_x1 and KuaiVideo_x1, with
//! the split and the histories that its other models have.
//!
//! ```text
//! train.csv, test.csv   a row per impression, oldest first, with a header
//!   MicroVideo1.7M_x1   user_id, item_id, cate_id, is_click, clicked_items, clicked_categories, ..
//!   KuaiVideo_x1        user_id, item_id, is_click, pos_items, ..
//! *_emb_dim64.h5        vectors of items, as HDF5 (`key` and `value`): for `encode`, not read here
//! ```
//! A list is the user's past clicks, oldest first, parts separated by `^`. The picture of an item
//! is called as the item.

use std::path::Path;

use hashbrown::HashMap;

use crate::dataset::SplitName;
use crate::prepare::given::{Given, GivenCard, GivenGroup, GivenItem, MOST_BEHAVIORS, item_field};
use crate::prepare::items::Items;
use crate::prepare::spill::{Spill, rows};
use crate::prepare::{Dropped, Existing, PrepareReport};
use crate::schema::{Labels, PARTS};
use crate::source::{self, Table, TableOptions, TextBatch};
use crate::value::{LabelRule, category, id, label};
use crate::{Error, Result};

/// What separates the parts of a list.
const SEPARATOR: char = '^';

/// Impressions of a group, at most.
const GROUP_MAX: usize = 64;

/// Behaviors that the benchmark's models see.
pub const MAX_BEHAVIORS: usize = 100;

/// One of the two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Video {
    /// MicroVideo1.7M_x1.
    Micro,
    /// KuaiVideo_x1.
    Kuai,
}

/// The columns of a list and of the categories beside it, if there are any.
struct Layout {
    history: &'static str,
    categories: Option<[&'static str; 2]>,
}

impl Video {
    fn layout(self) -> Layout {
        match self {
            Video::Micro => Layout {
                history: "clicked_items",
                categories: Some(["cate_id", "clicked_categories"]),
            },
            Video::Kuai => Layout { history: "pos_items", categories: None },
        }
    }
}

/// How a data set is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the dataset is called; not given: as its folder.
    pub name: Option<String>,
    /// Behaviors that a group keeps, the newest.
    pub max_behaviors: usize,
    /// What to do with a dataset that is there.
    pub existing: Existing,
}

/// Makes the dataset `out` of `train.csv` and `test.csv` in `dir`. `progress` hears of rows.
///
/// # Errors
/// [`Error::Content`] with file, row and column where a table is not what it should be;
/// [`Error::Option`]; [`Error::Io`].
pub fn import(
    dir: &Path,
    video: Video,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<PrepareReport> {
    if options.max_behaviors == 0 || options.max_behaviors > MOST_BEHAVIORS {
        let what =
            format!("max_behaviors is {}; expected 1 to {MOST_BEHAVIORS}", options.max_behaviors);
        return Err(Error::option(what));
    }
    let layout = video.layout();
    let fields: Vec<_> = layout.categories.iter().map(|_| item_field("category")).collect();
    let folder = Given::place(out, options.existing)?;
    let spill = folder.temporary().join("spill");
    let mut reader = Reader {
        layout,
        items: Items::new(fields.clone()),
        spill: Spill::create(spill.clone(), PARTS * 16)?,
        last: HashMap::new(),
        rows: 0,
        dropped: Dropped::default(),
        max_behaviors: options.max_behaviors,
    };
    for split in SplitName::ALL {
        let path = dir.join(format!("{}.csv", split.as_str()));
        let table = source::open(&path, &TableOptions::default())?;
        reader.read(table.as_ref(), split, progress)?;
    }
    reader.spill.finish()?;
    let Reader { items, spill: samples, rows: count, dropped, .. } = reader;
    let card = GivenCard {
        name: options.name.clone(),
        parts: PARTS,
        max_behaviors: options.max_behaviors,
        labels: Labels::Observed,
        rows: count,
        dropped,
    };
    let (given, item_rows) = Given::new(folder, items, &fields, card)?;
    given.write(out, None, |part, push| {
        for portion in samples.portions(part * 16..(part + 1) * 16, 64 << 20) {
            let bytes = samples.read(portion)?;
            write_portion(&bytes, &item_rows, push)?;
        }
        if part + 1 == PARTS {
            std::fs::remove_dir_all(&spill).map_err(Error::io(&spill))?;
        }
        Ok(())
    })
}

/// Reads both files into rows by user: item number, label, split, whether the history is another
/// than that of the user's last row; and if so the history, numbers of items, newest first.
struct Reader {
    layout: Layout,
    items: Items,
    spill: Spill,
    /// Of every user, split and history of the last row, hashed.
    last: HashMap<String, u64>,
    rows: u64,
    dropped: Dropped,
    max_behaviors: usize,
}

impl Reader {
    /// Reads one file. The columns are at fixed places: user, item, label, history, categories.
    fn read(
        &mut self,
        table: &dyn Table,
        split: SplitName,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut names = vec!["user_id", "item_id", "is_click", self.layout.history];
        names.extend(self.layout.categories.into_iter().flatten());
        let columns = columns(table, &names)?;
        for batch in table.batches(&columns)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                self.rows += 1;
                let place = |at: usize, what: String| {
                    let place = format!("{}, column `{}`", batch.place(row), names[at]);
                    Error::content(table.path(), format!("{place}: {what}"))
                };
                self.row(&batch, row, split, place)?;
            }
            progress(self.rows);
        }
        Ok(())
    }

    fn row(
        &mut self,
        batch: &TextBatch,
        row: usize,
        split: SplitName,
        wrong: impl Fn(usize, String) -> Error,
    ) -> Result<()> {
        let user = id(batch.get(0, row)).map_err(|what| wrong(0, what))?;
        let item = id(batch.get(1, row)).map_err(|what| wrong(1, what))?;
        if user.is_empty() || item.is_empty() {
            let missing = &mut self.dropped;
            *(if user.is_empty() {
                &mut missing.without_user
            } else {
                &mut missing.without_item
            }) += 1;
            return Ok(());
        }
        let rule = LabelRule { from: None, words: &[], decimal: None };
        let label = label(batch.get(2, row).trim(), rule).map_err(|what| wrong(2, what))?;
        if self.layout.categories.is_some() {
            let own = category(batch.get(4, row)).map_err(|what| wrong(4, what))?;
            self.items.add(&item, &item, &[own.into_owned()]);
        } else {
            self.items.add(&item, &item, &[]);
        }
        let test = split == SplitName::Test;
        let hash =
            xxhash_rust::xxh3::xxh3_64_with_seed(batch.get(3, row).as_bytes(), u64::from(test));
        let same = self.last.get(&*user) == Some(&hash);
        let history = if same {
            String::new()
        } else {
            self.last.insert(user.to_string(), hash);
            self.history(batch, row, wrong)?
        };
        let item = i64::from(self.items.number(&item));
        let numbers = [item, i64::from(label), i64::from(test), i64::from(!same)];
        self.spill.push(&user, &numbers, &[history])
    }

    /// The numbers of the items of a history, newest first.
    fn history(
        &mut self,
        batch: &TextBatch,
        row: usize,
        wrong: impl Fn(usize, String) -> Error,
    ) -> Result<String> {
        let parts = |at: usize| {
            let parts = batch.get(at, row).split(SEPARATOR).map(str::trim);
            parts.filter(|part| !part.is_empty()).collect::<Vec<_>>()
        };
        let history = parts(3);
        let categories = if self.layout.categories.is_some() { parts(5) } else { Vec::new() };
        if self.layout.categories.is_some() && categories.len() != history.len() {
            let (some, all) = (categories.len(), history.len());
            return Err(wrong(
                5,
                format!("{some} categories of {all} items; expected one of each"),
            ));
        }
        let mut numbers = Vec::with_capacity(history.len());
        for (at, text) in history.into_iter().enumerate() {
            let item = id(text).map_err(|what| wrong(3, what))?;
            if item.is_empty() {
                return Err(wrong(3, format!("`{text}` is no item")));
            }
            let values =
                categories.get(at).map(|text| category(text).map(|text| text.into_owned()));
            let values = values.transpose().map_err(|what| wrong(5, what))?;
            self.items.add(&item, &item, values.as_slice());
            numbers.push(self.items.number(&item).to_string());
        }
        numbers.reverse();
        numbers.truncate(self.max_behaviors);
        Ok(numbers.join(" "))
    }
}

/// The positions of these columns.
fn columns(table: &dyn Table, names: &[&str]) -> Result<Vec<usize>> {
    let find = |name: &&str| {
        table.columns().iter().position(|column| column == name).ok_or_else(|| {
            let found = table.columns().join(", ");
            Error::content(table.path(), format!("no column `{name}`; found: {found}"))
        })
    };
    names.iter().map(find).collect()
}

/// The groups of some users: runs of rows with one history.
fn write_portion(
    bytes: &[u8],
    item_rows: &[u32],
    push: &mut dyn FnMut(&GivenGroup) -> Result<()>,
) -> Result<()> {
    let mut users: HashMap<&str, usize> = HashMap::new();
    let mut logs: Vec<(&str, Vec<_>)> = Vec::new();
    for mut row in rows(bytes) {
        let user = row.text();
        let at = *users.entry(user).or_insert(logs.len());
        if at == logs.len() {
            logs.push((user, Vec::new()));
        }
        let numbers: [i64; 4] = std::array::from_fn(|_| row.number());
        logs[at].1.push((numbers, row.text()));
    }
    logs.sort_unstable_by_key(|(user, _)| *user);
    for (user, log) in logs {
        let mut begin = 0;
        let mut history: Vec<u32> = Vec::new();
        for at in 0..log.len() {
            let (_, text) = log[at];
            if log[at].0[3] == 1 {
                let items = text.split(' ').filter(|number| !number.is_empty());
                let row = |number: &str| number.parse().ok().map(|number: usize| item_rows[number]);
                history = items.filter_map(row).collect();
            }
            let ends = log.get(at + 1).is_none_or(|(next, _)| next[3] == 1);
            if ends || at + 1 - begin >= GROUP_MAX {
                let shown = log[begin..=at].iter();
                let shown: Vec<_> = shown
                    .map(|([item, label, ..], _)| GivenItem {
                        item: item_rows[*item as usize],
                        label: *label as u8,
                    })
                    .collect();
                let split = if log[at].0[2] == 1 { SplitName::Test } else { SplitName::Train };
                push(&GivenGroup { user, split, history: &history, shown: &shown })?;
                begin = at + 1;
            }
        }
    }
    Ok(())
}
