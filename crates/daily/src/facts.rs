//! What a day's part of a log is like.

use std::collections::BTreeMap;

use ams_bundle::{Predictions, Result};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::schema::ITEM;
use ams_data::{Groups, Id, PictureName, Ragged, SampleFile, Side};
use ams_model::metrics::{auc, calibration};
use hashbrown::HashSet;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::day::Day;

/// Numbers of the impressions of one day, by which days are held against one another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// Number of rows of the log, those that are left out or given twice included.
    pub rows: u64,
    /// Number of impressions.
    pub impressions: u64,
    /// Number of clicks.
    pub clicks: u64,
    /// Number of users.
    pub users: u64,
    /// Share of the impressions whose item has none on an earlier day.
    pub new_items: f64,
    /// Share of the impressions whose item has a picture.
    pub pictures: f64,
    /// Share of the pictures encoded on earlier days that are another picture by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pictures_changed: Option<f64>,
    /// Share of the impressions without a value, by field; fields of behaviors are those of ads.
    pub missing: BTreeMap<String, f64>,
    /// AUC of the model that serves, which has not learned from this day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auc: Option<f64>,
    /// Clicks that model predicts, over clicks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<f64>,
}

/// What is counted in one file.
#[derive(Default)]
struct Counted {
    impressions: u64,
    clicks: u64,
    with_picture: u64,
    users: HashSet<Id>,
    earlier: HashSet<Id>,
    /// The item of each impression of the day.
    items: Vec<Id>,
    /// Impressions without a value, by field.
    missing: Vec<u64>,
}

impl Facts {
    /// The numbers of `day` in `dataset`, which holds it with earlier days; `has_picture` says
    /// whether a picture's name has a picture. Rows, changed pictures and what a model says are the
    /// caller's to add.
    ///
    /// # Errors
    /// If samples cannot be read.
    pub fn of(
        dataset: &Dataset,
        day: Day,
        has_picture: &(dyn Fn(PictureName) -> bool + Sync),
    ) -> Result<Facts> {
        let parts = dataset.card().parts;
        let files: Vec<_> = SplitName::ALL
            .iter()
            .flat_map(|&split| (0..parts).map(move |part| dataset.part_path(split, part)))
            .collect();
        let each = files.par_iter().with_max_len(1).map(|path| {
            let mut counted = Counted::default();
            let file = SampleFile::open(path, dataset.schema())?;
            for block in 0..file.blocks() {
                let mut groups = Groups::new(dataset.schema());
                file.read(block, &mut groups)?;
                count(&groups, dataset, day, has_picture, &mut counted);
            }
            Ok(counted)
        });
        let each: Vec<Result<Counted>> = each.collect();
        let mut all = Counted { missing: vec![0; names(dataset).len()], ..Counted::default() };
        for counted in each {
            let counted = counted?;
            all.impressions += counted.impressions;
            all.clicks += counted.clicks;
            all.with_picture += counted.with_picture;
            all.users.extend(counted.users);
            all.earlier.extend(counted.earlier);
            all.items.extend(counted.items);
            all.missing.iter_mut().zip(counted.missing).for_each(|(to, from)| *to += from);
        }
        let new = all.items.iter().filter(|item| !all.earlier.contains(*item)).count() as u64;
        let share = |part: u64| part as f64 / all.impressions.max(1) as f64;
        let missing = names(dataset).into_iter().zip(all.missing.iter().map(|&of| share(of)));
        Ok(Facts {
            impressions: all.impressions,
            clicks: all.clicks,
            users: all.users.len() as u64,
            new_items: share(new),
            pictures: share(all.with_picture),
            missing: missing.collect(),
            ..Facts::default()
        })
    }

    /// Adds what the model that serves says to the day: `predictions` are its own, of that day.
    pub fn add_model(&mut self, predictions: &Predictions) {
        self.auc = auc(&predictions.logits, &predictions.labels);
        self.calibration = calibration(&predictions.logits, &predictions.labels);
    }

    /// Share of the impressions that were clicked.
    pub fn click_rate(&self) -> f64 {
        self.clicks as f64 / self.impressions.max(1) as f64
    }

    /// Impressions of a user, in the mean.
    pub fn per_user(&self) -> f64 {
        self.impressions as f64 / self.users.max(1) as f64
    }

    /// Rows of the log for each impression.
    pub fn rows_per_impression(&self) -> f64 {
        self.rows as f64 / self.impressions.max(1) as f64
    }
}

/// The fields that are counted.
fn names(dataset: &Dataset) -> Vec<String> {
    let sides = [Side::User, Side::Ad, Side::Context];
    let of = |side| dataset.schema().side(side).map(|field| field.name.clone());
    sides.into_iter().flat_map(of).collect()
}

fn count(
    groups: &Groups,
    dataset: &Dataset,
    day: Day,
    has_picture: &(dyn Fn(PictureName) -> bool + Sync),
    to: &mut Counted,
) {
    let item = dataset.schema().side(Side::Ad).position(|field| field.name == ITEM);
    let items = &groups.ad_fields[item.expect("every schema has the ad's item")];
    let fields = groups.user_fields.len() + groups.ad_fields.len() + groups.context_fields.len();
    to.missing.resize(fields, 0);
    let lacks = |column: &Ragged<Id>, row: usize| u64::from(column.row(row).is_empty());
    for group in 0..groups.len() {
        for row in groups.impressions.range(group) {
            let shown = Day::of(groups.times[row]);
            let item = items.row(row).first().copied().unwrap_or(Id(0));
            if shown < day {
                to.earlier.insert(item);
            }
            if shown != day {
                continue;
            }
            to.impressions += 1;
            to.clicks += u64::from(groups.labels[row]);
            to.with_picture += u64::from(has_picture(groups.ad_pictures[row]));
            to.users.insert(groups.users[group]);
            to.items.push(item);
            let user = groups.user_fields.iter().map(|column| lacks(column, group));
            let ad = groups.ad_fields.iter().chain(&groups.context_fields);
            let lacking = user.chain(ad.map(|column| lacks(column, row)));
            to.missing.iter_mut().zip(lacking).for_each(|(to, lacks)| *to += lacks);
        }
    }
}
