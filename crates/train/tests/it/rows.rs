//! Rows that come and go: the table beside an obvious one, and trainings with eviction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ams_data::dataset::{Dataset, SplitName};
use ams_data::prepare::{Existing, Inputs, PrepareOptions, SplitBy, plan};
use ams_data::samples::SampleFile;
use ams_data::source::{TableOptions, open};
use ams_data::{Groups, Id, Ragged};
use ams_fabric::ThreadFabric;
use ams_model::init::row_init;
use ams_train::run::{self, RunReport, Start};
use ams_train::settings::{
    EvictionConfig, ImageArm, ModelPart, PhaseConfig, UnknownIds, WarmParts, WarmStart,
};
use ams_train::setup::network::Network;
use ams_train::step::sighting::Sighting;
use ams_train::step::table::RowTable;
use ams_train::{Config, Job, RowCounts, Trainer};
use proptest::prelude::*;
use tempfile::TempDir;

use super::beginnings::occurrences;
use super::shop::{config, go_on, narrow, publish_run, stop_at, train};

const SEED: u64 = 5;
const DAY: i64 = 86_400;

/// What is done to a table that evicts.
#[derive(Clone, Debug)]
enum Act {
    /// Ids that are asked for in a step, seen on a day so many times, changed by a number.
    Step(Vec<u64>, i32, u32, f32),
    /// Evicts down to a share of the rows; every third of them is asked for.
    Share(f64),
    /// Evicts by the last day.
    Through(i32),
}

fn act() -> impl Strategy<Value = Act> {
    let id = prop_oneof![0..60u64, any::<u64>(), Just(0), Just(u64::MAX)];
    let ids = prop::collection::vec(id, 0..120);
    prop_oneof![
        6 => (ids, -3..9i32, 0..4u32, -1.0..1.0f32)
            .prop_map(|(ids, day, count, by)| Act::Step(ids, day, count, by)),
        2 => (0.0..1.0).prop_map(Act::Share),
        1 => (-4..9i32).prop_map(Act::Through),
    ]
}

/// The obvious table: a row with its state and its sightings by id.
type Twin = HashMap<u64, (Vec<f32>, i32, u32)>;

fn first(id: u64, dim: usize, width: usize, blank: &[Id]) -> Vec<f32> {
    let mut values = vec![0.0; width];
    if !blank.contains(&Id(id)) {
        row_init(SEED, "rows", id, &mut values[..dim]);
    }
    values
}

/// Removes the first `goes` rows by day, count and id, of those that `may` go.
fn evict_first(twin: &mut Twin, goes: usize, may: impl Fn(u64) -> bool) {
    let mut order: Vec<(i32, u32, u64)> =
        twin.iter().map(|(&id, &(_, day, count))| (day, count, id)).collect();
    order.retain(|&(_, _, id)| may(id));
    order.sort_unstable();
    order.iter().take(goes).for_each(|(_, _, id)| drop(twin.remove(id)));
}

fn check(dim: usize, states: usize, bytes: Option<u64>, acts: &[Act]) {
    let blank = [Id(7), Id(1 << 50)];
    let mut table = RowTable::new("rows", SEED, dim, states);
    table.start_from_zeros(&blank);
    table.track(bytes);
    let (mut twin, width) = (Twin::new(), table.width());
    let stays = |id: u64| blank.contains(&Id(id));
    for act in acts {
        match act {
            Act::Step(ids, day, count, by) => {
                let distinct: BTreeSet<u64> = ids.iter().copied().collect();
                let ids: Vec<u64> = distinct.into_iter().collect();
                let new = ids.iter().filter(|id| !twin.contains_key(*id)).count();
                if twin.len() + new > table.most() {
                    continue;
                }
                let mut slots = Vec::new();
                table.slots_or_new(&ids, &mut slots);
                for (&id, slot) in ids.iter().zip(slots) {
                    let slot = slot.unwrap();
                    table.see(slot, Sighting { day: *day, count: *count });
                    let row = table.row_mut(slot);
                    row.row.iter_mut().chain(row.state).for_each(|value| *value += by);
                    let made = || (first(id, dim, width, &blank), Sighting::NEVER, 0);
                    let (values, last, seen) = twin.entry(id).or_insert_with(made);
                    values.iter_mut().for_each(|value| *value += by);
                    (*last, *seen) = ((*last).max(*day), *seen + count);
                }
            }
            Act::Share(share) => {
                let until = (twin.len() as f64 * share) as usize;
                let asked = |id: u64| id.is_multiple_of(3);
                let slots: Vec<Option<u32>> =
                    twin.keys().filter(|id| asked(**id)).map(|&id| table.slot(id)).collect();
                let goes = twin.len() - until;
                evict_first(&mut twin, goes, |id| !asked(id) && !stays(id));
                let before = table.len();
                let evicted = table.evict_to(until, &slots);
                assert_eq!((evicted.rows, table.len()), (before - twin.len(), twin.len()));
                assert_eq!(evicted.last.is_some(), evicted.rows > 0);
            }
            &Act::Through(day) => {
                let before = twin.len();
                twin.values_mut().filter(|(_, last, _)| *last == Sighting::NEVER).for_each(|of| {
                    of.1 = 8;
                });
                twin.retain(|&id, &mut (_, last, _)| stays(id) || last > day);
                assert_eq!(table.evict_through(day, 8), before - twin.len());
            }
        }
    }
    assert_eq!(table.len(), twin.len());
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for slot in 0..table.len() as u32 {
        let id = table.id(slot);
        let (values, day, count) = &twin[&id];
        assert_eq!(table.slot(id), Some(slot));
        assert_eq!(bits(table.state(slot)), bits(values), "{id}");
        assert_eq!(table.sighting(slot), Some(Sighting { day: *day, count: *count }));
    }
    let gone = (0..60).filter(|id| !twin.contains_key(id));
    gone.for_each(|id| assert_eq!(table.slot(id), None));
    assert!(bytes.is_none_or(|bytes| table.bytes() as u64 <= bytes));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]

    #[test]
    fn a_table_that_evicts_is_a_map_that_is_sorted(
        dim in 1..20usize,
        states in 0..3usize,
        bytes in prop_oneof![Just(None), (40_960..200_000u64).prop_map(Some)],
        acts in prop::collection::vec(act(), 0..60),
    ) {
        check(dim, states, bytes, &acts);
    }
}

/// A stream of Zipf's law on days that pass: memory stays below the budget and is used.
#[test]
fn a_table_keeps_within_its_bytes_whatever_comes() {
    const IDS: f64 = 200_000.0;
    for (dim, bytes) in [(12, 4_000_000_u64), (1, 1_000_000), (64, 3_000_000)] {
        let mut table = RowTable::new("rows", SEED, dim, 2);
        table.track(Some(bytes));
        let most = table.most();
        assert!(table.bytes_of(most) as u64 <= bytes && table.bytes_of(most + 1) as u64 > bytes);
        let (mut state, mut evicted, mut settled) = (1_u64, 0, None);
        for step in 0..1_500 {
            let mut ids = BTreeSet::new();
            while ids.len() < 300 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let rank = IDS.powf((state >> 11) as f64 / (1_u64 << 53) as f64) as u64;
                ids.insert(rank.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            }
            let ids: Vec<u64> = ids.into_iter().collect();
            let mut slots = Vec::new();
            table.slots(&ids, &mut slots);
            let new = slots.iter().filter(|slot| slot.is_none()).count();
            if table.len() + new > most {
                let rows = table.evict_to((most as f64 * 0.9) as usize - new, &slots).rows;
                assert!(rows > 0);
                evicted += rows;
            }
            slots.clear();
            table.slots_or_new(&ids, &mut slots);
            for slot in slots.into_iter().flatten() {
                table.see(slot, Sighting { day: step / 100, count: 1 });
            }
            assert!(table.bytes() as u64 <= bytes, "{dim}: {} of {bytes}", table.bytes());
            if evicted > 2 * most && settled.is_none() {
                settled = Some(table.bytes());
            }
        }
        let settled = settled.expect("rows went more than once");
        assert!(settled as u64 * 20 >= bytes * 17, "{dim}: {settled} of {bytes}");
        // Where rows went there is room: memory hardly grows any more.
        assert!(table.bytes() * 100 <= settled * 105, "{dim}: {settled}, then {}", table.bytes());
    }
}

/// An id that was evicted begins anew when it is seen again.
#[test]
fn a_row_that_comes_back_has_no_state_of_the_one_before() {
    let mut table = RowTable::new("rows", SEED, 3, 2);
    table.track(None);
    let slots = [1, 2, 3].map(|id| table.slot_or_new(id));
    for slot in slots {
        table.see(slot, Sighting { day: slot as i32, count: 9 });
        let row = table.row_mut(slot);
        row.row.iter_mut().chain(row.state).for_each(|value| *value = 5.0);
    }
    assert_eq!(table.evict_through(0, 2), 1);
    assert_eq!((table.slot(1), table.len()), (None, 2));
    let slot = table.slot_or_new(1);
    assert_eq!(table.state(slot), first(1, 3, 9, &[]));
    assert_eq!(table.sighting(slot), Some(Sighting::NONE));
}

/// A dataset of six days without pictures, in which users and items come and go.
fn log() -> &'static Path {
    static LOG: OnceLock<TempDir> = OnceLock::new();
    let folder = LOG.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let mut text = "user,item,click,time\n".to_owned();
        for n in 0..1_500_u64 {
            let (day, hash) = (n / 250, (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
            let (user, item) = (day * 15 + hash % 70, day * 25 + (hash >> 8) % 60);
            let time = 1_700_006_400 + (n / 250) as i64 * DAY + (n % 250) as i64 * 300;
            writeln!(text, "u{user},i{item},{},{time}", u8::from(hash >> 16 & 3 == 0)).unwrap();
        }
        let events = folder.path().join("events.csv");
        std::fs::write(&events, text).unwrap();
        let events = open(&events, &TableOptions::default()).unwrap();
        let options = PrepareOptions {
            split: SplitBy::Last(0.05),
            max_behaviors: 5,
            ..PrepareOptions::default()
        };
        plan(Inputs { events, items: None, users: None }, options)
            .and_then(|plan| plan.run(&folder.path().join("data"), Existing::Refuse, &mut |_| ()))
            .unwrap();
        folder
    });
    folder.path()
}

/// A small model of ids alone on [`log`], below `runs`.
fn of_ids(runs: &Path) -> Config {
    let mut config = narrow(runs);
    config.data.samples = log().join("data");
    config.model.network.images = ImageArm::None;
    (config.train.batch, config.train.lanes) = (32, 4);
    config
}

/// Bytes of a lane that are too few for all of its rows, and enough for those of a batch.
const FEW: u64 = 48_000;

fn eviction(days: Option<u32>, lane_bytes: Option<u64>) -> Option<EvictionConfig> {
    Some(EvictionConfig { days, lane_bytes, floor: 0.8 })
}

/// Rows with state, and sightings, of all lanes of this process.
fn rows(trainer: &Trainer) -> BTreeMap<u64, (Vec<u32>, Option<Sighting>)> {
    let tables = trainer.lanes().shards().map(|shard| &shard.table);
    let of = |table: &RowTable, slot| {
        let bits = table.state(slot).iter().map(|value| value.to_bits()).collect();
        (table.id(slot), (bits, table.sighting(slot)))
    };
    tables.flat_map(|table| (0..table.len() as u32).map(move |slot| of(table, slot))).collect()
}

/// Last day and number of the references to every id in the training samples, one by one.
fn sightings(config: &Config, network: &Network) -> BTreeMap<u64, (i32, u32)> {
    let dataset = Dataset::open(&config.data.samples).unwrap();
    let mut seen: BTreeMap<u64, (i32, u32)> = BTreeMap::new();
    for part in 0..dataset.card().parts {
        let path = dataset.part_path(SplitName::Train, part);
        let file = SampleFile::open(&path, dataset.schema()).unwrap();
        for block in 0..file.blocks() {
            let mut all = Groups::new(dataset.schema());
            file.read(block, &mut all).unwrap();
            for at in 0..all.len() {
                let mut group = Groups::new(dataset.schema());
                group.push_from(&all, at);
                let keys = ams_bundle::Keys::default();
                let mut lists = Ragged::default();
                let day = |time: i64| time.div_euclid(DAY) as i32;
                let last = day(*group.times.iter().max().unwrap());
                for input in network.inputs() {
                    let per_impression = network.impression_inputs.contains(&input);
                    input.collect(&group, &keys, usize::MAX, &mut lists);
                    for list in 0..lists.len() {
                        let day = if per_impression { day(group.times[list]) } else { last };
                        for id in lists.row(list) {
                            let (newest, count) = seen.entry(id.0).or_insert((day, 0));
                            (*newest, *count) = (day.max(*newest), *count + 1);
                        }
                    }
                }
            }
        }
    }
    seen
}

#[test]
fn rows_that_are_left_after_an_epoch_are_those_of_the_newest_days() {
    let folder = TempDir::new().unwrap();
    for (days, size) in [(1, 1), (2, 2), (4, 4)] {
        let mut config = of_ids(folder.path());
        config.train.eviction = eviction(Some(days), None);
        config.train.epochs = 1;
        let ranks = ThreadFabric::run(size, |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            while trainer.step().unwrap().is_some() {}
            let counts = trainer.lanes_mut().take_row_counts().unwrap().unwrap();
            (rows(&trainer), counts, sightings(&config, &trainer.lanes().network))
        });
        let (counts, all) = (ranks[0].1, &ranks[0].2);
        let newest = all.values().map(|(day, _)| *day).max().unwrap();
        let left: BTreeMap<u64, (i32, u32)> = all
            .iter()
            .filter(|(_, (day, _))| newest - day < days as i32)
            .map(|(&id, &of)| (id, of))
            .collect();
        let found: BTreeMap<u64, (i32, u32)> = ranks
            .iter()
            .flat_map(|(rows, ..)| rows)
            .map(|(&id, (_, seen))| (id, (seen.unwrap().day, seen.unwrap().count)))
            .collect();
        assert_eq!(found, left, "{days} days");
        let gone = (all.len() - left.len()) as u64;
        assert!(gone > 20 && left.len() > 20, "{gone} of {}", all.len());
        let RowCounts { rows, admitted, evicted_by_days, evicted_by_bytes, .. } = counts;
        let want = (left.len() as u64, all.len() as u64, gone, 0);
        assert_eq!((rows, admitted, evicted_by_days, evicted_by_bytes), want);
        assert!(ranks.iter().all(|rank| rank.1 == counts), "all processes know all");
    }
}

#[test]
fn lanes_keep_within_their_bytes_in_every_step() {
    let folder = TempDir::new().unwrap();
    let mut config = of_ids(folder.path());
    config.train.eviction = eviction(None, Some(FEW));
    let mut trainer = Trainer::new(config, Job::solo(2)).unwrap();
    let mut sum = RowCounts::default();
    while trainer.step().unwrap().is_some() {
        let counts = trainer.lanes_mut().take_row_counts().unwrap().unwrap();
        let shards = || trainer.lanes().shards().map(|shard| &shard.table);
        assert!(shards().all(|table| table.bytes() as u64 <= FEW && table.len() <= table.most()));
        assert_eq!(counts.rows, shards().map(RowTable::len).sum::<usize>() as u64);
        assert!(counts.largest_lane_bytes <= FEW && counts.bytes <= 4 * FEW);
        sum.go_on(counts);
    }
    assert!(sum.evicted_by_bytes > 50, "{sum:?}");
    assert_eq!(sum.admitted, sum.rows + sum.evicted_by_bytes);
}

/// With admission and both evictions: the same model anywhere, and where it was stopped.
#[test]
fn rows_that_come_and_go_have_the_same_bits_everywhere_and_after_a_stop() {
    let folder = TempDir::new().unwrap();
    let config = |name: &str, sketch_bytes| {
        let mut config = of_ids(&folder.path().join(name));
        config.model.network.unknown = UnknownIds::Learned;
        (config.train.min_occurrences, config.train.sketch_bytes) = (2, sketch_bytes);
        config.train.eviction = eviction(Some(3), Some(FEW));
        config
    };
    let steps = Trainer::new(config("steps", None), Job::solo(1)).unwrap().steps();
    // Stopped in the first epoch, at its end, in the second one.
    let all = [
        (Some(8_192), vec![(1, 2), (2, 1), (4, 1)], vec![steps / 3, steps / 2]),
        (None, vec![(1, 2)], vec![steps - 5]),
    ];
    for (sketch, places, stops) in all {
        let whole = |place: &(usize, usize)| {
            let config = config(&format!("{place:?} {sketch:?}"), sketch);
            let ends = train(&config, Start::Fresh, *place, go_on);
            let ends: Vec<RunReport> = ends.into_iter().map(|end| end.expect("a rank")).collect();
            let rows = ends[0].rows.expect("rows go");
            assert!(rows.evicted_by_days > 0 && rows.evicted_by_bytes > 0, "{rows:?}");
            publish_run(&run::folder(&config), 1).1
        };
        let hashes: Vec<String> = places.iter().map(whole).collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
        for stop in stops {
            let stopped = config(&format!("stopped {stop} {sketch:?}"), sketch);
            let ends = train(&stopped, Start::Fresh, (2, 1), stop_at(stop, 0));
            assert!(ends.into_iter().all(|end| !end.expect("a rank").finished));
            let ends = train(&stopped, Start::Resume, (4, 1), go_on);
            assert!(ends.into_iter().all(|end| end.expect("a rank").finished));
            assert_eq!(publish_run(&run::folder(&stopped), 1).1, hashes[0], "after {stop}");
        }
    }
}

/// Rows that do not learn in a phase stay, whatever their age.
#[test]
fn a_phase_in_which_ids_do_not_learn_evicts_none() {
    let folder = TempDir::new().unwrap();
    let mut config = of_ids(folder.path());
    let phase = |part| PhaseConfig {
        epochs: 1,
        learns: vec![part],
        learning_rate: None,
        rows_learning_rate: None,
    };
    config.train.phases =
        [ModelPart::Network, ModelPart::Ids, ModelPart::Network].map(phase).into();
    (config.train.epochs, config.train.eviction) = (3, eviction(Some(1), None));
    let mut trainer = Trainer::new(config, Job::solo(1)).unwrap();
    let mut counts = Vec::new();
    while trainer.step().unwrap().is_some() {
        if trainer.is_at_epoch_end() {
            let of = trainer.lanes_mut().take_row_counts().unwrap().unwrap();
            counts.push((of.admitted > 0, of.evicted_by_days > 0));
        }
    }
    assert_eq!(counts, [(false, false), (true, true), (false, false)]);
}

/// With room for all ids a sketch admits those that an exact count does, a few sightings later.
#[test]
fn a_sketch_admits_within_an_epoch_whom_a_count_does() {
    let folder = TempDir::new().unwrap();
    let mut config = config(folder.path());
    (config.train.min_occurrences, config.train.epochs) = (7, 1);
    config.train.sketch_bytes = Some(1 << 20);
    let mut trainer = Trainer::new(config.clone(), Job::solo(2)).unwrap();
    while trainer.step().unwrap().is_some() {}
    let seen = occurrences(&config, &trainer.lanes().network);
    let often = seen.iter().filter(|(_, count)| **count >= 7).map(|(id, _)| *id);
    let found = rows(&trainer);
    assert_eq!(found.keys().copied().collect::<BTreeSet<_>>(), often.collect());
    assert!(found.len() < seen.len() && trainer.admitted().is_none());
    // Without eviction there are no sightings to keep.
    assert!(found.values().all(|(_, seen)| seen.is_none()));
}

/// A run in `folder` to begin from.
fn earlier(folder: &TempDir, name: &str, eviction: Option<EvictionConfig>) -> PathBuf {
    let mut config = Config { name: name.to_owned(), ..of_ids(folder.path()) };
    config.train.eviction = eviction;
    train(&config, Start::Fresh, (1, 2), go_on).remove(0).unwrap();
    run::folder(&config)
}

#[test]
fn a_warm_start_takes_sightings_over_and_the_rows_that_fit() {
    let folder = TempDir::new().unwrap();
    let with = earlier(&folder, "with", eviction(Some(5), None));
    let without = earlier(&folder, "without", None);
    for (from, lane_bytes) in [(&with, None), (&with, Some(FEW)), (&without, Some(FEW))] {
        let then = rows(&run::open(from, Job::solo(1)).unwrap());
        let mut now = of_ids(folder.path());
        (now.seed, now.train.eviction) = (9, eviction(Some(2), lane_bytes));
        now.train.warm_start = Some(WarmStart { from: from.clone(), parts: WarmParts::All });
        let mut trainer = Trainer::new(now, Job::solo(1)).unwrap();
        trainer.warm_start().unwrap();
        let got = rows(&trainer);
        let dim = trainer.lanes().network.spec.dim();
        for (id, (bits, seen)) in &got {
            let (bits_then, seen_then) = &then[id];
            assert_eq!(bits[..dim], bits_then[..dim]);
            assert!(bits[dim..].iter().all(|bits| *bits == 0), "optimizers begin anew");
            assert_eq!(*seen, Some(seen_then.unwrap_or(Sighting::NONE)));
        }
        // In each lane, those that would go last.
        for (lane, shard) in trainer.lanes().shards().enumerate() {
            let here = |id: &&u64| ams_data::part_of(**id, 4) == lane;
            let key = |id: &u64| then[id].1.unwrap_or(Sighting::NONE).key(*id);
            let mut all: Vec<u64> = then.keys().filter(here).copied().collect();
            all.sort_by_key(key);
            let left = shard.table.len();
            let want: BTreeSet<u64> = all[all.len() - left..].iter().copied().collect();
            assert_eq!(got.keys().filter(here).copied().collect::<BTreeSet<_>>(), want);
            let fits = lane_bytes.is_none() || all.len() <= shard.table.most();
            assert_eq!(left == all.len(), fits, "lane {lane}");
            assert!(fits || left * 10 >= shard.table.most() * 8);
        }
        // What nobody knows the day of counts as seen when the first epoch ends.
        while !trainer.is_at_epoch_end() {
            trainer.step().unwrap();
        }
        let newest = trainer.lanes().newest_day().unwrap();
        let days = rows(&trainer).into_values().map(|(_, seen)| seen.unwrap().day);
        assert!(days.into_iter().all(|day| newest - 2 < day && day <= newest));
    }
}

#[test]
fn bytes_without_room_for_a_batch_are_refused_by_key() {
    let folder = TempDir::new().unwrap();
    let mut config = of_ids(folder.path());
    config.train.batch = 512;
    config.train.eviction = eviction(None, Some(41_000));
    for size in [1, 2] {
        let errors = ThreadFabric::run(size, |fabric| {
            let mut trainer = Trainer::new(config.clone(), Job::of(fabric, 1)).unwrap();
            trainer.step().unwrap_err().to_string()
        });
        let error = &errors[0];
        let want = "train.eviction.lane_bytes: 41000 bytes have room for ";
        assert!(error.starts_with(want), "{error}");
        assert!(
            error.contains(" rows, but a batch needs ") && error.contains("of lane "),
            "{error}"
        );
        // What it says is needed is enough.
        let need = error.rsplit_once("which take ").unwrap().1.split(':').next().unwrap();
        assert!(need.parse::<u64>().unwrap() > 41_000, "{error}");
    }
}
