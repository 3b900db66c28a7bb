//! Beginning with the weights of another training (Section 6.5 of the paper: partial warm-up).
//!
//! Parameters are found by their names, so the other model may differ in those that are not taken
//! over. A row goes to the lane that owns it here; the number of lanes there does not matter.

use std::path::Path;

use ams_data::part_of;
use ams_model::params::Layout;

use crate::error::{Error, Result};
use crate::run::checkpoint::Checkpoint;
use crate::settings::WarmParts;
use crate::setup::network::Network;
use crate::step::Lanes;

/// Takes `parts` of the checkpoint in `path` over into new `lanes`; the steps that were taken
/// before, where these count.
///
/// # Errors
/// If the checkpoint is damaged, or has a part in another shape.
pub(crate) fn take(path: &Path, parts: WarmParts, lanes: &mut Lanes) -> Result<u64> {
    if parts == WarmParts::None {
        return Ok(0);
    }
    let checkpoint = Checkpoint::open(path)?;
    if parts == WarmParts::Training {
        return go_on(&checkpoint, lanes);
    }
    let there = Network::new(checkpoint.meta().spec.clone(), &checkpoint.meta().config.train, None);
    let weights = checkpoint.dense(there.dense_len())?;
    let Lanes { network, dense, .. } = lanes;
    if parts != WarmParts::Towers {
        let (from, to) = (there.rank.layout(), network.rank.layout());
        let (range, into) = (there.rank_range(), network.rank_range());
        copy("the network", from, &weights[range], to, &mut dense.w[into], path)?;
    }
    for (_, tower) in network.trained() {
        let name = &tower.spec.name;
        let Some(same) = there.towers.iter().find(|other| other.spec.name == *name) else {
            return Err(Error::content(path, format!("has no tower {name:?} for a warm start")));
        };
        let (from, to) = (same.model.layout(), tower.model.layout());
        let into = &mut dense.w[tower.range.clone()];
        copy(&format!("tower {name}"), from, &weights[same.range.clone()], to, into, path)?;
    }
    if parts == WarmParts::All {
        take_rows(&checkpoint, &there, lanes)?;
    }
    Ok(0)
}

/// Takes all of a checkpoint over; its steps.
fn go_on(checkpoint: &Checkpoint, lanes: &mut Lanes) -> Result<u64> {
    let meta = checkpoint.meta();
    let (was, is) = (meta.config.train.lanes, lanes.topology.lanes());
    let what = if meta.spec != lanes.network.spec {
        "is of another model, or of other image features or edges of numbers".to_owned()
    } else if was != is {
        format!("has {was} lanes, expected {is}")
    } else {
        checkpoint.restore(lanes)?;
        return Ok(meta.cursor.step);
    };
    let what =
        format!("{what}, so no training can go on from it; set train.warm_start.parts = \"all\"");
    Err(Error::content(checkpoint.path(), what))
}

/// Copies every parameter by its name.
fn copy(
    what: &str,
    from: &Layout,
    values: &[f32],
    to: &Layout,
    into: &mut [f32],
    path: &Path,
) -> Result<()> {
    for entry in &to.entries {
        let same = from.entries.iter().find(|other| other.name == entry.name);
        let Some(same) = same.filter(|other| other.shape == entry.shape) else {
            let found = same.map_or("none".to_owned(), |other| format!("{:?}", other.shape));
            let text = format!(
                "cannot be used for a warm start: parameter {} of {what} has shape {found}, expected {:?}",
                entry.name, entry.shape
            );
            return Err(Error::content(path, text));
        };
        into[entry.view.offset..][..entry.view.len]
            .copy_from_slice(&values[same.view.offset..][..same.view.len]);
    }
    Ok(())
}

/// Copies the rows that the local lanes own with their sightings, without their optimizer state.
fn take_rows(checkpoint: &Checkpoint, there: &Network, lanes: &mut Lanes) -> Result<()> {
    let dim = lanes.network.spec.dim();
    if there.spec.dim() != dim {
        let what = format!("has rows of {} numbers, expected {dim}", there.spec.dim());
        return Err(Error::content(checkpoint.path(), what));
    }
    let row = [1 + there.rows.states(), dim];
    let (all, local) = (lanes.topology.lanes(), lanes.topology.local());
    for lane in 0..checkpoint.meta().config.train.lanes {
        let rows = checkpoint.rows(lane, row)?;
        let each = rows.ids.iter().zip(rows.rows.chunks_exact(row[0] * dim)).enumerate();
        for (at, (&id, state)) in each {
            let owner = part_of(id, all);
            if local.contains(&owner) {
                lanes.take_over(owner - local.start, id, &state[..dim], rows.sighting(at));
            }
        }
    }
    Ok(())
}
