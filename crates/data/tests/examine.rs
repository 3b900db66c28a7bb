//! Faults that are planted in a made-up log, and what an examination says of the table and of the
//! dataset that is prepared of it. Each case is data.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.
use ams_data::examine::{Examination, Verdict};
use ams_data::negatives::{Method, NegativeOptions};
use ams_data::prepare::{Accept, Existing, Inputs, PrepareOptions, SplitBy, plan};
use ams_data::source::MemoryTable;
use ams_data::{Dataset, Id};

const DAY: i64 = 86_400;
const BEGIN: i64 = 1_600_041_600;
const DAYS: i64 = 20;
const ROWS: u64 = 12_000;
const ITEMS: u64 = 60;

/// A number in 0..1 that looks random: draw `what` of row `row`.
fn dice(what: &str, row: u64) -> f64 {
    (Id::of(what, &row.to_string()).0 >> 11) as f64 / (1u64 << 53) as f64
}

fn pick(what: &str, row: u64, of: u64) -> u64 {
    (dice(what, row) * of as f64) as u64
}

/// A row of the log before a fault.
#[derive(Clone)]
struct Event {
    row: u64,
    user: u64,
    item: u64,
    time: i64,
    label: u8,
    device: String,
    /// A column that says nothing unless a fault makes it.
    extra: String,
    picture: String,
}

impl Event {
    fn day(&self) -> i64 {
        (self.time - BEGIN) / DAY
    }

    /// Users like items of their kind: three clicks of ten, else one.
    fn of(row: u64) -> Event {
        let (user, item) = (pick("user", row, 400), pick("item", row, ITEMS));
        let rate = if user % 4 == item % 4 { 0.3 } else { 0.1 };
        Event {
            row,
            user,
            item,
            time: BEGIN + (dice("time", row) * (DAYS * DAY) as f64) as i64,
            label: u8::from(dice("click", row) < rate),
            device: ["phone", "desktop", "tablet"][pick("device", row, 3) as usize].to_owned(),
            extra: pick("extra", row, 5).to_string(),
            picture: format!("{item}.png"),
        }
    }
}

/// What is planted, and the findings that are not `ok` as `verdict check field`.
struct Case {
    name: &'static str,
    plant: fn(Event) -> Vec<Event>,
    table: &'static [&'static str],
    dataset: &'static [&'static str],
}

const CASES: [Case; 13] = [
    Case { name: "sound", plant: |event| vec![event], table: &[], dataset: &[] },
    Case {
        name: "a field that is the label, nearly",
        plant: |mut event| {
            let clicked = (event.label == 1) != (dice("noise", event.row) < 0.01);
            event.extra = if clicked { "long" } else { "short" }.to_owned();
            vec![event]
        },
        table: &["bad leak extra"],
        dataset: &["bad leak extra"],
    },
    Case {
        name: "a field that is empty without a click",
        plant: |mut event| {
            event.extra = if event.label == 1 { event.extra } else { String::new() };
            vec![event]
        },
        table: &["bad leak extra"],
        dataset: &["bad leak extra"],
    },
    Case {
        name: "a number that is less after a click, and never the same",
        plant: |mut event| {
            let seconds = dice("seconds", event.row) + 0.97 * f64::from(1 - event.label);
            event.extra = seconds.to_string();
            vec![event]
        },
        // Ids of numbers that a categorical field has once each.
        table: &["bad leak extra", "look once extra"],
        dataset: &["look once extra", "bad drift extra"],
    },
    Case {
        name: "a day without clicks",
        plant: |mut event| {
            event.label *= u8::from(event.day() != 5);
            vec![event]
        },
        table: &["bad days"],
        dataset: &["bad days"],
    },
    Case {
        name: "rows that are there twice, which prepare leaves out",
        plant: |event| vec![event.clone(); 1 + usize::from(event.row % 5 == 0)],
        table: &["bad duplicates"],
        dataset: &[],
    },
    Case {
        name: "impressions beside their clicks",
        plant: |event| {
            let shown = Event { label: 0, ..event.clone() };
            if event.label == 1 { vec![event, shown] } else { vec![event] }
        },
        table: &["bad duplicates"],
        dataset: &["bad duplicates"],
    },
    Case {
        name: "a session's id",
        plant: |mut event| {
            event.extra = format!("s{}", event.row);
            vec![event]
        },
        table: &["look once extra", "bad drift extra"],
        dataset: &["look once extra", "bad drift extra"],
    },
    Case {
        name: "a date",
        plant: |mut event| {
            event.extra = format!("day {}", event.day());
            vec![event]
        },
        table: &["bad drift extra"],
        dataset: &["bad drift extra"],
    },
    Case {
        name: "phones that come with the test",
        plant: |mut event| {
            let new = event.day() >= DAYS - 2 && dice("new", event.row) < 0.6;
            event.device = if new { "phone".to_owned() } else { event.device };
            vec![event]
        },
        table: &["look drift device"],
        dataset: &["look drift device"],
    },
    Case {
        name: "a fifth of the items without a picture",
        plant: |mut event| {
            event.picture = if event.item % 5 > 0 { event.picture } else { String::new() };
            vec![event]
        },
        table: &[],
        dataset: &["look pictures"],
    },
    Case {
        name: "no picture at all",
        plant: |mut event| {
            event.picture.clear();
            vec![event]
        },
        table: &[],
        dataset: &["look pictures"],
    },
    Case {
        name: "one picture for a third of the items",
        plant: |mut event| {
            event.picture = if event.item % 3 == 0 { "none.png".to_owned() } else { event.picture };
            vec![event]
        },
        table: &[],
        dataset: &["look pictures"],
    },
];

const COLUMNS: [&str; 6] = ["user", "item", "time", "label", "device", "extra"];

/// The log with the fault of `case`, and its items.
fn tables(plant: fn(Event) -> Vec<Event>) -> (MemoryTable, MemoryTable) {
    let events: Vec<Event> = (0..ROWS).flat_map(|row| plant(Event::of(row))).collect();
    let mut pictures = vec![String::new(); ITEMS as usize];
    events.iter().for_each(|event| pictures[event.item as usize].clone_from(&event.picture));
    let row = |event: &Event| {
        let Event { user, item, time, label, device, extra, .. } = event;
        let [user, item] = [format!("u{user}"), format!("i{item}")];
        vec![user, item, time.to_string(), label.to_string(), device.clone(), extra.clone()]
    };
    let rows = events.iter().map(row).collect();
    let items = pictures.into_iter().enumerate();
    let items = items.map(|(item, picture)| vec![format!("i{item}"), picture]).collect();
    (
        MemoryTable::new("events.csv", &COLUMNS, rows),
        MemoryTable::new("items.csv", &["item", "image"], items),
    )
}

fn prepared(
    events: MemoryTable,
    items: Option<MemoryTable>,
    mut options: PrepareOptions,
) -> (tempfile::TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    options.parts = 4;
    options.accept = vec![Accept::DroppedRows];
    let items = items.map(|items| Box::new(items) as Box<dyn ams_data::source::Table>);
    let plan = plan(Inputs { events: Box::new(events), items, users: None }, options).unwrap();
    plan.run(&dir.path().join("set"), Existing::Refuse, &mut |_| {}).unwrap();
    let dataset = Dataset::open(dir.path().join("set")).unwrap();
    (dir, dataset)
}

/// The findings that are not `ok`.
fn faults(examination: &Examination) -> Vec<String> {
    let worse = examination.findings.iter().filter(|finding| finding.verdict != Verdict::Ok);
    let line = worse.map(|finding| {
        assert!(!finding.said.contains("NaN"), "{finding:?}");
        let field = finding.field.iter().map(|field| format!(" {field}")).collect::<String>();
        format!("{} {}{field}", finding.verdict.as_str(), finding.check)
    });
    line.collect()
}

#[test]
fn planted_faults_are_found_and_nothing_else() {
    for Case { name, plant, table, dataset } in CASES {
        let (events, items) = tables(plant);
        let found = Examination::of_table(&events, &PrepareOptions::default()).unwrap();
        assert_eq!(faults(&found), table, "{name}: {:#?}", found.findings);
        let mut options = PrepareOptions {
            split: SplitBy::TestFrom((BEGIN + (DAYS - 2) * DAY).to_string()),
            ..Default::default()
        };
        let fields = ["device", "extra"].map(|field| field.parse().unwrap());
        options.columns.context_fields = Some(fields.to_vec());
        let (_dir, set) = prepared(events, Some(items), options);
        let found = Examination::of_dataset(&set, None).unwrap();
        assert_eq!(faults(&found), dataset, "{name}: {:#?}", found.findings);
    }
}

#[test]
fn pictures_that_are_named_may_be_missing() {
    let (events, items) = tables(|event| vec![event]);
    let (_dir, set) = prepared(events, Some(items), PrepareOptions::default());
    let known = |picture| picture == ams_data::PictureName::of("7.png");
    let found = Examination::of_dataset(&set, Some(&known)).unwrap();
    assert_eq!(faults(&found), ["bad pictures"]);
    let said: Vec<&str> = found.findings.iter().map(|finding| &finding.said[..]).collect();
    assert!(
        said.iter().any(|said| said.contains("98.") && said.contains("0.00 % name none")),
        "{said:?}"
    );
}

/// Items that appear over time, and negatives of all of them at any time.
#[test]
fn negatives_from_before_their_items_are_found() {
    let log = || -> MemoryTable {
        let row = |row: u64| {
            let item = pick("item", row, 200);
            let from = DAYS as f64 * item as f64 / 200.0;
            let day = from + dice("time", row) * (DAYS as f64 - from);
            let user = format!("u{}", pick("user", row, 400));
            let time = BEGIN + (day * DAY as f64) as i64;
            vec![user, format!("i{item}"), time.to_string()]
        };
        MemoryTable::new("events.csv", &["user", "item", "time"], (0..4000).map(row).collect())
    };
    let of = |method| {
        let negatives = NegativeOptions { count: 2, method, ..NegativeOptions::default() };
        let options = PrepareOptions { negatives: Some(negatives), ..PrepareOptions::default() };
        let (_dir, set) = prepared(log(), None, options);
        let found = Examination::of_dataset(&set, None).unwrap();
        let own_past = found.own_past.clone().unwrap();
        (faults(&found), own_past.train_before_first.unwrap())
    };
    let (found, early) = of(Method::Uniform);
    assert!(found.contains(&"bad past".to_owned()) && early > 0.2, "{found:?} {early}");
    let (_, early) = of(Method::Contemporary);
    assert!(early < 0.1, "{early}");
    let found = Examination::of_table(&log(), &PrepareOptions::default()).unwrap();
    assert_eq!(faults(&found), ["bad labels"]);
}

/// Of what there is too much of, half of the users are looked at, whatever the order of the rows.
#[test]
fn the_order_of_rows_changes_nothing() {
    let of = |backwards: bool| {
        let mut rows: Vec<Vec<String>> = (0..ROWS)
            .map(|row| {
                let Event { user, item, time, label, device, extra, .. } = Event::of(row);
                let [user, item] = [format!("u{user}"), format!("i{item}")];
                vec![user, item, time.to_string(), label.to_string(), device, extra]
            })
            .collect();
        if backwards {
            rows.reverse();
        }
        let table = MemoryTable::new("events.csv", &COLUMNS, rows);
        Examination::of_table(&table, &PrepareOptions::default()).unwrap()
    };
    assert_eq!(of(true), of(false));
}
