//! The synthetic shop: what a real shop would hand us, drawn from a click model we know.
//!
//! A catalogue whose pictures are really drawn, users with a taste for departments and a taste for
//! looks, days of page views, clicks. What an article looks like (hue, print, outline) is in its
//! picture and in nothing else; how good it is, in nothing but its id. Knows seeds and files. Does
//! not know samples, encoders or models.
//!
//! Every item, user, visit and page has a random stream of its own, so one seed gives the same
//! bytes of every file, whatever the number of threads. Memory is bounded by the catalogue, the
//! users, one day's page views and 24 bytes per impression of the test day (whose best possible AUC
//! is exact).

mod bayes;
mod catalogue;
mod clicks;
mod config;
mod days;
mod dice;
mod files;
mod living;
mod outline;
mod photographs;
mod picture;
mod shopper;
mod style;

pub use bayes::Bayes;
pub use config::{ShopConfig, Strengths, Taste};
pub use dice::{Dice, Entity, running_sums};
pub use living::{Look, Shop, ShopDay, Shown, View};

use crate::error::{Error, Result};
use crate::staging::StagedFolder;
use bayes::Outcome;
use catalogue::{Exposure, Item, stock};
use clicks::ClickModel;
use files::{Columns, EventFile};
use photographs::draw_pictures;
use serde::{Deserialize, Serialize};
use shopper::Shopper;
use std::fs;
use std::path::Path;

/// How far the generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Pictures drawn and written.
    Pictures {
        /// Number that is finished so far.
        done: usize,
        /// Number that there is in all.
        total: usize,
    },
    /// The days of the shop are simulated.
    Days {
        /// Number that is finished so far.
        done: usize,
        /// Number that there is in all.
        total: usize,
    },
}

/// Counts of a generated shop, and the scores of its true probabilities.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShopReport {
    /// Users who viewed at least one page.
    pub users: usize,
    /// Items of the catalogue.
    pub items: usize,
    /// Number of impressions in the log.
    pub events: u64,
    /// Impressions that were clicked.
    pub clicks: u64,
    /// Impressions of the test day.
    pub test_events: u64,
    /// Impressions of the test day whose item was never shown before it.
    pub cold_events: u64,
    /// Number of pictures that were written.
    pub images: usize,
    /// First instant of the test day, unix seconds.
    pub test_from: i64,
    /// What a perfect model would reach on the test day.
    pub bayes: Bayes,
}

/// Generates the shop of `config` into the new folder `out`: `events.parquet`, `items.csv`,
/// `images/`, and the truth: `truth.json`, `truth.parquet`, `truth_items.csv`. It is built beside
/// `out` and renamed at the end, so nothing half-written stays behind. Pictures are drawn on the
/// threads of the current rayon pool.
///
/// # Errors
/// [`Error::Option`] if the config does not make sense or `out` exists and is not an empty folder,
/// [`Error::Io`] or [`Error::Content`] if something cannot be written.
pub fn generate(
    config: &ShopConfig,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ShopReport> {
    config.check()?;
    refuse_to_overwrite(out)?;
    let out = std::path::absolute(out).map_err(Error::io(out))?;
    if out.file_name().is_none() {
        let what = format!("{}: expected the name of a new folder", out.display());
        return Err(Error::option(what));
    }
    let staged = StagedFolder::create(&out)?;
    let folder = staged.temporary();

    let stock = stock(config);
    let images = draw_pictures(config, &stock, folder, &mut |done| {
        progress(Progress::Pictures { done, total: stock.len() });
    })?;
    files::write_items(&folder.join("items.csv"), &stock, &images)?;
    files::write_item_truth(&folder.join("truth_items.csv"), &stock)?;
    let report = live(config, &stock, folder, progress)?;
    staged.commit()?;
    Ok(report)
}

fn refuse_to_overwrite(out: &Path) -> Result<()> {
    let exists = fs::symlink_metadata(out).is_ok();
    let empty_folder = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    if exists && !empty_folder {
        let what = format!("{} exists already: choose another folder or remove it", out.display());
        return Err(Error::option(what));
    }
    Ok(())
}

/// Lives through all days, writing `events.parquet`, `truth.parquet` and `truth.json`.
fn live(
    config: &ShopConfig,
    stock: &[Item],
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ShopReport> {
    let shoppers: Vec<Shopper> =
        (0..config.users).map(|user| Shopper::draw(config, user)).collect();
    let model = ClickModel::calibrated(config, &shoppers, stock);
    let mut log = EventFile::create(folder.join("events.parquet"), Columns::Log, &shoppers)?;
    let mut truth = EventFile::create(folder.join("truth.parquet"), Columns::Truth, &shoppers)?;
    let mut seen = Seen { users: vec![false; config.users], items: vec![false; stock.len()] };
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut events, mut clicks) = (0, 0);
    let mut today = shoppers.clone();
    for day in 0..config.days {
        if day > 0 {
            let each = today.iter_mut().enumerate();
            each.for_each(|(user, shopper)| shopper.drift(config, user, day));
        }
        let exposure = Exposure::of_day(config, stock, day);
        for visit in days::visits(config, &shoppers, day) {
            for event in days::page(config, &model, &today, stock, &exposure, visit) {
                seen.users[event.user as usize] = true;
                events += 1;
                clicks += u64::from(event.clicked);
                if day == config.test_day() {
                    outcomes.push(Outcome {
                        user: event.user,
                        cold: !seen.items[event.item as usize],
                        clicked: event.clicked,
                        probability: event.probability,
                    });
                    truth.push(event.clone())?;
                } else {
                    seen.items[event.item as usize] = true;
                }
                log.push(event)?;
            }
        }
        progress(Progress::Days { done: day + 1, total: config.days });
    }
    log.finish()?;
    truth.finish()?;
    let report = ShopReport {
        users: seen.users.iter().filter(|&&seen| seen).count(),
        items: stock.len(),
        events,
        clicks,
        test_events: outcomes.len() as u64,
        cold_events: outcomes.iter().filter(|outcome| outcome.cold).count() as u64,
        images: stock.len(),
        test_from: days::midnight(config.test_day()),
        bayes: Bayes::of(&mut outcomes),
    };
    let truth = serde_json::json!({
        "format": "ams-shop/1",
        "config": config,
        "base_logit": model.base(),
        "report": report,
    });
    files::write_json(&folder.join("truth.json"), &truth)?;
    Ok(report)
}

/// Who has come, and what has been shown before the test day.
struct Seen {
    users: Vec<bool>,
    items: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A shop even smaller than tiny: pictures are the slow part.
    fn small() -> ShopConfig {
        ShopConfig { items: 40, picture_sides: [32, 40], ..ShopConfig::tiny() }
    }

    fn generated(config: &ShopConfig) -> (ShopReport, BTreeMap<String, Vec<u8>>) {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("shop");
        let report = generate(config, &out, &mut |_| ()).unwrap();
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "only the shop stays behind");
        let mut files = BTreeMap::new();
        collect(&out, &out, &mut files);
        (report, files)
    }

    fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(root, &path, files);
            } else {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }

    fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
    }

    #[test]
    fn one_seed_gives_the_same_bytes_on_any_number_of_threads() {
        let first = with_threads(1, || generated(&small()));
        let again = with_threads(3, || generated(&small()));
        assert!(first == again);
        let (_, other) = generated(&ShopConfig { seed: 2, ..small() });
        assert_ne!(first.1["events.parquet"], other["events.parquet"]);
    }

    #[test]
    fn the_report_counts_what_the_files_hold() {
        let config = small();
        let (report, files) = generated(&config);
        let rows = |name: &str| events::read(&files[name]);
        let log = rows("events.parquet");
        let truth = rows("truth.parquet");
        assert_eq!(report.events, log.len() as u64);
        assert_eq!(report.clicks, log.iter().map(|event| event.label as u64).sum::<u64>());
        assert!(log.is_sorted_by_key(|event| event.time), "events are in order of time");
        let test: Vec<_> =
            log.iter().filter(|event| event.time >= report.test_from).cloned().collect();
        assert_eq!(test, truth);
        assert_eq!(report.test_events, test.len() as u64);

        let before = |item: &str| {
            log.iter().any(|event| event.time < report.test_from && event.item == item)
        };
        let cold = test.iter().filter(|event| !before(&event.item)).count();
        assert_eq!(report.cold_events, cold as u64);
        assert!((0.1..0.3).contains(&(cold as f64 / test.len() as f64)));

        let catalogue = String::from_utf8(files["items.csv"].clone()).unwrap();
        let images: Vec<&str> =
            catalogue.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
        assert_eq!((images.len(), report.items, report.images), (40, 40, 40));
        assert!(images.iter().all(|image| files.contains_key(*image)));
        assert_eq!(files.len(), 5 + 40);
        let json: serde_json::Value = serde_json::from_slice(&files["truth.json"]).unwrap();
        assert_eq!(json["report"], serde_json::to_value(&report).unwrap());
        let written: ShopConfig = serde_json::from_value(json["config"].clone()).unwrap();
        assert_eq!(written, config);
    }

    #[test]
    fn taste_makes_the_test_day_predictable() {
        let bayes = |taste| generated(&ShopConfig { taste, users: 300, ..small() }).0.bayes;
        let (with, without) = (bayes(Taste::Visual), bayes(Taste::None));
        assert!(with.gauc > Some(0.77) && with.cold_gauc > Some(0.7), "{with:?}");
        assert!(without.gauc < Some(0.68), "{without:?}");
    }

    /// Before the passing days, and on the test day, the shop is as it is without them.
    #[test]
    fn a_passing_interest_fills_the_days_before_the_test() {
        let config = ShopConfig { days: 5, users: 100, ..small() };
        let log = |passing_days| {
            let config = ShopConfig { passing_days, ..config.clone() };
            events::read(&generated(&config).1["events.parquet"])
        };
        let (usual, passing) = (log(0), log(2));
        let days = |rows: &[events::Row], first: usize, end: usize| -> Vec<events::Row> {
            let times = days::midnight(first)..days::midnight(end);
            rows.iter().filter(|row| times.contains(&row.time)).cloned().collect()
        };
        for (first, end) in [(0, 2), (4, 5)] {
            assert_eq!(days(&usual, first, end), days(&passing, first, end));
        }
        let rate = |rows: &[events::Row]| {
            rows.iter().map(|row| f64::from(row.label)).sum::<f64>() / rows.len() as f64
        };
        let (usual, passing) = (days(&usual, 2, 4), days(&passing, 2, 4));
        assert_eq!(usual.len(), passing.len());
        assert!(rate(&usual) < 0.3 && (0.7..0.9).contains(&rate(&passing)), "{}", rate(&passing));
    }

    /// Users look at the same pages, and click by a taste that is no longer the first one.
    #[test]
    fn tastes_drift() {
        let config = ShopConfig { users: 200, ..small() };
        let log = |taste_drift| {
            let config = ShopConfig { taste_drift, ..config.clone() };
            events::read(&generated(&config).1["events.parquet"])
        };
        let (usual, drifting) = (log(0.0), log(1.0));
        let shown = |row: &events::Row| (row.time, row.user.clone(), row.item.clone());
        assert!(usual.iter().map(shown).eq(drifting.iter().map(shown)));
        let differ = |from, end| {
            let times = days::midnight(from)..days::midnight(end);
            let each = usual.iter().zip(&drifting).filter(|(row, _)| times.contains(&row.time));
            each.filter(|(usual, drifting)| usual.label != drifting.label).count()
        };
        assert_eq!(differ(0, 1), 0);
        assert!(differ(1, 4) > usual.len() / 10);
    }

    #[test]
    fn an_existing_shop_is_not_overwritten() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("mine.txt"), "mine").unwrap();
        let error = generate(&small(), out.path(), &mut |_| ()).unwrap_err().to_string();
        assert!(error.ends_with("exists already: choose another folder or remove it"), "{error}");
        assert_eq!(fs::read(out.path().join("mine.txt")).unwrap(), b"mine");
    }

    #[test]
    fn progress_ends_at_the_total() {
        let out = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        generate(&small(), out.path(), &mut |progress| seen.push(progress)).unwrap();
        let days = (1..=4).map(|done| Progress::Days { done, total: 4 });
        let want: Vec<_> =
            std::iter::once(Progress::Pictures { done: 40, total: 40 }).chain(days).collect();
        assert_eq!(seen, want);
    }

    /// Reads the common columns of the two event files.
    mod events {
        use arrow_array::cast::AsArray;
        use arrow_array::types::{Int32Type, Int64Type};
        use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct Row {
            pub(super) user: String,
            pub(super) item: String,
            pub(super) label: i32,
            pub(super) time: i64,
        }

        pub(super) fn read(bytes: &[u8]) -> Vec<Row> {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.parquet");
            std::fs::write(&path, bytes).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            let mut rows = Vec::new();
            for batch in reader {
                let batch = batch.unwrap();
                let text = |name| batch.column_by_name(name).unwrap().as_string::<i32>();
                let labels = batch.column_by_name("label").unwrap().as_primitive::<Int32Type>();
                let times = batch.column_by_name("time").unwrap().as_primitive::<Int64Type>();
                rows.extend((0..batch.num_rows()).map(|row| Row {
                    user: text("user").value(row).into(),
                    item: text("item").value(row).into(),
                    label: labels.value(row),
                    time: times.value(row),
                }));
            }
            rows
        }
    }
}
