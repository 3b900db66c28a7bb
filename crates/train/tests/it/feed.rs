//! The order in which impressions are learned from.

use ams_data::Groups;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_train::step::feed::{Feed, Order};
use ams_train::step::selection::Period;

use super::shop::shop;

/// The (user, item, time) of every impression a feed gives in one epoch, taken `step` at a time.
fn given(feed: &mut Feed, epoch: u32, step: u64) -> Vec<(u64, u64, i64)> {
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let mut groups = Groups::new(dataset.schema());
    feed.start(epoch);
    for until in (step..).step_by(usize::try_from(step).unwrap()) {
        feed.take(until, &mut groups).unwrap();
        if until >= feed.impressions() {
            break;
        }
    }
    let users = (0..groups.len())
        .flat_map(|group| groups.impressions.range(group).map(move |_| group))
        .map(|group| groups.users[group].0);
    let item = |row| groups.ad_fields[0].row(row)[0].0;
    users.enumerate().map(|(row, user)| (user, item(row), groups.times[row])).collect()
}

#[test]
fn every_epoch_gives_every_impression_once_in_an_order_of_its_own() {
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let files = || -> Vec<SampleFile> {
        let paths = (0..8).map(|part| dataset.part_path(SplitName::Train, part));
        let paths = paths.filter(|path| path.exists());
        paths.map(|path| SampleFile::open(&path, dataset.schema()).unwrap()).collect()
    };
    let mut plain =
        Feed::new(files(), dataset.schema(), Order::Files, usize::MAX, Period::Always).unwrap();
    let mut all = given(&mut plain, 0, 10);
    assert_eq!(all.len() as u64, plain.impressions());
    let in_file_order = all.clone();
    all.sort_unstable();
    // All in memory; several windows; a group at a time.
    for window in [usize::MAX, 20, 1] {
        let order = Order::Shuffled { seed: 3, lane: 1 };
        let feed = || Feed::new(files(), dataset.schema(), order, window, Period::Always).unwrap();
        let mut shuffled = feed();
        let epochs = [0, 1].map(|epoch| given(&mut shuffled, epoch, 7));
        assert_ne!(epochs[0], epochs[1], "epochs have their own order, window {window}");
        assert_ne!(epochs[0], in_file_order);
        // Whatever came before, and however much is taken at once.
        assert_eq!(given(&mut feed(), 1, 1000), epochs[1], "window {window}");
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert!(epoch == all, "window {window}");
        }
    }
}

#[test]
fn a_period_and_the_rest_are_all_impressions() {
    let dataset = Dataset::open(shop().join("data")).unwrap();
    let files = || -> Vec<SampleFile> {
        let paths = (0..8).map(|part| dataset.part_path(SplitName::Train, part));
        paths.map(|path| SampleFile::open(&path, dataset.schema()).unwrap()).collect()
    };
    let feed = |period, window| {
        Feed::new(files(), dataset.schema(), Order::Files, window, period).unwrap()
    };
    let all = given(&mut feed(Period::Always, usize::MAX), 0, 10);
    let mut times: Vec<i64> = all.iter().map(|(.., time)| *time).collect();
    times.sort_unstable();
    for at in [times[0], times[times.len() / 2], times[times.len() * 9 / 10]] {
        for window in [usize::MAX, 20, 1] {
            let [before, from] = [Period::Before(at), Period::From(at)].map(|period| {
                let mut feed = feed(period, window);
                let count = feed.impressions();
                let rows = if count > 0 { given(&mut feed, 0, 10) } else { Vec::new() };
                assert_eq!(rows.len() as u64, count, "{period:?}");
                rows
            });
            // Groups are of one user and last minutes, so an impression may be later than `at`.
            assert!(from.iter().all(|(.., time)| *time >= at), "window {window}");
            let mut both = [before, from].concat();
            both.sort_unstable();
            let mut all = all.clone();
            all.sort_unstable();
            assert_eq!(both, all, "window {window}");
        }
    }
}
