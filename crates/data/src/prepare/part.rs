//! One part of the users in memory: their events in order, duplicates left out.

use super::history::{Event, LeftOut, Repeats, clean, tail_begin};
use super::items::Interner;
use super::spill::{Row, rows};
use crate::schema::USER;
use crate::{Id, Result};

/// Where a user's test begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    Time(i64),
    /// At the last fraction of the user's events.
    Tail(f64),
}

/// The events of some users, ordered by user text and time, ties by item, label and text: by
/// content only, never by arrival.
pub(crate) struct Part<'a> {
    users: Interner,
    order: Vec<u32>,
    /// Position in `order` and event.
    events: Vec<(u32, Event)>,
    texts: Vec<Row<'a>>,
}

pub(crate) struct UserLog<'a> {
    pub(crate) user: &'a str,
    pub(crate) id: Id,
    pub(crate) events: &'a [Event],
    /// Position of the first event of the test.
    pub(crate) test_begin: usize,
    /// The items of all positive events, ascending.
    pub(crate) had: &'a [u32],
}

impl<'a> Part<'a> {
    /// Reads the rows of a part; `item_rows` maps item numbers to rows of the catalogue.
    pub(crate) fn new(bytes: &'a [u8], item_rows: &[u32]) -> Part<'a> {
        let mut users = Interner::default();
        let mut events = Vec::new();
        let mut texts = Vec::new();
        for mut row in rows(bytes) {
            let (user, _) = users.intern(row.text());
            let [item, time, label, weighs] = std::array::from_fn(|_| row.number());
            let event = Event {
                time,
                item: item_rows[item as usize],
                label: label as u8,
                weighs: weighs == 1,
                row: texts.len() as u32,
            };
            texts.push(row);
            events.push((user, event));
        }
        let order = users.sorted();
        let mut rank = vec![0; order.len()];
        for (at, &user) in order.iter().enumerate() {
            rank[user as usize] = at as u32;
        }
        events.iter_mut().for_each(|(user, _)| *user = rank[*user as usize]);
        events.sort_unstable_by(|(user, a), (other, b)| {
            let key = |user: &u32, event: &Event| {
                (*user, event.time, event.item, event.label, !event.weighs)
            };
            let texts = |event: &Event| texts[event.row as usize].rest();
            key(user, a).cmp(&key(other, b)).then_with(|| texts(a).cmp(texts(b)))
        });
        Part { users, order, events, texts }
    }

    /// The texts of an event's row.
    pub(crate) fn texts(&self, row: u32) -> Row<'a> {
        self.texts[row as usize]
    }

    /// Hands over the log of every user, in order of their texts; sums up what was left out.
    pub(crate) fn for_each_user(
        &self,
        repeats: Repeats,
        cut: Cut,
        mut take: impl FnMut(&UserLog) -> Result<()>,
    ) -> Result<LeftOut> {
        let mut out = LeftOut::default();
        let mut events = Vec::new();
        let mut had = Vec::new();
        for run in self.events.chunk_by(|(user, _), (other, _)| user == other) {
            events.clear();
            events.extend(run.iter().map(|&(_, event)| event));
            let left = clean(&mut events, repeats);
            out.duplicates += left.duplicates;
            out.repeated += left.repeated;
            out.light += left.light;
            had.clear();
            had.extend(events.iter().filter(|event| event.label == 1).map(|event| event.item));
            had.sort_unstable();
            had.dedup();
            let user = self.users.texts().get(self.order[run[0].0 as usize] as usize);
            let test_begin = match cut {
                Cut::Time(time) => events.partition_point(|event| event.time < time),
                Cut::Tail(fraction) => tail_begin(&events, fraction),
            };
            let id = Id::of(USER, user);
            take(&UserLog { user, id, events: &events, test_begin, had: &had })?;
        }
        Ok(out)
    }
}
