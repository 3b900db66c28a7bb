//! Datasets whose histories or splits come with the log, instead of following from times: groups
//! as they are given, into the same files. Knows items, users and their order; not where they come
//! from.
//!
//! There are no instants. The time of an impression is a position: its place among all impressions
//! of its user, train before test, counted from [`FIRST`]. Behaviors stand one after the other
//! before their group, so that the order of a history is kept and no behavior is later than what
//! it helps to predict.

use std::path::Path;

use super::build::Tally;
use super::items::Items;
use super::report::{Dropped, PrepareReport};
use super::{Existing, check_place, counts};
use crate::catalogue::Catalogue;
use crate::dataset::{SplitName, part_path, write_card};
use crate::negatives::Drawn;
use crate::samples::{BLOCK_GROUPS, Behavior, GroupRow, Impression, SampleWriter};
use crate::schema::{Card, FORMAT, Field, FieldKind, ITEM, Labels, Schema, Side, Split, USER};
use crate::staging::StagedFolder;
use crate::{Error, Id, Result, part_of};

/// The position of a user's first impression: more than there are behaviors in a group.
const FIRST: i64 = 1 << 20;

/// Most behaviors that a group may keep.
pub(crate) const MOST_BEHAVIORS: usize = FIRST as usize;

/// One group: items are rows of the catalogue.
pub(crate) struct GivenGroup<'a> {
    pub(crate) user: &'a str,
    pub(crate) split: SplitName,
    pub(crate) history: &'a [u32],
    /// Its impressions in the order of the log.
    pub(crate) shown: &'a [GivenItem],
}

/// An item that is shown, a row of the catalogue; in the order of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GivenItem {
    pub(crate) item: u32,
    /// 1 clicked, 0 not.
    pub(crate) label: u8,
}

/// What is known before the groups come.
pub(crate) struct GivenCard {
    pub(crate) name: Option<String>,
    pub(crate) parts: usize,
    pub(crate) max_behaviors: usize,
    pub(crate) labels: Labels,
    /// Rows of the log.
    pub(crate) rows: u64,
    pub(crate) dropped: Dropped,
}

/// The fields `user` and `item`, and those of items.
pub(crate) fn schema(item_fields: &[Field]) -> Schema {
    let plain = |name: &str, side| Field {
        kind: Some(FieldKind::Categorical),
        ..Field::verbatim(name, side, false)
    };
    let mut fields = vec![plain(USER, Side::User)];
    for side in [Side::Behavior, Side::Ad] {
        fields.push(plain(ITEM, side));
        fields.extend(item_fields.iter().map(|field| Field { side, ..field.clone() }));
    }
    Schema { fields }
}

/// A categorical field of items.
pub(crate) fn item_field(name: &str) -> Field {
    Field { kind: Some(FieldKind::Categorical), ..Field::verbatim(name, Side::Ad, false) }
}

/// A dataset that is being written.
pub(crate) struct Given {
    folder: StagedFolder,
    schema: Schema,
    catalogue: Catalogue,
    card: GivenCard,
}

impl Given {
    /// Begins the dataset that will be `out`; a place is needed before there are items.
    pub(crate) fn place(out: &Path, existing: Existing) -> Result<StagedFolder> {
        check_place(out, existing)?;
        StagedFolder::create(out)
    }

    /// Goes on once all items are known; also says the catalogue's row of every item's number.
    pub(crate) fn new(
        folder: StagedFolder,
        items: Items,
        item_fields: &[Field],
        card: GivenCard,
    ) -> Result<(Given, Vec<u32>)> {
        let (catalogue, rows) = items.finish();
        catalogue.write(folder.temporary())?;
        for split in SplitName::ALL {
            let path = folder.temporary().join(split.as_str());
            std::fs::create_dir_all(&path).map_err(Error::io(&path))?;
        }
        Ok((Given { folder, schema: schema(item_fields), catalogue, card }, rows))
    }

    /// Writes all parts and the card. `groups` hands over the groups of the users of one part: of
    /// every user train before test and otherwise in their order, users one after the other.
    pub(crate) fn write(
        self,
        out: &Path,
        drawn: Option<Drawn>,
        mut groups: impl FnMut(usize, &mut dyn FnMut(&GivenGroup) -> Result<()>) -> Result<()>,
    ) -> Result<PrepareReport> {
        let dir = self.folder.temporary();
        let mut tally = Tally::default();
        for part in 0..self.card.parts {
            let writer = |split| {
                let path = part_path(dir, split, part);
                SampleWriter::create(&path, &self.schema, &self.catalogue, BLOCK_GROUPS)
            };
            let mut writers = [writer(SplitName::Train)?, writer(SplitName::Test)?];
            let mut positions = Positions::default();
            groups(part, &mut |group| {
                debug_assert_eq!(part_of(Id::of(USER, group.user).0, self.card.parts), part);
                let first = positions.take(group.user, group.shown.len(), &mut tally);
                write_group(group, first, self.card.max_behaviors, &mut writers, &mut tally)
            })?;
            for writer in writers {
                writer.finish()?;
            }
        }
        let empty = match (tally.train, tally.test) {
            (0, _) => Some("train"),
            (_, 0) => Some("test"),
            _ => None,
        };
        if let Some(half) = empty {
            return Err(Error::content(out, format!("{half} would be empty")));
        }
        let card = self.finished_card(out, &tally);
        write_card(dir, &card)?;
        self.folder.replace()?;
        Ok(PrepareReport {
            counts: card.counts,
            split: card.split,
            labels: card.labels,
            rows: self.card.rows,
            dropped: self.card.dropped,
            items_without_row: 0,
            users_without_row: 0,
            null_words: 0,
            items_redescribed: 0,
            users_redescribed: 0,
            drawn,
            understood: Vec::new(),
            own_past: None,
            warnings: Vec::new(),
        })
    }

    fn finished_card(&self, out: &Path, tally: &Tally) -> Card {
        let folder = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Card {
            format: FORMAT.to_string(),
            name: self.card.name.clone().unwrap_or(folder),
            parts: self.card.parts,
            fields: self.schema.clone(),
            split: Split::UserTail {
                fraction: tally.test as f64 / (tally.train + tally.test) as f64,
            },
            labels: self.card.labels.clone(),
            hold_out_items: None,
            max_behaviors: self.card.max_behaviors,
            counts: counts(tally, &self.catalogue),
        }
    }
}

/// The next position of the user whose groups are coming.
#[derive(Default)]
struct Positions {
    user: String,
    next: i64,
}

impl Positions {
    fn take(&mut self, user: &str, shown: usize, tally: &mut Tally) -> i64 {
        if self.user != user {
            self.user = user.to_string();
            self.next = FIRST;
            tally.users += 1;
        }
        let first = self.next;
        self.next += shown as i64;
        first
    }
}

fn write_group(
    group: &GivenGroup,
    first: i64,
    most: usize,
    writers: &mut [SampleWriter; 2],
    tally: &mut Tally,
) -> Result<()> {
    let history = group.history.iter().take(most).zip(1..);
    let behavior = |(&item, before)| Behavior { item, time: first - before };
    let behaviors: Vec<Behavior> = history.map(behavior).collect();
    let shown = group.shown.iter().zip(first..);
    let impressions: Vec<_> = shown
        .map(|(&GivenItem { item, label }, time)| Impression { item, time, label, context: &[] })
        .collect();
    tally.groups += 1;
    tally.behaviors += (behaviors.len() * impressions.len()) as u64;
    tally.clicks += group.shown.iter().map(|shown| u64::from(shown.label)).sum::<u64>();
    let test = group.split == SplitName::Test;
    *(if test { &mut tally.test } else { &mut tally.train }) += impressions.len() as u64;
    writers[usize::from(test)].push(&GroupRow {
        user: group.user,
        user_fields: &[],
        behaviors: &behaviors,
        impressions: &impressions,
    })
}
