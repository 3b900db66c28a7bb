//! The table of rows beside an obvious one: a map and a list.

use std::collections::HashMap;

use ams_model::init::row_init;
use ams_train::step::table::RowTable;
use proptest::prelude::*;

const SEED: u64 = 5;

/// What is done to a table.
#[derive(Clone, Debug)]
enum Act {
    SlotOrNew(u64),
    SlotsOrNew(Vec<u64>),
    Restore(u64, f32),
    /// Adds a number to everything in one of the slots.
    Change(usize, f32),
    /// Makes rows of ids that count on from this one.
    Many(u64, usize),
}

/// The obvious table.
#[derive(Default)]
struct Twin {
    slots: HashMap<u64, u32>,
    rows: Vec<(u64, Vec<f32>)>,
}

impl Twin {
    fn add(&mut self, id: u64, values: impl FnOnce() -> Vec<f32>) -> u32 {
        let next = self.rows.len() as u32;
        let slot = *self.slots.entry(id).or_insert(next);
        if slot == next {
            self.rows.push((id, values()));
        }
        slot
    }
}

fn first(id: u64, dim: usize, width: usize) -> Vec<f32> {
    let mut values = vec![0.0; width];
    row_init(SEED, "rows", id, &mut values[..dim]);
    values
}

/// Ids as they come: few that come again and again, any, the ends, and some that differ in single
/// bits.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..40u64,
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        (0..64u32).prop_map(|bit| 1 << bit)
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => id().prop_map(Act::SlotOrNew),
        4 => prop::collection::vec(id(), 0..100).prop_map(Act::SlotsOrNew),
        2 => (id(), any::<f32>()).prop_map(|(id, value)| Act::Restore(id, value)),
        4 => (any::<usize>(), -1.0..1.0f32).prop_map(|(at, by)| Act::Change(at, by)),
        1 => (id(), 0..5_000usize).prop_map(|(id, many)| Act::Many(id, many)),
    ]
}

/// Does `acts` to a table and to its twin; everything that can be asked has the same answer.
fn check(dim: usize, states: usize, acts: &[Act]) {
    let mut table = RowTable::new("rows", SEED, dim, states);
    let (mut twin, width) = (Twin::default(), table.width());
    assert_eq!(width, dim * (1 + states));
    for act in acts {
        match act {
            &Act::SlotOrNew(id) => {
                let slot = twin.add(id, || first(id, dim, width));
                assert_eq!(table.slot_or_new(id), slot);
            }
            Act::SlotsOrNew(ids) => {
                let (mut known, mut slots) = (vec![Some(7)], vec![Some(7)]);
                table.slots(ids, &mut known);
                let found = ids.iter().map(|id| twin.slots.get(id).copied());
                assert_eq!(known[1..], found.collect::<Vec<_>>());
                table.slots_or_new(ids, &mut slots);
                let made = ids.iter().map(|&id| Some(twin.add(id, || first(id, dim, width))));
                assert_eq!(slots[1..], made.collect::<Vec<_>>());
            }
            &Act::Restore(id, value) => {
                let new = !twin.slots.contains_key(&id);
                twin.add(id, || vec![value; width]);
                assert_eq!(table.restore(id, &vec![value; width]), new);
            }
            &Act::Change(at, by) if !twin.rows.is_empty() => {
                let slot = at % twin.rows.len();
                twin.rows[slot].1.iter_mut().for_each(|value| *value += by);
                table.fetch([slot as u32]);
                let row = table.row_mut(slot as u32);
                row.row.iter_mut().chain(row.state).for_each(|value| *value += by);
            }
            Act::Change(..) => {}
            &Act::Many(from, many) => {
                for id in (0..many as u64).map(|by| from.wrapping_add(by)) {
                    let slot = twin.add(id, || first(id, dim, width));
                    assert_eq!(table.slot_or_new(id), slot);
                }
            }
        }
    }
    assert_eq!(table.len(), twin.rows.len());
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for table in [&table, &table.clone()] {
        for (slot, (id, values)) in twin.rows.iter().enumerate() {
            let slot = slot as u32;
            assert_eq!((table.id(slot), table.slot(*id)), (*id, Some(slot)));
            assert_eq!(bits(table.state(slot)), bits(values));
            assert_eq!(bits(table.row(slot)), bits(&values[..dim]));
        }
    }
    let mut by_id: Vec<u32> = (0..table.len() as u32).collect();
    by_id.sort_by_key(|&slot| twin.rows[slot as usize].0);
    assert_eq!(table.slots_by_id(), by_id);
    assert!(table.bytes() >= table.len() * (8 + 4 * width));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_table_is_a_map_and_a_list(
        dim in 1..20usize,
        states in 0..3usize,
        acts in prop::collection::vec(act(), 0..60),
    ) {
        check(dim, states, &acts);
    }
}

#[test]
fn rows_go_on_over_the_ends_of_pages() {
    // A page holds a megabyte: rows of 2,048 numbers fill one with 128, ids with 131,072.
    let wide = [0, 126, 127, 128, 129, 256, 1_000].map(|many| Act::Many(9, many));
    check(1_024, 1, &wide);
    check(1, 0, &[Act::Many(u64::MAX - 3, 131_073), Act::SlotsOrNew((0..300_000).collect())]);
    // One row is more than a page.
    check(300_000, 0, &[Act::Many(1, 3), Act::Change(1, 1.0)]);
}
