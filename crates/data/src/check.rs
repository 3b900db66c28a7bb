//! Checking a dataset folder, whoever wrote it: every file, every row, the card's counts.

use std::path::Path;

use hashbrown::{HashMap, HashSet};
use serde::Serialize;

use crate::dataset::{Dataset, SplitName};
use crate::samples::SampleFile;
use crate::schema::{Counts, ITEM, Side, Split, USER};
use crate::{Catalogue, Error, Groups, Id, Result, part_of};

/// Problems beyond this number are counted, not listed.
pub const LISTED: usize = 20;

/// Counts and problems of all sample files of a dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckReport {
    /// Number of sample files that were read.
    pub files: usize,
    /// What the files count, to be held against the card.
    pub counts: Counts,
    /// The first [`LISTED`] problems, with file and row.
    pub problems: Vec<String>,
    /// Number of problems, those beyond [`LISTED`] included.
    pub problem_count: u64,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problem_count == 0
    }

    fn add(&mut self, problem: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < LISTED {
            self.problems.push(problem.into());
        }
    }
}

/// Checks the dataset in `dir`: every part file is there and readable, its rows are valid, users
/// stand in their part and on the right side of the split, histories are not too long, items are
/// known with the same picture, train has no item that is held out of it, and the counts are the
/// card's. `progress` hears of files done and of how many.
///
/// # Errors
/// Only if there is no card to hold the folder against; everything else is in the report.
pub fn check(dir: &Path, progress: &mut dyn FnMut(usize, usize)) -> Result<CheckReport> {
    let dataset = Dataset::open(dir)?;
    let mut report = CheckReport::default();
    let mut check = Check::new(&dataset, &mut report);
    let parts = dataset.card().parts;
    for part in 0..parts {
        for split in SplitName::ALL {
            check.file(split, part, &mut report);
            report.files += 1;
            progress(report.files, 2 * parts);
        }
        check.end_part(&mut report);
    }
    check.hold_counts(&mut report);
    Ok(report)
}

struct Check<'a> {
    dataset: &'a Dataset,
    /// Item ids and their pictures.
    items: Option<HashMap<Id, crate::PictureName>>,
    /// Items that train must not have.
    held_out: HashSet<Id>,
    behaviors: u64,
    /// Of the current part: users, and of the train users the newest impression.
    users: HashSet<Id>,
    newest: HashMap<Id, i64>,
}

impl<'a> Check<'a> {
    fn new(dataset: &'a Dataset, report: &mut CheckReport) -> Check<'a> {
        let mut held_out = HashSet::new();
        let items = match Catalogue::open(dataset) {
            Ok(catalogue) => {
                if let Some(hold_out) = dataset.card().hold_out_items {
                    let held = (0..catalogue.len()).map(|row| catalogue.item(row));
                    let held = held.filter(|item| hold_out.holds(item));
                    held_out = held.map(|item| Id::of(ITEM, item)).collect();
                }
                report.counts.items_held_out = held_out.len() as u64;
                report.counts.items = catalogue.len() as u64;
                report.counts.items_with_image = catalogue.with_image() as u64;
                let name = |row| crate::PictureName::of(catalogue.image(row).unwrap_or_default());
                let rows = 0..catalogue.len();
                Some(rows.map(|row| (Id::of(ITEM, catalogue.item(row)), name(row))).collect())
            }
            Err(error) => {
                report.add(error.to_string());
                None
            }
        };
        let (users, newest) = (HashSet::new(), HashMap::new());
        Check { dataset, items, held_out, behaviors: 0, users, newest }
    }

    fn file(&mut self, split: SplitName, part: usize, report: &mut CheckReport) {
        let path = self.dataset.part_path(split, part);
        let file = match SampleFile::open(&path, self.dataset.schema()) {
            Ok(file) => file,
            Err(error) => return report.add(error.to_string()),
        };
        let mut groups = Groups::new(self.dataset.schema());
        for block in 0..file.blocks() {
            groups.clear();
            if let Err(error) = file.read(block, &mut groups) {
                report.add(error.to_string());
                continue;
            }
            for group in 0..groups.len() {
                let row = file.first_row(block) + group as u64 + 1;
                let wrong =
                    |what: String| Error::content(&path, format!("row {row}: {what}")).to_string();
                for what in self.group(split, part, &groups, group) {
                    report.add(wrong(what));
                }
            }
            self.count(split, &groups, report);
        }
    }

    /// What is wrong with one group.
    fn group(
        &mut self,
        split: SplitName,
        part: usize,
        groups: &Groups,
        group: usize,
    ) -> Vec<String> {
        let card = self.dataset.card();
        let mut wrong = Vec::new();
        let user = groups.users[group];
        self.users.insert(user);
        let home = part_of(user.0, card.parts);
        if home != part {
            wrong.push(format!("`{USER}` belongs to part {home:02}"));
        }
        let behaviors = groups.behaviors.range(group);
        if behaviors.len() > card.max_behaviors {
            let most = card.max_behaviors;
            wrong.push(format!("{} behaviors; the card says at most {most}", behaviors.len()));
        }
        let impressions = groups.impressions.range(group);
        let times = &groups.times[impressions.clone()];
        wrong.extend(self.side(split, user, times));
        if split == SplitName::Train {
            wrong.extend(self.held("behavior", groups, Side::Behavior, behaviors.clone()));
            wrong.extend(self.held("impression", groups, Side::Ad, impressions.clone()));
        }
        wrong.extend(self.known("behavior", groups, Side::Behavior, behaviors));
        wrong.extend(self.known("impression", groups, Side::Ad, impressions));
        wrong
    }

    /// Whether impressions at these times stand on the right side of the split.
    fn side(&mut self, split: SplitName, user: Id, times: &[i64]) -> Option<String> {
        let (first, last) = (*times.first()?, *times.last()?);
        match (&self.dataset.card().split, split) {
            (Split::Time { test_from }, SplitName::Train) => (last >= *test_from).then(|| {
                format!("an impression at {last} in train; the test begins at {test_from}")
            }),
            (Split::Time { test_from }, SplitName::Test) => (first < *test_from)
                .then(|| format!("an impression at {first} in test, which begins at {test_from}")),
            (Split::UserTail { .. }, SplitName::Train) => {
                let newest = self.newest.entry(user).or_insert(last);
                *newest = last.max(*newest);
                None
            }
            (Split::UserTail { .. }, SplitName::Test) => {
                let newest = *self.newest.get(&user)?;
                (first <= newest).then(|| {
                    format!("an impression at {first} in test, but in train one at {newest}")
                })
            }
        }
    }

    /// Whether the items of some rows are in the catalogue, with the same picture.
    fn known(
        &self,
        what: &str,
        groups: &Groups,
        side: Side,
        rows: std::ops::Range<usize>,
    ) -> Option<String> {
        let items = self.items.as_ref()?;
        let field = self.dataset.schema().side(side).position(|field| field.name == ITEM)?;
        let (columns, pictures) = match side {
            Side::Behavior => (&groups.behavior_fields, &groups.behavior_pictures),
            _ => (&groups.ad_fields, &groups.ad_pictures),
        };
        let begin = rows.start;
        rows.into_iter().find_map(|row| {
            let number = row - begin + 1;
            match columns[field].row(row).first().map(|item| items.get(item)) {
                Some(Some(picture)) if *picture == pictures[row] => None,
                Some(Some(_)) => Some(format!("{what} {number} has another image than its item")),
                _ => Some(format!("the item of {what} {number} is not in the catalogue")),
            }
        })
    }

    /// Whether none of some rows of train has a held-out item.
    fn held(
        &self,
        what: &str,
        groups: &Groups,
        side: Side,
        rows: std::ops::Range<usize>,
    ) -> Option<String> {
        let field = self.dataset.schema().side(side).position(|field| field.name == ITEM)?;
        let columns =
            if side == Side::Behavior { &groups.behavior_fields } else { &groups.ad_fields };
        let held = |row: &usize| {
            columns[field].row(*row).first().is_some_and(|item| self.held_out.contains(item))
        };
        let number = rows.clone().find(held)? - rows.start + 1;
        Some(format!("the item of {what} {number} is held out of train"))
    }

    fn count(&mut self, split: SplitName, groups: &Groups, report: &mut CheckReport) {
        let counts = &mut report.counts;
        let impressions = groups.labels.len() as u64;
        counts.groups += groups.len() as u64;
        counts.impressions += impressions;
        counts.clicks += groups.labels.iter().map(|&label| u64::from(label)).sum::<u64>();
        match split {
            SplitName::Train => counts.train += impressions,
            SplitName::Test => counts.test += impressions,
        }
        let of =
            |group| groups.behaviors.range(group).len() * groups.impressions.range(group).len();
        self.behaviors += (0..groups.len()).map(|group| of(group) as u64).sum::<u64>();
    }

    fn end_part(&mut self, report: &mut CheckReport) {
        report.counts.users += self.users.len() as u64;
        self.users.clear();
        self.newest.clear();
    }

    fn hold_counts(&self, report: &mut CheckReport) {
        let impressions = report.counts.impressions.max(1);
        report.counts.behaviors_mean = self.behaviors as f64 / impressions as f64;
        let (found, card) = (report.counts.clone(), &self.dataset.card().counts);
        let pairs = [
            ("users", found.users, card.users),
            ("items", found.items, card.items),
            ("items_with_image", found.items_with_image, card.items_with_image),
            ("items_held_out", found.items_held_out, card.items_held_out),
            ("groups", found.groups, card.groups),
            ("impressions", found.impressions, card.impressions),
            ("clicks", found.clicks, card.clicks),
            ("train", found.train, card.train),
            ("test", found.test, card.test),
        ];
        for (name, found, expected) in
            pairs.into_iter().filter(|(_, found, expected)| found != expected)
        {
            report.add(format!("{name}: the files hold {found}, the card says {expected}"));
        }
        if (found.behaviors_mean - card.behaviors_mean).abs() > 1e-6 * card.behaviors_mean.max(1.0)
        {
            report.add(format!(
                "behaviors_mean: the files hold {}, the card says {}",
                found.behaviors_mean, card.behaviors_mean
            ));
        }
    }
}
