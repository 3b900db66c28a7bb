//! What a bundle predicts for the impressions of some time.

use std::ops::Range;

use ams_bundle::{Model, Predictions, Result, Sampling, Scratch};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::schema::ITEM;
use ams_data::{Groups, Id, SampleFile, Side};
use rayon::prelude::*;

/// The predictions of `model` for the impressions of `dataset` whose time is in `times` (Unix
/// seconds), in the order of the files, whatever the number of threads. Numbers are read as the
/// model reads them.
///
/// Logits are calibrated, as those of the rates that the model serves, and then those of the
/// dataset, which holds of the log what `sampling` says: its labels judge them.
///
/// # Errors
/// If samples cannot be read, or lack a field of the model.
pub fn predict(
    model: &Model,
    dataset: &Dataset,
    sampling: Sampling,
    times: Range<i64>,
) -> Result<Predictions> {
    let files: Vec<_> = SplitName::ALL
        .iter()
        .flat_map(|&split| (0..dataset.card().parts).map(move |part| (split, part)))
        .map(|(split, part)| dataset.part_path(split, part))
        .collect();
    let each = files.par_iter().with_max_len(1).map(|path| {
        let mut found = Predictions::default();
        let mut scratch = Scratch::default();
        let file = SampleFile::open(path, &model.spec().fields)?;
        for block in 0..file.blocks() {
            let mut groups = Groups::new(&model.spec().fields);
            file.read(block, &mut groups)?;
            let groups = of_times(&groups, &times, model);
            add(model, &groups, &times, &mut scratch, &mut found);
        }
        Ok(found)
    });
    let each: Vec<Result<Predictions>> = each.collect();
    let mut all = Predictions::default();
    for found in each {
        all.extend(found?);
    }
    if let Some(calibration) = model.calibration() {
        calibration.apply(&mut all.logits);
    }
    if sampling != Sampling::default() {
        let shift = sampling.shift();
        all.logits.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - shift) as f32);
    }
    Ok(all)
}

/// The groups with an impression in `times`.
fn of_times(groups: &Groups, times: &Range<i64>, model: &Model) -> Groups {
    let mut some = Groups::new(&model.spec().fields);
    for group in 0..groups.len() {
        if groups.impressions.range(group).any(|row| times.contains(&groups.times[row])) {
            some.push_from(groups, group);
        }
    }
    some
}

fn add(
    model: &Model,
    groups: &Groups,
    times: &Range<i64>,
    scratch: &mut Scratch,
    found: &mut Predictions,
) {
    if groups.is_empty() {
        return;
    }
    let mut logits = Vec::new();
    model.score_groups(groups, scratch, &mut logits);
    let item = model.spec().fields.side(Side::Ad).position(|field| field.name == ITEM);
    let items = &groups.ad_fields[item.expect("every schema has the ad's item")];
    for group in 0..groups.len() {
        let behaviors = groups.behaviors.range(group).len() as u32;
        for row in groups.impressions.range(group) {
            if !times.contains(&groups.times[row]) {
                continue;
            }
            found.users.push(groups.users[group].0);
            found.items.push(items.row(row).first().copied().unwrap_or(Id(0)).0);
            found.labels.push(groups.labels[row]);
            found.logits.push(logits[row]);
            found.behaviors.push(behaviors);
            found.with_image.push(model.image(groups.ad_pictures[row]).is_some());
            found.times.push(groups.times[row]);
        }
    }
}
