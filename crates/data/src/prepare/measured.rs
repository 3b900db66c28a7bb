//! The numbers of numeric fields in the training impressions, for the edges between their buckets.

use crate::catalogue::Catalogue;
use crate::schema::{FieldKind, ITEM, Schema, Side, USER};
use crate::value::{Buckets, Sketch, measure};

/// What training impressions said. Every impression counts its values once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Positions among the user fields other than `user`, and their numbers.
    user: Vec<(usize, Sketch)>,
    /// Positions among the context fields, and their numbers.
    context: Vec<(usize, Sketch)>,
    /// How often every item of the catalogue was shown; empty if no item field is numeric.
    shown: Vec<u64>,
}

fn is_numeric(kind: Option<&FieldKind>) -> bool {
    matches!(kind, Some(FieldKind::Numeric { .. }))
}

impl Measured {
    /// Nothing yet, of the numeric fields of `schema`.
    pub(crate) fn new(schema: &Schema, items: usize) -> Measured {
        let numeric = |side: Side, key: &str| {
            let fields = schema.side(side).filter(|field| field.name != key).enumerate();
            let numeric = fields.filter(|(_, field)| is_numeric(field.kind.as_ref()));
            numeric.map(|(at, _)| (at, Sketch::default())).collect::<Vec<_>>()
        };
        let of_items = !numeric(Side::Ad, ITEM).is_empty();
        Measured {
            user: numeric(Side::User, USER),
            context: numeric(Side::Context, ""),
            shown: if of_items { vec![0; items] } else { Vec::new() },
        }
    }

    /// Counts the user's values for `impressions` impressions.
    pub(crate) fn user(&mut self, values: &[&str], impressions: usize) {
        for (at, sketch) in &mut self.user {
            add(sketch, values[*at], impressions as u64);
        }
    }

    /// Counts one impression of an item, a row of the catalogue, in this context.
    pub(crate) fn impression(&mut self, item: u32, context: &[&str]) {
        for (at, sketch) in &mut self.context {
            add(sketch, context[*at], 1);
        }
        if let Some(shown) = self.shown.get_mut(item as usize) {
            *shown += 1;
        }
    }

    /// Adds what was counted of another part.
    pub(crate) fn merge(&mut self, other: &Measured) {
        for (mine, its) in [(&mut self.user, &other.user), (&mut self.context, &other.context)] {
            for ((_, sketch), (_, more)) in mine.iter_mut().zip(its) {
                sketch.merge(more);
            }
        }
        for (shown, more) in self.shown.iter_mut().zip(&other.shown) {
            *shown += more;
        }
    }

    /// `schema` with the edges that were found.
    pub(crate) fn edges(&self, schema: &Schema, catalogue: &Catalogue) -> Schema {
        let mut schema = schema.clone();
        let mut set = |side: Side, key: &str, at: usize, edges: &Buckets| {
            let fields = schema.fields.iter_mut().filter(|f| f.side == side && f.name != key);
            if let Some(field) = fields.into_iter().nth(at) {
                field.kind = Some(FieldKind::Numeric { edges: edges.clone() });
            }
        };
        for (at, sketch) in &self.user {
            set(Side::User, USER, *at, &sketch.buckets());
        }
        for (at, sketch) in &self.context {
            set(Side::Context, "", *at, &sketch.buckets());
        }
        for (at, field) in catalogue.fields().iter().enumerate() {
            if is_numeric(field.kind.as_ref()) {
                let mut sketch = Sketch::default();
                for (row, &shown) in self.shown.iter().enumerate() {
                    catalogue.values(at, row).for_each(|value| add(&mut sketch, value, shown));
                }
                let edges = sketch.buckets();
                set(Side::Behavior, ITEM, at, &edges);
                set(Side::Ad, ITEM, at, &edges);
            }
        }
        schema
    }
}

/// Counts a number that was read before, so it is one or missing.
fn add(sketch: &mut Sketch, text: &str, times: u64) {
    if let Ok(Some(number)) = measure(text, None) {
        sketch.add(number, times);
    }
}
