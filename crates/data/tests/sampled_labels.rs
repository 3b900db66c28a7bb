//! Whether sampled labels can be told by how often an item was had before: on a made-up log of a
//! shop in which everything is had seldom and for a while.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.
use ams_data::negatives::{Method, NegativeOptions};
use ams_data::own_past::{DAYS, OwnPast, Told};
use ams_data::prepare::{Accept, Existing, Inputs, PrepareOptions, PrepareReport, SplitBy, plan};
use ams_data::source::MemoryTable;
use ams_data::{Dataset, Id, SampleFile, SplitName};

const DAY: i64 = 86_400;

/// Numbers in 0..1 that look random, always the same.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 += 1;
        let hash = Id::of("dice", &self.0.to_string()).0;
        (hash >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Rows of user, item and time: items appear over 300 days, and are had 1 to 40 times from then on,
/// half of these within three weeks, by 4,000 users.
fn shop(items: usize) -> Vec<Vec<String>> {
    let mut dice = Dice(0);
    let mut rows = Vec::new();
    for item in 0..items {
        let begin = dice.next() * 300.0;
        let times = (1.0 / (1.0 - dice.next())).min(40.0) as usize;
        for _ in 0..times {
            let user = (dice.next() * 4000.0) as usize;
            let day = begin - 30.0 * (1.0 - dice.next()).ln();
            let time = 1_600_000_000 + (day * DAY as f64) as i64;
            rows.push(vec![format!("u{user}"), format!("i{item}"), time.to_string()]);
        }
    }
    rows
}

/// Prepares `rows` in a folder, and what was found.
fn prepared(rows: Vec<Vec<String>>, method: Method) -> (tempfile::TempDir, PrepareReport) {
    let dir = tempfile::tempdir().unwrap();
    let events = Box::new(MemoryTable::new("events.csv", &["user", "item", "time"], rows));
    let options = PrepareOptions {
        negatives: Some(NegativeOptions { count: 4, method, ..NegativeOptions::default() }),
        split: SplitBy::Last(0.2),
        accept: vec![Accept::DroppedRows],
        parts: 4,
        ..PrepareOptions::default()
    };
    let plan = plan(Inputs { events, items: None, users: None }, options).unwrap();
    let report = plan.run(&dir.path().join("set"), Existing::Refuse, &mut |_| {}).unwrap();
    (dir, report)
}

fn aucs(own_past: &OwnPast) -> Vec<f64> {
    let told = own_past.windows.iter().flat_map(|window| [window.train, window.test]);
    told.map(|told: Option<Told>| told.unwrap().auc).collect()
}

#[test]
fn negatives_from_around_are_told_by_their_past_and_the_next_ones_are_not() {
    let (_dir, report) = prepared(shop(3000), Method::Around);
    let told = aucs(report.own_past.as_ref().unwrap());
    assert!(told.iter().any(|auc| (auc - 0.5).abs() > 0.1), "{told:?}");
    let warning = &report.warnings[0];
    assert!(warning.contains("days tells drawn items by itself"), "{warning}");
    assert!(warning.contains("--negatives-from contemporary"), "{warning}");

    let (_dir, report) = prepared(shop(3000), Method::Contemporary);
    let told = aucs(report.own_past.as_ref().unwrap());
    assert!(told.iter().all(|auc| (auc - 0.5).abs() <= 0.02), "{told:?}");
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(report.drawn.unwrap().short, 0);
}

#[test]
fn uniform_negatives_are_told_by_popularity() {
    let (_dir, report) = prepared(shop(300), Method::Uniform);
    assert!(report.warnings[0].contains("tells clicked items by itself"), "{:?}", report.warnings);
}

/// Against all pairs, and all events for every impression.
#[test]
fn the_auc_is_that_of_all_pairs() {
    let (dir, report) = prepared(shop(60), Method::Popularity);
    let dataset = Dataset::open(dir.path().join("set")).unwrap();
    let mut shown = Vec::new();
    for split in SplitName::ALL {
        for part in 0..4 {
            let file = SampleFile::open(&dataset.part_path(split, part), dataset.schema()).unwrap();
            file.for_each_impression(|item, time, label| shown.push((split, item, time, label)))
                .unwrap();
        }
    }
    assert_eq!(shown.len() as u64, report.counts.impressions);
    assert_eq!(shown.iter().filter(|row| row.3 == 1).count() as u64, report.counts.clicks);
    let own_past = report.own_past.unwrap();
    for (window, days) in own_past.windows.iter().zip(DAYS) {
        assert_eq!(window.days, days);
        for (split, told) in SplitName::ALL.into_iter().zip([window.train, window.test]) {
            let counts = |wanted: u8| -> Vec<usize> {
                let of_split = shown.iter().filter(|row| row.0 == split && row.3 == wanted);
                let before = |&(_, item, time, _): &(SplitName, Id, i64, u8)| {
                    let had = shown.iter().filter(|row| row.1 == item && row.3 == 1);
                    had.filter(|row| row.2 < time && row.2 >= time - i64::from(days) * DAY).count()
                };
                of_split.map(before).collect()
            };
            let (positives, negatives) = (counts(1), counts(0));
            let pairs =
                positives.iter().flat_map(|one| negatives.iter().map(move |two| (one, two)));
            let won: usize =
                pairs.map(|(one, two)| usize::from(one > two) + usize::from(one >= two)).sum();
            let expected = won as f64 / 2.0 / (positives.len() * negatives.len()) as f64;
            assert!((told.unwrap().auc - expected).abs() < 1e-12);
        }
    }
}
