//! Items: where groups hold them, and how large a share of the impressions they have.

use ams_data::schema::ITEM;
use ams_data::{Groups, IdMap, Schema, Side};

/// The columns of groups that hold items.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Items {
    ad: usize,
    behavior: usize,
}

impl Items {
    /// The columns of samples of `schema`.
    pub(crate) fn of(schema: &Schema) -> Items {
        let column = |side| {
            let mut fields = schema.side(side);
            fields.position(|field| field.name == ITEM).expect("every schema has items")
        };
        Items { ad: column(Side::Ad), behavior: column(Side::Behavior) }
    }

    /// Those of ads and of behaviors, by number.
    #[cfg(test)]
    pub(crate) fn at(ad: usize, behavior: usize) -> Items {
        Items { ad, behavior }
    }

    /// The item of impression `at`, if it has one.
    pub(crate) fn shown(self, groups: &Groups, at: usize) -> Option<u64> {
        groups.ad_fields[self.ad].row(at).first().map(|id| id.0)
    }

    /// Replaces `to` by the items that group `group` shows or has in its history, ascending.
    pub(crate) fn known(self, groups: &Groups, group: usize, to: &mut Vec<u64>) {
        to.clear();
        let behaviors = groups.behaviors.range(group);
        to.extend(
            behaviors.flat_map(|at| groups.behavior_fields[self.behavior].row(at)).map(|id| id.0),
        );
        to.extend(groups.impressions.range(group).filter_map(|at| self.shown(groups, at)));
        to.sort_unstable();
        to.dedup();
    }
}

/// The shares of the items of one lane.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Popularity {
    /// Impressions of each item, in all lanes.
    shown: IdMap,
    /// Impressions of all items.
    all: u64,
}

impl Popularity {
    /// Of items with their impressions, and the impressions of all.
    pub(crate) fn new(shown: impl Iterator<Item = (u64, u32)>, all: u64) -> Popularity {
        Popularity { shown: shown.collect(), all }
    }

    /// The natural logarithm of the share of an item that the lane shows.
    pub(crate) fn log_share(&self, item: u64) -> f32 {
        let shown = self.shown.get(&item).copied().unwrap_or(1);
        (f64::from(shown) / self.all as f64).ln() as f32
    }
}
