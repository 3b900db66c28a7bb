//! The whole way from tables to sample files and back, against slow and obvious twins.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ams_data::negatives::{Method, NegativeOptions};
use ams_data::prepare::{
    Accept, Chain, Clock, Existing, FieldColumn, Inputs, Plan, PrepareOptions, PrepareReport,
    Repeats, Spans, SplitBy, plan,
};
use ams_data::schema::HoldOut;
use ams_data::source::{MemoryTable, Table, TableOptions};
use ams_data::{Dataset, Groups, Id, PictureName, Result, SampleFile, SplitName};
use proptest::prelude::*;

/// A log: rows of user, item, label, time, weight and hour.
type Log = Vec<[String; 6]>;

const ALL_METHODS: [Method; 5] =
    [Method::Uniform, Method::Popularity, Method::Stratified, Method::Contemporary, Method::Around];

const COLUMNS: [&str; 6] = ["user_id", "ad_id", "click", "timestamp", "dwell", "hour"];

fn row(user: &str, item: &str, label: u8, time: i64) -> [String; 6] {
    [
        user.into(),
        item.into(),
        label.to_string(),
        time.to_string(),
        "9".into(),
        (time % 24).to_string(),
    ]
}

fn table(path: &str, columns: &[&str], rows: &[impl AsRef<[String]>]) -> Box<dyn Table> {
    let rows = rows.iter().map(|row| row.as_ref().to_vec()).collect();
    Box::new(MemoryTable::new(path, columns, rows))
}

fn items() -> Box<dyn Table> {
    let row = |cells: [&str; 3]| cells.map(String::from);
    let rows = [row(["a", "a.jpg", "x|y"]), row(["b", "", ""]), row(["c", "c.jpg", "y"])];
    table("items.csv", &["ad_id", "image", "tags"], &rows)
}

fn fields(texts: &[&str]) -> Option<Vec<FieldColumn>> {
    Some(texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn options() -> PrepareOptions {
    let mut options =
        PrepareOptions { parts: 2, group_span: 10, group_max: 3, ..PrepareOptions::default() };
    options.max_behaviors = 4;
    options.split = SplitBy::Last(0.3);
    // Small numbers are readable times, if not plausible ones.
    options.accept = vec![Accept::Times, Accept::DroppedRows, Accept::ItemsWithoutRow];
    options.columns.item_fields = fields(&["tags:multi:|"]);
    options.columns.context_fields = fields(&["hour"]);
    options
}

/// Prepares `log` in `dir` and returns what `check` finds wrong with the result beside the report.
fn prepare(dir: &Path, log: &[[String; 6]], options: PrepareOptions) -> Result<PrepareReport> {
    // A log that holds positives only has no label column.
    let events: Box<dyn Table> = if options.negatives.is_some() {
        let keep = |row: &[String; 6]| [0, 1, 3, 4, 5].map(|at| row[at].clone());
        let columns = [0, 1, 3, 4, 5].map(|at| COLUMNS[at]);
        table("events.csv", &columns, &log.iter().map(keep).collect::<Vec<_>>())
    } else {
        table("events.csv", &COLUMNS, log)
    };
    let plan = plan(Inputs { events, items: Some(items()), users: None }, options)?;
    let report = plan.run(&dir.join("set"), Existing::Replace, &mut |_| {})?;
    let found = ams_data::check::check(&dir.join("set"), &mut |_, _| {})?;
    assert_eq!(found.problems, [""; 0]);
    Ok(report)
}

fn error(log: &[[String; 6]], options: PrepareOptions) -> String {
    let dir = tempfile::tempdir().unwrap();
    let error = prepare(dir.path(), log, options).expect_err("a wrong log").to_string();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing half-written stays");
    error
}

/// One impression with the history of its group, read back: (test, user, time, item, label),
/// history.
type Seen = ((bool, Id, i64, Id, u8), Vec<(i64, Id)>);

fn read(dir: &Path) -> Vec<Seen> {
    let dataset = Dataset::open(dir.join("set")).unwrap();
    let mut seen = Vec::new();
    for split in SplitName::ALL {
        for part in 0..dataset.card().parts {
            let file = SampleFile::open(&dataset.part_path(split, part), dataset.schema()).unwrap();
            let mut groups = Groups::new(dataset.schema());
            (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
            for group in 0..groups.len() {
                let item = |row: usize| groups.behavior_fields[0].row(row)[0];
                let past = groups
                    .behaviors
                    .range(group)
                    .map(|row| (groups.behavior_times[row], item(row)));
                let past: Vec<_> = past.collect();
                for row in groups.impressions.range(group) {
                    let item = groups.ad_fields[0].row(row)[0];
                    let test = split == SplitName::Test;
                    let key =
                        (test, groups.users[group], groups.times[row], item, groups.labels[row]);
                    seen.push((key, past.clone()));
                }
            }
        }
    }
    seen.sort();
    seen
}

/// What `prepare` should make of `log`, by the definitions: quadratic, and without streaming.
fn twin(log: &[[String; 6]], options: &PrepareOptions, test_from: i64) -> Vec<Seen> {
    let unique: BTreeSet<_> = log
        .iter()
        .map(|row| (row[0].clone(), row[3].parse::<i64>().unwrap(), row[1].clone(), row[2].clone()))
        .collect();
    let mut seen = Vec::new();
    let users: BTreeSet<_> = unique.iter().map(|row| row.0.clone()).collect();
    for user in users {
        let all: Vec<_> = unique.iter().filter(|row| row.0 == user).collect();
        let from = options.train_from.as_ref().map_or(i64::MIN, |from| from.parse().unwrap());
        let shown = |row: &&_| {
            let &(_, time, ..): &(String, i64, String, String) = row;
            time >= from.min(test_from)
        };
        let rows: Vec<_> = all.iter().copied().filter(shown).collect();
        let mut begin = 0;
        for at in 0..rows.len() {
            let first = rows[begin].1;
            let crosses = (rows[at].1 >= test_from) != (first >= test_from);
            if rows[at].1 - first >= options.group_span
                || at - begin >= options.group_max
                || crosses
            {
                begin = at;
            }
            let first = rows[begin].1;
            let mut past: Vec<_> = all
                .iter()
                .filter(|row| row.3 == "1" && row.1 < first)
                .map(|row| (row.1, row.2.clone()))
                .collect();
            past.sort_by(|a, b| b.cmp(a));
            past.truncate(options.max_behaviors);
            let past = past.into_iter().map(|(time, item)| (time, Id::of("item", &item))).collect();
            let (item, label) = (Id::of("item", &rows[at].2), rows[at].3.parse().unwrap());
            let test = rows[at].1 >= test_from;
            seen.push(((test, Id::of("user", &user), rows[at].1, item, label), past));
        }
    }
    seen.sort();
    seen
}

fn logs() -> impl Strategy<Value = Log> {
    let event = (0..4u8, 0..6u8, 0..2u8, 0..40i64);
    prop::collection::vec(event, 2..60).prop_map(|events| {
        let user = |user: u8| format!("0{user}");
        let item = |item: u8| char::from(b'a' + item).to_string();
        let mut log: Log = events
            .iter()
            .map(|&(u, i, label, time)| row(&user(u), &item(i), label, time))
            .collect();
        // Something to learn on both sides, so that the log is not refused.
        log.extend([row("00", "a", 1, -1), row("00", "b", 0, -1), row("01", "a", 1, 50)]);
        log
    })
}

/// Every file of the dataset.
fn bytes(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["", "train", "test"] {
        for entry in std::fs::read_dir(dir.join("set").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.insert(
                    path.strip_prefix(dir).unwrap().display().to_string(),
                    std::fs::read(&path).unwrap(),
                );
            }
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_equal_their_definition(log in logs()) {
        let dir = tempfile::tempdir().unwrap();
        let options = PrepareOptions { split: SplitBy::TestFrom("30".into()), ..options() };
        let report = prepare(dir.path(), &log, options.clone()).unwrap();
        prop_assert_eq!(read(dir.path()), twin(&log, &options, 30));
        prop_assert_eq!(report.counts.impressions + report.dropped.duplicates, log.len() as u64);
    }

    #[test]
    fn a_training_that_begins_later_knows_what_was_before(log in logs(), from in 0..30i64) {
        let dir = tempfile::tempdir().unwrap();
        // Something to learn from.
        let mut log = log;
        log.extend([row("00", "a", 1, 29), row("00", "b", 0, 29)]);
        let split = SplitBy::TestFrom("30".into());
        let options = PrepareOptions { split, train_from: Some(from.to_string()), ..options() };
        prepare(dir.path(), &log, options.clone()).unwrap();
        prop_assert_eq!(read(dir.path()), twin(&log, &options, 30));
    }

    #[test]
    fn spans_one_after_the_other_have_the_samples_of_the_whole_log(
        log in logs(),
        (length, lateness, part) in (3..20i64, 0..15i64, 1..20usize),
    ) {
        let time = |row: &[String; 6]| row[3].parse::<i64>().unwrap();
        let (mut known, log): (Log, Log) = log.into_iter().partition(|row| time(row) < 10);
        let begin = known.iter().map(time).max().unwrap() + 1;
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str| dir.path().join(name);
        let plan_of = |events: Box<dyn Table>, options: PrepareOptions, chain: Chain| {
            let inputs = Inputs { events, items: Some(items()), users: None };
            plan(inputs, options).unwrap().chained(chain).unwrap()
        };
        let run = |plan: Plan, name: &str| {
            std::fs::create_dir_all(made(name)).unwrap();
            plan.run(&made(name).join("set"), Existing::Refuse, &mut |_| {}).unwrap();
        };
        run(plan_of(table("events.csv", &COLUMNS, &known), options(), Chain::first()), "base");
        prop_assert_eq!(read(&made("base")), twin(&known, &options(), i64::MAX));
        let after = |name: &str| Chain::after(&made(name).join("set"), None).unwrap();

        // Late is what comes when something much later was there.
        let mut newest = begin - 1;
        let (mut in_time, mut late): (Log, u64) = (Log::new(), 0);
        for row in &log {
            let open = begin.max((newest - lateness).div_euclid(length) * length);
            if time(row) < open { late += 1 } else { in_time.push(row.clone()) }
            newest = newest.max(time(row));
        }
        let spans = Spans { length, lateness, jump: 1000 };
        let mut clock = Clock { newest: begin - 1, open: begin };
        let mut found = (0, 0);
        for (number, rows) in log.chunks(part).enumerate() {
            let plan = plan_of(table("part.csv", &COLUMNS, rows), options(), after("base"));
            let sorted = plan.set_aside(&spans, clock, &made("rows"), &number.to_string()).unwrap();
            clock = sorted.clock;
            found = (found.0 + sorted.late, found.1 + sorted.spans.values().sum::<u64>());
        }
        prop_assert_eq!(found, (late, in_time.len() as u64));
        let windows: BTreeSet<i64> = in_time.iter().map(|row| spans.of(time(row))).collect();
        let mut before = "base".to_owned();
        for window in windows {
            let until = window + length;
            known.extend(in_time.iter().filter(|row| spans.of(time(row)) == window).cloned());
            let options = PrepareOptions {
                train_from: Some(window.max(begin).to_string()),
                until: Some(until.to_string()),
                ..options()
            };
            let rows = made("rows").join(window.to_string());
            let rows = ams_data::source::open(&rows, &TableOptions::default()).unwrap();
            run(plan_of(rows, options.clone(), after(&before)), &until.to_string());
            before = until.to_string();
            prop_assert_eq!(read(&made(&before)), twin(&known, &options, i64::MAX));
        }
    }

    #[test]
    fn what_comes_after_the_end_is_as_if_it_were_not_there(log in logs(), until in 31..60i64) {
        let split = SplitBy::TestFrom("30".into());
        let mut log = log;
        log.push(row("00", "a", 1, 30));
        let made = |log: &[[String; 6]], until: Option<i64>| {
            let dir = tempfile::tempdir().unwrap();
            let until = until.map(|until| until.to_string());
            let options = PrepareOptions { split: split.clone(), until, ..options() };
            let report = prepare(dir.path(), log, options).unwrap();
            (bytes(dir.path()), report)
        };
        let (cut, report) = made(&log, Some(until));
        let (early, late): (Log, Log) =
            log.into_iter().partition(|row| row[3].parse::<i64>().unwrap() < until);
        prop_assert_eq!(cut, made(&early, None).0);
        prop_assert_eq!(report.dropped.after_until, late.len() as u64);
        prop_assert_eq!(report.rows, early.len() as u64);
    }

    #[test]
    fn the_order_of_the_rows_changes_no_byte(log in logs(), seed in any::<u64>()) {
        let mut other = log.clone();
        other.sort_by_key(|row| Id::of(&seed.to_string(), &row.join(" ")));
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sampled = [Method::Contemporary, Method::Stratified].map(|method| {
            let negatives = NegativeOptions { count: 2, method, ..Default::default() };
            PrepareOptions { negatives: Some(negatives), ..options() }
        });
        for options in sampled.into_iter().chain([options()]) {
            prepare(one.path(), &log, options.clone()).unwrap();
            prepare(two.path(), &other, options).unwrap();
            prop_assert!(bytes(one.path()) == bytes(two.path()));
        }
    }

    #[test]
    fn negatives_were_never_had(log in logs(), method in 0..5usize) {
        let method = ALL_METHODS[method];
        let negatives = NegativeOptions { count: 2, method, ..NegativeOptions::default() };
        let dir = tempfile::tempdir().unwrap();
        let report = prepare(dir.path(), &log, PrepareOptions { negatives: Some(negatives), ..options() }).unwrap();
        let had: BTreeSet<_> = log.iter().map(|row| (Id::of("user", &row[0]), Id::of("item", &row[1]))).collect();
        let seen = read(dir.path());
        let negatives = seen.iter().filter(|(key, _)| key.4 == 0);
        prop_assert!(negatives.clone().all(|(key, _)| !had.contains(&(key.1, key.3))));
        let drawn = report.drawn.unwrap();
        prop_assert_eq!(negatives.count() as u64, drawn.negatives);
        prop_assert_eq!(drawn.negatives + drawn.short, 2 * report.counts.clicks);
    }

    #[test]
    fn training_never_sees_held_out_items_and_the_test_stays(log in logs(), seed in 0..99u64, sampled in 0..6usize) {
        let method = sampled.checked_sub(1).map(|at| ALL_METHODS[at]);
        let negatives = method.map(|method| NegativeOptions { count: 2, method, ..Default::default() });
        let all = PrepareOptions { negatives, split: SplitBy::TestFrom("30".into()), ..options() };
        // One that leaves something to learn.
        let hold_out = (seed..).map(|seed| HoldOut { share: 0.4, seed }).find(|hold| !hold.holds("a")).unwrap();
        let held = PrepareOptions { hold_out_items: Some(hold_out), ..all.clone() };
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        prepare(one.path(), &log, all.clone()).unwrap();
        let report = prepare(two.path(), &log, held).unwrap();
        let test = |dir| bytes(dir).into_iter().filter(|(name, _)| name.contains("test/")).collect::<Vec<_>>();
        prop_assert!(test(one.path()) == test(two.path()));

        let names: BTreeSet<_> = log.iter().map(|row| row[1].as_str()).chain(["a", "b", "c"]).collect();
        let out: BTreeSet<_> = names.iter().filter(|item| hold_out.holds(item)).map(|item| Id::of("item", item)).collect();
        prop_assert_eq!(report.counts.items_held_out, out.len() as u64);
        let train: Vec<_> = read(two.path()).into_iter().filter(|(key, _)| !key.0).collect();
        for (key, past) in &train {
            prop_assert!(!out.contains(&key.3) && past.iter().all(|(_, item)| !out.contains(item)));
        }
        if sampled == 0 {
            // What is left is the training of a log that never had these items.
            let kept: Log = log.iter().filter(|row| !hold_out.holds(&row[1])).cloned().collect();
            let twin: Vec<_> = twin(&kept, &all, 30).into_iter().filter(|(key, _)| !key.0).collect();
            prop_assert_eq!(train, twin);
        }
    }

    #[test]
    fn user_tails_are_last_and_do_not_split_instants(log in logs()) {
        let dir = tempfile::tempdir().unwrap();
        let options = PrepareOptions { split: SplitBy::UserTail(0.4), ..options() };
        // `check` holds every user's test against the newest impression in train; some logs have
        // no test.
        if prepare(dir.path(), &log, options).is_ok() {
            prop_assert!(read(dir.path()).iter().any(|(key, _)| key.0));
        }
    }
}

fn small() -> Log {
    vec![
        row("0042", "a", 1, 1),
        row("0042", "b", 0, 2),
        row("0042", "zz", 1, 30),
        row("7", "c", 0, 30),
    ]
}

#[test]
fn leading_zeros_images_fields_and_unknown_items() {
    let dir = tempfile::tempdir().unwrap();
    let report = prepare(dir.path(), &small(), options()).unwrap();
    assert_eq!(
        (report.counts.items, report.counts.items_with_image, report.items_without_row),
        (4, 2, 1)
    );
    assert_eq!((report.counts.train, report.counts.test, report.counts.users), (2, 2, 2));
    assert_eq!(report.counts.behaviors_mean, 0.25);
    let dataset = Dataset::open(dir.path().join("set")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    for part in 0..2 {
        let file =
            SampleFile::open(&dataset.part_path(SplitName::Train, part), dataset.schema()).unwrap();
        (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
    }
    assert_eq!(groups.users, [Id::of("user", "0042")]);
    assert_eq!(groups.ad_pictures, [PictureName::of("a.jpg"), PictureName::NONE]);
    assert_eq!(groups.ad_fields[1].row(0), [Id::of("tags", "x"), Id::of("tags", "y")]);
    assert_eq!(groups.context_fields[0].row(1), [Id::of("hour", "2")]);
    let counts = dataset.item_counts(SplitName::Test).unwrap();
    assert_eq!(counts.get(&Id::of("item", "zz")), Some(&1));
    assert_eq!(counts.get(&Id::of("item", "a")), None);
}

/// By hand: `a` and `zz` are held out.
#[test]
fn held_out_items_leave_the_training_and_its_histories() {
    let names = ["a", "b", "c", "zz"];
    let hold_out = |held: &[&str]| {
        let seeds = (1..).map(|seed| HoldOut { share: 0.5, seed });
        let same =
            |hold: &HoldOut| names.iter().all(|name| hold.holds(name) == held.contains(name));
        seeds.take(1000).find(same).unwrap()
    };
    let mut log = small();
    log.push(row("0042", "c", 0, 15));
    log.push(row("8", "a", 1, 3));
    let dir = tempfile::tempdir().unwrap();
    let options = PrepareOptions { hold_out_items: Some(hold_out(&["a", "zz"])), ..options() };
    let report = prepare(dir.path(), &log, options.clone()).unwrap();
    let counts = &report.counts;
    // User 8 has nothing left.
    assert_eq!((counts.items, counts.items_held_out, counts.users), (4, 2, 2));
    assert_eq!((counts.train, counts.test, report.dropped.held_out), (2, 2, 2));
    let past: Vec<_> =
        read(dir.path()).into_iter().map(|((_, _, time, ..), past)| (time, past)).collect();
    let a = vec![(1, Id::of("item", "a"))];
    assert_eq!(past, [(2, vec![]), (15, vec![]), (30, a), (30, vec![])]);
    let card = Dataset::open(dir.path().join("set")).unwrap().card().clone();
    assert_eq!(card.hold_out_items, options.hold_out_items);

    let all = PrepareOptions { hold_out_items: Some(hold_out(&["a", "b", "c"])), ..options };
    let found = error(&log, all);
    assert!(
        found.ends_with("train is empty: its 4 rows show held-out items; hold out fewer"),
        "{found}"
    );
}

#[test]
fn events_of_one_day_do_not_know_each_other() {
    let day = |user: &str, item: &str, label, day: &str| {
        let mut row = row(user, item, label, 0);
        row[3] = day.to_string();
        row
    };
    let log = [
        day("u", "a", 1, "2020-09-22"),
        day("u", "b", 0, "2020-09-22"),
        day("u", "c", 1, "2020-09-23"),
        day("v", "c", 0, "2020-09-23"),
    ];
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &log, options()).unwrap();
    let user = Id::of("user", "u");
    let histories: Vec<_> = read(dir.path()).into_iter().filter(|(key, _)| key.1 == user).collect();
    assert!(histories[..2].iter().all(|(_, past)| past.is_empty()));
    assert_eq!(histories[2].1, [(1_600_732_800, Id::of("item", "a"))]);
}

#[test]
fn light_positives_are_no_behaviors_and_repeats_can_go() {
    let mut log = small();
    log.push(row("0042", "a", 1, 29));
    log[0][4] = "2,5".to_string();
    let mut options = PrepareOptions { min_weight: Some(3.0), ..options() };
    options.decimal = Some(ams_data::prepare::Decimal::Comma);
    options.repeats = Repeats::FirstOnly;
    let dir = tempfile::tempdir().unwrap();
    let report = prepare(dir.path(), &log, options).unwrap();
    assert_eq!((report.dropped.light, report.dropped.repeated), (1, 1));
    assert_eq!(report.counts.behaviors_mean, 0.0);
}

#[test]
fn rows_without_user_item_or_time_are_counted() {
    let mut log = small();
    log.extend([row("", "a", 1, 1), row("u", " ", 1, 1)]);
    log.push(row("u", "a", 1, 1));
    log[6][3] = String::new();
    let dir = tempfile::tempdir().unwrap();
    let dropped = prepare(dir.path(), &log, options()).unwrap().dropped;
    assert_eq!((dropped.without_user, dropped.without_item, dropped.without_time), (1, 1, 1));
}

#[test]
fn a_users_table_and_user_fields_of_the_events() {
    let users = table("users.csv", &["user_id", "age"], &[["0042".to_string(), "30".to_string()]]);
    let mut options = options();
    options.columns.user_fields = fields(&["age", "first=hour"]);
    let events = table("events.csv", &COLUMNS, &small());
    let plan = plan(Inputs { events, items: Some(items()), users: Some(users) }, options).unwrap();
    let what: Vec<_> = plan
        .understood()
        .iter()
        .map(|row| format!("{} <- {}.{}", row.what, row.table, row.column))
        .collect();
    assert!(what.contains(&"user field <- users.csv.age".to_string()), "{what:?}");
    assert!(what.contains(&"user field <- events.csv.hour".to_string()), "{what:?}");
    assert!(what.contains(&"ignored <- events.csv.dwell".to_string()), "{what:?}");
    let dir = tempfile::tempdir().unwrap();
    plan.run(&dir.path().join("set"), Existing::Refuse, &mut |_| {}).unwrap();
    let dataset = Dataset::open(dir.path().join("set")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    for part in 0..2 {
        let file =
            SampleFile::open(&dataset.part_path(SplitName::Test, part), dataset.schema()).unwrap();
        (0..file.blocks()).for_each(|block| file.read(block, &mut groups).unwrap());
    }
    let of = |user: &str| groups.users.iter().position(|&id| id == Id::of("user", user)).unwrap();
    assert_eq!(groups.user_fields[1].row(of("0042")), [Id::of("age", "30")]);
    assert_eq!(groups.user_fields[1].row(of("7")), []);
    assert_eq!(groups.user_fields[2].row(of("7")), [Id::of("first", "6")]);
}

#[test]
fn a_label_outside_0_and_1() {
    let mut log = small();
    log[2][2] = "5".to_string();
    let found = error(&log, options());
    assert!(
        found.starts_with("events.csv: row 3, column `click`: label `5`; expected 0 or 1"),
        "{found}"
    );
}

#[test]
fn a_time_in_another_form() {
    let mut log = small();
    log[3][3] = "2020-09-22".to_string();
    let found = error(&log, options());
    assert!(
        found.starts_with("events.csv: row 4, column `timestamp`: time `2020-09-22` reads as days"),
        "{found}"
    );
}

#[test]
fn logs_from_which_nothing_can_be_learned() {
    let positives: Log = small().into_iter().filter(|row| row[2] == "1").collect();
    assert!(
        error(&positives, options())
            .contains("all of 2 rows are positive; ask for sampled negatives")
    );
    let negatives: Log = small().into_iter().filter(|row| row[2] == "0").collect();
    assert!(error(&negatives, options()).contains("none of 2 rows is positive"));
    let instant: Log = small()
        .into_iter()
        .map(|mut row| {
            row[3] = "7".into();
            row
        })
        .collect();
    assert!(error(&instant, options()).contains("all events are at one instant"));
    let late = PrepareOptions { split: SplitBy::TestFrom("1970-01-02".into()), ..options() };
    let found = error(&small(), late);
    let span = "the log spans 1970-01-01 00:00:01 to 1970-01-01 00:00:30 UTC";
    assert!(found.ends_with(span), "{found}");
    assert!(error(&[], options()).ends_with("events.csv: no rows"));
}

#[test]
fn options_that_make_no_sense() {
    let found = |change: fn(&mut PrepareOptions)| {
        let mut options = options();
        change(&mut options);
        error(&small(), options)
    };
    assert_eq!(found(|o| o.parts = 3), "parts is 3; expected a power of two up to 16384");
    assert_eq!(
        found(|o| o.split = SplitBy::Last(1.0)),
        "a test fraction of 1; expected between 0 and 1"
    );
    for (share, shown) in [(0.0, "0"), (1.0, "1"), (-0.5, "-0.5"), (f64::NAN, "NaN")] {
        let mut options = options();
        options.hold_out_items = Some(HoldOut { share, seed: 1 });
        let expected = format!("{shown} of the items held out; expected a share between 0 and 1");
        assert_eq!(error(&small(), options), expected);
    }
    assert!(
        found(|o| o.columns.context_fields = fields(&["label=hour"]))
            .contains("cannot be called `label`")
    );
    assert!(found(|o| o.columns.item_fields = fields(&["tag"])).contains("did you mean `tags`?"));
}

#[test]
fn what_is_there_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let run = |existing| {
        let inputs =
            Inputs { events: table("e", &COLUMNS, &small()), items: Some(items()), users: None };
        let run =
            plan(inputs, options()).unwrap().run(&dir.path().join("set"), existing, &mut |_| {});
        run.map(|report| report.rows).map_err(|error| error.to_string())
    };
    std::fs::create_dir(dir.path().join("set")).unwrap();
    std::fs::write(dir.path().join("set/letter.txt"), "dear").unwrap();
    assert!(run(Existing::Replace).unwrap_err().contains("not empty and not a dataset"));
    std::fs::remove_file(dir.path().join("set/letter.txt")).unwrap();
    assert_eq!(run(Existing::Refuse), Ok(4));
    assert!(run(Existing::Refuse).unwrap_err().contains("is a dataset already"));
    assert_eq!(run(Existing::Replace), Ok(4));
}

#[test]
fn a_folder_that_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let inputs =
        Inputs { events: table("e", &COLUMNS, &small()), items: Some(items()), users: None };
    let out = dir.path().join("file").join("set");
    let error =
        plan(inputs, options()).unwrap().run(&out, Existing::Refuse, &mut |_| {}).unwrap_err();
    assert!(matches!(error, ams_data::Error::Io { .. }), "{error}");
}

/// Writes `events` and `items` as CSV files and prepares them with nothing but the defaults.
fn from_files(events: &str, items: &str) -> Result<(Vec<String>, PrepareReport)> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("events.csv"), events).unwrap();
    std::fs::write(dir.path().join("items.csv"), items).unwrap();
    let open = |name: &str| ams_data::source::open(&dir.path().join(name), &Default::default());
    let inputs =
        Inputs { events: open("events.csv")?, items: Some(open("items.csv")?), users: None };
    let plan = plan(inputs, PrepareOptions { parts: 1, ..PrepareOptions::default() })?;
    let lines = plan
        .understood()
        .iter()
        .map(|row| format!("{}: {} ({})", row.what, row.column, row.example));
    let lines = lines.collect();
    Ok((lines, plan.run(&dir.path().join("set"), Existing::Refuse, &mut |_| {})?))
}

#[test]
fn csv_files_with_the_usual_names_need_no_mapping() {
    let events = "userId;movieId;click;date\n001;7;1;2020-09-22\n001;8;0;2020-09-23\n";
    let (understood, report) =
        from_files(events, "\u{feff}movieId;img;genre\n7;7.jpg;Drama\n").unwrap();
    let expected = [
        "user: userId (001)",
        "item: movieId (7)",
        "time: date (2020-09-22)",
        "label: click (1)",
        "item: movieId (7)",
        "image: img (7.jpg)",
        "item field: genre (Drama)",
    ];
    assert_eq!(understood, expected);
    assert_eq!(
        (report.counts.items, report.counts.items_with_image, report.counts.groups),
        (2, 1, 2)
    );
}

/// The problems `check` lists after `change` was done to a good dataset.
fn problems(change: impl FnOnce(&Path)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path(), &small(), options()).unwrap();
    let set = dir.path().join("set");
    change(&set);
    let report = ams_data::check::check(&set, &mut |_, _| {}).unwrap();
    assert!(!report.is_sound());
    report.problems.iter().map(|line| line.replace(&set.display().to_string(), "SET")).collect()
}

#[test]
fn check_finds_users_in_the_wrong_part() {
    let found = problems(|set| {
        let (zero, one) = (set.join("train/part-00.parquet"), set.join("train/part-01.parquet"));
        std::fs::rename(&zero, set.join("x")).unwrap();
        std::fs::rename(&one, &zero).unwrap();
        std::fs::rename(set.join("x"), &one).unwrap();
    });
    assert!(found[0].contains(": row 1: `user` belongs to part 0"), "{found:?}");
}

#[test]
fn check_finds_held_out_items_in_train() {
    let found = problems(|set| {
        let card = std::fs::read_to_string(set.join("dataset.json")).unwrap();
        let hold_out = r#""hold_out_items": {"share": 0.99999}, "max_behaviors""#;
        std::fs::write(set.join("dataset.json"), card.replace("\"max_behaviors\"", hold_out))
            .unwrap();
    });
    assert!(
        found[0].ends_with("row 1: the item of impression 1 is held out of train"),
        "{found:?}"
    );
    assert_eq!(found[1..], ["items_held_out: the files hold 4, the card says 0"]);
}

#[test]
fn check_finds_a_test_that_is_not_later() {
    let found = problems(|set| {
        for part in ["part-00.parquet", "part-01.parquet"] {
            std::fs::rename(set.join("train").join(part), set.join("x")).unwrap();
            std::fs::rename(set.join("test").join(part), set.join("train").join(part)).unwrap();
            std::fs::rename(set.join("x"), set.join("test").join(part)).unwrap();
        }
    });
    assert!(
        found
            .iter()
            .any(|line| line.contains("an impression at 30 in train; the test begins at 30"))
    );
}

#[test]
fn check_finds_wrong_counts_missing_files_and_unknown_items() {
    let found = problems(|set| {
        let card = std::fs::read_to_string(set.join("dataset.json")).unwrap();
        std::fs::write(set.join("dataset.json"), card.replace("\"clicks\": 2", "\"clicks\": 3"))
            .unwrap();
    });
    assert_eq!(found, ["clicks: the files hold 2, the card says 3"]);
    let found = problems(|set| std::fs::remove_file(set.join("test/part-01.parquet")).unwrap());
    assert!(found[0].starts_with("SET/test/part-01.parquet: "), "{found:?}");
    let found = problems(|set| {
        let dir = tempfile::tempdir().unwrap();
        let log: Log = small().into_iter().filter(|row| row[1] != "zz").collect();
        let log: Log = log.into_iter().chain([row("7", "a", 1, 40)]).collect();
        prepare(dir.path(), &log, options()).unwrap();
        std::fs::copy(dir.path().join("set/items.parquet"), set.join("items.parquet")).unwrap();
        let card = std::fs::read_to_string(set.join("dataset.json")).unwrap();
        std::fs::write(set.join("dataset.json"), card.replace("\"items\": 4", "\"items\": 3"))
            .unwrap();
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].ends_with("row 1: the item of impression 1 is not in the catalogue"),
        "{found:?}"
    );
}
