//! Groups in memory: ragged columns of ids.
//!
//! A group is the impressions of one user that share one behaviour history (the common-feature
//! technique of the paper): user fields and behaviors are stored, and later computed, once per
//! group.

use crate::id::{Id, PictureName};
use crate::ragged::{Offsets, Ragged};
use crate::schema::{Schema, Side};

/// A block of groups. Letters: G groups, N behaviors of all groups, B impressions of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The user of each group, `Id::of("user", raw)`; (G).
    pub users: Vec<Id>,
    /// One column per field of [`Side::User`] in schema order; (G) rows each.
    pub user_fields: Vec<Ragged<Id>>,
    /// Which behaviors belong to each group, newest first; (G) rows, (N) values.
    pub behaviors: Offsets,
    /// One column per field of [`Side::Behavior`]; (N) rows each.
    pub behavior_fields: Vec<Ragged<Id>>,
    /// The picture of each behavior's item; (N).
    pub behavior_pictures: Vec<PictureName>,
    /// When each behavior happened, unix seconds; (N).
    pub behavior_times: Vec<i64>,
    /// Which impressions belong to each group, oldest first; (G) rows, (B) values.
    pub impressions: Offsets,
    /// One column per field of [`Side::Ad`]; (B) rows each.
    pub ad_fields: Vec<Ragged<Id>>,
    /// The picture of each item shown; (B).
    pub ad_pictures: Vec<PictureName>,
    /// One column per field of [`Side::Context`]; (B) rows each.
    pub context_fields: Vec<Ragged<Id>>,
    /// 1 clicked, 0 not; (B).
    pub labels: Vec<u8>,
    /// When each impression was shown, unix seconds; (B).
    pub times: Vec<i64>,
}

impl Groups {
    /// No groups, with the columns of `schema`.
    pub fn new(schema: &Schema) -> Groups {
        let columns = |side| vec![Ragged::default(); schema.side(side).count()];
        Groups {
            user_fields: columns(Side::User),
            behavior_fields: columns(Side::Behavior),
            ad_fields: columns(Side::Ad),
            context_fields: columns(Side::Context),
            ..Groups::default()
        }
    }

    /// Number of groups (G).
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Seconds from each behavior of `group` to the first impression of the group, at least 1 in
    /// samples; 0 where one of both times is unknown.
    pub fn ages(&self, group: usize) -> impl Iterator<Item = u64> {
        let shown = self.impressions.range(group);
        let now = (!shown.is_empty()).then(|| self.times[shown.start]);
        let times = &self.behavior_times[self.behaviors.range(group)];
        times.iter().map(move |&then| match now {
            Some(now) => u64::try_from(now.saturating_sub(then)).unwrap_or(0),
            None => 0,
        })
    }

    /// Bytes of everything these groups say: ids, picture names, times, labels and where rows
    /// begin.
    pub fn bytes(&self) -> usize {
        let fields = self
            .user_fields
            .iter()
            .chain(&self.behavior_fields)
            .chain(&self.ad_fields)
            .chain(&self.context_fields);
        let column = |field: &Ragged<Id>| 8 * field.values.len() + 4 * field.offsets.len();
        let per_group = 8 + 2 * 4;
        let (per_behavior, per_impression) = (8 + 8, 8 + 8 + 1);
        fields.map(column).sum::<usize>()
            + per_group * self.len()
            + per_behavior * self.behavior_times.len()
            + per_impression * self.labels.len()
    }

    /// Removes every group, keeping the memory.
    pub fn clear(&mut self) {
        self.users.clear();
        self.behaviors.clear();
        self.impressions.clear();
        self.behavior_pictures.clear();
        self.behavior_times.clear();
        self.ad_pictures.clear();
        self.labels.clear();
        self.times.clear();
        for columns in [
            &mut self.user_fields,
            &mut self.behavior_fields,
            &mut self.ad_fields,
            &mut self.context_fields,
        ] {
            columns.iter_mut().for_each(Ragged::clear);
        }
    }

    /// The same groups with a part of their behaviors: for each group, those at the positions that
    /// `rows` lists, ascending.
    pub fn with_behaviors(&self, rows: &Ragged<u32>) -> Groups {
        let column = |from: &Ragged<Id>| {
            let mut column = Ragged::default();
            rows.values.iter().for_each(|&row| column.push(from.row(row as usize)));
            column
        };
        Groups {
            users: self.users.clone(),
            user_fields: self.user_fields.clone(),
            behaviors: rows.offsets.clone(),
            behavior_fields: self.behavior_fields.iter().map(column).collect(),
            behavior_pictures: at(&self.behavior_pictures, rows),
            behavior_times: at(&self.behavior_times, rows),
            impressions: self.impressions.clone(),
            ad_fields: self.ad_fields.clone(),
            ad_pictures: self.ad_pictures.clone(),
            context_fields: self.context_fields.clone(),
            labels: self.labels.clone(),
            times: self.times.clone(),
        }
    }

    /// Appends group `group` of `from`, which has the same schema.
    pub fn push_from(&mut self, from: &Groups, group: usize) {
        self.users.push(from.users[group]);
        for (to, column) in self.user_fields.iter_mut().zip(&from.user_fields) {
            to.push(column.row(group));
        }
        let behaviors = from.behaviors.range(group);
        self.behaviors.push(behaviors.len());
        for (to, column) in self.behavior_fields.iter_mut().zip(&from.behavior_fields) {
            to.extend_from(column, behaviors.clone());
        }
        self.behavior_pictures.extend_from_slice(&from.behavior_pictures[behaviors.clone()]);
        self.behavior_times.extend_from_slice(&from.behavior_times[behaviors]);
        let impressions = from.impressions.range(group);
        self.impressions.push(impressions.len());
        for (to, column) in self.ad_fields.iter_mut().zip(&from.ad_fields) {
            to.extend_from(column, impressions.clone());
        }
        for (to, column) in self.context_fields.iter_mut().zip(&from.context_fields) {
            to.extend_from(column, impressions.clone());
        }
        self.ad_pictures.extend_from_slice(&from.ad_pictures[impressions.clone()]);
        self.labels.extend_from_slice(&from.labels[impressions.clone()]);
        self.times.extend_from_slice(&from.times[impressions]);
    }
}

/// The values at the positions that `rows` lists.
fn at<T: Copy>(values: &[T], rows: &Ragged<u32>) -> Vec<T> {
    rows.values.iter().map(|&row| values[row as usize]).collect()
}
