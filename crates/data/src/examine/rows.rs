//! The impressions that an examination looks at, in columns: of a dataset, or of a table of events
//! from before it was prepared.
//!
//! At most [`HELD`] rows are held. Where there are more, these are all rows of one user in 2, 4, 8,
//! .. chosen by the user's id, so the rows do not depend on their order or on threads.

use crate::dataset::{Dataset, SplitName};
use crate::prepare::{Peek, PrepareOptions, Role};
use crate::schema::{Field, ITEM, Side, USER};
use crate::source::{Table, TextBatch};
use crate::value::{TimeReader, category, id, is_missing, label, measure};
use crate::{Error, Groups, Id, PictureName, Ragged, Result, SampleFile};

/// Rows that are held.
pub(super) const HELD: usize = 1 << 21;

/// Share of a table of events that is taken for its test: the newest, as `prepare` cuts it.
const TEST: f64 = 0.1;

/// The value of a row that has none.
pub(super) const MISSING: Id = Id(0);

/// Rows in columns. Letter: R rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub users: Vec<Id>,
    pub items: Vec<Id>,
    pub times: Vec<i64>,
    /// 1 clicked, 0 not.
    pub labels: Vec<u8>,
    pub is_test: Vec<bool>,
    /// The picture of each item shown; empty where the rows are no dataset's.
    pub pictures: Vec<PictureName>,
    pub fields: Vec<Column>,
    /// Rows without user, item or time.
    pub incomplete: u64,
    /// Rows that there are, those without user, item or time included.
    pub seen: u64,
    /// Users stay whose ids end in so many zero bits.
    pub halvings: u32,
}

/// A field of the rows.
#[derive(Debug)]
pub(super) struct Column {
    pub name: String,
    /// None of a table of events, whose columns have no side yet.
    pub side: Option<Side>,
    /// (R) rows; [`MISSING`] where there is no value.
    pub values: Ragged<Id>,
    /// (R), NaN where there is none; nothing where a value is no number, or is a bucket's.
    pub numbers: Option<Vec<f64>>,
}

impl Column {
    fn new(name: &str, side: Option<Side>) -> Column {
        let numbers = side.is_none().then(Vec::new);
        Column { name: name.to_owned(), side, values: Ragged::default(), numbers }
    }

    fn push(&mut self, values: &[Id]) {
        self.values.push(if values.is_empty() { &[MISSING] } else { values });
    }

    fn push_text(&mut self, cell: &str) -> Result<(), String> {
        let text = category(cell)?;
        match text.is_empty() {
            true => self.push(&[]),
            false => self.push(&[Id::of(&self.name, &text)]),
        }
        let Some(numbers) = &mut self.numbers else { return Ok(()) };
        match measure(cell, None) {
            Ok(number) => numbers.push(number.unwrap_or(f64::NAN)),
            Err(_) => self.numbers = None,
        }
        Ok(())
    }

    fn retain(&mut self, keep: &[usize]) {
        let mut values = Ragged::default();
        keep.iter().for_each(|&row| values.push(self.values.row(row)));
        self.values = values;
        if let Some(numbers) = &mut self.numbers {
            *numbers = keep.iter().map(|&row| numbers[row]).collect();
        }
    }
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// The impressions of a dataset.
    pub(super) fn of_dataset(dataset: &Dataset, most: usize) -> Result<Rows> {
        let schema = dataset.schema();
        let of =
            |side: Side| schema.side(side).map(move |field| Column::new(&field.name, Some(side)));
        let fields = of(Side::User).chain(of(Side::Ad)).chain(of(Side::Context)).collect();
        let mut rows = Rows { fields, ..Rows::default() };
        let is_item = |field: &Field| field.name == ITEM;
        let item = schema.side(Side::Ad).position(is_item).expect("a card without is refused");
        let mut groups = Groups::new(schema);
        for part in 0..dataset.card().parts {
            for split in SplitName::ALL {
                let file = SampleFile::open(&dataset.part_path(split, part), schema)?;
                for block in 0..file.blocks() {
                    groups.clear();
                    file.read(block, &mut groups)?;
                    rows.add_groups(&groups, item, split);
                    rows.shrink(most);
                }
            }
        }
        Ok(rows)
    }

    /// `item` is the position of the item among the fields of an ad.
    fn add_groups(&mut self, groups: &Groups, item: usize, split: SplitName) {
        for group in 0..groups.len() {
            let impressions = groups.impressions.range(group);
            self.seen += impressions.len() as u64;
            if !self.stays(groups.users[group]) {
                continue;
            }
            for row in impressions {
                self.users.push(groups.users[group]);
                self.items
                    .push(groups.ad_fields[item].row(row).first().copied().unwrap_or(MISSING));
                self.times.push(groups.times[row]);
                self.labels.push(groups.labels[row]);
                self.is_test.push(split == SplitName::Test);
                self.pictures.push(groups.ad_pictures[row]);
                let users = groups.user_fields.iter().map(|column| column.row(group));
                let shown = groups.ad_fields.iter().chain(&groups.context_fields);
                let values = users.chain(shown.map(|column| column.row(row)));
                self.fields.iter_mut().zip(values).for_each(|(to, values)| to.push(values));
            }
        }
    }

    /// The rows of a table of events, with all its columns; `options` say which is which. The test
    /// is its newest tenth.
    pub(super) fn of_table(
        table: &dyn Table,
        options: &PrepareOptions,
        most: usize,
    ) -> Result<Rows> {
        let columns = EventColumns::find(table, options)?;
        let all: Vec<usize> = columns
            .keys
            .iter()
            .chain(columns.fields().map(|(column, _)| column))
            .copied()
            .collect();
        let mut times = TimeReader::new(options.time_format.as_deref()).map_err(Error::option)?;
        let mut fields: Vec<Column> = Vec::new();
        for (&column, is_key) in columns.fields() {
            let field = Column::new(&table.columns()[column], None);
            // An id in digits is no number.
            fields.push(Column { numbers: field.numbers.filter(|_| !is_key), ..field });
        }
        let mut rows = Rows { fields, ..Rows::default() };
        for batch in table.batches(&all)? {
            let batch = batch?;
            for row in 0..batch.rows() {
                rows.add_event(table, &batch, row, &all, options, &mut times)?;
            }
            rows.shrink(most);
        }
        rows.cut();
        for field in &mut rows.fields {
            let is_number = |numbers: &Vec<f64>| numbers.iter().any(|number| !number.is_nan());
            field.numbers = field.numbers.take().filter(is_number);
        }
        Ok(rows)
    }

    fn add_event(
        &mut self,
        table: &dyn Table,
        batch: &TextBatch,
        row: usize,
        columns: &[usize],
        options: &PrepareOptions,
        times: &mut TimeReader,
    ) -> Result<()> {
        let wrong = |position: usize, what: String| {
            let column = &table.columns()[columns[position]];
            Error::content(table.path(), format!("{}, column `{column}`: {what}", batch.place(row)))
        };
        let key = |at: usize| id(batch.get(at, row)).map_err(|what| wrong(at, what));
        let (user, item, time) = (key(0)?, key(1)?, batch.get(2, row).trim());
        self.seen += 1;
        if user.is_empty() || item.is_empty() || is_missing(time) {
            self.incomplete += 1;
            return Ok(());
        }
        let user = Id::of(USER, &user);
        if !self.stays(user) {
            return Ok(());
        }
        let time = times.read(time).map_err(|what| wrong(2, what))?;
        let keys = columns.len() - self.fields.len();
        let clicked = match keys {
            3 => 1,
            _ => label(batch.get(3, row).trim(), options.label_rule())
                .map_err(|what| wrong(3, what))?,
        };
        for (at, field) in self.fields.iter_mut().enumerate() {
            field.push_text(batch.get(keys + at, row)).map_err(|what| wrong(keys + at, what))?;
        }
        self.users.push(user);
        self.items.push(Id::of(ITEM, &item));
        self.times.push(time);
        self.labels.push(clicked);
        Ok(())
    }

    fn stays(&self, user: Id) -> bool {
        user.0.trailing_zeros() >= self.halvings
    }

    /// Leaves out half of the users while there are more than `most` rows.
    fn shrink(&mut self, most: usize) {
        while self.len() > most && self.halvings < 32 {
            self.halvings += 1;
            let keep: Vec<usize> =
                (0..self.len()).filter(|&row| self.stays(self.users[row])).collect();
            fn of<T: Copy>(column: &mut Vec<T>, keep: &[usize]) {
                if !column.is_empty() {
                    *column = keep.iter().map(|&row| column[row]).collect();
                }
            }
            of(&mut self.users, &keep);
            of(&mut self.items, &keep);
            of(&mut self.times, &keep);
            of(&mut self.labels, &keep);
            of(&mut self.is_test, &keep);
            of(&mut self.pictures, &keep);
            self.fields.iter_mut().for_each(|field| field.retain(&keep));
        }
    }

    /// Makes the newest rows the test.
    fn cut(&mut self) {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = times.len() - (times.len() as f64 * TEST) as usize;
        let first = times.get(at).copied().unwrap_or(i64::MAX);
        self.is_test = self.times.iter().map(|&time| time >= first).collect();
    }
}

/// The columns of a table of events.
struct EventColumns {
    /// User, item, time, and the label if there is one.
    keys: Vec<usize>,
    others: Vec<usize>,
}

impl EventColumns {
    /// The columns whose values are looked at, and whether they are ids: user and item, then all
    /// that are no keys.
    fn fields(&self) -> impl Iterator<Item = (&usize, bool)> {
        let ids = self.keys[..2].iter().map(|column| (column, true));
        ids.chain(self.others.iter().map(|column| (column, false)))
    }

    fn find(table: &dyn Table, options: &PrepareOptions) -> Result<EventColumns> {
        let (events, named) = (Peek::new(table)?, &options.columns);
        let mut keys = vec![
            events.require(Role::User, named.user.as_deref())?,
            events.require(Role::Item, named.item.as_deref())?,
            events.require(Role::Time, named.time.as_deref())?,
        ];
        keys.extend(events.find(Role::Label, named.label.as_deref())?);
        let is_other = |at: &usize| !keys.contains(at) && table.unusable(*at).is_none();
        let others = (0..table.columns().len()).filter(is_other).collect();
        Ok(EventColumns { keys, others })
    }
}
